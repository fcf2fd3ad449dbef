// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What an event costs on its way from a source that is ready to the caller, and
 * what being watched costs whoever makes it ready.
 */
#include "scene.h"

static uint64_t sample_nothing_ready(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns();
	int i;

	for (i = 0; i < CALLS; i++)
		CHECK(s->b->wait(s->q, 64, false) == 0);
	return span(begin);
}

void nothing_ready(void)
{
	size_t i;

	row_begin("nothing ready, timeout 0", "call");
	for (i = 0; i < ARRAY_SIZE(backends); i++) {
		struct scene *s = scene_new(backends[i], 1, LEVEL, false);

		row_value(backends[i]->column,
			  median_of(sample_nothing_ready, s, CALLS));
		scene_free(s);
	}
	row_end();
}

static uint64_t sample_level(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns();
	int i;

	for (i = 0; i < CALLS; i++)
		CHECK(s->b->wait(s->q, s->nr, true) == (int)s->nr);
	return span(begin);
}

static uint64_t sample_edge(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns(), made;

	make_ready(s);
	made = now_ns();
	CHECK(s->b->wait(s->q, s->nr, true) == (int)s->nr);
	made = span(s->made ? begin : made);
	drain(s);
	return made;
}

static uint64_t sample_multishot(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns(), made;

	make_ready(s);
	made = now_ns();
	CHECK(uring_reap(true) == s->nr);
	made = span(s->made ? begin : made);
	drain(s);
	return made;
}

static const unsigned int counts[] = { 1, 16, 64, 256 };

void deliver_level(bool sock)
{
	static const char *const names[2][4] = { {
		"level, 1 ready eventfd", "level, 16 ready eventfds",
		"level, 64 ready eventfds", "level, 256 ready eventfds",
	}, {
		"level, 1 ready socket", "level, 16 ready sockets",
		"level, 64 ready sockets", "level, 256 ready sockets",
	} };
	size_t i, n;

	for (n = 0; n < ARRAY_SIZE(counts); n++) {
		row_begin(names[sock][n], "event");
		for (i = 0; i < ARRAY_SIZE(backends); i++) {
			struct scene *s = scene_new(backends[i], counts[n],
						    LEVEL, sock);

			make_ready(s);
			row_value(backends[i]->column,
				  median_of(sample_level, s,
					    CALLS * counts[n]));
			scene_free(s);
		}
		row_end();
	}
}

void deliver_edge(bool sock, bool made)
{
	static const char *const names[3][4] = { {
		"edge, 1 eventfd", "edge, 16 eventfds",
		"edge, 64 eventfds", "edge, 256 eventfds",
	}, {
		"edge, 1 socket", "edge, 16 sockets",
		"edge, 64 sockets", "edge, 256 sockets",
	}, {
		"write and edge, 1 eventfd", "write and edge, 16 eventfds",
		"write and edge, 64 eventfds", "write and edge, 256 eventfds",
	} };
	size_t i, n;

	for (n = 0; n < ARRAY_SIZE(counts); n++) {
		struct scene *s;

		row_begin(names[made ? 2 : sock][n], "event");
		for (i = 0; i < ARRAY_SIZE(backends); i++) {
			s = scene_new(backends[i], counts[n], EDGE, sock);
			s->made = made;
			row_value(backends[i]->column,
				  median_of(sample_edge, s, counts[n]));
			scene_free(s);
		}
		s = scene_new(NULL, counts[n], EDGE, sock);
		s->made = made;
		if (uring_watch(s->fd, s->nr)) {
			row_value(URING_COLUMN, median_of(sample_multishot, s,
							  counts[n]));
			uring_close();
		}
		scene_free(s);
		row_end();
	}
}

/* What watching costs who writes: one watcher, nobody asleep in WAIT. */

static uint64_t sample_write(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns(), took;

	make_ready(s);
	took = span(begin);
	if (s->b)
		CHECK(s->b->wait(s->q, 1, false) == 1);
	else if (s->q == -2)
		CHECK(uring_reap(true) == 1);
	drain(s);
	return took;
}

void write_cost(void)
{
	struct scene *s = scene_new(NULL, 1, EDGE, false);
	double bare;
	size_t i;

	row_begin("added to a write to an eventfd by one watcher; the write",
		  "write");
	bare = median_of(sample_write, s, 1);
	row_value(OTHER_COLUMN, bare);
	if (uring_watch(s->fd, 1)) {
		s->q = -2;
		row_value(URING_COLUMN, median_of(sample_write, s, 1) - bare);
		s->q = -1;
		uring_close();
	}
	scene_free(s);
	for (i = 0; i < ARRAY_SIZE(backends); i++) {
		s = scene_new(backends[i], 1, EDGE, false);
		row_value(backends[i]->column,
			  median_of(sample_write, s, 1) - bare);
		scene_free(s);
	}
	row_end();
}
