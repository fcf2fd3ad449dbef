// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Waiters that are killed, and for whom there is an event before they notice.
 *
 *	v0  v1  v2  v3  <-- SIGKILL, and on no CPU since then
 *	  \  |   |  /
 *	      q  <--- POST, POST, POST, POST
 *	      |
 *	      s		slept behind them, and lives
 *
 * All are bound to one CPU, which main does not leave between the first kill
 * and the last posting.  Each posting is a wake-up for one of the dying; they
 * hand it on, and take nothing: what would be copied to them, nobody reads.
 */
#include "lib.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define VICTIMS	4
#define ROOM	4	/* events of one call */

struct victim {
	int q;
	bool reads;		/* by read(2), else by WAIT */
	uint32_t min;
	struct kevent_wait head;
	struct kevent_event ev[ROOM];
};

struct survivor {
	int q;
	_Atomic pid_t tid;
	unsigned int want;
	unsigned int seen[VICTIMS];
};

static void bind_to_one_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	CHECK(cpu >= 0);
	CPU_ZERO(&set);
	CPU_SET((unsigned int)cpu, &set);
	SYS(sched_setaffinity(0, sizeof(set), &set));
}

/* Of the calling thread: none of the others runs on its CPU meanwhile. */
static void keep_the_cpu(bool keep)
{
	struct sched_param param = { .sched_priority = keep ? 1 : 0 };

	SYS(sched_setscheduler(0, keep ? SCHED_FIFO : SCHED_OTHER, &param));
}

/* Its memory is shared, so that the parent sees what it was given. */
static void wait_to_be_killed(void *arg)
{
	struct victim *v = arg;

	v->head = (struct kevent_wait){
		.min = v->min, .max = ROOM, .timeout = FOREVER,
		.clock = CLOCK_MONOTONIC,
	};
	if (v->reads)
		SYS(read(v->q, v->ev, sizeof(v->ev)));
	else
		SYS(ioctl(v->q, KEVENT_IOC_WAIT(ROOM), &v->head));
}

static void *take_what_is_left(void *arg)
{
	struct survivor *s = arg;
	struct kevent_event ev;
	unsigned int i;

	s->tid = thread_id();
	for (i = 0; i < s->want; i++) {
		CHECK_EQ(wait_events(s->q, &ev, 1, 1, PATIENCE), 1);
		CHECK(ev.data < VICTIMS);
		CHECK_EQ(ev.count, 1);
		s->seen[ev.data]++;
	}
	return NULL;
}

static void start_survivor(struct survivor *s, pthread_t *thread)
{
	*thread = thread_start(take_what_is_left, s);
	while (!s->tid)
		sched_yield();
	wait_until_asleep(s->tid, SYS_ioctl);
}

static void kill_all_and_post(int q, const pid_t pid[VICTIMS], uint32_t flags)
{
	unsigned int i;

	for (i = 0; i < VICTIMS; i++)
		CHECK_EQ(add_user(q, i, flags, i), 0);
	keep_the_cpu(true);
	for (i = 0; i < VICTIMS; i++)
		SYS(kill(pid[i], SIGKILL));
	for (i = 0; i < VICTIMS; i++)
		CHECK_EQ(post(q, i, i), 0);
	keep_the_cpu(false);
}

static void check_took_nothing(const struct victim *v)
{
	static const struct kevent_event nothing[ROOM];

	CHECK_EQ(v->head.records, 0);
	CHECK(!memcmp(v->ev, nothing, sizeof(nothing)));
}

static void one_round(int q, bool reads, uint32_t min, uint32_t flags)
{
	struct survivor s = { .q = q, .want = VICTIMS };
	struct victim *v[VICTIMS];
	pid_t pid[VICTIMS];
	pthread_t thread;
	unsigned int i;

	test_context("%s, min %u, flags %#x", reads ? "read" : "WAIT", min,
		     flags);
	for (i = 0; i < VICTIMS; i++) {
		v[i] = shared_memory(sizeof(*v[i]));
		*v[i] = (struct victim){ .q = q, .reads = reads, .min = min };
		pid[i] = child_start(wait_to_be_killed, v[i]);
		wait_until_asleep(pid[i], reads ? SYS_read : SYS_ioctl);
	}
	start_survivor(&s, &thread);
	kill_all_and_post(q, pid, flags);
	for (i = 0; i < VICTIMS; i++) {
		int status;

		CHECK_EQ(SYS(waitpid(pid[i], &status, 0)), pid[i]);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		check_took_nothing(v[i]);
	}
	thread_join(thread);
	for (i = 0; i < VICTIMS; i++) {
		CHECK_EQ(s.seen[i], 1);
		CHECK_EQ(remove_kevent(q, KEVENT_USER, i, 0),
			 flags & KEVENT_ONESHOT ? -ENOENT : 0);
	}
	check_silent(q);
}

static void the_dying_take_no_event_and_hand_their_wakeups_on(void)
{
	static const uint32_t modes[] = {
		0, KEVENT_ONESHOT, KEVENT_DISPATCH,
	};
	int q = queue_open();
	size_t i;

	need_feature(q, KEVENT_FEATURE_USER);
	need_root();
	bind_to_one_cpu();
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		one_round(q, false, 1, modes[i]);
		one_round(q, false, ROOM, modes[i]);
		one_round(q, true, 1, modes[i]);
	}
}

static const struct test_case cases[] = {
	TEST(the_dying_take_no_event_and_hand_their_wakeups_on),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
