# SPDX-License-Identifier: GPL-2.0-or-later
"""How the close of a file is seen that cannot be polled, so that no epoll tells it.

inotify says that an open file of an inode was closed, not which.  So the open file that a kevent
was added by is marked.  A directory has a lock: a read lock of one byte far beyond any use, which
belongs to the client's open file, so that the kernel lets it go with the last close of that.  A
file may have others' locks: it has a number set by F_SETSIG, which means nothing to a file that
sends no signals.

A marked file is looked for where it was last, and then everywhere.  Only what was looked for with
success, and not found, was closed: where a descriptor could not be looked at, or had been looked
for just now, it is not known.  All this may be asked for by the hub, which must not wait for the
server of a file system: so of such a file it only asks whether any descriptor of its inode is left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import signal
import stat
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from pykevent.sim import syscalls
from pykevent.sim.client import Borrowed

PAUSE = 0.01
"""Seconds between two searches for the same inode's files, where they only move about."""
_PAUSES = 20
"""And in terms of what a search takes."""
_CREDIT = 0.25
"""Seconds of such pauses that are left out at first."""
_PASSES = 4
"""How often one looks for processes that have come meanwhile."""

Place = tuple[int, int]
"""A process, and a number of a descriptor in it."""

_F_SETSIG, _F_GETSIG = 10, 11
_F_OFD_SETLK = 37
_FLOCK = struct.Struct("=hh4xqqi4x")
_first_token = (1 << 61) + int.from_bytes(os.urandom(6), "little") * 256
# Not next to each other: the kernel would make one lock of two.
_tokens = itertools.count(_first_token, 2)
# The next file gets another one than the last: a mark may have been left on one out of reach.
_turns = itertools.count()
_REAL_TIME = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
_LOCKS_READ, _LOCKS_LINE = 4096, 256
"""What one read of /proc/locks gives at most, and more than a line of it takes."""


class Marks:
    """The marks on the open files of one inode, and where those were found."""

    def __init__(self, status: os.stat_result | syscalls.Status, is_fuse: bool) -> None:
        self._inode = (status.st_dev, status.st_ino)
        self._mode = status.st_mode
        self._may_wait = is_fuse and not stat.S_ISDIR(status.st_mode)
        """To close a borrowed descriptor is to wait for its server."""
        self._lock = threading.Lock()
        self._users: Counter[int] = Counter()
        self._ours: set[int] = set()
        self._searching = threading.Lock()
        self._found: dict[int, Place] = {}
        self._began = self._next = 0.0

    # Marking

    def put(self, borrowed: Borrowed) -> int:
        """Mark an open file; two kevents that were added by one may share the mark."""
        with self._lock:
            mark = self._put_token(borrowed.fd) or fcntl.fcntl(borrowed.fd, _F_GETSIG)
            if not mark:
                mark = self._free_signal()
                fcntl.fcntl(borrowed.fd, _F_SETSIG, mark)
                self._ours.add(mark)
            self._users[mark] += 1
            return mark

    def _put_token(self, fd: int) -> int:
        if not stat.S_ISDIR(self._mode):
            return 0
        token = next(_tokens)
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, token, 1, 0))
        except OSError:
            return 0
        return token

    def _free_signal(self) -> int:
        """One that no other file of the inode has; the usual one first, which kills nobody."""
        if not self._users[signal.SIGIO] or not stat.S_ISREG(self._mode):
            return signal.SIGIO
        turn = next(_turns)
        free = (_REAL_TIME[(turn + step) % len(_REAL_TIME)] for step in range(len(_REAL_TIME)))
        return next((mark for mark in free if not self._users[mark]), signal.SIGIO)

    def drop(self, mark: int, place: Place) -> None:
        """One user less; the last one takes the mark off, as far as the file is within reach."""
        with self._lock:
            self._users[mark] -= 1
            if self._users[mark]:
                return
            del self._users[mark]
            ours = _is_token(mark) or mark in self._ours
            self._ours.discard(mark)
            if ours and not self._may_wait:
                with contextlib.suppress(OSError), _borrowed(place) as fd:
                    if fd is not None and self.has(fd, mark):
                        _take_off(fd, mark)

    def has(self, fd: int, mark: int) -> bool:
        """Whether an open file of ours has the mark."""
        return syscalls.identity(b"", fd)[0] == self._inode and bool(_marked(fd, (mark,)))

    # Looking for them

    def find(self, mark: int, place: Place, since: float) -> Place | None:
        """Where the file is, that was at @place and had its mark @since; None where it was closed.

        OSError where that is not known.
        """
        asked = time.monotonic()
        if self._at(place, (mark,)):
            return place
        if _is_token(mark):
            listed, whole = _listed(mark)
            if listed:
                return place
            if whole:
                return None
        with self._searching:
            if self._began <= asked:
                if self._began > since:
                    if mark not in self._found:
                        return None
                    if self._at(self._found[mark], (mark,)):
                        return self._found[mark]
                if asked < self._next - _CREDIT:
                    raise BlockingIOError(errno.EAGAIN, "it was looked for just now")
                self._search(mark)
            found = self._found.get(mark)
        if found is None and _is_token(mark) and _listed(mark)[0]:
            return place  # on its way from one process to another
        return found

    def _at(self, place: Place, marks: Sequence[int]) -> list[int]:
        """Which of the marks the file there has; OSError where that is not known."""
        if self._may_wait:
            return list(marks) if self._is_inode(place) else []
        with _borrowed(place) as fd:
            if fd is None or syscalls.identity(b"", fd)[0] != self._inode:
                return []
            try:
                return _marked(fd, marks)
            except OSError as error:
                if error.errno == errno.EBADF:  # O_PATH: it leads to the inode and opens nothing
                    return []
                raise

    def _is_inode(self, place: Place) -> bool:
        try:
            return syscalls.identity(b"/proc/%d/fd/%d" % place)[0] == self._inode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                return False
            raise

    def _search(self, wanted: int) -> None:
        """Look for all marked files of the inode in every process that we may look at."""
        began = time.monotonic()
        found: dict[int, Place] = {}
        seen: set[str] = {str(os.getpid())}
        try:
            # Until no process has come: it may have what another one has closed meanwhile.
            for _ in range(_PASSES):
                fresh = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid not in seen]
                if not fresh:
                    self._began, self._found = began, found
                    break
                for pid in fresh:
                    self._search_process(int(pid), found)
                seen.update(fresh)
            else:
                raise BlockingIOError(errno.EAGAIN, "there are always new processes")
        except OSError:
            # What was found is known none the less; what was not is not.
            self._found.update(found)
            if wanted not in found:
                self._pause(began)
                raise
        if wanted in found:
            self._pause(began)

    def _pause(self, began: float) -> None:
        now = time.monotonic()
        self._next = max(self._next, now) + max(PAUSE, _PAUSES * (now - began))

    def _search_process(self, pid: int, found: dict[int, Place]) -> None:
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESRCH):
                return
            raise
        for number in numbers:
            place = pid, int(number)
            try:
                if self._is_inode(place):
                    found.update(dict.fromkeys(self._at(place, list(self._users)), place))
            except PermissionError:
                continue


