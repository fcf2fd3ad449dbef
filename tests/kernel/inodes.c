// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Watches of inodes against what takes an inode away: unmount, and the last
 * unlink of several.  A watch then ends with an event of its own, BROKEN and
 * LAST, behind the one that tells what happened.
 */
#include "lib.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENDS	(KEVENT_EVENT_BROKEN | KEVENT_EVENT_LAST)

/* A tmpfs of its own under the case's directory, in a namespace of its own. */
static const char *private_mount(char *path, size_t size)
{
	static bool unshared;

	need_root();
	snprintf(path, size, "%s/mnt", temp_dir());
	if (!unshared) {
		SYS(unshare(CLONE_NEWNS));
		SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
		unshared = true;
	}
	if (mkdir(path, 0755))
		CHECK_EQ(errno, EEXIST);
	SYS(mount("tmpfs", path, "tmpfs", 0, NULL));
	return path;
}

/* A path being looked up by another thread keeps the file system busy. */
static void unmount_soon(const char *path)
{
	uint64_t end = now_ns() + PATIENCE;

	while (umount2(path, 0)) {
		CHECK_EQ(errno, EBUSY);
		CHECK(now_ns() < end);
		sched_yield();
	}
}

static void check_end(const struct kevent_event *ev, uint64_t cookie)
{
	CHECK_EQ(ev->cookie, cookie);
	CHECK_EQ(ev->events, 0);
	CHECK_EQ(ev->flags, ENDS);
}

static int make_file(const char *dir, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return (int)SYS(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644));
}

static void a_path_does_not_keep_its_file_system_mounted(void)
{
	struct kevent_event ev[4];
	char path[128], file[160];
	int q = queue_open(), i;
	uint64_t seen = 0;

	need_feature(q, KEVENT_FEATURE_INODE);
	private_mount(path, sizeof(path));
	close(make_file(path, "file"));
	snprintf(file, sizeof(file), "%s/file", path);
	CHECK_EQ(add_path(q, 1, path, KEVENT_INODE_UNMOUNT, 0, 1), 0);
	CHECK_EQ(add_path(q, 2, file, KEVENT_INODE_UNMOUNT, 0, 2), 0);
	SYS(umount2(path, 0));
	CHECK_EQ(wait_events(q, ev, 4, 4, FOREVER), 4);
	/* Which of the two inodes goes first is up to the kernel. */
	for (i = 0; i < 4; i++) {
		if (seen & ev[i].cookie) {
			check_end(&ev[i], ev[i].cookie);
			continue;
		}
		CHECK_EQ(ev[i].events & ~KEVENT_INODE_ISDIR,
			 KEVENT_INODE_UNMOUNT);
		CHECK_EQ(ev[i].flags, 0);
		seen |= ev[i].cookie;
	}
	CHECK_EQ(seen, 3);
	CHECK_EQ(remove_kevent(q, KEVENT_PATH, 1, 0), -ENOENT);
	CHECK_EQ(queue_info(q).kevents, 0);
}

struct mounted {
	int q;
	const char *path;
	_Atomic bool stop;
	_Atomic unsigned int stream;
	_Atomic unsigned int added;
	_Atomic unsigned int unmounts;
	_Atomic unsigned int ends;
};

static void *watch_and_unwatch(void *arg)
{
	struct mounted *m = arg;
	struct rnd rnd = rnd_stream(m->stream++);
	char path[160];

	while (!m->stop) {
		unsigned int i = rnd_below(&rnd, 4);
		int ret;

		snprintf(path, sizeof(path), "%s/%u", m->path, i);
		/* It may be the directory below the mount, or none. */
		ret = add_path(m->q, i, path, 0x1ff, rnd_below(&rnd, 2) ?
			       KEVENT_ONESHOT : 0, i);
		CHECK(!ret || ret == -ENOENT || ret == -EEXIST);
		m->added += !ret;
		if (!rnd_below(&rnd, 4)) {
			ret = remove_kevent(m->q, KEVENT_PATH, i, 0);
			CHECK(!ret || ret == -ENOENT);
		}
	}
	return NULL;
}

