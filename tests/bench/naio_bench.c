// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Transfers over TCP: kevent beside io_uring and plain system calls, in one boot.
 *
 *	naio_bench FILE [PART...]
 *		the rows whose names contain one of the PARTs, or all of them:
 *		prints them, and writes them to FILE as JSON
 *	naio_bench FILE --repeat SECONDS ROW WAY
 *		does only this, for so many seconds of its own clock, for
 *		somebody who looks on; a line "begin" tells when, and the
 *		address of the function that does it once.  A way is named by
 *		its column or its own name.
 *
 * Everything that the one processor does is counted: the peer's part, and what
 * the kernel does between the calls or in threads of its own.  Of several ways
 * to use io_uring the row shows the cheapest; each is told.
 */
#include "naio.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUNDS		64	/* in one repetition */
#define FEW_ROUNDS	8	/* of a row that moves much */
/* Both ways, so that nothing ever waits for room. */
#define SOCKET_BUFFER	(4 << 20)

static const struct naio_row all_rows[] = {
	{ "receive 64 B, armed", 64, 1, ROUNDS, recv_armed },
	{ "receive 64 B, at hand", 64, 1, ROUNDS, recv_at_hand },
	{ "receive 64 B, multishot", 64, 1, ROUNDS, recv_multishot },
	{ "receive 16 KiB, armed", 16 << 10, 1, ROUNDS, recv_armed },
	{ "receive 16 KiB, at hand", 16 << 10, 1, ROUNDS, recv_at_hand },
	{ "receive 16 KiB, multishot", 16 << 10, 1, ROUNDS, recv_multishot },
	{ "receive 64 KiB, armed", 64 << 10, 1, ROUNDS, recv_armed },
	{ "receive 64 KiB, at hand", 64 << 10, 1, ROUNDS, recv_at_hand },
	{ "receive 64 KiB, multishot", 64 << 10, 1, ROUNDS, recv_multishot },
	{ "64 sockets, 64 B each, armed", 64, 64, FEW_ROUNDS, batch_armed },
	{ "64 sockets, 64 B each, at hand", 64, 64, FEW_ROUNDS, batch_at_hand },
	{ "64 sockets, 64 B each, multishot", 64, 64, FEW_ROUNDS,
	  batch_multishot },
	{ "64 sockets, 64 B each, epoll + recv", 64, 64, FEW_ROUNDS,
	  batch_epoll },
	{ "send 64 B", 64, 1, ROUNDS, send_ways },
	{ "send 16 KiB", 16 << 10, 1, ROUNDS, send_ways },
	{ "send 1 MiB", 1 << 20, 1, FEW_ROUNDS, send_ways },
	{ "sendfile 64 KiB", 64 << 10, 1, ROUNDS, sendfile_ways },
	{ "sendfile 1 MiB", 1 << 20, 1, FEW_ROUNDS, sendfile_ways },
	{ "sendfile 1 MiB, a header before it", 1 << 20, 1, FEW_ROUNDS,
	  sendfile_prefix_ways },
};

void peer_sends(const struct transfer *t, unsigned int link)
{
	CHECK(send(t->far[link], t->out, t->size, 0) == (ssize_t)t->size);
}

void peer_takes(const struct transfer *t, size_t size)
{
	do {
		ssize_t got = recv(t->far[0], NULL, size, MSG_TRUNC);

		CHECK(got > 0);
		size -= (size_t)got;
	} while (size);
}

bool start_nothing(struct transfer *t)
{
	(void)t;
	return true;
}

bool start_kevent(struct transfer *t)
{
	return t->has_naio;
}

bool start_plain(struct transfer *t)
{
	return ring_open(&t->ring, MAX_LINKS, RING_PLAIN);
}

bool start_defer(struct transfer *t)
{
	return ring_open(&t->ring, MAX_LINKS, RING_DEFER);
}

void end_ring(struct transfer *t)
{
	ring_close(&t->ring);
}

