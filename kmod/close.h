/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KEVENT_CLOSE_H
#define _KEVENT_CLOSE_H

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/types.h>

#include "compat.h"

/* How long a WAIT waits for a file to be closed that it was the last to use. */
#define KEVENT_CLOSE_PATIENCE	(HZ / 20)

struct kevent_account;
struct kevent_mark;

/**
 * struct kevent_close - waits for the close of one open file
 * @node:	in the table of watched closes
 * @file:	the file, not held; NULL from its close on
 * @mark:	on the file's inode; NULL where nothing is watched
 * @closed:	called when the file is being closed, or, with @lost, when nobody
 *		will tell of that any more; under the lock of the bucket
 * @bucket:	where @node is, also after @file is gone
 */
struct kevent_close {
	struct hlist_node node;
	struct file *file;
	struct kevent_mark *mark;
	void (*closed)(struct kevent_close *close, bool lost);
	unsigned int bucket;
};

void kevent_mark_born(void);
void kevent_mark_died(void);
void kevent_marks_wait(void);
void kevent_put_last_file(struct file *file, struct kevent_account *account,
			  long patience);
void kevent_put_others_files(void);
void kevent_put_pin(struct file *file, struct kevent_account *account,
		    long patience);
u32 kevent_file_kind(struct file *file);
bool kevent_close_seen(u32 kind, struct file *file);
int kevent_close_watch(struct kevent_close *close,
		       void (*closed)(struct kevent_close *close, bool lost),
		       struct file *file);
bool kevent_close_watched(struct kevent_close *close);
void kevent_close_unwatch(struct kevent_close *close,
			  void (*unhook)(struct kevent_close *close));

/**
 * kevent_put_file - let go of a file that was held for a moment
 * @file:	the file
 * @patience:	see kevent_put_last_file()
 */
static inline void kevent_put_file(struct file *file, long patience)
{
#ifdef KEVENT_HAVE_CLOSE
	if (unlikely(!kevent_file_put_unless_last(file)))
		kevent_put_last_file(file, NULL, patience);
#else
	fput(file);
#endif
}

#endif /* _KEVENT_CLOSE_H */
