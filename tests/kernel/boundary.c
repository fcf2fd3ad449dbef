// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The argument of each ioctl lies across two pages, of which one is good; the
 * boundary falls at every fourth byte of it.  boundary_wait.c has the waits.
 *
 * What is not there cannot be read, what is read-only cannot be written: then
 * it is EFAULT and nothing has happened.  What is read-only and only read does
 * no harm.
 */
#include "lib.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IDENT	3	/* and the next one: two kevents that are there */
#define FRESH	10	/* and the next one: two that are not */

/* Two idle kevents and one that is ready. */
static int begin(void)
{
	int q = queue_open();

	CHECK_EQ(add_user(q, IDENT, 0, 33), 0);
	CHECK_EQ(add_user(q, IDENT + 1, 0, 44), 0);
	CHECK_EQ(add_user(q, 5, KEVENT_ONESHOT, 55), 0);
	CHECK_EQ(post(q, 5, 5), 0);
	return q;
}

static void check_survivor(int q)
{
	struct kevent_event ev[4];

	CHECK_EQ(wait_events(q, ev, 4, 1, 0), 1);
	CHECK_EQ(ev[0].cookie, 55);
	CHECK_EQ(ev[0].count, 1);
	check_silent(q);
}

/* A call that is refused, or done: by what @done says of the queue. */
static void try_cut(const struct cut *cut, unsigned long command,
		    const void *arg, const struct touch *touch, int want,
		    bool (*done)(int q))
{
	static struct queue_state before;
	bool refused = cut_refuses(cut, touch);
	int q = begin(), ret;

	queue_state(q, &before);
	ret = ioctl(q, command, cut_place(cut, arg, _IOC_SIZE(command)));
	if (ret != (refused ? -1 : want) || (refused && errno != EFAULT))
		FAIL("ioctl %#lx, %s byte %zu: %d, errno %d", command,
		     cut_name(cut), cut->off, ret, ret < 0 ? errno : 0);
	if (refused)
		check_queue_state(q, &before, cut_name(cut),
				  (unsigned int)cut->off);
	else if (!done(q))
		FAIL("ioctl %#lx, %s byte %zu: not done", command,
		     cut_name(cut), cut->off);
	check_survivor(q);
	close(q);
}

static void try_all_cuts(unsigned long command, const void *arg,
			 const struct touch *touch, int want,
			 bool (*done)(int q))
{
	struct cut cut;
	unsigned int i;

	for (i = 0; cut_next(&cut, i, _IOC_SIZE(command)); i++)
		try_cut(&cut, command, arg, touch, want, done);
}

static bool anything(int q)
{
	return queue_info(q).kevents == 3;
}

static void info_writes_all_or_nothing_is_changed(void)
{
	static const struct touch touch = {
		.size = sizeof(struct kevent_info), .all = true,
	};
	struct kevent_info info = { 0 };

	need_feature(queue_open(), KEVENT_FEATURE_USER);
	try_all_cuts(KEVENT_IOC_INFO, &info, &touch, 0, anything);
}

#define RESULT(i)	(sizeof(struct kevent_batch) +			\
			 (i) * sizeof(struct kevent_request) +		\
			 offsetof(struct kevent_request, result))

struct two_changes {
	struct kevent_batch head;
	struct kevent_request req[2];
};

static const struct touch batch_touch = {
	.size = sizeof(struct two_changes), .writes = { RESULT(0), RESULT(1) },
};

static bool both_added(int q)
{
	return queue_holds(q, 110) == 1 && queue_holds(q, 111) == 1;
}

static bool both_modified(int q)
{
	return queue_holds(q, 330) == 1 && queue_holds(q, 440) == 1;
}

static bool both_removed(int q)
{
	return queue_info(q).kevents == 1;
}

static void a_change_is_applied_whole_or_not_at_all(void)
{
	struct two_changes add = {
		{ .count = 2 },
		{ request(KEVENT_USER, FRESH, KEVENT_USER_POSTED, 0, 110),
		  request(KEVENT_USER, FRESH + 1, KEVENT_USER_POSTED, 0, 111) },
	};
	struct two_changes modify = {
		{ .count = 2 },
		{ request(KEVENT_USER, IDENT, KEVENT_USER_POSTED, 0, 330),
		  request(KEVENT_USER, IDENT + 1, KEVENT_USER_POSTED, 0, 440) },
	};
	struct two_changes remove = {
		{ .count = 2 },
		{ request(KEVENT_USER, IDENT, 0, 0, 0),
		  request(KEVENT_USER, IDENT + 1, 0, 0, 0) },
	};

	need_feature(queue_open(), KEVENT_FEATURE_USER);
	try_all_cuts(KEVENT_IOC_ADD(2), &add, &batch_touch, 2, both_added);
	try_all_cuts(KEVENT_IOC_MODIFY(2), &modify, &batch_touch, 2,
		     both_modified);
	try_all_cuts(KEVENT_IOC_REMOVE(2), &remove, &batch_touch, 2,
		     both_removed);
}

