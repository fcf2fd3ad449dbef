# SPDX-License-Identifier: GPL-2.0-or-later
"""The transfers of a socket, in the order they were asked for, whoever asked and by which queue: a
lane for each direction.

Only the first of a lane is ever moved, and by one thread at a time, which makes itself known as the
lane's current one: the caller that has just queued it where nothing was before it; the lane's work,
which one of the user's movers does when the socket calls; or, of a multishot, a WAIT alone, until
the socket is closed.
Whoever wants a transfer gone while it is current waits until it is not any more: from then on
nobody touches its memory.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from pykevent.sim.client import Borrowed

if TYPE_CHECKING:
    from pykevent.sim.ends import End, Reach
    from pykevent.sim.queue import User

ENDED, MORE, BLOCKED = 1, 0, -1
"""What came of an attempt: it has ended, there is more to be moved, the socket has to call."""

_STEPS = 16
"""Attempts in one go, before other sockets have their turn."""
_PAUSE = 0.001
"""Seconds between two goes, where the socket calls over and over, perhaps for what we do."""


class Waiting(Protocol):
    """What a lane knows of what it queues.  The first three are under the lane's lock."""

    prepared: bool
    """Others than who asked for it may move it."""
    cancelled: bool
    """It is to leave the lane, and somebody waits for that."""
    held: bool
    """It is not to be moved, and somebody waits until it is not."""

    @property
    def standing(self) -> bool:
        """It is moved by a WAIT alone."""
        ...

    @property
    def pending(self) -> bool:
        """It has something to tell that came before the close, if there was one."""
        ...

    @property
    def user(self) -> User:
        """The queue that it is of."""
        ...

    def step(self, borrowed: Borrowed) -> int:
        """One attempt: ENDED, MORE or BLOCKED."""
        ...

    def complete(self) -> None:
        """It has ended: say so."""
        ...

    def lost(self) -> None:
        """Its socket was closed: let that be how it ended."""
        ...

    def called(self, closed: bool) -> None:
        """Of one that is moved by a WAIT: the socket has called."""
        ...


class Lane:
    """One direction of a socket."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._changed = threading.Condition(threading.Lock())
        """Its lock is taken below a pool's and a queue's mutex, above nothing."""
        self._queue: dict[Waiting, None] = {}
        self._current: Waiting | None = None
        self._again = self._scheduled = False
        self._working = 0

    def _first(self) -> Waiting | None:
        """The next one to be moved or ended.

        A multishot that has to tell of what came before the close keeps nobody waiting meanwhile.
        """
        first = next(iter(self._queue), None)
        if first is None or not first.pending or not self._end.closed():
            return first
        return next((each for each in self._queue if not each.pending), None)

    def _waits(self, transfer: Waiting) -> bool:
        """Whether it is for a WAIT to move it: a multishot ends without, for those behind it."""
        return transfer.standing and not self._end.closed()

    def is_first(self, transfer: Waiting) -> bool:
        """Whether it is a transfer's turn."""
        with self._changed:
            return self._first() is transfer

    def kick(self) -> None:
        """Have the first transfer looked at."""
        with self._changed:
            if self._current is not None:
                self._again = True
                return
            told = next(iter(self._queue), None)
            first = self._first()
            # Who prepares it kicks, too.
            if (
                first is not None
                and first.prepared
                and not self._waits(first)
                and not self._scheduled
            ):
                self._scheduled = True
                first.user.account.movers.start(self._work)
        if told is not None and told.prepared and told.standing:
            told.called(self._end.closed())

    def settle(self, end: float) -> None:
        """Wait for what is being moved now, until a point in time at most."""
        with self._changed:
            self._changed.wait_for(
                lambda: not (self._scheduled or self._working or self._current),
                max(end - time.monotonic(), 0),
            )

    def join(self, transfer: Waiting) -> bool:
        """Queue one; true where it is the first, and the current one until `tried` is called."""
        with self._changed:
            first = not self._queue
            self._queue[transfer] = None
            if first:
                self._current = transfer
            return first

    def tried(self, ended: bool) -> None:
        """The current one was tried by who queued it."""
        self._finish(ended)
        if ended:
            self.kick()

    def prepared(self, transfer: Waiting) -> None:
        """From now on the work may move it; it is looked at once now."""
        with self._changed:
            transfer.prepared = True
        self.kick()

    def leave(self, transfer: Waiting) -> None:
        """Take one off; when this returns nobody but the caller touches it or its memory."""
        with self._changed:
            first = self._first() is transfer
            if self._current is transfer:
                transfer.cancelled = True
                self._changed.wait_for(lambda: self._current is not transfer)
            else:
                self._queue.pop(transfer, None)
        if first:
            self.kick()

    @contextlib.contextmanager
    def held(self, transfer: Waiting) -> Iterator[None]:
        """Nobody moves a transfer meanwhile, or touches its memory."""
        with self._changed:
            transfer.held = True
            self._changed.wait_for(lambda: self._current is not transfer)
        try:
            yield
        finally:
            with self._changed:
                transfer.held = False

    # Moving

    def _begin(self, wanted: Waiting | None) -> Waiting | None:
        """The first one, made the current one; None where there is none to move, or another."""
        with self._changed:
            first = self._first()
            # Whoever has the current one looks after what comes next.
            if first is None or self._current is not None or not first.prepared or first.held:
                return None
            if first is not wanted if wanted is not None else self._waits(first):
                return None
            self._current = first
            self._again = False
            return first

    def _finish(self, ended: bool) -> bool:
        """The current one is not any more; whether the socket called meanwhile."""
        with self._changed:
            transfer = self._current
            assert transfer is not None
            again = self._again or transfer.cancelled
            if ended or transfer.cancelled:
                self._queue.pop(transfer, None)
            self._current = None
            self._changed.notify_all()
            return again

    def _step(self, transfer: Waiting, reach: Reach) -> int:
        borrowed = reach.borrowed()
        if borrowed is not None:
            result = transfer.step(borrowed)
        elif self._end.closed():
            transfer.lost()
            result = ENDED
        else:
            self._end.try_later()
            return BLOCKED
        if result == ENDED:
            transfer.complete()
        return result

    def run(self, transfer: Waiting) -> None:
        """Move one that is moved by a WAIT, if it is its turn."""
        if self._begin(transfer) is None:
            return
        result = BLOCKED
        again = False
        try:
            with self._end.reached() as reach:
                result = self._step(transfer, reach)
        finally:
            again = self._finish(result == ENDED)
        if again or result == ENDED:
            self.kick()

    def _work(self) -> None:
        with self._changed:
            self._scheduled = False
            self._working += 1
        try:
            result = self._go()
            if result == BLOCKED:
                time.sleep(_PAUSE)
            if result is not None:
                self.kick()
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _go(self) -> int | None:
        """Move the first, and those behind it.

        Returns None where the socket has to call; otherwise what the last attempt came to.
        """
        result = MORE
        with self._end.reached() as reach:
            for _ in range(_STEPS):
                transfer = self._begin(None)
                if transfer is None:
                    return MORE
                result = BLOCKED
                try:
                    result = self._step(transfer, reach)
                finally:
                    more = self._finish(result == ENDED) or result != BLOCKED
                if not more:
                    return None
        return result
