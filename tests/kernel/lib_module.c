// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loading and unloading the module, for the C tests that do.
 */
#include "lib.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char parameters[512];

/* As the kernel wants them: name=value, a blank between two. */
static void save_parameters(void)
{
	DIR *dir = opendir("/sys/module/kevent/parameters");
	struct dirent *entry;
	size_t len = 0;

	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		len += (size_t)snprintf(parameters + len,
					sizeof(parameters) - len, "%.60s=%llu ",
					entry->d_name, (unsigned long long)
					parameter_get(entry->d_name));
		CHECK(len < sizeof(parameters));
	}
	closedir(dir);
}

bool module_is_loaded(void)
{
	return !access("/sys/module/kevent/initstate", F_OK);
}

int module_load_fd(int fd, const char *with)
{
	return syscall(SYS_finit_module, fd, with, 0) ? -errno : 0;
}

int module_load_file(const char *path, const char *with)
{
	int fd = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
	int ret = module_load_fd(fd, with);

	close(fd);
	return ret;
}

int module_load(void)
{
	return module_load_file(getenv("KEVENT_MODULE"), parameters);
}

int module_unload(void)
{
	return syscall(SYS_delete_module, "kevent", O_NONBLOCK) ? -errno : 0;
}

void with_module_back(void (*fn)(void *), void *arg)
{
	int status;
	pid_t pid;

	need_root();
	if (!getenv("KEVENT_MODULE"))
		test_skip("KEVENT_MODULE does not name the module's file");
	if (!module_is_loaded())
		test_skip("the module is not loaded");
	save_parameters();
	pid = child_start(fn, arg);
	SYS(waitpid(pid, &status, 0));
	if (!module_is_loaded())
		CHECK_EQ(module_load(), 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		FAIL("ended with status %#x", status);
	close(queue_open());
}

int open_device_soon(void)
{
	uint64_t end = now_ns() + PATIENCE;
	int q;

	while ((q = open(device_path(), O_RDWR | O_CLOEXEC)) < 0) {
		if (now_ns() > end)
			FAIL("%s: %s", device_path(), strerror(errno));
		sched_yield();
	}
	return q;
}

void module_unload_soon(void)
{
	uint64_t end = now_ns() + PATIENCE;
	int ret;

	while ((ret = module_unload()) == -EWOULDBLOCK && now_ns() < end)
		sched_yield();
	CHECK_EQ(ret, 0);
}

/* Its slab caches, but for names that a cache shared with others leaves. */
static void check_caches_gone(void)
{
	DIR *dir = opendir("/sys/kernel/slab");
	struct dirent *entry;
	struct stat st;

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (!strncmp(entry->d_name, "kevent", 6) &&
		    !fstatat(dirfd(dir), entry->d_name, &st,
			     AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode))
			FAIL("the cache %s is there", entry->d_name);
	closedir(dir);
}

void check_module_gone(void)
{
	char text[4096];
	ssize_t n;
	int fd;

	CHECK(!module_is_loaded());
	CHECK_EQ(open(device_path(), O_RDWR), -1);
	CHECK(errno == ENOENT || errno == ENXIO || errno == ENODEV);
	fd = (int)SYS(open("/proc/misc", O_RDONLY));
	n = SYS(read(fd, text, sizeof(text) - 1));
	text[n] = '\0';
	CHECK(!strstr(text, "kevent"));
	close(fd);
	CHECK(access("/sys/class/misc/kevent", F_OK));
	check_caches_gone();
}
