// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The close of what is watched, against callbacks, REMOVE, WAIT and the close of
 * the queue; after it nothing is delivered, or BROKEN once where asked for.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* One kind of file: how to make a watched end and one that stirs it. */
struct kind {
	const char *name;
	uint16_t type;
	uint32_t events;
	uint32_t file;		/* KEVENT_FILE_* */
	void (*make)(int fd[2]);
};

static void make_eventfd(int fd[2])
{
	fd[0] = eventfd_new(0);
	fd[1] = -1;
}

static void make_pipe(int fd[2])
{
	SYS(pipe2(fd, O_CLOEXEC | O_NONBLOCK));
}

static void make_pty(int fd[2])
{
	pty_pair(&fd[1], &fd[0]);
}

static void make_udp(int fd[2])
{
	fd[0] = (int)SYS(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
	fd[1] = -1;
}

static void make_file(int fd[2])
{
	char path[128];

	snprintf(path, sizeof(path), "%s/file", temp_dir());
	fd[0] = (int)SYS(open(path, O_RDWR | O_CREAT, 0644));
	fd[1] = (int)SYS(open(path, O_WRONLY));
}

static const struct kind kinds[] = {
	{ "tcp", KEVENT_SOCKET, KEVENT_SOCKET_RECV, KEVENT_FILE_SOCKET,
	  tcp_pair },
	{ "unix", KEVENT_SOCKET, KEVENT_SOCKET_RECV, KEVENT_FILE_SOCKET,
	  unix_pair },
	{ "udp", KEVENT_SOCKET, KEVENT_SOCKET_SEND, KEVENT_FILE_SOCKET,
	  make_udp },
	{ "poll of tcp", KEVENT_POLL, POLLIN, KEVENT_FILE_SOCKET, tcp_pair },
	{ "pipe", KEVENT_POLL, POLLIN, KEVENT_FILE_PIPE, make_pipe },
	{ "eventfd", KEVENT_POLL, POLLOUT, KEVENT_FILE_ANON, make_eventfd },
	{ "pty slave", KEVENT_POLL, POLLIN, KEVENT_FILE_PTY_SLAVE, make_pty },
	{ "inode", KEVENT_INODE, KEVENT_INODE_MODIFY, KEVENT_FILE_INODE,
	  make_file },
};

static uint32_t feature_of(uint16_t type)
{
	return type == KEVENT_SOCKET ? KEVENT_FEATURE_SOCKET :
	       type == KEVENT_POLL ? KEVENT_FEATURE_POLL :
				     KEVENT_FEATURE_INODE;
}

/* Each kind that this module has and that it does not pin. */
static const struct kind *each_kind(int q, size_t *i)
{
	struct kevent_info info = queue_info(q);

	for (; *i < ARRAY_SIZE(kinds); ++*i)
		if (info.features & feature_of(kinds[*i].type) &&
		    !(info.pinned & kinds[*i].file))
			return &kinds[(*i)++];
	return NULL;
}

struct stirrer {
	_Atomic int fd;
	_Atomic bool stop;
	atomic_flag busy;
};

/* Keeps writing to the other end, whichever that is now. */
static void *stir(void *arg)
{
	struct stirrer *s = arg;

	while (!s->stop) {
		while (atomic_flag_test_and_set(&s->busy))
			sched_yield();
		if (s->fd >= 0)
			(void)!write(s->fd, "x", 1);
		atomic_flag_clear(&s->busy);
	}
	return NULL;
}

/* A pair whose other end is being written to from now on. */
static void start_stirring(struct stirrer *s, const struct kind *k, int fd[2])
{
	k->make(fd);
	if (fd[1] >= 0)
		fcntl(fd[1], F_SETFL, O_NONBLOCK);
	s->fd = fd[1];
}

static void stop_stirring(struct stirrer *s, int fd[2])
{
	s->fd = -1;
	while (atomic_flag_test_and_set(&s->busy))
		sched_yield();
	atomic_flag_clear(&s->busy);
	if (fd[1] >= 0)
		close(fd[1]);
}

static void after_close_nothing_is_delivered(void)
{
	struct stirrer s = { .fd = -1 };
	unsigned int i, total = rounds(150);
	const struct kind *k;
	int q = queue_open();
	pthread_t thread;
	size_t next = 0;

	signal(SIGPIPE, SIG_IGN);
	thread = thread_start(stir, &s);
	while ((k = each_kind(q, &next))) {
		for (i = 0; i < total; i++) {
			struct kevent_event ev;
			int fd[2];

			start_stirring(&s, k, fd);
			CHECK_EQ(add(q, k->type, fd[0], k->events,
				     i & 1 ? KEVENT_EDGE : 0, i), 0);
			if (i & 2)
				CHECK(wait_events(q, &ev, 1, 0, 0) >= 0);
			close(fd[0]);
			check_silent(q);
			stop_stirring(&s, fd);
			check_silent(q);
		}
	}
	s.stop = true;
	thread_join(thread);
}

static void after_remove_nothing_is_delivered(void)
{
	struct stirrer s = { .fd = -1 };
	unsigned int i, total = rounds(400);
	const struct kind *k;
	int q = queue_open();
	pthread_t thread;
	size_t next = 0;

	signal(SIGPIPE, SIG_IGN);
	thread = thread_start(stir, &s);
	while ((k = each_kind(q, &next))) {
		int fd[2];

		start_stirring(&s, k, fd);
		for (i = 0; i < total; i++) {
			char buf[256];

			CHECK_EQ(add(q, k->type, fd[0], k->events,
				     i & 1 ? KEVENT_EDGE : 0, i), 0);
			if (k->type != KEVENT_INODE)
				(void)!read(fd[0], buf, i & 4 ? 1 : 255);
			CHECK_EQ(remove_kevent(q, k->type, fd[0], 0), 0);
			check_silent(q);
		}
		close(fd[0]);
		stop_stirring(&s, fd);
	}
	s.stop = true;
	thread_join(thread);
	CHECK_EQ(queue_info(q).kevents, 0);
}

struct post_loop {
	int q;
	_Atomic bool stop;
};

static void *keep_posting(void *arg)
{
	struct post_loop *p = arg;

	while (!p->stop) {
		int ret = post(p->q, 1, 0);

		CHECK(!ret || ret == -ENOENT);
	}
	return NULL;
}

static void after_remove_no_timer_and_no_post_is_delivered(void)
{
	struct post_loop p = { .q = queue_open() };
	unsigned int i, total = rounds(2000);
	pthread_t thread;

	need_feature(p.q, KEVENT_FEATURE_USER);
	need_feature(p.q, KEVENT_FEATURE_TIMER);
	thread = thread_start(keep_posting, &p);
	for (i = 0; i < total; i++) {
		CHECK_EQ(add_user(p.q, 1, i & 1 ? KEVENT_ONESHOT : 0, i), 0);
		CHECK_EQ(add_timer(p.q, 2, i % 40 * 1000, i & 2 ? 1000 : 0, 0,
				   i), 0);
		CHECK_EQ(remove_kevent(p.q, KEVENT_USER, 1, 0), 0);
		CHECK_EQ(remove_kevent(p.q, KEVENT_TIMER, 2, 0), 0);
		check_silent(p.q);
	}
	p.stop = true;
	thread_join(thread);
}

/*
 * close() in one thread, REMOVE in another: either REMOVE was first and nothing
 * is heard of it again, or the close was and BROKEN comes, once.
 */
struct duel {
	pthread_barrier_t start;
	pthread_barrier_t end;
	_Atomic int fd;
	_Atomic bool stop;
};

static void *close_in_duel(void *arg)
{
	struct duel *d = arg;

	for (;;) {
		pthread_barrier_wait(&d->start);
		if (d->stop)
			return NULL;
		close(d->fd);
		pthread_barrier_wait(&d->end);
	}
}

static void check_duel(int q, const struct kind *k, struct duel *d,
		       unsigned int *removed, unsigned int *broken)
{
	unsigned int i, total = rounds(150);
	struct rnd rnd = rnd_stream(0);

	for (i = 0; i < total; i++) {
		struct kevent_event ev[2];
		int fd[2], ret, n;
		uint64_t begin;

		k->make(fd);
		CHECK_EQ(add(q, k->type, fd[0], k->events,
			     KEVENT_EDGE | KEVENT_NOTIFY_BROKEN, i), 0);
		/* What is ready at once is not what this is about. */
		CHECK(wait_events(q, ev, 2, 0, 0) >= 0);
		d->fd = fd[0];
		pthread_barrier_wait(&d->start);
		begin = now_ns() + rnd_below(&rnd, 60000);
		while (now_ns() < begin)
			;
		ret = remove_kevent(q, k->type, fd[0], 0);
		pthread_barrier_wait(&d->end);
		n = wait_events(q, ev, 2, 0, 0);
		if (ret == 0) {
			if (n)
				FAIL("%s: removed, then %d events, flags %#x",
				     k->name, n, ev[0].flags);
			++*removed;
		} else {
			CHECK_EQ(ret, -EBADF);
			if (n != 1)
				FAIL("%s: closed, then %d events", k->name, n);
			CHECK_EQ(ev[0].cookie, i);
			CHECK_EQ(ev[0].flags,
				 KEVENT_EVENT_BROKEN | KEVENT_EVENT_LAST);
			++*broken;
		}
		check_silent(q);
		CHECK_EQ(queue_info(q).kevents, 0);
		if (fd[1] >= 0)
			close(fd[1]);
	}
}

static void close_and_remove_at_once_end_in_one_of_them(void)
{
	struct duel d = { .fd = -1 };
	unsigned int removed = 0, broken = 0;
	const struct kind *k;
	int q = queue_open();
	pthread_t thread;
	size_t next = 0;

	pthread_barrier_init(&d.start, NULL, 2);
	pthread_barrier_init(&d.end, NULL, 2);
	thread = thread_start(close_in_duel, &d);
	while ((k = each_kind(q, &next)))
		check_duel(q, k, &d, &removed, &broken);
	d.stop = true;
	pthread_barrier_wait(&d.start);
	thread_join(thread);
	dprintf(STDERR_FILENO, "%u removed, %u broken\n", removed, broken);
}

struct broken_waiter {
	int q;
	_Atomic unsigned int seen;
	_Atomic bool stop;
};

static void *count_broken(void *arg)
{
	struct broken_waiter *b = arg;
	struct kevent_event ev[8];

	while (!b->stop) {
		int i, n = wait_events(b->q, ev, 8, 1, 10 * NSEC_PER_MSEC);

		CHECK(n >= 0);
		for (i = 0; i < n; i++)
			if (ev[i].flags & KEVENT_EVENT_BROKEN)
				b->seen++;
	}
	return NULL;
}

/*
 *	w0  w1  w2		in WAIT
 *	   \ | /
 *	     q  <--- close of one watched file after the other
 */
static void each_close_is_reported_to_one_waiter_once(void)
{
	struct broken_waiter b = { .q = queue_open() };
	unsigned int i, closed = 0, total = rounds(100);
	pthread_t threads[3];
	const struct kind *k;
	size_t next = 0;
	uint64_t end;

	for (i = 0; i < 3; i++)
		threads[i] = thread_start(count_broken, &b);
	while ((k = each_kind(b.q, &next))) {
		for (i = 0; i < total; i++) {
			int fd[2];

			k->make(fd);
			CHECK_EQ(add(b.q, k->type, fd[0], k->events,
				     KEVENT_EDGE | KEVENT_NOTIFY_BROKEN, i), 0);
			close(fd[0]);
			if (fd[1] >= 0)
				close(fd[1]);
			closed++;
		}
	}
	for (end = now_ns() + PATIENCE; b.seen != closed;) {
		if (now_ns() > end)
			FAIL("%u closed, %u reported", closed, b.seen);
		sched_yield();
	}
	b.stop = true;
	for (i = 0; i < 3; i++)
		thread_join(threads[i]);
	CHECK_EQ(b.seen, closed);
	CHECK_EQ(queue_info(b.q).kevents, 0);
}

/* The queue goes in one thread, what it watches in another. */
static void queue_and_watched_file_may_close_at_the_same_time(void)
{
	struct duel d = { .fd = -1 };
	unsigned int i, total = rounds(150);
	int witness = queue_open();
	uint64_t before = queue_info(witness).user_kevents;
	const struct kind *k;
	pthread_t thread;
	size_t next = 0;

	pthread_barrier_init(&d.start, NULL, 2);
	pthread_barrier_init(&d.end, NULL, 2);
	thread = thread_start(close_in_duel, &d);
	while ((k = each_kind(witness, &next))) {
		for (i = 0; i < total; i++) {
			int fd[2], q = queue_open();

			k->make(fd);
			CHECK_EQ(add(q, k->type, fd[0], k->events,
				     i & 1 ? KEVENT_NOTIFY_BROKEN : 0, i), 0);
			d.fd = fd[0];
			pthread_barrier_wait(&d.start);
			close(q);
			pthread_barrier_wait(&d.end);
			if (fd[1] >= 0)
				close(fd[1]);
		}
	}
	d.stop = true;
	pthread_barrier_wait(&d.start);
	thread_join(thread);
	wait_until_user_kevents(witness, before);
}

static void the_number_of_a_closed_file_is_free_at_once(void)
{
	unsigned int i, total = rounds(200);
	int q = queue_open(), last = -1;
	const struct kind *k;
	size_t next = 0;

	while ((k = each_kind(q, &next))) {
		for (i = 0; i < total; i++) {
			int fd[2];

			k->make(fd);
			if (last >= 0)
				CHECK_EQ(remove_kevent(q, k->type, fd[0], 0),
					 -ENOENT);
			CHECK_EQ(add(q, k->type, fd[0], k->events, 0, i), 0);
			close(fd[0]);
			if (fd[1] >= 0)
				close(fd[1]);
			last = fd[0];
		}
		last = -1;
	}
	/* Ghosts are bounded by numbers, not by how often they were used. */
	CHECK(queue_info(q).kevents <= 2 * ARRAY_SIZE(kinds));
}

#define CROWD		300	/* several times what ends in one go */
#define CROWD_BASE	1000

struct crowd {
	pthread_barrier_t start;
	pthread_barrier_t end;
	int fd[2];
	_Atomic bool stop;
};

static void *close_read_end(void *arg)
{
	struct crowd *c = arg;

	for (;;) {
		pthread_barrier_wait(&c->start);
		if (c->stop)
			return NULL;
		SYS(close(c->fd[0]));
		pthread_barrier_wait(&c->end);
	}
}

static void *close_write_end(void *arg)
{
	struct crowd *c = arg;

	for (;;) {
		pthread_barrier_wait(&c->start);
		if (c->stop)
			return NULL;
		SYS(close(c->fd[1]));
		pthread_barrier_wait(&c->end);
	}
}

/* Either end of a new pipe under many numbers, which are closed again. */
static void watch_under_many_numbers(struct crowd *c, int q)
{
	int i;

	SYS(pipe2(c->fd, O_CLOEXEC));
	for (i = 0; i < 2 * CROWD; i++) {
		int number = (int)SYS(dup3(c->fd[i & 1], CROWD_BASE + i,
					   O_CLOEXEC));

		CHECK_EQ(add(q, KEVENT_POLL, (uint64_t)number,
			     i & 1 ? POLLPRI : POLLIN, KEVENT_NOTIFY_BROKEN,
			     (uint64_t)i), 0);
		close(number);
	}
}

/* How many are told of their end: each once, and none that was removed. */
static unsigned int check_ends(int q, bool *gone)
{
	static struct kevent_event ev[KEVENT_MAX_RECORDS];
	unsigned int broken = 0;
	int i, n;

	while ((n = wait_events(q, ev, ARRAY_SIZE(ev), 0, 0))) {
		CHECK(n > 0);
		for (i = 0; i < n; i++) {
			/* the other end may have gone before this one did */
			if (!(ev[i].flags & KEVENT_EVENT_BROKEN))
				continue;
			CHECK(ev[i].cookie < 2 * CROWD);
			CHECK(!gone[ev[i].cookie]);
			gone[ev[i].cookie] = true;
			broken++;
		}
	}
	return broken;
}

/*
 *	r --- close of the read end ---> pipe	both walk through the same 600
 *	w --- close of the write end --> pipe	kevents, a few at a time
 *	main --- REMOVE ---> q			takes some away meanwhile
 */
static void crowds_at_both_ends_of_a_pipe_end_while_some_are_removed(void)
{
	unsigned int round, nr = rounds(60), removed = 0, broken = 0;
	struct rnd rnd = rnd_stream(0);
	pthread_t threads[2];
	struct crowd c = {};
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_POLL);
	raise_nofile(CROWD_BASE + 2 * CROWD + 1);
	pthread_barrier_init(&c.start, NULL, 3);
	pthread_barrier_init(&c.end, NULL, 3);
	threads[0] = thread_start(close_read_end, &c);
	threads[1] = thread_start(close_write_end, &c);
	for (round = 0; round < nr; round++) {
		bool gone[2 * CROWD] = { false };
		unsigned int left = 2 * CROWD;
		int i;

		test_context("round %u", round);
		watch_under_many_numbers(&c, q);
		pthread_barrier_wait(&c.start);
		for (i = 0; i < CROWD / 2; i++) {
			unsigned int which = rnd_below(&rnd, 2 * CROWD);
			int ret = remove_kevent(q, KEVENT_POLL,
						CROWD_BASE + which,
						KEVENT_STALE);

			CHECK(!ret || ret == -ENOENT);
			if (ret)
				continue;
			CHECK(!gone[which]);
			gone[which] = true;
			removed++;
			left--;
		}
		pthread_barrier_wait(&c.end);
		CHECK_EQ(check_ends(q, gone), left);
		broken += left;
		CHECK_EQ(queue_info(q).kevents, 0);
	}
	c.stop = true;
	pthread_barrier_wait(&c.start);
	thread_join(threads[0]);
	thread_join(threads[1]);
	dprintf(STDERR_FILENO, "%u removed, %u broken\n", removed, broken);
	CHECK(removed && broken);
}

static const struct test_case cases[] = {
	LONG_TEST(crowds_at_both_ends_of_a_pipe_end_while_some_are_removed, 120),
	TEST(after_close_nothing_is_delivered),
	TEST(after_remove_nothing_is_delivered),
	TEST(after_remove_no_timer_and_no_post_is_delivered),
	TEST(close_and_remove_at_once_end_in_one_of_them),
	TEST(each_close_is_reported_to_one_waiter_once),
	TEST(queue_and_watched_file_may_close_at_the_same_time),
	TEST(the_number_of_a_closed_file_is_free_at_once),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
