/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KEVENT_CLOSE_H
#define _KEVENT_CLOSE_H

#include <linux/fs.h>
#include <linux/list.h>
#include <linux/types.h>

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
void kevent_put_file(struct file *file, bool patient);
u32 kevent_file_kind(struct file *file);
bool kevent_close_seen(u32 kind, struct file *file);
int kevent_close_watch(struct kevent_close *close,
		       void (*closed)(struct kevent_close *close, bool lost),
		       struct file *file);
bool kevent_close_watched(struct kevent_close *close);
void kevent_close_unwatch(struct kevent_close *close,
			  void (*unhook)(struct kevent_close *close));

#endif /* _KEVENT_CLOSE_H */
