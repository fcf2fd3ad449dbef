// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hanging a kevent on the wait queues of a file, for the sources that watch
 * files by polling them.
 *
 * The wait queue must outlive our entry on it, and the file must not be held
 * for that.  A socket's wait queue is inside of its inode, so holding the inode
 * will do: after the close our entry is on a queue that nobody wakes any more,
 * and the kevent is a ghost, found when somebody looks.  Otherwise close.c
 * tells us in time, or, if the file is a queue of ours, its release does.
 * Where none of it is possible the file is held.
 */
#include <linux/dcache.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/net.h>
#include <linux/preempt.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <net/sock.h>

#include "compat.h"
#include "hook.h"

/* How deep a queue of queues is looked into. */
#define KEVENT_MAX_DEPTH	5

/* Who watches what watches others may itself be watched by so many, in all. */
#define KEVENT_MAX_WATCHERS	1000

struct kevent_hooking {
	poll_table pt;
	struct kevent_file *kf;
	int ret;
};

/*
 * A search for cycles: which queues are woken, at whatever distance, when the
 * one it starts from wakes those who poll it?  Each queue reached is woken in
 * turn, with a key of zero, which means no more than "look again".  The task
 * that searches recognises its own wake-ups, and holds what they reach.
 */
static DEFINE_MUTEX(kevent_loop_mutex);
static struct task_struct *kevent_loop_task;
static LIST_HEAD(kevent_loop_queues);
static unsigned int kevent_loop_called;	/* kevents; epolls can make them many */
static unsigned int kevent_loop_woken;	/* whoever it is, by our own queues */

static void kevent_loop_reach(struct kevent_user *user)
{
	if (++kevent_loop_called > KEVENT_MAX_WATCHERS ||
	    !list_empty(&user->loop_node))
		return;
	/* there is a kevent in it, so it has not been let go */
	kevent_user_hold(user);
	list_add_tail(&user->loop_node, &kevent_loop_queues);
}

/* Wakes those who poll @user, unless they are too many. */
static int kevent_loop_step(struct kevent_user *user)
{
	wait_queue_head_t *head = &user->poll_wait;
	struct list_head *pos;

	spin_lock_irq(&head->lock);
	list_for_each(pos, &head->head)
		if (++kevent_loop_woken > KEVENT_MAX_WATCHERS)
			break;
	spin_unlock_irq(&head->lock);
	if (kevent_loop_woken > KEVENT_MAX_WATCHERS)
		return -ELOOP;
	__wake_up(head, TASK_NORMAL, 0, NULL);
	if (kevent_loop_called > KEVENT_MAX_WATCHERS)
		return -ELOOP;
	return fatal_signal_pending(current) ? -EINTR : 0;
}

/*
 * Whether a wake-up of those who poll @user can come back to @user, or reaches
 * more of them than anybody should have to search.
 */
static int kevent_loop_check(struct kevent_user *user)
{
	struct kevent_user *pos, *next;
	int ret;

	if (mutex_lock_killable(&kevent_loop_mutex))
		return -EINTR;
	kevent_loop_called = 0;
	kevent_loop_woken = 0;
	WRITE_ONCE(kevent_loop_task, current);
	ret = kevent_loop_step(user);
	list_for_each_entry(pos, &kevent_loop_queues, loop_node) {
		if (ret)
			break;
		ret = pos == user ? -ELOOP : kevent_loop_step(pos);
		cond_resched();
	}
	WRITE_ONCE(kevent_loop_task, NULL);
	list_for_each_entry_safe(pos, next, &kevent_loop_queues, loop_node) {
		list_del_init(&pos->loop_node);
		kevent_user_let_go(pos);
	}
	mutex_unlock(&kevent_loop_mutex);
	return ret;
}

/**
 * kevent_hook_release - a queue goes: those who watch it let go
 * @user:	the queue, which holds no kevent any more
 */
void kevent_hook_release(struct kevent_user *user)
{
	/* nobody can come any more: the file has no reference left */
	if (waitqueue_active(&user->poll_wait))
		__wake_up(&user->poll_wait, TASK_NORMAL, 0,
			  poll_to_key(EPOLLHUP | POLLFREE));
}

/**
 * kevent_nested_holds - whether a watched queue of events has any
 * @k:		the kevent that watches it, claimed
 * @depth:	how many queues there are above it
 *
 * Our queues cannot form a circle, but a long chain.  Others might lead back
 * to who is asking, so their last word stands until a WAIT asks them.
 *
 * Return: true also where it cannot be told
 */
