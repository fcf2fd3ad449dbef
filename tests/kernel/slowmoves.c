// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Receives that are stuck, and those behind them in the same socket: memory is
 * missing, or somebody keeps the socket locked, until the test lets go.
 *
 *	thread --- WAIT, send ---> q, socket	stuck, by a page that is missing
 *	main   --- MODIFY, REMOVE, close, poll ---> q, socket	must not be
 */
#include "lib.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOBODY	65534
#define WORKS	8	/* of a user, that move transfers at once */
#define FLOODS	16
#define MUCH	(1 << 20)	/* what one WAIT may move */
#define LONG	(16 * MUCH)

/* It has its number as cookie. */
static int add_receive(int q, uint64_t ident, void *buffer, size_t length,
		       int fd, uint32_t flags)
{
	return change(q, KEVENT_IOC_NR_ADD,
		      naio_request(ident, KEVENT_NAIO_RECV, flags, buffer,
				   length, fd));
}

static void check_received(const struct kevent_event *ev, uint64_t cookie,
			   uint64_t bytes)
{
	CHECK_EQ(ev->type, KEVENT_NAIO);
	CHECK_EQ(ev->cookie, cookie);
	CHECK_EQ(ev->data, bytes);
	CHECK(!(ev->flags & KEVENT_EVENT_ERROR));
}

static void check_broken(const struct kevent_event *ev, uint64_t cookie)
{
	CHECK_EQ(ev->type, KEVENT_NAIO);
	CHECK_EQ(ev->cookie, cookie);
	CHECK_EQ(ev->data, 0);
	CHECK_EQ(ev->count, ECANCELED);
	CHECK_EQ(ev->flags, KEVENT_EVENT_ERROR | KEVENT_EVENT_BROKEN |
		 KEVENT_EVENT_LAST);
}

static void wait_for_ready(int q, uint64_t want)
{
	uint64_t end = now_ns() + PATIENCE;

	while (queue_info(q).ready < want) {
		if (now_ns() > end)
			FAIL("only %llu are ready",
			     (unsigned long long)queue_info(q).ready);
		sched_yield();
	}
}

static int unread(int fd)
{
	int bytes;

	SYS(ioctl(fd, FIONREAD, &bytes));
	return bytes;
}

static void write_one(int fd)
{
	CHECK_EQ(SYS(write(fd, "x", 1)), 1);
}

/*
 *	thread --- WAIT ---> q	in the middle of copying what was received
 *	main   --- close ---> the socket
 */
static void close_under_an_event(struct slow_wait *s, int fd, bool fails)
{
	pthread_t thread = thread_start(slow_wait_run, s);

	slow_page_wait(&s->page);
	SYS(close(fd));
	if (fails)
		slow_page_fail(&s->page);
	else
		slow_page_come(&s->page);
	thread_join(thread);
	CHECK_EQ(s->ret, fails ? -EFAULT : 1);
}

/* That event, in the end: one byte, and not the last. */
static void check_event_of_before(struct slow_wait *s, bool failed)
{
	struct kevent_event ev, *first = slow_wait_events(s);

	if (failed) {
		first = &ev;
		CHECK_EQ(wait_events(s->q, first, 1, 1, PATIENCE), 1);
	}
	check_received(first, 1, 1);
	CHECK_EQ(first->flags, 0);
}

/* @behind: of the lane, but of another queue; else -1 */
static void close_in_each_way(int behind)
{
	struct slow_wait s = { .q = queue_open() };
	static char buffer[100], other[100];
	int how;

	need_feature(s.q, KEVENT_FEATURE_NAIO);
	for (how = 0; how < 4; how++) {
		uint32_t mode = how & 1 ? KEVENT_DISPATCH : 0;
		bool fails = how & 2;
		struct kevent_event ev;
		int fd[2];

		test_context("mode %#x, copy %s", mode, fails ? "fails" : "succeeds");
		slow_wait_prepare(&s, 2);
		tcp_pair(fd);
		CHECK_EQ(add_receive(s.q, 1, buffer, sizeof(buffer), fd[0],
				     KEVENT_MULTISHOT | mode), 0);
		if (behind >= 0)
			CHECK_EQ(add_receive(behind, 2, other, sizeof(other),
					     fd[0], 0), 0);
		write_one(fd[1]);
		close_under_an_event(&s, fd[0], fails);
		/* those behind it do not wait until that was told */
		if (behind >= 0) {
			CHECK_EQ(wait_events(behind, &ev, 1, 1, PATIENCE), 1);
			check_broken(&ev, 2);
		}
		check_event_of_before(&s, fails);
		CHECK_EQ(wait_events(s.q, &ev, 1, 1, PATIENCE), 1);
		check_broken(&ev, 1);
		check_silent(s.q);
		CHECK_EQ(queue_info(s.q).kevents, 0);
		close(fd[1]);
		close(s.page.uffd);
	}
}

