// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages that are pinned, of the whole machine and of a process.
 */
#include "lib.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

bool pins(long long *pinned)
{
	long long acquired = -1, released = -1, value;
	char line[128], name[100];
	FILE *file;

	/* has each CPU add what it has counted so far */
	file = fopen("/proc/sys/vm/stat_refresh", "r");
	if (file) {
		(void)!fgets(line, sizeof(line), file);
		fclose(file);
	}
	file = fopen("/proc/vmstat", "r");
	CHECK(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%99s %lld", name, &value) != 2)
			continue;
		if (!strcmp(name, "nr_foll_pin_acquired"))
			acquired = value;
		if (!strcmp(name, "nr_foll_pin_released"))
			released = value;
	}
	fclose(file);
	*pinned = acquired - released;
	return acquired >= 0 && released >= 0;
}

static long long pinned_before;

void remember_pins(void)
{
	if (!pins(&pinned_before))
		test_skip("this kernel does not count pinned pages");
}

void check_pins(void)
{
	uint64_t end = now_ns() + PATIENCE;
	long long now;

	while (pins(&now) && now != pinned_before) {
		if (now_ns() > end)
			FAIL("%lld pages are pinned, and %lld were before",
			     now, pinned_before);
		sched_yield();
	}
}

unsigned long pinned_by(pid_t pid)
{
	unsigned long kib = 0;
	char text[128];
	FILE *file;

	snprintf(text, sizeof(text), "/proc/%d/status", pid);
	file = fopen(text, "re");
	while (file && fgets(text, sizeof(text), file))
		if (sscanf(text, "VmPin: %lu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib * 1024 / PAGE;
}
