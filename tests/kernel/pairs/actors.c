// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What each actor of pairs.c does when it is its turn.  Children of a process
 * with threads do system calls only.
 */
#include "pairs.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

const uint32_t actor_kinds[NR_ACTORS] = {
	[ADD] = ANY_KIND, [REMOVE] = ANY_KIND, [MODIFY] = ANY_KIND,
	[WAIT] = ANY_KIND, [POST] = ANY_KIND & ~BIT(TIMER),
	[CLOSE] = FILES | TRANSFERS, [DUP_CLOSE] = FILES | TRANSFERS,
	[CLOSE_QUEUE] = ANY_KIND,
	[FORK_EXIT] = ANY_KIND, [KILL_WAITER] = ANY_KIND, [UNMOUNT] = NAMES,
	[TIMER_EXPIRY] = BIT(TIMER), [RESET] = BIT(TCP_SOCKET) | TRANSFERS,
	[PASS_QUEUE] = ANY_KIND, [RMMOD] = ANY_KIND,
};

const unsigned int actor_turns[NR_ACTORS] = {
	[ADD] = 16, [REMOVE] = 16, [MODIFY] = 16, [WAIT] = 16, [POST] = 16,
	[CLOSE] = 2, [DUP_CLOSE] = 2, [CLOSE_QUEUE] = 1, [FORK_EXIT] = 1,
	[KILL_WAITER] = 1, [UNMOUNT] = 2, [TIMER_EXPIRY] = 8, [RESET] = 1,
	[PASS_QUEUE] = 4, [RMMOD] = 8,
};

static enum kind kind_of(const struct member *m)
{
	return m->arena->kind[m->side];
}

static unsigned int pick_slot(struct member *m)
{
	return rnd_below(&m->rnd, slots_of(kind_of(m)));
}

static int pick_queue(struct member *m)
{
	if (m->own >= 0)
		return QUEUES + (int)m->nr;
	return kind_of(m) == QUEUE ? 0 : (int)rnd_below(&m->rnd, QUEUES);
}

/* So that what the other side does is met at another point each time. */
static void spin(struct member *m)
{
	volatile uint32_t left = rnd_below(&m->rnd, m->arena->spin);

	while (left)
		left--;
}

static void ask_one(struct member *m, unsigned int nr)
{
	int queue = pick_queue(m);

	ask(m, queue_fd(m, queue), queue, nr, kind_of(m), pick_slot(m));
}

/* Whoever waits here is not to wait for long: nobody rings for it. */
static void wait_on(struct member *m, int q, int queue, uint64_t timeout)
{
	struct arena *a = m->arena;
	int n = take(a, &m->take, q, queue, rnd_below(&m->rnd, 4), timeout);

	if (n == -EBADF && a->queues_close)
		return;
	if (n < 0)
		FAIL("WAIT on queue %d gave %d", queue, n);
	if (check_take(a, &m->take))
		FAIL("the bell rang too early");
}

static void act_wait(struct member *m)
{
	int queue = pick_queue(m), q = queue_fd(m, queue);
	struct pollfd pfd = { .fd = q, .events = POLLIN };

	if (!rnd_below(&m->rnd, 4))
		SYS(poll(&pfd, 1, 0));
	wait_on(m, q, queue, rnd_below(&m->rnd, 2) ? 0 :
		rnd_below(&m->rnd, 100000));
	/* Conditions come and go. */
	if (rnd_below(&m->rnd, 2))
		empty(kind_of(m), pick_slot(m));
}

static void act_post(struct member *m)
{
	poke(m->arena, m, rnd_below(&m->rnd, 4) ? kind_of(m) : NR_KINDS,
	     pick_slot(m));
}

static void act_close(struct member *m)
{
	enum kind kind = kind_of(m);
	unsigned int slot = pick_slot(m);

	m->arena->spoilt[kind][slot] = true;
	if (rnd_below(&m->rnd, 4))
		close(watched_fd(kind, slot));
	else
		close(peer_fd(kind, slot));
}