static void a_close_under_an_event_on_its_way_is_told_after_it(void)
{
	close_in_each_way(-1);
}

/* Nobody waits at the multishot's queue any more once it has told its event. */
static void a_close_under_an_event_on_its_way_ends_those_behind_it(void)
{
	close_in_each_way(queue_open());
}

struct waiter {
	int q;
	_Atomic pid_t tid;
	struct kevent_event ev[2];
	int ret;
};

static void *wait_for_events(void *arg)
{
	struct waiter *w = arg;

	w->tid = thread_id();
	w->ret = wait_events(w->q, w->ev, 2, 1, PATIENCE);
	return NULL;
}

static void wait_until_it_waits(const struct waiter *w)
{
	while (!w->tid)
		sched_yield();
	wait_until_asleep(w->tid, SYS_ioctl);
}

/*
 * The WAIT has both to report, and is stuck in receiving for the first when the
 * second is given other memory.
 */
static void memory_of_before_a_modify_is_left_alone(void)
{
	static char old[100], new[100];
	struct waiter w = { .q = queue_open() };
	struct kevent_request req;
	struct slow_page slow;
	int a[2], b[2], nr;
	pthread_t thread;

	need_feature(w.q, KEVENT_FEATURE_NAIO);
	slow_page_new(&slow);
	tcp_pair(a);
	tcp_pair(b);
	CHECK_EQ(add_receive(w.q, 1, slow.at, 100, a[0], KEVENT_MULTISHOT), 0);
	CHECK_EQ(add_receive(w.q, 2, old, 100, b[0], KEVENT_MULTISHOT), 0);
	write_one(a[1]);
	wait_for_ready(w.q, 1);
	write_one(b[1]);
	wait_for_ready(w.q, 2);
	thread = thread_start(wait_for_events, &w);
	slow_page_wait(&slow);
	req = naio_request(2, KEVENT_NAIO_RECV, KEVENT_MULTISHOT, new, 100,
			   b[0]);
	req.cookie = 3;
	CHECK_EQ(change(w.q, KEVENT_IOC_NR_MODIFY, req), 0);
	CHECK_EQ(old[0], 0);
	slow_page_come(&slow);
	thread_join(thread);
	CHECK(w.ret >= 1);
	check_received(&w.ev[0], 1, 1);
	CHECK_EQ(slow.at[0], 'x');
	nr = w.ret;
	if (nr == 1)
		nr += wait_events(w.q, &w.ev[1], 1, 1, PATIENCE);
	CHECK_EQ(nr, 2);
	check_received(&w.ev[1], 3, 1);
	CHECK_EQ(new[0], 'x');
	CHECK_EQ(old[0], 0);
	check_silent(w.q);
}

/* Keeps a socket locked. */
struct sender {
	int fd;
	struct slow_page slow;
};

static void *send_missing_byte(void *arg)
{
	struct sender *s = arg;

	CHECK_EQ(SYS(send(s->fd, s->slow.at, 1, 0)), 1);
	return NULL;
}

static pthread_t sender_start(struct sender *s, int fd)
{
	pthread_t thread;

	s->fd = fd;
	slow_page_new(&s->slow);
	thread = thread_start(send_missing_byte, s);
	slow_page_wait(&s->slow);
	return thread;
}

static void sender_end(struct sender *s, pthread_t thread)
{
	slow_page_come(&s->slow);
	thread_join(thread);
	close(s->slow.uffd);
}

/*
 *	sender --- send ---> fd		in the middle of copying, with its lock
 *	waiter --- WAIT ---> q		goes for that lock
 *	main   --- close ---> fd	and the last who used it was the waiter
 */
