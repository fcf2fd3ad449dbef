// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The sources that the crew of pairs.c fights over: how they are made, made to
 * happen, and emptied.
 */
#include "pairs.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

const struct kind_info kinds[NR_KINDS] = {
	[TCP_SOCKET] = { "TCP sockets", KEVENT_SOCKET,
			 KEVENT_SOCKET_RECV | KEVENT_SOCKET_RDHUP,
			 KEVENT_FILE_SOCKET },
	[UNIX_SOCKET] = { "UNIX sockets", KEVENT_SOCKET,
			  KEVENT_SOCKET_RECV | KEVENT_SOCKET_RDHUP,
			  KEVENT_FILE_SOCKET },
	[PIPE_READ] = { "pipes", KEVENT_POLL, POLLIN, KEVENT_FILE_PIPE },
	[EVENTFD] = { "eventfds", KEVENT_POLL, POLLIN, KEVENT_FILE_ANON },
	[PTY_SLAVE] = { "ptys", KEVENT_POLL, POLLIN, KEVENT_FILE_PTY_SLAVE },
	[QUEUE] = { "queues", KEVENT_POLL, POLLIN, KEVENT_FILE_KEVENT },
	[INODE] = { "inodes", KEVENT_INODE, 0x1ff, KEVENT_FILE_INODE },
	[PATH] = { "paths", KEVENT_PATH, 0x1ff, 0 },
	[TIMER] = { "timers", KEVENT_TIMER, KEVENT_TIMER_FIRED, 0 },
	[USER] = { "user events", KEVENT_USER, KEVENT_USER_POSTED, 0 },
	[RECV_TRANSFER] = { "transfers from sockets", KEVENT_NAIO,
			    KEVENT_NAIO_RECV, 0 },
	[SEND_TRANSFER] = { "transfers to sockets", KEVENT_NAIO,
			    KEVENT_NAIO_SEND, 0 },
};

/* What is received comes in single bytes, and what is sent does not fit. */
#define RECEIVED	(3 * PAGE)
#define SENT		(32 * PAGE)

/* Private, so that there are forks of what is pinned. */
static char received[ALL_QUEUES][SLOTS][RECEIVED];
static char sent[SENT];

int watched_fd(enum kind kind, unsigned int slot)
{
	if (kind == QUEUE)
		return QUEUE_BASE + 1;
	return FD_BASE + (int)kind * 2 * SLOTS + (int)slot;
}

int peer_fd(enum kind kind, unsigned int slot)
{
	return FD_BASE + ((int)kind * 2 + 1) * SLOTS + (int)slot;
}

uint64_t ident_of(enum kind kind, unsigned int slot)
{
	if (TRANSFERS & BIT(kind))
		return (uint64_t)kind * SLOTS + slot;
	return FILES & BIT(kind) ? (uint64_t)watched_fd(kind, slot) : slot;
}

void fill_transfer(struct kevent_request *req, int queue, enum kind kind,
		   unsigned int slot)
{
	bool send = kind == SEND_TRANSFER;

	req->param[0] = (uintptr_t)(send ? sent : received[queue][slot]);
	req->param[1] = send ? SENT : RECEIVED;
	req->param[2] = (uint64_t)watched_fd(kind, slot);
}

bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

void mount_point(char *path, size_t size, unsigned int slot)
{
	snprintf(path, size, "%s/m%u", temp_dir(), slot);
}

void watched_path(char *path, size_t size, unsigned int slot)
{
	snprintf(path, size, "%s/m%u/d", temp_dir(), slot);
}

static void mount_slot(struct arena *a, unsigned int slot)
{
	char path[160];

	if (a->mounted[slot])
		return;
	mount_point(path, sizeof(path), slot);
	if (mkdir(path, 0755) && errno != EEXIST)
		FAIL("%s: %s", path, strerror(errno));
	SYS(mount("pairs", path, "tmpfs", 0, "size=1m"));
	watched_path(path, sizeof(path), slot);
	SYS(mkdir(path, 0755));
	a->mounted[slot] = true;
}

/* The peer of a TCP socket is closed with a reset. */
static void linger_no_more(int fd)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };

	SYS(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
}

static void make(struct arena *a, enum kind kind, unsigned int slot)
{
	int fd[2] = { -1, -1 }, small = 4096;
	char path[160];

	switch (kind) {
	case TCP_SOCKET:
	case RECV_TRANSFER:
	case SEND_TRANSFER:
		tcp_pair(fd);
		linger_no_more(fd[1]);
		if (kind == SEND_TRANSFER)
			SYS(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small,
				       sizeof(small)));
		break;
	case UNIX_SOCKET:
		unix_pair(fd);
		break;
	case PIPE_READ:
		SYS(pipe2(fd, O_NONBLOCK | O_CLOEXEC));
		break;
	case EVENTFD:
		fd[0] = eventfd_new(0);
		break;
	case PTY_SLAVE:
		pty_pair(&fd[1], &fd[0]);
		break;
	case INODE:
		mount_slot(a, slot);
		watched_path(path, sizeof(path), slot);
		fd[0] = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
		break;
	case PATH:
		mount_slot(a, slot);
		return;
	default:
		return;
	}
	SYS(dup3(fd[0], watched_fd(kind, slot), O_CLOEXEC));
	close(fd[0]);
	if (fd[1] < 0)
		return;
	SYS(dup3(fd[1], peer_fd(kind, slot), O_CLOEXEC));
	close(fd[1]);
}

