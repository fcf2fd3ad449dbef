// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Network transfers against what ends them: REMOVE, the close of the socket, of
 * the queue, the death of the process, a reset by the peer.
 *
 * Byte number n of every stream is pattern(n), so whoever knows how far the
 * transfers before have come knows what has to be in the next one's buffer: a
 * byte that is counted twice, lost, or written after the end is seen.  What was
 * pinned is unpinned: see check_pins().
 */
#include "lib_moves.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define LENGTH	(3 * PAGE)
#define MUCH	(64 * PAGE)
#define HUGE	(512 * PAGE)

static void fill(char *buffer, size_t length, uint64_t pos)
{
	size_t i;

	for (i = 0; i < length; i++)
		buffer[i] = pattern(pos + i);
}

static void check_pattern(const char *buffer, size_t length, uint64_t pos)
{
	size_t i;

	for (i = 0; i < length; i++)
		if (buffer[i] != pattern(pos + i))
			FAIL("byte %llu of the stream is %#x, not %#x",
			     (unsigned long long)(pos + i), buffer[i] & 0xff,
			     pattern(pos + i) & 0xff);
}

static void *memory(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(mem != MAP_FAILED);
	return mem;
}

static int begin(int q, int sock, struct transfer *t, uint32_t events,
		 uint32_t flags)
{
	t->events = events;
	t->most = t->length;
	return transfer_begin(q, sock, t, flags, t->buffer, t->length);
}

/* A thread at the other end of a stream; @to is ours. */
struct peer {
	int fd;
	int to;
	_Atomic bool stop;
	uint64_t pos;
};

/*
 * Writes the pattern in pieces of any size until it is to stop.  Never far
 * ahead, so that there are transfers that wait.
 */