static void act_dup_close(struct member *m)
{
	enum kind kind = kind_of(m);
	unsigned int slot = pick_slot(m);
	int fd = watched_fd(kind, slot), copy = dup(fd);

	m->arena->spoilt[kind][slot] = true;
	close(fd);
	if (copy < 0)
		return;
	spin(m);
	close(copy);
}

static void act_close_queue(struct member *m)
{
	if (m->own >= 0) {
		close(m->own);
		m->own = -1;
	} else {
		close(QUEUE_BASE + (int)rnd_below(&m->rnd, QUEUES));
	}
}

/* In the child, which shares all files and ends soon. */
static void use_and_exit(struct member *m)
{
	int queue = pick_queue(m), q = queue_fd(m, queue);

	switch (rnd_below(&m->rnd, 4)) {
	case 0:
		wait_on(m, q, queue, 0);
		break;
	case 1:
		ask(m, q, queue, KEVENT_IOC_NR_MODIFY, kind_of(m),
		    pick_slot(m));
		break;
	case 2:
		close(q);
		break;
	default:
		break;
	}
	spin(m);
	_exit(EXIT_SUCCESS);
}

static void act_fork_exit(struct member *m)
{
	pid_t pid = (pid_t)SYS(fork());

	if (!pid)
		use_and_exit(m);
	/* In a transient round the child may be the last to have the queue. */
	if (m->own >= 0)
		close(m->own);
	child_join(pid);
	/* Shared with the child. */
	m->own = -1;
}

/* The queue of one's own, with kevents on all that there is; or none. */
static void open_own(struct member *m)
{
	unsigned int slot;

	m->own = open(device_path(), O_RDWR | O_CLOEXEC);
	if (m->own < 0) {
		/* The module is on its way out, or gone. */
		if (errno != ENOENT && errno != ENXIO && errno != ENODEV)
			FAIL("open gave %s", strerror(errno));
		return;
	}
	for (slot = 0; slot < slots_of(kind_of(m)); slot++)
		ask(m, m->own, QUEUES + (int)m->nr, KEVENT_IOC_NR_ADD,
		    kind_of(m), slot);
}

/*
 * In the child that will be killed.  Every WAIT has room of its own, so that
 * whoever kills it sees what it was given.
 */
static void wait_to_be_killed(struct victim *v)
{
	struct member *m = &v->member;
	bool lean = rnd_below(&m->rnd, 2);
	int queue, q, fd;

	if (m->arena->transient)
		open_own(m);
	queue = pick_queue(m);
	q = queue_fd(m, queue);
	/* Not the last one to have what the others close. */
	for (fd = FD_BASE; lean && fd < peer_fd(NR_KINDS, 0); fd++)
		close(fd);
	for (fd = QUEUE_BASE; lean && fd < QUEUE_BASE + QUEUES; fd++)
		if (fd != q)
			close(fd);
	while (q >= 0 && v->used < TAKES) {
		struct take *t = &v->takes[v->used];

		t->head.records = 0;
		v->used++;
		if (take(m->arena, t, q, queue, 1, FOREVER) < 0)
			break;
	}
	for (;;)
		pause();
}

void prepare(struct member *m)
{
	struct victim *v = &m->arena->victims[m->nr];
	pid_t pid;

	if (m->arena->actor[m->side] != KILL_WAITER)
		return;
	v->used = 0;
	pid = (pid_t)SYS(fork());
	if (!pid)
		wait_to_be_killed(v);
	/* Shared with the child. */
	v->pid = pid;
}

static void act_kill_waiter(struct member *m)
{
	struct victim *v = &m->arena->victims[m->nr];
	unsigned int i;

	child_kill(v->pid);
	for (i = 0; i < v->used; i++)
		if (check_take(m->arena, &v->takes[i]))
			FAIL("the bell rang for one who was killed");
}

static void act_unmount(struct member *m)
{
	struct arena *a = m->arena;
	unsigned int slot = pick_slot(m);
	char path[160];

	mount_point(path, sizeof(path), slot);
	if (!umount2(path, rnd_below(&m->rnd, 2) ? MNT_DETACH : 0))
		a->mounted[slot] = false;
	else if (errno != EINVAL && errno != EBUSY)
		FAIL("umount gave %s", strerror(errno));
}

