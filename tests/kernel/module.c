// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loading and unloading: refused while a queue is open, clean afterwards, and a
 * hundred times over.  Needs root and KEVENT_MODULE, the path of kevent.ko (and
 * KEVENT_MODULE_BARE, of one built with every source off); the module is loaded
 * again, with the parameters it had, whatever happens.
 */
#include "lib.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CROWD	400U

/* Something ready, something pending, of every type; all left to the close. */
static void use(int q, struct rnd *rnd)
{
	uint32_t features = queue_info(q).features;
	struct kevent_event ev[8];
	int fd[2];

	if (features & KEVENT_FEATURE_SOCKET) {
		unix_pair(fd);
		CHECK_EQ(add(q, KEVENT_SOCKET, fd[0], KEVENT_SOCKET_RECV,
			     rnd_below(rnd, 2) ? KEVENT_NOTIFY_BROKEN : 0, 0),
			 0);
		CHECK_EQ(SYS(write(fd[1], "x", 1)), 1);
		if (rnd_below(rnd, 2))
			close(fd[0]);
	}
	if (features & KEVENT_FEATURE_POLL) {
		SYS(pipe(fd));
		CHECK_EQ(add(q, KEVENT_POLL, fd[0], POLLIN, 0, 0), 0);
		CHECK_EQ(add(q, KEVENT_POLL, eventfd_new(1), POLLIN, 0, 0), 0);
		if (rnd_below(rnd, 2))
			close(fd[0]);
	}
	if (features & KEVENT_FEATURE_INODE) {
		fd[0] = (int)SYS(open(temp_dir(), O_RDONLY));
		CHECK_EQ(add(q, KEVENT_INODE, fd[0], 0x1ff, 0, 0), 0);
		CHECK_EQ(add_path(q, 1, temp_dir(), 0x1ff, 0, 0), 0);
	}
	if (features & KEVENT_FEATURE_TIMER) {
		CHECK_EQ(add_timer(q, 1, rnd_below(rnd, 100000), 50000, 0, 0),
			 0);
		CHECK_EQ(add_timer(q, 2, NSEC_PER_SEC, 0, 0, 0), 0);
	}
	if (features & KEVENT_FEATURE_USER) {
		CHECK_EQ(add_user(q, 1, 0, 0), 0);
		CHECK_EQ(post(q, 1, 0), 0);
	}
	if (rnd_below(rnd, 2))
		CHECK(wait_events(q, ev, 1, 0, 0) >= 0);
}

static void refuse(void *arg)
{
	int q = queue_open(), again;

	(void)arg;
	CHECK_EQ(module_unload(), -EWOULDBLOCK);
	again = (int)SYS(dup(q));
	close(q);
	CHECK_EQ(module_unload(), -EWOULDBLOCK);
	/* Refused without harm: it still works. */
	queue_info(again);
	close(again);
	module_unload_soon();
	check_module_gone();
}

static void unloading_is_refused_while_a_queue_is_open(void)
{
	with_module_back(refuse, NULL);
}

static void hold_open(void *arg)
{
	struct kevent_event ev;

	wait_events(*(int *)arg, &ev, 1, 1, FOREVER);
}

static void refuse_while_waiting(void *arg)
{
	int q = queue_open();
	pid_t pid = child_start(hold_open, &q);

	(void)arg;
	wait_until_asleep(pid, SYS_ioctl);
	close(q);
	CHECK_EQ(module_unload(), -EWOULDBLOCK);
	child_kill(pid);
	module_unload_soon();
	check_module_gone();
}

static void unloading_is_refused_while_a_process_waits(void)
{
	with_module_back(refuse_while_waiting, NULL);
}

static void hundred(void *arg)
{
	uint64_t loading = 0, unloading = 0, using = 0, begin, used, unloaded;
	unsigned int i, total = rounds(100);
	struct rnd rnd = rnd_stream(0);

	(void)arg;
	signal(SIGPIPE, SIG_IGN);
	for (i = 0; i < total; i++) {
		begin = now_ns();
		/* Everything that it opens ends with the child. */
		if (i % 4) {
			pid_t pid = (pid_t)SYS(fork());

			if (!pid) {
				use(open_device_soon(), &rnd);
				_exit(EXIT_SUCCESS);
			}
			child_join(pid);
			rnd_below(&rnd, 2);
		}
		used = now_ns();
		module_unload_soon();
		unloaded = now_ns();
		CHECK(!module_is_loaded());
		CHECK_EQ(module_load(), 0);
		using += used - begin;
		unloading += unloaded - used;
		loading += now_ns() - unloaded;
	}
	dprintf(STDERR_FILENO, "ms in use %llu, to unload %llu, to load %llu\n",
		(unsigned long long)(using / total / NSEC_PER_MSEC),
		(unsigned long long)(unloading / total / NSEC_PER_MSEC),
		(unsigned long long)(loading / total / NSEC_PER_MSEC));
}

