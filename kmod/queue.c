// SPDX-License-Identifier: GPL-2.0-only
/*
 * The queue: which kevents it holds, and how they come and go.
 *
 * Lock order, outermost first
 * ---------------------------
 *	user->mutex		one queue's changes; never two queues' at once
 *	kevent_loop_mutex	hook.c: one search for cycles at a time
 *	kevent_close_mutex	close.c: coming and going of marks
 *	close bucket, watch->lock
 *				close.c, inode.c: a storage against its kevents
 *	kevent_readers_lock	naio_file.c: who reads files
 *	the provider's lock	wait-queue head of the watched file
 *	lane->lock		naio_lane.c: transfers of a socket
 *	user->lock		ready list, state of kevents, waiters
 *	kevent_called_lock	naio_lane.c: lanes that were called
 *
 * naio_end.c's end->mutex is taken below user->mutex and above those of close.c; its
 * kevent_ends_lock below the close bucket, and nothing below it.
 *
 * user->poll_wait's own lock is taken below all of these but user->lock, which
 * is never held then.  The callback of a source therefore leaves that to an
 * irq_work: no chain of wake-ups goes through two queues under the locks of the
 * first, and where one activity makes many kevents of a queue ready with interrupts
 * off, its pollers are woken once.
 *
 * Sources call back in any context, under the provider's lock: they take
 * user->lock, put the kevent on the ready list, wake, and that is all.  WAIT
 * takes user->lock only, and no lock at all while it asks a source (which may
 * sleep) or copies to the caller (which may fault).  So ADD, MODIFY and REMOVE
 * never wait for a WAIT.  No handler of a close takes user->mutex.
 *
 *	user->mutex	tree, kevents; enqueue, modify, dequeue of sources
 *	user->lock	ready_list, ready, waiters, dead, nr_dead; of a kevent:
 *			state, claims, cookie, events, flags, and what a source
 *			counts
 *	close bucket	a kevent's place in the table of watched closes, and
 *			its hooks into a file that it does not hold
 *	lane->lock	which transfers wait for a socket, and which is being
 *			moved
 *
 * The life of a kevent
 * --------------------
 *	NEW		put into the tree, hung on its storage (enqueue), and only
 *			then asked whether it is ready already: register, then
 *			check.  Not delivered before ADD has succeeded
 *	READY		its item is on the ready list, once
 *	claimed		its item is with one waiter; activity is kept in AGAIN
 *	ASLEEP		disabled by the caller, or by its delivery
 *	BROKEN		its storage is gone, and one last event says so
 *	DEAD		its storage is gone, or it was one-shot and delivered:
 *			waits on the dead list for somebody with the mutex
 *	REMOVED		out of the tree; being taken off its storage (dequeue)
 *	ORPHAN		off its storage, but still claimed
 *
 * Every way out, be it REMOVE, one-shot, the close of the watched file, an
 * unmount, or the close of the queue, ends in kevent_destroy().  It sets
 * REMOVED first, from when on no callback enqueues the kevent, then takes it
 * off its storage, from when on no callback runs, and frees it unless a waiter
 * has a claim; then the one who gives up the last claim frees it.
 */
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/namei.h>
#include <linux/net.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "bug.h"
#include "close.h"
#include "kevent.h"

/* How many neighbours of one number an ADD looks at for ghosts. */
#define KEVENT_GHOST_SCAN	16

static void kevent_poll_work(struct irq_work *work)
{
	struct kevent_user *user;

	user = container_of(work, struct kevent_user, poll_work);
	wake_up_poll(&user->poll_wait, EPOLLIN | EPOLLRDNORM);
}

/**
 * kevent_user_alloc - a new, empty queue
 *
 * Return: the queue or NULL
 */
struct kevent_user *kevent_user_alloc(void)
{
	struct kevent_user *user;

