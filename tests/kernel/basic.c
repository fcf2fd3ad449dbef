// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every call and every type of event once, one thread, one queue.  Also built
 * for 32 bits: the same bytes must mean the same to a 64-bit kernel.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define COOKIE	0xfedcba9876543210ULL

static void check_event(const struct kevent_event *ev, uint16_t type,
			uint64_t ident, uint32_t events, uint32_t flags)
{
	CHECK_EQ(ev->type, type);
	CHECK_EQ(ev->ident, ident);
	CHECK_EQ(ev->cookie, COOKIE);
	CHECK_EQ(ev->events, events);
	CHECK_EQ(ev->flags, flags);
}

static void info_tells_version_features_and_limits(void)
{
	int q = queue_open();
	struct kevent_info info = queue_info(q);
	uint32_t known = KEVENT_FEATURE_SOCKET | KEVENT_FEATURE_POLL |
			 KEVENT_FEATURE_INODE | KEVENT_FEATURE_TIMER |
			 KEVENT_FEATURE_USER | KEVENT_FEATURE_NAIO |
			 KEVENT_FEATURE_PIN | KEVENT_FEATURE_FDINFO |
			 KEVENT_FEATURE_PARTIAL;
	size_t i;

	CHECK_EQ(info.version, KEVENT_ABI_VERSION);
	CHECK_EQ(info.features & ~known, 0);
	CHECK_EQ(info.pinned & ~0x1ff, 0);
	CHECK(info.max_queue > 0);
	CHECK(info.max_user > 0);
	CHECK(info.max_name_queue >= 16);
	CHECK_EQ(info.kevents, 0);
	CHECK_EQ(info.ready, 0);
	for (i = 0; i < ARRAY_SIZE(info.reserved); i++)
		CHECK_EQ(info.reserved[i], 0);
}

static void info_counts_kevents_and_ready_events(void)
{
	int q = queue_open();
	uint64_t before = queue_info(q).user_kevents;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1, 0, 0), 0);
	CHECK_EQ(add_user(q, 2, 0, 0), 0);
	CHECK_EQ(post(q, 2, 0), 0);
	CHECK_EQ(queue_info(q).kevents, 2);
	CHECK_EQ(queue_info(q).ready, 1);
	CHECK_EQ(queue_info(q).user_kevents, before + 2);
	CHECK_EQ(remove_kevent(q, KEVENT_USER, 2, 0), 0);
	CHECK_EQ(queue_info(q).kevents, 1);
	CHECK_EQ(queue_info(q).ready, 0);
}

static void a_socket_reports_data_with_its_byte_count(void)
{
	int q = queue_open(), fd[2];
	struct kevent_event ev;
	char buf[8];

	need_feature(q, KEVENT_FEATURE_SOCKET);
	tcp_pair(fd);
	CHECK_EQ(add(q, KEVENT_SOCKET, fd[0], KEVENT_SOCKET_RECV, KEVENT_BYTES,
		     COOKIE), 0);
	check_silent(q);
	CHECK_EQ(SYS(write(fd[1], "12345", 5)), 5);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	check_event(&ev, KEVENT_SOCKET, fd[0], KEVENT_SOCKET_RECV, 0);
	CHECK_EQ(ev.data, 5);
	CHECK_EQ(SYS(read(fd[0], buf, sizeof(buf))), 5);
	check_silent(q);
	CHECK_EQ(remove_kevent(q, KEVENT_SOCKET, fd[0], 0), 0);
}

static void a_listening_socket_reports_accept_with_its_queue_length(void)
{
	int q = queue_open(), listener, client[2];
	struct kevent_event ev;
	uint16_t port;

	need_feature(q, KEVENT_FEATURE_SOCKET);
	listener = tcp_listen(&port);
	CHECK_EQ(add(q, KEVENT_SOCKET, listener, KEVENT_SOCKET_ACCEPT, 0,
		     COOKIE), 0);
	client[0] = tcp_connect(port);
	client[1] = tcp_connect(port);
	/* the last word of a handshake may come after connect() */
	do {
		CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
		check_event(&ev, KEVENT_SOCKET, listener, KEVENT_SOCKET_ACCEPT,
			    0);
	} while (ev.data == 1);
	CHECK_EQ(ev.data, 2);
	SYS(accept(listener, NULL, NULL));
	CHECK_EQ(wait_events(q, &ev, 1, 0, 0), 1);
	CHECK_EQ(ev.data, 1);
	SYS(accept(listener, NULL, NULL));
	check_silent(q);
	close(client[0]);
	close(client[1]);
}

