// SPDX-License-Identifier: GPL-2.0-only
/*
 * The transfers of a socket, in the order they were asked for, whoever asked
 * and by which queue: a lane for each direction.
 *
 * Only the first of a lane is ever moved, and by one at a time, which makes
 * itself known as the lane's current one.  That is
 *	the caller that has just queued it where nothing was before it;
 *	a WAIT of its queue: when the socket calls, the kevent is put on the
 *	ready list, and whoever claims it moves it before it looks at it;
 *	or the lane's work, where no WAIT has come within a moment.  A sweep goes
 *	through the lanes that were called, and starts it; from then on it is
 *	started by the calls themselves, for a while.
 * So where somebody waits anyway no other thread has to run, and where nobody
 * does a transfer ends all the same.  A multishot is moved by a WAIT alone.  A
 * UNIX socket that is in flight itself is not received from: its lane is kicked
 * now and then, until it has arrived.
 *
 * Whoever wants a transfer gone while it is current marks it cancelled, and waits
 * until it is not any more: from then on nobody touches its memory.  What is
 * moved is moved without waiting, so that is soon.
 *
 * The work belongs to the user whose transfer was first when it was started, and
 * moves no others': who keeps sockets locked keeps waiting none but their own
 * transfers, and those of who shares a socket with them.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/memcontrol.h>
#include <linux/net.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>

#include "bug.h"
#include "compat.h"
#include "naio.h"

/* Calls of a socket in one go, before others have their turn. */
#define KEVENT_LANE_STEPS	16

/* Works of one user that run at once. */
#define KEVENT_LANE_WORKS	8

/*
 * Jiffies until a socket that is in flight is looked at again: it will not call.  Each
 * time twice as many of these pass, up to so many.
 */
#define KEVENT_LANE_FLIGHT	(HZ / 20)
#define KEVENT_LANE_FLIGHTS	31U

/* Jiffies from a call until the sweep; and how many calls do without, after one. */
#define KEVENT_LANE_PATIENCE	1
#define KEVENT_LANE_EAGER	64

static DEFINE_SPINLOCK(kevent_called_lock);
static LIST_HEAD(kevent_called);
static LIST_HEAD(kevent_flights);

static void kevent_sweep(struct work_struct *work);
static void kevent_land(struct work_struct *work);
static DECLARE_DELAYED_WORK(kevent_sweep_work, kevent_sweep);
static DECLARE_DELAYED_WORK(kevent_land_work, kevent_land);

/*
 * The next one to be moved or ended.  A multishot that has to tell of what came
 * before the close keeps nobody waiting meanwhile.
 */
static struct kevent_naio *kevent_lane_first_locked(struct kevent_lane *lane)
{
	struct kevent_naio *t;

	list_for_each_entry(t, &lane->queue, node)
		if (likely(!READ_ONCE(t->pending)) ||
		    !READ_ONCE(lane->end->closed))
			return t;
	return NULL;
}

/*
 * Whether a multishot is to end without a WAIT, for the sake of those behind it.
 * One that has still to tell of what came before does so first.
 */
static bool kevent_lane_ends(const struct kevent_naio *t)
{
	return READ_ONCE(t->lane->end->closed) && !READ_ONCE(t->pending);
}

/* Starts the work, if there is any.  The lane's lock is held. */
static void kevent_lane_start_locked(struct kevent_lane *lane)
{
	struct kevent_naio *t = kevent_lane_first_locked(lane);

	if (!t || !t->prepared || (t->multishot && !kevent_lane_ends(t)))
		return;
	/* one that has yet to begin sees whose turn it is */
	if (lane->payer)
		return;
	lane->payer = t->kevent.user->account;
	atomic_inc(&lane->works);
	if (!queue_work(lane->payer->naio, &lane->work))
		atomic_dec(&lane->works);
}

/**
 * kevent_lane_defer - have the work started in a moment
 * @lane:	the lane; its lock is held, or its first transfer's queue's
 *
 * Unless somebody has moved something by then.
 */
