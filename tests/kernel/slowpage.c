// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A WAIT that is stuck writing its result: the page of its records is missing
 * and userfaultfd lets the test decide when it comes.
 *
 *	stuck --- WAIT ---> q	in the middle of copying an event
 *	main  --- ADD, MODIFY, REMOVE, POST, WAIT ---> q	must all proceed
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void changes_do_not_wait_for_a_wait_that_is_stuck(void)
{
	struct slow_wait s = { .q = queue_open() };
	struct kevent_event *ev;
	pthread_t thread;
	int fd[2];

	need_feature(s.q, KEVENT_FEATURE_USER);
	need_feature(s.q, KEVENT_FEATURE_SOCKET);
	slow_wait_prepare(&s, 2);
	unix_pair(fd);
	CHECK_EQ(add_user(s.q, 1, KEVENT_ONESHOT, 11), 0);
	CHECK_EQ(add_user(s.q, 2, 0, 22), 0);
	thread = thread_start(slow_wait_run, &s);
	CHECK_EQ(post(s.q, 1, 5), 0);
	slow_page_wait(&s.page);

	CHECK_EQ(add_user(s.q, 3, 0, 33), 0);
	CHECK_EQ(modify(s.q, KEVENT_USER, 3, KEVENT_USER_POSTED,
			KEVENT_DISABLED, 34), 0);
	CHECK_EQ(remove_kevent(s.q, KEVENT_USER, 3, 0), 0);
	CHECK_EQ(add(s.q, KEVENT_SOCKET, fd[0], KEVENT_SOCKET_RECV, 0, 44), 0);
	CHECK_EQ(remove_kevent(s.q, KEVENT_SOCKET, fd[0], 0), 0);
	CHECK_EQ(remove_kevent(s.q, KEVENT_USER, 2, 0), 0);
	CHECK(queue_info(s.q).kevents <= 1);

	slow_page_come(&s.page);
	thread_join(thread);
	CHECK_EQ(s.ret, 1);
	ev = slow_wait_events(&s);
	CHECK_EQ(ev->cookie, 11);
	CHECK_EQ(ev->data, 5);
	CHECK_EQ(ev->flags, KEVENT_EVENT_LAST);
	check_silent(s.q);
	CHECK_EQ(queue_info(s.q).kevents, 0);
}

/* What is being copied may be changed, closed and removed meanwhile. */
static void an_event_under_way_may_lose_its_kevent(void)
{
	struct slow_wait s = { .q = queue_open() };
	struct kevent_event *ev;
	pthread_t thread;
	int fd[2], how;

	need_feature(s.q, KEVENT_FEATURE_SOCKET);
	for (how = 0; how < 6; how++) {
		uint32_t flags = how & 1 ? KEVENT_ONESHOT : 0;
		int ret;

		slow_wait_prepare(&s, 2);
		unix_pair(fd);
		CHECK_EQ(add(s.q, KEVENT_SOCKET, fd[0], KEVENT_SOCKET_RECV,
			     flags, 7), 0);
		thread = thread_start(slow_wait_run, &s);
		CHECK_EQ(SYS(write(fd[1], "x", 1)), 1);
		slow_page_wait(&s.page);
		if (how < 2) {
			ret = remove_kevent(s.q, KEVENT_SOCKET, fd[0], 0);
			CHECK(!ret || ret == -ENOENT);
		} else if (how < 4) {
			close(fd[0]);
		} else {
			ret = modify(s.q, KEVENT_SOCKET, fd[0],
				     KEVENT_SOCKET_SEND, KEVENT_DISABLED, 8);
			CHECK(!ret || ret == -ENOENT);
		}
		slow_page_come(&s.page);
		thread_join(thread);
		/* It was on its way: it arrives, or was taken back. */
		ev = slow_wait_events(&s);
		if (s.ret == 1)
			CHECK_EQ(ev->cookie, 7);
		else
			CHECK_EQ(s.ret, 0);
		check_silent(s.q);
		close(fd[0]);
		close(fd[1]);
		close(s.page.uffd);
		remove_kevent(s.q, KEVENT_SOCKET, fd[0], KEVENT_STALE);
	}
}

/*
 * A transfer that is removed while its event is handed over arrives as well, or
 * does not where that fails; REMOVE has said the same in any case.
 */
