// SPDX-License-Identifier: GPL-2.0-only
/*
 * Seeing the close of a file that we do not hold.
 *
 * The last close of a file tells fsnotify before anything else happens to the
 * file, in a context that may sleep.  One mark of ours on the file's inode,
 * shared by all who watch a file of that inode (all eventfds share one), is
 * told, and the table of watched closes says whose kevents hang on the file.
 * They are unhooked there and then, under the lock of their bucket, which is
 * also what taking them off by hand needs: each is unhooked once.  All that
 * follow one inode are in one bucket, so nobody looks through the others'.
 *
 * The mark may go before the file does: when the master of a pty goes, its
 * slave's inode is unlinked.  Then the kevents end with it, and say so.
 */
#include <linux/anon_inodes.h>
#include <linux/completion.h>
#include <linux/file.h>
#include <linux/fsnotify_backend.h>
#include <linux/hash.h>
#include <linux/major.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>
#include <net/sock.h>

#include "bug.h"
#include "close.h"
#include "compat.h"
#include "kevent.h"

#define KEVENT_CLOSE_BITS	12

/*
 * How many of a bucket are looked at before its lock is let go for a moment.
 * Interrupts are off meanwhile, so that a queue's pollers are woken once.
 */
#define KEVENT_CLOSE_HOLD	64

/**
 * struct kevent_mark - our mark on an inode
 * @fsn:	what fsnotify knows of it
 * @users:	how many struct kevent_close refer to it; under the mutex
 * @bucket:	where these are, if they follow more than their file
 */
struct kevent_mark {
	struct fsnotify_mark fsn;
	unsigned long users;
	unsigned int bucket;
};

struct kevent_close_bucket {
	spinlock_t lock;	/* of the list, see the top of queue.c */
	struct hlist_head list;
};

static struct kevent_close_bucket *kevent_close_table;
static struct fsnotify_group *kevent_close_group;
static struct kmem_cache *kevent_mark_cache;
static DEFINE_MUTEX(kevent_close_mutex);
static u32 kevent_pinned;

static struct workqueue_struct *kevent_close_works;

/*
 * How many may be on their way: fewer than threads of each CPU, so that none waits
 * for others.  (What is bound to no CPU shares its threads out to the nodes.)
 */
#define KEVENT_LASTS		WQ_DFL_ACTIVE

/*
 * The last reference to a file, on its way; @account pays for it until then.  Without
 * a file: whatever was let go of by threads of the kernel.
 */
struct kevent_last {
	struct work_struct work;
	struct file *file;
	struct kevent_account *account;
	struct completion closed;
	refcount_t refs;
};

static atomic_t kevent_lasts;

/* Marks of all groups, from their allocation to the end of their memory. */
static atomic_t kevent_marks;

static void kevent_last_put(struct kevent_last *last)
{
	if (refcount_dec_and_test(&last->refs))
		kfree(last);
}

/*
 * The socket's owner has closed it and does not wait for what was sent any more:
 * nor do we, for as long as they like.  One that is to be reset still is.  Nobody
 * has a descriptor to set these by any more; who locks the socket may keep it.
 */
static void kevent_last_hurry(struct file *file)
{
	struct socket *sock = sock_from_file(file);
	struct sock *sk = sock ? sock->sk : NULL;

	if (!sk)
		return;
	/* a protocol on top of another may have something to send */
	WRITE_ONCE(sk->sk_sndtimeo, 1);
	if (READ_ONCE(sk->sk_lingertime) > 1)
		WRITE_ONCE(sk->sk_lingertime, 1);
}

static void kevent_last_work(struct work_struct *work)
{
	struct kevent_last *last = container_of(work, struct kevent_last, work);

	if (last->file) {
		kevent_last_hurry(last->file);
		__fput_sync(last->file);
	} else {
		flush_delayed_fput();
	}
	if (last->account) {
		kevent_uncharge_pin(last->account);
		kevent_account_put(last->account);
	}
	atomic_dec(&kevent_lasts);
	/* the rest of this is waited for by who destroys the queue of works */
	module_put(THIS_MODULE);
	complete(&last->closed);
	kevent_last_put(last);
}

/* On its way, with a second reference for the caller; NULL: too many, or no memory. */
static struct kevent_last *kevent_last_start(struct file *file,
					     struct kevent_account *account)
{
	struct kevent_last *last = NULL;

