// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Many threads wait, many make things happen: each event goes to exactly one
 * waiter, and the sums at the end say that none was lost and none doubled.
 *
 *	p0  p1  p2		producers: write, or POST, by numbers
 *	  \  |  /
 *	   sources
 *	  /  |  \
 *	 …   q   …		one queue
 *	  /  |  \
 *	w0  w1 … w5		all of them in WAIT
 *
 * A lost wake-up ends as a case that runs out of time.
 */
#include "lib.h"

#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#define PRODUCERS	3
#define WAITERS		6
#define SOURCES		8
#define STOP		(~0ULL)	/* cookie of the event that ends a waiter */
#define STOP_IDENT	0xffffffffffULL

struct scene;
typedef void (*produce_fn)(struct scene *s, unsigned int source,
			   struct rnd *rnd);
typedef void (*consume_fn)(struct scene *s, const struct kevent_event *ev);

struct scene {
	int q;
	int fd[SOURCES][2];		/* [0] is watched, [1] written */
	unsigned int per_producer;
	uint16_t type;
	uint32_t events;
	uint32_t flags;
	produce_fn produce;
	consume_fn consume;
	_Atomic unsigned int produced;
	_Atomic unsigned int consumed;
	_Atomic unsigned int stream;
	_Atomic unsigned int stopped;
	/* Numbered messages, by source. */
	atomic_flag turn[SOURCES];
	uint32_t sent[SOURCES];
	uint32_t received[SOURCES];
	_Atomic bool busy[SOURCES];	/* between delivery and re-arming */
};

static void *producer(void *arg)
{
	struct scene *s = arg;
	struct rnd rnd = rnd_stream(s->stream++);
	unsigned int i;

	for (i = 0; i < s->per_producer; i++)
		s->produce(s, rnd_below(&rnd, SOURCES), &rnd);
	return NULL;
}

static void *waiter(void *arg)
{
	struct scene *s = arg;
	struct rnd rnd = rnd_stream(s->stream++);
	struct kevent_event ev[4];
	bool stop = false;

	while (!stop) {
		uint32_t max = 1 + rnd_below(&rnd, ARRAY_SIZE(ev));
		int i, n = wait_events(s->q, ev, max, 1, FOREVER);

		CHECK(n >= 1);
		for (i = 0; i < n; i++) {
			if (ev[i].cookie == STOP)
				stop = true;
			else
				s->consume(s, &ev[i]);
		}
	}
	s->stopped++;
	return NULL;
}

static void play(struct scene *s)
{
	pthread_t producers[PRODUCERS], waiters[WAITERS];
	uint64_t end;
	unsigned int i;

	for (i = 0; i < WAITERS; i++)
		waiters[i] = thread_start(waiter, s);
	for (i = 0; i < PRODUCERS; i++)
		producers[i] = thread_start(producer, s);
	for (i = 0; i < PRODUCERS; i++)
		thread_join(producers[i]);
	for (end = now_ns() + PATIENCE; s->consumed != s->produced;) {
		if (now_ns() > end)
			FAIL("%u produced, %u consumed, %llu ready",
			     s->produced, s->consumed,
			     (unsigned long long)queue_info(s->q).ready);
		sched_yield();
	}
	for (i = 0; i < WAITERS; i++) {
		CHECK_EQ(add_user(s->q, STOP_IDENT, KEVENT_ONESHOT, STOP), 0);
		CHECK_EQ(post(s->q, STOP_IDENT, 0), 0);
		while (s->stopped <= i)
			sched_yield();
	}
	for (i = 0; i < WAITERS; i++)
		thread_join(waiters[i]);
	CHECK_EQ(s->consumed, s->produced);
}

static void watch_all(struct scene *s)
{
	unsigned int i;

	for (i = 0; i < SOURCES; i++)
		CHECK_EQ(add(s->q, s->type, s->fd[i][0], s->events, s->flags,
			     i), 0);
}

/* Something that counts: eventfd, read by whoever got the event. */

static void write_eventfd(struct scene *s, unsigned int source,
			  struct rnd *rnd)
{
	(void)rnd;
	s->produced++;
	eventfd_write_one(s->fd[source][1]);
}

static void read_eventfd(struct scene *s, const struct kevent_event *ev)
{
	uint64_t value;
	ssize_t n = read(s->fd[ev->cookie][0], &value, sizeof(value));

	if (n == sizeof(value))
		s->consumed += (unsigned int)value;
	else
		CHECK_EQ(errno, EAGAIN);
	if (s->flags & KEVENT_DISPATCH)
		CHECK_EQ(modify(s->q, s->type, ev->ident, s->events, s->flags,
				ev->cookie), 0);
}

