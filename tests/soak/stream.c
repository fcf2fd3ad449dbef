// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sources of numbered events, and who sends them.  See soak.h.
 *
 * A transfer is from or to memory that all share, so it goes on when the process
 * that asked for it is killed.  Two may be under way where there was to be one,
 * because who was killed had asked already; so each has a number of its own, and
 * a place of its own to receive into.  A place is used again after PLACES others:
 * by then whoever was told of it has looked, or nothing would have been sent.
 */
#include "soak.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define INODE_EVENTS	(KEVENT_INODE_CREATE | KEVENT_INODE_REMOVE)
/* So many fit any buffer of IP: TCP does not cut them up, UDP drops none. */
#define IP_WINDOW	64U

const char *const kind_names[KINDS] = {
	"postings", "UNIX messages", "UDP messages", "TCP messages",
	"inode events", "one-shot timers", "periodic expiries",
	"received messages", "sent messages",
};

static const uint32_t modes[MODES] = {
	0, KEVENT_EDGE, KEVENT_DISPATCH, KEVENT_ONESHOT,
};

/* Accounts */

static bool was_seen(const struct stream *s, uint32_t seq)
{
	return s->seen[seq % WINDOW] >> 32 == seq;
}

static bool is_maybe(const struct stream *s, uint32_t seq)
{
	unsigned int i;

	for (i = 0; i < MAYBES; i++)
		if (s->maybe[i] == seq)
			return true;
	return false;
}

void stream_mark(struct stream *s, uint32_t seq, uint32_t delivery)
{
	uint64_t now = (uint64_t)seq << 32 | delivery, old;
	unsigned int i = (unsigned int)(s - soak->stream);

	if (!seq || seq > s->intent)
		FAIL("stream %u (%s): %u was delivered, and never sent", i,
		     kind_names[s->kind], seq);
	old = s->seen[seq % WINDOW];
	do {
		if (old >> 32 > seq && is_maybe(s, seq))
			return;
		if (old >> 32 > seq)
			FAIL("stream %u (%s): %u was delivered long ago", i,
			     kind_names[s->kind], seq);
		if (old >> 32 == seq && old != now)
			FAIL("stream %u (%s): %u was delivered twice, by %#x and %#x",
			     i, kind_names[s->kind], seq, (uint32_t)old,
			     delivery);
	} while (!atomic_compare_exchange_weak(&s->seen[seq % WINDOW], &old,
					       now));
}

void stream_advance(struct stream *s)
{
	uint32_t low = s->low;

	while (low <= s->sent && (was_seen(s, low) || is_maybe(s, low)))
		s->low = ++low;
}

/* Making and arming */

static void udp_pair(int fd[2])
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);

	loopback_up();
	fd[0] = (int)SYS(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	fd[1] = (int)SYS(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	SYS(bind(fd[0], (struct sockaddr *)&addr, sizeof(addr)));
	SYS(getsockname(fd[0], (struct sockaddr *)&addr, &len));
	SYS(connect(fd[1], (struct sockaddr *)&addr, sizeof(addr)));
}

struct kevent_request stream_request(struct stream *s)
{
	struct kevent_request req = request(s->type, s->ident, 0, s->flags,
					    (uint64_t)(s - soak->stream));

	uint32_t place;

	switch (s->kind) {
	case USER:
		req.events = KEVENT_USER_POSTED;
		break;
	case RECEIVED:
		place = s->next++ % PLACES;
		req.ident = s->ident << 32 | place;
		req.events = KEVENT_NAIO_RECV;
		req.param[0] = (uintptr_t)&s->place[place];
		req.param[1] = sizeof(s->place[place]);
		req.param[2] = (uint64_t)s->fd[0];
		break;
	case SENT:
		req.events = KEVENT_NAIO_SEND;
		req.param[1] = sizeof(s->sends[0]);
		req.param[2] = (uint64_t)s->fd[0];
		break;
	case INODE:
		req.events = INODE_EVENTS;
		break;
	case ONCE:
	case PERIODIC:
		req.events = KEVENT_TIMER_FIRED;
		req.param[0] = s->first;
		req.param[1] = s->interval;
		req.param[2] = CLOCK_MONOTONIC;
		break;
	default:
		req.events = KEVENT_SOCKET_RECV;
	}
	return req;
}

/* Whatever state it was left in, it reports again what there is. */
void stream_arm(unsigned int i)
{
	struct stream *s = &soak->stream[i];
	struct kevent_request req = stream_request(s);
	int ret;

	if (!(s->flags & KEVENT_ONESHOT)) {
		CHECK_EQ(change(soak->q, KEVENT_IOC_NR_MODIFY, req), 0);
		return;
	}
	ret = change(soak->q, KEVENT_IOC_NR_ADD, req);
	if (ret != -EEXIST)
		CHECK_EQ(ret, 0);
}

static void stream_open(struct stream *s, enum kind kind, uint16_t type,
			uint32_t flags)
{
	unsigned int i = (unsigned int)(s - soak->stream);
	int small = 4096;

	memset(s, 0, sizeof(*s));
	s->kind = kind;
	s->type = type;
	s->flags = flags;
	s->fd[0] = s->fd[1] = -1;
	s->low = 1;
	s->window = kind == UDP || kind == TCP || kind == RECEIVED ||
		    kind == SENT ? IP_WINDOW : WINDOW / 2;
	s->ident = i;
	if (kind == UNIX || (kind == RECEIVED && !(flags & KEVENT_WAITALL)))
		SYS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, s->fd));
	else if (kind == UDP)
		udp_pair(s->fd);
	else if (kind == TCP || kind == RECEIVED || kind == SENT)
		tcp_pair(s->fd);
	/* some have to wait for room */
	if (kind == SENT)
		SYS(setsockopt(s->fd[0], SOL_SOCKET, SO_SNDBUF, &small,
			       sizeof(small)));
	if (type == KEVENT_SOCKET)
		s->ident = (uint64_t)s->fd[0];
	if (kind != INODE)
		return;
	snprintf(s->dir, sizeof(s->dir), "%.80s/stream%u", temp_dir(), i);
	SYS(mkdir(s->dir, 0755));
	if (type == KEVENT_PATH)
		return;
	s->fd[0] = (int)SYS(open(s->dir, O_RDONLY | O_CLOEXEC));
	s->ident = (uint64_t)s->fd[0];
}

