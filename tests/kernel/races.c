// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Everything at once, at random, on a few descriptors: ADD, MODIFY, REMOVE,
 * close, dup and close, replacement of the file under its number, replacement
 * of a queue, activity, POST and WAIT.  What is checked is that every answer is
 * one of those that a race allows, that events belong to what was added, and
 * that nothing is left charged at the end.  The seed is printed and may be given
 * as the second argument.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS	8
#define QUEUES	2
/* Numbers that nothing else in the process is given. */
#define QUEUE_BASE	400
#define FD_BASE		500
#define FDS_PER_SOURCE	(2 * SLOTS)

enum what {
	UNIX_SOCKET, TCP_SOCKET, PIPE_READ, PIPE_WRITE, EVENTFD, PTY_SLAVE,
	PTY_MASTER, INODE, PATH, TIMER, USER, NR_WHAT
};

struct kind {
	uint16_t type;
	uint32_t feature;
	uint32_t events;
	uint32_t file;		/* KEVENT_FILE_* */
};

static const struct kind kinds[NR_WHAT] = {
	[UNIX_SOCKET] = { KEVENT_SOCKET, KEVENT_FEATURE_SOCKET,
			  KEVENT_SOCKET_RECV | KEVENT_SOCKET_SEND,
		KEVENT_FILE_SOCKET },
	[TCP_SOCKET] = { KEVENT_SOCKET, KEVENT_FEATURE_SOCKET,
			 KEVENT_SOCKET_RECV | KEVENT_SOCKET_RDHUP,
		KEVENT_FILE_SOCKET },
	[PIPE_READ] = { KEVENT_POLL, KEVENT_FEATURE_POLL, POLLIN,
		KEVENT_FILE_PIPE },
	[PIPE_WRITE] = { KEVENT_POLL, KEVENT_FEATURE_POLL, POLLOUT,
		KEVENT_FILE_PIPE },
	[EVENTFD] = { KEVENT_POLL, KEVENT_FEATURE_POLL, POLLIN | POLLOUT,
		KEVENT_FILE_ANON },
	[PTY_SLAVE] = { KEVENT_POLL, KEVENT_FEATURE_POLL, POLLIN,
		KEVENT_FILE_PTY_SLAVE },
	[PTY_MASTER] = { KEVENT_POLL, KEVENT_FEATURE_POLL, POLLIN | POLLOUT,
		KEVENT_FILE_PTY_MASTER },
	[INODE] = { KEVENT_INODE, KEVENT_FEATURE_INODE, 0x1ff,
		KEVENT_FILE_INODE },
	[PATH] = { KEVENT_PATH, KEVENT_FEATURE_INODE, 0x1ff },
	[TIMER] = { KEVENT_TIMER, KEVENT_FEATURE_TIMER, KEVENT_TIMER_FIRED },
	[USER] = { KEVENT_USER, KEVENT_FEATURE_USER, KEVENT_USER_POSTED },
};

struct arena {
	enum what first, last;
	unsigned int rounds;
	uint32_t pinned;
	_Atomic bool stop;
	_Atomic unsigned int stream;
	_Atomic unsigned int delivered;
};

static int watched_fd(enum what what, unsigned int slot)
{
	return FD_BASE + (int)what * FDS_PER_SOURCE + (int)slot;
}

static int peer_fd(enum what what, unsigned int slot)
{
	return watched_fd(what, slot) + SLOTS;
}

static void directory(char *path, size_t size, unsigned int slot)
{
	snprintf(path, size, "%s/%u", temp_dir(), slot);
}

/* A new file under the numbers of the slot, in place of what was there. */
static void make(enum what what, unsigned int slot)
{
	int fd[2] = { -1, -1 };
	char path[128];

	switch (what) {
	case UNIX_SOCKET:
		unix_pair(fd);
		break;
	case TCP_SOCKET:
		tcp_pair(fd);
		break;
	case PIPE_READ:
		SYS(pipe2(fd, O_NONBLOCK));
		break;
	case PIPE_WRITE: {
		int ends[2];

		SYS(pipe2(ends, O_NONBLOCK));
		fd[0] = ends[1];
		fd[1] = ends[0];
		break;
	}
	case EVENTFD:
		fd[0] = eventfd_new(0);
		fd[1] = (int)SYS(dup(fd[0]));
		break;
	case PTY_SLAVE:
		pty_pair(&fd[1], &fd[0]);
		break;
	case PTY_MASTER:
		pty_pair(&fd[0], &fd[1]);
		break;
	case INODE:
	case PATH:
		directory(path, sizeof(path), slot);
		if (mkdir(path, 0755) && errno != EEXIST)
			FAIL("%s: %s", path, strerror(errno));
		fd[0] = open(path, O_RDONLY | O_DIRECTORY);
		/* Another thread may have taken it away again. */
		if (fd[0] < 0)
			CHECK_EQ(errno, ENOENT);
		break;
	default:
		return;
	}
	if (fd[0] >= 0) {
		SYS(dup2(fd[0], watched_fd(what, slot)));
		close(fd[0]);
	}
	if (fd[1] >= 0) {
		SYS(dup2(fd[1], peer_fd(what, slot)));
		close(fd[1]);
	}
}

