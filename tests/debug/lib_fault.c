// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Faults in the kernel, one at a time, and what is left in memory afterwards.
 */
#include "fault.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEBUGFS	"/sys/kernel/debug"
/* More points than any call has; a sweep that passes them has no end. */
#define MOST_POINTS	5000
/* A slab that is refilled adds points: so many calls have to agree on the end. */
#define UNUSED_RUN	2

static int nth_fd = -1;

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t len = (ssize_t)strlen(text);
	int error;
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, (size_t)len) == len;
	error = errno;
	close(fd);
	errno = error;
	return ok;
}

static void set_knob(const char *kind, const char *knob, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "/%s/%s", kind, knob);
	if (!write_file(path, value))
		FAIL("%s: %s", path, strerror(errno));
}

/* Only our own task is to fail, at what sleeps as well, and without a word. */
static void set_up(void)
{
	static const char * const kinds[] = {
		"failslab", "fail_page_alloc", "fail_usercopy",
	};
	char path[128];
	size_t i;

	need_root();
	if (access("/proc/thread-self/fail-nth", F_OK))
		test_skip("this kernel has no fault injection");
	if (access(DEBUGFS "/failslab", F_OK) &&
	    mount("debugfs", DEBUGFS, "debugfs", 0, NULL))
		test_skip("no debugfs: %s", strerror(errno));
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		snprintf(path, sizeof(path), DEBUGFS "/%s", kinds[i]);
		if (access(path, F_OK))
			test_skip("this kernel has no %s", kinds[i]);
		set_knob(kinds[i], "probability", "0");
		set_knob(kinds[i], "verbose", "0");
	}
	set_knob("failslab", "ignore-gfp-wait", "N");
	set_knob("failslab", "cache-filter", "N");
	set_knob("fail_page_alloc", "ignore-gfp-wait", "N");
	set_knob("fail_page_alloc", "min-order", "0");
	/* Or this program's own pages would be read in under a fault. */
	SYS(mlockall(MCL_CURRENT));
	/* The link is resolved now: the file is this thread's. */
	nth_fd = (int)SYS(open("/proc/thread-self/fail-nth",
			       O_RDWR | O_CLOEXEC));
}

static bool is_among(const char *name, const char * const *names, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

void fault_spare(const char * const *names, size_t nr)
{
	DIR *dir = opendir("/sys/kernel/slab");
	struct dirent *entry;
	char path[384];

	CHECK(dir);
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/failslab",
			 entry->d_name);
		/* one that several names share cannot be chosen: EINVAL */
		if (!write_file(path, is_among(entry->d_name, names, nr) ?
				"0" : "1") && errno != EINVAL)
			FAIL("%s: %s", path, strerror(errno));
	}
	closedir(dir);
	set_knob("failslab", "cache-filter", "Y");
}

void fault_arm(unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	CHECK_EQ(SYS(pwrite(nth_fd, text, (size_t)len, 0)), len);
}

bool fault_disarm(void)
{
	char text[16] = "";
	ssize_t n = pread(nth_fd, text, sizeof(text) - 1, 0);
	int error = errno;

	/* Both of these calls copy, and may be the one that fails. */
	while (pwrite(nth_fd, "0", 1, 0) < 0)
		CHECK_EQ(errno, EFAULT);
	if (n < 0) {
		CHECK_EQ(error, EFAULT);
		return false;
	}
	CHECK(n > 0);
	return strtoul(text, NULL, 10) == 0;
}

#define FAR_AWAY	1000000000U

void fault_count_begin(void)
{
	fault_arm(FAR_AWAY);
}

unsigned int fault_count_end(void)
{
	char text[16] = "";

	CHECK(SYS(pread(nth_fd, text, sizeof(text) - 1, 0)) > 0);
	CHECK(!fault_disarm());
	return FAR_AWAY - (unsigned int)strtoul(text, NULL, 10);
}

static void report(const char *name, unsigned int points, unsigned int injected,
		   unsigned int failed)
{
	const char *dir = getenv("KEVENT_RESULTS");
	char path[256], line[256];
	int fd, len;

	len = snprintf(line, sizeof(line),
		       "case=%s points=%u injected=%u failed=%u\n", name,
		       points, injected, failed);
	CHECK(write(STDERR_FILENO, line, (size_t)len) == len);
	if (!dir || !*dir)
		return;
	snprintf(path, sizeof(path), "%s/faults.txt", dir);
	fd = (int)SYS(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
			   0644));
	CHECK_EQ(SYS(write(fd, line, (size_t)len)), len);
	close(fd);
}

/*
 * Sweeps that may meet no point, by how their names begin.  They are there for
 * the day on which something that can fail comes to be in the way of the call.
 */
