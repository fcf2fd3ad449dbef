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
#include "lib.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOTS	16
#define LENGTH	(3 * PAGE)
#define MUCH	(64 * PAGE)

/* One transfer and how it ended. */
struct transfer {
	uint64_t ident;
	char *buffer;
	size_t length;
	bool ended;
	int error;
	uint64_t moved;
};

static char pattern(uint64_t pos)
{
	return (char)(pos * 167 + (pos >> 8) * 13 + (pos >> 16));
}

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
	struct kevent_request req = request(KEVENT_NAIO, t->ident, events,
					    flags, t->ident);

	req.param[0] = (uintptr_t)t->buffer;
	req.param[1] = t->length;
	req.param[2] = (uint64_t)sock;
	t->ended = false;
	t->error = 0;
	t->moved = 0;
	return change(q, KEVENT_IOC_NR_ADD, req);
}

static void ended(struct transfer *t, const struct kevent_event *ev)
{
	CHECK_EQ(t->ended, false);
	CHECK_EQ(ev->type, KEVENT_NAIO);
	CHECK_EQ(ev->cookie, t->ident);
	CHECK(ev->flags & KEVENT_EVENT_LAST);
	t->ended = true;
	t->moved = ev->data;
	t->error = ev->flags & KEVENT_EVENT_ERROR ? (int)ev->count : 0;
	CHECK(t->moved <= t->length);
}

/* Removes it: true where it was there, and is ended by this. */
static bool cancel(int q, struct transfer *t)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg = { .head.count = 1,
		  .req = request(KEVENT_NAIO, t->ident, 0, 0, 0) };

	if (!SYS(ioctl(q, KEVENT_IOC_REMOVE(1), &arg))) {
		CHECK_EQ(arg.req.result, -ENOENT);
		return false;
	}
	t->ended = true;
	t->moved = arg.req.param[0];
	t->error = (int)arg.req.param[1];
	CHECK(t->moved <= t->length);
	return true;
}

