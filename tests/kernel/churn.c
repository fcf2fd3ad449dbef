// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What changes while it is being looked at: conditions that come and go, timers
 * set again in the middle of their delivery, several who poll one queue, and
 * waiters that leave just when an event comes.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

struct noise {
	int q;
	int fd;
	_Atomic bool stop;
	_Atomic unsigned int modified;
	_Atomic unsigned int delivered;
};

/* True for a moment, over and over: active, and no more when asked. */
static void *blink(void *arg)
{
	struct noise *n = arg;
	uint64_t value;

	while (!n->stop) {
		eventfd_write_one(n->fd);
		(void)!read(n->fd, &value, sizeof(value));
	}
	return NULL;
}

/*
 *	main --- WAIT, 1 ms ---> q <--- x, x, x …	each over when looked at
 */
static void a_source_that_blinks_does_not_hold_up_the_timeout(void)
{
	struct noise n = { .q = queue_open(), .fd = eventfd_new(0) };
	unsigned int i, total = rounds(100);
	pthread_t threads[2];

	need_feature(n.q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(n.q, KEVENT_POLL, n.fd, POLLIN, 0, 0), 0);
	threads[0] = thread_start(blink, &n);
	threads[1] = thread_start(blink, &n);
	for (i = 0; i < total; i++) {
		uint64_t begin = now_ns(), took;
		struct kevent_event ev[3];
		int ret = wait_events(n.q, ev, 3, 1 + i % 3, NSEC_PER_MSEC);

		took = now_ns() - begin;
		CHECK(ret == 0 || ret == 1);
		if (took > 3 * NSEC_PER_SEC)
			FAIL("a WAIT of 1 ms took %llu ms",
			     (unsigned long long)(took / NSEC_PER_MSEC));
	}
	n.stop = true;
	thread_join(threads[0]);
	thread_join(threads[1]);
}

static void *wait_for_ever(void *arg)
{
	struct noise *n = arg;
	struct kevent_event ev[3];
	int ret;

	do
		ret = wait_events(n->q, ev, 3, 3, FOREVER);
	while (ret == -EINTR);
	/* The kevent is one, so three at once there will never be. */
	FAIL("a WAIT for three events of one kevent returned %d", ret);
	return NULL;
}

static void wait_amid_noise(void *arg)
{
	struct noise *n = arg;
	pthread_t threads[2];

	threads[0] = thread_start(blink, n);
	threads[1] = thread_start(wait_for_ever, n);
	thread_join(threads[1]);
	thread_join(threads[0]);
}

/* The child is killed in the middle of its rounds, and must be gone soon. */
static void a_source_that_blinks_does_not_keep_a_waiter_alive(void)
{
	struct noise *n = shared_memory(sizeof(*n));
	unsigned int i, total = rounds(10);

	n->q = queue_open();
	n->fd = eventfd_new(0);
	need_feature(n->q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(n->q, KEVENT_POLL, n->fd, POLLIN, 0, 0), 0);
	for (i = 0; i < total; i++) {
		pid_t pid = child_start(wait_amid_noise, n);
		uint64_t end = now_ns() + 20 * NSEC_PER_MSEC;

		while (now_ns() < end)
			sched_yield();
		child_kill(pid);
	}
}

static void *wait_and_count(void *arg)
{
	struct noise *n = arg;
	struct kevent_event ev[32];
	int i, j, ret;

	while (!n->stop) {
		ret = wait_events(n->q, ev, 32, 0, 0);
		CHECK(ret >= 0);
		for (i = 0; i < ret; i++)
			for (j = 0; j < i; j++)
				CHECK(ev[i].ident != ev[j].ident);
		n->delivered += (unsigned int)ret;
	}
	return NULL;
}

/*
 *	w0  w1  w2		in WAIT without waiting
 *	   \ | /
 *	     q ---> x, y, z	always ready
 */
