# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's ABI as ctypes structures and enumerations.

Follows ``chardev/kevent_uapi.h``, which is the definition; what each field means is said there.
Structures carry the header's names; ``KEVENT_SOCKET_RECV`` is `SocketEvents.RECV`,
``KEVENT_IOC_WAIT(m)`` is `WAIT(m)`, and so on.  A unit test compiles the header and compares every
size, offset and number with this file.

Every flag keeps bits that it does not know, so that events of a newer device survive.
"""

import ctypes
import functools
import select
import struct
from enum import KEEP, IntEnum, IntFlag
from typing import Any

import ioctl_opt  # type: ignore[import-untyped]

ABI_VERSION = 1


class EventType(IntEnum):
    """Types of event: what an identity names, and which bits a mask takes."""

    SOCKET = 1
    POLL = 2
    INODE = 3
    TIMER = 4
    USER = 5
    PATH = 6
    NAIO = 7


class SocketEvents(IntFlag, boundary=KEEP):
    """Mask of `EventType.SOCKET`.  ERR and HUP are reported whether asked for or not."""

    RECV = 0x0001
    PRI = 0x0002
    SEND = 0x0004
    ERR = 0x0008
    HUP = 0x0010
    RDHUP = 0x2000
    ACCEPT = 0x4000


class PollEvents(IntFlag, boundary=KEEP):
    """Mask of `EventType.POLL`: the bits of ``<poll.h>``.  ERR and HUP are always reported."""

    IN = select.POLLIN
    PRI = select.POLLPRI
    OUT = select.POLLOUT
    ERR = select.POLLERR
    HUP = select.POLLHUP
    NVAL = select.POLLNVAL
    RDNORM = select.POLLRDNORM
    RDBAND = select.POLLRDBAND
    WRNORM = select.POLLWRNORM
    WRBAND = select.POLLWRBAND
    MSG = select.POLLMSG
    RDHUP = select.POLLRDHUP


class InodeEvents(IntFlag, boundary=KEEP):
    """Mask of `EventType.INODE` and `EventType.PATH`.  ISDIR is reported, never asked for."""

    CREATE = 0x0001
    REMOVE = 0x0002
    MOVED_FROM = 0x0004
    MOVED_TO = 0x0008
    MODIFY = 0x0010
    ATTRIB = 0x0020
    SELF_REMOVED = 0x0040
    SELF_MOVED = 0x0080
    UNMOUNT = 0x0100
    ISDIR = 0x4000


class TimerEvents(IntFlag, boundary=KEEP):
    """Mask of `EventType.TIMER`."""

    FIRED = 0x0001


class UserEvents(IntFlag, boundary=KEEP):
    """Mask of `EventType.USER`."""

    POSTED = 0x0001


class NaioEvents(IntFlag, boundary=KEEP):
    """Mask of `EventType.NAIO`: what is transferred where."""

    RECV = 0x0001
    SEND = 0x0002
    SENDFILE = 0x0004


class Flags(IntFlag, boundary=KEEP):
    """Mode and options of a request.  No mode given means level."""

    EDGE = 0x0001
    ONESHOT = 0x0002
    DISPATCH = 0x0004
    DISABLED = 0x0008
    NOTIFY_BROKEN = 0x0010
    BYTES = 0x0020
    ABSTIME = 0x0040
    NOFOLLOW = 0x0080
    STALE = 0x0100
    WAITALL = 0x0200
    MULTISHOT = 0x0400


class Op(IntEnum):
    """What a change does, in ``KEVENT_IOC_CHANGE_WAIT`` only."""

    ADD = 1
    MODIFY = 2
    REMOVE = 3


class EventFlags(IntFlag, boundary=KEEP):
    """What goes with a delivered event."""

    BROKEN = 0x01
    OVERFLOW = 0x02
    NAME = 0x04
    LAST = 0x08
    ERROR = 0x10
    TRUNCATED = 0x20


class WaitFlags(IntFlag, boundary=KEEP):
    """Flags of ``struct kevent_wait``."""

    ABSTIME = 0x0001


class Feature(IntFlag, boundary=KEEP):
    """What the device was built with, and what else it can do."""

    SOCKET = 0x0001
    POLL = 0x0002
    INODE = 0x0004
    TIMER = 0x0008
    USER = 0x0010
    NAIO = 0x0020
    PIN = 0x10000000
    FDINFO = 0x20000000
    PARTIAL = 0x40000000
    SIM = 0x80000000


class FileKind(IntFlag, boundary=KEEP):
    """Kinds of file, to say which of them a kevent keeps open on this kernel."""

    SOCKET = 0x0001
    PIPE = 0x0002
    ANON = 0x0004
    PTY_SLAVE = 0x0008
    PTY_MASTER = 0x0010
    FIFO = 0x0020
    KEVENT = 0x0040
    OTHER = 0x0080
    INODE = 0x0100


WAIT_FOREVER = 2**64 - 1
NAIO_MAX = 0x7FFFF000
"""Bytes of memory that one transfer moves at most."""
SENDFILE_ALL = 2**64 - 1
SENDFILE_EXTRA = 16384
"""Bytes of prefix and suffix together, at most."""


class kevent_request(ctypes.Structure):
    """One change to the set of kevents in a queue."""

    _fields_ = (
        ("ident", ctypes.c_uint64),
        ("cookie", ctypes.c_uint64),
        ("type", ctypes.c_uint16),
        ("op", ctypes.c_uint16),
        ("flags", ctypes.c_uint32),
        ("events", ctypes.c_uint32),
        ("result", ctypes.c_int32),
        ("param", ctypes.c_uint64 * 3),
    )


class kevent_batch(ctypes.Structure):
    """Header of ADD, MODIFY, REMOVE and POST."""

    _fields_ = (
        ("count", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint64),
    )


class kevent_path(ctypes.Structure):
    """Argument of ADD_PATH; the path and its NUL follow."""

    _fields_ = (("request", kevent_request),)


class kevent_sendfile(ctypes.Structure):
    """What a SENDFILE is given an address of; the bytes of prefix and suffix follow."""

    _fields_ = (
        ("offset", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("file", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("prefix", ctypes.c_uint32),
        ("suffix", ctypes.c_uint32),
    )


class kevent_event(ctypes.Structure):
    """One event delivered: a record.  The records of a name, if any, follow."""

    _fields_ = (
        ("cookie", ctypes.c_uint64),
        ("ident", ctypes.c_uint64),
        ("data", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("events", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
    )


class kevent_wait(ctypes.Structure):
    """Header of WAIT and CHANGE_WAIT; requests, then room for records, follow."""

    _fields_ = (
        ("nr_changes", ctypes.c_uint32),
        ("changed", ctypes.c_uint32),
        ("min", ctypes.c_uint32),
        ("max", ctypes.c_uint32),
        ("timeout", ctypes.c_uint64),
        ("clock", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("records", ctypes.c_uint32),
        ("left", ctypes.c_uint32),
        ("reserved", ctypes.c_uint64),
    )


class kevent_post(ctypes.Structure):
    """One posting, in an array behind a `kevent_batch`."""

    _fields_ = (
        ("ident", ctypes.c_uint64),
        ("data", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("result", ctypes.c_int32),
    )


class kevent_info(ctypes.Structure):
    """Answer of INFO."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("features", ctypes.c_uint32),
        ("pinned", ctypes.c_uint32),
        ("max_name_queue", ctypes.c_uint32),
        ("max_queue", ctypes.c_uint64),
        ("max_user", ctypes.c_uint64),
        ("max_inode", ctypes.c_uint64),
        ("kevents", ctypes.c_uint64),
        ("ready", ctypes.c_uint64),
        ("user_kevents", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 8),
    )


