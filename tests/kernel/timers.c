// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MODIFY of timers that expire at the same time.
 *
 *	the CPU of main		MODIFY 0, MODIFY 1, ...  ^  ... MODIFY 63
 *						all that are left expire
 *	the others		WAIT, WAIT, WAIT ...
 *
 * Once MODIFY has returned, what is delivered belongs to the new setting: what
 * is delivered of a timer that was put off is nothing, and of one that was set
 * for another time one event, not before that.  The cookie tells the settings
 * apart, and which round they are of.
 *
 * All timers of a round are due at once, somewhere in the middle of the call
 * that modifies them one after the other: so one of them expires while it is
 * being modified, in one round of a few.
 */
#include "lib.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TIMERS		64
#define NEVER		UINT64_MAX
#define HOUR		(3600 * NSEC_PER_SEC)
#define NSEC_PER_USEC	1000ULL
#define WAITERS		2
#define COOKIE_OLD(i)	(2ULL * (i))
#define COOKIE_NEW(i)	(2ULL * (i) + 1)

struct race;

struct waiter {
	struct race *race;
	uint64_t timeout;
	_Atomic unsigned long turns;	/* WAITs that have ended */
};

struct timer {
	uint32_t mode;			/* of the new setting, and when it is */
	_Atomic uint64_t due;
	_Atomic unsigned int fresh;	/* deliveries of the new setting */
	bool alive;			/* it was there to be modified */
};

struct race {
	int q;
	struct rnd rnd;
	_Atomic unsigned int round;
	_Atomic unsigned int stale;	/* deliveries of old settings, in all */
	_Atomic bool settled;		/* none of these comes now */
	_Atomic bool stop;
	uint64_t add_ns;		/* how long the last such call took */
	uint64_t modify_ns;
	struct timer timers[TIMERS];
	struct waiter waiters[WAITERS];
};

struct call {
	struct kevent_batch head;
	struct kevent_request req[TIMERS];
};

static void note(struct race *r, const struct kevent_event *ev, uint64_t now)
{
	struct timer *t = &r->timers[ev->ident];

	CHECK(ev->ident < TIMERS);
	CHECK_EQ(ev->events, KEVENT_TIMER_FIRED);
	CHECK_EQ(ev->count, ev->data);
	if (ev->cookie == COOKIE_OLD(r->round)) {
		if (r->settled)
			FAIL("an old setting is delivered after MODIFY");
		r->stale++;
		return;
	}
	CHECK_EQ(ev->cookie, COOKIE_NEW(r->round));
	if (t->due == NEVER)
		FAIL("timer %llu is delivered although it was put off",
		     (unsigned long long)ev->ident);
	if (now < t->due)
		FAIL("timer %llu is delivered %llu ns before its time",
		     (unsigned long long)ev->ident,
		     (unsigned long long)(t->due - now));
	CHECK_EQ(ev->data, 1);
	t->fresh++;
}

static void *wait_all_along(void *arg)
{
	struct waiter *w = arg;
	struct race *r = w->race;
	struct kevent_event ev[TIMERS];

	while (!r->stop) {
		int i, nr = wait_events(r->q, ev, TIMERS, 1, w->timeout);
		uint64_t now = now_ns();

		CHECK(nr >= 0);
		for (i = 0; i < nr; i++)
			note(r, &ev[i], now);
		w->turns++;
	}
	return NULL;
}

/* Until each waiter has ended @nr WAITs from here on, the first under way. */
static void until_waits_have_ended(struct race *r, unsigned int nr)
{
	uint64_t end = now_ns() + PATIENCE;
	unsigned long turns[WAITERS];
	unsigned int i;

	for (i = 0; i < WAITERS; i++)
		turns[i] = r->waiters[i].turns;
	for (i = 0; i < WAITERS; i++) {
		while (r->waiters[i].turns < turns[i] + nr) {
			CHECK(now_ns() < end);
			sched_yield();
		}
	}
}

static uint32_t any_mode(struct race *r)
{
	static const uint32_t modes[] = {
		0, KEVENT_EDGE, KEVENT_ONESHOT, KEVENT_DISPATCH,
	};

	return modes[rnd_below(&r->rnd, ARRAY_SIZE(modes))];
}

/* All of @call at once: how long it took. */
static uint64_t change_all(struct race *r, unsigned int op, struct call *call)
{
	uint64_t begin = now_ns();

	call->head = (struct kevent_batch){ .count = TIMERS };
	SYS(ioctl(r->q, KEVENT_IOC_BATCH(op, TIMERS), call));
	return now_ns() - begin;
}