static void a_waiter_that_is_the_last_to_use_a_socket_closes_it(void)
{
	unsigned int round, total = rounds(10), met = 0;
	static char buffer[2][50];

	for (round = 0; round < total; round++) {
		struct waiter w = { .q = queue_open() };
		struct sender s;
		pthread_t sender, waiter;
		int fd[2];
		char byte;

		test_context("round %u", round);
		need_feature(w.q, KEVENT_FEATURE_NAIO);
		tcp_pair(fd);
		CHECK_EQ(add_receive(w.q, 1, buffer[0], 50, fd[0], 0), 0);
		CHECK_EQ(add_receive(w.q, 2, buffer[1], 50, fd[0], 0), 0);
		sender = sender_start(&s, fd[0]);
		waiter = thread_start(wait_for_events, &w);
		wait_until_it_waits(&w);
		/* now it is the second one's turn */
		CHECK_EQ(remove_kevent(w.q, KEVENT_NAIO, 1, 0), 0);
		/* unless the kernel's own thread was quicker */
		met += comes_into_state(w.tid, 'D', NSEC_PER_SEC);
		SYS(close(fd[0]));
		sender_end(&s, sender);
		CHECK_EQ(SYS(read(fd[1], &byte, 1)), 1);
		/* it is closed while the waiter goes on waiting */
		CHECK(readable(fd[1], PATIENCE / 2));
		CHECK_EQ(SYS(read(fd[1], &byte, 1)), 0);
		thread_join(waiter);
		CHECK_EQ(w.ret, 1);
		check_broken(&w.ev[0], 2);
		check_silent(w.q);
		close(fd[1]);
		close(w.q);
	}
	dprintf(STDERR_FILENO, "the waiter met the lock in %u of %u rounds\n",
		met, total);
	CHECK(met);
}

/* Whether the socket at a port is still somebody's, as /proc/net/tcp has it. */
static bool is_owned(uint16_t port)
{
	FILE *f = fopen("/proc/net/tcp", "re");
	bool owned = false;
	char line[256];

	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long inode;
		unsigned int local;

		if (sscanf(line, "%*d: %*x:%x %*x:%*x %*x %*x:%*x %*x:%*x %*x %*d %*d %lu",
			   &local, &inode) == 2 && local == port)
			owned = inode;
	}
	fclose(f);
	return owned;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	SYS(getsockname(fd, (struct sockaddr *)&addr, &len));
	return ntohs(addr.sin_port);
}

/*
 *	waiter	in the middle of receiving from a socket that is to linger until all
 *		is sent, for ever
 *	main	closes it, so that the waiter is the last to use it
 */
static void what_a_waiter_closes_does_not_linger(void)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 1000000 };
	int large = 1 << 20, small = NARROW, fd[2];
	struct waiter w = { .q = queue_open() };
	uint64_t end = now_ns() + PATIENCE;
	static char much[1 << 18];
	struct slow_page slow;
	pthread_t waiter;
	uint16_t port;

	need_feature(w.q, KEVENT_FEATURE_NAIO);
	slow_page_new(&slow);
	tcp_pair(fd);
	port = port_of(fd[0]);
	SYS(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &large, sizeof(large)));
	SYS(setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
	SYS(setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	CHECK_EQ(SYS(send(fd[0], much, sizeof(much), MSG_DONTWAIT)),
		 sizeof(much));
	CHECK_EQ(add_receive(w.q, 1, slow.at, 50, fd[0], KEVENT_MULTISHOT), 0);
	write_one(fd[1]);
	waiter = thread_start(wait_for_events, &w);
	slow_page_wait(&slow);
	SYS(close(fd[0]));
	slow_page_come(&slow);
	thread_join(waiter);
	CHECK_EQ(w.ret, 1);
	check_received(&w.ev[0], 1, 1);
	CHECK_EQ(wait_events(w.q, w.ev, 2, 1, PATIENCE), 1);
	check_broken(&w.ev[0], 1);
	while (is_owned(port)) {
		if (now_ns() > end)
			FAIL("somebody lingers");
		sched_yield();
	}
	close(fd[1]);
	close(w.q);
}

static void check_refused(const struct kevent_event *ev, uint64_t cookie)
{
	CHECK_EQ(ev->type, KEVENT_NAIO);
	CHECK_EQ(ev->cookie, cookie);
	CHECK_EQ(ev->data, 0);
	CHECK_EQ(ev->count, EOPNOTSUPP);
	CHECK_EQ(ev->flags, KEVENT_EVENT_ERROR | KEVENT_EVENT_LAST);
}

static void a_protocol_on_top_of_tcp_ends_transfers_and_refuses_more(void)
{
	static char buffer[100];
	int q = queue_open(), fd[2];
	struct kevent_request req;
	struct kevent_event ev;
	uint32_t flags;

	need_feature(q, KEVENT_FEATURE_NAIO);
	for (flags = 0; flags <= KEVENT_MULTISHOT; flags += KEVENT_MULTISHOT) {
		test_context("flags %#x", flags);
		tcp_pair(fd);
		CHECK_EQ(add_receive(q, 1, buffer, 100, fd[0], flags), 0);
		if (setsockopt(fd[0], IPPROTO_TCP, TCP_ULP, "tls", 3))
			test_skip("no TLS in this kernel: %s", strerror(errno));
		write_one(fd[1]);
		CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
		check_refused(&ev, 1);
		CHECK_EQ(unread(fd[0]), 1);
		CHECK_EQ(add_receive(q, 2, buffer, 100, fd[0], flags),
			 -EOPNOTSUPP);
		req = naio_request(2, KEVENT_NAIO_RECV, 0, buffer, 100, fd[0]);
		req.events = KEVENT_NAIO_SEND;
		CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), -EOPNOTSUPP);
		check_silent(q);
		CHECK_EQ(queue_info(q).kevents, 0);
		close(fd[0]);
		close(fd[1]);
	}
}

