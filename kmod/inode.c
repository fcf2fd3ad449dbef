// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_INODE and KEVENT_PATH: what happens to a file or in a directory.
 *
 * Each kevent has a mark of its own on the inode, with just the mask it needs.
 * Every occurrence is an item of its own on the ready list, so that those of
 * several kevents are delivered in the order in which they came about; a
 * kevent has a bounded number of them, and one more to say that some were lost.
 */
#include <linux/fs.h>
#include <linux/fsnotify_backend.h>
#include <linux/memcontrol.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "close.h"
#include "compat.h"
#include "kevent.h"

#define KEVENT_INODE_EVENTS						     \
	(KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE |			     \
	 KEVENT_INODE_MOVED_FROM | KEVENT_INODE_MOVED_TO |		     \
	 KEVENT_INODE_MODIFY | KEVENT_INODE_ATTRIB |			     \
	 KEVENT_INODE_SELF_REMOVED | KEVENT_INODE_SELF_MOVED |		     \
	 KEVENT_INODE_UNMOUNT)

/* Of the most events that a kevent may queue up, what it gets unasked. */
#define KEVENT_INODE_DEFAULT	16

static unsigned int kevent_max_inode_events = 16384;
module_param_named(max_inode_events, kevent_max_inode_events, uint, 0644);
MODULE_PARM_DESC(max_inode_events, "inode events that one kevent may have waiting");

struct kevent_inode;

/**
 * struct kevent_watch - the mark of one kevent
 * @fsn:	what fsnotify knows of it
 * @events:	what the kevent asks for, to be looked at without a lock
 * @lock:	guards the fields that follow
 * @owner:	the kevent; NULL from when it lets go
 * @over:	the inode is gone, or its last name is
 * @nameless:	it had no name to begin with
 * @memcg:	pays for the occurrences
 */
struct kevent_watch {
	struct fsnotify_mark fsn;
	u32 events;
	spinlock_t lock;	/* of what follows */
	struct kevent_inode *owner;
	bool over;
	bool nameless;
	struct mem_cgroup *memcg;
};

/**
 * struct kevent_occurrence - one thing that happened
 * @item:	on the ready list
 * @node:	in the kevent's list
 * @events:	KEVENT_INODE_*; 0 where others were lost
 * @count:	how often in a row
 * @rename:	pairs the two halves of a rename
 * @length:	of @name
 * @name:	of the entry, not terminated
 */
struct kevent_occurrence {
	struct kevent_item item;
	struct list_head node;
	u32 events;
	u32 count;
	u32 rename;
	u32 length;
	char name[];
};

/**
 * struct kevent_inode - a kevent of an inode
 * @kevent:	the kevent
 * @watch:	its mark
 * @inode:	valid until the mark is freed
 * @close:	of the descriptor it was added by
 * @occurrences: in the order they came about; this and the following under
 *		the queue's lock
 * @queued:	how many
 * @limit:	how many there may be
 * @lost:	how many while @overflow was on its way out
 * @overflow:	always at hand to say that others were lost
 */
struct kevent_inode {
	struct kevent kevent;
	struct kevent_watch *watch;
	struct inode *inode;
	struct kevent_close close;
	struct list_head occurrences;
	u32 queued;
	u32 limit;
	u32 lost;
	struct kevent_occurrence overflow;
};

static struct kmem_cache *kevent_watch_cache;

static const struct {
	u32 fsn;
	u32 event;
} kevent_inode_bits[] = {
	{ FS_CREATE,		KEVENT_INODE_CREATE },
	{ FS_DELETE,		KEVENT_INODE_REMOVE },
	{ FS_MOVED_FROM,	KEVENT_INODE_MOVED_FROM },
	{ FS_MOVED_TO,		KEVENT_INODE_MOVED_TO },
	{ FS_MODIFY,		KEVENT_INODE_MODIFY },
	{ FS_ATTRIB,		KEVENT_INODE_ATTRIB },
	{ FS_DELETE_SELF,	KEVENT_INODE_SELF_REMOVED },
	{ FS_MOVE_SELF,		KEVENT_INODE_SELF_MOVED },
	{ FS_UNMOUNT,		KEVENT_INODE_UNMOUNT },
};

