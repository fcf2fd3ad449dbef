// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Streams from SEND to RECV over TCP, one thread and one queue at each end.
 *
 * An end cuts its stream into pieces of random size, a few of which are asked for
 * at a time.  Now and then it cancels the last ones, or lets time go by, and then
 * asks for what is left of each.  The number of bytes that an event or a REMOVE
 * tells is all that an end goes by: were it wrong, what comes next would be in
 * the wrong place.
 */
#include "transfers.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BYTES		250000000ULL
#define STREAMS		8U
#define DEPTH		4U	/* pieces of a stream at a time */
#define MOST		PATTERN_PIECE	/* bytes of a piece */
#define GUARD		16U	/* bytes before and behind that stay */
#define MARK		0x55
#define BATCH		32

/*
 * A piece of a stream: @length bytes, of which @moved have been.  They are at
 * @at, which is in @memory, or to be sent from the pattern itself.  A transfer
 * is @asked for; of one that was cancelled the rest has to be.
 */
struct piece {
	char *memory;
	char *at;
	uint32_t length;
	uint32_t moved;
	bool copied;
	bool asked;
	bool ended;
	bool cancelled;
};

/*
 * One end of a stream, the pieces of which are in order from @first on, and the
 * stream's bytes before the first one have been checked: @pos.
 */
struct end {
	unsigned int nr;
	int fd;
	bool sends;
	bool pausing;
	bool striking;
	bool eof;
	bool finished;
	uint64_t phase;
	_Atomic uint64_t pos;
	struct piece piece[DEPTH];
	unsigned int first;
	unsigned int count;
};

/* All ends of one direction, and what has happened to them. */
struct side {
	int q;
	struct rnd rnd;
	struct end end[STREAMS];
	unsigned long pieces, transfers, cancels, parts, pauses, shorts;
};

static struct side sender, receiver;
static uint64_t total, began;
/* What the sender has not given to any stream yet; quick ones get more. */
static uint64_t left;

static struct piece *piece_at(struct end *e, unsigned int i)
{
	return &e->piece[(e->first + i) % DEPTH];
}

/* From single bytes to a MiB, the smaller ones more often. */
static uint32_t random_length(struct rnd *rnd)
{
	static const uint32_t most[] = {
		64, PAGE, PAGE, 16 * PAGE, 16 * PAGE, 16 * PAGE, 64 * PAGE,
		MOST,
	};

	return 1 + rnd_below(rnd, most[rnd_below(rnd, ARRAY_SIZE(most))]);
}

/* Ours again, so whatever we write there does no harm. */
static void scribble(char *mem, size_t length)
{
	size_t i;

	for (i = 0; i < length; i += PAGE)
		memset(mem + i, MARK, length - i < 64 ? length - i : 64);
}

static bool is_marked(const char *mem, size_t length)
{
	while (length--)
		if (*mem++ != MARK)
			return false;
	return true;
}

static char *guard(struct piece *p)
{
	return p->at + p->length;
}

static void cut_piece(struct side *s, struct end *e)
{
	struct piece *p = piece_at(e, e->count++);
	char *memory = p->memory;
	uint64_t pos = e->pos;
	unsigned int i;

	for (i = 0; i + 1 < e->count; i++)
		pos += piece_at(e, i)->length;
	*p = (struct piece){
		.memory = memory, .length = random_length(&s->rnd),
		.at = memory + GUARD + rnd_below(&s->rnd, PAGE),
	};
	s->pieces++;
	if (!e->sends) {
		memset(p->at - GUARD, MARK, GUARD);
		memset(guard(p), MARK, GUARD);
		return;
	}
	if (p->length > left)
		p->length = (uint32_t)left;
	left -= p->length;
	/* some are sent from memory that is written to afterwards */
	p->copied = rnd_below(&s->rnd, 2);
	if (p->copied)
		memcpy(p->at, pattern_at(e->phase + pos), p->length);
	else
		p->at = (char *)pattern_at(e->phase + pos);
}

/* Asks for all that nobody is asked for, in one call. */
static void ask(struct side *s, struct end *e)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req[DEPTH];
	} arg = { 0 };
	unsigned int i, n = 0;

	for (i = 0; i < e->count; i++) {
		struct piece *p = piece_at(e, i);
		struct kevent_request *req = &arg.req[n];

		if (p->asked || p->ended) {
			/* those that are not are the last ones */
			CHECK_EQ(n, 0);
			continue;
		}
		if (p->cancelled && !e->sends && p->length - p->moved >= GUARD)
			CHECK(is_marked(p->at + p->moved, GUARD));
		*req = request(KEVENT_NAIO, e->nr * DEPTH + (p - e->piece),
			       e->sends ? KEVENT_NAIO_SEND : KEVENT_NAIO_RECV,
			       0, e->nr);
		if (!e->sends && rnd_below(&s->rnd, 2))
			req->flags = KEVENT_WAITALL;
		req->param[0] = (uintptr_t)(p->at + p->moved);
		req->param[1] = p->length - p->moved;
		req->param[2] = (uint64_t)e->fd;
		p->asked = true;
		n++;
	}
	if (!n)
		return;
	arg.head.count = n;
	s->transfers += n;
	CHECK_EQ(SYS(ioctl(s->q, KEVENT_IOC_ADD(n), &arg)), n);
}