bool kevent_nested_holds(struct kevent *k, unsigned int depth)
{
	struct kevent_user *inner;
	bool holds = true;
	struct file *file;

	if (depth >= KEVENT_MAX_DEPTH)
		return true;
	file = kevent_file_get(k);
	if (!file)
		return false;
	inner = kevent_user_of(file);
	if (inner)
		holds = kevent_has_ready(inner, depth + 1);
	kevent_put_file(file, 0);
	return holds;
}

/* Called by the provider, under its lock, in any context. */
static int kevent_hook_wake(wait_queue_entry_t *wait, unsigned int mode,
			    int sync, void *key)
{
	struct kevent_hook *hook = container_of(wait, struct kevent_hook, wait);
	struct kevent_file *kf = hook->owner;
	struct kevent *k = &kf->kevent;
	__poll_t events = key_to_poll(key);

	if (k->nested && in_task() &&
	    READ_ONCE(kevent_loop_task) == current) {
		kevent_loop_reach(k->user);
		return 0;
	}
	if ((events & POLLFREE) && kf->attach == KEVENT_ATTACH_SELF) {
		WRITE_ONCE(kf->close.file, NULL);
		kevent_closed(k, false);
	} else if (!events || (events & (READ_ONCE(kf->mask) | POLLFREE))) {
		kevent_ready(k);
	}
	if (events & POLLFREE) {
		list_del_init(&wait->entry);
		/* from here on the kevent may be freed at any time */
		smp_store_release(&hook->head, NULL);
	}
	return 0;
}

/* Whoever takes the entry off, here or in kevent_hook_wake(), does so once. */
static void kevent_unhook(struct kevent_close *close)
{
	struct kevent_hook *hook;

	hook = &container_of(close, struct kevent_file, close)->hook;

	/* pairs with smp_store_release() in kevent_hook_add() */
	for (; hook; hook = smp_load_acquire(&hook->next)) {
		wait_queue_head_t *head;

		rcu_read_lock();
		/* likewise, and in kevent_hook_wake() */
		head = smp_load_acquire(&hook->head);
		if (head) {
			remove_wait_queue(head, &hook->wait);
			WRITE_ONCE(hook->head, NULL);
		}
		rcu_read_unlock();
	}
}

/* The file is being closed, or nobody will tell when it is. */
static void kevent_file_closed(struct kevent_close *close, bool lost)
{
	kevent_unhook(close);
	kevent_closed(&container_of(close, struct kevent_file, close)->kevent,
		      lost);
}

/* vfs_poll() calls this for every wait-queue head that the file has. */
static void kevent_hook_add(struct file *file, wait_queue_head_t *head,
			    poll_table *pt)
{
	struct kevent_hooking *h = container_of(pt, struct kevent_hooking, pt);
	struct kevent_hook *hook = &h->kf->hook;
	unsigned long flags;

	if (h->ret || !head)
		return;
	if (hook->head) {
		hook = kzalloc(sizeof(*hook), KEVENT_GFP);
		if (!hook) {
			h->ret = -ENOMEM;
			return;
		}
		hook->next = h->kf->hook.next;
		/* the end of the mark may be looking for hooks already */
		smp_store_release(&h->kf->hook.next, hook);
	}
	init_waitqueue_func_entry(&hook->wait, kevent_hook_wake);
	hook->owner = h->kf;
	spin_lock_irqsave(&head->lock, flags);
	/* whoever finds the head, to take the entry off, waits until it is on */
	smp_store_release(&hook->head, head);
	__add_wait_queue(head, &hook->wait);
	spin_unlock_irqrestore(&head->lock, flags);
}

/* By the name that /proc shows. */
static bool kevent_anon_is(struct file *file, const char *name)
{
	return !strcmp(file->f_path.dentry->d_name.name, name);
}

/* Files that are no queues of other events. */
static bool kevent_anon_is_leaf(struct file *file)
{
	static const char * const leaves[] = {
		"[eventfd]", "[timerfd]", "[signalfd]", "inotify",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(leaves); i++)
		if (kevent_anon_is(file, leaves[i]))
			return true;
	return false;
}

/*
 * What we hold must not hold us, or neither would ever be closed.  A ring of
 * io_uring holds the files that are registered with it until it is closed
 * itself.  An epoll holds none of those it watches.  What a device holds (a
 * binder the files on their way to its owner) nobody can ask it.
 */
static bool kevent_file_may_pin(u32 kind, struct file *file)
{
	return kind != KEVENT_FILE_ANON || !kevent_anon_is(file, "[io_uring]");
}

static bool kevent_file_is_leaf(u32 kind, struct file *file)
{
	if (kind == KEVENT_FILE_ANON)
		return kevent_anon_is_leaf(file);
	return !(kind & (KEVENT_FILE_KEVENT | KEVENT_FILE_OTHER));
}

