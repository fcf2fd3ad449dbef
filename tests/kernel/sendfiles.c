// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Files on their way to a socket against what ends them: REMOVE, the close of the
 * socket, of the queue, the death of the process, a reset by the peer; and against
 * who truncates or evicts the file meanwhile.
 *
 * Byte number n of the file is pattern(n), and what goes round the file says where
 * in it the part between begins, and how long it is to be.  So the receiver can
 * check each byte, and see where a transfer has ended early.  The file is on a file
 * system of its own, which cannot be unmounted while any file of it is held.
 */
#include "lib.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOTS		16
#define FILE_SIZE	(1024 * PAGE)
#define MUCH		(64 * PAGE)
#define EDGE		sizeof(struct edge)

/* Before the file, and, but for the first word, after it. */
struct edge {
	uint64_t what;
	uint64_t offset;
	uint64_t length;
};

#define EDGE_BEGIN	0x6265676e73656e64ULL
#define EDGE_END	0x656e64736d6f7665ULL

/* One transfer and how it ended. */
struct sending {
	uint64_t ident;
	uint64_t offset;
	uint64_t length;
	bool ended;
	int error;
	uint64_t moved;
};

/* The file: @fd[0] is looked for in the page cache, @fd[1] is read. */
static struct {
	const char *dir;
	int fd[2];
	char *content;
} place;

static char pattern(uint64_t pos)
{
	return (char)(pos * 167 + (pos >> 8) * 13 + (pos >> 16));
}

static void place_write(void)
{
	CHECK_EQ(pwrite(place.fd[0], place.content, FILE_SIZE, 0), FILE_SIZE);
}

static void place_make(void)
{
	char path[128];
	uint64_t i;

	need_root();
	SYS(unshare(CLONE_NEWNS));
	SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	place.dir = temp_dir();
	SYS(mount("kevent-test", place.dir, "tmpfs", 0, "size=64m"));
	snprintf(path, sizeof(path), "%s/file", place.dir);
	place.fd[0] = (int)SYS(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	place.content = malloc(FILE_SIZE);
	CHECK(place.content);
	for (i = 0; i < FILE_SIZE; i++)
		place.content[i] = pattern(i);
	place_write();
	/* where tmpfs knows no such thing there is one way only */
	place.fd[1] = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (place.fd[1] < 0)
		place.fd[1] = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
}

/* Nobody holds the file any more; what a thread of the kernel's does takes time. */
static void place_end(void)
{
	uint64_t end = now_ns() + PATIENCE;

	close(place.fd[0]);
	close(place.fd[1]);
	while (umount(place.dir)) {
		CHECK_EQ(errno, EBUSY);
		if (now_ns() > end)
			FAIL("a file is still held");
		sched_yield();
	}
	free(place.content);
}

static int begin(int q, int sock, struct sending *s, int file)
{
	struct kevent_request req = request(KEVENT_NAIO, s->ident,
					    KEVENT_NAIO_SENDFILE, 0, s->ident);
	struct {
		struct kevent_sendfile head;
		struct edge before;
		struct edge after;
	} arg = {
		.head = {
			.offset = s->offset, .length = s->length, .file = file,
			.prefix = EDGE, .suffix = EDGE,
		},
		.before = { EDGE_BEGIN, s->offset, s->length },
		.after = { EDGE_END, s->offset, s->length },
	};

	req.param[0] = (uintptr_t)&arg;
	req.param[1] = sizeof(arg);
	req.param[2] = (uint64_t)sock;
	s->ended = false;
	s->error = 0;
	s->moved = 0;
	return change(q, KEVENT_IOC_NR_ADD, req);
}

static void any_part(struct sending *s, struct rnd *rnd, uint64_t ident)
{
	s->ident = ident;
	s->length = 1 + rnd_below(rnd, MUCH);
	s->offset = rnd_below(rnd, (uint32_t)(FILE_SIZE - s->length));
}

static void ended(struct sending *s, const struct kevent_event *ev)
{
	CHECK_EQ(s->ended, false);
	CHECK_EQ(ev->type, KEVENT_NAIO);
	CHECK_EQ(ev->cookie, s->ident);
	CHECK_EQ(ev->events, KEVENT_NAIO_SENDFILE);
	CHECK(ev->flags & KEVENT_EVENT_LAST);
	s->ended = true;
	s->moved = ev->data;
	s->error = ev->flags & KEVENT_EVENT_ERROR ? (int)ev->count : 0;
	CHECK(s->moved <= s->length + 2 * EDGE);
}

/* Removes it: true where it was there, and is ended by this. */
static bool cancel(int q, struct sending *s)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg = { .head.count = 1,
		  .req = request(KEVENT_NAIO, s->ident, 0, 0, 0) };

	if (!SYS(ioctl(q, KEVENT_IOC_REMOVE(1), &arg))) {
		CHECK_EQ(arg.req.result, -ENOENT);
		return false;
	}
	s->ended = true;
	s->moved = arg.req.param[0];
	s->error = (int)arg.req.param[1];
	CHECK(s->moved <= s->length + 2 * EDGE);
	return true;
}

