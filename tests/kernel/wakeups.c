// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who is woken.  In the pictures t0, t1 … are threads inside WAIT on the queue
 * q, in the order in which they went to sleep; an arrow is what happens next.
 */
#include "lib.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAITERS	8

struct waiter {
	int q;
	uint32_t min;
	uint32_t max;
	uint64_t timeout;
	pthread_t thread;
	_Atomic pid_t tid;
	_Atomic bool done;
	int ret;
	struct kevent_event ev[16];
};

static void *wait_once(void *arg)
{
	struct waiter *w = arg;

	w->tid = thread_id();
	w->ret = wait_events(w->q, w->ev, w->max, w->min, w->timeout);
	w->done = true;
	return NULL;
}

/* Starts it, and comes back when it sleeps in WAIT. */
static void start_waiter(struct waiter *w, int q, uint32_t min, uint32_t max)
{
	*w = (struct waiter){ .q = q, .min = min, .max = max,
			      .timeout = FOREVER };
	w->thread = thread_start(wait_once, w);
	while (!w->tid)
		sched_yield();
	wait_until_asleep(w->tid, SYS_ioctl);
}

/* Posts to idents @first and the @nr - 1 after it, in one call. */
static void post_many(int q, uint64_t first, unsigned int nr)
{
	struct {
		struct kevent_batch head;
		struct kevent_post post[64];
	} arg = { .head.count = nr };
	unsigned int i;

	CHECK(nr <= ARRAY_SIZE(arg.post));
	for (i = 0; i < nr; i++)
		arg.post[i].ident = first + i;
	CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_POST(nr), &arg)), nr);
}

static void add_users(int q, unsigned int nr, uint32_t flags)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		CHECK_EQ(add_user(q, i, flags, i), 0);
}

/*
 *	t0  t1  …  t7		each takes one event
 *	  \  |     /
 *	    q  <--- POST of 8 at once
 *
 * All eight return, each with an event of its own, whether the kernel woke
 * eight or woke one and the wake-up was handed on from one to the next.
 */
static void a_burst_of_events_wakes_a_waiter_for_each(void)
{
	struct waiter w[WAITERS];
	unsigned int seen = 0, i;
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_USER);
	add_users(q, WAITERS, 0);
	for (i = 0; i < WAITERS; i++)
		start_waiter(&w[i], q, 1, 1);
	post_many(q, 0, WAITERS);
	for (i = 0; i < WAITERS; i++) {
		thread_join(w[i].thread);
		CHECK_EQ(w[i].ret, 1);
		seen |= 1U << w[i].ev[0].cookie;
	}
	CHECK_EQ(seen, (1U << WAITERS) - 1);
	check_silent(q);
}

/*
 *	t0  t1  t2		each takes one event
 *	  \  |  /
 *	    q ---> eventfd (level)  <--- one write
 *
 * The write wakes t0 alone.  Its event holds still and is ready again at once,
 * but only for who comes after it: t0 wakes t1 as it leaves, and t1 wakes t2.
 */
static void a_waiter_that_leaves_work_behind_hands_it_over(void)
{
	int q = queue_open(), fd = eventfd_new(0);
	struct waiter w[3];
	unsigned int i;
	uint64_t end;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(q, KEVENT_POLL, (uint64_t)fd, POLLIN, 0, 5), 0);
	for (i = 0; i < ARRAY_SIZE(w); i++)
		start_waiter(&w[i], q, 1, 1);
	eventfd_write_one(fd);
	for (i = 0, end = now_ns() + PATIENCE; i < ARRAY_SIZE(w); i++) {
		while (!w[i].done) {
			if (now_ns() > end)
				FAIL("t%u sleeps over %llu ready", i,
				     (unsigned long long)queue_info(q).ready);
			sched_yield();
		}
		thread_join(w[i].thread);
		CHECK_EQ(w[i].ret, 1);
		CHECK_EQ(w[i].ev[0].cookie, 5);
	}
	CHECK_EQ(queue_info(q).ready, 1);
}

/*
 *	t0 (min 4)   t1 (min 1)
 *	      \       /
 *	          q  <--- one post, later four
 *
 * The first event is not enough for t0; t1, who sleeps behind it, gets it.
 */