/* How a new kevent may hang on @file, before its wait queues are known. */
static int kevent_file_attach(struct kevent *k, struct file *file, u32 kind)
{
	struct kevent_file *kf = to_kevent_file(k);
	bool report = k->flags & KEVENT_NOTIFY_BROKEN;
	int ret;

	if (kind == KEVENT_FILE_SOCKET && !report &&
	    SOCK_INODE(sock_from_file(file)) == file_inode(file)) {
		kf->attach = KEVENT_ATTACH_INODE;
		return 0;
	}
	if (kind == KEVENT_FILE_KEVENT) {
		kf->attach = KEVENT_ATTACH_SELF;
		kf->close.file = file;
		return 0;
	}
	if (kevent_close_seen(kind, file)) {
		ret = kevent_close_watch(&kf->close, kevent_file_closed, file);
		if (!ret)
			kf->attach = KEVENT_ATTACH_MARK;
		return ret;
	}
	if (report || !kevent_file_may_pin(kind, file))
		return -EOPNOTSUPP;
	ret = kevent_charge_pin(k->user->account);
	if (ret)
		return ret;
	kf->attach = KEVENT_ATTACH_PIN;
	kf->close.file = get_file(file);
	return 0;
}

/*
 * From holding the inode to being told of the close: because the caller wants
 * to know of it, or because the wait queue turned out to be elsewhere.
 */
static int kevent_file_upgrade(struct kevent *k, struct file *file)
{
	struct kevent_file *kf = to_kevent_file(k);
	int ret;

	if (!kevent_close_seen(KEVENT_FILE_SOCKET, file))
		return -EOPNOTSUPP;
	ret = kevent_close_watch(&kf->close, kevent_file_closed, file);
	if (!ret)
		/* pairs with smp_load_acquire() in kevent_file_get() */
		smp_store_release(&kf->attach, KEVENT_ATTACH_MARK);
	return ret;
}

/*
 * What to ask a file for.  A pipe that nobody asks for edges wakes its readers
 * by the first byte alone.
 */
static __poll_t kevent_poll_key(const struct kevent_request *req, __poll_t mask)
{
	return req->flags & KEVENT_EDGE ? mask | EPOLLET : mask;
}

/**
 * kevent_file_enqueue - hang a kevent on a file
 * @k:		the kevent
 * @req:	the request
 * @target:	with the file
 * @mask:	what to be woken for
 *
 * Return: 0 or -errno
 */
int kevent_file_enqueue(struct kevent *k, const struct kevent_request *req,
			const struct kevent_target *target, __poll_t mask)
{
	struct kevent_file *kf = to_kevent_file(k);
	struct kevent_hooking h = { .kf = kf };
	struct file *file = target->file;
	u32 kind = kevent_file_kind(file);
	wait_queue_head_t *own;
	__poll_t events;
	int ret;

	if (kevent_user_of(file) == k->user)
		return -ELOOP;
	if (!file_can_poll(file))
		return -EPERM;
	if (kind == KEVENT_FILE_SOCKET) {
		kf->inode = file_inode(file);
		ihold(kf->inode);
	}
	k->nested = !kevent_file_is_leaf(kind, file);
	ret = kevent_file_attach(k, file, kind);
	if (ret)
		return ret;
	kf->mask = mask | EPOLLERR | EPOLLHUP;
	init_poll_funcptr(&h.pt, kevent_hook_add);
	h.pt._key = kevent_poll_key(req, kf->mask);
	events = vfs_poll(file, &h.pt) & kf->mask;
	if (h.ret)
		return h.ret;
	/* a mark that went before there was a hook: it is as good as closed */
	if (kf->attach == KEVENT_ATTACH_MARK && !kevent_close_watched(&kf->close))
		return -EIO;
	/* nobody will ever wake us: fine if there is something to say now */
	if (!kf->hook.head && !events)
		return -EPERM;
	if (kf->attach == KEVENT_ATTACH_INODE) {
		own = &SOCKET_I(kf->inode)->wq.wait;
		if (kf->hook.head != own || kf->hook.next)
			ret = kevent_file_upgrade(k, file);
		if (ret)
			return ret;
	}
	if (k->nested) {
		ret = kevent_loop_check(k->user);
		if (ret)
			return ret;
	}
	if (events)
		kevent_ready(k);
	return 0;
}

/**
 * kevent_file_modify - change what a kevent waits for
 * @k:		the kevent
 * @req:	the request
 * @target:	with the file
 * @mask:	what to be woken for
 *
 * Return: 0 or -errno
 */
