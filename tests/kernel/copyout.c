// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Results that cannot be copied out: wherever the good part of the buffer ends,
 * no event is lost and none delivered twice.
 *
 * WAIT on a buffer that ends too early may give the events that fit, or EFAULT;
 * either way what it did not give is still in the queue.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EVENTS	6

static void wait_with_a_read_only_header_loses_no_event(void)
{
	int q = queue_open();
	char *mem = two_pages();
	struct kevent_wait *head = (void *)(mem + PAGE - sizeof(*head));
	struct kevent_event ev[2];

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1, 0, 0), 0);
	CHECK_EQ(add_user(q, 2, KEVENT_ONESHOT, 0), 0);
	CHECK_EQ(post(q, 1, 10), 0);
	CHECK_EQ(post(q, 2, 20), 0);
	*head = (struct kevent_wait){
		.min = 1, .max = 2, .clock = CLOCK_MONOTONIC,
	};
	SYS(mprotect(mem, PAGE, PROT_READ));
	CHECK_EQ(ioctl(q, KEVENT_IOC_WAIT(2), head), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(wait_events(q, ev, 2, 2, 0), 2);
	CHECK_EQ(ev[0].data, 10);
	CHECK_EQ(ev[0].count, 1);
	CHECK_EQ(ev[1].data, 20);
	CHECK_EQ(ev[1].flags, KEVENT_EVENT_LAST);
}

/* Makes kevent @i ready in queue @q; its cookie is @i. */
typedef void (*make_ready)(int q, unsigned int i, uint32_t flags);

static void ready_user(int q, unsigned int i, uint32_t flags)
{
	CHECK_EQ(add_user(q, i, flags, i), 0);
	CHECK_EQ(post(q, i, i), 0);
}

static void ready_timer(int q, unsigned int i, uint32_t flags)
{
	CHECK_EQ(add_timer(q, i, 0, 0, flags, i), 0);
}

static void ready_eventfd(int q, unsigned int i, uint32_t flags)
{
	CHECK_EQ(add(q, KEVENT_POLL, eventfd_new(1), POLLIN, flags, i), 0);
}

static void ready_socket(int q, unsigned int i, uint32_t flags)
{
	int fd[2];

	unix_pair(fd);
	CHECK_EQ(SYS(write(fd[1], "x", 1)), 1);
	CHECK_EQ(add(q, KEVENT_SOCKET, fd[0], KEVENT_SOCKET_RECV, flags, i), 0);
}

/* WAIT for EVENTS into @room bytes of records, or read(2); then the rest. */
static void check_cut(make_ready ready, uint32_t flags, size_t room,
		      bool by_read)
{
	int q = queue_open();
	unsigned int seen[EVENTS] = { 0 };
	struct kevent_event all[EVENTS], *ev;
	int got = 0, rest, i;

	for (i = 0; i < EVENTS; i++)
		ready(q, (unsigned int)i, flags);
	/* All are ready, and a WAIT that may not take any agrees. */
	while (queue_info(q).ready < EVENTS)
		;
	if (by_read) {
		ssize_t n;

		ev = before_nothing(room);
		n = syscall(SYS_read, q, ev, sizeof(all));
		if (n < 0)
			CHECK_EQ(errno, EFAULT);
		else
			got = (int)(n / (ssize_t)sizeof(*ev));
	} else {
		struct kevent_wait *head = before_nothing(sizeof(*head) + room);
		int ret;

		ev = (struct kevent_event *)(head + 1);
		*head = (struct kevent_wait){
			.min = EVENTS, .max = EVENTS, .timeout = FOREVER,
			.clock = CLOCK_MONOTONIC,
		};
		ret = ioctl(q, KEVENT_IOC_WAIT(EVENTS), head);
		if (ret < 0)
			CHECK_EQ(errno, EFAULT);
		else
			got = ret;
		if (got)
			CHECK_EQ(head->records, got);
	}
	CHECK((size_t)got * sizeof(*ev) <= room);
	for (i = 0; i < got; i++) {
		CHECK(ev[i].cookie < EVENTS);
		seen[ev[i].cookie]++;
	}
	rest = wait_events(q, all, EVENTS, 0, 0);
	CHECK(rest >= 0);
	for (i = 0; i < rest; i++) {
		CHECK(all[i].cookie < EVENTS);
		CHECK_EQ(all[i].count, 1);
		CHECK_EQ(!!(all[i].flags & KEVENT_EVENT_LAST),
			 flags == KEVENT_ONESHOT);
		seen[all[i].cookie]++;
	}
	for (i = 0; i < EVENTS; i++)
		if (seen[i] != 1)
			FAIL("event %d seen %u times: room %zu, flags %#x, %d got at first",
			     i, seen[i], room, flags, got);
	check_silent(q);
	if (flags == KEVENT_ONESHOT)
		CHECK_EQ(queue_info(q).kevents, 0);
	close(q);
}

