// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A file to many clients at once by SENDFILE, from one thread that never waits for
 * any of them: the longest that a call kept it is told, and may be bounded.
 *
 * Every second client is sent the file in one go, the others in pieces of random
 * size, some of which are cancelled on the way and asked for again from where they
 * were left.  The first and the last bytes of a piece may come from memory instead,
 * as what is sent before and behind the file; the copy is the same.  Clients read as
 * much at a time as is their way, and now and then nothing for a while.
 */
#include "transfers.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE		(32ULL << 20)
#define CLIENTS		8
#define DEPTH		2U	/* pieces of a client at a time */
#define EXTRA		(KEVENT_SENDFILE_EXTRA / 2)
#define READERS		2U
#define BATCH		64
#define SLICE		(10 * NSEC_PER_MSEC)

/* A piece that is being sent, from where it was asked for the last time. */
struct piece {
	uint64_t ident;
	uint64_t begin;
	uint64_t end;
};

/* What the sender knows of a client; all before @cut is in some piece. */
struct copy {
	unsigned int nr;
	int fd;
	bool whole;
	uint64_t cut;
	struct piece piece[DEPTH];
	unsigned int count;
};

/* The client itself. */
struct client {
	unsigned int nr;
	int fd;
	uint32_t budget;
	uint64_t stalled;
	uint64_t pos;
	bool finished;
};

struct reader {
	struct client **client;
	unsigned int count;
	struct rnd rnd;
	_Atomic uint64_t bytes;
	unsigned long stalls;
};

/* How long calls of one kind took. */
struct pause {
	const char *name;
	unsigned long calls;
	unsigned long slept;
	uint64_t longest;
};

static struct pause adding = { .name = "ADD" }, removing = { .name = "REMOVE" };
static struct pause waiting = { .name = "WAIT that does not wait" };
static struct reader reader[READERS];
static uint64_t size, began;
static unsigned int nr_clients;
static unsigned long requests, cancels, parts;

static unsigned long switches(void)
{
	struct rusage usage;

	SYS(getrusage(RUSAGE_THREAD, &usage));
	return (unsigned long)usage.ru_nvcsw;
}

/* A call that must not wait. */
static long timed(struct pause *p, int q, unsigned long nr, void *arg)
{
	unsigned long before = switches();
	uint64_t begin = now_ns(), took;
	long ret = SYS(ioctl(q, nr, arg));

	took = now_ns() - begin;
	p->calls++;
	p->slept += switches() - before;
	if (took > p->longest)
		p->longest = took;
	return ret;
}

static char *file_path(void)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/file", temp_dir());
	return path;
}

