/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KEVENT_NAIO_H
#define _KEVENT_NAIO_H

#include <linux/bvec.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/socket.h>
#include <linux/spinlock.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>

#include "close.h"
#include "compat.h"
#include "kevent.h"

struct cred;
struct kevent_reader;
struct mem_cgroup;
struct mm_struct;
struct pid;
struct socket;

/* Transfers of one socket in one direction: those before others end first. */
enum kevent_lane_nr {
	KEVENT_LANE_RECV,
	KEVENT_LANE_SEND,
	KEVENT_LANES,
};

/**
 * struct kevent_lane - one direction of a socket
 * @end:	the socket it is a part of
 * @lock:	of what follows; taken below the provider's lock
 * @queue:	transfers that have not ended, in the order they were asked for
 * @current_one: the one that is being moved, always the first; or NULL
 * @again:	the socket called meanwhile
 * @called:	the socket called, and nobody has moved anything since
 * @eager:	so many calls start the work themselves
 * @called_node: in the list of lanes that a moment later are looked at
 * @flight_node: in the list of those whose socket was in flight
 * @flight_wait: how many times that list is gone through until it is kicked again
 * @flight_left: how many of these are left; it is written in the list, or to be
 * @work:	moves the first one, and those behind it that are of the same user
 * @payer:	of the user for whom that was queued, until it begins; only compared
 * @works:	how many times that is queued or runs
 */
struct kevent_lane {
	struct kevent_end *end;
	spinlock_t lock;	/* of what follows */
	struct list_head queue;
	struct kevent_naio *current_one;
	bool again;
	bool called;
	unsigned int eager;
	struct list_head called_node;
	struct list_head flight_node;
	unsigned int flight_wait;
	unsigned int flight_left;
	struct work_struct work;
	const struct kevent_account *payer;
	atomic_t works;
};

/**
 * struct kevent_end - a socket that has transfers, or had some a moment ago
 * @node:	in the table of all of them, by @inode
 * @inode:	of the socket, held; the socket itself is not
 * @users:	transfers that refer to it; this and the following under the
 *		table's lock
 * @idle:	in a list of those that nobody refers to
 * @since:	when that began, in jiffies
 * @dying:	out of the table
 * @closed:	the socket is, or nobody would tell
 * @mutex:	of @hooked, from false to true
 * @hooked:	the socket calls by @wait, and of its close by @close
 * @close:	told of the close of the socket
 * @wait:	on the socket's wait queue
 * @rcu:	the lanes outlive who has found them in the list of those called
 * @lanes:	by KEVENT_LANE_*
 */
struct kevent_end {
	struct hlist_node node;
	struct inode *inode;
	unsigned long users;
	struct list_head idle;
	unsigned long since;
	bool dying;
	bool closed;
	struct mutex mutex;	/* of what follows */
	bool hooked;
	struct kevent_close close;
	wait_queue_entry_t wait;
	struct rcu_head rcu;
	struct kevent_lane lanes[KEVENT_LANES];
};

/* Buffers of no more than two pages need no memory for this. */
#define KEVENT_PIN_INLINE	2

/**
 * struct kevent_pin - pinned memory of a process
 * @mm:		whose memory it is, held; NULL where nothing is pinned
 * @account:	that is charged, too
 * @bvec:	the pages, one in each
 * @inline_bvec: where these are if they are few
 * @nr:		how many are pinned
 * @charged:	how many are charged
 * @dirty:	they are written to
 */
struct kevent_pin {
	struct mm_struct *mm;
	struct kevent_account *account;
	struct bio_vec *bvec;
	struct bio_vec inline_bvec[KEVENT_PIN_INLINE];
	unsigned long nr;
	unsigned long charged;
	bool dirty;
};

/**
 * struct kevent_naio - a kevent of the end of a transfer, or of a row of them
 * @kevent:	the kevent
 * @lane:	where it is queued, until it is freed; NULL: never was
 * @node:	in @lane's queue until it has ended
 * @prepared:	others than who asks for it may move it; this and the following
 *		under @lane's lock
 * @cancelled:	to be ended without an event, and somebody waits for that
 * @held:	not to be moved, and somebody waits until it is not
 * @multishot:	a row of transfers; constant
 * @stream:	the socket's bytes are no messages; constant
 * @flies:	a receive by a UNIX socket, not to be moved while that is in flight;
 *		constant
 * @pid:	of a send by a UNIX socket, held: the process that sends; constant
 * @mm:		of a multishot, held: the process whose memory is meant
 * @address:	of a multishot: the memory; @left is its length
 * @reader:	of the file of a SENDFILE, which has no buffer; else NULL
 * @pin:	the part of the buffer that had not been moved at once
 * @iter:	what is still to be moved; this and the following belong to whoever
 *		made this the lane's current one, or has claimed it or has the
 *		queue's mutex once it has ended
 * @left:	bytes
 * @moved:	bytes; of a multishot: by the last one
 * @error:	errno, not negative, or 0
 * @truncated:	a datagram was longer than the buffer
 * @broken:	the socket was closed
 * @drained:	of a multishot: the socket had nothing more
 * @seen:	who polled the queue was told of it, and it was not found wrong since
 * @pending:	of a multishot: what was moved has not been delivered yet
 * @done:	it has ended; read with acquire by who has claimed it
 * @cred:	who asked for it
 * @memcg:	who pays for what the socket needs
 */
