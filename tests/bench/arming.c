// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Re-arming, timers and postings: whatever takes a call before each event.
 */
#include "scene.h"

#include <sys/timerfd.h>
#include <unistd.h>

static uint64_t sample_rearm(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns();

	s->b->rearm_many(s->q, s->fd, s->nr, s->sock);
	CHECK(s->b->wait(s->q, s->nr, true) == (int)s->nr);
	return span(begin);
}

static uint64_t sample_rearm_in_one_call(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns();

	CHECK(kevent_rearm_and_wait(s->q, s->fd, s->nr, s->sock) == 1);
	return span(begin);
}

static uint64_t sample_one_shot(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns();

	s->b->add(s->q, s->fd[0], ONE_SHOT, s->sock);
	CHECK(s->b->wait(s->q, 1, true) == 1);
	/* epoll only disables it */
	if (s->b == &epoll_backend)
		s->b->del(s->q, s->fd[0], s->sock);
	return span(begin);
}

void arming(void)
{
	static const char *const names[] = {
		"dispatch: re-arm and wait, 1 eventfd",
		"dispatch: re-arm and wait, 256 eventfds",
	};
	struct scene *s;
	size_t i, n;

	for (n = 0; n < 2; n++) {
		unsigned int nr = n ? 256 : 1;

		row_begin(names[n], "event");
		for (i = 0; i < ARRAY_SIZE(backends); i++) {
			s = scene_new(backends[i], nr, DISPATCH, false);
			make_ready(s);
			row_value(backends[i]->column,
				  median_of(sample_rearm, s, nr));
			scene_free(s);
		}
		row_end();
	}
	row_begin("dispatch: re-arm and wait in one call, 1 eventfd", "event");
	s = scene_new(&kevent_backend, 1, DISPATCH, false);
	make_ready(s);
	row_value(KEVENT_COLUMN, median_of(sample_rearm_in_one_call, s, 1));
	scene_free(s);
	row_end();

	row_begin("one-shot: add, wait and gone, 1 eventfd", "event");
	for (i = 0; i < ARRAY_SIZE(backends); i++) {
		s = scene_new(backends[i], 1, LEVEL, false);
		make_ready(s);
		backends[i]->del(s->q, s->fd[0], false);
		row_value(backends[i]->column,
			  median_of(sample_one_shot, s, 1));
		scene_free(s);
	}
	row_end();
}

/* Timers, and what threads tell one another */

/*
 * A timer of 1 ns takes the hardware a little longer, and a thread that slept
 * meanwhile would skip time.  So it works meanwhile, and that is taken off.
 */
static void work_meanwhile(void)
{
	volatile unsigned int i;

	for (i = 0; i < 20000; i++)
		;
}

static uint64_t sample_work(void *context)
{
	uint64_t begin = now_ns();

	(void)context;
	work_meanwhile();
	return span(begin);
}

static uint64_t sample_timer(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns();

	kevent_set_timer(s->q, 1, 1);
	work_meanwhile();
	CHECK(s->b->wait(s->q, 1, true) == 1);
	return span(begin);
}

static uint64_t sample_timerfd(void *context)
{
	struct scene *s = context;
	struct itimerspec in_1_ns = { .it_value.tv_nsec = 1 };
	uint64_t begin = now_ns(), value;

	CHECK(!timerfd_settime(s->fd[0], 0, &in_1_ns, NULL));
	work_meanwhile();
	CHECK(s->b->wait(s->q, 1, true) == 1);
	CHECK(read(s->fd[0], &value, sizeof(value)) == sizeof(value));
	return span(begin);
}

void timers(void)
{
	struct scene s = { .b = &kevent_backend, .q = queue_open(), .nr = 1 };
	double work = median_of(sample_work, NULL, 1);

	row_begin("timer: set, expire, wait (timerfd: and read)", "timer");
	CHECK_EQ(add_timer(s.q, 1, 3600 * NSEC_PER_SEC, 0, 0, 0), 0);
	row_value(KEVENT_COLUMN, median_of(sample_timer, &s, 1) - work);
	close(s.q);
	s.b = &epoll_backend;
	s.q = s.b->open();
	s.fd[0] = (int)SYS(timerfd_create(CLOCK_MONOTONIC, 0));
	s.b->add(s.q, s.fd[0], LEVEL, false);
	row_value(EPOLL_COLUMN, median_of(sample_timerfd, &s, 1) - work);
	close(s.q);
	close(s.fd[0]);
	row_end();
}

static uint64_t sample_post(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns();
	int i;

	for (i = 0; i < CALLS; i++) {
		kevent_post_one(s->q, 1);
		CHECK(s->b->wait(s->q, 1, true) == 1);
	}
	return span(begin);
}

static uint64_t sample_eventfd(void *context)
{
	struct scene *s = context;
	uint64_t begin = now_ns();
	int i;

	for (i = 0; i < CALLS; i++) {
		make_ready(s);
		CHECK(s->b->wait(s->q, 1, true) == 1);
		drain(s);
	}
	return span(begin);
}

void posts(void)
{
	struct scene kevent = { .b = &kevent_backend, .q = queue_open() };
	struct scene *epoll = scene_new(&epoll_backend, 1, LEVEL, false);

	row_begin("user event: post, wait (eventfd: write, wait, read)",
		  "event");
	CHECK_EQ(add_user(kevent.q, 1, 0, 0), 0);
	row_value(KEVENT_COLUMN, median_of(sample_post, &kevent, CALLS));
	row_value(EPOLL_COLUMN, median_of(sample_eventfd, epoll, CALLS));
	row_end();
	close(kevent.q);
	scene_free(epoll);
}