static void a_transfer_under_way_is_removed_and_delivered(void)
{
	struct slow_wait s = { .q = queue_open() };
	static char buffer[8];
	struct kevent_event *ev;
	pthread_t thread;
	int fd[2], how;

	need_feature(s.q, KEVENT_FEATURE_NAIO);
	for (how = 0; how < 4; how++) {
		struct {
			struct kevent_batch head;
			struct kevent_request req;
		} arg = { .head.count = 1 };
		bool fails = how & 1, row = how & 2;

		slow_wait_prepare(&s, 2);
		unix_pair(fd);
		arg.req = naio_request(1, KEVENT_NAIO_RECV,
				       row ? KEVENT_MULTISHOT : 0, buffer,
				       sizeof(buffer), fd[0]);
		arg.req.cookie = 7;
		CHECK_EQ(change(s.q, KEVENT_IOC_NR_ADD, arg.req), 0);
		thread = thread_start(slow_wait_run, &s);
		CHECK_EQ(SYS(write(fd[1], "hello", 5)), 5);
		slow_page_wait(&s.page);
		arg.req = request(KEVENT_NAIO, 1, 0, 0, 0);
		CHECK_EQ(SYS(ioctl(s.q, KEVENT_IOC_REMOVE(1), &arg)), 1);
		CHECK_EQ(arg.req.param[0], 5);
		CHECK_EQ(arg.req.param[1], row ? ECANCELED : 0);
		CHECK(!memcmp(buffer, "hello", 5));
		CHECK_EQ(remove_kevent(s.q, KEVENT_NAIO, 1, 0), -ENOENT);
		if (fails)
			slow_page_fail(&s.page);
		else
			slow_page_come(&s.page);
		thread_join(thread);
		ev = slow_wait_events(&s);
		CHECK_EQ(s.ret, fails ? -EFAULT : 1);
		if (!fails) {
			CHECK_EQ(ev->cookie, 7);
			CHECK_EQ(ev->data, 5);
			CHECK_EQ(ev->count, 1);
			CHECK(!(ev->flags & KEVENT_EVENT_ERROR));
		}
		check_silent(s.q);
		CHECK_EQ(queue_info(s.q).kevents, 0);
		close(fd[0]);
		close(fd[1]);
		close(s.page.uffd);
	}
}

/*
 * MODIFY in the middle of the delivery, which then succeeds or fails: posts are
 * kept by it, so they arrive once; a timer forgets that it has expired.
 */
static void a_modified_kevent_is_delivered_once_or_as_it_is_then(void)
{
	struct slow_wait s = { .q = queue_open() };
	struct kevent_event ev[2];
	struct kevent_request later;
	pthread_t thread;
	int fails;

	need_feature(s.q, KEVENT_FEATURE_USER);
	need_feature(s.q, KEVENT_FEATURE_TIMER);
	for (fails = 0; fails < 2; fails++) {
		slow_wait_prepare(&s, 2);
		CHECK_EQ(add_user(s.q, 1, 0, 1), 0);
		thread = thread_start(slow_wait_run, &s);
		CHECK_EQ(post(s.q, 1, 5), 0);
		slow_page_wait(&s.page);
		CHECK_EQ(modify(s.q, KEVENT_USER, 1, KEVENT_USER_POSTED, 0, 2),
			 0);
		if (fails)
			slow_page_fail(&s.page);
		else
			slow_page_come(&s.page);
		thread_join(thread);
		CHECK_EQ(s.ret, fails ? -EFAULT : 1);
		if (fails) {
			CHECK_EQ(wait_events(s.q, ev, 2, 1, 0), 1);
			CHECK_EQ(ev[0].count, 1);
			CHECK_EQ(ev[0].data, 5);
			CHECK_EQ(ev[0].cookie, 2);
		}
		check_silent(s.q);
		CHECK_EQ(remove_kevent(s.q, KEVENT_USER, 1, 0), 0);
		close(s.page.uffd);

		slow_wait_prepare(&s, 2);
		CHECK_EQ(add_timer(s.q, 1, 0, 0, 0, 1), 0);
		thread = thread_start(slow_wait_run, &s);
		slow_page_wait(&s.page);
		later = timer_request(1, 3600 * NSEC_PER_SEC, 0, 0, 2);
		CHECK_EQ(change(s.q, KEVENT_IOC_NR_MODIFY, later), 0);
		if (fails)
			slow_page_fail(&s.page);
		else
			slow_page_come(&s.page);
		thread_join(thread);
		CHECK_EQ(s.ret, fails ? -EFAULT : 1);
		check_silent(s.q);
		CHECK_EQ(remove_kevent(s.q, KEVENT_TIMER, 1, 0), 0);
		close(s.page.uffd);
	}
}