struct kevent_naio {
	struct kevent kevent;
	struct kevent_lane *lane;
	struct list_head node;
	bool prepared;
	bool cancelled;
	bool held;
	bool multishot;
	bool stream;
	bool flies;
	struct pid *pid;
	struct mm_struct *mm;
	unsigned long address;
	struct kevent_reader *reader;
	struct kevent_pin pin;
	struct iov_iter iter;
	size_t left;
	u64 moved;
	int error;
	bool truncated;
	bool broken;
	bool drained;
	bool seen;
	bool pending;
	bool done;
	const struct cred *cred;
	struct mem_cgroup *memcg;
};

static inline struct kevent_naio *to_kevent_naio(const struct kevent *k)
{
	return container_of(k, struct kevent_naio, kevent);
}

static inline bool kevent_naio_sends(const struct kevent_naio *t)
{
	return t->kevent.events & (KEVENT_NAIO_SEND | KEVENT_NAIO_SENDFILE);
}

/**
 * kevent_naio_meaning - what a socket means by what it returns
 * @ret:	what it returned
 *
 * Return: -EAGAIN where it has to call first; -EINTR where it is to be tried again,
 * for a signal is none of a transfer's business; or @ret
 */
static inline int kevent_naio_meaning(int ret)
{
	if (ret == -EINTR || ret == -ERESTARTSYS)
		return -EINTR;
	/* a connection that is begun by what is to be sent */
	if (ret == -EINPROGRESS)
		return -EAGAIN;
	/* at an urgent mark a stream says so for a signal */
	return ret == -EAGAIN && signal_pending(current) ? -EINTR : ret;
}

/*
 * TCP with a protocol on top, as TLS: that waits for other senders, and these for
 * the peer, whatever is asked of it.
 */
static inline bool kevent_naio_layered(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP &&
	       READ_ONCE(inet_csk(sk)->icsk_ulp_ops);
}

/**
 * kevent_end_file - the open file of a socket, to be put by kevent_put_file()
 * @end:	the socket
 *
 * Return: the file, or NULL where it is closed
 */
static inline struct file *kevent_end_file(struct kevent_end *end)
{
	if (READ_ONCE(end->closed))
		return NULL;
	return kevent_get_file(&SOCKET_I(end->inode)->file);
}

/* naio.c */
int kevent_naio_step(struct kevent_naio *t, struct socket *sock);
int kevent_naio_step_as(struct kevent_naio *t, struct socket *sock);
int kevent_naio_shot(struct kevent_naio *t, struct socket *sock);
void kevent_naio_let_go(struct kevent_naio *t);
void kevent_naio_end(struct kevent_naio *t);
void kevent_naio_complete(struct kevent_naio *t);
void kevent_naio_call(struct kevent_naio *t);

/* naio_lane.c */
void kevent_lane_init(struct kevent_lane *lane, struct kevent_end *end);
void kevent_lane_exit(struct kevent_lane *lane);
bool kevent_lane_join(struct kevent_naio *t);
bool kevent_lane_has_turn(struct kevent_naio *t);
bool kevent_lane_moves(struct kevent_naio *t);
bool kevent_lane_flies(struct kevent_naio *t);
void kevent_lane_tried(struct kevent_naio *t, bool ended);
void kevent_lane_prepared(struct kevent_naio *t);
void kevent_lane_run(struct kevent_naio *t, size_t *budget);
void kevent_lane_kick(struct kevent_lane *lane);
void kevent_lane_kick_irqoff(struct kevent_lane *lane);
void kevent_lane_defer(struct kevent_lane *lane);
int kevent_lane_hold(struct kevent_naio *t);
void kevent_lane_let_go(struct kevent_naio *t);
int kevent_lane_leave(struct kevent_naio *t, bool killable);
void kevent_lanes_exit(void);

/* naio_end.c */
int kevent_end_get(struct kevent_naio *t, struct inode *inode);
void kevent_end_put(struct kevent_naio *t);
int kevent_end_hook(struct kevent_end *end, struct file *file);
void kevent_ends_exit(void);

/* naio_pin.c */
int kevent_pin_user(struct kevent_pin *pin, struct kevent_account *account,
		    unsigned long start, size_t length, bool write,
		    struct iov_iter *iter);
int kevent_pin_remote(struct kevent_pin *pin, struct mm_struct *mm,
		      unsigned long start, size_t length, struct iov_iter *iter);
void kevent_unpin(struct kevent_pin *pin);

/* naio_file.c */
int kevent_readers_init(void);
void kevent_readers_exit(void);
int kevent_reader_check(const struct kevent_request *req);
int kevent_reader_open(struct kevent_naio *t, const void __user *address,
		       size_t size);
int kevent_reader_step(struct kevent_naio *t, struct socket *sock,
		       struct msghdr *how);
void kevent_reader_close(struct kevent_naio *t);

#endif /* _KEVENT_NAIO_H */
