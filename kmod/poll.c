// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_POLL: whatever poll(2) can wait for.
 */
#include <linux/file.h>
#include <linux/poll.h>

#include "hook.h"
#include "kevent.h"

#define KEVENT_POLL_EVENTS	(POLLIN | POLLPRI | POLLOUT | POLLERR | \
				 POLLHUP | POLLRDNORM | POLLRDBAND | \
				 POLLWRNORM | POLLWRBAND | POLLMSG | POLLRDHUP)

static int kevent_poll_enqueue(struct kevent *k,
			       const struct kevent_request *req,
			       const struct kevent_target *target)
{
	return kevent_file_enqueue(k, req, target, demangle_poll(req->events));
}

static int kevent_poll_modify(struct kevent *k,
			      const struct kevent_request *req,
			      const struct kevent_target *target)
{
	return kevent_file_modify(k, req, target, demangle_poll(req->events));
}

static u32 kevent_poll_poll(struct kevent *k, struct kevent_event *event,
			    size_t *budget)
{
	__poll_t mask = READ_ONCE(to_kevent_file(k)->mask);
	struct file *file = kevent_file_get(k);

	if (!file)
		return 0;
	mask = kevent_file_poll(file, mask);
	kevent_put_file(file, event ? KEVENT_CLOSE_PATIENCE : 0);
	return mangle_poll(mask);
}

const struct kevent_ops kevent_poll_ops = {
	.name		= "poll",
	.cache		= "kevent_poll",
	.type		= KEVENT_POLL,
	.descriptor	= true,
	.size		= sizeof(struct kevent_file),
	.events		= KEVENT_POLL_EVENTS,
	.flags		= KEVENT_NOTIFY_BROKEN,
	.enqueue	= kevent_poll_enqueue,
	.modify		= kevent_poll_modify,
	.dequeue	= kevent_file_dequeue,
	.release	= kevent_file_release,
	.poll		= kevent_poll_poll,
	.gone		= kevent_file_gone,
	.close		= kevent_file_close_name,
};