static void a_pollable_file_reports_the_bits_of_poll(void)
{
	int q = queue_open(), fd = eventfd_new(0);
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(q, KEVENT_POLL, fd, POLLIN | POLLOUT, 0, COOKIE), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	check_event(&ev, KEVENT_POLL, fd, POLLOUT, 0);
	eventfd_write_one(fd);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	check_event(&ev, KEVENT_POLL, fd, POLLIN | POLLOUT, 0);
}

static void a_timer_fires_once_or_again_and_again(void)
{
	int q = queue_open();
	struct kevent_event ev;
	uint64_t begin = now_ns(), seen = 0;

	need_feature(q, KEVENT_FEATURE_TIMER);
	CHECK_EQ(add_timer(q, ~0ULL, 2 * NSEC_PER_MSEC, 0, 0, COOKIE), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	CHECK(now_ns() - begin >= 2 * NSEC_PER_MSEC);
	check_event(&ev, KEVENT_TIMER, ~0ULL, KEVENT_TIMER_FIRED, 0);
	CHECK_EQ(ev.data, 1);
	CHECK_EQ(ev.count, 1);
	CHECK_EQ(remove_kevent(q, KEVENT_TIMER, ~0ULL, 0), 0);

	begin = now_ns();
	CHECK_EQ(add_timer(q, 7, NSEC_PER_MSEC, NSEC_PER_MSEC, 0, COOKIE), 0);
	while (seen < 5) {
		CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
		check_event(&ev, KEVENT_TIMER, 7, KEVENT_TIMER_FIRED, 0);
		CHECK(ev.data >= 1);
		CHECK_EQ(ev.count, ev.data);
		seen += ev.data;
	}
	CHECK(now_ns() - begin >= seen * NSEC_PER_MSEC);
}

static void times_of_64_bits_arrive_whole(void)
{
	int q = queue_open();
	struct kevent_request req;
	struct kevent_event ev;
	uint64_t at = now_ns() + 5 * NSEC_PER_MSEC;
	struct {
		struct kevent_wait head;
		struct kevent_event ev;
	} arg = { .head = {
		.min = 1, .max = 1, .clock = CLOCK_MONOTONIC,
		.flags = KEVENT_WAIT_ABSTIME,
	} };

	need_feature(q, KEVENT_FEATURE_TIMER);
	req = timer_request(1, at, 0, KEVENT_ABSTIME, COOKIE);
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	CHECK(now_ns() >= at);
	check_event(&ev, KEVENT_TIMER, 1, KEVENT_TIMER_FIRED, 0);

	/* An hour, cut to 32 bits, would be over in less than 1 s. */
	req = timer_request(2, 3600 * NSEC_PER_SEC, 0, 0, COOKIE);
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, 1100 * NSEC_PER_MSEC), 0);

	at = now_ns() + 5 * NSEC_PER_MSEC;
	arg.head.timeout = at;
	CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_WAIT(1), &arg)), 0);
	CHECK(now_ns() >= at);
}

static void a_posted_event_carries_its_count_and_the_last_data(void)
{
	int q = queue_open();
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1ULL << 40, 0, COOKIE), 0);
	CHECK_EQ(post(q, 1ULL << 40, 1), 0);
	CHECK_EQ(post(q, 1ULL << 40, 1ULL << 50), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	check_event(&ev, KEVENT_USER, 1ULL << 40, KEVENT_USER_POSTED, 0);
	CHECK_EQ(ev.count, 2);
	CHECK_EQ(ev.data, 1ULL << 50);
	check_silent(q);
	CHECK_EQ(post(q, 1, 0), -ENOENT);
}

static void check_name(const struct kevent_event *ev, const char *name)
{
	CHECK(ev->flags & KEVENT_EVENT_NAME);
	CHECK_EQ(KEVENT_NAME_LENGTH(ev->data), strlen(name));
	CHECK(!memcmp(ev + 1, name, strlen(name)));
}