/* Takes the file away, in one of the ways there are. */
static void unmake(enum what what, unsigned int slot, struct rnd *rnd)
{
	int fd = watched_fd(what, slot), other;
	char path[128];

	switch (rnd_below(rnd, 5)) {
	case 0:
		close(fd);
		break;
	case 1:
		other = dup(fd);
		close(fd);
		if (other >= 0)
			close(other);
		break;
	case 2:
		close(peer_fd(what, slot));
		break;
	case 3:
		close(peer_fd(what, slot));
		close(fd);
		break;
	default:
		/* The next make() replaces it by dup2(). */
		break;
	}
	if (what == PATH || what == INODE) {
		directory(path, sizeof(path), slot);
		unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
	}
}

static void touch(enum what what, unsigned int slot, struct rnd *rnd)
{
	char path[160], moved[160], buf[256];
	int fd = watched_fd(what, slot), peer = peer_fd(what, slot), made;
	uint64_t one = 1;
	int flags = MSG_DONTWAIT | MSG_NOSIGNAL;

	switch (what) {
	case UNIX_SOCKET:
	case TCP_SOCKET:
		(void)!send(rnd_below(rnd, 2) ? peer : fd, "data", 4, flags);
		(void)!recv(rnd_below(rnd, 2) ? peer : fd, buf, sizeof(buf),
			    flags);
		if (!rnd_below(rnd, 16))
			shutdown(rnd_below(rnd, 2) ? peer : fd, SHUT_WR);
		break;
	case EVENTFD:
		(void)!write(peer, &one, sizeof(one));
		if (rnd_below(rnd, 2))
			(void)!read(fd, &one, sizeof(one));
		break;
	case INODE:
	case PATH:
		directory(path, sizeof(path), slot);
		directory(moved, sizeof(moved), slot);
		snprintf(path + strlen(path), 8, "/a");
		snprintf(moved + strlen(moved), 8, "/b");
		made = open(path, O_CREAT | O_WRONLY, 0644);
		if (made >= 0) {
			(void)!write(made, "x", 1);
			close(made);
		}
		rename(path, moved);
		unlink(moved);
		break;
	case TIMER:
		break;
	case USER:
		post(QUEUE_BASE + (int)rnd_below(rnd, QUEUES), slot, slot);
		break;
	default:
		/* Both ends, whichever of them can be written. */
		(void)!write(peer, "data", 4);
		(void)!write(fd, "data", 4);
		(void)!read(fd, buf, 1 + rnd_below(rnd, sizeof(buf)));
		(void)!read(peer, buf, 1 + rnd_below(rnd, sizeof(buf)));
		break;
	}
}

static enum what pick_what(struct arena *a, struct rnd *rnd)
{
	return a->first + rnd_below(rnd, a->last - a->first + 1);
}

static uint64_t ident_of(enum what what, unsigned int slot)
{
	return what >= PATH ? slot : (uint64_t)watched_fd(what, slot);
}

static struct kevent_request random_request(enum what what, unsigned int slot,
					    struct rnd *rnd)
{
	static const uint32_t modes[] = {
		0, KEVENT_EDGE, KEVENT_ONESHOT, KEVENT_DISPATCH,
		KEVENT_DISABLED, KEVENT_EDGE | KEVENT_ONESHOT,
		KEVENT_EDGE | KEVENT_DISPATCH,
	};
	uint64_t ident = ident_of(what, slot);
	uint32_t flags = modes[rnd_below(rnd, ARRAY_SIZE(modes))];
	struct kevent_request req = request(kinds[what].type, ident,
					    kinds[what].events, flags, ident);

