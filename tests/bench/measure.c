// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Repeating, and keeping the table; see measure.h.
 */
#include "measure.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MAX_ROWS	128
#define ATTEMPTS	20

struct row {
	const char *name;
	const char *unit;
	double value[MAX_COLUMNS];
};

void (*shift_more)(void);

static const char *const usual_columns[] = {
	"kevent", "epoll", "uring", "other",
};
static const char *const *column_names = usual_columns;
static unsigned int nr_columns = ARRAY_SIZE(usual_columns);
static struct row rows[MAX_ROWS];
static size_t nr_rows;

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t median(uint64_t *values, size_t nr)
{
	qsort(values, nr, sizeof(*values), by_value);
	return values[nr / 2];
}

uint64_t span(uint64_t begin)
{
	static uint64_t clock_cost;
	uint64_t end = now_ns();

	if (!clock_cost) {
		uint64_t cost[101];
		size_t i;

		for (i = 0; i < ARRAY_SIZE(cost); i++) {
			cost[i] = now_ns();
			cost[i] = now_ns() - cost[i];
		}
		clock_cost = median(cost, ARRAY_SIZE(cost));
	}
	return end - begin > clock_cost ? end - begin - clock_cost : 0;
}

static long sleeps(void)
{
	struct rusage usage;

	SYS(getrusage(RUSAGE_THREAD, &usage));
	return usage.ru_nvcsw;
}

/*
 * What an allocation costs depends on how full the allocator's current page
 * is.  One more object of each kind moves that along between repetitions.
 */
static void shift_phase(void)
{
	static int q = -1, e = -1;
	struct epoll_event ev = { .events = EPOLLIN };
	int fd = eventfd_new(0);

	if (q < 0) {
		q = queue_open();
		e = (int)SYS(epoll_create1(EPOLL_CLOEXEC));
	}
	SYS(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev));
	CHECK_EQ(add(q, KEVENT_POLL, fd, EPOLLIN, 0, 0), 0);
	if (shift_more)
		shift_more();
}

static double repeat(sample_fn sample, void *context, double per,
		     bool may_sleep)
{
	uint64_t values[WARM_UPS + REPETITIONS];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		int attempt;

		for (attempt = 0; attempt < ATTEMPTS; attempt++) {
			long before = sleeps();

			values[i] = sample(context);
			if (may_sleep || sleeps() == before)
				break;
		}
		if (attempt == ATTEMPTS)
			FAIL("the measured thread goes to sleep every time");
		shift_phase();
	}
	return (double)median(values + WARM_UPS, REPETITIONS) / per;
}

double median_of(sample_fn sample, void *context, double per)
{
	return repeat(sample, context, per, false);
}

double median_with_switches(sample_fn sample, void *context, double per)
{
	return repeat(sample, context, per, true);
}

void columns_are(const char *const *names, unsigned int nr)
{
	CHECK(nr <= MAX_COLUMNS && !nr_rows);
	column_names = names;
	nr_columns = nr;
}

void rows_head(void)
{
	unsigned int i;

	printf("%-58s", "");
	for (i = 0; i < nr_columns; i++)
		printf(" %9s", column_names[i]);
	printf("\n");
}

void row_begin(const char *name, const char *unit)
{
	unsigned int i;

	CHECK(nr_rows < MAX_ROWS);
	rows[nr_rows] = (struct row){ .name = name, .unit = unit };
	for (i = 0; i < nr_columns; i++)
		rows[nr_rows].value[i] = ABSENT;
}

void row_value(unsigned int column, double value)
{
	CHECK(column < nr_columns);
	rows[nr_rows].value[column] = value;
}

/* Told as it comes, so that somebody who watches sees where it is. */
void row_end(void)
{
	const struct row *row = &rows[nr_rows++];
	unsigned int i;

	printf("%-58s", row->name);
	for (i = 0; i < nr_columns; i++) {
		if (row->value[i] == ABSENT)
			printf(" %9s", "");
		else
			printf(" %9.1f", row->value[i]);
	}
	printf("  a %s\n", row->unit);
	fflush(stdout);
}

void rows_write(const char *path)
{
	FILE *file = fopen(path, "w");
	struct utsname name;
	unsigned int c;
	size_t i;

	if (!file)
		FAIL("%s does not open", path);
	SYS(uname(&name));
	fprintf(file, "{\"release\": \"%s\", \"rows\": [", name.release);
	for (i = 0; i < nr_rows; i++) {
		fprintf(file, "%s\n {\"name\": \"%s\", \"unit\": \"%s\"",
			i ? "," : "", rows[i].name, rows[i].unit);
		for (c = 0; c < nr_columns; c++) {
			if (rows[i].value[c] == ABSENT)
				fprintf(file, ", \"%s\": null",
					column_names[c]);
			else
				fprintf(file, ", \"%s\": %.2f",
					column_names[c], rows[i].value[c]);
		}
		fputc('}', file);
	}
	fputs("\n]}\n", file);
	if (fclose(file))
		FAIL("%s was not written", path);
}
