// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzzes /dev/kevent, in a guest.
 *
 *	fuzz --seconds N [--seed N] [--corpus FILE] [--results DIR] [--blind]
 *	fuzz --replay FILE [--rounds N]
 *	fuzz --print FILE		programs of a file as they are read
 *	fuzz --generate N [--seed N]	programs out of nothing, on stdout
 *
 * Ends 0; 1 where something was found, and said; 77 where there is nothing to
 * fuzz, or no coverage and no --blind.  In DIR are, afterwards:
 *
 *	recent.prog	the last programs, in a ring, each ended by a zero byte
 *	found.prog	what was added to the corpus, as it was found
 *	corpus.prog	all that is needed of the corpus
 *	covered.txt	the places reached
 *	fuzz.txt	what was done, in a line
 */
#include "fuzz.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_SKIP	77
#define PROGRESS	(10 * NSEC_PER_SEC)

static struct {
	double seconds;
	uint64_t seed;
	unsigned long rounds, generate, limit;
	const char *corpus, *results, *replay, *print;
	bool blind;
} options = { .seconds = 60, .rounds = 100, .limit = 2000 };

static uint64_t begin, end;
static uint64_t made;		/* programs that are not of the corpus */

static struct rnd rnd_of(uint64_t seed)
{
	struct rnd rnd = { .state = seed * 0x9e3779b97f4a7c15ULL | 1 };
	unsigned int i;

	/* seeds that are near each other are to be far apart */
	for (i = 0; i < 16; i++)
		rnd_below(&rnd, 2);
	return rnd;
}

/* A file in the folder of the results, or NULL where there is none. */
static const char *result(const char *name)
{
	static char paths[8][256];
	static unsigned int next;
	char *path = paths[next++ % ARRAY_SIZE(paths)];

	if (!options.results)
		return NULL;
	snprintf(path, sizeof(paths[0]), "%s/%s", options.results, name);
	return path;
}

static void summary(FILE *file)
{
	fprintf(file,
		"programs=%" PRIu64 " new=%" PRIu64
		" covered=%u edges=%u corpus=%u late=%"
		PRIu64 " gave_up=%" PRIu64 " seconds=%.0f seed=%" PRIu64 "\n",
		run_counts.programs, made, cover_nr_pcs(), corpus_nr_edges, corpus_nr,
		run_counts.late, run_counts.gave_up,
		(double)(now_ns() - begin) / NSEC_PER_SEC, options.seed);
	fflush(file);
}

static void leave_results(void)
{
	FILE *file;

	if (!options.results)
		return;
	if (!options.blind) {
		corpus_write(result("corpus.prog"));
		cover_write(result("covered.txt"));
	}
	file = fopen(result("fuzz.txt"), "we");
	if (!file)
		FAIL("%s: %s", result("fuzz.txt"), strerror(errno));
	summary(file);
	fclose(file);
}

static bool fuzz_once(struct rnd *rnd, const char *found)
{
	static struct program program, other;

	if (!corpus_nr || !rnd_below(rnd, options.blind ? 2 : 8)) {
		program_generate(&program, rnd);
	} else {
		program = *corpus_pick(rnd);
		other = *corpus_pick(rnd);
		program_mutate(&program, &other, rnd);
	}
	made++;
	return options.blind ? run_program(&program) :
			       corpus_try(&program, found);
}

/*
 * All of the corpus stays, also where half of the time does not suffice to run
 * it: the other half is for what is new.
 */
static bool seed_in_time(const struct program *p)
{
	if (options.blind || now_ns() >= begin + (end - begin) / 2)
		return corpus_keep(p);
	return corpus_seed(p);
}

static bool fuzz(void)
{
	uint64_t next = begin + PROGRESS;
	struct rnd rnd = rnd_of(options.seed);
	const char *found = result("found.prog");

	end = begin + (uint64_t)(options.seconds * NSEC_PER_SEC);
	if (options.corpus && !corpus_load(options.corpus, seed_in_time))
		return false;
	summary(stdout);
	while (now_ns() < end) {
		if (!fuzz_once(&rnd, found))
			return false;
		if (now_ns() < next)
			continue;
		summary(stdout);
		next = now_ns() + PROGRESS;
	}
	return true;
}

static bool replay(void)
{
	unsigned long i;

	for (i = 0; i < options.rounds; i++)
		if (!corpus_load(options.replay, run_program))
			return false;
	return true;
}

static bool print_one(const struct program *p)
{
	char text[MAX_TEXT];

	program_print(p, text, sizeof(text));
	puts(text);
	return true;
}

static void generate(void)
{
	static struct program before, program;
	struct rnd rnd = rnd_of(options.seed);
	unsigned long i;

	for (i = 0; i < options.generate; i++) {
		before = program;
		program_generate(&program, &rnd);
		if (before.nr)
			program_mutate(&program, &before, &rnd);
		print_one(&program);
	}
}

static const struct option words[] = {
	{ "seconds", required_argument, NULL, 's' },
	{ "seed", required_argument, NULL, 'e' },
	{ "corpus", required_argument, NULL, 'c' },
	{ "results", required_argument, NULL, 'r' },
	{ "replay", required_argument, NULL, 'p' },
	{ "rounds", required_argument, NULL, 'n' },
	{ "print", required_argument, NULL, 't' },
	{ "generate", required_argument, NULL, 'g' },
	{ "limit", required_argument, NULL, 'l' },
	{ "blind", no_argument, NULL, 'b' },
	{}
};

/* Programs have another working directory. */
static const char *absolute(const char *path)
{
	char *found = realpath(path, NULL);

	if (!found)
		FAIL("%s: %s", path, strerror(errno));
	return found;
}

static void parse(int argc, char **argv)
{
	int word;

	options.seed = now_ns() % 1000000007;
	while ((word = getopt_long(argc, argv, "", words, NULL)) != -1) {
		switch (word) {
		case 's':
			options.seconds = strtod(optarg, NULL);
			break;
		case 'e':
			options.seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			options.corpus = absolute(optarg);
			break;
		case 'r':
			options.results = absolute(optarg);
			break;
		case 'p':
			options.replay = absolute(optarg);
			break;
		case 'n':
			options.rounds = strtoul(optarg, NULL, 0);
			break;
		case 't':
			options.print = optarg;
			break;
		case 'g':
			options.generate = strtoul(optarg, NULL, 0);
			break;
		case 'l':
			options.limit = strtoul(optarg, NULL, 0);
			break;
		case 'b':
			options.blind = true;
			break;
		default:
			exit(2);
		}
	}
	if (optind < argc) {
		fprintf(stderr, "%s?\n", argv[optind]);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct run_options run;
	bool good;

	parse(argc, argv);
	if (options.print) {
		corpus_load(options.print, print_one);
		return EXIT_SUCCESS;
	}
	if (options.generate) {
		generate();
		return EXIT_SUCCESS;
	}
	/* also ends here where there is no device */
	close(queue_open());
	printf("seed %" PRIu64 "\n", options.seed);
	if (!options.replay && !options.blind && !cover_open()) {
		fprintf(stderr, "this kernel has no KCOV: --blind does without\n");
		return EXIT_SKIP;
	}
	run = (struct run_options){
		.limit = (unsigned int)options.limit,
		.recent = result("recent.prog"),
		.seed = options.seed,
	};
	run_prepare(&run);
	begin = now_ns();
	good = options.replay ? replay() : fuzz();
	good = run_end() && good;
	summary(stdout);
	leave_results();
	if (!good)
		fprintf(stderr, "found something in program %" PRIu64 "\n",
			run_counts.programs - 1);
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
