/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * kevent: one queue for every kind of event.  The only definition of the ABI.
 *
 * Every ioctl on /dev/kevent takes one flat structure whose size is encoded in
 * the ioctl's number; batches are a header followed by an array, and the size
 * of both is encoded.  Nothing here contains a pointer, but for the address of
 * a transfer's buffer, every field is of fixed width and naturally aligned, so
 * that a 32-bit program, a 64-bit one and a server behind FUSE all see the same
 * bytes.
 */
#ifndef _KEVENT_UAPI_H
#define _KEVENT_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define KEVENT_ABI_VERSION	1

/* Types of event: what @ident names, and which bits @events takes. */
#define KEVENT_SOCKET	1	/* a socket's descriptor; KEVENT_SOCKET_* */
#define KEVENT_POLL	2	/* a pollable descriptor; POLL* of <poll.h> */
#define KEVENT_INODE	3	/* a file's descriptor; KEVENT_INODE_* */
#define KEVENT_TIMER	4	/* a number you choose; KEVENT_TIMER_FIRED */
#define KEVENT_USER	5	/* a number you choose; KEVENT_USER_POSTED */
#define KEVENT_PATH	6	/* a number you choose; by ADD_PATH only */
#define KEVENT_NAIO	7	/* a number you choose; KEVENT_NAIO_* */

/*
 * KEVENT_SOCKET.  The bits of <poll.h> where there is one.  ERR and HUP are
 * reported whether asked for or not.  A listening socket reports ACCEPT, never
 * RECV.
 */
#define KEVENT_SOCKET_RECV	0x0001	/* POLLIN: data, or end of file */
#define KEVENT_SOCKET_PRI	0x0002	/* POLLPRI: urgent data */
#define KEVENT_SOCKET_SEND	0x0004	/* POLLOUT: room to send */
#define KEVENT_SOCKET_ERR	0x0008	/* POLLERR: error pending */
#define KEVENT_SOCKET_HUP	0x0010	/* POLLHUP: both directions shut */
#define KEVENT_SOCKET_RDHUP	0x2000	/* POLLRDHUP: the peer sends no more */
#define KEVENT_SOCKET_ACCEPT	0x4000	/* a connection is waiting */

/* KEVENT_INODE and KEVENT_PATH.  ISDIR is reported, never asked for. */
#define KEVENT_INODE_CREATE		0x0001	/* entry made in directory */
#define KEVENT_INODE_REMOVE		0x0002	/* entry gone from directory */
#define KEVENT_INODE_MOVED_FROM		0x0004	/* entry renamed: its old name */
#define KEVENT_INODE_MOVED_TO		0x0008	/* entry renamed: its new name */
#define KEVENT_INODE_MODIFY		0x0010	/* contents written, truncated */
#define KEVENT_INODE_ATTRIB		0x0020	/* mode, owner, times, links */
#define KEVENT_INODE_SELF_REMOVED	0x0040	/* the inode itself is gone */
#define KEVENT_INODE_SELF_MOVED		0x0080	/* the inode itself was renamed */
#define KEVENT_INODE_UNMOUNT		0x0100	/* its file system is gone */
#define KEVENT_INODE_ISDIR		0x4000	/* the entry is a directory */

#define KEVENT_TIMER_FIRED	0x0001
#define KEVENT_USER_POSTED	0x0001

/* KEVENT_NAIO: one of these. */
#define KEVENT_NAIO_RECV	0x0001	/* from a socket into memory */
#define KEVENT_NAIO_SEND	0x0002	/* from memory to a socket */
#define KEVENT_NAIO_SENDFILE	0x0004	/* from a file to a socket */
/* bytes of memory in one transfer */
#define KEVENT_NAIO_MAX		0x7ffff000

/**
 * struct kevent_sendfile - what a NAIO SENDFILE is given an address of
 * @offset:	where in the file to begin
 * @length:	bytes of the file, or KEVENT_SENDFILE_ALL
 * @file:	descriptor of a regular file, open for reading
 * @flags:	0
 * @prefix:	how many bytes follow this structure, to be sent before the file
 * @suffix:	how many bytes follow those, to be sent after it
 *
 * All of it, with the bytes that follow, is read by the ADD and not touched
 * later.  No more than KEVENT_SENDFILE_EXTRA bytes follow.  A file that ends
 * before @length bytes ends the transfer there, without the suffix.
 */
struct kevent_sendfile {
	__u64 offset;
	__u64 length;
	__s32 file;
	__u32 flags;
	__u32 prefix;
	__u32 suffix;
	/* __u8 bytes[]; */
};

#define KEVENT_SENDFILE_ALL	(~(__u64)0)
#define KEVENT_SENDFILE_EXTRA	16384

