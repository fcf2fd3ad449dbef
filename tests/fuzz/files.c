// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The files that programs use: a tmpfs, which is made as it was before every
 * program that has to do with files.  Mounting one for each would be simpler, and
 * take longer than most programs do.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const paths[] = {
	"a", "b", "d", "d/a", "d/b", "mnt", "mnt/a", "link", ".", "missing/x",
	"", "fifo", "loop", "hidden", "hidden/x", "d/../a", "node",
	/* longer than one record of an event */
	"a-name-of-fifty-characters-that-takes-two-records-", "/dev/kevent",
	"/proc/self/fd/70",
};

/* something may be mounted where it should not, or not where it should */
static bool mounted = true;

const char *pool_path(uint64_t arg)
{
	return paths[arg % ARRAY_SIZE(paths)];
}

unsigned int pool_nr_paths(void)
{
	return ARRAY_SIZE(paths);
}

void files_begin(const char *dir)
{
	if (mkdir(dir, 0777) && errno != EEXIST)
		FAIL("%s: %s", dir, strerror(errno));
	SYS(mount("fuzz", dir, "tmpfs", 0, "mode=777"));
	SYS(chdir(dir));
}

void files_mounted(void)
{
	mounted = true;
}

/* Removes what is in the directory @fd, which is closed, but for mounts. */
static void empty(int fd)
{
	DIR *dir = fdopendir(fd);
	struct dirent *entry;

	CHECK(dir);
	while ((entry = readdir(dir))) {
		const char *name = entry->d_name;
		int sub;

		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		if (entry->d_type == DT_DIR) {
			sub = openat(dirfd(dir), name,
				     O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			if (sub >= 0)
				empty(sub);
		}
		unlinkat(dirfd(dir), name,
			 entry->d_type == DT_DIR ? AT_REMOVEDIR : 0);
	}
	closedir(dir);
}

static void unmount_all(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(paths); i++)
		if (paths[i][0] && paths[i][0] != '/' && paths[i][0] != '.')
			while (!umount2(paths[i], MNT_DETACH | UMOUNT_NOFOLLOW))
				continue;
}

void files_prepare(void)
{
	if (mounted)
		unmount_all();
	empty((int)SYS(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
	SYS(mkdir("d", 0777));
	SYS(mkdir("hidden", 0700));
	if (mounted) {
		SYS(mkdir("mnt", 0777));
		SYS(mount("fuzz", "mnt", "tmpfs", 0, "mode=777"));
		mounted = false;
	}
	SYS(close((int)SYS(creat("a", 0644))));
	SYS(truncate("a", 5 * PAGE - 100));
	SYS(close((int)SYS(creat("d/a", 0644))));
	SYS(symlink("a", "link"));
	SYS(symlink("loop", "loop"));
	SYS(mkfifo("fifo", 0666));
	SYS(mknod("node", S_IFCHR | 0666, 0x103));	/* as /dev/null */
}
