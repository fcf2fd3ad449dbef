// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A message to each of many connections, all received together: as few calls as
 * each way needs.
 */
#include "naio.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void all_send(const struct transfer *t)
{
	unsigned int i;

	for (i = 0; i < t->nr; i++)
		peer_sends(t, i);
}

/* epoll, and a recv(2) for each that it tells of */

static bool epoll_start(struct transfer *t)
{
	unsigned int i;

	t->epoll = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	for (i = 0; i < t->nr; i++) {
		struct epoll_event ev = {
			.events = EPOLLIN, .data.fd = t->near[i],
		};

		SYS(epoll_ctl(t->epoll, EPOLL_CTL_ADD, t->near[i], &ev));
	}
	return true;
}

static void epoll_end(struct transfer *t)
{
	close(t->epoll);
}

static void epoll_round(struct transfer *t)
{
	struct epoll_event ev[MAX_LINKS];
	unsigned int i;

	all_send(t);
	CHECK(epoll_wait(t->epoll, ev, (int)t->nr, -1) == (int)t->nr);
	for (i = 0; i < t->nr; i++)
		CHECK(recv(ev[i].data.fd, t->in, t->size, 0) ==
		      (ssize_t)t->size);
}

/* kevent */

static struct {
	struct kevent_batch head;
	struct kevent_request req[MAX_LINKS];
} batch;

static struct {
	struct kevent_wait head;
	struct kevent_event ev[MAX_LINKS];
} result;

static void kevent_fill(struct transfer *t, uint32_t flags)
{
	unsigned int i;

	batch.head = (struct kevent_batch){ .count = t->nr };
	for (i = 0; i < t->nr; i++) {
		batch.req[i] = (struct kevent_request){
			.ident = i, .cookie = i, .type = KEVENT_NAIO,
			.flags = flags, .events = KEVENT_NAIO_RECV,
			.param = { (uintptr_t)t->in + i * t->size, t->size,
				   (uint64_t)t->near[i] },
		};
	}
	result.head = (struct kevent_wait){
		.min = 1, .max = t->nr, .timeout = FOREVER,
		.clock = CLOCK_MONOTONIC,
	};
}

static void kevent_add_all(struct transfer *t)
{
	CHECK(ioctl(t->q, KEVENT_IOC_ADD(t->nr), &batch) == (int)t->nr);
}

static void kevent_collect(struct transfer *t)
{
	unsigned int i;

	CHECK(ioctl(t->q, KEVENT_IOC_WAIT(t->nr), &result) == (int)t->nr);
	for (i = 0; i < t->nr; i++)
		CHECK(result.ev[i].data == t->size);
}

static bool kevent_batch_start(struct transfer *t)
{
	kevent_fill(t, 0);
	return start_kevent(t);
}

static bool kevent_batch_armed_start(struct transfer *t)
{
	if (!kevent_batch_start(t))
		return false;
	kevent_add_all(t);
	return true;
}

static void kevent_armed_round(struct transfer *t)
{
	all_send(t);
	kevent_collect(t);
	kevent_add_all(t);
}

static void kevent_at_hand_round(struct transfer *t)
{
	all_send(t);
	kevent_add_all(t);
	kevent_collect(t);
}

static bool kevent_batch_multishot_start(struct transfer *t)
{
	if (!start_kevent(t))
		return false;
	kevent_fill(t, KEVENT_MULTISHOT);
	if (ioctl(t->q, KEVENT_IOC_ADD(t->nr), &batch) == (int)t->nr)
		return true;
	CHECK_EQ(batch.req[0].result, -EINVAL);
	return false;
}

static void kevent_multishot_round(struct transfer *t)
{
	all_send(t);
	kevent_collect(t);
}

/* io_uring */

static void uring_submit(struct transfer *t, unsigned int wait)
{
	struct io_uring_sqe *sqe;
	unsigned int i;

	for (i = 0; i < t->nr; i++) {
		sqe = ring_prepare(&t->ring, IORING_OP_RECV, t->near[i]);
		sqe->addr = (uintptr_t)t->in + i * t->size;
		sqe->len = (uint32_t)t->size;
	}
	ring_enter(&t->ring, wait);
}

