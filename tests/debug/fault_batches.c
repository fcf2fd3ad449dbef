// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Batches that fail half-way: the results say which entries were applied, the
 * queue agrees, and what was not applied can be tried again.
 */
#include "fault.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ENTRIES	6
#define COOKIE_OLD	0x100	/* plus the entry's number */
#define COOKIE_NEW	0x200

/* One queue, and one kevent of each kind that an ADD takes. */
struct batch {
	int q;
	unsigned int op;
	int sock[2];
	int pipe[2];
	int event;
	int dir;
	unsigned int half_done;	/* calls that failed after some changes */
};

static void batch_open(struct batch *b, unsigned int op)
{
	b->op = op;
	b->half_done = 0;
	tcp_pair(b->sock);
	SYS(pipe2(b->pipe, O_CLOEXEC));
	b->event = eventfd_new(0);
	b->dir = (int)SYS(open(fs_mount(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static void batch_close(struct batch *b)
{
	close(b->sock[0]);
	close(b->sock[1]);
	close(b->pipe[0]);
	close(b->pipe[1]);
	close(b->event);
	close(b->dir);
	fs_unmount();
}

static struct kevent_request entry(const struct batch *b, unsigned int i,
				   unsigned int op)
{
	uint64_t cookie = (op == KEVENT_OP_MODIFY ? COOKIE_NEW : COOKIE_OLD) + i;
	struct kevent_request req;

	switch (i) {
	case 0:
		req = request(KEVENT_USER, 1, KEVENT_USER_POSTED, 0, cookie);
		break;
	case 1:
		req = request(KEVENT_SOCKET, (uint64_t)b->sock[0],
			      KEVENT_SOCKET_RECV, op == KEVENT_OP_MODIFY ?
			      KEVENT_NOTIFY_BROKEN : 0, cookie);
		break;
	case 2:
		req = request(KEVENT_POLL, (uint64_t)b->pipe[0], POLLIN, 0,
			      cookie);
		break;
	case 3:
		req = timer_request(2, 3600 * NSEC_PER_SEC, 0, 0, cookie);
		break;
	case 4:
		req = request(KEVENT_POLL, (uint64_t)b->event, POLLIN, 0,
			      cookie);
		break;
	default:
		req = request(KEVENT_INODE, (uint64_t)b->dir,
			      op == KEVENT_OP_MODIFY ? KEVENT_INODE_REMOVE :
			      KEVENT_INODE_CREATE, 0, cookie);
		break;
	}
	if (op == KEVENT_OP_REMOVE) {
		req.flags = 0;
		req.cookie = 0;
		req.events = 0;
		memset(req.param, 0, sizeof(req.param));
	}
	req.result = NO_RESULT;
	return req;
}

/* What a call of @nr requests gave agrees with the results of each. */
static void check_results(const struct kevent_request *req, unsigned int nr,
			  int ret, bool used, unsigned int nth)
{
	unsigned int i, applied = 0, untouched = 0, cancelled = 0;

	for (i = 0; i < nr; i++) {
		int result = req[i].result;

		applied += !result;
		untouched += result == NO_RESULT;
		cancelled += result == -ECANCELED;
		/* what comes behind a cancelled one is cancelled too */
		if (result && result != NO_RESULT && result != -ECANCELED &&
		    result != -ENOMEM)
			FAIL("fault %u: entry %u has the result %d", nth, i,
			     result);
		if (cancelled && result != -ECANCELED)
			FAIL("fault %u: entry %u has the result %d behind one that was cancelled",
			     nth, i, result);
	}
	if (ret >= 0) {
		CHECK_EQ(ret, applied);
		CHECK_EQ(untouched + cancelled, 0);
		CHECK(used || applied == nr);
		return;
	}
	if (ret != -EFAULT || !used)
		FAIL("fault %u: the call gave %d", nth, ret);
	CHECK(untouched == nr || (!untouched && cancelled));
}

/* Whether entry @i is as it is once the batch's operation was applied to it. */
static bool is_applied(const struct batch *b, unsigned int i)
{
	unsigned int old = queue_holds(b->q, COOKIE_OLD + i);
	unsigned int new = queue_holds(b->q, COOKIE_NEW + i);

	CHECK(old + new <= 1);
	switch (b->op) {
	case KEVENT_OP_ADD:
		return old;
	case KEVENT_OP_MODIFY:
		CHECK_EQ(old + new, 1);
		return new;
	}
	return !old;
}

static enum fault_end change_round(void *arg, unsigned int nth)
{
	static struct {
		struct kevent_batch head;
		struct kevent_request req[ENTRIES];
	} call;
	struct batch *b = arg;
	unsigned int i, applied = 0;
	bool used;
	int ret;

	b->q = queue_open();
	if (b->op != KEVENT_OP_ADD)
		for (i = 0; i < ENTRIES; i++)
			CHECK_EQ(change(b->q, KEVENT_IOC_NR_ADD,
					entry(b, i, KEVENT_OP_ADD)), 0);
	call.head = (struct kevent_batch){ .count = ENTRIES };
	for (i = 0; i < ENTRIES; i++)
		call.req[i] = entry(b, i, b->op);
	fault_arm(nth);
	ret = ioctl(b->q, KEVENT_IOC_BATCH(b->op, ENTRIES), &call);
	if (ret < 0)
		ret = -errno;
	used = fault_disarm();
	check_results(call.req, ENTRIES, ret, used, nth);
	for (i = 0; i < ENTRIES; i++) {
		CHECK_EQ(is_applied(b, i), !call.req[i].result);
		applied += !call.req[i].result;
		if (call.req[i].result)
			CHECK_EQ(change(b->q, b->op, entry(b, i, b->op)), 0);
		CHECK(is_applied(b, i));
	}
	CHECK_EQ(queue_info(b->q).kevents,
		 b->op == KEVENT_OP_REMOVE ? 0 : ENTRIES);
	close(b->q);
	if (applied < ENTRIES)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void sweep_batch(const char *name, unsigned int op)
{
	struct fault_leaks leaks;
	struct batch b;

	leaks_begin(&leaks);
	batch_open(&b, op);
	fault_sweep(name, change_round, &b);
	batch_close(&b);
	leaks_end(&leaks);
}

static void a_batch_of_adds_that_fails_says_which_were_added(void)
{
	sweep_batch("batch/add", KEVENT_OP_ADD);
}

static void a_batch_of_modifies_that_fails_says_which_were_modified(void)
{
	sweep_batch("batch/modify", KEVENT_OP_MODIFY);
}

static void a_batch_of_removes_that_fails_says_which_were_removed(void)
{
	sweep_batch("batch/remove", KEVENT_OP_REMOVE);
}

#define POSTS	5

static enum fault_end post_round(void *arg, unsigned int nth)
{
	static struct {
		struct kevent_batch head;
		struct kevent_post post[POSTS];
	} call;
	struct kevent_event ev[POSTS + 1];
	unsigned int i, posted = 0;
	bool used, cancelled = false;
	int ret, got;

	int q = queue_open();

	(void)arg;
	for (i = 0; i < POSTS; i++)
		CHECK_EQ(add_user(q, i, 0, i), 0);
	call.head = (struct kevent_batch){ .count = POSTS };
	for (i = 0; i < POSTS; i++)
		call.post[i] = (struct kevent_post){
			.ident = i, .data = i, .result = NO_RESULT,
		};
	fault_arm(nth);
	ret = ioctl(q, KEVENT_IOC_POST(POSTS), &call);
	if (ret < 0)
		ret = -errno;
	used = fault_disarm();
	for (i = 0; i < POSTS; i++) {
		int result = call.post[i].result;

		posted += !result;
		cancelled |= result == -ECANCELED;
		CHECK(!result || (ret == -EFAULT && used));
		CHECK(!result || result == NO_RESULT || result == -ECANCELED);
		CHECK(!cancelled || result == -ECANCELED);
	}
	CHECK(ret == (int)posted || ret == -EFAULT);
	CHECK_EQ(queue_info(q).ready, posted);
	for (i = 0; i < POSTS; i++)
		if (call.post[i].result)
			CHECK_EQ(post(q, i, i), 0);
	got = wait_events(q, ev, POSTS + 1, POSTS, 0);
	CHECK_EQ(got, POSTS);
	for (i = 0; i < POSTS; i++) {
		CHECK_EQ(ev[i].data, i);
		CHECK_EQ(ev[i].count, 1);
	}
	check_silent(q);
	close(q);
	if (ret < 0)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void a_batch_of_posts_that_fails_says_which_were_posted(void)
{
	struct fault_leaks leaks;

	leaks_begin(&leaks);
	fault_sweep("batch/post", post_round, NULL);
	leaks_end(&leaks);
}

/*
 * All three operations, and a wait, in one call:
 *
 *	ADD socket, MODIFY user 1, ADD inode, REMOVE user 2; user 3 is ready
 */
#define MIXED	4

static struct kevent_request mixed_entry(const struct batch *b, unsigned int i)
{
	struct kevent_request req;

	switch (i) {
	case 0:
		req = entry(b, 1, KEVENT_OP_ADD);
		req.op = KEVENT_OP_ADD;
		break;
	case 1:
		req = request(KEVENT_USER, 1, KEVENT_USER_POSTED, 0,
			      COOKIE_NEW);
		req.op = KEVENT_OP_MODIFY;
		break;
	case 2:
		req = entry(b, 5, KEVENT_OP_ADD);
		req.op = KEVENT_OP_ADD;
		break;
	default:
		req = request(KEVENT_USER, 2, 0, 0, 0);
		req.op = KEVENT_OP_REMOVE;
		break;
	}
	req.result = NO_RESULT;
	return req;
}

static bool mixed_applied(const struct batch *b, unsigned int i)
{
	switch (i) {
	case 0:
		return queue_holds(b->q, COOKIE_OLD + 1);
	case 1:
		return queue_holds(b->q, COOKIE_NEW);
	case 2:
		return queue_holds(b->q, COOKIE_OLD + 5);
	}
	return !queue_holds(b->q, 0xbad);
}

static enum fault_end mixed_round(void *arg, unsigned int nth)
{
	static struct {
		struct kevent_wait head;
		struct kevent_request req[MIXED];
		struct kevent_event ev[4];
	} call;
	struct batch *b = arg;
	unsigned int i, applied = 0;
	struct kevent_event ev;
	bool used;
	int ret;

	b->q = queue_open();
	CHECK_EQ(add_user(b->q, 1, 0, COOKIE_OLD), 0);
	CHECK_EQ(add_user(b->q, 2, 0, 0xbad), 0);
	CHECK_EQ(add_user(b->q, 3, KEVENT_ONESHOT, 0x333), 0);
	CHECK_EQ(post(b->q, 3, 33), 0);
	memset(&call, 0, sizeof(call));
	call.head = (struct kevent_wait){
		.nr_changes = MIXED, .changed = NO_RESULT, .min = 1, .max = 4,
		.timeout = PATIENCE, .clock = CLOCK_MONOTONIC,
	};
	for (i = 0; i < MIXED; i++)
		call.req[i] = mixed_entry(b, i);
	fault_arm(nth);
	ret = ioctl(b->q, KEVENT_IOC_CHANGE_WAIT(MIXED, 4), &call);
	if (ret < 0)
		ret = -errno;
	used = fault_disarm();
	for (i = 0; i < MIXED; i++)
		applied += !call.req[i].result;
	check_results(call.req, MIXED, ret < 0 ? ret : (int)applied, used, nth);
	if (ret >= 0) {
		CHECK_EQ(call.head.changed, applied);
		CHECK_EQ(ret, 1);
		ev = call.ev[0];
	} else {
		if (applied) {
			CHECK_EQ(call.head.changed, applied);
			b->half_done++;
		}
		CHECK_EQ(wait_events(b->q, &ev, 1, 1, 0), 1);
	}
	CHECK_EQ(ev.cookie, 0x333);
	CHECK_EQ(ev.data, 33);
	check_silent(b->q);
	for (i = 0; i < MIXED; i++) {
		struct kevent_request req = mixed_entry(b, i);
		unsigned int op = req.op;

		CHECK_EQ(mixed_applied(b, i), !call.req[i].result);
		req.op = 0;
		if (call.req[i].result)
			CHECK_EQ(change(b->q, op, req), 0);
		CHECK(mixed_applied(b, i));
	}
	CHECK_EQ(queue_info(b->q).kevents, 3);
	close(b->q);
	if (applied < MIXED)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void a_mixed_batch_that_fails_says_which_were_applied(void)
{
	struct fault_leaks leaks;
	struct batch b;

	leaks_begin(&leaks);
	batch_open(&b, 0);
	fault_sweep("batch/mixed", mixed_round, &b);
	CHECK(b.half_done);
	batch_close(&b);
	leaks_end(&leaks);
}

static const struct test_case cases[] = {
	LONG_TEST(a_batch_of_adds_that_fails_says_which_were_added, 300),
	LONG_TEST(a_batch_of_modifies_that_fails_says_which_were_modified, 300),
	LONG_TEST(a_batch_of_removes_that_fails_says_which_were_removed, 300),
	LONG_TEST(a_batch_of_posts_that_fails_says_which_were_posted, 300),
	LONG_TEST(a_mixed_batch_that_fails_says_which_were_applied, 300),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
