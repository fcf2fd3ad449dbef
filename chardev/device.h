/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KEVENT_DEVICE_H
#define _KEVENT_DEVICE_H

#include <linux/compiler.h>
#include <linux/types.h>

struct file;
struct kevent_user;
struct kevent_deadline;

/**
 * struct kevent_room - where delivered events go
 * @records:	in the caller's memory
 * @max:	how many fit
 * @used:	how many have been written
 * @written:	kept up to date with @used in the caller's memory, or NULL
 */
struct kevent_room {
	struct kevent_event __user *records;
	size_t max;
	size_t used;
	__u32 __user *written;
};

long kevent_deliver(struct kevent_user *user, struct kevent_room *room,
		    unsigned int min, const struct kevent_deadline *deadline,
		    unsigned long *left);
long kevent_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

#endif /* _KEVENT_DEVICE_H */
