// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Programs out of nothing, and out of others.
 *
 * Most of what is made here is valid, since what is refused at the door does
 * not get far; then now and again one number of it is bent.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

static uint64_t any_number(struct rnd *rnd)
{
	static const uint64_t numbers[] = {
		0, 1, 2, 3, 7, 8, 31, 32, 63, 255, 256, 509, 510, 511, 4095,
		4096, 16382, 16383, 65535, 65536, INT_MAX, 1ULL << 31, UINT_MAX,
		1ULL << 32, LLONG_MAX, 1ULL << 63, ULLONG_MAX - 1, ULLONG_MAX,
	};
	uint64_t high;

	switch (rnd_below(rnd, 8)) {
	case 0:
		high = rnd_below(rnd, UINT_MAX);
		return high << 32 | rnd_below(rnd, UINT_MAX);
	case 1:
		return 1ULL << rnd_below(rnd, 64);
	case 2:
		return rnd_below(rnd, 1024);
	default:
		return numbers[rnd_below(rnd, ARRAY_SIZE(numbers))];
	}
}

static bool one_in(struct rnd *rnd, unsigned int n)
{
	return !rnd_below(rnd, n);
}

/* A descriptor of the pool; one that the program has already, most of the time. */
static uint64_t any_fd(const struct program *p, struct rnd *rnd)
{
	unsigned int tries;

	for (tries = 0; p->nr && tries < 4 && !one_in(rnd, 3); tries++) {
		const struct call *c = &p->call[rnd_below(rnd, p->nr)];
		unsigned int fixed = fixed_args(&call_types[c->type]);
		uint64_t fd = c->nr_args > fixed + 1 ? c->arg[fixed + 1] :
						       c->arg[0];

		if (c->nr_args > fixed + 8 && c->arg[fixed] == KEVENT_NAIO)
			fd = c->arg[fixed + 8];
		if (fd < FD_FIRST || fd >= FD_FIRST + FD_COUNT)
			continue;
		/* what a socket has is up to its peer */
		return one_in(rnd, 3) ? pool_peer((unsigned int)fd) : fd;
	}
	return FD_FIRST + rnd_below(rnd, FD_COUNT);
}

static uint64_t queue_fd(const struct program *p, struct rnd *rnd)
{
	if (one_in(rnd, 40))
		return any_fd(p, rnd);
	/* mostly one and the same */
	return FD_FIRST + (rnd_below(rnd, 3) ? 0 : rnd_below(rnd, 4));
}

static uint64_t socket_fd(const struct program *p, struct rnd *rnd)
{
	uint64_t fd = any_fd(p, rnd);
	unsigned int tries;

	for (tries = 0; tries < 8; tries++) {
		if (kind_is_socket(pool_kind((unsigned int)fd)))
			break;
		fd = any_fd(p, rnd);
	}
	return fd;
}

static uint64_t any_time(struct rnd *rnd)
{
	static const uint64_t times[] = {
		0, 1, 1000, 50000, 200000, 500000, 1000000, 2000000, 5000000,
	};

	if (one_in(rnd, 40))
		return any_number(rnd);
	return times[rnd_below(rnd, ARRAY_SIZE(times))];
}

static uint64_t any_clock(struct rnd *rnd)
{
	static const uint64_t clocks[] = {
		CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
	};

	return one_in(rnd, 30) ? rnd_below(rnd, 16) :
				 clocks[rnd_below(rnd, ARRAY_SIZE(clocks))];
}

static uint64_t any_place(struct rnd *rnd)
{
	if (!one_in(rnd, 8))
		return 0;
	return rnd_below(rnd, 10) | (uint64_t)rnd_below(rnd, 700) << 4;
}

/* An ioctl's number: nearly one of ours, or anything. */
static uint64_t any_ioctl(struct rnd *rnd)
{
	unsigned int size = one_in(rnd, 2) ? 16 + 56 * rnd_below(rnd, 4) :
			    rnd_below(rnd, KEVENT_MAX_SIZE + 1);

	if (one_in(rnd, 4))
		return rnd_below(rnd, UINT_MAX);
	return _IOC(one_in(rnd, 6) ? rnd_below(rnd, 4) : 3U, KEVENT_IOC_MAGIC,
		    rnd_below(rnd, 9), size);
}

