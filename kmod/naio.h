/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KEVENT_NAIO_H
#define _KEVENT_NAIO_H

#include <linux/bvec.h>
#include <linux/list.h>
#include <linux/socket.h>
#include <linux/spinlock.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "close.h"
#include "kevent.h"

struct cred;
struct mm_struct;
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
 * @work:	moves the first one, and those behind it
 */
struct kevent_lane {
	struct kevent_end *end;
	spinlock_t lock;	/* of what follows */
	struct list_head queue;
	struct kevent_naio *current_one;
	bool again;
	struct work_struct work;
};

/**
 * struct kevent_end - a socket that has transfers
 * @node:	in the table of all of them, by @inode
 * @inode:	of the socket, held; the socket itself is not
 * @users:	transfers that refer to it; under the table's lock
 * @hooked:	@wait is on the socket's wait queue; under the lock of that
 * @lost:	nobody will tell of the close any more
 * @wait:	called by the socket
 * @lanes:	by KEVENT_LANE_*
 */
struct kevent_end {
	struct hlist_node node;
	struct inode *inode;
	unsigned long users;
	bool hooked;
	bool lost;
	wait_queue_entry_t wait;
	struct kevent_lane lanes[KEVENT_LANES];
};

/* Buffers of no more than two pages need no memory for this. */
#define KEVENT_PIN_INLINE	2

/**
 * struct kevent_pin - pinned memory of a process
 * @mm:		that is charged for it; NULL where nothing is pinned
 * @bvec:	the pages, one in each
 * @inline_bvec: where these are if they are few
 * @nr:		how many are pinned
 * @charged:	how many are charged
 * @dirty:	they are written to
 */
struct kevent_pin {
	struct mm_struct *mm;
	struct bio_vec *bvec;
	struct bio_vec inline_bvec[KEVENT_PIN_INLINE];
	unsigned long nr;
	unsigned long charged;
	bool dirty;
};

/**
 * struct kevent_naio - a kevent of the end of a transfer
 * @kevent:	the kevent
 * @close:	told of the close of the socket, once the transfer has to wait
 * @lane:	where it is queued, until it is dequeued; NULL: never was
 * @node:	in @lane's queue until it has ended
 * @prepared:	its memory is pinned; this and the following under @lane's lock
 * @cancelled:	to be ended without an event, and somebody waits for that
 * @pin:	the part of the buffer that had not been moved at once
 * @iter:	what is still to be moved; this and the following belong to whoever
 *		made this the lane's current one, or has the queue's mutex once
 *		it has ended
 * @left:	bytes
 * @moved:	bytes
 * @error:	errno, not negative, or 0
 * @truncated:	a datagram was longer than the buffer
 * @broken:	the socket was closed
 * @done:	it has ended and said so
 * @cred:	who asked for it
 * @stream:	the socket's bytes are no messages
 */
struct kevent_naio {
	struct kevent kevent;
	struct kevent_close close;
	struct kevent_lane *lane;
	struct list_head node;
	bool prepared;
	bool cancelled;
	struct kevent_pin pin;
	struct iov_iter iter;
	size_t left;
	u64 moved;
	int error;
	bool truncated;
	bool broken;
	bool done;
	bool stream;
	const struct cred *cred;
};

static inline struct kevent_naio *to_kevent_naio(const struct kevent *k)
{
	return container_of(k, struct kevent_naio, kevent);
}

static inline bool kevent_naio_sends(const struct kevent_naio *t)
{
	return t->kevent.events & KEVENT_NAIO_SEND;
}

/* naio.c */
int kevent_naio_step(struct kevent_naio *t, struct socket *sock);
void kevent_naio_complete(struct kevent_naio *t);

/* naio_lane.c */
int kevent_end_get(struct kevent_naio *t, struct inode *inode);
void kevent_end_put(struct kevent_naio *t);
void kevent_end_hook(struct kevent_end *end);
bool kevent_lane_join(struct kevent_naio *t);
void kevent_lane_tried(struct kevent_naio *t, bool ended);
void kevent_lane_prepared(struct kevent_naio *t);
void kevent_lane_kick(struct kevent_lane *lane);
void kevent_lane_leave(struct kevent_naio *t);

/* naio_pin.c */
int kevent_pin_user(struct kevent_pin *pin, unsigned long start, size_t length,
		    bool write, struct iov_iter *iter);
void kevent_unpin(struct kevent_pin *pin);

#endif /* _KEVENT_NAIO_H */
