// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The runner of the C tests, their checks, threads and processes; see lib.h for
 * the contract of each function, lib_queue.c for the device and lib_source.c
 * for what it watches.
 *
 * Every case runs in a process of its own, in a session of its own, so that a
 * case that crashes, hangs or leaves children behind ends alone.  A task that
 * does not die of SIGKILL is reported with its kernel stack and left there.
 */
#include "lib.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_SKIP	77
#define DEFAULT_LIMIT	60	/* seconds */
#define MOST_SCALE	10000.0

static uint64_t seed;

/* Shared with the cases, so that the runner can say it of one that hangs. */
static char *context;
#define CONTEXT_SIZE	256

/* Checks */

void test_context(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(context, CONTEXT_SIZE, fmt, args);
	va_end(args);
}

void test_log(const char *fmt, ...)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC), len;
	char text[256];
	va_list args;

	if (fd < 0)
		return;
	va_start(args, fmt);
	len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	(void)!dprintf(fd, "kevent-test: %.*s\n", len, text);
	close(fd);
}

static void show_context(void)
{
	if (context && *context)
		dprintf(STDERR_FILENO, "in %s:\n", context);
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	show_context();
	dprintf(STDERR_FILENO, "%s:%d: %s\n", file, line, text);
	_exit(EXIT_FAILURE);
}

void test_skip(const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	dprintf(STDERR_FILENO, "skipped: %s\n", text);
	_exit(EXIT_SKIP);
}

static const char *value_name(long long value)
{
	const char *name;

	if (value >= 0 || value < -4095)
		return "";
	name = strerrorname_np((int)-value);
	return name ? name : "";
}

void check_eq(long long got, long long want, const char *what,
	      const char *file, int line)
{
	if (got != want)
		test_fail(file, line, "%s is %lld %s, not %lld %s", what, got,
			  value_name(got), want, value_name(want));
}

long check_sys(long ret, const char *what, const char *file, int line)
{
	if (ret == -1)
		test_fail(file, line, "%s: %s", what, strerror(errno));
	return ret;
}

/* The runner */

static unsigned long env_number(const char *name, unsigned long otherwise)
{
	const char *text = getenv(name);
	char *end;
	unsigned long value;

	if (!text || !*text)
		return otherwise;
	value = strtoul(text, &end, 0);
	if (*end || !value) {
		fprintf(stderr, "%s=%s is not a positive number\n", name, text);
		exit(2);
	}
	return value;
}

/* What rounds are multiplied by: KEVENT_TEST_SCALE. */
static double scale = 1;

/* Before any case runs: one would do a single round where that is a mistake. */
static void read_scale(void)
{
	const char *text = getenv("KEVENT_TEST_SCALE");
	char *end;

	if (!text || !*text)
		return;
	scale = strtod(text, &end);
	/* neither NaN nor more rounds than can be counted */
	if (end == text || *end || !(scale > 0 && scale <= MOST_SCALE)) {
		fprintf(stderr, "KEVENT_TEST_SCALE=%s is not a number above 0, up to %g\n",
			text, MOST_SCALE);
		exit(2);
	}
}

unsigned int rounds(unsigned int base)
{
	double want = base * scale;

	return want < 1 ? 1 : (unsigned int)want;
}

static int remove_entry(const char *path, const struct stat *st, int type,
			struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* A case is the leader of its session, whose number names its directory. */
static void temp_name(char *path, size_t size, pid_t session)
{
	const char *dir = getenv("TMPDIR");

	snprintf(path, size, "%.80s/kevent-test-%d", dir ? dir : "/tmp",
		 session);
}

static void remove_temp(pid_t session)
{
	char path[128];

	temp_name(path, sizeof(path), session);
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static char temp_path[128];

static void make_temp(void)
{
	temp_name(temp_path, sizeof(temp_path), getsid(0));
	if (mkdir(temp_path, 0755) && errno != EEXIST)
		FAIL("%s: %s", temp_path, strerror(errno));
}

const char *temp_dir(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_temp);
	return temp_path;
}

static void show_file(const char *path)
{
	char text[4096];
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	while ((n = read(fd, text, sizeof(text))) > 0)
		if (write(STDERR_FILENO, text, n) != n)
			break;
	close(fd);
}

void test_show_tasks(pid_t pid)
{
	char path[64];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		int tid = atoi(entry->d_name);

		if (tid <= 0)
			continue;
		fprintf(stderr, "task %d: ", tid);
		snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
		show_file(path);
		snprintf(path, sizeof(path), "/proc/%d/task/%d/stack", pid, tid);
		show_file(path);
	}
	closedir(dir);
}

/* Until @pid ended, no longer than @limit ns: its status, or -1. */
static int reap(pid_t pid, uint64_t limit)
{
	uint64_t end = now_ns() + limit;
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };
	int status = -1;

	while (now_ns() < end) {
		uint64_t left = (end - now_ns()) / NSEC_PER_MSEC + 1;

		if (poll(&pfd, 1, (int)left) > 0 &&
		    waitpid(pid, &status, 0) == pid)
			break;
	}
	close(pidfd);
	return status;
}

