// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A request, bit by bit: types, flags, events, parameters.  What is not defined
 * is refused, and what is defined is taken.  The headers are in header_bits.c.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#define MODES	(KEVENT_EDGE | KEVENT_ONESHOT | KEVENT_DISPATCH | \
		 KEVENT_DISABLED)

/* What each type takes; a bit in @either may be taken or refused. */
struct type_bits {
	uint16_t type;
	uint32_t feature;
	uint32_t flags;
	uint32_t flags_either;
	uint32_t events;
	uint32_t events_either;
};

static const struct type_bits types[] = {
	{
		KEVENT_SOCKET, KEVENT_FEATURE_SOCKET,
		MODES | KEVENT_NOTIFY_BROKEN | KEVENT_BYTES, 0,
		KEVENT_SOCKET_RECV | KEVENT_SOCKET_PRI | KEVENT_SOCKET_SEND |
		KEVENT_SOCKET_ERR | KEVENT_SOCKET_HUP | KEVENT_SOCKET_RDHUP |
		KEVENT_SOCKET_ACCEPT, 0,
	}, {
		KEVENT_POLL, KEVENT_FEATURE_POLL,
		MODES | KEVENT_NOTIFY_BROKEN, 0,
		POLLIN | POLLPRI | POLLOUT | POLLERR | POLLHUP | POLLRDNORM |
		POLLRDBAND | POLLWRNORM | POLLWRBAND | POLLRDHUP,
		POLLNVAL | POLLMSG,
	}, {
		KEVENT_INODE, KEVENT_FEATURE_INODE,
		MODES | KEVENT_NOTIFY_BROKEN, 0,
		0x01ff, 0,
	}, {
		KEVENT_TIMER, KEVENT_FEATURE_TIMER,
		MODES | KEVENT_ABSTIME, KEVENT_NOTIFY_BROKEN,
		KEVENT_TIMER_FIRED, 0,
	}, {
		KEVENT_USER, KEVENT_FEATURE_USER,
		MODES, KEVENT_NOTIFY_BROKEN,
		KEVENT_USER_POSTED, 0,
	},
};

/* A request of that type which is valid as it stands. */
static struct kevent_request valid_request(uint16_t type)
{
	static int sock[2] = { -1, -1 }, pipes[2] = { -1, -1 }, dir = -1;

	switch (type) {
	case KEVENT_SOCKET:
		if (sock[0] < 0)
			unix_pair(sock);
		return request(type, sock[0], KEVENT_SOCKET_RECV, 0, 0);
	case KEVENT_POLL:
		/* of a kind that is never pinned */
		if (pipes[0] < 0)
			SYS(pipe(pipes));
		return request(type, pipes[0], POLLIN, 0, 0);
	case KEVENT_INODE:
		if (dir < 0)
			dir = (int)SYS(open("/", O_RDONLY | O_DIRECTORY));
		return request(type, dir, KEVENT_INODE_CREATE, 0, 0);
	case KEVENT_TIMER:
		return timer_request(1, 3600 * NSEC_PER_SEC, 0, 0, 0);
	default:
		return request(type, 1, KEVENT_USER_POSTED, 0, 0);
	}
}

static void check_refused(int q, unsigned int nr, struct kevent_request req,
			  const char *what, unsigned int bit)
{
	int ret = change(q, nr, req);

	if (ret != -EINVAL)
		FAIL("call %u, type %u: bit %u of %s gave %d", nr, req.type,
		     bit, what, ret);
}

/* ADD takes it, MODIFY of it takes it, and it can be removed. */
static void check_taken(int q, struct kevent_request req, const char *what,
			unsigned int bit)
{
	int ret = change(q, KEVENT_IOC_NR_ADD, req);

	if (!ret)
		ret = change(q, KEVENT_IOC_NR_MODIFY, req);
	if (!ret)
		ret = remove_kevent(q, req.type, req.ident, 0);
	if (ret)
		FAIL("type %u: bit %u of %s gave %d", req.type, bit, what, ret);
}

static void each_undefined_flag_is_refused_and_each_defined_one_taken(void)
{
	int q = queue_open();
	uint32_t features = queue_info(q).features;
	unsigned int bit;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		const struct type_bits *t = &types[i];

		if (!(features & t->feature))
			continue;
		for (bit = 0; bit < 32; bit++) {
			struct kevent_request req = valid_request(t->type);
			struct kevent_request plain = req;

			req.flags = 1U << bit;
			if (t->flags_either & req.flags)
				continue;
			if (t->flags & req.flags) {
				check_taken(q, req, "flags", bit);
				continue;
			}
			check_refused(q, KEVENT_IOC_NR_ADD, req, "flags", bit);
			CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, plain), 0);
			check_refused(q, KEVENT_IOC_NR_MODIFY, req, "flags",
				      bit);
			if (req.flags != KEVENT_STALE)
				check_refused(q, KEVENT_IOC_NR_REMOVE, request(
					req.type, req.ident, 0, req.flags, 0),
					"flags", bit);
			CHECK_EQ(remove_kevent(q, req.type, req.ident, 0), 0);
		}
	}
	CHECK_EQ(queue_info(q).kevents, 0);
}