/*
 * A connection, with a thread at its other end that keeps what comes, so that
 * transfers move on.
 */
struct stream {
	int near;
	int far;
	pthread_t thread;
	char *bytes;
	uint64_t room;
	_Atomic uint64_t got;
	uint64_t seen;		/* of these, checked */
	unsigned int whole;
	unsigned int part;
};

static void *keep(void *arg)
{
	struct rnd rnd = rnd_stream(8);
	struct stream *st = arg;

	for (;;) {
		uint32_t room = 1 + rnd_below(&rnd, 8 * PAGE);
		ssize_t n = read(st->far, st->bytes + st->got, room);

		if (n <= 0) {
			CHECK(!n || errno == ECONNRESET);
			return NULL;
		}
		st->got += (uint64_t)n;
		CHECK(st->got + 8 * PAGE <= st->room);
	}
}

static void stream_open(struct stream *st, unsigned int transfers)
{
	int fd[2], small = NARROW;

	*st = (struct stream){
		.room = transfers * (MUCH + 2 * EDGE) + 16 * PAGE,
	};
	tcp_pair(fd);
	st->near = fd[0];
	st->far = fd[1];
	SYS(setsockopt(st->near, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	st->bytes = mmap(NULL, st->room, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(st->bytes != MAP_FAILED);
	st->thread = thread_start(keep, st);
}

/* Checks what was sent of the transfer that is the next in the stream. */
static void stream_check(struct stream *st, const struct sending *s, bool holes)
{
	const char *bytes = st->bytes + st->seen;
	struct edge edge = { EDGE_BEGIN, s->offset, s->length };
	uint64_t i, end = EDGE + s->length;

	while (st->got < st->seen + s->moved)
		sched_yield();
	st->seen += s->moved;
	if (s->moved < EDGE) {
		CHECK(!memcmp(bytes, &edge, s->moved));
		return;
	}
	CHECK(!memcmp(bytes, &edge, EDGE));
	for (i = EDGE; i < s->moved && i < end; i++) {
		char want = pattern(s->offset + i - EDGE);

		if (bytes[i] != want && !(holes && !bytes[i]))
			FAIL("byte %llu of the file is %#x, not %#x",
			     (unsigned long long)(s->offset + i - EDGE),
			     bytes[i] & 0xff, want & 0xff);
	}
	if (s->moved > end) {
		edge.what = EDGE_END;
		CHECK(!memcmp(bytes + end, &edge, s->moved - end));
	}
	st->whole += s->moved == end + EDGE;
	st->part += s->moved < end + EDGE;
	/* not needed any more, and there may be much of it */
	madvise(st->bytes, st->seen & ~(PAGE - 1), MADV_DONTNEED);
}

static void stream_close(struct stream *st)
{
	if (st->near >= 0)
		close(st->near);
	thread_join(st->thread);
	close(st->far);
	munmap(st->bytes, st->room);
}

/* Events until @s has ended, whosever they are. */
static void wait_for(int q, struct sending *all, const struct sending *s)
{
	while (!s->ended) {
		struct kevent_event ev;

		CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
		CHECK(ev.ident < SLOTS);
		ended(&all[ev.ident], &ev);
	}
}

static void need_naio(void)
{
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_NAIO);
	close(q);
	place_make();
}

/* One after the other, some cancelled, while @meddle does so with the file. */
static void send_one_by_one(unsigned int total, void *(*meddle)(void *))
{
	struct rnd rnd = rnd_stream(1);
	unsigned int i, cancelled = 0;
	_Atomic bool stop = false;
	pthread_t thread = { 0 };
	struct stream st;
	int q;

	need_naio();
	q = queue_open();
	stream_open(&st, total);
	if (meddle)
		thread = thread_start(meddle, &stop);
	for (i = 0; i < total; i++) {
		unsigned int yields = rnd_below(&rnd, 6);
		struct sending s;

		test_context("transfer %u", i);
		any_part(&s, &rnd, 0);
		CHECK_EQ(begin(q, st.near, &s, place.fd[i & 1]), 0);
		while (yields--)
			sched_yield();
		if (!rnd_below(&rnd, 3) || !cancel(q, &s))
			wait_for(q, &s, &s);
		CHECK(!s.error || s.error == ECANCELED);
		CHECK(s.error || meddle || s.moved == s.length + 2 * EDGE);
		cancelled += s.error == ECANCELED;
		stream_check(&st, &s, meddle);
	}
	stop = true;
	if (meddle)
		thread_join(thread);
	check_silent(q);
	CHECK_EQ(queue_info(q).kevents, 0);
	shutdown(st.near, SHUT_WR);
	stream_close(&st);
	CHECK_EQ(st.got, st.seen);
	dprintf(STDERR_FILENO, "%u whole, %u in part, %u cancelled\n",
		st.whole, st.part, cancelled);
	CHECK(st.whole && cancelled);
	close(q);
	place_end();
}

static void what_is_cancelled_while_bytes_leave_loses_and_doubles_none(void)
{
	send_one_by_one(rounds(300), NULL);
}

/* Shortens the file, and makes it whole again. */
static void *cut(void *arg)
{
	struct rnd rnd = rnd_stream(9);
	_Atomic bool *stop = arg;

	while (!*stop) {
		uint64_t size = rnd_below(&rnd, FILE_SIZE);

		SYS(ftruncate(place.fd[0], (off_t)size));
		sched_yield();
		CHECK_EQ(pwrite(place.fd[0], place.content + size,
				FILE_SIZE - size, (off_t)size),
			 FILE_SIZE - size);
		sched_yield();
	}
	return NULL;
}

static void a_file_may_be_truncated_while_it_leaves(void)
{
	send_one_by_one(rounds(200), cut);
}

/* Makes holes, and fills them: what is not there has to be read. */
static void *punch(void *arg)
{
	struct rnd rnd = rnd_stream(10);
	_Atomic bool *stop = arg;

	while (!*stop) {
		uint64_t at = rnd_below(&rnd, FILE_SIZE / PAGE - 8) * PAGE;

		SYS(fallocate(place.fd[0],
			      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)at, 8 * PAGE));
		sched_yield();
		CHECK_EQ(pwrite(place.fd[0], place.content + at, 8 * PAGE,
				(off_t)at), 8 * PAGE);
	}
	return NULL;
}

static void pages_of_a_file_may_go_while_it_leaves(void)
{
	send_one_by_one(rounds(200), punch);
}

static void begin_all(int q, int sock, struct sending *all, struct rnd *rnd)
{
	unsigned int i;

	for (i = 0; i < SLOTS; i++) {
		any_part(&all[i], rnd, i);
		CHECK_EQ(begin(q, sock, &all[i], place.fd[i & 1]), 0);
	}
}

/* Some of them, any number of times: how many are cancelled by this. */
static unsigned int cancel_some(int q, struct sending *all, struct rnd *rnd)
{
	unsigned int i, cancelled = 0;

	for (i = 0; i < SLOTS / 2; i++) {
		struct sending *one = &all[rnd_below(rnd, SLOTS)];

		if (!one->ended && cancel(q, one))
			cancelled += one->error == ECANCELED;
	}
	return cancelled;
}

static void many_at_once_keep_their_order_while_some_are_cancelled(void)
{
	unsigned int i, round, total = rounds(60), cancelled = 0;
	struct sending all[SLOTS] = { 0 };
	struct rnd rnd = rnd_stream(3);
	struct stream st;
	int q;

	need_naio();
	q = queue_open();
	stream_open(&st, total * SLOTS);
	for (round = 0; round < total; round++) {
		test_context("round %u", round);
		begin_all(q, st.near, all, &rnd);
		cancelled += cancel_some(q, all, &rnd);
		for (i = 0; i < SLOTS; i++) {
			wait_for(q, all, &all[i]);
			CHECK(!all[i].error || all[i].error == ECANCELED);
			CHECK(all[i].error ||
			      all[i].moved == all[i].length + 2 * EDGE);
			stream_check(&st, &all[i], false);
		}
	}
	check_silent(q);
	shutdown(st.near, SHUT_WR);
	stream_close(&st);
	CHECK_EQ(st.got, st.seen);
	CHECK(st.whole && cancelled);
	close(q);
	place_end();
}

/* What ends the transfers of a round, on a thread of its own. */
struct ender {
	pthread_barrier_t start;
	pthread_barrier_t end;
	void (*run)(struct ender *e);
	bool stop;
	int fd[2];
};

static void *end_them(void *arg)
{
	struct ender *e = arg;

	for (;;) {
		pthread_barrier_wait(&e->start);
		if (e->stop)
			return NULL;
		e->run(e);
		pthread_barrier_wait(&e->end);
	}
}

static pthread_t ender_start(struct ender *e, void (*run)(struct ender *e))
{
	*e = (struct ender){ .run = run };
	pthread_barrier_init(&e->start, NULL, 2);
	pthread_barrier_init(&e->end, NULL, 2);
	return thread_start(end_them, e);
}

static void ender_stop(struct ender *e, pthread_t thread)
{
	e->stop = true;
	pthread_barrier_wait(&e->start);
	thread_join(thread);
}

static void close_ends(struct ender *e)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (e->fd[i] >= 0)
			close(e->fd[i]);
}

