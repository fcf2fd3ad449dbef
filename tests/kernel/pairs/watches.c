// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is asked of the queues in pairs.c, and what they may answer.
 *
 * Every ADD and MODIFY has a cookie of its own, counted for each kevent.  So an
 * event tells which call it is due to, and a REMOVE knows which cookies ended
 * with it: all of those whose calls had returned before it began.
 */
#include "pairs.h"

#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

#define COOKIE_MARK	0x6bULL

static uint64_t cookie_of(enum kind kind, unsigned int slot, uint32_t count)
{
	return COOKIE_MARK << 56 | (uint64_t)kind << 48 |
	       (uint64_t)slot << 40 | count;
}

int queue_fd(const struct member *m, int queue)
{
	return queue >= QUEUES ? m->own : QUEUE_BASE + queue;
}

static bool file_goes(const struct arena *a, enum kind kind)
{
	return kind == QUEUE ? a->queues_close :
			       ((FILES | TRANSFERS) & BIT(kind)) &&
			       a->files_close;
}

bool is_sure(const struct arena *a, int queue, enum kind kind,
	     unsigned int slot)
{
	return a->watch[queue][kind][slot].present && !a->transient &&
	       !a->queues_close && !has(a, REMOVE) && !file_goes(a, kind) &&
	       !(has(a, UNMOUNT) && (NAMES & BIT(kind))) &&
	       !(a->flags[kind][slot] & KEVENT_ONESHOT);
}

static bool is_allowed(const struct arena *a, int queue, unsigned int nr,
		       enum kind kind, unsigned int slot, int ret)
{
	bool sure = is_sure(a, queue, kind, slot);

	switch (ret) {
	case 0:
		if (nr == KEVENT_IOC_NR_MODIFY && (TRANSFERS & BIT(kind)))
			return false;
		return nr != KEVENT_IOC_NR_ADD || !sure;
	case -EOPNOTSUPP:
		return nr == KEVENT_IOC_NR_MODIFY && (TRANSFERS & BIT(kind));
	case -EEXIST:
		return nr == KEVENT_IOC_NR_ADD;
	case -ENOENT:
		if (nr == KEVENT_IOC_NR_ADD)
			return kind == PATH && has(a, UNMOUNT);
		return !sure;
	case -EBADF:
		return file_goes(a, kind) || a->queues_close;
	case -EIO:
		/* The other end of the pty went just then. */
		return kind == PTY_SLAVE && file_goes(a, kind);
	}
	return false;
}

static int ask_add(int q, enum kind kind, unsigned int slot,
		   struct kevent_request req)
{
	char path[160];

	if (kind != PATH)
		return change(q, KEVENT_IOC_NR_ADD, req);
	watched_path(path, sizeof(path), slot);
	return add_path(q, req.ident, path, req.events, req.flags, req.cookie);
}

static int ask_change(struct member *m, int q, int queue, struct watch *w,
		      unsigned int nr, enum kind kind, unsigned int slot)
{
	uint32_t count = ++w->started;
	struct kevent_request req = request(kinds[kind].type,
					    ident_of(kind, slot),
					    kinds[kind].events,
					    m->arena->flags[kind][slot],
					    cookie_of(kind, slot, count));
	int ret;

	if (kind == TIMER) {
		req.param[0] = rnd_below(&m->rnd, 50000);
		req.param[1] = rnd_below(&m->rnd, 2) ? 0 : 20000;
		req.param[2] = rnd_below(&m->rnd, 2) ? CLOCK_MONOTONIC :
						       CLOCK_BOOTTIME;
	}
	if (TRANSFERS & BIT(kind))
		fill_transfer(&req, queue, kind, slot);
	ret = nr == KEVENT_IOC_NR_ADD ? ask_add(q, kind, slot, req) :
					change(q, nr, req);
	if (!ret)
		++*(nr == KEVENT_IOC_NR_ADD ? &w->adds : &w->modifies);
	w->finished++;
	return ret;
}

