// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every pair of things that can happen to a queue, raced against each other.
 *
 *	f0 f1 (one side)  f2 f3 (the other)	fighters, two for each side
 *	         \  |      |  /
 *	w --->  queues 0 and 1  ---> sources, two of a kind
 *
 * A round begins at a barrier, w waiting on a queue; each fighter has some
 * turns with random pauses in between, and goes on while the other side is at
 * work.  When all have ended the referee looks: what is ready wakes w; what
 * holds is delivered; what was posted was delivered as often; what was added
 * was removed, told of its end, or is there; nothing removed or closed is heard
 * of again; nothing is charged, and no descriptor left, in the end.
 *
 * A case is one actor against itself and those after it.  All that is random
 * comes from the seed, the pair and the round.  KEVENT_PAIR may name a second
 * actor, as in the names of the cases: only that pair is fought then.  How many
 * were fought is noted in $KEVENT_RESULTS/pairs.txt.
 */
#include "pairs/pairs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

const char *const actor_names[NR_ACTORS] = {
	[ADD] = "add", [REMOVE] = "remove", [MODIFY] = "modify",
	[WAIT] = "wait", [POST] = "post", [CLOSE] = "close",
	[DUP_CLOSE] = "dup_and_close", [CLOSE_QUEUE] = "close_of_the_queue",
	[FORK_EXIT] = "fork_and_exit", [KILL_WAITER] = "kill_of_a_waiter",
	[UNMOUNT] = "unmount", [TIMER_EXPIRY] = "timer_expiry",
	[RESET] = "peer_reset", [PASS_QUEUE] = "passing_the_queue",
	[RMMOD] = "rmmod",
};

/* Rounds of a pair whose actors are cheap; and what makes one dear. */
#define ROUNDS		80
#define DEAR		(BIT(FORK_EXIT) | BIT(KILL_WAITER) | BIT(UNMOUNT))
/* Of the rounds against rmmod, every so many has no queue but the fighters'. */
#define TRANSIENT	16
/* Where something holds all the time: after so many WAITs others may run. */
#define PATIENT_TURNS	16

static unsigned int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static bool others_at_work(const struct member *m)
{
	return m->arena->running[!m->side] > 0;
}

static void fight(struct member *m)
{
	unsigned int most = actor_turns[m->arena->actor[m->side]], i;

	if (m->arena->transient && most > 4)
		most = 4;
	for (i = 0; i < most && (!i || others_at_work(m)); i++) {
		m->turns++;
		act(m);
	}
	m->arena->running[m->side]--;
}

/* The one that waits: for ever, or, where nobody can ring, in short naps. */
static void stand_by(struct member *m)
{
	struct arena *a = m->arena;
	int queue = (int)(a->round % QUEUES), q = QUEUE_BASE + queue, n;
	bool nap = a->queues_close;
	unsigned int turns = 0;

	if (a->transient)
		return;
	for (;; turns++) {
		n = take(a, &m->take, q, queue, 1, nap ? 300000 : FOREVER);
		m->turns++;
		if (n == -EBADF && nap)
			return;
		if (n < 0)
			FAIL("WAIT on queue %d gave %d", queue, n);
		if (check_take(a, &m->take) || (nap && a->stop))
			return;
		if (turns > PATIENT_TURNS)
			sched_yield();
	}
}

static void *crew_member(void *arg)
{
	struct member *m = arg;
	struct arena *a = m->arena;

	for (;;) {
		pthread_barrier_wait(&a->start);
		if (a->over)
			return NULL;
		if (m->nr < FIGHTERS)
			fight(m);
		else
			stand_by(m);
		sem_post(&a->done);
	}
}

static void join_crew(struct arena *a, unsigned int nr)
{
	struct timespec end;

	SYS(clock_gettime(CLOCK_MONOTONIC, &end));
	end.tv_sec += 2 * PATIENCE / NSEC_PER_SEC;
	while (nr) {
		if (!sem_clockwait(&a->done, CLOCK_MONOTONIC, &end)) {
			nr--;
		} else if (errno != EINTR) {
			test_show_tasks(getpid());
			FAIL("%u of the crew do not come back", nr);
		}
	}
}