static void set(int fd, int level, int option, int value)
{
	SYS(setsockopt(fd, level, option, &value, sizeof(value)));
}

/* A connection whose window opens wide; nothing waits for more to be sent. */
static void connect_pair(int listener, uint16_t port, int *near, int *far)
{
	int fd[2], i;

	fd[0] = tcp_connect(port);
	fd[1] = (int)SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	for (i = 0; i < 2; i++) {
		set(fd[i], IPPROTO_TCP, TCP_NODELAY, 1);
		set(fd[i], SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER);
		set(fd[i], SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER);
	}
	*near = fd[0];
	*far = fd[1];
}

static void transfer_open(struct transfer *t, const struct naio_row *row)
{
	uint16_t port;
	int listener = tcp_listen(&port);
	unsigned int i;

	memset(t, 0, sizeof(*t));
	t->nr = row->links;
	t->size = row->size;
	t->rounds = row->rounds;
	for (i = 0; i < t->nr; i++)
		connect_pair(listener, port, &t->near[i], &t->far[i]);
	close(listener);
	t->in = mmap(NULL, 2 * MAX_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	CHECK(t->in != MAP_FAILED);
	t->out = t->in + MAX_SIZE;
	memset(t->out, 'k', MAX_SIZE);
	t->q = queue_open();
	t->has_naio = queue_info(t->q).features & KEVENT_FEATURE_NAIO;
}

static void transfer_close(struct transfer *t)
{
	unsigned int i;

	close(t->q);
	for (i = 0; i < t->nr; i++) {
		close(t->near[i]);
		close(t->far[i]);
	}
	munmap(t->in, 2 * MAX_SIZE);
}

struct sample {
	const struct way *way;
	struct transfer *t;
};

static uint64_t sample(void *context)
{
	const struct sample *s = context;
	uint64_t begin = now_ns();
	unsigned int i;

	for (i = 0; i < s->t->rounds; i++)
		s->way->round(s->t);
	return span(begin);
}

/* A transfer that waits, and a message that nobody takes: one of each more. */
static void shift_transfers(void)
{
	static int q = -1, pair[2] = { -1, -1 };
	static uint64_t ident;
	static char byte[64];
	struct kevent_request req = {
		.ident = ++ident, .type = KEVENT_NAIO,
		.events = KEVENT_NAIO_RECV,
	};

	if (q < 0)
		q = queue_open();
	if (ident % 64 == 1)
		unix_pair(pair);
	CHECK_EQ(send(pair[0], byte, sizeof(byte), 0), sizeof(byte));
	if (!(queue_info(q).features & KEVENT_FEATURE_NAIO))
		return;
	req.param[0] = (uintptr_t)byte;
	req.param[1] = sizeof(byte);
	req.param[2] = (uint64_t)pair[0];
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), 0);
}

static long sleeps(void)
{
	struct rusage usage;

	SYS(getrusage(RUSAGE_THREAD, &usage));
	return usage.ru_nvcsw;
}

struct job {
	const struct naio_row *row;
	const struct way *way;
	double *value;		/* instructions of one transfer, or ABSENT */
};

static void measure_here(void *context)
{
	const struct job *job = context;
	const struct way *way = job->way;
	struct transfer t;
	struct sample s = { way, &t };
	double per;
	long asleep;

	transfer_open(&t, job->row);
	if (!way->start(&t))
		return;
	printf("  %-34s %-21s", job->row->name, way->label);
	fflush(stdout);
	per = (double)t.rounds * t.nr;
	asleep = sleeps();
	if (way->wakes)
		*job->value = median_with_switches(sample, &s, per);
	else
		*job->value = median_of(sample, &s, per);
	asleep = sleeps() - asleep;
	printf(" %11.1f", *job->value);
	if (asleep)
		printf("  slept %.2f times",
		       (double)asleep / per / (WARM_UPS + REPETITIONS));
	printf("\n");
	fflush(stdout);
	if (way->end)
		way->end(&t);
	transfer_close(&t);
}

