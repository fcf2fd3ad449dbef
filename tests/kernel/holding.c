// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who holds whom.  A queue keeps files open whose close the kernel does not
 * show, and some files keep others open: neither way may lead back to where it
 * began, or nobody would ever see the last close.  In the pictures => is a
 * file that holds another one, -> one that watches another and may hold it; q
 * is the queue, e an epoll, r a ring of io_uring, u a UNIX socket.
 */
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Sees what is left of the others when they are closed. */
static int witness;
static uint64_t before;

static int queue_new(void)
{
	int q;

	witness = queue_open();
	need_feature(witness, KEVENT_FEATURE_POLL);
	need_feature(witness, KEVENT_FEATURE_USER);
	before = queue_info(witness).user_kevents;
	q = queue_open();
	CHECK_EQ(add_user(q, 1, 0, 0), 0);
	return q;
}

static void check_all_gone(void)
{
	wait_until_user_kevents(witness, before);
}

static bool anonymous_are_pinned(void)
{
	return queue_info(witness).pinned & KEVENT_FILE_ANON;
}

/* A ring that holds @fd. */
static int ring_around(int fd)
{
	struct io_uring_params params = { 0 };
	long ring = syscall(SYS_io_uring_setup, 1, &params);

	if (ring < 0 && (errno == ENOSYS || errno == EPERM))
		test_skip("no io_uring here");
	SYS(ring);
	SYS(syscall(SYS_io_uring_register, (int)ring, IORING_REGISTER_FILES,
		    &fd, 1));
	return (int)ring;
}

static int epoll_around(int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int e = (int)SYS(epoll_create1(EPOLL_CLOEXEC));

	SYS(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev));
	return e;
}

static int watch(int q, int fd)
{
	return add(q, KEVENT_POLL, fd, POLLIN, 0, 0);
}

/*
 *	q -> r => q
 */
static void a_ring_that_holds_the_queue_is_never_held_by_it(void)
{
	int q = queue_new(), r = ring_around(q);

	CHECK_EQ(watch(q, r), anonymous_are_pinned() ? -EOPNOTSUPP : 0);
	close(q);
	close(r);
	check_all_gone();
}

/*
 *	q -> r		also where r holds nothing yet
 */
static void a_ring_is_watched_where_it_need_not_be_held_and_else_refused(void)
{
	int q = queue_new(), other = queue_open(), r = ring_around(other);
	bool pinned = anonymous_are_pinned();

	CHECK_EQ(watch(q, r), pinned ? -EOPNOTSUPP : 0);
	CHECK_EQ(remove_kevent(q, KEVENT_POLL, r, 0), pinned ? -ENOENT : 0);
	close(other);
	close(q);
	close(r);
	check_all_gone();
}

/*
 *	q -> e -> r => q
 */
static void an_epoll_between_the_queue_and_a_ring_around_it_holds_neither(void)
{
	int q = queue_new(), r = ring_around(q), e = epoll_around(r);

	CHECK_EQ(watch(q, e), 0);
	close(q);
	close(e);
	close(r);
	check_all_gone();
}

/*
 *	q -> e -> q	closed by epoll_ctl(), which need not refuse it
 */
static void an_epoll_and_a_queue_that_watch_each_other_both_end(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		int q = queue_new(), e = (int)SYS(epoll_create1(EPOLL_CLOEXEC));

		CHECK_EQ(watch(q, e), 0);
		if (epoll_ctl(e, EPOLL_CTL_ADD, q, &ev))
			CHECK_EQ(errno, ELOOP);
		close(i ? q : e);
		close(i ? e : q);
		check_all_gone();
	}
}

/*
 *	q -> u => q	in flight
 */
static void a_queue_in_flight_to_a_socket_that_it_watches_ends_with_it(void)
{
	int q = queue_new(), u[2];

	unix_pair(u);
	CHECK_EQ(watch(q, u[0]), 0);
	CHECK_EQ(watch(q, u[1]), 0);
	send_fd(u[0], q);
	send_fd(u[1], q);
	close(q);
	close(u[0]);
	close(u[1]);
	check_all_gone();
}

/*
 *	q -> u => u, q	in flight to itself: the kernel has to look for it
 */
