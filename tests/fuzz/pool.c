// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The descriptors that programs use.
 */
#include "fuzz.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

int pool_fd(uint64_t arg)
{
	return (int)(FD_FIRST + (arg - FD_FIRST) % FD_COUNT);
}

void move_fd(int fd, int to)
{
	if (fd < 0 || fd == to)
		return;
	dup3(fd, to, O_CLOEXEC);
	close(fd);
}

/* Makers: one or two descriptors, or -1 where it is not possible. */

static int loopback_socket(int type, struct sockaddr_in *addr)
{
	socklen_t len = sizeof(*addr);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*addr = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	bind(fd, (struct sockaddr *)addr, sizeof(*addr));
	getsockname(fd, (struct sockaddr *)addr, &len);
	return fd;
}

static void make_listener(int fd[2])
{
	struct sockaddr_in addr;

	fd[0] = loopback_socket(SOCK_STREAM, &addr);
	listen(fd[0], 4);
}

static void make_tcp(int fd[2])
{
	struct sockaddr_in addr;
	int listener = loopback_socket(SOCK_STREAM, &addr);

	listen(listener, 4);
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	connect(fd[0], (struct sockaddr *)&addr, sizeof(addr));
	fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	close(listener);
}

static void make_udp(int fd[2])
{
	struct sockaddr_in addr[2];

	fd[0] = loopback_socket(SOCK_DGRAM, &addr[0]);
	fd[1] = loopback_socket(SOCK_DGRAM, &addr[1]);
	connect(fd[0], (struct sockaddr *)&addr[1], sizeof(addr[1]));
	connect(fd[1], (struct sockaddr *)&addr[0], sizeof(addr[0]));
}

static void make_unix(int fd[2])
{
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd);
}

static void make_unix_dgram(int fd[2])
{
	socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd);
}

static void make_unix_listener(int fd[2])
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	fd[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* a name that the kernel chooses */
	bind(fd[0], (struct sockaddr *)&addr, sizeof(addr.sun_family));
	listen(fd[0], 4);
}