	user = kzalloc(sizeof(*user), KEVENT_GFP);
	if (!user)
		return NULL;
	user->account = kevent_account_get();
	if (!user->account) {
		if (!kevent_has_bug(KEVENT_BUG_UNDO))
			kfree(user);
		return NULL;
	}
	mutex_init(&user->mutex);
	user->tree = RB_ROOT;
	user->least = ULONG_MAX;
	spin_lock_init(&user->lock);
	INIT_LIST_HEAD(&user->ready_list);
	INIT_LIST_HEAD(&user->waiters);
	INIT_LIST_HEAD(&user->dead);
	INIT_LIST_HEAD(&user->loop_node);
	init_waitqueue_head(&user->poll_wait);
	init_irq_work(&user->poll_work, kevent_poll_work);
	refcount_set(&user->refs, 1);
	return user;
}

static int kevent_compare(u16 type, u64 ident, const void *object,
			  const struct kevent *k)
{
	if (type != k->ops->type)
		return type < k->ops->type ? -1 : 1;
	if (ident != k->ident)
		return ident < k->ident ? -1 : 1;
	if (object != k->object)
		return (unsigned long)object < (unsigned long)k->object ? -1 : 1;
	return 0;
}

/*
 * The kevent sought, or NULL.  One that only waits to report the end of its
 * storage is not found by its descriptor: the file it watched is gone, and
 * another may be where that was in memory.
 */
static struct kevent *kevent_find(struct kevent_user *user, u16 type, u64 ident,
				  const void *object)
{
	struct rb_node *node = user->tree.rb_node;

	while (node) {
		struct kevent *k = rb_entry(node, struct kevent, node);
		int order = kevent_compare(type, ident, object, k);

		if (!order)
			return k->ops->descriptor &&
			       (READ_ONCE(k->state) & KEVENT_BROKEN) ? NULL : k;
		node = order < 0 ? node->rb_left : node->rb_right;
	}
	return NULL;
}

/* The first kevent of @type and @ident, whatever it watches, or NULL. */
static struct kevent *kevent_first(struct kevent_user *user, u16 type, u64 ident)
{
	struct rb_node *node = user->tree.rb_node;
	struct kevent *first = NULL;

	while (node) {
		struct kevent *k = rb_entry(node, struct kevent, node);

		if (kevent_compare(type, ident, NULL, k) <= 0) {
			first = k;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}
	if (first && (first->ops->type != type || first->ident != ident))
		return NULL;
	return first;
}

/* The next one of the same type and identity, or NULL. */
static struct kevent *kevent_next(struct kevent *k)
{
	struct rb_node *node = rb_next(&k->node);
	struct kevent *next;

	if (!node)
		return NULL;
	next = rb_entry(node, struct kevent, node);
	return next->ops->type == k->ops->type && next->ident == k->ident ?
		next : NULL;
}

/* The kevent that is in the way of @k, or NULL where @k is in the tree now. */
static struct kevent *kevent_insert(struct kevent_user *user, struct kevent *k)
{
	struct rb_node **link = &user->tree.rb_node, *parent = NULL;

