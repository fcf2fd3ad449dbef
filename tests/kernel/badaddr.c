// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Addresses that are no good, for every call: EFAULT, nothing applied and no
 * event lost.
 */
#include "lib.h"

#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long wild_address(unsigned int i)
{
	static char *unmapped;

	if (!unmapped) {
		unmapped = two_pages();
		SYS(munmap(unmapped, 2 * PAGE));
	}
	switch (i) {
	case 0:
		return 0;
	case 1:
		return 64;
	case 2:
		return (unsigned long)unmapped;
	case 3:
		return ~0UL - 15;
#ifdef __LP64__
	case 4:
		return 0xffff888000001000UL;
	case 5:
		return 0xffffffff81000000UL;
	case 6:
		return 0x0000800000000000UL;
	case 7:
		return 0x7fffffffffffUL - 15;
	case 8:
		return 0x0123456789abcdefUL;
#endif
	default:
		return 1;
	}
}

/* Every ioctl with the room for one entry, and two for path and wait. */
static unsigned long each_command(unsigned int i)
{
	const unsigned long commands[] = {
		KEVENT_IOC_INFO, KEVENT_IOC_ADD(1), KEVENT_IOC_MODIFY(1),
		KEVENT_IOC_REMOVE(1), KEVENT_IOC_POST(1), KEVENT_IOC_WAIT(1),
		KEVENT_IOC_CHANGE_WAIT(1, 1), KEVENT_IOC_ADD_PATH(2),
		KEVENT_IOC_WAIT(KEVENT_MAX_RECORDS),
		KEVENT_IOC_ADD(KEVENT_MAX_REQUESTS),
	};

	return i < ARRAY_SIZE(commands) ? commands[i] : 0;
}

static void every_call_gives_efault_for_a_wild_address(void)
{
	int q = queue_open();
	unsigned long address;
	struct kevent_event ev;
	unsigned int c, i;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1, KEVENT_ONESHOT, 0), 0);
	CHECK_EQ(post(q, 1, 5), 0);
	for (c = 0; each_command(c); c++) {
		for (i = 0; (address = wild_address(i)) != 1; i++) {
			int ret = ioctl(q, each_command(c), address);

			if (ret != -1 || errno != EFAULT)
				FAIL("ioctl %#lx of %#lx gave %d, errno %d",
				     each_command(c), address, ret, errno);
		}
	}
	for (i = 0; (address = wild_address(i)) != 1; i++) {
		CHECK_EQ(syscall(SYS_read, q, address, sizeof(ev)), -1);
		CHECK_EQ(errno, EFAULT);
	}
	CHECK_EQ(queue_info(q).kevents, 1);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.data, 5);
	CHECK_EQ(ev.count, 1);
}

static void a_batch_that_ends_in_nothing_is_not_applied(void)
{
	int q = queue_open();
	struct kevent_request *req;
	struct kevent_event ev;
	struct kevent_post *post_entry;
	struct kevent_batch *head;
	unsigned int i, nr;
	size_t cut;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 3, 0, 33), 0);
	CHECK_EQ(add_user(q, 4, 0, 44), 0);
	for (cut = 1; cut <= sizeof(*req); cut += 11) {
		for (nr = KEVENT_IOC_NR_ADD; nr <= KEVENT_IOC_NR_REMOVE; nr++) {
			uint64_t ident = nr == KEVENT_IOC_NR_ADD ? 1 : 3;
			struct kevent_request two[2] = {
				request(KEVENT_USER, ident, KEVENT_USER_POSTED,
					0, 0),
				request(KEVENT_USER, ident + 1,
					KEVENT_USER_POSTED, 0, 0),
			};

			if (nr == KEVENT_IOC_NR_REMOVE)
				two[0].events = two[1].events = 0;
			head = before_nothing(sizeof(*head) + sizeof(two) -
					      cut);
			*head = (struct kevent_batch){ .count = 2 };
			memcpy(head + 1, two, sizeof(two) - cut);
			CHECK_EQ(ioctl(q, KEVENT_IOC_BATCH(nr, 2), head), -1);
			CHECK_EQ(errno, EFAULT);
		}
	}
	head = before_nothing(sizeof(*head) + sizeof(*post_entry) + 8);
	*head = (struct kevent_batch){ .count = 2 };
	post_entry = (struct kevent_post *)(head + 1);
	*post_entry = (struct kevent_post){ .ident = 3 };
	memcpy(post_entry + 1, &(uint64_t){ 4 }, 8);
	CHECK_EQ(ioctl(q, KEVENT_IOC_POST(2), head), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(queue_info(q).kevents, 2);
	check_silent(q);
	for (i = 3; i <= 4; i++) {
		CHECK_EQ(post(q, i, 0), 0);
		CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
		CHECK_EQ(ev.cookie, 11 * i);
	}
}