static struct kevent_inode *to_kevent_inode(struct kevent *k)
{
	return container_of(k, struct kevent_inode, kevent);
}

static u32 kevent_inode_mask(u32 events, const struct inode *inode)
{
	u32 mask = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(kevent_inode_bits); i++)
		if (events & kevent_inode_bits[i].event)
			mask |= kevent_inode_bits[i].fsn;
	if (S_ISDIR(inode->i_mode) && (mask & (FS_MODIFY | FS_ATTRIB)))
		mask |= FS_EVENT_ON_CHILD;
	/* when the last name of an open file goes, its link count says so */
	if (!S_ISDIR(inode->i_mode))
		mask |= FS_ATTRIB;
	return mask;
}

static u32 kevent_inode_events(u32 mask)
{
	u32 events = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(kevent_inode_bits); i++)
		if (mask & kevent_inode_bits[i].fsn)
			events |= kevent_inode_bits[i].event;
	return events;
}

/**
 * kevent_inode_limit - how many events one kevent may have waiting
 *
 * Return: the module parameter
 */
u32 kevent_inode_limit(void)
{
	return READ_ONCE(kevent_max_inode_events);
}

/* The same as the last thing that happened, which is not on its way out? */
static bool kevent_inode_merge(struct kevent_inode *ki, u32 events, u32 rename,
			       const struct qstr *name)
{
	struct kevent_occurrence *last;

	if (list_empty(&ki->occurrences) || rename)
		return false;
	last = list_last_entry(&ki->occurrences, struct kevent_occurrence, node);
	if (last->item.claimed || last->events != events || last->rename ||
	    last->length != (name ? name->len : 0))
		return false;
	if (name && memcmp(last->name, name->name, name->len))
		return false;
	if (last->count < U32_MAX)
		last->count++;
	return true;
}

/*
 * Of a kevent that ends or sleeps with its delivery one is enqueued; of one
 * that sleeps no more, because its inode is gone, all that is left.
 */
static bool kevent_inode_one_only(const struct kevent_inode *ki)
{
	return (ki->kevent.flags & KEVENT_ONESHOT) ||
	       ((ki->kevent.flags & KEVENT_DISPATCH) &&
		!(ki->kevent.state & KEVENT_BROKEN));
}

static bool kevent_inode_append(struct kevent_inode *ki,
				struct kevent_occurrence *o)
{
	bool first = list_empty(&ki->occurrences);

	list_add_tail(&o->node, &ki->occurrences);
	if (!first && kevent_inode_one_only(ki))
		return false;
	return kevent_item_ready_locked(&ki->kevent, &o->item);
}

/* Some occurrence could not be kept; said once, where the first one would be. */
static bool kevent_inode_overflow(struct kevent_inode *ki)
{
	struct kevent_occurrence *o = &ki->overflow;

	if (!list_empty(&o->node)) {
		u32 *count = o->item.claimed ? &ki->lost : &o->count;

		if (*count < U32_MAX)
			++*count;
		return false;
	}
	o->count = 1;
	return kevent_inode_append(ki, o);
}

static struct kevent_occurrence *kevent_occurrence_alloc(struct kevent_watch *w,
							 const struct qstr *name)
{
	struct mem_cgroup *old = set_active_memcg(w->memcg);
	struct kevent_occurrence *o;
	size_t length = name ? name->len : 0;

	/*
	 * Whoever did it waits for this: one look for memory in a full cgroup
	 * that need not be its own, not the sixteen of KEVENT_GFP.
	 */
	o = kmalloc(struct_size(o, name, length),
		    GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN);
	set_active_memcg(old);
	if (!o)
		return NULL;
	INIT_LIST_HEAD(&o->item.list);
	o->item.claimed = false;
	o->item.offered = false;
	o->count = 1;
	o->length = length;
	if (length)
		memcpy(o->name, name->name, length);
	return o;
}