/* Timers and sends are added as they are sent, the others are there at once. */
static void stream_add(struct stream *s)
{
	if (s->kind == ONCE || s->kind == SENT)
		return;
	if (s->type == KEVENT_PATH)
		CHECK_EQ(add_path(soak->q, s->ident, s->dir, INODE_EVENTS,
				  s->flags, s->ident), 0);
	else
		CHECK_EQ(change(soak->q, KEVENT_IOC_NR_ADD,
				stream_request(s)), 0);
}

void streams_open(struct rnd *rnd)
{
	static const uint64_t intervals[] = { 1, 3, 20 };	/* ms */
	struct stream *s = soak->stream;
	unsigned int i, kind;

	for (i = 0; i < MODES; i++)
		stream_open(s++, USER, KEVENT_USER, modes[i]);
	for (kind = UNIX; kind <= TCP; kind++)
		for (i = 0; i < MODES; i++)
			stream_open(s++, kind, KEVENT_SOCKET, modes[i]);
	stream_open(s++, INODE, KEVENT_PATH, 0);
	stream_open(s++, INODE, KEVENT_INODE, KEVENT_DISPATCH);
	stream_open(s++, ONCE, KEVENT_TIMER, KEVENT_ONESHOT);
	for (i = 0; i < ARRAY_SIZE(intervals); i++, s++) {
		stream_open(s, PERIODIC, KEVENT_TIMER, KEVENT_ABSTIME |
			    (i & 1 ? KEVENT_EDGE : 0));
		s->interval = intervals[i] * NSEC_PER_MSEC +
			      rnd_below(rnd, 100000);
		s->first = now_ns() + s->interval;
	}
	stream_open(s++, RECEIVED, KEVENT_NAIO, KEVENT_ONESHOT);
	stream_open(s++, RECEIVED, KEVENT_NAIO, KEVENT_ONESHOT | KEVENT_WAITALL);
	stream_open(s++, SENT, KEVENT_NAIO, KEVENT_ONESHOT);
	CHECK(s == soak->stream + STREAMS);
	while (s-- > soak->stream)
		stream_add(s);
}

static void entry_path(char *path, size_t size, const struct stream *s,
		       uint32_t seq)
{
	snprintf(path, size, "%s/f%u", s->dir, (seq - 1) / 2);
}

void streams_close(void)
{
	struct stream *s;
	char path[160];

	for (s = soak->stream; s < soak->stream + STREAMS; s++) {
		if (s->fd[0] >= 0)
			close(s->fd[0]);
		if (s->fd[1] >= 0)
			close(s->fd[1]);
		if (s->kind != INODE)
			continue;
		entry_path(path, sizeof(path), s, s->sent);
		if (s->sent & 1)
			SYS(unlink(path));
		SYS(rmdir(s->dir));
	}
}

/* Sending: each gives whether number @seq was sent */

static bool send_posting(struct stream *s, uint32_t seq)
{
	/* never the number of this call with the result of the last one */
	s->call.post.post.result = 1;
	atomic_signal_fence(memory_order_seq_cst);
	s->call.post.head = (struct kevent_batch){ .count = 1 };
	s->call.post.post.ident = s->ident;
	s->call.post.post.data = seq;
	SYS(ioctl(soak->q, KEVENT_IOC_POST(1), &s->call.post));
	/* A one-shot kevent was delivered, and is not back yet. */
	if (s->call.post.post.result == -ENOENT && (s->flags & KEVENT_ONESHOT))
		return false;
	CHECK_EQ(s->call.post.post.result, 0);
	return true;
}

