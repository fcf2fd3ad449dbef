# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests: what a queue is asked to watch, and one constructor for each source."""

import io
import operator
import os
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any, Protocol

from pykevent.abi import (
    NAIO_MAX,
    REQUEST,
    SENDFILE,
    SENDFILE_ALL,
    SENDFILE_EXTRA,
    EventType,
    Flags,
    InodeEvents,
    NaioEvents,
    Op,
    PollEvents,
    SocketEvents,
    TimerEvents,
    UserEvents,
)
from pykevent.timeouts import nanoseconds


class HasFileno(Protocol):
    """Anything with a descriptor: sockets, files, queues, selectors."""

    def fileno(self) -> int:
        """The descriptor's number."""
        ...


FileLike = int | HasFileno
"""A descriptor's number, or an object that has one."""

BytesLike = bytes | bytearray | memoryview
"""Bytes to be read at once."""

_DESCRIPTORS = frozenset((EventType.SOCKET, EventType.POLL, EventType.INODE))
# As plain numbers: looking an enumeration's member up, and the operators of flags, are slow.
_RECV = int(NaioEvents.RECV)
_WAITALL, _MULTISHOT, _DISPATCH = int(Flags.WAITALL), int(Flags.MULTISHOT), int(Flags.DISPATCH)


def descriptor_of(fileobj: FileLike) -> int:
    """The descriptor's number; TypeError without fileno(), ValueError for a negative number."""
    if isinstance(fileobj, int):
        fd = fileobj
    else:
        try:
            fd = fileobj.fileno()
        except AttributeError:
            raise TypeError(f"an int, or an object with fileno(), not {fileobj!r}") from None
        if not isinstance(fd, int):
            raise TypeError(f"fileno() of {fileobj!r} returned {fd!r}, not an int")
    if fd < 0:
        if fileobj is fd:
            raise ValueError(f"{fd} is no descriptor")
        raise ValueError(f"{fd} is no descriptor: was it closed? ({fileobj!r})")
    return fd


def socket_of(fileobj: FileLike) -> int:
    """As `descriptor_of`, for a transfer; TypeError for a socket that encrypts."""
    # Without importing ssl: who has not done so has none.
    if type(fileobj) is not int and isinstance(
        fileobj, getattr(sys.modules.get("ssl"), "SSLSocket", ())
    ):
        raise TypeError(
            "transfers would go past the encryption of an SSLSocket: call its recv() and send()"
        )
    fd = descriptor_of(fileobj)
    return fd if fd < 1 << 31 else check_range(fd, 31, "fileobj")


def identity_of(kind: int, ident: FileLike) -> int:
    """The number that names a kevent of type `kind`."""
    if type(ident) is int and 0 <= ident < 1 << 64:
        return ident  # whatever the type
    if kind in _DESCRIPTORS:
        return check_range(descriptor_of(ident), 64, "ident")
    if not isinstance(ident, int):
        more = ": call Transfer.cancel()" if kind == EventType.NAIO else ""
        raise TypeError(f"a kevent of type {kind!r} is named by an int, not by {ident!r}{more}")
    return check_range(ident, 64, "ident")


def check_range(value: int, bits: int, what: str) -> int:
    """`value` itself; ValueError where that many bits do not hold it, TypeError if it is no int."""
    try:
        operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an int, not {value!r}") from None
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{what} must be from 0 to 2**{bits} - 1, not {value}")
    return value


@dataclass(frozen=True, slots=True)
class Request:
    """What to watch, and how: the fields of ``struct kevent_request``.

    `type` and `ident` name the kevent; `ident` may be an object with fileno() where the type
    takes a descriptor.  `events` is the mask, in the type's own bits, `flags` the mode and
    options, `cookie` 64 bits that come back with every event, `params` up to three numbers of 64
    bits whose meaning is the type's.

    Encoding one raises TypeError for an identity without fileno(), and ValueError for a negative
    descriptor or a number that its field does not hold.
    """

    type: EventType | int
    ident: FileLike
    events: int = 0
    flags: Flags | int = 0
    cookie: int = 0
    params: tuple[int, ...] = ()

    def encode(self, op: Op | int = 0) -> bytes:
        """The 56 bytes of ``struct kevent_request``; `op` only within CHANGE_WAIT."""
        params = self.params
        if len(params) != 3:
            if len(params) > 3:
                raise ValueError(f"a request has room for 3 params, not {len(params)}")
            params = (*params, 0, 0, 0)[:3]
        ident = identity_of(self.type, self.ident)
        try:
            return REQUEST.pack(
                ident, self.cookie, self.type, op, self.flags, self.events, 0, *params
            )
        except struct.error:
            # Which one it is that does not fit is looked for only now.
            for value in params:
                check_range(value, 64, "a param")
            check_range(self.cookie, 64, "cookie")
            check_range(self.type, 16, "type")
            check_range(op, 16, "op")
            check_range(self.flags, 32, "flags")
            check_range(self.events, 32, "events")
            raise


