/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transfers, one or some at a time, and rounds of them against what ends them.
 */
#ifndef KEVENT_TESTS_LIB_MOVES_H
#define KEVENT_TESTS_LIB_MOVES_H

#include "lib.h"

/* One transfer and how it ended. */
struct transfer {
	uint64_t ident;		/* its cookie, too */
	uint32_t events;
	char *buffer;
	uint64_t offset;	/* in the file, where one is sent */
	uint64_t length;
	uint64_t most;		/* bytes that it moves where nothing ends it early */
	bool ended;
	int error;
	uint64_t moved;
};

/* 0 or -errno; @at and @size are parameters of the request. */
int transfer_begin(int q, int sock, struct transfer *t, uint32_t flags,
		   const void *at, size_t size);
void transfer_ended(struct transfer *t, const struct kevent_event *ev);
/* Removes it: true where it was there, and is ended by this. */
bool transfer_cancel(int q, struct transfer *t);
/* The event of the only transfer that there is. */
void transfer_wait(int q, struct transfer *t);

/* Byte number @pos of a stream, or of a file. */
static inline char pattern(uint64_t pos)
{
	return (char)(pos * 167 + (pos >> 8) * 13 + (pos >> 16));
}

#define TRANSFERS	16

/* So many of one queue, by the first of two sockets. */
struct moves {
	int q;
	int fd[2];		/* -1: closed */
	struct transfer t[TRANSFERS];
	struct rnd rnd;
	unsigned int cancelled;
	unsigned int told;
	/* New sockets, and a new transfer that has its number: 0 or -errno. */
	void (*pair)(int fd[2]);
	int (*begin)(struct moves *m, struct transfer *t);
	size_t feed;		/* not 0: the peer sends, so much where all have begun */
	char *mem;		/* what receives write to */
	size_t size;
};

void moves_begin(struct moves *m);
/* Cancels some, any number of times, and waits for the others: each ends once. */
void moves_end(struct moves *m);

/* Rounds in which @end runs on another thread while some are cancelled. */
void race_sockets(struct moves *m, void (*end)(struct moves *m),
		  unsigned int total);
/* What may run there. */
void close_near(struct moves *m);
void reset_far(struct moves *m);
void close_both(struct moves *m);
/* The queue is closed, or the process killed, while the peer moves bytes. */
void race_queues(struct moves *m, unsigned int total);
void race_deaths(struct moves *m, unsigned int total);

#endif /* KEVENT_TESTS_LIB_MOVES_H */
