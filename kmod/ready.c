// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ready list: how kevents get on it, who is woken, and how events leave
 * it.  See the top of queue.c for the locks and the states.
 *
 * A delivery claims items, which takes them off the ready list, asks their
 * sources without any lock held, lets the device copy the events out, and only
 * then decides what becomes of each kevent.  A claimed kevent cannot be freed,
 * is with one waiter only, and remembers in KEVENT_AGAIN what happens to it
 * meanwhile.  What could not be copied goes back to the head of the list.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

#include "bug.h"
#include "compat.h"
#include "kevent.h"

/* A thread in kevent_wait(); on its stack, under the queue's lock. */
struct kevent_waiter {
	struct list_head list;
	struct task_struct *task;
	unsigned long min;
};

static inline bool kevent_is_own(const struct kevent_item *item)
{
	return item == &item->kevent->item;
}

/*
 * Wakes the first waiter that has not been woken and whose wish can be met.
 * Where there is none it is known how many events the next one will take, so
 * that not everything that happens looks at all who sleep.
 */
static void kevent_wake_one_locked(struct kevent_user *user)
{
	unsigned long least = ULONG_MAX;
	struct kevent_waiter *w;

	if (user->ready < user->least)
		return;
	list_for_each_entry(w, &user->waiters, list) {
		if (user->ready < w->min) {
			least = min(least, w->min);
			continue;
		}
		list_del_init(&w->list);
		wake_up_process(w->task);
		return;
	}
	user->least = least;
}

/**
 * kevent_wake_pollers - tell those who poll the queue's descriptor
 * @user:	the queue
 * @defer:	leave it to an interrupt of its own: the caller may have been
 *		called by somebody who polls this very queue, or be one of many
 *		called under the same lock
 */
void kevent_wake_pollers(struct kevent_user *user, bool defer)
{
	/*
	 * Whoever polls adds itself first and takes the queue's lock to look
	 * afterwards; the caller has held that lock since it made a change.
	 */
	if (!waitqueue_active(&user->poll_wait))
		return;
	if (defer)
		irq_work_queue(&user->poll_work);
	else
		wake_up_poll(&user->poll_wait, EPOLLIN | EPOLLRDNORM);
}

/**
 * kevent_ready_locked - enqueue a kevent at the end of its queue's ready list
 * @k:		the kevent; its queue's lock is held
 *
 * At most once: one that is there already stays where it is, and one that is
 * being delivered is enqueued again afterwards.
 *
 * Return: true where the caller has to call kevent_wake_pollers()
 */
bool kevent_ready_locked(struct kevent *k)
{
	struct kevent_user *user = k->user;

	if (k->state & (KEVENT_DEAD | KEVENT_REMOVED | KEVENT_ASLEEP |
			KEVENT_READY))
		return false;
	if (k->item.claimed || (k->state & KEVENT_NEW)) {
		k->state |= KEVENT_AGAIN;
		return false;
	}
	k->state |= KEVENT_READY;
	list_add_tail(&k->item.list, &user->ready_list);
	user->ready++;
	if (!list_empty(&user->waiters))
		kevent_wake_one_locked(user);
	return true;
}

/**
 * kevent_ready - a source's callback: something happened; in any context
 * @k:		the kevent
 */
void kevent_ready(struct kevent *k)
{
	struct kevent_user *user = k->user;
	unsigned long flags;
	bool wake;

	spin_lock_irqsave(&user->lock, flags);
	wake = kevent_ready_locked(k);
	if (kevent_has_bug(KEVENT_BUG_ORDER) && wake)
		kevent_wake_pollers(user, false);
	spin_unlock_irqrestore(&user->lock, flags);
	/* under a provider's lock, which may call many kevents of this queue */
	if (wake)
		kevent_wake_pollers(user, true);
}

/**
 * kevent_item_ready_locked - enqueue one of many occurrences
 * @k:		the kevent; its queue's lock is held
 * @item:	the occurrence, on no list
 *
 * Return: true where the caller has to call kevent_wake_pollers()
 */
bool kevent_item_ready_locked(struct kevent *k, struct kevent_item *item)
{
	struct kevent_user *user = k->user;

	if (k->state & (KEVENT_DEAD | KEVENT_REMOVED | KEVENT_ASLEEP))
		return false;
	list_add_tail(&item->list, &user->ready_list);
	user->ready++;
	if (!list_empty(&user->waiters))
		kevent_wake_one_locked(user);
	return true;
}