/*
 * The event on its way says "one posting": a second one that came now would be
 * lost with the kevent, so it is refused, and one that is accepted is told.
 */
static void a_posting_to_a_oneshot_under_way_is_refused_not_lost(void)
{
	struct slow_wait s = { .q = queue_open() };
	struct kevent_event ev[2], *first;
	pthread_t thread;
	int fails;

	need_feature(s.q, KEVENT_FEATURE_USER);
	for (fails = 0; fails < 2; fails++) {
		slow_wait_prepare(&s, 2);
		CHECK_EQ(add_user(s.q, 1, KEVENT_ONESHOT, 1), 0);
		thread = thread_start(slow_wait_run, &s);
		CHECK_EQ(post(s.q, 1, 5), 0);
		slow_page_wait(&s.page);
		CHECK_EQ(post(s.q, 1, 6), -ENOENT);
		if (fails)
			slow_page_fail(&s.page);
		else
			slow_page_come(&s.page);
		thread_join(thread);
		CHECK_EQ(s.ret, fails ? -EFAULT : 1);
		if (fails) {
			/* Nobody was told, so it is there still. */
			CHECK_EQ(post(s.q, 1, 7), 0);
			CHECK_EQ(wait_events(s.q, ev, 2, 1, 0), 1);
			CHECK_EQ(ev[0].count, 2);
			CHECK_EQ(ev[0].data, 7);
		} else {
			first = slow_wait_events(&s);
			CHECK_EQ(first->count, 1);
			CHECK_EQ(first->data, 5);
		}
		check_silent(s.q);
		CHECK_EQ(post(s.q, 1, 8), -ENOENT);
		close(s.page.uffd);
	}
}

static void other_events_go_to_other_waiters_meanwhile(void)
{
	struct slow_wait s = { .q = queue_open() };
	struct kevent_event ev[2];
	pthread_t thread;
	int i, seen = 0;

	need_feature(s.q, KEVENT_FEATURE_USER);
	slow_wait_prepare(&s, 1);
	CHECK_EQ(add_user(s.q, 1, KEVENT_ONESHOT, 1), 0);
	CHECK_EQ(add_user(s.q, 2, KEVENT_ONESHOT, 2), 0);
	thread = thread_start(slow_wait_run, &s);
	CHECK_EQ(post(s.q, 1, 0), 0);
	slow_page_wait(&s.page);
	CHECK_EQ(post(s.q, 2, 0), 0);
	/* Its max is 1, so the second event is nobody's yet. */
	CHECK_EQ(wait_events(s.q, ev, 2, 1, 5 * NSEC_PER_SEC), 1);
	CHECK_EQ(ev[0].cookie, 2);
	slow_page_come(&s.page);
	thread_join(thread);
	CHECK_EQ(s.ret, 1);
	seen = (int)slow_wait_events(&s)->cookie;
	CHECK_EQ(seen, 1);
	for (i = 1; i <= 2; i++)
		CHECK_EQ(post(s.q, i, 0), -ENOENT);
}

struct dying {
	int q;
	int tell;
	unsigned int before;
};

static void get_stuck_for_good(void *arg)
{
	struct dying *d = arg;
	struct slow_wait s = { .q = d->q, .before = d->before };
	pthread_t thread;

	slow_wait_prepare(&s, 2);
	thread = thread_start(slow_wait_run, &s);
	slow_page_wait(&s.page);
	CHECK_EQ(SYS(write(d->tell, "x", 1)), 1);
	thread_join(thread);
}

/*
 *	child --- WAIT ---> q	stuck, then killed
 *	main  --- WAIT ---> q	gets what the child was being given
 */
