// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The memory that transfers are from or to.
 *
 * The first param of a NAIO request, where it is below 2^32, says where: the low
 * four bits choose, the others are "far".  Anything else is an address.
 *	0	memory of the process
 *	1	the same, "far" bytes from its beginning
 *	2	nowhere: "far"
 *	3	where the kernel is
 *	4	across the end of what a program can address
 *	5	memory that cannot be written
 *	6	"far" bytes of it are there, the rest is not
 *	7	where the arguments of other threads are, see calls_device.c
 *	8	memory that is shared with children
 *	9	"far" bytes of it can be written, the rest only be read
 *	10	a private mapping of a file
 *	11	memory that "memory" changes, "far" bytes from its beginning
 *	12	a struct kevent_sendfile, of which "far" says what it is
 */
#include "fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define AREA		(1024 * PAGE)
#define ENCODED		(1ULL << 32)
#define SENDFILES	(8 * PAGE)

enum area { OWN, FIXED, SHARED, MIXED, MAPPED, CHANGING, NR_AREAS };

static char *areas[NR_AREAS];
static char *sendfiles[MAX_THREADS];
static struct rlimit locked;
static bool changed;

/* A hole is behind each. */
static char *map(char *at, int prot, int flags, int fd)
{
	char *mem = at;

	if (!mem)
		mem = mmap(NULL, AREA + PAGE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(mem != MAP_FAILED);
	CHECK(mmap(mem, AREA, prot, flags | MAP_FIXED | MAP_NORESERVE, fd, 0) ==
	      mem);
	return mem;
}

static void map_changing(void)
{
	areas[CHANGING] = map(areas[CHANGING], PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

void memory_begin(void)
{
	int rw = PROT_READ | PROT_WRITE, own = MAP_PRIVATE | MAP_ANONYMOUS;
	int memfd = (int)SYS(memfd_create("transfers", MFD_CLOEXEC));
	unsigned int i;

	SYS(ftruncate(memfd, AREA));
	areas[OWN] = map(NULL, rw, own, -1);
	areas[FIXED] = map(NULL, PROT_READ, own, -1);
	areas[SHARED] = map(NULL, rw, MAP_SHARED | MAP_ANONYMOUS, -1);
	areas[MIXED] = map(NULL, rw, own, -1);
	SYS(mprotect(areas[MIXED] + AREA / 2, AREA / 2, PROT_READ));
	areas[MAPPED] = map(NULL, rw, MAP_PRIVATE, memfd);
	map_changing();
	for (i = 0; i < MAX_THREADS; i++) {
		sendfiles[i] = mmap(NULL, SENDFILES + PAGE, PROT_NONE, own, -1, 0);
		CHECK(sendfiles[i] != MAP_FAILED);
		SYS(mprotect(sendfiles[i], SENDFILES, rw));
	}
	SYS(getrlimit(RLIMIT_MEMLOCK, &locked));
	close(memfd);
}

bool memory_is_sendfile(uint64_t where)
{
	return where < ENCODED && (where & 15) == 12;
}

uint64_t memory_sendfile(unsigned int file, unsigned int rest)
{
	return 12 | (uint64_t)(file - FD_FIRST) << 4 | (uint64_t)rest << 9;
}

static struct kevent_sendfile sendfile_of(uint64_t where)
{
	static const uint64_t offsets[] = {
		0, 0, 0, 1, 4096, 1ULL << 40, 1ULL << 63, ~0ULL,
	};
	static const uint64_t lengths[] = {
		1, 100, 8192, 1ULL << 20, 0, KEVENT_SENDFILE_ALL,
		KEVENT_SENDFILE_ALL, 1ULL << 63,
	};
	static const uint32_t extras[] = { 0, 0, 5, 5000 };
	struct kevent_sendfile s = {
		.file = pool_fd(FD_FIRST + (where >> 4) % FD_COUNT),
		.offset = offsets[where >> 9 & 7],
		.length = lengths[where >> 12 & 7],
		.prefix = extras[where >> 15 & 3],
		.suffix = extras[where >> 17 & 3],
	};

	switch (where >> 19 & 31) {
	case 1:
		s.flags = 1;
		break;
	case 2:
		s.file = -1;
		break;
	case 3:
		s.prefix = KEVENT_SENDFILE_EXTRA + 1;
		break;
	case 4:
		s.prefix = ~0U;
		s.suffix = 1;
		break;
	}
	return s;
}

uint64_t memory_sendfile_size(uint64_t where)
{
	struct kevent_sendfile s = sendfile_of(where);

	return sizeof(s) + s.prefix + s.suffix;
}

unsigned int memory_sendfile_fd(uint64_t where)
{
	return FD_FIRST + (unsigned int)((where >> 4) % FD_COUNT);
}

/* With what follows it right before nothing, as far as there is room. */
static uint64_t put_sendfile(unsigned int thread, uint64_t where)
{
	struct kevent_sendfile s = sendfile_of(where);
	uint64_t size = memory_sendfile_size(where);
	char *end = sendfiles[thread] + SENDFILES, *at;

	/* or not even all of itself is there */
	if ((where >> 19 & 31) == 5)
		size = sizeof(s) / 2;
	at = size < SENDFILES ? end - size : sendfiles[thread];
	memcpy(at, &s, size < sizeof(s) ? size : sizeof(s));
	return (uintptr_t)at;
}

uint64_t memory_address(unsigned int thread, uint64_t where, uint64_t length)
{
	uint64_t far = where >> 4, there;

	if (where >= ENCODED)
		return where;
	there = far % (length + 1 ? length + 1 : 1);
	if (there > AREA / 2)
		there = AREA / 2;
	switch (where & 15) {
	case 1:
		return (uintptr_t)areas[OWN] + far % AREA;
	case 2:
		return far;
	case 3:
		return 0xffff888000000000ULL + far;
	case 4:
		return (1ULL << 47) - PAGE - far % PAGE;
	case 5:
		return (uintptr_t)areas[FIXED];
	case 6:
		return (uintptr_t)areas[OWN] + AREA - there;
	case 7:
		return (uintptr_t)buffers_shared();
	case 8:
		return (uintptr_t)areas[SHARED];
	case 9:
		return (uintptr_t)areas[MIXED] + AREA / 2 - there;
	case 10:
		return (uintptr_t)areas[MAPPED];
	case 11:
		return (uintptr_t)areas[CHANGING] + far % AREA;
	case 12:
		return put_sendfile(thread, where);
	default:
		return (uintptr_t)areas[OWN];
	}
}

/* How: 0 anew, 1 none, 2 read-only, 3 emptied, 4 another's, 5 moved away. */
void run_memory(struct worker *w, const struct call *c)
{
	size_t size = (size_t)(c->arg[1] % (AREA / PAGE) + 1) * PAGE;
	char *mem = areas[CHANGING];

	(void)w;
	changed = true;
	switch (c->arg[0] % 6) {
	case 0:
		mmap(mem, size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
		     -1, 0);
		break;
	case 1:
		munmap(mem, size);
		break;
	case 2:
		mprotect(mem, size, PROT_READ);
		break;
	case 3:
		madvise(mem, size, MADV_DONTNEED);
		break;
	case 4:
		mmap(mem, size, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
		     -1, 0);
		break;
	default:
		/* onto memory that is then not there any more */
		mremap(mem, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
		       areas[OWN]);
	}
}

/* Pages that may be locked without being privileged. */
void run_memlock(struct worker *w, const struct call *c)
{
	struct rlimit limit = {
		.rlim_cur = c->arg[0] % 4096 * PAGE, .rlim_max = locked.rlim_max,
	};

	(void)w;
	changed = true;
	if (limit.rlim_cur > limit.rlim_max)
		limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &limit);
}

void memory_restore(void)
{
	if (!changed)
		return;
	changed = false;
	areas[OWN] = map(areas[OWN], PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1);
	map_changing();
	setrlimit(RLIMIT_MEMLOCK, &locked);
}

bool memory_is_used(const struct program *p)
{
	unsigned int i, j;

	for (i = 0; i < p->nr; i++) {
		const struct call *c = &p->call[i];
		const struct call_type *type = &call_types[c->type];

		if (list_group(type) != REQUEST_ARGS)
			continue;
		for (j = fixed_args(type); j < c->nr_args; j += REQUEST_ARGS)
			if (c->arg[j] == KEVENT_NAIO)
				return true;
	}
	return false;
}