/* The event of the only transfer that there is. */
static void wait_for(int q, struct transfer *t)
{
	struct kevent_event ev;

	CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
	CHECK_EQ(ev.ident, t->ident);
	ended(t, &ev);
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
		if (!rnd_below(&rnd, 3) || !cancel(q, &t))
			wait_for(q, &t);
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
		if (!rnd_below(&rnd, 3) || !cancel(q, &t))
			wait_for(q, &t);
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

static void many_at_once_keep_their_order_while_some_are_cancelled(void)
{
	unsigned int i, round, total = rounds(60), cancelled = 0;
	struct transfer t[SLOTS] = { 0 };
	struct rnd rnd = rnd_stream(3);
	char *mem = memory(SLOTS * LENGTH);
	int q = queue_open(), fd[2];
	struct peer peer = { 0 };
	uint64_t pos = 0;
	pthread_t thread;

	need_feature(q, KEVENT_FEATURE_NAIO);
	remember_pins();
	tcp_pair(fd);
	peer.fd = fd[1];
	peer.to = fd[0];
	thread = thread_start(writer, &peer);
	for (round = 0; round < total; round++) {
		unsigned int left = SLOTS;

		test_context("round %u", round);
		for (i = 0; i < SLOTS; i++) {
			t[i].ident = i;
			t[i].buffer = mem + i * LENGTH;
			t[i].length = 1 + rnd_below(&rnd, LENGTH);
			CHECK_EQ(begin(q, fd[0], &t[i], KEVENT_NAIO_RECV,
				       KEVENT_WAITALL), 0);
		}
		for (i = 0; i < SLOTS / 2; i++) {
			struct transfer *one = &t[rnd_below(&rnd, SLOTS)];

			if (!one->ended && cancel(q, one)) {
				cancelled += one->error == ECANCELED;
				left--;
			}
		}
		while (left) {
			struct kevent_event ev[SLOTS];
			int n = wait_events(q, ev, SLOTS, 1, PATIENCE), k;

			CHECK(n > 0);
			for (k = 0; k < n; k++, left--)
				ended(&t[ev[k].ident], &ev[k]);
		}
		for (i = 0; i < SLOTS; i++) {
			check_pattern(t[i].buffer, t[i].moved, pos);
			pos += t[i].moved;
			CHECK(t[i].error == ECANCELED || !t[i].error);
			CHECK(t[i].error || t[i].moved == t[i].length);
		}
	}
	check_silent(q);
	peer.stop = true;
	thread_join(thread);
	CHECK(cancelled);
	close(q);
	check_pins();
}

/* What ends the transfers of a round, on a thread of its own. */
struct ender {
	pthread_barrier_t start;
	pthread_barrier_t end;
	void (*run)(struct ender *e);
	bool stop;
	int q;
	int fd[2];
};

static void *end_them(void *arg)
{
	struct ender *e = arg;

	for (;;) {
		pthread_barrier_wait(&e->start);
		if (e->stop)
			return NULL;
		e->run(e);
		pthread_barrier_wait(&e->end);
	}
}

/* Transfers in both directions, which have to wait, or not. */
static unsigned int begin_some(struct ender *e, struct transfer *t, char *mem,
			       struct rnd *rnd)
{
	unsigned int i;

	for (i = 0; i < SLOTS; i++) {
		bool send = i & 1;
		int ret;

		t[i].ident = i;
		t[i].buffer = mem + i * MUCH;
		t[i].length = 1 + rnd_below(rnd, MUCH);
		ret = begin(e->q, e->fd[0], &t[i],
			    send ? KEVENT_NAIO_SEND : KEVENT_NAIO_RECV,
			    send ? 0 : KEVENT_WAITALL);
		CHECK_EQ(ret, 0);
	}
	(void)!send(e->fd[1], mem, LENGTH, MSG_DONTWAIT | MSG_NOSIGNAL);
	return SLOTS;
}

/* Cancels some of them, and waits for the others: each ends once. */
static void end_all(struct ender *e, struct transfer *t, struct rnd *rnd,
		    unsigned int *removed, unsigned int *told)
{
	unsigned int i, left = SLOTS;

	for (i = 0; i < SLOTS / 4; i++) {
		struct transfer *one = &t[rnd_below(rnd, SLOTS)];

		if (!one->ended && cancel(e->q, one)) {
			++*removed;
			left--;
		}
	}
	while (left) {
		struct kevent_event ev[SLOTS];
		int n = wait_events(e->q, ev, SLOTS, 1, PATIENCE), k;

		CHECK(n > 0);
		for (k = 0; k < n; k++, left--) {
			ended(&t[ev[k].ident], &ev[k]);
			++*told;
		}
	}
	check_silent(e->q);
	CHECK_EQ(queue_info(e->q).kevents, 0);
}

static void race_sockets(void (*run)(struct ender *e), unsigned int total)
{
	unsigned int round, removed = 0, told = 0;
	struct transfer t[SLOTS] = { 0 };
	struct rnd rnd = rnd_stream(4);
	struct ender e = { .run = run };
	char *mem = memory(SLOTS * MUCH);
	pthread_t thread;

	e.q = queue_open();
	need_feature(e.q, KEVENT_FEATURE_NAIO);
	remember_pins();
	pthread_barrier_init(&e.start, NULL, 2);
	pthread_barrier_init(&e.end, NULL, 2);
	thread = thread_start(end_them, &e);
	for (round = 0; round < total; round++) {
		test_context("round %u", round);
		tcp_pair(e.fd);
		begin_some(&e, t, mem, &rnd);
		pthread_barrier_wait(&e.start);
		end_all(&e, t, &rnd, &removed, &told);
		pthread_barrier_wait(&e.end);
		if (e.fd[0] >= 0)
			close(e.fd[0]);
		if (e.fd[1] >= 0)
			close(e.fd[1]);
	}
	e.stop = true;
	pthread_barrier_wait(&e.start);
	thread_join(thread);
	dprintf(STDERR_FILENO, "%u removed, %u told\n", removed, told);
	CHECK(removed && told);
	close(e.q);
	check_pins();
}

static void close_near(struct ender *e)
{
	close(e->fd[0]);
	e->fd[0] = -1;
}

static void a_close_of_the_socket_ends_each_transfer_once(void)
{
	race_sockets(close_near, rounds(100));
}

static void reset_far(struct ender *e)
{
	struct linger linger = { .l_onoff = 1 };

	SYS(setsockopt(e->fd[1], SOL_SOCKET, SO_LINGER, &linger,
		       sizeof(linger)));
	close(e->fd[1]);
	e->fd[1] = -1;
}

static void a_reset_by_the_peer_ends_each_transfer_once(void)
{
	race_sockets(reset_far, rounds(100));
}

static void close_both(struct ender *e)
{
	reset_far(e);
	close_near(e);
}

static void a_reset_and_a_close_end_each_transfer_once(void)
{
	race_sockets(close_both, rounds(100));
}

/* Reads what is sent, so that transfers move on while the queue is closed. */
static void read_some(struct ender *e)
{
	char buffer[4 * PAGE];
	unsigned int i;

	for (i = 0; i < 16; i++) {
		(void)!recv(e->fd[1], buffer, sizeof(buffer), MSG_DONTWAIT);
		(void)!send(e->fd[1], buffer, sizeof(buffer),
			    MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

static void a_close_of_the_queue_ends_them_while_bytes_move(void)
{
	unsigned int round, total = rounds(100);
	struct transfer t[SLOTS] = { 0 };
	struct rnd rnd = rnd_stream(5);
	struct ender e = { .run = read_some };
	char *mem = memory(SLOTS * MUCH);
	int other = queue_open();
	pthread_t thread;

	need_feature(other, KEVENT_FEATURE_NAIO);
	remember_pins();
	pthread_barrier_init(&e.start, NULL, 2);
	pthread_barrier_init(&e.end, NULL, 2);
	thread = thread_start(end_them, &e);
	for (round = 0; round < total; round++) {
		unsigned int yields = rnd_below(&rnd, 8);

		test_context("round %u", round);
		e.q = queue_open();
		tcp_pair(e.fd);
		begin_some(&e, t, mem, &rnd);
		pthread_barrier_wait(&e.start);
		while (yields--)
			sched_yield();
		SYS(close(e.q));
		/* nobody writes to it any more */
		memset(mem, 0x55, SLOTS * MUCH);
		pthread_barrier_wait(&e.end);
		CHECK(mem[0] == 0x55 && !memcmp(mem, mem + 1, SLOTS * MUCH - 1));
		close(e.fd[0]);
		close(e.fd[1]);
	}
	e.stop = true;
	pthread_barrier_wait(&e.start);
	thread_join(thread);
	wait_until_user_kevents(other, 0);
	check_pins();
}

/* A process with transfers under way, which is killed. */
static void victim(void *arg)
{
	struct transfer t[SLOTS] = { 0 };
	struct ender *e = arg;
	struct rnd rnd = rnd_stream(6);
	char *mem = memory(SLOTS * MUCH);

	e->q = queue_open();
	begin_some(e, t, mem, &rnd);
	SYS(write(e->fd[0], "x", 1));
	for (;;) {
		struct kevent_event ev[SLOTS];
		int n = wait_events(e->q, ev, SLOTS, 1, FOREVER), k;

		for (k = 0; k < n; k++)
			begin(e->q, e->fd[0], &t[ev[k].ident], ev[k].events, 0);
	}
}

static void a_process_may_be_killed_while_bytes_move(void)
{
	unsigned int round, total = rounds(60);
	int other = queue_open();

	need_feature(other, KEVENT_FEATURE_NAIO);
	remember_pins();
	signal(SIGPIPE, SIG_IGN);
	for (round = 0; round < total; round++) {
		struct ender e = { 0 };
		unsigned int i;
		pid_t pid;
		char c;

		test_context("round %u", round);
		tcp_pair(e.fd);
		pid = child_start(victim, &e);
		/* the first bytes come from it, so it has begun */
		CHECK_EQ(SYS(read(e.fd[1], &c, 1)), 1);
		for (i = 0; i < round % 8; i++)
			read_some(&e);
		child_kill(pid);
		close(e.fd[0]);
		close(e.fd[1]);
	}
	wait_until_user_kevents(other, 0);
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
		if (rnd_below(&rnd, 2) && !cancel(q, &t))
			wait_for(q, &t);
		else if (!t.ended && !cancel(q, &t))
			wait_for(q, &t);
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

static const struct test_case cases[] = {
	LONG_TEST(what_is_cancelled_while_bytes_arrive_loses_and_doubles_none, 180),
	LONG_TEST(what_is_cancelled_while_bytes_leave_loses_and_doubles_none, 180),
	LONG_TEST(many_at_once_keep_their_order_while_some_are_cancelled, 180),
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