static void a_queue_does_not_keep_sockets_in_flight_from_being_found(void)
{
	int q = queue_new(), u[2], more[2];

	unix_pair(u);
	CHECK_EQ(watch(q, u[0]), 0);
	CHECK_EQ(watch(q, u[1]), 0);
	send_fd(u[0], u[1]);
	send_fd(u[0], q);
	send_fd(u[1], u[0]);
	close(q);
	close(u[0]);
	close(u[1]);
	/* closing any other socket sets the search off, where some are in flight */
	unix_pair(more);
	close(more[0]);
	close(more[1]);
	check_all_gone();
}

/* As one has it that is in a message, and nowhere else. */
static void fly(int to, int fd)
{
	send_fd(to, fd);
	close(fd);
}

static int add_receive(int q, uint64_t ident, uint32_t flags, char *buffer,
		       int fd)
{
	return change(q, KEVENT_IOC_NR_ADD,
		      naio_request(ident, KEVENT_NAIO_RECV, flags, buffer, 8,
				   fd));
}

/*
 *	u => u	in flight, and asked for bytes that have come
 */
static void what_is_in_flight_is_received_from_when_it_has_arrived(void)
{
	static const uint32_t flags[] = { 0, KEVENT_MULTISHOT };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct pollfd pfd = { .events = POLLIN };
		int q = queue_open(), u[2], carrier[2];
		char buffer[8] = "";
		struct kevent_event ev;

		need_feature(q, KEVENT_FEATURE_NAIO);
		unix_pair(u);
		unix_pair(carrier);
		CHECK_EQ(add_receive(q, 1, flags[i], buffer, u[0]), 0);
		fly(carrier[0], u[0]);
		CHECK_EQ(SYS(write(u[1], "hello", 5)), 5);
		CHECK_EQ(wait_events(q, &ev, 1, 1, NSEC_PER_SEC / 2), 0);
		pfd.fd = q;
		CHECK_EQ(SYS(poll(&pfd, 1, 0)), 0);
		u[0] = recv_fd(carrier[1]);
		CHECK_EQ(SYS(poll(&pfd, 1, PATIENCE / NSEC_PER_MSEC)), 1);
		CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
		CHECK_EQ(ev.data, 5);
		CHECK(!memcmp(buffer, "hello", 5));
		close(u[0]);
		close(u[1]);
		close(carrier[0]);
		close(carrier[1]);
		close(q);
	}
}

#define RING	200U

/* Closes UNIX sockets, and so has the kernel look for those that none can reach. */
static void *search(void *arg)
{
	_Atomic bool *stop = arg;

	while (!*stop) {
		int more[2];

		unix_pair(more);
		close(more[0]);
		close(more[1]);
	}
	return NULL;
}

/*
 *	u => u => ... => u	a ring in flight, with bytes, which the kernel clears
 *				away while a WAIT would receive them
 */
static void what_only_messages_hold_is_cleared_away_and_not_received_from(void)
{
	unsigned int i, round, total = rounds(100);
	static char buffer[RING][8];
	static int u[RING][2];
	_Atomic bool stop = false;
	struct kevent_event ev[64];
	pthread_t searcher;

	raise_nofile(2 * RING + 64);
	witness = queue_open();
	need_feature(witness, KEVENT_FEATURE_NAIO);
	before = queue_info(witness).user_kevents;
	searcher = thread_start(search, &stop);
	for (round = 0; round < total; round++) {
		int q = queue_open();

		for (i = 0; i < RING; i++) {
			unix_pair(u[i]);
			CHECK_EQ(add_receive(q, i, KEVENT_MULTISHOT, buffer[i],
					     u[i][0]), 0);
		}
		for (i = 0; i < RING; i++)
			send_fd(u[(i + 1) % RING][1], u[i][0]);
		for (i = 0; i < RING; i++) {
			close(u[i][0]);
			if (i + 1 < RING)
				close(u[i][1]);
		}
		close(u[RING - 1][1]);
		for (i = 0; i < 50; i++)
			wait_events(q, ev, ARRAY_SIZE(ev), 0, 0);
		close(q);
	}
	stop = true;
	thread_join(searcher);
	check_all_gone();
}