static void the_module_loads_and_unloads_a_hundred_times(void)
{
	with_module_back(hundred, NULL);
}

struct traffic {
	int fd[2];
	_Atomic bool stop;
};

static void *write_and_read(void *arg)
{
	struct traffic *t = arg;
	char buf[64];

	while (!t->stop) {
		(void)!write(t->fd[1], "x", 1);
		(void)!read(t->fd[0], buf, sizeof(buf));
	}
	return NULL;
}

/* Files outlive the queue and the module, with traffic on them throughout. */
static void unload_under_traffic(void *arg)
{
	struct traffic sock, pipes;
	pthread_t threads[2];
	unsigned int i;

	(void)arg;
	memset(&sock, 0, sizeof(sock));
	memset(&pipes, 0, sizeof(pipes));
	unix_pair(sock.fd);
	SYS(pipe2(pipes.fd, O_NONBLOCK));
	threads[0] = thread_start(write_and_read, &sock);
	threads[1] = thread_start(write_and_read, &pipes);
	for (i = 0; i < rounds(20); i++) {
		int q = open_device_soon();
		uint32_t features = queue_info(q).features;

		if (features & KEVENT_FEATURE_SOCKET)
			CHECK_EQ(add(q, KEVENT_SOCKET, sock.fd[0],
				     KEVENT_SOCKET_RECV, i & 1 ?
				     KEVENT_NOTIFY_BROKEN : 0, 0), 0);
		if (features & KEVENT_FEATURE_POLL) {
			CHECK_EQ(add(q, KEVENT_POLL, pipes.fd[0], POLLIN, 0, 0),
				 0);
			CHECK_EQ(add(q, KEVENT_POLL, pipes.fd[1], POLLOUT,
				     KEVENT_EDGE, 0), 0);
		}
		close(q);
		module_unload_soon();
		CHECK_EQ(module_load(), 0);
	}
	sock.stop = true;
	pipes.stop = true;
	thread_join(threads[0]);
	thread_join(threads[1]);
}

static void the_module_goes_away_under_traffic_on_what_was_watched(void)
{
	with_module_back(unload_under_traffic, NULL);
}

/* Connections, of which every second is closed while the module goes. */
struct crowd {
	int fd[CROWD][2];
	pthread_barrier_t start;
};

static void *close_some(void *arg)
{
	struct crowd *c = arg;
	unsigned int i;

	pthread_barrier_wait(&c->start);
	for (i = 0; i < CROWD; i++) {
		if (i % 2) {
			(void)!write(c->fd[i][1], "y", 1);
			continue;
		}
		close(c->fd[i][0]);
		close(c->fd[i][1]);
	}
	return NULL;
}

static int transfer(int q, uint64_t ident, uint32_t events, uint32_t flags,
		    char *byte, int fd)
{
	return change(q, KEVENT_IOC_NR_ADD,
		      naio_request(ident, events, flags, byte, 1, fd));
}

/* A send that needs not wait, and receives that do, or have what they wait for. */
static void use_crowd(struct crowd *c, int q)
{
	static char byte[2] = "x";
	unsigned int i;

	for (i = 0; i < CROWD; i++) {
		unix_pair(c->fd[i]);
		CHECK_EQ(transfer(q, i, KEVENT_NAIO_RECV,
				  i & 2 ? KEVENT_MULTISHOT : 0, &byte[1],
				  c->fd[i][0]), 0);
		if (i & 4)
			CHECK_EQ(transfer(q, CROWD + i, KEVENT_NAIO_SEND, 0,
					  byte, c->fd[i][1]), 0);
	}
}

static void unload_after_transfers(void *arg)
{
	struct crowd c = { 0 };
	unsigned int i, round;

	(void)arg;
	raise_nofile(2 * CROWD + 64);
	pthread_barrier_init(&c.start, NULL, 2);
	for (round = 0; round < rounds(20); round++) {
		int q = open_device_soon();
		pthread_t thread;

		use_crowd(&c, q);
		close(q);
		thread = thread_start(close_some, &c);
		pthread_barrier_wait(&c.start);
		module_unload_soon();
		thread_join(thread);
		for (i = 1; i < CROWD; i += 2) {
			char byte = 0;

			/* who was told of that is not there any more */
			CHECK_EQ(SYS(write(c.fd[i][1], "z", 1)), 1);
			while (byte != 'z')
				CHECK_EQ(SYS(read(c.fd[i][0], &byte, 1)), 1);
			close(c.fd[i][0]);
			close(c.fd[i][1]);
		}
		CHECK_EQ(module_load(), 0);
	}
}

static void the_module_goes_away_from_sockets_that_had_transfers(void)
{
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_NAIO);
	close(q);
	with_module_back(unload_after_transfers, NULL);
}

