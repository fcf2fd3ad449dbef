// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Transfers that have to wait, made to fail at each point of the way there: the
 * workqueue of the user, the pages, the mark that tells of the close, the lane.
 *
 *	peer --- socket --- transfer (COOKIE_FIRST) --- q
 *
 * Whatever fails leaves nothing behind, no page pinned and no byte of the stream
 * lost or doubled, and the same transfer then works.  Every socket, and every
 * queue, is new in every round, so that all that a first one needs is needed.
 */
#include "fault.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define MANY		100	/* transfers in a batch, a page each */
#define MOST_PAGES	MANY
#define IDENT		7

/* A kind of transfer that has to wait, with @length bytes of memory. */
struct way {
	const char *name;
	void (*pair)(int fd[2]);
	uint32_t events;
	uint32_t flags;
	size_t length;
	size_t offset;		/* in the first page */
	bool fresh;		/* nobody has touched the memory before */
};

/* What a file has instead of memory that is pinned. */
static int file = -1;

struct stage {
	const struct way *way;
	int fd[2];
	int q;
	char *mem;
	size_t done;		/* bytes of the stream that were seen to arrive */
};

static char pattern(size_t pos)
{
	return (char)(pos * 31 + (pos >> 8) * 7);
}

static void fill(char *at, size_t length, size_t pos)
{
	while (length--)
		*at++ = pattern(pos++);
}

static void check_pattern(const char *at, size_t length, size_t pos)
{
	for (; length--; at++, pos++)
		if (*at != pattern(pos))
			FAIL("byte %zu of the stream is %#x, not %#x", pos,
			     *at & 0xff, pattern(pos) & 0xff);
}

