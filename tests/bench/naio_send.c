// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sending, from memory and from a file, to a peer that takes what comes and
 * throws it away, which is counted as well.
 */
#include "naio.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER	200

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

/* Files: one on a tmpfs, all of it in memory. */

static bool file_start(struct transfer *t)
{
	const char *folder = getenv("TMPDIR");

	t->file = (int)SYS(open(folder ? folder : "/tmp",
				O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
	CHECK_EQ(write(t->file, t->out, t->size), t->size);
	return true;
}

static void file_end(struct transfer *t)
{
	close(t->file);
}

static void send_file(struct transfer *t)
{
	off_t at = 0;

	do {
		CHECK(sendfile(t->near[0], t->file, &at,
			       t->size - (size_t)at) > 0);
	} while ((size_t)at < t->size);
}

static void sync_sendfile_round(struct transfer *t)
{
	send_file(t);
	peer_takes(t, t->size);
}

static void sync_prefix_round(struct transfer *t)
{
	CHECK(send(t->near[0], t->out, HEADER, MSG_MORE) == HEADER);
	send_file(t);
	peer_takes(t, HEADER + t->size);
}

static struct {
	struct kevent_sendfile what;
	char prefix[HEADER];
} file;

static bool kevent_start_with(struct transfer *t, uint32_t prefix)
{
	int ret;

	if (!kevent_send_start(t))
		return false;
	file_start(t);
	memset(&file, 'p', sizeof(file));
	file.what = (struct kevent_sendfile){
		.length = t->size, .file = t->file, .prefix = prefix,
	};
	both.req.events = KEVENT_NAIO_SENDFILE;
	both.req.param[0] = (uintptr_t)&file;
	both.req.param[1] = sizeof(file.what) + prefix;
	/* the first one is to see whether this module does it */
	both.req.op = 0;
	ret = change(t->q, KEVENT_IOC_NR_ADD, both.req);
	both.req.op = KEVENT_OP_ADD;
	if (ret) {
		CHECK_EQ(ret, -EOPNOTSUPP);
		file_end(t);
		return false;
	}
	CHECK_EQ(wait_events(t->q, &both.ev, 1, 1, FOREVER), 1);
	peer_takes(t, prefix + t->size);
	return true;
}

static bool kevent_sendfile_start(struct transfer *t)
{
	return kevent_start_with(t, 0);
}

static bool kevent_prefix_start(struct transfer *t)
{
	return kevent_start_with(t, HEADER);
}

static void kevent_sendfile_round(struct transfer *t)
{
	size_t all = file.what.prefix + t->size;

	CHECK(ioctl(t->q, KEVENT_IOC_CHANGE_WAIT(1, 1), &both) == 1);
	CHECK(!(both.ev.flags & KEVENT_EVENT_ERROR) && both.ev.data == all);
	peer_takes(t, all);
}

/* io_uring has no such call: two splices, the second after the first. */

static bool splice_start(struct transfer *t)
{
	SYS(pipe2(t->pipe, O_CLOEXEC));
	CHECK(fcntl(t->pipe[0], F_SETPIPE_SZ, (int)t->size) >= (int)t->size);
	return file_start(t);
}

static bool plain_splice_start(struct transfer *t)
{
	return start_plain(t) && splice_start(t);
}

static bool defer_splice_start(struct transfer *t)
{
	return start_defer(t) && splice_start(t);
}

static void splice_end(struct transfer *t)
{
	end_ring(t);
	close(t->pipe[0]);
	close(t->pipe[1]);
	file_end(t);
}

static void prepare_splice(struct transfer *t, int in, uint64_t at, int out,
			   uint8_t flags)
{
	struct io_uring_sqe *sqe;

	sqe = ring_prepare(&t->ring, IORING_OP_SPLICE, out);
	sqe->splice_fd_in = in;
	sqe->splice_off_in = at;
	sqe->off = (uint64_t)-1;
	sqe->len = (uint32_t)t->size;
	sqe->flags = flags;
}

static void uring_splice_round(struct transfer *t)
{
	prepare_splice(t, t->file, 0, t->pipe[1], IOSQE_IO_LINK);
	prepare_splice(t, t->pipe[0], (uint64_t)-1, t->near[0], 0);
	ring_enter(&t->ring, 2);
	CHECK(ring_take(&t->ring).result == (int)t->size);
	CHECK(ring_take(&t->ring).result == (int)t->size);
	peer_takes(t, t->size);
}

const struct way sendfile_ways[] = {
	{ NAIO_KEVENT, "CHANGE_WAIT", kevent_sendfile_start,
	  kevent_sendfile_round, file_end, true },
	{ NAIO_URING, "plain ring, splices", plain_splice_start,
	  uring_splice_round, splice_end, true },
	{ NAIO_URING, "deferred, splices", defer_splice_start,
	  uring_splice_round, splice_end, true },
	{ NAIO_SYNC, "sendfile", file_start, sync_sendfile_round, file_end,
	  false },
	{ .round = NULL },
};

const struct way sendfile_prefix_ways[] = {
	{ NAIO_KEVENT, "CHANGE_WAIT, a prefix", kevent_prefix_start,
	  kevent_sendfile_round, file_end, true },
	{ NAIO_SYNC, "send, sendfile", file_start, sync_prefix_round,
	  file_end, false },
	{ .round = NULL },
};