static void *wait_for_byte(void *arg)
{
	struct kevent_event ev;

	CHECK_EQ(wait_events(*(int *)arg, &ev, 1, 1, PATIENCE), 1);
	CHECK_EQ(ev.data, 1);
	return NULL;
}

/*
 *	keeper	--- epoll_wait ---> fd	in the middle of telling
 *	waiter	--- WAIT ---> q		in the middle of receiving from fd
 *	main	--- close ---> fd	and the last who used it was the waiter
 */
static void unload_under_a_close(void *arg)
{
	struct pollfd pfd = { .events = POLLIN };
	struct keeper keeper;
	struct slow_page page;
	int q = queue_open();
	pthread_t waiter;
	int fd[2];

	(void)arg;
	need_root();
	slow_page_new(&page);
	tcp_pair(fd);
	CHECK_EQ(transfer(q, 1, KEVENT_NAIO_RECV, KEVENT_MULTISHOT, page.at,
			  fd[0]), 0);
	CHECK_EQ(SYS(write(fd[1], "x", 1)), 1);
	keeper_start(&keeper, fd[0]);
	waiter = thread_start(wait_for_byte, &q);
	slow_page_wait(&page);
	close(fd[0]);
	slow_page_come(&page);
	thread_join(waiter);
	close(q);
	/* not begun, for it would not end */
	CHECK_EQ(module_unload(), -EWOULDBLOCK);
	pfd.fd = fd[1];
	CHECK_EQ(SYS(poll(&pfd, 1, 0)), 0);
	keeper_end(&keeper);
	CHECK_EQ(SYS(poll(&pfd, 1, PATIENCE / NSEC_PER_MSEC)), 1);
	module_unload_soon();
	check_module_gone();
}

static void a_close_that_does_not_end_refuses_the_unloading_and_hangs_nobody(void)
{
	int q = queue_open();

	need_feature(q, KEVENT_FEATURE_NAIO);
	close(q);
	with_module_back(unload_under_a_close, NULL);
}

static void load_with(const char *text, int want)
{
	int ret;

	ret = module_load_file(getenv("KEVENT_MODULE"), text);
	if (ret != want)
		FAIL("loading with \"%s\" gave %d", text, ret);
	if (!ret)
		module_unload_soon();
}

static void bad_parameters(void *arg)
{
	(void)arg;
	module_unload_soon();
	load_with("max_queue_kevents=nonsense", -EINVAL);
	load_with("max_user_kevents=-1", -EINVAL);
	/* Unknown ones only warn, as for every module. */
	load_with("max_queue_kevents=10 max_user_kevents=20", 0);
}

static void parameters_that_are_no_numbers_are_refused(void)
{
	with_module_back(bad_parameters, NULL);
}

static void bare_module(void *arg)
{
	static const uint16_t types[] = {
		KEVENT_SOCKET, KEVENT_POLL, KEVENT_INODE, KEVENT_TIMER,
		KEVENT_USER, KEVENT_NAIO,
	};
	struct kevent_event ev;
	size_t i;
	int q;

	module_unload_soon();
	CHECK_EQ(module_load_file(arg, ""), 0);
	q = open_device_soon();
	CHECK_EQ(queue_info(q).version, KEVENT_ABI_VERSION);
	CHECK_EQ(queue_info(q).features,
		 KEVENT_FEATURE_FDINFO | KEVENT_FEATURE_PARTIAL);
	for (i = 0; i < ARRAY_SIZE(types); i++)
		CHECK_EQ(add(q, types[i], 0, 1, 0, 0), -EOPNOTSUPP);
	CHECK_EQ(add_path(q, 1, "/", KEVENT_INODE_CREATE, 0, 0), -EOPNOTSUPP);
	CHECK_EQ(add(q, KEVENT_NAIO + 1, 0, 1, 0, 0), -ENXIO);
	CHECK_EQ(wait_events(q, &ev, 1, 1, NSEC_PER_MSEC), 0);
	close(q);
	module_unload_soon();
}

static void a_module_without_any_source_loads_and_says_so(void)
{
	char *path = getenv("KEVENT_MODULE_BARE");

	if (!path)
		test_skip("KEVENT_MODULE_BARE does not name such a module");
	with_module_back(bare_module, path);
}

static const struct test_case cases[] = {
	TEST(unloading_is_refused_while_a_queue_is_open),
	TEST(unloading_is_refused_while_a_process_waits),
	LONG_TEST(the_module_goes_away_under_traffic_on_what_was_watched, 180),
	LONG_TEST(the_module_goes_away_from_sockets_that_had_transfers, 120),
	TEST(a_close_that_does_not_end_refuses_the_unloading_and_hangs_nobody),
	TEST(parameters_that_are_no_numbers_are_refused),
	TEST(a_module_without_any_source_loads_and_says_so),
	LONG_TEST(the_module_loads_and_unloads_a_hundred_times, 240),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