	while (*link) {
		struct kevent *other;
		int order;

		parent = *link;
		other = rb_entry(parent, struct kevent, node);
		order = kevent_compare(k->ops->type, k->ident, k->object, other);
		if (!order)
			return other;
		link = order < 0 ? &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&k->node, parent, link);
	rb_insert_color(&k->node, &user->tree);
	return NULL;
}

/* 0, or -EEXIST. */
static int kevent_insert_new(struct kevent_user *user, struct kevent *k)
{
	struct kevent *other = kevent_insert(user, k);

	if (!other)
		return 0;
	if (!(READ_ONCE(other->state) & KEVENT_BROKEN))
		return -EEXIST;
	/* what it watched is gone: it only waits to say so, and makes room */
	rb_erase(&other->node, &user->tree);
	other->object = other;
	kevent_insert(user, other);
	kevent_insert(user, k);
	return 0;
}

/* Where every kevent ends.  The mutex is held. */
static void kevent_destroy(struct kevent *k)
{
	struct kevent_user *user = k->user;
	bool claimed;

	rb_erase(&k->node, &user->tree);
	spin_lock_irq(&user->lock);
	if (k->state & KEVENT_DEAD) {
		list_del(&k->dead_node);
		user->nr_dead--;
	} else {
		kevent_forget_locked(k);
	}
	k->state |= KEVENT_REMOVED;
	spin_unlock_irq(&user->lock);

	k->ops->dequeue(k);
	kevent_uncharge(user);

	spin_lock_irq(&user->lock);
	claimed = k->claims;
	if (claimed)
		k->state |= KEVENT_ORPHAN;
	spin_unlock_irq(&user->lock);
	if (!claimed && !kevent_has_bug(KEVENT_BUG_LEAK))
		kevent_free(k);
	if (kevent_has_bug(KEVENT_BUG_FREED))
		user->missed |= READ_ONCE(k->nested);
}

/**
 * kevent_reap - remove the kevents that ended where the mutex was not at hand
 * @user:	the queue; the mutex is held
 */
void kevent_reap(struct kevent_user *user)
{
	while (!list_empty_careful(&user->dead)) {
		struct kevent *k;

		spin_lock_irq(&user->lock);
		k = list_first_entry_or_null(&user->dead, struct kevent,
					     dead_node);
		spin_unlock_irq(&user->lock);
		if (!k)
			break;
		kevent_destroy(k);
		cond_resched();
	}
}

static bool kevent_is_gone(struct kevent *k)
{
	return k->ops->gone && k->ops->gone(k);
}

/* The number of a closed socket is in use again: its ghosts can go. */
static void kevent_reap_ghosts(struct kevent_user *user, u16 type, u64 ident)
{
	struct kevent *k = kevent_first(user, type, ident), *next;
	unsigned int scan = KEVENT_GHOST_SCAN;

	for (; k && scan; k = next, scan--) {
		next = kevent_next(k);
		if (kevent_is_gone(k))
			kevent_destroy(k);
	}
}

/* A limit is reached: do ghosts account for it? */
static void kevent_reap_all_ghosts(struct kevent_user *user)
{
	struct rb_node *node = rb_first(&user->tree), *next;

	for (; node; node = next) {
		struct kevent *k = rb_entry(node, struct kevent, node);

		next = rb_next(node);
		if (kevent_is_gone(k))
			kevent_destroy(k);
		cond_resched();
	}
}

/* The mutex is not held: there may be a wait for memory. */
static struct kevent *kevent_alloc_or_reap(struct kevent_user *user,
					   const struct kevent_ops *ops)
{
	struct kevent *k = kevent_alloc(ops);

	if (k || mutex_lock_killable(&user->mutex))
		return k;
	kevent_reap(user);
	kevent_reap_all_ghosts(user);
	mutex_unlock(&user->mutex);
	return kevent_alloc(ops);
}

static int kevent_charge_or_reap(struct kevent_user *user)
{
	int ret = kevent_charge(user);

	if (ret) {
		kevent_reap_all_ghosts(user);
		ret = kevent_charge(user);
	}
	return ret;
}

/**
 * kevent_user_release - the end of a queue, at its last close
 * @user:	the queue; nobody else has it any more
 */
void kevent_user_release(struct kevent_user *user)
{
	struct rb_node *node;

	mutex_lock(&user->mutex);
	while ((node = rb_first(&user->tree))) {
		kevent_destroy(rb_entry(node, struct kevent, node));
		cond_resched();
	}
	mutex_unlock(&user->mutex);
	kevent_hook_release(user);
	irq_work_sync(&user->poll_work);
	kevent_account_put(user->account);
	kevent_user_let_go(user);
}

/**
 * kevent_user_hold - keep a queue in memory, though not open
 * @user:	the queue, not let go yet by the one who opened it
 */
void kevent_user_hold(struct kevent_user *user)
{
	refcount_inc(&user->refs);
}

/**
 * kevent_user_let_go - the opposite
 * @user:	the queue
 */
void kevent_user_let_go(struct kevent_user *user)
{
	/* those who watch this queue look at poll_wait under RCU */
	if (refcount_dec_and_test(&user->refs))
		kfree_rcu(user, rcu);
}

/*
 * What a descriptor stands for.  A socket is told by its inode, which its
 * kevents hold, anything else by its file, the end of which they are told of.
 */
static int kevent_target_get(const struct kevent_ops *ops, u64 ident,
			     struct kevent_target *target)
{
	struct inode *inode;

