/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the core, the sources and the device share.  Locking and the life of a
 * kevent are described once, at the top of queue.c.
 */
#ifndef _KEVENT_H
#define _KEVENT_H

#include <linux/gfp.h>
#include <linux/irq_work.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/path.h>
#include <linux/poll.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>

#include "kevent_uapi.h"

struct fsnotify_group;
struct workqueue_struct;
struct inode;
struct seq_file;
struct kevent;

/*
 * For everything that a caller can make us allocate as often as it likes: its
 * memory cgroup pays, and where that is full the call fails.  With less the
 * OOM killer would end a process there, which need not be the caller.
 */
#define KEVENT_GFP	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* struct kevent, @state; under the queue's lock */
#define KEVENT_READY	0x01	/* its own item is on the ready list */
#define KEVENT_AGAIN	0x02	/* active again while it was claimed */
#define KEVENT_MODIFIED	0x04	/* modified while it was claimed */
#define KEVENT_ASLEEP	0x08	/* disabled: KEVENT_DISABLED, or dispatched */
#define KEVENT_BROKEN	0x10	/* storage gone, to be delivered once more */
#define KEVENT_DEAD	0x20	/* never delivered again; on the dead list */
#define KEVENT_REMOVED	0x40	/* out of the tree */
#define KEVENT_ORPHAN	0x80	/* off its storage too; the last claim frees it */
#define KEVENT_NEW	0x100	/* being added: not to be delivered yet */

/**
 * struct kevent_item - one entry of a ready list
 * @list:	place in the ready list, or in the list of one delivery
 * @kevent:	whose it is; a kevent has one of its own, and a source that
 *		reports every occurrence separately has one for each
 * @claimed:	it is with a waiter
 * @offered:	besides, what its event says is settled
 */
struct kevent_item {
	struct list_head list;
	struct kevent *kevent;
	bool claimed;
	bool offered;
};

/**
 * struct kevent_account - the kevents of all queues of one user
 * @uid:	of the opener of the queues
 * @refs:	queues that use it, and files that are being read
 * @kevents:	how many
 * @events:	inode events that wait in them
 * @pins:	files that they hold
 * @pinned:	pages that their transfers hold
 * @inode_group: inode.c: of their marks, once there has been one
 * @naio:	naio_lane.c: moves their transfers, once one had to wait
 * @reads:	naio_file.c: reads files for them, once one was to be sent
 * @readers:	naio_file.c: files of transfers that are being read
 * @readers_wait: files that are to be read when it is their turn
 * @node:	in the table of all accounts
 */
struct kevent_account {
	kuid_t uid;
	refcount_t refs;
	atomic_long_t kevents;
	atomic_long_t events;
	atomic_long_t pins;
	atomic_long_t pinned;
	struct fsnotify_group *inode_group;
	struct workqueue_struct *naio;
	struct workqueue_struct *reads;
	unsigned int readers;
	struct list_head readers_wait;
	struct hlist_node node;
};

/**
 * struct kevent_user - the queue: everything one open /dev/kevent holds
 * @mutex:	guards @tree and what hangs kevents on their storages
 * @tree:	all kevents, by type, identity and watched object
 * @kevents:	how many
 * @lock:	guards the fields that follow, and the state of every kevent
 * @ready_list:	items to deliver, first come first served
 * @ready:	how many
 * @waiters:	sleeping threads, in the order they came
 * @least:	none of them is content with fewer events
 * @dead:	kevents to be removed by whoever takes @mutex next
 * @nr_dead:	how many
 * @claims:	items that are claimed
 * @missed:	somebody who polls the queue, or does not wait, saw nothing because
 *		of that
 * @round:	counts deliveries
 * @poll_wait:	those who poll the queue's descriptor
 * @poll_work:	wakes @poll_wait where a callback must not
 * @account:	of the user who pays for the kevents
 * @loop_node:	in the list of queues that a search for cycles has reached
 * @refs:	the open file's, and that of such a search
 * @rcu:	a queue outlives its watchers' last look at @poll_wait
 */
struct kevent_user {
	struct mutex mutex;	/* of what follows */
	struct rb_root tree;
	unsigned long kevents;

	spinlock_t lock;	/* of what follows */
	struct list_head ready_list;
	unsigned long ready;
	struct list_head waiters;
	unsigned long least;
	struct list_head dead;
	unsigned long nr_dead;
	unsigned long claims;
	bool missed;
	u64 round;