	if (kinds[what].type <= KEVENT_INODE && !rnd_below(rnd, 4))
		req.flags |= KEVENT_NOTIFY_BROKEN;
	if (kinds[what].type == KEVENT_SOCKET && !rnd_below(rnd, 4))
		req.flags |= KEVENT_BYTES;
	if (what == TIMER) {
		req.param[0] = rnd_below(rnd, 200000);
		req.param[1] = rnd_below(rnd, 2) ? 0 : 20000;
		req.param[2] = rnd_below(rnd, 2) ? CLOCK_MONOTONIC :
						   CLOCK_BOOTTIME;
	}
	return req;
}

static void check_answer(const struct arena *a, enum what what, uint32_t flags,
			 const char *call, int ret)
{
	/* A file that its kevent pins is not closed, and cannot tell so. */
	if (ret == -EOPNOTSUPP && (flags & KEVENT_NOTIFY_BROKEN) &&
	    (a->pinned & kinds[what].file))
		return;
	if (ret && ret != -EBADF && ret != -ENOENT && ret != -EEXIST)
		FAIL("%s of kind %d gave %d", call, what, ret);
}

static void *change_at_random(void *arg)
{
	struct arena *a = arg;
	struct rnd rnd = rnd_stream(a->stream++);
	unsigned int i;

	for (i = 0; i < a->rounds; i++) {
		int q = QUEUE_BASE + (int)rnd_below(&rnd, QUEUES);
		enum what what = pick_what(a, &rnd);
		unsigned int slot = rnd_below(&rnd, SLOTS);
		struct kevent_request req = random_request(what, slot, &rnd);
		char path[128];

		switch (rnd_below(&rnd, 5)) {
		case 0:
		case 1:
			if (what == PATH) {
				directory(path, sizeof(path), slot);
				check_answer(a, what, req.flags, "ADD_PATH", add_path(q,
					req.ident, path, req.events,
					req.flags, req.cookie));
				break;
			}
			check_answer(a, what, req.flags, "ADD",
				     change(q, KEVENT_IOC_NR_ADD, req));
			break;
		case 2:
			check_answer(a, what, req.flags, "MODIFY",
				     change(q, KEVENT_IOC_NR_MODIFY, req));
			break;
		case 3:
			check_answer(a, what, 0, "REMOVE", remove_kevent(q,
				req.type, req.ident, 0));
			break;
		default:
			if (req.type > KEVENT_INODE)
				break;
			check_answer(a, what, 0, "REMOVE of ghosts",
				     remove_kevent(q, req.type, req.ident,
						   KEVENT_STALE));
		}
	}
	return NULL;
}

static void *close_at_random(void *arg)
{
	struct arena *a = arg;
	struct rnd rnd = rnd_stream(a->stream++);
	unsigned int i;

	for (i = 0; i < a->rounds / 4; i++) {
		enum what what = pick_what(a, &rnd);
		unsigned int slot = rnd_below(&rnd, SLOTS);

		unmake(what, slot, &rnd);
		if (rnd_below(&rnd, 4))
			make(what, slot);
		if (!rnd_below(&rnd, 32)) {
			int q = queue_open();

			SYS(dup2(q, QUEUE_BASE + (int)rnd_below(&rnd, QUEUES)));
			close(q);
		}
	}
	return NULL;
}

static void *touch_at_random(void *arg)
{
	struct arena *a = arg;
	struct rnd rnd = rnd_stream(a->stream++);

	while (!a->stop)
		touch(pick_what(a, &rnd), rnd_below(&rnd, SLOTS), &rnd);
	return NULL;
}

static void check_known(struct arena *a, const struct kevent_event *ev)
{
	enum what what;

	CHECK_EQ(ev->cookie, ev->ident);
	CHECK(ev->count > 0);
	for (what = a->first; what <= a->last; what++)
		if (kinds[what].type == ev->type &&
		    ev->ident - ident_of(what, 0) < SLOTS)
			return;
	FAIL("event of type %u for %llu, which nobody added", ev->type,
	     (unsigned long long)ev->ident);
}

static void *wait_at_random(void *arg)
{
	struct arena *a = arg;
	struct rnd rnd = rnd_stream(a->stream++);
	struct kevent_event ev[64];

	while (!a->stop) {
		int q = QUEUE_BASE + (int)rnd_below(&rnd, QUEUES);
		uint32_t max = KEVENT_EVENT_RECORDS + rnd_below(&rnd, 55);
		int i, n;

		n = wait_events(q, ev, max, rnd_below(&rnd, 4),
				rnd_below(&rnd, 2) ? rnd_below(&rnd, 300000) :
						     0);
		CHECK(n >= 0);
		for (i = 0; n > 0; n--, a->delivered++) {
			check_known(a, &ev[i]);
			if (ev[i].flags & KEVENT_EVENT_NAME)
				i += (int)KEVENT_NAME_RECORDS(ev[i].data);
			i++;
		}
	}
	return NULL;
}