/* A transfer has ended, or is cancelled, with so many bytes. */
static void moved(struct side *s, struct end *e, struct piece *p, uint64_t bytes,
		  int error)
{
	CHECK(p->asked && !p->ended);
	CHECK(bytes <= p->length - p->moved);
	if (error && error != ECANCELED)
		FAIL("stream %u: %s", e->nr, strerror(error));
	if (e->sends && p->copied)
		scribble(p->at + p->moved, bytes);
	p->moved += bytes;
	p->asked = false;
	p->cancelled = error == ECANCELED;
	p->ended = !error || p->moved == p->length;
	if (p->cancelled) {
		s->parts += bytes && !p->ended;
		if (!e->sends && !p->ended && p->length - p->moved >= GUARD)
			memset(p->at + p->moved, MARK, GUARD);
		return;
	}
	if (p->moved == p->length)
		return;
	CHECK(!e->sends);
	s->shorts++;
	e->eof = e->eof || !bytes;
}

/* Cancels the last @n of those that are asked for, the very last one first. */
static void cancel(struct side *s, struct end *e, unsigned int n)
{
	unsigned int i;

	for (i = e->count; i-- && n; n--) {
		struct piece *p = piece_at(e, i);
		struct {
			struct kevent_batch head;
			struct kevent_request req;
		} arg = { .head.count = 1 };

		if (!p->asked)
			continue;
		arg.req = request(KEVENT_NAIO, e->nr * DEPTH + (p - e->piece),
				  0, 0, 0);
		/* no event is out that we have not looked at */
		CHECK_EQ(SYS(ioctl(s->q, KEVENT_IOC_REMOVE(1), &arg)), 1);
		s->cancels++;
		moved(s, e, p, arg.req.param[0], (int)arg.req.param[1]);
	}
}

/* The pieces at the front that have ended are checked, and gone. */
static void retire(struct end *e)
{
	struct piece *p;

	while (e->count && (p = piece_at(e, 0))->ended) {
		uint64_t pos = e->phase + e->pos;

		if (!e->sends) {
			pattern_check(p->at, p->moved, pos, "stream", e->nr);
			CHECK(is_marked(p->at - GUARD, GUARD));
			CHECK(is_marked(guard(p), GUARD));
		} else {
			CHECK_EQ(p->moved, p->length);
		}
		e->pos += p->moved;
		e->first = (e->first + 1) % DEPTH;
		e->count--;
	}
}

/* A timer of a moment, of any order of magnitude. */
static void set_timer(struct side *s, struct end *e, bool strike)
{
	uint32_t most = 10000U << rnd_below(&s->rnd, 12);

	CHECK_EQ(add_timer(s->q, e->nr + (strike ? STREAMS : 0),
			   1 + rnd_below(&s->rnd, most), 0, KEVENT_ONESHOT,
			   e->nr), 0);
}

/* Asks for nothing while it pauses; @strike: a timer says that it is time to cancel. */
static void go_on(struct side *s, struct end *e, bool strike)
{
	unsigned int i, room = 1 + rnd_below(&s->rnd, DEPTH);

	retire(e);
	if (e->finished)
		return;
	if (strike) {
		cancel(s, e, 1 + rnd_below(&s->rnd, DEPTH));
		retire(e);
	}
	if (e->pausing)
		return;
	if (!rnd_below(&s->rnd, 12)) {
		e->pausing = true;
		s->pauses++;
		set_timer(s, e, false);
		return;
	}
	while (e->count < room && !e->eof && (!e->sends || left))
		cut_piece(s, e);
	if (e->eof && e->count) {
		/* what of them has been moved is all that there is */
		cancel(s, e, DEPTH);
		for (i = 0; i < e->count; i++)
			piece_at(e, i)->ended = true;
		retire(e);
	}
	ask(s, e);
	if (e->count) {
		if (!e->striking && rnd_below(&s->rnd, 2)) {
			e->striking = true;
			set_timer(s, e, true);
		}
		return;
	}
	e->finished = true;
	if (e->sends)
		SYS(shutdown(e->fd, SHUT_WR));
}

