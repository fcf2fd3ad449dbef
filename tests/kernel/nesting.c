// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Queues that watch epolls that watch queues.  In the pictures an arrow goes
 * from what waits to what it waits for; q are queues, e are epolls, x is an
 * eventfd.  Cycles must be refused or be harmless: nothing here may hang.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int epoll_new(void)
{
	return (int)SYS(epoll_create1(EPOLL_CLOEXEC));
}

/* 0 or -errno */
static int epoll_add(int e, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	return epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static int queue_add(int q, int fd, uint32_t flags)
{
	return add(q, KEVENT_POLL, fd, POLLIN, flags, fd);
}

static void *epoll_once(void *arg)
{
	struct epoll_event ev;
	long n;

	do
		n = epoll_wait(*(int *)arg, &ev, 1, -1);
	while (n < 0 && errno == EINTR);
	CHECK_EQ(SYS(n), 1);
	return NULL;
}

static void *queue_once(void *arg)
{
	struct kevent_event ev;

	CHECK_EQ(wait_events(*(int *)arg, &ev, 1, 1, FOREVER), 1);
	return NULL;
}

/*
 *	t0 -> e -> q -> x
 *
 * A queue inside an epoll.
 */
static void an_event_in_a_queue_wakes_who_waits_on_an_epoll_around_it(void)
{
	int q = queue_open(), e = epoll_new(), x = eventfd_new(0);
	struct epoll_event ev;
	struct kevent_event kev;
	uint64_t value;
	pthread_t t;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(queue_add(q, x, 0), 0);
	CHECK_EQ(epoll_add(e, q, EPOLLIN), 0);
	CHECK_EQ(SYS(epoll_wait(e, &ev, 1, 0)), 0);
	t = thread_start(epoll_once, &e);
	eventfd_write_one(x);
	thread_join(t);
	CHECK_EQ(wait_events(q, &kev, 1, 1, FOREVER), 1);
	CHECK_EQ(SYS(epoll_wait(e, &ev, 1, 0)), 1);
	CHECK_EQ(SYS(read(x, &value, sizeof(value))), sizeof(value));
	CHECK_EQ(SYS(epoll_wait(e, &ev, 1, 0)), 0);
}

/*
 *	t0 -> q -> e -> x
 */
static void an_event_in_an_epoll_wakes_who_waits_on_a_queue_around_it(void)
{
	int q = queue_open(), e = epoll_new(), x = eventfd_new(0);
	pthread_t t;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(epoll_add(e, x, EPOLLIN), 0);
	CHECK_EQ(queue_add(q, e, 0), 0);
	check_silent(q);
	t = thread_start(queue_once, &q);
	eventfd_write_one(x);
	thread_join(t);
}

/*
 *	t0 -> q1 -> q0 -> x
 *	      ^
 *	t1 ---+		and as deep as it may go
 */
static void queues_nest_a_few_deep_and_no_deeper_than_is_safe(void)
{
	int chain[12], x = eventfd_new(0), depth, ret = 0;
	struct pollfd pfd = { .events = POLLIN };

	chain[0] = queue_open();
	need_feature(chain[0], KEVENT_FEATURE_POLL);
	CHECK_EQ(queue_add(chain[0], x, 0), 0);
	for (depth = 1; depth < 12; depth++) {
		chain[depth] = queue_open();
		ret = queue_add(chain[depth], chain[depth - 1], 0);
		if (ret)
			break;
	}
	/* One in another works; a limit, where there is one, is ELOOP. */
	CHECK(depth >= 2);
	CHECK(!ret || ret == -ELOOP);
	eventfd_write_one(x);
	pfd.fd = chain[depth - 1];
	CHECK_EQ(SYS(poll(&pfd, 1, 0)), 1);
	queue_once(&chain[depth - 1]);
}

static void a_queue_that_watches_itself_is_refused(void)
{
	int q = queue_open(), again = (int)SYS(dup(q));

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(queue_add(q, q, 0), -ELOOP);
	CHECK_EQ(queue_add(q, again, 0), -ELOOP);
}

/*	q0 -> q1 -> q2 -> q0	*/
static void a_cycle_of_queues_is_refused(void)
{
	int q[3] = { queue_open(), queue_open(), queue_open() };

	need_feature(q[0], KEVENT_FEATURE_POLL);
	CHECK_EQ(queue_add(q[0], q[1], 0), 0);
	CHECK_EQ(queue_add(q[1], q[0], 0), -ELOOP);
	CHECK_EQ(queue_add(q[1], q[2], 0), 0);
	CHECK_EQ(queue_add(q[2], q[0], 0), -ELOOP);
	CHECK_EQ(queue_info(q[2]).kevents, 0);
	/* Once the cycle would be none, it may. */
	CHECK_EQ(remove_kevent(q[0], KEVENT_POLL, q[1], 0), 0);
	CHECK_EQ(queue_add(q[2], q[0], 0), 0);
}

/*	q -> e -> q	with the last link made by ADD	*/
static void a_cycle_through_an_epoll_is_refused(void)
{
	int q = queue_open(), other = queue_open();
	int e = epoll_new(), outer = epoll_new();

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(epoll_add(e, q, EPOLLIN), 0);
	CHECK_EQ(queue_add(q, e, 0), -ELOOP);
	CHECK_EQ(epoll_add(outer, e, EPOLLIN), 0);
	CHECK_EQ(queue_add(q, outer, 0), -ELOOP);
	CHECK_EQ(queue_add(other, outer, 0), 0);
	CHECK_EQ(queue_add(q, other, 0), -ELOOP);
	CHECK_EQ(queue_info(q).kevents, 0);
}

/* Everything that walks along the links, on every node. */
static void walk(const int *q, const int *e, int nr, int x)
{
	struct kevent_event kev;
	struct epoll_event ev;
	struct pollfd pfd;
	uint64_t value;
	int round, i;

	for (round = 0; round < 3; round++) {
		for (i = 0; i < nr; i++) {
			pfd = (struct pollfd){ .fd = q[i], .events = POLLIN };
			SYS(poll(&pfd, 1, 0));
			pfd.fd = e[i];
			SYS(poll(&pfd, 1, 0));
			CHECK(wait_events(q[i], &kev, 1, 0, 0) >= 0);
			SYS(epoll_wait(e[i], &ev, 1, 0));
		}
		if (round == 0)
			eventfd_write_one(x);
		else if (round == 1)
			CHECK_EQ(SYS(read(x, &value, sizeof(value))),
				 sizeof(value));
	}
}

/*
 *	q -> e -> q		the last link made by epoll_ctl(), which knows
 *	     |			nothing of queues and may let it happen
 *	     v
 *	     x
 */
static void a_cycle_closed_by_epoll_ctl_hangs_nobody(void)
{
	int q = queue_open(), e = epoll_new(), x = eventfd_new(0), ret;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(epoll_add(e, x, EPOLLIN), 0);
	CHECK_EQ(queue_add(q, e, 0), 0);
	ret = epoll_add(e, q, EPOLLIN);
	CHECK(!ret || ret == -ELOOP);
	walk(&q, &e, 1, x);
	close(x);
	close(e);
	close(q);
}

/*
 *	q0 -> e0 -> q1 -> e1 -> q0	and x in both epolls
 */
static void a_long_cycle_closed_by_epoll_ctl_hangs_nobody(void)
{
	int q[2] = { queue_open(), queue_open() };
	int e[2] = { epoll_new(), epoll_new() };
	int x = eventfd_new(0), ret;

	need_feature(q[0], KEVENT_FEATURE_POLL);
	CHECK_EQ(epoll_add(e[0], x, EPOLLIN), 0);
	CHECK_EQ(epoll_add(e[1], x, EPOLLIN | EPOLLET), 0);
	CHECK_EQ(queue_add(q[0], e[0], 0), 0);
	CHECK_EQ(queue_add(q[1], e[1], KEVENT_EDGE), 0);
	CHECK_EQ(epoll_add(e[0], q[1], EPOLLIN), 0);
	ret = epoll_add(e[1], q[0], EPOLLIN);
	CHECK(!ret || ret == -ELOOP);
	walk(q, e, 2, x);
	close(q[0]);
	walk(&q[1], &e[1], 1, x);
}

struct storm {
	int q[3], e[3], x;
	_Atomic bool stop;
	_Atomic unsigned int stream;
};

static void *storm_links(void *arg)
{
	struct storm *s = arg;
	struct rnd rnd = rnd_stream(s->stream++);
	unsigned int i, total = rounds(400);

	for (i = 0; i < total; i++) {
		int q = s->q[rnd_below(&rnd, 3)], e = s->e[rnd_below(&rnd, 3)];
		int other = s->q[rnd_below(&rnd, 3)], ret;
		uint32_t flags = rnd_below(&rnd, 2) ? KEVENT_EDGE : 0;

		switch (rnd_below(&rnd, 7)) {
		case 0:
		case 1:
			ret = queue_add(q, e, flags);
			CHECK(!ret || ret == -ELOOP || ret == -EEXIST);
			break;
		case 2:
			ret = queue_add(q, other, flags);
			CHECK(!ret || ret == -ELOOP || ret == -EEXIST);
			break;
		case 3:
		case 4:
			ret = epoll_add(e, q, EPOLLIN);
			CHECK(!ret || ret == -ELOOP || ret == -EEXIST ||
			      ret == -EINVAL);
			break;
		case 5:
			remove_kevent(q, KEVENT_POLL, e, 0);
			remove_kevent(q, KEVENT_POLL, other, 0);
			break;
		default:
			epoll_ctl(e, EPOLL_CTL_DEL, q, NULL);
			break;
		}
	}
	return NULL;
}

static void *storm_waits(void *arg)
{
	struct storm *s = arg;
	struct rnd rnd = rnd_stream(s->stream++);
	struct kevent_event kev[4];
	struct epoll_event ev[4];

	while (!s->stop) {
		unsigned int i = rnd_below(&rnd, 3);
		struct pollfd pfd = { .fd = s->q[i], .events = POLLIN };

		CHECK(wait_events(s->q[i], kev, 4, 1, 200000) >= 0);
		SYS(epoll_wait(s->e[i], ev, 4, 0));
		SYS(poll(&pfd, 1, 0));
	}
	return NULL;
}

static void *storm_writes(void *arg)
{
	struct storm *s = arg;
	uint64_t value;

	while (!s->stop) {
		eventfd_write_one(s->x);
		(void)!read(s->x, &value, sizeof(value));
	}
	return NULL;
}

/*
 *	q0 q1 q2 <-> e0 e1 e2	links made and cut at random by two threads,
 *		 \   /		waits by two more, x written all the time
 *		   x
 */
static void links_made_and_cut_under_a_storm_of_wakeups_hang_nobody(void)
{
	struct storm s = { .x = eventfd_new(0) };
	pthread_t threads[5];
	unsigned int i;

	for (i = 0; i < 3; i++) {
		s.q[i] = queue_open();
		need_feature(s.q[i], KEVENT_FEATURE_POLL);
		s.e[i] = epoll_new();
		CHECK_EQ(queue_add(s.q[i], s.x, i & 1 ? KEVENT_EDGE : 0), 0);
		CHECK_EQ(epoll_add(s.e[i], s.x, EPOLLIN), 0);
	}
	threads[0] = thread_start(storm_links, &s);
	threads[1] = thread_start(storm_links, &s);
	threads[2] = thread_start(storm_waits, &s);
	threads[3] = thread_start(storm_waits, &s);
	threads[4] = thread_start(storm_writes, &s);
	thread_join(threads[0]);
	thread_join(threads[1]);
	s.stop = true;
	for (i = 2; i < 5; i++)
		thread_join(threads[i]);
	for (i = 0; i < 3; i++) {
		close(i & 1 ? s.q[i] : s.e[i]);
		close(i & 1 ? s.e[i] : s.q[i]);
	}
}

/*
 *	e -> q -> x		x written, q drained, by different threads
 */
static void an_edge_triggered_epoll_around_a_queue_misses_nothing(void)
{
	int q = queue_open(), e = epoll_new(), x = eventfd_new(0);
	unsigned int i, total = rounds(300);

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(queue_add(q, x, 0), 0);
	CHECK_EQ(epoll_add(e, q, EPOLLIN | EPOLLET), 0);
	for (i = 0; i < total; i++) {
		pthread_t t = thread_start(epoll_once, &e);
		uint64_t value;

		eventfd_write_one(x);
		thread_join(t);
		queue_once(&q);
		CHECK_EQ(SYS(read(x, &value, sizeof(value))), sizeof(value));
		check_silent(q);
	}
}

/* The inner one goes first, then the outer one is looked at. */
static void a_queue_closed_inside_an_epoll_is_gone(void)
{
	int q = queue_open(), e = epoll_new();
	struct epoll_event ev;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1, 0, 0), 0);
	CHECK_EQ(epoll_add(e, q, EPOLLIN), 0);
	CHECK_EQ(post(q, 1, 0), 0);
	CHECK_EQ(SYS(epoll_wait(e, &ev, 1, 0)), 1);
	close(q);
	CHECK_EQ(SYS(epoll_wait(e, &ev, 1, 0)), 0);
}