static uint64_t few(struct rnd *rnd, const uint64_t *values, unsigned int nr)
{
	return values[rnd_below(rnd, nr)];
}

#define FEW(rnd, ...)							\
	few(rnd, (const uint64_t[]){ __VA_ARGS__ },			\
	    sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))

static uint64_t any_argument(const struct program *p, char l, struct rnd *rnd)
{
	switch (l) {
	case 'q':
		return queue_fd(p, rnd);
	case 'f':
		return any_fd(p, rnd);
	case 's':
		return socket_fd(p, rnd);
	case 'p':
		return rnd_below(rnd, pool_nr_paths());
	case 'k':
		return rnd_below(rnd, pool_nr_kinds());
	case 'w':
		return any_place(rnd);
	case 'z':
		return one_in(rnd, 20) ? any_number(rnd) : 0;
	case 'd':
		return one_in(rnd, 40) ? any_number(rnd) : 0;
	case 'm':
		return FEW(rnd, 0, 1, 1, 1, 1, 2, 3, 8);
	case 'M':
		return FEW(rnd, 0, 1, 2, 4, 8, 8, 9, 16, 17, 40, 510);
	case 't':
		return any_time(rnd);
	case 'u':
		return FEW(rnd, 0, 1, 10, 100, 300, 1000, 2000);
	case 'c':
		return any_clock(rnd);
	case 'a':
		return one_in(rnd, 4) ? KEVENT_WAIT_ABSTIME :
		       one_in(rnd, 50) ? any_number(rnd) : 0;
	case 'i':
		return any_ioctl(rnd);
	case 'e':
		return FEW(rnd, POLLIN, POLLOUT, POLLIN | POLLOUT, POLLPRI,
			   POLLIN | 1U << 31, POLLIN | 1U << 30, 0, 0xffff);
	case 'o':
		return FEW(rnd, O_RDONLY, O_RDWR, O_WRONLY, O_PATH,
			   O_RDONLY | O_DIRECTORY, O_RDWR | O_TRUNC,
			   O_PATH | O_NOFOLLOW);
	case 'n':
		return one_in(rnd, 4) ? rnd_below(rnd, 10000) :
			FEW(rnd, 0, 1, 2, 3, 4, 7, 8, 32, 64, 511);
	default:
		return any_number(rnd);
	}
}

static uint64_t any_mode(struct rnd *rnd)
{
	return FEW(rnd, 0, 0, 0, KEVENT_EDGE, KEVENT_EDGE, KEVENT_ONESHOT,
		   KEVENT_ONESHOT, KEVENT_DISPATCH, KEVENT_DISPATCH,
		   KEVENT_DISABLED, KEVENT_EDGE | KEVENT_ONESHOT,
		   KEVENT_EDGE | KEVENT_DISPATCH,
		   KEVENT_ONESHOT | KEVENT_DISABLED);
}

static uint64_t some_bits(uint64_t all, struct rnd *rnd)
{
	uint64_t bits = all & rnd_below(rnd, UINT_MAX);

	return bits ? bits : all;
}

static unsigned int file_fd(const struct program *p, struct rnd *rnd)
{
	/* "a", and what else there is of files */
	return one_in(rnd, 3) ? (unsigned int)any_fd(p, rnd) :
				(unsigned int)FEW(rnd, 91, 91, 94);
}

/* One that takes part in a transfer, most of the time; of a pair. */
static uint64_t transfer_fd(const struct program *p, uint64_t events,
			    struct rnd *rnd)
{
	if (one_in(rnd, 4))
		return socket_fd(p, rnd);
	if (events == KEVENT_NAIO_RECV)
		return FEW(rnd, 68, 69, 70, 71, 73, 74, 75, 76, 77, 78);
	return FEW(rnd, 68, 69, 70, 71, 68, 69, 73, 74);
}

