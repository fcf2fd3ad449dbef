/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every difference between the kernels we support, and nothing else.  The
 * KEVENT_PROBE_* macros come from Kbuild, which looks into the headers.
 */
#ifndef _KEVENT_COMPAT_H
#define _KEVENT_COMPAT_H

#include <linux/fs.h>
#include <linux/fsnotify_backend.h>
#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <net/af_unix.h>

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

/* Pages of another process; its mmap lock is held, and stays so. */
static inline long kevent_pin_user_pages_remote(struct mm_struct *mm,
						unsigned long start,
						unsigned long pages,
						unsigned int flags,
						struct page **page)
{
#ifdef KEVENT_PROBE_PIN_REMOTE_VMAS
	return pin_user_pages_remote(mm, start, pages, flags, page, NULL, NULL);
#else
	return pin_user_pages_remote(mm, start, pages, flags, page, NULL);
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

#endif /* _KEVENT_COMPAT_H */
