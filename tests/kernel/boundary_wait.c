// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * WAIT, CHANGE_WAIT and read(2) into two pages, of which one is good; the
 * boundary falls at every fourth byte.  Events that find no room stay queued,
 * in their order, and what was changed before is told.
 */
#include "lib.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * WAIT: four events in five records, one of them with a name.  @ends is where
 * each of them ends, in records.
 */
#define RECORDS	5

static const unsigned int ends[] = { 1, 3, 4, 5 };

static int begin_wait(int dir)
{
	int q = queue_open();

	CHECK_EQ(add_user(q, 1, KEVENT_ONESHOT, 0), 0);
	CHECK_EQ(post(q, 1, 0), 0);
	CHECK_EQ(add(q, KEVENT_INODE, (uint64_t)dir, KEVENT_INODE_CREATE, 0, 1),
		 0);
	SYS(mknodat(dir, "name", S_IFREG | 0600, 0));
	SYS(unlinkat(dir, "name", 0));
	CHECK_EQ(add_timer(q, 2, 1, 0, 0, 2), 0);
	while (queue_info(q).ready < 3)
		;
	CHECK_EQ(add_user(q, 3, KEVENT_DISPATCH, 3), 0);
	CHECK_EQ(post(q, 3, 0), 0);
	return q;
}

/* The cookies count up, from @first on. */
static void check_in_order(const struct kevent_event *ev, int nr,
			   unsigned int first)
{
	int i;

	for (i = 0; i < nr; i++, first++) {
		CHECK_EQ(ev->cookie, first);
		CHECK_EQ(ev->count, 1);
		if (first == 1)
			CHECK(!memcmp(++ev, "name", 4));
		ev++;
	}
}

/* How many events end before byte @room of the records. */
static int events_in(size_t room)
{
	int nr = 0;

	while (nr < (int)ARRAY_SIZE(ends) &&
	       ends[nr] * sizeof(struct kevent_event) <= room)
		nr++;
	return nr;
}

#define HEAD(field)	offsetof(struct kevent_wait, field)

static void check_wait(const struct cut *cut, int dir, bool by_read)
{
	static const struct touch wait_touch = {
		.size = sizeof(struct kevent_wait),
		.writes = { HEAD(records), HEAD(left) },
	};
	static const struct touch read_touch = { .size = 0 };
	const struct touch *touch = by_read ? &read_touch : &wait_touch;
	static struct queue_state before;
	struct {
		struct kevent_wait head;
		struct kevent_event ev[RECORDS];
	} arg = {
		.head = {
			.min = 4, .max = RECORDS, .timeout = FOREVER,
			.clock = CLOCK_MONOTONIC,
		},
	};
	size_t size = by_read ? sizeof(arg.ev) : sizeof(arg);
	size_t start = by_read ? 0 : sizeof(arg.head);
	void *data = by_read ? (void *)arg.ev : (void *)&arg, *at;
	int q = begin_wait(dir), got, rest, fits = 4;
	struct kevent_event ev[RECORDS];

	if (!cut->head)
		fits = cut->off < start ? 0 : events_in(cut->off - start);
	else if (cut->off > start)
		fits = 0;
	if (!by_read && cut_refuses(cut, touch))
		fits = 0;
	queue_state(q, &before);
	at = cut_place(cut, data, size);
	if (by_read)
		got = (int)syscall(SYS_read, q, at, size);
	else
		got = ioctl(q, KEVENT_IOC_WAIT(RECORDS), at);
	if (!fits) {
		if (got != -1 || errno != EFAULT)
			FAIL("%s byte %zu: %d", cut_name(cut), cut->off, got);
		check_queue_state(q, &before, cut_name(cut),
				  (unsigned int)cut->off);
	} else {
		int want = by_read ? (int)(ends[fits - 1] * sizeof(*ev)) : fits;

		if (got != want)
			FAIL("%s byte %zu: %d, not %d", cut_name(cut), cut->off,
			     got, want);
		cut_look_back(cut, at, data, size);
		check_in_order(arg.ev, fits, 0);
		if (!by_read) {
			CHECK_EQ(arg.head.records, ends[fits - 1]);
			CHECK_EQ(arg.head.left, 4 - fits);
		}
	}
	rest = wait_events(q, ev, RECORDS, 0, 0);
	CHECK_EQ(rest, 4 - fits);
	check_in_order(ev, rest, (unsigned int)fits);
	check_silent(q);
	close(q);
}

