// SPDX-License-Identifier: GPL-2.0-only
/*
 * The sockets that have transfers: found by their inode, and how they call.
 *
 * A socket is watched as hook.c does it: our entry is on a wait queue inside of
 * the inode that we hold, and the file is not held but while something is moved.
 * Of the close we are told by close.c, since a transfer has to end then.  Both
 * begin with the first transfer that has to wait, and stay for a moment after
 * the last: there may be another soon, and hooking costs more than receiving.  So
 * does what has never had to wait, since it is allocated; but few of these.
 */
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/hashtable.h>
#include <linux/jiffies.h>
#include <linux/net.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <net/sock.h>

#include "compat.h"
#include "naio.h"

/* How long an end without transfers stays as it is. */
#define KEVENT_END_IDLE		HZ

/* Ends without transfers that were never hooked: nobody tells of their close. */
#define KEVENT_ENDS_UNHOOKED	64

/* How many are taken before their lock is let go for a moment. */
#define KEVENT_ENDS_HOLD	64

static DEFINE_HASHTABLE(kevent_ends, 13);
static DEFINE_SPINLOCK(kevent_ends_lock);
/* Ends without transfers: in the order in which they lost them; and closed. */
static LIST_HEAD(kevent_ends_idle);
static LIST_HEAD(kevent_ends_closed);
static unsigned int kevent_ends_unhooked;

static void kevent_ends_old(struct work_struct *work);
static void kevent_ends_gone(struct work_struct *work);
static DECLARE_DELAYED_WORK(kevent_ends_old_work, kevent_ends_old);
static DECLARE_WORK(kevent_ends_gone_work, kevent_ends_gone);

/* Called by the socket, under its wait queue's lock, interrupts off. */
static int kevent_end_wake(wait_queue_entry_t *wait, unsigned int mode,
			   int sync, void *key)
{
	struct kevent_end *end = container_of(wait, struct kevent_end, wait);
	__poll_t events = key_to_poll(key);

	if (!events || (events & ~(EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND)))
		kevent_lane_kick_irqoff(&end->lanes[KEVENT_LANE_RECV]);
	if (!events || (events & (EPOLLOUT | EPOLLWRNORM | EPOLLERR | EPOLLHUP)))
		kevent_lane_kick_irqoff(&end->lanes[KEVENT_LANE_SEND]);
	return 0;
}

/* Called by close.c. */
static void kevent_end_closed(struct kevent_close *close, bool lost)
{
	struct kevent_end *end = container_of(close, struct kevent_end, close);
	unsigned int i;

	WRITE_ONCE(end->closed, true);
	/* what is moved finds no file any more */
	for (i = 0; i < KEVENT_LANES; i++)
		kevent_lane_kick(&end->lanes[i]);
	spin_lock(&kevent_ends_lock);
	if (!end->users && !end->dying) {
		list_move(&end->idle, &kevent_ends_closed);
		schedule_work(&kevent_ends_gone_work);
	}
	spin_unlock(&kevent_ends_lock);
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
	INIT_LIST_HEAD(&end->idle);
	mutex_init(&end->mutex);
	init_waitqueue_func_entry(&end->wait, kevent_end_wake);
	for (i = 0; i < KEVENT_LANES; i++)
		kevent_lane_init(&end->lanes[i], end);
	return end;
}

/* Nobody finds it any more. */
static void kevent_end_free(struct kevent_end *end)
{
	unsigned int i;

	if (!end->hooked) {
		/* nobody but its transfers has ever seen it */
		iput(end->inode);
		kfree(end);
		return;
	}
	kevent_close_unwatch(&end->close, NULL);
	remove_wait_queue(&SOCKET_I(end->inode)->wq.wait, &end->wait);
	for (i = 0; i < KEVENT_LANES; i++)
		kevent_lane_exit(&end->lanes[i]);
	iput(end->inode);
	kfree_rcu(end, rcu);
}

/* It is not idle any more. */
static void kevent_end_woken_locked(struct kevent_end *end)
{
	if (!list_empty(&end->idle) && !end->hooked)
		kevent_ends_unhooked--;
	list_del_init(&end->idle);
}

static void kevent_end_take_locked(struct kevent_end *end,
				   struct list_head *gone)
{
	kevent_end_woken_locked(end);
	end->dying = true;
	hash_del(&end->node);
	list_add(&end->idle, gone);
}

