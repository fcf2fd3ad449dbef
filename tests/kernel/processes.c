// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A queue between processes: fork, SCM_RIGHTS, waiters that are killed, and
 * processes that end with kevents pending.
 *
 * What a killed waiter was given can be told from what it was not given because
 * the records of all WAITs stand in memory shared with the parent, each WAIT in
 * a slot of its own.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define COOKIE	0x1234567890abcdefULL

static void wait_for_one(void *arg)
{
	struct kevent_event ev;

	CHECK_EQ(wait_events(*(int *)arg, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.cookie, COOKIE);
}

static void a_forked_child_shares_the_queue(void)
{
	int q = queue_open();
	pid_t child;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1, 0, COOKIE), 0);
	child = child_start(wait_for_one, &q);
	wait_until_asleep(child, SYS_ioctl);
	CHECK_EQ(post(q, 1, 0), 0);
	child_join(child);
	check_silent(q);
}

static void add_in_child(void *arg)
{
	CHECK_EQ(add_user(*(int *)arg, 2, 0, COOKIE), 0);
}

static void what_a_child_added_outlives_it(void)
{
	int q = queue_open();
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_USER);
	child_join(child_start(add_in_child, &q));
	CHECK_EQ(post(q, 2, 0), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.cookie, COOKIE);
}

struct numbers {
	int q;
	int fd;
	int peer;
};

static void add_own_file_under_the_number(void *arg)
{
	struct numbers *n = arg;
	struct kevent_event ev;
	int own = eventfd_new(1);

	SYS(dup2(own, n->fd));
	/* Not the parent's file, so not the parent's kevent. */
	CHECK_EQ(remove_kevent(n->q, KEVENT_POLL, n->fd, 0), -ENOENT);
	CHECK_EQ(add(n->q, KEVENT_POLL, n->fd, POLLIN, 0, COOKIE), 0);
	CHECK_EQ(wait_events(n->q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.cookie, COOKIE);
	CHECK_EQ(remove_kevent(n->q, KEVENT_POLL, n->fd, 0), 0);
}

static void a_number_names_the_file_that_the_caller_has_there(void)
{
	struct numbers n = { .q = queue_open(), .fd = eventfd_new(0) };
	struct kevent_event ev;

	need_feature(n.q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(n.q, KEVENT_POLL, n.fd, POLLIN, 0, 5), 0);
	child_join(child_start(add_own_file_under_the_number, &n));
	check_silent(n.q);
	eventfd_write_one(n.fd);
	CHECK_EQ(wait_events(n.q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.cookie, 5);
	CHECK_EQ(remove_kevent(n.q, KEVENT_POLL, n.fd, 0), 0);
}

static void hold_until_told(void *arg)
{
	struct numbers *n = arg;
	char byte;

	close(n->q);
	CHECK_EQ(SYS(read(n->peer, &byte, 1)), 1);
}

static void a_file_closed_here_stays_watched_while_a_child_holds_it(void)
{
	struct numbers n = { .q = queue_open() };
	struct kevent_event ev;
	int sock[2], tell[2];
	pid_t child;

	need_feature(n.q, KEVENT_FEATURE_SOCKET);
	tcp_pair(sock);
	SYS(pipe(tell));
	n.fd = sock[0];
	n.peer = tell[0];
	CHECK_EQ(add(n.q, KEVENT_SOCKET, sock[0], KEVENT_SOCKET_RECV, 0,
		     COOKIE), 0);
	child = child_start(hold_until_told, &n);
	close(sock[0]);
	check_silent(n.q);
	CHECK_EQ(SYS(write(sock[1], "x", 1)), 1);
	CHECK_EQ(wait_events(n.q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.cookie, COOKIE);
	CHECK_EQ(remove_kevent(n.q, KEVENT_SOCKET, n.fd, 0), -EBADF);
	CHECK_EQ(remove_kevent(n.q, KEVENT_SOCKET, n.fd, KEVENT_STALE), 0);
	check_silent(n.q);
	CHECK_EQ(remove_kevent(n.q, KEVENT_SOCKET, n.fd, KEVENT_STALE),
		 -ENOENT);
	CHECK_EQ(SYS(write(tell[1], "x", 1)), 1);
	child_join(child);
}

static void receive_queue_and_wait(void *arg)
{
	int q = recv_fd(*(int *)arg);

	wait_for_one(&q);
}

static void a_queue_may_be_passed_to_another_process(void)
{
	int q = queue_open(), sock[2];
	pid_t child;

	need_feature(q, KEVENT_FEATURE_USER);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	child = child_start(receive_queue_and_wait, &sock[1]);
	CHECK_EQ(add_user(q, 1, 0, COOKIE), 0);
	CHECK_EQ(post(q, 1, 0), 0);
	send_fd(sock[0], q);
	close(q);
	child_join(child);
}

static void a_watched_file_in_flight_stays_watched_until_received_and_closed(void)
{
	int q = queue_open(), mail[2], sock[2], fd, number;
	struct kevent_event ev;
	char buf[4];

	need_feature(q, KEVENT_FEATURE_SOCKET);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, mail));
	tcp_pair(sock);
	CHECK_EQ(add(q, KEVENT_SOCKET, sock[0], KEVENT_SOCKET_RECV, 0, COOKIE),
		 0);
	number = sock[0];
	send_fd(mail[0], sock[0]);
	close(sock[0]);
	CHECK_EQ(SYS(write(sock[1], "x", 1)), 1);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.ident, number);
	fd = recv_fd(mail[1]);
	CHECK_EQ(SYS(read(fd, buf, sizeof(buf))), 1);
	check_silent(q);
	close(fd);
	/* That was the last close: FIN is out, and nothing is heard here. */
	CHECK_EQ(SYS(recv(sock[1], buf, sizeof(buf), 0)), 0);
	check_silent(q);
}

