# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_INODE and KEVENT_PATH: what happens to a file or in a directory.

Every occurrence is an item of its own on the ready list, so that those of several kevents are
delivered in the order in which they came about; a kevent has a bounded number of them, and one
more to say that some were lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pykevent.abi import EventFlags, EventType, Feature, InodeEvents
from pykevent.sim.client import ANON, PTY_MASTER, Client
from pykevent.sim.clocks import Alarm
from pykevent.sim.kevent import (
    BROKEN,
    DEAD,
    DISPATCH,
    NOFOLLOW,
    NOTIFY_BROKEN,
    ONESHOT,
    REMOVED,
    U32_MAX,
    Event,
    Item,
    Kevent,
    RefusedError,
    Request,
    Target,
)
from pykevent.sim.marks import Close
from pykevent.sim.watches import Watch

if TYPE_CHECKING:
    from pykevent.sim.queue import User

DEFAULT_SHARE = 16
"""Of the most events that a kevent may queue up, what it gets unasked."""

_NAME, _OVERFLOW = int(EventFlags.NAME), int(EventFlags.OVERFLOW)
_ISDIR = int(InodeEvents.ISDIR)

_LOOK_AGAIN = 20_000_000
_LOOK_AT_LEAST = 1_000_000_000
"""Nanoseconds until a close is looked for again that could not be: at first, and later."""


class Occurrence(Item):
    """One thing that happened; events 0 where others were lost."""

    __slots__ = ("count", "events", "name", "rename")

    def __init__(self, kevent: Kevent, events: int, rename: int, name: bytes) -> None:
        super().__init__(kevent)
        self.events = events
        self.count = 1
        self.rename = rename
        self.name = name


