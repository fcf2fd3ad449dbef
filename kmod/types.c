// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of types, and what can be said of a request from its type alone.
 * A new source is a file with a struct kevent_ops, and a row here.
 */
#include <linux/errno.h>
#include <linux/slab.h>

#include "bug.h"
#include "kevent.h"

#define KEVENT_MODES	(KEVENT_EDGE | KEVENT_ONESHOT | KEVENT_DISPATCH | \
			 KEVENT_DISABLED)

static const struct {
	u16 type;
	u32 feature;
	const struct kevent_ops *ops;	/* NULL: left out of this build */
} kevent_types[] = {
	{ KEVENT_SOCKET, KEVENT_FEATURE_SOCKET,
#ifdef KEVENT_HAVE_SOCKET
	  &kevent_socket_ops
#endif
	},
	{ KEVENT_POLL, KEVENT_FEATURE_POLL,
#ifdef KEVENT_HAVE_POLL
	  &kevent_poll_ops
#endif
	},
	{ KEVENT_INODE, KEVENT_FEATURE_INODE,
#ifdef KEVENT_HAVE_INODE
	  &kevent_inode_ops
#endif
	},
	{ KEVENT_PATH, KEVENT_FEATURE_INODE,
#ifdef KEVENT_HAVE_INODE
	  &kevent_path_ops
#endif
	},
	{ KEVENT_TIMER, KEVENT_FEATURE_TIMER,
#ifdef KEVENT_HAVE_TIMER
	  &kevent_timer_ops
#endif
	},
	{ KEVENT_USER, KEVENT_FEATURE_USER,
#ifdef KEVENT_HAVE_USER
	  &kevent_user_ops
#endif
	},
	{ KEVENT_NAIO, KEVENT_FEATURE_NAIO,
#ifdef KEVENT_HAVE_NAIO
	  &kevent_naio_ops
#endif
	},
};

/* by type */
static struct kmem_cache *kevent_caches[KEVENT_NAIO + 1];
unsigned int kevent_features;

static int kevent_type_init(const struct kevent_ops *ops)
{
	int ret;

	kevent_caches[ops->type] = kmem_cache_create(ops->cache, ops->size, 0,
						     SLAB_ACCOUNT, NULL);
	if (!kevent_caches[ops->type])
		return -ENOMEM;
	ret = ops->init ? ops->init() : 0;
	if (ret)
		kmem_cache_destroy(kevent_caches[ops->type]);
	return ret;
}

static void kevent_type_exit(const struct kevent_ops *ops)
{
	if (ops->exit)
		ops->exit();
	kmem_cache_destroy(kevent_caches[ops->type]);
}

/**
 * kevent_types_init - make ready every source of this build
 *
 * Return: 0 or -errno
 */
int kevent_types_init(void)
{
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(kevent_types); i++) {
		const struct kevent_ops *ops = kevent_types[i].ops;

		if (!ops)
			continue;
		ret = kevent_type_init(ops);
		if (ret)
			goto fail;
		kevent_features |= kevent_types[i].feature;
	}
	return 0;
fail:
	while (i--)
		if (kevent_types[i].ops)
			kevent_type_exit(kevent_types[i].ops);
	return ret;
}

/**
 * kevent_types_exit - the opposite, when no queue is left
 */
void kevent_types_exit(void)
{
	unsigned int i = ARRAY_SIZE(kevent_types);

	while (i--)
		if (kevent_types[i].ops)
			kevent_type_exit(kevent_types[i].ops);
}

/**
 * kevent_alloc - a new kevent, zeroed, of the size its source wants
 * @ops:	the type
 *
 * Return: the kevent or NULL
 */
struct kevent *kevent_alloc(const struct kevent_ops *ops)
{
	struct kevent *k;

	k = kmem_cache_zalloc(kevent_caches[ops->type], KEVENT_GFP);
	if (!k)
		return NULL;
	k->ops = ops;
	k->item.kevent = k;
	INIT_LIST_HEAD(&k->item.list);
	return k;
}

/**
 * kevent_free - the end of a kevent, off its storage and with no claim on it
 * @k:		the kevent
 */
void kevent_free(struct kevent *k)
{
	if (k->ops->release)
		k->ops->release(k);
	kmem_cache_free(kevent_caches[k->ops->type], k);
}

/**
 * kevent_type - look up a type
 * @type:	KEVENT_*
 *
 * Return: its operations, ERR_PTR(-ENXIO) where there is no such type, or
 * ERR_PTR(-EOPNOTSUPP) where it is left out of this build
 */
const struct kevent_ops *kevent_type(u16 type)
{
	unsigned int i;

	if (kevent_has_bug(KEVENT_BUG_INDEX) && !kevent_types[type - 1].type)
		return ERR_PTR(-ENXIO);
	for (i = 0; i < ARRAY_SIZE(kevent_types); i++) {
		if (kevent_types[i].type == type)
			return kevent_types[i].ops ?: ERR_PTR(-EOPNOTSUPP);
	}
	return ERR_PTR(-ENXIO);
}

/**
 * kevent_check_request - refuse what no kevent of a type can mean
 * @ops:	the type
 * @req:	the request, to add or to modify
 *
 * Return: 0 or -EINVAL
 */
int kevent_check_request(const struct kevent_ops *ops,
			 const struct kevent_request *req)
{
	if (req->flags & ~(KEVENT_MODES | ops->flags))
		return -EINVAL;
	if ((req->flags & KEVENT_ONESHOT) && (req->flags & KEVENT_DISPATCH))
		return -EINVAL;
	if (req->events & ~ops->events)
		return -EINVAL;
	if (ops->exact && req->events != ops->events)
		return -EINVAL;
	if (ops->check)
		return ops->check(req);
	if (req->param[0] || req->param[1] || req->param[2])
		return -EINVAL;
	return 0;
}
