/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kevent and epoll behind one face, so that both are given the same work, and
 * the little of io_uring that compares with them.
 */
#ifndef KEVENT_BENCH_BACKEND_H
#define KEVENT_BENCH_BACKEND_H

#include <stdbool.h>

#include "measure.h"

enum mode { LEVEL, EDGE, DISPATCH, ONE_SHOT };

struct backend {
	enum column column;
	int (*open)(void);
	/* @sock: by KEVENT_SOCKET, else by KEVENT_POLL; the same to epoll */
	void (*add)(int q, int fd, enum mode mode, bool sock);
	void (*modify)(int q, int fd, enum mode mode, bool sock);
	void (*del)(int q, int fd, bool sock);
	/* As many as one call takes, which for epoll is one. */
	void (*add_many)(int q, const int *fd, unsigned int nr, bool sock);
	void (*rearm_many)(int q, const int *fd, unsigned int nr, bool sock);
	void (*del_many)(int q, const int *fd, unsigned int nr, bool sock);
	/* Up to @max events; waits for the first where @block. */
	int (*wait)(int q, unsigned int max, bool block);
};

extern const struct backend kevent_backend;
extern const struct backend epoll_backend;

/* The events of one wait at most. */
#define MAX_EVENTS	256U

/* kevent only: re-arms all of them and waits, in one call. */
int kevent_rearm_and_wait(int q, const int *fd, unsigned int nr, bool sock);
/* kevent only: a timer by MODIFY, and a posting. */
void kevent_set_timer(int q, uint64_t ident, uint64_t ns);
void kevent_post_one(int q, uint64_t ident);

/* Poll requests that stay, on a ring of their own; false: not on this kernel */
bool uring_watch(const int *fd, unsigned int nr);
/* Takes what there is out of the ring; waits for the first where @block. */
unsigned int uring_reap(bool block);
void uring_close(void);

#endif /* KEVENT_BENCH_BACKEND_H */