static int ask_remove(int q, struct watch *w, enum kind kind, unsigned int slot,
		      uint32_t flags)
{
	/* In this order: if they are equal, no call is under way. */
	uint32_t finished = w->finished, started = w->started, dead = w->dead;
	int ret = remove_kevent(q, kinds[kind].type, ident_of(kind, slot),
				flags);

	if (!ret)
		w->removes++;
	if (flags || (ret && ret != -ENOENT) || finished != started)
		return ret;
	while (dead < started &&
	       !atomic_compare_exchange_weak(&w->dead, &dead, started))
		;
	return ret;
}

int ask(struct member *m, int q, int queue, unsigned int nr, enum kind kind,
	unsigned int slot)
{
	struct arena *a = m->arena;
	struct watch *w = &a->watch[queue][kind][slot];
	uint32_t flags = 0;
	int ret;

	if (nr == KEVENT_IOC_NR_REMOVE) {
		if (m->side < 2 && (FILES & BIT(kind)) &&
		    !rnd_below(&m->rnd, 8))
			flags = KEVENT_STALE;
		ret = ask_remove(q, w, kind, slot, flags);
	} else {
		ret = ask_change(m, q, queue, w, nr, kind, slot);
	}
	/* An open file has nothing stale. */
	if (!is_allowed(a, queue, nr, kind, slot, ret) ||
	    (flags && !ret && !file_goes(a, kind)))
		FAIL("ioctl %u (flags %#x) for slot %u of %s in queue %d gave %d",
		     nr, flags, slot, kinds[kind].name, queue, ret);
	return ret;
}

int take(struct arena *a, struct take *t, int q, int queue, uint32_t min,
	 uint64_t timeout)
{
	unsigned int slot;
	enum kind kind;
	int ret;

	t->queue = queue;
	for (kind = 0; kind < NR_KINDS; kind++)
		for (slot = 0; slot < SLOTS; slot++)
			t->dead[kind][slot] = a->watch[queue][kind][slot].dead;
	t->head = (struct kevent_wait){
		.min = min, .max = TAKE_RECORDS, .timeout = timeout,
		.clock = CLOCK_MONOTONIC,
	};
	ret = ioctl(q, KEVENT_IOC_WAIT(TAKE_RECORDS), &t->head);
	return ret < 0 ? -errno : ret;
}

static void bad_event(const struct take *t, const struct kevent_event *ev,
		      const char *why)
{
	FAIL("queue %d gave an event %s: type %u, ident %llu, cookie %#llx, events %#x, flags %#x, count %u",
	     t->queue, why, ev->type, (unsigned long long)ev->ident,
	     (unsigned long long)ev->cookie, ev->events, ev->flags, ev->count);
}

/* Of the kevents that no fighter removes, and of timers with a single shot. */
static bool check_permanent(struct arena *a, const struct take *t,
			    const struct kevent_event *ev)
{
	if (ev->cookie != ev->ident || t->queue >= QUEUES)
		bad_event(t, ev, "that nobody added");
	if (ev->type == KEVENT_TIMER) {
		if (ev->ident < SINGLE_SHOT || ev->count != 1 ||
		    ev->flags != KEVENT_EVENT_LAST)
			bad_event(t, ev, "that is no single shot");
		a->fired[t->queue]++;
		return false;
	}
	if (ev->type != KEVENT_USER || ev->flags || !ev->count ||
	    (ev->ident != TALLY && ev->ident != BELL))
		bad_event(t, ev, "that nobody posted");
	if (ev->ident == TALLY)
		a->told[t->queue] += ev->count;
	return ev->ident == BELL;
}

/* The last word of a kevent: how may it have ended? */
static void check_end(const struct arena *a, const struct take *t,
		      const struct kevent_event *ev, enum kind kind,
		      uint32_t flags)
{
	if (TRANSFERS & BIT(kind)) {
		if (!(ev->flags & KEVENT_EVENT_BROKEN))
			return;
		if (!file_goes(a, kind) || ev->count != ECANCELED ||
		    !(ev->flags & KEVENT_EVENT_ERROR))
			bad_event(t, ev, "of a close that did not happen");
	} else if (ev->flags & KEVENT_EVENT_BROKEN) {
		if (ev->events || !(ev->flags & KEVENT_EVENT_LAST))
			bad_event(t, ev, "of an end that is none");
		if (!(file_goes(a, kind) &&
		      ((flags & KEVENT_NOTIFY_BROKEN) || kind == PTY_SLAVE)) &&
		    !((NAMES & BIT(kind)) && has(a, UNMOUNT)))
			bad_event(t, ev, "of an end that did not happen");
	} else if (!(flags & KEVENT_ONESHOT)) {
		bad_event(t, ev, "that is no last one");
	}
}

