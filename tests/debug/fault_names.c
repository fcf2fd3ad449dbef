// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What happens to inodes is noted in the context of the one who does it, and
 * needs memory there.  Where there is none the one who does it never knows, and
 * the one who watches is told by OVERFLOW: nothing is lost without a word.
 *
 *	dir --- KEVENT_INODE (cookie 1), KEVENT_PATH (cookie 2) --- q
 */
#include "fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEVENTS	2	/* cookies 1 and 2 */
#define MOST	8	/* things that happen to one kevent in one round */
#define WATCHED	(KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE |		\
		 KEVENT_INODE_MOVED_FROM | KEVENT_INODE_MOVED_TO |	\
		 KEVENT_INODE_MODIFY)

struct happening {
	uint32_t events;
	const char *name;
};

/* One thing to do in a directory, and what is to be told of it. */
struct deed {
	const char *what;
	void (*prepare)(int dir);
	int (*act)(int dir);
	struct happening told[2];
};

struct stage {
	const struct deed *deed;
	uint32_t mode;
	int dir;
	int q;
	unsigned int overflows;
};

static void no_entry(int dir)
{
	unlinkat(dir, "entry", 0);
	unlinkat(dir, "moved", 0);
}

static void one_entry(int dir)
{
	no_entry(dir);
	SYS(mknodat(dir, "entry", S_IFREG | 0600, 0));
}

/* 1: done; 0: not done, which is no harm under a fault */
static int act_create(int dir)
{
	return !mknodat(dir, "entry", S_IFREG | 0600, 0);
}

static int act_remove(int dir)
{
	return !unlinkat(dir, "entry", 0);
}

static int act_rename(int dir)
{
	return !renameat(dir, "entry", dir, "moved");
}

static int act_truncate(int dir)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/entry", dir);
	return !truncate(path, 100);
}

static const struct deed deeds[] = {
	{ "create", no_entry, act_create,
	  { { KEVENT_INODE_CREATE, "entry" } } },
	{ "remove", one_entry, act_remove,
	  { { KEVENT_INODE_REMOVE, "entry" } } },
	{ "rename", one_entry, act_rename,
	  { { KEVENT_INODE_MOVED_FROM, "entry" },
	    { KEVENT_INODE_MOVED_TO, "moved" } } },
	{ "truncate", one_entry, act_truncate,
	  { { KEVENT_INODE_MODIFY, "entry" } } },
};

/* What kevent @cookie reported, in its order. */
struct told {
	unsigned int nr;
	struct kevent_event ev[MOST];
	char name[MOST][16];
};

static void listen_to(int q, struct told told[KEVENTS])
{
	struct kevent_event ev[64];
	unsigned int pos = 0;
	int i, nr = wait_events(q, ev, ARRAY_SIZE(ev), 0, 0);

	CHECK(nr >= 0);
	for (i = 0; i < nr; i++) {
		const struct kevent_event *e = &ev[pos++];
		struct told *t;

		CHECK(e->cookie >= 1 && e->cookie <= KEVENTS);
		t = &told[e->cookie - 1];
		CHECK(t->nr < MOST);
		t->ev[t->nr] = *e;
		t->name[t->nr][0] = '\0';
		if (e->flags & KEVENT_EVENT_NAME) {
			CHECK(KEVENT_NAME_LENGTH(e->data) < 16);
			memcpy(t->name[t->nr], &ev[pos],
			       KEVENT_NAME_LENGTH(e->data));
			t->name[t->nr][KEVENT_NAME_LENGTH(e->data)] = '\0';
			pos += KEVENT_NAME_RECORDS(e->data);
		}
		t->nr++;
	}
}

/* Event @i is what it should be, or an overflow in its place: true. */
static bool is_overflow(const struct told *t, unsigned int i,
			const struct happening *want)
{
	const struct kevent_event *ev = &t->ev[i];

	if (i >= t->nr)
		FAIL("%u events, and %s is missing", t->nr, want->name);
	CHECK_EQ(ev->count, 1);
	if (ev->flags & KEVENT_EVENT_OVERFLOW) {
		CHECK_EQ(ev->events, 0);
		return true;
	}
	if ((ev->events & ~KEVENT_INODE_ISDIR) != want->events ||
	    strcmp(t->name[i], want->name))
		FAIL("event %u is %#x of %s, not %#x of %s", i, ev->events,
		     t->name[i], want->events, want->name);
	return false;
}

