// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_NAIO: a transfer between a socket and memory of the caller, or from a
 * file, naio_file.c, moved by the kernel, and the event that it has ended.
 *
 * It is tried at once, from or to the caller's memory as a system call would.
 * What then is left waits in a lane of its socket, naio_lane.c, with its memory
 * pinned, naio_pin.c, until the socket calls or is closed, naio_end.c.  Either
 * way its end is an event; only what is wrong with the request itself fails the
 * ADD.
 *
 * The pages are let go of before the event is enqueued: whoever has seen the
 * event, or has removed the kevent, has the memory for itself.
 *
 * A multishot is a row of receives into the same memory.  The memory is only
 * touched by the WAIT that reports what was received, as recv(2) would, so it
 * is not pinned.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/memcontrol.h>
#include <linux/net.h>
#include <linux/pid.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <net/sock.h>

#include "bug.h"
#include "compat.h"
#include "naio.h"

/* Bytes of a stream in one call of the socket. */
#define KEVENT_NAIO_CHUNK	SZ_1M

static_assert(KEVENT_NAIO_MAX == (INT_MAX & ~0xfff));

static int kevent_naio_check(const struct kevent_request *req)
{
	u32 flags = req->flags;

	if (req->events != KEVENT_NAIO_RECV && req->events != KEVENT_NAIO_SEND &&
	    req->events != KEVENT_NAIO_SENDFILE)
		return -EINVAL;
	if (flags & KEVENT_MULTISHOT)
		flags &= ~(KEVENT_DISPATCH | KEVENT_DISABLED);
	if (flags & (KEVENT_EDGE | KEVENT_DISPATCH | KEVENT_DISABLED))
		return -EINVAL;
	if ((flags & (KEVENT_WAITALL | KEVENT_MULTISHOT)) &&
	    req->events != KEVENT_NAIO_RECV)
		return -EINVAL;
	if ((flags & KEVENT_MULTISHOT) &&
	    (flags & (KEVENT_WAITALL | KEVENT_ONESHOT)))
		return -EINVAL;
	if (req->param[1] > KEVENT_NAIO_MAX || req->param[2] > U32_MAX)
		return -EINVAL;
	if (req->events == KEVENT_NAIO_SENDFILE)
		return kevent_reader_check(req);
	/* it would wait for what it does not take */
	if (!req->param[1] && req->events == KEVENT_NAIO_RECV)
		return -EINVAL;
	return 0;
}

/*
 * Sockets of which it is known how they wake, and that their wait queue is inside
 * of their inode.
 */
static bool kevent_naio_takes(const struct sock *sk, u32 events)
{
	bool send = events != KEVENT_NAIO_RECV;

	switch (sk->sk_family) {
	case AF_INET:
	case AF_INET6:
		if (sk->sk_type == SOCK_STREAM)
			return sk->sk_protocol == IPPROTO_TCP;
		return sk->sk_type == SOCK_DGRAM &&
		       events != KEVENT_NAIO_SENDFILE &&
		       (sk->sk_protocol == IPPROTO_UDP ||
			sk->sk_protocol == IPPROTO_UDPLITE);
	case AF_UNIX:
		/* a datagram that finds no room waits for the peer's socket */
		return !send || sk->sk_type == SOCK_STREAM;
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
	    !kevent_naio_takes(sock->sk, t->kevent.events) ||
	    kevent_naio_layered(sock->sk))
		return -EOPNOTSUPP;
	return 0;
}

/* Nothing was received: because there will never be anything again? */
static bool kevent_naio_at_end(const struct kevent_naio *t, struct sock *sk)
{
	if (t->stream)
		return true;
	/* a packet may be empty */
	return sk->sk_type == SOCK_SEQPACKET &&
	       (READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN) &&
	       skb_queue_empty_lockless(&sk->sk_receive_queue);
}