/* Whatever is ready must wake the one that waits; then it is rung for. */
static void call_off(struct arena *a)
{
	struct member *w = &a->crew[FIGHTERS];
	int q = QUEUE_BASE + (int)(a->round % QUEUES);
	uint64_t end = now_ns() + PATIENCE;
	unsigned int turns = w->turns;

	a->stop = true;
	if (a->transient || a->queues_close)
		return;
	while (queue_info(q).ready && w->turns == turns) {
		if (now_ns() > end) {
			test_show_tasks(getpid());
			FAIL("a wake-up is lost: queue %d has %llu ready, and the one that waits sleeps",
			     q - QUEUE_BASE,
			     (unsigned long long)queue_info(q).ready);
		}
		sched_yield();
	}
	CHECK_EQ(post(q, BELL, 0), 0);
}

static void open_queue(unsigned int i)
{
	int q, fd = QUEUE_BASE + (int)i;

	if (is_open(fd))
		return;
	q = open_device_soon();
	SYS(dup3(q, fd, O_CLOEXEC));
	close(q);
	CHECK_EQ(add_user(fd, BELL, 0, BELL), 0);
	CHECK_EQ(add_user(fd, TALLY, 0, TALLY), 0);
}

static void choose_kinds(struct arena *a, struct rnd *rnd)
{
	uint32_t able[2] = {
		actor_kinds[a->actor[0]], actor_kinds[a->actor[1]],
	};
	unsigned int i;

	if (able[0] & able[1])
		able[0] = able[1] = able[0] & able[1];
	for (i = 0; i < 2; i++) {
		/* Nobody's own queue watches another one. */
		if (a->transient)
			able[i] &= ~BIT(QUEUE);
		do
			a->kind[i] = rnd_below(rnd, NR_KINDS);
		while (!(able[i] & BIT(a->kind[i])));
	}
	if (able[0] == able[1])
		a->kind[1] = a->kind[0];
	a->kinds = BIT(a->kind[0]) | BIT(a->kind[1]);
}

/* Something to tell, nothing, or whatever the last round has left. */
static void begin_source(struct arena *a, enum kind kind, unsigned int slot)
{
	struct member *referee = &a->crew[CREW];
	unsigned int how = rnd_below(&referee->rnd, 3);

	if (how)
		empty(kind, slot);
	if (how == 2)
		poke(a, referee, kind, slot);
}

/* So that there is something to be told of, whoever fights. */
static void stir(struct arena *a)
{
	struct member *referee = &a->crew[CREW];
	unsigned int i, n = rnd_below(&referee->rnd, 4);

	for (i = 0; i < n; i++) {
		enum kind kind = a->kind[rnd_below(&referee->rnd, 2)];

		if (a->transient && !(BIT(kind) & (WRITABLE | NAMES)))
			continue;
		poke(a, referee, kind,
		     rnd_below(&referee->rnd, slots_of(kind)));
		sched_yield();
	}
}

static void begin_round(struct arena *a, unsigned int stream)
{
	static const uint32_t spins[] = { 1, 100, 1000, 10000 };
	struct rnd *rnd = &a->crew[CREW].rnd;
	unsigned int i, slot;
	enum kind kind;

	for (i = 0; i <= CREW; i++)
		a->crew[i].rnd = rnd_stream(stream + i);
	for (i = 0; i < FIGHTERS; i++)
		a->victims[i].member.rnd = rnd_stream(stream + CREW + 1 + i);
	a->transient = has(a, RMMOD) && a->round % TRANSIENT == TRANSIENT - 1;
	a->spin = spins[rnd_below(rnd, ARRAY_SIZE(spins))];
	choose_kinds(a, rnd);
	a->files_close = has(a, CLOSE) || has(a, DUP_CLOSE);
	a->queues_close = !a->transient && (has(a, CLOSE_QUEUE) ||
		((a->kinds & BIT(QUEUE)) && a->files_close));
	a->may_unload = a->transient || has(a, CLOSE_QUEUE);
	for (i = 0; i < QUEUES; i++) {
		if (a->transient)
			close(QUEUE_BASE + (int)i);
		else
			open_queue(i);
	}
	make_sources(a);
	for (kind = 0; kind < NR_KINDS; kind++)
		for (slot = 0; slot < slots_of(kind); slot++)
			if (a->kinds & WRITABLE & BIT(kind))
				begin_source(a, kind, slot);
	a->running[0] = 0;
	a->running[1] = 0;
	a->stop = false;
	begin_watches(a);
	for (i = 0; i < FIGHTERS; i++) {
		a->running[a->crew[i].side]++;
		prepare(&a->crew[i]);
	}
}

