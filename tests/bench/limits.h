/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crowds of kevents of one kind in one queue, what they take, and their end.
 */
#ifndef KEVENT_BENCH_LIMITS_H
#define KEVENT_BENCH_LIMITS_H

#include <stdbool.h>

#include "measure.h"

#define CALLS	16	/* in one repetition */

enum crowd_kind { USERS, TIMERS, EVENTFDS, SOCKETS, INODES, PATHS, RECEIVES,
		  CROWD_KINDS };

extern const char *const crowd_names[CROWD_KINDS];

/*
 * @fd: what is watched, with some more; @extra: numbers beyond the crowd's, or
 * the indices of these files
 */
struct crowd {
	enum crowd_kind kind;
	bool epoll;
	int q;
	unsigned int nr;
	unsigned int room;
	int *fd;
	unsigned int extra[CALLS];
	unsigned int ready;
};

/* Room for @room kevents, all files made; the queue is empty. */
void crowd_open(struct crowd *c, enum crowd_kind kind, unsigned int room,
		bool epoll);
void crowd_grow(struct crowd *c, unsigned int nr);
/* All but the queue. */
void crowd_close(struct crowd *c);
/* One ADD or REMOVE of number @i. */
void crowd_change(struct crowd *c, unsigned int nr, unsigned int i);
/* Another file in the place of one that was closed. */
void crowd_renew(struct crowd *c, unsigned int i);
void crowd_make_ready(struct crowd *c, unsigned int i);
void crowd_wait(struct crowd *c);
void crowd_make_idle(struct crowd *c);

/* Closes the queue, and adds rows: how long it took, what it did to others. */
void tear_down(struct crowd *c);

struct memory {
	uint64_t available;
	uint64_t slab;		/* of the module's caches */
};

void memory_now(struct memory *m);
double memory_each(const struct memory *before, const struct memory *after,
		   unsigned int nr);
double memory_slab_each(const struct memory *before,
			const struct memory *after, unsigned int nr);

const char *row_name(const char *what, const struct crowd *c, unsigned int nr);

#endif /* KEVENT_BENCH_LIMITS_H */