	if (atomic_inc_return(&kevent_lasts) <= KEVENT_LASTS)
		last = kmalloc(sizeof(*last), GFP_KERNEL | __GFP_NOWARN);
	if (!last) {
		atomic_dec(&kevent_lasts);
		return NULL;
	}
	__module_get(THIS_MODULE);
	INIT_WORK(&last->work, kevent_last_work);
	init_completion(&last->closed);
	refcount_set(&last->refs, 2);
	last->file = file;
	last->account = account;
	if (account)
		kevent_account_hold(account);
	queue_work(kevent_close_works, &last->work);
	return last;
}

/**
 * kevent_put_last_file - let go of the last reference to a file
 * @file:	the file
 * @account:	charged by kevent_charge_pin() for it, until it is closed; or NULL
 * @patience:	how long the caller may wait for the close, in jiffies, where nobody
 *		kills it: not at all where it may hold what that takes, as a poll
 *		of an epoll does
 *
 * It was closed while it was held.  What closes it now is not to wait until a
 * thread that goes to sleep in WAIT is back from there; nor, where that is a
 * thread of the kernel, to keep all other files waiting that such threads close.
 * MAX_SCHEDULE_TIMEOUT is as if the caller had closed it.
 *
 * A close that does not end keeps the module in use, and the kernel's own way is
 * taken where there are many such; a thread of the kernel's closes it itself then,
 * for its own way would keep waiting all that such threads close.
 */
void kevent_put_last_file(struct file *file, struct kevent_account *account,
			  long patience)
{
	struct kevent_last *last = kevent_last_start(file, account);
	bool thread = current->flags & PF_KTHREAD;

	if (!last) {
		if (thread)
			__fput_sync(file);
		else
			fput(file);
		if (account)
			kevent_uncharge_pin(account);
		return;
	}
	if (patience && !thread)
		wait_for_completion_killable_timeout(&last->closed, patience);
	kevent_last_put(last);
}

/**
 * kevent_put_others_files - have closed what others have just let go of
 *
 * For a thread of the kernel's whose call of a socket may have done so: all that
 * such threads close waits for one another, and this may not end.  Where too many
 * are on their way the kernel's own way is left to them: not here, for what is
 * closed may be a queue, of which the transfer is that is being moved.
 */
void kevent_put_others_files(void)
{
	struct kevent_last *last = kevent_last_start(NULL, NULL);

	if (last)
		kevent_last_put(last);
}

/**
 * kevent_put_pin - let go of a file that was held for long
 * @file:	the file
 * @account:	charged by kevent_charge_pin() for it
 * @patience:	see kevent_put_last_file()
 */
void kevent_put_pin(struct file *file, struct kevent_account *account,
		    long patience)
{
	if (kevent_file_put_unless_last(file))
		kevent_uncharge_pin(account);
	else
		kevent_put_last_file(file, account, patience);
}

/**
 * kevent_mark_born - a mark has been allocated
 */
void kevent_mark_born(void)
{
	atomic_inc(&kevent_marks);
}

/**
 * kevent_mark_died - a mark has been freed
 */
void kevent_mark_died(void)
{
	if (atomic_dec_and_test(&kevent_marks))
		wake_up_var(&kevent_marks);
}

/**
 * kevent_marks_wait - wait until nobody is in a callback of a mark any more
 *
 * At unload.  An unmount may still be on its way back from telling us of the
 * end of a mark, and has the last reference.
 */
void kevent_marks_wait(void)
{
	fsnotify_wait_marks_destroyed();
	wait_var_event(&kevent_marks, !atomic_read(&kevent_marks));
	/* the one who freed the last one, too, has to be out of here */
	fsnotify_wait_marks_destroyed();
}

/* An inode that all files of a kind share does not go before we do. */
static unsigned int kevent_close_hash(const struct file *file)
{
	const struct inode *inode = file_inode(file);
	const void *key = inode;

	if (inode->i_sb->s_magic == ANON_INODE_FS_MAGIC)
		key = file;
	return hash_ptr(key, KEVENT_CLOSE_BITS);
}

/**
 * kevent_file_kind - what kind of file a descriptor stands for
 * @file:	the file
 *
 * Return: KEVENT_FILE_*
 */
