// SPDX-License-Identifier: GPL-2.0-only
/*
 * KEVENT_SOCKET: a socket can be read from, accepted from, sent to, has been
 * shut down by its peer or hung up, or has an error; and how much of it.
 */
#include <linux/file.h>
#include <linux/net.h>
#include <linux/poll.h>
#include <linux/skbuff.h>
#include <linux/socket.h>
#include <linux/udp.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/tcp_states.h>

#include "compat.h"
#include "hook.h"
#include "kevent.h"

#define KEVENT_SOCKET_EVENTS						\
	(KEVENT_SOCKET_RECV | KEVENT_SOCKET_PRI | KEVENT_SOCKET_SEND |	\
	 KEVENT_SOCKET_ERR | KEVENT_SOCKET_HUP | KEVENT_SOCKET_RDHUP |	\
	 KEVENT_SOCKET_ACCEPT)

/* What the socket's owner is to be woken for. */
static __poll_t kevent_socket_mask(u32 events)
{
	__poll_t mask = 0;

	if (events & (KEVENT_SOCKET_RECV | KEVENT_SOCKET_ACCEPT))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (events & KEVENT_SOCKET_PRI)
		mask |= EPOLLPRI;
	if (events & KEVENT_SOCKET_SEND)
		mask |= EPOLLOUT | EPOLLWRNORM;
	if (events & KEVENT_SOCKET_RDHUP)
		mask |= EPOLLRDHUP;
	return mask;
}

static u32 kevent_socket_events(const struct sock *sk, __poll_t mask)
{
	u32 events = 0;

	if (mask & EPOLLIN)
		events |= sk->sk_state == TCP_LISTEN ? KEVENT_SOCKET_ACCEPT :
						       KEVENT_SOCKET_RECV;
	if (mask & EPOLLPRI)
		events |= KEVENT_SOCKET_PRI;
	if (mask & EPOLLOUT)
		events |= KEVENT_SOCKET_SEND;
	if (mask & EPOLLERR)
		events |= KEVENT_SOCKET_ERR;
	if (mask & EPOLLHUP)
		events |= KEVENT_SOCKET_HUP;
	if (mask & EPOLLRDHUP)
		events |= KEVENT_SOCKET_RDHUP;
	return events;
}

/* Connections that accept() would return at once. */
static u64 kevent_socket_backlog(const struct sock *sk)
{
	if (sk->sk_family == AF_UNIX)
		return skb_queue_len_lockless(&sk->sk_receive_queue);
	return READ_ONCE(sk->sk_ack_backlog);
}

static bool kevent_socket_is_tcp(const struct sock *sk)
{
	return sk->sk_type == SOCK_STREAM && sk->sk_protocol == IPPROTO_TCP &&
	       (sk->sk_family == AF_INET || sk->sk_family == AF_INET6);
}

static bool kevent_socket_is_udp(const struct sock *sk)
{
	return sk->sk_type == SOCK_DGRAM &&
	       (sk->sk_protocol == IPPROTO_UDP ||
		sk->sk_protocol == IPPROTO_UDPLITE) &&
	       (sk->sk_family == AF_INET || sk->sk_family == AF_INET6);
}

/* The end of a stream has a sequence number, too, and urgent data stop it. */
static int kevent_tcp_readable(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	u32 next = READ_ONCE(tp->rcv_nxt);
	u32 copied = READ_ONCE(tp->copied_seq);
	u32 urgent = READ_ONCE(tp->urg_seq);
	int len = next - copied;

	if (READ_ONCE(tp->urg_data) && !sock_flag(sk, SOCK_URGINLINE) &&
	    !before(urgent, copied) && before(urgent, next))
		return urgent - copied;
	if (len > 0 && sock_flag(sk, SOCK_DONE))
		len--;
	return len;
}

/* What is at the head of @queue: false where it is empty. */
static bool kevent_first_datagram(struct sk_buff_head *queue, int *len)
{
	const struct sk_buff *skb;
	unsigned long flags;

	spin_lock_irqsave(&queue->lock, flags);
	skb = skb_peek(queue);
	if (skb)
		*len = skb->len;
	spin_unlock_irqrestore(&queue->lock, flags);
	return skb;
}

