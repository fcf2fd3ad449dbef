// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Making crowds, and closing them.  See limits.h.
 */
#include "limits.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH		250U
#define TICK		NSEC_PER_MSEC

const char *const crowd_names[CROWD_KINDS] = {
	"user events", "timers", "eventfds", "UNIX sockets", "inodes", "paths",
	"waiting receives",
};

/* What nothing is ever received into; all of them have it pinned. */
static char received[PAGE];

static bool has_files(const struct crowd *c)
{
	return c->kind == EVENTFDS || c->kind == SOCKETS || c->kind == INODES ||
	       c->kind == RECEIVES;
}

/* Each on an inode of its own, which is more than several on one take. */
static bool has_inodes(const struct crowd *c)
{
	return c->kind == INODES || c->kind == PATHS;
}

static void path_of(char *path, size_t size, unsigned int i)
{
	snprintf(path, size, "%.80s/limits%u", temp_dir(), i);
}

static int file_new(const struct crowd *c, unsigned int i)
{
	char path[128];

	if (c->kind == EVENTFDS)
		return eventfd_new(0);
	if (c->kind == SOCKETS || c->kind == RECEIVES)
		return (int)SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	path_of(path, sizeof(path), i);
	return (int)SYS(open(path, O_CREAT | O_RDONLY | O_CLOEXEC, 0600));
}

void crowd_open(struct crowd *c, enum crowd_kind kind, unsigned int room,
		bool epoll)
{
	unsigned int i, files;

	*c = (struct crowd){ .kind = kind, .epoll = epoll, .room = room };
	c->q = epoll ? (int)SYS(epoll_create1(EPOLL_CLOEXEC)) : queue_open();
	files = has_files(c) ? room + CALLS : 0;
	c->fd = calloc(files + 1, sizeof(*c->fd));
	CHECK(c->fd);
	for (i = 0; i < files; i++)
		c->fd[i] = file_new(c, i);
	for (i = 0; i < CALLS; i++)
		c->extra[i] = room + i;
	for (i = 0; kind == PATHS && i < room + CALLS; i++)
		close(file_new(c, i));
}

void crowd_close(struct crowd *c)
{
	unsigned int i;
	char path[128];

	for (i = 0; has_files(c) && i < c->room + CALLS; i++)
		close(c->fd[i]);
	for (i = 0; has_inodes(c) && i < c->room + CALLS; i++) {
		path_of(path, sizeof(path), i);
		SYS(unlink(path));
	}
	free(c->fd);
}

static struct kevent_request request_of(const struct crowd *c, unsigned int i)
{
	struct kevent_request req;

	switch (c->kind) {
	case RECEIVES:
		req = request(KEVENT_NAIO, i, KEVENT_NAIO_RECV, 0, i);
		req.param[0] = (uintptr_t)received;
		req.param[1] = sizeof(received);
		req.param[2] = (uint64_t)c->fd[i];
		return req;
	case USERS:
		return request(KEVENT_USER, i, KEVENT_USER_POSTED, 0, i);
	case TIMERS:
		/* not in the order of their ends */
		return timer_request(i, 3600 * NSEC_PER_SEC +
				     i * 2654435761ULL % NSEC_PER_SEC, 0, 0,
				     i);
	case EVENTFDS:
		return request(KEVENT_POLL, (uint64_t)c->fd[i], POLLIN, 0, i);
	case PATHS:
		return request(KEVENT_PATH, i, KEVENT_INODE_MODIFY, 0, i);
	case INODES:
		return request(KEVENT_INODE, (uint64_t)c->fd[i],
			       KEVENT_INODE_MODIFY, 0, i);
	default:
		return request(KEVENT_SOCKET, (uint64_t)c->fd[i],
			       KEVENT_SOCKET_RECV, 0, i);
	}
}

static void epoll_change(const struct crowd *c, int op, unsigned int i)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = i };

	CHECK(!epoll_ctl(c->q, op, c->fd[i], &ev));
}

static void add_one_path(const struct crowd *c, unsigned int i)
{
	char path[128];

	path_of(path, sizeof(path), i);
	CHECK_EQ(add_path(c->q, i, path, KEVENT_INODE_MODIFY, 0, i), 0);
}

void crowd_change(struct crowd *c, unsigned int nr, unsigned int i)
{
	static struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg = { .head.count = 1 };

	if (c->epoll) {
		epoll_change(c, nr == KEVENT_IOC_NR_ADD ? EPOLL_CTL_ADD :
							  EPOLL_CTL_DEL, i);
		return;
	}
	if (c->kind == PATHS && nr == KEVENT_IOC_NR_ADD) {
		add_one_path(c, i);
		return;
	}
	arg.req = request_of(c, i);
	if (nr == KEVENT_IOC_NR_REMOVE)
		arg.req = request(arg.req.type, arg.req.ident, 0, 0, 0);
	CHECK(ioctl(c->q, KEVENT_IOC_BATCH(nr, 1), &arg) == 1);
}

