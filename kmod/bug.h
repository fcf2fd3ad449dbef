/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Deliberate bugs, of which a debug build may have one, to prove that
 * "make check-debug" or "make check-kcsan" catches its kind:
 * make CONFIG_KEVENT_BUG=LEAK, say.
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
	KEVENT_BUG_UNHOOK,	/* a file is let go of under a lock of others */
	KEVENT_BUG_UNDO,	/* for want of memory, what there was is lost */
	KEVENT_BUG_INDEX,	/* a number of the caller's is a place in a table */
	KEVENT_BUG_UNLOCKED,	/* a kevent is posted to without its lock */
	KEVENT_BUG_TREE,	/* the same of a tree, by a function of the kernel's */
	KEVENT_BUG_PIN,		/* pages of a transfer stay pinned */
	KEVENT_BUG_CANCEL,	/* a cancel does not wait for who moves the transfer */
	KEVENT_BUG_KICK,	/* a socket is not looked at once it is hooked */
};

#ifndef KEVENT_BUG
#define KEVENT_BUG	KEVENT_BUG_NONE
#endif

static inline bool kevent_has_bug(enum kevent_bug bug)
{
	return bug == KEVENT_BUG;
}

#endif /* _KEVENT_BUG_H */
