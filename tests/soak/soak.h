/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the soak share.  A stream is one source of numbered events;
 * a slot is one thread that consumes them.  All of it is in memory that every
 * process shares, the buffers of the calls too, so that it can be told of a
 * process that was killed at any moment what it had sent, and what had been
 * delivered to it: the kernel writes there how many records are good before it
 * calls them delivered.
 */
#ifndef KEVENT_SOAK_H
#define KEVENT_SOAK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "../kernel/lib.h"

#define MODES		4U	/* level, edge, dispatch, one-shot */
#define STREAMS		25U
#define WINDOW		512U	/* power of 2; half of it may be under way */
#define MAYBES		64U
#define CONSUMERS	3U
#define THREADS		2U	/* of each */
#define PRODUCERS	2U
#define SLOTS		(CONSUMERS * THREADS + 1)
#define CHANGES		8U
#define RECORDS		64U
/* Of transfers: places for what is received, and for what is sent, see stream.c. */
#define PLACES		1024U
#define SENDS		64U
#define SEND_WORDS	1024U

enum kind { USER, UNIX, UDP, TCP, INODE, ONCE, PERIODIC, RECEIVED, SENT, KINDS };

extern const char *const kind_names[KINDS];

struct message {
	uint32_t stream;
	_Atomic uint32_t seq;	/* 0: none */
};

/*
 * @low: the first number not seen yet; @sent: the last one that was sent;
 * @intent: the one that is being sent.  @seen has, by number, the number and
 * the delivery.  @maybe: those of which nobody knows whether they were sent.
 * @next: the place of the next transfer; @place, @sends: what they are to and from;
 * @arrived: words of the sent ones that have come to the other end.
 */
struct stream {
	enum kind kind;
	uint16_t type;
	uint32_t flags;
	uint64_t ident, interval, first;
	int fd[2];
	char dir[112];
	_Atomic uint32_t low, sent, intent, window;
	_Atomic uint64_t seen[WINDOW];
	_Atomic uint32_t maybe[MAYBES];
	unsigned int nr_maybes;
	_Atomic uint32_t next;
	struct message place[PLACES];
	uint32_t sends[SENDS][SEND_WORDS];
	uint64_t arrived;
	union {
		struct {
			struct kevent_batch head;
			struct kevent_post post;
		} post;
		struct {
			struct kevent_batch head;
			struct kevent_request req;
		} add;
	} call;
};

/*
 * @waiting: @call may hold events that are not accounted for.  @owed: streams
 * that this thread has to read from, or to arm, before they report again.
 * @expiries: of each periodic stream the sum, and the last call it is from.
 */
struct slot {
	struct {
		struct kevent_wait head;
		unsigned char rest[CHANGES * sizeof(struct kevent_request) +
				   RECORDS * sizeof(struct kevent_event)];
	} call;
	_Atomic bool waiting;
	_Atomic uint32_t owed;
	uint32_t waits, receptions;
	struct message msg;
	_Atomic uint64_t expiries[STREAMS];
	uint32_t nr_changes;
	uint32_t changed[CHANGES];	/* streams */
};

struct soak {
	int q;
	_Atomic bool stop;
	_Atomic uint32_t generation;
	struct stream stream[STREAMS];
	struct slot slot[SLOTS];
};

extern struct soak *soak;

/* stream.c */
void streams_open(struct rnd *rnd);
void streams_close(void);
/* The request that adds or arms a stream. */
struct kevent_request stream_request(struct stream *s);
void stream_arm(unsigned int i);
/* Puts straight what a producer that was killed may have left in between. */
void stream_settle(struct stream *s);
/* Moves @low as far as all was seen. */
void stream_advance(struct stream *s);
/* Number @seq of the stream was delivered, by @delivery. */
void stream_mark(struct stream *s, uint32_t seq, uint32_t delivery);
/* Takes what transfers have brought to the other end: each byte once, in order. */
void stream_collect(struct stream *s);
/* Does its share of sending until @stop; the body of a process. */
void produce(void *which);

/* consume.c */
/* The body of a process with THREADS slots. */
void consume(void *which);
/* All that a slot has in hand, after whoever had it was killed. */
void slot_recover(unsigned int i);
/* Delivers to a slot what there is now. */
void slot_drain(unsigned int i);

/* chaos.c: queues, files and threads that come and go until it is killed */
void chaos(void *which);

#endif /* KEVENT_SOAK_H */
