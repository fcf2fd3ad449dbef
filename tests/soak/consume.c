// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Threads that wait on the one queue, each with a slot of its own.  See soak.h.
 *
 *	owed = nothing, waiting = yes
 *	the call		its buffer is in the slot
 *	accounting		each event marked, with what names its delivery:
 *				doing so again changes nothing
 *	waiting = no
 *	reading, arming		what is owed
 */
#include "soak.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static struct kevent_event *records_of(struct slot *slot)
{
	return (struct kevent_event *)(slot->call.rest +
		slot->call.head.nr_changes * sizeof(struct kevent_request));
}

/* What names a delivery: the slot, its call, and the place in that. */
static uint32_t delivery_name(const struct slot *slot, unsigned int index)
{
	return (uint32_t)(slot - soak->slot) << 26 |
	       (slot->waits & 0x3ffff) << 8 | index;
}

static uint32_t reception_name(const struct slot *slot)
{
	return (uint32_t)(slot - soak->slot) << 26 |
	       (slot->receptions & 0x3ffffff);
}

/* f123: made, number 247; removed, number 248 */
static uint32_t entry_number(const struct kevent_event *event)
{
	char name[32] = "";
	uint32_t length = KEVENT_NAME_LENGTH(event->data);

	CHECK(length > 1 && length < sizeof(name));
	CHECK(event->flags & KEVENT_EVENT_NAME);
	memcpy(name, event + 1, length);
	CHECK_EQ(name[0], 'f');
	return 2 * (uint32_t)strtoul(name + 1, NULL, 10) +
	       (event->events == KEVENT_INODE_CREATE ? 1 : 2);
}

/* The sum and the call it is from are one word, so it is added once. */
static void account_expiries(struct slot *slot, unsigned int i, uint64_t data)
{
	uint64_t word = slot->expiries[i];

	if ((word & 0xffffff) == (slot->waits & 0xffffff))
		return;
	slot->expiries[i] = ((word >> 24) + data) << 24 |
			    (slot->waits & 0xffffff);
}

static void account_event(struct slot *slot, const struct kevent_event *event,
			  uint32_t delivery)
{
	struct stream *s = &soak->stream[event->cookie];
	uint32_t i;

	CHECK(event->cookie < STREAMS && event->type == s->type);
	CHECK_EQ(!!(event->flags & KEVENT_EVENT_LAST),
		 !!(s->flags & KEVENT_ONESHOT));
	CHECK_EQ(event->flags & (KEVENT_EVENT_BROKEN | KEVENT_EVENT_OVERFLOW |
				 KEVENT_EVENT_ERROR), 0);
	switch (s->kind) {
	case USER:
		/* this one, and those before it that it stands for */
		CHECK(event->count > 0 && event->count < WINDOW);
		for (i = 0; i < event->count; i++)
			stream_mark(s, (uint32_t)event->data - i, delivery);
		break;
	case INODE:
		CHECK_EQ(event->count, 1);
		stream_mark(s, entry_number(event), delivery);
		break;
	case RECEIVED:
		CHECK_EQ(event->data, sizeof(struct message));
		i = (uint32_t)event->ident;
		CHECK(i < PLACES);
		CHECK_EQ(s->place[i].stream, event->cookie);
		stream_mark(s, s->place[i].seq, delivery);
		break;
	case SENT:
		CHECK_EQ(event->data, sizeof(s->sends[0]));
		stream_mark(s, (uint32_t)event->ident, delivery);
		return;
	case ONCE:
		CHECK_EQ(event->data, 1);
		stream_mark(s, (uint32_t)event->ident, delivery);
		return;
	case PERIODIC:
		account_expiries(slot, (unsigned int)event->cookie,
				 event->data);
		return;
	default:
		CHECK_EQ(event->events, KEVENT_SOCKET_RECV);
		if (s->flags & KEVENT_EDGE)
			slot->owed |= 1U << event->cookie;
	}
	if (s->flags & (KEVENT_DISPATCH | KEVENT_ONESHOT))
		slot->owed |= 1U << event->cookie;
}

/* Every event that the call under way, or just over, has brought. */
static void account(struct slot *slot)
{
	const struct kevent_event *event = records_of(slot);
	unsigned int i = 0;

	CHECK(slot->call.head.records <= RECORDS);
	while (i < slot->call.head.records) {
		account_event(slot, event + i, delivery_name(slot, i));
		i += 1 + (event[i].flags & KEVENT_EVENT_NAME ?
			  KEVENT_NAME_RECORDS(event[i].data) : 0);
	}
	CHECK_EQ(i, slot->call.head.records);
}

static void account_message(struct slot *slot)
{
	CHECK(slot->msg.stream < STREAMS);
	stream_mark(&soak->stream[slot->msg.stream], slot->msg.seq,
		    reception_name(slot));
	slot->msg.seq = 0;
}

