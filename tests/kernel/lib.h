/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the C tests share: named cases run one per process under a time limit,
 * checks that say what was seen, and one-line forms of the device's ioctls.
 *
 *	program			every case, one line each
 *	program --list		the names of the cases
 *	program NAME [SEED]	that case; ends 0 (passed), 77 (skipped) or 1
 *
 * Environment: KEVENT_DEVICE (/dev/kevent), KEVENT_TEST_SCALE multiplies the
 * rounds of the races, KEVENT_TEST_SEED is SEED, KEVENT_TEST_LIMIT is the limit
 * of one case in seconds (60; long ones have more).
 */
#ifndef KEVENT_TESTS_LIB_H
#define KEVENT_TESTS_LIB_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "../../chardev/kevent_uapi.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define FOREVER		KEVENT_WAIT_FOREVER
#define NSEC_PER_MSEC	1000000ULL
#define NSEC_PER_SEC	1000000000ULL
/* How long a condition that must come may take before the test fails. */
#define PATIENCE	(20 * NSEC_PER_SEC)

/* A case proves the sentence that is its name. */
struct test_case {
	const char *name;
	void (*run)(void);
	unsigned int seconds;	/* where it needs more than the usual limit */
};

#define TEST(fn)	{ #fn, fn, 0 }
#define LONG_TEST(fn, seconds)	{ #fn, fn, seconds }

int test_main(int argc, char **argv, const struct test_case *cases, size_t nr);

/* Checks.  A failed one ends the whole process, from whatever thread. */
void test_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 3, 4)));
void test_skip(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));
/* What is being done, to be said with a failure or when the time is up. */
void test_context(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));
/* The same for whoever reads the kernel's log after a crash, where we may write there. */
void test_log(const char *fmt, ...)
	__attribute__((format(printf, 1, 2)));
/* Where each thread of process @pid is, on stderr. */
void test_show_tasks(pid_t pid);
void check_eq(long long got, long long want, const char *what,
	      const char *file, int line);
long check_sys(long ret, const char *what, const char *file, int line);