void kevent_lane_defer(struct kevent_lane *lane)
{
	WRITE_ONCE(lane->called, true);
	/* if the sweep has just taken it out, it looks at that afterwards */
	smp_mb();
	if (!list_empty_careful(&lane->called_node))
		return;
	spin_lock(&kevent_called_lock);
	if (list_empty(&lane->called_node))
		list_add_tail(&lane->called_node, &kevent_called);
	spin_unlock(&kevent_called_lock);
	schedule_delayed_work(&kevent_sweep_work, KEVENT_LANE_PATIENCE);
}

/* Tells the queue of the first transfer that it can be moved. */
static void kevent_lane_call_locked(struct kevent_lane *lane)
{
	struct kevent_naio *t;

	t = list_first_entry_or_null(&lane->queue, struct kevent_naio, node);
	if (t && unlikely(READ_ONCE(t->pending)) &&
	    READ_ONCE(lane->end->closed)) {
		/* it keeps nobody waiting, but has the close to tell */
		kevent_naio_call(t);
		t = kevent_lane_first_locked(lane);
	}
	/* who prepares it looks at the socket afterwards */
	if (!t || !t->prepared)
		return;
	kevent_naio_call(t);
	if (t->multishot && !kevent_lane_ends(t))
		return;
	if (lane->eager) {
		lane->eager--;
		kevent_lane_start_locked(lane);
	} else {
		kevent_lane_defer(lane);
	}
}

static inline void kevent_lane_kick_locked(struct kevent_lane *lane)
{
	if (lane->current_one)
		lane->again = true;
	else
		kevent_lane_call_locked(lane);
}

/**
 * kevent_lane_kick_irqoff - have the first transfer of a lane looked at
 * @lane:	the lane; interrupts are off
 */
void kevent_lane_kick_irqoff(struct kevent_lane *lane)
{
	spin_lock(&lane->lock);
	kevent_lane_kick_locked(lane);
	spin_unlock(&lane->lock);
}

/**
 * kevent_lane_kick - have the first transfer of a lane looked at
 * @lane:	the lane; any context
 */
void kevent_lane_kick(struct kevent_lane *lane)
{
	unsigned long flags;

	spin_lock_irqsave(&lane->lock, flags);
	kevent_lane_kick_locked(lane);
	spin_unlock_irqrestore(&lane->lock, flags);
}

/**
 * kevent_lane_has_turn - whether a transfer is the first of its lane
 * @t:		the transfer
 *
 * Return: true where it is
 */
bool kevent_lane_has_turn(struct kevent_naio *t)
{
	bool first;

	spin_lock_irq(&t->lane->lock);
	first = kevent_lane_first_locked(t->lane) == t;
	spin_unlock_irq(&t->lane->lock);
	return first;
}

/**
 * kevent_lane_moves - whether a transfer is being moved
 * @t:		the transfer
 *
 * Return: true where it is its lane's current one
 */
bool kevent_lane_moves(struct kevent_naio *t)
{
	bool moves;

	spin_lock_irq(&t->lane->lock);
	moves = t->lane->current_one == t;
	spin_unlock_irq(&t->lane->lock);
	return moves;
}

/* Not before so many times of the others' have passed, if it is not listed yet. */
static void kevent_lane_fly_locked(struct kevent_lane *lane, unsigned int left)
{
	spin_lock(&kevent_called_lock);
	if (list_empty(&lane->flight_node)) {
		list_add_tail(&lane->flight_node, &kevent_flights);
		lane->flight_left = left;
	}
	spin_unlock(&kevent_called_lock);
	queue_delayed_work(KEVENT_UNBOUND_WQ, &kevent_land_work,
			   KEVENT_LANE_FLIGHT);
}

/**
 * kevent_lane_flies - whether a transfer has to wait for its socket to arrive
 * @t:		the transfer; the socket's file is held by the caller
 *
 * That nobody can receive from a socket that is only held by messages is what the
 * kernel relies on when it collects such.  The file was taken before this look:
 * a socket that is not in flight now is not collected until the file is let go of.
 * Nobody calls when it has arrived, so the lane is kicked in a while.
 *
 * Return: true where it is in flight
 */