/**
 * kevent_item_park_locked - take one of many occurrences off the ready list
 * @k:		the kevent; its queue's lock is held
 * @item:	the occurrence, on the ready list
 */
void kevent_item_park_locked(struct kevent *k, struct kevent_item *item)
{
	list_del_init(&item->list);
	k->user->ready--;
}

/**
 * kevent_forget_locked - take all that a kevent has off the ready list
 * @k:		the kevent; its queue's lock is held
 */
void kevent_forget_locked(struct kevent *k)
{
	if (k->state & KEVENT_READY) {
		k->state &= ~KEVENT_READY;
		kevent_item_park_locked(k, &k->item);
	}
	if (k->ops->park)
		k->ops->park(k, true);
}

/* The end of a kevent, but for the parts that need the queue's mutex. */
static void kevent_kill_locked(struct kevent *k)
{
	if (k->state & (KEVENT_DEAD | KEVENT_REMOVED))
		return;
	k->state |= KEVENT_DEAD;
	kevent_forget_locked(k);
	list_add_tail(&k->dead_node, &k->user->dead);
	k->user->nr_dead++;
}

/**
 * kevent_closed - the storage of a kevent is gone
 * @k:		the kevent, which no callback of the storage will touch again
 * @report:	tell of it even if it was not asked for by KEVENT_NOTIFY_BROKEN
 *
 * Any context.  The caller holds the lock that kevent_ops.dequeue takes, so the
 * kevent does not go away under it.
 */
void kevent_closed(struct kevent *k, bool report)
{
	struct kevent_user *user = k->user;
	bool wake = false, before = false;
	unsigned long flags;

	spin_lock_irqsave(&user->lock, flags);
	if (report || (k->flags & KEVENT_NOTIFY_BROKEN)) {
		k->state |= KEVENT_BROKEN;
		k->state &= ~KEVENT_ASLEEP;
		/* first what happened before that; one-shot, nothing else */
		if (k->ops->park)
			before = k->ops->park(k, false);
		if (!before || !(k->flags & KEVENT_ONESHOT))
			wake = kevent_ready_locked(k);
		wake |= before;
	} else {
		kevent_kill_locked(k);
	}
	spin_unlock_irqrestore(&user->lock, flags);
	if (wake)
		kevent_wake_pollers(user, true);
}

static inline void kevent_claim_locked(struct kevent_item *item)
{
	struct kevent *k = item->kevent;

	kevent_item_park_locked(k, item);
	item->claimed = true;
	k->claims++;
	k->user->claims++;
	if (kevent_is_own(item))
		k->state &= ~KEVENT_READY;
}

/*
 * Gives up a claim.  True where the kevent lives on, else it is none of the
 * caller's business any more, and was put on @orphans if that is for the
 * caller to free.
 */
static inline bool kevent_unclaim_locked(struct kevent_item *item,
					 struct list_head *orphans)
{
	struct kevent *k = item->kevent;

	item->claimed = false;
	item->offered = false;
	k->claims--;
	k->user->claims--;
	if (k->state & KEVENT_REMOVED) {
		if (!k->claims && (k->state & KEVENT_ORPHAN))
			list_add(&k->dead_node, orphans);
		return false;
	}
	return !(k->state & KEVENT_DEAD);
}

/* Claimed for something that a MODIFY since then has put an end to? */
static bool kevent_is_outdated(const struct kevent_item *item)
{
	return kevent_is_own(item) &&
	       (item->kevent->state & (KEVENT_MODIFIED | KEVENT_AGAIN |
				       KEVENT_BROKEN)) == KEVENT_MODIFIED;
}

/* There was nothing because everything was claimed, and now there is something. */
static bool kevent_missed_locked(struct kevent_user *user)
{
	if (!user->missed || !user->ready)
		return false;
	user->missed = false;
	return true;
}

/* Back to the head of the ready list, as if it had never been claimed. */
static void kevent_put_back_locked(struct kevent_item *item,
				   struct list_head *orphans)
{
	struct kevent *k = item->kevent;
	struct kevent_user *user = k->user;
	bool own = kevent_is_own(item);
	bool outdated = kevent_is_outdated(item);

	if (!kevent_unclaim_locked(item, orphans))
		return;
	if (!k->claims)
		k->state &= ~KEVENT_MODIFIED;
	if (own)
		k->state &= ~KEVENT_AGAIN;
	if (outdated || (k->state & KEVENT_ASLEEP))
		return;
	list_add(&item->list, &user->ready_list);
	user->ready++;
	if (own)
		k->state |= KEVENT_READY;
}