class InodeKevent(Kevent):
    """A kevent of an inode, by descriptor."""

    __slots__ = (
        "_alarm",
        "_client",
        "_close",
        "_inode",
        "_is_over",
        "_limit",
        "_looks_again",
        "_lost",
        "_occurrences",
        "_overflow",
        "_queued",
        "_watch",
        "nameless",
    )

    name = "inode"
    type = int(EventType.INODE)
    feature = int(Feature.INODE)
    descriptor = True
    all_events = int(sum(InodeEvents)) & ~_ISDIR
    all_flags = NOTIFY_BROKEN

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self._alarm: Alarm | None = None
        self._client: Client | None = None
        self._close: Close | None = None
        self._inode = (0, 0)
        self._is_over = False
        self._limit = self._wanted(request)
        self._looks_again = 0
        """Nanoseconds after which it is to be looked again whether the file was closed."""
        self._lost = 0
        self._occurrences: dict[Occurrence, None] = {}
        self._overflow = Occurrence(self, 0, 0, b"")
        self._queued = 0
        self._watch: Watch | None = None
        self.nameless = False
        """It had no name to begin with."""

    most: ClassVar[int] = 16384
    """Limits.max_inode_events."""

    @classmethod
    def check(cls, request: Request) -> None:
        """Some events are to be asked for; the limit has a limit itself."""
        if not request.events or request.param0 > cls.most or request.param1 or request.param2:
            raise RefusedError(errno.EINVAL)

    @classmethod
    def _wanted(cls, request: Request) -> int:
        return request.param0 or max(cls.most // DEFAULT_SHARE, 1)

    # Which inode it is

    @classmethod
    def permit(cls, target: Target) -> None:
        """Watching takes read permission."""
        fd = target.path if target.borrowed is None else target.borrowed.fd
        with target.client.permissions():
            if not os.access(f"/proc/self/fd/{fd}", os.R_OK, effective_ids=True):
                raise RefusedError(errno.EACCES)

    def is_target(self, target: Target) -> bool:
        """Whether the request's descriptor is the one that the kevent was added by."""
        if not self.descriptor:
            return True
        return (
            target.borrowed is not None
            and self._close is not None
            and self._close.is_of(target.borrowed)
        )

    def gone(self) -> bool:
        """Whether the descriptor was closed, everywhere."""
        close = self._close
        return close is not None and close.over

    @contextlib.contextmanager
    def permissions(self) -> Iterator[None]:
        """Those of who adds the kevent."""
        assert self._client is not None
        with self._client.permissions():
            yield

    def enqueue(self, request: Request, target: Target) -> None:
        """Watch the inode."""
        self._client = target.client
        borrowed = target.borrowed
        fd = target.path
        if borrowed is not None:
            fd = borrowed.fd
            if borrowed.kind in (ANON, PTY_MASTER):
                raise RefusedError(errno.EOPNOTSUPP)
        status = os.fstat(fd)
        self.nameless = status.st_nlink == 0
        inode = (status.st_dev, status.st_ino)
        self.user.account.charge_watch(inode)
        self._inode = inode
        try:
            watch = self.user.watches.add(self, fd, status, borrowed is not None)
            self._watch = watch
            if borrowed is not None:
                self._close = Close(borrowed, watch.marks)
        except OSError as error:
            raise RefusedError(error.errno or errno.EIO) from None
        finally:
            self._client = None

    def modify(self, request: Request, target: Target) -> None:
        """Occurrences that wait are kept."""
        if self._is_over:
            raise RefusedError(errno.ENOENT)
        with self.user.lock:
            if not self.user.modify_locked(self, request):
                raise RefusedError(errno.ENOENT)
            self._limit = self._wanted(request)
        if self._watch is not None:
            self.user.watches.accompany(self._watch, request.events)
        self.user.poked()

    def dequeue(self) -> None:
        """Watch it no more."""
        if self._close is not None:
            # Before another kevent of the inode can be the first that watches it.
            self._close.give_up()
            self._close = None
        if self._watch is not None:
            self.user.watches.remove(self, self._watch)
        if self._inode != (0, 0):
            self.user.account.uncharge_watch(self._inode)
        with self.user.lock:
            for occurrence in self._occurrences:
                if occurrence is not self._overflow:
                    self.user.account.uncharge_event()
            self._occurrences.clear()

    # What happens

    def report(self, events: int, rename: int, name: bytes) -> None:
        """Something has happened to the inode."""
        wake = False
        with self.user.lock:
            if (
                self._is_over
                or not events & self.events & ~_ISDIR
                or self.state & (DEAD | REMOVED | BROKEN)
                or self._merge_locked(events, rename, name)
            ):
                return
            if self._queued >= self._limit or not self.user.account.charge_event():
                wake = self._lose_locked()
            else:
                self._queued += 1
                wake = self._append_locked(Occurrence(self, events, rename, name))
        if wake:
            self.user.poked()

    def _merge_locked(self, events: int, rename: int, name: bytes) -> bool:
        """Whether it is the same as the last thing that happened, which is not on its way out."""
        if not self._occurrences or rename:
            return False
        last = next(reversed(self._occurrences))
        if (
            last.claimed
            or last.events != events
            or last.rename
            or last.name != name
            or last is self._overflow
        ):
            return False
        last.count = min(last.count + 1, U32_MAX)
        return True

    def _one_only(self) -> bool:
        """Of a kevent that ends or sleeps with its delivery one occurrence is enqueued."""
        return bool(self.flags & ONESHOT) or bool(self.flags & DISPATCH and not self.state & BROKEN)

    def _append_locked(self, occurrence: Occurrence) -> bool:
        first = not self._occurrences
        self._occurrences[occurrence] = None
        if not first and self._one_only():
            return False
        return self.user.item_ready_locked(self, occurrence)

    def lose(self) -> None:
        """Something has happened, but what is not known."""
        wake = False
        with self.user.lock:
            if not self._is_over and not self.state & (DEAD | REMOVED | BROKEN):
                wake = self._lose_locked()
        if wake:
            self.user.poked()

    def _lose_locked(self) -> bool:
        overflow = self._overflow
        if overflow in self._occurrences:
            if overflow.claimed:
                self._lost = min(self._lost + 1, U32_MAX)
            else:
                overflow.count = min(overflow.count + 1, U32_MAX)
            return False
        overflow.count = 1
        return self._append_locked(overflow)

    def over(self) -> None:
        """The inode goes, or its file system, or its last name: the kevent ends."""
        if not self._is_over:
            self._is_over = True
            self.user.closed(self, True)

    def notice_close(self, told: bool = False) -> bool:
        """Whether the file that the kevent was added by was closed, of all files of the inode.

        Unless it is @told, by news that are being read, there may be news of what happened before.
        """
        close = self._close
        if close is None or self.state & (DEAD | REMOVED):
            return True
        if not told:
            self.user.watches.read()
        over = close.over or close.look()
        if over:
            if not told:
                self.user.watches.read()
            self.user.closed(self, False)
            return True
        if over is None:
            self._look_again()
        return False

    def _look_again(self) -> None:
        """Whether the file was closed is not known."""
        if self._alarm is not None:
            return

        def again(alarm: Alarm) -> None:
            self._alarm = None
            if self.notice_close() or self._alarm is None:
                self._looks_again = 0

        self._looks_again = min(2 * self._looks_again, _LOOK_AT_LEAST) or _LOOK_AGAIN
        when = time.monotonic_ns() + self._looks_again
        self._alarm = self.user.system.clocks.set(time.CLOCK_MONOTONIC, when, again)

    # Delivery

    @property
    def parks(self) -> bool:
        """It has an item for each occurrence."""
        return True

    def park(self, park: bool) -> bool:
        """Take them off the ready list, or put on it those that may be delivered."""
        ready = self.user.ready
        for occurrence in self._occurrences:
            if not occurrence.claimed:
                if park:
                    ready.pop(occurrence, None)
                elif occurrence not in ready:
                    self.user.item_ready_locked(self, occurrence)
            if not park and self._one_only():
                break
        return bool(self._occurrences)

    def peek(self, item: Item, event: Event) -> None:
        """What happened, how often in a row, and to whom."""
        if not isinstance(item, Occurrence):
            return
        event.events = item.events
        event.count = item.count
        event.data = len(item.name) << 32 | item.rename
        if item is self._overflow:
            event.flags |= _OVERFLOW
        if item.name:
            event.flags |= _NAME
            event.name = item.name

    def consume(self, item: Item, event: Event) -> bool:
        """One occurrence was delivered."""
        if not isinstance(item, Occurrence) or item not in self._occurrences:
            return False
        del self._occurrences[item]
        if item is not self._overflow:
            self._queued -= 1
            self.user.account.uncharge_event()
        elif self._lost:
            item.count, self._lost = self._lost, 0
            self._append_locked(item)
        return False


class PathKevent(InodeKevent):
    """A kevent of an inode, by path."""

    __slots__ = ()

    name = "path"
    type = int(EventType.PATH)
    descriptor = False
    all_flags = NOFOLLOW