bool kevent_lane_flies(struct kevent_naio *t)
{
	struct kevent_lane *lane = t->lane;

	if (!t->flies)
		return false;
	if (!kevent_unix_in_flight(SOCKET_I(lane->end->inode)->sk)) {
		WRITE_ONCE(lane->flight_wait, 0);
		return false;
	}
	spin_lock_irq(&lane->lock);
	kevent_lane_fly_locked(lane, READ_ONCE(lane->flight_wait));
	spin_unlock_irq(&lane->lock);
	return true;
}

/* Most are only counted; one that is gone but for its memory has no transfers. */
static void kevent_land_one(struct kevent_lane *lane)
{
	unsigned int wait;

	spin_lock_irq(&lane->lock);
	if (lane->flight_left && !list_empty(&lane->queue)) {
		kevent_lane_fly_locked(lane, lane->flight_left - 1);
	} else {
		wait = 2 * READ_ONCE(lane->flight_wait) + 1;
		WRITE_ONCE(lane->flight_wait, min(wait, KEVENT_LANE_FLIGHTS));
		kevent_lane_kick_locked(lane);
	}
	spin_unlock_irq(&lane->lock);
}

static void kevent_sweep_one(struct kevent_lane *lane)
{
	/* pairs with the one of kevent_lane_defer() */
	smp_mb();
	spin_lock_irq(&lane->lock);
	if (READ_ONCE(lane->called) && !lane->current_one) {
		/* nobody came, nor will they for a while */
		lane->eager = KEVENT_LANE_EAGER;
		kevent_lane_start_locked(lane);
	}
	spin_unlock_irq(&lane->lock);
}

/* Empties a list of lanes, whose nodes are @offset within them. */
static void kevent_lanes_take(struct list_head *lanes, size_t offset,
			      void (*look)(struct kevent_lane *lane))
{
	struct list_head *node;
	LIST_HEAD(taken);
	bool more;

	spin_lock_irq(&kevent_called_lock);
	list_splice_init(lanes, &taken);
	spin_unlock_irq(&kevent_called_lock);
	do {
		/* one that is taken out here may be gone but for its memory */
		rcu_read_lock();
		spin_lock_irq(&kevent_called_lock);
		node = taken.next;
		more = node != &taken;
		if (more)
			list_del_init(node);
		spin_unlock_irq(&kevent_called_lock);
		if (more)
			look((void *)node - offset);
		rcu_read_unlock();
		cond_resched();
	} while (more);
}

static void kevent_sweep(struct work_struct *work)
{
	kevent_lanes_take(&kevent_called,
			  offsetof(struct kevent_lane, called_node),
			  kevent_sweep_one);
}

static void kevent_land(struct work_struct *work)
{
	kevent_lanes_take(&kevent_flights,
			  offsetof(struct kevent_lane, flight_node),
			  kevent_land_one);
}

/*
 * The first transfer, made the current one, or NULL where it cannot be moved
 * now, or, by a WAIT, is not the one @wanted.  A work leaves what another user
 * than @payer has to pay for to another one.
 */
static struct kevent_naio *kevent_lane_begin(struct kevent_lane *lane,
					     const struct kevent_naio *wanted,
					     const struct kevent_account *payer)
{
	struct kevent_naio *t;

	spin_lock_irq(&lane->lock);
	t = kevent_lane_first_locked(lane);
	/* whoever has the current one looks after what comes next */
	if (t && (lane->current_one || !t->prepared || t->held))
		t = NULL;
	if (t && (wanted ? t != wanted : t->multishot && !kevent_lane_ends(t)))
		t = NULL;
	if (t && !wanted && t->kevent.user->account != payer) {
		kevent_lane_call_locked(lane);
		t = NULL;
	}
	if (t) {
		WRITE_ONCE(lane->current_one, t);
		lane->again = false;
		WRITE_ONCE(lane->called, false);
		if (wanted)
			lane->eager = 0;
	}
	spin_unlock_irq(&lane->lock);
	return t;
}

