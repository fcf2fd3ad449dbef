// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Calls on descriptors and files.  None of them has to succeed.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

void run_open(struct worker *w, const struct call *c)
{
	(void)w;
	pool_open((unsigned int)(c->arg[0] % pool_nr_kinds()), pool_fd(c->arg[1]),
		  pool_fd(c->arg[2]));
}

void run_close(struct worker *w, const struct call *c)
{
	(void)w;
	close(pool_fd(c->arg[0]));
}

void run_dup(struct worker *w, const struct call *c)
{
	(void)w;
	dup2(pool_fd(c->arg[0]), pool_fd(c->arg[1]));
}

/* A multiple of eight makes a counter of events count, too. */
void run_write(struct worker *w, const struct call *c)
{
	size_t size = c->arg[1] % (3 * PAGE);

	memset(w->stage, 0, 3 * PAGE);
	w->stage[0] = 1;
	if (write(pool_fd(c->arg[0]), w->stage, size) < 0)
		return;
}

void run_open_path(struct worker *w, const struct call *c)
{
	int flags = (int)c->arg[2] & (O_ACCMODE | O_PATH | O_DIRECTORY |
				      O_NOFOLLOW | O_TRUNC | O_APPEND);
	const char *path = pool_path(c->arg[0]);

	(void)w;
	/* the device and what /proc shows: named, not opened */
	if (path[0] == '/')
		flags |= O_PATH;
	move_fd(open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC),
		pool_fd(c->arg[1]));
}

/* What is outside of the program's own files is left as it is. */
static const char *own_path(uint64_t arg)
{
	const char *path = pool_path(arg);

	return path[0] == '/' ? "b" : path;
}

void run_create(struct worker *w, const struct call *c)
{
	int fd = open(own_path(c->arg[0]),
		      O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0644);

	(void)w;
	close(fd);
}

void run_unlink(struct worker *w, const struct call *c)
{
	(void)w;
	unlink(own_path(c->arg[0]));
}

void run_rename(struct worker *w, const struct call *c)
{
	(void)w;
	rename(own_path(c->arg[0]), own_path(c->arg[1]));
}

void run_link(struct worker *w, const struct call *c)
{
	(void)w;
	if (link(own_path(c->arg[0]), own_path(c->arg[1])))
		return;
}

void run_mkdir(struct worker *w, const struct call *c)
{
	(void)w;
	mkdir(own_path(c->arg[0]), 0777);
}

void run_rmdir(struct worker *w, const struct call *c)
{
	(void)w;
	rmdir(own_path(c->arg[0]));
}

void run_chmod(struct worker *w, const struct call *c)
{
	(void)w;
	chmod(own_path(c->arg[0]), (mode_t)(c->arg[1] & 0777));
}

void run_truncate(struct worker *w, const struct call *c)
{
	(void)w;
	if (truncate(own_path(c->arg[0]), (off_t)(c->arg[1] % PAGE)))
		return;
}

/* Where it can be found again: not below what may be renamed, nor at the root. */
static const char *mount_path(uint64_t arg)
{
	const char *path = pool_path(arg);

	return strchr(path, '/') || path[0] == '.' ? "mnt" : path;
}

void run_mount(struct worker *w, const struct call *c)
{
	(void)w;
	files_mounted();
	mount("fuzz", mount_path(c->arg[0]), "tmpfs", 0, "mode=777");
}

void run_umount(struct worker *w, const struct call *c)
{
	(void)w;
	files_mounted();
	umount2(mount_path(c->arg[0]), c->arg[0] & 32 ? MNT_DETACH : 0);
}

void run_inotify(struct worker *w, const struct call *c)
{
	(void)w;
	inotify_add_watch(pool_fd(c->arg[0]), pool_path(c->arg[1]),
			  IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB);
}

static struct timespec span(uint64_t ns)
{
	return (struct timespec){
		.tv_sec = (time_t)(ns / NSEC_PER_SEC % 1000),
		.tv_nsec = (long)(ns % NSEC_PER_SEC),
	};
}

void run_set_timer(struct worker *w, const struct call *c)
{
	struct itimerspec spec = {
		.it_value = span(c->arg[1]), .it_interval = span(c->arg[2]),
	};

	(void)w;
	timerfd_settime(pool_fd(c->arg[0]), 0, &spec, NULL);
}

void run_epoll(struct worker *w, const struct call *c)
{
	static const int ops[] = { EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL };
	struct epoll_event event = { .events = (uint32_t)c->arg[2] };

	(void)w;
	epoll_ctl(pool_fd(c->arg[0]), ops[c->arg[3] % ARRAY_SIZE(ops)],
		  pool_fd(c->arg[1]), &event);
}

void run_epoll_wait(struct worker *w, const struct call *c)
{
	struct epoll_event events[8];

	(void)w;
	epoll_wait(pool_fd(c->arg[0]), events, ARRAY_SIZE(events), 0);
}
