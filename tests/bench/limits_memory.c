// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What memory the kernel has left, and what the module's caches have of it.
 * The guest has slab_nomerge: no cache is shared with another.
 */
#include "limits.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint64_t available(void)
{
	unsigned long long kib = 0;
	char line[256];
	FILE *file = fopen("/proc/meminfo", "r");

	CHECK(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	fclose(file);
	CHECK(kib);
	return kib * 1024;
}

/* Pages of the caches whose names begin with ours. */
static uint64_t slab(void)
{
	unsigned long pages, slabs;
	uint64_t sum = 0;
	char line[512];
	FILE *file = fopen("/proc/slabinfo", "r");

	CHECK(file);
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, "kevent_", 7))
			continue;
		CHECK(sscanf(line, "%*s %*u %*u %*u %*u %lu : tunables %*u %*u %*u : slabdata %*u %lu",
			     &pages, &slabs) == 2);
		sum += pages * slabs * PAGE;
	}
	fclose(file);
	return sum;
}

/*
 * Let what is on its way to be freed be free: RCU callbacks, marks, lists of
 * pages of each processor.  Two readings that agree are the end of it.
 */
void memory_now(struct memory *m)
{
	uint64_t last = 0, end = now_ns() + PATIENCE;
	int fd = (int)SYS(open("/proc/sys/vm/drop_caches",
			       O_WRONLY | O_CLOEXEC));

	do {
		CHECK_EQ(SYS(write(fd, "3", 1)), 1);
		usleep(200000);
		m->available = available();
		m->slab = slab();
		if (m->available < last + (1 << 20) &&
		    m->available + (1 << 20) > last)
			break;
		last = m->available;
	} while (now_ns() < end);
	close(fd);
}

double memory_each(const struct memory *before, const struct memory *after,
		   unsigned int nr)
{
	return ((double)before->available - (double)after->available) / nr;
}

double memory_slab_each(const struct memory *before,
			const struct memory *after, unsigned int nr)
{
	return ((double)after->slab - (double)before->slab) / nr;
}
