/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fuzzer: random programs of calls on /dev/kevent and on what it watches.
 *
 * A program is a short list of calls, each made by one of a few threads, all of
 * them numbers.  As text it has a line a call, "THREAD NAME ARGUMENT ...", ends
 * with an empty line, and may contain lines that begin with #.  calls.c has the
 * names and what the arguments are.
 *
 * The descriptors of a program are numbered FD_FIRST and up.  One that a program
 * uses is open when it starts, to what the table in pool.c says.
 */
#ifndef KEVENT_FUZZ_H
#define KEVENT_FUZZ_H

/* first: it asks for all that the C library has */
#include "../kernel/lib.h"

#include <stdbool.h>
#include <stdio.h>

#define FD_FIRST	64
#define FD_COUNT	32
#define MAX_THREADS	3
#define MAX_CALLS	32
#define MAX_ARGS	48
/* What the text of any program fits in, with the lines that go before it. */
#define MAX_TEXT	(MAX_CALLS * (32 + MAX_ARGS * 19) + 512)

/* Groups of arguments at the end of a call. */
#define REQUEST_ARGS	9	/* type ident cookie op flags events param[3] */
#define POST_ARGS	3	/* ident data flags */

struct call {
	uint8_t thread;
	uint8_t type;		/* index into call_types */
	uint8_t nr_args;
	uint64_t arg[MAX_ARGS];
};

struct program {
	unsigned int nr;
	struct call call[MAX_CALLS];
};

/* What a thread of a program has. */
struct worker {
	const struct program *program;
	unsigned int index;
	/* the same pages: writable, read-only, and the second half read-only */
	char *rw, *ro, *mixed;
	char *stage;		/* where arguments are put together */
};

/* One kind of call.  @args has a letter for each argument, see calls.c. */
struct call_type {
	const char *name;
	const char *args;
	void (*run)(struct worker *w, const struct call *c);
	unsigned int weight;	/* how often it is chosen */
};

/* calls.c */
extern const struct call_type call_types[];
extern const unsigned int nr_call_types;
/* How many arguments each group of the list at the end has; 0: no list. */
unsigned int list_group(const struct call_type *type);
unsigned int fixed_args(const struct call_type *type);

/* text.c */
/* The text of @p, terminated; gives its length.  @size is MAX_TEXT at least. */
size_t program_print(const struct program *p, char *text, size_t size);
/* Reads one program: 1, 0 at the end, or -1 with a word in @error. */
int program_read(FILE *file, struct program *p, char *error, size_t size);

/* generate.c */
void program_generate(struct program *p, struct rnd *rnd);
void program_mutate(struct program *p, const struct program *other,
		    struct rnd *rnd);

/* pool.c */
int pool_fd(uint64_t arg);
unsigned int pool_kind(unsigned int fd);
/* The other one of the pair that @fd is of, at the start. */
unsigned int pool_peer(unsigned int fd);
unsigned int pool_nr_kinds(void);
bool kind_is_queue(unsigned int kind);
bool kind_is_socket(unsigned int kind);
/* Opens what @kind is at @fd, and its other end, if it has one, at @peer. */
void pool_open(unsigned int kind, int fd, int peer);
/* Opens all that @p uses, and closes what it left open. */
void pool_prepare(const struct program *p);
void pool_close(void);
/* Moves @fd to the number @to. */
void move_fd(int fd, int to);

/* files.c */
const char *pool_path(uint64_t arg);
unsigned int pool_nr_paths(void);
/* Makes @dir, with a file system of its own, the place of all programs' files. */
void files_begin(const char *dir);
/* The files as every program finds them. */
void files_prepare(void);
/* To be said by a program that mounts or unmounts. */
void files_mounted(void);

/* memory.c */
void memory_begin(void);
/* The address that the first param of a NAIO request stands for. */
uint64_t memory_address(unsigned int thread, uint64_t where, uint64_t length);
/* Puts together, and takes apart, what says that it is a struct kevent_sendfile. */
uint64_t memory_sendfile(unsigned int file, unsigned int rest);
bool memory_is_sendfile(uint64_t where);
uint64_t memory_sendfile_size(uint64_t where);
unsigned int memory_sendfile_fd(uint64_t where);
/* Puts right what the program has changed. */
void memory_restore(void);
bool memory_is_used(const struct program *p);
void run_memory(struct worker *w, const struct call *c);
void run_memlock(struct worker *w, const struct call *c);

/* calls_device.c */
void buffers_make(struct worker *w);
char *buffers_shared(void);
void run_add(struct worker *w, const struct call *c);
void run_modify(struct worker *w, const struct call *c);
void run_remove(struct worker *w, const struct call *c);
void run_wait(struct worker *w, const struct call *c);
void run_change_wait(struct worker *w, const struct call *c);
void run_post(struct worker *w, const struct call *c);
void run_add_path(struct worker *w, const struct call *c);
void run_info(struct worker *w, const struct call *c);
void run_ioctl(struct worker *w, const struct call *c);
void run_read(struct worker *w, const struct call *c);
void run_poll(struct worker *w, const struct call *c);
void run_mmap(struct worker *w, const struct call *c);
void run_fcntl(struct worker *w, const struct call *c);
void run_fdinfo(struct worker *w, const struct call *c);