static void any_transfer(const struct program *p, uint64_t *arg,
			 struct rnd *rnd)
{
	arg[4] = one_in(rnd, 4) ? KEVENT_ONESHOT : 0;
	arg[5] = FEW(rnd, KEVENT_NAIO_RECV, KEVENT_NAIO_RECV, KEVENT_NAIO_SEND,
		     KEVENT_NAIO_SEND, KEVENT_NAIO_SENDFILE);
	arg[6] = one_in(rnd, 2) ? 0 : rnd_below(rnd, 12) |
				      (uint64_t)rnd_below(rnd, 9000) << 4;
	arg[7] = FEW(rnd, 1, 5, 100, 4096, 5000, 20000, 300000, 4000000, 4000000,
		     KEVENT_NAIO_MAX, 0);
	arg[8] = transfer_fd(p, arg[5], rnd);
	if (arg[5] == KEVENT_NAIO_SENDFILE) {
		/* mostly without anything wrong in it */
		arg[6] = memory_sendfile(file_fd(p, rnd),
					 rnd_below(rnd, one_in(rnd, 4) ?
						   1U << 15 : 1U << 10));
		arg[7] = memory_sendfile_size(arg[6]);
	} else if (arg[5] == KEVENT_NAIO_RECV) {
		arg[4] |= one_in(rnd, 3) ? KEVENT_WAITALL : 0;
		if (one_in(rnd, 4))
			arg[4] = KEVENT_MULTISHOT |
				 (one_in(rnd, 3) ? KEVENT_DISPATCH : 0);
	}
}

/* A request of @type that makes sense, all of it. */
static void any_request(const struct program *p, uint64_t *arg, uint64_t type,
			struct rnd *rnd)
{
	bool broken = one_in(rnd, 3);

	memset(arg, 0, REQUEST_ARGS * sizeof(*arg));
	arg[0] = type;
	arg[1] = rnd_below(rnd, 3);
	arg[2] = rnd_below(rnd, 100);
	arg[4] = any_mode(rnd);
	switch (type) {
	case KEVENT_SOCKET:
		arg[1] = socket_fd(p, rnd);
		arg[5] = some_bits(0x601f, rnd);
		arg[4] |= one_in(rnd, 3) ? KEVENT_BYTES : 0;
		arg[4] |= broken ? KEVENT_NOTIFY_BROKEN : 0;
		break;
	case KEVENT_POLL:
		arg[1] = any_fd(p, rnd);
		arg[5] = FEW(rnd, POLLIN, POLLIN, POLLOUT, POLLIN | POLLOUT,
			     POLLPRI, POLLIN | POLLRDHUP, 0);
		arg[4] |= broken ? KEVENT_NOTIFY_BROKEN : 0;
		break;
	case KEVENT_INODE:
		arg[1] = any_fd(p, rnd);
		arg[4] |= broken ? KEVENT_NOTIFY_BROKEN : 0;
		/* fall through */
	case KEVENT_PATH:
		arg[5] = some_bits(0x1ff, rnd);
		arg[6] = FEW(rnd, 0, 0, 0, 1, 2, 5);
		if (type == KEVENT_PATH && one_in(rnd, 4))
			arg[4] |= KEVENT_NOFOLLOW;
		break;
	case KEVENT_TIMER:
		arg[5] = KEVENT_TIMER_FIRED;
		arg[6] = any_time(rnd);
		arg[7] = one_in(rnd, 2) ? 0 : any_time(rnd);
		arg[8] = any_clock(rnd);
		arg[4] |= one_in(rnd, 4) ? KEVENT_ABSTIME : 0;
		break;
	case KEVENT_USER:
		arg[5] = KEVENT_USER_POSTED;
		break;
	case KEVENT_NAIO:
		any_transfer(p, arg, rnd);
		break;
	}
}

/* A request that is there already, to be changed or added again. */
static bool known_request(const struct program *p, uint64_t *arg,
			  struct rnd *rnd)
{
	unsigned int tries;

	for (tries = 0; p->nr && tries < 6; tries++) {
		const struct call *c = &p->call[rnd_below(rnd, p->nr)];
		const struct call_type *type = &call_types[c->type];
		unsigned int fixed = fixed_args(type);

		if (list_group(type) != REQUEST_ARGS || c->nr_args == fixed)
			continue;
		memcpy(arg, &c->arg[fixed], REQUEST_ARGS * sizeof(*arg));
		return true;
	}
	return false;
}

