// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The calls around a queue that are not its ioctls: opening, INFO, poll(2) and
 * its relatives, fdinfo, fork, and closes.
 */
#include "fault.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct queue_state before;

/* Memory for the call, or for its arguments, was not to be had. */
static bool is_allowed(int error)
{
	return error == ENOMEM || error == EFAULT;
}

static enum fault_end end_of(bool used, int ret, int error)
{
	if (ret >= 0)
		return used ? FAULT_ABSORBED : FAULT_UNUSED;
	if (!used || !is_allowed(error))
		FAIL("errno %d (%s)%s", error, strerrorname_np(error),
		     used ? "" : ", without a fault");
	return FAULT_FAILED;
}

static enum fault_end open_round(void *arg, unsigned int nth)
{
	int q, again, error;
	bool used;

	(void)arg;
	fault_arm(nth);
	q = open(device_path(), O_RDWR | O_CLOEXEC);
	error = errno;
	used = fault_disarm();
	if (q >= 0) {
		CHECK_EQ(add_user(q, 1, 0, 0), 0);
		close(q);
	}
	again = queue_open();
	CHECK_EQ(queue_info(again).user_kevents, 0);
	close(again);
	return end_of(used, q, error);
}

/* A call that changes nothing: what is ready stays so, failed or not. */
struct look {
	const char *name;
	int (*call)(int q);
};

static int look_info(int q)
{
	static struct kevent_info info;

	return ioctl(q, KEVENT_IOC_INFO, &info);
}

static int look_poll(int q)
{
	struct pollfd pfd = { .fd = q, .events = POLLIN };
	int ret = poll(&pfd, 1, 0);

	if (ret >= 0)
		CHECK(ret == 1 && pfd.revents == POLLIN);
	return ret;
}

static int look_select(int q)
{
	fd_set set;
	int ret;

	FD_ZERO(&set);
	FD_SET(q, &set);
	ret = select(q + 1, &set, NULL, NULL, &(struct timeval){ 0 });
	if (ret >= 0)
		CHECK_EQ(ret, 1);
	return ret;
}

/* An epoll of its own, so that the queue is hung on something new each time. */
static int epoll_fd;

static int look_epoll(int q)
{
	struct epoll_event ev = { .events = EPOLLIN };

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, q, &ev);
}

static int look_epoll_wait(int q)
{
	struct epoll_event ev;
	int ret = epoll_wait(epoll_fd, &ev, 1, 0);

	(void)q;
	if (ret >= 0)
		CHECK_EQ(ret, 1);
	return ret;
}

static int look_fdinfo(int q)
{
	static char text[4096];
	char path[64];
	ssize_t n;
	int fd, error;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", q);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text));
	error = errno;
	close(fd);
	errno = error;
	return (int)n;
}

static int look_dup(int q)
{
	int fd = dup(q);

	if (fd >= 0)
		close(fd);
	return fd;
}

static int look_fork(int q)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(queue_info(q).kevents != 3);
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		CHECK(errno == EINTR || errno == EFAULT);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
	return 0;
}

static const struct look looks[] = {
	{ "info", look_info },
	{ "poll", look_poll },
	{ "select", look_select },
	{ "epoll_ctl", look_epoll },
	{ "epoll_wait", look_epoll_wait },
	{ "fdinfo", look_fdinfo },
	{ "dup", look_dup },
	{ "fork", look_fork },
};

struct view {
	struct scene scene;
	const struct look *look;
};

static enum fault_end look_round(void *arg, unsigned int nth)
{
	struct view *v = arg;
	struct scene *s = &v->scene;
	int ret, error;
	bool used;

	scene_begin(s);
	CHECK_EQ(scene_change(s, KEVENT_OP_ADD, 0).call, 1);
	scene_make_ready(s);
	epoll_fd = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	if (v->look->call == look_epoll_wait)
		SYS(look_epoll(s->q));
	queue_state(s->q, &before);
	fault_arm(nth);
	ret = v->look->call(s->q);
	error = errno;
	used = fault_disarm();
	check_queue_state(s->q, &before, v->look->name, nth);
	if (ret < 0 && v->look->call(s->q) < 0)
		FAIL("%s: after a failure, %s", v->look->name,
		     strerror(errno));
	close(epoll_fd);
	scene_check_ready(s);
	scene_end(s);
	return end_of(used, ret, error);
}

