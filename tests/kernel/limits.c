// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How many: limits for a queue and for a user, and a hundred thousand kevents
 * in one queue, which must cost each no more than the first ones did.
 *
 * Limits are the module's parameters, changed by root while it runs; they are
 * put back whatever a case did.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define QUEUE_LIMIT	"max_queue_kevents"
#define USER_LIMIT	"max_user_kevents"
#define NOBODY		65534

static void with_limits_back(void (*fn)(void *))
{
	uint64_t queue, user;
	int status;
	pid_t pid;

	need_root();
	close(queue_open());
	queue = parameter_get(QUEUE_LIMIT);
	user = parameter_get(USER_LIMIT);
	pid = child_start(fn, NULL);
	SYS(waitpid(pid, &status, 0));
	parameter_set(QUEUE_LIMIT, queue);
	parameter_set(USER_LIMIT, user);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		exit(77);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		FAIL("ended with status %#x", status);
}

static void fill_queue(void *arg)
{
	int q, other, i;

	(void)arg;
	parameter_set(QUEUE_LIMIT, 10);
	q = queue_open();
	other = queue_open();
	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(queue_info(q).max_queue, 10);
	for (i = 0; i < 10; i++)
		CHECK_EQ(add_user(q, i, 0, 0), 0);
	CHECK_EQ(add_user(q, 10, 0, 0), -ENOSPC);
	CHECK_EQ(add_user(q, 9, 0, 0), -EEXIST);
	CHECK_EQ(add_user(other, 10, 0, 0), 0);
	CHECK_EQ(remove_kevent(q, KEVENT_USER, 3, 0), 0);
	CHECK_EQ(add_user(q, 10, 0, 0), 0);
	CHECK_EQ(add_user(q, 11, 0, 0), -ENOSPC);
	/* A one-shot that was delivered makes room as well. */
	CHECK_EQ(remove_kevent(q, KEVENT_USER, 10, 0), 0);
	CHECK_EQ(add_user(q, 11, KEVENT_ONESHOT, 0), 0);
	CHECK_EQ(post(q, 11, 0), 0);
	{
		struct kevent_event ev;

		CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	}
	CHECK_EQ(add_user(q, 12, 0, 0), 0);
	CHECK_EQ(add_user(q, 13, 0, 0), -ENOSPC);
	CHECK_EQ(queue_info(q).kevents, 10);
}

static void a_queue_holds_as_many_kevents_as_its_limit(void)
{
	with_limits_back(fill_queue);
}

static void fill_as_nobody(void *arg)
{
	int want = *(int *)arg, q[2], i;

	SYS(setgid(NOBODY));
	SYS(setuid(NOBODY));
	q[0] = queue_open();
	q[1] = queue_open();
	CHECK_EQ(queue_info(q[0]).user_kevents, 0);
	for (i = 0; i < want; i++)
		CHECK_EQ(add_user(q[i & 1], i, 0, 0), 0);
	CHECK_EQ(queue_info(q[0]).user_kevents, want);
	CHECK_EQ(queue_info(q[0]).kevents, (want + 1) / 2);
	CHECK_EQ(add_user(q[0], want, 0, 0), -ENOSPC);
	CHECK_EQ(add_user(q[1], want, 0, 0), -ENOSPC);
	CHECK_EQ(remove_kevent(q[1], KEVENT_USER, 1, 0), 0);
	CHECK_EQ(add_user(q[0], want, 0, 0), 0);
	CHECK_EQ(add_user(q[1], want, 0, 0), -ENOSPC);
	/* Closing a queue gives all of it back. */
	close(q[0]);
	wait_until_user_kevents(q[1], (uint64_t)want / 2 - 1);
	CHECK_EQ(add_user(q[1], want, 0, 0), 0);
}

static void fill_user(void *arg)
{
	int want = 20, mine;

	(void)arg;
	mine = queue_open();
	need_feature(mine, KEVENT_FEATURE_USER);
	parameter_set(USER_LIMIT, (uint64_t)want);
	CHECK_EQ(queue_info(mine).max_user, want);
	child_join(child_start(fill_as_nobody, &want));
	/* Each user has its own account, and the dead give theirs back. */
	CHECK_EQ(add_user(mine, 1, 0, 0), 0);
	child_join(child_start(fill_as_nobody, &want));
}