static void each_undefined_event_is_refused_and_each_defined_one_taken(void)
{
	int q = queue_open();
	uint32_t features = queue_info(q).features;
	unsigned int bit;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		const struct type_bits *t = &types[i];

		if (!(features & t->feature))
			continue;
		for (bit = 0; bit < 32; bit++) {
			struct kevent_request req = valid_request(t->type);

			req.events = 1U << bit;
			if (t->events_either & req.events)
				continue;
			if (t->events & req.events) {
				check_taken(q, req, "events", bit);
				continue;
			}
			check_refused(q, KEVENT_IOC_NR_ADD, req, "events", bit);
		}
	}
	CHECK_EQ(queue_info(q).kevents, 0);
}

static void each_bit_of_an_unused_parameter_is_refused(void)
{
	int q = queue_open();
	uint32_t features = queue_info(q).features;
	unsigned int bit, p;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		uint16_t type = types[i].type;

		if (!(features & types[i].feature) || type == KEVENT_TIMER)
			continue;
		for (p = type == KEVENT_INODE; p < 3; p++) {
			for (bit = 0; bit < 64; bit++) {
				struct kevent_request req = valid_request(type);

				req.param[p] = 1ULL << bit;
				check_refused(q, KEVENT_IOC_NR_ADD, req,
					      "param", bit);
			}
		}
	}
	CHECK_EQ(queue_info(q).kevents, 0);
}

static void each_bit_of_op_is_refused_in_a_plain_change(void)
{
	int q = queue_open();
	struct kevent_request req = valid_request(KEVENT_TIMER);
	unsigned int bit;

	need_feature(q, KEVENT_FEATURE_TIMER);
	for (bit = 0; bit < 16; bit++) {
		req.op = (uint16_t)(1U << bit);
		check_refused(q, KEVENT_IOC_NR_ADD, req, "op", bit);
	}
	req.op = 0;
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), 0);
	for (bit = 0; bit < 16; bit++) {
		req.op = (uint16_t)(1U << bit);
		check_refused(q, KEVENT_IOC_NR_MODIFY, req, "op", bit);
		check_refused(q, KEVENT_IOC_NR_REMOVE, (struct kevent_request){
			.type = KEVENT_TIMER, .ident = 1, .op = req.op,
			}, "op", bit);
	}
}

static void remove_refuses_whatever_it_does_not_look_at(void)
{
	int q = queue_open();
	struct kevent_request req;
	unsigned int bit, p;

	need_feature(q, KEVENT_FEATURE_USER);
	CHECK_EQ(add_user(q, 1, 0, 0), 0);
	for (bit = 0; bit < 32; bit++) {
		req = request(KEVENT_USER, 1, 1U << bit, 0, 0);
		check_refused(q, KEVENT_IOC_NR_REMOVE, req, "events", bit);
	}
	for (bit = 0; bit < 64; bit++) {
		req = request(KEVENT_USER, 1, 0, 0, 1ULL << bit);
		check_refused(q, KEVENT_IOC_NR_REMOVE, req, "cookie", bit);
		for (p = 0; p < 3; p++) {
			req = request(KEVENT_USER, 1, 0, 0, 0);
			req.param[p] = 1ULL << bit;
			check_refused(q, KEVENT_IOC_NR_REMOVE, req, "param",
				      bit);
		}
	}
	CHECK_EQ(queue_info(q).kevents, 1);
}

static void each_unknown_type_is_enxio(void)
{
	int q = queue_open();
	unsigned int type, nr;

	for (type = 0; type <= 0xffff; type++) {
		if (type >= KEVENT_SOCKET && type <= KEVENT_NAIO)
			continue;
		/* All of them near the known ones, then one bit at a time. */
		if (type > 64 && (type & (type - 1)) && type != 0xffff)
			continue;
		for (nr = KEVENT_IOC_NR_ADD; nr <= KEVENT_IOC_NR_REMOVE; nr++)
			CHECK_EQ(change(q, nr, request((uint16_t)type, 0, 0, 0,
						       0)), -ENXIO);
	}
	CHECK_EQ(add(q, KEVENT_PATH, 1, KEVENT_INODE_CREATE, 0, 0), -EINVAL);
}

static void one_shot_together_with_dispatch_is_refused(void)
{
	int q = queue_open();
	uint32_t features = queue_info(q).features;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		struct kevent_request req = valid_request(types[i].type);

		if (!(features & types[i].feature))
			continue;
		req.flags = KEVENT_ONESHOT | KEVENT_DISPATCH;
		CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), -EINVAL);
	}
}

static const struct test_case cases[] = {
	TEST(each_undefined_flag_is_refused_and_each_defined_one_taken),
	TEST(each_undefined_event_is_refused_and_each_defined_one_taken),
	TEST(each_bit_of_an_unused_parameter_is_refused),
	TEST(each_bit_of_op_is_refused_in_a_plain_change),
	TEST(remove_refuses_whatever_it_does_not_look_at),
	TEST(each_unknown_type_is_enxio),
	TEST(one_shot_together_with_dispatch_is_refused),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