static void act_timer_expiry(struct member *m)
{
	struct arena *a = m->arena;
	int queue = pick_queue(m), q = queue_fd(m, queue), ret;
	unsigned int slot = pick_slot(m);
	uint64_t ident;

	if (m->own < 0 && rnd_below(&m->rnd, 2)) {
		ident = SINGLE_SHOT + m->nr + ((uint64_t)m->turns << 32);
		ret = add_timer(q, ident, rnd_below(&m->rnd, 50000), 0,
				KEVENT_ONESHOT, ident);
		if (!ret)
			a->shots[queue]++;
		else if (ret != -EBADF || !a->queues_close)
			FAIL("ADD of a timer gave %d", ret);
	} else if (ask(m, q, queue, KEVENT_IOC_NR_MODIFY, TIMER, slot) ==
		   -ENOENT) {
		ask(m, q, queue, KEVENT_IOC_NR_ADD, TIMER, slot);
	}
}

static void act_reset(struct member *m)
{
	unsigned int slot = pick_slot(m);

	m->arena->spoilt[kind_of(m)][slot] = true;
	close(peer_fd(kind_of(m), slot));
}

static void act_pass_queue(struct member *m)
{
	struct arena *a = m->arena;
	int queue = pick_queue(m), q = queue_fd(m, queue), fd;
	int ret = try_send_fd(m->mail[0], q);

	if (ret) {
		if (ret != -EBADF || !a->queues_close)
			FAIL("sendmsg gave %d", ret);
		return;
	}
	if (m->own >= 0) {
		close(m->own);
		m->own = -1;
	}
	spin(m);
	if (!rnd_below(&m->rnd, 4)) {
		/* It never arrives. */
		close(m->mail[1]);
		close(m->mail[0]);
		unix_pair(m->mail);
		return;
	}
	fd = recv_fd(m->mail[1]);
	if (rnd_below(&m->rnd, 2))
		wait_on(m, fd, queue, 0);
	else
		ask(m, fd, queue, KEVENT_IOC_NR_MODIFY, kind_of(m),
		    pick_slot(m));
	close(fd);
}

static void act_rmmod(struct member *m)
{
	struct arena *a = m->arena;
	int ret = module_unload();

	if (!a->may_unload)
		CHECK_EQ(ret, -EWOULDBLOCK);
	else if (!ret)
		a->unloads++;
	else if (ret != -EWOULDBLOCK && ret != -EBUSY && ret != -ENOENT)
		FAIL("delete_module gave %d", ret);
}

static void act_as(struct member *m, enum actor actor)
{
	switch (actor) {
	case ADD:
		ask_one(m, KEVENT_IOC_NR_ADD);
		break;
	case REMOVE:
		ask_one(m, KEVENT_IOC_NR_REMOVE);
		break;
	case MODIFY:
		ask_one(m, KEVENT_IOC_NR_MODIFY);
		break;
	case WAIT:
		act_wait(m);
		break;
	case POST:
		act_post(m);
		break;
	case CLOSE:
		act_close(m);
		break;
	case DUP_CLOSE:
		act_dup_close(m);
		break;
	case CLOSE_QUEUE:
		act_close_queue(m);
		break;
	case FORK_EXIT:
		act_fork_exit(m);
		break;
	case KILL_WAITER:
		act_kill_waiter(m);
		break;
	case UNMOUNT:
		act_unmount(m);
		break;
	case TIMER_EXPIRY:
		act_timer_expiry(m);
		break;
	case RESET:
		act_reset(m);
		break;
	case PASS_QUEUE:
		act_pass_queue(m);
		break;
	case RMMOD:
		act_rmmod(m);
		break;
	default:
		break;
	}
}

void act(struct member *m)
{
	enum actor actor = m->arena->actor[m->side];

	spin(m);
	if (!m->arena->transient || actor == RMMOD || actor == KILL_WAITER) {
		act_as(m, actor);
		return;
	}
	open_own(m);
	if (m->own < 0)
		return;
	spin(m);
	act_as(m, actor);
	if (m->own >= 0)
		close(m->own);
	m->own = -1;
}