static void *writer(void *arg)
{
	struct rnd rnd = rnd_stream(7);
	struct peer *p = arg;
	char buffer[2 * PAGE];

	while (!p->stop) {
		size_t length = 1 + rnd_below(&rnd, sizeof(buffer));
		int ahead = 0;
		ssize_t n;

		SYS(ioctl(p->to, FIONREAD, &ahead));
		if (ahead > (int)sizeof(buffer)) {
			sched_yield();
			continue;
		}
		fill(buffer, length, p->pos);
		n = send(p->fd, buffer, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			p->pos += (uint64_t)n;
		else
			sched_yield();
	}
	shutdown(p->fd, SHUT_WR);
	return NULL;
}

/* Reads until the end, and checks every byte. */
static void *reader(void *arg)
{
	struct rnd rnd = rnd_stream(8);
	struct peer *p = arg;
	char buffer[4 * PAGE];
	ssize_t n;

	while ((n = SYS(read(p->fd, buffer,
			     1 + rnd_below(&rnd, sizeof(buffer)))))) {
		check_pattern(buffer, (size_t)n, p->pos);
		p->pos += (uint64_t)n;
	}
	return NULL;
}

static void what_is_cancelled_while_bytes_arrive_loses_and_doubles_none(void)
{
	unsigned int i, total = rounds(400), cancelled = 0, part = 0, full = 0;
	struct rnd rnd = rnd_stream(1);
	struct peer peer = { 0 };
	char *mem = memory(LENGTH + PAGE);
	int q = queue_open(), fd[2];
	uint64_t pos = 0;
	pthread_t thread;
	ssize_t n;

	need_feature(q, KEVENT_FEATURE_NAIO);
	remember_pins();
	tcp_pair(fd);
	peer.fd = fd[1];
	peer.to = fd[0];
	thread = thread_start(writer, &peer);
	for (i = 0; i < total; i++) {
		struct transfer t = {
			.ident = i, .buffer = mem + rnd_below(&rnd, PAGE),
			.length = 1 + rnd_below(&rnd, LENGTH),
		};
		unsigned int yields = rnd_below(&rnd, 4);

		test_context("transfer %u", i);
		memset(mem, 0x55, LENGTH + PAGE);
		CHECK_EQ(begin(q, fd[0], &t, KEVENT_NAIO_RECV,
			       rnd_below(&rnd, 4) ? KEVENT_WAITALL : 0), 0);
		while (yields--)
			sched_yield();
		if (!rnd_below(&rnd, 3) || !transfer_cancel(q, &t))
			transfer_wait(q, &t);
		cancelled += t.error == ECANCELED;
		part += t.error == ECANCELED && t.moved;
		full += !t.error;
		CHECK(!t.error || t.error == ECANCELED);
		check_pattern(t.buffer, t.moved, pos);
		pos += t.moved;
		/* and nobody writes any more */
		CHECK(t.moved == t.length || t.buffer[t.moved] == 0x55);
	}
	check_silent(q);
	peer.stop = true;
	while ((n = SYS(read(fd[0], mem, LENGTH)))) {
		check_pattern(mem, (size_t)n, pos);
		pos += (uint64_t)n;
	}
	thread_join(thread);
	CHECK_EQ(pos, peer.pos);
	dprintf(STDERR_FILENO, "%u whole, %u cancelled, %u of them in part\n",
		full, cancelled, part);
	CHECK(full && cancelled);
	close(q);
	check_pins();
}

static void what_is_cancelled_while_bytes_leave_loses_and_doubles_none(void)
{
	unsigned int i, total = rounds(300), cancelled = 0, full = 0;
	struct rnd rnd = rnd_stream(2);
	struct peer peer = { 0 };
	char *mem = memory(MUCH + PAGE);
	int q = queue_open(), fd[2], small = NARROW;
	uint64_t pos = 0;
	pthread_t thread;

	need_feature(q, KEVENT_FEATURE_NAIO);
	remember_pins();
	tcp_pair(fd);
	SYS(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	peer.fd = fd[1];
	thread = thread_start(reader, &peer);
	for (i = 0; i < total; i++) {
		struct transfer t = {
			.ident = i, .buffer = mem + rnd_below(&rnd, PAGE),
			.length = 1 + rnd_below(&rnd, MUCH),
		};
		unsigned int yields = rnd_below(&rnd, 6);

		test_context("transfer %u", i);
		fill(t.buffer, t.length, pos);
		CHECK_EQ(begin(q, fd[0], &t, KEVENT_NAIO_SEND, 0), 0);
		while (yields--)
			sched_yield();
		if (!rnd_below(&rnd, 3) || !transfer_cancel(q, &t))
			transfer_wait(q, &t);
		/* it is ours again, whatever is still on its way */
		memset(mem, 0x55, MUCH + PAGE);
		cancelled += t.error == ECANCELED;
		full += !t.error;
		CHECK(!t.error || t.error == ECANCELED);
		CHECK(t.error || t.moved == t.length);
		pos += t.moved;
	}
	check_silent(q);
	close(fd[0]);
	thread_join(thread);
	CHECK_EQ(pos, peer.pos);
	dprintf(STDERR_FILENO, "%u whole, %u cancelled\n", full, cancelled);
	CHECK(full && cancelled);
	close(q);
	check_pins();
}

static int begin_receive(struct moves *m, struct transfer *t)
{
	t->buffer = m->mem + t->ident * LENGTH;
	t->length = 1 + rnd_below(&m->rnd, LENGTH);
	return begin(m->q, m->fd[0], t, KEVENT_NAIO_RECV, KEVENT_WAITALL);
}

static void many_at_once_keep_their_order_while_some_are_cancelled(void)
{
	struct moves m = {
		.q = queue_open(), .rnd = rnd_stream(3), .begin = begin_receive,
		.mem = memory(TRANSFERS * LENGTH),
	};
	unsigned int i, round, total = rounds(60);
	struct peer peer = { 0 };
	uint64_t pos = 0;
	pthread_t thread;

	need_feature(m.q, KEVENT_FEATURE_NAIO);
	remember_pins();
	tcp_pair(m.fd);
	peer.fd = m.fd[1];
	peer.to = m.fd[0];
	thread = thread_start(writer, &peer);
	for (round = 0; round < total; round++) {
		test_context("round %u", round);
		moves_begin(&m);
		moves_end(&m);
		for (i = 0; i < TRANSFERS; i++) {
			const struct transfer *t = &m.t[i];

			check_pattern(t->buffer, t->moved, pos);
			pos += t->moved;
			CHECK(t->error == ECANCELED || !t->error);
			CHECK(t->error || t->moved == t->length);
		}
	}
	check_silent(m.q);
	peer.stop = true;
	thread_join(thread);
	CHECK(m.cancelled);
	close(m.q);
	check_pins();
}

/* In both directions, and they have to wait, or not. */
static int begin_any(struct moves *m, struct transfer *t)
{
	bool send = t->ident & 1;
	uint32_t all = rnd_below(&m->rnd, 2) ? KEVENT_WAITALL : 0;

	t->buffer = m->mem + t->ident * MUCH;
	t->length = 1 + rnd_below(&m->rnd, MUCH);
	return begin(m->q, m->fd[0], t,
		     send ? KEVENT_NAIO_SEND : KEVENT_NAIO_RECV,
		     send ? 0 : all);
}

static struct moves any_moves(unsigned int stream)
{
	struct moves m = {
		.rnd = rnd_stream(stream), .pair = tcp_pair, .begin = begin_any,
		.feed = LENGTH, .size = TRANSFERS * MUCH,
	};
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_NAIO);
	close(q);
	m.mem = memory(m.size);
	remember_pins();
	return m;
}

static void a_close_of_the_socket_ends_each_transfer_once(void)
{
	struct moves m = any_moves(4);

	race_sockets(&m, close_near, rounds(100));
	check_pins();
}

static void a_reset_by_the_peer_ends_each_transfer_once(void)
{
	struct moves m = any_moves(4);

	race_sockets(&m, reset_far, rounds(100));
	check_pins();
}

static void a_reset_and_a_close_end_each_transfer_once(void)
{
	struct moves m = any_moves(4);

	race_sockets(&m, close_both, rounds(100));
	check_pins();
}

static void a_close_of_the_queue_ends_them_while_bytes_move(void)
{
	struct moves m = any_moves(5);

	race_queues(&m, rounds(100));
	check_pins();
}

static void a_process_may_be_killed_while_bytes_move(void)
{
	struct moves m = any_moves(6);

	race_deaths(&m, rounds(60));
	check_pins();
}

/* Many threads, each with a queue of its own, at one socket. */
struct crowd {
	int fd;
	_Atomic bool stop;
	_Atomic uint64_t moved;
};

static void *crowd_member(void *arg)
{
	struct crowd *c = arg;
	struct rnd rnd = rnd_stream(100 + (unsigned int)thread_id() % 1000);
	char *mem = memory(LENGTH);
	int q = queue_open();
	uint64_t ident = 0;

	while (!c->stop) {
		struct transfer t = {
			.ident = ident++, .buffer = mem,
			.length = 1 + rnd_below(&rnd, LENGTH),
		};

		CHECK_EQ(begin(q, c->fd, &t, KEVENT_NAIO_RECV,
			       rnd_below(&rnd, 2) ? KEVENT_WAITALL : 0), 0);
		if (rnd_below(&rnd, 2) && !transfer_cancel(q, &t))
			transfer_wait(q, &t);
		else if (!t.ended && !transfer_cancel(q, &t))
			transfer_wait(q, &t);
		c->moved += t.moved;
	}
	close(q);
	return NULL;
}

static void many_queues_at_one_socket_take_each_byte_once(void)
{
	unsigned int i, total = rounds(400);
	struct crowd c = { 0 };
	char buffer[2 * PAGE];
	pthread_t thread[4];
	uint64_t sent = 0;
	int fd[2], other = queue_open();
	ssize_t n;

	need_feature(other, KEVENT_FEATURE_NAIO);
	remember_pins();
	tcp_pair(fd);
	c.fd = fd[0];
	memset(buffer, 1, sizeof(buffer));
	for (i = 0; i < ARRAY_SIZE(thread); i++)
		thread[i] = thread_start(crowd_member, &c);
	for (i = 0; i < total; i++)
		sent += (uint64_t)SYS(write(fd[1], buffer, sizeof(buffer)));
	SYS(shutdown(fd[1], SHUT_WR));
	c.stop = true;
	for (i = 0; i < ARRAY_SIZE(thread); i++)
		thread_join(thread[i]);
	while ((n = SYS(read(fd[0], buffer, sizeof(buffer)))))
		c.moved += (uint64_t)n;
	CHECK_EQ(c.moved, sent);
	close(fd[0]);
	close(fd[1]);
	check_pins();
}

/*
 *	main	begins, and a moment later waits: one event at a time
 *	kernel	has begun to move them, as nobody waited
 */
static void events_come_in_the_order_of_the_transfers_whoever_moves_them(void)
{
	unsigned int round, i, total = rounds(300);
	int q = queue_open(), fd[2];
	struct rnd rnd = rnd_stream(11);
	char in[TRANSFERS], out[TRANSFERS];
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_NAIO);
	tcp_pair(fd);
	fill(out, sizeof(out), 0);
	for (round = 0; round < total; round++) {
		uint64_t end;

		test_context("round %u", round);
		for (i = 0; i < TRANSFERS; i++) {
			struct transfer t = {
				.ident = i, .buffer = &in[i], .length = 1,
			};

			CHECK_EQ(begin(q, fd[0], &t, KEVENT_NAIO_RECV, 0), 0);
		}
		CHECK_EQ(SYS(send(fd[1], out, sizeof(out), 0)), sizeof(out));
		end = now_ns() + rnd_below(&rnd, 10 * NSEC_PER_MSEC);
		while (now_ns() < end)
			;
		for (i = 0; i < TRANSFERS; i++) {
			CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
			CHECK_EQ(ev.ident, i);
		}
		check_pattern(in, sizeof(in), 0);
	}
	check_silent(q);
}

