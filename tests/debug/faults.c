// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One change or one wait that fails at each of its points: for every way of
 * hanging a kevent on something, and every mode.
 *
 * A call that fails says ENOMEM or EFAULT, and the queue is as it was: the same
 * kevents in fdinfo, the same counts in INFO, and what was ready comes once.
 * The same call then works.
 */
#include "fault.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const uint32_t modes[] = {
	0, KEVENT_EDGE, KEVENT_ONESHOT, KEVENT_DISPATCH, KEVENT_DISABLED,
};

static struct queue_state before;

/* Whether a change has failed, and if so, as the manual page has it. */
static bool has_failed(const struct scene *s, const char *what,
		       const struct outcome *o, unsigned int nth)
{
	if (o->call == 1 && !o->result)
		return false;
	if (!o->used)
		FAIL("%s %s: %d, result %d, without a fault", what,
		     s->source->name, o->call, o->result);
	if (o->call == 0 && o->result == -ENOMEM)
		return true;
	if ((o->call == -EFAULT || o->call == -ENOMEM) &&
	    (o->result == NO_RESULT || o->result == -ECANCELED))
		return true;
	FAIL("%s %s %s, fault %u: %d, result %d", what, s->source->name,
	     mode_name(s->mode), nth, o->call, o->result);
}

/* Once more, without a fault. */
static void change_again(struct scene *s, unsigned int op)
{
	struct outcome o = scene_change(s, op, 0);

	if (o.call != 1 || o.result)
		FAIL("%s %s: after a failure, %d, result %d",
		     s->source->name, mode_name(s->mode), o.call, o.result);
}

static enum fault_end end_of(bool used, bool failed)
{
	return failed ? FAULT_FAILED : used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static enum fault_end add_round(void *arg, unsigned int nth)
{
	struct scene *s = arg;
	struct outcome o;
	bool failed;

	scene_begin(s);
	queue_state(s->q, &before);
	o = scene_change(s, KEVENT_OP_ADD, nth);
	failed = has_failed(s, "ADD", &o, nth);
	if (failed) {
		check_queue_state(s->q, &before, "ADD", nth);
		change_again(s, KEVENT_OP_ADD);
	}
	CHECK_EQ(queue_holds(s->q, COOKIE_FIRST), 1);
	scene_check(s);
	scene_end(s);
	return end_of(o.used, failed);
}

/* A queue with the kevent in it; a timer has expired by now. */
static void begin_added(struct scene *s)
{
	scene_begin(s);
	change_again(s, KEVENT_OP_ADD);
	if (s->source->type == KEVENT_TIMER)
		scene_make_ready(s);
	queue_state(s->q, &before);
}

static enum fault_end modify_one(struct scene *s, unsigned int nth, bool retry)
{
	struct outcome o;
	bool failed;

	begin_added(s);
	o = scene_change(s, KEVENT_OP_MODIFY, nth);
	failed = has_failed(s, "MODIFY", &o, nth);
	if (failed) {
		check_queue_state(s->q, &before, "MODIFY", nth);
		if (retry)
			change_again(s, KEVENT_OP_MODIFY);
	}
	s->which = !failed || retry;
	CHECK_EQ(queue_holds(s->q, COOKIE_SECOND), s->which);
	scene_check(s);
	scene_end(s);
	return end_of(o.used, failed);
}

static enum fault_end modify_round(void *arg, unsigned int nth)
{
	return modify_one(arg, nth, true);
}

static enum fault_end modify_once_round(void *arg, unsigned int nth)
{
	return modify_one(arg, nth, false);
}

static enum fault_end remove_one(struct scene *s, unsigned int nth, bool retry)
{
	struct kevent_event ev;
	struct outcome o;
	bool failed;

