/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * io_uring without its library, as little of it as the benches need.
 */
#ifndef KEVENT_BENCH_RING_H
#define KEVENT_BENCH_RING_H

#include <linux/io_uring.h>

#include "../kernel/lib.h"

/* Ways to set one up: as it comes, and with completions left to who waits. */
#define RING_PLAIN	0
#define RING_DEFER	(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)
/* With room for four completions of each entry. */
#define RING_LARGE	IORING_SETUP_CQSIZE

struct ring {
	int fd;
	unsigned int flags;
	unsigned int prepared;	/* requests not yet submitted */
	void *words;
	size_t words_size;
	unsigned int *sq_tail, *sq_array, sq_mask;
	unsigned int *cq_head, *cq_tail, cq_mask;
	struct io_uring_sqe *sqes;
	size_t sqes_size;
	struct io_uring_cqe *cqes;
	/* buffers for it to choose from */
	struct io_uring_buf_ring *buffers;
	unsigned int buffer_mask;
	uint16_t buffer_tail;
};

struct completion {
	int result;
	unsigned int flags;
};

/* false: this kernel has no such ring */
bool ring_open(struct ring *ring, unsigned int entries, unsigned int flags);
void ring_close(struct ring *ring);

/* The next request, all zero but for these two. */
struct io_uring_sqe *ring_prepare(struct ring *ring, int op, int fd);
/* Submits what was prepared, and returns when there are @wait completions. */
void ring_enter(struct ring *ring, unsigned int wait);
/* Completions that lie there. */
unsigned int ring_ready(const struct ring *ring);
/* Takes one completion, by one more call where there is none yet. */
struct completion ring_take(struct ring *ring);

/* @nr buffers, a power of 2, of @size bytes each: group 0. */
bool ring_give_buffers(struct ring *ring, char *memory, unsigned int nr,
		       size_t size);
/* One of them back. */
void ring_give(struct ring *ring, void *at, size_t size, unsigned int id);

#endif /* KEVENT_BENCH_RING_H */