static void one_wait_gives_a_level_kevent_once_whoever_else_waits(void)
{
	struct noise n = { .q = queue_open() };
	uint64_t end = now_ns() + rounds(500) * NSEC_PER_MSEC;
	pthread_t threads[3];
	int i;

	need_feature(n.q, KEVENT_FEATURE_POLL);
	for (i = 0; i < 3; i++)
		CHECK_EQ(add(n.q, KEVENT_POLL, eventfd_new(1), POLLIN, 0, i),
			 0);
	for (i = 0; i < 3; i++)
		threads[i] = thread_start(wait_and_count, &n);
	while (now_ns() < end)
		sched_yield();
	n.stop = true;
	for (i = 0; i < 3; i++)
		thread_join(threads[i]);
	CHECK(n.delivered > 0);
}

#define TIMERS	4

static void *set_timers(void *arg)
{
	struct noise *n = arg;
	struct rnd rnd = rnd_stream(n->modified++);

	while (!n->stop) {
		uint64_t ident = rnd_below(&rnd, TIMERS);
		struct kevent_request req;

		/* At once and all the time, or at once, or in good time. */
		req = timer_request(ident, rnd_below(&rnd, 2) ?
				    0 : rnd_below(&rnd, 50000),
				    rnd_below(&rnd, 2) ? 0 : 1 +
				    rnd_below(&rnd, 20000),
				    rnd_below(&rnd, 4) ? 0 : KEVENT_DISPATCH,
				    ident);
		req.param[2] = rnd_below(&rnd, 2) ? CLOCK_MONOTONIC :
						    CLOCK_BOOTTIME;
		CHECK_EQ(change(n->q, KEVENT_IOC_NR_MODIFY, req), 0);
		n->modified++;
	}
	return NULL;
}

static void *wait_for_timers(void *arg)
{
	struct noise *n = arg;
	struct kevent_event ev[TIMERS];

	while (!n->stop) {
		int i, ret = wait_events(n->q, ev, TIMERS,
					 n->delivered % TIMERS, 100000);

		CHECK(ret >= 0);
		for (i = 0; i < ret; i++) {
			CHECK_EQ(ev[i].events, KEVENT_TIMER_FIRED);
			if (!ev[i].count || !ev[i].data)
				FAIL("a timer fired no time: count %u, data %llu",
				     ev[i].count,
				     (unsigned long long)ev[i].data);
		}
		n->delivered += (unsigned int)ret;
	}
	return NULL;
}

static void timers_may_be_set_while_they_expire_and_are_delivered(void)
{
	struct noise n = { .q = queue_open() };
	unsigned int i, total = rounds(60000);
	pthread_t threads[4];

	need_feature(n.q, KEVENT_FEATURE_TIMER);
	for (i = 0; i < TIMERS; i++)
		CHECK_EQ(add_timer(n.q, i, 0, 1, 0, i), 0);
	for (i = 0; i < 4; i++)
		threads[i] = thread_start(i & 1 ? set_timers : wait_for_timers,
					  &n);
	while (n.modified < total)
		sched_yield();
	n.stop = true;
	for (i = 0; i < 4; i++)
		thread_join(threads[i]);
	for (i = 0; i < TIMERS; i++)
		CHECK_EQ(remove_kevent(n.q, KEVENT_TIMER, i, 0), 0);
	check_silent(n.q);
}

static void *set_posted(void *arg)
{
	struct noise *n = arg;

	while (!n->stop) {
		CHECK_EQ(modify(n->q, KEVENT_USER, 1, KEVENT_USER_POSTED, 0, 0),
			 0);
		n->modified++;
	}
	return NULL;
}

static void *wait_for_posts(void *arg)
{
	struct noise *n = arg;
	struct kevent_event ev;

	while (!n->stop) {
		int ret = wait_events(n->q, &ev, 1, 1, 100000);

		CHECK(ret >= 0);
		if (!ret)
			continue;
		CHECK(ev.count > 0);
		n->delivered += ev.count;
	}
	return NULL;
}