u32 kevent_file_kind(struct file *file)
{
	struct inode *inode = file_inode(file);

	if (kevent_user_of(file))
		return KEVENT_FILE_KEVENT;
	if (sock_from_file(file))
		return KEVENT_FILE_SOCKET;
	switch (inode->i_sb->s_magic) {
	case PIPEFS_MAGIC:
		return KEVENT_FILE_PIPE;
	case ANON_INODE_FS_MAGIC:
		return KEVENT_FILE_ANON;
	}
	if (S_ISFIFO(inode->i_mode))
		return KEVENT_FILE_FIFO;
	if (!S_ISCHR(inode->i_mode))
		return KEVENT_FILE_OTHER;
	if (imajor(inode) == TTYAUX_MAJOR && iminor(inode) == 2)
		return KEVENT_FILE_PTY_MASTER;
	if (inode->i_sb->s_magic == DEVPTS_SUPER_MAGIC &&
	    imajor(inode) >= UNIX98_PTY_SLAVE_MAJOR &&
	    imajor(inode) < UNIX98_PTY_SLAVE_MAJOR + UNIX98_PTY_MAJOR_COUNT)
		return KEVENT_FILE_PTY_SLAVE;
	return KEVENT_FILE_OTHER;
}

/**
 * kevent_close_seen - whether the close of a pollable file can be seen
 * @kind:	of the file, KEVENT_FILE_*
 * @file:	the file
 *
 * A named FIFO or device node may lose its mark while it is open, when its
 * last name goes, and the moment between that and the news of it is one in
 * which its wait queue could go too.
 */
bool kevent_close_seen(u32 kind, struct file *file)
{
	return (kind & (KEVENT_FILE_SOCKET | KEVENT_FILE_PIPE | KEVENT_FILE_ANON |
			KEVENT_FILE_PTY_SLAVE)) &&
	       kevent_file_notifies(file);
}

/**
 * kevent_close_pinned - the kinds of file whose close this kernel does not show
 *
 * Return: KEVENT_FILE_*
 */
u32 kevent_close_pinned(void)
{
	return kevent_pinned;
}

static struct kevent_mark *kevent_mark_alloc(unsigned int bucket)
{
	struct kevent_mark *mark;

	mark = kmem_cache_zalloc(kevent_mark_cache, KEVENT_GFP);
	if (!mark)
		return NULL;
	kevent_mark_born();
	mark->bucket = bucket;
	fsnotify_init_mark(&mark->fsn, kevent_close_group);
	mark->fsn.mask = FS_CLOSE_WRITE | FS_CLOSE_NOWRITE;
	return mark;
}

/* The mark that is on an inode, with one more user, or NULL. */
static struct kevent_mark *kevent_mark_find_locked(struct inode *inode)
{
	struct fsnotify_mark *fsn;
	struct kevent_mark *mark;

	fsn = kevent_find_inode_mark(inode, kevent_close_group);
	if (!fsn)
		return NULL;
	mark = container_of(fsn, struct kevent_mark, fsn);
	mark->users++;
	/* the users have one reference between them */
	fsnotify_put_mark(fsn);
	return mark;
}

/* The mark of an inode, with one more user; @fresh is put on it if there is none. */
static struct kevent_mark *kevent_mark_get_locked(struct inode *inode,
						  struct kevent_mark *fresh)
{
	struct kevent_mark *mark;
	int ret;

	do {
		mark = kevent_mark_find_locked(inode);
		if (mark || !fresh)
			return mark;
		fresh->users = 1;
		ret = fsnotify_add_inode_mark(&fresh->fsn, inode, 0);
		if (!ret)
			return fresh;
		fresh->users = 0;
	} while (ret == -EEXIST);
	return ERR_PTR(ret);
}

/*
 * The mark of an inode, new or old, with one more user.  What we allocate for
 * it we do without the mutex, which is everybody's.
 */