static void a_watched_directory_names_its_entries_in_order(void)
{
	int q = queue_open(), dir, n;
	struct kevent_event ev[8];
	uint32_t want = KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE |
			KEVENT_INODE_MOVED_FROM | KEVENT_INODE_MOVED_TO;

	need_feature(q, KEVENT_FEATURE_INODE);
	dir = (int)SYS(open(temp_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	CHECK_EQ(add(q, KEVENT_INODE, dir, want, 0, COOKIE), 0);
	SYS(mkdirat(dir, "made", 0755));
	SYS(renameat(dir, "made", dir, "moved"));
	SYS(unlinkat(dir, "moved", AT_REMOVEDIR));
	n = wait_events(q, ev, ARRAY_SIZE(ev), 4, FOREVER);
	CHECK_EQ(n, 4);
	check_event(&ev[0], KEVENT_INODE, dir,
		    KEVENT_INODE_CREATE | KEVENT_INODE_ISDIR,
		    KEVENT_EVENT_NAME);
	check_name(&ev[0], "made");
	CHECK_EQ(ev[2].events, KEVENT_INODE_MOVED_FROM | KEVENT_INODE_ISDIR);
	check_name(&ev[2], "made");
	CHECK_EQ(ev[4].events, KEVENT_INODE_MOVED_TO | KEVENT_INODE_ISDIR);
	check_name(&ev[4], "moved");
	CHECK(KEVENT_INODE_RENAME(ev[2].data) != 0);
	CHECK_EQ(KEVENT_INODE_RENAME(ev[2].data),
		 KEVENT_INODE_RENAME(ev[4].data));
	CHECK_EQ(ev[6].events, KEVENT_INODE_REMOVE | KEVENT_INODE_ISDIR);
	check_name(&ev[6], "moved");
	check_silent(q);
	close(dir);
}

static void a_name_without_room_for_it_stays_queued(void)
{
	int q = queue_open(), dir;
	struct kevent_event ev[2];

	need_feature(q, KEVENT_FEATURE_INODE);
	dir = (int)SYS(open(temp_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	CHECK_EQ(add(q, KEVENT_INODE, dir, KEVENT_INODE_CREATE, 0, COOKIE), 0);
	SYS(mkdirat(dir, "entry", 0755));
	CHECK_EQ(wait_events(q, ev, 1, 1, FOREVER), -EMSGSIZE);
	CHECK_EQ(wait_events(q, ev, 2, 1, FOREVER), 1);
	check_name(ev, "entry");
	close(dir);
}

static void a_watched_path_ends_with_its_inode(void)
{
	int q = queue_open(), fd;
	struct kevent_event ev, end[2];
	char path[256];

	need_feature(q, KEVENT_FEATURE_INODE);
	snprintf(path, sizeof(path), "%s/file", temp_dir());
	fd = (int)SYS(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644));
	CHECK_EQ(add_path(q, 99, path, KEVENT_INODE_MODIFY |
			  KEVENT_INODE_SELF_REMOVED, 0, COOKIE), 0);
	CHECK_EQ(SYS(write(fd, "x", 1)), 1);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	check_event(&ev, KEVENT_PATH, 99, KEVENT_INODE_MODIFY, 0);
	close(fd);
	SYS(unlink(path));
	CHECK_EQ(wait_events(q, end, 2, 2, FOREVER), 2);
	check_event(&end[0], KEVENT_PATH, 99, KEVENT_INODE_SELF_REMOVED, 0);
	check_event(&end[1], KEVENT_PATH, 99, 0,
		    KEVENT_EVENT_BROKEN | KEVENT_EVENT_LAST);
	CHECK_EQ(remove_kevent(q, KEVENT_PATH, 99, 0), -ENOENT);
}

static void one_shot_is_removed_and_dispatch_disabled_by_delivery(void)
{
	int q = queue_open();
	struct kevent_event ev[2];

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1, KEVENT_ONESHOT, COOKIE), 0);
	CHECK_EQ(add_user(q, 2, KEVENT_DISPATCH, COOKIE), 0);
	CHECK_EQ(post(q, 1, 0), 0);
	CHECK_EQ(post(q, 2, 0), 0);
	CHECK_EQ(wait_events(q, ev, 2, 2, FOREVER), 2);
	check_event(&ev[0], KEVENT_USER, 1, KEVENT_USER_POSTED,
		    KEVENT_EVENT_LAST);
	check_event(&ev[1], KEVENT_USER, 2, KEVENT_USER_POSTED, 0);
	CHECK_EQ(post(q, 1, 0), -ENOENT);
	CHECK_EQ(post(q, 2, 5), 0);
	check_silent(q);
	CHECK_EQ(modify(q, KEVENT_USER, 2, KEVENT_USER_POSTED, KEVENT_DISPATCH,
			COOKIE), 0);
	CHECK_EQ(wait_events(q, ev, 2, 1, FOREVER), 1);
	CHECK_EQ(ev[0].data, 5);
}

static void level_repeats_and_edge_does_not(void)
{
	int q = queue_open(), level = eventfd_new(1), edge = eventfd_new(1);
	struct kevent_event ev[2];

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(q, KEVENT_POLL, level, POLLIN, 0, COOKIE), 0);
	CHECK_EQ(add(q, KEVENT_POLL, edge, POLLIN, KEVENT_EDGE, COOKIE), 0);
	CHECK_EQ(wait_events(q, ev, 2, 2, FOREVER), 2);
	CHECK_EQ(wait_events(q, ev, 2, 1, FOREVER), 1);
	check_event(&ev[0], KEVENT_POLL, level, POLLIN, 0);
	eventfd_write_one(edge);
	CHECK_EQ(wait_events(q, ev, 2, 2, FOREVER), 2);
}