/*
 * Nearly all datagrams go through one queue.  UDP has another in front of it,
 * to which a reader moves them all at once, perhaps while we are looking.
 */
static int kevent_datagram_readable(struct sock *sk)
{
	struct sk_buff_head *front = NULL;
	int len = 0;

	if (kevent_socket_is_udp(sk))
		front = &udp_sk(sk)->reader_queue;
	if (front && kevent_first_datagram(front, &len))
		return len;
	if (!kevent_first_datagram(&sk->sk_receive_queue, &len) && front)
		kevent_first_datagram(front, &len);
	return len;
}

/*
 * As FIONREAD has it: a stream's bytes, or the next datagram's.  Never by a
 * lock that is held while somebody reads: a WAIT, or a poll(2) of the queue,
 * would have to wait for who shares the socket, and that may take for ever.
 */
static u64 kevent_socket_readable(struct sock *sk)
{
	int len = 0;

	if (kevent_socket_is_tcp(sk))
		len = kevent_tcp_readable(sk);
#if IS_BUILTIN(CONFIG_UNIX)
	else if (sk->sk_family == AF_UNIX && sk->sk_type == SOCK_STREAM)
		len = kevent_unix_readable(sk);
#endif
	else if (sk->sk_type == SOCK_DGRAM || sk->sk_type == SOCK_RAW ||
		 sk->sk_type == SOCK_SEQPACKET)
		len = kevent_datagram_readable(sk);
	return max(len, 0);
}

/* Bytes that the send buffer has room for. */
static u64 kevent_socket_writable(const struct sock *sk)
{
	int space = kevent_socket_is_tcp(sk) ? sk_stream_wspace(sk) :
			READ_ONCE(sk->sk_sndbuf) - sk_wmem_alloc_get(sk);

	return space > 0 ? space : 0;
}

static u64 kevent_socket_data(struct sock *sk, u32 events, u32 flags)
{
	if (events & KEVENT_SOCKET_ACCEPT)
		return kevent_socket_backlog(sk);
	if (!(flags & KEVENT_BYTES))
		return 0;
	if (events & KEVENT_SOCKET_RECV)
		return kevent_socket_readable(sk);
	if (events & KEVENT_SOCKET_SEND)
		return kevent_socket_writable(sk);
	return 0;
}

static u32 kevent_socket_poll(struct kevent *k, struct kevent_event *event,
			      size_t *budget)
{
	__poll_t mask = READ_ONCE(to_kevent_file(k)->mask);
	struct file *file = kevent_file_get(k);
	struct socket *sock;
	u32 events;

	if (!file)
		return 0;
	sock = sock_from_file(file);
	mask = kevent_file_poll(file, mask);
	events = kevent_socket_events(sock->sk, mask);
	events &= READ_ONCE(k->events) | KEVENT_SOCKET_ERR | KEVENT_SOCKET_HUP;
	if (event)
		event->data = kevent_socket_data(sock->sk, events,
						 READ_ONCE(k->flags));
	kevent_put_file(file, event ? KEVENT_CLOSE_PATIENCE : 0);
	return events;
}

static int kevent_socket_enqueue(struct kevent *k,
				 const struct kevent_request *req,
				 const struct kevent_target *target)
{
	if (!sock_from_file(target->file))
		return -ENOTSOCK;
	return kevent_file_enqueue(k, req, target,
				   kevent_socket_mask(req->events));
}

static int kevent_socket_modify(struct kevent *k,
				const struct kevent_request *req,
				const struct kevent_target *target)
{
	return kevent_file_modify(k, req, target,
				  kevent_socket_mask(req->events));
}

const struct kevent_ops kevent_socket_ops = {
	.name		= "socket",
	.cache		= "kevent_socket",
	.type		= KEVENT_SOCKET,
	.descriptor	= true,
	.size		= sizeof(struct kevent_file),
	.events		= KEVENT_SOCKET_EVENTS,
	.flags		= KEVENT_NOTIFY_BROKEN | KEVENT_BYTES,
	.enqueue	= kevent_socket_enqueue,
	.modify		= kevent_socket_modify,
	.dequeue	= kevent_file_dequeue,
	.release	= kevent_file_release,
	.poll		= kevent_socket_poll,
	.gone		= kevent_file_gone,
	.close		= kevent_file_close_name,
};
