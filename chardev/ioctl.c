// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ioctls.  Whatever comes from the caller is copied and checked here, as
 * far as it concerns the form of the call; what requests mean is the core's.
 */
#include <linux/fs.h>
#include <linux/limits.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "device.h"
#include "kevent.h"

static_assert(sizeof(struct kevent_request) == 56);
static_assert(sizeof(struct kevent_batch) == 16);
static_assert(sizeof(struct kevent_sendfile) == 32);
static_assert(sizeof(struct kevent_event) == 32);
static_assert(sizeof(struct kevent_wait) == 48);
static_assert(sizeof(struct kevent_post) == 24);
static_assert(sizeof(struct kevent_info) == 128);
static_assert(KEVENT_MAX_REQUESTS == (KEVENT_MAX_SIZE -
	sizeof(struct kevent_batch)) / sizeof(struct kevent_request));
static_assert(KEVENT_MAX_POSTS == (KEVENT_MAX_SIZE -
	sizeof(struct kevent_batch)) / sizeof(struct kevent_post));
static_assert(KEVENT_MAX_RECORDS == (KEVENT_MAX_SIZE -
	sizeof(struct kevent_wait)) / sizeof(struct kevent_event));

static int kevent_change(struct kevent_user *user, unsigned int op,
			 struct kevent_request *req)
{
	switch (op) {
	case KEVENT_OP_ADD:
		return kevent_add(user, req);
	case KEVENT_OP_MODIFY:
		return kevent_modify(user, req);
	case KEVENT_OP_REMOVE:
		return kevent_remove(user, req);
	}
	return -EINVAL;
}

/* What REMOVE has to say of a transfer; with 0 there is nothing to be said. */
static int kevent_put_report(struct kevent_request __user *to,
			     const struct kevent_request *req)
{
	if (!req->param[0] && !req->param[1])
		return 0;
	return put_user(req->param[0], &to->param[0]) ?:
	       put_user(req->param[1], &to->param[1]);
}

/*
 * Before anything is changed every result is written once, and the end of the
 * last request is read: memory that is not what it should be is refused while
 * nothing has happened yet.
 */
static int kevent_claim_results(struct kevent_request __user *reqs, u32 count)
{
	u64 end;
	u32 i;

	for (i = 0; i < count; i++)
		if (put_user(-ECANCELED, &reqs[i].result))
			return -EFAULT;
	if (count && copy_from_user(&end, &reqs[count - 1].param[2],
				    sizeof(end)))
		return -EFAULT;
	return 0;
}

/*
 * Applies @count requests; @op is 0 where each has its own.  0 or -errno, and
 * in either case in @changed how many succeeded.
 */
static int kevent_change_all(struct kevent_user *user, unsigned int op,
			     struct kevent_request __user *reqs, u32 count,
			     u32 *changed)
{
	u32 i;

	for (i = 0, *changed = 0; i < count; i++) {
		struct kevent_request req;
		int ret = -EINVAL;

		if (fatal_signal_pending(current))
			return -EINTR;
		if (copy_from_user(&req, &reqs[i], sizeof(req)))
			return -EFAULT;
		if (!op || !req.op)
			ret = kevent_change(user, op ?: req.op, &req);
		/* it kept us from the queue's lock: nothing was changed */
		if (ret == -EINTR && fatal_signal_pending(current))
			return ret;
		*changed += !ret;
		if (put_user(ret, &reqs[i].result))
			return -EFAULT;
		if (!ret && (op ?: req.op) == KEVENT_OP_REMOVE &&
		    kevent_put_report(&reqs[i], &req))
			return -EFAULT;
		cond_resched();
	}
	return 0;
}

static int kevent_get_batch(const void __user *arg, size_t size, size_t each,
			    struct kevent_batch *batch)
{
	if (size < sizeof(*batch))
		return -EINVAL;
	if (copy_from_user(batch, arg, sizeof(*batch)))
		return -EFAULT;
	if (batch->flags || batch->reserved)
		return -EINVAL;
	if (batch->count > (size - sizeof(*batch)) / each)
		return -EINVAL;
	return 0;
}