static void eventfds(uint32_t flags)
{
	struct scene s = {
		.q = queue_open(), .type = KEVENT_POLL, .events = POLLIN,
		.flags = flags, .per_producer = rounds(1500),
		.produce = write_eventfd, .consume = read_eventfd,
	};
	unsigned int i;

	need_feature(s.q, KEVENT_FEATURE_POLL | KEVENT_FEATURE_USER);
	for (i = 0; i < SOURCES; i++)
		s.fd[i][0] = s.fd[i][1] = eventfd_new(0);
	watch_all(&s);
	play(&s);
}

static void level_events_reach_the_waiters_without_loss(void)
{
	eventfds(0);
}

static void edges_reach_the_waiters_without_loss(void)
{
	eventfds(KEVENT_EDGE);
}

static void dispatched_events_reach_the_waiters_without_loss(void)
{
	eventfds(KEVENT_DISPATCH);
}

static void dispatched_edges_reach_the_waiters_without_loss(void)
{
	eventfds(KEVENT_DISPATCH | KEVENT_EDGE);
}

/* One byte more or less in a stream. */

static void write_byte(struct scene *s, unsigned int source, struct rnd *rnd)
{
	(void)rnd;
	s->produced++;
	while (write(s->fd[source][1], "x", 1) != 1) {
		CHECK_EQ(errno, EAGAIN);
		sched_yield();
	}
}

static void read_bytes(struct scene *s, const struct kevent_event *ev)
{
	char buf[64];
	ssize_t n;

	CHECK_EQ(ev->events, s->events);
	do {
		n = recv(s->fd[ev->cookie][0], buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0)
			CHECK_EQ(errno, EAGAIN);
		else
			s->consumed += (unsigned int)n;
	} while (n > 0 && s->flags & KEVENT_EDGE);
	if (s->flags & KEVENT_DISPATCH)
		CHECK_EQ(modify(s->q, s->type, ev->ident, s->events, s->flags,
				ev->cookie), 0);
}

static void streams(uint32_t flags, bool tcp)
{
	struct scene s = {
		.q = queue_open(), .type = KEVENT_SOCKET,
		.events = KEVENT_SOCKET_RECV, .flags = flags,
		.per_producer = rounds(tcp ? 400 : 1000),
		.produce = write_byte, .consume = read_bytes,
	};
	unsigned int i;

	need_feature(s.q, KEVENT_FEATURE_SOCKET | KEVENT_FEATURE_USER);
	for (i = 0; i < SOURCES; i++) {
		if (tcp)
			tcp_pair(s.fd[i]);
		else
			unix_pair(s.fd[i]);
	}
	watch_all(&s);
	play(&s);
}

static void bytes_of_unix_sockets_reach_the_waiters_without_loss(void)
{
	streams(0, false);
	streams(KEVENT_EDGE, false);
}

static void bytes_of_tcp_sockets_reach_the_waiters_without_loss(void)
{
	streams(KEVENT_DISPATCH, true);
	streams(KEVENT_EDGE, true);
}

/*
 * Numbered messages under DISPATCH: between delivery and re-arming a source
 * belongs to one waiter alone, so that the numbers come to it in order.
 */

static void send_number(struct scene *s, unsigned int source, struct rnd *rnd)
{
	uint32_t number;

	(void)rnd;
	/* One producer at a source at a time, or numbers would cross. */
	while (atomic_flag_test_and_set(&s->turn[source]))
		sched_yield();
	number = s->sent[source]++;
	while (send(s->fd[source][1], &number, sizeof(number), 0) < 0) {
		CHECK_EQ(errno, EAGAIN);
		sched_yield();
	}
	s->produced++;
	atomic_flag_clear(&s->turn[source]);
}

static void receive_number(struct scene *s, const struct kevent_event *ev)
{
	unsigned int source = (unsigned int)ev->cookie;
	uint32_t number;

	if (atomic_exchange(&s->busy[source], true))
		FAIL("source %u is with two waiters", source);
	CHECK_EQ(recv(s->fd[source][0], &number, sizeof(number), 0),
		 sizeof(number));
	CHECK_EQ(number, s->received[source]);
	s->received[source]++;
	s->consumed++;
	s->busy[source] = false;
	CHECK_EQ(modify(s->q, s->type, ev->ident, s->events, s->flags,
			ev->cookie), 0);
}