static void events_that_find_no_room_stay_in_their_order(void)
{
	const size_t size = sizeof(struct kevent_wait) +
			    RECORDS * sizeof(struct kevent_event);
	struct cut cut;
	unsigned int i;
	int dir;

	need_feature(queue_open(), KEVENT_FEATURE_USER);
	need_feature(queue_open(), KEVENT_FEATURE_INODE);
	need_feature(queue_open(), KEVENT_FEATURE_TIMER);
	dir = (int)SYS(open(temp_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (i = 0; cut_next(&cut, i, size); i++)
		check_wait(&cut, dir, false);
	for (i = 0; cut_next(&cut, i, size - sizeof(struct kevent_wait)); i++)
		check_wait(&cut, dir, true);
}

/* Both: what the changes did is told, whatever becomes of the events. */
#define CHANGE(i)	(sizeof(struct kevent_wait) +			\
			 (i) * sizeof(struct kevent_request) +		\
			 offsetof(struct kevent_request, result))

static void check_change_wait(const struct cut *cut, int dir)
{
	struct {
		struct kevent_wait head;
		struct kevent_request req[2];
		struct kevent_event ev[RECORDS];
	} arg = {
		.head = {
			.nr_changes = 2, .changed = 99, .min = 1,
			.max = RECORDS, .timeout = FOREVER,
			.clock = CLOCK_MONOTONIC,
		},
		.req = {
			request(KEVENT_USER, 10, KEVENT_USER_POSTED, 0, 110),
			request(KEVENT_USER, 11, KEVENT_USER_POSTED, 0, 111),
		},
	};
	static const struct touch touch = {
		.size = offsetof(typeof(arg), ev),
		.writes = {
			HEAD(changed), HEAD(records), HEAD(left), CHANGE(0),
			CHANGE(1),
		},
	};
	static struct queue_state before;
	bool refused = cut_refuses(cut, &touch);
	int q = begin_wait(dir), got, rest, fits = 4;
	struct kevent_event ev[RECORDS];
	void *at;

	arg.req[0].op = arg.req[1].op = KEVENT_OP_ADD;
	if (!cut->head)
		fits = cut->off < touch.size ? 0 :
			events_in(cut->off - touch.size);
	else if (cut->off > touch.size)
		fits = 0;
	queue_state(q, &before);
	at = cut_place(cut, &arg, sizeof(arg));
	got = ioctl(q, KEVENT_IOC_CHANGE_WAIT(2, RECORDS), at);
	if (refused || !fits) {
		if (got != -1 || errno != EFAULT)
			FAIL("%s byte %zu: %d", cut_name(cut), cut->off, got);
		fits = 0;
	} else {
		CHECK_EQ(got, fits);
	}
	cut_look_back(cut, at, &arg, sizeof(arg));
	if (refused) {
		check_queue_state(q, &before, cut_name(cut),
				  (unsigned int)cut->off);
	} else {
		CHECK_EQ(arg.head.changed, 2);
		CHECK_EQ(arg.req[0].result, 0);
		CHECK_EQ(arg.req[1].result, 0);
		CHECK_EQ(queue_holds(q, 110), 1);
		CHECK_EQ(queue_holds(q, 111), 1);
		CHECK_EQ(arg.head.records, fits ? ends[fits - 1] : 0);
		check_in_order(arg.ev, fits, 0);
	}
	rest = wait_events(q, ev, RECORDS, 0, 0);
	CHECK_EQ(rest, 4 - fits);
	check_in_order(ev, rest, (unsigned int)fits);
	check_silent(q);
	close(q);
}

static void what_was_changed_is_told_although_the_wait_fails(void)
{
	const size_t size = sizeof(struct kevent_wait) +
			    2 * sizeof(struct kevent_request) +
			    RECORDS * sizeof(struct kevent_event);
	struct cut cut;
	unsigned int i;
	int dir;

	need_feature(queue_open(), KEVENT_FEATURE_USER);
	need_feature(queue_open(), KEVENT_FEATURE_INODE);
	need_feature(queue_open(), KEVENT_FEATURE_TIMER);
	dir = (int)SYS(open(temp_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (i = 0; cut_next(&cut, i, size); i++)
		check_change_wait(&cut, dir);
}

static const struct test_case cases[] = {
	LONG_TEST(events_that_find_no_room_stay_in_their_order, 120),
	LONG_TEST(what_was_changed_is_told_although_the_wait_fails, 120),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