static struct kevent_mark *kevent_mark_get(struct inode *inode,
					   unsigned int bucket)
{
	struct kevent_mark *mark, *fresh = NULL;

	for (;;) {
		if (mutex_lock_killable(&kevent_close_mutex)) {
			mark = ERR_PTR(-EINTR);
			break;
		}
		mark = kevent_mark_get_locked(inode, fresh);
		mutex_unlock(&kevent_close_mutex);
		if (mark)
			break;
		fresh = kevent_mark_alloc(bucket);
		if (!fresh)
			return ERR_PTR(-ENOMEM);
	}
	if (fresh && mark != fresh)
		fsnotify_put_mark(&fresh->fsn);
	return mark;
}

static void kevent_mark_put(struct kevent_mark *mark)
{
	bool last;

	mutex_lock(&kevent_close_mutex);
	last = !--mark->users;
	if (last)
		fsnotify_destroy_mark(&mark->fsn, kevent_close_group);
	mutex_unlock(&kevent_close_mutex);
	/* this may be the end of the inode, which may take its time */
	if (last)
		fsnotify_put_mark(&mark->fsn);
}

/**
 * kevent_close_unwatch - the opposite; may sleep
 * @close:	watched or not
 * @unhook:	called under the lock that a close also takes
 */
void kevent_close_unwatch(struct kevent_close *close,
			  void (*unhook)(struct kevent_close *close))
{
	struct kevent_close_bucket *bucket;
	struct kevent_mark *mark = close->mark;

	if (!mark)
		return;
	bucket = &kevent_close_table[close->bucket ^
				     kevent_has_bug(KEVENT_BUG_UNHOOK)];
	spin_lock(&bucket->lock);
	if (!hlist_unhashed(&close->node))
		hlist_del_init(&close->node);
	/* nobody tells us of its end any more: not to be looked at again */
	WRITE_ONCE(close->file, NULL);
	if (unhook)
		unhook(close);
	spin_unlock(&bucket->lock);
	close->mark = NULL;
	kevent_mark_put(mark);
}

/**
 * kevent_close_watch - be told of the close of a file
 * @close:	zeroed, part of what wants to know
 * @closed:	what to call then
 * @file:	the file, held by the caller
 *
 * Return: 0 or -errno
 */
int kevent_close_watch(struct kevent_close *close,
		       void (*closed)(struct kevent_close *close, bool lost),
		       struct file *file)
{
	struct kevent_close_bucket *bucket;
	struct kevent_mark *mark;

	close->closed = closed;
	close->bucket = kevent_close_hash(file);
	bucket = &kevent_close_table[close->bucket];
	for (;;) {
		mark = kevent_mark_get(file_inode(file), close->bucket);
		if (IS_ERR(mark))
			return PTR_ERR(mark);
		close->mark = mark;
		spin_lock(&bucket->lock);
		WRITE_ONCE(close->file, file);
		hlist_add_head(&close->node, &bucket->list);
		spin_unlock(&bucket->lock);
		/* if the mark has gone, did its going pass us by? */
		if (READ_ONCE(mark->fsn.flags) & FSNOTIFY_MARK_FLAG_ALIVE)
			return 0;
		kevent_close_unwatch(close, NULL);
		cond_resched();
	}
}

/**
 * kevent_close_watched - whether we are still told of the close
 * @close:	from kevent_close_watch()
 *
 * Under the lock under which the end is told: either that has been, or it will
 * find everything that was hooked before this call.
 *
 * Return: false where the file is as good as closed
 */
bool kevent_close_watched(struct kevent_close *close)
{
	struct kevent_close_bucket *bucket = &kevent_close_table[close->bucket];
	bool watched;

	spin_lock(&bucket->lock);
	watched = close->file;
	spin_unlock(&bucket->lock);
	return watched;
}

/* Ends what hangs on @file, or, where that is NULL, on @mark. */
static void kevent_close_end(struct kevent_close_bucket *bucket,
			     const struct file *file,
			     const struct kevent_mark *mark)
{
	/* keeps our place in the list; to everybody else nothing of interest */
	struct kevent_close place = {};
	struct hlist_node *node, *next;
	unsigned int held = 0;

	spin_lock_irq(&bucket->lock);
	for (node = bucket->list.first; node; node = next) {
		struct kevent_close *close;

		close = hlist_entry(node, struct kevent_close, node);
		next = node->next;
		if (file ? close->file == file : close->mark == mark) {
			hlist_del_init(&close->node);
			WRITE_ONCE(close->file, NULL);
			close->closed(close, !file);
		}
		if (++held < KEVENT_CLOSE_HOLD || !next)
			continue;
		held = 0;
		hlist_add_before(&place.node, next);
		spin_unlock_irq(&bucket->lock);
		cond_resched();
		spin_lock_irq(&bucket->lock);
		next = place.node.next;
		hlist_del(&place.node);
	}
	spin_unlock_irq(&bucket->lock);
}

