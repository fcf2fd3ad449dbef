// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TCP: one among thousands of idle sockets, changes among a thousand, and an
 * echo.
 */
#include "scene.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* TCP sockets by the thousand, both ends of each connection */

struct crowd {
	const struct backend *b;
	int q;
	unsigned int nr;	/* registered */
	int *fd;
	int many[MAX_EVENTS];	/* more of them, not registered */
	struct scene *ready;
};

static void connect_all(int *fd, unsigned int nr)
{
	uint16_t port;
	int listener = tcp_listen(&port);
	unsigned int i;

	for (i = 0; i + 1 < nr; i += 2) {
		fd[i] = tcp_connect(port);
		fd[i + 1] = (int)SYS(accept4(listener, NULL, NULL,
					     SOCK_CLOEXEC));
	}
	close(listener);
}

static uint64_t sample_add(void *context)
{
	struct crowd *c = context;
	uint64_t begin = now_ns(), took;

	c->b->add(c->q, c->many[0], LEVEL, true);
	took = span(begin);
	c->b->del(c->q, c->many[0], true);
	return took;
}

static uint64_t sample_modify(void *context)
{
	struct crowd *c = context;
	uint64_t begin = now_ns();

	c->b->modify(c->q, c->fd[c->nr / 2], LEVEL, true);
	return span(begin);
}

static uint64_t sample_del(void *context)
{
	struct crowd *c = context;
	uint64_t begin;

	c->b->add(c->q, c->many[0], LEVEL, true);
	begin = now_ns();
	c->b->del(c->q, c->many[0], true);
	return span(begin);
}

static uint64_t sample_add_many(void *context)
{
	struct crowd *c = context;
	uint64_t begin = now_ns(), took;

	c->b->add_many(c->q, c->many, MAX_EVENTS, true);
	took = span(begin);
	c->b->del_many(c->q, c->many, MAX_EVENTS, true);
	return took;
}

static uint64_t sample_del_many(void *context)
{
	struct crowd *c = context;
	uint64_t begin;

	c->b->add_many(c->q, c->many, MAX_EVENTS, true);
	begin = now_ns();
	c->b->del_many(c->q, c->many, MAX_EVENTS, true);
	return span(begin);
}

static uint64_t sample_wait_in_crowd(void *context)
{
	struct crowd *c = context;
	uint64_t begin, took;

	make_ready(c->ready);
	begin = now_ns();
	CHECK(c->b->wait(c->q, 64, true) == 1);
	took = span(begin);
	drain(c->ready);
	return took;
}

static uint64_t sample_level_in_crowd(void *context)
{
	struct crowd *c = context;
	uint64_t begin = now_ns();
	int i;

	for (i = 0; i < CALLS; i++)
		CHECK(c->b->wait(c->q, 64, true) == 1);
	return span(begin);
}

static void grow(struct crowd *c, unsigned int nr)
{
	for (; c->nr < nr; c->nr++)
		c->b->add(c->q, c->fd[c->nr], LEVEL, true);
}

#define SIZES	3