static void a_waiter_whose_min_is_not_reached_takes_no_wakeup_away(void)
{
	struct waiter big, small;
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_USER);
	add_users(q, 5, 0);
	start_waiter(&big, q, 4, 8);
	start_waiter(&small, q, 1, 8);
	CHECK_EQ(post(q, 4, 0), 0);
	thread_join(small.thread);
	CHECK_EQ(small.ret, 1);
	CHECK_EQ(small.ev[0].cookie, 4);
	CHECK(!big.done);
	post_many(q, 0, 4);
	thread_join(big.thread);
	CHECK_EQ(big.ret, 4);
}

/*
 *	t0 (min 3)   t1 (min 3)
 *	      \       /
 *	          q  <--- six posts, one by one
 *
 * Whoever is woken by which of them, both return with three in the end.
 */
static void waiters_with_the_same_min_both_return_when_there_is_enough(void)
{
	struct waiter w[2];
	int q = queue_open();
	unsigned int i, round;

	need_feature(q, KEVENT_FEATURE_USER);
	add_users(q, 6, 0);
	for (round = 0; round < rounds(20); round++) {
		start_waiter(&w[0], q, 3, 3);
		start_waiter(&w[1], q, 3, 3);
		for (i = 0; i < 6; i++)
			CHECK_EQ(post(q, i, 0), 0);
		for (i = 0; i < 2; i++) {
			thread_join(w[i].thread);
			CHECK_EQ(w[i].ret, 3);
		}
		check_silent(q);
	}
}

/*
 *	t0 (min 4)   t1 (min 2)   t2 (min 1)   t3 (min 3)
 *	       \________\___________/___________/
 *	                     q  <--- ten posts, one by one
 *
 * Ten is the sum of what the four ask for at least, with max = min.
 */
static void waiters_with_different_min_all_return_when_there_is_enough(void)
{
	static const uint32_t min[4] = { 4, 2, 1, 3 };
	struct waiter w[4];
	int q = queue_open();
	unsigned int i, round;

	need_feature(q, KEVENT_FEATURE_USER);
	add_users(q, 10, 0);
	for (round = 0; round < rounds(20); round++) {
		for (i = 0; i < 4; i++)
			start_waiter(&w[i], q, min[(i + round) % 4],
				     min[(i + round) % 4]);
		for (i = 0; i < 10; i++)
			CHECK_EQ(post(q, i, 0), 0);
		for (i = 0; i < 4; i++) {
			thread_join(w[i].thread);
			CHECK_EQ(w[i].ret, w[i].min);
		}
		check_silent(q);
	}
}

/*
 *	t0 (min 2, 50 ms)
 *	      \
 *	       q  <--- one post
 *
 * Time is up before min is reached: it takes what there is.
 */
static void a_waiter_out_of_time_takes_what_there_is(void)
{
	struct kevent_event ev[2];
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_USER);
	add_users(q, 1, 0);
	CHECK_EQ(post(q, 0, 0), 0);
	CHECK_EQ(wait_events(q, ev, 2, 2, 50 * NSEC_PER_MSEC), 1);
	CHECK_EQ(wait_events(q, ev, 2, 2, 5 * NSEC_PER_MSEC), 0);
}

struct herd {
	int q;
	uint64_t stop;
	_Atomic unsigned int taken;
	_Atomic unsigned int gone;
	_Atomic unsigned long switches;
};

static void *herd_member(void *arg)
{
	struct herd *herd = arg;
	struct kevent_event ev;
	struct rusage usage;
	uint64_t cookie;

	do {
		CHECK_EQ(wait_events(herd->q, &ev, 1, 1, FOREVER), 1);
		cookie = ev.cookie;
		if (cookie != herd->stop)
			herd->taken++;
	} while (cookie != herd->stop);
	SYS(getrusage(RUSAGE_THREAD, &usage));
	herd->switches += (unsigned long)usage.ru_nvcsw;
	herd->gone++;
	return NULL;
}

/*
 *	t0  t1  …  t15
 *	  \  |     /
 *	    q  <--- one post at a time
 *
 * Counted by how often the threads went back to sleep: once for each event
 * where one is woken, sixteen times where all are.
 */