/* In one call, where one is needed. */
static void uring_collect(struct transfer *t)
{
	unsigned int i;

	if (ring_ready(&t->ring) < t->nr)
		ring_enter(&t->ring, t->nr);
	for (i = 0; i < t->nr; i++)
		CHECK(ring_take(&t->ring).result == (int)t->size);
}

static bool plain_armed_start(struct transfer *t)
{
	if (!start_plain(t))
		return false;
	uring_submit(t, 0);
	return true;
}

static bool defer_armed_start(struct transfer *t)
{
	if (!start_defer(t))
		return false;
	uring_submit(t, 0);
	return true;
}

static void uring_armed_round(struct transfer *t)
{
	all_send(t);
	uring_collect(t);
	uring_submit(t, 0);
}

static void uring_at_hand_round(struct transfer *t)
{
	all_send(t);
	uring_submit(t, t->nr);
	uring_collect(t);
}

static bool uring_multishot(struct transfer *t)
{
	struct io_uring_sqe *sqe;
	unsigned int i;

	if (!ring_give_buffers(&t->ring, t->in, MAX_LINKS, t->size))
		return false;
	for (i = 0; i < t->nr; i++) {
		sqe = ring_prepare(&t->ring, IORING_OP_RECV, t->near[i]);
		sqe->ioprio = IORING_RECV_MULTISHOT;
		sqe->flags = IOSQE_BUFFER_SELECT;
	}
	ring_enter(&t->ring, 0);
	return true;
}

static bool plain_multishot_start(struct transfer *t)
{
	return start_plain(t) && uring_multishot(t);
}

static bool defer_multishot_start(struct transfer *t)
{
	return start_defer(t) && uring_multishot(t);
}

static void uring_multishot_round(struct transfer *t)
{
	unsigned int i;

	all_send(t);
	if (ring_ready(&t->ring) < t->nr)
		ring_enter(&t->ring, t->nr);
	for (i = 0; i < t->nr; i++) {
		struct completion done = ring_take(&t->ring);
		unsigned int id = done.flags >> IORING_CQE_BUFFER_SHIFT;

		CHECK(done.result == (int)t->size &&
		      done.flags & IORING_CQE_F_MORE);
		ring_give(&t->ring, t->in + id * t->size, t->size, id);
	}
}

const struct way batch_armed[] = {
	{ NAIO_KEVENT, "WAIT, ADD", kevent_batch_armed_start,
	  kevent_armed_round, NULL, true },
	{ NAIO_URING, "plain ring", plain_armed_start, uring_armed_round,
	  end_ring, true },
	{ NAIO_URING, "deferred", defer_armed_start, uring_armed_round,
	  end_ring, true },
	{ .round = NULL },
};

const struct way batch_at_hand[] = {
	{ NAIO_KEVENT, "ADD, WAIT", kevent_batch_start,
	  kevent_at_hand_round, NULL, true },
	{ NAIO_URING, "plain ring", start_plain, uring_at_hand_round,
	  end_ring, true },
	{ NAIO_URING, "deferred", start_defer, uring_at_hand_round,
	  end_ring, true },
	{ .round = NULL },
};

const struct way batch_multishot[] = {
	{ NAIO_KEVENT, "WAIT", kevent_batch_multishot_start,
	  kevent_multishot_round, NULL, true },
	{ NAIO_URING, "plain ring", plain_multishot_start,
	  uring_multishot_round, end_ring, true },
	{ NAIO_URING, "deferred", defer_multishot_start,
	  uring_multishot_round, end_ring, true },
	{ .round = NULL },
};

const struct way batch_epoll[] = {
	{ NAIO_SYNC, "epoll_wait, recv", epoll_start, epoll_round,
	  epoll_end, false },
	{ .round = NULL },
};