static void check_event(struct arena *a, const struct take *t,
			const struct kevent_event *ev)
{
	enum kind kind = ev->cookie >> 48 & 0xff;
	unsigned int slot = ev->cookie >> 40 & 0xff;
	uint32_t count = (uint32_t)ev->cookie, flags;
	struct watch *w;

	if (kind >= NR_KINDS || slot >= slots_of(kind) ||
	    !(a->kinds & BIT(kind)) || ev->type != kinds[kind].type ||
	    ev->ident != ident_of(kind, slot))
		bad_event(t, ev, "that nobody added");
	w = &a->watch[t->queue][kind][slot];
	flags = a->flags[kind][slot];
	if (count < w->first || count > w->started)
		bad_event(t, ev, "of another round");
	if (count <= t->dead[kind][slot] && !(ev->flags & KEVENT_EVENT_BROKEN))
		bad_event(t, ev, "of a kevent that was removed before");
	if (!ev->count)
		bad_event(t, ev, "that stands for none");
	if (ev->events & ~(kinds[kind].events | KEVENT_SOCKET_ERR |
			   KEVENT_SOCKET_HUP | KEVENT_INODE_ISDIR))
		bad_event(t, ev, "that nobody asked for");
	if (!ev->events && !(ev->flags & (KEVENT_EVENT_BROKEN |
					  KEVENT_EVENT_OVERFLOW)))
		bad_event(t, ev, "without anything in it");
	if (ev->flags & KEVENT_EVENT_LAST) {
		check_end(a, t, ev, kind, flags);
		w->ends++;
	} else if (flags & KEVENT_ONESHOT) {
		bad_event(t, ev, "that does not say it is the last");
	}
	if (kind == USER || (ev->events & KEVENT_INODE_CREATE &&
			     NAMES & BIT(kind)))
		w->heard += ev->count;
	w->told = true;
}

bool check_take(struct arena *a, const struct take *t)
{
	bool bell = false;
	uint32_t i;

	CHECK(t->head.records <= TAKE_RECORDS);
	for (i = 0; i < t->head.records; i++) {
		const struct kevent_event *ev = &t->ev[i];

		if (ev->cookie >> 56 == COOKIE_MARK)
			check_event(a, t, ev);
		else
			bell |= check_permanent(a, t, ev);
		if (ev->flags & KEVENT_EVENT_NAME)
			i += KEVENT_NAME_RECORDS(ev->data);
		a->delivered++;
	}
	return bell;
}

/* Its kevents keep it open, so they live on when it is closed. */
static bool is_pinned(const struct arena *a, enum kind kind)
{
	return a->pinned & kinds[kind].file;
}

static uint32_t pick_flags(const struct arena *a, struct rnd *rnd,
			   enum kind kind)
{
	static const uint32_t modes[] = {
		0, 0, 0, KEVENT_EDGE, KEVENT_ONESHOT, KEVENT_DISPATCH,
		KEVENT_EDGE | KEVENT_ONESHOT, KEVENT_EDGE | KEVENT_DISPATCH,
	};
	uint32_t flags = modes[rnd_below(rnd, ARRAY_SIZE(modes))];

	if (TRANSFERS & BIT(kind)) {
		flags = KEVENT_ONESHOT;
		if (kind == RECV_TRANSFER && rnd_below(rnd, 2))
			flags |= KEVENT_WAITALL;
	}
	if ((FILES & BIT(kind)) && !is_pinned(a, kind) &&
	    !rnd_below(rnd, 3))
		flags |= KEVENT_NOTIFY_BROKEN;
	if (kinds[kind].type == KEVENT_SOCKET && !rnd_below(rnd, 4))
		flags |= KEVENT_BYTES;
	return flags;
}