/* How many threads sleep there. */
static unsigned int sleep_in(const char *where)
{
	unsigned int count = 0;
	struct dirent *entry;
	DIR *dir = opendir("/proc");

	CHECK(dir);
	while ((entry = readdir(dir))) {
		char path[300], symbol[64] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/wchan", entry->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		(void)!fread(symbol, 1, sizeof(symbol) - 1, f);
		fclose(f);
		count += !strcmp(symbol, where);
	}
	closedir(dir);
	return count;
}

/* A user's threads of the kernel's go for sockets that are locked, all of them. */
static void keep_works_busy(int q, struct sender *s, pthread_t *thread,
			    int (*fd)[2])
{
	unsigned int i, before = sleep_in("__lock_sock");
	uint64_t end = now_ns() + PATIENCE;
	static char buffer[50];

	for (i = 0; i < WORKS; i++) {
		tcp_pair(fd[i]);
		CHECK_EQ(add_receive(q, 2 * i, buffer, 50, fd[i][0], 0), 0);
		CHECK_EQ(add_receive(q, 2 * i + 1, buffer, 50, fd[i][0], 0), 0);
		thread[i] = sender_start(&s[i], fd[i][0]);
		/* now it is the second one's turn */
		CHECK_EQ(remove_kevent(q, KEVENT_NAIO, 2 * i, 0), 0);
	}
	while (sleep_in("__lock_sock") < before + WORKS) {
		if (now_ns() > end)
			FAIL("%u threads sleep", sleep_in("__lock_sock"));
		sched_yield();
	}
}

static void let_works_go(struct sender *s, const pthread_t *thread, int (*fd)[2])
{
	unsigned int i;

	for (i = 0; i < WORKS; i++) {
		sender_end(&s[i], thread[i]);
		close(fd[i][0]);
		close(fd[i][1]);
	}
}

/* Though the kernel's threads are about to move them, as far as they know. */
static void receives_from_empty_sockets_that_are_locked_are_not_ready(void)
{
	pthread_t thread[WORKS];
	struct sender s[WORKS];
	int q = queue_open(), fd[WORKS][2];

	need_feature(q, KEVENT_FEATURE_NAIO);
	keep_works_busy(q, s, thread, fd);
	CHECK(!readable(q, 0));
	let_works_go(s, thread, fd);
	close(q);
}

static uint64_t unread_in_all(int (*fd)[2])
{
	uint64_t bytes = 0;
	unsigned int i;

	for (i = 0; i < FLOODS; i++)
		bytes += (uint64_t)unread(fd[i][1]);
	return bytes;
}

/* By a new socket, with room for so much and what the kernel needs for it. */
static void begin_send(int q, uint64_t ident, int fd[2], size_t length, int room)
{
	static char *mem;

	if (!mem)
		mem = mmap(NULL, LONG, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	unix_pair(fd);
	SYS(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)));
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD,
			naio_request(ident, KEVENT_NAIO_SEND, 0, mem, length,
				     fd[0])), 0);
}

