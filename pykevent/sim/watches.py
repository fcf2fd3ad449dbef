# SPDX-License-Identifier: GPL-2.0-or-later
"""The inotify instance of the simulator: one watch for each inode, whoever is interested in it.

inotify drops an event that is the same as the last one that nobody has read yet; kevents count
them.  Two watches that are told of each event in turn, the directory's and the file's own, never
let two of the same follow each other: so whatever is watched for writes and attributes has
companions, the entries of a directory or the directory of a file, whose own events nobody wants.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from typing import TYPE_CHECKING

from pykevent.abi import InodeEvents
from pykevent.sim import syscalls
from pykevent.sim.marks import Marks
from pykevent.sim.syscalls import (
    IN_ATTRIB,
    IN_CLOSE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
)

if TYPE_CHECKING:
    from pykevent.sim.inode import InodeKevent
    from pykevent.sim.system import System

_log = logging.getLogger("pykevent.sim")

MAX_COMPANIONS = 1024
"""Entries of one directory that are watched for its sake."""

_BITS = (
    (IN_CREATE, int(InodeEvents.CREATE)),
    (IN_DELETE, int(InodeEvents.REMOVE)),
    (IN_MOVED_FROM, int(InodeEvents.MOVED_FROM)),
    (IN_MOVED_TO, int(InodeEvents.MOVED_TO)),
    (IN_MODIFY, int(InodeEvents.MODIFY)),
    (IN_ATTRIB, int(InodeEvents.ATTRIB)),
    (IN_DELETE_SELF, int(InodeEvents.SELF_REMOVED)),
    (IN_MOVE_SELF, int(InodeEvents.SELF_MOVED)),
    (IN_UNMOUNT, int(InodeEvents.UNMOUNT)),
)
_ALL = sum(bit for bit, _ in _BITS if bit != IN_UNMOUNT)
_COMPANION = IN_MODIFY | IN_ATTRIB
_ISDIR = int(InodeEvents.ISDIR)
_SELF_REMOVED = int(InodeEvents.SELF_REMOVED)
_COUNTED = int(InodeEvents.MODIFY | InodeEvents.ATTRIB)


class Watch:
    """What inotify watches for us: an inode."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.kevents: dict[InodeKevent, None] = {}
        self.is_directory = False
        self.marks: Marks
        """On the files that its kevents were added by."""
        self.path = b""
        """Where it was when it was first watched."""
        self.held = -1
        """Leads to a file that is no directory, and opens nothing: its links can be counted."""
        self.companions: list[Watch] = []
        self.accompanies = 0

    def nameless(self) -> bool:
        """Whether the last name of a file is gone."""
        return self.held >= 0 and syscalls.identity(b"", self.held)[1] == 0