/* Takes ends without transfers: those of closed sockets, and those that are old. */
static bool kevent_ends_take(bool all, struct list_head *gone, bool *old)
{
	unsigned int left = KEVENT_ENDS_HOLD;
	struct kevent_end *end, *next;

	spin_lock(&kevent_ends_lock);
	list_for_each_entry_safe(end, next, &kevent_ends_closed, idle) {
		if (!left)
			break;
		kevent_end_take_locked(end, gone);
		left--;
	}
	list_for_each_entry_safe(end, next, &kevent_ends_idle, idle) {
		if (!left || (!all && time_before(jiffies, end->since +
						  KEVENT_END_IDLE)))
			break;
		kevent_end_take_locked(end, gone);
		left--;
	}
	*old = !list_empty(&kevent_ends_idle);
	spin_unlock(&kevent_ends_lock);
	/* there may be more */
	return !left;
}

static void kevent_ends_reap(bool all)
{
	bool more, old;

	do {
		struct kevent_end *end, *next;
		LIST_HEAD(gone);

		more = kevent_ends_take(all, &gone, &old);
		list_for_each_entry_safe(end, next, &gone, idle) {
			kevent_end_free(end);
			cond_resched();
		}
	} while (more);
	if (old)
		schedule_delayed_work(&kevent_ends_old_work, KEVENT_END_IDLE);
}

static void kevent_ends_old(struct work_struct *work)
{
	kevent_ends_reap(false);
}

static void kevent_ends_gone(struct work_struct *work)
{
	kevent_ends_reap(false);
}

/**
 * kevent_ends_exit - at unload, when there is no transfer left
 */
void kevent_ends_exit(void)
{
	cancel_delayed_work_sync(&kevent_ends_old_work);
	kevent_ends_reap(true);
	/* a close may have been on its way while that was going on */
	cancel_work_sync(&kevent_ends_gone_work);
	cancel_delayed_work_sync(&kevent_ends_old_work);
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
	kevent_end_woken_locked(end);
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
	bool last, keep = false, first = false;

	spin_lock(&kevent_ends_lock);
	last = !--end->users;
	if (last)
		keep = !READ_ONCE(end->closed) &&
		       (end->hooked ||
			kevent_ends_unhooked < KEVENT_ENDS_UNHOOKED);
	if (keep) {
		kevent_ends_unhooked += !end->hooked;
		first = list_empty(&kevent_ends_idle);
		end->since = jiffies;
		list_add_tail(&end->idle, &kevent_ends_idle);
	} else if (last) {
		end->dying = true;
		hash_del(&end->node);
	}
	spin_unlock(&kevent_ends_lock);
	t->lane = NULL;
	if (first)
		schedule_delayed_work(&kevent_ends_old_work, KEVENT_END_IDLE);
	if (last && !keep)
		kevent_end_free(end);
}

/**
 * kevent_end_hook - have the socket call, if it does not yet; may sleep
 * @end:	the socket
 * @file:	its file, held by the caller
 *
 * Return: 0 or -errno
 */
int kevent_end_hook(struct kevent_end *end, struct file *file)
{
	int ret;

	/* pairs with smp_store_release() below */
	if (smp_load_acquire(&end->hooked))
		return 0;
	if (mutex_lock_killable(&end->mutex))
		return -EINTR;
	ret = end->hooked ? 0 : kevent_close_watch(&end->close,
						   kevent_end_closed, file);
	if (!ret && !end->hooked) {
		add_wait_queue(&SOCKET_I(end->inode)->wq.wait, &end->wait);
		/* who wakes changes the socket first and looks for us then */
		smp_mb();
		/* pairs with smp_load_acquire() above */
		smp_store_release(&end->hooked, true);
	}
	mutex_unlock(&end->mutex);
	return ret;
}

/**
 * kevent_end_file - the open file of a socket, to be put by kevent_put_file()
 * @end:	the socket
 *
 * Return: the file, or NULL where it is closed
 */
struct file *kevent_end_file(struct kevent_end *end)
{
	if (READ_ONCE(end->closed))
		return NULL;
	return kevent_get_file(&SOCKET_I(end->inode)->file);
}