static void a_queue_closed_inside_a_queue_is_gone_unless_pinned(void)
{
	int inner = queue_open(), outer = queue_open();
	bool pinned = queue_info(outer).pinned & KEVENT_FILE_KEVENT;
	struct kevent_event ev;

	need_feature(inner, KEVENT_FEATURE_POLL);
	need_feature(inner, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(inner, 1, 0, 0), 0);
	CHECK_EQ(queue_add(outer, inner, 0), 0);
	CHECK_EQ(post(inner, 1, 0), 0);
	queue_once(&outer);
	close(inner);
	CHECK_EQ(wait_events(outer, &ev, 1, 0, 0), pinned);
	CHECK_EQ(remove_kevent(outer, KEVENT_POLL, inner, KEVENT_STALE),
		 pinned ? 0 : -ENOENT);
	check_silent(outer);
}

#define TOO_MANY	1100

/* Whether @q, which so many others watch, may watch a queue of events. */
static void a_queue_that_wakes_a_thousand_others_watches_no_queue(void)
{
	int q = queue_open(), e = epoll_new(), x = eventfd_new(0), i;
	static int outer[TOO_MANY];

	need_feature(q, KEVENT_FEATURE_POLL);
	raise_nofile(TOO_MANY + 64);
	for (i = 0; i < TOO_MANY; i++) {
		outer[i] = queue_open();
		CHECK_EQ(queue_add(outer[i], q, 0), 0);
		if (i == 900)
			CHECK_EQ(queue_add(q, e, 0), 0);
	}
	CHECK_EQ(remove_kevent(q, KEVENT_POLL, (uint64_t)e, 0), 0);
	CHECK_EQ(queue_add(q, e, 0), -ELOOP);
	CHECK_EQ(queue_add(q, x, 0), 0);
	/* All of them hear of it all the same. */
	eventfd_write_one(x);
	for (i = 0; i < TOO_MANY; i++)
		queue_once(&outer[i]);
	for (i = 0; i < 200; i++)
		close(outer[i]);
	CHECK_EQ(queue_add(q, e, 0), 0);
}

