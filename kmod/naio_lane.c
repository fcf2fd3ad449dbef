// SPDX-License-Identifier: GPL-2.0-only
/*
 * The transfers of a socket, in the order they were asked for, whoever asked
 * and by which queue: a lane for each direction.
 *
 * Only the first of a lane is ever moved, and by one at a time, which makes
 * itself known as the lane's current one: the caller that has just queued it
 * where nothing was before it, or the lane's work.  Whoever wants it gone while
 * it is current marks it cancelled, and waits until it is not any more: from
 * then on nobody touches its memory.  What is moved is moved without waiting, so
 * that is soon.
 *
 * The socket is watched as hook.c does it: our entry is on a wait queue inside of
 * the inode that we hold, and the file is not held but while something is
 * moved.  The callback only starts the work.  A transfer refers to its socket
 * until it is dequeued, which happens in a process and under its queue's mutex;
 * so the last one waits for the work there, and the work needs no reference.
 *
 * The work belongs to the user whose transfer is first: who keeps sockets
 * locked keeps none but their own transfers waiting.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/hashtable.h>
#include <linux/net.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>
#include <net/sock.h>

#include "compat.h"
#include "naio.h"

/* Calls of a socket in one go, before other sockets have their turn. */
#define KEVENT_LANE_STEPS	16

/* Works of one user that run at once. */
#define KEVENT_LANE_WORKS	8

static DEFINE_HASHTABLE(kevent_ends, 10);
static DEFINE_SPINLOCK(kevent_ends_lock);

/* Starts the work, if there is any.  The lane's lock is held. */
static void kevent_lane_start_locked(struct kevent_lane *lane)
{
	struct kevent_naio *t;

	t = list_first_entry_or_null(&lane->queue, struct kevent_naio, node);
	/* else whoever prepares it looks at the socket afterwards */
	if (t && t->prepared)
		queue_work(t->kevent.user->account->naio, &lane->work);
}

/**
 * kevent_lane_kick - have the first transfer of a lane looked at
 * @lane:	the lane; any context
 */
void kevent_lane_kick(struct kevent_lane *lane)
{
	unsigned long flags;

	spin_lock_irqsave(&lane->lock, flags);
	if (lane->current_one)
		lane->again = true;
	else
		kevent_lane_start_locked(lane);
	spin_unlock_irqrestore(&lane->lock, flags);
}

/* Called by the socket, under its wait queue's lock, in any context. */
static int kevent_end_wake(wait_queue_entry_t *wait, unsigned int mode,
			   int sync, void *key)
{
	struct kevent_end *end = container_of(wait, struct kevent_end, wait);
	__poll_t events = key_to_poll(key);

	if (!events || (events & ~(EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)))
		kevent_lane_kick(&end->lanes[KEVENT_LANE_RECV]);
	if (!events || (events & (EPOLLOUT | EPOLLWRNORM | EPOLLERR | EPOLLHUP)))
		kevent_lane_kick(&end->lanes[KEVENT_LANE_SEND]);
	return 0;
}

/* The first transfer, made the current one, or NULL where there is none to move. */
static struct kevent_naio *kevent_lane_begin(struct kevent_lane *lane)
{
	struct kevent_naio *t;

	spin_lock_irq(&lane->lock);
	t = list_first_entry_or_null(&lane->queue, struct kevent_naio, node);
	/* whoever has the current one looks after what comes next */
	if (t && (lane->current_one || !t->prepared))
		t = NULL;
	if (t) {
		WRITE_ONCE(lane->current_one, t);
		lane->again = false;
	}
	spin_unlock_irq(&lane->lock);
	return t;
}

/*
 * The current transfer is not any more.  True where the socket has called
 * meanwhile.
 */
static bool kevent_lane_finish(struct kevent_lane *lane, bool ended)
{
	struct kevent_naio *t = lane->current_one;
	bool cancelled, again;

	spin_lock_irq(&lane->lock);
	cancelled = t->cancelled;
	if (ended || cancelled)
		list_del_init(&t->node);
	again = lane->again || cancelled;
	WRITE_ONCE(lane->current_one, NULL);
	spin_unlock_irq(&lane->lock);
	/* the transfer may be gone by now; the lane waits for its work */
	if (cancelled) {
		/* before the look at who waits */
		smp_mb();
		wake_up_var(&lane->current_one);
	}
	return again;
}

/* As kevent_naio_step(), in the name of whoever asked for the transfer. */
static int kevent_lane_step(struct kevent_naio *t, struct file *file)
{
	const struct cred *old;
	int ret;

	if (!file) {
		t->error = ECANCELED;
		t->broken = true;
		return 1;
	}
	old = override_creds(t->cred);
	ret = kevent_naio_step(t, sock_from_file(file));
	revert_creds(old);
	return ret;
}