static void check_read_only(int q, unsigned long command, const void *arg,
			    size_t size)
{
	char *page = two_pages();
	int ret;

	memcpy(page, arg, size);
	SYS(mprotect(page, PAGE, PROT_READ));
	ret = ioctl(q, command, page);
	if (ret != -1 || errno != EFAULT)
		FAIL("ioctl %#lx on a read-only page gave %d, errno %d",
		     command, ret, errno);
	SYS(munmap(page, 2 * PAGE));
}

static void a_change_on_a_read_only_page_is_not_applied(void)
{
	int q = queue_open();
	struct {
		struct kevent_batch head;
		struct kevent_request req;
	} batch = { .head.count = 1 };
	struct {
		struct kevent_batch head;
		struct kevent_post post;
	} posting = { .head.count = 1, .post.ident = 1 };
	struct {
		struct kevent_path head;
		char path[8];
	} path = { .path = "/" };
	struct {
		struct kevent_wait head;
		struct kevent_request req;
		struct kevent_event ev;
	} both = {
		.head = {
			.nr_changes = 1, .min = 1, .max = 1, .timeout = FOREVER,
			.clock = CLOCK_MONOTONIC,
		},
	};
	struct kevent_event ev;

	need_feature(q, KEVENT_FEATURE_USER);
	check_read_only(q, KEVENT_IOC_INFO, "", 1);
	batch.req = request(KEVENT_USER, 1, KEVENT_USER_POSTED, 0, 1);
	check_read_only(q, KEVENT_IOC_ADD(1), &batch, sizeof(batch));
	both.req = batch.req;
	both.req.op = KEVENT_OP_ADD;
	check_read_only(q, KEVENT_IOC_CHANGE_WAIT(1, 1), &both, sizeof(both));
	CHECK_EQ(queue_info(q).kevents, 0);

	CHECK_EQ(add_user(q, 1, 0, 7), 0);
	check_read_only(q, KEVENT_IOC_MODIFY(1), &batch, sizeof(batch));
	check_read_only(q, KEVENT_IOC_POST(1), &posting, sizeof(posting));
	check_silent(q);
	batch.req = request(KEVENT_USER, 1, 0, 0, 0);
	check_read_only(q, KEVENT_IOC_REMOVE(1), &batch, sizeof(batch));
	if (queue_info(q).features & KEVENT_FEATURE_INODE) {
		path.head.request = request(KEVENT_PATH, 1, KEVENT_INODE_CREATE,
					    0, 0);
		check_read_only(q, KEVENT_IOC_ADD_PATH(2), &path, sizeof(path));
	}
	CHECK_EQ(queue_info(q).kevents, 1);
	CHECK_EQ(post(q, 1, 0), 0);
	CHECK_EQ(wait_events(q, &ev, 1, 1, FOREVER), 1);
	CHECK_EQ(ev.cookie, 7);
}

static const struct test_case cases[] = {
	TEST(every_call_gives_efault_for_a_wild_address),
	TEST(a_batch_that_ends_in_nothing_is_not_applied),
	TEST(a_change_on_a_read_only_page_is_not_applied),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
