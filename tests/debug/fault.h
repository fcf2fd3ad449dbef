/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making a system call fail at each allocation and each copy from or to the
 * caller that it comes by, one after the other, on a kernel that was built for
 * it (CONFIG_FAULT_INJECTION); elsewhere the case is skipped.
 *
 * get_user(), put_user() and unsafe_put_user() are no such points on any
 * kernel so far: tests/kernel/boundary.c meets those with memory that is bad.
 */
#ifndef KEVENT_TESTS_FAULT_H
#define KEVENT_TESTS_FAULT_H

#include <stdbool.h>

#include "../kernel/lib.h"

/* What became of a call that had to fail at one of its points. */
enum fault_end {
	FAULT_UNUSED,	/* it has no such point */
	FAULT_ABSORBED,	/* the point failed and the call did not */
	FAULT_FAILED,
};

/*
 * Calls @round with 1, 2, 3 ... until the call has no more points, and adds a
 * line to faults.txt in $KEVENT_RESULTS: how many points there are, how many
 * faults were injected, and how many of those the call could not live with.
 * That there are none fails the case, but for the sweeps listed in lib_fault.c.
 * @round does everything, also all the checks, around one call that stands
 * between fault_arm() and fault_disarm().
 */
void fault_sweep(const char *name, enum fault_end (*round)(void *, unsigned int),
		 void *arg);

/* The same from the @first point on, and of @step points only one. */
void fault_sweep_steps(const char *name, unsigned int first, unsigned int step,
		       enum fault_end (*round)(void *, unsigned int), void *arg);

/* Allocations from these slab caches do not fail, for the rest of the case. */
void fault_spare(const char * const *names, size_t nr);

/* How many points there are in between. */
void fault_count_begin(void);
unsigned int fault_count_end(void);

/* The @nth point from here on fails; true where that was used up. */
void fault_arm(unsigned int nth);
bool fault_disarm(void);

/* What is in memory now, for a comparison at the end; may be kept by value. */
#define FAULT_CACHES	9

struct fault_leaks {
	long objects[FAULT_CACHES];
	uint64_t kevents;
	unsigned int files;
};

void leaks_begin(struct fault_leaks *leaks);
void leaks_end(const struct fault_leaks *leaks);

/* One request as it went: what the call returned, or -errno, and its result. */
#define NO_RESULT	0x5a5a5a5a

struct outcome {
	int call;
	int result;
	bool used;
};

/* One way of hanging a kevent on something: see lib_scene.c for the table. */
struct scene;

struct source {
	const char *name;
	uint16_t type;
	uint32_t flags;		/* besides the mode */
	uint32_t modify;	/* and what MODIFY adds to them */
	uint32_t events[2];	/* asked for by ADD, and by MODIFY */
	bool fresh;		/* what is watched is made anew each round */
	void (*open)(struct scene *s);
	void (*ready)(struct scene *s);
	void (*drain)(struct scene *s);
	void (*close)(struct scene *s);
};

extern const struct source sources[];
extern const size_t nr_sources;

#define COOKIE_IDLE	0x1d1e
#define COOKIE_READY	0x4ead
#define COOKIE_FIRST	0xf125
#define COOKIE_SECOND	0x5ec0

/* A source, a queue with an idle kevent and a ready one, and what we add. */
struct scene {
	const struct source *source;
	uint32_t mode;
	int q;
	int fd;			/* the ident where that is a descriptor */
	int peer;
	unsigned int which;	/* 0 as ADD has it, 1 after MODIFY */
};

void scene_open(struct scene *s, const struct source *source, uint32_t mode);
void scene_close(struct scene *s);
void scene_begin(struct scene *s);
void scene_end(struct scene *s);
struct kevent_request scene_request(const struct scene *s, unsigned int op);
/* Through ADD, MODIFY, REMOVE or ADD_PATH; @nth 0 for no fault. */
struct outcome scene_change(struct scene *s, unsigned int op, unsigned int nth);
/* Makes it ready; both events come once, as they should, and no more. */
void scene_check(struct scene *s);
/* The same in parts: until both are ready; and @ev are what came of it. */
void scene_make_ready(struct scene *s);
void scene_check_ready(struct scene *s);
void scene_check_events(struct scene *s, const struct kevent_event *ev, int nr);
void scene_check_rest(struct scene *s);
const char *mode_name(uint32_t mode);

/* A tmpfs of its own, since root may; gone again, or the case fails. */
const char *fs_mount(void);
void fs_unmount(void);

#endif /* KEVENT_TESTS_FAULT_H */
