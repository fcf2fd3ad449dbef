# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_SOCKET: a socket can be read from, accepted from or sent to, was shut down by its peer or
hung up, or has an error; and how much of it.

What holds the epoll of `hook` knows.  How much, and whether a socket listens, only the socket does:
it is borrowed again for the moment of the delivery.
"""

from __future__ import annotations

import array
import errno
import fcntl
import select
import socket
import stat
import struct
import termios
from typing import TYPE_CHECKING

from pykevent.abi import EventType, Feature, SocketEvents
from pykevent.sim import diag
from pykevent.sim.client import Borrowed, BorrowedSocket
from pykevent.sim.hook import FileKevent
from pykevent.sim.kevent import BYTES, NOTIFY_BROKEN, Event, RefusedError, Request, Target

if TYPE_CHECKING:
    from pykevent.sim.queue import User

_RECV, _SEND = int(SocketEvents.RECV), int(SocketEvents.SEND)
_ACCEPT, _RDHUP = int(SocketEvents.ACCEPT), int(SocketEvents.RDHUP)
_ALWAYS = int(SocketEvents.ERR | SocketEvents.HUP)
_SAME = int(SocketEvents.PRI | SocketEvents.SEND | SocketEvents.RDHUP) | _ALWAYS
"""Bits that are those of poll(2)."""

_SO_PROTOCOL, _SO_DOMAIN, _SO_PEEK_OFF, _SO_MEMINFO = 38, 39, 42, 55
_WMEM_ALLOC, _SNDBUF, _WMEM_QUEUED = 2, 3, 5
_TCP_INFO_UNACKED = 24
"""Of a listening socket: the connections that wait."""

# Whether it listens: no, yes, or ask again.
_NEVER, _LISTENS, _ASK = 0, 1, 2


class SocketKevent(FileKevent):
    """A kevent of a socket."""

    __slots__ = ("_domain", "_inode", "_listening", "_protocol", "_type")

    name = "socket"
    type = int(EventType.SOCKET)
    feature = int(Feature.SOCKET)
    all_events = _RECV | _ACCEPT | _SAME
    all_flags = NOTIFY_BROKEN | BYTES

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self._domain = self._type = self._protocol = 0
        self._inode = 0
        self._listening = _ASK

    def wanted(self, events: int) -> int:
        """Connections that wait are what there is to read."""
        mask = events & _SAME
        if events & (_RECV | _ACCEPT):
            mask |= select.EPOLLIN
        return mask

    def enqueue(self, request: Request, target: Target) -> None:
        """Watch a socket."""
        borrowed = target.borrowed
        assert borrowed is not None
        if not stat.S_ISSOCK(borrowed.stat.st_mode):
            raise RefusedError(errno.ENOTSOCK)
        self._inode = borrowed.stat.st_ino
        with BorrowedSocket(borrowed.fd) as sock:
            self._domain, self._type, self._protocol = (
                sock.getsockopt(socket.SOL_SOCKET, option)
                for option in (_SO_DOMAIN, socket.SO_TYPE, _SO_PROTOCOL)
            )
            self._listening = _listening(sock)
        super().enqueue(request, target)

    @property
    def _is_tcp(self) -> bool:
        return (
            self._domain in (socket.AF_INET, socket.AF_INET6)
            and self._type == socket.SOCK_STREAM
            and self._protocol == socket.IPPROTO_TCP
        )

    def poll(self, event: Event | None) -> int:
        """What holds now; with @event also how much."""
        bits = self.bits()
        if not bits:
            return 0
        events = bits & _SAME
        borrowed: Borrowed | None = None
        try:
            if bits & select.EPOLLIN:
                if self._listening == _ASK:
                    borrowed = self.borrow_again()
                    if borrowed is not None:
                        with BorrowedSocket(borrowed.fd) as sock:
                            self._listening = _listening(sock)
                events |= _ACCEPT if self._listening == _LISTENS else _RECV
            events &= self.events | _ALWAYS
            if event is not None and (events & _ACCEPT or self.flags & BYTES):
                borrowed = borrowed or self.borrow_again()
                event.data = self._data(borrowed, events)
        finally:
            if borrowed is not None:
                borrowed.close()
        return events

    def _data(self, borrowed: Borrowed | None, events: int) -> int:
        if events & _ACCEPT:
            return self._backlog(borrowed)
        if borrowed is None:
            return 0
        with BorrowedSocket(borrowed.fd) as sock:
            try:
                if events & _RECV:
                    return self._readable(sock)
                if events & _SEND:
                    return self._writable(sock)
            except OSError:
                return 0
        return 0

    def _backlog(self, borrowed: Borrowed | None) -> int:
        """Connections that accept() would return at once."""
        if borrowed is not None and self._is_tcp:
            with BorrowedSocket(borrowed.fd) as sock:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
                (waiting,) = struct.unpack_from("=I", info, _TCP_INFO_UNACKED)
                return int(waiting)
        return diag.backlog(self._domain, self._inode)

    def _readable(self, sock: BorrowedSocket) -> int:
        if self._is_tcp or (self._domain == socket.AF_UNIX and self._type == socket.SOCK_STREAM):
            return _ioctl(sock, termios.FIONREAD)
        if self._type not in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            return 0
        inet = self._domain in (socket.AF_INET, socket.AF_INET6)
        if inet or (self._domain == socket.AF_UNIX and self._type == socket.SOCK_DGRAM):
            return _ioctl(sock, termios.FIONREAD)
        if sock.getsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF) >= 0:
            return 0  # looking would move it
        peek = socket.MSG_PEEK | socket.MSG_TRUNC | socket.MSG_DONTWAIT
        return int(sock.recv_into(bytearray(1), 1, peek))

    def _writable(self, sock: BorrowedSocket) -> int:
        memory = struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))
        used = memory[_WMEM_QUEUED if self._is_tcp else _WMEM_ALLOC]
        return int(max(memory[_SNDBUF] - used, 0))


def _listening(sock: BorrowedSocket) -> int:
    """Whether a socket listens, and whether that may change."""
    try:
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        if kind not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            return _NEVER
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return _LISTENS
        sock.getpeername()
    except OSError:
        return _ASK
    return _NEVER


def _ioctl(sock: BorrowedSocket, number: int) -> int:
    answer = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), number, answer)
    return max(answer[0], 0)
