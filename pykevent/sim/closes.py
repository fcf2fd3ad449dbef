# SPDX-License-Identifier: GPL-2.0-or-later
"""Seeing the close of a file that we do not hold.

Whether a file was closed can be asked at any time: the epoll instance that watches it has lost it
(`hook`).  Whoever wants a close to be reported has to be told when to ask.  An inotify watch on
the inode of a socket, a pipe or a FIFO tells, at the last close of each open file.  Others show
nothing, and are asked again and again while somebody wants to know.

The news of a close comes a moment before it is done (`Looks`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Protocol

from pykevent.sim import syscalls
from pykevent.sim.client import FIFO, PIPE, SOCKET, Borrowed
from pykevent.sim.clocks import Alarm, Clocks

if TYPE_CHECKING:
    from pykevent.sim.system import System

_TOLD = SOCKET | PIPE | FIFO

_LOOK_AGAIN = [500_000 << turn for turn in range(7)]
"""Nanoseconds; nobody is looked at after the last."""


class Looking(Protocol):
    """Who wants to know of a close: a kevent, as a rule."""

    def notice_close(self, told: bool = False) -> bool:
        """Look whether the file was closed; whether no more looks are needed."""
        ...


class Watching(Looking, Protocol):
    """Who is told when to look."""

    close_watch: int
    """The watch's number; -1 where there is none."""

    def look_for_close(self, look: bool) -> None:
        """Nothing tells, so have it looked at now and then; or not any more."""
        ...


class Looks:
    """Kevents whose file is perhaps being closed: looked at a few times more, and by each call."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._pending: dict[Looking, int] = {}
        """How often each was looked at again since the last news."""

    def look(self, kevent: Looking, later: bool = False) -> None:
        """News say that a file of what the kevent watches was closed, or is about to be.

        With @later first comes what other news there are.
        """
        if later or not kevent.notice_close(True):
            waits = kevent in self._pending
            self._pending[kevent] = 0
            if not waits:
                self._later(kevent, 0)

    def _later(self, kevent: Looking, turn: int) -> None:
        def again(alarm: Alarm) -> None:
            following = self._pending.get(kevent, len(_LOOK_AGAIN)) + 1
            if following >= len(_LOOK_AGAIN) or kevent.notice_close():
                self._pending.pop(kevent, None)
            else:
                self._pending[kevent] = following
                self._later(kevent, following)

        when = time.monotonic_ns() + _LOOK_AGAIN[turn]
        self._clocks.set(time.CLOCK_MONOTONIC, when, again)

    def look_at_all(self) -> None:
        """A call begins: what was closed before it is closed by now."""
        for kevent in list(self._pending):
            if kevent.notice_close():
                self._pending.pop(kevent, None)


class Closes:
    """The inotify instance that tells of closes."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lock = threading.Lock()
        self._inotify = -1
        self._kevents: dict[int, dict[Watching, None]] = {}

    def watch(self, kevent: Watching, borrowed: Borrowed) -> None:
        """Have the close of a kevent's file reported."""
        if borrowed.kind & _TOLD and self._watch(kevent, borrowed):
            return
        kevent.look_for_close(True)

    def _watch(self, kevent: Watching, borrowed: Borrowed) -> bool:
        with self._lock:
            try:
                if self._inotify < 0:
                    self._inotify = syscalls.inotify_init()
                    self._system.leaves.add(self._inotify, self.read)
                path = b"/proc/self/fd/%d" % borrowed.fd
                kevent.close_watch = syscalls.inotify_add_watch(
                    self._inotify, path, syscalls.IN_CLOSE
                )
            except OSError:
                return False
            self._kevents.setdefault(kevent.close_watch, {})[kevent] = None
            return True

    def unwatch(self, kevent: Watching) -> None:
        """The opposite, whether it was watched or not."""
        kevent.look_for_close(False)
        if kevent.close_watch < 0:
            return
        with self._lock:
            kevents = self._kevents.get(kevent.close_watch, {})
            kevents.pop(kevent, None)
            if not kevents and self._kevents.pop(kevent.close_watch, None) is not None:
                with contextlib.suppress(OSError):  # it may have gone with its inode
                    syscalls.inotify_rm_watch(self._inotify, kevent.close_watch)
            kevent.close_watch = -1

    def read(self) -> None:
        """Look at the kevents of which a close was told."""
        for events in syscalls.inotify_read(self._inotify):
            for kevent in self._told(events):
                self._system.looks.look(kevent)

    def _told(self, events: list[tuple[int, int, int, bytes]]) -> list[Watching]:
        found: dict[Watching, None] = {}
        with self._lock:
            for watch, mask, _, _ in events:
                if mask & syscalls.IN_Q_OVERFLOW:
                    for kevents in self._kevents.values():
                        found.update(kevents)
                found.update(self._kevents.get(watch, {}))
                if mask & syscalls.IN_IGNORED:
                    self._lost(self._kevents.pop(watch, {}))
        return list(found)

    def _lost(self, kevents: dict[Watching, None]) -> None:
        for kevent in kevents:
            kevent.close_watch = -1
            kevent.look_for_close(True)
