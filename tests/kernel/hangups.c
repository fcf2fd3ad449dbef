// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Files whose close is delicate while something hangs on their wait queues:
 * ptys, where close() waits until the queues are empty, and signalfds, whose
 * queue belongs to the process that polled and dies with it (POLLFREE).
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* The three things there are, and every order to close them in. */
enum { MASTER, SLAVE, QUEUE };
static const int orders[6][3] = {
	{ MASTER, SLAVE, QUEUE }, { MASTER, QUEUE, SLAVE },
	{ SLAVE, MASTER, QUEUE }, { SLAVE, QUEUE, MASTER },
	{ QUEUE, MASTER, SLAVE }, { QUEUE, SLAVE, MASTER },
};

static void close_in_order(const int *order, bool watch_master,
			   bool watch_slave, uint32_t flags, bool ready)
{
	struct kevent_event ev[4];
	int fd[3], i;

	pty_pair(&fd[MASTER], &fd[SLAVE]);
	fd[QUEUE] = queue_open();
	if (watch_master)
		CHECK_EQ(add(fd[QUEUE], KEVENT_POLL, fd[MASTER], POLLIN, flags,
			     MASTER), 0);
	if (watch_slave)
		CHECK_EQ(add(fd[QUEUE], KEVENT_POLL, fd[SLAVE], POLLIN, flags,
			     SLAVE), 0);
	if (ready) {
		CHECK_EQ(SYS(write(fd[MASTER], "m\n", 2)), 2);
		CHECK_EQ(SYS(write(fd[SLAVE], "s\n", 2)), 2);
	}
	for (i = 0; i < 3; i++) {
		close(fd[order[i]]);
		fd[order[i]] = -1;
		if (fd[QUEUE] >= 0)
			CHECK(wait_events(fd[QUEUE], ev, 4, 0, 0) >= 0);
	}
}

static void ptys_close_in_any_order_while_watched(void)
{
	unsigned int order, i;

	need_feature(queue_open(), KEVENT_FEATURE_POLL);
	for (order = 0; order < 6; order++)
		for (i = 1; i < 4; i++) {
			close_in_order(orders[order], i & 1, i & 2, 0, false);
			close_in_order(orders[order], i & 1, i & 2, 0, true);
			close_in_order(orders[order], i & 1, i & 2,
				       KEVENT_EDGE, true);
			close_in_order(orders[order], i & 1, i & 2,
				       KEVENT_ONESHOT, true);
		}
}

static void a_watched_slave_hears_that_its_master_is_gone(void)
{
	struct kevent_event ev;
	int q = queue_open(), master, slave;

	need_feature(q, KEVENT_FEATURE_POLL);
	pty_pair(&master, &slave);
	CHECK_EQ(add(q, KEVENT_POLL, slave, POLLPRI, 0, 1), 0);
	check_silent(q);
	close(master);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	CHECK(ev.events & POLLHUP);
	close(slave);
}

struct pty_race {
	int q, fd;
	pthread_barrier_t start;
	pthread_barrier_t end;
	_Atomic bool stop;
};

static void *close_pty(void *arg)
{
	struct pty_race *r = arg;

	for (;;) {
		pthread_barrier_wait(&r->start);
		if (r->stop)
			return NULL;
		close(r->fd);
		pthread_barrier_wait(&r->end);
	}
}

static void ptys_close_against_remove_and_add(void)
{
	unsigned int i, total = rounds(100);
	struct pty_race r = { .q = queue_open() };
	pthread_t thread;

	need_feature(r.q, KEVENT_FEATURE_POLL);
	pthread_barrier_init(&r.start, NULL, 2);
	pthread_barrier_init(&r.end, NULL, 2);
	thread = thread_start(close_pty, &r);
	for (i = 0; i < total; i++) {
		int master, slave, ret;

		pty_pair(&master, &slave);
		CHECK_EQ(add(r.q, KEVENT_POLL, master, POLLIN, 0, 0), 0);
		if (i & 1)
			CHECK_EQ(add(r.q, KEVENT_POLL, slave, POLLIN, 0, 0), 0);
		r.fd = i & 2 ? master : slave;
		pthread_barrier_wait(&r.start);
		if (i & 1)
			ret = remove_kevent(r.q, KEVENT_POLL, slave, 0);
		else
			ret = add(r.q, KEVENT_POLL, slave, POLLIN, 0, 0);
		CHECK(!ret || ret == -EBADF);
		pthread_barrier_wait(&r.end);
		close(master);
		close(slave);
		ret = remove_kevent(r.q, KEVENT_POLL, master, KEVENT_STALE);
		CHECK(!ret || ret == -ENOENT);
	}
	r.stop = true;
	pthread_barrier_wait(&r.start);
	thread_join(thread);
}

/* Session leader with the slave as its terminal: vhangup() when it ends. */
static void lead_session(void *arg)
{
	int *fd = arg, tty;
	struct kevent_event ev;
	char name[64];

	setsid();
	CHECK_EQ(ptsname_r(fd[0], name, sizeof(name)), 0);
	tty = (int)SYS(open(name, O_RDWR));
	CHECK_EQ(add(fd[2], KEVENT_POLL, tty, POLLIN, 0, 3), 0);
	tty = (int)SYS(open("/dev/tty", O_RDWR));
	CHECK_EQ(add(fd[2], KEVENT_POLL, tty, POLLIN, 0, 4), 0);
	CHECK(wait_events(fd[2], &ev, 1, 0, 0) >= 0);
}