@dataclass(frozen=True, slots=True)
class Change:
    """One change for `Queue.change_and_wait`: ADD, MODIFY or REMOVE a request.

    Of a request to be removed only type, identity and `Flags.STALE` count.
    """

    op: Op
    request: Request

    def encode(self) -> bytes:
        """The 56 bytes of ``struct kevent_request``."""
        request = self.request
        if not isinstance(request, Request):
            raise wrong_kind(request, Request)
        if self.op == Op.REMOVE:
            request = removal(request.type, request.ident, stale=bool(request.flags & Flags.STALE))
        return request.encode(self.op)


def wrong_kind(given: object, wanted: type[Request] | type[Change]) -> TypeError:
    """What is said of something else where a request, or a change, was to be given."""
    if wanted is Change:
        return TypeError(f"a change is a Change(Op.ADD, request) or the like, not {given!r}")
    return TypeError(f"a request is what user_event() and its kind make, not {given!r}")


def encoded(given: Request | Change, wanted: type[Request] | type[Change]) -> bytes:
    """The 56 bytes of what has to be a request, or a change; TypeError for anything else."""
    if not isinstance(given, wanted):
        raise wrong_kind(given, wanted)
    return given.encode()


def removal(kind: EventType | int, ident: FileLike, *, stale: bool = False) -> Request:
    """The request that removes a kevent."""
    return Request(kind, ident, flags=Flags.STALE if stale else Flags(0))


def socket_event(
    fileobj: FileLike, events: SocketEvents | int, flags: Flags | int = 0, cookie: int = 0
) -> Request:
    """Watch a socket.

    ERR and HUP are reported whether asked for or not; a listening socket reports ACCEPT with the
    number of connections waiting, never RECV.
    """
    return Request(EventType.SOCKET, fileobj, events, flags, cookie)


def poll_event(
    fileobj: FileLike, events: PollEvents | int, flags: Flags | int = 0, cookie: int = 0
) -> Request:
    """Watch any pollable file, in the bits of ``<poll.h>``."""
    return Request(EventType.POLL, fileobj, events, flags, cookie)


def inode_event(
    fileobj: FileLike,
    events: InodeEvents | int,
    flags: Flags | int = 0,
    cookie: int = 0,
    *,
    limit: int = 0,
) -> Request:
    """Watch the file or directory that a descriptor has open for reading.

    `limit` is how many events may wait in the kevent before some are dropped and the next one
    says OVERFLOW; 0 is the device's default.  For a path see `Queue.add_path`.
    """
    return Request(EventType.INODE, fileobj, events, flags, cookie, (limit,))


def timer_event(
    ident: int,
    value: float | None = None,
    interval: float = 0.0,
    *,
    value_ns: int | None = None,
    interval_ns: int | None = None,
    clock: int = time.CLOCK_MONOTONIC,
    absolute: bool = False,
    flags: Flags | int = 0,
    cookie: int = 0,
) -> Request:
    """A timer that first fires after `value` seconds and then, if not 0, every `interval`.

    `absolute`: `value` is a point in time of `clock` (CLOCK_MONOTONIC, CLOCK_REALTIME or
    CLOCK_BOOTTIME).  `value_ns` and `interval_ns` are the same in ns; of each pair one is given.
    Fractions of a ns are rounded up.  Raises ValueError for a negative time and OverflowError for
    one that does not fit.
    """
    if (value is None) == (value_ns is None):
        raise TypeError("give one of value and value_ns")
    if interval and interval_ns is not None:
        raise TypeError("give only one of interval and interval_ns")
    if value_ns is None:
        value_ns = nanoseconds(value or 0)
    if interval_ns is None:
        interval_ns = nanoseconds(interval)
    if value_ns < 0 or interval_ns < 0:
        raise ValueError("a timer's value and interval cannot be negative")
    if absolute:
        flags |= Flags.ABSTIME
    params = (value_ns, interval_ns, clock)
    return Request(EventType.TIMER, ident, TimerEvents.FIRED, flags, cookie, params)


def user_event(ident: int, flags: Flags | int = 0, cookie: int = 0) -> Request:
    """A kevent that `Queue.post` makes ready, from any thread."""
    return Request(EventType.USER, ident, UserEvents.POSTED, flags, cookie)


