// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every way in which a kevent hangs on something, each with what makes it ready
 * and with a proof that it is let go of, and the queue that is to survive.
 *
 *	source --- kevent (COOKIE_FIRST, COOKIE_SECOND) ---\
 *		   idle user kevent (COOKIE_IDLE) --------- q
 *		   posted one-shot (COOKIE_READY) ---------/
 */
#include "fault.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define IDENT_IDLE	1000
#define IDENT_READY	1001
#define IDENT_OURS	7
#define IDENT_INNER	8

static void nonblocking(int fd)
{
	SYS(fcntl(fd, F_SETFL, SYS(fcntl(fd, F_GETFL)) | O_NONBLOCK));
}

static void write_one(int fd)
{
	CHECK_EQ(SYS(write(fd, "x", 1)), 1);
}

static void drain_bytes(struct scene *s)
{
	char buf[64];

	while (read(s->fd, buf, sizeof(buf)) > 0)
		;
	CHECK(errno == EAGAIN);
}

static void ready_by_peer(struct scene *s)
{
	write_one(s->peer);
}

/* A queue of its own is told of the last close. */
static void close_and_see(struct scene *s, uint16_t type, uint32_t events)
{
	struct kevent_event ev;
	int q = queue_open();

	CHECK_EQ(add(q, type, s->fd, events, KEVENT_NOTIFY_BROKEN, 0), 0);
	close(s->fd);
	CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
	CHECK_EQ(ev.flags, KEVENT_EVENT_BROKEN | KEVENT_EVENT_LAST);
	close(q);
}

static void close_file(struct scene *s)
{
	close_and_see(s, KEVENT_POLL, 0);
	if (s->peer >= 0)
		close(s->peer);
}

/* Nobody tells of the close of what has to be pinned but its other end. */
static void close_pinned(struct scene *s)
{
	struct pollfd pfd = { .fd = s->peer, .events = POLLRDHUP };

	close(s->fd);
	if (poll(&pfd, 1, (int)(PATIENCE / NSEC_PER_MSEC)) != 1)
		FAIL("%s: still open after its close", s->source->name);
	CHECK(pfd.revents & (POLLHUP | POLLERR | POLLRDHUP));
	close(s->peer);
}

static void open_tcp(struct scene *s)
{
	int fd[2];

	tcp_pair(fd);
	nonblocking(fd[0]);
	s->fd = fd[0];
	s->peer = fd[1];
}

static void open_datagram(struct scene *s)
{
	int fd[2];

	SYS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
		       fd));
	s->fd = fd[0];
	s->peer = fd[1];
}

static void open_pipe(struct scene *s)
{
	int fd[2];

	SYS(pipe2(fd, O_NONBLOCK | O_CLOEXEC));
	s->fd = fd[0];
	s->peer = fd[1];
}

static void open_eventfd(struct scene *s)
{
	s->fd = eventfd_new(0);
}

static void ready_eventfd(struct scene *s)
{
	eventfd_write_one(s->fd);
}

static void open_pty_slave(struct scene *s)
{
	pty_pair(&s->peer, &s->fd);
}

static void open_pty_master(struct scene *s)
{
	pty_pair(&s->fd, &s->peer);
}

/* For reading and writing: it has two wait queues. */
static void open_fifo(struct scene *s)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/fifo", temp_dir());
	SYS(mkfifo(path, 0600));
	s->fd = (int)SYS(open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC));
	s->peer = (int)SYS(open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC));
	SYS(unlink(path));
}

static void open_queue(struct scene *s)
{
	s->fd = queue_open();
	CHECK_EQ(add_user(s->fd, IDENT_INNER, 0, 0), 0);
}

static void ready_queue(struct scene *s)
{
	CHECK_EQ(post(s->fd, IDENT_INNER, 0), 0);
}

static void drain_queue(struct scene *s)
{
	struct kevent_event ev;

	CHECK_EQ(wait_events(s->fd, &ev, 1, 1, 0), 1);
}

static void open_epoll(struct scene *s)
{
	struct epoll_event ev = { .events = EPOLLIN };

	s->fd = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	s->peer = eventfd_new(0);
	SYS(epoll_ctl(s->fd, EPOLL_CTL_ADD, s->peer, &ev));
}