static void watch(struct stage *s)
{
	char path[64];

	s->q = queue_open();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->dir);
	CHECK_EQ(add(s->q, KEVENT_INODE, (uint64_t)s->dir, WATCHED, s->mode, 1),
		 0);
	CHECK_EQ(add_path(s->q, 7, path, WATCHED, s->mode, 2), 0);
}

/* Before and behind what may fail there is one more thing that does not. */
static enum fault_end sequence_round(void *arg, unsigned int nth)
{
	static const struct happening first = { KEVENT_INODE_CREATE, "first" };
	static const struct happening last = { KEVENT_INODE_CREATE, "last" };
	struct told told[KEVENTS] = { 0 };
	struct stage *s = arg;
	const struct deed *deed = s->deed;
	unsigned int c, i, lost = 0;
	bool used;
	int done;

	unlinkat(s->dir, "first", 0);
	unlinkat(s->dir, "last", 0);
	deed->prepare(s->dir);
	watch(s);
	SYS(mknodat(s->dir, "first", S_IFREG | 0600, 0));
	fault_arm(nth);
	done = deed->act(s->dir);
	used = fault_disarm();
	CHECK(done || used);
	SYS(mknodat(s->dir, "last", S_IFREG | 0600, 0));
	listen_to(s->q, told);
	for (c = 0; c < KEVENTS; c++) {
		unsigned int pos = 0;

		CHECK(!is_overflow(&told[c], pos++, &first));
		for (i = 0; done && i < 2 && deed->told[i].name; i++)
			lost += is_overflow(&told[c], pos++, &deed->told[i]);
		CHECK(!is_overflow(&told[c], pos++, &last));
		CHECK_EQ(told[c].nr, pos);
	}
	CHECK(lost <= 1 && (!lost || used));
	check_silent(s->q);
	close(s->q);
	s->overflows += lost;
	if (!done || lost)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

/* The mode counts for an overflow as for any event. */
static enum fault_end mode_round(void *arg, unsigned int nth)
{
	struct told told[KEVENTS] = { 0 };
	struct stage *s = arg;
	const struct deed *deed = s->deed;
	unsigned int c, lost = 0, one = s->mode == KEVENT_ONESHOT;
	bool used;
	int done;

	deed->prepare(s->dir);
	watch(s);
	fault_arm(nth);
	done = deed->act(s->dir);
	used = fault_disarm();
	CHECK(done || used);
	if (s->mode == KEVENT_DISABLED) {
		check_silent(s->q);
		CHECK_EQ(modify(s->q, KEVENT_INODE, (uint64_t)s->dir, WATCHED,
				0, 1), 0);
		CHECK_EQ(modify(s->q, KEVENT_PATH, 7, WATCHED, 0, 2), 0);
	}
	listen_to(s->q, told);
	for (c = 0; c < KEVENTS; c++) {
		CHECK_EQ(told[c].nr, done);
		if (!done)
			continue;
		lost += is_overflow(&told[c], 0, &deed->told[0]);
		CHECK_EQ(!!(told[c].ev[0].flags & KEVENT_EVENT_LAST), one);
	}
	CHECK(lost <= 1 && (!lost || used));
	CHECK_EQ(queue_info(s->q).kevents, done && one ? 0 : KEVENTS);
	if (done && s->mode == KEVENT_DISPATCH) {
		/* disabled by it: what happens next waits for a MODIFY */
		deed->prepare(s->dir);
		check_silent(s->q);
	}
	close(s->q);
	s->overflows += lost;
	if (!done || lost)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

/*
 * If no overflow came, the sweep met no allocation of ours.  That happens: a
 * cache that grows, once, moves the points behind.
 */
static void sweep_with_overflows(const char *name,
				 enum fault_end (*round)(void *, unsigned int),
				 struct stage *s)
{
	unsigned int tries;