static void datagram_pair(int fd[2])
{
	struct sockaddr_in addr[2];
	socklen_t len = sizeof(addr[0]);
	unsigned int i;

	loopback_up();
	for (i = 0; i < 2; i++) {
		addr[i] = (struct sockaddr_in){
			.sin_family = AF_INET,
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		};
		fd[i] = (int)SYS(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
		SYS(bind(fd[i], (struct sockaddr *)&addr[i], sizeof(addr[i])));
		SYS(getsockname(fd[i], (struct sockaddr *)&addr[i], &len));
	}
	for (i = 0; i < 2; i++)
		SYS(connect(fd[i], (struct sockaddr *)&addr[!i],
			    sizeof(addr[0])));
}

static const struct way ways[] = {
	{ "tcp-recv", tcp_pair, KEVENT_NAIO_RECV, 0, 100, 0, false },
	{ "tcp-recv-pages", tcp_pair, KEVENT_NAIO_RECV, KEVENT_WAITALL,
	  5 * PAGE, 100, false },
	{ "tcp-recv-fresh", tcp_pair, KEVENT_NAIO_RECV, KEVENT_WAITALL,
	  40 * PAGE, 0, true },
	{ "unix-recv", unix_pair, KEVENT_NAIO_RECV, 0, 1000, PAGE - 10, true },
	{ "udp-recv", datagram_pair, KEVENT_NAIO_RECV, 0, 1000, 0, false },
	{ "tcp-send", narrow_tcp_pair, KEVENT_NAIO_SEND, 0, 40 * PAGE, 0,
	  false },
	{ "tcp-send-fresh", narrow_tcp_pair, KEVENT_NAIO_SEND, 0,
	  40 * PAGE, 100, true },
	{ "tcp-sendfile", narrow_tcp_pair, KEVENT_NAIO_SENDFILE, 0, 40 * PAGE,
	  0, false },
};

static bool sends(const struct way *way)
{
	return way->events != KEVENT_NAIO_RECV;
}

static bool pins_memory(const struct way *way)
{
	return way->events != KEVENT_NAIO_SENDFILE &&
	       !(way->flags & KEVENT_MULTISHOT);
}

static size_t memory_size(const struct way *way)
{
	return (way->offset + way->length + PAGE - 1) / PAGE * PAGE;
}

static void stage_begin(struct stage *s)
{
	const struct way *way = s->way;

	way->pair(s->fd);
	s->q = queue_open();
	s->mem = mmap(NULL, memory_size(way), PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(s->mem != MAP_FAILED);
	s->mem += way->offset;
	s->done = 0;
	/* what nobody has touched is sent as zero bytes */
	if (!way->fresh)
		fill(s->mem, way->length, 0);
	if (way->events != KEVENT_NAIO_SENDFILE)
		return;
	if (file < 0)
		file = (int)SYS(memfd_create("file", MFD_CLOEXEC));
	CHECK_EQ(SYS(pwrite(file, s->mem, way->length, 0)), way->length);
}

static void stage_end(struct stage *s)
{
	if (s->q >= 0)
		close(s->q);
	if (s->fd[0] >= 0)
		close(s->fd[0]);
	close(s->fd[1]);
	SYS(munmap(s->mem - s->way->offset, memory_size(s->way)));
}

/* As of a queue without a transfer. */
static void check_nothing_held(struct stage *s)
{
	CHECK_EQ(pinned_by(getpid()), 0);
	check_pins();
	if (s->q < 0)
		return;
	check_silent(s->q);
	CHECK_EQ(queue_info(s->q).kevents, 0);
}

/* It is where it has to be, and its memory is held. */
static void check_waits(struct stage *s)
{
	CHECK_EQ(queue_info(s->q).kevents, 1);
	CHECK_EQ(pinned_by(getpid()) > 0, pins_memory(s->way));
}

static struct kevent_request transfer(const struct stage *s, uint64_t ident,
				      size_t from, size_t length)
{
	struct kevent_request req = request(KEVENT_NAIO, ident, s->way->events,
					    s->way->flags, COOKIE_FIRST);
	static struct kevent_sendfile part;

	req.param[0] = (uintptr_t)(s->mem + from);
	req.param[1] = length;
	req.param[2] = (uint64_t)s->fd[0];
	req.result = NO_RESULT;
	if (s->way->events == KEVENT_NAIO_SENDFILE) {
		part = (struct kevent_sendfile){
			.offset = from, .length = length, .file = file,
		};
		req.param[0] = (uintptr_t)&part;
		req.param[1] = sizeof(part);
	}
	return req;
}

static struct outcome change_one(int q, unsigned int op,
				 struct kevent_request *req, unsigned int nth)
{
	static struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg;
	struct outcome o = { 0 };

	arg.head = (struct kevent_batch){ .count = 1 };
	arg.req = *req;
	if (nth)
		fault_arm(nth);
	o.call = ioctl(q, KEVENT_IOC_BATCH(op, 1), &arg);
	if (o.call < 0)
		o.call = -errno;
	if (nth)
		o.used = fault_disarm();
	o.result = arg.req.result;
	*req = arg.req;
	return o;
}

/* A call failed as the manual page has it, or did not fail: then false. */
static bool has_failed(const struct stage *s, const char *what,
		       const struct outcome *o, unsigned int nth)
{
	if (o->call == 1 && !o->result)
		return false;
	if (o->used && !o->call &&
	    (o->result == -ENOMEM || o->result == -EFAULT))
		return true;
	if (o->used && (o->call == -EFAULT || o->call == -ENOMEM) &&
	    (o->result == NO_RESULT || o->result == -ECANCELED))
		return true;
	FAIL("%s %s, fault %u%s: %d, result %d", what, s->way->name, nth,
	     o->used ? "" : " that was not used", o->call, o->result);
}

static void add_again(struct stage *s, size_t from)
{
	struct kevent_request req = transfer(s, IDENT, from,
					     s->way->length - from);
	struct outcome o = change_one(s->q, KEVENT_OP_ADD, &req, 0);

	if (o.call != 1 || o.result)
		FAIL("ADD %s, after a failure: %d, result %d", s->way->name,
		     o.call, o.result);
}

/* The peer takes what there is. */
static void receive(struct stage *s)
{
	static char buffer[16 * PAGE];
	ssize_t n;

	while ((n = recv(s->fd[1], buffer, sizeof(buffer), MSG_DONTWAIT)) > 0) {
		CHECK(s->done + (size_t)n <= s->way->length);
		if (!s->way->fresh)
			check_pattern(buffer, (size_t)n, s->done);
		s->done += (size_t)n;
	}
	CHECK(errno == EAGAIN);
}

/* Until the peer has @length bytes of the stream. */
static void receive_until(struct stage *s, size_t length)
{
	uint64_t end = now_ns() + PATIENCE;
	int enough = 1 << 20;

	/* it does not have to take as long as it would */
	SYS(setsockopt(s->fd[1], SOL_SOCKET, SO_RCVBUF, &enough,
		       sizeof(enough)));
	if (s->fd[0] >= 0)
		SYS(setsockopt(s->fd[0], SOL_SOCKET, SO_SNDBUF, &enough,
			       sizeof(enough)));
	while (receive(s), s->done < length)
		if (now_ns() > end)
			FAIL("%s: %zu bytes arrived, not %zu", s->way->name,
			     s->done, length);
	CHECK_EQ(s->done, length);
}

static void check_transfer(const struct stage *s, const struct kevent_event *ev)
{
	CHECK_EQ(ev->type, KEVENT_NAIO);
	CHECK_EQ(ev->cookie, COOKIE_FIRST);
	CHECK_EQ(ev->events, s->way->events);
	CHECK(ev->flags & KEVENT_EVENT_LAST);
}

static void wait_for_transfer(const struct stage *s, struct kevent_event *ev)
{
	CHECK_EQ(wait_events(s->q, ev, 1, 1, PATIENCE), 1);
	check_transfer(s, ev);
}

/* Peer and socket do what the transfer waits for. */
static void satisfy(struct stage *s)
{
	static char buffer[MOST_PAGES * PAGE];
	size_t length = s->way->length;

	if (sends(s->way)) {
		receive_until(s, length);
		return;
	}
	fill(buffer, length, 0);
	CHECK_EQ(SYS(send(s->fd[1], buffer, length, 0)), length);
}

/* It ends well, with all bytes that were left to it. */
static void finish(struct stage *s, size_t from)
{
	struct kevent_event ev;

	satisfy(s);
	wait_for_transfer(s, &ev);
	CHECK_EQ(ev.flags, KEVENT_EVENT_LAST);
	CHECK_EQ(ev.count, 1);
	CHECK_EQ(ev.data, s->way->length - from);
	if (!sends(s->way))
		check_pattern(s->mem, s->way->length, 0);
	check_nothing_held(s);
}

static enum fault_end end_of(bool used, bool failed)
{
	return failed ? FAULT_FAILED : used ? FAULT_ABSORBED : FAULT_UNUSED;
}

/*
 * An ADD that has moved something before it failed says so by its event: how far
 * it came, or @s->way->length where it did not fail but waits.  That one may be
 * ready, as INFO has it: a WAIT is to look at what has begun.
 */
static size_t moved_by_failure(struct stage *s)
{
	struct kevent_event ev;
	int got = wait_events(s->q, &ev, 1, 0, 0);

	if (!got)
		return s->way->length;
	CHECK_EQ(got, 1);
	check_transfer(s, &ev);
	if (ev.flags != (KEVENT_EVENT_LAST | KEVENT_EVENT_ERROR) ||
	    (ev.count != ENOMEM && ev.count != EFAULT) ||
	    !ev.data || ev.data >= s->way->length)
		FAIL("%s: an event with flags %#x, count %u, data %llu",
		     s->way->name, ev.flags, ev.count,
		     (unsigned long long)ev.data);
	return ev.data;
}

static enum fault_end add_round(void *arg, unsigned int nth)
{
	struct stage *s = arg;
	struct kevent_request req;
	size_t moved = 0;
	struct outcome o;
	bool failed;

	stage_begin(s);
	req = transfer(s, IDENT, 0, s->way->length);
	o = change_one(s->q, KEVENT_OP_ADD, &req, nth);
	failed = has_failed(s, "ADD", &o, nth);
	if (!failed) {
		moved = moved_by_failure(s);
		failed = moved < s->way->length;
		if (!failed)
			moved = 0;
	}
	if (failed) {
		CHECK(o.used);
		check_nothing_held(s);
		/* which makes room, so that the rest may not have to wait */
		if (moved)
			receive_until(s, moved);
		add_again(s, moved);
	}
	if (!moved)
		check_waits(s);
	finish(s, moved);
	stage_end(s);
	return end_of(o.used, failed);
}

/* Cancelled under a fault, or once more without. */
static enum fault_end remove_round(void *arg, unsigned int nth)
{
	struct stage *s = arg;
	struct kevent_request req, gone = request(KEVENT_NAIO, IDENT, 0, 0, 0);
	struct outcome o;
	bool failed;

	stage_begin(s);
	add_again(s, 0);
	req = gone;
	req.result = NO_RESULT;
	o = change_one(s->q, KEVENT_OP_REMOVE, &req, nth);
	failed = has_failed(s, "REMOVE", &o, nth);
	if (failed) {
		check_waits(s);
		req = gone;
		CHECK_EQ(change_one(s->q, KEVENT_OP_REMOVE, &req, 0).call, 1);
	}
	CHECK_EQ(req.param[1], ECANCELED);
	check_nothing_held(s);
	/* what it has moved is told, and all that it has */
	if (sends(s->way))
		receive_until(s, req.param[0]);
	else
		CHECK_EQ(req.param[0], 0);
	stage_end(s);
	return end_of(o.used, failed);
}

/* The event is not lost with the memory that it was to be written to. */
static enum fault_end wait_round(void *arg, unsigned int nth)
{
	static struct {
		struct kevent_wait head;
		struct kevent_event ev[2];
	} call;
	struct stage *s = arg;
	struct kevent_event ev;
	bool used;
	int got;

	stage_begin(s);
	add_again(s, 0);
	satisfy(s);
	memset(&call, 0, sizeof(call));
	call.head = (struct kevent_wait){
		.min = 1, .max = 2, .timeout = PATIENCE,
		.clock = CLOCK_MONOTONIC,
	};
	fault_arm(nth);
	got = ioctl(s->q, KEVENT_IOC_WAIT(2), &call);
	if (got < 0)
		got = -errno;
	used = fault_disarm();
	if (got < 0) {
		CHECK(used && (got == -EFAULT || got == -ENOMEM));
		wait_for_transfer(s, &ev);
	} else {
		CHECK_EQ(got, 1);
		ev = call.ev[0];
	}
	CHECK_EQ(ev.flags, KEVENT_EVENT_LAST);
	CHECK_EQ(ev.data, s->way->length);
	check_nothing_held(s);
	stage_end(s);
	return end_of(used, got < 0);
}

/* A close cannot fail. */
static enum fault_end close_queue_round(void *arg, unsigned int nth)
{
	struct stage *s = arg;
	bool used;
	int ret;

	stage_begin(s);
	add_again(s, 0);
	fault_arm(nth);
	ret = close(s->q);
	used = fault_disarm();
	CHECK_EQ(ret, 0);
	s->q = -1;
	check_nothing_held(s);
	stage_end(s);
	return end_of(used, false);
}

static enum fault_end close_socket_round(void *arg, unsigned int nth)
{
	struct stage *s = arg;
	struct kevent_event ev;
	bool used;
	int ret;

	stage_begin(s);
	add_again(s, 0);
	fault_arm(nth);
	ret = close(s->fd[0]);
	used = fault_disarm();
	CHECK_EQ(ret, 0);
	s->fd[0] = -1;
	wait_for_transfer(s, &ev);
	CHECK_EQ(ev.flags, KEVENT_EVENT_LAST | KEVENT_EVENT_ERROR |
		 KEVENT_EVENT_BROKEN);
	CHECK_EQ(ev.count, ECANCELED);
	check_nothing_held(s);
	stage_end(s);
	return end_of(used, false);
}

static void sweep_ways(const char *what,
		       enum fault_end (*round)(void *, unsigned int))
{
	struct fault_leaks leaks;
	struct stage stage;
	char name[64];
	size_t i;

	leaks_begin(&leaks);
	remember_pins();
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		stage = (struct stage){ .way = &ways[i] };
		snprintf(name, sizeof(name), "%s/%s", what, ways[i].name);
		fault_sweep(name, round, &stage);
	}
	if (file >= 0)
		close(file);
	file = -1;
	check_pins();
	leaks_end(&leaks);
}

static void a_transfer_that_cannot_wait_leaves_nothing_and_then_works(void)
{
	sweep_ways("transfer-add", add_round);
}

static void a_cancel_that_fails_works_when_it_is_tried_again(void)
{
	sweep_ways("transfer-remove", remove_round);
}

static void a_wait_that_fails_loses_no_end_of_a_transfer(void)
{
	sweep_ways("transfer-wait", wait_round);
}

static void a_queue_takes_its_transfers_along_whatever_fails(void)
{
	sweep_ways("transfer-close-queue", close_queue_round);
}

static void the_close_of_the_socket_ends_a_transfer_whatever_fails(void)
{
	sweep_ways("transfer-close-socket", close_socket_round);
}

/* One byte each, in the order in which they were taken. */
static void check_many(struct stage *s, const unsigned int *order)
{
	char byte[MANY];
	unsigned int i;

	CHECK_EQ(queue_info(s->q).kevents, MANY);
	fill(byte, MANY, 0);
	CHECK_EQ(SYS(send(s->fd[1], byte, MANY, 0)), MANY);
	for (i = 0; i < MANY; i++) {
		struct kevent_event ev;

		wait_for_transfer(s, &ev);
		CHECK_EQ(ev.ident, order[i]);
		CHECK_EQ(ev.flags, KEVENT_EVENT_LAST);
		CHECK_EQ(ev.data, 1);
		CHECK_EQ(s->mem[order[i] * PAGE], pattern(i));
	}
	check_nothing_held(s);
}

/* Those that were refused are asked for once more, each alone. */
static enum fault_end batch_round(void *arg, unsigned int nth)
{
	static struct {
		struct kevent_batch head;
		struct kevent_request req[MANY];
	} call;
	unsigned int i, nr = 0, refused = 0, order[MANY], again[MANY];
	struct stage *s = arg;
	bool used;
	int ret;

	stage_begin(s);
	call.head = (struct kevent_batch){ .count = MANY };
	for (i = 0; i < MANY; i++)
		call.req[i] = transfer(s, i, i * PAGE, 1);
	fault_arm(nth);
	ret = ioctl(s->q, KEVENT_IOC_ADD(MANY), &call);
	if (ret < 0)
		ret = -errno;
	used = fault_disarm();
	for (i = 0; i < MANY; i++) {
		int result = call.req[i].result;

		if (!result) {
			order[nr++] = i;
			continue;
		}
		if (!used || (result != -ENOMEM && result != -EFAULT &&
			      result != NO_RESULT && result != -ECANCELED))
			FAIL("fault %u: transfer %u of %u has the result %d",
			     nth, i, MANY, result);
		again[refused++] = i;
	}
	CHECK(ret == (int)nr || (used && (ret == -EFAULT || ret == -ENOMEM)));
	CHECK_EQ(queue_info(s->q).kevents, nr);
	CHECK_EQ(pinned_by(getpid()), nr);
	for (i = 0; i < refused; i++) {
		struct kevent_request req = transfer(s, again[i],
						     again[i] * PAGE, 1);

		CHECK_EQ(change_one(s->q, KEVENT_OP_ADD, &req, 0).call, 1);
		order[nr++] = again[i];
	}
	check_many(s, order);
	stage_end(s);
	return end_of(used, refused);
}

/* Each is a hundredth of what there is to fail, and like the others but for few. */
#define BATCH_STEP	7

static void a_batch_of_transfers_that_fails_says_which_wait(void)
{
	static const struct way way = {
		"batch", tcp_pair, KEVENT_NAIO_RECV, 0, MANY * PAGE, 0, true,
	};
	struct stage stage = { .way = &way };
	struct rnd rnd = rnd_stream(0);
	struct fault_leaks leaks;

	leaks_begin(&leaks);
	remember_pins();
	fault_sweep_steps("transfer-batch", 1 + rnd_below(&rnd, BATCH_STEP),
			  BATCH_STEP, batch_round, &stage);
	check_pins();
	leaks_end(&leaks);
}

/* A row of receives, each by the WAIT that tells of it. */
static enum fault_end multishot_round(void *arg, unsigned int nth)
{
	static struct {
		struct kevent_wait head;
		struct kevent_event ev[2];
	} call;
	struct kevent_request gone = request(KEVENT_NAIO, IDENT, 0, 0, 0), req;
	struct stage *s = arg;
	struct kevent_event ev;
	struct outcome o;
	bool used, failed;
	int got;

	stage_begin(s);
	req = transfer(s, IDENT, 0, s->way->length);
	o = change_one(s->q, KEVENT_OP_ADD, &req, nth);
	failed = has_failed(s, "ADD", &o, nth);
	if (failed) {
		check_nothing_held(s);
		add_again(s, 0);
	}
	check_waits(s);
	satisfy(s);
	memset(&call, 0, sizeof(call));
	call.head = (struct kevent_wait){
		.min = 1, .max = 2, .timeout = PATIENCE,
		.clock = CLOCK_MONOTONIC,
	};
	fault_arm(nth);
	got = ioctl(s->q, KEVENT_IOC_WAIT(2), &call);
	if (got < 0)
		got = -errno;
	used = fault_disarm();
	ev = call.ev[0];
	if (got < 0) {
		CHECK(used && (got == -EFAULT || got == -ENOMEM));
		CHECK_EQ(wait_events(s->q, &ev, 1, 1, PATIENCE), 1);
	}
	/* the memory itself may have been what could not be written */
	if (ev.flags & KEVENT_EVENT_ERROR) {
		CHECK(used && ev.count == EFAULT);
		CHECK_EQ(ev.flags, KEVENT_EVENT_ERROR | KEVENT_EVENT_LAST);
	} else {
		CHECK_EQ(ev.flags, 0);
		CHECK_EQ(ev.data, s->way->length);
		check_pattern(s->mem, s->way->length, 0);
		CHECK_EQ(change_one(s->q, KEVENT_OP_REMOVE, &gone, 0).call, 1);
	}
	check_nothing_held(s);
	stage_end(s);
	return end_of(o.used || used, failed || got < 0);
}

static void a_row_of_receives_that_fails_loses_none_without_a_word(void)
{
	static const struct way way = {
		"multishot", tcp_pair, KEVENT_NAIO_RECV, KEVENT_MULTISHOT,
		1000, 0, false,
	};
	struct stage stage = { .way = &way };
	struct fault_leaks leaks;

	leaks_begin(&leaks);
	remember_pins();
	fault_sweep("transfer-multishot", multishot_round, &stage);
	check_pins();
	leaks_end(&leaks);
}

static const struct test_case cases[] = {
	LONG_TEST(a_transfer_that_cannot_wait_leaves_nothing_and_then_works,
		  900),
	LONG_TEST(a_batch_of_transfers_that_fails_says_which_wait, 900),
	LONG_TEST(a_row_of_receives_that_fails_loses_none_without_a_word, 300),
	LONG_TEST(a_cancel_that_fails_works_when_it_is_tried_again, 300),
	LONG_TEST(a_wait_that_fails_loses_no_end_of_a_transfer, 300),
	LONG_TEST(a_queue_takes_its_transfers_along_whatever_fails, 300),
	LONG_TEST(the_close_of_the_socket_ends_a_transfer_whatever_fails, 300),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
