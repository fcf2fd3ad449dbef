// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/kevent: one open file is one queue.  ioctl.c has the ioctls; here is
 * what any file can do, and how events get into the caller's memory.
 */
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "device.h"
#include "kevent.h"

static int kevent_open(struct inode *inode, struct file *file)
{
	struct kevent_user *user = kevent_user_alloc();

	if (!user)
		return -ENOMEM;
	file->private_data = user;
	return stream_open(inode, file);
}

static int kevent_release(struct inode *inode, struct file *file)
{
	kevent_user_release(file->private_data);
	return 0;
}

static __poll_t kevent_poll(struct file *file, poll_table *wait)
{
	struct kevent_user *user = file->private_data;

	poll_wait(file, &user->poll_wait, wait);
	return kevent_has_ready(user, 1) ? EPOLLIN | EPOLLRDNORM : 0;
}

static void kevent_show_fdinfo(struct seq_file *m, struct file *file)
{
	kevent_show(file->private_data, m);
}

/*
 * How many of @nr records could be written.  They are few and small, and
 * written in place: cheaper than a copy that has to be set up.  Whole, because
 * a part of it must not be called while user memory is open.
 */
static noinline unsigned int
kevent_put_events(struct kevent_event __user *to,
		  const struct kevent_event *from, unsigned int nr)
{
	unsigned int i = 0;

	if (!user_access_begin(to, nr * sizeof(*to)))
		return 0;
	for (; i < nr; i++, to++, from++) {
		unsafe_put_user(from->cookie, &to->cookie, fault);
		unsafe_put_user(from->ident, &to->ident, fault);
		unsafe_put_user(from->data, &to->data, fault);
		unsafe_put_user(from->count, &to->count, fault);
		unsafe_put_user(from->events, &to->events, fault);
		unsafe_put_user(from->type, &to->type, fault);
		unsafe_put_user(from->flags, &to->flags, fault);
	}
fault:
	user_access_end();
	return i;
}

/* An event and its name: 1, or 0 where it does not fit, or -EFAULT. */
static int kevent_put_named(struct kevent_room *room,
			    const struct kevent_event *event, const char *name)
{
	u32 length = KEVENT_NAME_LENGTH(event->data);
	size_t records = 1 + KEVENT_NAME_RECORDS(event->data);
	struct kevent_event __user *to = room->records + room->used;
	char __user *pad = (char __user *)(to + 1) + length;

	if (records > room->max - room->used)
		return 0;
	if (!kevent_put_events(to, event, 1) ||
	    copy_to_user(to + 1, name, length) ||
	    clear_user(pad, (records - 1) * sizeof(*to) - length))
		return -EFAULT;
	room->used += records;
	return 1;
}

/* Tells the caller how much was copied: 0 or -errno. */
static int kevent_put_used(const struct kevent_room *room)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	if (room->written && put_user(room->used, room->written))
		return -EFAULT;
	return 0;
}

/*
 * Copies the batch of @d as far as it goes, and tells the caller how far: only
 * then it may be called delivered.  How many were, and @ret why not all.
 */
static unsigned int kevent_put_batch(struct kevent_room *room,
				     const struct kevent_delivery *d, int *ret)
{
	size_t before = room->used;
	unsigned int i = 0;
	int lost = 0;

	while (i < d->nr) {
		unsigned int run = i, put;

		while (run < d->nr && !d->name[run] &&
		       room->used + (run - i) < room->max)
			run++;
		if (run > i) {
			put = kevent_put_events(room->records + room->used,
						d->event + i, run - i);
			room->used += put;
			i += put;
			if (i == run)
				continue;
			*ret = -EFAULT;
			break;
		}
		*ret = -EMSGSIZE;
		if (room->used >= room->max)
			break;
		*ret = kevent_put_named(room, &d->event[i], d->name[i]);
		if (*ret <= 0) {
			*ret = *ret ?: -EMSGSIZE;
			break;
		}
		i++;
	}
	if (i)
		lost = kevent_put_used(room);
	if (lost) {
		/* nobody will look at what was copied, so it stays queued */
		room->used = before;
		i = 0;
		*ret = lost;
	}
	return i;
}