static void kevent_lane_work(struct work_struct *work)
{
	struct kevent_lane *lane = container_of(work, struct kevent_lane, work);
	struct kevent_end *end = lane->end;
	unsigned int steps = KEVENT_LANE_STEPS;
	bool more = true, blocked = false;
	struct file *file = NULL;

	if (!READ_ONCE(end->lost))
		file = kevent_get_file(&SOCKET_I(end->inode)->file);
	while (more && steps--) {
		struct kevent_naio *t = kevent_lane_begin(lane);
		int ret;

		more = false;
		if (!t)
			break;
		ret = kevent_lane_step(t, file);
		if (ret > 0)
			kevent_naio_complete(t);
		more = kevent_lane_finish(lane, ret > 0) || ret >= 0;
		blocked = ret < 0;
		cond_resched();
	}
	if (file)
		fput(file);
	if (!more)
		return;
	/* called over and over, perhaps by what we do ourselves, for nothing */
	if (blocked)
		schedule_timeout_uninterruptible(1);
	kevent_lane_kick(lane);
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
	struct kevent_lane *lane = t->lane;

	/* who prepares it looks at the socket again anyway */
	kevent_lane_finish(lane, ended);
	if (ended)
		kevent_lane_kick(lane);
}

/**
 * kevent_lane_prepared - a transfer may be moved by the work from now on
 * @t:		the transfer, whose memory is pinned and whose socket is hooked
 */
void kevent_lane_prepared(struct kevent_naio *t)
{
	spin_lock_irq(&t->lane->lock);
	t->prepared = true;
	spin_unlock_irq(&t->lane->lock);
}

/**
 * kevent_lane_leave - take a transfer off its lane; may sleep
 * @t:		the transfer, queued or not any more; not current by the caller
 *
 * When this returns nobody but the caller touches it or its memory.
 */
void kevent_lane_leave(struct kevent_naio *t)
{
	struct kevent_lane *lane = t->lane;
	bool current_one, first;

	spin_lock_irq(&lane->lock);
	current_one = lane->current_one == t;
	first = !list_empty(&t->node) && lane->queue.next == &t->node;
	if (current_one)
		t->cancelled = true;
	else
		list_del_init(&t->node);
	spin_unlock_irq(&lane->lock);
	if (current_one) {
		wait_var_event(&lane->current_one,
			       READ_ONCE(lane->current_one) != t);
		/* after whatever was done before it became so */
		spin_lock_irq(&lane->lock);
		spin_unlock_irq(&lane->lock);
	}
	if (first)
		kevent_lane_kick(lane);
}

static struct kevent_end *kevent_end_find_locked(const struct inode *inode)
{
	struct kevent_end *end;

	hash_for_each_possible(kevent_ends, end, node, (unsigned long)inode)
		if (end->inode == inode)
			return end;
	return NULL;
}

static struct kevent_end *kevent_end_alloc(struct inode *inode)
{
	struct kevent_end *end = kzalloc(sizeof(*end), KEVENT_GFP);
	unsigned int i;

	if (!end)
		return NULL;
	end->inode = inode;
	init_waitqueue_func_entry(&end->wait, kevent_end_wake);
	for (i = 0; i < KEVENT_LANES; i++) {
		struct kevent_lane *lane = &end->lanes[i];

		lane->end = end;
		spin_lock_init(&lane->lock);
		INIT_LIST_HEAD(&lane->queue);
		INIT_WORK(&lane->work, kevent_lane_work);
	}
	return end;
}

/**
 * kevent_end_get - give a transfer its lane
 * @t:		the transfer
 * @inode:	of the socket, whose file is held by the caller
 *
 * Return: 0 or -ENOMEM
 */
int kevent_end_get(struct kevent_naio *t, struct inode *inode)
{
	struct kevent_end *end, *fresh = NULL;

	spin_lock(&kevent_ends_lock);
	end = kevent_end_find_locked(inode);
	if (!end) {
		spin_unlock(&kevent_ends_lock);
		fresh = kevent_end_alloc(inode);
		if (!fresh)
			return -ENOMEM;
		spin_lock(&kevent_ends_lock);
		end = kevent_end_find_locked(inode);
	}
	if (!end) {
		end = fresh;
		fresh = NULL;
		ihold(inode);
		hash_add(kevent_ends, &end->node, (unsigned long)inode);
	}
	end->users++;
	spin_unlock(&kevent_ends_lock);
	kfree(fresh);
	t->lane = &end->lanes[kevent_naio_sends(t) ? KEVENT_LANE_SEND :
						     KEVENT_LANE_RECV];
	return 0;
}

/**
 * kevent_end_put - the opposite; may sleep
 * @t:		the transfer, off its lane
 */
void kevent_end_put(struct kevent_naio *t)
{
	struct kevent_end *end = t->lane->end;
	unsigned int i;
	bool last;

	spin_lock(&kevent_ends_lock);
	last = !--end->users;
	if (last)
		hash_del(&end->node);
	spin_unlock(&kevent_ends_lock);
	t->lane = NULL;
	if (!last)
		return;
	if (end->hooked)
		remove_wait_queue(&SOCKET_I(end->inode)->wq.wait, &end->wait);
	for (i = 0; i < KEVENT_LANES; i++)
		cancel_work_sync(&end->lanes[i].work);
	iput(end->inode);
	kfree(end);
}

/**
 * kevent_end_hook - have the socket call, if it does not yet
 * @end:	the socket, whose file is held by the caller
 */
void kevent_end_hook(struct kevent_end *end)
{
	wait_queue_head_t *head = &SOCKET_I(end->inode)->wq.wait;

	spin_lock_irq(&head->lock);
	if (!end->hooked) {
		end->hooked = true;
		__add_wait_queue(head, &end->wait);
	}
	spin_unlock_irq(&head->lock);
	/* who wakes changes the socket first and looks for us then */
	smp_mb();
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