/*
 *	main	polls from when the socket has called until there is the event
 *	kernel	takes the bytes out of the socket, and then says so
 */
static void poll_does_not_take_back_that_there_is_something(void)
{
	unsigned int round, i, total = rounds(1000);
	int q = queue_open(), fd[2];
	volatile char in;

	need_feature(q, KEVENT_FEATURE_NAIO);
	tcp_pair(fd);
	for (round = 0; round < total; round++) {
		struct transfer t = { .buffer = (char *)&in, .length = 1 };

		test_context("round %u", round);
		in = 0;
		CHECK_EQ(begin(q, fd[0], &t, KEVENT_NAIO_RECV, 0), 0);
		CHECK_EQ(SYS(send(fd[1], "x", 1, 0)), 1);
		CHECK(readable(q, PATIENCE));
		while (!in)
			CHECK(readable(q, 0));
		for (i = 0; i < 10; i++)
			CHECK(readable(q, 0));
		transfer_wait(q, &t);
	}
}

static unsigned long free_huge_pages(void)
{
	unsigned long nr = 0;
	char text[128];
	FILE *file = fopen("/proc/meminfo", "re");

	CHECK(file);
	while (fgets(text, sizeof(text), file))
		if (sscanf(text, "HugePages_Free: %lu", &nr) == 1)
			break;
	fclose(file);
	return nr;
}