def _is_token(mark: int) -> bool:
    return mark >= _first_token


def _marked(fd: int, marks: Sequence[int]) -> list[int]:
    """Which of the marks an open file of ours has."""
    number = fcntl.fcntl(fd, _F_GETSIG)
    info = b""
    if any(_is_token(mark) for mark in marks):
        # F_OFD_GETLK does not tell a lock of the file's own from none at all.
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            info = file.read()
    return [
        mark for mark in marks if mark == number or (_is_token(mark) and b" %d " % mark in info)
    ]


def _take_off(fd: int, mark: int) -> None:
    if _is_token(mark):
        fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, mark, 1, 0))
    else:
        fcntl.fcntl(fd, _F_SETSIG, 0)


@contextlib.contextmanager
def _borrowed(place: Place) -> Iterator[int | None]:
    """A descriptor of a process; None where it has none of that number."""
    fd = None
    try:
        pidfd = os.pidfd_open(place[0])
    except OSError as error:
        # The number may be a thread's by now.
        if error.errno not in (errno.ESRCH, errno.EINVAL):
            raise
    else:
        try:
            fd = syscalls.pidfd_getfd(pidfd, place[1])
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ESRCH):
                raise
        finally:
            os.close(pidfd)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _listed(token: int) -> tuple[bool, bool]:
    """Whether the lock is listed in /proc/locks, and whether the list was had in one piece.

    Where another lock goes between two reads, the second leaves one out.
    """
    wanted = b" %d " % token
    listed = False
    whole = True
    with open("/proc/locks", "rb", buffering=0) as file:
        last = b""
        while data := file.read(_LOCKS_READ):
            listed |= wanted in last + data
            whole = not last and len(data) < _LOCKS_READ - _LOCKS_LINE
            last = data
    return listed, whole


class Close:
    """The close of the open file that a kevent was added by."""

    def __init__(self, borrowed: Borrowed, marks: Marks) -> None:
        self.over = False
        self._marks = marks
        self._place = (borrowed.process.pid, borrowed.number)
        self._mark = marks.put(borrowed)
        self._since = time.monotonic()

    def is_of(self, borrowed: Borrowed) -> bool:
        """Whether it is that very open file."""
        return not self.over and self._marks.has(borrowed.fd, self._mark)

    def look(self) -> bool | None:
        """Whether it was closed, everywhere; None where that is not known."""
        try:
            place = self._marks.find(self._mark, self._place, self._since)
        except OSError:
            return None
        if place is None:
            self.over = True
        else:
            self._place = place
        return self.over

    def give_up(self) -> None:
        """Leave no mark behind in the client's open file, as far as it is within reach."""
        self._marks.drop(self._mark, self._place)