/*
 * The queue sits in a message on the socket that it watches, and both ends are
 * closed: the kernel's collector of such sockets has to break the knot.
 */
static void a_queue_in_flight_on_what_it_watches_is_collected(void)
{
	int witness = queue_open(), i;
	uint64_t before = queue_info(witness).user_kevents;

	need_feature(witness, KEVENT_FEATURE_SOCKET);
	for (i = 0; i < 20; i++) {
		int q = queue_open(), sock[2];

		SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
		CHECK_EQ(add(q, KEVENT_SOCKET, sock[0], KEVENT_SOCKET_RECV,
			     0, 0), 0);
		CHECK_EQ(add(q, KEVENT_SOCKET, sock[1], KEVENT_SOCKET_RECV,
			     KEVENT_NOTIFY_BROKEN, 0), 0);
		send_fd(sock[0], q);
		send_fd(sock[0], sock[0]);
		send_fd(sock[0], sock[1]);
		close(q);
		close(sock[0]);
		close(sock[1]);
	}
	/* Another socket in flight makes the collector run. */
	for (i = 0; i < 4; i++) {
		int sock[2];

		SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
		send_fd(sock[0], sock[0]);
		close(sock[0]);
		close(sock[1]);
	}
	wait_until_user_kevents(witness, before);
}

#define SLOTS	2000	/* WAITs of one child */
#define CHILDREN 4

struct slot {
	struct kevent_wait head;
	struct kevent_event ev[2];
};

struct victim {
	int q;
	_Atomic unsigned int used;
	struct slot slots[SLOTS];
};

/* WAITs until it is killed, and leaves what it got where the parent sees it. */
static void wait_until_killed(void *arg)
{
	struct victim *v = arg;

	for (;;) {
		unsigned int i = v->used++;

		if (i == SLOTS)
			pause();
		v->slots[i].head = (struct kevent_wait){
			.min = 1, .max = 2, .timeout = FOREVER,
			.clock = CLOCK_MONOTONIC,
		};
		SYS(ioctl(v->q, KEVENT_IOC_WAIT(2), &v->slots[i]));
	}
}

/* Adds what the victim was given to @seen, and empties its slots. */
static unsigned int collect(struct victim *v, unsigned char *seen,
			    unsigned int total)
{
	unsigned int i, r, sum = 0;

	for (i = 0; i < SLOTS && i < v->used; i++) {
		for (r = 0; r < v->slots[i].head.records; r++) {
			CHECK(v->slots[i].ev[r].data < total);
			seen[v->slots[i].ev[r].data]++;
			sum++;
		}
	}
	memset(v->slots, 0, sizeof(v->slots));
	v->used = 0;
	return sum;
}

/*
 *	c0 <-- SIGKILL   c1   c2   c3	processes in WAIT
 *	      \           |   |   /
 *	             q  <--- posts
 *
 * Whether c0 was woken for an event and died before it took it, or not: the
 * event is somebody else's then.
 */
static void killed_waiters_take_no_event_with_them(void)
{
	unsigned int kills = rounds(60), per_kill = 10;
	unsigned int total = kills * per_kill, next = 0, got = 0, i, n;
	struct victim *v[CHILDREN];
	struct rnd rnd = rnd_stream(0);
	pid_t pid[CHILDREN];
	unsigned char *seen;
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_USER);
	seen = shared_memory(total);
	for (i = 0; i < CHILDREN; i++) {
		v[i] = shared_memory(sizeof(*v[i]));
		v[i]->q = q;
		pid[i] = child_start(wait_until_killed, v[i]);
	}
	for (i = 0; i < kills; i++) {
		unsigned int victim = rnd_below(&rnd, CHILDREN);
		unsigned int at = rnd_below(&rnd, per_kill);

		for (n = 0; n < per_kill; n++, next++) {
			CHECK_EQ(add_user(q, next, KEVENT_ONESHOT, next), 0);
			if (n == at)
				SYS(kill(pid[victim], SIGKILL));
			CHECK_EQ(post(q, next, next), 0);
		}
		SYS(waitpid(pid[victim], NULL, 0));
		got += collect(v[victim], seen, total);
		pid[victim] = child_start(wait_until_killed, v[victim]);
	}
	/* The survivors take the rest. */
	for (uint64_t end = now_ns() + PATIENCE; queue_info(q).kevents;) {
		CHECK(now_ns() < end);
		sched_yield();
	}
	for (i = 0; i < CHILDREN; i++) {
		wait_until_asleep(pid[i], SYS_ioctl);
		child_kill(pid[i]);
		got += collect(v[i], seen, total);
	}
	for (i = 0; i < total; i++)
		if (seen[i] != 1)
			FAIL("event %u was delivered %u times", i, seen[i]);
	CHECK_EQ(got, total);
}