/*
 * The current transfer is not any more; @ret is what the last step of it
 * returned.  True where there is more to be moved, by @work, which otherwise is
 * for others to see to.
 */
static bool kevent_lane_finish(struct kevent_lane *lane, int ret, bool work)
{
	struct kevent_naio *t = lane->current_one;
	bool gone, again, awaited;

	spin_lock_irq(&lane->lock);
	gone = ret > 0 || t->cancelled;
	awaited = t->cancelled || t->held;
	/* a signal is no reason to wait for the socket */
	again = lane->again || ret == -EINTR;
	if (gone)
		list_del_init(&t->node);
	if (ret < 0)
		WRITE_ONCE(t->seen, false);
	WRITE_ONCE(lane->current_one, NULL);
	if (work) {
		/* it is for a WAIT to move that */
		t = kevent_lane_first_locked(lane);
		if (gone && t && t->multishot)
			kevent_lane_call_locked(lane);
	} else if (gone || !ret || (again && t->multishot)) {
		kevent_lane_call_locked(lane);
	} else if (again && t->prepared) {
		/* called, perhaps by what we did ourselves, for nothing */
		kevent_lane_defer(lane);
	}
	spin_unlock_irq(&lane->lock);
	/* the transfer may be gone by now, and the lane with it if not @work */
	if (awaited) {
		/* before the look at who waits */
		smp_mb();
		wake_up_var(&lane->current_one);
	}
	return gone || again || !ret;
}

static int kevent_lane_call(struct kevent_naio *t, struct socket *sock)
{
	return t->multishot ? kevent_naio_shot(t, sock) :
			      kevent_naio_step(t, sock);
}

/* Whether the current process sends in its own name, where that can be seen. */
static bool kevent_lane_suits(const struct kevent_naio *t)
{
	return !t->pid || t->pid == task_tgid(current);
}

/* As kevent_naio_step(), in the name of whoever asked for the transfer. */
static int kevent_lane_step(struct kevent_naio *t, struct file *file)
{
	struct socket *sock = SOCKET_I(t->lane->end->inode);
	const struct cred *old;
	int ret;

	if (!file) {
		t->error = ECANCELED;
		t->moved = t->multishot ? 0 : t->moved;
		t->truncated = false;
		t->broken = true;
		return 1;
	}
	if (unlikely(t->flies) && kevent_lane_flies(t))
		return -EAGAIN;
	if (!kevent_lane_suits(t))
		return kevent_naio_step_as(t, sock);
	if (t->cred == current_cred())
		return kevent_lane_call(t, sock);
	old = override_creds(t->cred);
	ret = kevent_lane_call(t, sock);
	revert_creds(old);
	return ret;
}

static void kevent_lane_do(struct kevent_lane *lane)
{
	struct file *file = kevent_end_file(lane->end);
	unsigned int steps = KEVENT_LANE_STEPS;
	const struct kevent_account *payer;
	bool more = true;
	int ret = 0;

	spin_lock_irq(&lane->lock);
	payer = lane->payer;
	lane->payer = NULL;
	spin_unlock_irq(&lane->lock);
	while (more && ret >= 0 && steps--) {
		struct kevent_naio *t = kevent_lane_begin(lane, NULL, payer);
		struct mem_cgroup *memcg;

		more = false;
		if (!t)
			break;
		memcg = set_active_memcg(t->memcg);
		ret = kevent_lane_step(t, file);
		set_active_memcg(memcg);
		if (ret > 0)
			kevent_naio_complete(t);
		more = kevent_lane_finish(lane, ret, true);
		cond_resched();
	}
	spin_lock_irq(&lane->lock);
	if (lane->current_one)
		lane->again |= more;
	else if (more && ret < 0 && !list_empty(&lane->queue))
		kevent_lane_defer(lane);
	else if (more)
		kevent_lane_start_locked(lane);
	spin_unlock_irq(&lane->lock);
	if (file)
		kevent_put_file(file, KEVENT_CLOSE_PATIENCE);
}

