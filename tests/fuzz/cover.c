// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Coverage of the module, by KCOV: each thread of a program has a list of the
 * instrumented places that it came by.  What runs in interrupts is not counted.
 *
 * An edge is two places in a row; a hash of it stands for it.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kcov.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#define KCOV		"/sys/kernel/debug/kcov"
#define SECTIONS	"/sys/module/kevent/sections"
#define NR_WORDS	(1UL << 16)	/* of each thread's list */
#define MAX_TEXT_SIZE	(1UL << 20)
#define MAX_SECTIONS	8

static struct {
	int fd;
	uint64_t *list;
} traces[MAX_THREADS];

static struct section {
	char name[32];
	uint64_t begin;
} sections[MAX_SECTIONS];

static unsigned int nr_sections;
static bool enabled;
/* by the distance from the first section */
static uint8_t pcs[MAX_TEXT_SIZE / 8];
static unsigned int nr_pcs;
static struct edges last;

static uint64_t read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		FAIL("%s: %s", path, strerror(errno));
	close(fd);
	return strtoull(text, NULL, 0);
}

/* KCOV takes from addresses what the kernel was moved by at boot. */
static uint64_t kernel_moved(void)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	unsigned long long address, text = 0;
	char name[256];

	CHECK(file);
	while (!text && fscanf(file, "%llx %*c %255s%*[^\n]", &address, name) == 2)
		if (!strcmp(name, "_text"))
			text = address;
	fclose(file);
	return text ? text - 0xffffffff81000000ULL : 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct section *one = a, *two = b;

	return (one->begin > two->begin) - (one->begin < two->begin);
}

/* Where the code of the module is, but for what is gone once it is loaded. */
static void sections_find(void)
{
	uint64_t moved = kernel_moved();
	DIR *dir = opendir(SECTIONS);
	struct dirent *entry;

	CHECK(dir);
	while ((entry = readdir(dir)) && nr_sections < MAX_SECTIONS) {
		struct section *s = &sections[nr_sections];
		char path[512];

		if (strncmp(entry->d_name, ".text", 5))
			continue;
		snprintf(path, sizeof(path), SECTIONS "/%s", entry->d_name);
		snprintf(s->name, sizeof(s->name), "%.31s", entry->d_name);
		s->begin = read_number(path) - moved;
		nr_sections++;
	}
	closedir(dir);
	CHECK(nr_sections);
	qsort(sections, nr_sections, sizeof(sections[0]), by_begin);
}

bool cover_open(void)
{
	unsigned int i;

	if (access(KCOV, F_OK))
		mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	for (i = 0; i < MAX_THREADS; i++) {
		traces[i].fd = open(KCOV, O_RDWR | O_CLOEXEC);
		if (traces[i].fd < 0)
			return false;
		SYS(ioctl(traces[i].fd, KCOV_INIT_TRACE, NR_WORDS));
		traces[i].list = mmap(NULL, NR_WORDS * sizeof(uint64_t),
				      PROT_READ | PROT_WRITE, MAP_SHARED,
				      traces[i].fd, 0);
		CHECK(traces[i].list != MAP_FAILED);
	}
	sections_find();
	enabled = true;
	return true;
}

void cover_reset(void)
{
	unsigned int i;

	for (i = 0; enabled && i < MAX_THREADS; i++)
		__atomic_store_n(&traces[i].list[0], 0, __ATOMIC_RELAXED);
}

void cover_start(unsigned int thread)
{
	if (enabled)
		SYS(ioctl(traces[thread].fd, KCOV_ENABLE, KCOV_TRACE_PC));
}

void cover_stop(unsigned int thread)
{
	if (enabled)
		SYS(ioctl(traces[thread].fd, KCOV_DISABLE, 0));
}

static void collect(const uint64_t *list)
{
	uint64_t nr = __atomic_load_n(&list[0], __ATOMIC_RELAXED), i;
	uint32_t before = 0;

	if (nr > NR_WORDS - 1)
		nr = NR_WORDS - 1;
	for (i = 1; i <= nr; i++) {
		uint64_t pc = list[i] - sections[0].begin;
		uint32_t hash, edge;

		if (pc >= MAX_TEXT_SIZE)
			continue;
		if (!(pcs[pc / 8] >> pc % 8 & 1)) {
			pcs[pc / 8] |= (uint8_t)(1U << pc % 8);
			nr_pcs++;
		}
		hash = (uint32_t)pc * 0x9e3779b1U;
		edge = (hash ^ before) >> 16;
		before = hash >> 5 | hash << 27;
		last.word[edge / 64] |= 1ULL << edge % 64;
	}
}

const struct edges *cover_collect(void)
{
	unsigned int i;

	memset(&last, 0, sizeof(last));
	for (i = 0; enabled && i < MAX_THREADS; i++)
		collect(traces[i].list);
	return &last;
}

unsigned int cover_nr_pcs(void)
{
	return nr_pcs;
}

void cover_write(const char *path)
{
	FILE *file = fopen(path, "we");
	uint64_t pc;

	if (!file)
		FAIL("%s: %s", path, strerror(errno));
	for (pc = 0; pc < MAX_TEXT_SIZE; pc++) {
		const struct section *s = &sections[nr_sections - 1];
		uint64_t address = sections[0].begin + pc;

		if (!(pcs[pc / 8] >> pc % 8 & 1))
			continue;
		while (s->begin > address)
			s--;
		fprintf(file, "%s %#llx\n", s->name,
			(unsigned long long)(address - s->begin));
	}
	fclose(file);
}

unsigned int edges_count(const struct edges *edges)
{
	unsigned int i, nr = 0;

	for (i = 0; i < ARRAY_SIZE(edges->word); i++)
		nr += (unsigned int)__builtin_popcountll(edges->word[i]);
	return nr;
}

unsigned int edges_new(struct edges *to, const struct edges *from,
		       const struct edges *without)
{
	unsigned int i, nr = 0;

	for (i = 0; i < ARRAY_SIZE(to->word); i++) {
		to->word[i] = from->word[i] & ~without->word[i];
		nr += (unsigned int)__builtin_popcountll(to->word[i]);
	}
	return nr;
}

void edges_merge(struct edges *to, const struct edges *from)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(to->word); i++)
		to->word[i] |= from->word[i];
}
