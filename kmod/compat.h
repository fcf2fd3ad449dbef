/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every difference between the kernels we support, and nothing else.  The
 * KEVENT_PROBE_* macros come from Kbuild, which looks into the headers.
 */
#ifndef _KEVENT_COMPAT_H
#define _KEVENT_COMPAT_H

#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/fsnotify_backend.h>
#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/uio.h>
#include <net/af_unix.h>

#ifdef KEVENT_PROBE_FOLIO_BATCH
#include <linux/folio_batch.h>
#else
#include <linux/pagevec.h>
#endif

/* Large, and filled in before it is read: not worth zeroing on every call. */
#ifndef __uninitialized
#define __uninitialized	__attribute__((uninitialized))
#endif

/*
 * A reference to the file at @filep, or NULL where it is being closed or is
 * gone.  @filep is cleared before the file's memory is freed.
 */
static inline struct file *kevent_get_file(struct file **filep)
{
#ifdef KEVENT_PROBE_GET_FILE_ACTIVE
	return get_file_active(filep);
#else
	struct file *file;

	rcu_read_lock();
	file = READ_ONCE(*filep);
	if (file && !get_file_rcu(file))
		file = NULL;
	rcu_read_unlock();
	return file;
#endif
}

/* Whether fsnotify tells of what happens to this open file. */
static inline bool kevent_file_notifies(const struct file *file)
{
	if (file->f_mode & FMODE_PATH)
		return false;
#ifdef FMODE_FSNOTIFY_NONE
	return !FMODE_FSNOTIFY_NONE(file->f_mode);
#else
	return !(file->f_mode & FMODE_NONOTIFY);
#endif
}

/*
 * A group whose lock is not held while memory is reclaimed from file systems,
 * which may want it to end a mark: all of them are, where there is no flag.
 */
#ifndef FSNOTIFY_GROUP_NOFS
#define FSNOTIFY_GROUP_NOFS	0
#endif

static inline struct fsnotify_mark *
kevent_find_inode_mark(struct inode *inode, struct fsnotify_group *group)
{
#ifdef KEVENT_PROBE_FIND_INODE_MARK
	return fsnotify_find_inode_mark(inode, group);
#else
	return fsnotify_find_mark(&inode->i_fsnotify_marks, group);
#endif
}

static inline void kevent_timer_setup(struct hrtimer *timer, clockid_t clock,
				      enum hrtimer_restart (*fn)(struct hrtimer *))
{
#ifdef KEVENT_PROBE_HRTIMER_SETUP
	hrtimer_setup(timer, fn, clock, HRTIMER_MODE_ABS);
#else
	hrtimer_init(timer, clock, HRTIMER_MODE_ABS);
	timer->function = fn;
#endif
}

static inline void kevent_sleeper_setup(struct hrtimer_sleeper *sleeper,
					clockid_t clock)
{
#ifdef KEVENT_PROBE_HRTIMER_SETUP
	hrtimer_setup_sleeper_on_stack(sleeper, clock, HRTIMER_MODE_ABS);
#else
	hrtimer_init_sleeper_on_stack(sleeper, clock, HRTIMER_MODE_ABS);
#endif
}

/* Pages of another process, whose mmap lock is held, and then as @locked says. */
static inline long kevent_pin_user_pages_remote(struct mm_struct *mm,
						unsigned long start,
						unsigned long pages,
						unsigned int flags,
						struct page **page, int *locked)
{
#ifdef KEVENT_PROBE_PIN_REMOTE_VMAS
	return pin_user_pages_remote(mm, start, pages, flags, page, NULL,
				     locked);
#else
	return pin_user_pages_remote(mm, start, pages, flags, page, locked);
#endif
}

/* Lets go of a file, unless that would close it: then false. */
static inline bool kevent_file_put_unless_last(struct file *file)
{
#ifdef KEVENT_PROBE_FILE_REF
	long count = atomic_long_read(&file->f_ref.refcnt);

	while (count > FILE_REF_ONEREF)
		if (atomic_long_try_cmpxchg(&file->f_ref.refcnt, &count,
					    count - 1))
			return true;
	return false;
#else
	return atomic_long_add_unless(&file->f_count, -1, 1);
#endif
}

/* Not declared by every kernel that exports it. */
long unix_inq_len(struct sock *sk);

/* Bytes that can be read from a UNIX socket of type SOCK_STREAM. */
static inline long kevent_unix_readable(struct sock *sk)
{
#ifdef KEVENT_PROBE_UNIX_INQ
	return READ_ONCE(unix_sk(sk)->inq_len);
#else
	return unix_inq_len(sk);
#endif
}

/* Work queues that belong to CPUs say so lately, and the kernel's have other names. */
#ifdef KEVENT_PROBE_WQ_PERCPU
#define KEVENT_WQ_PERCPU	WQ_PERCPU
#define KEVENT_UNBOUND_WQ	system_dfl_wq
#else
#define KEVENT_WQ_PERCPU	0
#define KEVENT_UNBOUND_WQ	system_unbound_wq
#endif