/* There is an end behind the bytes, of which the socket may have told before. */
static bool kevent_naio_ends(const struct sock *sk)
{
	return READ_ONCE(sk->sk_err) ||
	       (READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN);
}

/* Into the memory of another process than the one whose WAIT this is. */
static noinline int kevent_naio_recv_remote(struct kevent_naio *t,
					    struct socket *sock,
					    struct msghdr *msg)
{
	struct kevent_pin pin = {};
	int ret;

	ret = kevent_pin_remote(&pin, t->mm, t->address, t->left,
				&msg->msg_iter);
	if (ret)
		return ret;
	ret = sock_recvmsg(sock, msg, MSG_DONTWAIT);
	kevent_unpin(&pin);
	return ret;
}

/**
 * kevent_naio_shot - one receive of a multishot, which does not wait
 * @t:		the multishot, the current one of its lane
 * @sock:	the socket, whose file is held by the caller
 *
 * Return: as kevent_naio_step()
 */
int kevent_naio_shot(struct kevent_naio *t, struct socket *sock)
{
	struct msghdr msg = { .msg_inq = -1, .msg_get_inq = 1 };
	int ret;

	if (unlikely(kevent_naio_layered(sock->sk))) {
		ret = -EOPNOTSUPP;
	} else if (likely(current->mm == t->mm)) {
		iov_iter_ubuf(&msg.msg_iter, ITER_DEST,
			      (void __user *)t->address, t->left);
		ret = sock_recvmsg(sock, &msg, MSG_DONTWAIT);
	} else {
		ret = kevent_naio_recv_remote(t, sock, &msg);
	}
	ret = kevent_naio_meaning(ret);
	if (ret == -EAGAIN || ret == -EINTR)
		return ret;
	WRITE_ONCE(t->pending, true);
	t->moved = max(ret, 0);
	if (ret < 0)
		t->error = -ret;
	t->truncated = !t->stream && (msg.msg_flags & MSG_TRUNC);
	t->drained = t->stream && !msg.msg_inq && !kevent_naio_ends(sock->sk);
	return ret < 0 || (!ret && kevent_naio_at_end(t, sock->sk)) ?
		1 : -EAGAIN;
}

/* As kevent_naio_step(), where @msg says whatever is to be said besides. */
static int kevent_naio_move(struct kevent_naio *t, struct socket *sock,
			    struct msghdr *msg)
{
	bool send = kevent_naio_sends(t);
	int ret;

	if (unlikely(kevent_naio_layered(sock->sk))) {
		t->error = EOPNOTSUPP;
		return 1;
	}
	if (t->reader)
		return kevent_reader_step(t, sock, msg);
	msg->msg_iter = t->iter;
	if (t->stream)
		iov_iter_truncate(&msg->msg_iter, KEVENT_NAIO_CHUNK);
	if (send) {
		msg->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
		ret = sock_sendmsg(sock, msg);
	} else {
		ret = sock_recvmsg(sock, msg, MSG_DONTWAIT);
		/* the descriptors that were in it, say */
		if (t->flies && (msg->msg_flags & MSG_CTRUNC) &&
		    (current->flags & PF_KTHREAD))
			kevent_put_others_files();
	}
	ret = kevent_naio_meaning(ret);
	if (ret == -EAGAIN || ret == -EINTR)
		return ret;
	if (ret < 0) {
		t->error = -ret;
		return 1;
	}
	t->moved += ret;
	t->left -= ret;
	iov_iter_advance(&t->iter, ret);
	if (!t->stream) {
		t->truncated = !send && (msg->msg_flags & MSG_TRUNC);
		return 1;
	}
	if (!t->left)
		return 1;
	if (!send)
		return !ret || !(t->kevent.flags & KEVENT_WAITALL);
	return ret ? 0 : -EAGAIN;
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
	struct msghdr msg = {};

	return kevent_naio_move(t, sock, &msg);
}

/*
 * May who asked for it send here?  The kernel is asked about nobody else when it
 * sends in another's name; nothing of no bytes is sent, but permitted all the same.
 */