static void kevent_put_back_all_locked(struct list_head *claimed,
				       struct list_head *orphans)
{
	struct kevent_item *item, *prev;

	list_for_each_entry_safe_reverse(item, prev, claimed, list) {
		list_del_init(&item->list);
		kevent_put_back_locked(item, orphans);
	}
}

static void kevent_free_orphans(struct list_head *orphans)
{
	struct kevent *k, *next;

	list_for_each_entry_safe(k, next, orphans, dead_node)
		kevent_free(k);
	INIT_LIST_HEAD(orphans);
}

/* The next item to deliver, claimed, or NULL. */
static struct kevent_item *kevent_take_locked(struct kevent_delivery *d)
{
	struct kevent_item *item;

	while (unlikely(!list_empty(&d->claimed))) {
		item = list_first_entry(&d->claimed, struct kevent_item, list);
		list_del_init(&item->list);
		if (!kevent_is_outdated(item))
			return item;
		kevent_put_back_locked(item, &d->orphans);
	}
	if (list_empty(&d->user->ready_list))
		return NULL;
	item = list_first_entry(&d->user->ready_list, struct kevent_item, list);
	/* dealt with by this call or a later one, as is all that follows */
	if (item->kevent->round >= d->round && kevent_is_own(item))
		return NULL;
	kevent_claim_locked(item);
	return item;
}

/*
 * Fills in the next event from @item.  What the kevent is like is read here,
 * under the lock; whether it is to be delivered at all may have to be asked
 * for later, without.
 */
static void kevent_fill_locked(struct kevent_delivery *d,
			       struct kevent_item *item)
{
	struct kevent_event *event = &d->event[d->nr];
	struct kevent *k = item->kevent;
	bool own = kevent_is_own(item);

	event->cookie = k->cookie;
	event->ident = k->ident;
	event->data = 0;
	event->count = 1;
	event->events = 0;
	event->type = k->ops->type;
	event->flags = k->flags & KEVENT_ONESHOT ? KEVENT_EVENT_LAST : 0;
	d->name[d->nr] = NULL;
	d->item[d->nr] = item;
	item->offered = true;
	/* settled as it is now: a MODIFY from here on gives it another life */
	if (own)
		k->state &= ~KEVENT_MODIFIED;
	if (own && (k->state & KEVENT_BROKEN))
		event->flags = KEVENT_EVENT_BROKEN | KEVENT_EVENT_LAST;
	else if (k->ops->peek)
		k->ops->peek(k, item, event, &d->name[d->nr]);
	d->nr++;
}

/*
 * A condition that did not hold any more.  Also the way in which a socket is
 * found that was closed without a word.
 */
static void kevent_stale_locked(struct kevent_item *item,
				struct list_head *orphans)
{
	struct kevent *k = item->kevent;
	u32 again = k->state & (KEVENT_AGAIN | KEVENT_BROKEN);

	k->state &= ~(KEVENT_AGAIN | KEVENT_MODIFIED);
	if (!kevent_unclaim_locked(item, orphans))
		return;
	if (k->ops->gone && k->ops->gone(k))
		kevent_kill_locked(k);
	else if (again && kevent_ready_locked(k))
		k->user->missed = true;
}

/*
 * Whether there is an event of what has just said that there is none: it would be
 * enqueued behind those that came after it.
 */
static bool kevent_has_come_locked(const struct kevent *k)
{
	return k->ops->has_event && k->ops->has_event(k);
}

/* Asks a source whose events are conditions; false where none holds. */
static bool kevent_check_one(struct kevent_delivery *d, unsigned int i)
{
	struct kevent_event *event = &d->event[i];
	struct kevent *k = d->item[i]->kevent;

	for (;;) {
		event->events = k->ops->poll(k, event, &d->budget);
		if (event->events)
			return true;
		spin_lock_irq(&d->user->lock);
		if (!kevent_has_come_locked(k))
			break;
		spin_unlock_irq(&d->user->lock);
	}
	k->round = d->round;
	kevent_stale_locked(d->item[i], &d->orphans);
	spin_unlock_irq(&d->user->lock);
	return false;
}