/* The survivor was ready before, and so it comes first. */
static bool both_posted(int q)
{
	struct kevent_event ev[3];

	CHECK_EQ(wait_events(q, ev, 3, 3, 0), 3);
	CHECK_EQ(ev[0].cookie, 55);
	CHECK_EQ(ev[1].data, 1);
	CHECK_EQ(ev[2].data, 2);
	CHECK_EQ(ev[1].count, 1);
	CHECK_EQ(add_user(q, 5, KEVENT_ONESHOT, 55), 0);
	CHECK_EQ(post(q, 5, 5), 0);
	return true;
}

static void a_posting_is_done_whole_or_not_at_all(void)
{
	struct {
		struct kevent_batch head;
		struct kevent_post post[2];
	} arg = {
		{ .count = 2 },
		{ { .ident = IDENT, .data = 1 }, { .ident = IDENT + 1, .data = 2 } },
	};
	static const struct touch touch = {
		.size = sizeof(arg),
		.writes = {
			sizeof(struct kevent_batch) +
				offsetof(struct kevent_post, result),
			sizeof(struct kevent_batch) +
				sizeof(struct kevent_post) +
				offsetof(struct kevent_post, result),
		},
	};

	need_feature(queue_open(), KEVENT_FEATURE_USER);
	try_all_cuts(KEVENT_IOC_POST(2), &arg, &touch, 2, both_posted);
}

static bool path_added(int q)
{
	return queue_holds(q, 777) == 1;
}

static void a_path_is_added_whole_or_not_at_all(void)
{
	struct {
		struct kevent_path head;
		char path[8];
	} arg = {
		.head.request = request(KEVENT_PATH, 1, KEVENT_INODE_CREATE, 0,
					777),
		.path = "///////",
	};
	static const struct touch touch = {
		.size = sizeof(arg),
		.writes = { offsetof(struct kevent_request, result) },
	};

	need_feature(queue_open(), KEVENT_FEATURE_INODE);
	need_feature(queue_open(), KEVENT_FEATURE_USER);
	try_all_cuts(KEVENT_IOC_ADD_PATH(8), &arg, &touch, 1, path_added);
}

/*
 * Memory that changes between two accesses of one call.  Of the batch the
 * first page has all that is read of the first request but its end, the second
 * has its result.  The test is asked for each page when the call misses it:
 *
 *	page 2	to write ECANCELED: given; page 1 is taken away
 *	page 1	to read the request: given; page 2 is read-only from now on
 *
 * The request is applied then, but its result cannot be written.
 */
struct shrinking {
	int uffd;
	char *mem;
	char saved[2 * PAGE];
};

static char *await_fault(struct shrinking *s)
{
	struct uffd_msg msg;

	CHECK_EQ(SYS(read(s->uffd, &msg, sizeof(msg))), sizeof(msg));
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	return (char *)(uintptr_t)(msg.arg.pagefault.address & ~(PAGE - 1));
}

static void supply(struct shrinking *s, char *page)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)page,
		.src = (uintptr_t)s->saved + (uintptr_t)(page - s->mem),
		.len = PAGE,
	};

	SYS(ioctl(s->uffd, UFFDIO_COPY, &copy));
}

static void *shrink(void *arg)
{
	struct shrinking *s = arg;

	CHECK(await_fault(s) == s->mem);
	supply(s, s->mem);
	CHECK(await_fault(s) == s->mem + PAGE);
	SYS(madvise(s->mem, PAGE, MADV_DONTNEED));
	supply(s, s->mem + PAGE);
	CHECK(await_fault(s) == s->mem);
	SYS(mprotect(s->mem + PAGE, PAGE, PROT_READ));
	supply(s, s->mem);
	return NULL;
}

static void a_request_whose_result_finds_no_room_is_the_last_one_applied(void)
{
	static struct shrinking s;
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	struct two_changes *arg, batch = {
		{ .count = 2 },
		{ request(KEVENT_USER, FRESH, KEVENT_USER_POSTED, 0, 110),
		  request(KEVENT_USER, FRESH + 1, KEVENT_USER_POSTED, 0, 111) },
	};
	int q = begin();
	pthread_t thread;

	need_feature(q, KEVENT_FEATURE_USER);
	s.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (s.uffd < 0)
		test_skip("no userfaultfd: %s", strerror(errno));
	SYS(ioctl(s.uffd, UFFDIO_API, &api));
	s.mem = two_pages();
	arg = (struct two_changes *)(s.mem + PAGE - RESULT(0));
	memcpy(s.saved + PAGE - RESULT(0), &batch, sizeof(batch));
	reg.range.start = (uintptr_t)s.mem;
	reg.range.len = 2 * PAGE;
	SYS(ioctl(s.uffd, UFFDIO_REGISTER, &reg));
	thread = thread_start(shrink, &s);
	CHECK_EQ(ioctl(q, KEVENT_IOC_ADD(2), arg), -1);
	CHECK_EQ(errno, EFAULT);
	thread_join(thread);
	CHECK_EQ(arg->req[1].result, -ECANCELED);
	CHECK_EQ(queue_holds(q, 110), 1);
	CHECK_EQ(queue_holds(q, 111), 0);
	check_survivor(q);
}

static const struct test_case cases[] = {
	TEST(info_writes_all_or_nothing_is_changed),
	TEST(a_change_is_applied_whole_or_not_at_all),
	TEST(a_posting_is_done_whole_or_not_at_all),
	TEST(a_path_is_added_whole_or_not_at_all),
	TEST(a_request_whose_result_finds_no_room_is_the_last_one_applied),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