class Watches:
    """All of them."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lock = threading.RLock()
        self._watches: dict[int, Watch] = {}
        self._inotify = -1

    def add(self, kevent: InodeKevent, fd: int, status: os.stat_result, closes: bool) -> Watch:
        """Watch what @fd leads to for @kevent; OSError where the calling thread may not read it."""
        with self._lock:
            if self._inotify < 0:
                self._inotify = syscalls.inotify_init()
                self._system.leaves.add(self._inotify, self.read)
            mask = _ALL | (IN_CLOSE if closes else 0)
            with kevent.permissions():
                watch = self._watch(b"/proc/self/fd/%d" % fd, mask)
            if not watch.kevents:
                watch.marks = Marks(status, _is_fuse(status.st_dev))
                watch.is_directory = stat.S_ISDIR(status.st_mode)
                with contextlib.suppress(OSError):
                    watch.path = os.readlink(b"/proc/self/fd/%d" % fd)
                if not watch.is_directory and watch.held < 0:
                    watch.held = os.open(f"/proc/self/fd/{fd}", os.O_PATH | os.O_CLOEXEC)
            watch.kevents[kevent] = None
            self.accompany(watch, kevent.events)
            return watch

    def _watch(self, path: bytes, mask: int) -> Watch:
        number = syscalls.inotify_add_watch(self._inotify, path, mask | IN_MASK_ADD)
        return self._watches.setdefault(number, Watch(number))

    def accompany(self, watch: Watch, events: int) -> None:
        """Have companions for a watch that is to count @events."""
        if not events & _COUNTED or watch.companions or not watch.path.startswith(b"/"):
            return
        with self._lock:
            if not watch.is_directory:
                self._accompany(watch, os.path.dirname(watch.path))
                return
            try:
                names = os.listdir(watch.path)
            except OSError:
                return
            for name in names[:MAX_COMPANIONS]:
                self._accompany(watch, os.path.join(watch.path, name))

    def _accompany(self, watch: Watch, path: bytes) -> None:
        if len(watch.companions) >= MAX_COMPANIONS:
            return
        try:
            companion = self._watch(path, _COMPANION | 0x02000000)  # IN_DONT_FOLLOW
        except OSError:
            return
        if companion is not watch:
            companion.accompanies += 1
            watch.companions.append(companion)

    def remove(self, kevent: InodeKevent, watch: Watch) -> None:
        """The kevent is not interested any more."""
        with self._lock:
            watch.kevents.pop(kevent, None)
            self._release(watch)

    def _release(self, watch: Watch) -> None:
        if not watch.kevents:
            for companion in watch.companions:
                companion.accompanies -= 1
                self._release(companion)
            watch.companions = []
            if watch.held >= 0:
                os.close(watch.held)
                watch.held = -1
            if not watch.accompanies and self._watches.pop(watch.number, None) is not None:
                with contextlib.suppress(OSError):
                    syscalls.inotify_rm_watch(self._inotify, watch.number)

    def read(self) -> None:
        """Report what has happened."""
        for events in syscalls.inotify_read(self._inotify):
            with self._lock:
                self._handle(events)

    def _handle(self, events: list[tuple[int, int, int, bytes]]) -> None:
        last: dict[int, int] = {}
        for index, (number, mask, _, name) in enumerate(events):
            if mask & IN_ATTRIB and not name:
                last[number] = index
        for index, (number, mask, cookie, name) in enumerate(events):
            watch = self._watches.get(number)
            if mask & IN_Q_OVERFLOW:
                self._overflow()
            elif watch is not None:
                # How many links there are is only known as of now: it counts at the last change.
                self._event(watch, mask, cookie, name, last.get(number) == index)

    def _event(self, watch: Watch, mask: int, cookie: int, name: bytes, counts: bool) -> None:
        bits = 0
        for bit, event in _BITS:
            if mask & bit:
                bits |= event
        if mask & IN_ISDIR or (
            watch.is_directory and mask & (IN_MOVE_SELF | IN_DELETE_SELF) and not name
        ):
            bits |= _ISDIR
        # The newest is told first, as the module's are.
        kevents = list(reversed(watch.kevents))
        for kevent in kevents:
            kevent.report(bits, cookie, name)
        if mask & IN_CLOSE and not name:
            # With a name it is an entry that was closed.
            for kevent in kevents:
                kevent.user.system.looks.look(kevent)
        if mask & (IN_CREATE | IN_MOVED_TO) and watch.companions is not None and name:
            self._newcomer(watch, kevents, name)
        if counts and watch.nameless():
            for kevent in kevents:
                if not kevent.nameless:
                    kevent.report(_SELF_REMOVED, 0, b"")
                    kevent.over()
        if mask & IN_IGNORED:
            for kevent in kevents:
                kevent.over()
            self._watches.pop(watch.number, None)

    def _newcomer(self, watch: Watch, kevents: list[InodeKevent], name: bytes) -> None:
        if any(kevent.events & _COUNTED for kevent in kevents):
            self._accompany(watch, os.path.join(watch.path, name))

    def _overflow(self) -> None:
        for watch in list(self._watches.values()):
            for kevent in list(watch.kevents):
                kevent.lose()


def _is_fuse(device: int) -> bool:
    """Whether to look into a file system is to wait for its server."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as file:
        for line in file:
            words, _, kind = line.partition(" - ")
            if words.split(maxsplit=3)[2] == wanted:
                return kind.startswith("fuse")
    return False
