// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sending, from memory and from a file, to a peer that takes what comes and
 * throws it away, which is counted as well.
 */
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "naio.h"

/* The socket's buffer has room for all of it. */

static void sync_send_round(struct transfer *t)
{
	CHECK(send(t->near[0], t->out, t->size, 0) == (ssize_t)t->size);
	peer_takes(t, t->size);
}

/* kevent: a request and one record for the event */

static struct {
	struct kevent_wait head;
	struct kevent_request req;
	struct kevent_event ev;
} both;

static bool kevent_send_start(struct transfer *t)
{
	both.head = (struct kevent_wait){
		.nr_changes = 1, .min = 1, .max = 1,
		.timeout = FOREVER, .clock = CLOCK_MONOTONIC,
	};
	both.req = (struct kevent_request){
		.type = KEVENT_NAIO, .op = KEVENT_OP_ADD,
		.events = KEVENT_NAIO_SEND,
		.param = { (uintptr_t)t->out, t->size, (uint64_t)t->near[0] },
	};
	return start_kevent(t);
}

static void kevent_send_round(struct transfer *t)
{
	CHECK(ioctl(t->q, KEVENT_IOC_CHANGE_WAIT(1, 1), &both) == 1);
	CHECK(!(both.ev.flags & KEVENT_EVENT_ERROR) &&
	      both.ev.data == t->size);
	peer_takes(t, t->size);
}

/* io_uring */

static void uring_send_round(struct transfer *t)
{
	struct io_uring_sqe *sqe;

	sqe = ring_prepare(&t->ring, IORING_OP_SEND, t->near[0]);
	sqe->addr = (uintptr_t)t->out;
	sqe->len = (uint32_t)t->size;
	sqe->msg_flags = MSG_WAITALL;
	ring_enter(&t->ring, 1);
	CHECK(ring_take(&t->ring).result == (int)t->size);
	peer_takes(t, t->size);
}

const struct way send_ways[] = {
	{ NAIO_KEVENT, "CHANGE_WAIT", kevent_send_start, kevent_send_round,
	  NULL, true },
	{ NAIO_URING, "plain ring", start_plain, uring_send_round, end_ring,
	  true },
	{ NAIO_URING, "deferred", start_defer, uring_send_round, end_ring,
	  true },
	{ NAIO_SYNC, "send", start_nothing, sync_send_round, NULL, false },
	{ .round = NULL },
};