/* calls_file.c */
void run_open(struct worker *w, const struct call *c);
void run_close(struct worker *w, const struct call *c);
void run_dup(struct worker *w, const struct call *c);
void run_write(struct worker *w, const struct call *c);
void run_open_path(struct worker *w, const struct call *c);
void run_create(struct worker *w, const struct call *c);
void run_unlink(struct worker *w, const struct call *c);
void run_rename(struct worker *w, const struct call *c);
void run_link(struct worker *w, const struct call *c);
void run_mkdir(struct worker *w, const struct call *c);
void run_rmdir(struct worker *w, const struct call *c);
void run_chmod(struct worker *w, const struct call *c);
void run_truncate(struct worker *w, const struct call *c);
void run_mount(struct worker *w, const struct call *c);
void run_umount(struct worker *w, const struct call *c);
void run_inotify(struct worker *w, const struct call *c);
void run_set_timer(struct worker *w, const struct call *c);
void run_epoll(struct worker *w, const struct call *c);
void run_epoll_wait(struct worker *w, const struct call *c);

/* calls_task.c */
void run_shutdown(struct worker *w, const struct call *c);
void run_accept(struct worker *w, const struct call *c);
void run_connect(struct worker *w, const struct call *c);
void run_reset(struct worker *w, const struct call *c);
void run_urgent(struct worker *w, const struct call *c);
void run_send_fd(struct worker *w, const struct call *c);
void run_recv_fd(struct worker *w, const struct call *c);
void run_drain(struct worker *w, const struct call *c);
void run_sockbuf(struct worker *w, const struct call *c);
void run_signal(struct worker *w, const struct call *c);
void run_alarm(struct worker *w, const struct call *c);
void run_fork(struct worker *w, const struct call *c);
void run_user(struct worker *w, const struct call *c);
void run_nap(struct worker *w, const struct call *c);
void run_limit(struct worker *w, const struct call *c);
void signals_prepare(void);
/* None comes after this. */
void signals_end(void);
/* Module parameters that a program may change. */
void limits_save(void);
void limits_restore(const struct program *p);

/* cover.c */
#define NR_EDGES	(1U << 16)

/* Which edges between instrumented places of the module were taken. */
struct edges {
	uint64_t word[NR_EDGES / 64];
};

/* False where this kernel has no KCOV. */
bool cover_open(void);
void cover_reset(void);
void cover_start(unsigned int thread);
void cover_stop(unsigned int thread);
/* What the program just run did. */
const struct edges *cover_collect(void);
unsigned int cover_nr_pcs(void);
/* The places reached, "SECTION OFFSET" of kevent.ko, one a line. */
void cover_write(const char *path);

unsigned int edges_count(const struct edges *edges);
/* Those of @from that @without does not have, into @to; how many. */
unsigned int edges_new(struct edges *to, const struct edges *from,
		       const struct edges *without);
void edges_merge(struct edges *to, const struct edges *from);

/* run.c */
struct run_options {
	unsigned int limit;	/* ms that a program may take */
	const char *recent;	/* file for the programs about to be run */
	uint64_t seed;
};

struct run_counts {
	uint64_t programs;
	uint64_t late;		/* took too long, and were killed */
	uint64_t gave_up;	/* a call of ours failed that must not */
};

extern struct run_counts run_counts;
void run_prepare(const struct run_options *options);
/* Runs @p.  True where nothing was wrong, else it was said on stderr. */
bool run_program(const struct program *p);
bool run_end(void);

/* server.c */
#define BROKEN_PROMISE	99	/* exit status */
void server_main(struct worker *workers, const struct program *p, int go,
		 int done) __attribute__((noreturn));
/* Called by a program: the device did what it must not.  Ends the process. */
void broken_promise(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));

/* corpus.c */
extern unsigned int corpus_nr;
extern unsigned int corpus_nr_edges;
const struct program *corpus_pick(struct rnd *rnd);
/* Calls @each for every program of the file until it is false. */
bool corpus_load(const char *path, bool (*each)(const struct program *p));
/* Runs @p, and keeps it where it does something new.  As run_program(). */
bool corpus_seed(const struct program *p);
/* The same, but what is kept is made smaller first, and appended to a file. */
bool corpus_try(const struct program *p, const char *found);
/* Keeps @p unseen: all that can be done without coverage. */
bool corpus_keep(const struct program *p);
/* Those that together do all that was seen, the shortest first. */
void corpus_write(const char *path);

#endif /* KEVENT_FUZZ_H */