static void race_sockets(void (*run)(struct ender *e), unsigned int total)
{
	unsigned int i, round, removed = 0, told = 0;
	struct sending all[SLOTS] = { 0 };
	struct rnd rnd = rnd_stream(4);
	struct ender e;
	pthread_t thread;
	int q;

	need_naio();
	q = queue_open();
	thread = ender_start(&e, run);
	for (round = 0; round < total; round++) {
		test_context("round %u", round);
		narrow_tcp_pair(e.fd);
		begin_all(q, e.fd[0], all, &rnd);
		pthread_barrier_wait(&e.start);
		removed += cancel_some(q, all, &rnd);
		for (i = 0; i < SLOTS; i++) {
			told += !all[i].ended;
			wait_for(q, all, &all[i]);
		}
		check_silent(q);
		CHECK_EQ(queue_info(q).kevents, 0);
		pthread_barrier_wait(&e.end);
		close_ends(&e);
	}
	ender_stop(&e, thread);
	dprintf(STDERR_FILENO, "%u removed, %u told\n", removed, told);
	CHECK(removed && told);
	close(q);
	place_end();
}

static void close_near(struct ender *e)
{
	close(e->fd[0]);
	e->fd[0] = -1;
}

static void a_close_of_the_socket_ends_each_file_once(void)
{
	race_sockets(close_near, rounds(80));
}