static void begin_watch(struct arena *a, int queue, enum kind kind,
			unsigned int slot)
{
	struct member *referee = &a->crew[CREW];
	struct watch *w = &a->watch[queue][kind][slot];
	unsigned int absent = has(a, ADD) ? 2 : 8;

	w->finished = w->started;
	w->first = w->started + 1;
	w->adds = 0;
	w->modifies = 0;
	w->removes = 0;
	w->ends = 0;
	w->pokes = 0;
	w->heard = 0;
	w->present = false;
	w->told = false;
	if (queue >= QUEUES || a->transient || !watched_by(kind, queue) ||
	    !(a->kinds & BIT(kind)) || !rnd_below(&referee->rnd, absent))
		return;
	CHECK_EQ(ask(referee, QUEUE_BASE + queue, queue, KEVENT_IOC_NR_ADD,
		     kind, slot), 0);
	w->present = true;
}

void begin_watches(struct arena *a)
{
	struct rnd *rnd = &a->crew[CREW].rnd;
	unsigned int slot;
	enum kind kind;
	int queue;

	for (kind = 0; kind < NR_KINDS; kind++)
		for (slot = 0; slot < slots_of(kind); slot++)
			a->flags[kind][slot] = pick_flags(a, rnd, kind);
	for (queue = 0; queue < ALL_QUEUES; queue++)
		for (kind = 0; kind < NR_KINDS; kind++)
			for (slot = 0; slot < slots_of(kind); slot++)
				begin_watch(a, queue, kind, slot);
	for (queue = 0; queue < QUEUES; queue++) {
		a->posted[queue] = 0;
		a->told[queue] = 0;
		a->shots[queue] = 0;
		a->fired[queue] = 0;
	}
}

/*
 * All is over: what is left is delivered, and nothing of a file that is closed,
 * unless it is pinned, but what an inode had to tell before it was.
 */
static bool check_left(const struct arena *a, const struct take *t)
{
	bool more = t->head.records > TAKE_RECORDS - KEVENT_EVENT_RECORDS;
	uint32_t i;

	for (i = 0; i < t->head.records; i++) {
		const struct kevent_event *ev = &t->ev[i];
		enum kind kind = ev->cookie >> 48 & 0xff;
		unsigned int slot = ev->cookie >> 40 & 0xff;

		if (ev->flags & KEVENT_EVENT_NAME)
			i += KEVENT_NAME_RECORDS(ev->data);
		if (ev->cookie >> 56 != COOKIE_MARK ||
		    !(FILES & BIT(kind)) || kind == INODE)
			more |= kind != TIMER;
		if (ev->cookie >> 56 != COOKIE_MARK || !(FILES & BIT(kind)) ||
		    (ev->flags & KEVENT_EVENT_BROKEN))
			continue;
		if (!is_open(watched_fd(kind, slot)) && !is_pinned(a, kind) &&
		    !(kind == INODE &&
		      (a->flags[kind][slot] & KEVENT_NOTIFY_BROKEN)))
			bad_event(t, ev, "of a file that is closed");
	}
	return more;
}

static void drain(struct arena *a, int queue, uint64_t timeout)
{
	struct take *t = &a->crew[CREW].take;
	unsigned int i;
	int n;

	for (i = 0; i < 1000; i++) {
		n = take(a, t, QUEUE_BASE + queue, queue, timeout ? 1 : 0,
			 timeout);
		CHECK(n >= 0);
		if (check_take(a, t))
			FAIL("the bell rang twice");
		if (!check_left(a, t))
			return;
	}
	FAIL("queue %d does not get empty", queue);
}

/* An event that must come has not come yet: a source may take its time. */
static void insist(struct arena *a, int queue, enum kind kind,
		   unsigned int slot)
{
	struct watch *w = &a->watch[queue][kind][slot];
	uint64_t end = now_ns() + PATIENCE;

	/* Was it there at all?  This changes nothing if it was. */
	if (ask(&a->crew[CREW], QUEUE_BASE + queue, queue, KEVENT_IOC_NR_ADD,
		kind, slot) == 0)
		return;
	while (!w->told) {
		if (now_ns() > end)
			FAIL("slot %u of %s holds, and queue %d does not tell",
			     slot, kinds[kind].name, queue);
		drain(a, queue, 10 * NSEC_PER_MSEC);
	}
}