static long kevent_ioctl_change(struct kevent_user *user, unsigned int op,
				void __user *arg, size_t size)
{
	struct kevent_request __user *reqs = arg + sizeof(struct kevent_batch);
	struct kevent_batch batch;
	u32 changed;
	int ret;

	ret = kevent_get_batch(arg, size, sizeof(*reqs), &batch);
	if (!ret)
		ret = kevent_claim_results(reqs, batch.count);
	if (!ret)
		ret = kevent_change_all(user, op, reqs, batch.count, &changed);
	if (ret)
		return ret;
	return changed;
}

static long kevent_ioctl_post(struct kevent_user *user, void __user *arg,
			      size_t size)
{
	struct kevent_post __user *posts = arg + sizeof(struct kevent_batch);
	struct kevent_batch batch;
	long posted = 0;
	int ret;
	u32 i;

	ret = kevent_get_batch(arg, size, sizeof(*posts), &batch);
	if (ret)
		return ret;
	for (i = 0; i < batch.count; i++)
		if (put_user(-ECANCELED, &posts[i].result))
			return -EFAULT;
	for (i = 0; i < batch.count; i++) {
		struct kevent_post post;

		if (fatal_signal_pending(current))
			return -EINTR;
		if (copy_from_user(&post, &posts[i], sizeof(post)))
			return -EFAULT;
		ret = post.flags ? -EINVAL :
				   kevent_post(user, post.ident, post.data);
		if (ret == -EINTR)
			return ret;
		if (put_user(ret, &posts[i].result))
			return -EFAULT;
		posted += !ret;
		cond_resched();
	}
	return posted;
}

static int kevent_get_deadline(const struct kevent_wait *wait,
			       struct kevent_deadline *deadline)
{
	bool absolute = wait->flags & KEVENT_WAIT_ABSTIME;
	bool forever = wait->timeout == KEVENT_WAIT_FOREVER;

	deadline->now = !wait->timeout && !absolute;
	/* the clock is checked also where it does not matter, but not read */
	return kevent_time(forever ? KTIME_MAX : wait->timeout, wait->clock,
			   absolute || forever || deadline->now,
			   &deadline->expires, &deadline->clock);
}

static int kevent_get_wait(const struct kevent_wait __user *arg, size_t size,
			   bool change, struct kevent_wait *wait)
{
	if (size < sizeof(*wait))
		return -EINVAL;
	if (copy_from_user(wait, arg, sizeof(*wait)))
		return -EFAULT;
	if ((wait->flags & ~KEVENT_WAIT_ABSTIME) || wait->reserved ||
	    wait->min > wait->max || (wait->nr_changes && !change))
		return -EINVAL;
	if ((u64)wait->nr_changes * sizeof(struct kevent_request) +
	    (u64)wait->max * sizeof(struct kevent_event) > size - sizeof(*wait))
		return -EINVAL;
	return 0;
}

/* What WAIT gives back beside the events, but for the changes made. */
static noinline bool kevent_put_counts(struct kevent_wait __user *arg,
				       u32 records, unsigned long left)
{
	if (!user_access_begin(arg, sizeof(*arg)))
		return false;
	unsafe_put_user(records, &arg->records, fault);
	unsafe_put_user(min_t(unsigned long, left, U32_MAX), &arg->left, fault);
	user_access_end();
	return true;
fault:
	user_access_end();
	return false;
}

static long kevent_ioctl_wait(struct kevent_user *user, bool change,
			      struct kevent_wait __user *arg, size_t size)
{
	struct kevent_request __user *reqs = (void __user *)(arg + 1);
	struct kevent_deadline deadline __uninitialized;
	struct kevent_room room __uninitialized;
	struct kevent_wait wait __uninitialized;
	unsigned long left = 0;
	u32 changed;
	long ret;