/* One more occurrence, if the kevent is still there and wants it. */
static void kevent_watch_report(struct kevent_watch *w, u32 events, u32 rename,
				const struct qstr *name)
{
	struct kevent_occurrence *o = kevent_occurrence_alloc(w, name);
	struct kevent_inode *ki;
	struct kevent_user *user;
	bool wake = false;

	spin_lock(&w->lock);
	ki = w->owner;
	if (!ki || w->over)
		goto unlock;
	user = ki->kevent.user;
	spin_lock_irq(&user->lock);
	if (!(events & ki->kevent.events) ||
	    (ki->kevent.state & (KEVENT_DEAD | KEVENT_REMOVED | KEVENT_BROKEN)))
		goto unlock_user;
	if (kevent_inode_merge(ki, events, rename, name))
		goto unlock_user;
	if (!o || ki->queued >= ki->limit ||
	    !kevent_charge_event(user->account)) {
		wake = kevent_inode_overflow(ki);
		goto unlock_user;
	}
	o->item.kevent = &ki->kevent;
	o->events = events;
	o->rename = rename;
	ki->queued++;
	wake = kevent_inode_append(ki, o);
	o = NULL;
unlock_user:
	spin_unlock_irq(&user->lock);
	if (wake)
		kevent_wake_pollers(user, false);
unlock:
	spin_unlock(&w->lock);
	kfree(o);
}

/* The inode goes, or its file system, or its last name: the kevent ends. */
static void kevent_watch_over(struct kevent_watch *w)
{
	spin_lock(&w->lock);
	if (w->owner && !w->over)
		kevent_closed(&w->owner->kevent, true);
	w->over = true;
	spin_unlock(&w->lock);
}

static void kevent_watch_event(struct fsnotify_mark *fsn, u32 mask, u32 rename,
			       const struct inode *inode,
			       const struct qstr *name)
{
	struct kevent_watch *w = container_of(fsn, struct kevent_watch, fsn);
	u32 dir = mask & FS_ISDIR ? KEVENT_INODE_ISDIR : 0;
	u32 events;

	/* told of by two marks, of which this may not be the one interested */
	if (!(mask & fsn->mask & ALL_FSNOTIFY_EVENTS))
		return;
	events = kevent_inode_events(mask);
	if (events & READ_ONCE(w->events))
		kevent_watch_report(w, events | dir, rename, name);
	if ((mask & FS_ATTRIB) && !name && inode && !inode->i_nlink &&
	    !S_ISDIR(inode->i_mode) && !w->nameless) {
		kevent_watch_report(w, KEVENT_INODE_SELF_REMOVED, 0, NULL);
		kevent_watch_over(w);
	}
}

static int kevent_inode_event(struct fsnotify_group *group, u32 mask,
			      const void *data, int data_type,
			      struct inode *dir, const struct qstr *name,
			      u32 cookie, struct fsnotify_iter_info *iter_info)
{
	struct fsnotify_mark *parent = fsnotify_iter_parent_mark(iter_info);
	struct fsnotify_mark *own = fsnotify_iter_inode_mark(iter_info);

	/* to the directory with the entry's name, to the file itself without */
	if (parent)
		kevent_watch_event(parent, mask, 0, NULL, name);
	if (own)
		kevent_watch_event(own, mask & ~FS_EVENT_ON_CHILD, cookie,
				   fsnotify_data_inode(data, data_type),
				   mask & ALL_FSNOTIFY_DIRENT_EVENTS ? name : NULL);
	return 0;
}

static void kevent_inode_freeing(struct fsnotify_mark *fsn,
				 struct fsnotify_group *group)
{
	kevent_watch_over(container_of(fsn, struct kevent_watch, fsn));
}

static void kevent_inode_free_mark(struct fsnotify_mark *fsn)
{
	struct kevent_watch *w = container_of(fsn, struct kevent_watch, fsn);

	mem_cgroup_put(w->memcg);
	kmem_cache_free(kevent_watch_cache, w);
	kevent_mark_died();
}

