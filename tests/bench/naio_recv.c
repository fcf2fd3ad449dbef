// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Receiving what a peer sends, one connection: the send is counted as well, and
 * what the kernel does on its own between the two.
 *
 * A message may arrive in parts; each way takes part after part, by its own
 * means, until all of it is there.
 */
#include "naio.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFERS	8U

/* send(2) and recv(2) */

static void sync_round(struct transfer *t)
{
	size_t left = t->size;

	peer_sends(t, 0);
	do {
		ssize_t got = recv(t->near[0], t->in, left, 0);

		CHECK(got > 0);
		left -= (size_t)got;
	} while (left);
}

#define SYNC_WAY { NAIO_SYNC, "send + recv", start_nothing, sync_round, NULL, false }

/* kevent: a request and one record for the event */

static struct {
	struct kevent_wait head;
	struct kevent_request req;
	struct kevent_event ev;
} both;

static struct {
	struct kevent_wait head;
	struct kevent_event ev;
} result;

static int kevent_add_recv(struct transfer *t, uint32_t flags)
{
	struct kevent_request req = {
		.type = KEVENT_NAIO, .flags = flags, .events = KEVENT_NAIO_RECV,
		.param = { (uintptr_t)t->in, t->size, (uint64_t)t->near[0] },
	};

	both.head = (struct kevent_wait){
		.nr_changes = 1, .min = 1, .max = 1,
		.timeout = FOREVER, .clock = CLOCK_MONOTONIC,
	};
	both.req = req;
	both.req.op = KEVENT_OP_ADD;
	result.head = both.head;
	result.head.nr_changes = 0;
	return change(t->q, KEVENT_IOC_NR_ADD, req);
}

/* The number of the outstanding receive and of the next one are never the same. */
static size_t kevent_next(struct transfer *t)
{
	t->turn ^= 1;
	both.req.ident = t->turn;
	CHECK(ioctl(t->q, KEVENT_IOC_CHANGE_WAIT(1, 1), &both) == 1);
	CHECK(!(both.ev.flags & KEVENT_EVENT_ERROR) && both.ev.data);
	return both.ev.data;
}

static bool kevent_armed_start(struct transfer *t)
{
	if (!start_kevent(t))
		return false;
	CHECK_EQ(kevent_add_recv(t, 0), 0);
	return true;
}

static void kevent_round(struct transfer *t)
{
	size_t left = t->size;

	peer_sends(t, 0);
	do {
		left -= kevent_next(t);
	} while (left);
}

/* Prepares the request, and leaves nothing outstanding. */
static bool kevent_at_hand_start(struct transfer *t)
{
	if (!start_kevent(t))
		return false;
	CHECK_EQ(kevent_add_recv(t, 0), 0);
	CHECK_EQ(remove_kevent(t->q, KEVENT_NAIO, 0, 0), 0);
	return true;
}

static bool kevent_multishot_start(struct transfer *t)
{
	int ret;

	if (!start_kevent(t))
		return false;
	ret = kevent_add_recv(t, KEVENT_MULTISHOT);
	CHECK(ret == 0 || ret == -EINVAL);
	return ret == 0;
}

static void kevent_multishot_round(struct transfer *t)
{
	size_t left = t->size;

	peer_sends(t, 0);
	do {
		CHECK(ioctl(t->q, KEVENT_IOC_WAIT(1), &result) == 1);
		CHECK(!result.ev.flags && result.ev.data);
		left -= result.ev.data;
	} while (left);
}

/* The same by read(2), where no timeout has to be given. */
static void kevent_read_round(struct transfer *t)
{
	size_t left = t->size;

	peer_sends(t, 0);
	do {
		CHECK_EQ(read(t->q, &result.ev, sizeof(result.ev)),
			 sizeof(result.ev));
		CHECK(!result.ev.flags && result.ev.data);
		left -= result.ev.data;
	} while (left);
}

/* io_uring */

static void uring_prepare(struct transfer *t)
{
	struct io_uring_sqe *sqe;

	sqe = ring_prepare(&t->ring, IORING_OP_RECV, t->near[0]);
	sqe->addr = (uintptr_t)t->in;
	sqe->len = (uint32_t)t->size;
}

