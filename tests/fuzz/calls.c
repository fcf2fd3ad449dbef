// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The calls a program can make.
 *
 * Letters of arguments:
 *	q	descriptor, of a queue where the generator chooses
 *	f s	descriptor; of a socket where the generator chooses
 *	p	path, by its place in pool.c
 *	k	kind of resource, by its place in pool.c
 *	w	where in memory: the low four bits choose, see calls_device.c, the
 *		others say how far
 *	z	added to the size in the ioctl's number
 *	d	added to a count, flags, or a reserved field: 0 in a valid call
 *	m M	min and max of WAIT
 *	t	ns; with an ABSTIME flag an even number is counted from now
 *	u	us, at most two thousand
 *	c	clock
 *	a	flags of WAIT
 *	i	number of an ioctl
 *	e	bits of poll
 *	o	flags of open
 *	n	a small number
 *	x	any number
 * and, in place of the last one, of a list:
 *	R	requests: type ident cookie op flags events param[3]
 *	O	postings: ident data flags
 *	B	words of the argument, repeated as long as it is
 */
#include "fuzz.h"

#include <string.h>

const struct call_type call_types[] = {
	{ "add", "qwzdddR", run_add, 60 },		/* size count flags reserved */
	{ "modify", "qwzdddR", run_modify, 30 },
	{ "remove", "qwzdddR", run_remove, 25 },
	{ "wait", "qwzdmMtcad", run_wait, 40 },
	{ "change_wait", "qwzdmMtcadR", run_change_wait, 25 },
	{ "post", "qwzdddO", run_post, 15 },
	{ "add_path", "qwzpR", run_add_path, 25 },
	{ "info", "qwz", run_info, 4 },
	{ "ioctl", "qiwB", run_ioctl, 10 },
	{ "read", "fnw", run_read, 15 },
	{ "poll", "ftee", run_poll, 10 },
	{ "mmap", "fn", run_mmap, 1 },
	{ "fcntl", "fnx", run_fcntl, 4 },
	{ "fdinfo", "f", run_fdinfo, 4 },

	{ "open", "kff", run_open, 20 },
	{ "close", "f", run_close, 20 },
	{ "dup", "ff", run_dup, 12 },
	{ "write", "fn", run_write, 25 },
	{ "open_path", "pfo", run_open_path, 6 },
	{ "create", "p", run_create, 8 },
	{ "unlink", "p", run_unlink, 8 },
	{ "rename", "pp", run_rename, 8 },
	{ "link", "pp", run_link, 3 },
	{ "mkdir", "p", run_mkdir, 3 },
	{ "rmdir", "p", run_rmdir, 3 },
	{ "chmod", "pn", run_chmod, 4 },
	{ "truncate", "pn", run_truncate, 4 },
	{ "mount", "p", run_mount, 3 },
	{ "umount", "p", run_umount, 5 },
	{ "inotify", "fp", run_inotify, 3 },
	{ "set_timer", "ftt", run_set_timer, 4 },
	{ "epoll", "ffen", run_epoll, 8 },		/* how: 0 ADD, MOD, DEL */
	{ "epoll_wait", "f", run_epoll_wait, 4 },

	{ "shutdown", "sn", run_shutdown, 6 },
	{ "accept", "sf", run_accept, 5 },
	{ "connect", "ss", run_connect, 5 },		/* anew, to a listener */
	{ "reset", "s", run_reset, 5 },
	{ "urgent", "s", run_urgent, 3 },
	{ "send_fd", "sf", run_send_fd, 6 },
	{ "recv_fd", "sf", run_recv_fd, 5 },
	{ "signal", "n", run_signal, 3 },
	{ "alarm", "u", run_alarm, 5 },
	{ "drain", "s", run_drain, 8 },
	{ "sockbuf", "sn", run_sockbuf, 5 },
	{ "memory", "nn", run_memory, 5 },		/* how, pages */
	{ "memlock", "n", run_memlock, 3 },		/* pages */
	{ "fork", "qn", run_fork, 6 },
	{ "user", "n", run_user, 2 },
	{ "nap", "u", run_nap, 10 },
	{ "limit", "nn", run_limit, 3 },
};

const unsigned int nr_call_types = ARRAY_SIZE(call_types);

unsigned int list_group(const struct call_type *type)
{
	switch (type->args[strlen(type->args) - 1]) {
	case 'R':
		return REQUEST_ARGS;
	case 'O':
		return POST_ARGS;
	case 'B':
		return 1;
	}
	return 0;
}

unsigned int fixed_args(const struct call_type *type)
{
	return (unsigned int)strlen(type->args) - !!list_group(type);
}