static const struct fsnotify_ops kevent_inode_fsn_ops = {
	.handle_event	= kevent_inode_event,
	.freeing_mark	= kevent_inode_freeing,
	.free_mark	= kevent_inode_free_mark,
};

/*
 * Each user has a group, the lock of which is held while the entries of a
 * directory are told that it is watched: as long as they are many.
 */
static struct fsnotify_group *
kevent_inode_group(struct kevent_account *account)
{
	struct fsnotify_group *group, *fresh;

	/* pairs with cmpxchg(): its fields, too, are there */
	group = smp_load_acquire(&account->inode_group);
	if (group)
		return group;
	fresh = fsnotify_alloc_group(&kevent_inode_fsn_ops,
				     FSNOTIFY_GROUP_DUPS | FSNOTIFY_GROUP_NOFS);
	if (IS_ERR(fresh))
		return fresh;
	group = cmpxchg(&account->inode_group, NULL, fresh);
	if (!group)
		return fresh;
	fsnotify_put_group(fresh);
	return group;
}

/**
 * kevent_inode_account_exit - the last queue of a user is gone
 * @account:	of the user
 *
 * The marks hold the group until they are freed.
 */
void kevent_inode_account_exit(struct kevent_account *account)
{
	if (account->inode_group)
		fsnotify_put_group(account->inode_group);
}

static struct kevent_watch *kevent_watch_add(struct kevent_account *account,
					     struct kevent_inode *ki,
					     struct inode *inode, u32 mask)
{
	struct fsnotify_group *group = kevent_inode_group(account);
	struct kevent_watch *w;
	int ret;

	if (IS_ERR(group))
		return ERR_CAST(group);
	w = kmem_cache_zalloc(kevent_watch_cache, KEVENT_GFP);
	if (!w)
		return ERR_PTR(-ENOMEM);
	kevent_mark_born();
	w->memcg = get_mem_cgroup_from_mm(current->mm);
	spin_lock_init(&w->lock);
	fsnotify_init_mark(&w->fsn, group);
	w->fsn.mask = mask;
	w->owner = ki;
	w->nameless = !inode->i_nlink;
	w->events = ki ? ki->kevent.events : 0;
	ret = fsnotify_add_inode_mark(&w->fsn, inode, 1);
	if (ret) {
		fsnotify_put_mark(&w->fsn);
		return ERR_PTR(ret);
	}
	return w;
}

/* From here on nobody calls us about this mark. */
static void kevent_watch_remove(struct kevent_watch *w)
{
	spin_lock(&w->lock);
	w->owner = NULL;
	spin_unlock(&w->lock);
	fsnotify_destroy_mark(&w->fsn, w->fsn.group);
	fsnotify_put_mark(&w->fsn);
}

static int kevent_inode_check(const struct kevent_request *req)
{
	if (!req->events || req->param[0] > kevent_inode_limit() ||
	    req->param[1] || req->param[2])
		return -EINVAL;
	return 0;
}

static u32 kevent_inode_wanted(const struct kevent_request *req)
{
	return req->param[0] ?: max(kevent_inode_limit() / KEVENT_INODE_DEFAULT,
				    1U);
}

static const struct path *kevent_inode_path(const struct kevent_target *target)
{
	return target->path ?: &target->file->f_path;
}

static int kevent_inode_permit(const struct kevent_target *target)
{
	return path_permission(kevent_inode_path(target), MAY_READ);
}

static void kevent_inode_closed(struct kevent_close *close, bool lost)
{
	/* if it is the inode that goes, the kevent's own mark will say so */
	if (!lost)
		kevent_closed(&container_of(close, struct kevent_inode,
					    close)->kevent, false);
}

