// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Mixed load on one queue for as long as KEVENT_SOAK_SECONDS says (20), while
 * its clients are killed at random: no event is lost, none comes twice, and
 * nothing is left behind.
 *
 *	producers --> 25 streams of numbered events --> one queue --> consumers
 *	killed				               3 of 2 threads, killed
 *
 *	chaos: clients with queues of their own, killed
 *
 * A round ends with everything delivered by the consumers themselves, unkilled,
 * before the queue is closed.  A line about the run is printed and appended to
 * soak.txt in $KEVENT_RESULTS.
 */
#include "soak.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS		20
#define ROUND		(5 * NSEC_PER_SEC)
#define CHAOS		2U
#define CLIENTS		(CONSUMERS + PRODUCERS + CHAOS)
/* The slot of the one who tidies up. */
#define TIDY		(SLOTS - 1)

struct soak *soak;

static struct client {
	void (*body)(void *which);
	unsigned int which;
	pid_t pid;
} client[CLIENTS];

static uint64_t totals[KINDS];
static unsigned long kills, nr_rounds;

/* The module's caches that no other cache shares. */

static const char *const caches[] = {
	"kevent_socket", "kevent_poll", "kevent_inode", "kevent_path",
	"kevent_timer", "kevent_user", "kevent_watch", "kevent_mark",
	"kevent_naio",
};

/* A number from a cache's folder. */
static long cache_number(const char *cache, const char *name)
{
	char path[128], text[64] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/%s", cache, name);
	fd = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
	CHECK(SYS(read(fd, text, sizeof(text) - 1)) > 0);
	close(fd);
	return strtol(text, NULL, 10);
}

/* Objects in use; -1 where a cache of the kernel's shares the memory. */
static long cache_objects(const char *cache)
{
	char path[128];
	int fd;

	if (cache_number(cache, "aliases"))
		return -1;
	/* What processors have at hand counts as used until it is given back. */
	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", cache);
	fd = (int)SYS(open(path, O_WRONLY | O_CLOEXEC));
	CHECK_EQ(SYS(write(fd, "1", 1)), 1);
	close(fd);
	return cache_number(cache, "objects");
}

/* Marks and what RCU frees take a moment. */
static unsigned int wait_until_caches(const long before[])
{
	uint64_t end = now_ns() + PATIENCE;
	unsigned int counted = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(caches); i++) {
		long now;

		if (before[i] < 0)
			continue;
		while ((now = cache_objects(caches[i])) != before[i]) {
			if (now_ns() > end)
				FAIL("%ld objects in %s, %ld before", now,
				     caches[i], before[i]);
			usleep(10000);
		}
		counted++;
	}
	return counted;
}

/* Clients */

static void start(struct client *c)
{
	soak->generation++;
	c->pid = child_start(c->body, &c->which);
}

static void kill_client(struct client *c)
{
	unsigned int i;

	child_kill(c->pid);
	c->pid = 0;
	kills++;
	if (c->body == consume)
		for (i = 0; i < THREADS; i++)
			slot_recover(c->which * THREADS + i);
	if (c->body == produce)
		for (i = c->which; i < STREAMS; i += PRODUCERS)
			stream_settle(&soak->stream[i]);
}

static void for_each(void (*body)(void *which), void (*fn)(struct client *c))
{
	struct client *c;

	for (c = client; c < client + CLIENTS; c++)
		if (c->body == body)
			fn(c);
}

static void join(struct client *c)
{
	child_join(c->pid);
	c->pid = 0;
}

static void make_clients(void)
{
	struct client *c = client;
	unsigned int i;

	for (i = 0; i < CONSUMERS; i++)
		*c++ = (struct client){ .body = consume, .which = i };
	for (i = 0; i < PRODUCERS; i++)
		*c++ = (struct client){ .body = produce, .which = i };
	for (i = 0; i < CHAOS; i++)
		*c++ = (struct client){ .body = chaos, .which = i };
}

