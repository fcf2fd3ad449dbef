// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The module is loaded, and an allocation on the way fails: the load fails and
 * leaves nothing, or succeeds; the next one works.
 */
#include "fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The module is used, also after a load that failed, every so many rounds. */
#define FULL_EVERY	8
/*
 * So many points are tried in one run, where there are more.  Which ones is the
 * seed's choice; KEVENT_TEST_SCALE has more of them.
 */
#define ROUNDS		300

/*
 * sysfs_slab_add() of 6.12 loses the name of a cache when its directory cannot
 * be made, for which kmemleak would blame the module: what sysfs makes nodes and
 * names of does not fail here.  Nor does what kmemleak keeps its own notes in.
 */
static const char * const spared[] = {
	"kernfs_node_cache", "radix_tree_node", "kmalloc-16", "kmemleak_object",
};

static int module_fd;

/* From memory: it is not the file system below the file that is tested. */
static void copy_module(void)
{
	int file = (int)SYS(open(getenv("KEVENT_MODULE"), O_RDONLY | O_CLOEXEC));
	char buf[4096], path[64];
	ssize_t n;
	int copy;

	copy = (int)SYS(memfd_create("kevent.ko", MFD_CLOEXEC));
	while ((n = SYS(read(file, buf, sizeof(buf)))) > 0)
		CHECK_EQ(SYS(write(copy, buf, (size_t)n)), n);
	close(file);
	/* what is open for writing is not loaded */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", copy);
	module_fd = (int)SYS(open(path, O_RDONLY | O_CLOEXEC));
	close(copy);
}

static void use_transfer(void)
{
	static char buffer[8];
	struct kevent_request req = request(KEVENT_NAIO, 1, KEVENT_NAIO_RECV,
					    0, 0);
	struct kevent_event ev;
	int q = queue_open(), fd[2];

	unix_pair(fd);
	req.param[0] = (uintptr_t)buffer;
	req.param[1] = sizeof(buffer);
	req.param[2] = (uint64_t)fd[0];
	CHECK_EQ(change(q, KEVENT_IOC_NR_ADD, req), 0);
	CHECK_EQ(SYS(write(fd[1], "x", 1)), 1);
	CHECK_EQ(wait_events(q, &ev, 1, 1, PATIENCE), 1);
	CHECK_EQ(ev.data, 1);
	close(q);
	close(fd[0]);
	close(fd[1]);
}

/* A kevent of every type, so that every cache is used. */
static void use_queue(void)
{
	struct scene scene;
	size_t i;

	close(open_device_soon());
	use_transfer();
	for (i = 0; i < nr_sources; i++) {
		if (sources[i].type != KEVENT_PATH &&
		    sources[i].type != KEVENT_USER &&
		    sources[i].type != KEVENT_TIMER &&
		    strcmp(sources[i].name, "socket-mark") &&
		    strcmp(sources[i].name, "eventfd"))
			continue;
		scene_open(&scene, &sources[i], 0);
		scene_begin(&scene);
		CHECK_EQ(scene_change(&scene, KEVENT_OP_ADD, 0).call, 1);
		scene_check(&scene);
		scene_end(&scene);
		scene_close(&scene);
	}
}

static enum fault_end load_round(void *arg, unsigned int nth)
{
	static unsigned int nr;
	bool used;
	int ret;

	(void)arg;
	nr++;
	fault_arm(nth);
	ret = module_load_fd(module_fd, "");
	used = fault_disarm();
	if (ret) {
		if (!used || (ret != -ENOMEM && ret != -EFAULT))
			FAIL("fault %u: loading gave %d", nth, ret);
		check_module_gone();
		if (nr % FULL_EVERY)
			return FAULT_FAILED;
		CHECK_EQ(module_load_fd(module_fd, ""), 0);
	}
	if (!used || nr % FULL_EVERY == 0)
		use_queue();
	else
		close(open_device_soon());
	module_unload_soon();
	check_module_gone();
	if (ret)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static unsigned int points_of_a_load(void)
{
	unsigned int points;
	int ret;

	fault_count_begin();
	ret = module_load_fd(module_fd, "");
	points = fault_count_end();
	CHECK_EQ(ret, 0);
	module_unload_soon();
	return points;
}

static void fail_loads(void *arg)
{
	struct fault_leaks leaks;
	unsigned int points, step, first;
	struct rnd rnd;

	(void)arg;
	/* makes ready for faults, as long as there is a device */
	leaks_begin(&leaks);
	copy_module();
	module_unload_soon();
	fault_spare(spared, ARRAY_SIZE(spared));
	points = points_of_a_load();
	step = points / rounds(ROUNDS) + 1;
	rnd = rnd_stream(0);
	first = 1 + rnd_below(&rnd, step);
	dprintf(STDERR_FILENO, "%u points, of which every %uth from the %uth on\n",
		points, step, first);
	fault_sweep_steps("load", first, step, load_round, NULL);
	CHECK_EQ(module_load_fd(module_fd, ""), 0);
	use_queue();
}

static void a_load_that_fails_leaves_nothing_and_the_next_one_works(void)
{
	with_module_back(fail_loads, NULL);
}

static enum fault_end unload_round(void *arg, unsigned int nth)
{
	bool used;
	int ret;

	(void)arg;
	CHECK_EQ(module_load_fd(module_fd, ""), 0);
	use_queue();
	fault_arm(nth);
	ret = module_unload();
	used = fault_disarm();
	/* the last close may be under way, which is no failure */
	if (ret == -EWOULDBLOCK || (used && (ret == -EFAULT ||
					     ret == -ENOMEM)))
		module_unload_soon();
	else
		CHECK_EQ(ret, 0);
	check_module_gone();
	if (ret == -EFAULT || ret == -ENOMEM)
		return FAULT_FAILED;
	return used ? FAULT_ABSORBED : FAULT_UNUSED;
}

static void fail_unloads(void *arg)
{
	struct fault_leaks leaks;

	(void)arg;
	leaks_begin(&leaks);
	copy_module();
	module_unload_soon();
	fault_sweep("unload", unload_round, NULL);
}

static void an_unload_takes_everything_along_whatever_fails_in_it(void)
{
	with_module_back(fail_unloads, NULL);
}

static const struct test_case cases[] = {
	LONG_TEST(a_load_that_fails_leaves_nothing_and_the_next_one_works, 900),
	LONG_TEST(an_unload_takes_everything_along_whatever_fails_in_it, 900),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
