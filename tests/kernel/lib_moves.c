// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Transfers, some at a time, against what ends them while bytes move: REMOVE,
 * closes, a reset by the peer, the death of the process.
 */
#include "lib_moves.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int transfer_begin(int q, int sock, struct transfer *t, uint32_t flags,
		   const void *at, size_t size)
{
	struct kevent_request req = naio_request(t->ident, t->events, flags,
						 at, size, sock);

	t->ended = false;
	t->error = 0;
	t->moved = 0;
	return change(q, KEVENT_IOC_NR_ADD, req);
}

void transfer_ended(struct transfer *t, const struct kevent_event *ev)
{
	CHECK_EQ(t->ended, false);
	CHECK_EQ(ev->type, KEVENT_NAIO);
	CHECK_EQ(ev->cookie, t->ident);
	CHECK_EQ(ev->events, t->events);
	CHECK(ev->flags & KEVENT_EVENT_LAST);
	t->ended = true;
	t->moved = ev->data;
	t->error = ev->flags & KEVENT_EVENT_ERROR ? (int)ev->count : 0;
	CHECK(t->moved <= t->most);
}

bool transfer_cancel(int q, struct transfer *t)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg = { .head.count = 1,
		  .req = request(KEVENT_NAIO, t->ident, 0, 0, 0) };

	if (!SYS(ioctl(q, KEVENT_IOC_REMOVE(1), &arg))) {
		CHECK_EQ(arg.req.result, -ENOENT);
		return false;
	}
	t->ended = true;
	t->moved = arg.req.param[0];
	t->error = (int)arg.req.param[1];
	CHECK(t->moved <= t->most);
	return true;
}

void transfer_wait(int q, struct transfer *t)
{
	struct kevent_event ev;

	CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
	CHECK_EQ(ev.ident, t->ident);
	transfer_ended(t, &ev);
}