/* struct kevent_request, @flags.  No mode given means level. */
#define KEVENT_EDGE		0x0001	/* one report for each new activity */
#define KEVENT_ONESHOT		0x0002	/* removed by its delivery */
#define KEVENT_DISPATCH		0x0004	/* disabled by its delivery */
#define KEVENT_DISABLED		0x0008	/* registered, silent until MODIFY */
#define KEVENT_NOTIFY_BROKEN	0x0010	/* report the close, once */
#define KEVENT_BYTES		0x0020	/* SOCKET: @data counts bytes */
#define KEVENT_ABSTIME		0x0040	/* TIMER: param[0] is a point in time */
#define KEVENT_NOFOLLOW		0x0080	/* PATH: not through a last symlink */
#define KEVENT_STALE		0x0100	/* REMOVE: see struct kevent_request */
#define KEVENT_WAITALL		0x0200	/* NAIO RECV: not less than was asked for */
#define KEVENT_MULTISHOT	0x0400	/* NAIO RECV: again and again */

/* struct kevent_request, @op: in KEVENT_IOC_CHANGE_WAIT only, else 0. */
#define KEVENT_OP_ADD		1
#define KEVENT_OP_MODIFY	2
#define KEVENT_OP_REMOVE	3

/**
 * struct kevent_request - one change to the set of kevents in a queue
 * @ident:	what is watched: a descriptor, or a number of the caller's
 * @cookie:	the caller's own, handed back in every event
 * @type:	KEVENT_SOCKET and so on; with @ident it names the kevent
 * @op:		KEVENT_OP_* in KEVENT_IOC_CHANGE_WAIT, otherwise 0
 * @flags:	mode and options
 * @events:	what to report
 * @result:	out: 0 or -errno, for this request alone
 * @param:	TIMER: first expiry in ns, interval in ns (0: once), clock id;
 *		INODE, PATH: [0] how many events may queue up (0: the default);
 *		NAIO: address of the buffer, its length in bytes, descriptor of
 *		the socket; SENDFILE: the buffer is a struct kevent_sendfile;
 *		whatever is not named here is 0
 *
 * A descriptor stands for the open file it refers to at the time of the call,
 * as in epoll.  A kevent whose descriptor was closed here while another
 * process still holds the file lives on; REMOVE with KEVENT_STALE, and the
 * number it was added under, removes every such kevent of that number.
 * MODIFY replaces @cookie, @flags, @events and @param, enables the kevent, and
 * looks at the source again.  REMOVE looks at @type, @ident and KEVENT_STALE;
 * the rest is 0.
 *
 * A NAIO kevent is one transfer, and removed by the one event that tells of its
 * end; MODIFY takes it only with KEVENT_MULTISHOT.  REMOVE cancels it, returns
 * when the kernel does not touch the buffer any more, and sets @param[0] to the
 * bytes that were moved and @param[1] to the errno that its event would have
 * told: 0 where it had ended well, ECANCELED where it had not ended.  One that
 * another thread is just being given is delivered as well, and says the same.
 *
 * With KEVENT_MULTISHOT it is a row of transfers into the same memory.  Each is
 * made by the WAIT that reports it, or by one before that had no room left for
 * its event; until the next one the memory is the caller's.  The event that
 * tells of the end of file, of an error or of the close has KEVENT_EVENT_LAST
 * and is the last one.  KEVENT_DISPATCH makes each event wait for a MODIFY,
 * which may give other memory.
 */
struct kevent_request {
	__u64 ident;
	__u64 cookie;
	__u16 type;
	__u16 op;
	__u32 flags;
	__u32 events;
	__s32 result;
	__u64 param[3];
};

/**
 * struct kevent_batch - header of ADD, MODIFY, REMOVE; requests follow
 * @count:	how many requests follow; no more than the encoded size holds
 * @flags:	0
 * @reserved:	0
 *
 * The ioctl returns how many succeeded.
 */
struct kevent_batch {
	__u32 count;
	__u32 flags;
	__u64 reserved;
};

/**
 * struct kevent_path - argument of ADD_PATH; the path follows
 * @request:	a KEVENT_PATH request
 * @path:	the path and its terminating NUL, within the encoded size
 *
 * The ioctl returns 1 where @request was added, or 0 and @request.result.
 */
struct kevent_path {
	struct kevent_request request;
	/* char path[]; */
};

/* struct kevent_event, @flags */
#define KEVENT_EVENT_BROKEN	0x01	/* its source was closed; it is gone */
#define KEVENT_EVENT_OVERFLOW	0x02	/* inode events were lost before this */
#define KEVENT_EVENT_NAME	0x04	/* an entry's name follows */
#define KEVENT_EVENT_LAST	0x08	/* the kevent was removed by this */
#define KEVENT_EVENT_ERROR	0x10	/* NAIO: it failed, @count is the errno */
#define KEVENT_EVENT_TRUNCATED	0x20	/* NAIO: the datagram was longer */