static int run_case(const struct test_case *c)
{
	unsigned long limit = env_number("KEVENT_TEST_LIMIT", DEFAULT_LIMIT);
	int status;
	pid_t pid;

	if (limit < c->seconds)
		limit = c->seconds;
	fflush(NULL);
	*context = '\0';
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return EXIT_FAILURE;
	}
	if (!pid) {
		setsid();
		c->run();
		_exit(EXIT_SUCCESS);
	}
	status = reap(pid, limit * NSEC_PER_SEC);
	if (status == -1) {
		fprintf(stderr, "%s: no end after %lu s\n", c->name, limit);
		show_context();
		test_show_tasks(pid);
		kill(-pid, SIGKILL);
		if (reap(pid, 5 * NSEC_PER_SEC) == -1) {
			fprintf(stderr, "%s: SIGKILL did not end it\n",
				c->name);
			test_show_tasks(pid);
		}
		return EXIT_FAILURE;
	}
	kill(-pid, SIGKILL);
	remove_temp(pid);
	if (WIFSIGNALED(status)) {
		fprintf(stderr, "%s: killed by signal %d\n", c->name,
			WTERMSIG(status));
		return EXIT_FAILURE;
	}
	return WEXITSTATUS(status);
}

int test_main(int argc, char **argv, const struct test_case *cases, size_t nr)
{
	const char *given;
	int failed = 0;
	size_t i;

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (i = 0; i < nr; i++)
			puts(cases[i].name);
		return EXIT_SUCCESS;
	}
	read_scale();
	context = shared_memory(CONTEXT_SIZE);
	given = argc > 2 ? argv[2] : getenv("KEVENT_TEST_SEED");
	seed = given ? strtoull(given, NULL, 0) : now_ns();
	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	test_log("%s seed %llu", argv[0], (unsigned long long)seed);
	for (i = 0; i < nr; i++) {
		uint64_t begin = now_ns();
		int status;

		if (argc > 1 && strcmp(argv[1], cases[i].name))
			continue;
		status = run_case(&cases[i]);
		if (argc > 1)
			return status;
		printf("%s %s (%llu ms)\n", !status ? "ok" :
		       status == EXIT_SKIP ? "skip" : "FAILED", cases[i].name,
		       (unsigned long long)((now_ns() - begin) / NSEC_PER_MSEC));
		failed |= status && status != EXIT_SKIP;
	}
	if (argc > 1) {
		fprintf(stderr, "%s: no such case\n", argv[1]);
		return 2;
	}
	return failed;
}

uint64_t test_seed(void)
{
	return seed;
}

struct rnd rnd_stream(unsigned int stream)
{
	uint64_t z = seed + (stream + 1) * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return (struct rnd){ .state = (z ^ (z >> 31)) | 1 };
}

uint32_t rnd_below(struct rnd *rnd, uint32_t limit)
{
	rnd->state ^= rnd->state << 13;
	rnd->state ^= rnd->state >> 7;
	rnd->state ^= rnd->state << 17;
	return (uint32_t)(rnd->state >> 32) % limit;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Threads and processes */

pthread_t thread_start(void *(*fn)(void *), void *arg)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, fn, arg);

	CHECK_EQ(error, 0);
	return thread;
}

void *thread_join(pthread_t thread)
{
	void *value;

	CHECK_EQ(pthread_join(thread, &value), 0);
	return value;
}

pid_t thread_id(void)
{
	return (pid_t)syscall(SYS_gettid);
}

void wait_until_asleep(pid_t tid, long nr)
{
	uint64_t end = now_ns() + PATIENCE;
	char path[64], text[256];

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	for (;;) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

		if (fd >= 0)
			close(fd);
		if (n < 0 && errno != EINTR)
			FAIL("%s: %s", path, strerror(errno));
		text[n > 0 ? n : 0] = '\0';
		if (n > 0 && strncmp(text, "running", 7) &&
		    strtol(text, NULL, 10) == nr)
			return;
		if (now_ns() > end)
			FAIL("task %d never slept in call %ld: %s", tid, nr,
			     text);
		sched_yield();
	}
}

static char task_state(pid_t tid)
{
	char path[64], text[256] = "", *name_end;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	file = fopen(path, "re");
	if (!file)
		FAIL("%s: %s", path, strerror(errno));
	(void)!fgets(text, sizeof(text), file);
	fclose(file);
	name_end = strrchr(text, ')');
	return name_end && name_end[1] ? name_end[2] : '\0';
}

bool comes_into_state(pid_t tid, char state, uint64_t limit)
{
	uint64_t end = now_ns() + limit;

	while (task_state(tid) != state) {
		if (now_ns() > end)
			return false;
		sched_yield();
	}
	return true;
}

pid_t child_start(void (*fn)(void *), void *arg)
{
	pid_t pid = (pid_t)SYS(fork());

	if (!pid) {
		fn(arg);
		_exit(EXIT_SUCCESS);
	}
	return pid;
}

void child_join(pid_t pid)
{
	int status;

	CHECK_EQ(SYS(waitpid(pid, &status, 0)), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP)
		_exit(EXIT_SKIP);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		FAIL("child ended with status %#x", status);
}

void child_kill(pid_t pid)
{
	int status;

	SYS(kill(pid, SIGKILL));
	CHECK_EQ(SYS(waitpid(pid, &status, 0)), pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		FAIL("child ended before it was killed, status %#x", status);
}

void *shared_memory(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	CHECK(mem != MAP_FAILED);
	return mem;
}