/* Until told to stop, opens and closes a queue that watches the one given. */
struct comer {
	int q;
	atomic_bool stop;
	atomic_uint came;
};

static void *come_and_go(void *arg)
{
	struct comer *c = arg;

	while (!c->stop) {
		int q = queue_open(), e = epoll_new();

		CHECK_EQ(queue_add(q, c->q, 0), 0);
		/* a search of its own, and reached by the other's */
		CHECK_EQ(queue_add(q, e, 0), 0);
		close(q);
		close(e);
		c->came++;
	}
	return NULL;
}

/* A queue may be closed while a search for cycles has it in hand. */
static void queues_go_while_a_search_for_cycles_reaches_them(void)
{
	struct comer c = { .q = queue_open() };
	unsigned int i, nr = rounds(3000);
	int e = epoll_new();
	pthread_t threads[2];

	need_feature(c.q, KEVENT_FEATURE_POLL);
	threads[0] = thread_start(come_and_go, &c);
	threads[1] = thread_start(come_and_go, &c);
	for (i = 0; i < nr || c.came < nr / 10; i++) {
		CHECK_EQ(queue_add(c.q, e, 0), 0);
		CHECK_EQ(remove_kevent(c.q, KEVENT_POLL, (uint64_t)e, 0), 0);
	}
	c.stop = true;
	thread_join(threads[0]);
	thread_join(threads[1]);
}

static const struct test_case cases[] = {
	TEST(an_event_in_a_queue_wakes_who_waits_on_an_epoll_around_it),
	TEST(an_event_in_an_epoll_wakes_who_waits_on_a_queue_around_it),
	TEST(queues_nest_a_few_deep_and_no_deeper_than_is_safe),
	TEST(a_queue_that_watches_itself_is_refused),
	TEST(a_cycle_of_queues_is_refused),
	TEST(a_cycle_through_an_epoll_is_refused),
	TEST(a_cycle_closed_by_epoll_ctl_hangs_nobody),
	TEST(a_long_cycle_closed_by_epoll_ctl_hangs_nobody),
	TEST(a_queue_that_wakes_a_thousand_others_watches_no_queue),
	TEST(queues_go_while_a_search_for_cycles_reaches_them),
	TEST(links_made_and_cut_under_a_storm_of_wakeups_hang_nobody),
	TEST(an_edge_triggered_epoll_around_a_queue_misses_nothing),
	TEST(a_queue_closed_inside_an_epoll_is_gone),
	TEST(a_queue_closed_inside_a_queue_is_gone_unless_pinned),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