static void all_queues_of_a_user_share_its_limit(void)
{
	with_limits_back(fill_user);
}

static void add_to_inherited(void *arg)
{
	int *q = arg;

	SYS(setuid(NOBODY));
	CHECK_EQ(add_user(q[0], 2, 0, 0), 0);
	CHECK_EQ(queue_info(q[0]).user_kevents, queue_info(q[1]).user_kevents);
}

static void a_kevent_is_charged_to_the_owner_of_its_queue(void)
{
	int q[2] = { queue_open(), queue_open() };
	uint64_t before = queue_info(q[0]).user_kevents;

	need_root();
	need_feature(q[0], KEVENT_FEATURE_USER);
	child_join(child_start(add_to_inherited, q));
	CHECK_EQ(queue_info(q[0]).user_kevents, before + 1);
}

#define FILES	20U

/* A number on which nobody else waits. */
static int fifo_open(unsigned int i)
{
	char path[128];

	snprintf(path, sizeof(path), "%.80s/fifo%u", temp_dir(), i);
	SYS(mkfifo(path, 0666));
	return (int)SYS(open(path, O_RDWR | O_CLOEXEC));
}

static int add_fifo(int q, int fd)
{
	return add(q, KEVENT_POLL, (uint64_t)fd, POLLIN, 0, 0);
}

static void pin_as_nobody(void *arg)
{
	/* the hard one counts */
	struct rlimit limit = { .rlim_cur = FILES - 10, .rlim_max = FILES - 5 };
	int *fd = arg, q[2] = { queue_open(), queue_open() };
	unsigned int i;

	SYS(setrlimit(RLIMIT_NOFILE, &limit));
	for (i = 0; i < FILES - 5; i++)
		CHECK_EQ(add_fifo(q[i & 1], fd[i]), 0);
	CHECK_EQ(add_fifo(q[0], fd[i]), -EMFILE);
	CHECK_EQ(add_fifo(q[1], fd[i]), -EMFILE);
	/* What is not pinned is none of them. */
	CHECK_EQ(add_user(q[0], 1, 0, 0), 0);
	CHECK_EQ(remove_kevent(q[1], KEVENT_POLL, (uint64_t)fd[1], 0), 0);
	CHECK_EQ(add_fifo(q[0], fd[i]), 0);
	CHECK_EQ(add_fifo(q[1], fd[1]), -EMFILE);
	/* A kevent that was refused for another reason has none. */
	CHECK_EQ(remove_kevent(q[0], KEVENT_POLL, (uint64_t)fd[i], 0), 0);
	CHECK_EQ(add(q[1], KEVENT_POLL, (uint64_t)fd[i], POLLIN,
		     KEVENT_NOTIFY_BROKEN, 0), -EOPNOTSUPP);
	close(q[0]);
	for (i = 0; i < FILES / 2 - 2; i++)
		CHECK_EQ(add_fifo(q[1], fd[2 * i]), 0);
}

static void pin_as_somebody(void *arg)
{
	SYS(setgid(NOBODY));
	SYS(setuid(NOBODY));
	pin_as_nobody(arg);
}

static void files_that_a_user_pins_count_against_rlimit_nofile(void)
{
	int fd[FILES], q = queue_open();
	struct rlimit limit = { .rlim_cur = 5, .rlim_max = 5 };
	unsigned int i;

	need_root();
	need_feature(q, KEVENT_FEATURE_POLL);
	need_feature(q, KEVENT_FEATURE_USER);
	CHECK(queue_info(q).pinned & KEVENT_FILE_FIFO);
	for (i = 0; i < FILES; i++)
		fd[i] = fifo_open(i);
	/* once more, for the dead give theirs back */
	child_join(child_start(pin_as_somebody, fd));
	child_join(child_start(pin_as_somebody, fd));
	/* and who may have more than the limit says may have more of these */
	SYS(setrlimit(RLIMIT_NOFILE, &limit));
	for (i = 0; i < FILES; i++)
		CHECK_EQ(add_fifo(q, fd[i]), 0);
}

