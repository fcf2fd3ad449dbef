// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device as the C tests see it: one-line forms of its ioctls, and the
 * parameters of the loaded module.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

const char *device_path(void)
{
	const char *path = getenv("KEVENT_DEVICE");

	return path && *path ? path : "/dev/kevent";
}

int queue_open(void)
{
	int q = open(device_path(), O_RDWR | O_CLOEXEC);

	if (q < 0 && errno == ENOENT)
		test_skip("no %s: load the module", device_path());
	return (int)SYS(q);
}

struct kevent_info queue_info(int q)
{
	struct kevent_info info;

	memset(&info, 0xa5, sizeof(info));
	SYS(ioctl(q, KEVENT_IOC_INFO, &info));
	return info;
}

void need_feature(int q, uint32_t feature)
{
	if (!(queue_info(q).features & feature))
		test_skip("the module was built without feature %#x", feature);
}

void wait_until_user_kevents(int q, uint64_t want)
{
	uint64_t end = now_ns() + PATIENCE;
	uint64_t seen;

	while ((seen = queue_info(q).user_kevents) != want) {
		if (now_ns() > end)
			FAIL("%llu kevents charged to this user, not %llu",
			     (unsigned long long)seen, (unsigned long long)want);
		sched_yield();
	}
}

struct kevent_request request(uint16_t type, uint64_t ident, uint32_t events,
			      uint32_t flags, uint64_t cookie)
{
	return (struct kevent_request){
		.type = type, .ident = ident, .events = events,
		.flags = flags, .cookie = cookie,
	};
}

struct kevent_request timer_request(uint64_t ident, uint64_t value,
				    uint64_t interval, uint32_t flags,
				    uint64_t cookie)
{
	struct kevent_request req = request(KEVENT_TIMER, ident,
					    KEVENT_TIMER_FIRED, flags, cookie);

	req.param[0] = value;
	req.param[1] = interval;
	req.param[2] = CLOCK_MONOTONIC;
	return req;
}

struct kevent_request naio_request(uint64_t ident, uint32_t events,
				   uint32_t flags, const void *buffer,
				   size_t length, int fd)
{
	struct kevent_request req = request(KEVENT_NAIO, ident, events, flags,
					    ident);

	req.param[0] = (uintptr_t)buffer;
	req.param[1] = length;
	req.param[2] = (uint64_t)fd;
	return req;
}

int change(int q, unsigned int nr, struct kevent_request req)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg = { .head.count = 1, .req = req };
	int ret;

	arg.req.result = 0x5a5a5a5a;
	ret = ioctl(q, KEVENT_IOC_BATCH(nr, 1), &arg);
	if (ret < 0)
		return -errno;
	if (ret != (arg.req.result == 0) || arg.req.result > 0)
		FAIL("the call returned %d, the request's result is %d", ret,
		     arg.req.result);
	return arg.req.result;
}

int add(int q, uint16_t type, uint64_t ident, uint32_t events, uint32_t flags,
	uint64_t cookie)
{
	return change(q, KEVENT_IOC_NR_ADD,
		      request(type, ident, events, flags, cookie));
}

int modify(int q, uint16_t type, uint64_t ident, uint32_t events,
	   uint32_t flags, uint64_t cookie)
{
	return change(q, KEVENT_IOC_NR_MODIFY,
		      request(type, ident, events, flags, cookie));
}

int remove_kevent(int q, uint16_t type, uint64_t ident, uint32_t flags)
{
	return change(q, KEVENT_IOC_NR_REMOVE,
		      request(type, ident, 0, flags, 0));
}

int add_user(int q, uint64_t ident, uint32_t flags, uint64_t cookie)
{
	return add(q, KEVENT_USER, ident, KEVENT_USER_POSTED, flags, cookie);
}

int add_timer(int q, uint64_t ident, uint64_t value, uint64_t interval,
	      uint32_t flags, uint64_t cookie)
{
	return change(q, KEVENT_IOC_NR_ADD,
		      timer_request(ident, value, interval, flags, cookie));
}

int add_path(int q, uint64_t ident, const char *path, uint32_t events,
	     uint32_t flags, uint64_t cookie)
{
	size_t len = strlen(path) + 1;
	struct {
		struct kevent_path head;
		char path[4096];
	} arg;
	int ret;

	CHECK(len <= sizeof(arg.path));
	arg.head.request = request(KEVENT_PATH, ident, events, flags, cookie);
	memcpy(arg.path, path, len);
	ret = ioctl(q, KEVENT_IOC_ADD_PATH(len), &arg);
	if (ret < 0)
		return -errno;
	if (ret != (arg.head.request.result == 0))
		FAIL("ADD_PATH returned %d, the request's result is %d", ret,
		     arg.head.request.result);
	return arg.head.request.result;
}

