// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory is charged to the memory cgroup of who asks for it: past the limit of
 * a container its calls get ENOMEM, and nothing else happens to anybody.
 *
 *	parent, outside			child, in the cgroup
 *	---------------			--------------------
 *	disturbs nobody	<- FULL ---	adds until it is refused, and goes on
 *	looks on	-- CALM -->	removes a few, adds a few, closes
 *	memory is back	<- CLOSED -
 *			-- END --->	ends
 *
 * What the child needs besides is made, and locked into memory, before it joins
 * the cgroup: a page of its own that it could not have would be its death.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT		(4UL << 20)	/* of the cgroup, bytes */
/* Each processor keeps some of what is charged at hand. */
#define AT_HAND		(1UL << 20)
#define NOT_ENOUGH	200U		/* refusals in a row */
#define MANY		50000U		/* more than the limit has room for */
#define ON_ONE_INODE	64U		/* below max_inode_watches */
#define SOCKETS		20000U
#define INODES		400U
#define FILES		200U
#define STACK		(256UL << 10)
#define PAIRS		16

enum stage { BEGIN, FULL, CALM, CLOSED, END };

/* Shared by parent and child. */
struct scene {
	uint16_t type;
	_Atomic enum stage stage;
	_Atomic unsigned long added, refused;
	char dir[128];			/* of the cgroup */
	int fd[SOCKETS];
};

static char root[96], controllers[96];

/* Files of the cgroup */

static void path_in(char *path, const char *dir, const char *name)
{
	snprintf(path, 256, "%.120s/%.60s", dir, name);
}