static int kevent_inode_enqueue(struct kevent *k,
				const struct kevent_request *req,
				const struct kevent_target *target)
{
	struct inode *inode = d_backing_inode(kevent_inode_path(target)->dentry);
	struct kevent_account *account = k->user->account;
	struct kevent_inode *ki = to_kevent_inode(k);
	struct kevent_watch *w;
	int ret;

	INIT_LIST_HEAD(&ki->occurrences);
	INIT_LIST_HEAD(&ki->overflow.node);
	INIT_LIST_HEAD(&ki->overflow.item.list);
	ki->overflow.item.kevent = k;
	ki->limit = kevent_inode_wanted(req);
	ki->inode = inode;
	if (target->file) {
		if (!kevent_file_notifies(target->file))
			return -EOPNOTSUPP;
		ret = kevent_close_watch(&ki->close, kevent_inode_closed,
					 target->file);
		if (ret)
			return ret;
	}
	ret = kevent_charge_watch(account, inode);
	if (ret)
		return ret;
	w = kevent_watch_add(account, ki, inode,
			     kevent_inode_mask(req->events, inode));
	if (IS_ERR(w)) {
		kevent_uncharge_watch(account, inode);
		return PTR_ERR(w);
	}
	ki->watch = w;
	return 0;
}

/* The kevent's inode and its file system, to be put, or NULL if it is gone. */
static struct inode *kevent_inode_grab(struct kevent_inode *ki)
{
	struct inode *inode = NULL;

	spin_lock(&ki->watch->lock);
	if (!ki->watch->over &&
	    atomic_inc_not_zero(&ki->inode->i_sb->s_active)) {
		inode = ki->inode;
		ihold(inode);
	}
	spin_unlock(&ki->watch->lock);
	return inode;
}

static void kevent_inode_put(struct inode *inode)
{
	struct super_block *sb = inode->i_sb;

	iput(inode);
	deactivate_super(sb);
}

static void kevent_watch_set_mask(struct fsnotify_mark *fsn, u32 mask)
{
	spin_lock(&fsn->lock);
	fsn->mask = mask;
	spin_unlock(&fsn->lock);
}

/*
 * Makes the mark tell of more than it did.  An inode sums up the masks of its
 * marks whenever one comes or goes, so one does.
 */
static int kevent_inode_widen(struct kevent_inode *ki, u32 events)
{
	struct fsnotify_mark *fsn = &ki->watch->fsn;
	struct kevent_watch *passing;
	struct inode *inode;
	u32 before, mask;
	int ret = 0;

	inode = kevent_inode_grab(ki);
	if (!inode)
		return -ENOENT;
	mask = fsn->mask | kevent_inode_mask(events, inode);
	if (mask == fsn->mask)
		goto put;
	before = fsn->mask;
	kevent_watch_set_mask(fsn, mask);
	passing = kevent_watch_add(ki->kevent.user->account, NULL, inode, mask);
	if (IS_ERR(passing)) {
		/* the inode has not heard of it: the next MODIFY must see to that */
		kevent_watch_set_mask(fsn, before);
		ret = PTR_ERR(passing);
	} else {
		kevent_watch_remove(passing);
	}
put:
	kevent_inode_put(inode);
	return ret;
}

static int kevent_inode_modify(struct kevent *k,
			       const struct kevent_request *req,
			       const struct kevent_target *target)
{
	struct kevent_inode *ki = to_kevent_inode(k);
	bool alive;
	int ret;

	ret = kevent_inode_widen(ki, req->events);
	if (ret)
		return ret;
	spin_lock_irq(&k->user->lock);
	alive = kevent_modify_locked(k, req);
	if (alive) {
		ki->limit = kevent_inode_wanted(req);
		WRITE_ONCE(ki->watch->events, req->events);
	}
	spin_unlock_irq(&k->user->lock);
	if (!alive)
		return -ENOENT;
	kevent_wake_pollers(k->user, false);
	return 0;
}

static void kevent_inode_dequeue(struct kevent *k)
{
	struct kevent_inode *ki = to_kevent_inode(k);

	kevent_close_unwatch(&ki->close, NULL);
	if (!ki->watch)
		return;
	kevent_watch_remove(ki->watch);
	kevent_uncharge_watch(k->user->account, ki->inode);
}