static void posts_survive_a_modify_in_the_middle_of_their_delivery(void)
{
	struct noise n = { .q = queue_open() };
	unsigned int i, total = rounds(5000);
	pthread_t threads[4];
	uint64_t end;

	need_feature(n.q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(n.q, 1, 0, 0), 0);
	for (i = 0; i < 4; i++)
		threads[i] = thread_start(i & 1 ? set_posted : wait_for_posts,
					  &n);
	for (i = 0; i < total; i++)
		CHECK_EQ(post(n.q, 1, i), 0);
	for (end = now_ns() + PATIENCE; n.delivered != total;) {
		if (now_ns() > end)
			FAIL("%u posted, %u delivered", total, n.delivered);
		sched_yield();
	}
	n.stop = true;
	for (i = 0; i < 4; i++)
		thread_join(threads[i]);
	CHECK_EQ(n.delivered, total);
}

/* Pollers */

struct poller {
	int q;
	bool by_epoll;
	_Atomic unsigned int round;
	_Atomic unsigned int seen;
	_Atomic bool stop;
};

static void *poll_the_queue(void *arg)
{
	struct poller *p = arg;
	struct pollfd pfd = { .fd = p->q, .events = POLLIN };
	struct epoll_event ev = { .events = EPOLLIN };
	int e = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	unsigned int done = 0;

	SYS(epoll_ctl(e, EPOLL_CTL_ADD, p->q, &ev));
	for (;;) {
		while (p->round == done && !p->stop)
			sched_yield();
		if (p->stop)
			break;
		done++;
		if (p->by_epoll)
			CHECK_EQ(SYS(epoll_wait(e, &ev, 1, -1)), 1);
		else
			CHECK_EQ(SYS(poll(&pfd, 1, -1)), 1);
		p->seen = done;
	}
	close(e);
	return NULL;
}

/*
 *	p0 (poll)  p1 (poll)  p2 (epoll)  p3 (WAIT for 2, 100 us)
 *	        \     |          |        /
 *	                   q  <--- x stays ready
 *
 * All of them look at the one event, and one who looks must not hide it from
 * the others for good.
 */
static void everybody_who_polls_a_queue_hears_of_a_level_event(void)
{
	struct poller p[3] = { { 0 } };
	unsigned int i, j, total = rounds(400);
	int q = queue_open(), x = eventfd_new(0);
	pthread_t threads[3];
	uint64_t value, end;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(q, KEVENT_POLL, x, POLLIN, 0, 0), 0);
	for (j = 0; j < 3; j++) {
		p[j].q = q;
		p[j].by_epoll = j == 2;
		threads[j] = thread_start(poll_the_queue, &p[j]);
	}
	for (i = 1; i <= total; i++) {
		struct kevent_event ev[2];

		for (j = 0; j < 3; j++)
			p[j].round = i;
		eventfd_write_one(x);
		for (j = 0; j < 3; j++) {
			for (end = now_ns() + PATIENCE; p[j].seen != i;) {
				if (now_ns() > end)
					FAIL("round %u: poller %u heard nothing",
					     i, j);
				if (i & 1)
					CHECK(wait_events(q, ev, 2, 2, 100000)
					      >= 0);
				else
					sched_yield();
			}
		}
		CHECK_EQ(SYS(read(x, &value, sizeof(value))), sizeof(value));
	}
	for (j = 0; j < 3; j++) {
		p[j].stop = true;
		thread_join(threads[j]);
	}
}

/* One who leaves by itself, and one who stays, around one event. */
struct leaver {
	int q;
	uint64_t timeout;
	_Atomic unsigned int round;
	_Atomic unsigned int left;	/* rounds that it finished */
	_Atomic unsigned int got;
	_Atomic pid_t tid;
	_Atomic bool stop;
};