void make_sources(struct arena *a)
{
	unsigned int slot;
	enum kind kind;

	for (slot = 0; slot < SLOTS; slot++) {
		/* An open directory keeps its file system busy. */
		if (!a->mounted[slot] || !(a->kinds & BIT(INODE))) {
			close(watched_fd(INODE, slot));
			a->spoilt[INODE][slot] = true;
		}
		if (!a->mounted[slot])
			a->spoilt[PATH][slot] = true;
	}
	for (kind = 0; kind < NR_KINDS; kind++) {
		for (slot = 0; slot < SLOTS; slot++) {
			if (!(a->kinds & BIT(kind)) || !a->spoilt[kind][slot])
				continue;
			make(a, kind, slot);
			a->spoilt[kind][slot] = false;
		}
	}
}

void close_sources(struct arena *a)
{
	unsigned int slot;
	enum kind kind;
	char path[160];

	for (slot = 0; slot < SLOTS; slot++) {
		for (kind = 0; kind < NR_KINDS; kind++) {
			close(watched_fd(kind, slot));
			close(peer_fd(kind, slot));
		}
		if (!a->mounted[slot])
			continue;
		mount_point(path, sizeof(path), slot);
		SYS(umount2(path, 0));
		a->mounted[slot] = false;
	}
}

void empty(enum kind kind, unsigned int slot)
{
	int fd = watched_fd(kind, slot), i;
	char buf[512];

	for (i = 0; i < 16; i++) {
		if (kind == TCP_SOCKET || kind == UNIX_SOCKET ||
		    kind == RECV_TRANSFER) {
			if (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) <= 0)
				return;
		} else if (kind == PIPE_READ || kind == EVENTFD ||
			   kind == PTY_SLAVE) {
			if (read(fd, buf, sizeof(buf)) <= 0)
				return;
		}
	}
}

/* Both kinds of kevent on the directory hear of it, in every queue. */
static void poke_directory(struct arena *a, unsigned int slot)
{
	char path[192];
	int fd, q;

	watched_path(path, sizeof(path), slot);
	snprintf(path + strlen(path), 16, "/%u", a->files++);
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0) {
		/* Its file system may be gone, and only that. */
		CHECK(has(a, UNMOUNT));
		return;
	}
	for (q = 0; q < QUEUES; q++) {
		a->watch[q][INODE][slot].pokes++;
		a->watch[q][PATH][slot].pokes++;
	}
	close(fd);
	unlink(path);
}

static void poke_queue(struct arena *a, struct member *m, int queue,
		       uint64_t ident, _Atomic unsigned int *count)
{
	int ret = post(queue_fd(m, queue), ident, 1);

	if (!ret)
		++*count;
	else if (ret == -EBADF)
		CHECK(a->queues_close);
	else if (ret != -ENOENT || ident == TALLY ||
		 is_sure(a, queue, USER, (unsigned int)ident))
		FAIL("POST to %llu gave %d", (unsigned long long)ident, ret);
}

void poke(struct arena *a, struct member *m, enum kind kind, unsigned int slot)
{
	int queue = m->own >= 0 ? QUEUES + (int)m->nr :
				  (int)rnd_below(&m->rnd, QUEUES);
	int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	char room[4 * PAGE];
	uint64_t one = 1;

	switch (kind) {
	case SEND_TRANSFER:
		(void)!recv(peer_fd(kind, slot), room, sizeof(room),
			    MSG_DONTWAIT);
		break;
	case RECV_TRANSFER:
		if (!rnd_below(&m->rnd, 8)) {
			(void)!send(peer_fd(kind, slot), sent, RECEIVED, flags);
			break;
		}
		/* fall through */
	case TCP_SOCKET:
	case UNIX_SOCKET:
		(void)!send(peer_fd(kind, slot), "x", 1, flags);
		break;
	case PIPE_READ:
	case PTY_SLAVE:
		(void)!write(peer_fd(kind, slot), "x", 1);
		break;
	case EVENTFD:
		(void)!write(watched_fd(kind, slot), &one, sizeof(one));
		break;
	case INODE:
	case PATH:
		poke_directory(a, slot);
		break;
	case USER:
		poke_queue(a, m, queue, slot,
			   &a->watch[queue][USER][slot].pokes);
		break;
	default:
		/* The second queue, which the first may watch, or a count. */
		if (m->own < 0)
			poke_queue(a, m, kind == QUEUE ? 1 : queue, TALLY,
				   &a->posted[kind == QUEUE ? 1 : queue]);
		break;
	}
}

bool holds(enum kind kind, unsigned int slot)
{
	struct pollfd pfd = { .fd = watched_fd(kind, slot), .events = POLLIN };

	if (!(FILES & ~BIT(INODE) & BIT(kind)) || !is_open(pfd.fd))
		return false;
	SYS(poll(&pfd, 1, 0));
	return pfd.revents & (POLLIN | POLLERR | POLLHUP);
}
