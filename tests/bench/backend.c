// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The calls themselves, with as little around them as can be: what is done here
 * is counted.
 */
#include "backend.h"
#include "ring.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

/* kevent */

static struct {
	struct kevent_batch head;
	struct kevent_request req[MAX_EVENTS];
} batch;

static struct {
	struct kevent_wait head;
	struct kevent_event ev[MAX_EVENTS];
} result = { .head.clock = CLOCK_MONOTONIC };

static struct {
	struct kevent_wait head;
	struct kevent_request req[MAX_EVENTS];
	/* as many records as the size leaves room for */
	struct kevent_event ev[1];
} both;

static void fill(struct kevent_request *req, int fd, enum mode mode, bool sock)
{
	static const uint32_t flags[] = {
		[LEVEL] = 0, [EDGE] = KEVENT_EDGE,
		[DISPATCH] = KEVENT_DISPATCH, [ONE_SHOT] = KEVENT_ONESHOT,
	};

	req->ident = (uint64_t)fd;
	req->cookie = (uint64_t)fd;
	req->type = sock ? KEVENT_SOCKET : KEVENT_POLL;
	req->flags = flags[mode];
	req->events = POLLIN;
}

static void fill_remove(struct kevent_request *req, int fd, bool sock)
{
	req->ident = (uint64_t)fd;
	req->cookie = 0;
	req->type = sock ? KEVENT_SOCKET : KEVENT_POLL;
	req->flags = 0;
	req->events = 0;
}

static void apply(int q, unsigned int nr, unsigned int count)
{
	batch.head.count = count;
	CHECK(ioctl(q, KEVENT_IOC_BATCH(nr, count), &batch) == (int)count);
}

static void kevent_add(int q, int fd, enum mode mode, bool sock)
{
	fill(&batch.req[0], fd, mode, sock);
	apply(q, KEVENT_IOC_NR_ADD, 1);
}

static void kevent_modify(int q, int fd, enum mode mode, bool sock)
{
	fill(&batch.req[0], fd, mode, sock);
	apply(q, KEVENT_IOC_NR_MODIFY, 1);
}

static void kevent_del(int q, int fd, bool sock)
{
	fill_remove(&batch.req[0], fd, sock);
	apply(q, KEVENT_IOC_NR_REMOVE, 1);
}

static void kevent_add_many(int q, const int *fd, unsigned int nr, bool sock)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		fill(&batch.req[i], fd[i], LEVEL, sock);
	apply(q, KEVENT_IOC_NR_ADD, nr);
}

static void kevent_rearm_many(int q, const int *fd, unsigned int nr, bool sock)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		fill(&batch.req[i], fd[i], DISPATCH, sock);
	apply(q, KEVENT_IOC_NR_MODIFY, nr);
}

static void kevent_del_many(int q, const int *fd, unsigned int nr, bool sock)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		fill_remove(&batch.req[i], fd[i], sock);
	apply(q, KEVENT_IOC_NR_REMOVE, nr);
}

static int kevent_wait(int q, unsigned int max, bool block)
{
	result.head.min = block;
	result.head.max = max;
	result.head.timeout = block ? KEVENT_WAIT_FOREVER : 0;
	return ioctl(q, KEVENT_IOC_WAIT(max), &result);
}

const struct backend kevent_backend = {
	.column = KEVENT_COLUMN,
	.open = queue_open,
	.add = kevent_add,
	.modify = kevent_modify,
	.del = kevent_del,
	.add_many = kevent_add_many,
	.rearm_many = kevent_rearm_many,
	.del_many = kevent_del_many,
	.wait = kevent_wait,
};

int kevent_rearm_and_wait(int q, const int *fd, unsigned int nr, bool sock)
{
	unsigned int i;

	both.head.nr_changes = nr;
	both.head.min = 1;
	both.head.max = 1;
	both.head.timeout = KEVENT_WAIT_FOREVER;
	both.head.clock = CLOCK_MONOTONIC;
	for (i = 0; i < nr; i++) {
		fill(&both.req[i], fd[i], DISPATCH, sock);
		both.req[i].op = KEVENT_OP_MODIFY;
	}
	return ioctl(q, KEVENT_IOC_CHANGE_WAIT(nr, 1), &both);
}