static void reset_far(struct ender *e)
{
	struct linger linger = { .l_onoff = 1 };

	SYS(setsockopt(e->fd[1], SOL_SOCKET, SO_LINGER, &linger,
		       sizeof(linger)));
	close(e->fd[1]);
	e->fd[1] = -1;
}

static void a_reset_by_the_peer_ends_each_file_once(void)
{
	race_sockets(reset_far, rounds(80));
}

static void close_both(struct ender *e)
{
	reset_far(e);
	close_near(e);
}

static void a_reset_and_a_close_end_each_file_once(void)
{
	race_sockets(close_both, rounds(80));
}

static void read_some(struct ender *e)
{
	char buffer[4 * PAGE];
	unsigned int i;

	for (i = 0; i < 16; i++)
		(void)!recv(e->fd[1], buffer, sizeof(buffer), MSG_DONTWAIT);
}

static void a_close_of_the_queue_ends_them_while_bytes_move(void)
{
	unsigned int round, total = rounds(100);
	struct sending all[SLOTS] = { 0 };
	struct rnd rnd = rnd_stream(5);
	int other = queue_open();
	struct ender e;
	pthread_t thread;

	need_naio();
	thread = ender_start(&e, read_some);
	for (round = 0; round < total; round++) {
		unsigned int yields = rnd_below(&rnd, 8);
		int q = queue_open();

		test_context("round %u", round);
		narrow_tcp_pair(e.fd);
		begin_all(q, e.fd[0], all, &rnd);
		pthread_barrier_wait(&e.start);
		while (yields--)
			sched_yield();
		SYS(close(q));
		pthread_barrier_wait(&e.end);
		close_ends(&e);
	}
	ender_stop(&e, thread);
	wait_until_user_kevents(other, 0);
	close(other);
	place_end();
}