static void *run_side(void *arg)
{
	struct kevent_event ev[BATCH];
	struct side *s = arg;
	unsigned int i, running;

	for (i = 0; i < STREAMS; i++)
		go_on(s, &s->end[i], false);
	do {
		bool touched[STREAMS] = { 0 }, strike[STREAMS] = { 0 };
		int n = wait_events(s->q, ev, BATCH, 1, 3 * PATIENCE), k;

		if (n <= 0)
			FAIL("%s: nothing happens", s->end[0].sends ?
			     "sender" : "receiver");
		for (k = 0; k < n; k++) {
			struct end *e = &s->end[ev[k].cookie];

			touched[e->nr] = true;
			if (ev[k].type == KEVENT_TIMER) {
				if (ev[k].ident < STREAMS) {
					e->pausing = false;
				} else {
					e->striking = false;
					strike[e->nr] = true;
				}
				continue;
			}
			CHECK_EQ(ev[k].type, KEVENT_NAIO);
			CHECK(ev[k].flags & KEVENT_EVENT_LAST);
			moved(s, e, &e->piece[ev[k].ident % DEPTH], ev[k].data,
			      ev[k].flags & KEVENT_EVENT_ERROR ?
			      (int)ev[k].count : 0);
		}
		running = 0;
		for (i = 0; i < STREAMS; i++) {
			if (touched[i])
				go_on(s, &s->end[i], strike[i]);
			running += !s->end[i].finished || s->end[i].striking;
		}
	} while (running);
	check_silent(s->q);
	return NULL;
}

static uint64_t bytes_of(struct side *s)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < STREAMS; i++)
		sum += s->end[i].pos;
	return sum;
}

static void progress(void)
{
	uint64_t done = bytes_of(&receiver);
	uint64_t ms = (now_ns() - began) / NSEC_PER_MSEC + 1;

	dprintf(STDERR_FILENO, "%5.1f %%, %llu s, %.1f MB/s\n",
		100.0 * (double)done / (double)total,
		(unsigned long long)ms / 1000, (double)done / 1000 / (double)ms);
}

static void side_begin(struct side *s, bool sends, unsigned int stream)
{
	unsigned int i, k;

	s->q = queue_open();
	s->rnd = rnd_stream(stream);
	for (i = 0; i < STREAMS; i++) {
		struct end *e = &s->end[i];

		e->nr = i;
		e->sends = sends;
		/* no two streams have the same bytes in the same place */
		e->phase = i * (PATTERN_PERIOD / STREAMS);
		for (k = 0; k < DEPTH; k++) {
			e->piece[k].memory = mmap(NULL, MOST + 2 * PAGE,
						  PROT_READ | PROT_WRITE,
						  MAP_PRIVATE | MAP_ANONYMOUS,
						  -1, 0);
			CHECK(e->piece[k].memory != MAP_FAILED);
		}
	}
}

static void side_end(struct side *s)
{
	unsigned int i, k;

	CHECK_EQ(queue_info(s->q).kevents, 0);
	SYS(close(s->q));
	for (i = 0; i < STREAMS; i++) {
		SYS(close(s->end[i].fd));
		for (k = 0; k < DEPTH; k++)
			SYS(munmap(s->end[i].piece[k].memory, MOST + 2 * PAGE));
	}
}

/* A pair of sockets, with room for as many bytes as it happens. */
static void connect_ends(struct rnd *rnd, struct end *from, struct end *to)
{
	int fd[2], room;

	tcp_pair(fd);
	if (rnd_below(rnd, 2)) {
		room = 32768 << rnd_below(rnd, 5);
		SYS(setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &room,
			       sizeof(room)));
	}
	if (rnd_below(rnd, 2)) {
		room = 32768 << rnd_below(rnd, 5);
		SYS(setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &room,
			       sizeof(room)));
	}
	from->fd = fd[0];
	to->fd = fd[1];
}

static void tell(const char *what, const struct side *s)
{
	report("%s: %lu pieces, %lu transfers, %lu cancelled, %lu of them in part, %lu ended early, %lu pauses",
	       what, s->pieces, s->transfers, s->cancels, s->parts, s->shorts,
	       s->pauses);
}

void bytes_arrive_whole_though_transfers_are_cancelled_and_asked_for_again(void)
{
	unsigned int i, open_before = descriptors();
	struct rnd rnd = rnd_stream(0);
	int witness = queue_open();
	pthread_t thread[2];
	uint64_t ms;

	need_feature(witness, KEVENT_FEATURE_NAIO);
	remember_pins();
	pattern_make();
	left = total = setting("KEVENT_TRANSFER_BYTES", BYTES);
	side_begin(&sender, true, 1);
	side_begin(&receiver, false, 2);
	for (i = 0; i < STREAMS; i++)
		connect_ends(&rnd, &sender.end[i], &receiver.end[i]);
	began = now_ns();
	thread[0] = thread_start(run_side, &sender);
	thread[1] = thread_start(run_side, &receiver);
	join_and_watch(thread[1], progress);
	thread_join(thread[0]);
	ms = (now_ns() - began) / NSEC_PER_MSEC + 1;
	for (i = 0; i < STREAMS; i++)
		CHECK_EQ(receiver.end[i].pos, sender.end[i].pos);
	CHECK_EQ(bytes_of(&receiver), total);
	tell("sender", &sender);
	tell("receiver", &receiver);
	side_end(&sender);
	side_end(&receiver);
	wait_until_user_kevents(witness, 0);
	close(witness);
	CHECK_EQ(descriptors(), open_before);
	check_pins();
	report("%llu bytes in %u streams, each compared, in %.1f s: %.1f MB/s; seed %llu",
	       (unsigned long long)total, STREAMS, (double)ms / 1000,
	       (double)total / 1000 / (double)ms,
	       (unsigned long long)test_seed());
}