	s->overflows = 0;
	for (tries = 0; tries < 10 && !s->overflows; tries++)
		fault_sweep(name, round, s);
	if (!s->overflows)
		FAIL("%s: no overflow", name);
}

static void sweep_deeds(const char *what, uint32_t mode,
			enum fault_end (*round)(void *, unsigned int),
			size_t nr)
{
	struct stage s = { .mode = mode };
	char name[64];
	size_t i;

	s.dir = (int)SYS(open(fs_mount(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (i = 0; i < nr; i++) {
		s.deed = &deeds[i];
		snprintf(name, sizeof(name), "names/%s/%s/%s", what,
			 s.deed->what, mode_name(mode));
		sweep_with_overflows(name, round, &s);
	}
	close(s.dir);
	fs_unmount();
}

static void an_entry_that_cannot_be_noted_is_an_overflow_in_its_place(void)
{
	struct fault_leaks leaks;

	leaks_begin(&leaks);
	sweep_deeds("sequence", 0, sequence_round, ARRAY_SIZE(deeds));
	sweep_deeds("sequence", KEVENT_EDGE, sequence_round, 1);
	leaks_end(&leaks);
}

static void an_overflow_is_delivered_as_the_mode_says(void)
{
	struct fault_leaks leaks;

	leaks_begin(&leaks);
	sweep_deeds("mode", 0, mode_round, 2);
	sweep_deeds("mode", KEVENT_ONESHOT, mode_round, 2);
	sweep_deeds("mode", KEVENT_DISPATCH, mode_round, 2);
	sweep_deeds("mode", KEVENT_DISABLED, mode_round, 2);
	leaks_end(&leaks);
}

/*
 * The inode itself goes: SELF_REMOVED or an overflow, and then, which needs no
 * memory, the end of the kevent.
 */
static unsigned int check_end(const struct told *t, uint32_t events)
{
	const struct happening end = { events, "" };
	unsigned int lost = is_overflow(t, 0, &end);

	CHECK_EQ(t->nr, 2);
	CHECK_EQ(t->ev[1].events, 0);
	CHECK_EQ(t->ev[1].flags, KEVENT_EVENT_BROKEN | KEVENT_EVENT_LAST);
	return lost;
}

static enum fault_end unlink_round(void *arg, unsigned int nth)
{
	struct told told[KEVENTS] = { 0 };
	struct stage *s = arg;
	unsigned int c, lost = 0;
	char path[64];
	bool used;
	int done, fd;

	one_entry(s->dir);
	s->q = queue_open();
	fd = (int)SYS(openat(s->dir, "entry", O_RDONLY | O_CLOEXEC));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_EQ(add(s->q, KEVENT_INODE, (uint64_t)fd,
		     KEVENT_INODE_SELF_REMOVED, 0, 1), 0);
	CHECK_EQ(add_path(s->q, 7, path, KEVENT_INODE_SELF_REMOVED, 0, 2), 0);
	fault_arm(nth);
	done = act_remove(s->dir);
	used = fault_disarm();
	CHECK(done || used);
	listen_to(s->q, told);
	for (c = 0; c < KEVENTS; c++) {
		if (done)
			lost += check_end(&told[c], KEVENT_INODE_SELF_REMOVED);
		else
			CHECK_EQ(told[c].nr, 0);
	}
	CHECK(lost <= 1 && (!lost || used));
	CHECK_EQ(queue_info(s->q).kevents, done ? 0 : KEVENTS);
	close(s->q);
	close(fd);
	s->overflows += lost;
	if (!done || lost)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void the_end_of_a_file_is_told_even_if_it_cannot_be_noted(void)
{
	struct stage s = { 0 };
	struct fault_leaks leaks;

	leaks_begin(&leaks);
	s.dir = (int)SYS(open(fs_mount(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	sweep_with_overflows("names/end/unlink", unlink_round, &s);
	close(s.dir);
	fs_unmount();
	leaks_end(&leaks);
}

static enum fault_end unmount_round(void *arg, unsigned int nth)
{
	struct told told[KEVENTS] = { 0 };
	const char *path = fs_mount();
	struct stage *s = arg;
	unsigned int lost;
	bool used, done;

	s->q = queue_open();
	CHECK_EQ(add_path(s->q, 1, path, KEVENT_INODE_UNMOUNT, 0, 1), 0);
	fault_arm(nth);
	done = !umount2(path, 0);
	used = fault_disarm();
	CHECK(done || used);
	if (!done)
		SYS(umount2(path, 0));
	listen_to(s->q, told);
	lost = check_end(&told[0], KEVENT_INODE_UNMOUNT);
	CHECK(!lost || used);
	CHECK_EQ(queue_info(s->q).kevents, 0);
	close(s->q);
	s->overflows += lost;
	if (!done || lost)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void an_unmount_is_told_even_if_it_cannot_be_noted(void)
{
	struct stage s = { 0 };
	struct fault_leaks leaks;

	leaks_begin(&leaks);
	sweep_with_overflows("names/end/unmount", unmount_round, &s);
	leaks_end(&leaks);
}

static const struct test_case cases[] = {
	LONG_TEST(an_entry_that_cannot_be_noted_is_an_overflow_in_its_place,
		  900),
	LONG_TEST(an_overflow_is_delivered_as_the_mode_says, 900),
	LONG_TEST(the_end_of_a_file_is_told_even_if_it_cannot_be_noted, 300),
	LONG_TEST(an_unmount_is_told_even_if_it_cannot_be_noted, 300),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