_CODES: dict[Any, str] = {
    ctypes.c_uint8: "B",
    ctypes.c_uint16: "H",
    ctypes.c_uint32: "I",
    ctypes.c_int32: "i",
    ctypes.c_uint64: "Q",
}


def _packer(structure: type[ctypes.Structure]) -> struct.Struct:
    """A `struct.Struct` of the same layout: several times as fast as ctypes' own fields."""
    codes = "="
    for field in structure._fields_:
        kind = field[1]
        if issubclass(kind, ctypes.Array):
            codes += f"{kind._length_}{_CODES[kind._type_]}"
        else:
            codes += _CODES[kind]
    packer = struct.Struct(codes)
    if packer.size != ctypes.sizeof(structure):
        raise TypeError(f"{structure.__name__} has padding")
    return packer


REQUEST = _packer(kevent_request)
BATCH = _packer(kevent_batch)
SENDFILE = _packer(kevent_sendfile)
EVENT = _packer(kevent_event)
WAIT_HEADER = _packer(kevent_wait)
POSTING = _packer(kevent_post)
INFO_ANSWER = _packer(kevent_info)

EVENT_RECORDS = 9
"""Records that hold any one event whatever its name."""


def inode_rename(data: int) -> int:
    """The number in an inode event's data that pairs MOVED_FROM with MOVED_TO; 0 where none."""
    return data & 0xFFFFFFFF