static void kevent_inode_release(struct kevent *k)
{
	struct kevent_inode *ki = to_kevent_inode(k);
	struct kevent_occurrence *o, *next;

	if (!ki->occurrences.next)
		return;
	list_for_each_entry_safe(o, next, &ki->occurrences, node) {
		if (o == &ki->overflow)
			continue;
		kevent_uncharge_event(k->user->account);
		kfree(o);
	}
}

static void kevent_inode_peek(struct kevent *k, struct kevent_item *item,
			      struct kevent_event *event, const char **name)
{
	struct kevent_occurrence *o;

	o = container_of(item, struct kevent_occurrence, item);
	event->events = o->events;
	event->count = o->count;
	event->data = (u64)o->length << 32 | o->rename;
	if (o == &to_kevent_inode(k)->overflow)
		event->flags |= KEVENT_EVENT_OVERFLOW;
	if (o->length) {
		event->flags |= KEVENT_EVENT_NAME;
		*name = o->name;
	}
}

static bool kevent_inode_consume(struct kevent *k, struct kevent_item *item,
				 const struct kevent_event *event)
{
	struct kevent_inode *ki = to_kevent_inode(k);
	struct kevent_occurrence *o;

	o = container_of(item, struct kevent_occurrence, item);
	list_del_init(&o->node);
	if (o != &ki->overflow) {
		ki->queued--;
		kevent_uncharge_event(k->user->account);
		kfree(o);
	} else if (ki->lost) {
		o->count = ki->lost;
		ki->lost = 0;
		kevent_inode_append(ki, o);
	}
	return false;
}

static bool kevent_inode_park(struct kevent *k, bool park)
{
	struct kevent_inode *ki = to_kevent_inode(k);
	struct kevent_occurrence *o;

	list_for_each_entry(o, &ki->occurrences, node) {
		if (!o->item.claimed && park && !list_empty(&o->item.list))
			kevent_item_park_locked(k, &o->item);
		else if (!o->item.claimed && !park && list_empty(&o->item.list))
			kevent_item_ready_locked(k, &o->item);
		if (!park && kevent_inode_one_only(ki))
			break;
	}
	return !list_empty(&ki->occurrences);
}

static const char *kevent_inode_close_name(const struct kevent *k)
{
	return "mark";
}

static int kevent_inode_init(void)
{
	kevent_watch_cache = KMEM_CACHE(kevent_watch, SLAB_ACCOUNT);
	return kevent_watch_cache ? 0 : -ENOMEM;
}

static void kevent_inode_exit(void)
{
	kevent_marks_wait();
	kmem_cache_destroy(kevent_watch_cache);
}

const struct kevent_ops kevent_inode_ops = {
	.name		= "inode",
	.cache		= "kevent_inode",
	.type		= KEVENT_INODE,
	.descriptor	= true,
	.size		= sizeof(struct kevent_inode),
	.events		= KEVENT_INODE_EVENTS,
	.flags		= KEVENT_NOTIFY_BROKEN,
	.init		= kevent_inode_init,
	.exit		= kevent_inode_exit,
	.check		= kevent_inode_check,
	.permit		= kevent_inode_permit,
	.enqueue	= kevent_inode_enqueue,
	.modify		= kevent_inode_modify,
	.dequeue	= kevent_inode_dequeue,
	.release	= kevent_inode_release,
	.peek		= kevent_inode_peek,
	.consume	= kevent_inode_consume,
	.park		= kevent_inode_park,
	.close		= kevent_inode_close_name,
};

const struct kevent_ops kevent_path_ops = {
	.name		= "path",
	.cache		= "kevent_path",
	.type		= KEVENT_PATH,
	.size		= sizeof(struct kevent_inode),
	.events		= KEVENT_INODE_EVENTS,
	.flags		= KEVENT_NOFOLLOW,
	.check		= kevent_inode_check,
	.permit		= kevent_inode_permit,
	.enqueue	= kevent_inode_enqueue,
	.modify		= kevent_inode_modify,
	.dequeue	= kevent_inode_dequeue,
	.release	= kevent_inode_release,
	.peek		= kevent_inode_peek,
	.consume	= kevent_inode_consume,
	.park		= kevent_inode_park,
};
