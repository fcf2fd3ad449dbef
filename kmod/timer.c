// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_TIMER: once, periodic, or at a point in time.
 *
 * A periodic timer that has expired is set again only when its expiries are
 * delivered, which counts those that have passed meanwhile: a short interval
 * costs its owner, not the machine.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>

#include "compat.h"
#include "kevent.h"

/**
 * struct kevent_timer - a kevent of the passing of time
 * @kevent:	the kevent
 * @timer:	set, or expired and waiting to be set again
 * @interval:	0: once; this and the following under the queue's lock
 * @expiries:	not delivered yet
 * @peeked:	how many of them the delivery under way reports
 * @stopped:	being modified: an expiry of before comes too late
 */
struct kevent_timer {
	struct kevent kevent;
	struct hrtimer timer;
	ktime_t interval;
	u64 expiries;
	u64 peeked;
	bool stopped;
};

static struct kevent_timer *to_kevent_timer(struct kevent *k)
{
	return container_of(k, struct kevent_timer, kevent);
}

/* Expiries that have passed since the timer was last set. */
static void kevent_timer_forward(struct kevent_timer *t)
{
	if (t->interval && !hrtimer_is_queued(&t->timer))
		t->expiries += hrtimer_forward_now(&t->timer, t->interval);
}

/* True where the caller has to call kevent_wake_pollers(). */
static bool kevent_timer_expired_locked(struct kevent_timer *t)
{
	kevent_timer_forward(t);
	/* it has no interval, or its clock was set back since it was due */
	if (!t->expiries)
		t->expiries = 1;
	return kevent_ready_locked(&t->kevent);
}

static enum hrtimer_restart kevent_timer_expire(struct hrtimer *timer)
{
	struct kevent_timer *t = container_of(timer, struct kevent_timer, timer);
	struct kevent_user *user = t->kevent.user;
	unsigned long flags;
	bool wake = false;

	spin_lock_irqsave(&user->lock, flags);
	if (!t->stopped)
		wake = kevent_timer_expired_locked(t);
	spin_unlock_irqrestore(&user->lock, flags);
	if (wake)
		kevent_wake_pollers(user, true);
	return HRTIMER_NORESTART;
}

/* When the first expiry is due: 0 or -errno. */
static int kevent_timer_due(const struct kevent_request *req, ktime_t *expires,
			    clockid_t *base)
{
	return kevent_time(req->param[0], req->param[2],
			   req->flags & KEVENT_ABSTIME, expires, base);
}

static int kevent_timer_check(const struct kevent_request *req)
{
	clockid_t base;
	ktime_t expires;

	if (req->param[1] > KTIME_MAX || req->param[2] > U32_MAX)
		return -EINVAL;
	return kevent_timer_due(req, &expires, &base);
}

/*
 * Starts the timer, which is not running.  If it is due by now the next WAIT
 * finds it, and does not have to hope that the interrupt comes first.
 */
static void kevent_timer_start(struct kevent_timer *t, ktime_t expires,
			       clockid_t base, ktime_t interval)
{
	struct kevent_user *user = t->kevent.user;
	bool wake = false;

	spin_lock_irq(&user->lock);
	/* whoever looks at it holds the lock, and nobody has it set */
	kevent_timer_setup(&t->timer, base, kevent_timer_expire);
	t->interval = interval;
	t->expiries = 0;
	t->peeked = 0;
	t->stopped = false;
	hrtimer_set_expires(&t->timer, expires);
	if (hrtimer_expires_remaining(&t->timer) <= 0)
		wake = kevent_timer_expired_locked(t);
	else
		hrtimer_start_expires(&t->timer, HRTIMER_MODE_ABS);
	spin_unlock_irq(&user->lock);
	if (wake)
		kevent_wake_pollers(user, false);
}

static int kevent_timer_enqueue(struct kevent *k,
				const struct kevent_request *req,
				const struct kevent_target *target)
{
	struct kevent_timer *t = to_kevent_timer(k);
	clockid_t base;
	ktime_t expires;
	int ret;

	kevent_timer_setup(&t->timer, CLOCK_MONOTONIC, kevent_timer_expire);
	ret = kevent_timer_due(req, &expires, &base);
	if (!ret)
		kevent_timer_start(t, expires, base, req->param[1]);
	return ret;
}

static int kevent_timer_modify(struct kevent *k,
			       const struct kevent_request *req,
			       const struct kevent_target *target)
{
	struct kevent_timer *t = to_kevent_timer(k);
	clockid_t base;
	ktime_t expires;
	bool alive;
	int ret;

	/* once, and before anything is changed: now it can still fail */
	ret = kevent_timer_due(req, &expires, &base);
	if (ret)
		return ret;
	spin_lock_irq(&k->user->lock);
	alive = kevent_modify_locked(k, req);
	if (alive) {
		t->stopped = true;
		/* nor is a delivery under way to set it again */
		t->interval = 0;
		t->expiries = 0;
		t->peeked = 0;
		kevent_forget_locked(k);
		k->state &= ~KEVENT_AGAIN;
	}
	spin_unlock_irq(&k->user->lock);
	if (!alive)
		return -ENOENT;
	hrtimer_cancel(&t->timer);
	/* a delivery under way may have thought that more had expired */
	spin_lock_irq(&k->user->lock);
	kevent_forget_locked(k);
	k->state &= ~KEVENT_AGAIN;
	spin_unlock_irq(&k->user->lock);
	kevent_timer_start(t, expires, base, req->param[1]);
	return 0;
}

static void kevent_timer_dequeue(struct kevent *k)
{
	hrtimer_cancel(&to_kevent_timer(k)->timer);
}

static void kevent_timer_peek(struct kevent *k, struct kevent_item *item,
			      struct kevent_event *event, const char **name)
{
	struct kevent_timer *t = to_kevent_timer(k);

	kevent_timer_forward(t);
	t->peeked = t->expiries;
	event->events = KEVENT_TIMER_FIRED;
	event->data = t->expiries;
	event->count = min_t(u64, t->expiries, U32_MAX);
}

static bool kevent_timer_consume(struct kevent *k, struct kevent_item *item,
				 const struct kevent_event *event)
{
	struct kevent_timer *t = to_kevent_timer(k);

	t->expiries -= t->peeked;
	if (t->peeked && t->interval && !hrtimer_is_queued(&t->timer))
		hrtimer_start_expires(&t->timer, HRTIMER_MODE_ABS);
	t->peeked = 0;
	return t->expiries;
}

const struct kevent_ops kevent_timer_ops = {
	.name		= "timer",
	.cache		= "kevent_timer",
	.type		= KEVENT_TIMER,
	.size		= sizeof(struct kevent_timer),
	.events		= KEVENT_TIMER_FIRED,
	.exact		= true,
	.flags		= KEVENT_ABSTIME,
	.check		= kevent_timer_check,
	.enqueue	= kevent_timer_enqueue,
	.modify		= kevent_timer_modify,
	.dequeue	= kevent_timer_dequeue,
	.peek		= kevent_timer_peek,
	.consume	= kevent_timer_consume,
};
