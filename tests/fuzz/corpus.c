// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The corpus: programs of which each did something that none before it did.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#define MAX_CORPUS	4096

static struct entry {
	struct program *program;
	struct edges *edges;	/* NULL without coverage */
} corpus[MAX_CORPUS];

unsigned int corpus_nr;
unsigned int corpus_nr_edges;
static struct edges seen;

const struct program *corpus_pick(struct rnd *rnd)
{
	return corpus[rnd_below(rnd, corpus_nr)].program;
}

bool corpus_load(const char *path, bool (*each)(const struct program *p))
{
	FILE *file = fopen(path, "re");
	char error[256];
	bool good = true;
	int ret = 1;

	if (!file)
		FAIL("%s: %s", path, strerror(errno));
	while (good && ret > 0) {
		struct program p;

		ret = program_read(file, &p, error, sizeof(error));
		if (ret < 0)
			FAIL("%s: %s", path, error);
		if (ret > 0)
			good = each(&p);
	}
	fclose(file);
	return good;
}

static void keep(const struct program *p, const struct edges *edges)
{
	struct entry *e = &corpus[corpus_nr];

	if (corpus_nr == MAX_CORPUS)
		return;
	e->program = malloc(sizeof(*p));
	CHECK(e->program);
	*e->program = *p;
	if (edges) {
		e->edges = malloc(sizeof(*edges));
		CHECK(e->edges);
		*e->edges = *edges;
	}
	corpus_nr++;
}

bool corpus_keep(const struct program *p)
{
	keep(p, NULL);
	return true;
}

static bool merge_new(const struct edges *edges, struct edges *new)
{
	unsigned int nr = edges_new(new, edges, &seen);

	edges_merge(&seen, edges);
	corpus_nr_edges += nr;
	return nr > 0;
}

bool corpus_seed(const struct program *p)
{
	const struct edges *edges;
	struct edges new;

	if (!run_program(p))
		return false;
	edges = cover_collect();
	if (merge_new(edges, &new))
		keep(p, edges);
	return true;
}

/* Whether @p still does all of @wanted, in one of a few runs. */
static bool still(const struct program *p, const struct edges *wanted,
		  bool *good)
{
	unsigned int tries;
	struct edges rest;

	for (tries = 0; tries < 2; tries++) {
		*good = run_program(p);
		if (!*good)
			return false;
		if (!edges_new(&rest, wanted, cover_collect()))
			return true;
	}
	return false;
}

/* Takes away the calls of @p that @wanted does not need. */
static bool minimise(struct program *p, const struct edges *wanted)
{
	unsigned int i = p->nr;
	bool good = true;

	/* not if it was a matter of luck */
	if (!still(p, wanted, &good))
		return good;
	while (i-- && p->nr > 1) {
		struct program less = *p;

		memmove(&less.call[i], &less.call[i + 1],
			(less.nr - i - 1) * sizeof(less.call[0]));
		less.nr--;
		if (still(&less, wanted, &good))
			*p = less;
		if (!good)
			return false;
	}
	return true;
}

static void program_write(FILE *file, const struct program *p)
{
	char text[MAX_TEXT];

	program_print(p, text, sizeof(text));
	fprintf(file, "%s\n", text);
}

bool corpus_try(const struct program *p, const char *found)
{
	struct program less = *p;
	struct edges all, new;
	FILE *file;

	if (!run_program(p))
		return false;
	all = *cover_collect();
	if (!merge_new(&all, &new))
		return true;
	if (!minimise(&less, &new))
		return false;
	/* what it does by itself, and what it once did by luck */
	edges_merge(&all, cover_collect());
	keep(&less, &all);
	file = found ? fopen(found, "ae") : NULL;
	if (file) {
		program_write(file, &less);
		fclose(file);
	}
	return true;
}

static int by_length(const void *a, const void *b)
{
	const struct entry *one = a, *two = b;

	return (int)one->program->nr - (int)two->program->nr;
}

void corpus_write(const char *path)
{
	FILE *file = fopen(path, "we");
	struct edges done = {}, new;
	unsigned int i;

	if (!file)
		FAIL("%s: %s", path, strerror(errno));
	qsort(corpus, corpus_nr, sizeof(corpus[0]), by_length);
	for (i = 0; i < corpus_nr; i++) {
		const struct entry *e = &corpus[i];

		if (e->edges && !edges_new(&new, e->edges, &done))
			continue;
		if (e->edges)
			edges_merge(&done, e->edges);
		program_write(file, e->program);
	}
	fclose(file);
}