/* Has the kernel receive a message with @fd, by a thread of its own. */
static void give_away(int q, int fd)
{
	static char buffer[8];
	int u[2], left = 1;

	unix_pair(u);
	CHECK_EQ(add_receive(q, (uint64_t)u[0], 0, buffer, u[0]), 0);
	fly(u[1], fd);
	while (left) {
		sched_yield();
		SYS(ioctl(u[0], FIONREAD, &left));
	}
}

/*
 *	u => tcp	received, and closed, which does not end
 *	u => pipe
 */
static void a_descriptor_in_a_message_that_is_not_closed_keeps_no_other_waiting(void)
{
	struct pollfd pfd = { .events = POLLIN };
	struct keeper keeper;
	int fd[2], ends[2];
	int q = queue_open();

	need_root();
	need_feature(q, KEVENT_FEATURE_NAIO);
	tcp_pair(fd);
	SYS(pipe2(ends, O_CLOEXEC));
	CHECK_EQ(SYS(write(fd[1], "x", 1)), 1);
	keeper_start(&keeper, fd[0]);
	give_away(q, fd[0]);
	give_away(q, ends[1]);
	pfd.fd = ends[0];
	CHECK_EQ(SYS(poll(&pfd, 1, PATIENCE / NSEC_PER_MSEC)), 1);
	CHECK_EQ(pfd.revents, POLLHUP);
	pfd.fd = fd[1];
	CHECK_EQ(SYS(poll(&pfd, 1, 0)), 0);
	keeper_end(&keeper);
	CHECK_EQ(SYS(poll(&pfd, 1, PATIENCE / NSEC_PER_MSEC)), 1);
	close(q);
}

/*
 *	q => pty	until a REMOVE, by a thread that then waits
 */
static void what_a_remove_closes_is_closed_though_the_thread_goes_to_sleep(void)
{
	struct waiter {
		struct kevent_wait wait;
		struct kevent_request req;
		struct kevent_event ev[2];
	} __attribute__((packed, aligned(8))) arg = {
		.wait = { .nr_changes = 1, .min = 1, .max = 2,
			  .timeout = FOREVER, .clock = CLOCK_MONOTONIC },
	};
	struct pollfd pfd = { .events = POLLIN };
	int q = queue_new(), master, slave;
	pid_t pid;

	pty_pair(&master, &slave);
	arg.req = request(KEVENT_POLL, (uint64_t)master, 0, KEVENT_STALE, 0);
	arg.req.op = KEVENT_OP_REMOVE;
	CHECK_EQ(watch(q, master), 0);
	CHECK_EQ(add_user(q, 2, 0, 0), 0);
	pfd.fd = slave;
	close(master);
	CHECK_EQ(SYS(poll(&pfd, 1, 0)), 0);
	pid = (pid_t)SYS(fork());
	if (!pid) {
		close(slave);
		_exit(ioctl(q, KEVENT_IOC_CHANGE_WAIT(1, 2), &arg) != 1);
	}
	CHECK_EQ(SYS(poll(&pfd, 1, PATIENCE / NSEC_PER_MSEC)), 1);
	CHECK(pfd.revents & POLLHUP);
	wait_until_asleep(pid, SYS_ioctl);
	CHECK_EQ(post(q, 2, 0), 0);
	child_join(pid);
	close(slave);
	close(q);
	check_all_gone();
}

static const struct test_case cases[] = {
	TEST(a_ring_that_holds_the_queue_is_never_held_by_it),
	TEST(a_ring_is_watched_where_it_need_not_be_held_and_else_refused),
	TEST(an_epoll_between_the_queue_and_a_ring_around_it_holds_neither),
	TEST(an_epoll_and_a_queue_that_watch_each_other_both_end),
	TEST(a_queue_in_flight_to_a_socket_that_it_watches_ends_with_it),
	TEST(a_queue_does_not_keep_sockets_in_flight_from_being_found),
	TEST(what_is_in_flight_is_received_from_when_it_has_arrived),
	LONG_TEST(what_only_messages_hold_is_cleared_away_and_not_received_from,
		  180),
	TEST(a_descriptor_in_a_message_that_is_not_closed_keeps_no_other_waiting),
	TEST(what_a_remove_closes_is_closed_though_the_thread_goes_to_sleep),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