/* False where there is nothing to read. */
static bool receive(struct slot *slot, const struct stream *s)
{
	ssize_t n;

	slot->receptions++;
	n = recv(s->fd[0], &slot->msg, sizeof(slot->msg), MSG_DONTWAIT);
	if (n == -1 && errno == EAGAIN)
		return false;
	CHECK_EQ(SYS(n), sizeof(slot->msg));
	account_message(slot);
	return true;
}

static void arm_later(struct slot *slot, unsigned int i)
{
	if (slot->nr_changes < CHANGES) {
		slot->changed[slot->nr_changes++] = i;
	} else {
		stream_arm(i);
		slot->owed &= ~(1U << i);
	}
}

static void act(struct slot *slot, unsigned int i, struct rnd *rnd)
{
	const struct stream *s = &soak->stream[i];
	unsigned int most = s->flags & KEVENT_EDGE ? WINDOW :
			    !s->flags ? 1 : 1 + rnd_below(rnd, 4);

	if (s->type == KEVENT_SOCKET)
		while (most-- && receive(slot, s))
			;
	if (!(slot->owed & (1U << i)))
		return;
	if (s->flags & KEVENT_EDGE)
		slot->owed &= ~(1U << i);
	else
		arm_later(slot, i);
}

static void act_on_all(struct slot *slot, struct rnd *rnd)
{
	const struct kevent_event *event = records_of(slot);
	struct kevent_event kept[RECORDS];
	unsigned int i = 0, nr = slot->call.head.records;

	/* The buffer is for the next call from here on. */
	memcpy(kept, event, nr * sizeof(*event));
	slot->nr_changes = 0;
	while (i < nr) {
		act(slot, (unsigned int)kept[i].cookie, rnd);
		i += 1 + (kept[i].flags & KEVENT_EVENT_NAME ?
			  KEVENT_NAME_RECORDS(kept[i].data) : 0);
	}
}

static void fill_changes(struct slot *slot)
{
	struct kevent_request *req = (void *)slot->call.rest;
	unsigned int i;

	for (i = 0; i < slot->nr_changes; i++) {
		struct stream *s = &soak->stream[slot->changed[i]];

		req[i] = stream_request(s);
		req[i].op = s->flags & KEVENT_ONESHOT ? KEVENT_OP_ADD :
							KEVENT_OP_MODIFY;
	}
}

static void check_changes(struct slot *slot)
{
	const struct kevent_request *req = (void *)slot->call.rest;
	unsigned int i;

	for (i = 0; i < slot->nr_changes; i++) {
		if (req[i].result != -EEXIST || req[i].op != KEVENT_OP_ADD)
			CHECK_EQ(req[i].result, 0);
		slot->owed &= ~(1U << slot->changed[i]);
	}
	slot->nr_changes = 0;
}

static void wait_once(struct slot *slot, uint32_t min, uint32_t max,
		      uint64_t timeout)
{
	fill_changes(slot);
	slot->call.head = (struct kevent_wait){
		.nr_changes = slot->nr_changes, .min = min, .max = max,
		.timeout = timeout, .clock = CLOCK_MONOTONIC,
	};
	slot->waits++;
	slot->waiting = true;
	SYS(ioctl(soak->q, KEVENT_IOC_CHANGE_WAIT(CHANGES, RECORDS),
		  &slot->call));
	check_changes(slot);
	account(slot);
	slot->waiting = false;
}

static void *consumer(void *arg)
{
	unsigned int i = (unsigned int)(uintptr_t)arg;
	struct slot *slot = &soak->slot[i];
	struct rnd rnd = rnd_stream(20000 + SLOTS * soak->generation + i);

	for (;;) {
		uint32_t min = rnd_below(&rnd, 4) ? 1 : 1 + rnd_below(&rnd, 4);
		uint32_t max = KEVENT_EVENT_RECORDS +
			       rnd_below(&rnd, RECORDS - KEVENT_EVENT_RECORDS);
		uint64_t timeout = rnd_below(&rnd, 20) * NSEC_PER_MSEC;

		/* several may never come */
		if (min == 1 && rnd_below(&rnd, 2))
			timeout = FOREVER;
		wait_once(slot, min, max, timeout);
		act_on_all(slot, &rnd);
	}
	return NULL;
}

void consume(void *which)
{
	unsigned int first = *(unsigned int *)which * THREADS, i;

	for (i = 1; i < THREADS; i++)
		thread_start(consumer, (void *)(uintptr_t)(first + i));
	consumer((void *)(uintptr_t)first);
}

void slot_recover(unsigned int i)
{
	struct slot *slot = &soak->slot[i];
	unsigned int stream;

	if (slot->waiting)
		account(slot);
	slot->waiting = false;
	if (slot->msg.seq)
		account_message(slot);
	for (stream = 0; stream < STREAMS; stream++)
		if (slot->owed & (1U << stream))
			stream_arm(stream);
	slot->owed = 0;
	slot->nr_changes = 0;
}

void slot_drain(unsigned int i)
{
	struct slot *slot = &soak->slot[i];
	struct rnd rnd = rnd_stream(30000);

	do {
		wait_once(slot, 0, RECORDS, 0);
		act_on_all(slot, &rnd);
	} while (slot->call.head.records || slot->nr_changes);
}