	wait_queue_head_t poll_wait;
	struct irq_work poll_work;
	struct kevent_account *account;
	struct list_head loop_node;
	refcount_t refs;
	struct rcu_head rcu;
};

/**
 * struct kevent_target - what a request names, resolved
 * @object:	tells kevents of one identity apart: a file, an inode, or NULL
 * @file:	held by the caller; NULL where the type takes no descriptor
 * @path:	held by the caller; NULL but for KEVENT_PATH
 */
struct kevent_target {
	const void *object;
	struct file *file;
	const struct path *path;
};

/**
 * struct kevent_ops - one type of event
 * @name:	in fdinfo
 * @cache:	name of its slab cache
 * @type:	KEVENT_*
 * @descriptor:	@ident is a descriptor
 * @size:	of the source's structure, which begins with a struct kevent
 * @events:	bits that may be asked for
 * @exact:	@events must be asked for as they are
 * @flags:	KEVENT_* beyond the modes that the type takes
 * @init:	at load; may be NULL
 * @exit:	at unload; may be NULL
 * @check:	looks at the parameters of a request: 0 or -errno; may be NULL
 * @permit:	whether the caller may add this: 0 or -errno; may be NULL.  No
 *		lock held, for a file system may be asked and take its time
 * @enqueue:	hangs a new kevent on its storage and enqueues it where it is
 *		ready already: 0 or -errno.  Under the queue's mutex, may sleep
 * @modify:	takes over the parameters of a request: 0 or -errno; the rest has
 *		been taken over.  Under the queue's mutex, may sleep; may be NULL
 * @dequeue:	takes a kevent off its storage; no callback runs after it.
 *		Under the queue's mutex, may sleep
 * @cancel:	before @dequeue, where the caller removes the kevent: says in the
 *		parameters of the request how far it came; no callback runs
 *		after it, either.  0, or -EINTR where nothing has happened.  Under
 *		the queue's mutex, may sleep; may be NULL
 * @release:	frees what @dequeue left for the last claim; may be NULL
 * @advance:	instead of @poll where a WAIT counts what is ready: does what can be
 *		done about it, and says whether there is an event.  Claimed, no
 *		lock held, may sleep; may be NULL
 * @poll:	what @events hold now, and, where @event is not NULL, its data: a
 *		source whose events are a condition.  Claimed, no lock held, may
 *		sleep.  Either may move data for events that do not come of it as
 *		long as *@budget bytes last
 * @has_event:	whether there is one now, without asking.  Claimed, under the queue's
 *		lock; may be NULL
 * @peek:	fills @event: a source whose events add up.  Under the queue's
 *		lock.  A type has either @poll or @peek
 * @consume:	takes off what was reported; true where more is left.  Under the
 *		queue's lock; a type with @peek has it
 * @gone:	whether the watched file was closed without a word; may be NULL
 * @park:	takes all items but the kevent's own off the ready list, or puts
 *		on it those that may be delivered: of a kevent that ends or
 *		sleeps with its delivery, one.  True where it has any.  Under
 *		the queue's lock; may be NULL
 * @close:	how the close of the watched file is seen, for fdinfo
 */
struct kevent_ops {
	const char *name;
	const char *cache;
	u16 type;
	bool descriptor;
	size_t size;
	u32 events;
	bool exact;
	u32 flags;

	int (*init)(void);
	void (*exit)(void);
	int (*check)(const struct kevent_request *req);
	int (*permit)(const struct kevent_target *target);
	int (*enqueue)(struct kevent *k, const struct kevent_request *req,
		       const struct kevent_target *target);
	int (*modify)(struct kevent *k, const struct kevent_request *req,
		      const struct kevent_target *target);
	void (*dequeue)(struct kevent *k);
	int (*cancel)(struct kevent *k, struct kevent_request *req);
	void (*release)(struct kevent *k);
	bool (*advance)(struct kevent *k, size_t *budget);
	u32 (*poll)(struct kevent *k, struct kevent_event *event,
		    size_t *budget);
	bool (*has_event)(const struct kevent *k);
	void (*peek)(struct kevent *k, struct kevent_item *item,
		     struct kevent_event *event, const char **name);
	bool (*consume)(struct kevent *k, struct kevent_item *item,
			const struct kevent_event *event);
	bool (*gone)(struct kevent *k);
	bool (*park)(struct kevent *k, bool park);
	const char *(*close)(const struct kevent *k);
};

