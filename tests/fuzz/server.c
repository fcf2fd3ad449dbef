// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The process that programs run in, one after the other: to fork for each would
 * take longer than to run it.  Its first thread is the first one of every
 * program, opens what that uses and closes it afterwards.
 *
 * Where threads of a program do not end by themselves, they are interrupted;
 * now and then, and where that is no help, the process ends with them in it.
 */
#include "fuzz.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long threads have once the first one has nothing to do. */
#define PATIENCE_OF_FIRST	(5 * NSEC_PER_MSEC)
/* How long they may take to leave when interrupted. */
#define PATIENCE_OF_SECOND	(200 * NSEC_PER_MSEC)

static const struct program *program;
static struct worker *workers;
static pthread_t threads[MAX_THREADS];
/* the number of the program that each thread is to run, or has run */
static volatile unsigned int begun[MAX_THREADS], ended[MAX_THREADS];
static volatile bool stop;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

void broken_promise(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vdprintf(STDERR_FILENO, fmt, args);
	va_end(args);
	dprintf(STDERR_FILENO, "\n");
	_exit(BROKEN_PROMISE);
}

static void run_calls(struct worker *w)
{
	unsigned int i;

	for (i = 0; i < program->nr && !stop; i++) {
		const struct call *c = &program->call[i];

		if (c->thread == w->index)
			call_types[c->type].run(w, c);
	}
	/* root again, whatever "user" made of us */
	syscall(SYS_setresuid, (uid_t)-1, 0, 0);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	unsigned int number = 0;

	cover_start(w->index);
	for (;;) {
		pthread_mutex_lock(&mutex);
		while (begun[w->index] == number)
			pthread_cond_wait(&cond, &mutex);
		number = begun[w->index];
		pthread_mutex_unlock(&mutex);
		run_calls(w);
		__atomic_store_n(&ended[w->index], number, __ATOMIC_RELEASE);
	}
	return NULL;
}

static bool all_ended(void)
{
	unsigned int i;

	for (i = 1; i < MAX_THREADS; i++)
		if (__atomic_load_n(&ended[i], __ATOMIC_ACQUIRE) != begun[i])
			return false;
	return true;
}

static bool wait_for_all(uint64_t patience, bool interrupt)
{
	uint64_t end = now_ns() + patience;
	unsigned int i;

	while (!all_ended()) {
		if (now_ns() > end)
			return false;
		for (i = 1; interrupt && i < MAX_THREADS; i++)
			if (ended[i] != begun[i])
				pthread_kill(threads[i], SIGUSR1);
		usleep(100);
	}
	return true;
}

static bool has_thread(unsigned int thread)
{
	unsigned int i;

	for (i = 0; i < program->nr; i++)
		if (program->call[i].thread == thread)
			return true;
	return false;
}

static void start(unsigned int thread)
{
	if (!threads[thread])
		threads[thread] = thread_start(worker_main, &workers[thread]);
	begun[thread]++;
}

/* False where some thread is still in the program. */
static bool run_one(bool leave)
{
	unsigned int i;

	stop = false;
	pool_prepare(program);
	pthread_mutex_lock(&mutex);
	for (i = 1; i < MAX_THREADS; i++)
		if (has_thread(i))
			start(i);
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);
	run_calls(&workers[0]);
	if (!wait_for_all(PATIENCE_OF_FIRST, false)) {
		if (leave)
			return false;
		stop = true;
		if (!wait_for_all(PATIENCE_OF_SECOND, true))
			return false;
	}
	pool_close();
	memory_restore();
	signals_end();
	return true;
}

void server_main(struct worker *shared_workers, const struct program *p, int go,
		 int done)
{
	unsigned int number;
	char byte;

	program = p;
	workers = shared_workers;
	cover_start(0);
	for (number = 1; read(go, &byte, 1) == 1; number++) {
		if (!run_one(number % 4 == 0) || write(done, &byte, 1) != 1)
			break;
	}
	_exit(0);
}