/*
 * In a process of its own: what a ring leaves behind in the one that had it
 * interrupts system calls that come after it.
 */
static double measure_way(const struct naio_row *row, const struct way *way)
{
	static double *value;
	struct job job = { row, way, NULL };

	if (!value)
		value = shared_memory(sizeof(*value));
	*value = ABSENT;
	job.value = value;
	child_join(child_start(measure_here, &job));
	return *value;
}

static void measure_row(const struct naio_row *row)
{
	double best[NAIO_NONE + 1];
	const struct way *way;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(best); i++)
		best[i] = ABSENT;
	for (way = row->ways; way->round; way++) {
		double value = measure_way(row, way);

		if (value != ABSENT && (best[way->column] == ABSENT ||
					value < best[way->column]))
			best[way->column] = value;
	}
	row_begin(row->name, row->links > 1 ? "message" : "transfer");
	for (i = 0; i < NAIO_NONE; i++)
		row_value(i, best[i]);
	row_end();
}

static bool wanted(const char *name, char **parts, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (strstr(name, parts[i]))
			return true;
	return !nr;
}

static bool file_says(const char *path, const char *word)
{
	FILE *file = fopen(path, "r");
	char line[8192];
	bool found = false;

	CHECK(file);
	while (fgets(line, sizeof(line), file))
		found |= strstr(line, word) != NULL;
	fclose(file);
	return found;
}

/*
 * What moves bytes one by one would be counted by the byte, which no processor
 * needs that long for.
 */
static void check_guest(void)
{
	if (file_says("/proc/cpuinfo", " erms") ||
	    file_says("/proc/cpuinfo", " fsrm"))
		FAIL("this CPU copies by rep movsb: -cpu max,-erms");
	if (!file_says("/proc/cmdline", "init_on_alloc=0"))
		FAIL("pages are zeroed in advance: init_on_alloc=0");
}

static const char *const columns[] = { "kevent", "uring", "sync" };

static bool named(const struct way *way, const char *name)
{
	return !strcmp(way->label, name) ||
	       (way->column != NAIO_NONE && !strcmp(columns[way->column], name));
}

static int repeat_one(const char *seconds, const char *name, const char *as)
{
	const struct naio_row *row = NULL;
	const struct way *way;
	struct transfer t;
	struct sample s = { .t = &t };
	uint64_t end;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(all_rows); i++)
		if (!strcmp(all_rows[i].name, name))
			row = &all_rows[i];
	if (!row)
		FAIL("no row is named %s", name);
	for (way = row->ways; way->round && !named(way, as); way++)
		;
	if (!way->round)
		FAIL("%s is not done by %s", name, as);
	s.way = way;
	transfer_open(&t, row);
	if (!way->start(&t))
		FAIL("%s does not go by %s here", name, as);
	for (i = 0; i < WARM_UPS; i++)
		sample(&s);
	printf("begin %p %u %s\n", (void *)way->round, t.nr, way->label);
	fflush(stdout);
	end = now_ns() + strtoull(seconds, NULL, 10) * NSEC_PER_SEC;
	while (now_ns() < end)
		sample(&s);
	return 0;
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc < 2) {
		fprintf(stderr, "usage: %s FILE [PART...]\n", argv[0]);
		return 2;
	}
	check_guest();
	raise_nofile(16384);
	if (argc == 6 && !strcmp(argv[2], "--repeat"))
		return repeat_one(argv[3], argv[4], argv[5]);
	shift_more = shift_transfers;
	columns_are(columns, ARRAY_SIZE(columns));
	rows_head();
	fflush(stdout);
	for (i = 0; i < ARRAY_SIZE(all_rows); i++)
		if (wanted(all_rows[i].name, argv + 2, argc - 2))
			measure_row(&all_rows[i]);
	rows_write(argv[1]);
	return 0;
}