def name_length(data: int) -> int:
    """The length in bytes of the name that follows an inode event."""
    return data >> 32 & 0xFFFFFFFF


def name_records(data: int) -> int:
    """How many records that name takes."""
    return ((name_length(data) + EVENT.size - 1) & 0xFFFFFFFF) // EVENT.size


IOC_MAGIC = 0xE7
IOC_NR_INFO = 0
IOC_NR_ADD = 1
IOC_NR_MODIFY = 2
IOC_NR_REMOVE = 3
IOC_NR_WAIT = 4
IOC_NR_CHANGE_WAIT = 5
IOC_NR_POST = 6
IOC_NR_ADD_PATH = 7

MAX_SIZE = 16383
"""Bytes that the 14 bits of size in an ioctl's number leave room for."""
MAX_REQUESTS = (MAX_SIZE - BATCH.size) // REQUEST.size
MAX_POSTS = (MAX_SIZE - BATCH.size) // POSTING.size
MAX_RECORDS = (MAX_SIZE - WAIT_HEADER.size) // EVENT.size


@functools.cache
def _number(nr: int, size: int) -> int:
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"an ioctl carries at most {MAX_SIZE} bytes, not {size}")
    both = ioctl_opt.IOC_READ | ioctl_opt.IOC_WRITE
    return int(ioctl_opt.IOC(both, IOC_MAGIC, nr, size))


INFO: int = ioctl_opt.IOR(IOC_MAGIC, IOC_NR_INFO, kevent_info)


def ADD(requests: int) -> int:
    """The number of ``KEVENT_IOC_ADD`` for that many requests; ValueError if they do not fit."""
    return _number(IOC_NR_ADD, BATCH.size + requests * REQUEST.size)


def MODIFY(requests: int) -> int:
    """The number of ``KEVENT_IOC_MODIFY`` for that many requests."""
    return _number(IOC_NR_MODIFY, BATCH.size + requests * REQUEST.size)


def REMOVE(requests: int) -> int:
    """The number of ``KEVENT_IOC_REMOVE`` for that many requests."""
    return _number(IOC_NR_REMOVE, BATCH.size + requests * REQUEST.size)


def WAIT(records: int) -> int:
    """The number of ``KEVENT_IOC_WAIT`` with room for that many records."""
    return _number(IOC_NR_WAIT, WAIT_HEADER.size + records * EVENT.size)


def CHANGE_WAIT(requests: int, records: int) -> int:
    """The number of ``KEVENT_IOC_CHANGE_WAIT`` for that many requests and records."""
    size = WAIT_HEADER.size + requests * REQUEST.size + records * EVENT.size
    return _number(IOC_NR_CHANGE_WAIT, size)


def POST(postings: int) -> int:
    """The number of ``KEVENT_IOC_POST`` for that many postings."""
    return _number(IOC_NR_POST, BATCH.size + postings * POSTING.size)


def ADD_PATH(length: int) -> int:
    """The number of ``KEVENT_IOC_ADD_PATH`` for a path of that many bytes, its NUL included."""
    return _number(IOC_NR_ADD_PATH, ctypes.sizeof(kevent_path) + length)
