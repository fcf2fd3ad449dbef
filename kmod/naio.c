// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_NAIO: a transfer between a socket and memory of the caller, moved by
 * the kernel, and the event that it has ended.
 *
 * It is tried at once, from or to the caller's memory as a system call would.
 * What then is left waits in a lane of its socket, naio_lane.c, with its memory
 * pinned, naio_pin.c, and with close.c to tell of the close.  Either way its end
 * is an event; only what is wrong with the request itself fails the ADD.
 *
 * The pages are let go of before the event is enqueued: whoever has seen the
 * event, or has removed the kevent, has the memory for itself.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/net.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <net/sock.h>

#include "compat.h"
#include "naio.h"

/* Bytes of a stream in one call of the socket. */
#define KEVENT_NAIO_CHUNK	SZ_1M

static_assert(KEVENT_NAIO_MAX == (INT_MAX & ~0xfff));

static int kevent_naio_check(const struct kevent_request *req)
{
	u32 flags = req->flags;

	if (req->events == KEVENT_NAIO_SENDFILE)
		return -EOPNOTSUPP;
	if (req->events != KEVENT_NAIO_RECV && req->events != KEVENT_NAIO_SEND)
		return -EINVAL;
	if (flags & (KEVENT_EDGE | KEVENT_DISPATCH | KEVENT_DISABLED))
		return -EINVAL;
	if ((flags & KEVENT_WAITALL) && req->events != KEVENT_NAIO_RECV)
		return -EINVAL;
	if (req->param[1] > KEVENT_NAIO_MAX || req->param[2] > U32_MAX)
		return -EINVAL;
	/* it would wait for what it does not take */
	if (!req->param[1] && req->events == KEVENT_NAIO_RECV)
		return -EINVAL;
	return 0;
}

/*
 * Sockets of which it is known how they wake, and that their wait queue is inside
 * of their inode.
 */
static bool kevent_naio_takes(const struct sock *sk, bool send)
{
	switch (sk->sk_family) {
	case AF_INET:
	case AF_INET6:
		if (sk->sk_type == SOCK_STREAM)
			return sk->sk_protocol == IPPROTO_TCP;
		return sk->sk_type == SOCK_DGRAM &&
		       (sk->sk_protocol == IPPROTO_UDP ||
			sk->sk_protocol == IPPROTO_UDPLITE);
	case AF_UNIX:
		/*
		 * What is sent says who sent it, and the kernel takes that from
		 * whoever makes the call, which may be a thread of its own.
		 */
		return !send;
	}
	return false;
}

static int kevent_naio_permit(const struct kevent_naio *t, struct file *file)
{
	struct socket *sock = sock_from_file(file);

	if (!sock)
		return -ENOTSOCK;
	if (SOCK_INODE(sock) != file_inode(file) ||
	    rcu_access_pointer(sock->sk->sk_wq) != &sock->wq ||
	    !kevent_naio_takes(sock->sk, kevent_naio_sends(t)))
		return -EOPNOTSUPP;
	return 0;
}

/**
 * kevent_naio_step - one call of the socket, which does not wait
 * @t:		the transfer, the current one of its lane
 * @sock:	the socket, whose file is held by the caller
 *
 * Return: 1 where the transfer has ended, 0 where there is more to be moved, or
 * -EAGAIN where the socket has to call first
 */
int kevent_naio_step(struct kevent_naio *t, struct socket *sock)
{
	bool send = kevent_naio_sends(t);
	struct msghdr msg = { .msg_iter = t->iter };
	int ret;

	if (t->stream)
		iov_iter_truncate(&msg.msg_iter, KEVENT_NAIO_CHUNK);
	if (send) {
		msg.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
		ret = sock_sendmsg(sock, &msg);
	} else {
		ret = sock_recvmsg(sock, &msg, MSG_DONTWAIT);
	}
	/* a signal is none of a transfer's business */
	if (ret == -EAGAIN || ret == -EINTR || ret == -ERESTARTSYS)
		return -EAGAIN;
	if (ret < 0) {
		t->error = -ret;
		return 1;
	}
	t->moved += ret;
	t->left -= ret;
	iov_iter_advance(&t->iter, ret);
	if (!t->stream) {
		t->truncated = !send && (msg.msg_flags & MSG_TRUNC);
		return 1;
	}
	if (!t->left)
		return 1;
	if (!send)
		return !ret || !(t->kevent.flags & KEVENT_WAITALL);
	return ret ? 0 : -EAGAIN;
}

/**
 * kevent_naio_complete - a transfer has ended: say so
 * @t:		the transfer, which cannot be dequeued yet
 */
void kevent_naio_complete(struct kevent_naio *t)
{
	struct kevent_user *user = t->kevent.user;
	bool wake;

	kevent_unpin(&t->pin);
	spin_lock_irq(&user->lock);
	t->done = true;
	wake = kevent_ready_locked(&t->kevent);
	spin_unlock_irq(&user->lock);
	if (wake)
		kevent_wake_pollers(user, false);
}

/* What a transfer needs that has to wait: 0 or -errno. */
static int kevent_naio_prepare(struct kevent_naio *t, struct file *file,
			       unsigned long address)
{
	bool send = kevent_naio_sends(t);
	int ret;

	if (!kevent_close_seen(KEVENT_FILE_SOCKET, file))
		return -EOPNOTSUPP;
	ret = kevent_naio_account_init(t->kevent.user->account);
	if (ret)
		return ret;
	ret = kevent_pin_user(&t->pin, address + t->moved, t->left, !send,
			      &t->iter);
	if (ret)
		return ret;
	ret = kevent_close_watch(&t->close, &t->kevent, file);
	if (ret)
		return ret;
	t->cred = get_current_cred();
	kevent_end_hook(t->lane->end);
	kevent_lane_prepared(t);
	return 0;
}

