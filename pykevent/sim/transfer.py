# SPDX-License-Identifier: GPL-2.0-or-later
"""What all kevents of KEVENT_NAIO share: they begin, wait in a lane of their socket, end or are
cancelled, and tell of it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING

from pykevent.abi import EventFlags, EventType, Feature, NaioEvents
from pykevent.sim.account import ids_of
from pykevent.sim.client import Borrowed, BorrowedSocket, Client
from pykevent.sim.ends import End
from pykevent.sim.kevent import (
    MULTISHOT,
    WAITALL,
    Event,
    Item,
    Kevent,
    RefusedError,
    Request,
    Target,
)
from pykevent.sim.lanes import BLOCKED, ENDED, Lane
from pykevent.sim.moving import Sender

if TYPE_CHECKING:
    from pykevent.sim.queue import User

_log = logging.getLogger("pykevent.sim")

NAIO_RECV, NAIO_SEND = int(NaioEvents.RECV), int(NaioEvents.SEND)
NAIO_SENDFILE = int(NaioEvents.SENDFILE)
_BROKEN, _ERROR = int(EventFlags.BROKEN), int(EventFlags.ERROR)
_TRUNCATED = int(EventFlags.TRUNCATED)
_SO_PROTOCOL, _SO_DOMAIN = 38, 39
_TCP_ULP = 31
_ULP_NAME = 16
_INET = (socket.AF_INET, socket.AF_INET6)
_UDP = (socket.IPPROTO_UDP, socket.IPPROTO_UDPLITE)


class Transfer(Kevent):
    """A transfer, or a row of them."""

    __slots__ = (
        "_broken",
        "_done",
        "_end",
        "_error",
        "_inode",
        "_lane",
        "_moved",
        "_refused",
        "_sender",
        "_truncated",
        "cancelled",
        "domain",
        "held",
        "kind",
        "prepared",
    )

    name = "naio"
    type = int(EventType.NAIO)
    feature = int(Feature.NAIO)
    all_events = NAIO_RECV | NAIO_SEND | NAIO_SENDFILE
    all_flags = WAITALL | MULTISHOT
    standing = False
    """It is a row, of which none is moved but by a WAIT."""
    pending = False
    """Of a row: what was received has not been delivered yet."""

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self.prepared = self.cancelled = self.held = False
        self.domain = self.kind = 0
        """Of the socket."""
        self._end: End | None = None
        self._lane: Lane | None = None
        self._inode = 0
        self._moved = self._error = 0
        self._refused = False
        """The error is one of the request, not of the socket."""
        self._truncated = self._broken = self._done = False
        self._sender: Sender | None = None
        """Where the socket says who sends."""

    @property
    def sends(self) -> bool:
        """From here to the socket."""
        return self.events != NAIO_RECV

    @property
    def stream(self) -> bool:
        """The socket's bytes are no messages."""
        return self.kind == socket.SOCK_STREAM

    # What kinds of transfers differ in

    def open(self, request: Request, client: Client) -> None:
        """Take what the request leads to, before its socket is looked at."""

    def prepare(self, client: Client) -> None:
        """Take what is needed to wait; RefusedError where that is not to be had."""

    def let_go(self) -> None:
        """Nobody moves it any more."""

    def move(self, sock: socket.socket) -> int:
        """An attempt: ENDED, MORE, or BLOCKED.  OSError or RefusedError end it, too."""
        raise NotImplementedError

    # Coming and going

    def enqueue(self, request: Request, target: Target) -> None:
        """Try it, and have it wait for its socket where it has not ended."""
        self.open(request, target.client)
        borrowed = target.client.borrow(request.param2)
        try:
            self.domain, self.kind = _permitted(borrowed, self.events)
            if self.sends and self.domain == socket.AF_UNIX:
                client = target.client
                self._sender = Sender(client.process, *ids_of(client.tid))
            self._inode = borrowed.stat.st_ino
            self._end = self.user.system.ends.get(borrowed)
            lane = self._lane = self._end.lanes[self.sends]
            self.user.lanes[lane] += 1
            self._start(borrowed, target.client, self._end, lane)
        finally:
            borrowed.close()

    def _start(self, borrowed: Borrowed, client: Client, end: End, lane: Lane) -> None:
        result = BLOCKED
        if lane.join(self):
            try:
                if not self.standing:
                    result = self.step(borrowed)
            finally:
                lane.tried(result == ENDED)
        if result != ENDED:
            try:
                self.prepare(client)
                end.hook(borrowed)
                lane.prepared(self)
                return
            except (RefusedError, OSError) as error:
                lane.leave(self)
                self._fail(error)
                self._refused = True
        if self._refused and not self._moved:
            raise RefusedError(self._error)
        self.complete()

    def modify(self, request: Request, target: Target) -> None:
        """One transfer is what it is."""
        raise RefusedError(errno.EOPNOTSUPP)

    def cancel(self) -> tuple[int, int]:
        """How many bytes it has moved, and how it ended; it does not move any more."""
        assert self._lane is not None
        self._lane.leave(self)
        return self._moved, self._error if self._done else errno.ECANCELED

    def dequeue(self) -> None:
        """Off its lane."""
        end, lane = self._end, self._lane
        if end is not None and lane is not None:
            lane.leave(self)
            self.user.lanes[lane] -= 1
            if not self.user.lanes[lane]:
                del self.user.lanes[lane]
            self.user.system.ends.put(end, self._inode)
        self.let_go()

    # Moving

    def step(self, borrowed: Borrowed) -> int:
        """One attempt."""
        try:
            with BorrowedSocket(borrowed.fd) as sock:
                if self.stream and self.domain in _INET:
                    _check_layers(sock)
                return self.move(sock)
        except BlockingIOError:
            return BLOCKED
        except (RefusedError, OSError) as error:
            self._fail(error)
        except Exception:
            # It would wait for ever, and those behind it.
            _log.exception("a transfer")
            self._error = errno.EIO
        return ENDED

    def _fail(self, error: RefusedError | OSError) -> None:
        self._error = error.errno or errno.EIO
        self._refused = isinstance(error, RefusedError)

    def lost(self) -> None:
        """Its socket was closed: let that be how it ended."""
        self._error, self._broken = errno.ECANCELED, True

    def complete(self) -> None:
        """It has ended: what it needed is the client's again, and there is an event."""
        self.let_go()
        user = self.user
        with user.lock:
            self._done = True
            wake = user.ready_locked(self)
        if wake:
            user.poked()

    def called(self, closed: bool) -> None:
        """Of a row: the socket has called, and it is the first."""

    # Its event

    def peek(self, item: Item, event: Event) -> None:
        """How far it came, and how it ended."""
        event.events = self.events
        event.data = self._moved
        if self._error:
            event.count = self._error
            event.flags |= _ERROR
        if self._truncated:
            event.flags |= _TRUNCATED
        if self._broken:
            event.flags |= _BROKEN