static void one_event_wakes_one_waiter_and_not_the_herd(void)
{
	struct herd herd = { .q = queue_open(), .stop = 99 };
	unsigned int nr = 16, events = 200, i;
	pthread_t threads[16];
	uint64_t end;

	need_feature(herd.q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(herd.q, 1, 0, 1), 0);
	CHECK_EQ(add_user(herd.q, 2, 0, herd.stop), 0);
	for (i = 0; i < nr; i++)
		threads[i] = thread_start(herd_member, &herd);
	for (i = 0; i < events; i++) {
		CHECK_EQ(post(herd.q, 1, i), 0);
		for (end = now_ns() + PATIENCE; herd.taken <= i;) {
			CHECK(now_ns() < end);
			sched_yield();
		}
	}
	for (i = 0; i < nr; i++) {
		CHECK_EQ(post(herd.q, 2, 0), 0);
		for (end = now_ns() + PATIENCE; herd.gone <= i;) {
			CHECK(now_ns() < end);
			sched_yield();
		}
	}
	for (i = 0; i < nr; i++)
		thread_join(threads[i]);
	dprintf(STDERR_FILENO, "%lu sleeps for %u events\n", herd.switches,
		events);
	CHECK(herd.switches < 3UL * events + 4 * nr);
}

static void nothing_on_signal(int sig)
{
	(void)sig;
}

static void a_signal_ends_a_wait_with_eintr_unless_events_are_at_hand(void)
{
	struct sigaction action = { .sa_handler = nothing_on_signal };
	struct waiter w;
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_USER);
	SYS(sigaction(SIGUSR1, &action, NULL));
	add_users(q, 1, 0);
	start_waiter(&w, q, 1, 1);
	CHECK_EQ(pthread_kill(w.thread, SIGUSR1), 0);
	thread_join(w.thread);
	CHECK_EQ(w.ret, -EINTR);

	/* One of the two it waits for is there: that one is returned. */
	start_waiter(&w, q, 2, 2);
	CHECK_EQ(post(q, 0, 0), 0);
	wait_until_asleep(w.tid, SYS_ioctl);
	CHECK_EQ(pthread_kill(w.thread, SIGUSR1), 0);
	thread_join(w.thread);
	CHECK_EQ(w.ret, 1);
}

static void *read_once(void *arg)
{
	struct waiter *w = arg;

	w->tid = thread_id();
	w->ret = (int)read(w->q, w->ev, sizeof(w->ev[0]));
	return NULL;
}

/*
 *	t0 (read)   t1 (WAIT)   t2 (read)
 *	       \       |        /
 *	               q  <--- POST of 3 at once
 */
static void readers_and_waiters_share_a_queue(void)
{
	struct waiter w[3] = { { 0 } };
	int q = queue_open();
	unsigned int i;

	need_feature(q, KEVENT_FEATURE_USER);
	add_users(q, 3, 0);
	for (i = 0; i < 3; i++) {
		if (i == 1) {
			start_waiter(&w[i], q, 1, 1);
			continue;
		}
		w[i].q = q;
		w[i].thread = thread_start(read_once, &w[i]);
		while (!w[i].tid)
			sched_yield();
		wait_until_asleep(w[i].tid, SYS_read);
	}
	post_many(q, 0, 3);
	for (i = 0; i < 3; i++) {
		thread_join(w[i].thread);
		CHECK_EQ(w[i].ret, i == 1 ? 1 : (int)sizeof(w[i].ev[0]));
	}
	check_silent(q);
}

/*
 *	t0 (for ever)
 *	   \
 *	    q  <--- ADD of something that is ready already
 */
static void adding_something_ready_wakes_a_waiter(void)
{
	struct waiter w;
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_POLL);
	start_waiter(&w, q, 1, 1);
	CHECK_EQ(add(q, KEVENT_POLL, eventfd_new(1), 1, 0, 5), 0);
	thread_join(w.thread);
	CHECK_EQ(w.ret, 1);
	CHECK_EQ(w.ev[0].cookie, 5);
}

#define ENDS	500	/* that one WAIT has room for */

struct poller {
	int epoll;
	_Atomic bool stop;
	_Atomic unsigned long wakeups;
	_Atomic unsigned long turns;	/* epoll_wait()s that have ended */
};

/* Edge-triggered: it is told once for each time that it is woken. */
static void *count_wakeups(void *arg)
{
	struct poller *p = arg;
	struct epoll_event ev;

	while (!p->stop) {
		p->wakeups += (unsigned long)SYS(epoll_wait(p->epoll, &ev, 1,
							    0));
		p->turns++;
	}
	return NULL;
}

/* Until one epoll_wait() has begun and ended, and so noticed what was there. */
static void until_it_has_looked(struct poller *p)
{
	uint64_t end = now_ns() + PATIENCE;
	unsigned long turns = p->turns;

	while (p->turns < turns + 2) {
		CHECK(now_ns() < end);
		sched_yield();
	}
}

