# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_NAIO: a transfer between a socket and memory of the client, and the event that it ended.

It is tried at once.  What then is left waits in a lane of its socket (`lanes`), with the memory
that it needs counted (`memory`).  Either way its end is an event; only what is wrong with the
request itself fails the ADD.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from pykevent.abi import NAIO_MAX
from pykevent.sim import moving
from pykevent.sim.client import Client
from pykevent.sim.kevent import (
    DISABLED,
    DISPATCH,
    EDGE,
    MULTISHOT,
    ONESHOT,
    U32_MAX,
    WAITALL,
    Kevent,
    RefusedError,
    Request,
)
from pykevent.sim.lanes import ENDED, MORE
from pykevent.sim.memory import Caller, Memory, Space, check_range, pages_of
from pykevent.sim.multishot import MultishotKevent
from pykevent.sim.sendfile import SendfileKevent, check_sendfile
from pykevent.sim.transfer import NAIO_RECV, NAIO_SENDFILE, Transfer

if TYPE_CHECKING:
    from pykevent.sim.queue import User


class NaioKevent(Transfer):
    """A transfer from or to a buffer."""

    __slots__ = ("_address", "_left", "_memory", "_pages", "_space")

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self.flags |= ONESHOT
        self._address, self._left = request.param0, request.param1
        self._space: Space | None = None
        self._memory: Memory | None = None
        """What is counted, while it waits."""
        self._pages = 0

    @classmethod
    def make(cls, user: User, request: Request) -> Kevent:
        """The transfer, or the row of transfers, that a request is for."""
        if request.events == NAIO_SENDFILE:
            return SendfileKevent(user, request)
        return (MultishotKevent if request.flags & MULTISHOT else cls)(user, request)

    @classmethod
    def check(cls, request: Request) -> None:
        """Refuse what is no transfer."""
        flags, receives = request.flags, request.events == NAIO_RECV
        not_for = EDGE | DISPATCH | DISABLED
        if flags & MULTISHOT:
            not_for = EDGE | ONESHOT | WAITALL
        if (
            request.events.bit_count() != 1
            or flags & not_for
            or (flags & (WAITALL | MULTISHOT) and not receives)
            or request.param1 > NAIO_MAX
            or request.param2 > U32_MAX
            or (receives and not request.param1)
        ):
            raise RefusedError(errno.EINVAL)
        if request.events == NAIO_SENDFILE:
            check_sendfile(request)

    def open(self, request: Request, client: Client) -> None:
        """Its memory is at hand for now."""
        check_range(self._address, self._left)
        self._space = Caller(client.process.pid)

    def prepare(self, client: Client) -> None:
        """Have its memory at hand later, too."""
        address, memories = self._address + self._moved, self.user.system.memories
        pages = pages_of(address, self._left)
        self._memory = memories.charge(self.user.account, client.process, client.tid, pages)
        self._pages = pages
        Caller(client.process.pid).check(address, self._left, not self.sends)
        self._space = self._memory

    def let_go(self) -> None:
        """Its memory is not needed any more."""
        self._space = None
        memory, self._memory = self._memory, None
        if memory is not None:
            self.user.system.memories.uncharge(self.user.account, memory, self._pages)

    def move(self, sock: socket.socket) -> int:
        """One call of the socket, or some."""
        space, address = self._space, self._address + self._moved
        assert space is not None
        if self.sends:
            if self.stream:
                moving.send_stream(sock, space, address, self._left, self._sender, self._has_moved)
                return MORE if self._left else ENDED
            self._has_moved(moving.send_packet(sock, space, address, self._left))
        elif self.stream:
            size = min(self._left, moving.CHUNK)
            count = moving.receive_stream(sock, space, address, size)
            self._has_moved(count)
            return MORE if count and self._left and self.flags & WAITALL else ENDED
        else:
            count, self._truncated = moving.receive_packet(sock, space, address, self._left)
            self._has_moved(count)
        return ENDED

    def _has_moved(self, count: int) -> None:
        self._moved += count
        self._left -= count