/* The pattern, on the disk and not in memory. */
static int make_file(void)
{
	int fd = (int)SYS(open(file_path(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	uint64_t pos;

	for (pos = 0; pos < size;) {
		uint64_t n = size - pos;

		if (n > PATTERN_PIECE)
			n = PATTERN_PIECE;
		CHECK_EQ(SYS(write(fd, pattern_at(pos), n)), n);
		pos += n;
	}
	SYS(fsync(fd));
	CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	return fd;
}

static void ask(int q, int file, struct rnd *rnd, struct copy *c,
		struct piece *p)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg = { .head.count = 1 };
	struct {
		struct kevent_sendfile head;
		char bytes[2 * EXTRA];
	} what = { .head.file = file };
	uint64_t length = p->end - p->begin;

	if (!c->whole && rnd_below(rnd, 2)) {
		uint32_t most = length < EXTRA ? (uint32_t)length : EXTRA;

		what.head.prefix = rnd_below(rnd, most + 1);
		length -= what.head.prefix;
		most = length < EXTRA ? (uint32_t)length : EXTRA;
		what.head.suffix = rnd_below(rnd, most + 1);
		length -= what.head.suffix;
	}
	what.head.offset = p->begin + what.head.prefix;
	what.head.length = length;
	memcpy(what.bytes, pattern_at(p->begin), what.head.prefix);
	memcpy(what.bytes + what.head.prefix,
	       pattern_at(p->end - what.head.suffix), what.head.suffix);
	arg.req = request(KEVENT_NAIO, p->ident, KEVENT_NAIO_SENDFILE, 0,
			  c->nr);
	arg.req.param[0] = (uintptr_t)&what;
	arg.req.param[1] = sizeof(what.head) + what.head.prefix +
			   what.head.suffix;
	arg.req.param[2] = (uint64_t)c->fd;
	requests++;
	if (timed(&adding, q, KEVENT_IOC_ADD(1), &arg) != 1)
		FAIL("client %u: SENDFILE: %s", c->nr, strerror(-arg.req.result));
}

static uint64_t random_piece(struct rnd *rnd, uint64_t left)
{
	static const uint32_t most[] = { 1, 1 << 12, 1 << 16, 1 << 20, 1 << 24 };
	uint64_t length = 1 + rnd_below(rnd, most[rnd_below(rnd, 5)]);

	return length < left ? length : left;
}

static void send_more(int q, int file, struct rnd *rnd, struct copy *c)
{
	static uint64_t next_ident;

	while (c->count < DEPTH && c->cut < size) {
		struct piece *p = &c->piece[c->count++];

		*p = (struct piece){ .ident = next_ident++, .begin = c->cut };
		p->end = c->cut + (c->whole ? size :
				   random_piece(rnd, size - c->cut));
		c->cut = p->end;
		ask(q, file, rnd, c, p);
	}
	if (c->count)
		return;
	SYS(shutdown(c->fd, SHUT_WR));
	SYS(close(c->fd));
	c->fd = -1;
}

static void ended(struct copy *c, const struct kevent_event *ev)
{
	struct piece *p = &c->piece[0];

	CHECK_EQ(ev->type, KEVENT_NAIO);
	if (ev->flags & KEVENT_EVENT_ERROR)
		FAIL("client %u: %s after %llu bytes", c->nr,
		     strerror((int)ev->count), (unsigned long long)ev->data);
	CHECK(c->count);
	/* those of one socket end in order */
	CHECK_EQ(ev->ident, p->ident);
	CHECK_EQ(ev->data, p->end - p->begin);
	memmove(p, p + 1, (DEPTH - 1) * sizeof(*p));
	c->count--;
}

static void take_back(int q, struct piece *p)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req;
	} arg = { .head.count = 1,
		  .req = request(KEVENT_NAIO, p->ident, 0, 0, 0) };
	uint64_t moved;

	CHECK_EQ(timed(&removing, q, KEVENT_IOC_REMOVE(1), &arg), 1);
	moved = arg.req.param[0];
	cancels++;
	if (arg.req.param[1] != ECANCELED) {
		CHECK_EQ(arg.req.param[1], 0);
		CHECK_EQ(moved, p->end - p->begin);
	}
	CHECK(moved <= p->end - p->begin);
	parts += moved && moved < p->end - p->begin;
	p->begin += moved;
}

/* Takes the last pieces back, the very last one first, and asks for what is left. */
static void cancel(int q, int file, struct rnd *rnd, struct copy *c)
{
	unsigned int i, from = rnd_below(rnd, c->count);

	for (i = c->count; i-- > from;)
		take_back(q, &c->piece[i]);
	for (i = from; i < c->count; i++)
		if (c->piece[i].begin < c->piece[i].end)
			break;
	/* those before it were all that there was, and no event tells of them */
	memmove(&c->piece[from], &c->piece[i],
		(c->count - i) * sizeof(c->piece[0]));
	c->count -= i - from;
	for (i = from; i < c->count; i++)
		ask(q, file, rnd, c, &c->piece[i]);
	send_more(q, file, rnd, c);
}