/* The queues of two users may run it at the same time. */
static void kevent_lane_work(struct work_struct *work)
{
	struct kevent_lane *lane = container_of(work, struct kevent_lane, work);

	kevent_lane_do(lane);
	/* from here on the lane may be gone */
	if (atomic_dec_and_test(&lane->works))
		wake_up_var(&lane->works);
}

/* It is not for this WAIT to move what can be moved. */
static void kevent_lane_hand_over(struct kevent_lane *lane)
{
	spin_lock_irq(&lane->lock);
	if (!lane->current_one)
		kevent_lane_start_locked(lane);
	spin_unlock_irq(&lane->lock);
}

/**
 * kevent_lane_run - move a transfer as far as it goes now
 * @t:		the transfer, claimed by the caller; nothing happens where it is
 *		not its turn
 * @budget:	bytes that may be moved of what does not end by it: the rest of such
 *		is left to the work, so that others wait for it no longer
 */
void kevent_lane_run(struct kevent_naio *t, size_t *budget)
{
	struct kevent_lane *lane = t->lane;
	struct file *file;
	u64 before;
	int ret;

	/* what does not suit is left to the work */
	if (!kevent_lane_suits(t))
		return;
	if (!*budget && !t->multishot) {
		kevent_lane_hand_over(lane);
		return;
	}
	if (!kevent_lane_begin(lane, t, NULL))
		return;
	/* claimed with what is not so any more: to be looked at again */
	if (READ_ONCE(t->kevent.state) & KEVENT_MODIFIED) {
		kevent_lane_finish(lane, -EINTR, false);
		return;
	}
	file = kevent_end_file(lane->end);
	before = t->moved;
	do {
		ret = kevent_lane_step(t, file);
	} while (!ret && t->moved - before < *budget);
	if (ret > 0)
		kevent_naio_end(t);
	else if (!t->multishot)
		*budget -= min_t(u64, *budget, t->moved - before);
	kevent_lane_finish(lane, ret, false);
	if (file)
		kevent_put_file(file, KEVENT_CLOSE_PATIENCE);
}

/**
 * kevent_lane_join - queue a transfer
 * @t:		the transfer, from kevent_end_get() on
 *
 * Return: true where it is the first; it is the current one then, until the
 * caller calls kevent_lane_tried()
 */
bool kevent_lane_join(struct kevent_naio *t)
{
	struct kevent_lane *lane = t->lane;
	bool first;

	spin_lock_irq(&lane->lock);
	first = list_empty(&lane->queue);
	list_add_tail(&t->node, &lane->queue);
	if (first)
		WRITE_ONCE(lane->current_one, t);
	spin_unlock_irq(&lane->lock);
	return first;
}

/**
 * kevent_lane_tried - a transfer was tried by who queued it
 * @t:		the current one of its lane
 * @ended:	it has ended, else it has to be prepared to wait
 */
void kevent_lane_tried(struct kevent_naio *t, bool ended)
{
	/* who prepares it looks at the socket again anyway */
	kevent_lane_finish(t->lane, ended ? 1 : -EAGAIN, false);
}

/**
 * kevent_lane_prepared - a transfer may be moved by others from now on
 * @t:		the transfer, whose memory is pinned and whose socket is hooked
 */
void kevent_lane_prepared(struct kevent_naio *t)
{
	spin_lock_irq(&t->lane->lock);
	t->prepared = true;
	spin_unlock_irq(&t->lane->lock);
}

/*
 * Waits until it is not current any more: what was done before is seen then.
 * -EINTR where a fatal signal came first; then nobody waits for it any more.
 */
static int kevent_lane_await(struct kevent_naio *t, bool killable)
{
	struct kevent_lane *lane = t->lane;
	int ret = 0;

	if (killable)
		ret = wait_var_event_killable(&lane->current_one,
					      READ_ONCE(lane->current_one) != t);
	else
		wait_var_event(&lane->current_one,
			       READ_ONCE(lane->current_one) != t);
	spin_lock_irq(&lane->lock);
	if (lane->current_one != t) {
		ret = 0;
	} else {
		t->cancelled = false;
		t->held = false;
	}
	spin_unlock_irq(&lane->lock);
	return ret ? -EINTR : 0;
}

