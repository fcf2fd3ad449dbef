# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulator: the kevent device without a kernel module, served through FUSE.

An implementation of the contract in ``doc/kevent.4`` of its own, in pure Python over fusepy.  The
files are named after those of the module: `kevent`, `ready` and `queue` are the subsystem,
`sources` the table of types with one file per source, `ioctl` and `device` the file that clients
open.  `client` reaches the descriptors of clients, `hub` hears of everything that happens,
`registration` watches what can be polled, `watches` inodes, `closes` and `marks` the end of files,
`releases` that of queues.  `naio`, `sendfile` and `multishot` are transfers, on `transfer`; `lanes`
their order, `ends` their sockets, `movers` and `moving` who moves, `memory` the clients' memory.
`server` is the FUSE side, `threads` what the interpreter knows of its threads, `mount` and
`daemon` are the process around it.

Nothing here is imported by the rest of the package unless a simulator is asked for.
"""
