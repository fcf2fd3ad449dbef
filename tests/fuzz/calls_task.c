// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Calls on sockets, and what happens to the program itself: signals, children,
 * other users.  None of them has to succeed.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY	65534

void run_shutdown(struct worker *w, const struct call *c)
{
	(void)w;
	shutdown(pool_fd(c->arg[0]), (int)(c->arg[1] % 3));
}

void run_accept(struct worker *w, const struct call *c)
{
	(void)w;
	move_fd(accept4(pool_fd(c->arg[0]), NULL, NULL,
			SOCK_CLOEXEC | SOCK_NONBLOCK), pool_fd(c->arg[1]));
}

void run_connect(struct worker *w, const struct call *c)
{
	struct sockaddr_storage addr = {};
	socklen_t len = sizeof(addr);

	(void)w;
	if (getsockname(pool_fd(c->arg[1]), (struct sockaddr *)&addr, &len))
		return;
	connect(pool_fd(c->arg[0]), (struct sockaddr *)&addr, len);
}

void run_reset(struct worker *w, const struct call *c)
{
	struct linger linger = { .l_onoff = 1 };
	int fd = pool_fd(c->arg[0]);

	(void)w;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

void run_urgent(struct worker *w, const struct call *c)
{
	(void)w;
	send(pool_fd(c->arg[0]), "!", 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT);
}

union control {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int))];
};

/* Unlike those of lib.h these may fail. */
void run_send_fd(struct worker *w, const struct call *c)
{
	union control control = {
		.head = {
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
			.cmsg_len = CMSG_LEN(sizeof(int)),
		},
	};
	struct iovec iov = { .iov_base = "f", .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	int fd = pool_fd(c->arg[1]);

	(void)w;
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	sendmsg(pool_fd(c->arg[0]), &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void run_recv_fd(struct worker *w, const struct call *c)
{
	union control control = {};
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	int fd;

	(void)w;
	if (recvmsg(pool_fd(c->arg[0]), &msg,
		    MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0)
		return;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	move_fd(fd, pool_fd(c->arg[1]));
}

/* Reads what there is, as often as a peer may have put something in its place. */
void run_drain(struct worker *w, const struct call *c)
{
	unsigned int i;

	for (i = 0; i < 64; i++)
		if (recv(pool_fd(c->arg[0]), w->stage, 3 * PAGE,
			 MSG_DONTWAIT) <= 0)
			return;
}

void run_sockbuf(struct worker *w, const struct call *c)
{
	int fd = pool_fd(c->arg[0]), size = (int)(c->arg[1] % 10000);

	(void)w;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

static void on_signal(int number)
{
	(void)number;
}

void signals_prepare(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGIO, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	/* for signalfd */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

void signals_end(void)
{
	struct itimerval timer = {};
	struct timespec now = {};
	sigset_t set;

	setitimer(ITIMER_REAL, &timer, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	while (sigtimedwait(&set, NULL, &now) > 0)
		continue;
}

void run_signal(struct worker *w, const struct call *c)
{
	(void)w;
	kill(getpid(), c->arg[0] & 1 ? SIGUSR1 : SIGUSR2);
}

void run_alarm(struct worker *w, const struct call *c)
{
	struct itimerval timer = {
		.it_value.tv_usec = (suseconds_t)(c->arg[0] % 2000 + 1),
	};

	(void)w;
	setitimer(ITIMER_REAL, &timer, NULL);
}

static void child(int queue, unsigned int how)
{
	struct kevent_event event;

	if (how == 1)
		close(queue);
	else if (how == 2)
		post(queue, 1, 1);
	else if (how > 2 && read(queue, &event, sizeof(event)) < 0)
		_exit(1);
	_exit(0);
}

/* How: 0 exits, 1 closes a queue, 2 posts, 3 sleeps in it and is killed. */
void run_fork(struct worker *w, const struct call *c)
{
	unsigned int how = (unsigned int)c->arg[1] % 4;
	int queue = pool_fd(c->arg[0]);
	pid_t pid = fork();

	(void)w;
	if (pid < 0)
		return;
	if (!pid)
		child(queue, how);
	if (how == 3) {
		usleep(300);
		kill(pid, SIGKILL);
	}
	waitpid(pid, NULL, 0);
}

/* For this thread only, as the C library would not have it. */
void run_user(struct worker *w, const struct call *c)
{
	uid_t uid = c->arg[0] & 1 ? NOBODY : 0;

	(void)w;
	syscall(SYS_setresuid, (uid_t)-1, uid, (uid_t)0);
}

void run_nap(struct worker *w, const struct call *c)
{
	(void)w;
	if (c->arg[0])
		usleep((useconds_t)(c->arg[0] % 2001));
	else
		sched_yield();
}

static struct {
	const char *name;
	uint64_t value;
} limits[] = {
	{ "max_queue_kevents", 0 },
	{ "max_user_kevents", 0 },
	{ "max_inode_events", 0 },
	{ "max_user_inode_events", 0 },
	{ "max_inode_watches", 0 },
};

static void limit_write(unsigned int which, uint64_t value)
{
	char path[128], text[32];
	int fd, len;

	snprintf(path, sizeof(path), "/sys/module/kevent/parameters/%s",
		 limits[which].name);
	len = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (write(fd, text, (size_t)len) < 0)
		len = 0;
	close(fd);
}

void run_limit(struct worker *w, const struct call *c)
{
	(void)w;
	limit_write((unsigned int)c->arg[0] % ARRAY_SIZE(limits), c->arg[1]);
}

void limits_save(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(limits); i++)
		limits[i].value = parameter_get(limits[i].name);
}

void limits_restore(const struct program *p)
{
	bool changed = false;
	unsigned int i;

	for (i = 0; i < p->nr; i++)
		if (call_types[p->call[i].type].run == run_limit)
			changed = true;
	for (i = 0; changed && i < ARRAY_SIZE(limits); i++)
		parameter_set(limits[i].name, limits[i].value);
}