/**
 * kevent_lane_leave - take a transfer off its lane; may sleep
 * @t:		the transfer, queued or not any more; not current by the caller
 * @killable:	not longer than until a fatal signal comes
 *
 * When this returns 0 nobody but the caller touches it or its memory.
 *
 * Return: 0, or -EINTR where it is as it was
 */
int kevent_lane_leave(struct kevent_naio *t, bool killable)
{
	struct kevent_lane *lane = t->lane;
	bool current_one, first;

	spin_lock_irq(&lane->lock);
	current_one = lane->current_one == t;
	first = kevent_lane_first_locked(lane) == t;
	if (current_one) {
		t->cancelled = true;
	} else {
		list_del_init(&t->node);
		if (first)
			kevent_lane_call_locked(lane);
	}
	spin_unlock_irq(&lane->lock);
	if (!current_one || kevent_has_bug(KEVENT_BUG_CANCEL))
		return 0;
	return kevent_lane_await(t, killable);
}

/**
 * kevent_lane_hold - have a transfer left alone for a moment; may sleep
 * @t:		the transfer
 *
 * When this returns 0 nobody touches its memory until kevent_lane_let_go().
 *
 * Return: 0, or -EINTR for a fatal signal
 */
int kevent_lane_hold(struct kevent_naio *t)
{
	spin_lock_irq(&t->lane->lock);
	t->held = true;
	spin_unlock_irq(&t->lane->lock);
	return kevent_lane_await(t, true);
}

/**
 * kevent_lane_let_go - the opposite
 * @t:		the transfer; the caller looks at the socket afterwards
 */
void kevent_lane_let_go(struct kevent_naio *t)
{
	spin_lock_irq(&t->lane->lock);
	t->held = false;
	spin_unlock_irq(&t->lane->lock);
}

/**
 * kevent_lane_init - a new lane, without transfers
 * @lane:	zeroed
 * @end:	the socket it is of
 */
void kevent_lane_init(struct kevent_lane *lane, struct kevent_end *end)
{
	lane->end = end;
	spin_lock_init(&lane->lock);
	INIT_LIST_HEAD(&lane->queue);
	INIT_LIST_HEAD(&lane->called_node);
	INIT_LIST_HEAD(&lane->flight_node);
	INIT_WORK(&lane->work, kevent_lane_work);
}

/**
 * kevent_lane_exit - the opposite; may sleep
 * @lane:	without transfers, and nobody kicks it any more
 */
void kevent_lane_exit(struct kevent_lane *lane)
{
	if (cancel_work_sync(&lane->work))
		atomic_dec(&lane->works);
	/* it is known to run in one place, and may run in another as well */
	wait_var_event(&lane->works, !atomic_read(&lane->works));
	spin_lock_irq(&kevent_called_lock);
	list_del_init(&lane->called_node);
	list_del_init(&lane->flight_node);
	spin_unlock_irq(&kevent_called_lock);
}

/**
 * kevent_lanes_exit - at unload, when there is no lane left
 */
void kevent_lanes_exit(void)
{
	cancel_delayed_work_sync(&kevent_sweep_work);
	cancel_delayed_work_sync(&kevent_land_work);
}

/**
 * kevent_naio_account_init - what moves transfers for a user; may sleep
 * @account:	of the user
 *
 * Return: 0 or -ENOMEM
 */
int kevent_naio_account_init(struct kevent_account *account)
{
	struct workqueue_struct *fresh;

	/* pairs with the barriers of cmpxchg() */
	if (smp_load_acquire(&account->naio))
		return 0;
	fresh = alloc_workqueue("kevent_naio", WQ_UNBOUND, KEVENT_LANE_WORKS);
	if (!fresh)
		return -ENOMEM;
	if (cmpxchg(&account->naio, NULL, fresh))
		destroy_workqueue(fresh);
	return 0;
}

/**
 * kevent_naio_account_exit - the opposite, when the user has no queue left
 * @account:	of the user
 */
void kevent_naio_account_exit(struct kevent_account *account)
{
	if (account->naio)
		destroy_workqueue(account->naio);
}