static void shrink(void *arg)
{
	int q = queue_open(), i;
	struct kevent_event ev[4];

	(void)arg;
	need_feature(q, KEVENT_FEATURE_USER);
	for (i = 0; i < 4; i++)
		CHECK_EQ(add_user(q, i, 0, 0), 0);
	parameter_set(USER_LIMIT, 2);
	CHECK_EQ(add_user(q, 4, 0, 0), -ENOSPC);
	for (i = 0; i < 4; i++)
		CHECK_EQ(post(q, i, 0), 0);
	CHECK_EQ(wait_events(q, ev, 4, 4, FOREVER), 4);
	CHECK_EQ(remove_kevent(q, KEVENT_USER, 0, 0), 0);
	CHECK_EQ(add_user(q, 4, 0, 0), -ENOSPC);
}

static void a_limit_lowered_under_the_use_takes_nothing_away(void)
{
	with_limits_back(shrink);
}

static void parameters_are_for_root_to_write_and_for_all_to_read(void)
{
	static const char *const names[] = {
		QUEUE_LIMIT, USER_LIMIT, "max_inode_events",
	};
	char path[128];
	struct stat st;
	size_t i;

	close(queue_open());
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/sys/module/kevent/parameters/%s",
			 names[i]);
		SYS(stat(path, &st));
		CHECK_EQ(st.st_mode & 0777, 0644);
		CHECK_EQ(st.st_uid, 0);
		CHECK(parameter_get(names[i]) > 0);
	}
}

