// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_USER: posted by any thread that has the queue; postings that have not
 * been delivered yet become one event.
 */
#include <linux/kernel.h>

#include "bug.h"
#include "kevent.h"

/**
 * struct kevent_posted - a kevent that is posted to
 * @kevent:	the kevent
 * @data:	the last one posted; this and the following under the queue's lock
 * @posts:	not delivered yet; what is too many for one event is the next
 */
struct kevent_posted {
	struct kevent kevent;
	u64 data;
	u64 posts;
};

static struct kevent_posted *to_kevent_posted(struct kevent *k)
{
	return container_of(k, struct kevent_posted, kevent);
}

static int kevent_posted_enqueue(struct kevent *k,
				 const struct kevent_request *req,
				 const struct kevent_target *target)
{
	return 0;
}

static int kevent_posted_modify(struct kevent *k,
				const struct kevent_request *req,
				const struct kevent_target *target)
{
	bool alive, wake = false;

	spin_lock_irq(&k->user->lock);
	alive = kevent_modify_locked(k, req);
	if (alive && to_kevent_posted(k)->posts)
		wake = kevent_ready_locked(k);
	spin_unlock_irq(&k->user->lock);
	if (wake)
		kevent_wake_pollers(k->user, false);
	return alive ? 0 : -ENOENT;
}

static void kevent_posted_dequeue(struct kevent *k)
{
}

static void kevent_posted_peek(struct kevent *k, struct kevent_item *item,
			       struct kevent_event *event, const char **name)
{
	struct kevent_posted *p = to_kevent_posted(k);

	event->events = KEVENT_USER_POSTED;
	event->data = p->data;
	event->count = min_t(u64, p->posts, U32_MAX);
}

static bool kevent_posted_consume(struct kevent *k, struct kevent_item *item,
				  const struct kevent_event *event)
{
	struct kevent_posted *p = to_kevent_posted(k);

	p->posts -= event->count;
	return p->posts;
}

/*
 * Whether a posting can still be delivered: of a one-shot kevent not if its
 * event is on its way, or full.
 */
static bool kevent_posted_open(struct kevent *k)
{
	if (k->state & KEVENT_DEAD)
		return false;
	if (!(k->flags & KEVENT_ONESHOT))
		return true;
	return to_kevent_posted(k)->posts < U32_MAX &&
	       (!k->item.offered || (k->state & KEVENT_MODIFIED));
}

/**
 * kevent_user_post - post to a kevent
 * @k:		the kevent; its queue's mutex is held
 * @data:	handed over in the event
 *
 * Return: 0, or -ENOENT where the kevent has ended, or ends with the event that
 * is being delivered
 */
int kevent_user_post(struct kevent *k, u64 data)
{
	struct kevent_posted *p = to_kevent_posted(k);
	bool open, wake = false;

	if (kevent_has_bug(KEVENT_BUG_UNLOCKED) && kevent_posted_open(k))
		p->data = data;
	spin_lock_irq(&k->user->lock);
	open = kevent_posted_open(k);
	if (open) {
		p->data = data;
		p->posts++;
		wake = kevent_ready_locked(k);
	}
	spin_unlock_irq(&k->user->lock);
	if (wake)
		kevent_wake_pollers(k->user, false);
	return open ? 0 : -ENOENT;
}

const struct kevent_ops kevent_user_ops = {
	.name		= "user",
	.cache		= "kevent_user",
	.type		= KEVENT_USER,
	.size		= sizeof(struct kevent_posted),
	.events		= KEVENT_USER_POSTED,
	.exact		= true,
	.enqueue	= kevent_posted_enqueue,
	.modify		= kevent_posted_modify,
	.dequeue	= kevent_posted_dequeue,
	.peek		= kevent_posted_peek,
	.consume	= kevent_posted_consume,
};