	ret = kevent_get_wait(arg, size, change, &wait);
	if (!ret)
		ret = kevent_get_deadline(&wait, &deadline);
	if (ret)
		return ret;
	room = (struct kevent_room){
		.records = (void __user *)(reqs + wait.nr_changes),
		.max = wait.max,
		.written = &arg->records,
	};
	if (!kevent_put_counts(arg, 0, 0))
		return -EFAULT;
	if (change && put_user(0, &arg->changed))
		return -EFAULT;
	if (wait.nr_changes) {
		ret = kevent_claim_results(reqs, wait.nr_changes);
		if (ret)
			return ret;
		ret = kevent_change_all(user, 0, reqs, wait.nr_changes, &changed);
		if (put_user(changed, &arg->changed) && !ret)
			ret = -EFAULT;
		if (ret)
			return ret;
		if (changed < wait.nr_changes)
			deadline.now = true;
	}
	ret = kevent_deliver(user, &room, wait.min, &deadline, &left);
	/* no more than a hint by now, and written before where it had to be */
	if (left && !kevent_put_counts(arg, room.used, left) && !ret)
		ret = -EFAULT;
	return ret;
}

static long kevent_ioctl_path(struct kevent_user *user,
			      struct kevent_path __user *arg, size_t size)
{
	struct kevent_request req;
	char *name;
	int ret;

	if (size <= sizeof(*arg))
		return -EINVAL;
	size -= sizeof(*arg);
	ret = kevent_claim_results(&arg->request, 1);
	if (ret)
		return ret;
	if (copy_from_user(&req, &arg->request, sizeof(req)))
		return -EFAULT;
	/* memdup_user() would charge it to nobody */
	name = kmalloc(size, KEVENT_GFP);
	if (!name)
		return -ENOMEM;
	ret = -EFAULT;
	if (copy_from_user(name, arg + 1, size))
		goto free;
	ret = -EINVAL;
	if (strnlen(name, size) == size)
		goto free;
	if (req.op)
		ret = -EINVAL;
	else if (strlen(name) >= PATH_MAX)
		ret = -ENAMETOOLONG;
	else
		ret = kevent_add_path(user, &req, name);
	if (put_user(ret, &arg->request.result))
		ret = -EFAULT;
	else
		ret = !ret;
free:
	kfree(name);
	return ret;
}

static long kevent_ioctl_info(struct kevent_user *user, void __user *arg,
			      size_t size)
{
	struct kevent_info info;
	int ret;

	if (size != sizeof(info))
		return -ENOTTY;
	ret = kevent_info(user, &info);
	if (ret)
		return ret;
	info.features |= KEVENT_FEATURE_FDINFO | KEVENT_FEATURE_PARTIAL;
	if (info.features & KEVENT_FEATURE_NAIO)
		info.features |= KEVENT_FEATURE_PIN;
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

/**
 * kevent_ioctl - every ioctl of the ABI
 * @file:	a queue
 * @cmd:	KEVENT_IOC_*, which has the size of what @arg points to
 * @arg:	address
 *
 * Return: see kevent_uapi.h
 */
long kevent_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct kevent_user *user = file->private_data;
	unsigned int dir = _IOC_READ | _IOC_WRITE;
	void __user *argp = (void __user *)arg;
	size_t size = _IOC_SIZE(cmd);

	if (_IOC_TYPE(cmd) != KEVENT_IOC_MAGIC)
		return -ENOTTY;
	if (_IOC_NR(cmd) == KEVENT_IOC_NR_INFO)
		dir = _IOC_READ;
	if (_IOC_DIR(cmd) != dir)
		return -ENOTTY;
	switch (_IOC_NR(cmd)) {
	case KEVENT_IOC_NR_INFO:
		return kevent_ioctl_info(user, argp, size);
	case KEVENT_IOC_NR_ADD:
		return kevent_ioctl_change(user, KEVENT_OP_ADD, argp, size);
	case KEVENT_IOC_NR_MODIFY:
		return kevent_ioctl_change(user, KEVENT_OP_MODIFY, argp, size);
	case KEVENT_IOC_NR_REMOVE:
		return kevent_ioctl_change(user, KEVENT_OP_REMOVE, argp, size);
	case KEVENT_IOC_NR_WAIT:
		return kevent_ioctl_wait(user, false, argp, size);
	case KEVENT_IOC_NR_CHANGE_WAIT:
		return kevent_ioctl_wait(user, true, argp, size);
	case KEVENT_IOC_NR_POST:
		return kevent_ioctl_post(user, argp, size);
	case KEVENT_IOC_NR_ADD_PATH:
		return kevent_ioctl_path(user, argp, size);
	}
	return -ENOTTY;
}
