// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Programs as text, which is what the corpus and a crash are kept as.
 */
#include "fuzz.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Small numbers as people write them, flags and garbage in hexadecimal. */
static int print_number(char *text, size_t size, uint64_t value)
{
	return snprintf(text, size, value < 100000 ? " %" PRIu64 :
			" 0x%" PRIx64, value);
}

size_t program_print(const struct program *p, char *text, size_t size)
{
	size_t used = 0;
	unsigned int i, j;

	text[0] = '\0';
	for (i = 0; i < p->nr; i++) {
		const struct call *c = &p->call[i];

		used += (size_t)snprintf(text + used, size - used, "%u %s",
					 c->thread, call_types[c->type].name);
		for (j = 0; j < c->nr_args; j++)
			used += (size_t)print_number(text + used, size - used,
						     c->arg[j]);
		used += (size_t)snprintf(text + used, size - used, "\n");
	}
	return used;
}

static int type_of(const char *name)
{
	unsigned int i;

	for (i = 0; i < nr_call_types; i++)
		if (!strcmp(call_types[i].name, name))
			return (int)i;
	return -1;
}

/* The next word of *@rest as a number that is wholly one. */
static bool number(char **rest, uint64_t *value)
{
	char *word = strtok_r(NULL, " \t\n", rest), *end;

	if (!word || word[0] < '0' || word[0] > '9')
		return false;
	errno = 0;
	*value = strtoull(word, &end, 0);
	return !*end && !errno;
}

static const char *call_parse(char *line, struct call *c)
{
	const struct call_type *type;
	unsigned int fixed, group;
	char *rest, *name, *word;
	int nr;

	*c = (struct call){};
	word = strtok_r(line, " \t\n", &rest);
	if (!word || strlen(word) != 1 || word[0] < '0' ||
	    word[0] >= '0' + MAX_THREADS)
		return "no such thread";
	c->thread = (uint8_t)(word[0] - '0');
	name = strtok_r(NULL, " \t\n", &rest);
	nr = name ? type_of(name) : -1;
	if (nr < 0)
		return "no such call";
	c->type = (uint8_t)nr;
	while (rest[strspn(rest, " \t\n")]) {
		if (c->nr_args == MAX_ARGS)
			return "too many arguments";
		if (!number(&rest, &c->arg[c->nr_args]))
			return "not a number";
		c->nr_args++;
	}
	type = &call_types[nr];
	fixed = fixed_args(type);
	group = list_group(type);
	if (c->nr_args < fixed ||
	    (group ? (c->nr_args - fixed) % group : c->nr_args > fixed))
		return "wrong number of arguments";
	return NULL;
}

/* One line of a program: 1, 0 for one to pass over, or -1. */
static int line_read(char *line, struct program *p, char *error, size_t size)
{
	const char *wrong = "too many calls";
	char *shown;

	if (line[0] == '#' || !line[strspn(line, " \t\n")])
		return 0;
	shown = strdup(line);
	if (p->nr < MAX_CALLS)
		wrong = call_parse(line, &p->call[p->nr++]);
	if (wrong)
		snprintf(error, size, "%s: %s", wrong, shown);
	free(shown);
	return wrong ? -1 : 1;
}

int program_read(FILE *file, struct program *p, char *error, size_t size)
{
	char *line = NULL;
	size_t room = 0;
	int ret = 0;

	p->nr = 0;
	while (ret >= 0 && getline(&line, &room, file) >= 0) {
		if (p->nr && !line[strspn(line, " \t\n")])
			break;
		ret = line_read(line, p, error, size);
	}
	free(line);
	return ret < 0 ? -1 : p->nr > 0;
}
