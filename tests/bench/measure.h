/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting instructions: in a guest under "qemu -icount shift=0,sleep=off" the
 * clock advances by 1 ns with each instruction, so a span of time is a count.
 */
#ifndef KEVENT_BENCH_MEASURE_H
#define KEVENT_BENCH_MEASURE_H

#include "../kernel/lib.h"

/* An odd number, so that there is one in the middle. */
#define WARM_UPS	4
#define REPETITIONS	15

/* One repetition: does the work, gives what it took.  See span(). */
typedef uint64_t (*sample_fn)(void *context);

/* From @begin until now, without what reading the clock itself costs. */
uint64_t span(uint64_t begin);

/*
 * The median of the repetitions, divided by @per.  One in which the thread went
 * to sleep is done again, because the clock jumps over idle time.
 */
double median_of(sample_fn sample, void *context, double per);

/* As above for work that does sleep, where another thread runs instead. */
double median_with_switches(sample_fn sample, void *context, double per);

/*
 * Called between two repetitions, to move along what measure.c does not: the
 * places where the allocators have come to.
 */
extern void (*shift_more)(void);

/* The table: a row has a value for each column, or ABSENT. */
#define ABSENT	(-1.0)
#define MAX_COLUMNS	4

/* The columns, unless columns_are() says before the first row what they are. */
enum column { KEVENT_COLUMN, EPOLL_COLUMN, URING_COLUMN, OTHER_COLUMN };

void columns_are(const char *const *names, unsigned int nr);
void row_begin(const char *name, const char *unit);
void row_value(unsigned int column, double value);
/* The names of the columns, above the rows. */
void rows_head(void);
void row_end(void);
/* Writes the rows as JSON. */
void rows_write(const char *path);

#endif /* KEVENT_BENCH_MEASURE_H */