static size_t uring_got(struct transfer *t)
{
	struct completion done = ring_take(&t->ring);

	CHECK(done.result > 0);
	return (size_t)done.result;
}

static bool uring_arm(struct transfer *t)
{
	uring_prepare(t);
	ring_enter(&t->ring, 0);
	return true;
}

static bool plain_armed_start(struct transfer *t)
{
	return start_plain(t) && uring_arm(t);
}

static bool defer_armed_start(struct transfer *t)
{
	return start_defer(t) && uring_arm(t);
}

/*
 * What has completed lies in the ring when send() returns, or one more call
 * fetches it; then the next one is submitted.
 */
static void uring_armed_round(struct transfer *t)
{
	size_t left = t->size;

	peer_sends(t, 0);
	do {
		left -= uring_got(t);
		uring_prepare(t);
		ring_enter(&t->ring, 0);
	} while (left);
}

/*
 * Both in one call.  The new receive is tried at once and finds the data of the
 * one that waits, which goes on waiting: cheaper, but no order is kept.
 */
static void uring_overtaking_round(struct transfer *t)
{
	size_t left = t->size;

	peer_sends(t, 0);
	do {
		uring_prepare(t);
		ring_enter(&t->ring, 1);
		left -= uring_got(t);
	} while (left);
}

static void uring_at_hand_round(struct transfer *t)
{
	size_t left = t->size;

	peer_sends(t, 0);
	do {
		uring_prepare(t);
		ring_enter(&t->ring, 1);
		left -= uring_got(t);
	} while (left);
}

static bool uring_multishot(struct transfer *t)
{
	struct io_uring_sqe *sqe;

	if (!ring_give_buffers(&t->ring, t->in, BUFFERS, t->size))
		return false;
	sqe = ring_prepare(&t->ring, IORING_OP_RECV, t->near[0]);
	sqe->ioprio = IORING_RECV_MULTISHOT;
	sqe->flags = IOSQE_BUFFER_SELECT;
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
	size_t left = t->size;

	peer_sends(t, 0);
	do {
		struct completion done = ring_take(&t->ring);
		unsigned int id = done.flags >> IORING_CQE_BUFFER_SHIFT;

		CHECK(done.result > 0 && done.flags & IORING_CQE_F_MORE);
		ring_give(&t->ring, t->in + id * t->size, t->size, id);
		left -= (size_t)done.result;
	} while (left);
}

const struct way recv_armed[] = {
	{ NAIO_KEVENT, "CHANGE_WAIT", kevent_armed_start, kevent_round, NULL,
	  true },
	{ NAIO_URING, "plain ring", plain_armed_start, uring_armed_round,
	  end_ring, true },
	{ NAIO_URING, "deferred", defer_armed_start, uring_armed_round,
	  end_ring, true },
	{ NAIO_NONE, "deferred, overtaking", defer_armed_start,
	  uring_overtaking_round, end_ring, true },
	SYNC_WAY,
	{ .round = NULL },
};

const struct way recv_at_hand[] = {
	{ NAIO_KEVENT, "CHANGE_WAIT", kevent_at_hand_start, kevent_round, NULL,
	  true },
	{ NAIO_URING, "plain ring", start_plain, uring_at_hand_round,
	  end_ring, true },
	{ NAIO_URING, "deferred", start_defer, uring_at_hand_round,
	  end_ring, true },
	SYNC_WAY,
	{ .round = NULL },
};

const struct way recv_multishot[] = {
	{ NAIO_KEVENT, "WAIT", kevent_multishot_start, kevent_multishot_round,
	  NULL, true },
	{ NAIO_KEVENT, "read", kevent_multishot_start, kevent_read_round,
	  NULL, true },
	{ NAIO_URING, "plain ring", plain_multishot_start,
	  uring_multishot_round, end_ring, true },
	{ NAIO_URING, "deferred", defer_multishot_start, uring_multishot_round,
	  end_ring, true },
	SYNC_WAY,
	{ .round = NULL },
};