/* The kernel keeps so many for who asks, or so many more; gives the number before. */
static unsigned int reserve_huge_pages(unsigned int nr, bool more)
{
	FILE *file = fopen("/proc/sys/vm/nr_hugepages", "r+e");
	unsigned int before;

	if (!file)
		test_skip("no huge pages here: %s", strerror(errno));
	CHECK_EQ(fscanf(file, "%u", &before), 1);
	rewind(file);
	CHECK(fprintf(file, "%u", more ? before + nr : nr) > 0);
	CHECK_EQ(fclose(file), 0);
	return before;
}

/* Received across two of them, and sent back from there. */
static void echo_by_huge_pages(int q, int map)
{
	char *mem = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
			 map | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	struct transfer t = { .buffer = mem + HUGE / 2 + 123, .length = HUGE };
	char rest[4 * PAGE];
	int fd[2], narrow = NARROW;
	struct peer in, out;
	pthread_t thread[2];

	CHECK(mem != MAP_FAILED);
	tcp_pair(fd);
	SYS(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &narrow, sizeof(narrow)));
	CHECK_EQ(begin(q, fd[0], &t, KEVENT_NAIO_RECV, KEVENT_WAITALL), 0);
	CHECK_EQ(pinned_by(getpid()), HUGE / PAGE + 1);
	in = out = (struct peer){ .fd = fd[1], .to = fd[0] };
	thread[0] = thread_start(writer, &in);
	thread[1] = thread_start(reader, &out);
	transfer_wait(q, &t);
	CHECK_EQ(t.moved, HUGE);
	check_pattern(t.buffer, HUGE, 0);
	CHECK_EQ(begin(q, fd[0], &t, KEVENT_NAIO_SEND, 0), 0);
	transfer_wait(q, &t);
	CHECK_EQ(t.moved, HUGE);
	/* one that is under way when its memory goes */
	CHECK_EQ(begin(q, fd[0], &t, KEVENT_NAIO_RECV, KEVENT_WAITALL), 0);
	SYS(munmap(mem, 2 * HUGE));
	if (!transfer_cancel(q, &t))
		transfer_wait(q, &t);
	in.stop = true;
	/* closed with bytes unread it would reset */
	while (SYS(read(fd[0], rest, sizeof(rest))))
		;
	thread_join(thread[0]);
	close(fd[0]);
	thread_join(thread[1]);
	CHECK_EQ(out.pos, HUGE);
	close(fd[1]);
}