int kevent_file_modify(struct kevent *k, const struct kevent_request *req,
		       const struct kevent_target *target, __poll_t mask)
{
	struct kevent_file *kf = to_kevent_file(k);
	bool alive;
	int ret;

	if (req->flags & KEVENT_NOTIFY_BROKEN) {
		if (kf->attach == KEVENT_ATTACH_PIN)
			return -EOPNOTSUPP;
		if (kf->attach == KEVENT_ATTACH_INODE) {
			ret = kevent_file_upgrade(k, target->file);
			if (ret)
				return ret;
		}
	}
	mask |= EPOLLERR | EPOLLHUP;
	spin_lock_irq(&k->user->lock);
	alive = kevent_modify_locked(k, req);
	if (alive)
		WRITE_ONCE(kf->mask, mask);
	spin_unlock_irq(&k->user->lock);
	if (!alive)
		return -ENOENT;
	/*
	 * The hook looks at the mask without a lock: either it sees the new
	 * one, or we see what it was called for.
	 */
	smp_mb();
	if (!(req->flags & KEVENT_DISABLED) &&
	    kevent_file_poll(target->file, kevent_poll_key(req, mask)))
		kevent_ready(k);
	return 0;
}

/**
 * kevent_file_dequeue - take a kevent off its file
 * @k:		the kevent, hung on it wholly or in part
 */
void kevent_file_dequeue(struct kevent *k)
{
	struct kevent_file *kf = to_kevent_file(k);

	if (kf->attach == KEVENT_ATTACH_MARK) {
		kevent_close_unwatch(&kf->close, kevent_unhook);
		return;
	}
	kevent_unhook(&kf->close);
	/* see kevent_close_unwatch() */
	if (kf->attach == KEVENT_ATTACH_SELF)
		WRITE_ONCE(kf->close.file, NULL);
}

/**
 * kevent_file_release - let go of what a claim may still have looked at
 * @k:		the kevent
 */
void kevent_file_release(struct kevent *k)
{
	struct kevent_file *kf = to_kevent_file(k);
	struct kevent_hook *hook, *next;

	for (hook = kf->hook.next; hook; hook = next) {
		next = hook->next;
		kfree(hook);
	}
	/* what was claimed may be let go of by a poll; see kevent_put_last_file() */
	if (kf->attach == KEVENT_ATTACH_PIN)
		kevent_put_pin(kf->close.file, k->user->account,
			       k->state & KEVENT_ORPHAN ? 0 :
			       KEVENT_CLOSE_PATIENCE);
	if (kf->inode)
		iput(kf->inode);
}

/**
 * kevent_file_gone - whether a kevent is a ghost
 * @k:		the kevent, which is not freed meanwhile
 *
 * Return: true where its socket was closed
 */
bool kevent_file_gone(struct kevent *k)
{
	struct kevent_file *kf = to_kevent_file(k);

	return kf->attach == KEVENT_ATTACH_INODE &&
	       !READ_ONCE(SOCKET_I(kf->inode)->file);
}

/**
 * kevent_file_close_name - how the close is seen, in a word
 * @k:		the kevent
 *
 * Return: the word
 */
const char *kevent_file_close_name(const struct kevent *k)
{
	static const char * const names[] = {
		[KEVENT_ATTACH_NONE]	= "none",
		[KEVENT_ATTACH_INODE]	= "inode",
		[KEVENT_ATTACH_MARK]	= "mark",
		[KEVENT_ATTACH_SELF]	= "self",
		[KEVENT_ATTACH_PIN]	= "pin",
	};

	return names[to_kevent_file(k)->attach];
}

/**
 * kevent_file_get - the open file of a kevent, to be put by kevent_put_file()
 * @k:		the kevent, which is not freed meanwhile
 *
 * Return: the file, or NULL where it is closed
 */
struct file *kevent_file_get(struct kevent *k)
{
	struct kevent_file *kf = to_kevent_file(k);

	/* pairs with smp_store_release() in kevent_file_upgrade() */
	switch (smp_load_acquire(&kf->attach)) {
	case KEVENT_ATTACH_INODE:
		return kevent_get_file(&SOCKET_I(kf->inode)->file);
	case KEVENT_ATTACH_PIN:
		return get_file(kf->close.file);
	default:
		return kevent_get_file(&kf->close.file);
	}
}

/**
 * kevent_file_poll - what holds of a file now
 * @file:	the file
 * @mask:	what to ask for
 *
 * Return: those of @mask that hold
 */
__poll_t kevent_file_poll(struct file *file, __poll_t mask)
{
	poll_table pt;

	init_poll_funcptr(&pt, NULL);
	pt._key = mask;
	return vfs_poll(file, &pt) & mask;
}
