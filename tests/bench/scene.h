/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the samples work on, and the groups of rows that there are.
 */
#ifndef KEVENT_BENCH_SCENE_H
#define KEVENT_BENCH_SCENE_H

#include "backend.h"

#define CALLS	16	/* in one repetition, where one alone is short */

extern const struct backend *const backends[2];

/* Some eventfds or UNIX sockets, in one queue. */
struct scene {
	const struct backend *b;
	int q;
	unsigned int nr;
	int fd[MAX_EVENTS];
	int peer[MAX_EVENTS];
	bool sock;
	bool level;
	bool made;		/* count the writes as well */
};

/* All in a queue of @b; without one where @b is NULL. */
struct scene *scene_new(const struct backend *b, unsigned int nr,
			enum mode mode, bool sock);
void scene_free(struct scene *s);
/* One write to each, and one read from each. */
void make_ready(const struct scene *s);
void drain(const struct scene *s);

/* deliver.c */
void nothing_ready(void);
void deliver_level(bool sock);
/* @made: count the writes that make them ready as well */
void deliver_edge(bool sock, bool made);
void write_cost(void);
/* arming.c */
void arming(void);
void timers(void);
void posts(void);
/* crowd.c; the most sockets that it makes */
#define CROWD	10000U
void crowds(void);
void echoes(void);

#endif /* KEVENT_BENCH_SCENE_H */
