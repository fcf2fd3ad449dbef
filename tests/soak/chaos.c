// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Clients with queues of their own, of which nothing is expected but that they
 * leave nothing behind, whenever they are killed.  See soak.h.
 */
#include "soak.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILES	8

struct mess {
	int q;
	int fd[FILES];
	char name[128];
	struct rnd rnd;
};

static void *wait_in_the_way(void *arg)
{
	struct mess *m = arg;
	struct kevent_event ev[16];

	while (wait_events(m->q, ev, ARRAY_SIZE(ev), 1, FOREVER) != -EBADF)
		;
	return NULL;
}

static void open_files(struct mess *m)
{
	unix_pair(&m->fd[0]);
	SYS(pipe2(&m->fd[2], O_CLOEXEC));
	tcp_pair(&m->fd[4]);
	m->fd[6] = eventfd_new(0);
	m->fd[7] = queue_open();
}

/* From or to what is mostly a socket, and memory of its own. */
static struct kevent_request transfer_any(struct mess *m, int fd)
{
	static char memory[64 * PAGE];
	bool send = rnd_below(&m->rnd, 2);
	struct kevent_request req = request(KEVENT_NAIO, rnd_below(&m->rnd, 4),
					    send ? KEVENT_NAIO_SEND :
						   KEVENT_NAIO_RECV, 0, 0);

	req.param[0] = (uintptr_t)memory + rnd_below(&m->rnd, PAGE);
	req.param[1] = 1 + rnd_below(&m->rnd, sizeof(memory) - PAGE);
	req.param[2] = (uint64_t)fd;
	return req;
}

/* Any answer will do: what is asked for may be nonsense. */
static void change_any(struct mess *m)
{
	static const unsigned int calls[] = {
		KEVENT_IOC_NR_ADD, KEVENT_IOC_NR_ADD, KEVENT_IOC_NR_MODIFY,
		KEVENT_IOC_NR_REMOVE,
	};
	static const uint32_t flags[] = {
		0, 0, KEVENT_EDGE, KEVENT_ONESHOT, KEVENT_DISPATCH,
		KEVENT_NOTIFY_BROKEN, KEVENT_DISABLED,
	};
	unsigned int nr = calls[rnd_below(&m->rnd, ARRAY_SIZE(calls))];
	uint32_t flag = flags[rnd_below(&m->rnd, ARRAY_SIZE(flags))];
	int fd = m->fd[rnd_below(&m->rnd, FILES)];
	struct kevent_request req;

	switch (rnd_below(&m->rnd, 6)) {
	case 5:
		req = transfer_any(m, fd);
		break;
	case 0:
		req = request(KEVENT_SOCKET, (uint64_t)fd,
			      KEVENT_SOCKET_RECV | KEVENT_SOCKET_RDHUP, flag,
			      0);
		break;
	case 1:
		req = request(KEVENT_POLL, (uint64_t)fd, POLLIN | POLLOUT,
			      flag, 0);
		break;
	case 2:
		req = request(KEVENT_USER, rnd_below(&m->rnd, 4),
			      KEVENT_USER_POSTED, flag, 0);
		break;
	case 3:
		req = timer_request(rnd_below(&m->rnd, 4),
				    rnd_below(&m->rnd, 3000000),
				    rnd_below(&m->rnd, 2) * 500000, flag, 0);
		break;
	default:
		(void)add_path(m->q, rnd_below(&m->rnd, 4),
			       rnd_below(&m->rnd, 2) ? m->name : temp_dir(),
			       0x1ff, flag, 0);
		return;
	}
	if (nr == KEVENT_IOC_NR_REMOVE)
		req = request(req.type, req.ident, 0, 0, 0);
	(void)change(m->q, nr, req);
}

static void stir(struct mess *m)
{
	unsigned int i = rnd_below(&m->rnd, FILES);
	char byte = 'x';

	switch (rnd_below(&m->rnd, 6)) {
	case 0:
		close((int)SYS(open(m->name, O_CREAT | O_WRONLY | O_CLOEXEC,
				    0600)));
		break;
	case 1:
		unlink(m->name);
		break;
	case 2:
		(void)post(m->q, rnd_below(&m->rnd, 4), 0);
		break;
	case 3:
		(void)!write(m->fd[3], &byte, 1);
		(void)!read(m->fd[2], &byte, 1);
		eventfd_write_one(m->fd[6]);
		break;
	case 4:
		send(m->fd[i], &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		recv(m->fd[i], &byte, 1, MSG_DONTWAIT);
		break;
	default:
		/* the number is in use again at once */
		SYS(dup3(m->fd[6], m->fd[rnd_below(&m->rnd, 2)], O_CLOEXEC));
		break;
	}
}

void chaos(void *which)
{
	static struct mess m[2];
	unsigned int i, round;

	snprintf(m[0].name, sizeof(m[0].name), "%.80s/chaos%u", temp_dir(),
		 *(unsigned int *)which);
	m[0].rnd = rnd_stream(40000 + soak->generation);
	m[0].q = queue_open();
	thread_start(wait_in_the_way, &m[0]);
	/* a queue that a thread waits on, and others that come and go */
	m[1] = m[0];
	m[1].rnd = rnd_stream(50000 + soak->generation);
	for (round = 0;; round++) {
		struct mess *it = &m[round & 1];

		if (it == &m[1])
			it->q = queue_open();
		open_files(it);
		for (i = 0; i < 40; i++) {
			change_any(it);
			stir(it);
		}
		for (i = 0; i < FILES; i++)
			close(it->fd[i]);
		if (it == &m[1])
			close(it->q);
	}
}
