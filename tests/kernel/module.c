// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loading and unloading: refused while a queue is open, clean afterwards, and a
 * hundred times over.  Needs root and KEVENT_MODULE, the path of kevent.ko (and
 * KEVENT_MODULE_BARE, of one built with every source off); the module is loaded
 * again, with the parameters it had, whatever happens.
 */
#include "lib.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char parameters[512];

/* As the kernel wants them: name=value, a blank between two. */
static void save_parameters(void)
{
	DIR *dir = opendir("/sys/module/kevent/parameters");
	struct dirent *entry;
	size_t len = 0;

	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		len += (size_t)snprintf(parameters + len,
					sizeof(parameters) - len, "%.60s=%llu ",
					entry->d_name, (unsigned long long)
					parameter_get(entry->d_name));
		CHECK(len < sizeof(parameters));
	}
	closedir(dir);
}

static bool is_loaded(void)
{
	return !access("/sys/module/kevent/initstate", F_OK);
}

/* 0 or -errno */
static int load_file(const char *path)
{
	int fd = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
	int ret = syscall(SYS_finit_module, fd, parameters, 0) ? -errno : 0;

	close(fd);
	return ret;
}

static int load(void)
{
	return load_file(getenv("KEVENT_MODULE"));
}

static int unload(void)
{
	return syscall(SYS_delete_module, "kevent", O_NONBLOCK) ? -errno : 0;
}

/* @fn as a process of its own, so that the module is back whatever it did. */
static void with_module_back(void (*fn)(void *), void *arg)
{
	int status;
	pid_t pid;

	need_root();
	if (!getenv("KEVENT_MODULE"))
		test_skip("KEVENT_MODULE does not name the module's file");
	if (!is_loaded())
		test_skip("the module is not loaded");
	save_parameters();
	pid = child_start(fn, arg);
	SYS(waitpid(pid, &status, 0));
	if (!is_loaded())
		CHECK_EQ(load(), 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		FAIL("ended with status %#x", status);
	close(queue_open());
}

/* The device file goes and comes in its own time, through devtmpfs. */
static int open_device(void)
{
	uint64_t end = now_ns() + PATIENCE;
	int q;

	while ((q = open(device_path(), O_RDWR | O_CLOEXEC)) < 0) {
		if (now_ns() > end)
			FAIL("%s: %s", device_path(), strerror(errno));
		sched_yield();
	}
	return q;
}

/* The last close may still be under way in another context. */
static void unload_soon(void)
{
	uint64_t end = now_ns() + PATIENCE;
	int ret;

	while ((ret = unload()) == -EWOULDBLOCK && now_ns() < end)
		sched_yield();
	CHECK_EQ(ret, 0);
}

static void check_gone(void)
{
	char text[4096];
	ssize_t n;
	int fd;

	CHECK(!is_loaded());
	CHECK_EQ(open(device_path(), O_RDWR), -1);
	CHECK(errno == ENOENT || errno == ENXIO || errno == ENODEV);
	fd = (int)SYS(open("/proc/misc", O_RDONLY));
	n = SYS(read(fd, text, sizeof(text) - 1));
	text[n] = '\0';
	CHECK(!strstr(text, "kevent"));
	close(fd);
	CHECK(access("/sys/class/misc/kevent", F_OK));
	CHECK(access("/sys/kernel/slab/kevent", F_OK));
}

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
	CHECK_EQ(unload(), -EWOULDBLOCK);
	again = (int)SYS(dup(q));
	close(q);
	CHECK_EQ(unload(), -EWOULDBLOCK);
	/* Refused without harm: it still works. */
	queue_info(again);
	close(again);
	unload_soon();
	check_gone();
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
	CHECK_EQ(unload(), -EWOULDBLOCK);
	child_kill(pid);
	unload_soon();
	check_gone();
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
				use(open_device(), &rnd);
				_exit(EXIT_SUCCESS);
			}
			child_join(pid);
			rnd_below(&rnd, 2);
		}
		used = now_ns();
		unload_soon();
		unloaded = now_ns();
		CHECK(!is_loaded());
		CHECK_EQ(load(), 0);
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
		int q = open_device();
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
		unload_soon();
		CHECK_EQ(load(), 0);
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

static void load_with(const char *text, int want)
{
	int ret;

	snprintf(parameters, sizeof(parameters), "%s", text);
	ret = load();
	if (ret != want)
		FAIL("loading with \"%s\" gave %d", text, ret);
	if (!ret)
		unload_soon();
}

static void bad_parameters(void *arg)
{
	(void)arg;
	unload_soon();
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
		KEVENT_USER,
	};
	struct kevent_event ev;
	size_t i;
	int q;

	unload_soon();
	CHECK_EQ(load_file(arg), 0);
	q = open_device();
	CHECK_EQ(queue_info(q).version, KEVENT_ABI_VERSION);
	CHECK_EQ(queue_info(q).features, 0);
	for (i = 0; i < ARRAY_SIZE(types); i++)
		CHECK_EQ(add(q, types[i], 0, 1, 0, 0), -EOPNOTSUPP);
	CHECK_EQ(add_path(q, 1, "/", KEVENT_INODE_CREATE, 0, 0), -EOPNOTSUPP);
	CHECK_EQ(add(q, 7, 0, 1, 0, 0), -ENXIO);
	CHECK_EQ(wait_events(q, &ev, 1, 1, NSEC_PER_MSEC), 0);
	close(q);
	unload_soon();
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
	TEST(the_module_goes_away_under_traffic_on_what_was_watched),
	TEST(parameters_that_are_no_numbers_are_refused),
	TEST(a_module_without_any_source_loads_and_says_so),
	LONG_TEST(the_module_loads_and_unloads_a_hundred_times, 240),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
