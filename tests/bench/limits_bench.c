// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a million kevents cost:
 *
 *	limits_bench costs FILE [MOST]	what ADD, REMOVE and WAIT cost among
 *					1,000 to MOST, in instructions; for a
 *					guest that counts them, see measure.h
 *	limits_bench memory FILE [MOST]	what each takes, in bytes
 *
 * Both take them away by closing the queue, while a task of highest priority on
 * the same processor notes how long it ever had to wait.
 */
#include "limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Pages that processors keep at hand. */
#define LEFT_BEHIND	(2UL << 20)

static unsigned int most = 1000000;
static const unsigned int sizes[] = { 1000, 10000, 100000, 1000000 };

/* 1000000 as people read it */
static const char *digits(unsigned int n)
{
	static char text[4][16];
	static unsigned int turn;
	char *to = text[turn++ % 4];

	if (n >= 1000000)
		snprintf(to, 16, "%u,%03u,%03u", n / 1000000, n / 1000 % 1000,
			 n % 1000);
	else
		snprintf(to, 16, "%u,%03u", n / 1000, n % 1000);
	return to;
}

const char *row_name(const char *what, const struct crowd *c, unsigned int nr)
{
	char *name = NULL;

	CHECK(asprintf(&name, what, digits(nr), crowd_names[c->kind]) > 0);
	return name;
}

/* Costs */

static uint64_t sample_add(void *context)
{
	struct crowd *c = context;
	uint64_t begin = now_ns();
	unsigned int i;

	for (i = 0; i < CALLS; i++)
		crowd_change(c, KEVENT_IOC_NR_ADD, c->extra[i]);
	begin = span(begin);
	for (i = 0; i < CALLS; i++)
		crowd_change(c, KEVENT_IOC_NR_REMOVE, c->extra[i]);
	return begin;
}

static uint64_t sample_remove(void *context)
{
	struct crowd *c = context;
	uint64_t begin;
	unsigned int i;

	for (i = 0; i < CALLS; i++)
		crowd_change(c, KEVENT_IOC_NR_ADD, c->extra[i]);
	begin = now_ns();
	for (i = 0; i < CALLS; i++)
		crowd_change(c, KEVENT_IOC_NR_REMOVE, c->extra[i]);
	return span(begin);
}

static uint64_t sample_wait(void *context)
{
	struct crowd *c = context;
	uint64_t total = 0;
	unsigned int i;

	for (i = 0; i < CALLS; i++) {
		uint64_t begin;

		crowd_make_ready(c, (c->nr / CALLS) * i + 7);
		begin = now_ns();
		crowd_wait(c);
		total += span(begin);
		crowd_make_idle(c);
	}
	return total;
}

static uint64_t sample_close(void *context)
{
	struct crowd *c = context;
	uint64_t begin;
	unsigned int i;

	for (i = 0; i < CALLS; i++)
		crowd_change(c, KEVENT_IOC_NR_ADD, c->extra[i]);
	begin = now_ns();
	for (i = 0; i < CALLS; i++)
		close(c->fd[c->extra[i]]);
	begin = span(begin);
	for (i = 0; i < CALLS; i++)
		crowd_renew(c, c->extra[i]);
	return begin;
}

static void costs_of(enum crowd_kind kind, unsigned int limit)
{
	static const struct {
		const char *name;
		sample_fn sample;
	} what[] = {
		{ "ADD one more to %s %s", sample_add },
		{ "REMOVE one of %s %s", sample_remove },
		{ "WAIT for one of %s %s", sample_wait },
		{ "close(2) of one of %s %s", sample_close },
	};
	size_t nr_rows = kind == EVENTFDS ? 4 :
			 kind == PATHS || kind == RECEIVES ? 2 : 3;
	double value[ARRAY_SIZE(sizes)][ARRAY_SIZE(what)][2];
	struct crowd c;
	size_t s, w, e;

	for (e = 0; e < 2; e++) {
		if (e && kind != EVENTFDS)
			continue;
		crowd_open(&c, kind, limit, e);
		for (s = 0; s < ARRAY_SIZE(sizes) && sizes[s] <= limit; s++) {
			crowd_grow(&c, sizes[s]);
			for (w = 0; w < nr_rows; w++)
				value[s][w][e] = median_of(what[w].sample, &c,
							   CALLS);
		}
		if (!e)
			tear_down(&c);
		else
			close(c.q);
		crowd_close(&c);
	}
	for (w = 0; w < nr_rows; w++)
		for (s = 0; s < ARRAY_SIZE(sizes) && sizes[s] <= limit; s++) {
			row_begin(row_name(what[w].name, &c, sizes[s]), "call");
			row_value(KEVENT_COLUMN, value[s][w][0]);
			if (kind == EVENTFDS)
				row_value(EPOLL_COLUMN, value[s][w][1]);
			row_end();
		}
}

/* A file is many thousand instructions to make: fewer of them will do. */
static void costs(void)
{
	costs_of(USERS, most);
	costs_of(TIMERS, most);
	costs_of(EVENTFDS, most / 10);
	costs_of(PATHS, most / 10);
	costs_of(RECEIVES, most / 100);
}

/* Memory */

static void memory_of(enum crowd_kind kind, unsigned int nr)
{
	struct memory before, after, freed;
	struct crowd c;
	size_t e;

	double each[2] = { ABSENT, ABSENT }, in_slab = 0;

	for (e = 0; e < 2; e++) {
		if (e && kind != EVENTFDS && kind != SOCKETS)
			continue;
		crowd_open(&c, kind, nr, e);
		memory_now(&before);
		crowd_grow(&c, nr);
		memory_now(&after);
		each[e] = memory_each(&before, &after, nr);
		if (!e) {
			in_slab = memory_slab_each(&before, &after, nr);
			tear_down(&c);
			memory_now(&freed);
			if (freed.slab > before.slab + LEFT_BEHIND)
				FAIL("%llu bytes of %s are not back",
				     (unsigned long long)(freed.slab -
							  before.slab),
				     crowd_names[kind]);
		} else {
			close(c.q);
		}
		crowd_close(&c);
	}
	row_begin(row_name("memory of one of %s %s", &c, nr), "byte");
	row_value(KEVENT_COLUMN, each[0]);
	row_value(EPOLL_COLUMN, each[1]);
	row_value(OTHER_COLUMN, in_slab);
	row_end();
}

static void memory(void)
{
	memory_of(USERS, most);
	memory_of(TIMERS, most);
	memory_of(EVENTFDS, most / 4);
	memory_of(SOCKETS, most / 4);
	memory_of(INODES, most / 20);
	memory_of(PATHS, most / 20);
	memory_of(RECEIVES, most / 100);
}

int main(int argc, char **argv)
{
	bool count = argc > 2 && !strcmp(argv[1], "costs");

	if (argc < 3 || (!count && strcmp(argv[1], "memory"))) {
		fprintf(stderr, "usage: %s costs|memory FILE [MOST]\n",
			argv[0]);
		return 2;
	}
	if (argc > 3)
		most = (unsigned int)strtoul(argv[3], NULL, 10);
	parameter_set("max_user_kevents", 2 * (uint64_t)most + 100000);
	parameter_set("max_queue_kevents", 2 * (uint64_t)most + 100000);
	raise_nofile(most + 1000);
	if (count)
		costs();
	else
		memory();
	rows_write(argv[2]);
	return 0;
}