	*target = (struct kevent_target){};
	if (!ops->descriptor)
		return 0;
	if (ident > INT_MAX)
		return -EBADF;
	target->file = fget(ident);
	if (!target->file)
		return -EBADF;
	inode = file_inode(target->file);
	target->object = target->file;
	if (sock_from_file(target->file))
		target->object = inode;
	return 0;
}

static void kevent_target_put(struct kevent_target *target)
{
	if (target->file)
		kevent_put_file(target->file, MAX_SCHEDULE_TIMEOUT);
}

static void kevent_set_locked(struct kevent *k, const struct kevent_request *req)
{
	k->cookie = req->cookie;
	k->events = req->events;
	k->flags = req->flags;
	if (req->flags & KEVENT_DISABLED)
		k->state |= KEVENT_ASLEEP;
	else
		k->state &= ~KEVENT_ASLEEP;
}

/* From here on a new kevent may be delivered. */
static void kevent_publish(struct kevent *k)
{
	struct kevent_user *user = k->user;
	bool wake = false;

	spin_lock_irq(&user->lock);
	k->state &= ~KEVENT_NEW;
	if (k->state & KEVENT_AGAIN) {
		k->state &= ~KEVENT_AGAIN;
		wake = kevent_ready_locked(k);
	}
	spin_unlock_irq(&user->lock);
	if (wake)
		kevent_wake_pollers(user, false);
}

static int kevent_add_target(struct kevent_user *user,
			     const struct kevent_ops *ops,
			     const struct kevent_request *req,
			     const struct kevent_target *target)
{
	struct kevent *k;
	int ret;

	ret = ops->permit ? ops->permit(target) : 0;
	if (ret)
		return ret;
	k = kevent_alloc_or_reap(user, ops);
	if (!k)
		return -ENOMEM;
	k->user = user;
	k->ident = req->ident;
	k->object = target->object;
	kevent_set_locked(k, req);
	k->state |= KEVENT_NEW;

	ret = -EINTR;
	if (mutex_lock_killable(&user->mutex))
		goto free;
	kevent_reap(user);
	if (ops->gone)
		kevent_reap_ghosts(user, ops->type, req->ident);
	ret = kevent_insert_new(user, k);
	if (ret)
		goto unlock;
	ret = kevent_charge_or_reap(user);
	if (ret)
		goto erase;
	ret = ops->enqueue(k, req, target);
	if (ret)
		kevent_destroy(k);
	else
		kevent_publish(k);
	mutex_unlock(&user->mutex);
	return ret;

erase:
	rb_erase(&k->node, &user->tree);
unlock:
	mutex_unlock(&user->mutex);
free:
	kevent_free(k);
	return ret;
}

/**
 * kevent_add - add a kevent
 * @user:	the queue
 * @req:	the request, not trusted
 *
 * Return: 0 or -errno
 */
int kevent_add(struct kevent_user *user, const struct kevent_request *req)
{
	const struct kevent_ops *ops = kevent_type(req->type);
	struct kevent_target target;
	int ret;

	if (IS_ERR(ops))
		return PTR_ERR(ops);
	if (req->type == KEVENT_PATH)
		return -EINVAL;
	ret = kevent_check_request(ops, req);
	if (ret)
		return ret;
	ret = kevent_target_get(ops, req->ident, &target);
	if (ret)
		return ret;
	ret = kevent_add_target(user, ops, req, &target);
	kevent_target_put(&target);
	return ret;
}

/**
 * kevent_add_path - add a kevent of the inode that a path leads to
 * @user:	the queue
 * @req:	the request, not trusted
 * @name:	the path
 *
 * Return: 0 or -errno
 */
int kevent_add_path(struct kevent_user *user, const struct kevent_request *req,
		    const char *name)
{
	const struct kevent_ops *ops = kevent_type(req->type);
	struct kevent_target target = {};
	struct path path;
	int ret;

	if (IS_ERR(ops))
		return PTR_ERR(ops);
	if (req->type != KEVENT_PATH)
		return -EINVAL;
	ret = kevent_check_request(ops, req);
	if (ret)
		return ret;
	if (!*name)
		return -ENOENT;
	ret = kern_path(name, req->flags & KEVENT_NOFOLLOW ? 0 : LOOKUP_FOLLOW,
			&path);
	if (ret)
		return ret;
	target.path = &path;
	ret = kevent_add_target(user, ops, req, &target);
	path_put(&path);
	return ret;
}

/**
 * kevent_modify - change what a kevent reports, and how
 * @user:	the queue
 * @req:	the request, not trusted
 *
 * Return: 0 or -errno
 */
int kevent_modify(struct kevent_user *user, const struct kevent_request *req)
{
	const struct kevent_ops *ops = kevent_type(req->type);
	struct kevent_target target;
	struct kevent *k;
	int ret;

	if (IS_ERR(ops))
		return PTR_ERR(ops);
	ret = kevent_check_request(ops, req);
	if (ret)
		return ret;
	ret = kevent_target_get(ops, req->ident, &target);
	if (ret)
		return ret;
	ret = -EINTR;
	if (mutex_lock_killable(&user->mutex))
		goto put;
	kevent_reap(user);
	ret = -ENOENT;
	k = kevent_find(user, req->type, req->ident, target.object);
	if (!k)
		goto unlock;
	ret = ops->modify(k, req, &target);
unlock:
	mutex_unlock(&user->mutex);
put:
	kevent_target_put(&target);
	return ret;
}

/**
 * kevent_modify_locked - take over the common part of a request to modify
 * @k:		the kevent; its queue's lock is held
 * @req:	the request, checked
 *
 * Return: false where the kevent has ended meanwhile
 */
bool kevent_modify_locked(struct kevent *k, const struct kevent_request *req)
{
	if (k->state & (KEVENT_DEAD | KEVENT_BROKEN))
		return false;
	kevent_set_locked(k, req);
	if (k->claims)
		k->state |= KEVENT_MODIFIED;
	if (k->state & KEVENT_ASLEEP) {
		kevent_forget_locked(k);
	} else if (k->ops->park) {
		/* the mode says how many of the occurrences are on the list */
		k->ops->park(k, true);
		k->ops->park(k, false);
	}
	return true;
}

/* Every kevent of a number that was closed here and is open elsewhere. */
static int kevent_remove_stale(struct kevent_user *user,
			       const struct kevent_request *req,
			       const void *object)
{
	struct kevent *k, *next;
	int ret = -ENOENT;

	for (k = kevent_first(user, req->type, req->ident); k; k = next) {
		next = kevent_next(k);
		if (k->object == object || (READ_ONCE(k->state) & KEVENT_BROKEN))
			continue;
		if (!kevent_is_gone(k))
			ret = 0;
		kevent_destroy(k);
		cond_resched();
	}
	return ret;
}

/**
 * kevent_remove - remove a kevent
 * @user:	the queue
 * @req:	the request, not trusted; on success its parameters are what there
 *		is to say of how far the kevent came, or 0
 *
 * No WAIT that starts after this delivers the kevent.
 *
 * Return: 0 or -errno
 */
int kevent_remove(struct kevent_user *user, struct kevent_request *req)
{
	const struct kevent_ops *ops = kevent_type(req->type);
	bool stale = req->flags & KEVENT_STALE;
	struct kevent_target target;
	struct kevent *k;
	int ret;

	if (IS_ERR(ops))
		return PTR_ERR(ops);
	if ((req->flags & ~KEVENT_STALE) || (stale && !ops->descriptor) ||
	    req->cookie || req->events ||
	    req->param[0] || req->param[1] || req->param[2])
		return -EINVAL;
	ret = kevent_target_get(ops, req->ident, &target);
	if (ret && !stale)
		return ret;
	ret = -EINTR;
	if (mutex_lock_killable(&user->mutex))
		goto put;
	kevent_reap(user);
	if (stale) {
		ret = kevent_remove_stale(user, req, target.object);
		goto unlock;
	}
	ret = -ENOENT;
	k = kevent_find(user, req->type, req->ident, target.object);
	if (!k)
		goto unlock;
	ret = ops->cancel ? ops->cancel(k, req) : 0;
	if (!ret)
		kevent_destroy(k);
unlock:
	mutex_unlock(&user->mutex);
put:
	kevent_target_put(&target);
	return ret;
}

/**
 * kevent_post - post to a KEVENT_USER kevent
 * @user:	the queue
 * @ident:	of the kevent
 * @data:	handed over in the event
 *
 * Return: 0 or -errno
 */
int kevent_post(struct kevent_user *user, u64 ident, u64 data)
{
	const struct kevent_ops *ops = kevent_type(KEVENT_USER);
	struct kevent *k;
	int ret = -ENOENT;

	if (IS_ERR(ops))
		return PTR_ERR(ops);
	if (kevent_has_bug(KEVENT_BUG_TREE) && !rb_first(&user->tree))
		return -ENOENT;
	if (mutex_lock_killable(&user->mutex))
		return -EINTR;
	kevent_reap(user);
	k = kevent_find(user, KEVENT_USER, ident, NULL);
	if (k)
		ret = kevent_user_post(k, data);
	mutex_unlock(&user->mutex);
	return ret;
}

/**
 * kevent_info - what this build, this kernel and this queue are like
 * @user:	the queue
 * @info:	where the answer goes
 *
 * Return: 0 or -EINTR
 */
int kevent_info(struct kevent_user *user, struct kevent_info *info)
{
	if (mutex_lock_killable(&user->mutex))
		return -EINTR;
	kevent_reap(user);
	*info = (struct kevent_info){
		.version = KEVENT_ABI_VERSION,
		.features = kevent_features,
		.pinned = kevent_close_pinned(),
		.max_name_queue = kevent_inode_limit(),
		.max_queue = READ_ONCE(kevent_max_queue),
		.max_user = READ_ONCE(kevent_max_user),
		.max_inode = READ_ONCE(kevent_max_watches),
		.kevents = user->kevents,
		.ready = READ_ONCE(user->ready),
		.user_kevents = atomic_long_read(&user->account->kevents),
	};
	mutex_unlock(&user->mutex);
	return 0;
}

/**
 * kevent_show - list the kevents of a queue, for fdinfo
 * @user:	the queue
 * @m:		where to
 *
 * Return: 0 or -EINTR
 */
int kevent_show(struct kevent_user *user, struct seq_file *m)
{
	struct rb_node *node;

	if (mutex_lock_killable(&user->mutex))
		return -EINTR;
	kevent_reap(user);
	for (node = rb_first(&user->tree); node; node = rb_next(node)) {
		const struct kevent *k = rb_entry(node, struct kevent, node);

		seq_printf(m, "kevent: type: %s ident: %llu events: %x flags: %x cookie: %llx close: %s\n",
			   k->ops->name, k->ident, READ_ONCE(k->events),
			   READ_ONCE(k->flags),
			   k->cookie, k->ops->close ? k->ops->close(k) : "none");
		if (seq_has_overflowed(m))
			break;
		cond_resched();
	}
	mutex_unlock(&user->mutex);
	return 0;
}