	begin_added(s);
	o = scene_change(s, KEVENT_OP_REMOVE, nth);
	failed = has_failed(s, "REMOVE", &o, nth);
	if (failed)
		check_queue_state(s->q, &before, "REMOVE", nth);
	if (failed && !retry) {
		scene_check(s);
	} else {
		if (failed)
			change_again(s, KEVENT_OP_REMOVE);
		if (s->source->type != KEVENT_USER)
			s->source->ready(s);
		CHECK_EQ(wait_events(s->q, &ev, 1, 1, PATIENCE), 1);
		CHECK_EQ(ev.cookie, COOKIE_READY);
		check_silent(s->q);
		CHECK_EQ(queue_info(s->q).kevents, 1);
		s->source->drain(s);
	}
	scene_end(s);
	return end_of(o.used, failed);
}

static enum fault_end remove_round(void *arg, unsigned int nth)
{
	return remove_one(arg, nth, true);
}

static enum fault_end remove_once_round(void *arg, unsigned int nth)
{
	return remove_one(arg, nth, false);
}

#define ROOM	(2 * KEVENT_EVENT_RECORDS)

static int count_events(const struct kevent_event *ev, uint32_t records)
{
	uint32_t i;
	int nr = 0;

	for (i = 0; i < records; i++, nr++)
		if (ev[i].flags & KEVENT_EVENT_NAME)
			i += KEVENT_NAME_RECORDS(ev[i].data);
	CHECK_EQ(i, records);
	return nr;
}

/* WAIT, or read(2), under a fault, and what is left to another WAIT. */
static enum fault_end wait_one(struct scene *s, unsigned int nth, bool by_read)
{
	static struct {
		struct kevent_wait head;
		struct kevent_event ev[2 * ROOM];
	} arg;
	int want = s->mode == KEVENT_DISABLED ? 1 : 2, got, rest = 0;
	uint32_t records;
	bool used, failed;

	scene_begin(s);
	change_again(s, KEVENT_OP_ADD);
	scene_make_ready(s);
	queue_state(s->q, &before);
	memset(&arg, 0, sizeof(arg));
	arg.head = (struct kevent_wait){
		.min = (uint32_t)want, .max = ROOM, .timeout = PATIENCE,
		.clock = CLOCK_MONOTONIC,
	};
	fault_arm(nth);
	if (by_read)
		got = (int)read(s->q, arg.ev, ROOM * sizeof(*arg.ev));
	else
		got = ioctl(s->q, KEVENT_IOC_WAIT(ROOM), &arg);
	if (got < 0)
		got = -errno;
	used = fault_disarm();
	failed = got < 0;
	records = arg.head.records;
	if (failed) {
		if (!used || (got != -EFAULT && got != -ENOMEM))
			FAIL("WAIT %s, fault %u: %d", s->source->name, nth,
			     got);
		check_queue_state(s->q, &before, "WAIT", nth);
		got = 0;
		records = 0;
	} else if (by_read) {
		records = (uint32_t)got / sizeof(*arg.ev);
		got = count_events(arg.ev, records);
	}
	if (got < want)
		rest = wait_events(s->q, arg.ev + records, ROOM, 1, PATIENCE);
	CHECK(rest >= 0);
	scene_check_events(s, arg.ev, got + rest);
	scene_check_rest(s);
	scene_end(s);
	return end_of(used, failed || got < want);
}

static enum fault_end wait_round(void *arg, unsigned int nth)
{
	return wait_one(arg, nth, false);
}

static enum fault_end read_round(void *arg, unsigned int nth)
{
	return wait_one(arg, nth, true);
}

/* ADD and a WAIT in one call, which has at least what was ready to bring. */
static enum fault_end change_wait_round(void *arg, unsigned int nth)
{
	static struct {
		struct kevent_wait head;
		struct kevent_request req;
		struct kevent_event ev[2 * ROOM];
	} call;
	struct scene *s = arg;
	int got, rest = 0, want = s->mode == KEVENT_DISABLED ? 1 : 2;
	struct outcome o = { 0 };
	uint32_t records;
	bool failed;

