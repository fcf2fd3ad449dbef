// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The headers, bit by bit, and the sizes, counts, clocks and times: what is not
 * defined is refused for the whole call.  Requests are in request_bits.c.
 */
#include "lib.h"

#include <string.h>
#include <sys/ioctl.h>

static void each_bit_of_a_batch_header_is_refused_and_nothing_applied(void)
{
	static const unsigned int nrs[] = {
		KEVENT_IOC_NR_ADD, KEVENT_IOC_NR_MODIFY, KEVENT_IOC_NR_REMOVE,
	};
	int q = queue_open();
	unsigned int bit;
	size_t i;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 2, 0, 0), 0);
	for (i = 0; i < ARRAY_SIZE(nrs); i++) {
		struct {
			struct kevent_batch head;
			struct kevent_request req;
		} arg;
		uint64_t ident = nrs[i] == KEVENT_IOC_NR_ADD ? 1 : 2;
		uint32_t events = nrs[i] == KEVENT_IOC_NR_REMOVE ?
				  0 : KEVENT_USER_POSTED;

		for (bit = 0; bit < 96; bit++) {
			memset(&arg, 0, sizeof(arg));
			arg.head.count = 1;
			arg.req = request(KEVENT_USER, ident, events, 0, 0);
			if (bit < 32)
				arg.head.flags = 1U << bit;
			else
				arg.head.reserved = 1ULL << (bit - 32);
			CHECK_EQ(ioctl(q, KEVENT_IOC_BATCH(nrs[i], 1), &arg),
				 -1);
			CHECK_EQ(errno, EINVAL);
		}
	}
	CHECK_EQ(queue_info(q).kevents, 1);
}

static void each_bit_of_a_wait_header_is_refused(void)
{
	int q = queue_open();
	struct {
		struct kevent_wait head;
		struct kevent_event ev;
	} arg;
	unsigned int bit;

	for (bit = 0; bit < 32 + 64; bit++) {
		memset(&arg, 0, sizeof(arg));
		arg.head.max = 1;
		arg.head.clock = CLOCK_MONOTONIC;
		if (bit < 32)
			arg.head.flags = 1U << bit;
		else
			arg.head.reserved = 1ULL << (bit - 32);
		if (arg.head.flags == KEVENT_WAIT_ABSTIME) {
			CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_WAIT(1), &arg)), 0);
			continue;
		}
		CHECK_EQ(ioctl(q, KEVENT_IOC_WAIT(1), &arg), -1);
		CHECK_EQ(errno, EINVAL);
	}
	for (bit = 0; bit < 32; bit++) {
		memset(&arg, 0, sizeof(arg));
		arg.head.max = 1;
		arg.head.clock = CLOCK_MONOTONIC;
		arg.head.nr_changes = 1U << bit;
		CHECK_EQ(ioctl(q, KEVENT_IOC_WAIT(1), &arg), -1);
		CHECK_EQ(errno, EINVAL);
	}
}

static void each_unknown_clock_is_refused(void)
{
	int q = queue_open();
	struct {
		struct kevent_wait head;
		struct kevent_event ev;
	} arg;
	struct kevent_request req;
	uint32_t clock;
	int known;

	need_feature(q, KEVENT_FEATURE_TIMER);
	for (clock = 0; clock < 40; clock++) {
		uint32_t id = clock < 32 ? clock : 0U - (clock - 31);

		known = id == CLOCK_REALTIME || id == CLOCK_MONOTONIC ||
			id == CLOCK_BOOTTIME;
		memset(&arg, 0, sizeof(arg));
		arg.head.max = 1;
		arg.head.clock = id;
		CHECK_EQ(ioctl(q, KEVENT_IOC_WAIT(1), &arg), known ? 0 : -1);
		req = timer_request(1, 3600 * NSEC_PER_SEC, 0, 0, 0);
		req.param[2] = id;
		CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req),
			 known ? 0 : -EINVAL);
		if (known)
			CHECK_EQ(remove_kevent(q, KEVENT_TIMER, 1, 0), 0);
		req.param[2] = id | 1ULL << 32;
		CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), -EINVAL);
	}
}

static void each_bit_of_a_posting_is_refused(void)
{
	int q = queue_open();
	struct {
		struct kevent_batch head;
		struct kevent_post post;
	} arg;
	unsigned int bit;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1, 0, 0), 0);
	for (bit = 0; bit < 32; bit++) {
		memset(&arg, 0, sizeof(arg));
		arg.head.count = 1;
		arg.post.ident = 1;
		arg.post.flags = 1U << bit;
		CHECK_EQ(SYS(ioctl(q, KEVENT_IOC_POST(1), &arg)), 0);
		CHECK_EQ(arg.post.result, -EINVAL);
	}
	for (bit = 0; bit < 32 + 64; bit++) {
		memset(&arg, 0, sizeof(arg));
		arg.head.count = 1;
		arg.post.ident = 1;
		if (bit < 32)
			arg.head.flags = 1U << bit;
		else
			arg.head.reserved = 1ULL << (bit - 32);
		CHECK_EQ(ioctl(q, KEVENT_IOC_POST(1), &arg), -1);
		CHECK_EQ(errno, EINVAL);
	}
	check_silent(q);
}