/* A process with files under way, which is killed. */
static void victim(void *arg)
{
	struct sending all[SLOTS] = { 0 };
	struct rnd rnd = rnd_stream(6);
	struct ender *e = arg;
	int q = queue_open();

	SYS(write(e->fd[0], "x", 1));
	begin_all(q, e->fd[0], all, &rnd);
	for (;;) {
		struct kevent_event ev;
		struct sending *one;

		CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
		one = &all[ev.ident];
		ended(one, &ev);
		CHECK_EQ(begin(q, e->fd[0], one, place.fd[ev.ident & 1]), 0);
	}
}

static void a_process_may_be_killed_while_bytes_move(void)
{
	unsigned int round, total = rounds(60);
	int other = queue_open();

	need_naio();
	signal(SIGPIPE, SIG_IGN);
	for (round = 0; round < total; round++) {
		struct ender e = { 0 };
		unsigned int i;
		pid_t pid;
		char c;

		test_context("round %u", round);
		narrow_tcp_pair(e.fd);
		pid = child_start(victim, &e);
		/* the first byte comes from it, so it is about to begin */
		CHECK_EQ(SYS(read(e.fd[1], &c, 1)), 1);
		for (i = 0; i < round % 8; i++)
			read_some(&e);
		child_kill(pid);
		close_ends(&e);
	}
	wait_until_user_kevents(other, 0);
	close(other);
	place_end();
}

static const struct test_case cases[] = {
	LONG_TEST(what_is_cancelled_while_bytes_leave_loses_and_doubles_none, 180),
	LONG_TEST(a_file_may_be_truncated_while_it_leaves, 180),
	LONG_TEST(pages_of_a_file_may_go_while_it_leaves, 180),
	LONG_TEST(many_at_once_keep_their_order_while_some_are_cancelled, 180),
	LONG_TEST(a_close_of_the_socket_ends_each_file_once, 180),
	LONG_TEST(a_reset_by_the_peer_ends_each_file_once, 180),
	LONG_TEST(a_reset_and_a_close_end_each_file_once, 180),
	LONG_TEST(a_close_of_the_queue_ends_them_while_bytes_move, 180),
	LONG_TEST(a_process_may_be_killed_while_bytes_move, 180),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