static void check_all_cuts(make_ready ready, uint32_t flags)
{
	size_t room;

	raise_nofile(4096);
	for (room = 0; room < EVENTS * sizeof(struct kevent_event);
	     room += sizeof(struct kevent_event) / 2) {
		check_cut(ready, flags, room, false);
		check_cut(ready, flags, room, true);
	}
}

static void user_events_survive_a_copy_that_faults(void)
{
	need_feature(queue_open(), KEVENT_FEATURE_USER);
	check_all_cuts(ready_user, 0);
	check_all_cuts(ready_user, KEVENT_DISPATCH);
}

static void one_shot_events_survive_a_copy_that_faults(void)
{
	need_feature(queue_open(), KEVENT_FEATURE_USER | KEVENT_FEATURE_POLL);
	check_all_cuts(ready_user, KEVENT_ONESHOT);
	check_all_cuts(ready_eventfd, KEVENT_ONESHOT);
}

static void timer_expiries_survive_a_copy_that_faults(void)
{
	need_feature(queue_open(), KEVENT_FEATURE_TIMER);
	check_all_cuts(ready_timer, 0);
	check_all_cuts(ready_timer, KEVENT_ONESHOT);
}

static void edges_survive_a_copy_that_faults(void)
{
	need_feature(queue_open(), KEVENT_FEATURE_SOCKET | KEVENT_FEATURE_POLL);
	check_all_cuts(ready_eventfd, KEVENT_EDGE);
	check_all_cuts(ready_eventfd, KEVENT_DISPATCH);
	check_all_cuts(ready_socket, KEVENT_EDGE);
	check_all_cuts(ready_socket, KEVENT_ONESHOT);
}