/*
 *	senders	keep away all who would move transfers without a WAIT
 *	main	has many that may be moved, far, and none of them to its end
 */
static void one_wait_moves_a_bounded_amount_of_what_does_not_end(void)
{
	int q = queue_open(), busy = queue_open(), alone = queue_open();
	int fd[FLOODS][2], locked[WORKS][2], last[2];
	uint64_t before, moved, end;
	pthread_t thread[WORKS];
	struct sender s[WORKS];
	struct kevent_event ev;
	unsigned int i;

	need_root();
	need_feature(q, KEVENT_FEATURE_NAIO);
	keep_works_busy(busy, s, thread, locked);
	for (i = 0; i < FLOODS; i++)
		begin_send(q, i, fd[i], 4 * MUCH, 2 * MUCH);
	before = unread_in_all(fd);
	CHECK_EQ(wait_events(q, &ev, 1, 0, 0), 0);
	moved = unread_in_all(fd) - before;
	dprintf(STDERR_FILENO, "%llu bytes by ADD, %llu by one WAIT\n",
		(unsigned long long)before, (unsigned long long)moved);
	/* what is begun within the bound may end beyond it */
	CHECK(moved && moved <= 2 * MUCH);
	/* nor does one that may sleep move all of one before it does */
	begin_send(alone, 0, last, LONG, 2 * LONG);
	CHECK_EQ(wait_events(alone, &ev, 1, 1, NSEC_PER_SEC), 0);
	let_works_go(s, thread, locked);
	/* and what is left is moved all the same */
	CHECK_EQ(wait_events(alone, &ev, 1, 1, PATIENCE), 1);
	check_received(&ev, 0, LONG);
	close(last[0]);
	close(last[1]);
	close(alone);
	end = now_ns() + PATIENCE;
	for (i = 0; i < FLOODS; i++)
		while (unread(fd[i][1]) < MUCH + MUCH / 2) {
			if (now_ns() > end)
				FAIL("socket %u has %d bytes", i,
				     unread(fd[i][1]));
			sched_yield();
		}
	for (i = 0; i < FLOODS; i++) {
		close(fd[i][0]);
		close(fd[i][1]);
	}
	close(busy);
	close(q);
}

struct changer {
	int q;
	unsigned int nr;
	struct kevent_request req;
};

static void change_stuck(void *arg)
{
	struct changer *c = arg;

	FAIL("a change of what is stuck returned %d",
	     change(c->q, c->nr, c->req));
}

/*
 *	waiter --- WAIT ---> q			stuck in receiving
 *	child  --- REMOVE, MODIFY ---> q	waits for that, and is killed
 */
static void who_waits_for_a_receive_to_let_go_can_be_killed(void)
{
	static const unsigned int nrs[] = {
		KEVENT_IOC_NR_REMOVE, KEVENT_IOC_NR_MODIFY,
	};
	static char other[100];
	struct waiter w = { .q = queue_open() };
	unsigned int i;

	need_feature(w.q, KEVENT_FEATURE_NAIO);
	for (i = 0; i < ARRAY_SIZE(nrs); i++) {
		struct changer c = { .q = w.q, .nr = nrs[i] };
		struct slow_page slow;
		pthread_t thread;
		pid_t child;
		int fd[2];

		test_context("change %u", nrs[i]);
		slow_page_new(&slow);
		tcp_pair(fd);
		CHECK_EQ(add_receive(w.q, 1, slow.at, 100, fd[0],
				     KEVENT_MULTISHOT), 0);
		write_one(fd[1]);
		thread = thread_start(wait_for_events, &w);
		slow_page_wait(&slow);
		if (nrs[i] == KEVENT_IOC_NR_REMOVE)
			c.req = request(KEVENT_NAIO, 1, 0, 0, 0);
		else
			c.req = naio_request(1, KEVENT_NAIO_RECV, KEVENT_MULTISHOT, other,
					     sizeof(other), fd[0]);
		child = child_start(change_stuck, &c);
		wait_until_asleep(child, SYS_ioctl);
		child_kill(child);
		slow_page_come(&slow);
		thread_join(thread);
		CHECK_EQ(w.ret, 1);
		check_received(&w.ev[0], 1, 1);
		CHECK_EQ(slow.at[0], 'x');
		/* and it is as if nobody had wanted to change it */
		write_one(fd[1]);
		CHECK_EQ(wait_events(w.q, w.ev, 1, 1, PATIENCE), 1);
		check_received(&w.ev[0], 1, 1);
		CHECK_EQ(other[0], 0);
		CHECK_EQ(remove_kevent(w.q, KEVENT_NAIO, 1, 0), 0);
		check_silent(w.q);
		close(fd[0]);
		close(fd[1]);
		close(slow.uffd);
	}
}