/* Asks the sources whose events are conditions; drops what does not hold. */
static void kevent_check_batch(struct kevent_delivery *d)
{
	unsigned int i, kept = 0;

	for (i = 0; i < d->nr; i++) {
		if (d->item[i]->kevent->ops->poll &&
		    !(d->event[i].flags & KEVENT_EVENT_BROKEN) &&
		    !kevent_check_one(d, i))
			continue;
		if (kept != i) {
			d->event[kept] = d->event[i];
			d->name[kept] = d->name[i];
			d->item[kept] = d->item[i];
		}
		kept++;
	}
	d->nr = kept;
}

/**
 * kevent_delivery_next - claim a batch of events
 * @d:		the delivery
 * @max:	no more than so many
 *
 * Return: how many there are in @d to be copied; 0 where nothing is ready.
 * kevent_delivery_done() has to be called before the next batch.
 */
unsigned int kevent_delivery_next(struct kevent_delivery *d, size_t max)
{
	struct kevent_user *user = d->user;

	max = min_t(size_t, max, KEVENT_DELIVERY_BATCH);
	for (;;) {
		d->nr = 0;
		spin_lock_irq(&user->lock);
		if (!d->round)
			d->round = ++user->round;
		while (d->nr < max) {
			struct kevent_item *item;

			item = kevent_take_locked(d);
			if (!item)
				break;
			kevent_fill_locked(d, item);
		}
		d->more = d->nr == max;
		spin_unlock_irq(&user->lock);
		if (!d->nr)
			break;
		kevent_check_batch(d);
		if (d->nr)
			break;
		kevent_free_orphans(&d->orphans);
		cond_resched();
	}
	return d->nr;
}

/*
 * What becomes of a kevent that is not claimed any more, whose own item was
 * delivered.  @state is what it was like while it was.
 */
static void kevent_requeue_locked(struct kevent_delivery *d, struct kevent *k,
				  u32 state)
{
	u32 fresh = state & (KEVENT_AGAIN | KEVENT_BROKEN);

	k->state &= ~(KEVENT_AGAIN | KEVENT_MODIFIED);
	if (!(state & KEVENT_MODIFIED)) {
		if (k->flags & KEVENT_ONESHOT) {
			kevent_kill_locked(k);
			return;
		}
		/* a close since then is still to be told */
		if ((k->flags & KEVENT_DISPATCH) && !(state & KEVENT_BROKEN))
			k->state |= KEVENT_ASLEEP;
	}
	if (k->state & KEVENT_ASLEEP)
		return;
	if (!fresh && (k->ops->consume || (k->flags & KEVENT_EDGE)))
		return;
	if (fresh)
		d->again = true;
	k->state |= KEVENT_READY;
	list_add_tail(&k->item.list, &d->user->ready_list);
	d->user->ready++;
}

/* The same, where it was one of many occurrences, which is used up. */
static void kevent_used_up_locked(struct kevent *k)
{
	if (k->state & KEVENT_MODIFIED) {
		if (!k->claims)
			k->state &= ~KEVENT_MODIFIED;
		k->ops->park(k, false);
	} else if (k->flags & KEVENT_ONESHOT) {
		kevent_kill_locked(k);
	} else if ((k->flags & KEVENT_DISPATCH) && !(k->state & KEVENT_BROKEN)) {
		k->state |= KEVENT_ASLEEP;
	}
}

/* An event has been handed over. */
static void kevent_delivered_locked(struct kevent_delivery *d, unsigned int i)
{
	struct kevent_item *item = d->item[i];
	struct kevent *k = item->kevent;
	bool alive = kevent_unclaim_locked(item, &d->orphans);

	if (!kevent_is_own(item)) {
		k->ops->consume(k, item, &d->event[i]);
		if (alive)
			kevent_used_up_locked(k);
		return;
	}
	if (!alive)
		return;
	if (d->event[i].flags & KEVENT_EVENT_BROKEN) {
		kevent_kill_locked(k);
		return;
	}
	if (k->ops->consume) {
		/* all that had happened was in the event */
		if (k->ops->peek)
			k->state &= ~KEVENT_AGAIN;
		if (k->ops->consume(k, item, &d->event[i]))
			k->state |= KEVENT_AGAIN;
	}
	k->round = d->round;
	kevent_requeue_locked(d, k, k->state);
}

/* A batch of which @nr were copied; the others stay queued, in their order. */
static inline void kevent_batch_done_locked(struct kevent_delivery *d,
					    unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		kevent_delivered_locked(d, i);
	/* kevent_delivery_end() puts them back, and those after them */
	for (i = d->nr; i > nr; i--)
		list_add(&d->item[i - 1]->list, &d->claimed);
	d->nr = 0;
}