void kevent_set_timer(int q, uint64_t ident, uint64_t ns)
{
	batch.req[0] = timer_request(ident, ns, 0, 0, 0);
	apply(q, KEVENT_IOC_NR_MODIFY, 1);
	memset(batch.req[0].param, 0, sizeof(batch.req[0].param));
}

void kevent_post_one(int q, uint64_t ident)
{
	static struct {
		struct kevent_batch head;
		struct kevent_post post;
	} arg = { .head.count = 1 };

	arg.post.ident = ident;
	CHECK(ioctl(q, KEVENT_IOC_POST(1), &arg) == 1);
}

/* epoll */

static struct epoll_event events[MAX_EVENTS];

static int epoll_open(void)
{
	return (int)SYS(epoll_create1(EPOLL_CLOEXEC));
}

static void epoll_change(int q, int op, int fd, enum mode mode)
{
	static const uint32_t flags[] = {
		[LEVEL] = 0, [EDGE] = EPOLLET,
		[DISPATCH] = EPOLLONESHOT, [ONE_SHOT] = EPOLLONESHOT,
	};
	struct epoll_event ev = {
		.events = EPOLLIN | flags[mode], .data.fd = fd,
	};

	CHECK(!epoll_ctl(q, op, fd, &ev));
}

static void epoll_add(int q, int fd, enum mode mode, bool sock)
{
	(void)sock;
	epoll_change(q, EPOLL_CTL_ADD, fd, mode);
}

static void epoll_modify(int q, int fd, enum mode mode, bool sock)
{
	(void)sock;
	epoll_change(q, EPOLL_CTL_MOD, fd, mode);
}

static void epoll_del(int q, int fd, bool sock)
{
	(void)sock;
	epoll_change(q, EPOLL_CTL_DEL, fd, LEVEL);
}

static void epoll_add_many(int q, const int *fd, unsigned int nr, bool sock)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		epoll_add(q, fd[i], LEVEL, sock);
}

static void epoll_rearm_many(int q, const int *fd, unsigned int nr, bool sock)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		epoll_modify(q, fd[i], DISPATCH, sock);
}

static void epoll_del_many(int q, const int *fd, unsigned int nr, bool sock)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		epoll_del(q, fd[i], sock);
}

static int epoll_wait_for(int q, unsigned int max, bool block)
{
	return epoll_wait(q, events, (int)max, block ? -1 : 0);
}

const struct backend epoll_backend = {
	.column = EPOLL_COLUMN,
	.open = epoll_open,
	.add = epoll_add,
	.modify = epoll_modify,
	.del = epoll_del,
	.add_many = epoll_add_many,
	.rearm_many = epoll_rearm_many,
	.del_many = epoll_del_many,
	.wait = epoll_wait_for,
};

/* io_uring: one ring, multishot polls */

static struct ring ring;

bool uring_watch(const int *fd, unsigned int nr)
{
	unsigned int i;

	if (!ring_open(&ring, nr, RING_LARGE))
		return false;
	for (i = 0; i < nr; i++) {
		struct io_uring_sqe *sqe;

		sqe = ring_prepare(&ring, IORING_OP_POLL_ADD, fd[i]);
		sqe->poll32_events = POLLIN;
		sqe->len = IORING_POLL_ADD_MULTI;
		sqe->user_data = (uint64_t)fd[i];
	}
	ring_enter(&ring, 0);
	return true;
}

unsigned int uring_reap(bool block)
{
	unsigned int at = *ring.cq_head, nr = ring_ready(&ring), i;

	if (!nr && block) {
		ring_enter(&ring, 1);
		nr = ring_ready(&ring);
	}
	for (i = 0; i < nr; i++, at++)
		CHECK(ring.cqes[at & ring.cq_mask].res > 0 &&
		      ring.cqes[at & ring.cq_mask].flags & IORING_CQE_F_MORE);
	__atomic_store_n(ring.cq_head, at, __ATOMIC_RELEASE);
	return nr;
}

void uring_close(void)
{
	ring_close(&ring);
}
