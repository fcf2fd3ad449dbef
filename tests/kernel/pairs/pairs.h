/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What races in pairs.c, and what is known of it: the arena, which every thread
 * and process of a pair shares, and the crew that fights in it.
 *
 * A pair is fought in rounds.  Each has one kind of source for either side, the
 * same where both can use it; the crew starts together, and when all of it has
 * ended everything that was counted has to agree with what the queues then say.
 */
#ifndef KEVENT_TESTS_PAIRS_H
#define KEVENT_TESTS_PAIRS_H

#include "../lib.h"

#include <semaphore.h>
#include <string.h>

enum actor {
	ADD, REMOVE, MODIFY, WAIT, POST, CLOSE, DUP_CLOSE, CLOSE_QUEUE,
	FORK_EXIT, KILL_WAITER, UNMOUNT, TIMER_EXPIRY, RESET, PASS_QUEUE,
	RMMOD, NR_ACTORS
};

enum kind {
	TCP_SOCKET, UNIX_SOCKET, PIPE_READ, EVENTFD, PTY_SLAVE, QUEUE, INODE,
	PATH, TIMER, USER, RECV_TRANSFER, SEND_TRANSFER, NR_KINDS
};

#define BIT(n)		(1U << (n))
/* Kinds whose ident is a descriptor. */
#define FILES		(BIT(TCP_SOCKET) | BIT(UNIX_SOCKET) | BIT(PIPE_READ) | \
			 BIT(EVENTFD) | BIT(PTY_SLAVE) | BIT(QUEUE) | \
			 BIT(INODE))
#define NAMES		(BIT(INODE) | BIT(PATH))
/* Kinds of transfers: they hang on a file, and are called by a number. */
#define TRANSFERS	(BIT(RECV_TRANSFER) | BIT(SEND_TRANSFER))
/* Kinds that somebody writes to, or that a peer reads from. */
#define WRITABLE	((FILES & ~(BIT(QUEUE) | BIT(INODE))) | TRANSFERS)
#define ANY_KIND	(BIT(NR_KINDS) - 1)

#define SLOTS		2	/* sources of each kind */
#define QUEUES		2
#define FIGHTERS	4	/* two for each side */
#define CREW		(FIGHTERS + 1)	/* and one that waits all the time */
/* In a transient round every fighter has a queue of its own. */
#define ALL_QUEUES	(QUEUES + FIGHTERS)

/* Numbers that nothing else in the process is given. */
#define QUEUE_BASE	400
#define FD_BASE		500

/* User kevents that no fighter removes: it rings, and it counts. */
#define BELL		900
#define TALLY		901
#define PERMANENT	2
/* Timers with a single shot, each with a number of its own, from here. */
#define SINGLE_SHOT	1000

/* Room of one WAIT, in records, and how many WAITs a victim has. */
#define TAKE_RECORDS	24
#define TAKES		32

/* The kevent of one queue on one source, as far as it can be known. */
struct watch {
	_Atomic uint32_t started;	/* the last cookie of ADD or MODIFY */
	_Atomic uint32_t finished;	/* calls that have returned */
	_Atomic uint32_t dead;		/* no later WAIT gives up to this one */
	uint32_t first;			/* the first cookie of this round */
	bool present;			/* when the round began */
	/* in this round */
	_Atomic unsigned int adds, modifies, removes;
	_Atomic unsigned int ends;	/* delivered with LAST */
	_Atomic unsigned int pokes;	/* occurrences caused ... */
	_Atomic unsigned int heard;	/* ... and delivered */
	bool told;			/* delivered when all was over */
};

/* A WAIT: what was known before, then its argument, whose parts are one. */
struct take {
	int queue;
	uint32_t dead[NR_KINDS][SLOTS];
	struct kevent_wait head;
	struct kevent_event ev[TAKE_RECORDS];
};

struct arena;

struct member {
	struct arena *arena;
	unsigned int nr;
	unsigned int side;
	pthread_t thread;
	struct rnd rnd;
	int own;			/* its queue, if transient, or -1 */
	int mail[2];
	_Atomic unsigned int turns;
	struct take take;
};