/* What ended although nobody killed it has said why. */
static void check_clients(void)
{
	struct client *c;
	siginfo_t info;

	for (c = client; c < client + CLIENTS; c++) {
		info.si_pid = 0;
		if (!c->pid)
			continue;
		SYS(waitid(P_PID, (id_t)c->pid, &info,
			   WEXITED | WNOHANG | WNOWAIT));
		if (info.si_pid)
			FAIL("client %zu ended by itself: code %d, status %d",
			     (size_t)(c - client), info.si_code,
			     info.si_status);
	}
}

static bool advance(void)
{
	bool all = true;
	unsigned int i;

	for (i = 0; i < STREAMS; i++) {
		struct stream *s = &soak->stream[i];

		stream_advance(s);
		all = all && s->low > s->sent;
		if (s->kind != SENT)
			continue;
		/* what the socket has taken comes to the other end, too */
		stream_collect(s);
		all = all && s->arrived == (uint64_t)s->sent * SEND_WORDS;
	}
	return all;
}

/* How many were sent, and not delivered. */
static unsigned int missing(const struct stream *s)
{
	unsigned int nr = 0;
	uint32_t seq;

	for (seq = s->low; seq <= s->sent; seq++)
		nr += s->seen[seq % WINDOW] >> 32 != seq;
	return nr;
}

static void report_lost(void)
{
	char text[512] = "";
	size_t len = 0;
	unsigned int i;

	for (i = 0; i < STREAMS; i++) {
		const struct stream *s = &soak->stream[i];
		int unread = 0;

		if (s->low > s->sent && (s->kind != SENT ||
		    s->arrived == (uint64_t)s->sent * SEND_WORDS))
			continue;
		if (s->type == KEVENT_SOCKET)
			SYS(ioctl(s->fd[0], FIONREAD, &unread));
		len += (size_t)snprintf(text + len, sizeof(text) - len,
			" stream %u (%s, flags %#x): %u of %u to %u, %d bytes to be read;",
			i, kind_names[s->kind], s->flags, missing(s), s->low,
			s->sent, unread);
		if (len >= sizeof(text))
			break;
	}
	FAIL("not delivered:%s", text);
}

static uint64_t expiries(unsigned int i)
{
	uint64_t sum = 0;
	unsigned int j;

	for (j = 0; j < SLOTS; j++)
		sum += soak->slot[j].expiries[i] >> 24;
	return sum;
}

static uint64_t expiries_until(const struct stream *s, uint64_t now)
{
	return now < s->first ? 0 : (now - s->first) / s->interval + 1;
}

/* Every expiry is counted once: there are as many as there have been. */
static void check_expiries(unsigned int i)
{
	const struct stream *s = &soak->stream[i];
	uint64_t begin = now_ns(), seen;

	do {
		slot_drain(TIDY);
		seen = expiries(i);
		if (seen > expiries_until(s, now_ns()))
			FAIL("stream %u expired %llu times too often", i,
			     (unsigned long long)(seen -
				expiries_until(s, now_ns())));
		if (now_ns() - begin > PATIENCE)
			FAIL("stream %u: %llu expiries of %llu", i,
			     (unsigned long long)seen, (unsigned long long)
			     expiries_until(s, begin));
	} while (seen < expiries_until(s, begin));
	totals[PERIODIC] += seen;
}

static void mixed_load(struct rnd *rnd, uint64_t end)
{
	uint64_t next = now_ns(), now;
	/* in some rounds nobody who consumes, so that nothing is armed anew */
	unsigned int spared = nr_rounds % 3 == 2 ? CONSUMERS : 0;

	while ((now = now_ns()) < end) {
		advance();
		check_clients();
		if (now >= next) {
			struct client *c = &client[spared +
				rnd_below(rnd, CLIENTS - spared)];

			kill_client(c);
			start(c);
			next = now + 5000000 + rnd_below(rnd, 60000000);
		}
		usleep(1000);
	}
}