static void check_conditions(struct arena *a, int queue)
{
	bool held[NR_KINDS][SLOTS] = { { false } };
	unsigned int slot;
	enum kind kind;

	for (kind = 0; kind < NR_KINDS; kind++) {
		for (slot = 0; slot < slots_of(kind); slot++) {
			a->watch[queue][kind][slot].told = false;
			held[kind][slot] = watched_by(kind, queue) &&
				(a->kinds & BIT(kind)) && holds(kind, slot) &&
				!(a->flags[kind][slot] & ~(uint32_t)
				  (KEVENT_NOTIFY_BROKEN | KEVENT_BYTES));
		}
	}
	drain(a, queue, 0);
	for (kind = 0; kind < NR_KINDS; kind++)
		for (slot = 0; slot < slots_of(kind); slot++)
			if (held[kind][slot] &&
			    !a->watch[queue][kind][slot].told)
				insist(a, queue, kind, slot);
}

/* Everything posted, and every single shot, comes in the end. */
static void check_counts(struct arena *a, int queue)
{
	uint64_t end = now_ns() + PATIENCE;

	while (a->fired[queue] != a->shots[queue]) {
		if (now_ns() > end)
			FAIL("queue %d: %u timers set, %u fired", queue,
			     a->shots[queue], a->fired[queue]);
		drain(a, queue, 10 * NSEC_PER_MSEC);
	}
	if (a->posted[queue] != a->told[queue])
		FAIL("queue %d: %u posted, %u delivered", queue,
		     a->posted[queue], a->told[queue]);
}

/*
 * What was added was removed, or told of its end, or is still there.  A REMOVE
 * may meet a last event on its way out, so that both are seen of one kevent; a
 * MODIFY may arm again what is just being delivered as the last.
 */
static void check_balance(struct arena *a, int queue, enum kind kind,
			  unsigned int slot)
{
	struct watch *w = &a->watch[queue][kind][slot];
	/* a transfer always tells of its end */
	bool silent = file_goes(a, kind) && !(TRANSFERS & BIT(kind)) &&
		      !(a->flags[kind][slot] & KEVENT_NOTIFY_BROKEN);
	int fd = watched_fd(kind, slot), q = QUEUE_BASE + queue;
	unsigned int left = 0;

	if (!(FILES & BIT(kind)) || is_open(fd)) {
		/* Not "sure" any more: the fight is over. */
		left = ask_remove(q, w, kind, slot, 0) == 0;
		w->removes -= left;
	} else {
		ask_remove(q, w, kind, slot, KEVENT_STALE);
	}
	if (w->removes + left > w->adds ||
	    (w->ends + left > w->adds && !w->modifies) ||
	    (!silent && w->removes + w->ends + left < w->adds))
		FAIL("slot %u of %s in queue %d: %u added, %u removed, %u told of their end, %u left",
		     slot, kinds[kind].name, queue, w->adds, w->removes,
		     w->ends, left);
	if (!is_sure(a, queue, kind, slot))
		return;
	if (!left)
		FAIL("slot %u of %s has left queue %d", slot, kinds[kind].name,
		     queue);
	if ((kind == USER || NAMES & BIT(kind)) &&
	    !(a->flags[kind][slot] & KEVENT_DISPATCH))
		CHECK_EQ(w->heard, w->pokes);
}

void check_watches(struct arena *a)
{
	unsigned int slot;
	enum kind kind;
	int queue, q;

	for (queue = 0; queue < QUEUES; queue++) {
		q = QUEUE_BASE + queue;
		if (!is_open(q))
			continue;
		check_conditions(a, queue);
		check_counts(a, queue);
		for (kind = 0; kind < NR_KINDS; kind++)
			for (slot = 0; slot < slots_of(kind); slot++)
				if ((a->kinds & BIT(kind)) &&
				    watched_by(kind, queue))
					check_balance(a, queue, kind, slot);
		CHECK_EQ(queue_info(q).kevents, PERMANENT);
		check_silent(q);
	}
}