def naio_event(
    ident: int,
    events: NaioEvents | int,
    fileobj: FileLike,
    address: int,
    length: int,
    flags: Flags | int = 0,
    cookie: int = 0,
) -> Request:
    """A transfer between a socket and `length` bytes of this process's memory at `address`.

    The memory has to stay what it is until the event has arrived or the kevent was removed;
    `Queue.recv_into` and `Queue.send` see to that.  `Flags.WAITALL`: all of it, not any part.
    For SENDFILE it holds what `pykevent.sendfile_argument` makes, and is looked at by the
    call alone.  Numbers from 2**63 on are those of `Transfer` handles: choose smaller ones.
    Raises TypeError and ValueError for what is no open socket.

        buffer = (ctypes.c_char * 4096)()  # to be kept until then
        recv = naio_event(1, NaioEvents.RECV, sock, ctypes.addressof(buffer), len(buffer))
        whole = sendfile_argument(file, 0, None)
        argument = ctypes.create_string_buffer(whole, len(whole))
        address, size = ctypes.addressof(argument), len(whole)
        send = naio_event(2, NaioEvents.SENDFILE, sock, address, size)
        queue.add_many([recv, send])  # 0 or -errno for each
    """
    params = (address, length, socket_of(fileobj))
    return Request(EventType.NAIO, ident, events, flags, cookie, params)


def receive_length(length: int) -> int:
    """`length` itself; TypeError or ValueError where so many bytes cannot be received."""
    try:
        if isinstance(length, bool):
            raise TypeError
        number = operator.index(length)
    except TypeError:
        kind = type(length).__name__
        raise TypeError(f"length must be an int, not {kind}: recv_into() takes a buffer") from None
    if not 0 < number <= NAIO_MAX:
        raise ValueError(f"length must be from 1 to {NAIO_MAX:#x}, not {length}")
    return number


def receive_flags(*, waitall: bool, multishot: bool, dispatch: bool) -> int:
    """The flags of a receive; ValueError where the device would only say EINVAL."""
    if multishot and waitall:
        raise ValueError("multishot takes whatever came: not with waitall")
    if dispatch and not multishot:
        raise ValueError("dispatch is for multishot")
    whole, again = _WAITALL if waitall else 0, _MULTISHOT if multishot else 0
    return whole | again | (_DISPATCH if dispatch else 0)


def check_length(events: int, length: int) -> None:
    """ValueError, which says more than the device's EINVAL, where it would refuse the transfer."""
    if length > NAIO_MAX:
        raise ValueError(f"a transfer has at most {NAIO_MAX:#x} bytes, not {length:#x}")
    if not length and events == _RECV:
        raise ValueError("an empty buffer receives nothing")


def view_of(value: Any, what: str, more: str = "") -> memoryview:
    """The bytes of `value`; TypeError where it has none, with what is to be said of it besides."""
    try:
        return memoryview(value)
    except TypeError:
        more = ": encode() it" if isinstance(value, str) else more
        kind = type(value).__name__
        raise TypeError(f"{what} must be bytes-like, not {kind}{more}") from None


def sendfile_argument(
    file: FileLike,
    offset: int,
    length: int | None,
    prefix: BytesLike = b"",
    suffix: BytesLike = b"",
) -> bytes:
    """What the address of a NAIO SENDFILE has to lead to: ``struct kevent_sendfile`` and its bytes.

    `length` None: all up to the end of the file.
    """
    if type(file) is not int:
        if isinstance(file, (str, bytes, os.PathLike)):
            raise TypeError(f"{file!r} is not an open file: open() it first")
        if isinstance(file, socket.socket):
            raise TypeError(f"a socket is sent to, not from: sendfile(socket, file), not {file!r}")
    # By way of a view, for bytes() makes them of numbers as well.
    prefix = prefix if type(prefix) is bytes else bytes(view_of(prefix, "prefix"))
    suffix = suffix if type(suffix) is bytes else bytes(view_of(suffix, "suffix"))
    if len(prefix) + len(suffix) > SENDFILE_EXTRA:
        raise ValueError(f"prefix and suffix are more than {SENDFILE_EXTRA} bytes together")
    if length is None:
        length = SENDFILE_ALL
    elif type(length) is not int or not 0 <= length < 1 << 63:
        check_range(length, 63, "length")
    try:
        fd = descriptor_of(file)
    except io.UnsupportedOperation:
        raise TypeError(f"{file!r} has no descriptor: send() its bytes") from None
    try:
        head = SENDFILE.pack(offset, length, fd, 0, len(prefix), len(suffix))
    except struct.error:
        check_range(offset, 64, "offset")
        check_range(fd, 31, "file")
        raise
    return head + prefix + suffix if suffix else head + prefix