static void who_polls_a_queue_leaves_the_bytes_in_the_socket(void)
{
	static char buffer[100];
	int q = queue_open(), i, fd[2];
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_NAIO);
	tcp_pair(fd);
	CHECK_EQ(add_receive(q, 1, buffer, sizeof(buffer), fd[0],
			     KEVENT_MULTISHOT), 0);
	CHECK(!readable(q, 0));
	CHECK_EQ(SYS(write(fd[1], "hello", 5)), 5);
	for (i = 0; i < 3; i++) {
		CHECK(readable(q, PATIENCE));
		CHECK_EQ(unread(fd[0]), 5);
		CHECK_EQ(buffer[0], 0);
	}
	/* and looks again each time */
	CHECK_EQ(SYS(read(fd[0], buffer, sizeof(buffer))), 5);
	CHECK(!readable(q, 0));
	memset(buffer, 0, sizeof(buffer));
	CHECK_EQ(SYS(write(fd[1], "again", 5)), 5);
	CHECK(readable(q, PATIENCE));
	CHECK_EQ(unread(fd[0]), 5);
	CHECK_EQ(wait_events(q, &ev, 1, 1, 0), 1);
	check_received(&ev, 1, 5);
	CHECK(!memcmp(buffer, "again", 5));
	CHECK_EQ(unread(fd[0]), 0);
	CHECK(!readable(q, 0));
}

/*
 *	sender --- send ---> fd		in the middle of copying, with its lock
 *	main   --- poll ---> q		has something to ask that socket
 */
static void who_polls_a_queue_does_not_wait_for_a_locked_socket(void)
{
	unsigned int round, total = rounds(20);
	static char buffer[2][50];
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_NAIO);
	for (round = 0; round < total; round++) {
		/* else it has to be faster than the kernel's own thread */
		uint32_t flags = round & 1 ? KEVENT_MULTISHOT : 0;
		struct kevent_event ev;
		struct sender s;
		pthread_t thread;
		int fd[2];

		test_context("round %u, flags %#x", round, flags);
		tcp_pair(fd);
		CHECK_EQ(add_receive(q, 1, buffer[0], 50, fd[0], 0), 0);
		CHECK_EQ(add_receive(q, 2, buffer[1], 50, fd[0], flags), 0);
		thread = sender_start(&s, fd[0]);
		/* the second becomes the first, so it is to be asked */
		CHECK_EQ(remove_kevent(q, KEVENT_NAIO, 1, 0), 0);
		if (flags)
			CHECK_EQ(queue_info(q).ready, 1);
		CHECK(!readable(q, 0));
		sender_end(&s, thread);
		CHECK(!readable(q, 0));
		write_one(fd[1]);
		CHECK(readable(q, PATIENCE));
		CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
		check_received(&ev, 2, 1);
		if (flags)
			CHECK_EQ(remove_kevent(q, KEVENT_NAIO, 2, 0), 0);
		close(fd[0]);
		close(fd[1]);
	}
}

/* REMOVE says that nothing was moved. */
static void cancel(int q, uint64_t ident)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg = { .head.count = 1,
		  .req = request(KEVENT_NAIO, ident, 0, 0, 0) };

	CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_REMOVE(1), &arg)), 1);
	CHECK_EQ(arg.req.param[0], 0);
	CHECK_EQ(arg.req.param[1], ECANCELED);
}