static void huge_pages_are_received_into_sent_from_and_let_go_of(void)
{
	int q = queue_open();
	unsigned int before;
	unsigned long free;
	uint64_t end;

	need_root();
	need_feature(q, KEVENT_FEATURE_NAIO);
	need_feature(q, KEVENT_FEATURE_PIN);
	remember_pins();
	before = reserve_huge_pages(2, true);
	free = free_huge_pages();
	if (free < 2) {
		reserve_huge_pages(before, false);
		test_skip("no huge pages here");
	}
	echo_by_huge_pages(q, MAP_PRIVATE);
	echo_by_huge_pages(q, MAP_SHARED);
	check_silent(q);
	check_pins();
	for (end = now_ns() + PATIENCE; free_huge_pages() != free; sched_yield())
		CHECK(now_ns() < end);
	reserve_huge_pages(before, false);
}

static const struct test_case cases[] = {
	LONG_TEST(what_is_cancelled_while_bytes_arrive_loses_and_doubles_none, 180),
	LONG_TEST(what_is_cancelled_while_bytes_leave_loses_and_doubles_none, 180),
	LONG_TEST(many_at_once_keep_their_order_while_some_are_cancelled, 180),
	LONG_TEST(events_come_in_the_order_of_the_transfers_whoever_moves_them,
		  180),
	LONG_TEST(poll_does_not_take_back_that_there_is_something, 180),
	LONG_TEST(huge_pages_are_received_into_sent_from_and_let_go_of, 180),
	LONG_TEST(many_queues_at_one_socket_take_each_byte_once, 180),
	LONG_TEST(a_close_of_the_socket_ends_each_transfer_once, 180),
	LONG_TEST(a_reset_by_the_peer_ends_each_transfer_once, 180),
	LONG_TEST(a_reset_and_a_close_end_each_transfer_once, 180),
	LONG_TEST(a_close_of_the_queue_ends_them_while_bytes_move, 180),
	LONG_TEST(a_process_may_be_killed_while_bytes_move, 180),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