static int kevent_naio_ask(struct kevent_naio *t, struct socket *sock)
{
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	const struct cred *old = override_creds(t->cred);
	int ret = sock_sendmsg(sock, &msg);

	revert_creds(old);
	return ret;
}

/**
 * kevent_naio_step_as - send by a UNIX socket for somebody else
 * @t:		the transfer, the current one of its lane, with @t->pid
 * @sock:	the socket, whose file is held by the caller
 *
 * What is sent says which process sent it.  Unless told otherwise the kernel
 * takes that to be the one that makes the call; only a thread of its own, with
 * the kernel's credentials, can tell it otherwise.
 *
 * Return: as kevent_naio_step()
 */
int kevent_naio_step_as(struct kevent_naio *t, struct socket *sock)
{
	union {
		struct cmsghdr head;
		u8 room[CMSG_SPACE(sizeof(struct ucred))];
	} control = {
		.head = {
			.cmsg_len = CMSG_LEN(sizeof(struct ucred)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_CREDENTIALS,
		},
	};
	struct ucred *creds = CMSG_DATA(&control.head);
	struct msghdr msg = {
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	int ret;

	creds->pid = 0;
	rcu_read_lock();
	/* else its number may be another's by now */
	if (pid_task(t->pid, PIDTYPE_TGID))
		creds->pid = pid_nr(t->pid);
	rcu_read_unlock();
	if (!creds->pid) {
		t->error = ECANCELED;
		return 1;
	}
	creds->uid = from_kuid(&init_user_ns, t->cred->uid);
	creds->gid = from_kgid(&init_user_ns, t->cred->gid);
	ret = kevent_naio_ask(t, sock);
	if (ret < 0) {
		t->error = -ret;
		return 1;
	}
	ret = kevent_naio_move(t, sock, &msg);
	/* it was waited for since we looked */
	if (t->error == ESRCH)
		t->error = ECANCELED;
	return ret;
}

/**
 * kevent_naio_let_go - let go of the memory or the file of a transfer
 * @t:		the transfer, which nobody moves any more
 */
void kevent_naio_let_go(struct kevent_naio *t)
{
	if (t->reader)
		kevent_reader_close(t);
	if (t->pin.mm && !kevent_has_bug(KEVENT_BUG_PIN))
		kevent_unpin(&t->pin);
}

/**
 * kevent_naio_end - a transfer has ended
 * @t:		the transfer, which cannot be dequeued yet
 */
void kevent_naio_end(struct kevent_naio *t)
{
	struct kevent *k = &t->kevent;

	kevent_naio_let_go(t);
	/* before anybody looks at what it has come to */
	smp_store_release(&t->done, true);
	if (!t->multishot)
		return;
	/* one event more, whatever a MODIFY has said meanwhile */
	spin_lock_irq(&k->user->lock);
	k->flags |= KEVENT_ONESHOT;
	k->state &= ~(KEVENT_MODIFIED | KEVENT_ASLEEP);
	spin_unlock_irq(&k->user->lock);
}

/**
 * kevent_naio_complete - a transfer has ended: say so
 * @t:		the transfer, which cannot be dequeued yet
 */
void kevent_naio_complete(struct kevent_naio *t)
{
	kevent_naio_end(t);
	kevent_ready(&t->kevent);
}

/**
 * kevent_naio_call - have the queue of a transfer look at it
 * @t:		the transfer, first in its lane; interrupts are off
 */
void kevent_naio_call(struct kevent_naio *t)
{
	struct kevent_user *user = t->kevent.user;
	bool wake;

	spin_lock(&user->lock);
	/* a multishot ends also while it is disabled */
	if (unlikely(READ_ONCE(t->lane->end->closed)))
		t->kevent.state &= ~KEVENT_ASLEEP;
	/* there is more than an event has told, which may still wait for room */
	t->drained = false;
	wake = kevent_ready_locked(&t->kevent);
	spin_unlock(&user->lock);
	/* as kevent_wake_pollers() does: nearly always there is none */
	if (wake && waitqueue_active(&user->poll_wait))
		kevent_wake_pollers(user, true);
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
	if (!t->multishot && !t->reader)
		ret = kevent_pin_user(&t->pin, t->kevent.user->account,
				      address + t->moved, t->left, !send,
				      &t->iter);
	if (ret)
		return ret;
	ret = kevent_end_hook(t->lane->end, file);
	if (ret)
		return ret;
	t->cred = get_current_cred();
	t->memcg = get_mem_cgroup_from_mm(current->mm);
	kevent_lane_prepared(t);
	return 0;
}

/* The socket is hooked: what it has not called for is to be seen now. */
static bool kevent_naio_holds(struct kevent_naio *t, struct file *file)
{
	struct sock *sk = sock_from_file(file)->sk;
	__poll_t mask = EPOLLHUP;

	/* there is an error, of which a poll says nothing */
	if (READ_ONCE(sk->sk_state) == TCP_LISTEN)
		return true;
	if (kevent_naio_sends(t)) {
		mask |= EPOLLOUT;
		/* not all say so */
		if (READ_ONCE(sk->sk_shutdown) & SEND_SHUTDOWN)
			return true;
	} else {
		mask |= EPOLLIN | EPOLLRDHUP;
	}
	/* EPOLLERR may be of what only MSG_ERRQUEUE receives */
	return (vfs_poll(file, NULL) & mask) || READ_ONCE(sk->sk_err) ||
	       READ_ONCE(t->lane->end->closed);
}

/* The same where it may have been closed, or be others' turn. */
static bool kevent_naio_would(struct kevent_naio *t)
{
	struct file *file;
	bool holds = true;

	if (!kevent_lane_has_turn(t))
		return false;
	file = kevent_end_file(t->lane->end);
	if (file) {
		holds = kevent_naio_holds(t, file) && !kevent_lane_flies(t);
		kevent_put_file(file, 0);
	}
	return holds;
}

/*
 * The same for who polls.  What somebody was told of may be there no more because
 * it is on its way into the memory just now.
 */
static bool kevent_naio_looks(struct kevent_naio *t)
{
	bool seen = kevent_naio_would(t) ||
		    (READ_ONCE(t->seen) && kevent_lane_moves(t));

	WRITE_ONCE(t->seen, seen);
	return seen;
}

static int kevent_naio_start(struct kevent_naio *t, struct file *file,
			     unsigned long address)
{
	int ret = -EAGAIN;
	bool begun;

	if (kevent_lane_join(t)) {
		if (!t->multishot)
			ret = kevent_naio_step(t, sock_from_file(file));
		kevent_lane_tried(t, ret > 0);
	}
	if (ret <= 0) {
		begun = t->moved;
		ret = kevent_naio_prepare(t, file, address);
		if (!ret) {
			/* what was read by now has kicked for nothing */
			if ((begun || t->reader || kevent_naio_holds(t, file)) &&
			    !kevent_has_bug(KEVENT_BUG_KICK))
				kevent_lane_kick(t->lane);
			return 0;
		}
		kevent_lane_leave(t, false);
		t->error = -ret;
	}
	/* that is wrong with the request, and nothing has happened yet */
	if (t->error && !t->moved && (ret < 0 || t->error == EFAULT))
		return -t->error;
	kevent_naio_complete(t);
	return 0;
}

/* Where a multishot receives into: memory of the current process. */
static void kevent_naio_aim(struct kevent_naio *t,
			    const struct kevent_request *req)
{
	if (t->mm != current->mm) {
		if (t->mm)
			mmdrop(t->mm);
		mmgrab(current->mm);
		t->mm = current->mm;
	}
	t->address = req->param[0];
	t->left = req->param[1];
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
	t->multishot = k->flags & KEVENT_MULTISHOT;
	if (!t->multishot)
		k->flags |= KEVENT_ONESHOT;
	if ((unsigned long)buffer != req->param[0] || !access_ok(buffer, length))
		return -EFAULT;
	if (req->events == KEVENT_NAIO_SENDFILE) {
		ret = kevent_reader_open(t, buffer, length);
		if (ret)
			return ret;
	}
	file = req->param[2] > INT_MAX ? NULL : fget(req->param[2]);
	if (!file)
		return -EBADF;
	ret = kevent_naio_permit(t, file);
	if (ret)
		goto put;
	t->stream = sock_from_file(file)->sk->sk_type == SOCK_STREAM;
	if (sock_from_file(file)->sk->sk_family == AF_UNIX) {
		t->flies = !send;
		t->pid = send ? get_task_pid(current, PIDTYPE_TGID) : NULL;
	}
	t->left = length;
	if (t->multishot)
		kevent_naio_aim(t, req);
	else
		iov_iter_ubuf(&t->iter, send ? ITER_SOURCE : ITER_DEST, buffer,
			      length);
	ret = kevent_end_get(t, file_inode(file));
	if (!ret)
		ret = kevent_naio_start(t, file, req->param[0]);
put:
	/* the queue's mutex is held, so not for as long as a close may take */
	kevent_put_file(file, KEVENT_CLOSE_PATIENCE);
	return ret;
}

/* What is wrong with a request to modify a multishot, or 0. */
static int kevent_naio_recheck(const struct kevent_naio *t,
			       const struct kevent_request *req)
{
	void __user *buffer = u64_to_user_ptr(req->param[0]);
	struct file *file;
	int ret = 0;

	if (!t->multishot)
		return -EOPNOTSUPP;
	if (!(req->flags & KEVENT_MULTISHOT))
		return -EINVAL;
	if ((unsigned long)buffer != req->param[0] ||
	    !access_ok(buffer, req->param[1]))
		return -EFAULT;
	file = req->param[2] > INT_MAX ? NULL : fget(req->param[2]);
	if (!file)
		return -EBADF;
	if (file_inode(file) != t->lane->end->inode)
		ret = -EINVAL;
	kevent_put_file(file, KEVENT_CLOSE_PATIENCE);
	return ret;
}

static int kevent_naio_modify(struct kevent *k, const struct kevent_request *req,
			      const struct kevent_target *target)
{
	struct kevent_naio *t = to_kevent_naio(k);
	bool alive;
	int ret;

	ret = kevent_naio_recheck(t, req);
	if (ret)
		return ret;
	ret = kevent_lane_hold(t);
	if (ret)
		return ret;
	spin_lock_irq(&k->user->lock);
	alive = !t->done && kevent_modify_locked(k, req);
	spin_unlock_irq(&k->user->lock);
	if (alive)
		kevent_naio_aim(t, req);
	kevent_lane_let_go(t);
	if (!alive)
		return -ENOENT;
	if (READ_ONCE(t->lane->end->closed))
		kevent_lane_kick(t->lane);
	else if (!(req->flags & KEVENT_DISABLED) &&
		 (READ_ONCE(t->pending) || kevent_naio_would(t)))
		kevent_ready(k);
	return 0;
}

static void kevent_naio_dequeue(struct kevent *k)
{
	struct kevent_naio *t = to_kevent_naio(k);

	if (t->lane)
		kevent_lane_leave(t, false);
	kevent_naio_let_go(t);
}

/* Whoever had claimed it may have looked at its lane. */
static void kevent_naio_release(struct kevent *k)
{
	struct kevent_naio *t = to_kevent_naio(k);

	if (t->lane)
		kevent_end_put(t);
	put_pid(t->pid);
	if (t->cred)
		put_cred(t->cred);
	mem_cgroup_put(t->memcg);
	if (t->mm)
		mmdrop(t->mm);
}

/* How far it came, and whether that was all, for who removes it. */
static int kevent_naio_cancel(struct kevent *k, struct kevent_request *req)
{
	struct kevent_naio *t = to_kevent_naio(k);
	int ret = kevent_lane_leave(t, true);

	if (ret)
		return ret;
	kevent_naio_let_go(t);
	req->param[0] = t->multishot && !t->pending ? 0 : t->moved;
	req->param[1] = t->done ? t->error : ECANCELED;
	return 0;
}

static bool kevent_naio_has_event(const struct kevent *k)
{
	const struct kevent_naio *t = to_kevent_naio(k);

	/* pairs with the releases of who ended it */
	return t->pending || smp_load_acquire(&t->done);
}

/* A WAIT wants to know how many have ended, not only what might. */
static bool kevent_naio_advance(struct kevent *k, size_t *budget)
{
	struct kevent_naio *t = to_kevent_naio(k);

	if (kevent_naio_has_event(k))
		return true;
	/* the memory of a multishot is the caller's until its event comes */
	if (t->multishot)
		return kevent_naio_would(t);
	kevent_lane_run(t, budget);
	return kevent_naio_has_event(k);
}

/* Moves it, if it is its turn, and says whether there is an event of it. */
static u32 kevent_naio_poll(struct kevent *k, struct kevent_event *event,
			    size_t *budget)
{
	struct kevent_naio *t = to_kevent_naio(k);

	if (!kevent_naio_has_event(k)) {
		/* who only looks moves nothing */
		if (!event)
			return kevent_naio_looks(t) ? k->events : 0;
		kevent_lane_run(t, budget);
		if (!kevent_naio_has_event(k))
			return 0;
	}
	if (!event)
		return k->events;
	event->data = t->moved;
	if (t->error) {
		event->count = t->error;
		event->flags |= KEVENT_EVENT_ERROR;
	}
	if (t->truncated)
		event->flags |= KEVENT_EVENT_TRUNCATED;
	if (t->broken)
		event->flags |= KEVENT_EVENT_BROKEN;
	if (t->done)
		event->flags |= KEVENT_EVENT_LAST;
	return k->events;
}

static bool kevent_naio_consume(struct kevent *k, struct kevent_item *item,
				const struct kevent_event *event)
{
	struct kevent_naio *t = to_kevent_naio(k);

	WRITE_ONCE(t->pending, false);
	/* the end is still to be told, and nobody will call again */
	if (t->multishot && !t->done && READ_ONCE(t->lane->end->closed)) {
		k->flags &= ~KEVENT_DISPATCH;
		kevent_lane_defer(t->lane);
		return true;
	}
	return !t->drained;
}

static const char *kevent_naio_close_name(const struct kevent *k)
{
	return to_kevent_naio(k)->prepared ? "mark" : "none";
}

static void kevent_naio_exit(void)
{
	kevent_readers_exit();
	kevent_ends_exit();
	kevent_lanes_exit();
}

const struct kevent_ops kevent_naio_ops = {
	.name		= "naio",
	.cache		= "kevent_naio",
	.type		= KEVENT_NAIO,
	.size		= sizeof(struct kevent_naio),
	.events		= KEVENT_NAIO_RECV | KEVENT_NAIO_SEND |
			  KEVENT_NAIO_SENDFILE,
	.flags		= KEVENT_WAITALL | KEVENT_MULTISHOT,
	.init		= kevent_readers_init,
	.exit		= kevent_naio_exit,
	.check		= kevent_naio_check,
	.enqueue	= kevent_naio_enqueue,
	.modify		= kevent_naio_modify,
	.dequeue	= kevent_naio_dequeue,
	.cancel		= kevent_naio_cancel,
	.release	= kevent_naio_release,
	.advance	= kevent_naio_advance,
	.poll		= kevent_naio_poll,
	.has_event	= kevent_naio_has_event,
	.consume	= kevent_naio_consume,
	.close		= kevent_naio_close_name,
};