static void *drain(void *arg)
{
	struct mounted *m = arg;
	struct kevent_event ev[64];

	while (!m->stop) {
		int i = 0, n = wait_events(m->q, ev, 64, 1, 500000);

		CHECK(n >= 0);
		for (; n > 0; n--) {
			m->unmounts += !!(ev[i].events & KEVENT_INODE_UNMOUNT);
			if (ev[i].flags & KEVENT_EVENT_BROKEN) {
				check_end(&ev[i], ev[i].ident);
				m->ends++;
			}
			if (ev[i].flags & KEVENT_EVENT_NAME)
				i += (int)KEVENT_NAME_RECORDS(ev[i].data);
			i++;
		}
	}
	return NULL;
}

static void unmounts_race_with_watches(void)
{
	struct mounted m = { .q = queue_open() };
	unsigned int i, j, total = rounds(60);
	pthread_t threads[3];
	char path[128], name[8];

	need_feature(m.q, KEVENT_FEATURE_INODE);
	m.path = private_mount(path, sizeof(path));
	threads[0] = thread_start(watch_and_unwatch, &m);
	threads[1] = thread_start(watch_and_unwatch, &m);
	threads[2] = thread_start(drain, &m);
	for (i = 0; i < total; i++) {
		for (j = 0; j < 4; j++) {
			snprintf(name, sizeof(name), "%u", j);
			close(make_file(path, name));
		}
		unmount_soon(path);
		SYS(mount("tmpfs", path, "tmpfs", 0, NULL));
	}
	m.stop = true;
	for (i = 0; i < 3; i++)
		thread_join(threads[i]);
	unmount_soon(path);
	dprintf(STDERR_FILENO, "%u added, %u saw the unmount, %u ended\n",
		m.added, m.unmounts, m.ends);
	for (i = 0; i < 4; i++)
		remove_kevent(m.q, KEVENT_PATH, i, 0);
}

/* umount -l: the file system lives until the last descriptor on it goes. */
static void a_detached_file_system_ends_with_its_last_descriptor(void)
{
	int q = queue_open(), fd, i;
	struct kevent_event ev[2];
	char path[128];

	need_feature(q, KEVENT_FEATURE_INODE);
	for (i = 0; i < 10; i++) {
		private_mount(path, sizeof(path));
		fd = make_file(path, "file");
		CHECK_EQ(add(q, KEVENT_INODE, fd, KEVENT_INODE_MODIFY |
			     KEVENT_INODE_UNMOUNT, 0, 1), 0);
		CHECK_EQ(add_path(q, 2, path, KEVENT_INODE_UNMOUNT, 0, 2), 0);
		SYS(umount2(path, MNT_DETACH));
		check_silent(q);
		CHECK_EQ(SYS(write(fd, "x", 1)), 1);
		CHECK_EQ(wait_events(q, ev, 2, 1, FOREVER), 1);
		CHECK_EQ(ev[0].cookie, 1);
		close(fd);
		CHECK_EQ(wait_events(q, ev, 2, 2, FOREVER), 2);
		CHECK_EQ(ev[0].cookie, 2);
		CHECK_EQ(ev[0].events, KEVENT_INODE_UNMOUNT |
				       KEVENT_INODE_ISDIR);
		check_end(&ev[1], 2);
		CHECK_EQ(queue_info(q).kevents, 0);
	}
}

static void only_the_last_of_several_names_removes_an_inode(void)
{
	int q = queue_open(), fd, n, i;
	struct kevent_event ev[16];
	const char *dir = temp_dir();
	char name[3][160];

	need_feature(q, KEVENT_FEATURE_INODE);
	for (i = 0; i < 3; i++)
		snprintf(name[i], sizeof(name[i]), "%s/name%d", dir, i);
	fd = make_file(dir, "name0");
	close(fd);
	CHECK_EQ(add_path(q, 1, name[0], KEVENT_INODE_SELF_REMOVED |
			  KEVENT_INODE_ATTRIB, 0, 1), 0);
	SYS(link(name[0], name[1]));
	SYS(link(name[0], name[2]));
	SYS(unlink(name[0]));
	SYS(unlink(name[2]));
	n = wait_events(q, ev, 16, 0, 0);
	CHECK(n >= 1);
	for (i = 0; i < n; i++)
		CHECK_EQ(ev[i].events, KEVENT_INODE_ATTRIB);
	SYS(unlink(name[1]));
	n = wait_events(q, ev, 16, 2, FOREVER);
	CHECK(n >= 2);
	CHECK(ev[n - 2].events & KEVENT_INODE_SELF_REMOVED);
	check_end(&ev[n - 1], 1);
	CHECK_EQ(queue_info(q).kevents, 0);
}