static bool send_timer(struct stream *s, uint32_t seq, struct rnd *rnd)
{
	struct kevent_request req = stream_request(s);

	req.ident = s->ident << 32 | seq;
	req.param[0] = rnd_below(rnd, 10000000);
	req.result = 1;
	s->call.add.req.result = 1;
	atomic_signal_fence(memory_order_seq_cst);
	s->call.add.head = (struct kevent_batch){ .count = 1 };
	s->call.add.req = req;
	SYS(ioctl(soak->q, KEVENT_IOC_ADD(1), &s->call.add));
	CHECK_EQ(s->call.add.req.result, 0);
	return true;
}

static bool send_transfer(struct stream *s, uint32_t seq)
{
	struct kevent_request req = stream_request(s);
	uint32_t *words = s->sends[seq % SENDS];
	unsigned int i;

	for (i = 0; i < SEND_WORDS; i++)
		words[i] = seq;
	req.ident = s->ident << 32 | seq;
	req.param[0] = (uintptr_t)words;
	req.result = 1;
	s->call.add.req.result = 1;
	atomic_signal_fence(memory_order_seq_cst);
	s->call.add.head = (struct kevent_batch){ .count = 1 };
	s->call.add.req = req;
	SYS(ioctl(soak->q, KEVENT_IOC_ADD(1), &s->call.add));
	CHECK_EQ(s->call.add.req.result, 0);
	return true;
}

void stream_collect(struct stream *s)
{
	static uint32_t words[4 * SEND_WORDS];
	ssize_t n;

	for (;;) {
		ssize_t i;

		/* whole words, of which one may be under way */
		n = recv(s->fd[1], words, sizeof(words),
			 MSG_DONTWAIT | MSG_PEEK);
		if (n < (ssize_t)sizeof(words[0]))
			break;
		n -= n % (ssize_t)sizeof(words[0]);
		CHECK_EQ(SYS(recv(s->fd[1], words, (size_t)n, MSG_DONTWAIT)), n);
		for (i = 0; i < n / (ssize_t)sizeof(words[0]); i++, s->arrived++)
			if (words[i] != s->arrived / SEND_WORDS + 1)
				FAIL("word %llu of the sent messages is of number %u",
				     (unsigned long long)s->arrived, words[i]);
	}
	if (n < 0)
		CHECK_EQ(errno, EAGAIN);
}

static bool send_message(struct stream *s, uint32_t seq)
{
	struct message msg = {
		.stream = (uint32_t)(s - soak->stream), .seq = seq,
	};
	ssize_t n = send(s->fd[1], &msg, sizeof(msg),
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n == -1 && errno == EAGAIN)
		return false;
	CHECK_EQ(SYS(n), sizeof(msg));
	return true;
}

/* Odd numbers make a file, even ones remove it. */
static bool send_entry(struct stream *s, uint32_t seq)
{
	char path[160];

	entry_path(path, sizeof(path), s, seq);
	if (seq & 1)
		close((int)SYS(open(path, O_CREAT | O_EXCL | O_WRONLY |
				    O_CLOEXEC, 0644)));
	else
		SYS(unlink(path));
	return true;
}

static bool send_one(struct stream *s, struct rnd *rnd)
{
	uint32_t seq = s->sent + 1;
	bool sent;

	s->intent = seq;
	switch (s->kind) {
	case USER:
		sent = send_posting(s, seq);
		break;
	case ONCE:
		sent = send_timer(s, seq, rnd);
		break;
	case SENT:
		sent = send_transfer(s, seq);
		break;
	case INODE:
		sent = send_entry(s, seq);
		break;
	default:
		sent = send_message(s, seq);
	}
	if (sent)
		s->sent = seq;
	else
		s->intent = s->sent;
	return sent;
}

void stream_settle(struct stream *s)
{
	uint32_t seq = s->intent;
	bool sent = false;
	char path[160];

	if (seq == s->sent)
		return;
	switch (s->kind) {
	case USER:
		sent = s->call.post.post.data == seq &&
		       !s->call.post.post.result;
		break;
	case ONCE:
	case SENT:
		sent = (uint32_t)s->call.add.req.ident == seq &&
		       !s->call.add.req.result;
		break;
	case INODE:
		entry_path(path, sizeof(path), s, seq);
		sent = (seq & 1) == !access(path, F_OK);
		break;
	default:
		/* a socket does not say; the number is not used again */
		s->maybe[s->nr_maybes++ % MAYBES] = seq;
		sent = true;
	}
	if (sent)
		s->sent = seq;
	else
		s->intent = s->sent;
}

void produce(void *which)
{
	unsigned int first = *(unsigned int *)which, i;
	struct rnd rnd = rnd_stream(10000 + soak->generation);

	while (!soak->stop) {
		bool idle = true;

		for (i = first; i < STREAMS; i += PRODUCERS) {
			struct stream *s = &soak->stream[i];
			uint32_t burst = 1 + rnd_below(&rnd, 8);

			if (s->kind == PERIODIC)
				continue;
			while (burst-- && s->sent + 1 - s->low < s->window &&
			       send_one(s, &rnd))
				idle = false;
		}
		/* All of it is under way: the processors are for others. */
		if (idle)
			usleep(300);
	}
}