static void *run_sender(void *arg)
{
	struct sched_param fifo = { .sched_priority = 1 };
	struct copy *copy = arg;
	struct rnd rnd = rnd_stream(3);
	unsigned int i, running = nr_clients;
	int q = queue_open(), file = make_file();

	/* it is not to be kept from running by those that have it wait */
	if (sched_setscheduler(0, SCHED_FIFO, &fifo))
		CHECK_EQ(errno, EPERM);
	began = now_ns();
	for (i = 0; i < nr_clients; i++)
		send_more(q, file, &rnd, &copy[i]);
	while (running) {
		struct {
			struct kevent_wait head;
			struct kevent_event ev[BATCH];
		} wait = { .head = { .max = BATCH, .clock = CLOCK_MONOTONIC } };
		int k, n = (int)timed(&waiting, q, KEVENT_IOC_WAIT(BATCH),
				      &wait);

		if (!n)
			n = wait_events(q, wait.ev, BATCH, 1, SLICE);
		CHECK(n >= 0);
		for (k = 0; k < n; k++) {
			struct copy *c = &copy[wait.ev[k].cookie];

			ended(c, &wait.ev[k]);
		}
		for (k = 0; k < n; k++) {
			struct copy *c = &copy[wait.ev[k].cookie];

			if (c->fd < 0)
				continue;
			send_more(q, file, &rnd, c);
			running -= c->fd < 0;
		}
		i = rnd_below(&rnd, nr_clients);
		if (!rnd_below(&rnd, 4) && !copy[i].whole && copy[i].count) {
			cancel(q, file, &rnd, &copy[i]);
			running -= copy[i].fd < 0;
		}
	}
	check_silent(q);
	CHECK_EQ(queue_info(q).kevents, 0);
	SYS(close(q));
	SYS(close(file));
	SYS(unlink(file_path()));
	return NULL;
}

/* Reads what is its share, and compares it. */
static void take(struct reader *r, struct client *c, char *buffer, int epoll)
{
	ssize_t n = recv(c->fd, buffer, c->budget, MSG_DONTWAIT);
	struct epoll_event none = { .data.ptr = c };

	if (n < 0 && errno == EAGAIN)
		return;
	SYS(n);
	if (!n) {
		CHECK_EQ(c->pos, size);
		c->finished = true;
		SYS(close(c->fd));
		return;
	}
	pattern_check(buffer, (size_t)n, c->pos, "client", c->nr);
	c->pos += (uint64_t)n;
	r->bytes += (uint64_t)n;
	if (rnd_below(&r->rnd, 4000))
		return;
	r->stalls++;
	c->stalled = now_ns() + rnd_below(&r->rnd, NSEC_PER_SEC);
	SYS(epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &none));
}

/* Those that have stalled for long enough go on; whether any has not. */
static bool wake(struct reader *r, int epoll)
{
	uint64_t now = now_ns();
	bool any = false;
	unsigned int i;

	for (i = 0; i < r->count; i++) {
		struct client *c = r->client[i];
		struct epoll_event in = { .events = EPOLLIN, .data.ptr = c };

		if (!c->stalled)
			continue;
		if (c->stalled > now) {
			any = true;
			continue;
		}
		c->stalled = 0;
		SYS(epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &in));
	}
	return any;
}

static void *run_reader(void *arg)
{
	struct reader *r = arg;
	int epoll = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	char *buffer = malloc(PATTERN_PIECE);
	unsigned int i, running = r->count;

	CHECK(buffer);
	for (i = 0; i < r->count; i++) {
		struct epoll_event in = { .events = EPOLLIN,
					  .data.ptr = r->client[i] };

		SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, r->client[i]->fd, &in));
	}
	while (running) {
		struct epoll_event ev[BATCH];
		bool stalled = wake(r, epoll);
		int k, n = (int)SYS(epoll_wait(epoll, ev, BATCH,
					       stalled ? 10 : 120000));

		if (!n && !stalled)
			FAIL("%u clients, and no byte comes", running);
		for (k = 0; k < n; k++) {
			struct client *c = ev[k].data.ptr;

			take(r, c, buffer, epoll);
			running -= c->finished;
		}
	}
	free(buffer);
	SYS(close(epoll));
	return NULL;
}

