# SPDX-License-Identifier: GPL-2.0-or-later
"""NAIO RECV with KEVENT_MULTISHOT: a row of receives into the same memory.

Each is made by the WAIT that reports it, so its events are a condition, as those of a socket are:
that there is something to receive, and that it is the first in its lane.  What was received and
could not be handed over is reported by the next WAIT.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING

from pykevent.abi import EventFlags
from pykevent.sim import moving
from pykevent.sim.client import Borrowed, BorrowedSocket, Client
from pykevent.sim.ends import End
from pykevent.sim.kevent import (
    ASLEEP,
    DISABLED,
    DISPATCH,
    MODIFIED,
    MULTISHOT,
    ONESHOT,
    Event,
    Item,
    RefusedError,
    Request,
    Target,
)
from pykevent.sim.lanes import BLOCKED, ENDED, Lane
from pykevent.sim.memory import Current, Memory, check_range
from pykevent.sim.transfer import Transfer

if TYPE_CHECKING:
    from pykevent.sim.queue import User

_LAST = int(EventFlags.LAST)


class MultishotKevent(Transfer):
    """A row of receives."""

    __slots__ = ("_address", "_drained", "_length", "_listens", "_memory", "pending")

    condition = True
    counts = True
    standing = True

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self._address, self._length = request.param0, request.param1
        self._memory: Memory | None = None
        self.pending = False
        self._listens = False
        self._drained = False
        """The socket had nothing more."""

    # Coming and going

    def open(self, request: Request, client: Client) -> None:
        """Remember whose memory it is."""
        check_range(request.param0, request.param1)
        self._aim(request, client)

    def _aim(self, request: Request, client: Client) -> None:
        memories, old = self.user.system.memories, self._memory
        account = self.user.account
        memory = memories.charge(account, client.process, client.tid, 0)
        try:
            memory.keep_maps()
        except BaseException:
            memories.uncharge(account, memory, 0)
            raise
        self._memory = memory
        if old is not None:
            memories.uncharge(account, old, 0)
        self._address, self._length = request.param0, request.param1

    def _start(self, borrowed: Borrowed, client: Client, end: End, lane: Lane) -> None:
        with BorrowedSocket(borrowed.fd) as sock:
            self._listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        super()._start(borrowed, client, end, lane)

    def let_go(self) -> None:
        """The memory is not received into any more."""
        memory, self._memory = self._memory, None
        if memory is not None:
            self.user.system.memories.uncharge(self.user.account, memory, 0)

    def modify(self, request: Request, target: Target) -> None:
        """Go on, perhaps into other memory."""
        end, lane = self._end, self._lane
        assert end is not None
        assert lane is not None
        if not request.flags & MULTISHOT:
            raise RefusedError(errno.EINVAL)
        check_range(request.param0, request.param1)
        borrowed = target.client.borrow(request.param2)
        try:
            if not end.is_of(borrowed):
                raise RefusedError(errno.EINVAL)
        finally:
            borrowed.close()
        with lane.held(self):
            with self.user.lock:
                if self._done or not self.user.modify_locked(self, request):
                    raise RefusedError(errno.ENOENT)
            self._aim(request, target.client)
        if end.closed():
            lane.kick()
        elif not request.flags & DISABLED and (self.pending or self._would()):
            self.user.activity(self)

    def cancel(self) -> tuple[int, int]:
        """How many bytes were received and not reported, and how it ended."""
        moved, error = super().cancel()
        return moved if self.pending else 0, error

    # Receiving

    def step(self, borrowed: Borrowed) -> int:
        """One receive, of which all that is told is its own."""
        self._moved, self._truncated = 0, False
        return super().step(borrowed)

    def move(self, sock: socket.socket) -> int:
        """One receive."""
        assert self._memory is not None
        space = Current(self._memory)
        if self.stream:
            self._moved = moving.receive_stream(sock, space, self._address, self._length)
        else:
            self._moved, self._truncated = moving.receive_packet(
                sock, space, self._address, self._length
            )
        self.pending = True
        poller = select.poll()
        poller.register(sock, select.POLLIN | select.POLLRDHUP)
        left = sum(bits for _, bits in poller.poll(0))
        self._drained = not left
        return ENDED if not self._moved and self._at_end(sock, left) else BLOCKED

    def _at_end(self, sock: socket.socket, left: int) -> bool:
        """Nothing was received: because there will never be anything again?"""
        if self.kind == socket.SOCK_SEQPACKET:
            # A packet may be empty.
            return bool(left & select.POLLRDHUP) and not moving.available(sock)
        return self.stream

    def lost(self) -> None:
        """The socket was closed."""
        super().lost()
        self._moved, self._truncated = 0, False

    def complete(self) -> None:
        """It was the last one, of which is told whatever a MODIFY has said meanwhile."""
        self.let_go()
        user = self.user
        with user.lock:
            self.state &= ~ASLEEP
            # In this order: who finds it pending tells whether it was the last.
            self._done = True
            self.pending = True
            wake = user.ready_locked(self)
        if wake:
            user.poked()

    def called(self, closed: bool) -> None:
        """There may be something to receive; the close is told also of what is disabled."""
        user = self.user
        with user.lock:
            if closed:
                self.state &= ~ASLEEP
            # There is more than an event has told, which may still wait for room.
            self._drained = False
            wake = user.ready_locked(self)
        if wake:
            user.poked()

    # Its events

    def _would(self) -> bool:
        """Whether a WAIT would receive something, or find the end."""
        end, lane = self._end, self._lane
        if end is None or lane is None or not lane.is_first(self):
            return False
        # There is an error, of which a poll says nothing.
        return self._listens or end.readable()

    def poll(self, event: Event | None) -> int:
        """Receive, if it is its turn, where there is an @event to tell of it."""
        if not self.pending:
            lane = self._lane
            if event is None:
                return self.events if self._would() else 0
            if lane is not None:
                lane.run(self)
            if not self.pending:
                return 0
        if event is not None:
            self.peek(self.item, event)
            if self._done:
                event.flags |= _LAST
        return self.events

    def consume(self, item: Item, event: Event) -> bool:
        """It was told of; whether there may be more."""
        self.pending = False
        if self._done:
            # Whatever a MODIFY has said meanwhile.
            self.flags |= ONESHOT
            self.state &= ~MODIFIED
        elif self._end is not None and self._end.closed():
            # That is still to be told, and nobody will call again.
            self.flags &= ~DISPATCH
            return True
        return not self._drained