/**
 * struct kevent_event - one event delivered
 * @cookie:	the caller's own, from the request
 * @ident:	from the request
 * @data:	what the source knows: TIMER: expiries; USER: the data last
 *		posted; SOCKET: connections waiting (ACCEPT), or bytes to read,
 *		or else room to write, where KEVENT_BYTES asked for it;
 *		INODE, PATH: see KEVENT_INODE_RENAME and KEVENT_NAME_LENGTH;
 *		NAIO: bytes moved, also where it failed
 * @count:	how many occurrences this one event stands for: expiries, posts,
 *		identical inode events in a row; it stops at 0xffffffff.  With
 *		KEVENT_EVENT_ERROR: an errno
 * @events:	what happened
 * @type:	KEVENT_SOCKET and so on
 * @flags:	KEVENT_EVENT_*
 *
 * With KEVENT_EVENT_NAME the entry's name, without a NUL, stands in the next
 * KEVENT_NAME_RECORDS(data) records, padded with zero bytes.
 */
struct kevent_event {
	__u64 cookie;
	__u64 ident;
	__u64 data;
	__u32 count;
	__u16 events;
	__u8 type;
	__u8 flags;
};

/* @data of an inode event: the number that pairs MOVED_FROM with MOVED_TO ... */
#define KEVENT_INODE_RENAME(data)	((__u32)(data))
/* ... the length in bytes of the name that follows, and its room in records */
#define KEVENT_NAME_LENGTH(data)	((__u32)((data) >> 32))
#define KEVENT_NAME_RECORDS(data)	((KEVENT_NAME_LENGTH(data) + 31) / 32)
/* the records that hold any one event whatever its name */
#define KEVENT_EVENT_RECORDS		9

/* struct kevent_wait, @flags */
#define KEVENT_WAIT_ABSTIME	0x0001	/* @timeout is a point in time */
/* @timeout */
#define KEVENT_WAIT_FOREVER	(~(__u64)0)

/**
 * struct kevent_wait - header of WAIT and CHANGE_WAIT
 * @nr_changes:	CHANGE_WAIT: how many requests follow; WAIT: 0
 * @changed:	out: how many of them succeeded
 * @min:	return when this many events are ready; 0 does not wait
 * @max:	room for events, in records of sizeof(struct kevent_event)
 * @timeout:	ns; 0 does not wait, KEVENT_WAIT_FOREVER has no end
 * @clock:	CLOCK_REALTIME, CLOCK_MONOTONIC or CLOCK_BOOTTIME
 * @flags:	KEVENT_WAIT_*
 * @records:	out: how many records were written
 * @left:	out: events that are still ready in the queue
 * @reserved:	0
 *
 * @nr_changes requests follow, then @max records.  The ioctl returns the number
 * of events.  CHANGE_WAIT does not wait where a change failed; whatever it
 * returns, also EINTR, @changed and the results say what was changed.
 */
struct kevent_wait {
	__u32 nr_changes;
	__u32 changed;
	__u32 min;
	__u32 max;
	__u64 timeout;
	__u32 clock;
	__u32 flags;
	__u32 records;
	__u32 left;
	__u64 reserved;
};

/**
 * struct kevent_post - one posting to a KEVENT_USER kevent; in an array behind
 *			a struct kevent_batch
 * @ident:	of the kevent
 * @data:	handed over in the event; the last one posted counts
 * @flags:	0
 * @result:	out: 0 or -errno
 */
struct kevent_post {
	__u64 ident;
	__u64 data;
	__u32 flags;
	__s32 result;
};

/* struct kevent_info, @features */
#define KEVENT_FEATURE_SOCKET	0x0001
#define KEVENT_FEATURE_POLL	0x0002
#define KEVENT_FEATURE_INODE	0x0004	/* KEVENT_INODE and KEVENT_PATH */
#define KEVENT_FEATURE_TIMER	0x0008
#define KEVENT_FEATURE_USER	0x0010
#define KEVENT_FEATURE_NAIO	0x0020
#define KEVENT_FEATURE_PIN	0x10000000	/* NAIO: buffers are pinned */
#define KEVENT_FEATURE_FDINFO	0x20000000	/* fdinfo lists the kevents */
#define KEVENT_FEATURE_PARTIAL	0x40000000	/* events before an EFAULT count */
#define KEVENT_FEATURE_SIM	0x80000000	/* served by the simulator */