static void check_nothing_charged(struct arena *a)
{
	unsigned int i, queues = 0;
	int witness = -1;

	if (a->may_unload && !module_is_loaded())
		CHECK_EQ(module_load(), 0);
	for (i = 0; i < QUEUES; i++) {
		if (!is_open(QUEUE_BASE + (int)i))
			continue;
		witness = QUEUE_BASE + (int)i;
		queues++;
	}
	if (witness >= 0) {
		wait_until_user_kevents(witness, queues * PERMANENT);
		return;
	}
	witness = open_device_soon();
	wait_until_user_kevents(witness, 0);
	close(witness);
}

static void fight_round(struct arena *a, unsigned int stream)
{
	test_context("%s against %s, round %u", actor_names[a->actor[0]],
		     actor_names[a->actor[1]], a->round);
	begin_round(a, stream);
	pthread_barrier_wait(&a->start);
	stir(a);
	join_crew(a, FIGHTERS);
	call_off(a);
	join_crew(a, 1);
	check_watches(a);
	check_nothing_charged(a);
}

static void enlist(struct arena *a)
{
	unsigned int i;

	for (i = 0; i <= CREW; i++) {
		struct member *m = &a->crew[i];

		m->arena = a;
		m->nr = i;
		/* The one that waits and the referee are on neither side. */
		m->side = i < FIGHTERS ? i / 2 : 2;
		m->own = -1;
		unix_pair(m->mail);
		if (i < FIGHTERS)
			a->victims[i].member = *m;
		if (i < CREW)
			m->thread = thread_start(crew_member, m);
	}
}

static void dismiss(struct arena *a)
{
	unsigned int i;

	a->over = true;
	pthread_barrier_wait(&a->start);
	for (i = 0; i <= CREW; i++) {
		if (i < CREW)
			thread_join(a->crew[i].thread);
		close(a->crew[i].mail[0]);
		close(a->crew[i].mail[1]);
	}
	for (i = 0; i < QUEUES; i++)
		close(QUEUE_BASE + (int)i);
	close_sources(a);
}

/* The number of rounds that were fought. */
static unsigned int fight_pair(struct arena *a, enum actor first,
			       enum actor second)
{
	unsigned int fds = count_fds(), slot, total = rounds(ROUNDS);
	unsigned int pair = first * NR_ACTORS + second;
	uint64_t begin = now_ns();
	int q = open_device_soon();
	enum kind kind;

	memset(a, 0, sizeof(*a));
	a->actor[0] = first;
	a->actor[1] = second;
	a->actors = BIT(first) | BIT(second);
	a->pinned = queue_info(q).pinned;
	need_feature(q, 0x1f);
	need_feature(q, KEVENT_FEATURE_NAIO);
	close(q);
	remember_pins();
	if (a->actors & DEAR)
		total = total / 4 + 1;
	for (kind = 0; kind < NR_KINDS; kind++)
		for (slot = 0; slot < SLOTS; slot++)
			a->spoilt[kind][slot] = true;
	CHECK_EQ(pthread_barrier_init(&a->start, NULL, CREW + 1), 0);
	SYS(sem_init(&a->done, 0, 0));
	test_log("pairs: %s against %s", actor_names[a->actor[0]],
		 actor_names[a->actor[1]]);
	enlist(a);
	for (a->round = 0; a->round < total; a->round++)
		fight_round(a, (pair << 16 | (a->round & 0xfff)) << 4);
	dismiss(a);
	check_nothing_charged(a);
	CHECK_EQ(count_fds(), fds);
	check_pins();
	dprintf(STDERR_FILENO, "%s against %s: %u rounds, %u events, %u unloads, %llu ms\n",
		actor_names[first], actor_names[second], total, a->delivered,
		a->unloads, (unsigned long long)((now_ns() - begin) /
						 NSEC_PER_MSEC));
	return total;
}