	scene_begin(s);
	queue_state(s->q, &before);
	memset(&call, 0, sizeof(call));
	call.head = (struct kevent_wait){
		.nr_changes = 1, .changed = NO_RESULT, .min = 1, .max = ROOM,
		.timeout = PATIENCE, .clock = CLOCK_MONOTONIC,
	};
	call.req = scene_request(s, KEVENT_OP_ADD);
	call.req.op = KEVENT_OP_ADD;
	fault_arm(nth);
	got = ioctl(s->q, KEVENT_IOC_CHANGE_WAIT(1, ROOM), &call);
	if (got < 0)
		got = -errno;
	o.used = fault_disarm();
	o.result = call.req.result;
	o.call = got < 0 ? got : !o.result;
	failed = has_failed(s, "CHANGE_WAIT", &o, nth);
	if (got < 0) {
		check_queue_state(s->q, &before, "CHANGE_WAIT", nth);
		got = 0;
	} else {
		CHECK_EQ(call.head.changed, !failed);
	}
	records = got ? call.head.records : 0;
	if (failed)
		change_again(s, KEVENT_OP_ADD);
	/* a timer may have been in time for the call itself */
	if (got < 2) {
		s->source->ready(s);
		rest = wait_events(s->q, call.ev + records, ROOM,
				   (uint32_t)(want - got), PATIENCE);
	}
	CHECK(rest >= 0);
	scene_check_events(s, call.ev, got + rest);
	scene_check_rest(s);
	scene_end(s);
	return end_of(o.used, failed);
}

/* A path is added by a call of its own. */
static bool is_possible(const struct source *source,
			enum fault_end (*round)(void *, unsigned int))
{
	return round != change_wait_round || source->type != KEVENT_PATH;
}

static void sweep(const char *what,
		  enum fault_end (*round)(void *, unsigned int),
		  const struct source *source, uint32_t mode)
{
	struct scene scene;
	char name[96];

	scene_open(&scene, source, mode);
	snprintf(name, sizeof(name), "%s/%s/%s", what, source->name,
		 mode_name(mode));
	fault_sweep(name, round, &scene);
	scene_close(&scene);
}

/* All sources in all modes; nothing is left of them afterwards. */
static void sweep_all(const char *what,
		      enum fault_end (*round)(void *, unsigned int))
{
	struct fault_leaks leaks;
	size_t i, m;

	leaks_begin(&leaks);
	for (i = 0; i < nr_sources; i++)
		for (m = 0; is_possible(&sources[i], round) &&
		     m < ARRAY_SIZE(modes); m++)
			sweep(what, round, &sources[i], modes[m]);
	leaks_end(&leaks);
}

/*
 * The same where the call does not care for the mode: one mode for each, out of
 * the first @nr_modes.
 */
static void sweep_each(const char *what,
		       enum fault_end (*round)(void *, unsigned int),
		       size_t nr_modes)
{
	struct fault_leaks leaks;
	size_t i;

	leaks_begin(&leaks);
	for (i = 0; i < nr_sources; i++)
		sweep(what, round, &sources[i], modes[i % nr_modes]);
	leaks_end(&leaks);
}

static void an_add_that_fails_leaves_the_queue_as_it_was(void)
{
	sweep_all("add", add_round);
}

static void a_modify_that_fails_works_when_it_is_tried_again(void)
{
	sweep_all("modify", modify_round);
}

static void a_modify_that_fails_leaves_the_kevent_as_it_was(void)
{
	sweep_each("modify-once", modify_once_round, ARRAY_SIZE(modes));
}

static void a_remove_that_fails_works_when_it_is_tried_again(void)
{
	sweep_each("remove", remove_round, ARRAY_SIZE(modes));
}

static void a_remove_that_fails_leaves_the_kevent_as_it_was(void)
{
	sweep_each("remove-once", remove_once_round, ARRAY_SIZE(modes));
}

static void a_wait_that_fails_loses_no_event(void)
{
	sweep_all("wait", wait_round);
}

static void a_read_that_fails_loses_no_event(void)
{
	/* of what is disabled, which is the last, there is nothing to read */
	sweep_each("read", read_round, ARRAY_SIZE(modes) - 1);
}

static void a_change_and_wait_that_fails_says_how_far_it_came(void)
{
	sweep_all("change-wait", change_wait_round);
}

static const struct test_case cases[] = {
	LONG_TEST(an_add_that_fails_leaves_the_queue_as_it_was, 900),
	LONG_TEST(a_modify_that_fails_works_when_it_is_tried_again, 900),
	LONG_TEST(a_modify_that_fails_leaves_the_kevent_as_it_was, 900),
	LONG_TEST(a_remove_that_fails_works_when_it_is_tried_again, 900),
	LONG_TEST(a_remove_that_fails_leaves_the_kevent_as_it_was, 900),
	LONG_TEST(a_wait_that_fails_loses_no_event, 900),
	LONG_TEST(a_read_that_fails_loses_no_event, 900),
	LONG_TEST(a_change_and_wait_that_fails_says_how_far_it_came, 900),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