/* With each kind of source: poll(2) asks what is ready once more. */
static void looking_at_a_queue_changes_nothing_even_if_it_fails(void)
{
	struct fault_leaks leaks;
	struct view view;
	char name[64];
	size_t i, l;

	leaks_begin(&leaks);
	for (l = 0; l < ARRAY_SIZE(looks); l++) {
		view.look = &looks[l];
		for (i = 0; i < nr_sources; i++) {
			/* fork comes by hundreds of points, none of ours */
			if (looks[l].call == look_fork &&
			    strcmp(sources[i].name, "socket-mark"))
				continue;
			scene_open(&view.scene, &sources[i], 0);
			snprintf(name, sizeof(name), "look/%s/%s",
				 looks[l].name, sources[i].name);
			fault_sweep(name, look_round, &view);
			scene_close(&view.scene);
		}
	}
	leaks_end(&leaks);
}

static void an_open_that_fails_leaves_nothing_behind(void)
{
	struct fault_leaks leaks;

	leaks_begin(&leaks);
	fault_sweep("open", open_round, NULL);
	leaks_end(&leaks);
}

/* A close cannot fail, but something in it might not be done. */
static enum fault_end close_queue_round(void *arg, unsigned int nth)
{
	struct scene *s = arg;
	bool used;
	int ret;

	scene_begin(s);
	CHECK_EQ(scene_change(s, KEVENT_OP_ADD, 0).call, 1);
	scene_make_ready(s);
	fault_arm(nth);
	ret = (int)syscall(SYS_close, s->q);
	used = fault_disarm();
	CHECK_EQ(ret, 0);
	s->source->drain(s);
	s->q = -1;
	scene_end(s);
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void a_queue_is_gone_after_its_close_whatever_fails_in_it(void)
{
	struct fault_leaks leaks;
	struct scene scene;
	char name[64];
	size_t i;

	leaks_begin(&leaks);
	for (i = 0; i < nr_sources; i++) {
		scene_open(&scene, &sources[i], 0);
		snprintf(name, sizeof(name), "close-queue/%s", sources[i].name);
		fault_sweep(name, close_queue_round, &scene);
		/* which also sees that nothing of it is held any more */
		scene_close(&scene);
	}
	leaks_end(&leaks);
}

/* The watched file goes, with a word or without. */
static enum fault_end close_file_round(void *arg, unsigned int nth)
{
	struct scene *s = arg;
	struct kevent_event ev[2];
	bool report = s->source->flags & KEVENT_NOTIFY_BROKEN, used;
	int got;

	s->source->open(s);
	scene_begin(s);
	CHECK_EQ(scene_change(s, KEVENT_OP_ADD, 0).call, 1);
	fault_arm(nth);
	got = (int)syscall(SYS_close, s->fd);
	used = fault_disarm();
	CHECK_EQ(got, 0);
	got = wait_events(s->q, ev, 2, report ? 2 : 1, PATIENCE);
	CHECK_EQ(got, report ? 2 : 1);
	CHECK_EQ(ev[0].cookie, COOKIE_READY);
	if (report) {
		CHECK_EQ(ev[1].cookie, COOKIE_FIRST);
		CHECK_EQ(ev[1].events, 0);
		CHECK_EQ(ev[1].flags, KEVENT_EVENT_BROKEN |
			 KEVENT_EVENT_LAST);
	}
	check_silent(s->q);
	if (s->peer >= 0)
		close(s->peer);
	if (s->source->type == KEVENT_INODE)
		fs_unmount();
	scene_end(s);
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void the_close_of_a_watched_file_is_told_whatever_fails_in_it(void)
{
	struct fault_leaks leaks;
	struct source source;
	struct scene scene;
	unsigned int report;
	char name[64];
	size_t i;

	leaks_begin(&leaks);
	for (i = 0; i < nr_sources; i++) {
		/* a file, and not one that would be kept open */
		if (sources[i].type == KEVENT_PATH || sources[i].modify ||
		    sources[i].type == KEVENT_TIMER ||
		    sources[i].type == KEVENT_USER ||
		    !strcmp(sources[i].name, "fifo") ||
		    !strcmp(sources[i].name, "pty-master"))
			continue;
		for (report = 0; report < 2; report++) {
			source = sources[i];
			source.flags &= ~(uint32_t)KEVENT_NOTIFY_BROKEN;
			if (report)
				source.flags |= KEVENT_NOTIFY_BROKEN;
			scene = (struct scene){ .source = &source, .peer = -1 };
			snprintf(name, sizeof(name), "close-file/%s/%s",
				 source.name, report ? "broken" : "silent");
			fault_sweep(name, close_file_round, &scene);
		}
	}
	leaks_end(&leaks);
}

static const struct test_case cases[] = {
	TEST(an_open_that_fails_leaves_nothing_behind),
	LONG_TEST(looking_at_a_queue_changes_nothing_even_if_it_fails, 900),
	LONG_TEST(a_queue_is_gone_after_its_close_whatever_fails_in_it, 300),
	LONG_TEST(the_close_of_a_watched_file_is_told_whatever_fails_in_it,
		  300),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