static void add_some_of_everything(int q)
{
	uint32_t features = queue_info(q).features;
	int fd[2], i;
	uint16_t port;

	for (i = 0; i < 4; i++) {
		if (features & KEVENT_FEATURE_SOCKET) {
			unix_pair(fd);
			CHECK_EQ(SYS(write(fd[1], "x", 1)), 1);
			CHECK_EQ(add(q, KEVENT_SOCKET, fd[0],
				     KEVENT_SOCKET_RECV,
				     i & 1 ? KEVENT_NOTIFY_BROKEN : 0, 0), 0);
			tcp_pair(fd);
			CHECK_EQ(add(q, KEVENT_SOCKET, fd[0],
				     KEVENT_SOCKET_RECV, 0, 0), 0);
			fd[0] = tcp_listen(&port);
			CHECK_EQ(add(q, KEVENT_SOCKET, fd[0],
				     KEVENT_SOCKET_ACCEPT, KEVENT_EDGE, 0), 0);
			tcp_connect(port);
		}
		if (features & KEVENT_FEATURE_POLL) {
			CHECK_EQ(add(q, KEVENT_POLL, eventfd_new(i & 1), POLLIN,
				     0, 0), 0);
			SYS(pipe(fd));
			CHECK_EQ(add(q, KEVENT_POLL, fd[0], POLLIN, 0, 0), 0);
			CHECK_EQ(add(q, KEVENT_POLL, fd[1], POLLOUT, 0, 0), 0);
			pty_pair(&fd[0], &fd[1]);
			CHECK_EQ(add(q, KEVENT_POLL, fd[0], POLLIN, 0, 0), 0);
			CHECK_EQ(add(q, KEVENT_POLL, fd[1], POLLIN, 0, 0), 0);
		}
		if (features & KEVENT_FEATURE_INODE) {
			fd[0] = (int)SYS(open("/tmp", O_RDONLY));
			CHECK_EQ(add(q, KEVENT_INODE, fd[0], 0x1ff, 0, 0), 0);
			CHECK_EQ(add_path(q, i, "/tmp", 0x1ff, 0, 0), 0);
		}
		if (features & KEVENT_FEATURE_TIMER)
			CHECK_EQ(add_timer(q, i, 1000, 1000, 0, 0), 0);
		if (features & KEVENT_FEATURE_USER) {
			CHECK_EQ(add_user(q, i, 0, 0), 0);
			CHECK_EQ(post(q, i, 0), 0);
		}
	}
}

static void *add_and_wait(void *arg)
{
	struct kevent_event ev[64];
	int q = *(int *)arg;

	for (;;)
		CHECK(wait_events(q, ev, 64, 1, FOREVER) > 0);
	return NULL;
}

static void end_with_kevents_pending(void *arg)
{
	int how = *(int *)arg, q = queue_open();
	pthread_t threads[2];

	add_some_of_everything(q);
	if (how == 0)
		return;
	threads[0] = thread_start(add_and_wait, &q);
	threads[1] = thread_start(add_and_wait, &q);
	if (how == 1)
		return;
	SYS(kill(getpid(), SIGKILL));
	thread_join(threads[0]);
	thread_join(threads[1]);
}

static void a_process_that_ends_leaves_no_kevent_behind(void)
{
	int witness = queue_open(), how, i;
	uint64_t before = queue_info(witness).user_kevents;

	for (i = 0; i < (int)rounds(8); i++) {
		for (how = 0; how < 3; how++) {
			pid_t pid = child_start(end_with_kevents_pending, &how);
			int status;

			SYS(waitpid(pid, &status, 0));
			CHECK_EQ(status, how == 2 ? SIGKILL : 0);
			wait_until_user_kevents(witness, before);
		}
	}
}

static void a_queue_opened_close_on_exec_is_closed_by_exec(void)
{
	int q = queue_open();

	CHECK_EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
}

static const struct test_case cases[] = {
	TEST(a_forked_child_shares_the_queue),
	TEST(what_a_child_added_outlives_it),
	TEST(a_number_names_the_file_that_the_caller_has_there),
	TEST(a_file_closed_here_stays_watched_while_a_child_holds_it),
	TEST(a_queue_may_be_passed_to_another_process),
	TEST(a_watched_file_in_flight_stays_watched_until_received_and_closed),
	TEST(a_queue_in_flight_on_what_it_watches_is_collected),
	TEST(killed_waiters_take_no_event_with_them),
	TEST(a_process_that_ends_leaves_no_kevent_behind),
	TEST(a_queue_opened_close_on_exec_is_closed_by_exec),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