/**
 * kevent_is_empty - whether a WAIT that does not wait has nothing to look at
 * @user:	the queue
 *
 * What others have claimed and put back may be news to nobody: those who poll
 * are told once more.
 *
 * Return: true where nothing is ready
 */
bool kevent_is_empty(struct kevent_user *user)
{
	bool empty;

	if (READ_ONCE(user->ready))
		return false;
	spin_lock_irq(&user->lock);
	empty = !user->ready;
	user->missed |= empty && user->claims;
	spin_unlock_irq(&user->lock);
	return empty;
}

/**
 * kevent_delivery_done - a batch has been copied, and there may be another
 * @d:		the delivery
 * @nr:		how many of the batch, at least one; the others stay queued
 *
 * Level-triggered kevents join the end of the ready list again, marked so that
 * this delivery does not report them twice.
 */
void kevent_delivery_done(struct kevent_delivery *d, unsigned int nr)
{
	spin_lock_irq(&d->user->lock);
	kevent_batch_done_locked(d, nr);
	spin_unlock_irq(&d->user->lock);
	kevent_free_orphans(&d->orphans);
}

/**
 * kevent_delivery_end - finish delivering
 * @d:		the delivery
 * @nr:		how many of the batch in hand were copied, if there is one
 *
 * Whoever leaves with work still queued, also level-triggered kevents of its
 * own, passes the wake-up on.
 *
 * Return: how many events are ready in the queue now
 */
unsigned long kevent_delivery_end(struct kevent_delivery *d, unsigned int nr)
{
	struct kevent_user *user = d->user;
	unsigned long left;
	bool dead, missed;

	spin_lock_irq(&user->lock);
	kevent_batch_done_locked(d, nr);
	if (unlikely(!list_empty(&d->claimed)))
		kevent_put_back_all_locked(&d->claimed, &d->orphans);
	if (user->ready && !list_empty(&user->waiters) &&
	    !kevent_has_bug(KEVENT_BUG_WAKEUP))
		kevent_wake_one_locked(user);
	left = user->ready;
	dead = user->nr_dead;
	/* what others had claimed may have come back after we looked */
	if (!nr)
		user->missed |= user->claims || user->ready;
	missed = kevent_missed_locked(user);
	spin_unlock_irq(&user->lock);

	if (missed || d->again)
		kevent_wake_pollers(user, false);
	kevent_free_orphans(&d->orphans);
	/* where somebody else has the mutex, they or the next one will reap */
	if (dead && mutex_trylock(&user->mutex)) {
		kevent_reap(user);
		mutex_unlock(&user->mutex);
	}
	return left;
}

static bool kevent_must_ask(const struct kevent_item *item)
{
	const struct kevent *k = item->kevent;

	return k->ops->poll && !(k->state & KEVENT_BROKEN);
}

/* Does the condition that @k was enqueued for still hold? */
static bool kevent_holds(struct kevent *k, unsigned int depth, size_t *budget)
{
	if (depth && k->nested)
		return kevent_nested_holds(k, depth);
	if (!depth && k->ops->advance)
		return k->ops->advance(k, budget);
	return k->ops->poll(k, NULL, budget);
}

/*
 * Drops from the ready list what does not hold any more, until @want are known
 * to hold.  Those stay claimed, in @good, where there are as many, and else go
 * back.  See kevent_has_ready() for @depth.
 */
static bool kevent_settle(struct kevent_user *user, unsigned long want,
			  unsigned int depth, size_t *budget,
			  struct list_head *good)
{
	unsigned long found = 0, turns;
	LIST_HEAD(orphans);
	bool missed;

	spin_lock_irq(&user->lock);
	/* what joins the list from now on is for the next time */
	turns = user->ready;
	while (found < want && turns-- && !list_empty(&user->ready_list)) {
		struct kevent_item *item;
		bool holds = true;

		item = list_first_entry(&user->ready_list, struct kevent_item,
					list);
		kevent_claim_locked(item);
		if (kevent_must_ask(item)) {
			spin_unlock_irq(&user->lock);
			holds = kevent_holds(item->kevent, depth, budget);
			cond_resched();
			spin_lock_irq(&user->lock);
			holds = holds || kevent_has_come_locked(item->kevent);
		}
		if (holds) {
			list_add_tail(&item->list, good);
			found++;
		} else {
			kevent_stale_locked(item, &orphans);
		}
	}
	if (found < want || depth)
		kevent_put_back_all_locked(good, &orphans);
	/* others may have gone to sleep over what was claimed meanwhile */
	if (user->ready)
		kevent_wake_one_locked(user);
	missed = kevent_missed_locked(user);
	if (depth && !found && user->claims)
		user->missed = true;
	spin_unlock_irq(&user->lock);
	if (missed)
		kevent_wake_pollers(user, depth);
	kevent_free_orphans(&orphans);
	return found >= want;
}

