// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A WAIT for more events than are copied at a time, names among them, that
 * fails in the middle: what it did not deliver is delivered by the next one.
 */
#include "fault.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES	8
#define USERS	32	/* more than what is copied at a time */

/* The names end in their number; some need several records. */
static void entry_name(char *name, size_t size, unsigned int i)
{
	memset(name, 'n', size);
	snprintf(name + i * 30, size - i * 30, "-%u", i);
}

static unsigned int tally(const struct kevent_event *ev, int nr,
			  unsigned int *seen)
{
	const struct kevent_event *first = ev;
	char name[NAME_MAX + 1];
	int i;

	for (i = 0; i < nr; i++) {
		CHECK_EQ(ev->count, 1);
		if (ev->type == KEVENT_USER) {
			CHECK(ev->data < USERS);
			seen[NAMES + ev->data]++;
			ev++;
			continue;
		}
		CHECK(ev->flags & KEVENT_EVENT_NAME);
		CHECK(ev->cookie < NAMES);
		entry_name(name, sizeof(name), (unsigned int)ev->cookie);
		CHECK_EQ(KEVENT_NAME_LENGTH(ev->data), strlen(name));
		CHECK(!memcmp(ev + 1, name, strlen(name)));
		seen[ev->cookie]++;
		ev += 1 + KEVENT_NAME_RECORDS(ev->data);
	}
	return (unsigned int)(ev - first);
}

/*
 * A user event before, between and behind those that carry names.  A kevent
 * for each name, so that the event tells which name it should be.
 */
static enum fault_end crowd_round(void *arg, unsigned int nth)
{
	static struct {
		struct kevent_wait head;
		struct kevent_event ev[KEVENT_MAX_RECORDS];
	} call;
	static struct kevent_event more[KEVENT_MAX_RECORDS];
	unsigned int i, seen[NAMES + USERS] = { 0 };
	char name[NAME_MAX + 1], sub[32];
	int dir = *(int *)arg, q = queue_open(), got, rest;
	bool used;

	for (i = 0; i < USERS; i++) {
		CHECK_EQ(add_user(q, i, i % 2 ? KEVENT_ONESHOT : 0, i), 0);
		CHECK_EQ(post(q, i, i), 0);
		if (i % 4)
			continue;
		snprintf(sub, sizeof(sub), "%u", i / 4);
		SYS(mkdirat(dir, sub, 0700));
		rest = (int)SYS(openat(dir, sub, O_RDONLY | O_CLOEXEC));
		snprintf(name, sizeof(name), "/proc/self/fd/%d", rest);
		CHECK_EQ(add_path(q, i / 4, name, KEVENT_INODE_CREATE, 0,
				  i / 4), 0);
		entry_name(name, sizeof(name), i / 4);
		SYS(mkdirat(rest, name, 0700));
		SYS(unlinkat(rest, name, AT_REMOVEDIR));
		close(rest);
	}
	memset(&call, 0, sizeof(call));
	call.head = (struct kevent_wait){
		.min = NAMES + USERS, .max = KEVENT_MAX_RECORDS,
		.timeout = PATIENCE, .clock = CLOCK_MONOTONIC,
	};
	fault_arm(nth);
	got = ioctl(q, KEVENT_IOC_WAIT(KEVENT_MAX_RECORDS), &call);
	if (got < 0)
		got = -errno;
	used = fault_disarm();
	if (got < 0)
		CHECK(got == -EFAULT && used);
	else
		CHECK_EQ(tally(call.ev, got, seen), call.head.records);
	rest = wait_events(q, more, KEVENT_MAX_RECORDS, 0, 0);
	CHECK(rest >= 0);
	tally(more, rest, seen);
	for (i = 0; i < NAMES + USERS; i++)
		if (seen[i] != 1)
			FAIL("fault %u: event %u came %u times", nth, i,
			     seen[i]);
	check_silent(q);
	close(q);
	for (i = 0; i < NAMES; i++) {
		snprintf(sub, sizeof(sub), "%u", i);
		SYS(unlinkat(dir, sub, AT_REMOVEDIR));
	}
	if (got < NAMES + USERS)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void a_long_wait_that_fails_delivers_each_event_once_in_all(void)
{
	struct fault_leaks leaks;
	int dir;

	leaks_begin(&leaks);
	dir = (int)SYS(open(fs_mount(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	fault_sweep("crowd", crowd_round, &dir);
	close(dir);
	fs_unmount();
	leaks_end(&leaks);
}

static const struct test_case cases[] = {
	LONG_TEST(a_long_wait_that_fails_delivers_each_event_once_in_all, 300),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