#define MAX_LINKS	(1U << 20)

struct links {
	int q;
	const char *dir;
	_Atomic bool stop;
	_Atomic bool unlinked;	/* all of them: no more events will come */
	_Atomic unsigned int stream;
	_Atomic unsigned int ends;
	_Atomic unsigned int added;
	_Atomic unsigned int removed;
	_Atomic unsigned int cookies;
	bool ended[MAX_LINKS];		/* by cookie */
};

#define NAMES	3

static void link_name(char *path, size_t size, const struct links *l,
		      unsigned int i)
{
	snprintf(path, size, "%s/link%u", l->dir, i);
}

static void *link_and_unlink(void *arg)
{
	struct links *l = arg;
	struct rnd rnd = rnd_stream(l->stream++);
	unsigned int i, total = rounds(1500);
	char from[160], to[160];
	int fd;

	for (i = 0; i < total; i++) {
		link_name(from, sizeof(from), l, rnd_below(&rnd, NAMES));
		link_name(to, sizeof(to), l, rnd_below(&rnd, NAMES));
		switch (rnd_below(&rnd, 4)) {
		case 0:
			fd = open(from, O_CREAT | O_WRONLY, 0644);
			if (fd >= 0)
				close(fd);
			break;
		case 1:
			(void)!link(from, to);
			break;
		case 2:
			rename(from, to);
			break;
		default:
			unlink(from);
			break;
		}
	}
	return NULL;
}

static void *watch_links(void *arg)
{
	struct links *l = arg;
	struct rnd rnd = rnd_stream(l->stream++);
	char path[160];
	uint64_t ident = 1000 * l->stream;

	while (!l->stop) {
		unsigned int cookie = l->cookies++;
		int ret;

		CHECK(cookie < MAX_LINKS);
		ident += rnd_below(&rnd, 2);
		link_name(path, sizeof(path), l, rnd_below(&rnd, NAMES));
		ret = add_path(l->q, ident, path, KEVENT_INODE_SELF_REMOVED |
			       KEVENT_INODE_ATTRIB, 0, cookie);
		/* ENOSPC: so many kevents of one user on one inode */
		CHECK(!ret || ret == -ENOENT || ret == -EEXIST ||
		      ret == -ENOSPC);
		if (!ret)
			l->added++;
		if (ret && rnd_below(&rnd, 2)) {
			ret = remove_kevent(l->q, KEVENT_PATH, ident, 0);
			CHECK(!ret || ret == -ENOENT);
			if (!ret)
				l->removed++;
		}
		if (l->added - l->removed - l->ends > 500)
			sched_yield();
	}
	return NULL;
}

static void *drain_links(void *arg)
{
	struct links *l = arg;
	struct kevent_event ev[64];

	for (;;) {
		bool unlinked = l->unlinked;
		int i, n = wait_events(l->q, ev, 64, 1, 500000);

		CHECK(n >= 0);
		for (i = 0; i < n; i++) {
			if (!(ev[i].flags & KEVENT_EVENT_LAST))
				continue;
			check_end(&ev[i], ev[i].cookie);
			CHECK(ev[i].cookie < l->cookies);
			CHECK(!l->ended[ev[i].cookie]);
			l->ended[ev[i].cookie] = true;
			l->ends++;
		}
		if (!n && unlinked)
			return NULL;
	}
}

/*
 * Every watch that was added is removed, or ends with its inode, once; or both,
 * where the WAIT that tells of the end was under way when REMOVE came.
 */