void crowd_grow(struct crowd *c, unsigned int nr)
{
	static struct {
		struct kevent_batch head;
		struct kevent_request req[BATCH];
	} arg;

	for (; c->kind == PATHS && c->nr < nr; c->nr++)
		add_one_path(c, c->nr);
	for (; c->epoll && c->nr < nr; c->nr++)
		epoll_change(c, EPOLL_CTL_ADD, c->nr);
	while (c->nr < nr) {
		unsigned int i;

		for (i = 0; i < BATCH && c->nr < nr; i++)
			arg.req[i] = request_of(c, c->nr++);
		arg.head.count = i;
		CHECK_EQ(SYS(ioctl(c->q, KEVENT_IOC_ADD(BATCH), &arg)), i);
	}
}

/* One of them is ready, and read again */

/* Time passes while there is work, and does not have to be slept through. */
static void work_meanwhile(void)
{
	volatile unsigned int i;

	for (i = 0; i < 20000; i++)
		;
}

void crowd_renew(struct crowd *c, unsigned int i)
{
	c->fd[i] = file_new(c, i);
}

void crowd_make_ready(struct crowd *c, unsigned int i)
{
	c->ready = i;
	switch (c->kind) {
	case USERS:
		CHECK_EQ(post(c->q, i, 0), 0);
		break;
	case TIMERS:
		CHECK_EQ(change(c->q, KEVENT_IOC_NR_MODIFY,
				timer_request(i, 1, 0, 0, i)), 0);
		work_meanwhile();
		break;
	default:
		eventfd_write_one(c->fd[i]);
	}
}

void crowd_wait(struct crowd *c)
{
	static struct {
		struct kevent_wait head;
		struct kevent_event ev[1];
	} arg;
	struct epoll_event ev;

	if (c->epoll) {
		CHECK(epoll_wait(c->q, &ev, 1, -1) == 1);
		CHECK(ev.data.u32 == c->ready);
		return;
	}
	arg.head.min = 1;
	arg.head.max = 1;
	arg.head.timeout = FOREVER;
	arg.head.clock = CLOCK_MONOTONIC;
	CHECK(ioctl(c->q, KEVENT_IOC_WAIT(1), &arg) == 1);
	CHECK(arg.ev[0].cookie == c->ready);
}

void crowd_make_idle(struct crowd *c)
{
	uint64_t value;

	switch (c->kind) {
	case USERS:
		break;
	case TIMERS:
		CHECK_EQ(change(c->q, KEVENT_IOC_NR_MODIFY,
				request_of(c, c->ready)), 0);
		break;
	default:
		CHECK_EQ(SYS(read(c->fd[c->ready], &value, sizeof(value))),
			 sizeof(value));
		/* what a level reports once more has to be looked at */
		if (c->epoll)
			CHECK(!epoll_wait(c->q, &(struct epoll_event){}, 1,
					  0));
		else
			check_silent(c->q);
	}
}

/* The end */

struct witness {
	_Atomic bool ready, stop;
	uint64_t longest;	/* ns */
};

static void to_first_processor(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	SYS(sched_setaffinity(0, sizeof(one), &one));
}

/* Wants the processor every millisecond, before anybody else. */
static void *look_on(void *arg)
{
	struct sched_param first = { .sched_priority = 50 };
	struct witness *w = arg;
	struct timespec next;

	to_first_processor();
	SYS(sched_setscheduler(0, SCHED_FIFO, &first));
	w->ready = true;
	while (!w->stop) {
		uint64_t due = now_ns() + TICK, late;

		next.tv_sec = (time_t)(due / NSEC_PER_SEC);
		next.tv_nsec = (long)(due % NSEC_PER_SEC);
		CHECK(!clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next,
				       NULL));
		late = now_ns() - due;
		if (late > w->longest)
			w->longest = late;
	}
	return NULL;
}

void tear_down(struct crowd *c)
{
	struct witness w = {};
	cpu_set_t before;
	pthread_t thread;
	uint64_t begin;

	SYS(sched_getaffinity(0, sizeof(before), &before));
	to_first_processor();
	thread = thread_start(look_on, &w);
	while (!w.ready)
		sched_yield();
	begin = now_ns();
	close(c->q);
	begin = now_ns() - begin;
	w.stop = true;
	thread_join(thread);
	SYS(sched_setaffinity(0, sizeof(before), &before));

	row_begin(row_name("close of a queue of %s %s", c, c->nr), "us");
	row_value(KEVENT_COLUMN, (double)begin / 1000);
	row_end();
	row_begin(row_name("longest wait of a task while %s %s end", c, c->nr),
		  "us");
	row_value(KEVENT_COLUMN, (double)w.longest / 1000);
	row_end();
}
