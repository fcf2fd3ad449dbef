/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transfers between the two ends of TCP connections on the loopback, each in
 * several ways; see naio_bench.c.
 */
#ifndef KEVENT_BENCH_NAIO_H
#define KEVENT_BENCH_NAIO_H

#include "measure.h"
#include "ring.h"

/* NONE is told, but in no column. */
enum naio_column { NAIO_KEVENT, NAIO_URING, NAIO_SYNC, NAIO_NONE };

#define MAX_LINKS	64U
#define MAX_SIZE	(1U << 20)

/*
 * What one way to do a row works on.  The measured end of link i is near[i],
 * its peer far[i].  @rounds: in one repetition.
 */
struct transfer {
	unsigned int nr;
	size_t size;
	unsigned int rounds;
	int near[MAX_LINKS];
	int far[MAX_LINKS];
	char *in;		/* MAX_SIZE bytes, or @size for each link */
	char *out;
	int q;
	bool has_naio;		/* the module that is loaded */
	unsigned int turn;
	struct ring ring;
	int epoll;
	int file;
	int pipe[2];
};

/*
 * One way.  @start is false where this kernel or module has no such thing; then
 * nothing else is called.  @round is what is counted.
 */
struct way {
	enum naio_column column;
	const char *label;
	bool (*start)(struct transfer *t);
	void (*round)(struct transfer *t);
	void (*end)(struct transfer *t);
	bool wakes;		/* another thread does a part of the work */
};

#define MAX_WAYS	6

struct naio_row {
	const char *name;
	size_t size;
	unsigned int links;	/* 0: one */
	unsigned int rounds;	/* 0: the usual number */
	const struct way *ways;	/* up to one without a round */
};

/* naio_bench.c: the other side's part, which is the same in all columns */
void peer_sends(const struct transfer *t, unsigned int link);
/* Takes @size bytes, and throws them away. */
void peer_takes(const struct transfer *t, size_t size);

/* naio_recv.c */
extern const struct way recv_armed[], recv_at_hand[], recv_multishot[];
/* naio_batch.c */
extern const struct way batch_armed[], batch_at_hand[], batch_multishot[];
extern const struct way batch_epoll[];
/* naio_send.c */
extern const struct way send_ways[], sendfile_ways[], sendfile_prefix_ways[];

/* A ring, and the descriptors and memory as they are: for ways of io_uring. */
bool start_plain(struct transfer *t);
bool start_defer(struct transfer *t);
void end_ring(struct transfer *t);
/* A queue is there always; whether the module has transfers. */
bool start_kevent(struct transfer *t);
bool start_nothing(struct transfer *t);

#endif /* KEVENT_BENCH_NAIO_H */