/* The socket is hooked: what it has not called for is to be seen now. */
static bool kevent_naio_holds(struct kevent_naio *t, struct file *file)
{
	__poll_t mask = EPOLLERR | EPOLLHUP;

	mask |= kevent_naio_sends(t) ? EPOLLOUT : EPOLLIN | EPOLLRDHUP;
	return (vfs_poll(file, NULL) & mask) || READ_ONCE(t->lane->end->lost);
}

static int kevent_naio_start(struct kevent_naio *t, struct file *file,
			     unsigned long address)
{
	int ret = -EAGAIN;
	bool begun;

	if (kevent_lane_join(t)) {
		ret = kevent_naio_step(t, sock_from_file(file));
		kevent_lane_tried(t, ret > 0);
	}
	if (ret <= 0) {
		begun = t->moved;
		ret = kevent_naio_prepare(t, file, address);
		if (!ret) {
			if (begun || kevent_naio_holds(t, file))
				kevent_lane_kick(t->lane);
			return 0;
		}
		kevent_lane_leave(t);
		t->error = -ret;
	}
	/* that is wrong with the request, and nothing has happened yet */
	if (t->error && !t->moved && (ret < 0 || t->error == EFAULT))
		return -t->error;
	kevent_naio_complete(t);
	return 0;
}

static int kevent_naio_enqueue(struct kevent *k,
			       const struct kevent_request *req,
			       const struct kevent_target *target)
{
	struct kevent_naio *t = to_kevent_naio(k);
	bool send = kevent_naio_sends(t);
	void __user *buffer = u64_to_user_ptr(req->param[0]);
	size_t length = req->param[1];
	struct file *file;
	int ret;

	INIT_LIST_HEAD(&t->node);
	k->flags |= KEVENT_ONESHOT;
	if ((unsigned long)buffer != req->param[0] || !access_ok(buffer, length))
		return -EFAULT;
	file = req->param[2] > INT_MAX ? NULL : fget(req->param[2]);
	if (!file)
		return -EBADF;
	ret = kevent_naio_permit(t, file);
	if (ret)
		goto put;
	t->stream = sock_from_file(file)->sk->sk_type == SOCK_STREAM;
	t->left = length;
	iov_iter_ubuf(&t->iter, send ? ITER_SOURCE : ITER_DEST, buffer, length);
	ret = kevent_end_get(t, file_inode(file));
	if (!ret)
		ret = kevent_naio_start(t, file, req->param[0]);
put:
	fput(file);
	return ret;
}

static int kevent_naio_modify(struct kevent *k, const struct kevent_request *req,
			      const struct kevent_target *target)
{
	return -EOPNOTSUPP;
}

static void kevent_naio_dequeue(struct kevent *k)
{
	struct kevent_naio *t = to_kevent_naio(k);

	/* first, for it looks at the lane */
	kevent_close_unwatch(&t->close, NULL);
	if (t->lane) {
		kevent_lane_leave(t);
		kevent_end_put(t);
	}
	kevent_unpin(&t->pin);
	if (t->cred)
		put_cred(t->cred);
	t->cred = NULL;
}

/* How far it came, and whether that was all, for who removes it. */
static void kevent_naio_cancel(struct kevent *k, struct kevent_request *req)
{
	struct kevent_naio *t = to_kevent_naio(k);

	kevent_lane_leave(t);
	kevent_unpin(&t->pin);
	req->param[0] = t->moved;
	req->param[1] = t->done ? t->error : ECANCELED;
}

static void kevent_naio_closed(struct kevent *k, bool lost)
{
	struct kevent_lane *lane = to_kevent_naio(k)->lane;

	if (lost)
		WRITE_ONCE(lane->end->lost, true);
	/* it finds no file any more */
	kevent_lane_kick(lane);
}

static void kevent_naio_peek(struct kevent *k, struct kevent_item *item,
			     struct kevent_event *event, const char **name)
{
	struct kevent_naio *t = to_kevent_naio(k);

	event->events = k->events;
	event->data = t->moved;
	if (t->error) {
		event->count = t->error;
		event->flags |= KEVENT_EVENT_ERROR;
	}
	if (t->truncated)
		event->flags |= KEVENT_EVENT_TRUNCATED;
	if (t->broken)
		event->flags |= KEVENT_EVENT_BROKEN;
}

static bool kevent_naio_consume(struct kevent *k, struct kevent_item *item,
				const struct kevent_event *event)
{
	return false;
}

static const char *kevent_naio_close_name(const struct kevent *k)
{
	return to_kevent_naio(k)->close.mark ? "mark" : "none";
}

const struct kevent_ops kevent_naio_ops = {
	.name		= "naio",
	.cache		= "kevent_naio",
	.type		= KEVENT_NAIO,
	.size		= sizeof(struct kevent_naio),
	.events		= KEVENT_NAIO_RECV | KEVENT_NAIO_SEND |
			  KEVENT_NAIO_SENDFILE,
	.flags		= KEVENT_WAITALL,
	.check		= kevent_naio_check,
	.enqueue	= kevent_naio_enqueue,
	.modify		= kevent_naio_modify,
	.dequeue	= kevent_naio_dequeue,
	.cancel		= kevent_naio_cancel,
	.peek		= kevent_naio_peek,
	.consume	= kevent_naio_consume,
	.closed		= kevent_naio_closed,
	.close		= kevent_naio_close_name,
};