static int kevent_close_event(struct fsnotify_group *group, u32 mask,
			      const void *data, int data_type,
			      struct inode *dir, const struct qstr *name,
			      u32 cookie, struct fsnotify_iter_info *iter_info)
{
	const struct path *path = fsnotify_data_path(data, data_type);
	const struct file *file;

	if (!path || !(mask & (FS_CLOSE_WRITE | FS_CLOSE_NOWRITE)))
		return 0;
	/* a close always comes with the path inside of the file */
	file = container_of(path, struct file, f_path);
	kevent_close_end(&kevent_close_table[kevent_close_hash(file)], file,
			 NULL);
	return 0;
}

static void kevent_close_freeing(struct fsnotify_mark *fsn,
				 struct fsnotify_group *group)
{
	struct kevent_mark *mark = container_of(fsn, struct kevent_mark, fsn);

	/* our own doing, when the last user went? */
	if (READ_ONCE(mark->users))
		kevent_close_end(&kevent_close_table[mark->bucket], NULL, mark);
}

static void kevent_close_free(struct fsnotify_mark *fsn)
{
	kmem_cache_free(kevent_mark_cache,
			container_of(fsn, struct kevent_mark, fsn));
	kevent_mark_died();
}

static const struct fsnotify_ops kevent_close_ops = {
	.handle_event	= kevent_close_event,
	.freeing_mark	= kevent_close_freeing,
	.free_mark	= kevent_close_free,
};

/* Does this kernel tell of the close of a file without an inode of its own? */
static int kevent_close_probe(void)
{
	struct file *file;

	kevent_pinned = KEVENT_FILE_PTY_MASTER | KEVENT_FILE_FIFO |
			KEVENT_FILE_OTHER;
	file = anon_inode_getfile("[kevent]", &generic_ro_fops, NULL, O_RDONLY);
	if (IS_ERR(file))
		return PTR_ERR(file);
	if (!kevent_file_notifies(file))
		kevent_pinned |= KEVENT_FILE_ANON;
	fput(file);
	return 0;
}

/**
 * kevent_close_init - at load, before any source
 *
 * Return: 0 or -errno
 */
int kevent_close_init(void)
{
	unsigned int i;
	int ret = -ENOMEM;

	kevent_close_table = kvcalloc(1 << KEVENT_CLOSE_BITS,
				      sizeof(*kevent_close_table), GFP_KERNEL);
	if (!kevent_close_table)
		return -ENOMEM;
	for (i = 0; i < 1 << KEVENT_CLOSE_BITS; i++)
		spin_lock_init(&kevent_close_table[i].lock);
	kevent_close_works = alloc_workqueue("kevent_close", KEVENT_WQ_PERCPU |
					     WQ_CPU_INTENSIVE, WQ_MAX_ACTIVE);
	if (!kevent_close_works)
		goto table;
	kevent_mark_cache = KMEM_CACHE(kevent_mark, SLAB_ACCOUNT);
	if (!kevent_mark_cache)
		goto works;
	kevent_close_group = fsnotify_alloc_group(&kevent_close_ops,
						  FSNOTIFY_GROUP_NOFS);
	if (IS_ERR(kevent_close_group)) {
		ret = PTR_ERR(kevent_close_group);
		goto cache;
	}
	ret = kevent_close_probe();
	if (ret)
		goto group;
	return 0;

group:
	fsnotify_put_group(kevent_close_group);
cache:
	kmem_cache_destroy(kevent_mark_cache);
works:
	destroy_workqueue(kevent_close_works);
table:
	kvfree(kevent_close_table);
	return ret;
}

/**
 * kevent_close_exit - at unload, when every mark has been destroyed
 */
void kevent_close_exit(void)
{
	destroy_workqueue(kevent_close_works);
	kevent_marks_wait();
	fsnotify_put_group(kevent_close_group);
	kmem_cache_destroy(kevent_mark_cache);
	kvfree(kevent_close_table);
}