static void ready_epoll(struct scene *s)
{
	eventfd_write_one(s->peer);
}

static void drain_epoll(struct scene *s)
{
	uint64_t value;

	CHECK_EQ(SYS(read(s->peer, &value, sizeof(value))), sizeof(value));
}

static void open_directory(struct scene *s)
{
	s->fd = (int)SYS(open(fs_mount(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	s->peer = -1;
}

/* The name is new each time: the same thing twice in a row is one event. */
static void ready_directory(struct scene *s)
{
	static unsigned int serial;
	char name[32];

	snprintf(name, sizeof(name), "entry-%06u", serial++);
	SYS(mknodat(s->fd, name, S_IFREG | 0600, 0));
	if (s->which)
		SYS(unlinkat(s->fd, name, 0));
}

static void close_directory(struct scene *s)
{
	close_and_see(s, KEVENT_INODE, KEVENT_INODE_UNMOUNT);
	fs_unmount();
}

static void ready_timer(struct scene *s)
{
	(void)s;	/* in a microsecond, it is */
}

static void ready_user(struct scene *s)
{
	CHECK_EQ(post(s->q, IDENT_OURS, 0), 0);
}

static void nothing(struct scene *s)
{
	(void)s;
}

#define CREATE	KEVENT_INODE_CREATE
#define REMOVE	KEVENT_INODE_REMOVE
#define RECV	KEVENT_SOCKET_RECV
#define BROKEN	KEVENT_NOTIFY_BROKEN

const struct source sources[] = {
	{ "socket-inode", KEVENT_SOCKET, 0, 0, { RECV, RECV }, false,
	  open_tcp, ready_by_peer, drain_bytes, close_file },
	{ "socket-mark", KEVENT_SOCKET, BROKEN, 0, { RECV, RECV }, false,
	  open_tcp, ready_by_peer, drain_bytes, close_file },
	{ "socket-inode-to-mark", KEVENT_SOCKET, 0, BROKEN, { RECV, RECV },
	  false, open_tcp, ready_by_peer, drain_bytes, close_file },
	{ "socket-poll", KEVENT_POLL, 0, 0, { POLLIN, POLLIN }, false,
	  open_tcp, ready_by_peer, drain_bytes, close_file },
	{ "datagram-bytes", KEVENT_SOCKET, KEVENT_BYTES, 0, { RECV, RECV },
	  false, open_datagram, ready_by_peer, drain_bytes, close_file },
	{ "pipe", KEVENT_POLL, 0, 0, { POLLIN, POLLIN }, false,
	  open_pipe, ready_by_peer, drain_bytes, close_file },
	{ "eventfd", KEVENT_POLL, BROKEN, 0, { POLLIN, POLLIN }, false,
	  open_eventfd, ready_eventfd, drain_bytes, close_file },
	{ "pty-slave", KEVENT_POLL, 0, 0, { POLLIN, POLLIN }, false,
	  open_pty_slave, ready_by_peer, drain_bytes, close_file },
	{ "pty-master", KEVENT_POLL, 0, 0, { POLLIN, POLLIN }, false,
	  open_pty_master, ready_by_peer, drain_bytes, close_pinned },
	{ "fifo", KEVENT_POLL, 0, 0, { POLLIN, POLLIN }, false,
	  open_fifo, ready_by_peer, drain_bytes, close_pinned },
	{ "queue", KEVENT_POLL, 0, 0, { POLLIN, POLLIN }, false,
	  open_queue, ready_queue, drain_queue, close_file },
	{ "epoll", KEVENT_POLL, 0, 0, { POLLIN, POLLIN }, false,
	  open_epoll, ready_epoll, drain_epoll, close_file },
	{ "inode", KEVENT_INODE, 0, 0, { CREATE, REMOVE }, false,
	  open_directory, ready_directory, nothing, close_directory },
	{ "inode-broken", KEVENT_INODE, BROKEN, 0, { CREATE, REMOVE }, false,
	  open_directory, ready_directory, nothing, close_directory },
	{ "path", KEVENT_PATH, 0, 0, { CREATE, REMOVE }, false,
	  open_directory, ready_directory, nothing, close_directory },
	/* the first mark on a file system, which has to get ready for it */
	{ "path-first", KEVENT_PATH, 0, 0, { CREATE, REMOVE }, true,
	  open_directory, ready_directory, nothing, close_directory },
	{ "timer", KEVENT_TIMER, 0, 0,
	  { KEVENT_TIMER_FIRED, KEVENT_TIMER_FIRED }, false,
	  nothing, ready_timer, nothing, nothing },
	{ "user", KEVENT_USER, 0, 0,
	  { KEVENT_USER_POSTED, KEVENT_USER_POSTED }, false,
	  nothing, ready_user, nothing, nothing },
};

const size_t nr_sources = ARRAY_SIZE(sources);

const char *mode_name(uint32_t mode)
{
	switch (mode) {
	case 0:
		return "level";
	case KEVENT_EDGE:
		return "edge";
	case KEVENT_ONESHOT:
		return "oneshot";
	case KEVENT_DISPATCH:
		return "dispatch";
	case KEVENT_DISABLED:
		return "disabled";
	}
	return "?";
}

void scene_open(struct scene *s, const struct source *source, uint32_t mode)
{
	*s = (struct scene){
		.source = source, .mode = mode, .q = -1, .fd = -1, .peer = -1,
	};
	if (!source->fresh)
		source->open(s);
}

void scene_close(struct scene *s)
{
	if (!s->source->fresh)
		s->source->close(s);
}

void scene_begin(struct scene *s)
{
	if (s->source->fresh)
		s->source->open(s);
	s->which = 0;
	s->q = queue_open();
	CHECK_EQ(add_user(s->q, IDENT_IDLE, 0, COOKIE_IDLE), 0);
	CHECK_EQ(add_user(s->q, IDENT_READY, KEVENT_ONESHOT, COOKIE_READY), 0);
	CHECK_EQ(post(s->q, IDENT_READY, 77), 0);
}

void scene_end(struct scene *s)
{
	close(s->q);
	if (s->source->fresh)
		s->source->close(s);
}

static bool by_descriptor(const struct source *source)
{
	return source->type == KEVENT_SOCKET || source->type == KEVENT_POLL ||
	       source->type == KEVENT_INODE;
}

struct kevent_request scene_request(const struct scene *s, unsigned int op)
{
	const struct source *source = s->source;
	bool modify = op == KEVENT_OP_MODIFY;
	struct kevent_request req = {
		.ident = by_descriptor(source) ? (uint64_t)s->fd : IDENT_OURS,
		.type = source->type,
		.result = NO_RESULT,
	};

	if (op == KEVENT_OP_REMOVE)
		return req;
	req.cookie = modify ? COOKIE_SECOND : COOKIE_FIRST;
	req.events = source->events[modify];
	req.flags = source->flags | s->mode;
	if (modify) {
		req.flags |= source->modify;
		req.flags &= ~(uint32_t)KEVENT_DISABLED;
	}
	if (source->type == KEVENT_TIMER) {
		req.param[0] = 1000;
		req.param[2] = CLOCK_MONOTONIC;
	}
	return req;
}

static struct outcome change_path(struct scene *s, unsigned int nth)
{
	static struct {
		struct kevent_path head;
		char path[PAGE / 2];
	} arg;
	char link[64];
	struct outcome o = { 0 };
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", s->fd);
	len = SYS(readlink(link, arg.path, sizeof(arg.path) - 1));
	arg.path[len] = '\0';
	arg.head.request = scene_request(s, KEVENT_OP_ADD);
	if (nth)
		fault_arm(nth);
	o.call = ioctl(s->q, KEVENT_IOC_ADD_PATH((size_t)len + 1), &arg);
	if (o.call < 0)
		o.call = -errno;
	if (nth)
		o.used = fault_disarm();
	o.result = arg.head.request.result;
	return o;
}

struct outcome scene_change(struct scene *s, unsigned int op, unsigned int nth)
{
	static struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg;
	struct outcome o = { 0 };

	if (op == KEVENT_OP_ADD && s->source->type == KEVENT_PATH)
		return change_path(s, nth);
	arg.head = (struct kevent_batch){ .count = 1 };
	arg.req = scene_request(s, op);
	if (nth)
		fault_arm(nth);
	/* the operations are numbered as the ioctls are */
	o.call = ioctl(s->q, KEVENT_IOC_BATCH(op, 1), &arg);
	if (o.call < 0)
		o.call = -errno;
	if (nth)
		o.used = fault_disarm();
	o.result = arg.req.result;
	return o;
}

static void wait_until_ready(struct scene *s, uint64_t want)
{
	uint64_t end = now_ns() + PATIENCE, seen;

	while ((seen = queue_info(s->q).ready) < want) {
		if (now_ns() > end)
			FAIL("%s %s: %llu ready, not %llu", s->source->name,
			     mode_name(s->mode), (unsigned long long)seen,
			     (unsigned long long)want);
		sched_yield();
	}
}

static bool is_silent(const struct scene *s)
{
	return s->mode == KEVENT_DISABLED && !s->which;
}

void scene_make_ready(struct scene *s)
{
	s->source->ready(s);
	wait_until_ready(s, is_silent(s) ? 1 : 2);
}

/* Events and the names behind them: what was ready, and ours, each once. */
void scene_check_events(struct scene *s, const struct kevent_event *ev, int nr)
{
	const struct source *source = s->source;
	int i, ready = 0, ours = 0, want = !is_silent(s);

	for (i = 0; i < nr; i++) {
		if (ev->cookie == COOKIE_READY) {
			CHECK_EQ(ev->data, 77);
			CHECK_EQ(ev->flags, KEVENT_EVENT_LAST);
			ready++;
		} else {
			CHECK_EQ(ev->cookie, s->which ? COOKIE_SECOND :
				 COOKIE_FIRST);
			CHECK_EQ(ev->type, source->type);
			CHECK(ev->events & (source->events[0] |
					    source->events[1]));
			CHECK_EQ(!!(ev->flags & KEVENT_EVENT_LAST),
				 s->mode == KEVENT_ONESHOT);
			CHECK(!(ev->flags & (KEVENT_EVENT_OVERFLOW |
					     KEVENT_EVENT_BROKEN)));
			ours++;
		}
		CHECK_EQ(ev->count, 1);
		if (ev->flags & KEVENT_EVENT_NAME)
			ev += KEVENT_NAME_RECORDS(ev->data);
		ev++;
	}
	if (ready != 1 || ours != want)
		FAIL("%s %s: what was ready came %d times, ours %d times, not %d",
		     source->name, mode_name(s->mode), ready, ours, want);
}

/* Nothing comes a second time, and the queue holds what it should. */
void scene_check_rest(struct scene *s)
{
	struct kevent_event ev[KEVENT_EVENT_RECORDS];
	uint64_t cookie;

	if (is_silent(s)) {
		check_silent(s->q);
		CHECK_EQ(scene_change(s, KEVENT_OP_MODIFY, 0).call, 1);
		s->which = 1;
		CHECK_EQ(wait_events(s->q, ev, ARRAY_SIZE(ev), 1, PATIENCE), 1);
		CHECK_EQ(ev[0].cookie, COOKIE_SECOND);
	}
	s->source->drain(s);
	check_silent(s->q);
	cookie = s->which ? COOKIE_SECOND : COOKIE_FIRST;
	CHECK_EQ(queue_holds(s->q, cookie), s->mode != KEVENT_ONESHOT);
	CHECK_EQ(queue_holds(s->q, COOKIE_READY), 0);
	CHECK_EQ(queue_holds(s->q, COOKIE_IDLE), 1);
}

void scene_check(struct scene *s)
{
	scene_make_ready(s);
	scene_check_ready(s);
}

void scene_check_ready(struct scene *s)
{
	struct kevent_event ev[2 * KEVENT_EVENT_RECORDS];
	int want = is_silent(s) ? 1 : 2, got;

	got = wait_events(s->q, ev, ARRAY_SIZE(ev), (uint32_t)want, PATIENCE);
	CHECK(got >= 0);
	scene_check_events(s, ev, got);
	scene_check_rest(s);
}