/* A process that is killed in its WAIT; what each WAIT of it brought. */
struct victim {
	struct member member;		/* number and side of who kills it */
	pid_t pid;
	_Atomic unsigned int used;
	struct take takes[TAKES];
};

struct arena {
	enum actor actor[2];
	uint32_t actors;
	uint32_t pinned;		/* kinds that refuse NOTIFY_BROKEN */
	unsigned int round;
	/* of this round */
	enum kind kind[2];
	uint32_t kinds;
	uint32_t flags[NR_KINDS][SLOTS];
	uint32_t spin;
	bool transient;			/* no queue but those of the fighters */
	bool files_close, queues_close;
	bool may_unload;

	pthread_barrier_t start;
	sem_t done;
	_Atomic unsigned int running[2];
	_Atomic bool stop, over;
	_Atomic bool spoilt[NR_KINDS][SLOTS];	/* to be made anew */
	_Atomic bool mounted[SLOTS];
	_Atomic unsigned int posted[QUEUES], told[QUEUES];
	_Atomic unsigned int shots[QUEUES], fired[QUEUES];
	_Atomic unsigned int files;	/* names that were used */
	_Atomic unsigned int unloads;
	_Atomic unsigned int delivered;
	struct watch watch[ALL_QUEUES][NR_KINDS][SLOTS];
	struct member crew[CREW + 1];	/* the last one is the referee */
	struct victim victims[FIGHTERS];
};

extern const char *const actor_names[NR_ACTORS];

static inline bool has(const struct arena *a, enum actor actor)
{
	return a->actors & BIT(actor);
}

static inline unsigned int slots_of(enum kind kind)
{
	return kind == QUEUE ? 1 : SLOTS;
}

/* Only the first queue watches the second one. */
static inline bool watched_by(enum kind kind, int queue)
{
	return kind != QUEUE || queue == 0;
}

/* sources.c */
struct kind_info {
	const char *name;
	uint16_t type;
	uint32_t events;
	uint32_t file;		/* KEVENT_FILE_* */
};

extern const struct kind_info kinds[NR_KINDS];

int watched_fd(enum kind kind, unsigned int slot);
int peer_fd(enum kind kind, unsigned int slot);
uint64_t ident_of(enum kind kind, unsigned int slot);
/* Names the memory, and the socket, of a transfer of @queue. */
void fill_transfer(struct kevent_request *req, int queue, enum kind kind,
		   unsigned int slot);
bool is_open(int fd);
void mount_point(char *path, size_t size, unsigned int slot);
void watched_path(char *path, size_t size, unsigned int slot);
/* Everything that the kinds of this round need, where it is not there. */
void make_sources(struct arena *a);
void close_sources(struct arena *a);
/* Reads what there is. */
void empty(enum kind kind, unsigned int slot);
/* Makes something happen. */
void poke(struct arena *a, struct member *m, enum kind kind, unsigned int slot);
/* What poll(2) says of the source. */
bool holds(enum kind kind, unsigned int slot);

/* watches.c */
int queue_fd(const struct member *m, int queue);
/* Nothing in this round can end the kevent that was there when it began. */
bool is_sure(const struct arena *a, int queue, enum kind kind,
	     unsigned int slot);
/* ADD, MODIFY or REMOVE (@nr) through descriptor @q of @queue: its answer. */
int ask(struct member *m, int q, int queue, unsigned int nr, enum kind kind,
	unsigned int slot);
/* A WAIT whose events stand in @t, not looked at yet: events, or -errno. */
int take(struct arena *a, struct take *t, int q, int queue, uint32_t min,
	 uint64_t timeout);
/* Looks at them; true where the bell was among them. */
bool check_take(struct arena *a, const struct take *t);
/* What the round begins with, and what must be so when it is over. */
void begin_watches(struct arena *a);
void check_watches(struct arena *a);

/* actors.c */
extern const uint32_t actor_kinds[NR_ACTORS];
/* How many turns an actor may have while the other side is still at work. */
extern const unsigned int actor_turns[NR_ACTORS];

void prepare(struct member *m);
void act(struct member *m);

#endif /* KEVENT_TESTS_PAIRS_H */