/* struct kevent_info, @pinned: kinds of file that a kevent keeps open */
#define KEVENT_FILE_SOCKET	0x0001
#define KEVENT_FILE_PIPE	0x0002	/* made by pipe(2) */
#define KEVENT_FILE_ANON	0x0004	/* eventfd, timerfd, epoll, inotify ... */
#define KEVENT_FILE_PTY_SLAVE	0x0008
#define KEVENT_FILE_PTY_MASTER	0x0010
#define KEVENT_FILE_FIFO	0x0020	/* named */
#define KEVENT_FILE_KEVENT	0x0040	/* another queue */
#define KEVENT_FILE_OTHER	0x0080	/* devices and the rest */
#define KEVENT_FILE_INODE	0x0100	/* descriptors of KEVENT_INODE */

/**
 * struct kevent_info - answer of INFO
 * @version:	KEVENT_ABI_VERSION
 * @features:	KEVENT_FEATURE_* that this device has
 * @pinned:	KEVENT_FILE_* whose close this kernel does not show, so that a
 *		kevent on one keeps it open until the kevent is removed
 * @max_queue:	kevents one queue may hold
 * @max_user:	kevents all queues of one user may hold
 * @max_name_queue: inode events one kevent may have waiting
 * @max_inode:	kevents of one user on one inode
 * @kevents:	in this queue now
 * @ready:	events ready in this queue now
 * @user_kevents: in all queues of this queue's owner now
 * @reserved:	0
 */
struct kevent_info {
	__u32 version;
	__u32 features;
	__u32 pinned;
	__u32 max_name_queue;
	__u64 max_queue;
	__u64 max_user;
	__u64 max_inode;
	__u64 kevents;
	__u64 ready;
	__u64 user_kevents;
	__u64 reserved[8];
};

#define KEVENT_IOC_MAGIC	0xE7
#define KEVENT_IOC_NR_INFO		0
#define KEVENT_IOC_NR_ADD		1
#define KEVENT_IOC_NR_MODIFY		2
#define KEVENT_IOC_NR_REMOVE		3
#define KEVENT_IOC_NR_WAIT		4
#define KEVENT_IOC_NR_CHANGE_WAIT	5
#define KEVENT_IOC_NR_POST		6
#define KEVENT_IOC_NR_ADD_PATH		7

/* What 14 bits of size leave room for. */
#define KEVENT_MAX_SIZE		16383
#define KEVENT_MAX_REQUESTS	292
#define KEVENT_MAX_POSTS	681
#define KEVENT_MAX_RECORDS	510

#define KEVENT_IOWR(nr, size) \
	_IOC(_IOC_READ | _IOC_WRITE, KEVENT_IOC_MAGIC, (nr), (size))
#define KEVENT_IOC_BATCH(nr, n) \
	KEVENT_IOWR((nr), sizeof(struct kevent_batch) + \
		    (n) * sizeof(struct kevent_request))

#define KEVENT_IOC_INFO \
	_IOR(KEVENT_IOC_MAGIC, KEVENT_IOC_NR_INFO, struct kevent_info)
/* @n: requests behind the struct kevent_batch */
#define KEVENT_IOC_ADD(n)	KEVENT_IOC_BATCH(KEVENT_IOC_NR_ADD, (n))
#define KEVENT_IOC_MODIFY(n)	KEVENT_IOC_BATCH(KEVENT_IOC_NR_MODIFY, (n))
#define KEVENT_IOC_REMOVE(n)	KEVENT_IOC_BATCH(KEVENT_IOC_NR_REMOVE, (n))
/* @m: records behind the struct kevent_wait */
#define KEVENT_IOC_WAIT(m) \
	KEVENT_IOWR(KEVENT_IOC_NR_WAIT, sizeof(struct kevent_wait) + \
		    (m) * sizeof(struct kevent_event))
/* @n requests, then @m records behind the struct kevent_wait */
#define KEVENT_IOC_CHANGE_WAIT(n, m) \
	KEVENT_IOWR(KEVENT_IOC_NR_CHANGE_WAIT, sizeof(struct kevent_wait) + \
		    (n) * sizeof(struct kevent_request) + \
		    (m) * sizeof(struct kevent_event))
/* @n: postings behind the struct kevent_batch */
#define KEVENT_IOC_POST(n) \
	KEVENT_IOWR(KEVENT_IOC_NR_POST, sizeof(struct kevent_batch) + \
		    (n) * sizeof(struct kevent_post))
/* @len: bytes of path behind the struct kevent_path, with the NUL */
#define KEVENT_IOC_ADD_PATH(len) \
	KEVENT_IOWR(KEVENT_IOC_NR_ADD_PATH, \
		    sizeof(struct kevent_path) + (len))

#endif /* _KEVENT_UAPI_H */