static bool write_file(const char *dir, const char *name, const char *text)
{
	char path[256];
	ssize_t n;
	int fd;

	path_in(path, dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = write(fd, text, strlen(text));
	close(fd);
	return n == (ssize_t)strlen(text);
}

static void read_file(const char *dir, const char *name, char *text,
		      size_t size)
{
	char path[256];
	ssize_t n;
	int fd;

	path_in(path, dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		FAIL("%s: %s", path, strerror(errno));
	n = SYS(read(fd, text, size - 1));
	text[n] = '\0';
	close(fd);
}

/* The number behind a word at the beginning of a line. */
static unsigned long field(const char *dir, const char *name, const char *key)
{
	char text[8192], *line, *save;
	size_t len = strlen(key);

	read_file(dir, name, text, sizeof(text));
	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		if (!strncmp(line, key, len) && line[len] == ' ')
			return strtoul(line + len, NULL, 10);
	FAIL("%s/%s has no %s", dir, name, key);
}

static unsigned long slab(const char *dir)
{
	return field(dir, "memory.stat", "slab");
}

/* In a mount namespace of our own, so that it goes with us. */
static void mount_cgroups(void)
{
	snprintf(root, sizeof(root), "%.80s/cgroup", temp_dir());
	SYS(unshare(CLONE_NEWNS));
	SYS(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	SYS(mkdir(root, 0755));
	if (mount("none", root, "cgroup2", 0, NULL))
		test_skip("no cgroup2: %s", strerror(errno));
	read_file(root, "cgroup.controllers", controllers, sizeof(controllers));
	if (!strstr(controllers, "memory"))
		test_skip("cgroup2 has no memory controller");
	read_file(root, "cgroup.subtree_control", controllers,
		  sizeof(controllers));
	CHECK(write_file(root, "cgroup.subtree_control", "+memory"));
}

static void make_cgroup(struct scene *s)
{
	char path[256], bytes[32];

	snprintf(s->dir, sizeof(s->dir), "%s/kevent-%d", root, getpid());
	SYS(mkdir(s->dir, 0755));
	snprintf(bytes, sizeof(bytes), "%lu", LIMIT);
	CHECK(write_file(s->dir, "memory.max", bytes));
	path_in(path, s->dir, "memory.swap.max");
	CHECK(access(path, F_OK) ||
	      write_file(s->dir, "memory.swap.max", "0"));
}

static void remove_cgroup(const struct scene *s)
{
	uint64_t end = now_ns() + PATIENCE;

	while (rmdir(s->dir)) {
		if (errno != EBUSY || now_ns() > end)
			FAIL("%s: %s", s->dir, strerror(errno));
		sched_yield();
	}
	if (!strstr(controllers, "memory"))
		write_file(root, "cgroup.subtree_control", "-memory");
}

/* What the kernel has to say from now on. */
static int log_open(void)
{
	int fd = (int)SYS(open("/dev/kmsg",
			       O_RDONLY | O_NONBLOCK | O_CLOEXEC));

	SYS(lseek(fd, 0, SEEK_END));
	return fd;
}

static void check_log(int fd)
{
	char record[2048];
	ssize_t n;

	while ((n = read(fd, record, sizeof(record) - 1)) > 0) {
		record[n] = '\0';
		if (strstr(record, "oom") || strstr(record, "ut of memory") ||
		    strstr(record, "page allocation failure"))
			FAIL("the kernel says: %s", record);
	}
	CHECK_EQ(errno, EAGAIN);
}

/* The two sides */

static void reach(struct scene *s, enum stage stage)
{
	s->stage = stage;
}

static void wait_for(const struct scene *s, enum stage stage, pid_t other)
{
	unsigned long done = s->added + s->refused;
	uint64_t end = now_ns() + 2 * PATIENCE;
	int status;

	while (s->stage < stage) {
		/* a debug kernel takes its time, but gets on */
		if (s->added + s->refused != done) {
			done = s->added + s->refused;
			end = now_ns() + 2 * PATIENCE;
		}
		if (now_ns() > end)
			FAIL("stage %d was never reached, %lu added, %lu refused",
			     stage, s->added, s->refused);
		if (other && waitpid(other, &status, WNOHANG) == other)
			FAIL("the child ended, status %#x, after %lu kevents",
			     status, s->added);
		sched_yield();
	}
}

static void touch_stack(void)
{
	volatile char page[STACK];
	size_t i;

	for (i = 0; i < sizeof(page); i += PAGE)
		page[i] = 1;
}

static void join_cgroup(const struct scene *s)
{
	char pid[16];

	touch_stack();
	SYS(mlockall(MCL_CURRENT | MCL_FUTURE));
	snprintf(pid, sizeof(pid), "%d", getpid());
	CHECK(write_file(s->dir, "cgroup.procs", pid));
}

static void inode_name(char *path, unsigned int i)
{
	snprintf(path, 128, "%.80s/inode%u", temp_dir(), i);
}

/* What the kevents of a child are to watch, made outside. */
static void make_sources(struct scene *s)
{
	unsigned int i;
	char path[128];

	raise_nofile(SOCKETS + 64);
	for (i = 0; s->type == KEVENT_SOCKET && i < SOCKETS; i++)
		s->fd[i] = (int)SYS(socket(AF_UNIX, SOCK_DGRAM, 0));
	for (i = 0; s->type == KEVENT_PATH && i < INODES; i++) {
		inode_name(path, i);
		close((int)SYS(open(path, O_CREAT | O_WRONLY, 0644)));
	}
}

static int add_one(const struct scene *s, int q, unsigned int i)
{
	char path[128];

	switch (s->type) {
	case KEVENT_USER:
		return add_user(q, i, 0, 0);
	case KEVENT_TIMER:
		return add_timer(q, i, 3600 * NSEC_PER_SEC, 0, 0, 0);
	case KEVENT_SOCKET:
		return add(q, KEVENT_SOCKET, (uint64_t)s->fd[i],
			   KEVENT_SOCKET_RECV, 0, 0);
	default:
		inode_name(path, i / ON_ONE_INODE);
		return add_path(q, i, path, KEVENT_INODE_MODIFY, 0, 0);
	}
}

static int remove_one(const struct scene *s, int q, unsigned int i)
{
	return remove_kevent(q, s->type, s->type == KEVENT_SOCKET ?
			     (uint64_t)s->fd[i] : i, 0);
}

static unsigned int room_for(const struct scene *s)
{
	return s->type == KEVENT_SOCKET ? SOCKETS :
	       s->type == KEVENT_PATH ? INODES * ON_ONE_INODE : MANY;
}

/* Adds until it is refused so many times in a row: how many there are. */
static unsigned int fill(struct scene *s, int q)
{
	unsigned int i = 0, refusals = 0;

	while (refusals < NOT_ENOUGH) {
		int ret;

		if (i == room_for(s))
			FAIL("%u kevents did not fill the cgroup", i);
		ret = add_one(s, q, i);
		if (ret) {
			CHECK_EQ(ret, -ENOMEM);
			refusals++;
			s->refused++;
		} else {
			refusals = 0;
			s->added = ++i;
		}
	}
	return i;
}

static void be_contained(void *arg)
{
	struct scene *s = arg;
	unsigned int nr, i;
	int q;

	make_sources(s);
	q = queue_open();
	join_cgroup(s);
	nr = fill(s, q);
	CHECK_EQ(queue_info(q).kevents, nr);
	reach(s, FULL);
	while (s->stage < CALM) {
		CHECK_EQ(add_one(s, q, nr), -ENOMEM);
		s->refused++;
	}
	/* What one gives back another may have. */
	for (i = 0; i < NOT_ENOUGH; i++)
		CHECK_EQ(remove_one(s, q, i), 0);
	for (i = 0; i < NOT_ENOUGH / 2; i++)
		CHECK_EQ(add_one(s, q, i), 0);
	CHECK_EQ(queue_info(q).kevents, nr - NOT_ENOUGH / 2);
	close(q);
	reach(s, CLOSED);
	wait_for(s, END, 0);
}

/* The life of a process outside, which may want memory at any time. */
static void live_outside(const struct scene *s, pid_t child)
{
	unsigned int i;

	for (i = 0; i < 50; i++) {
		unsigned long before = s->refused;
		int q = queue_open(), fd[2];
		char *mem = two_pages();

		memset(mem, 1, 2 * PAGE);
		SYS(munmap(mem, 2 * PAGE));
		unix_pair(fd);
		CHECK_EQ(add_user(q, 1, 0, 0), 0);
		CHECK_EQ(add_timer(q, 1, 3600 * NSEC_PER_SEC, 0, 0, 0), 0);
		CHECK_EQ(add_path(q, 1, temp_dir(), 0x1ff, 0, 0), 0);
		CHECK_EQ(add(q, KEVENT_POLL, (uint64_t)fd[0], POLLIN, 0, 0), 0);
		close(fd[0]);
		close(fd[1]);
		close(q);
		/* All the while the other one is refused. */
		while (s->refused == before) {
			CHECK_EQ(waitpid(child, NULL, WNOHANG), 0);
			sched_yield();
		}
	}
}

static void check_events(const struct scene *s)
{
	CHECK_EQ(field(s->dir, "memory.events", "oom"), 0);
	CHECK_EQ(field(s->dir, "memory.events", "oom_kill"), 0);
	CHECK(field(s->dir, "memory.events", "max") > 0);
}

/* The figures are summed up every few seconds, unless they change a lot. */
static void wait_until_back(const struct scene *s)
{
	uint64_t end = now_ns() + PATIENCE;
	unsigned long current, left;
	char text[32];

	for (;;) {
		read_file(s->dir, "memory.current", text, sizeof(text));
		current = strtoul(text, NULL, 10);
		left = slab(s->dir);
		if (current < AT_HAND && left < AT_HAND / 8)
			return;
		if (now_ns() > end)
			FAIL("%lu bytes are still charged, %lu of slab",
			     current, left);
		sched_yield();
	}
}

static void wait_until_charged(const struct scene *s)
{
	uint64_t end = now_ns() + PATIENCE;

	while (slab(s->dir) < LIMIT - AT_HAND) {
		if (now_ns() > end)
			FAIL("only %lu bytes of slab are charged",
			     slab(s->dir));
		sched_yield();
	}
}

static struct scene *scene_new(uint16_t type, uint32_t feature)
{
	struct scene *s = shared_memory(sizeof(*s));
	int q = queue_open();

	need_root();
	need_feature(q, feature);
	close(q);
	s->type = type;
	temp_dir();
	mount_cgroups();
	make_cgroup(s);
	return s;
}

/* The child closes what it has, and all of it is given back. */
static void finish(struct scene *s, pid_t child, int log)
{
	reach(s, CALM);
	wait_for(s, CLOSED, child);
	wait_until_back(s);
	check_events(s);
	reach(s, END);
	child_join(child);
	check_log(log);
	remove_cgroup(s);
}

static void contain(uint16_t type, uint32_t feature)
{
	struct scene *s = scene_new(type, feature);
	int log = log_open();
	pid_t child = child_start(be_contained, s);

	wait_for(s, FULL, child);
	wait_until_charged(s);
	dprintf(STDERR_FILENO, "%lu kevents in %lu bytes, %lu of slab\n",
		s->added, LIMIT, slab(s->dir));
	live_outside(s, child);
	finish(s, child, log);
}

static void user_events_past_the_memory_limit_of_a_cgroup_are_enomem(void)
{
	contain(KEVENT_USER, KEVENT_FEATURE_USER);
}

static void timers_past_the_memory_limit_of_a_cgroup_are_enomem(void)
{
	contain(KEVENT_TIMER, KEVENT_FEATURE_TIMER);
}

static void sockets_past_the_memory_limit_of_a_cgroup_are_enomem(void)
{
	contain(KEVENT_SOCKET, KEVENT_FEATURE_SOCKET);
}

static void paths_past_the_memory_limit_of_a_cgroup_are_enomem(void)
{
	contain(KEVENT_PATH, KEVENT_FEATURE_INODE);
}

/* Occurrences, which are charged to who watches, not to who makes them */

static void watch_in_vain(void *arg)
{
	struct kevent_event ev[KEVENT_MAX_RECORDS];
	struct scene *s = arg;
	int q = queue_open(), filler = queue_open(), n, i;
	unsigned long seen = 0, lost = 0;

	memset(ev, 0, sizeof(ev));
	join_cgroup(s);
	CHECK_EQ(add_path(q, 1, temp_dir(), KEVENT_INODE_CREATE |
			  KEVENT_INODE_REMOVE, 0, 0), 0);
	fill(s, filler);
	reach(s, FULL);
	wait_for(s, CALM, 0);
	close(filler);
	while ((n = wait_events(q, ev, ARRAY_SIZE(ev), 0, 0))) {
		const struct kevent_event *e = ev;

		CHECK(n > 0);
		for (i = 0; i < n; i++) {
			seen += e->count;
			if (e->flags & KEVENT_EVENT_OVERFLOW)
				lost += e->count;
			e += 1 + KEVENT_NAME_RECORDS(e->data);
		}
	}
	dprintf(STDERR_FILENO, "%lu events, %lu of them lost\n", seen, lost);
	CHECK_EQ(seen, 2 * FILES);
	CHECK(lost > 0);
	close(q);
	reach(s, CLOSED);
	wait_for(s, END, 0);
}

static void inode_events_that_find_no_memory_overflow_and_hurt_nobody(void)
{
	struct scene *s = scene_new(KEVENT_USER, KEVENT_FEATURE_INODE);
	int log = log_open();
	pid_t child = child_start(watch_in_vain, s);
	uint64_t begin, ns;
	char path[128];
	unsigned int i;

	wait_for(s, FULL, child);
	begin = now_ns();
	for (i = 0; i < FILES; i++) {
		inode_name(path, i);
		close((int)SYS(open(path, O_CREAT | O_WRONLY, 0644)));
		SYS(unlink(path));
	}
	ns = now_ns() - begin;
	dprintf(STDERR_FILENO, "%llu us for a file made and removed\n",
		(unsigned long long)ns / FILES / 1000);
	finish(s, child, log);
}

/* Kevents of sockets that were closed take no memory away for good */

static void close_what_is_watched(void *arg)
{
	struct scene *s = arg;
	unsigned int i;
	int q;

	make_sources(s);
	q = queue_open();
	join_cgroup(s);
	/* more than there is room for */
	for (i = 0; i < SOCKETS / 2; i++) {
		CHECK_EQ(add_one(s, q, i), 0);
		close(s->fd[i]);
		s->added++;
	}
	/* some went by themselves, and the rest are nothing to report */
	CHECK(queue_info(q).kevents < SOCKETS / 2);
	check_silent(q);
	reach(s, FULL);
	wait_for(s, CALM, 0);
	close(q);
	reach(s, CLOSED);
	wait_for(s, END, 0);
}

static void kevents_of_closed_sockets_make_room_where_memory_is_short(void)
{
	struct scene *s = scene_new(KEVENT_SOCKET, KEVENT_FEATURE_SOCKET);
	int log = log_open();
	char bytes[32];
	pid_t child;

	snprintf(bytes, sizeof(bytes), "%lu", LIMIT / 2);
	CHECK(write_file(s->dir, "memory.max", bytes));
	child = child_start(close_what_is_watched, s);
	wait_for(s, FULL, child);
	finish(s, child, log);
}

/* What a UNIX socket holds is charged to who sends it, whoever moves it */

static void send_all(int fd)
{
	static char some[PAGE];

	while (send(fd, some, sizeof(some), MSG_DONTWAIT) > 0)
		;
	CHECK_EQ(errno, EAGAIN);
}

static unsigned long unread(int fd)
{
	int bytes;

	SYS(ioctl(fd, FIONREAD, &bytes));
	return (unsigned long)bytes;
}

/* What there was is thrown away, and as much comes, though nobody waits for it. */
static unsigned long be_sent_again(int fd)
{
	uint64_t end = now_ns() + PATIENCE;
	unsigned long full = unread(fd);
	static char much[1 << 20];
	unsigned long left = full;

	while (left)
		left -= (unsigned long)SYS(recv(fd, much, left < sizeof(much) ?
						left : sizeof(much), 0));
	while (unread(fd) < full / 2) {
		if (now_ns() > end)
			FAIL("%lu bytes of %lu came", unread(fd), full);
		sched_yield();
	}
	return unread(fd);
}

static void send_from_inside(void *arg)
{
	static char much[1 << 21];
	struct scene *s = arg;
	int q, fd[PAIRS][2], i;

	for (i = 0; i < PAIRS; i++)
		unix_pair(fd[i]);
	q = queue_open();
	join_cgroup(s);
	for (i = 0; i < PAIRS; i++) {
		send_all(fd[i][0]);
		CHECK_EQ(change(q, KEVENT_IOC_NR_ADD,
				naio_request((uint64_t)i, KEVENT_NAIO_SEND, 0,
					     much, sizeof(much), fd[i][0])), 0);
		s->added += be_sent_again(fd[i][1]);
	}
	reach(s, FULL);
	wait_for(s, CALM, 0);
	close(q);
	for (i = 0; i < PAIRS; i++) {
		close(fd[i][0]);
		close(fd[i][1]);
	}
	reach(s, CLOSED);
	wait_for(s, END, 0);
}

static void what_is_sent_for_somebody_is_charged_to_their_cgroup(void)
{
	struct scene *s = scene_new(KEVENT_USER, KEVENT_FEATURE_NAIO);
	uint64_t end = now_ns() + PATIENCE;
	unsigned long current;
	char text[32];
	pid_t child;

	CHECK(write_file(s->dir, "memory.max", "max"));
	child = child_start(send_from_inside, s);
	wait_for(s, FULL, child);
	for (;;) {
		read_file(s->dir, "memory.current", text, sizeof(text));
		current = strtoul(text, NULL, 10);
		if (current > s->added / 2)
			break;
		if (now_ns() > end)
			FAIL("%lu bytes are charged, %lu were sent", current,
			     s->added);
		sched_yield();
	}
	reach(s, CALM);
	wait_for(s, CLOSED, child);
	wait_until_back(s);
	reach(s, END);
	child_join(child);
	remove_cgroup(s);
}

static const struct test_case cases[] = {
	LONG_TEST(user_events_past_the_memory_limit_of_a_cgroup_are_enomem,
		  120),
	LONG_TEST(timers_past_the_memory_limit_of_a_cgroup_are_enomem, 120),
	LONG_TEST(sockets_past_the_memory_limit_of_a_cgroup_are_enomem, 120),
	LONG_TEST(paths_past_the_memory_limit_of_a_cgroup_are_enomem, 120),
	LONG_TEST(kevents_of_closed_sockets_make_room_where_memory_is_short,
		  120),
	LONG_TEST(inode_events_that_find_no_memory_overflow_and_hurt_nobody,
		  120),
	TEST(what_is_sent_for_somebody_is_charged_to_their_cgroup),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