/**
 * kevent_delivery_claim - claim a number of events at once
 * @d:		the delivery
 * @min:	how many
 *
 * Return: true where so many were ready; they are delivered first
 */
bool kevent_delivery_claim(struct kevent_delivery *d, unsigned int min)
{
	return kevent_settle(d->user, min, 0, &d->budget, &d->claimed);
}

/**
 * kevent_has_ready - whether a queue has anything to deliver
 * @user:	the queue, which is being polled, perhaps by just what it would
 *		have to ask: what may itself be a queue of events is only asked
 *		if it is one of ours
 * @depth:	how many queues there are above it, and itself
 *
 * Return: true where a WAIT would find something
 */
bool kevent_has_ready(struct kevent_user *user, unsigned int depth)
{
	size_t budget = 0;
	LIST_HEAD(good);

	return kevent_settle(user, 1, depth, &budget, &good);
}

/**
 * kevent_time - turn a time of the ABI into a point in time
 * @value:	ns
 * @clock:	as the caller gave it
 * @absolute:	@value is a point in time on @clock
 * @expires:	where the answer goes
 * @base:	the clock to set: a span of time does not move when somebody
 *		sets CLOCK_REALTIME
 *
 * Return: 0, or -EINVAL for a clock that we do not take, or a time that is too
 * far away to be told
 */
int kevent_time(u64 value, u32 clock, bool absolute, ktime_t *expires,
		clockid_t *base)
{
	ktime_t now;

	if (value > KTIME_MAX)
		return -EINVAL;
	if (clock == CLOCK_REALTIME)
		*base = absolute ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	else if (clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME)
		*base = clock;
	else
		return -EINVAL;
	if (absolute) {
		*expires = value;
		return 0;
	}
	now = *base == CLOCK_BOOTTIME ? ktime_get_boottime() : ktime_get();
	if (value > KTIME_MAX - now)
		return -EINVAL;
	*expires = now + value;
	return 0;
}

/**
 * kevent_wait - sleep until events are ready
 * @user:	the queue
 * @min:	how many
 * @deadline:	how long
 *
 * Return: where @min events may be ready, 1, or 0 if they were already; -ETIME, or
 * -EINTR for a signal
 */
int kevent_wait(struct kevent_user *user, unsigned int min,
		const struct kevent_deadline *deadline)
{
	bool timed = deadline->expires != KTIME_MAX;
	struct kevent_waiter w = { .task = current, .min = min };
	struct hrtimer_sleeper sleeper;
	bool slept = false;
	int ret = 0;

	if (deadline->now)
		return -ETIME;
	if (timed) {
		kevent_sleeper_setup(&sleeper, deadline->clock);
		hrtimer_set_expires_range_ns(&sleeper.timer, deadline->expires,
					     current->timer_slack_ns);
		hrtimer_sleeper_start_expires(&sleeper, HRTIMER_MODE_ABS);
	}
	INIT_LIST_HEAD(&w.list);
	spin_lock_irq(&user->lock);
	for (;;) {
		set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
		/* whatever is ready now, it was not enough when we came */
		if (signal_pending(current))
			ret = -EINTR;
		else if (timed && !sleeper.task)
			ret = -ETIME;
		if (ret || user->ready >= min)
			break;
		/* also if woken for events that somebody else took first */
		if (list_empty(&w.list))
			list_add_tail(&w.list, &user->waiters);
		user->least = min(user->least, w.min);
		spin_unlock_irq(&user->lock);
		schedule();
		slept = true;
		spin_lock_irq(&user->lock);
	}
	__set_current_state(TASK_RUNNING);
	list_del_init(&w.list);
	spin_unlock_irq(&user->lock);
	if (timed) {
		/* there was no time for it to say so */
		if (!ret && !slept && hrtimer_expires_remaining(&sleeper.timer) <= 0)
			ret = -ETIME;
		hrtimer_cancel(&sleeper.timer);
		destroy_hrtimer_on_stack(&sleeper.timer);
	}
	return ret ?: slept;
}
