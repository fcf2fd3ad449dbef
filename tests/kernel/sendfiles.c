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
#include "lib_moves.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

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

/* The file: @fd[0] is looked for in the page cache, @fd[1] is read. */
static struct {
	const char *dir;
	int fd[2];
	char *content;
} place;

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

/* Any part of the file, and what goes round it. */
static int begin(int q, int sock, struct transfer *t, struct rnd *rnd, int file)
{
	struct {
		struct kevent_sendfile head;
		struct edge before;
		struct edge after;
	} arg;

	t->events = KEVENT_NAIO_SENDFILE;
	t->length = 1 + rnd_below(rnd, MUCH);
	t->offset = rnd_below(rnd, (uint32_t)(FILE_SIZE - t->length));
	t->most = t->length + 2 * EDGE;
	arg.head = (struct kevent_sendfile){
		.offset = t->offset, .length = t->length, .file = file,
		.prefix = EDGE, .suffix = EDGE,
	};
	arg.before = (struct edge){ EDGE_BEGIN, t->offset, t->length };
	arg.after = (struct edge){ EDGE_END, t->offset, t->length };
	return transfer_begin(q, sock, t, 0, &arg, sizeof(arg));
}

static int begin_next(struct moves *m, struct transfer *t)
{
	return begin(m->q, m->fd[0], t, &m->rnd, place.fd[t->ident & 1]);
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
	int now = 1;

	for (;;) {
		uint32_t room = 1 + rnd_below(&rnd, 8 * PAGE);
		ssize_t n = read(st->far, st->bytes + st->got, room);

		if (n <= 0) {
			CHECK(!n || errno == ECONNRESET);
			return NULL;
		}
		/* or TCP would wait 40 ms for more than the sender has room for */
		SYS(setsockopt(st->far, IPPROTO_TCP, TCP_QUICKACK, &now,
			       sizeof(now)));
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

static void eventually_got(const struct stream *st, uint64_t count)
{
	uint64_t end = now_ns() + PATIENCE;

	while (st->got < count) {
		if (now_ns() > end)
			FAIL("%llu bytes are kept back",
			     (unsigned long long)(count - st->got));
		sched_yield();
	}
}

/* Checks what was sent of the transfer that is the next in the stream. */
static void stream_check(struct stream *st, const struct transfer *t, bool holes)
{
	const char *bytes = st->bytes + st->seen;
	struct edge edge = { EDGE_BEGIN, t->offset, t->length };
	uint64_t i, end = EDGE + t->length;

	eventually_got(st, st->seen + t->moved);
	st->seen += t->moved;
	if (t->moved < EDGE) {
		CHECK(!memcmp(bytes, &edge, t->moved));
		return;
	}
	CHECK(!memcmp(bytes, &edge, EDGE));
	for (i = EDGE; i < t->moved && i < end; i++) {
		char want = pattern(t->offset + i - EDGE);

		if (bytes[i] != want && !(holes && !bytes[i]))
			FAIL("byte %llu of the file is %#x, not %#x",
			     (unsigned long long)(t->offset + i - EDGE),
			     bytes[i] & 0xff, want & 0xff);
	}
	if (t->moved > end) {
		edge.what = EDGE_END;
		CHECK(!memcmp(bytes + end, &edge, t->moved - end));
	}
	st->whole += t->moved == end + EDGE;
	st->part += t->moved < end + EDGE;
	/* not needed any more, and there may be much of it */
	madvise(st->bytes, st->seen & ~(PAGE - 1), MADV_DONTNEED);
}

/* Has TCP send what it keeps back for what a cancelled transfer will not bring. */
static void stream_push(const struct stream *st)
{
	static const int on = 1, off;

	SYS(setsockopt(st->near, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	SYS(setsockopt(st->near, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)));
}

static void stream_close(struct stream *st)
{
	if (st->near >= 0)
		close(st->near);
	thread_join(st->thread);
	close(st->far);
	munmap(st->bytes, st->room);
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
		struct transfer t = { .ident = i };

		test_context("transfer %u", i);
		CHECK_EQ(begin(q, st.near, &t, &rnd, place.fd[i & 1]), 0);
		while (yields--)
			sched_yield();
		if (!rnd_below(&rnd, 3) || !transfer_cancel(q, &t))
			transfer_wait(q, &t);
		CHECK(!t.error || t.error == ECANCELED);
		CHECK(t.error || meddle || t.moved == t.most);
		cancelled += t.error == ECANCELED;
		if (t.error)
			stream_push(&st);
		stream_check(&st, &t, meddle);
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

/* A network of its own, in which TCP's timers of 200 ms take a minute. */
static void patient_network(void)
{
	int fd;

	SYS(unshare(CLONE_NEWNET));
	fd = open("/proc/sys/net/ipv4/tcp_rto_min_us", O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		/* of before 6.11: the timers are as they are, and nothing is proved */
		CHECK_EQ(errno, ENOENT);
		return;
	}
	CHECK_EQ(write(fd, "60000000", 8), 8);
	close(fd);
}

/*
 * One after the other, where what TCP keeps back is kept until the test fails.  The
 * sender has little room, or may have little that was not sent yet.
 */
static void send_patiently(bool narrow, bool cancels)
{
	int room = narrow ? NARROW : 1 << 20, unsent = 4 * PAGE;
	unsigned int i, cancelled = 0, total = rounds(40);
	struct rnd rnd = rnd_stream(1);
	struct stream st;
	int q;

	need_naio();
	patient_network();
	q = queue_open();
	stream_open(&st, total);
	SYS(setsockopt(st.near, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)));
	if (!narrow)
		SYS(setsockopt(st.near, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent,
			       sizeof(unsent)));
	for (i = 0; i < total; i++) {
		struct transfer t = { .ident = i };

		test_context("transfer %u", i);
		CHECK_EQ(begin(q, st.near, &t, &rnd, place.fd[i & 1]), 0);
		if (!cancels || !transfer_cancel(q, &t))
			transfer_wait(q, &t);
		CHECK(!t.error || (cancels && t.error == ECANCELED));
		cancelled += t.error == ECANCELED;
		if (t.error)
			stream_push(&st);
		stream_check(&st, &t, false);
	}
	CHECK(cancelled || !cancels);
	shutdown(st.near, SHUT_WR);
	stream_close(&st);
	CHECK_EQ(st.got, st.seen);
	close(q);
	place_end();
}

static void what_finds_no_room_is_not_what_a_part_of_a_segment_waits_for(void)
{
	send_patiently(true, false);
}

static void nor_what_finds_too_much_unsent(void)
{
	send_patiently(false, false);
}

static void what_was_sent_before_a_cancel_goes_at_once_with_tcp_nodelay(void)
{
	send_patiently(true, true);
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

static void many_at_once_keep_their_order_while_some_are_cancelled(void)
{
	struct moves m = { .rnd = rnd_stream(3), .begin = begin_next };
	unsigned int i, round, total = rounds(30);
	struct stream st;

	need_naio();
	m.q = queue_open();
	stream_open(&st, total * TRANSFERS);
	m.fd[0] = st.near;
	for (round = 0; round < total; round++) {
		test_context("round %u", round);
		moves_begin(&m);
		moves_end(&m);
		for (i = 0; i < TRANSFERS; i++) {
			const struct transfer *t = &m.t[i];

			CHECK(!t->error || t->error == ECANCELED);
			CHECK(t->error || t->moved == t->most);
			stream_check(&st, t, false);
		}
	}
	check_silent(m.q);
	shutdown(st.near, SHUT_WR);
	stream_close(&st);
	CHECK_EQ(st.got, st.seen);
	CHECK(st.whole && m.cancelled);
	close(m.q);
	place_end();
}

static struct moves narrow_moves(unsigned int stream)
{
	need_naio();
	return (struct moves){
		.rnd = rnd_stream(stream), .pair = narrow_tcp_pair,
		.begin = begin_next,
	};
}

static void a_close_of_the_socket_ends_each_file_once(void)
{
	struct moves m = narrow_moves(4);

	race_sockets(&m, close_near, rounds(80));
	place_end();
}

static void a_reset_by_the_peer_ends_each_file_once(void)
{
	struct moves m = narrow_moves(4);

	race_sockets(&m, reset_far, rounds(80));
	place_end();
}

static void a_reset_and_a_close_end_each_file_once(void)
{
	struct moves m = narrow_moves(4);

	race_sockets(&m, close_both, rounds(80));
	place_end();
}

static void a_close_of_the_queue_ends_them_while_bytes_move(void)
{
	struct moves m = narrow_moves(5);

	race_queues(&m, rounds(100));
	place_end();
}

static void a_process_may_be_killed_while_bytes_move(void)
{
	struct moves m = narrow_moves(6);

	race_deaths(&m, rounds(60));
	place_end();
}

static const struct test_case cases[] = {
	TEST(what_finds_no_room_is_not_what_a_part_of_a_segment_waits_for),
	TEST(nor_what_finds_too_much_unsent),
	TEST(what_was_sent_before_a_cancel_goes_at_once_with_tcp_nodelay),
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