/* What there is, if it is @min at least: events, or -errno. */
static long kevent_deliver_now(struct kevent_delivery *d,
			       struct kevent_user *user,
			       struct kevent_room *room, unsigned int min,
			       unsigned long *left)
{
	unsigned int nr, put = 0;
	long total = 0;
	int ret = 0;

	kevent_delivery_begin(d, user);
	if (min > 1 && !kevent_delivery_claim(d, min))
		return 0;
	/* what a dying thread took would be lost: it only hands the wake-up on */
	while (room->used < room->max && !fatal_signal_pending(current)) {
		nr = kevent_delivery_next(d, room->max - room->used);
		put = nr ? kevent_put_batch(room, d, &ret) : 0;
		total += put;
		if (put < nr || !d->more || room->used >= room->max)
			break;
		kevent_delivery_done(d, put);
		put = 0;
		cond_resched();
	}
	*left = kevent_delivery_end(d, put);
	return total ?: ret;
}

/**
 * kevent_deliver - wait for events and hand them over
 * @user:	the queue
 * @room:	where they go
 * @min:	return when so many are ready
 * @deadline:	return with what there is
 * @left:	how many are still ready then
 *
 * Return: how many events, -EINTR where a signal came and there were none,
 * -EMSGSIZE where the first does not fit, or -EFAULT
 */
long kevent_deliver(struct kevent_user *user, struct kevent_room *room,
		    unsigned int min, const struct kevent_deadline *deadline,
		    unsigned long *left)
{
	struct kevent_delivery d __uninitialized;
	int wait = 0;
	long ret;

	if (deadline->now && kevent_is_empty(user))
		return 0;
	d.budget = KEVENT_DELIVERY_BUDGET;
	for (;;) {
		ret = kevent_deliver_now(&d, user, room, wait < 0 ? 0 : min,
					 left);
		if (ret || !min || wait == -ETIME ||
		    (min == 1 && deadline->now))
			return ret;
		if (wait < 0)
			return wait;
		wait = kevent_wait(user, min, deadline);
		if (wait > 0)
			d.budget = KEVENT_DELIVERY_BUDGET;
		cond_resched();
	}
}

static ssize_t kevent_read(struct file *file, char __user *buf, size_t size,
			   loff_t *pos)
{
	struct kevent_room room = {
		.records = (struct kevent_event __user *)buf,
		.max = size / sizeof(struct kevent_event),
	};
	struct kevent_deadline deadline = {
		.expires = KTIME_MAX,
		.clock = CLOCK_MONOTONIC,
		.now = file->f_flags & O_NONBLOCK,
	};
	unsigned long left;
	long ret;

	if (!room.max)
		return -EINVAL;
	ret = kevent_deliver(file->private_data, &room, 1, &deadline, &left);
	if (!ret)
		return -EAGAIN;
	if (ret == -EINTR)
		return -ERESTARTSYS;
	return ret < 0 ? ret : room.used * sizeof(struct kevent_event);
}

static const struct file_operations kevent_fops = {
	.owner		= THIS_MODULE,
	.open		= kevent_open,
	.release	= kevent_release,
	.read		= kevent_read,
	.poll		= kevent_poll,
	.unlocked_ioctl	= kevent_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.show_fdinfo	= kevent_show_fdinfo,
};

/**
 * kevent_user_of - the queue that a file is
 * @file:	any file
 *
 * Return: the queue, or NULL where it is something else
 */
struct kevent_user *kevent_user_of(struct file *file)
{
	return file->f_op == &kevent_fops ? file->private_data : NULL;
}

static struct miscdevice kevent_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "kevent",
	.fops	= &kevent_fops,
	.mode	= 0666,
};

static int __init kevent_module_init(void)
{
	int ret;

	ret = kevent_account_init();
	if (ret)
		return ret;
	ret = kevent_close_init();
	if (ret)
		goto account;
	ret = kevent_types_init();
	if (ret)
		goto close;
	ret = misc_register(&kevent_device);
	if (ret)
		goto types;
	return 0;

types:
	kevent_types_exit();
close:
	kevent_close_exit();
account:
	kevent_account_exit();
	return ret;
}

static void __exit kevent_module_exit(void)
{
	misc_deregister(&kevent_device);
	kevent_types_exit();
	kevent_close_exit();
	kevent_account_exit();
	/* queues on their way out are freed after a grace period */
	rcu_barrier();
}

module_init(kevent_module_init);
module_exit(kevent_module_exit);

MODULE_DESCRIPTION("One queue for sockets, files, inodes, timers and user events");
MODULE_LICENSE("GPL");
