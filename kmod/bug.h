/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Deliberate bugs, of which a debug build may have one, to prove that
 * "make check-debug" catches its kind: make CONFIG_KEVENT_BUG=LEAK, say.
 */
#ifndef _KEVENT_BUG_H
#define _KEVENT_BUG_H

#include <linux/types.h>

enum kevent_bug {
	KEVENT_BUG_NONE,
	KEVENT_BUG_LEAK,	/* a removed kevent is not freed */
	KEVENT_BUG_FREED,	/* a kevent is looked at after it was freed */
	KEVENT_BUG_ORDER,	/* two locks are taken in the wrong order */
	KEVENT_BUG_WAKEUP,	/* a wake-up is not passed on */
};

#ifndef KEVENT_BUG
#define KEVENT_BUG	KEVENT_BUG_NONE
#endif

static inline bool kevent_has_bug(enum kevent_bug bug)
{
	return bug == KEVENT_BUG;
}

#endif /* _KEVENT_BUG_H */