/*
 *	e  <--- write(2), once
 *	|
 *	kevents of 500 descriptors of e
 *	\ \ \ ... / / /
 *	        q
 *	        |
 *	      epoll	on another CPU
 *
 * All become ready under the lock of e, and those who poll q are woken when
 * that is over, once, not by each of them.
 */
static void one_activity_wakes_those_who_poll_once_however_many_kevents(void)
{
	struct epoll_event want = { .events = EPOLLIN | EPOLLET };
	static struct kevent_event ev[ENDS];
	struct poller p = { 0 };
	int q = queue_open(), e = eventfd_new(0);
	pthread_t thread;
	unsigned int i;

	need_feature(q, KEVENT_FEATURE_POLL);
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		test_skip("who is woken early has no CPU to notice it on");
	raise_nofile(ENDS + 100);
	for (i = 0; i < ENDS; i++)
		CHECK_EQ(add(q, KEVENT_POLL, (uint64_t)SYS(dup(e)), POLLIN,
			     KEVENT_EDGE, i), 0);
	p.epoll = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	SYS(epoll_ctl(p.epoll, EPOLL_CTL_ADD, q, &want));
	thread = thread_start(count_wakeups, &p);
	for (i = 0; i < rounds(20); i++) {
		unsigned long before;
		uint64_t value;

		until_it_has_looked(&p);
		before = p.wakeups;
		eventfd_write_one(e);
		until_it_has_looked(&p);
		CHECK_EQ(p.wakeups - before, 1);
		CHECK_EQ(wait_events(q, ev, ENDS, ENDS, PATIENCE), ENDS);
		CHECK_EQ(SYS(read(e, &value, sizeof(value))), sizeof(value));
		check_silent(q);
	}
	p.stop = true;
	thread_join(thread);
}

struct observer {
	int q;
	_Atomic bool stop;
};

/* Looks, and takes nothing. */
static void *observer(void *arg)
{
	struct observer *o = arg;

	while (!o->stop)
		readable(o->q, 0);
	return NULL;
}

/*
 *	main	is told by an edge of q, and does not wait in it
 *	other	has claimed at that moment what there is, to ask it
 */
static void what_others_hold_while_they_look_is_told_again(void)
{
	struct epoll_event want = { .events = EPOLLIN | EPOLLET }, told;
	unsigned int round, total = rounds(2000), missed = 0;
	struct observer o = { .q = queue_open() };
	int e = (int)SYS(epoll_create1(EPOLL_CLOEXEC)), fd = eventfd_new(0);
	struct kevent_event ev;
	pthread_t thread;
	uint64_t value;

	need_feature(o.q, KEVENT_FEATURE_POLL);
	SYS(epoll_ctl(e, EPOLL_CTL_ADD, o.q, &want));
	thread = thread_start(observer, &o);
	for (round = 0; round < total; round++) {
		test_context("round %u", round);
		CHECK_EQ(add(o.q, KEVENT_POLL, (uint64_t)fd, POLLIN,
			     KEVENT_ONESHOT, 0), 0);
		eventfd_write_one(fd);
		for (;;) {
			CHECK_EQ(SYS(epoll_wait(e, &told, 1, (int)(PATIENCE / NSEC_PER_MSEC))), 1);
			if (wait_events(o.q, &ev, 1, 1, 0))
				break;
			missed++;
		}
		SYS(read(fd, &value, sizeof(value)));
	}
	o.stop = true;
	thread_join(thread);
	dprintf(STDERR_FILENO, "%u times there was nothing\n", missed);
}

static const struct test_case cases[] = {
	TEST(a_burst_of_events_wakes_a_waiter_for_each),
	TEST(a_waiter_that_leaves_work_behind_hands_it_over),
	TEST(a_waiter_whose_min_is_not_reached_takes_no_wakeup_away),
	TEST(waiters_with_the_same_min_both_return_when_there_is_enough),
	TEST(waiters_with_different_min_all_return_when_there_is_enough),
	TEST(a_waiter_out_of_time_takes_what_there_is),
	TEST(one_event_wakes_one_waiter_and_not_the_herd),
	TEST(a_signal_ends_a_wait_with_eintr_unless_events_are_at_hand),
	TEST(readers_and_waiters_share_a_queue),
	TEST(adding_something_ready_wakes_a_waiter),
	LONG_TEST(what_others_hold_while_they_look_is_told_again, 120),
	TEST(one_activity_wakes_those_who_poll_once_however_many_kevents),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