/* Whether a UNIX socket is in a message that nobody has received yet. */
static inline bool kevent_unix_in_flight(struct sock *sk)
{
#ifdef KEVENT_PROBE_UNIX_VERTEX
	return READ_ONCE(unix_sk(sk)->vertex);
#else
	return !list_empty_careful(&unix_sk(sk)->link);
#endif
}

/*
 * Whether somebody wants to be asked before this file is read, which takes as
 * long as the answer.  Where that is not told it is looked for; who asks about a
 * whole mount is not seen then.
 */
static inline bool kevent_file_asks(const struct file *file)
{
	const struct inode *inode = file_inode(file);

#ifdef KEVENT_PROBE_FSNOTIFY_PRIO
	return fsnotify_sb_has_priority_watchers(inode->i_sb,
						 FSNOTIFY_PRIO_CONTENT);
#else
	return ((inode->i_fsnotify_mask | inode->i_sb->s_fsnotify_mask) &
		FS_ACCESS_PERM) ||
	       (file->f_path.dentry->d_flags & DCACHE_FSNOTIFY_PARENT_WATCHED);
#endif
}

/* Whether somebody fills this file as it is read: what is cached may be empty yet. */
static inline bool kevent_file_is_filled(const struct file *file)
{
#ifdef FMODE_FSNOTIFY_HSM
	/* the mode says so, too, of files that were never opened, as a memfd */
	return FMODE_FSNOTIFY_HSM(file->f_mode) && kevent_file_asks(file);
#else
	return false;
#endif
}

#ifndef KEVENT_PROBE_FOLIO_HWPOISON
static inline bool folio_contain_hwpoisoned_page(struct folio *folio)
{
	return folio_test_hwpoison(folio) ||
	       (folio_test_large(folio) && PageHasHWPoisoned(&folio->page));
}
#endif

#ifndef KEVENT_PROBE_INODE_ATIME
static inline struct timespec64 inode_get_atime(const struct inode *inode)
{
	return inode->i_atime;
}

static inline struct timespec64 inode_get_mtime(const struct inode *inode)
{
	return inode->i_mtime;
}
#endif

#ifndef KEVENT_PROBE_INODE_CTIME
static inline struct timespec64 inode_get_ctime(const struct inode *inode)
{
	return inode->i_ctime;
}
#endif

/*
 * The pages of a file from *@index to @end, as far as the cache has them, each held.
 * Kernels that send single pages take a part of a large one for a page, where it has
 * just come.
 */
static inline void kevent_get_folios(struct address_space *mapping,
				     pgoff_t *index, pgoff_t end,
				     struct folio_batch *batch)
{
#ifdef KEVENT_PROBE_KERNEL_SENDPAGE
	struct folio *folio;

	while (*index <= end) {
		folio = filemap_get_folio(mapping, *index);
		if (IS_ERR_OR_NULL(folio))
			break;
		*index = folio_next_index(folio);
		if (!folio_batch_add(batch, folio))
			break;
	}
#else
	filemap_get_folios_contig(mapping, index, end, batch);
#endif
}

/*
 * Gives pages to a stream socket, by reference, with what @msg says besides: bytes
 * that it took, or -errno where it took none.  A kernel may know the name of
 * MSG_SPLICE_PAGES, and copy all the same; what it has instead waits for the
 * reader of a UNIX socket, who gets a copy there.
 */
static inline ssize_t kevent_send_pages(struct socket *sock, struct msghdr *msg,
					struct bio_vec *bvec, unsigned int nr,
					size_t length)
{
#ifdef KEVENT_PROBE_KERNEL_SENDPAGE
	int flags = msg->msg_flags;
	ssize_t sent = 0;

	if (sock->sk->sk_family == AF_UNIX) {
		iov_iter_bvec(&msg->msg_iter, ITER_SOURCE, bvec, nr, length);
		return sock_sendmsg(sock, msg);
	}
	while (length) {
		size_t part = min_t(size_t, length, bvec->bv_len);
		int last = part == length ? 0 : MSG_MORE | MSG_SENDPAGE_NOTLAST;
		int ret;

		ret = kernel_sendpage(sock, bvec->bv_page, bvec->bv_offset,
				      part, flags | last);
		if (ret <= 0)
			return sent ?: ret;
		sent += ret;
		length -= ret;
		if (ret < part)
			break;
		bvec++;
	}
	return sent;
#else
	msg->msg_flags |= MSG_SPLICE_PAGES;
	iov_iter_bvec(&msg->msg_iter, ITER_SOURCE, bvec, nr, length);
	return sock_sendmsg(sock, msg);
#endif
}

#endif /* _KEVENT_COMPAT_H */