static void unlinks_of_hard_links_race_with_watches(void)
{
	static struct links l;
	pthread_t links[2], watches[2], drainer;
	unsigned int i;
	char path[160];

	l.q = queue_open();
	l.dir = temp_dir();
	need_feature(l.q, KEVENT_FEATURE_INODE);
	for (i = 0; i < 2; i++)
		links[i] = thread_start(link_and_unlink, &l);
	for (i = 0; i < 2; i++)
		watches[i] = thread_start(watch_links, &l);
	drainer = thread_start(drain_links, &l);
	for (i = 0; i < 2; i++)
		thread_join(links[i]);
	l.stop = true;
	for (i = 0; i < 2; i++)
		thread_join(watches[i]);
	for (i = 0; i < NAMES; i++) {
		link_name(path, sizeof(path), &l, i);
		unlink(path);
	}
	l.unlinked = true;
	thread_join(drainer);
	dprintf(STDERR_FILENO, "%u added, %u removed, %u ended\n", l.added,
		l.removed, l.ends);
	CHECK_EQ(queue_info(l.q).kevents, 0);
	CHECK(l.added <= l.removed + l.ends);
}

static void more_events_than_fit_end_in_one_overflow(void)
{
	int q = queue_open(), dir, i;
	struct kevent_request req;
	struct kevent_event ev[64];
	unsigned int limit = 8, named = 0, overflows = 0;
	char name[16];

	need_feature(q, KEVENT_FEATURE_INODE);
	dir = (int)SYS(open(temp_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	req = request(KEVENT_INODE, dir, KEVENT_INODE_CREATE, 0, 0);
	req.param[0] = queue_info(q).max_name_queue + 1ULL;
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), -EINVAL);
	req.param[0] = limit;
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), 0);
	for (i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "entry%d", i);
		SYS(mkdirat(dir, name, 0755));
	}
	for (;;) {
		int n = wait_events(q, ev, 64, 0, 0);

		if (!n)
			break;
		CHECK(n > 0);
		for (i = 0; n > 0; n--) {
			CHECK_EQ(overflows, 0);
			if (ev[i].flags & KEVENT_EVENT_OVERFLOW) {
				CHECK_EQ(ev[i].events, 0);
				overflows++;
				i++;
				continue;
			}
			snprintf(name, sizeof(name), "entry%u", named++);
			CHECK(!memcmp(&ev[i + 1], name, strlen(name)));
			i += 2;
		}
	}
	CHECK_EQ(overflows, 1);
	CHECK_EQ(named, limit);
}

/* What is queued behind it can never be delivered, so it must not count. */
static void the_occurrences_of_a_one_shot_are_one_event_to_come(void)
{
	static const uint32_t modes[] = { KEVENT_ONESHOT, KEVENT_DISPATCH };
	int q = queue_open(), dir, i;
	struct kevent_event ev[16];
	char name[16];
	size_t m;

	need_feature(q, KEVENT_FEATURE_INODE);
	dir = (int)SYS(open(temp_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (m = 0; m < ARRAY_SIZE(modes); m++) {
		CHECK_EQ(add(q, KEVENT_INODE, dir, KEVENT_INODE_CREATE,
			     modes[m], m), 0);
		for (i = 0; i < 5; i++) {
			snprintf(name, sizeof(name), "%zu-%d", m, i);
			SYS(mkdirat(dir, name, 0755));
		}
		CHECK_EQ(wait_events(q, ev, 16, 2, 20 * NSEC_PER_MSEC), 1);
		CHECK_EQ(ev[0].cookie, m);
		CHECK(!memcmp(&ev[1], name, 1));
		check_silent(q);
	}
}

static const struct test_case cases[] = {
	TEST(a_path_does_not_keep_its_file_system_mounted),
	TEST(unmounts_race_with_watches),
	TEST(a_detached_file_system_ends_with_its_last_descriptor),
	TEST(only_the_last_of_several_names_removes_an_inode),
	TEST(unlinks_of_hard_links_race_with_watches),
	TEST(more_events_than_fit_end_in_one_overflow),
	TEST(the_occurrences_of_a_one_shot_are_one_event_to_come),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