static void note_results(enum actor first, unsigned int pairs,
			 unsigned int fought)
{
	const char *results = getenv("KEVENT_RESULTS");
	char path[256], text[256];
	int fd, len;

	if (!results || !*results)
		return;
	snprintf(path, sizeof(path), "%.200s/pairs.txt", results);
	fd = (int)SYS(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
			   0644));
	len = snprintf(text, sizeof(text),
		       "actor=%s pairs=%u rounds=%u seed=%llu\n",
		       actor_names[first], pairs, fought,
		       (unsigned long long)test_seed());
	CHECK_EQ(SYS(write(fd, text, (size_t)len)), len);
	close(fd);
}

static void fight_all(void *arg)
{
	enum actor first = *(enum actor *)arg, second;
	struct arena *a = shared_memory(sizeof(*a));
	const char *only = getenv("KEVENT_PAIR");
	unsigned int pairs = 0, fought = 0;

	signal(SIGPIPE, SIG_IGN);
	raise_nofile(1024);
	/* What is mounted goes with the process, whatever happens. */
	SYS(unshare(CLONE_NEWNS));
	SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	temp_dir();
	for (second = first; second < NR_ACTORS; second++) {
		if (only && *only && strcmp(only, actor_names[second]))
			continue;
		fought += fight_pair(a, first, second);
		pairs++;
	}
	if (!pairs)
		FAIL("KEVENT_PAIR=%s is none of the pairs of this case", only);
	note_results(first, pairs, fought);
}

#define RACES(name, who)					\
	static void name(void)				\
	{						\
		enum actor first = who;		\
							\
		with_module_back(fight_all, &first);	\
	}

RACES(add_races_with_everything, ADD)
RACES(remove_races_with_everything, REMOVE)
RACES(modify_races_with_everything, MODIFY)
RACES(wait_races_with_everything, WAIT)
RACES(post_races_with_everything, POST)
RACES(close_races_with_everything, CLOSE)
RACES(dup_and_close_races_with_everything, DUP_CLOSE)
RACES(close_of_the_queue_races_with_everything, CLOSE_QUEUE)
RACES(fork_and_exit_races_with_everything, FORK_EXIT)
RACES(kill_of_a_waiter_races_with_everything, KILL_WAITER)
RACES(unmount_races_with_everything, UNMOUNT)
RACES(timer_expiry_races_with_everything, TIMER_EXPIRY)
RACES(peer_reset_races_with_everything, RESET)
RACES(passing_the_queue_races_with_everything, PASS_QUEUE)
RACES(rmmod_races_with_everything, RMMOD)

static const struct test_case cases[] = {
	LONG_TEST(add_races_with_everything, 240),
	LONG_TEST(remove_races_with_everything, 240),
	LONG_TEST(modify_races_with_everything, 240),
	LONG_TEST(wait_races_with_everything, 240),
	LONG_TEST(post_races_with_everything, 240),
	LONG_TEST(close_races_with_everything, 240),
	LONG_TEST(dup_and_close_races_with_everything, 240),
	LONG_TEST(close_of_the_queue_races_with_everything, 240),
	LONG_TEST(fork_and_exit_races_with_everything, 240),
	LONG_TEST(kill_of_a_waiter_races_with_everything, 240),
	LONG_TEST(unmount_races_with_everything, 240),
	LONG_TEST(timer_expiry_races_with_everything, 240),
	LONG_TEST(peer_reset_races_with_everything, 240),
	LONG_TEST(passing_the_queue_races_with_everything, 240),
	LONG_TEST(rmmod_races_with_everything, 240),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