static void request_for(const struct program *p, const struct call_type *type,
			uint64_t *arg, struct rnd *rnd)
{
	static const uint64_t kinds[] = {
		KEVENT_SOCKET, KEVENT_SOCKET, KEVENT_POLL, KEVENT_POLL,
		KEVENT_INODE, KEVENT_TIMER, KEVENT_USER, KEVENT_NAIO,
		KEVENT_NAIO,
	};
	bool path = type->run == run_add_path;
	bool adds = type->run == run_add;
	uint64_t op = 0;

	if (type->run == run_change_wait)
		op = 1 + rnd_below(rnd, 3);
	if (op == KEVENT_OP_ADD)
		adds = true;
	/* what is added is new, what is changed is known, but for some */
	if (path || one_in(rnd, 8) != adds || !known_request(p, arg, rnd)) {
		any_request(p, arg, path ? KEVENT_PATH :
			    few(rnd, kinds, ARRAY_SIZE(kinds)), rnd);
	} else if (one_in(rnd, 2)) {
		uint64_t ident = arg[1];

		any_request(p, arg, arg[0], rnd);
		arg[1] = ident;
	}
	arg[3] = op;
	if (type->run == run_remove || op == KEVENT_OP_REMOVE) {
		memset(arg + 4, 0, 5 * sizeof(*arg));
		arg[2] = 0;
		arg[4] = one_in(rnd, 4) ? KEVENT_STALE : 0;
	}
	if (one_in(rnd, 15))
		arg[rnd_below(rnd, REQUEST_ARGS)] = any_number(rnd);
}

static void list_generate(const struct program *p, struct call *c,
			  struct rnd *rnd)
{
	const struct call_type *type = &call_types[c->type];
	unsigned int group = list_group(type), nr, i;

	if (!group)
		return;
	nr = one_in(rnd, 3) ? rnd_below(rnd, 5) : 1;
	if (type->run == run_add_path)
		nr = 1;
	while (nr-- && c->nr_args + group <= MAX_ARGS) {
		uint64_t *arg = &c->arg[c->nr_args];

		if (group == REQUEST_ARGS) {
			request_for(p, type, arg, rnd);
		} else if (group == POST_ARGS) {
			arg[0] = rnd_below(rnd, 3);
			arg[1] = any_number(rnd);
			arg[2] = one_in(rnd, 30) ? any_number(rnd) : 0;
		} else {
			for (i = 0; i < group; i++)
				arg[i] = any_number(rnd);
		}
		c->nr_args = (uint8_t)(c->nr_args + group);
	}
}

static void call_generate(const struct program *p, struct call *c,
			  unsigned int threads, struct rnd *rnd)
{
	unsigned int total = 0, i, pick;
	const struct call_type *type;

	*c = (struct call){ .thread = (uint8_t)rnd_below(rnd, threads) };
	for (i = 0; i < nr_call_types; i++)
		total += call_types[i].weight;
	pick = rnd_below(rnd, total);
	for (i = 0; pick >= call_types[i].weight; i++)
		pick -= call_types[i].weight;
	c->type = (uint8_t)i;
	type = &call_types[i];
	c->nr_args = (uint8_t)fixed_args(type);
	for (i = 0; i < c->nr_args; i++)
		c->arg[i] = any_argument(p, type->args[i], rnd);
	list_generate(p, c, rnd);
}

static void add_call(struct program *p, unsigned int threads, const char *name,
		     struct rnd *rnd)
{
	struct call *c = &p->call[p->nr];
	const struct call_type *type = call_types;
	unsigned int i;

	while (strcmp(type->name, name))
		type++;
	*c = (struct call){
		.thread = (uint8_t)rnd_below(rnd, threads),
		.type = (uint8_t)(type - call_types),
		.nr_args = (uint8_t)fixed_args(type),
	};
	for (i = 0; i < c->nr_args; i++)
		c->arg[i] = any_argument(p, type->args[i], rnd);
	p->nr++;
}