static void *leave_early(void *arg)
{
	struct leaver *l = arg;
	struct kevent_event ev;
	unsigned int done = 0;

	l->tid = thread_id();
	for (;;) {
		int ret;

		while (l->round == done && !l->stop)
			sched_yield();
		if (l->stop)
			return NULL;
		done++;
		ret = wait_events(l->q, &ev, 1, 1, l->timeout);
		CHECK(ret == 1 || ret == 0 || ret == -EINTR);
		if (ret == 1)
			l->got++;
		l->left = done;
	}
}

static void *stay(void *arg)
{
	struct leaver *l = arg;
	struct kevent_event ev;

	for (;;) {
		CHECK_EQ(wait_events(l->q, &ev, 1, 1, FOREVER), 1);
		if (ev.cookie)
			return NULL;
		l->got++;
	}
}

static void nothing_on_signal(int sig)
{
	(void)sig;
}

static void check_leaver(uint64_t timeout, bool by_signal)
{
	struct sigaction action = { .sa_handler = nothing_on_signal };
	struct leaver l = { .q = queue_open(), .timeout = timeout };
	struct rnd rnd = rnd_stream(0);
	pthread_t early, staying;
	unsigned int i, total = rounds(150);

	need_feature(l.q, KEVENT_FEATURE_USER);
	SYS(sigaction(SIGUSR1, &action, NULL));
	CHECK_EQ(add_user(l.q, 1, 0, 0), 0);
	CHECK_EQ(add_user(l.q, 2, 0, 1), 0);
	early = thread_start(leave_early, &l);
	staying = thread_start(stay, &l);
	for (i = 1; i <= total; i++) {
		uint64_t end = now_ns() + rnd_below(&rnd, 300000);

		l.round = i;
		while (now_ns() < end)
			;
		if (by_signal && rnd_below(&rnd, 2))
			CHECK_EQ(pthread_kill(early, SIGUSR1), 0);
		CHECK_EQ(post(l.q, 1, i), 0);
		if (by_signal)
			CHECK_EQ(pthread_kill(early, SIGUSR1), 0);
		/* Delivered, although the one who was woken may have left. */
		for (end = now_ns() + PATIENCE; l.got != i;) {
			if (now_ns() > end)
				FAIL("round %u: the event is lost, %u ready",
				     i, (unsigned int)queue_info(l.q).ready);
			sched_yield();
		}
		while (l.left != i) {
			if (by_signal)
				CHECK_EQ(pthread_kill(early, SIGUSR1), 0);
			CHECK(now_ns() < end);
			sched_yield();
		}
	}
	l.stop = true;
	thread_join(early);
	CHECK_EQ(post(l.q, 2, 0), 0);
	thread_join(staying);
}

/*
 *	t0 (its time is just up)   t1 (for ever)
 *	               \            /
 *	                     q  <--- one post
 *
 * Either gets it; it is never left behind because t0 was the one woken.
 */
static void a_waiter_whose_time_is_up_leaves_no_event_behind(void)
{
	check_leaver(150000, false);
}

/*
 *	t0 <--- signal   t1 (for ever)
 *	        \         /
 *	             q  <--- one post, at the same time
 */
static void a_waiter_that_is_interrupted_leaves_no_event_behind(void)
{
	check_leaver(FOREVER, true);
}

static const struct test_case cases[] = {
	TEST(a_source_that_blinks_does_not_hold_up_the_timeout),
	TEST(a_source_that_blinks_does_not_keep_a_waiter_alive),
	TEST(one_wait_gives_a_level_kevent_once_whoever_else_waits),
	TEST(timers_may_be_set_while_they_expire_and_are_delivered),
	TEST(posts_survive_a_modify_in_the_middle_of_their_delivery),
	TEST(everybody_who_polls_a_queue_hears_of_a_level_event),
	TEST(a_waiter_whose_time_is_up_leaves_no_event_behind),
	TEST(a_waiter_that_is_interrupted_leaves_no_event_behind),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