static void make_netlink(int fd[2])
{
	fd[0] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void make_fresh_socket(int fd[2])
{
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void make_queue(int fd[2])
{
	fd[0] = open(device_path(), O_RDWR | O_CLOEXEC);
}

static void make_quick_queue(int fd[2])
{
	fd[0] = open(device_path(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
}

static void make_pipe(int fd[2])
{
	if (pipe2(fd, O_CLOEXEC | O_NONBLOCK))
		fd[0] = fd[1] = -1;
}

static void make_eventfd(int fd[2])
{
	fd[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void make_timerfd(int fd[2])
{
	fd[0] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
}

static void make_signalfd(int fd[2])
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	fd[0] = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void make_epoll(int fd[2])
{
	fd[0] = epoll_create1(EPOLL_CLOEXEC);
}

static void make_inotify(int fd[2])
{
	fd[0] = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
}

static void make_pty(int fd[2])
{
	char name[64];

	fd[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (fd[0] < 0 || unlockpt(fd[0]) || ptsname_r(fd[0], name, sizeof(name)))
		return;
	fd[1] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
}

static void make_null(int fd[2])
{
	fd[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
}

static void make_file(int fd[2])
{
	fd[0] = open("a", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
}

static void make_dir(int fd[2])
{
	fd[0] = open("d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void make_fifo(int fd[2])
{
	fd[0] = open("fifo", O_RDWR | O_CLOEXEC | O_NONBLOCK);
}

static void make_mount(int fd[2])
{
	fd[0] = open("mnt/a", O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
}

static void make_path(int fd[2])
{
	fd[0] = open("a", O_PATH | O_CLOEXEC);
}

static void make_random(int fd[2])
{
	fd[0] = open("/dev/random", O_RDWR | O_CLOEXEC | O_NONBLOCK);
}

static void make_fdinfo(int fd[2])
{
	fd[0] = open("/proc/self/mounts", O_RDONLY | O_CLOEXEC);
}

static const struct kind {
	void (*make)(int fd[2]);
	bool pair, files, queue, socket;
} kinds[] = {
	{ .make = make_queue, .queue = true },			/* 0 */
	{ .make = make_quick_queue, .queue = true },
	{ .make = make_tcp, .pair = true, .socket = true },
	{ .make = make_listener, .socket = true },
	{ .make = make_udp, .pair = true, .socket = true },
	{ .make = make_unix, .pair = true, .socket = true },	/* 5 */
	{ .make = make_unix_dgram, .pair = true, .socket = true },
	{ .make = make_unix_listener, .socket = true },
	{ .make = make_netlink, .socket = true },
	{ .make = make_fresh_socket, .socket = true },
	{ .make = make_pipe, .pair = true },			/* 10 */
	{ .make = make_eventfd },
	{ .make = make_timerfd },
	{ .make = make_signalfd },
	{ .make = make_epoll },
	{ .make = make_inotify },				/* 15 */
	{ .make = make_pty, .pair = true },
	{ .make = make_null },
	{ .make = make_file, .files = true },
	{ .make = make_dir, .files = true },
	{ .make = make_fifo, .files = true },			/* 20 */
	{ .make = make_mount, .files = true },
	{ .make = make_path, .files = true },
	{ .make = make_random },
	{ .make = make_fdinfo },
};

/* What each descriptor is at the start; both ends of a pair follow another. */
static const uint8_t defaults[FD_COUNT] = {
	0, 0, 0, 1,		/* 64 */
	2, 2, 2, 2,		/* 68 */
	3, 4, 4, 5, 5, 6, 6,	/* 72 */
	7, 8, 10, 10, 11, 12,	/* 79 */
	13, 14, 15, 16, 16,	/* 85 */
	17, 18, 19, 20, 21, 23,	/* 90 */
};

unsigned int pool_nr_kinds(void)
{
	return ARRAY_SIZE(kinds);
}

bool kind_is_queue(unsigned int kind)
{
	return kinds[kind].queue;
}

bool kind_is_socket(unsigned int kind)
{
	return kinds[kind].socket;
}

unsigned int pool_kind(unsigned int fd)
{
	return defaults[fd - FD_FIRST];
}

void pool_open(unsigned int kind, int fd, int peer)
{
	const struct kind *k = &kinds[kind % ARRAY_SIZE(kinds)];
	int made[2] = { -1, -1 };

	k->make(made);
	move_fd(made[0], fd);
	move_fd(made[1], peer);
}

/* The first of the pair that @fd belongs to: pairs follow each other. */
static unsigned int first_of_pair(unsigned int fd)
{
	unsigned int first = fd;

	while (first > FD_FIRST && pool_kind(first - 1) == pool_kind(fd))
		first--;
	return fd - (fd - first) % 2;
}

unsigned int pool_peer(unsigned int fd)
{
	unsigned int first;

	if (!kinds[pool_kind(fd)].pair)
		return fd;
	first = first_of_pair(fd);
	return fd == first ? first + 1 : first;
}

static void pool_default(unsigned int fd)
{
	unsigned int kind = pool_kind(fd);

	if (kinds[kind].pair)
		fd = first_of_pair(fd);
	pool_open(kind, (int)fd, (int)fd + 1);
}

static bool is_descriptor(uint64_t value)
{
	return value >= FD_FIRST && value < FD_FIRST + FD_COUNT;
}

/*
 * The letter of argument @i, or, in a list, whether it may be a descriptor, 'I',
 * or where there is a transfer, 'T'.
 */
static char letter(const struct call_type *type, unsigned int i)
{
	unsigned int fixed = fixed_args(type);

	if (i < fixed)
		return type->args[i];
	if (list_group(type) != REQUEST_ARGS)
		return 'x';
	switch ((i - fixed) % REQUEST_ARGS) {
	case 1:
	case 8:
		return 'I';
	case 6:
		return 'T';
	}
	return 'x';
}

/* The descriptor that argument @i of a call is, or 0. */
static unsigned int descriptor_of(const struct call *c, unsigned int i)
{
	char l = letter(&call_types[c->type], i);
	uint64_t value = c->arg[i];

	if (strchr("qfs", l) || (l == 'I' && is_descriptor(value)))
		return (unsigned int)pool_fd(value);
	if (l == 'T' && memory_is_sendfile(value))
		return memory_sendfile_fd(value);
	return 0;
}

static bool needs_files(const struct call *c)
{
	const struct call_type *type = &call_types[c->type];
	unsigned int i, fd;

	for (i = 0; i < c->nr_args; i++) {
		char l = letter(type, i);

		if (l == 'p' || (l == 'k' &&
		    kinds[c->arg[i] % ARRAY_SIZE(kinds)].files))
			return true;
		fd = descriptor_of(c, i);
		if (fd && kinds[pool_kind(fd)].files)
			return true;
	}
	return false;
}

static bool uses_files(const struct program *p)
{
	unsigned int i;

	for (i = 0; i < p->nr; i++)
		if (needs_files(&p->call[i]))
			return true;
	return false;
}

void pool_prepare(const struct program *p)
{
	bool used[FD_COUNT] = {};
	unsigned int i, j;

	if (uses_files(p))
		files_prepare();
	for (i = 0; i < p->nr; i++) {
		const struct call *c = &p->call[i];

		for (j = 0; j < c->nr_args; j++) {
			unsigned int fd = descriptor_of(c, j);

			if (fd)
				used[fd - FD_FIRST] = true;
		}
	}
	for (i = 0; i < FD_COUNT; i++)
		if (used[i] && fcntl(FD_FIRST + (int)i, F_GETFD) < 0)
			pool_default(FD_FIRST + i);
}

void pool_close(void)
{
	close_range(FD_FIRST, FD_FIRST + FD_COUNT - 1, 0);
}
