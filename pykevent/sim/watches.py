# SPDX-License-Identifier: GPL-2.0-or-later
"""The inotify instance of a user: one watch for each inode, whichever queues are interested in it.

inotify drops an event that is the same as the last one that nobody has read yet; kevents count
them.  Two watches that are told of each event in turn, the directory's and the file's own, never
let two of the same follow each other: so whatever is watched for writes and attributes has
companions, the entries of a directory or the directory of a file, whose own events nobody wants.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
from typing import TYPE_CHECKING

from pykevent.abi import InodeEvents
from pykevent.sim import syscalls
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
    RESOLVE_NO_XDEV,
)

if TYPE_CHECKING:
    from pykevent.sim.inode import InodeKevent
    from pykevent.sim.marks import Marks
    from pykevent.sim.system import System

_log = logging.getLogger("pykevent.sim")

MAX_COMPANIONS = 1024
"""Entries of one directory that are watched for its sake."""


def _most_companions() -> int:
    """Of all directories: a part of the watches that there may be."""
    with open("/proc/sys/fs/inotify/max_user_watches") as file:
        return int(file.read()) // 8


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
_PATH = os.O_PATH | os.O_CLOEXEC
_SELF_REMOVED = int(InodeEvents.SELF_REMOVED)
_COUNTED = int(InodeEvents.MODIFY | InodeEvents.ATTRIB)


class Watch:
    """What inotify watches for us: an inode."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.kevents: dict[InodeKevent, None] = {}
        self.inode = (0, 0)
        self.is_directory = False
        self.marks: Marks
        """On the files that its kevents were added by."""
        self.path = b""
        """Where it was when it was first watched; unknown where a server would have to be asked."""
        self.held = -1
        """Leads to a file that is no directory, and opens nothing: its links can be counted."""
        self.companions: dict[bytes, Watch] = {}
        """By name; the directory of a file has none."""
        self.accompanies = 0
        self.own_closes = 0
        """Of those that inotify is about to tell, so many are ours."""

    def nameless(self) -> bool:
        """Whether the last name of a file is gone."""
        return self.held >= 0 and syscalls.identity(b"", self.held)[1] == 0

    @property
    def counts(self) -> bool:
        """Whether anybody wants to know how often something happened."""
        return any(kevent.events & _COUNTED for kevent in self.kevents)