static void a_multishot_that_is_removed_gives_way_to_the_next(void)
{
	static char row[100], one[100];
	struct kevent_event ev;
	int q = queue_open(), how;

	need_feature(q, KEVENT_FEATURE_NAIO);
	for (how = 0; how < 4; how++) {
		bool before = how & 1, disabled = how & 2;
		int fd[2];

		test_context("bytes %s the REMOVE, multishot %s",
			     before ? "before" : "after",
			     disabled ? "disabled" : "enabled");
		tcp_pair(fd);
		memset(one, 0, sizeof(one));
		CHECK_EQ(add_receive(q, 1, row, sizeof(row), fd[0],
				     KEVENT_MULTISHOT |
				     (disabled ? KEVENT_DISABLED : 0)), 0);
		CHECK_EQ(add_receive(q, 2, one, sizeof(one), fd[0], 0), 0);
		if (before) {
			CHECK_EQ(SYS(write(fd[1], "hello", 5)), 5);
			CHECK(readable(fd[0], PATIENCE));
			CHECK_EQ(unread(fd[0]), 5);
		}
		cancel(q, 1);
		if (!before)
			CHECK_EQ(SYS(write(fd[1], "hello", 5)), 5);
		CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
		check_received(&ev, 2, 5);
		CHECK_EQ(ev.flags, KEVENT_EVENT_LAST);
		CHECK(!memcmp(one, "hello", 5));
		CHECK_EQ(row[0], 0);
		check_silent(q);
		CHECK_EQ(queue_info(q).kevents, 0);
		close(fd[0]);
		close(fd[1]);
	}
}

/* Nobody waits at the multishot's queue. */
static void a_close_ends_what_is_behind_the_multishot_of_another_queue(void)
{
	static char row[100], one[100];
	int q = queue_open(), other = queue_open(), how;
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_NAIO);
	for (how = 0; how < 4; how++) {
		bool disabled = how & 1, bytes = how & 2;
		int fd[2];

		test_context("multishot %s, %s bytes", disabled ? "disabled" :
			     "enabled", bytes ? "with" : "without");
		tcp_pair(fd);
		CHECK_EQ(add_receive(other, 1, row, sizeof(row), fd[0],
				     KEVENT_MULTISHOT |
				     (disabled ? KEVENT_DISABLED : 0)), 0);
		CHECK_EQ(add_receive(q, 2, one, sizeof(one), fd[0], 0), 0);
		if (bytes) {
			write_one(fd[1]);
			CHECK(readable(fd[0], PATIENCE));
		}
		SYS(close(fd[0]));
		CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
		check_broken(&ev, 2);
		CHECK_EQ(wait_events(other, &ev, 1, 1, PATIENCE), 1);
		check_broken(&ev, 1);
		check_silent(q);
		check_silent(other);
		CHECK_EQ(row[0] | one[0], 0);
		CHECK_EQ(queue_info(other).kevents, 0);
		close(fd[1]);
	}
}

/* By who has opened it. */
static int queue_of_nobody(void)
{
	int q;

	SYS(syscall(SYS_setresuid, NOBODY, 0, 0));
	q = queue_open();
	SYS(syscall(SYS_setresuid, 0, 0, 0));
	return q;
}

/* Each of them has works of the kernel's, which hand the socket to each other. */
static void receives_of_two_users_by_one_socket_end_without_a_wait(void)
{
	static const char text[] = "abcdefghijklmnopqrstuvwxyz";
	static char buffer[sizeof(text)];
	uint64_t end = now_ns() + PATIENCE;
	struct kevent_event ev;
	unsigned int i;
	int q[2], fd[2];

	need_root();
	q[0] = queue_open();
	q[1] = queue_of_nobody();
	need_feature(q[0], KEVENT_FEATURE_NAIO);
	tcp_pair(fd);
	for (i = 0; i < sizeof(text); i++)
		CHECK_EQ(add_receive(q[i % 2], i, buffer + i, 1, fd[0], 0), 0);
	CHECK_EQ(SYS(write(fd[1], text, sizeof(text))), sizeof(text));
	while (memcmp(buffer, text, sizeof(text))) {
		if (now_ns() > end)
			FAIL("only %zu came", strlen(buffer));
		sched_yield();
	}
	for (i = 0; i < sizeof(text); i++) {
		CHECK_EQ(wait_events(q[i % 2], &ev, 1, 1, PATIENCE), 1);
		check_received(&ev, i, 1);
	}
	for (i = 0; i < 2; i++) {
		check_silent(q[i]);
		close(q[i]);
		close(fd[i]);
	}
}

/* Pages that a user may pin, and some of them. */
#define PAGES	8
#define MANY	6

/* Receives that wait, all at one socket. */
struct pinner {
	int q;
	int fd;
	char *mem;
};

