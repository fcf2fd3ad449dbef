// SPDX-License-Identifier: GPL-2.0-only
/*
 * How many kevents there may be: in one queue, and in all queues of one user.
 * Their memory is charged to the memory cgroup besides, by the allocators.
 * Nothing is allocated under the mutexes here: they are everybody's, and where
 * a memory cgroup is full that takes its time.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/hash.h>
#include <linux/hashtable.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "kevent.h"

/*
 * What the dearest kevent costs, in bytes: a file that waits to be sent, alone at
 * its socket.  The inodes and the file, which it keeps in memory, come on top, and
 * so do 16 bytes for each page of a buffer, or what goes round the file.  "make
 * bench-limits" measures that of the others.
 */
#define KEVENT_COST	1024

unsigned long kevent_max_queue;
module_param_named(max_queue_kevents, kevent_max_queue, ulong, 0644);
MODULE_PARM_DESC(max_queue_kevents, "kevents in one queue (0 at load: as max_user_kevents)");

unsigned long kevent_max_user;
module_param_named(max_user_kevents, kevent_max_user, ulong, 0644);
MODULE_PARM_DESC(max_user_kevents, "kevents in all queues of one user (0 at load: a twenty-fifth of memory)");

static unsigned long kevent_max_user_events;
module_param_named(max_user_inode_events, kevent_max_user_events, ulong, 0644);
MODULE_PARM_DESC(max_user_inode_events, "inode events that all queues of one user may have waiting (0 at load: as max_user_kevents)");

unsigned int kevent_max_watches = 128;
module_param_named(max_inode_watches, kevent_max_watches, uint, 0644);
MODULE_PARM_DESC(max_inode_watches, "kevents of one user on one inode: everybody who uses the inode waits for them");

/*
 * How many kevents a user has on an inode.  The inode is only a number here:
 * one that takes the place of another is charged a little too much at first.
 */
struct kevent_watches {
	struct hlist_node node;
	const struct kevent_account *account;
	const struct inode *inode;
	unsigned int count;
};

static struct hlist_head *kevent_watches;
static unsigned int kevent_watches_bits;
static DEFINE_MUTEX(kevent_watches_mutex);
/* A user may have many ids to open queues by. */
static DEFINE_HASHTABLE(kevent_accounts, 10);
static DEFINE_MUTEX(kevent_accounts_mutex);

/**
 * kevent_account_init - choose the limits that were not given
 *
 * Return: 0 or -ENOMEM
 */
int kevent_account_init(void)
{
	if (!kevent_max_user)
		kevent_max_user = (totalram_pages() / 25 << PAGE_SHIFT) /
				  KEVENT_COST;
	if (!kevent_max_queue)
		kevent_max_queue = kevent_max_user;
	if (!kevent_max_user_events)
		kevent_max_user_events = kevent_max_user;
	/* a few in each, where one user has all that are allowed */
	kevent_watches_bits = clamp(ilog2(kevent_max_user | 1), 10, 20) - 2;
	kevent_watches = kvcalloc(1UL << kevent_watches_bits,
				  sizeof(*kevent_watches), GFP_KERNEL);
	return kevent_watches ? 0 : -ENOMEM;
}

/**
 * kevent_account_exit - the opposite, when no kevent is left
 */
void kevent_account_exit(void)
{
	kvfree(kevent_watches);
}

/**
 * kevent_account_get - the account of the current user
 *
 * Return: the account, to be put, or NULL for want of memory
 */
struct kevent_account *kevent_account_get(void)
{
	struct kevent_account *account, *fresh;
	kuid_t uid = current_uid();

	fresh = kzalloc(sizeof(*fresh), KEVENT_GFP);
	if (!fresh)
		return NULL;
	fresh->uid = uid;
	refcount_set(&fresh->refs, 1);
	INIT_LIST_HEAD(&fresh->readers_wait);
	mutex_lock(&kevent_accounts_mutex);
	hash_for_each_possible(kevent_accounts, account, node, __kuid_val(uid))
		if (uid_eq(account->uid, uid)) {
			refcount_inc(&account->refs);
			goto found;
		}
	account = fresh;
	fresh = NULL;
	hash_add(kevent_accounts, &account->node, __kuid_val(uid));
found:
	mutex_unlock(&kevent_accounts_mutex);
	kfree(fresh);
	return account;
}

/**
 * kevent_account_hold - keep an account that is there; any context
 * @account:	the account, to be put once more
 */
void kevent_account_hold(struct kevent_account *account)
{
	refcount_inc(&account->refs);
}

/**
 * kevent_account_let_go - the opposite, where others hold it as well
 * @account:	the account; any context
 */
void kevent_account_let_go(struct kevent_account *account)
{
	refcount_dec(&account->refs);
}