void crowds(void)
{
	static const unsigned int sizes[SIZES] = { 10, 1000, CROWD };
	static const char *const edge_names[SIZES] = {
		"WAIT for 1 edge, 10 idle TCP sockets",
		"WAIT for 1 edge, 1000 idle TCP sockets",
		"WAIT for 1 edge, 10000 idle TCP sockets",
	};
	static const char *const level_names[SIZES] = {
		"WAIT for 1 level, 10 idle TCP sockets",
		"WAIT for 1 level, 1000 idle TCP sockets",
		"WAIT for 1 level, 10000 idle TCP sockets",
	};
	static const struct {
		const char *name;
		sample_fn sample;
		double per;
	} changes[] = {
		{ "add one TCP socket to 1000", sample_add, 1 },
		{ "modify one TCP socket of 1000", sample_modify, 1 },
		{ "delete one TCP socket of 1000", sample_del, 1 },
		{ "add 256 TCP sockets in one batch", sample_add_many,
		  MAX_EVENTS },
		{ "delete 256 TCP sockets in one batch", sample_del_many,
		  MAX_EVENTS },
	};
	double edge[2][SIZES], level[2][SIZES], change[2][ARRAY_SIZE(changes)];
	struct crowd c = { .fd = calloc(CROWD, sizeof(int)) };
	size_t i, n, m;

	CHECK(c.fd);
	connect_all(c.fd, CROWD);
	connect_all(c.many, MAX_EVENTS);
	for (i = 0; i < ARRAY_SIZE(backends); i++) {
		c.b = backends[i];
		c.q = c.b->open();
		c.nr = 0;
		c.ready = scene_new(NULL, 1, EDGE, false);
		for (n = 0; n < SIZES; n++) {
			grow(&c, sizes[n]);
			c.b->add(c.q, c.ready->fd[0], EDGE, false);
			edge[i][n] = median_of(sample_wait_in_crowd, &c, 1);
			c.b->modify(c.q, c.ready->fd[0], LEVEL, false);
			make_ready(c.ready);
			level[i][n] = median_of(sample_level_in_crowd, &c,
						CALLS);
			drain(c.ready);
			c.b->del(c.q, c.ready->fd[0], false);
			if (sizes[n] != 1000)
				continue;
			for (m = 0; m < ARRAY_SIZE(changes); m++)
				change[i][m] = median_of(changes[m].sample, &c,
							 changes[m].per);
		}
		scene_free(c.ready);
		close(c.q);
	}
	for (n = 0; n < SIZES; n++) {
		row_begin(edge_names[n], "event");
		for (i = 0; i < ARRAY_SIZE(backends); i++)
			row_value(backends[i]->column, edge[i][n]);
		row_end();
	}
	for (n = 0; n < SIZES; n++) {
		row_begin(level_names[n], "event");
		for (i = 0; i < ARRAY_SIZE(backends); i++)
			row_value(backends[i]->column, level[i][n]);
		row_end();
	}
	for (m = 0; m < ARRAY_SIZE(changes); m++) {
		row_begin(changes[m].name, "socket");
		for (i = 0; i < ARRAY_SIZE(backends); i++)
			row_value(backends[i]->column, change[i][m]);
		row_end();
	}
	for (n = 0; n < CROWD; n++)
		close(c.fd[n]);
	for (n = 0; n < MAX_EVENTS; n++)
		close(c.many[n]);
	free(c.fd);
}

/* An echo of 64 bytes over TCP, both ends in one thread */

static uint64_t sample_echo(void *context)
{
	struct scene *s = context;
	char buf[64] = "";
	uint64_t begin = now_ns();
	int i, side;

	for (i = 0; i < CALLS; i++) {
		for (side = 0; side < 2; side++) {
			CHECK(send(s->fd[side], buf, 64, 0) == 64);
			if (s->b)
				CHECK(s->b->wait(s->q, 16, true) == 1);
			CHECK(recv(s->fd[!side], buf, 64, 0) == 64);
		}
	}
	return span(begin);
}

static double echo(const struct backend *b, enum mode mode)
{
	struct scene s = { .b = b, .nr = 2, .sock = true };
	double value;

	tcp_pair(s.fd);
	if (b) {
		s.q = b->open();
		b->add(s.q, s.fd[0], mode, true);
		b->add(s.q, s.fd[1], mode, true);
	}
	value = median_of(sample_echo, &s, CALLS);
	if (b)
		close(s.q);
	close(s.fd[0]);
	close(s.fd[1]);
	return value;
}

void echoes(void)
{
	size_t i;

	row_begin("TCP echo of 64 bytes, level", "round trip");
	row_value(OTHER_COLUMN, echo(NULL, LEVEL));
	for (i = 0; i < ARRAY_SIZE(backends); i++)
		row_value(backends[i]->column, echo(backends[i], LEVEL));
	row_end();
	row_begin("TCP echo of 64 bytes, edge", "round trip");
	row_value(OTHER_COLUMN, echo(NULL, EDGE));
	for (i = 0; i < ARRAY_SIZE(backends); i++)
		row_value(backends[i]->column, echo(backends[i], EDGE));
	row_end();
}
