// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kevent beside epoll (and io_uring where it does the same), in one boot:
 *
 *	wait_bench FILE		prints the rows and writes them to FILE as JSON
 *
 * Every row does the same work through each; see measure.h for what is counted.
 * "other" is the same without any waiting, or a bare system call.
 */
#include "scene.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

const struct backend *const backends[2] = {
	&kevent_backend, &epoll_backend,
};

struct scene *scene_new(const struct backend *b, unsigned int nr,
			enum mode mode, bool sock)
{
	struct scene *s = calloc(1, sizeof(*s));
	unsigned int i;

	CHECK(s);
	s->b = b;
	s->nr = nr;
	s->sock = sock;
	s->level = mode == LEVEL;
	s->q = b ? b->open() : -1;
	for (i = 0; i < nr; i++) {
		int pair[2];

		if (sock) {
			unix_pair(pair);
			s->fd[i] = pair[0];
			s->peer[i] = pair[1];
		} else {
			s->fd[i] = eventfd_new(0);
			s->peer[i] = s->fd[i];
		}
		if (b)
			b->add(s->q, s->fd[i], mode, sock);
	}
	return s;
}

void scene_free(struct scene *s)
{
	unsigned int i;

	if (s->q >= 0)
		close(s->q);
	for (i = 0; i < s->nr; i++) {
		close(s->fd[i]);
		if (s->sock)
			close(s->peer[i]);
	}
	free(s);
}

static const uint64_t one = 1;

void make_ready(const struct scene *s)
{
	unsigned int i;

	for (i = 0; i < s->nr; i++)
		CHECK(write(s->peer[i], &one, sizeof(one)) == sizeof(one));
}

void drain(const struct scene *s)
{
	unsigned int i;
	uint64_t value;

	for (i = 0; i < s->nr; i++)
		CHECK(read(s->fd[i], &value, sizeof(value)) == sizeof(value));
}

static uint64_t sample_getppid(void *context)
{
	uint64_t begin = now_ns();
	int i;

	(void)context;
	for (i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
	return span(begin);
}

static uint64_t sample_empty_ioctl(void *context)
{
	struct scene *s = context;
	struct kevent_batch none = { .count = 0 };
	uint64_t begin = now_ns();
	int i;

	for (i = 0; i < CALLS; i++)
		CHECK(!ioctl(s->q, KEVENT_IOC_ADD(0), &none));
	return span(begin);
}

static void bare_calls(void)
{
	struct scene *s = scene_new(&kevent_backend, 0, LEVEL, false);

	row_begin("a system call that does nothing: empty ADD, getppid", "call");
	row_value(KEVENT_COLUMN, median_of(sample_empty_ioctl, s, CALLS));
	row_value(OTHER_COLUMN, median_of(sample_getppid, s, CALLS));
	row_end();
	scene_free(s);
}

static void run(void)
{
	raise_nofile(CROWD + 4096);
	bare_calls();
	nothing_ready();
	deliver_level(false);
	deliver_level(true);
	deliver_edge(false, false);
	deliver_edge(true, false);
	deliver_edge(false, true);
	write_cost();
	arming();
	echoes();
	timers();
	posts();
	crowds();
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s FILE\n", argv[0]);
		return 2;
	}
	rows_head();
	run();
	rows_write(argv[1]);
	return 0;
}