/**
 * struct kevent - one interest of one queue in one storage
 * @node:	in the queue's tree
 * @user:	the queue
 * @ops:	the type
 * @ident:	the identity the caller gave
 * @object:	see struct kevent_target
 * @nested:	its file may itself be a queue of events; constant once it is
 *		hung on its storage, and looked at without a lock
 * @cookie:	the caller's; this and the following under the queue's lock
 * @events:	asked for
 * @flags:	asked for
 * @state:	KEVENT_READY and so on
 * @claims:	how many of its items are claimed
 * @round:	the last delivery that dealt with it
 * @item:	its own entry of the ready list
 * @dead_node:	in the queue's dead list
 */
struct kevent {
	struct rb_node node;
	struct kevent_user *user;
	const struct kevent_ops *ops;
	u64 ident;
	const void *object;
	bool nested;
	u64 cookie;
	u32 events;
	u32 flags;
	u32 state;
	u32 claims;
	u64 round;
	struct kevent_item item;
	struct list_head dead_node;
};

/* types.c */
extern unsigned int kevent_features;
int kevent_types_init(void);
void kevent_types_exit(void);
const struct kevent_ops *kevent_type(u16 type);
int kevent_check_request(const struct kevent_ops *ops,
			 const struct kevent_request *req);
struct kevent *kevent_alloc(const struct kevent_ops *ops);
void kevent_free(struct kevent *k);

extern const struct kevent_ops kevent_socket_ops;
extern const struct kevent_ops kevent_poll_ops;
extern const struct kevent_ops kevent_inode_ops;
extern const struct kevent_ops kevent_path_ops;
extern const struct kevent_ops kevent_timer_ops;
extern const struct kevent_ops kevent_user_ops;
extern const struct kevent_ops kevent_naio_ops;

/* queue.c */
struct kevent_user *kevent_user_alloc(void);
void kevent_user_release(struct kevent_user *user);
void kevent_user_hold(struct kevent_user *user);
void kevent_user_let_go(struct kevent_user *user);
int kevent_add(struct kevent_user *user, const struct kevent_request *req);
int kevent_add_path(struct kevent_user *user, const struct kevent_request *req,
		    const char *name);
int kevent_modify(struct kevent_user *user, const struct kevent_request *req);
int kevent_remove(struct kevent_user *user, struct kevent_request *req);
int kevent_post(struct kevent_user *user, u64 ident, u64 data);
int kevent_info(struct kevent_user *user, struct kevent_info *info);
int kevent_show(struct kevent_user *user, struct seq_file *m);
void kevent_reap(struct kevent_user *user);
bool kevent_modify_locked(struct kevent *k, const struct kevent_request *req);

/* account.c */
extern unsigned long kevent_max_queue;
extern unsigned long kevent_max_user;
extern unsigned int kevent_max_watches;
int kevent_account_init(void);
void kevent_account_exit(void);
struct kevent_account *kevent_account_get(void);
void kevent_account_hold(struct kevent_account *account);
void kevent_account_let_go(struct kevent_account *account);
void kevent_account_put(struct kevent_account *account);
int kevent_charge(struct kevent_user *user);
void kevent_uncharge(struct kevent_user *user);
int kevent_charge_pin(struct kevent_account *account);
void kevent_uncharge_pin(struct kevent_account *account);
int kevent_charge_watch(const struct kevent_account *account,
			const struct inode *inode);
void kevent_uncharge_watch(const struct kevent_account *account,
			   const struct inode *inode);
bool kevent_charge_event(struct kevent_account *account);
void kevent_uncharge_event(struct kevent_account *account);

/* ready.c: for sources */
void kevent_ready(struct kevent *k);
bool kevent_ready_locked(struct kevent *k);
bool kevent_item_ready_locked(struct kevent *k, struct kevent_item *item);
void kevent_item_park_locked(struct kevent *k, struct kevent_item *item);
void kevent_wake_pollers(struct kevent_user *user, bool defer);
void kevent_closed(struct kevent *k, bool report);

/* ready.c: for queue.c */
void kevent_forget_locked(struct kevent *k);

/* ready.c: for the device */
#define KEVENT_DELIVERY_BATCH	16

/* Bytes that a call moves without having events of it, until it sleeps. */
#define KEVENT_DELIVERY_BUDGET	SZ_1M