static void modify_replaces_cookie_events_and_mode(void)
{
	int q = queue_open(), fd = eventfd_new(1);
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(q, KEVENT_POLL, fd, POLLOUT, KEVENT_DISABLED, 1), 0);
	check_silent(q);
	CHECK_EQ(modify(q, KEVENT_POLL, fd, POLLIN, KEVENT_ONESHOT, COOKIE), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	check_event(&ev, KEVENT_POLL, fd, POLLIN, KEVENT_EVENT_LAST);
	CHECK_EQ(modify(q, KEVENT_POLL, fd, POLLIN, 0, 0), -ENOENT);
}

static void each_entry_of_a_batch_has_its_own_result(void)
{
	int q = queue_open();
	struct {
		struct kevent_batch head;
		struct kevent_request req[5];
	} arg = { .head.count = 5 };

	need_feature(q, KEVENT_FEATURE_USER);
	arg.req[0] = request(KEVENT_USER, 1, KEVENT_USER_POSTED, 0, 0);
	arg.req[1] = arg.req[0];
	arg.req[2] = request(0xffff, 1, 0, 0, 0);
	arg.req[3] = request(KEVENT_USER, 2, KEVENT_USER_POSTED, 1U << 31, 0);
	arg.req[4] = request(KEVENT_USER, 2, KEVENT_USER_POSTED, 0, 0);
	CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_ADD(5), &arg)), 2);
	CHECK_EQ(arg.req[0].result, 0);
	CHECK_EQ(arg.req[1].result, -EEXIST);
	CHECK_EQ(arg.req[2].result, -ENXIO);
	CHECK_EQ(arg.req[3].result, -EINVAL);
	CHECK_EQ(arg.req[4].result, 0);
	arg.head.count = 0;
	CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_REMOVE(0), &arg)), 0);
	CHECK_EQ(queue_info(q).kevents, 2);
}

static void change_and_wait_changes_in_order_and_then_waits(void)
{
	int q = queue_open();
	struct {
		struct kevent_wait head;
		struct kevent_request req[3];
		struct kevent_event ev[2];
	} arg = { .head = {
		.nr_changes = 3, .min = 1, .max = 2,
		.timeout = KEVENT_WAIT_FOREVER, .clock = CLOCK_MONOTONIC,
	} };

	need_feature(q, KEVENT_FEATURE_TIMER);
	arg.req[0] = timer_request(5, 3600 * NSEC_PER_SEC, 0, 0, 1);
	arg.req[1] = timer_request(5, NSEC_PER_MSEC, 0, 0, COOKIE);
	arg.req[2] = timer_request(6, 3600 * NSEC_PER_SEC, 0, 0, 1);
	arg.req[0].op = KEVENT_OP_ADD;
	arg.req[1].op = KEVENT_OP_MODIFY;
	arg.req[2].op = KEVENT_OP_ADD;
	CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_CHANGE_WAIT(3, 2), &arg)), 1);
	CHECK_EQ(arg.head.changed, 3);
	CHECK_EQ(arg.head.records, 1);
	check_event(&arg.ev[0], KEVENT_TIMER, 5, KEVENT_TIMER_FIRED, 0);

	/* The second of these fails, so the call must not wait. */
	arg.req[0] = request(KEVENT_TIMER, 6, 0, 0, 0);
	arg.req[1] = request(KEVENT_TIMER, 6, 0, 0, 0);
	arg.req[0].op = KEVENT_OP_REMOVE;
	arg.req[1].op = KEVENT_OP_REMOVE;
	arg.head.nr_changes = 2;
	CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_CHANGE_WAIT(2, 2), &arg)), 0);
	CHECK_EQ(arg.head.changed, 1);
	CHECK_EQ(arg.req[0].result, 0);
	CHECK_EQ(arg.req[1].result, -ENOENT);
}