static void progress(void)
{
	uint64_t ms = (now_ns() - began) / NSEC_PER_MSEC + 1, done = 0;
	unsigned int i;

	for (i = 0; i < READERS; i++)
		done += reader[i].bytes;
	dprintf(STDERR_FILENO, "%5.1f %%, %llu s, %.1f MB/s\n",
		100.0 * (double)done / (double)size / nr_clients,
		(unsigned long long)ms / 1000, (double)done / 1000 / (double)ms);
}

static void tell(const struct pause *p)
{
	uint64_t most = setting("KEVENT_TRANSFER_PAUSE", FOREVER);

	report("%s: %lu calls, the longest %.3f ms, %lu of them slept", p->name,
	       p->calls, (double)p->longest / 1e6, p->slept);
	if (p->longest > most)
		FAIL("%s: one took %llu ns", p->name,
		     (unsigned long long)p->longest);
}

void a_file_arrives_whole_at_clients_of_all_speeds_and_nobody_waits_for_them(void)
{
	unsigned int i, open_before = descriptors();
	int witness = queue_open();
	struct rnd rnd = rnd_stream(0);
	pthread_t sender, thread[READERS];
	struct client *client;
	struct copy *copy;
	uint64_t ms;

	need_feature(witness, KEVENT_FEATURE_NAIO);
	remember_pins();
	pattern_make();
	size = setting("KEVENT_TRANSFER_FILE", SIZE);
	nr_clients = (unsigned int)setting("KEVENT_TRANSFER_CLIENTS", CLIENTS);
	raise_nofile(2 * nr_clients + 64);
	copy = calloc(nr_clients, sizeof(*copy));
	client = calloc(nr_clients, sizeof(*client));
	CHECK(copy && client);
	for (i = 0; i < READERS; i++) {
		reader[i].rnd = rnd_stream(10 + i);
		reader[i].client = calloc(nr_clients, sizeof(client));
		CHECK(reader[i].client);
	}
	for (i = 0; i < nr_clients; i++) {
		struct reader *r = &reader[i % READERS];
		int fd[2], room = 131072 << rnd_below(&rnd, 4);

		tcp_pair(fd);
		if (rnd_below(&rnd, 2))
			SYS(setsockopt(fd[1], SOL_SOCKET, SO_RCVBUF, &room,
				       sizeof(room)));
		copy[i] = (struct copy){ .nr = i, .fd = fd[0],
					 .whole = i / READERS % 2 };
		client[i] = (struct client){
			.nr = i, .fd = fd[1],
			.budget = 8192U << rnd_below(&rnd, 8),
		};
		r->client[r->count++] = &client[i];
	}
	began = now_ns();
	sender = thread_start(run_sender, copy);
	for (i = 0; i < READERS; i++)
		thread[i] = thread_start(run_reader, &reader[i]);
	for (i = 0; i < READERS; i++)
		join_and_watch(thread[i], progress);
	ms = (now_ns() - began) / NSEC_PER_MSEC + 1;
	thread_join(sender);
	for (i = 0; i < nr_clients; i++)
		CHECK_EQ(client[i].pos, size);
	wait_until_user_kevents(witness, 0);
	SYS(close(witness));
	CHECK_EQ(descriptors(), open_before);
	check_pins();
	report("%llu bytes to %u clients, each compared, in %.1f s: %.1f MB/s; %lu requests, %lu cancelled, %lu of them in part; %lu stalls; seed %llu",
	       (unsigned long long)size, nr_clients, (double)ms / 1000,
	       (double)size * nr_clients / 1000 / (double)ms, requests, cancels,
	       parts, reader[0].stalls + reader[1].stalls,
	       (unsigned long long)test_seed());
	tell(&adding);
	tell(&waiting);
	tell(&removing);
}