/* Where the last call asked for a transfer, its peer does something about it. */
static void answer_transfer(struct program *p, unsigned int threads,
			    struct rnd *rnd)
{
	const struct call *c = &p->call[p->nr - 1];
	const struct call_type *type = &call_types[c->type];
	const uint64_t *arg = &c->arg[fixed_args(type)];
	uint64_t queue = c->arg[0], fd;

	if (list_group(type) != REQUEST_ARGS || type->run == run_remove ||
	    arg + REQUEST_ARGS > c->arg + c->nr_args || arg[0] != KEVENT_NAIO ||
	    arg[8] < FD_FIRST || arg[8] >= FD_FIRST + FD_COUNT ||
	    p->nr + 2 > MAX_CALLS)
		return;
	fd = pool_peer((unsigned int)arg[8]);
	add_call(p, threads, arg[5] == KEVENT_NAIO_RECV ? "write" : "drain",
		 rnd);
	p->call[p->nr - 1].arg[0] = fd;
	if (one_in(rnd, 3))
		return;
	add_call(p, threads, "wait", rnd);
	p->call[p->nr - 1].arg[0] = queue;
}

void program_generate(struct program *p, struct rnd *rnd)
{
	unsigned int nr = 3 + rnd_below(rnd, 18);
	unsigned int threads = 1 + rnd_below(rnd, MAX_THREADS);

	p->nr = 0;
	while (p->nr < nr) {
		call_generate(p, &p->call[p->nr], threads, rnd);
		p->nr++;
		if (one_in(rnd, 2))
			answer_transfer(p, threads, rnd);
	}
}

static void insert_call(struct program *p, unsigned int at,
			const struct call *c)
{
	if (p->nr == MAX_CALLS)
		p->nr--;
	memmove(&p->call[at + 1], &p->call[at],
		(p->nr - at) * sizeof(p->call[0]));
	p->call[at] = *c;
	p->nr++;
}

static void bend_call(struct program *p, struct call *c, struct rnd *rnd)
{
	const struct call_type *type = &call_types[c->type];
	unsigned int fixed = fixed_args(type);
	unsigned int at = rnd_below(rnd, c->nr_args);

	if (at < fixed)
		c->arg[at] = any_argument(p, type->args[at], rnd);
	else if (list_group(type) == REQUEST_ARGS && !one_in(rnd, 3))
		request_for(p, type, &c->arg[at - (at - fixed) % REQUEST_ARGS],
			    rnd);
	else if (one_in(rnd, 2))
		c->arg[at] ^= 1ULL << rnd_below(rnd, 16);
	else
		c->arg[at] = any_number(rnd);
}

static void mutate_once(struct program *p, const struct program *other,
			struct rnd *rnd)
{
	unsigned int at = rnd_below(rnd, p->nr), from, nr;
	struct call c;

	switch (rnd_below(rnd, 10)) {
	case 0:
		if (p->nr > 1) {
			memmove(&p->call[at], &p->call[at + 1],
				(p->nr - at - 1) * sizeof(p->call[0]));
			p->nr--;
		}
		break;
	case 1:
		c = p->call[at];
		insert_call(p, rnd_below(rnd, p->nr), &c);
		break;
	case 2:
		/* the same, at the same time as another */
		p->call[at].thread = (uint8_t)rnd_below(rnd, MAX_THREADS);
		break;
	case 3:
		from = rnd_below(rnd, p->nr);
		c = p->call[at];
		p->call[at] = p->call[from];
		p->call[from] = c;
		break;
	case 4:
		for (from = rnd_below(rnd, other->nr), nr = 1 + rnd_below(rnd, 8);
		     nr && from < other->nr; nr--, from++) {
			insert_call(p, at, &other->call[from]);
			if (at < MAX_CALLS - 2)
				at++;
		}
		break;
	case 5:
	case 6:
	case 7:
		call_generate(p, &c, MAX_THREADS, rnd);
		insert_call(p, at, &c);
		break;
	default:
		bend_call(p, &p->call[at], rnd);
	}
}

void program_mutate(struct program *p, const struct program *other,
		    struct rnd *rnd)
{
	unsigned int nr = 1 + rnd_below(rnd, 4);

	while (nr--)
		mutate_once(p, other, rnd);
}
