/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KEVENT_HOOK_H
#define _KEVENT_HOOK_H

#include <linux/poll.h>
#include <linux/wait.h>

#include "close.h"
#include "kevent.h"

struct kevent_file;

/**
 * struct kevent_hook - our entry on one wait-queue head of a file
 * @wait:	the entry
 * @head:	the head; cleared last by whoever takes the entry off
 * @owner:	the kevent
 * @next:	a file may have several heads
 */
struct kevent_hook {
	wait_queue_entry_t wait;
	wait_queue_head_t *head;
	struct kevent_file *owner;
	struct kevent_hook *next;
};

/* How a kevent hangs on a file without keeping it open, where it can. */
enum kevent_attach {
	KEVENT_ATTACH_NONE,	/* not hooked yet */
	KEVENT_ATTACH_INODE,	/* holds the inode that the wait queue is in */
	KEVENT_ATTACH_MARK,	/* is told of the close by close.c */
	KEVENT_ATTACH_SELF,	/* another queue, which says POLLFREE */
	KEVENT_ATTACH_PIN,	/* holds the file */
};

/**
 * struct kevent_file - a kevent of a file that can be polled
 * @kevent:	the kevent
 * @inode:	of a socket, held; else NULL
 * @attach:	how it hangs on the file
 * @mask:	what to be woken for
 * @close:	for KEVENT_ATTACH_MARK; its file is the one watched also for
 *		KEVENT_ATTACH_SELF and KEVENT_ATTACH_PIN
 * @hook:	the first or only one
 */
struct kevent_file {
	struct kevent kevent;
	struct inode *inode;
	enum kevent_attach attach;
	__poll_t mask;
	struct kevent_close close;
	struct kevent_hook hook;
};

static inline struct kevent_file *to_kevent_file(const struct kevent *k)
{
	return container_of(k, struct kevent_file, kevent);
}

int kevent_file_enqueue(struct kevent *k, const struct kevent_request *req,
			const struct kevent_target *target, __poll_t mask);
int kevent_file_modify(struct kevent *k, const struct kevent_request *req,
		       const struct kevent_target *target, __poll_t mask);
void kevent_file_dequeue(struct kevent *k);
void kevent_file_release(struct kevent *k);
bool kevent_file_gone(struct kevent *k);
const char *kevent_file_close_name(const struct kevent *k);
struct file *kevent_file_get(struct kevent *k);
__poll_t kevent_file_poll(struct file *file, __poll_t mask);

#endif /* _KEVENT_HOOK_H */