int post(int q, uint64_t ident, uint64_t data)
{
	struct {
		struct kevent_batch head;
		struct kevent_post post;
	} arg = {
		.head.count = 1,
		.post = { .ident = ident, .data = data, .result = 1 },
	};
	int ret = ioctl(q, KEVENT_IOC_POST(1), &arg);

	if (ret < 0)
		return -errno;
	if (ret != (arg.post.result == 0))
		FAIL("POST returned %d, the posting's result is %d", ret,
		     arg.post.result);
	return arg.post.result;
}

int wait_events(int q, struct kevent_event *ev, uint32_t max, uint32_t min,
		uint64_t timeout)
{
	struct {
		struct kevent_wait head;
		struct kevent_event ev[KEVENT_MAX_RECORDS];
	} arg;
	int ret;

	CHECK(max <= KEVENT_MAX_RECORDS);
	arg.head = (struct kevent_wait){
		.min = min, .max = max, .timeout = timeout,
		.clock = CLOCK_MONOTONIC,
	};
	ret = ioctl(q, KEVENT_IOC_WAIT(max), &arg);
	if (ret < 0)
		return -errno;
	if (arg.head.records > max || arg.head.records < (uint32_t)ret)
		FAIL("%d events in %u records of %u", ret, arg.head.records,
		     max);
	memcpy(ev, arg.ev, arg.head.records * sizeof(*ev));
	return ret;
}

void check_silent(int q)
{
	struct kevent_event ev[KEVENT_EVENT_RECORDS];
	int ret = wait_events(q, ev, KEVENT_EVENT_RECORDS, 0, 0);

	if (ret > 0)
		FAIL("expected silence: %d events, the first of type %u, ident %llu, events %#x, flags %#x",
		     ret, ev[0].type, (unsigned long long)ev[0].ident,
		     ev[0].events, ev[0].flags);
	CHECK_EQ(ret, 0);
}

bool readable(int fd, uint64_t limit)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return SYS(poll(&pfd, 1, (int)(limit / NSEC_PER_MSEC))) == 1;
}

static void read_fdinfo(int q, char *text, size_t size)
{
	char path[64];
	size_t len = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", q);
	fd = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
	while ((n = SYS(read(fd, text + len, size - 1 - len))) > 0)
		len += (size_t)n;
	CHECK(len < size - 1);
	text[len] = '\0';
	close(fd);
}

void queue_state(int q, struct queue_state *state)
{
	struct kevent_info info = queue_info(q);

	state->kevents = info.kevents;
	state->ready = info.ready;
	state->user_kevents = info.user_kevents;
	read_fdinfo(q, state->fdinfo, sizeof(state->fdinfo));
}

void check_queue_state(int q, const struct queue_state *want, const char *when,
		       unsigned int round)
{
	static struct queue_state now;

	queue_state(q, &now);
	if (now.kevents != want->kevents || now.ready != want->ready ||
	    now.user_kevents != want->user_kevents)
		FAIL("%s, round %u: %llu kevents, %llu ready, %llu of the user; were %llu, %llu, %llu",
		     when, round, (unsigned long long)now.kevents,
		     (unsigned long long)now.ready,
		     (unsigned long long)now.user_kevents,
		     (unsigned long long)want->kevents,
		     (unsigned long long)want->ready,
		     (unsigned long long)want->user_kevents);
	if (strcmp(now.fdinfo, want->fdinfo))
		FAIL("%s, round %u: fdinfo is\n%s\nand was\n%s", when, round,
		     now.fdinfo, want->fdinfo);
}

unsigned int queue_holds(int q, uint64_t cookie)
{
	static char text[8192];
	char *pos = text;
	unsigned int nr = 0;
	char sought[64];

	snprintf(sought, sizeof(sought), " cookie: %llx ",
		 (unsigned long long)cookie);
	read_fdinfo(q, text, sizeof(text));
	while ((pos = strstr(pos, sought))) {
		nr++;
		pos++;
	}
	return nr;
}

static void parameter_path(char *path, size_t size, const char *name)
{
	snprintf(path, size, "/sys/module/kevent/parameters/%s", name);
}

uint64_t parameter_get(const char *name)
{
	char path[128], text[32] = "";
	int fd;

	parameter_path(path, sizeof(path), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		FAIL("%s: %s", path, strerror(errno));
	SYS(read(fd, text, sizeof(text) - 1));
	close(fd);
	return strtoull(text, NULL, 10);
}

void parameter_set(const char *name, uint64_t value)
{
	char path[128], text[32];
	int fd, len;

	need_root();
	parameter_path(path, sizeof(path), name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		FAIL("%s: %s", path, strerror(errno));
	len = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	CHECK_EQ(SYS(write(fd, text, (size_t)len)), len);
	close(fd);
}