static void read_gives_the_records_of_wait(void)
{
	int q = queue_open();
	struct kevent_event ev[4];

	need_feature(q, KEVENT_FEATURE_USER);
	SYS(fcntl(q, F_SETFL, O_NONBLOCK));
	CHECK_EQ(read(q, ev, sizeof(ev)), -1);
	CHECK_EQ(errno, EAGAIN);
	CHECK_EQ(add_user(q, 1, 0, COOKIE), 0);
	CHECK_EQ(post(q, 1, 3), 0);
	CHECK_EQ(read(q, ev, sizeof(ev[0]) - 1), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(SYS(read(q, ev, sizeof(ev))), sizeof(ev[0]));
	check_event(&ev[0], KEVENT_USER, 1, KEVENT_USER_POSTED, 0);
	CHECK_EQ(ev[0].data, 3);
}

static void poll_says_when_the_queue_has_events(void)
{
	int q = queue_open(), fd = eventfd_new(0);
	struct pollfd pfd = { .fd = q, .events = POLLIN | POLLRDNORM };
	uint64_t value;

	need_feature(q, KEVENT_FEATURE_POLL);
	CHECK_EQ(add(q, KEVENT_POLL, fd, POLLIN, 0, COOKIE), 0);
	CHECK_EQ(SYS(poll(&pfd, 1, 0)), 0);
	eventfd_write_one(fd);
	CHECK_EQ(SYS(poll(&pfd, 1, -1)), 1);
	CHECK_EQ(pfd.revents, POLLIN | POLLRDNORM);
	CHECK_EQ(SYS(read(fd, &value, sizeof(value))), sizeof(value));
	CHECK_EQ(SYS(poll(&pfd, 1, 0)), 0);
}

static void fdinfo_lists_every_kevent(void)
{
	int q = queue_open(), fd = eventfd_new(0), info;
	char path[64], text[4096] = "", want[128];

	need_feature(q, KEVENT_FEATURE_POLL | KEVENT_FEATURE_USER);
	CHECK_EQ(add(q, KEVENT_POLL, fd, POLLIN, KEVENT_EDGE, COOKIE), 0);
	CHECK_EQ(add_user(q, 12345, 0, 0x7), 0);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", q);
	info = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
	CHECK(SYS(read(info, text, sizeof(text) - 1)) > 0);
	snprintf(want, sizeof(want),
		 "kevent: type: poll ident: %d events: 1 flags: 1 cookie: %llx close: ",
		 fd, COOKIE);
	if (!strstr(text, want))
		FAIL("no \"%s\" in:\n%s", want, text);
	snprintf(want, sizeof(want),
		 "kevent: type: user ident: 12345 events: 1 flags: 0 cookie: 7 close: ");
	if (!strstr(text, want))
		FAIL("no \"%s\" in:\n%s", want, text);
	close(info);
}

static const struct test_case cases[] = {
	TEST(info_tells_version_features_and_limits),
	TEST(info_counts_kevents_and_ready_events),
	TEST(a_socket_reports_data_with_its_byte_count),
	TEST(a_listening_socket_reports_accept_with_its_queue_length),
	TEST(a_pollable_file_reports_the_bits_of_poll),
	TEST(a_timer_fires_once_or_again_and_again),
	TEST(times_of_64_bits_arrive_whole),
	TEST(a_posted_event_carries_its_count_and_the_last_data),
	TEST(a_watched_directory_names_its_entries_in_order),
	TEST(a_name_without_room_for_it_stays_queued),
	TEST(a_watched_path_ends_with_its_inode),
	TEST(one_shot_is_removed_and_dispatch_disabled_by_delivery),
	TEST(level_repeats_and_edge_does_not),
	TEST(modify_replaces_cookie_events_and_mode),
	TEST(each_entry_of_a_batch_has_its_own_result),
	TEST(change_and_wait_changes_in_order_and_then_waits),
	TEST(read_gives_the_records_of_wait),
	TEST(poll_says_when_the_queue_has_events),
	TEST(fdinfo_lists_every_kevent),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