class Watches:
    """All of a user's."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lock = threading.RLock()
        """Nothing is done under it that may take the server of a file system to answer."""
        self._reading = threading.Lock()
        """Of who reads the news.  Outside of it are a pool's and the clocks', inside `_lock`."""
        self._watches: dict[int, Watch] = {}
        self._inotify = -1
        self._companions = 0
        self._most_companions = _most_companions()
        self._adding = 0
        self._removed: set[int] = set()
        """The numbers of watches that have ended while others were being added."""
        self._has_failed = False

    def add(self, kevent: InodeKevent, fd: int, status: os.stat_result, closes: bool) -> Watch:
        """Watch what @fd leads to for @kevent; OSError where the calling thread may not read it."""
        with self._lock:
            if self._inotify < 0:
                self._inotify = syscalls.inotify_init()
                self._system.leaves.add(self._inotify, self.read)
            self._adding += 1
        try:
            watch = self._add(kevent, fd, status, _ALL | (IN_CLOSE if closes else 0))
        finally:
            with self._lock:
                self._adding -= 1
                if not self._adding:
                    self._removed.clear()
        self.accompany(watch, kevent.events)
        return watch

    def _add(self, kevent: InodeKevent, fd: int, status: os.stat_result, mask: int) -> Watch:
        link = b"/proc/self/fd/%d" % fd
        is_fuse = _is_fuse(status.st_dev)
        while True:
            with kevent.permissions():
                number = syscalls.inotify_add_watch(self._inotify, link, mask | IN_MASK_ADD)
            with self._lock:
                if number in self._removed:
                    continue  # it was another's, and ended before it became ours
                watch = self._watches.setdefault(number, Watch(number))
                if not watch.kevents:
                    try:
                        self._begin(watch, link, status, is_fuse)
                    except BaseException:
                        self._release(watch)
                        raise
                watch.kevents[kevent] = None
                return watch

    def _begin(self, watch: Watch, link: bytes, status: os.stat_result, is_fuse: bool) -> None:
        watch.is_directory = stat.S_ISDIR(status.st_mode)
        watch.marks = self._system.marks(status, is_fuse)
        watch.inode = status.st_dev, status.st_ino
        if not is_fuse:
            with contextlib.suppress(OSError):
                watch.path = os.readlink(link)
        if not watch.is_directory and watch.held < 0:
            self._system.descriptors.check()
            watch.held = os.open(link, _PATH)

    # Companions

    def accompany(self, watch: Watch, events: int) -> None:
        """Have companions for a watch that is to count @events."""
        if not events & _COUNTED or watch.companions or not watch.path.startswith(b"/"):
            return
        with contextlib.suppress(OSError):
            if watch.is_directory:
                at = self._open(watch, os.O_RDONLY)
            else:
                at = os.open(os.path.dirname(watch.path), _PATH)
            try:
                names = [b""]
                if watch.is_directory:
                    names = [os.fsencode(name) for name in os.listdir(at)[:MAX_COMPANIONS]]
                elif _is_fuse(syscalls.identity(b"", at)[0][0]):
                    return
                for name in names:
                    with self._lock:
                        self._accompany(watch, at, name)
            finally:
                if watch.is_directory:
                    watch.own_closes += 1
                os.close(at)

    @staticmethod
    def _open(watch: Watch, flags: int) -> int:
        """The directory that is watched, if it still is where it was."""
        at = os.open(watch.path, flags | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if syscalls.identity(b"", at)[0] != watch.inode:
                raise FileNotFoundError(errno.ENOENT, "another directory is there", watch.path)
        except OSError:
            os.close(at)
            raise
        return at

    def _accompany(self, watch: Watch, at: int, name: bytes) -> None:
        """Have what the directory @at has under @name as a companion."""
        self._part(watch, name)
        if not watch.counts or len(watch.companions) >= MAX_COMPANIONS:
            return
        if self._companions >= self._most_companions:
            return
        try:
            # Not what is mounted there: its server might have to be asked.
            fd = (
                syscalls.openat2(at, name, _PATH | os.O_NOFOLLOW, RESOLVE_NO_XDEV)
                if name
                else os.dup(at)
            )
            try:
                link = b"/proc/self/fd/%d" % fd
                number = syscalls.inotify_add_watch(self._inotify, link, _COMPANION | IN_MASK_ADD)
            finally:
                os.close(fd)
        except OSError:
            return
        companion = self._watches.setdefault(number, Watch(number))
        if companion is not watch:
            companion.accompanies += 1
            self._companions += 1
            watch.companions[name] = companion

    def _part(self, watch: Watch, name: bytes) -> None:
        """It has that companion no more."""
        companion = watch.companions.pop(name, None)
        if companion is not None:
            companion.accompanies -= 1
            self._companions -= 1
            self._release(companion)

    def _newcomer(self, watch: Watch, name: bytes) -> None:
        if not watch.path.startswith(b"/"):
            return
        try:
            at = self._open(watch, os.O_PATH)
        except OSError:
            return
        try:
            self._accompany(watch, at, name)
        finally:
            os.close(at)

    # The end

    def remove(self, kevent: InodeKevent, watch: Watch) -> None:
        """The kevent is not interested any more."""
        with self._lock:
            watch.kevents.pop(kevent, None)
            self._release(watch)

    def _release(self, watch: Watch) -> None:
        if not watch.counts:
            for name in list(watch.companions):
                self._part(watch, name)
        if watch.kevents:
            return
        if watch.held >= 0:
            os.close(watch.held)
            watch.held = -1
        if not watch.accompanies and self._watches.pop(watch.number, None) is not None:
            if self._adding:
                self._removed.add(watch.number)
            with contextlib.suppress(OSError):
                syscalls.inotify_rm_watch(self._inotify, watch.number)

    # What happens

    def read(self) -> None:
        """Report what has happened: when this returns it has been reported."""
        if self._inotify < 0:
            return
        with self._reading:
            for events in syscalls.inotify_read(self._inotify):
                self._handle(events)

    def _handle(self, events: list[tuple[int, int, int, bytes]]) -> None:
        last: dict[int, int] = {}
        for index, (number, mask, _, name) in enumerate(events):
            if mask & IN_ATTRIB and not name:
                last[number] = index
        for index, (number, mask, cookie, name) in enumerate(events):
            kevents: list[InodeKevent] = []
            ours = False
            try:
                with self._lock:
                    watch = self._watches.get(number)
                    if mask & IN_Q_OVERFLOW:
                        self._overflow()
                    elif watch is not None:
                        # The newest is told first, as the module's are.
                        kevents = list(reversed(watch.kevents))
                        # How many links there are is only known as of now: it counts at the last
                        # change.
                        self._event(watch, kevents, mask, cookie, name, last.get(number) == index)
                        if mask & IN_CLOSE and not name and watch.own_closes:
                            watch.own_closes -= 1
                            ours = True
                # To look is to search at times, which nobody else is to wait for.  With a name it
                # is an entry that was closed.  Ours may stand for another as well, which came
                # after what is still to be told.
                if mask & IN_CLOSE and not name:
                    for kevent in kevents:
                        kevent.user.system.looks.look(kevent, later=ours)
            except Exception:
                # The others of the chunk would be lost with it.
                self._failed(kevents)

    def _failed(self, kevents: list[InodeKevent]) -> None:
        """An event could not be told."""
        if not self._has_failed:
            self._has_failed = True
            _log.exception("what happened to an inode cannot be told")
        for kevent in kevents:
            kevent.lose()

    def _event(
        self,
        watch: Watch,
        kevents: list[InodeKevent],
        mask: int,
        cookie: int,
        name: bytes,
        counts: bool,
    ) -> None:
        bits = 0
        for bit, event in _BITS:
            if mask & bit:
                bits |= event
        if mask & IN_ISDIR or (
            watch.is_directory and mask & (IN_MOVE_SELF | IN_DELETE_SELF) and not name
        ):
            bits |= _ISDIR
        for kevent in kevents:
            kevent.report(bits, cookie, name)
        if mask & (IN_DELETE | IN_MOVED_FROM):
            self._part(watch, name)
        if mask & (IN_CREATE | IN_MOVED_TO) and watch.counts:
            self._newcomer(watch, name)
        if counts and watch.nameless():
            for kevent in kevents:
                if not kevent.nameless:
                    kevent.report(_SELF_REMOVED, 0, b"")
                    kevent.over()
        if mask & IN_IGNORED:
            for kevent in kevents:
                kevent.over()
            self._watches.pop(watch.number, None)

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