static void wait_without_privilege(void *arg)
{
	struct kevent_event ev;
	int q;

	(void)arg;
	SYS(setgid(NOBODY));
	SYS(setuid(NOBODY));
	q = queue_open();
	CHECK_EQ(add_user(q, 1, 0, 0), 0);
	CHECK_EQ(post(q, 1, 0), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
}

static void the_device_is_open_to_everybody(void)
{
	need_root();
	need_feature(queue_open(), KEVENT_FEATURE_USER);
	child_join(child_start(wait_without_privilege, NULL));
}

/* A hundred thousand */

#define TOTAL	100000U
#define BATCH	250U

struct big {
	int q;
	int *fd;
	unsigned int nr_fds;
	uint64_t ns[TOTAL / BATCH];
};

/* The kevent by number: descriptors first, then timers and users by turns. */
static struct kevent_request big_request(const struct big *b, unsigned int i)
{
	if (i % 5 == 0 && i / 5 < b->nr_fds)
		return request(KEVENT_POLL, (uint64_t)b->fd[i / 5], POLLIN, 0,
			       i);
	if (i % 2)
		return timer_request(i, 3600 * NSEC_PER_SEC + i, 0, 0, i);
	return request(KEVENT_USER, i, KEVENT_USER_POSTED, 0, i);
}

static void change_all(struct big *b, unsigned int nr)
{
	struct {
		struct kevent_batch head;
		struct kevent_request req[BATCH];
	} arg;
	unsigned int i, j;

	for (i = 0; i < TOTAL; i += BATCH) {
		uint64_t begin;

		memset(&arg, 0, sizeof(arg));
		arg.head.count = BATCH;
		for (j = 0; j < BATCH; j++) {
			arg.req[j] = big_request(b, i + j);
			if (nr == KEVENT_IOC_NR_REMOVE)
				arg.req[j] = request(arg.req[j].type,
						     arg.req[j].ident, 0, 0, 0);
		}
		begin = now_ns();
		CHECK_EQ(SYS(ioctl(b->q, KEVENT_IOC_BATCH(nr, BATCH), &arg)),
			 BATCH);
		b->ns[i / BATCH] = now_ns() - begin;
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t median(uint64_t *ns, size_t nr)
{
	qsort(ns, nr, sizeof(*ns), by_value);
	return ns[nr / 2];
}

/* The last tenth against the first tenth; five times leaves room for log n. */
static void check_flat(struct big *b, const char *what)
{
	size_t tenth = ARRAY_SIZE(b->ns) / 10;
	uint64_t first = median(b->ns, tenth);
	uint64_t last = median(b->ns + ARRAY_SIZE(b->ns) - tenth, tenth);

	dprintf(STDERR_FILENO, "%s of %u: first %llu ns, last %llu ns\n", what,
		BATCH, (unsigned long long)first, (unsigned long long)last);
	if (last > 5 * first || first > 5 * last)
		FAIL("%s: the cost is not flat", what);
}

static void deliver_some(struct big *b)
{
	uint64_t ns[101];
	struct kevent_event ev[4];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ns); i++) {
		unsigned int user = (i * 990) % TOTAL + 2;
		uint64_t begin;

		/* An even number that is no multiple of five. */
		user -= user % 10;
		user += 2;
		CHECK_EQ(post(b->q, user, i), 0);
		begin = now_ns();
		CHECK_EQ(wait_events(b->q, ev, 4, 1, FOREVER), 1);
		ns[i] = now_ns() - begin;
		CHECK_EQ(ev[0].cookie, user);
	}
	dprintf(STDERR_FILENO, "WAIT for one among them: %llu ns\n",
		(unsigned long long)median(ns, ARRAY_SIZE(ns)));
}

static void hundred_thousand(void *arg)
{
	static struct big b;
	uint64_t before;
	unsigned int i;
	int witness;

	(void)arg;
	if (parameter_get(QUEUE_LIMIT) < 2 * TOTAL)
		parameter_set(QUEUE_LIMIT, 2 * TOTAL);
	if (parameter_get(USER_LIMIT) < 2 * TOTAL)
		parameter_set(USER_LIMIT, 2 * TOTAL);
	raise_nofile(TOTAL / 5 + 64);
	witness = queue_open();
	before = queue_info(witness).user_kevents;
	b.q = queue_open();
	need_feature(b.q, KEVENT_FEATURE_USER);
	need_feature(b.q, KEVENT_FEATURE_TIMER);
	if (queue_info(b.q).features & KEVENT_FEATURE_POLL)
		b.nr_fds = TOTAL / 5;
	b.fd = calloc(TOTAL / 5, sizeof(*b.fd));
	CHECK(b.fd);
	for (i = 0; i < b.nr_fds; i++)
		b.fd[i] = eventfd_new(0);

	change_all(&b, KEVENT_IOC_NR_ADD);
	check_flat(&b, "ADD");
	CHECK_EQ(queue_info(b.q).kevents, TOTAL);
	check_silent(b.q);
	deliver_some(&b);
	change_all(&b, KEVENT_IOC_NR_MODIFY);
	check_flat(&b, "MODIFY");
	change_all(&b, KEVENT_IOC_NR_REMOVE);
	check_flat(&b, "REMOVE");
	CHECK_EQ(queue_info(b.q).kevents, 0);

	/* And once more, for the close of the queue to take away. */
	change_all(&b, KEVENT_IOC_NR_ADD);
	for (i = 0; i < b.nr_fds; i += 2)
		close(b.fd[i]);
	close(b.q);
	wait_until_user_kevents(witness, before);
}

static void a_queue_of_100000_kevents_costs_the_same_for_each(void)
{
	with_limits_back(hundred_thousand);
}

static const struct test_case cases[] = {
	TEST(a_queue_holds_as_many_kevents_as_its_limit),
	TEST(all_queues_of_a_user_share_its_limit),
	TEST(a_kevent_is_charged_to_the_owner_of_its_queue),
	TEST(files_that_a_user_pins_count_against_rlimit_nofile),
	TEST(a_limit_lowered_under_the_use_takes_nothing_away),
	TEST(parameters_are_for_root_to_write_and_for_all_to_read),
	TEST(the_device_is_open_to_everybody),
	TEST(a_queue_of_100000_kevents_costs_the_same_for_each),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