def _permitted(borrowed: Borrowed, events: int) -> tuple[int, int]:
    """The domain and the kind of a socket; RefusedError where transfers do not take it."""
    if not stat.S_ISSOCK(borrowed.stat.st_mode):
        raise RefusedError(errno.ENOTSOCK)
    with BorrowedSocket(borrowed.fd) as sock:
        domain, kind, protocol = (
            sock.getsockopt(socket.SOL_SOCKET, option)
            for option in (_SO_DOMAIN, socket.SO_TYPE, _SO_PROTOCOL)
        )
        if domain == socket.AF_UNIX:
            # A datagram that finds no room waits for the peer's socket.
            taken = events == NAIO_RECV or kind == socket.SOCK_STREAM
        elif kind == socket.SOCK_STREAM:
            taken = domain in _INET and protocol == socket.IPPROTO_TCP
        else:
            datagrams = kind == socket.SOCK_DGRAM and protocol in _UDP
            taken = domain in _INET and datagrams and events != NAIO_SENDFILE
        if not taken:
            raise RefusedError(errno.EOPNOTSUPP)
        if protocol == socket.IPPROTO_TCP:
            _check_layers(sock)
    return domain, kind


def _check_layers(sock: socket.socket) -> None:
    """EOPNOTSUPP where TCP has a protocol on top, as TLS: that waits, whatever is asked of it."""
    if sock.getsockopt(socket.IPPROTO_TCP, _TCP_ULP, _ULP_NAME):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