static void each_unknown_ioctl_is_enotty(void)
{
	int q = queue_open();
	static char arg[KEVENT_MAX_SIZE];
	unsigned int nr, dir;

	for (nr = 0; nr < 256; nr++) {
		for (dir = 0; dir < 4; dir++) {
			unsigned long cmd = _IOC(dir, KEVENT_IOC_MAGIC, nr,
						 dir ? 64 : 0);

			if (nr <= KEVENT_IOC_NR_ADD_PATH)
				continue;
			CHECK_EQ(ioctl(q, cmd, arg), -1);
			CHECK_EQ(errno, ENOTTY);
		}
	}
	CHECK_EQ(ioctl(q, _IOWR('u', 0x21, int), arg), -1);
	CHECK_EQ(errno, ENOTTY);
}

/* Header and entries, and a size that holds one entry fewer. */
static void counts_beyond_the_encoded_size_are_refused(void)
{
	int q = queue_open();
	static const uint32_t counts[] = { 2, 292, 0x7fffffff, 0xffffffff,
					   0x04924925, 0x08000000 };
	struct {
		struct kevent_batch head;
		struct kevent_request req[2];
	} arg;
	struct {
		struct kevent_wait head;
		struct kevent_event ev[2];
	} wait;
	size_t i;

	need_feature(q, KEVENT_FEATURE_USER);
	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		memset(&arg, 0, sizeof(arg));
		arg.head.count = counts[i];
		arg.req[0] = request(KEVENT_USER, 1, KEVENT_USER_POSTED, 0, 0);
		arg.req[1] = request(KEVENT_USER, 2, KEVENT_USER_POSTED, 0, 0);
		CHECK_EQ(ioctl(q, KEVENT_IOC_ADD(1), &arg), -1);
		CHECK_EQ(errno, EINVAL);
		CHECK_EQ(ioctl(q, KEVENT_IOC_POST(1), &arg), -1);
		CHECK_EQ(errno, EINVAL);
		memset(&wait, 0, sizeof(wait));
		wait.head.clock = CLOCK_MONOTONIC;
		wait.head.max = counts[i];
		CHECK_EQ(ioctl(q, KEVENT_IOC_WAIT(1), &wait), -1);
		CHECK_EQ(errno, EINVAL);
		wait.head.max = 0;
		wait.head.nr_changes = counts[i];
		CHECK_EQ(ioctl(q, KEVENT_IOC_CHANGE_WAIT(1, 0), &wait), -1);
		CHECK_EQ(errno, EINVAL);
	}
	CHECK_EQ(queue_info(q).kevents, 0);
}

static void a_size_below_the_header_is_refused(void)
{
	static char arg[128];
	int q = queue_open();
	unsigned int nr, size;

	for (nr = KEVENT_IOC_NR_ADD; nr <= KEVENT_IOC_NR_ADD_PATH; nr++) {
		unsigned int head = sizeof(struct kevent_batch);

		if (nr == KEVENT_IOC_NR_WAIT || nr == KEVENT_IOC_NR_CHANGE_WAIT)
			head = sizeof(struct kevent_wait);
		else if (nr == KEVENT_IOC_NR_ADD_PATH)
			head = sizeof(struct kevent_path);
		for (size = 0; size < head; size += 4) {
			CHECK_EQ(ioctl(q, KEVENT_IOWR(nr, size), arg), -1);
			CHECK_EQ(errno, EINVAL);
		}
	}
}

static void times_that_overflow_are_refused(void)
{
	static const uint64_t bad[] = {
		1ULL << 63, (1ULL << 63) - 1, ~0ULL,
	};
	int q = queue_open();
	struct kevent_event ev;
	struct kevent_request req;
	size_t i;

	need_feature(q, KEVENT_FEATURE_TIMER);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_EQ(add_timer(q, 1, bad[i], 0, 0, 0), -EINVAL);
		if (bad[i] != FOREVER)
			CHECK_EQ(wait_events(q, &ev, 1, 1, bad[i]), -EINVAL);
	}
	CHECK_EQ(add_timer(q, 1, 1, 1ULL << 63, 0, 0), -EINVAL);
	req = timer_request(1, 1ULL << 63, 0, KEVENT_ABSTIME, 0);
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), -EINVAL);
	CHECK_EQ(wait_events(q, &ev, 1, 2, 0), -EINVAL);
	CHECK_EQ(queue_info(q).kevents, 0);
}

static const struct test_case cases[] = {
	TEST(each_bit_of_a_batch_header_is_refused_and_nothing_applied),
	TEST(each_bit_of_a_wait_header_is_refused),
	TEST(each_unknown_clock_is_refused),
	TEST(each_bit_of_a_posting_is_refused),
	TEST(each_unknown_ioctl_is_enotty),
	TEST(counts_beyond_the_encoded_size_are_refused),
	TEST(a_size_below_the_header_is_refused),
	TEST(times_that_overflow_are_refused),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