static void a_name_that_faults_stays_queued_with_its_event(void)
{
	int q = queue_open(), dir, got, i;
	struct kevent_event ev[2 * EVENTS];
	unsigned int seen = 0;
	size_t room;
	char name[8];

	need_feature(q, KEVENT_FEATURE_INODE);
	dir = (int)SYS(open(temp_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	CHECK_EQ(add(q, KEVENT_INODE, dir, KEVENT_INODE_CREATE, 0, 0), 0);
	for (i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "n%02d", i);
		SYS(mkdirat(dir, name, 0755));
	}
	/* The cut goes through the first event, its name, and the second. */
	for (room = 8; room <= 3 * sizeof(*ev) && seen < 15; room += 8) {
		struct kevent_wait *head = before_nothing(sizeof(*head) + room);
		struct kevent_event *cut = (struct kevent_event *)(head + 1);

		*head = (struct kevent_wait){
			.min = 1, .max = 4, .clock = CLOCK_MONOTONIC,
		};
		got = ioctl(q, KEVENT_IOC_WAIT(4), head);
		if (got < 0) {
			CHECK_EQ(errno, EFAULT);
			continue;
		}
		CHECK(2 * (size_t)got * sizeof(*ev) <= room);
		for (i = 0; i < got; i++) {
			snprintf(name, sizeof(name), "n%02u", seen++);
			CHECK(!memcmp(&cut[2 * i + 1], name, 3));
		}
	}
	while ((got = wait_events(q, ev, ARRAY_SIZE(ev), 0, 0)) > 0) {
		for (i = 0; i < got; i++) {
			snprintf(name, sizeof(name), "n%02u", seen++);
			if (memcmp(&ev[2 * i + 1], name, 3))
				FAIL("%.3s instead of %s",
				     (char *)&ev[2 * i + 1], name);
		}
	}
	CHECK_EQ(got, 0);
	CHECK_EQ(seen, 20);
}

struct faulting_waiter {
	int q;
	_Atomic pid_t tid;
	int error;
};

static void *wait_into_nothing(void *arg)
{
	struct faulting_waiter *w = arg;
	struct kevent_wait *head = before_nothing(sizeof(*head));

	*head = (struct kevent_wait){
		.min = 1, .max = 1, .timeout = FOREVER,
		.clock = CLOCK_MONOTONIC,
	};
	w->tid = thread_id();
	w->error = ioctl(w->q, KEVENT_IOC_WAIT(1), head) < 0 ? errno : 0;
	return NULL;
}

static void *wait_well(void *arg)
{
	struct faulting_waiter *w = arg;
	struct kevent_event ev;

	w->tid = thread_id();
	CHECK_EQ(wait_events(w->q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.data, 77);
	return NULL;
}

/*
 *	  faulting    good		both in WAIT, the faulting one first
 *		 \    /
 *		   q  <--- post
 *
 * The wake-up may go to the one that cannot take the event.
 */
static void a_waiter_that_faults_leaves_the_event_to_the_next(void)
{
	struct faulting_waiter bad = { .q = queue_open() };
	struct faulting_waiter good = { .q = bad.q };
	pthread_t threads[2];

	need_feature(bad.q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(bad.q, 1, KEVENT_ONESHOT, 0), 0);
	threads[0] = thread_start(wait_into_nothing, &bad);
	while (!bad.tid)
		;
	wait_until_asleep(bad.tid, SYS_ioctl);
	threads[1] = thread_start(wait_well, &good);
	while (!good.tid)
		;
	wait_until_asleep(good.tid, SYS_ioctl);
	CHECK_EQ(post(bad.q, 1, 77), 0);
	thread_join(threads[1]);
	/* If it was not woken by the first event, then by this one. */
	if (add_user(bad.q, 2, 0, 0) == 0)
		post(bad.q, 2, 0);
	thread_join(threads[0]);
	CHECK_EQ(bad.error, EFAULT);
}

struct flipper {
	void *page;
	_Atomic bool stop;
};

static void *flip_protection(void *arg)
{
	struct flipper *f = arg;

	while (!f->stop) {
		SYS(mprotect(f->page, PAGE, PROT_NONE));
		SYS(mprotect(f->page, PAGE, PROT_READ | PROT_WRITE));
	}
	return NULL;
}

/*
 * The records are written through a page that another thread hides and shows,
 * and looked at through a second mapping of the same memory.
 */
static void events_survive_a_page_that_comes_and_goes(void)
{
	int q = queue_open(), memfd, got, i;
	unsigned int total = rounds(3000), batch = 20, next = 0, seen = 0;
	struct flipper flipper = { .stop = false };
	unsigned int faults = 0;
	struct kevent_wait *head;
	char *through, *alias;
	pthread_t thread;

	need_feature(q, KEVENT_FEATURE_USER);
	memfd = (int)SYS(memfd_create("records", MFD_CLOEXEC));
	SYS(ftruncate(memfd, 2 * PAGE));
	through = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		       memfd, 0);
	alias = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd,
		     0);
	CHECK(through != MAP_FAILED && alias != MAP_FAILED);
	head = (struct kevent_wait *)(through + PAGE) - 1;
	flipper.page = through + PAGE;
	thread = thread_start(flip_protection, &flipper);
	while (seen < total) {
		struct kevent_event *ev = (void *)(alias + PAGE);

		if (seen == next)
			for (i = 0; i < (int)batch; i++, next++)
				ready_user(q, next, KEVENT_ONESHOT);
		*head = (struct kevent_wait){
			.min = 1, .max = 8, .clock = CLOCK_MONOTONIC,
		};
		got = ioctl(q, KEVENT_IOC_WAIT(8), head);
		if (got < 0) {
			CHECK_EQ(errno, EFAULT);
			faults++;
			continue;
		}
		/* FIFO, so one that is lost or doubled shows at once. */
		for (i = 0; i < got; i++, seen++)
			CHECK_EQ(ev[i].data, seen);
	}
	flipper.stop = true;
	thread_join(thread);
	CHECK_EQ(queue_info(q).kevents, next - seen);
	dprintf(STDERR_FILENO, "%u of %u events' copies faulted\n", faults,
		total);
}

static const struct test_case cases[] = {
	TEST(wait_with_a_read_only_header_loses_no_event),
	TEST(user_events_survive_a_copy_that_faults),
	TEST(one_shot_events_survive_a_copy_that_faults),
	TEST(timer_expiries_survive_a_copy_that_faults),
	TEST(edges_survive_a_copy_that_faults),
	TEST(a_name_that_faults_stays_queued_with_its_event),
	TEST(a_waiter_that_faults_leaves_the_event_to_the_next),
	TEST(events_survive_a_page_that_comes_and_goes),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