#define CHECK(cond)							\
	do {								\
		if (!(cond))						\
			test_fail(__FILE__, __LINE__, "not so: %s", #cond); \
	} while (0)
#define CHECK_EQ(expr, want)						\
	check_eq((long long)(expr), (long long)(want), #expr, __FILE__, __LINE__)
/* A system call that cannot fail here; gives its value. */
#define SYS(expr)	check_sys((long)(expr), #expr, __FILE__, __LINE__)
#define FAIL(...)	test_fail(__FILE__, __LINE__, __VA_ARGS__)

/* Rounds of a race: @base times KEVENT_TEST_SCALE, at least one. */
unsigned int rounds(unsigned int base);

/* Random numbers that the printed seed brings back, one stream a thread. */
struct rnd {
	uint64_t state;
};

struct rnd rnd_stream(unsigned int stream);
uint64_t test_seed(void);
uint32_t rnd_below(struct rnd *rnd, uint32_t limit);

uint64_t now_ns(void);

/* The device.  Calls give what the ioctl gives, or -errno. */
const char *device_path(void);
int queue_open(void);
struct kevent_info queue_info(int q);
/* Skips the case where the module was built without that feature. */
void need_feature(int q, uint32_t feature);
/* Until nothing is left to this user, or fails: queues are gone for good. */
void wait_until_user_kevents(int q, uint64_t want);

struct kevent_request request(uint16_t type, uint64_t ident, uint32_t events,
			      uint32_t flags, uint64_t cookie);
struct kevent_request timer_request(uint64_t ident, uint64_t value,
				    uint64_t interval, uint32_t flags,
				    uint64_t cookie);
/* A transfer by socket @fd; its cookie is @ident. */
struct kevent_request naio_request(uint64_t ident, uint32_t events,
				   uint32_t flags, const void *buffer,
				   size_t length, int fd);
/* One request through ADD, MODIFY or REMOVE (@nr): 0 or -errno. */
int change(int q, unsigned int nr, struct kevent_request req);
int add(int q, uint16_t type, uint64_t ident, uint32_t events, uint32_t flags,
	uint64_t cookie);
int modify(int q, uint16_t type, uint64_t ident, uint32_t events,
	   uint32_t flags, uint64_t cookie);
int remove_kevent(int q, uint16_t type, uint64_t ident, uint32_t flags);
int add_user(int q, uint64_t ident, uint32_t flags, uint64_t cookie);
int add_timer(int q, uint64_t ident, uint64_t value, uint64_t interval,
	      uint32_t flags, uint64_t cookie);
int add_path(int q, uint64_t ident, const char *path, uint32_t events,
	     uint32_t flags, uint64_t cookie);
int post(int q, uint64_t ident, uint64_t data);
/* At most KEVENT_MAX_RECORDS records; gives the number of events. */
int wait_events(int q, struct kevent_event *ev, uint32_t max, uint32_t min,
		uint64_t timeout);
/* Nothing is ready: a WAIT that does not wait brings nothing. */
void check_silent(int q);
/* Whether poll(2) says so of a queue, or another file, within @limit ns. */
bool readable(int fd, uint64_t limit);

/* What a queue is like, as far as it can be seen without a change. */
struct queue_state {
	uint64_t kevents;
	uint64_t ready;
	uint64_t user_kevents;
	char fdinfo[8192];
};

void queue_state(int q, struct queue_state *state);
void check_queue_state(int q, const struct queue_state *want, const char *when,
		       unsigned int round);
/* How many kevents of a queue carry @cookie. */
unsigned int queue_holds(int q, uint64_t cookie);

/* Threads and processes. */
pthread_t thread_start(void *(*fn)(void *), void *arg);
void *thread_join(pthread_t thread);
pid_t thread_id(void);
/* Until the thread, or process, @tid sleeps inside system call @nr. */
void wait_until_asleep(pid_t tid, long nr);
/* The same of its @state in /proc/PID/stat: false where that does not come within @limit ns. */
bool comes_into_state(pid_t tid, char state, uint64_t limit);
/* Runs @fn in a child that ends with 0 unless a check failed there. */
pid_t child_start(void (*fn)(void *), void *arg);
void child_join(pid_t pid);
void child_kill(pid_t pid);
void *shared_memory(size_t size);

/* Memory.  Two pages in a row, whose protection the caller may change. */
#define PAGE	4096UL
char *two_pages(void);
/* Room for @size bytes, at most a page, right behind which is nothing. */
void *before_nothing(size_t size);

/* A page that is missing: who touches it is stuck until the test lets it come. */
struct slow_page {
	char *at;		/* memory that is there lies before it */
	int uffd;
};

void slow_page_new(struct slow_page *slow);
/* Until somebody has touched it. */
void slow_page_wait(const struct slow_page *slow);
void slow_page_come(const struct slow_page *slow);
/* The copy fails instead: there is a page no more, as far as it can see. */
void slow_page_fail(const struct slow_page *slow);

/* Keeps the mutex of an epoll, which the close of what that watches takes. */
struct keeper {
	int e;
	struct slow_page page;
	pthread_t thread;
};

/* Until the close of @fd, which has something to read, does not end. */
void keeper_start(struct keeper *k, int fd);
void keeper_end(struct keeper *k);

/* A WAIT that gets stuck writing its result. */
struct slow_wait {
	int q;
	struct slow_page page;
	unsigned int before;	/* records that have room before the page */
	struct kevent_wait *head;
	int ret;
};

/* The header, and @before records, end where a missing page begins. */
void slow_wait_prepare(struct slow_wait *s, uint32_t max);
/* Of a thread. */
void *slow_wait_run(void *arg);
struct kevent_event *slow_wait_events(const struct slow_wait *s);

/* Pages of the whole machine that are pinned: false where they are not counted. */
bool pins(long long *pinned);
/* Skips the case there. */
void remember_pins(void);
/* No more are pinned than before; others may have some for a moment. */
void check_pins(void);
/* Pages that are charged to process @pid; 0 where it has ended. */
unsigned long pinned_by(pid_t pid);

/*
 * The argument of an ioctl across two pages, of which one is bad: which part
 * of it, and how.
 */
struct cut {
	size_t off;
	bool head;	/* what is before @off, else what is behind it */
	int prot;	/* PROT_NONE or PROT_READ */
};

#define TOUCH_WRITES	8

/* What an ioctl touches before anything happens. */
struct touch {
	size_t size;		/* is read, up to here */
	size_t writes[TOUCH_WRITES];	/* these 32-bit fields are written */
	bool all;		/* or all of it */
};

/* One after the other, @i from 0 on, for an argument of @size: or false. */
bool cut_next(struct cut *cut, unsigned int i, size_t size);
const char *cut_name(const struct cut *cut);
/* A copy of @size bytes of @arg, cut so; the one before is gone. */
void *cut_place(const struct cut *cut, const void *arg, size_t size);
/* What is left there, also where it cannot be read any more. */
void cut_look_back(const struct cut *cut, void *at, void *arg, size_t size);
/* Whether an ioctl has to be refused at once. */
bool cut_refuses(const struct cut *cut, const struct touch *touch);

/* Things to watch. */
void loopback_up(void);
/* A listening TCP socket on the loopback, its port through @port. */
int tcp_listen(uint16_t *port);
int tcp_connect(uint16_t port);
void tcp_pair(int fd[2]);
/* The same where little that fd[0] sends fits, until it is received. */
#define NARROW 8192
void narrow_tcp_pair(int fd[2]);
void unix_pair(int fd[2]);
/* A pty without a controlling process; raw, non-blocking. */
void pty_pair(int *master, int *slave);
int eventfd_new(unsigned int value);
void eventfd_write_one(int fd);
/* A directory of its own, removed with what is in it when the case ends. */
const char *temp_dir(void);
void send_fd(int sock, int fd);
/* 0 or -errno, where @fd may be closed meanwhile. */
int try_send_fd(int sock, int fd);
int recv_fd(int sock);
void raise_nofile(unsigned int want);
void need_root(void);

/* One parameter of the loaded module. */
uint64_t parameter_get(const char *name);
void parameter_set(const char *name, uint64_t value);

/*
 * The module itself, by $KEVENT_MODULE; root only.  @fn runs in a process of
 * its own, and the module is back, with the parameters it had, whatever it did.
 */
void with_module_back(void (*fn)(void *), void *arg);
bool module_is_loaded(void);
/* 0 or -errno; @with are parameters: name=value, a blank between two. */
int module_load_fd(int fd, const char *with);
int module_load_file(const char *path, const char *with);
int module_load(void);
int module_unload(void);
/* The last close may still be under way in another context. */
void module_unload_soon(void);
/* The device file goes and comes in its own time, through devtmpfs. */
int open_device_soon(void);
void check_module_gone(void);

#endif /* KEVENT_TESTS_LIB_H */