/**
 * struct kevent_delivery - one call's worth of events on their way out
 * @user:	the queue
 * @claimed:	items claimed ahead, to be delivered first
 * @orphans:	to be freed: kevents that were removed while claimed
 * @round:	marks the kevents it has dealt with
 * @budget:	see struct kevent_ops; the caller's, who may deliver more than once
 * @again:	some of these were active again meanwhile
 * @more:	there may be more to deliver than the batch in hand
 * @nr:		events in the batch in hand
 * @event:	these events, ready to be copied
 * @name:	the entry's name of each, or NULL; valid until the batch is done
 * @item:	where each comes from
 */
struct kevent_delivery {
	struct kevent_user *user;
	struct list_head claimed;
	struct list_head orphans;
	u64 round;
	size_t budget;
	bool again;
	bool more;
	unsigned int nr;
	struct kevent_event event[KEVENT_DELIVERY_BATCH];
	const char *name[KEVENT_DELIVERY_BATCH];
	struct kevent_item *item[KEVENT_DELIVERY_BATCH];
};

/* Starts a delivery, of which the rest is ready.c's. */
static inline void kevent_delivery_begin(struct kevent_delivery *d,
					 struct kevent_user *user)
{
	d->user = user;
	d->nr = 0;
	d->round = 0;
	d->again = false;
	INIT_LIST_HEAD(&d->claimed);
	INIT_LIST_HEAD(&d->orphans);
}

/**
 * struct kevent_deadline - how long to wait
 * @expires:	a point in time on @clock; KTIME_MAX has no end
 * @clock:	CLOCK_REALTIME, CLOCK_MONOTONIC or CLOCK_BOOTTIME
 * @now:	do not wait at all
 */
struct kevent_deadline {
	ktime_t expires;
	clockid_t clock;
	bool now;
};

int kevent_time(u64 value, u32 clock, bool absolute, ktime_t *expires,
		clockid_t *base);
unsigned int kevent_delivery_next(struct kevent_delivery *d, size_t max);
void kevent_delivery_done(struct kevent_delivery *d, unsigned int nr);
unsigned long kevent_delivery_end(struct kevent_delivery *d, unsigned int nr);
bool kevent_delivery_claim(struct kevent_delivery *d, unsigned int min);
bool kevent_is_empty(struct kevent_user *user);
bool kevent_has_ready(struct kevent_user *user, unsigned int depth);
int kevent_wait(struct kevent_user *user, unsigned int min,
		const struct kevent_deadline *deadline);

/* device.c */
struct kevent_user *kevent_user_of(struct file *file);

/* what the core asks of one source, or of the parts some sources share */
#ifdef KEVENT_HAVE_USER
int kevent_user_post(struct kevent *k, u64 data);
#else
static inline int kevent_user_post(struct kevent *k, u64 data)
{
	return -EOPNOTSUPP;
}
#endif

#ifdef KEVENT_HAVE_INODE
void kevent_inode_account_exit(struct kevent_account *account);
u32 kevent_inode_limit(void);
#else
static inline void kevent_inode_account_exit(struct kevent_account *account)
{
}

static inline u32 kevent_inode_limit(void)
{
	return 0;
}
#endif

#ifdef KEVENT_HAVE_NAIO
int kevent_naio_account_init(struct kevent_account *account);
void kevent_naio_account_exit(struct kevent_account *account);
void kevent_readers_account_exit(struct kevent_account *account);
#else
static inline void kevent_naio_account_exit(struct kevent_account *account)
{
}

static inline void kevent_readers_account_exit(struct kevent_account *account)
{
}
#endif

#ifdef KEVENT_HAVE_HOOKS
void kevent_hook_release(struct kevent_user *user);
bool kevent_nested_holds(struct kevent *k, unsigned int depth);
#else
static inline bool kevent_nested_holds(struct kevent *k, unsigned int depth)
{
	return true;
}

static inline void kevent_hook_release(struct kevent_user *user)
{
}
#endif

#ifdef KEVENT_HAVE_CLOSE
int kevent_close_init(void);
void kevent_close_exit(void);
u32 kevent_close_pinned(void);
#else
static inline int kevent_close_init(void)
{
	return 0;
}

static inline void kevent_close_exit(void)
{
}

static inline u32 kevent_close_pinned(void)
{
	return 0;
}
#endif

#endif /* _KEVENT_H */