/**
 * kevent_account_put - who has got or held an account is done with it; may sleep
 * @account:	the account, not by a work of its own
 */
void kevent_account_put(struct kevent_account *account)
{
	if (!refcount_dec_and_mutex_lock(&account->refs, &kevent_accounts_mutex))
		return;
	hash_del(&account->node);
	mutex_unlock(&kevent_accounts_mutex);
	kevent_inode_account_exit(account);
	kevent_naio_account_exit(account);
	kevent_readers_account_exit(account);
	kfree(account);
}

/**
 * kevent_charge - account for one more kevent
 * @user:	its queue; the mutex is held
 *
 * Return: 0, or -ENOSPC where a limit is reached
 */
int kevent_charge(struct kevent_user *user)
{
	atomic_long_t *kevents = &user->account->kevents;

	if (user->kevents >= READ_ONCE(kevent_max_queue))
		return -ENOSPC;
	if (atomic_long_inc_return(kevents) > READ_ONCE(kevent_max_user)) {
		atomic_long_dec(kevents);
		return -ENOSPC;
	}
	user->kevents++;
	return 0;
}

/**
 * kevent_uncharge - one kevent less
 * @user:	its queue; the mutex is held
 */
void kevent_uncharge(struct kevent_user *user)
{
	user->kevents--;
	atomic_long_dec(&user->account->kevents);
}

/**
 * kevent_charge_pin - account for one more file that is held
 * @account:	of the user
 *
 * All those of a user together are no more than one of its processes could
 * have open: the soft limit is for what a single one does by mistake.
 *
 * Return: 0, or -EMFILE where there are too many
 */
int kevent_charge_pin(struct kevent_account *account)
{
	if (atomic_long_inc_return(&account->pins) <= rlimit_max(RLIMIT_NOFILE) ||
	    capable(CAP_SYS_RESOURCE))
		return 0;
	atomic_long_dec(&account->pins);
	return -EMFILE;
}

/**
 * kevent_uncharge_pin - one held file less
 * @account:	of the user
 */
void kevent_uncharge_pin(struct kevent_account *account)
{
	atomic_long_dec(&account->pins);
}

static struct hlist_head *
kevent_watches_bucket(const struct kevent_account *account,
		      const struct inode *inode)
{
	unsigned long key = (unsigned long)inode ^ hash_ptr(account, 32);

	return &kevent_watches[hash_long(key, kevent_watches_bits)];
}

static struct kevent_watches *
kevent_watches_find(const struct kevent_account *account,
		    const struct inode *inode)
{
	struct kevent_watches *w;

	hlist_for_each_entry(w, kevent_watches_bucket(account, inode), node)
		if (w->inode == inode && w->account == account)
			return w;
	return NULL;
}

/**
 * kevent_charge_watch - account for one more kevent on an inode
 * @account:	of the user
 * @inode:	the inode
 *
 * Return: 0 or -errno
 */
int kevent_charge_watch(const struct kevent_account *account,
			const struct inode *inode)
{
	struct kevent_watches *w, *fresh;
	int ret = 0;

	fresh = kzalloc(sizeof(*fresh), KEVENT_GFP);
	if (!fresh)
		return -ENOMEM;
	fresh->account = account;
	fresh->inode = inode;
	mutex_lock(&kevent_watches_mutex);
	w = kevent_watches_find(account, inode) ?: fresh;
	if (w->count >= READ_ONCE(kevent_max_watches)) {
		ret = -ENOSPC;
	} else if (!w->count++) {
		hlist_add_head(&w->node, kevent_watches_bucket(account, inode));
		fresh = NULL;
	}
	mutex_unlock(&kevent_watches_mutex);
	kfree(fresh);
	return ret;
}

/**
 * kevent_uncharge_watch - one kevent less on an inode
 * @account:	of the user
 * @inode:	the inode, or what was it
 */
void kevent_uncharge_watch(const struct kevent_account *account,
			   const struct inode *inode)
{
	struct kevent_watches *w;

	mutex_lock(&kevent_watches_mutex);
	w = kevent_watches_find(account, inode);
	if (!--w->count) {
		hlist_del(&w->node);
		kfree(w);
	}
	mutex_unlock(&kevent_watches_mutex);
}

/**
 * kevent_charge_event - account for one more inode event that waits
 * @account:	of the user
 *
 * Return: false where there are too many
 */
bool kevent_charge_event(struct kevent_account *account)
{
	if (atomic_long_inc_return(&account->events) <=
	    READ_ONCE(kevent_max_user_events))
		return true;
	atomic_long_dec(&account->events);
	return false;
}

/**
 * kevent_uncharge_event - one inode event less
 * @account:	of the user
 */
void kevent_uncharge_event(struct kevent_account *account)
{
	atomic_long_dec(&account->events);
}