static void one_round(struct rnd *rnd, uint64_t length)
{
	uint64_t end;
	unsigned int i;

	memset(soak->slot, 0, sizeof(soak->slot));
	soak->stop = false;
	soak->q = queue_open();
	streams_open(rnd);
	for_each(consume, start);
	for_each(produce, start);
	for_each(chaos, start);
	mixed_load(rnd, now_ns() + length);

	soak->stop = true;
	for_each(produce, join);
	for_each(chaos, kill_client);
	end = now_ns() + PATIENCE;
	while (!advance()) {
		check_clients();
		if (now_ns() > end)
			report_lost();
		usleep(1000);
	}
	for_each(consume, kill_client);
	for (i = 0; i < STREAMS; i++) {
		const struct stream *s = &soak->stream[i];

		if (s->kind == PERIODIC)
			check_expiries(i);
		else
			totals[s->kind] += s->sent;
	}
	/* nothing came twice in the meantime either */
	CHECK(advance());
	close(soak->q);
	streams_close();
	nr_rounds++;
}

static void report(uint64_t seconds, unsigned int counted)
{
	const char *folder = getenv("KEVENT_RESULTS");
	char text[1024], path[256];
	size_t len;
	int fd, i;

	len = (size_t)snprintf(text, sizeof(text),
			       "soak: %llu s, %lu rounds, %lu kills, events:",
			       (unsigned long long)seconds, nr_rounds, kills);
	for (i = 0; i < KINDS; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					"%s %llu %s", i ? "," : "",
					(unsigned long long)totals[i],
					kind_names[i]);
	len += (size_t)snprintf(text + len, sizeof(text) - len,
		"; none lost, none twice; %u of %zu caches counted, as before; seed %llu\n",
		counted, ARRAY_SIZE(caches), (unsigned long long)test_seed());
	CHECK(len < sizeof(text));
	dprintf(STDERR_FILENO, "%s", text);
	if (!folder)
		return;
	snprintf(path, sizeof(path), "%.200s/soak.txt", folder);
	fd = (int)SYS(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
			   0644));
	CHECK_EQ(SYS(write(fd, text, len)), len);
	close(fd);
}

static void
a_mixed_load_loses_and_doubles_no_event_though_its_clients_are_killed(void)
{
	static const uint32_t needed[] = {
		KEVENT_FEATURE_SOCKET, KEVENT_FEATURE_POLL,
		KEVENT_FEATURE_INODE, KEVENT_FEATURE_TIMER,
		KEVENT_FEATURE_USER, KEVENT_FEATURE_NAIO,
	};
	const char *text = getenv("KEVENT_SOAK_SECONDS");
	uint64_t seconds = text ? strtoull(text, NULL, 10) : SECONDS;
	uint64_t begin = now_ns(), end = begin + seconds * NSEC_PER_SEC, now;
	struct rnd rnd = rnd_stream(0);
	long before[ARRAY_SIZE(caches)];
	int witness = queue_open();
	uint64_t kevents = queue_info(witness).user_kevents;
	unsigned int counted;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(needed); i++)
		need_feature(witness, needed[i]);
	need_root();
	remember_pins();
	for (i = 0; i < ARRAY_SIZE(caches); i++)
		before[i] = cache_objects(caches[i]);
	soak = shared_memory(sizeof(*soak));
	make_clients();
	while ((now = now_ns()) < end)
		one_round(&rnd, end - now < ROUND ? end - now : ROUND);
	wait_until_user_kevents(witness, kevents);
	check_pins();
	counted = wait_until_caches(before);
	/* Where each has its own, all of them are counted. */
	if (getenv("KEVENT_SOAK_SECONDS"))
		CHECK_EQ(counted, ARRAY_SIZE(caches));
	report((now_ns() - begin) / NSEC_PER_SEC, counted);
}

static const struct test_case cases[] = {
	LONG_TEST(a_mixed_load_loses_and_doubles_no_event_though_its_clients_are_killed,
		  150),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