/* Due in the middle of the MODIFY that follows; some go on as fast as they can. */
static void add_all(struct race *r)
{
	static struct call call;
	uint64_t interval = 0, due;
	unsigned int i;

	switch (rnd_below(&r->rnd, 6)) {
	case 0:
		interval = 1;
		break;
	case 1:
		interval = 50 * NSEC_PER_USEC;
		break;
	}
	due = now_ns() + r->add_ns + rnd_below(&r->rnd, (uint32_t)r->modify_ns);
	for (i = 0; i < TIMERS; i++)
		call.req[i] = timer_request(i, due, interval,
					    any_mode(r) | KEVENT_ABSTIME,
					    COOKIE_OLD(r->round));
	r->add_ns = change_all(r, KEVENT_OP_ADD, &call);
	for (i = 0; i < TIMERS; i++)
		CHECK_EQ(call.req[i].result, 0);
}

/* One that was one-shot may have been delivered, and be gone. */
static void modify_all(struct race *r)
{
	static struct call call;
	unsigned int i;

	for (i = 0; i < TIMERS; i++) {
		struct timer *t = &r->timers[i];
		uint64_t due = t->due == NEVER ? now_ns() + HOUR : t->due;

		call.req[i] = timer_request(i, due, 0, t->mode | KEVENT_ABSTIME,
					    COOKIE_NEW(r->round));
	}
	r->modify_ns = change_all(r, KEVENT_OP_MODIFY, &call);
	for (i = 0; i < TIMERS; i++) {
		r->timers[i].alive = !call.req[i].result;
		if (call.req[i].result)
			CHECK_EQ(call.req[i].result, -ENOENT);
	}
	until_waits_have_ended(r, 1);
	r->settled = true;
}

static void remove_all(struct race *r, bool delivered)
{
	static struct call call;
	unsigned int i;

	for (i = 0; i < TIMERS; i++)
		call.req[i] = request(KEVENT_TIMER, i, 0, 0, 0);
	change_all(r, KEVENT_OP_REMOVE, &call);
	for (i = 0; i < TIMERS; i++) {
		const struct timer *t = &r->timers[i];
		bool ended = delivered && t->mode == KEVENT_ONESHOT;

		CHECK_EQ(call.req[i].result,
			 t->alive && !ended ? 0 : -ENOENT);
	}
}

/* One after the other until each that is alive was delivered, where it is to be. */
static void check_all(struct race *r, bool delivered)
{
	uint64_t end = now_ns() + PATIENCE;
	unsigned int i;

	for (i = 0; delivered && i < TIMERS; i++) {
		const struct timer *t = &r->timers[i];

		while (t->alive && !t->fresh) {
			if (now_ns() > end)
				FAIL("timer %u is never delivered", i);
			sched_yield();
		}
	}
	until_waits_have_ended(r, 2);
	for (i = 0; i < TIMERS; i++)
		CHECK_EQ(r->timers[i].fresh, delivered && r->timers[i].alive);
	CHECK_EQ(queue_info(r->q).ready, 0);
}

static void one_round(struct race *r, bool delivered)
{
	uint64_t from;
	unsigned int i;

	r->settled = false;
	add_all(r);
	from = now_ns();
	for (i = 0; i < TIMERS; i++) {
		struct timer *t = &r->timers[i];

		t->fresh = 0;
		t->mode = any_mode(r);
		t->due = delivered ? from + rnd_below(&r->rnd, 500) *
			 NSEC_PER_USEC : NEVER;
	}
	modify_all(r);
	check_all(r, delivered);
	remove_all(r, delivered);
	until_waits_have_ended(r, 1);
}

static void race_expiries(bool delivered)
{
	static const uint64_t timeouts[WAITERS] = { 0, 300 * NSEC_PER_USEC };
	static struct race r;
	unsigned int i, t, alive = 0, total = rounds(1000);
	pthread_t threads[WAITERS];

	r.q = queue_open();
	need_feature(r.q, KEVENT_FEATURE_TIMER);
	r.rnd = rnd_stream(0);
	r.add_ns = NSEC_PER_MSEC;
	r.modify_ns = NSEC_PER_MSEC;
	for (i = 0; i < WAITERS; i++) {
		r.waiters[i] = (struct waiter){
			.race = &r, .timeout = timeouts[i],
		};
		threads[i] = thread_start(wait_all_along, &r.waiters[i]);
	}
	for (i = 0; i < total; i++) {
		test_context("round %u", i);
		r.round = i;
		one_round(&r, delivered);
		for (t = 0; t < TIMERS; t++)
			alive += r.timers[t].alive;
	}
	r.stop = true;
	for (i = 0; i < WAITERS; i++)
		thread_join(threads[i]);
	dprintf(STDERR_FILENO, "%u of %u timers modified, %u deliveries before\n",
		alive, total * TIMERS, r.stale);
	/* some in time and some not, or nothing raced */
	CHECK(alive && r.stale);
	close(r.q);
}

static void timers_that_are_put_off_as_they_expire_are_not_delivered(void)
{
	race_expiries(false);
}

static void timers_that_are_set_anew_as_they_expire_come_once_and_in_time(void)
{
	race_expiries(true);
}

static const struct test_case cases[] = {
	LONG_TEST(timers_that_are_put_off_as_they_expire_are_not_delivered, 180),
	LONG_TEST(timers_that_are_set_anew_as_they_expire_come_once_and_in_time, 180),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
