// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * That no byte is lost, doubled or changed on its way, with so many of them that
 * it would be seen.  A few seconds of it are among the kernel tests; "make
 * check-transfers" runs all of it.
 *
 *	copy.c		SEND and RECV, cancelled and asked for again
 *	serve.c		SENDFILE to many clients
 *
 * Environment: KEVENT_TRANSFER_BYTES, how many copy.c moves;
 * KEVENT_TRANSFER_FILE, bytes of the file that serve.c sends to
 * KEVENT_TRANSFER_CLIENTS, and KEVENT_TRANSFER_PAUSE, how many ns no call of
 * its sender may take more than; and what every C test takes.
 */
#include "transfers.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PROGRESS	10	/* seconds */
#define HOURS(n)	((n) * 3600)

static char *pattern;

void pattern_make(void)
{
	const size_t size = PATTERN_PERIOD + PATTERN_PIECE;
	struct rnd rnd = rnd_stream(99);
	size_t i;

	pattern = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(pattern != MAP_FAILED);
	for (i = 0; i < PATTERN_PERIOD; i++)
		pattern[i] = (char)rnd_below(&rnd, 256);
	memcpy(pattern + PATTERN_PERIOD, pattern, PATTERN_PIECE);
	SYS(mprotect(pattern, size, PROT_READ));
}

const char *pattern_at(uint64_t pos)
{
	return pattern + pos % PATTERN_PERIOD;
}

void pattern_check(const char *got, size_t length, uint64_t pos,
		   const char *what, unsigned int which)
{
	const char *want = pattern_at(pos);
	size_t i = 0, bad = 0, k;

	if (!memcmp(got, want, length))
		return;
	while (got[i] == want[i])
		i++;
	for (k = i; k < length; k++)
		bad += got[k] != want[k];
	FAIL("%s %u: byte %llu is %#x, not %#x; %zu of the %zu bytes from %llu on are wrong",
	     what, which, (unsigned long long)(pos + i), got[i] & 0xff,
	     want[i] & 0xff, bad, length, (unsigned long long)pos);
}

uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	uint64_t value;
	char *end;

	if (!text || !*text)
		return otherwise;
	value = strtoull(text, &end, 10);
	if (*end || !value)
		FAIL("%s=%s is not a number above 0", name, text);
	return value;
}

unsigned int descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int found = 0;

	CHECK(dir);
	while (readdir(dir))
		found++;
	closedir(dir);
	/* without ".", ".." and that of the folder itself */
	return found - 3;
}

void report(const char *fmt, ...)
{
	const char *folder = getenv("KEVENT_RESULTS");
	char text[1024], path[256];
	va_list args;
	int fd;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	dprintf(STDERR_FILENO, "%s\n", text);
	if (!folder)
		return;
	snprintf(path, sizeof(path), "%s/transfers.txt", folder);
	fd = (int)SYS(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
			   0644));
	dprintf(fd, "%s\n", text);
	close(fd);
}

void join_and_watch(pthread_t thread, void (*progress)(void))
{
	struct timespec ts;
	int error;

	do {
		SYS(clock_gettime(CLOCK_MONOTONIC, &ts));
		ts.tv_sec += PROGRESS;
		error = pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC,
					     &ts);
		progress();
	} while (error == ETIMEDOUT);
	CHECK_EQ(error, 0);
}

static const struct test_case cases[] = {
	LONG_TEST(bytes_arrive_whole_though_transfers_are_cancelled_and_asked_for_again,
		  HOURS(2)),
	LONG_TEST(a_file_arrives_whole_at_clients_of_all_speeds_and_nobody_waits_for_them,
		  HOURS(2)),
};

int main(int argc, char **argv)
{
	return test_main(argc, argv, cases, ARRAY_SIZE(cases));
}