static void a_waiter_killed_in_the_middle_of_its_copy_loses_nothing(void)
{
	static const uint32_t modes[] = {
		0, KEVENT_ONESHOT, KEVENT_DISPATCH,
	};
	struct dying d = { .q = queue_open() };
	int tell[2];
	size_t i;

	need_feature(d.q, KEVENT_FEATURE_USER);
	SYS(pipe2(tell, O_CLOEXEC));
	d.tell = tell[1];
	for (i = 0; i < 2 * ARRAY_SIZE(modes); i++) {
		uint32_t mode = modes[i / 2];
		struct kevent_event ev[4];
		pid_t child;
		char byte;

		/* what has been copied is not delivered either */
		d.before = i & 1;
		CHECK_EQ(add_user(d.q, 1, mode, 1), 0);
		CHECK_EQ(add_user(d.q, 2, mode, 2), 0);
		CHECK_EQ(post(d.q, 1, 10), 0);
		CHECK_EQ(post(d.q, 2, 20), 0);
		child = child_start(get_stuck_for_good, &d);
		CHECK_EQ(SYS(read(tell[0], &byte, 1)), 1);
		child_kill(child);
		CHECK_EQ(wait_events(d.q, ev, 4, 2, 5 * NSEC_PER_SEC), 2);
		CHECK_EQ(ev[0].cookie + ev[1].cookie, 3);
		CHECK_EQ(ev[0].data, 10 * ev[0].cookie);
		CHECK_EQ(ev[1].data, 10 * ev[1].cookie);
		CHECK_EQ(ev[0].count, 1);
		check_silent(d.q);
		remove_kevent(d.q, KEVENT_USER, 1, 0);
		remove_kevent(d.q, KEVENT_USER, 2, 0);
	}
}

/* Somebody who reads from a socket that others have as well. */
struct reader {
	struct slow_page slow;
	int fd;
};

static void *read_to_missing_page(void *arg)
{
	struct reader *r = arg;

	CHECK_EQ(SYS(recv(r->fd, r->slow.at, 100, 0)), 100);
	return NULL;
}

/*
 *	reader --- recv ---> fd	in the middle of copying, with the socket's lock
 *	main   --- poll, WAIT ---> q	watches fd, and counts its bytes
 */
static void bytes_are_counted_while_somebody_reads(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	static const char data[100];
	struct reader r = {};
	struct kevent_event ev;
	int q = queue_open();
	unsigned int i;

	need_feature(q, KEVENT_FEATURE_SOCKET);
	for (i = 0; i <= ARRAY_SIZE(types); i++) {
		struct pollfd pfd = { .fd = q, .events = POLLIN };
		pthread_t thread;
		int fd[2];

		if (i == ARRAY_SIZE(types))
			tcp_pair(fd);
		else
			SYS(socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, fd));
		r.fd = fd[0];
		slow_page_new(&r.slow);
		/* two, for the first is the reader's before it has it all */
		CHECK_EQ(SYS(write(fd[1], data, sizeof(data))), sizeof(data));
		CHECK_EQ(SYS(write(fd[1], data, sizeof(data))), sizeof(data));
		CHECK_EQ(add(q, KEVENT_SOCKET, (uint64_t)fd[0],
			     KEVENT_SOCKET_RECV, KEVENT_BYTES, 1), 0);
		thread = thread_start(read_to_missing_page, &r);
		slow_page_wait(&r.slow);
		CHECK_EQ(SYS(poll(&pfd, 1, 0)), 1);
		CHECK_EQ(wait_events(q, &ev, 1, 1, 0), 1);
		CHECK(ev.data == 100 || ev.data == 200);
		slow_page_come(&r.slow);
		thread_join(thread);
		CHECK_EQ(wait_events(q, &ev, 1, 1, 0), 1);
		CHECK_EQ(ev.data, 100);
		close(fd[0]);
		close(fd[1]);
		close(r.slow.uffd);
		check_silent(q);
	}
}

static const struct test_case cases[] = {
	TEST(bytes_are_counted_while_somebody_reads),
	TEST(changes_do_not_wait_for_a_wait_that_is_stuck),
	TEST(an_event_under_way_may_lose_its_kevent),
	TEST(a_transfer_under_way_is_removed_and_delivered),
	TEST(a_modified_kevent_is_delivered_once_or_as_it_is_then),
	TEST(a_posting_to_a_oneshot_under_way_is_refused_not_lost),
	TEST(other_events_go_to_other_waiters_meanwhile),
	TEST(a_waiter_killed_in_the_middle_of_its_copy_loses_nothing),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
