# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_NAIO: a transfer between a socket and memory of the client, and the event that it ended.

It is tried at once.  What then is left waits in a lane of its socket (`lanes`), with the memory
that it needs counted (`memory`).  Either way its end is an event; only what is wrong with the
request itself fails the ADD.
"""

from __future__ import annotations

import errno
import logging
import socket
import stat
from typing import TYPE_CHECKING

from pykevent.abi import NAIO_MAX, EventFlags, EventType, Feature, NaioEvents
from pykevent.sim import moving
from pykevent.sim.client import Borrowed, BorrowedSocket, Client
from pykevent.sim.kevent import (
    DISABLED,
    DISPATCH,
    EDGE,
    ONESHOT,
    U32_MAX,
    WAITALL,
    Event,
    Item,
    Kevent,
    RefusedError,
    Request,
    Target,
)
from pykevent.sim.lanes import BLOCKED, ENDED, MORE, RECV, SEND, End, Lane
from pykevent.sim.memory import Caller, Memory, Space, check_range, pages_of

if TYPE_CHECKING:
    from pykevent.sim.queue import User

_log = logging.getLogger("pykevent.sim")

_RECV, _SEND, _SENDFILE = int(NaioEvents.RECV), int(NaioEvents.SEND), int(NaioEvents.SENDFILE)
_BROKEN, _ERROR, _TRUNCATED = (
    int(EventFlags.BROKEN),
    int(EventFlags.ERROR),
    int(EventFlags.TRUNCATED),
)
_SO_PROTOCOL, _SO_DOMAIN = 38, 39
_INET = (socket.AF_INET, socket.AF_INET6)
_UDP = (socket.IPPROTO_UDP, socket.IPPROTO_UDPLITE)


class NaioKevent(Kevent):
    """A transfer."""

    __slots__ = (
        "_address",
        "_broken",
        "_done",
        "_end",
        "_error",
        "_inode",
        "_lane",
        "_left",
        "_memory",
        "_moved",
        "_pages",
        "_refused",
        "_space",
        "_stream",
        "_truncated",
        "cancelled",
        "prepared",
    )

    name = "naio"
    type = int(EventType.NAIO)
    feature = int(Feature.NAIO)
    all_events = _RECV | _SEND | _SENDFILE
    all_flags = WAITALL

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self.flags |= ONESHOT
        self.prepared = self.cancelled = False
        self._end: End | None = None
        self._lane: Lane | None = None
        self._memory: Memory | None = None
        """What is counted, while it waits."""
        self._pages = 0
        self._space: Space | None = None
        self._address, self._left = request.param0, request.param1
        self._moved = self._error = self._inode = 0
        self._refused = False
        """The error is one of the request, not of the socket."""
        self._stream = self._truncated = self._broken = self._done = False

    @classmethod
    def check(cls, request: Request) -> None:
        """Refuse what is no transfer."""
        if request.events == _SENDFILE:
            raise RefusedError(errno.EOPNOTSUPP)
        receives = request.events == _RECV
        if (
            request.events not in (_RECV, _SEND)
            or request.flags & (EDGE | DISPATCH | DISABLED)
            or (request.flags & WAITALL and not receives)
            or request.param1 > NAIO_MAX
            or request.param2 > U32_MAX
            or (receives and not request.param1)
        ):
            raise RefusedError(errno.EINVAL)

    @property
    def _sends(self) -> bool:
        return self.events != _RECV

    # Coming and going

    def enqueue(self, request: Request, target: Target) -> None:
        """Try it, and have it wait for its socket where it has not ended."""
        check_range(self._address, self._left)
        borrowed = target.client.borrow(request.param2)
        try:
            self._stream = _permitted(borrowed, self._sends)
            self._inode = borrowed.stat.st_ino
            self._end = self.user.system.ends.get(borrowed)
            self._lane = self._end.lanes[SEND if self._sends else RECV]
            self._start(borrowed, target.client, self._lane)
        finally:
            borrowed.close()

    def _start(self, borrowed: Borrowed, client: Client, lane: Lane) -> None:
        result = BLOCKED
        self._space = Caller(client.process.pid)
        if lane.join(self):
            try:
                result = self.step(borrowed)
            finally:
                lane.tried(result == ENDED)
        if result != ENDED:
            try:
                self._prepare(borrowed, client, lane)
                return
            except (RefusedError, OSError) as error:
                lane.leave(self)
                self._fail(error)
                self._refused = True
        if self._refused and not self._moved:
            raise RefusedError(self._error)
        self.complete()

    def _prepare(self, borrowed: Borrowed, client: Client, lane: Lane) -> None:
        """What one needs that has to wait."""
        assert self._end is not None
        address, system = self._address + self._moved, self.user.system
        pages = pages_of(address, self._left)
        self._memory = system.memories.charge(client.process, client.tid, pages)
        self._pages = pages
        Caller(client.process.pid).check(address, self._left, not self._sends)
        self._space = self._memory
        self._end.hook(borrowed)
        lane.prepared(self)

    def _let_go(self) -> None:
        """Its memory is not needed any more."""
        self._space = None
        memory, self._memory = self._memory, None
        if memory is not None:
            self.user.system.memories.uncharge(memory, self._pages)

    def modify(self, request: Request, target: Target) -> None:
        """A transfer is what it is."""
        raise RefusedError(errno.EOPNOTSUPP)

    def cancel(self) -> tuple[int, int]:
        """How many bytes it has moved, and how it ended; it does not move any more."""
        assert self._lane is not None
        self._lane.leave(self)
        return self._moved, self._error if self._done else errno.ECANCELED

    def dequeue(self) -> None:
        """Off its lane."""
        if self._end is None or self._lane is None:
            return
        self._lane.leave(self)
        self._let_go()
        self.user.system.ends.put(self._end, self._inode)
        self._end = self._lane = None

    # Moving

    def step(self, borrowed: Borrowed) -> int:
        """One attempt."""
        space = self._space
        assert space is not None
        try:
            with BorrowedSocket(borrowed.fd) as sock:
                return self._send(sock, space) if self._sends else self._receive(sock, space)
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

    def _has_moved(self, count: int) -> None:
        self._moved += count
        self._left -= count

    def _receive(self, sock: socket.socket, space: Space) -> int:
        address = self._address + self._moved
        if not self._stream:
            count, self._truncated = moving.receive_packet(sock, space, address, self._left)
            self._has_moved(count)
            return ENDED
        count = moving.receive_stream(sock, space, address, self._left)
        self._has_moved(count)
        return MORE if count and self._left and self.flags & WAITALL else ENDED

    def _send(self, sock: socket.socket, space: Space) -> int:
        address = self._address + self._moved
        if not self._stream:
            self._has_moved(moving.send_packet(sock, space, address, self._left))
            return ENDED
        moving.send_stream(sock, space, address, self._left, self._has_moved)
        return MORE if self._left else ENDED

    def lost(self) -> None:
        """Its socket was closed."""
        self._error, self._broken = errno.ECANCELED, True

    def complete(self) -> None:
        """It has ended: its memory is the client's again, and there is an event."""
        self._let_go()
        user = self.user
        with user.lock:
            self._done = True
            wake = user.ready_locked(self)
        if wake:
            user.poked()

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


def _permitted(borrowed: Borrowed, sends: bool) -> bool:
    """Whether the bytes of a socket are no messages; RefusedError where transfers do not take it.

    What a UNIX socket sends says who sent it.
    """
    if not stat.S_ISSOCK(borrowed.stat.st_mode):
        raise RefusedError(errno.ENOTSOCK)
    with BorrowedSocket(borrowed.fd) as sock:
        domain, kind, protocol = (
            sock.getsockopt(socket.SOL_SOCKET, option)
            for option in (_SO_DOMAIN, socket.SO_TYPE, _SO_PROTOCOL)
        )
    stream = kind == socket.SOCK_STREAM
    if domain in _INET:
        taken = protocol == socket.IPPROTO_TCP if stream else kind == socket.SOCK_DGRAM
        taken = taken and (stream or protocol in _UDP)
    else:
        taken = domain == socket.AF_UNIX and not sends
    if not taken:
        raise RefusedError(errno.EOPNOTSUPP)
    return stream