void moves_begin(struct moves *m)
{
	char bytes[4 * PAGE] = { 0 };
	unsigned int i;

	for (i = 0; i < TRANSFERS; i++) {
		m->t[i].ident = i;
		CHECK_EQ(m->begin(m, &m->t[i]), 0);
	}
	if (m->feed)
		(void)!send(m->fd[1], bytes, m->feed,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One WAIT. */
static void tell(struct moves *m, uint64_t timeout, bool again)
{
	unsigned int max = 1 + rnd_below(&m->rnd, TRANSFERS);
	struct kevent_event ev[TRANSFERS];
	int i, nr = wait_events(m->q, ev, max, 1, timeout);

	CHECK(nr > 0);
	for (i = 0; i < nr; i++) {
		CHECK(ev[i].ident < TRANSFERS);
		transfer_ended(&m->t[ev[i].ident], &ev[i]);
		if (again)
			CHECK_EQ(m->begin(m, &m->t[ev[i].ident]), 0);
		m->told++;
	}
}

void moves_end(struct moves *m)
{
	unsigned int i;

	for (i = 0; i < TRANSFERS / 2; i++) {
		struct transfer *t = &m->t[rnd_below(&m->rnd, TRANSFERS)];

		if (!t->ended && transfer_cancel(m->q, t))
			m->cancelled += t->error == ECANCELED;
	}
	for (i = 0; i < TRANSFERS; i++)
		while (!m->t[i].ended)
			tell(m, PATIENCE, false);
}

/* What ends the transfers of each round, on a thread of its own. */
struct ender {
	pthread_barrier_t start;
	pthread_barrier_t end;
	void (*run)(struct moves *m);
	struct moves *moves;
	bool stop;
};

static void *end_them(void *arg)
{
	struct ender *e = arg;

	for (;;) {
		pthread_barrier_wait(&e->start);
		if (e->stop)
			return NULL;
		e->run(e->moves);
		pthread_barrier_wait(&e->end);
	}
}

static pthread_t ender_start(struct ender *e)
{
	pthread_barrier_init(&e->start, NULL, 2);
	pthread_barrier_init(&e->end, NULL, 2);
	return thread_start(end_them, e);
}

static void ender_stop(struct ender *e, pthread_t thread)
{
	e->stop = true;
	pthread_barrier_wait(&e->start);
	thread_join(thread);
}

static void close_ends(struct moves *m)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (m->fd[i] >= 0)
			close(m->fd[i]);
}

void close_near(struct moves *m)
{
	close(m->fd[0]);
	m->fd[0] = -1;
}

void reset_far(struct moves *m)
{
	struct linger linger = { .l_onoff = 1 };

	SYS(setsockopt(m->fd[1], SOL_SOCKET, SO_LINGER, &linger,
		       sizeof(linger)));
	close(m->fd[1]);
	m->fd[1] = -1;
}

void close_both(struct moves *m)
{
	reset_far(m);
	close_near(m);
}

/* Moves some of what they wait for. */
static void move_some(struct moves *m)
{
	char buffer[4 * PAGE] = { 0 };
	unsigned int i;

	for (i = 0; i < 16; i++) {
		(void)!recv(m->fd[1], buffer, sizeof(buffer), MSG_DONTWAIT);
		if (m->feed)
			(void)!send(m->fd[1], buffer, sizeof(buffer),
				    MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

void race_sockets(struct moves *m, void (*end)(struct moves *m),
		  unsigned int total)
{
	struct ender e = { .run = end, .moves = m };
	pthread_t thread = ender_start(&e);
	unsigned int round;

	m->q = queue_open();
	for (round = 0; round < total; round++) {
		test_context("round %u", round);
		m->pair(m->fd);
		moves_begin(m);
		pthread_barrier_wait(&e.start);
		moves_end(m);
		check_silent(m->q);
		CHECK_EQ(queue_info(m->q).kevents, 0);
		pthread_barrier_wait(&e.end);
		close_ends(m);
	}
	ender_stop(&e, thread);
	dprintf(STDERR_FILENO, "%u cancelled, %u told\n", m->cancelled, m->told);
	CHECK(m->cancelled && m->told);
	close(m->q);
}

void race_queues(struct moves *m, unsigned int total)
{
	struct ender e = { .run = move_some, .moves = m };
	pthread_t thread = ender_start(&e);
	int other = queue_open();
	unsigned int round;

	for (round = 0; round < total; round++) {
		unsigned int yields = rnd_below(&m->rnd, 8);

		test_context("round %u", round);
		m->q = queue_open();
		m->pair(m->fd);
		moves_begin(m);
		pthread_barrier_wait(&e.start);
		while (yields--)
			sched_yield();
		SYS(close(m->q));
		/* nobody writes to it any more */
		if (m->size)
			memset(m->mem, 0x55, m->size);
		pthread_barrier_wait(&e.end);
		CHECK(!m->size || (m->mem[0] == 0x55 &&
				   !memcmp(m->mem, m->mem + 1, m->size - 1)));
		close_ends(m);
	}
	ender_stop(&e, thread);
	wait_until_user_kevents(other, 0);
	close(other);
}

/* A process with transfers under way, which is killed. */
static void victim(void *arg)
{
	struct moves *m = arg;

	m->q = queue_open();
	moves_begin(m);
	for (;;)
		tell(m, FOREVER, true);
}

void race_deaths(struct moves *m, unsigned int total)
{
	int other = queue_open();
	unsigned int round, i;

	for (round = 0; round < total; round++) {
		pid_t pid;
		char c;

		test_context("round %u", round);
		m->pair(m->fd);
		pid = child_start(victim, m);
		/* the first byte is one of a transfer, so it has begun */
		CHECK_EQ(SYS(read(m->fd[1], &c, 1)), 1);
		for (i = 0; i < round % 8; i++)
			move_some(m);
		child_kill(pid);
		close_ends(m);
	}
	wait_until_user_kevents(other, 0);
	close(other);
}
