/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the integrity test share.  The bytes that are moved are those
 * of one pattern, again and again: random numbers, more of them than can be under
 * way between two ends.  So a byte that is lost, doubled or moved from elsewhere is
 * seen by a comparison with what belongs there, and no sum is needed.
 */
#ifndef KEVENT_TRANSFERS_H
#define KEVENT_TRANSFERS_H

#include "../kernel/lib.h"

/* A prime, so that no page and no power of two comes back in step with it. */
#define PATTERN_PERIOD	16777259UL
/* What may be looked at in one piece, wherever it begins. */
#define PATTERN_PIECE	(1UL << 20)

void pattern_make(void);
/* Where the bytes from @pos on are, at least PATTERN_PIECE of them. */
const char *pattern_at(uint64_t pos);
/* Fails, and says where, if @length bytes at @got are not those from @pos on. */
void pattern_check(const char *got, size_t length, uint64_t pos,
		   const char *what, unsigned int which);

/* A number from the environment, or @otherwise. */
uint64_t setting(const char *name, uint64_t otherwise);
/* Descriptors that this process has open. */
unsigned int descriptors(void);
/* A line for who watches, and into transfers.txt in $KEVENT_RESULTS. */
void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Joins the thread; calls @progress every few seconds until then. */
void join_and_watch(pthread_t thread, void (*progress)(void));

/* The cases. */
void bytes_arrive_whole_though_transfers_are_cancelled_and_asked_for_again(void);
void a_file_arrives_whole_at_clients_of_all_speeds_and_nobody_waits_for_them(void);

#endif /* KEVENT_TRANSFERS_H */