static void *post_at_random(void *arg)
{
	struct arena *a = arg;
	struct rnd rnd = rnd_stream(a->stream++);

	while (!a->stop) {
		int ret = post(QUEUE_BASE + (int)rnd_below(&rnd, QUEUES),
			       rnd_below(&rnd, SLOTS), 1);

		CHECK(!ret || ret == -ENOENT);
	}
	return NULL;
}

static void fight(enum what first, enum what last, unsigned int nr_rounds)
{
	struct arena a = { .first = first, .last = last,
			   .rounds = rounds(nr_rounds) };
	int witness = queue_open();
	uint64_t before = queue_info(witness).user_kevents;
	pthread_t changers[3], closers[2], others[5];
	unsigned int i, slot, nr = 0;
	enum what what;

	a.pinned = queue_info(witness).pinned;
	signal(SIGPIPE, SIG_IGN);
	raise_nofile(1024);
	temp_dir();
	for (what = first; what <= last; what++) {
		need_feature(witness, kinds[what].feature);
		for (slot = 0; slot < SLOTS; slot++)
			make(what, slot);
	}
	for (i = 0; i < QUEUES; i++) {
		int q = queue_open();

		SYS(dup2(q, QUEUE_BASE + (int)i));
		close(q);
	}
	for (i = 0; i < ARRAY_SIZE(changers); i++)
		changers[i] = thread_start(change_at_random, &a);
	for (i = 0; i < ARRAY_SIZE(closers); i++)
		closers[i] = thread_start(close_at_random, &a);
	for (i = 0; i < 2; i++)
		others[nr++] = thread_start(wait_at_random, &a);
	others[nr++] = thread_start(touch_at_random, &a);
	if (last >= USER)
		others[nr++] = thread_start(post_at_random, &a);
	for (i = 0; i < ARRAY_SIZE(changers); i++)
		thread_join(changers[i]);
	for (i = 0; i < ARRAY_SIZE(closers); i++)
		thread_join(closers[i]);
	a.stop = true;
	for (i = 0; i < nr; i++)
		thread_join(others[i]);
	dprintf(STDERR_FILENO, "%u events delivered\n", a.delivered);
	CHECK(a.delivered > 0);

	/* Half of the descriptors go before their queues, half after. */
	for (what = first; what <= last; what++)
		for (slot = 0; slot < SLOTS / 2; slot++)
			close(watched_fd(what, slot));
	for (i = 0; i < QUEUES; i++)
		close(QUEUE_BASE + (int)i);
	wait_until_user_kevents(witness, before);
}

#define FIGHT(name, first, last, rounds)	\
	static void name(void)			\
	{					\
		fight(first, last, rounds);	\
	}

FIGHT(changes_race_with_unix_sockets, UNIX_SOCKET, UNIX_SOCKET, 36000)
FIGHT(changes_race_with_tcp_sockets, TCP_SOCKET, TCP_SOCKET, 12000)
FIGHT(changes_race_with_pipes, PIPE_READ, PIPE_WRITE, 36000)
FIGHT(changes_race_with_eventfds, EVENTFD, EVENTFD, 36000)
FIGHT(changes_race_with_pty_slaves, PTY_SLAVE, PTY_SLAVE, 9000)
FIGHT(changes_race_with_pty_masters, PTY_MASTER, PTY_MASTER, 9000)
FIGHT(changes_race_with_inodes_and_paths, INODE, PATH, 36000)
FIGHT(changes_race_with_timers, TIMER, TIMER, 36000)
FIGHT(changes_race_with_posts, USER, USER, 36000)
FIGHT(changes_race_with_everything_together, UNIX_SOCKET, USER, 15000)

static const struct test_case cases[] = {
	LONG_TEST(changes_race_with_unix_sockets, 180),
	LONG_TEST(changes_race_with_tcp_sockets, 180),
	LONG_TEST(changes_race_with_pipes, 180),
	LONG_TEST(changes_race_with_eventfds, 180),
	LONG_TEST(changes_race_with_pty_slaves, 180),
	LONG_TEST(changes_race_with_pty_masters, 180),
	LONG_TEST(changes_race_with_inodes_and_paths, 180),
	LONG_TEST(changes_race_with_timers, 180),
	LONG_TEST(changes_race_with_posts, 180),
	LONG_TEST(changes_race_with_everything_together, 180),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