static const char * const may_have_none[] = {
	/* what put_user() copies is no point, and only entries have names */
	"read/socket-", "read/datagram-", "read/pipe/", "read/eventfd/",
	"read/pty-", "read/fifo/", "read/queue/", "read/epoll/", "read/timer/",
	"read/user/",
	/* things are freed there; only TCP has a last word to say */
	"close-queue/",
	"close-file/datagram-", "close-file/pipe/", "close-file/eventfd/",
	"close-file/pty-", "close-file/queue/", "close-file/epoll/",
	"close-file/inode",
	"transfer-close-queue/",
	"transfer-close-socket/unix-", "transfer-close-socket/udp-",
	/* nothing new is needed for another number, or to ask again */
	"look/dup/", "look/epoll_wait/",
};

static bool has_to_have_some(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(may_have_none); i++)
		if (!strncmp(name, may_have_none[i], strlen(may_have_none[i])))
			return false;
	return true;
}

void fault_sweep(const char *name,
		 enum fault_end (*round)(void *, unsigned int), void *arg)
{
	fault_sweep_steps(name, 1, 1, round, arg);
}

void fault_sweep_steps(const char *name, unsigned int first, unsigned int step,
		       enum fault_end (*round)(void *, unsigned int), void *arg)
{
	unsigned int nth, points = 0, injected = 0, failed = 0, unused = 0;

	for (nth = first; unused < UNUSED_RUN; nth += step) {
		enum fault_end end = round(arg, nth);

		if (nth - first > MOST_POINTS)
			FAIL("%s: no end of points", name);
		if (end == FAULT_UNUSED) {
			unused++;
			continue;
		}
		unused = 0;
		points = (nth - first) / step + 1;
		injected++;
		failed += end == FAULT_FAILED;
	}
	report(name, points, injected, failed);
	if (!points && has_to_have_some(name))
		FAIL("%s: met no point at which it could fail", name);
}

/* Memory */

static const char * const caches[FAULT_CACHES] = {
	"kevent_socket", "kevent_poll", "kevent_inode", "kevent_path",
	"kevent_timer", "kevent_user", "kevent_naio", "kevent_mark",
	"kevent_watch",
};

/* Objects in use.  A cache that cannot be told from others is no use here. */
static long cache_objects(const char *name)
{
	char path[128], text[64] = "";
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/slab/%s", name);
	SYS(lstat(path, &st));
	if (S_ISLNK(st.st_mode))
		FAIL("%s has been merged with others: boot with slab_nomerge",
		     path);
	/* What is free, but lies about in a queue, goes back first. */
	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", name);
	CHECK(write_file(path, "1"));
	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/objects", name);
	fd = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
	CHECK(SYS(read(fd, text, sizeof(text) - 1)) > 0);
	close(fd);
	return strtol(text, NULL, 10);
}

static unsigned int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int nr = 0;

	CHECK(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

static void need_all_features(void)
{
	uint32_t feature;
	int q = queue_open();

	for (feature = KEVENT_FEATURE_SOCKET; feature <= KEVENT_FEATURE_NAIO;
	     feature <<= 1)
		need_feature(q, feature);
	close(q);
}

static uint64_t user_kevents(void)
{
	int q = queue_open();
	uint64_t kevents = queue_info(q).user_kevents;

	close(q);
	return kevents;
}

void leaks_begin(struct fault_leaks *leaks)
{
	size_t i;

	need_all_features();
	if (nth_fd < 0)
		set_up();
	for (i = 0; i < FAULT_CACHES; i++)
		leaks->objects[i] = cache_objects(caches[i]);
	leaks->kevents = user_kevents();
	leaks->files = open_files();
}

void leaks_end(const struct fault_leaks *leaks)
{
	uint64_t end = now_ns() + PATIENCE;
	size_t i;

	CHECK_EQ(open_files(), leaks->files);
	CHECK_EQ(user_kevents(), leaks->kevents);
	for (i = 0; i < FAULT_CACHES; i++) {
		long objects;

		/* Marks are freed by others, in their own time. */
		while ((objects = cache_objects(caches[i])) >
		       leaks->objects[i]) {
			if (now_ns() > end)
				FAIL("%s: %ld objects, %ld at the beginning",
				     caches[i], objects, leaks->objects[i]);
			sched_yield();
		}
	}
}

/* A file system of our own */

static char mount_path[160];

const char *fs_mount(void)
{
	snprintf(mount_path, sizeof(mount_path), "%s/mount", temp_dir());
	if (mkdir(mount_path, 0755))
		CHECK_EQ(errno, EEXIST);
	SYS(mount("tmpfs", mount_path, "tmpfs", 0, NULL));
	return mount_path;
}

void fs_unmount(void)
{
	SYS(umount2(mount_path, 0));
	SYS(rmdir(mount_path));
}