static void a_terminal_whose_session_ends_is_let_go(void)
{
	struct kevent_event ev[4];
	int fd[3], i;

	fd[2] = queue_open();
	need_feature(fd[2], KEVENT_FEATURE_POLL);
	for (i = 0; i < 10; i++) {
		pty_pair(&fd[0], &fd[1]);
		CHECK_EQ(add(fd[2], KEVENT_POLL, fd[0], POLLIN, 0, 1), 0);
		CHECK_EQ(add(fd[2], KEVENT_POLL, fd[1], POLLIN, 0, 2), 0);
		child_join(child_start(lead_session, fd));
		CHECK(wait_events(fd[2], ev, 4, 0, 0) >= 0);
		if (i & 1)
			CHECK_EQ(remove_kevent(fd[2], KEVENT_POLL, fd[0], 0),
				 0);
		close(fd[0]);
		close(fd[1]);
		CHECK(wait_events(fd[2], ev, 4, 0, 0) >= 0);
		remove_kevent(fd[2], KEVENT_POLL, fd[0], KEVENT_STALE);
	}
}

/* signalfd */

struct signal_scene {
	int q;
	int sfd;
	int tell;	/* written by the child when the kevent is there */
	_Atomic bool stop;
};

static void block_signal(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGUSR1);
	SYS(sigprocmask(SIG_BLOCK, set, NULL));
}

static int signalfd_new(void)
{
	sigset_t set;

	block_signal(&set);
	return (int)SYS(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
}

/* The child's own queue of signals is what the kevent hangs on. */
static void add_signalfd_and_end(void *arg)
{
	struct signal_scene *s = arg;

	CHECK_EQ(add(s->q, KEVENT_POLL, s->sfd, POLLIN, 0, 9), 0);
}

static void add_signalfd_and_stay(void *arg)
{
	struct signal_scene *s = arg;

	add_signalfd_and_end(s);
	CHECK_EQ(SYS(write(s->tell, "x", 1)), 1);
	pause();
}

static void a_signalfd_outlives_the_process_that_added_it(void)
{
	struct signal_scene s = { .q = queue_open() };
	struct kevent_event ev;
	int tell[2], how;
	char byte;

	need_feature(s.q, KEVENT_FEATURE_POLL);
	SYS(pipe2(tell, O_CLOEXEC));
	s.tell = tell[1];
	for (how = 0; how < 4; how++) {
		s.sfd = signalfd_new();
		if (how & 1) {
			pid_t child = child_start(add_signalfd_and_stay, &s);

			CHECK_EQ(SYS(read(tell[0], &byte, 1)), 1);
			child_kill(child);
		} else {
			child_join(child_start(add_signalfd_and_end, &s));
		}
		CHECK(wait_events(s.q, &ev, 1, 0, 0) >= 0);
		if (how & 2)
			CHECK_EQ(remove_kevent(s.q, KEVENT_POLL, s.sfd, 0), 0);
		else
			CHECK_EQ(modify(s.q, KEVENT_POLL, s.sfd, POLLIN, 0, 8),
				 0);
		close(s.sfd);
		check_silent(s.q);
	}
}

static void add_signalfd_and_exit(void *arg)
{
	struct signal_scene *s = arg;

	CHECK_EQ(add(s->q, KEVENT_POLL, s->sfd, POLLIN, 0, 9), 0);
	raise(SIGUSR1);
}

static void *remove_all_the_time(void *arg)
{
	struct signal_scene *s = arg;
	struct kevent_event ev;

	while (!s->stop) {
		int ret = remove_kevent(s->q, KEVENT_POLL, s->sfd, 0);

		CHECK(!ret || ret == -ENOENT);
		CHECK(wait_events(s->q, &ev, 1, 0, 0) >= 0);
	}
	return NULL;
}

static void the_end_of_a_process_races_with_remove_of_its_signalfd(void)
{
	struct signal_scene s = { .q = queue_open() };
	unsigned int i, total = rounds(60);
	pthread_t thread;

	need_feature(s.q, KEVENT_FEATURE_POLL);
	s.sfd = signalfd_new();
	thread = thread_start(remove_all_the_time, &s);
	for (i = 0; i < total; i++) {
		int ret;

		child_join(child_start(add_signalfd_and_exit, &s));
		ret = remove_kevent(s.q, KEVENT_POLL, s.sfd, 0);
		CHECK(!ret || ret == -ENOENT);
	}
	s.stop = true;
	thread_join(thread);
}

static void a_signal_is_an_event_of_its_signalfd(void)
{
	int q = queue_open(), sfd = signalfd_new();
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(q, KEVENT_POLL, sfd, POLLIN, 0, 9), 0);
	check_silent(q);
	SYS(kill(getpid(), SIGUSR1));
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.events, POLLIN);
}

static const struct test_case cases[] = {
	TEST(ptys_close_in_any_order_while_watched),
	TEST(a_watched_slave_hears_that_its_master_is_gone),
	TEST(ptys_close_against_remove_and_add),
	TEST(a_terminal_whose_session_ends_is_let_go),
	TEST(a_signal_is_an_event_of_its_signalfd),
	TEST(a_signalfd_outlives_the_process_that_added_it),
	TEST(the_end_of_a_process_races_with_remove_of_its_signalfd),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