static void numbered_messages_come_in_order_to_one_waiter_at_a_time(void)
{
	struct scene s = {
		.q = queue_open(), .type = KEVENT_SOCKET,
		.events = KEVENT_SOCKET_RECV, .flags = KEVENT_DISPATCH,
		.per_producer = rounds(800),
		.produce = send_number, .consume = receive_number,
	};
	unsigned int i;

	need_feature(s.q, KEVENT_FEATURE_SOCKET | KEVENT_FEATURE_USER);
	for (i = 0; i < SOURCES; i++)
		SYS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
			       s.fd[i]));
	watch_all(&s);
	play(&s);
	for (i = 0; i < SOURCES; i++)
		CHECK_EQ(s.received[i], s.sent[i]);
}

/* Posts: however they coalesce, the counts add up. */

static void post_one(struct scene *s, unsigned int source, struct rnd *rnd)
{
	s->produced++;
	CHECK_EQ(post(s->q, source, rnd_below(rnd, 1000)), 0);
}

static void count_posts(struct scene *s, const struct kevent_event *ev)
{
	CHECK(ev->count >= 1);
	CHECK(ev->data < 1000);
	s->consumed += ev->count;
	if (s->flags & KEVENT_DISPATCH)
		CHECK_EQ(modify(s->q, KEVENT_USER, ev->ident,
				KEVENT_USER_POSTED, s->flags, ev->cookie), 0);
}

static void posts(uint32_t flags)
{
	struct scene s = {
		.q = queue_open(), .flags = flags,
		.per_producer = rounds(2000),
		.produce = post_one, .consume = count_posts,
	};
	unsigned int i;

	need_feature(s.q, KEVENT_FEATURE_USER);
	for (i = 0; i < SOURCES; i++)
		CHECK_EQ(add_user(s.q, i, flags, i), 0);
	play(&s);
}

static void the_counts_of_posted_events_add_up(void)
{
	posts(0);
	posts(KEVENT_DISPATCH);
}

/*
 * One-shot kevents that several producers post to at once: the first delivery
 * removes it, so each cookie comes once, with LAST, and never again.
 */

#define SHOTS	2000

static _Atomic unsigned int shot_seen[SHOTS];

static void post_shot(struct scene *s, unsigned int source, struct rnd *rnd)
{
	unsigned int i, from;

	(void)source;
	from = rnd_below(rnd, SHOTS);
	for (i = 0; i < SHOTS; i++) {
		int ret = post(s->q, (from + i) % SHOTS, 0);

		CHECK(!ret || ret == -ENOENT);
	}
}

static void take_shot(struct scene *s, const struct kevent_event *ev)
{
	CHECK(ev->cookie < SHOTS);
	CHECK_EQ(ev->flags, KEVENT_EVENT_LAST);
	CHECK_EQ(shot_seen[ev->cookie]++, 0);
	s->consumed++;
}

static void a_one_shot_is_delivered_once_however_many_post_and_wait(void)
{
	struct scene s = {
		.q = queue_open(), .per_producer = 1, .produced = SHOTS,
		.produce = post_shot, .consume = take_shot,
	};
	unsigned int i;

	need_feature(s.q, KEVENT_FEATURE_USER);
	for (i = 0; i < SHOTS; i++)
		CHECK_EQ(add_user(s.q, i, KEVENT_ONESHOT, i), 0);
	play(&s);
	CHECK_EQ(queue_info(s.q).kevents, 0);
}

static void add_shot_timer(struct scene *s, unsigned int source,
			   struct rnd *rnd)
{
	uint64_t ident = s->produced++;

	(void)source;
	CHECK_EQ(add_timer(s->q, ident, rnd_below(rnd, 3000000), 0,
			   KEVENT_ONESHOT, ident), 0);
}

static void one_shot_timers_expire_once_each(void)
{
	struct scene s = {
		.q = queue_open(), .per_producer = SHOTS / PRODUCERS,
		.produce = add_shot_timer, .consume = take_shot,
	};

	need_feature(s.q, KEVENT_FEATURE_TIMER | KEVENT_FEATURE_USER);
	play(&s);
	CHECK_EQ(queue_info(s.q).kevents, 0);
}

static const struct test_case cases[] = {
	TEST(level_events_reach_the_waiters_without_loss),
	TEST(edges_reach_the_waiters_without_loss),
	TEST(dispatched_events_reach_the_waiters_without_loss),
	TEST(dispatched_edges_reach_the_waiters_without_loss),
	TEST(bytes_of_unix_sockets_reach_the_waiters_without_loss),
	TEST(bytes_of_tcp_sockets_reach_the_waiters_without_loss),
	TEST(numbered_messages_come_in_order_to_one_waiter_at_a_time),
	TEST(the_counts_of_posted_events_add_up),
	TEST(a_one_shot_is_delivered_once_however_many_post_and_wait),
	TEST(one_shot_timers_expire_once_each),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