/* Another MANY cannot be pinned, but the rest can, by whatever queue. */
static void pin_the_rest(void *arg)
{
	const struct pinner *p = arg;
	int q[2] = { p->q, queue_open() };
	unsigned int i;

	CHECK_EQ(pinned_by(getpid()), 0);
	for (i = 0; i < ARRAY_SIZE(q); i++) {
		CHECK_EQ(add_receive(q[i], 2, p->mem, (PAGES - MANY + 1) * PAGE,
				     p->fd, 0), -ENOMEM);
		CHECK_EQ(add_receive(q[i], 2, p->mem, (PAGES - MANY) * PAGE,
				     p->fd, 0), 0);
		CHECK_EQ(remove_kevent(q[i], KEVENT_NAIO, 2, 0), 0);
	}
}

/* The program begins again; this is what it does then. */
static int begin_again(int q, int fd)
{
	struct pinner p = { .q = q, .fd = fd };

	p.mem = aligned_alloc(PAGE, PAGES * PAGE);
	CHECK(p.mem);
	pin_the_rest(&p);
	/* until what was pinned before is let go of */
	CHECK_EQ(remove_kevent(q, KEVENT_NAIO, 1, 0), 0);
	CHECK_EQ(add_receive(q, 1, p.mem, PAGES * PAGE, fd, 0), 0);
	CHECK_EQ(add_receive(q, 2, p.mem, 1, fd, 0), -ENOMEM);
	return EXIT_SUCCESS;
}

static void pin_and_execute(void *arg)
{
	struct rlimit limit = { PAGES * PAGE, PAGES * PAGE };
	char number[2][16];
	struct pinner p;
	int *fd = arg;

	SYS(setrlimit(RLIMIT_MEMLOCK, &limit));
	SYS(setgid(NOBODY));
	SYS(setuid(NOBODY));
	p.q = queue_open();
	p.fd = fd[0];
	p.mem = aligned_alloc(PAGE, PAGES * PAGE);
	CHECK(p.mem);
	CHECK_EQ(add_receive(p.q, 1, p.mem, MANY * PAGE, p.fd, 0), 0);
	CHECK_EQ(pinned_by(getpid()), MANY);
	child_join(child_start(pin_the_rest, &p));
	SYS(fcntl(p.q, F_SETFD, 0));
	SYS(fcntl(p.fd, F_SETFD, 0));
	snprintf(number[0], sizeof(number[0]), "%d", p.q);
	snprintf(number[1], sizeof(number[1]), "%d", p.fd);
	SYS(execl("/proc/self/exe", "slowmoves", "--again", number[0],
		  number[1], NULL));
}

static void pages_of_before_a_fork_or_an_execve_count_for_the_user(void)
{
	int q = queue_open(), fd[2];

	need_root();
	need_feature(q, KEVENT_FEATURE_NAIO);
	need_feature(q, KEVENT_FEATURE_PIN);
	remember_pins();
	tcp_pair(fd);
	/* once more, for the dead give theirs back */
	child_join(child_start(pin_and_execute, fd));
	check_pins();
	child_join(child_start(pin_and_execute, fd));
	check_pins();
}

static const struct test_case cases[] = {
	TEST(a_close_under_an_event_on_its_way_is_told_after_it),
	TEST(a_close_under_an_event_on_its_way_ends_those_behind_it),
	TEST(memory_of_before_a_modify_is_left_alone),
	LONG_TEST(a_waiter_that_is_the_last_to_use_a_socket_closes_it, 120),
	TEST(what_a_waiter_closes_does_not_linger),
	TEST(receives_from_empty_sockets_that_are_locked_are_not_ready),
	TEST(one_wait_moves_a_bounded_amount_of_what_does_not_end),
	TEST(a_protocol_on_top_of_tcp_ends_transfers_and_refuses_more),
	TEST(who_waits_for_a_receive_to_let_go_can_be_killed),
	TEST(who_polls_a_queue_leaves_the_bytes_in_the_socket),
	TEST(who_polls_a_queue_does_not_wait_for_a_locked_socket),
	TEST(a_multishot_that_is_removed_gives_way_to_the_next),
	TEST(a_close_ends_what_is_behind_the_multishot_of_another_queue),
	TEST(receives_of_two_users_by_one_socket_end_without_a_wait),
	TEST(pages_of_before_a_fork_or_an_execve_count_for_the_user),
};

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "--again"))
		return begin_again(atoi(argv[2]), atoi(argv[3]));
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
