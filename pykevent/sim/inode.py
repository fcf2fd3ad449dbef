# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_INODE and KEVENT_PATH: what happens to a file or in a directory.

Every occurrence is an item of its own on the ready list, so that those of several kevents are
delivered in the order in which they came about; a kevent has a bounded number of them, and one
more to say that some were lost.

Neither a directory nor a file can be polled, so that no epoll tells its close.  inotify says that
an open file of the inode was closed, not which.  For a directory a lock tells: a read lock of one
byte far beyond any use, which belongs to the client's open file, so that the kernel lets it go with
the last close of that.  A file may have others' locks: it is marked instead, by F_SETSIG, which
means nothing to a file that sends no signals, and looked for where it was, then everywhere.
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
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pykevent.abi import EventFlags, EventType, Feature, InodeEvents
from pykevent.sim import syscalls
from pykevent.sim.client import ANON, PTY_MASTER, Borrowed, Client
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
from pykevent.sim.watches import Watch

if TYPE_CHECKING:
    from pykevent.sim.queue import User

DEFAULT_SHARE = 16
"""Of the most events that a kevent may queue up, what it gets unasked."""

_NAME, _OVERFLOW = int(EventFlags.NAME), int(EventFlags.OVERFLOW)
_ISDIR = int(InodeEvents.ISDIR)

_F_SETSIG, _F_GETSIG = 10, 11
_F_OFD_GETLK, _F_OFD_SETLK = 36, 37
_FLOCK = struct.Struct("=hh4xqqi4x")
_first_token = (1 << 61) + int.from_bytes(os.urandom(6), "little") * 256
# Not next to each other: the kernel would make one lock of two.
_tokens = itertools.count(_first_token, 2)


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
        "_client",
        "_close",
        "_inode",
        "_is_over",
        "_limit",
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
        self._client: Client | None = None
        self._close: Close | None = None
        self._inode = (0, 0)
        self._is_over = False
        self._limit = self._wanted(request)
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
        system = self.user.system
        try:
            watch = system.watches.add(self, fd, status, borrowed is not None)
        except OSError as error:
            raise RefusedError(error.errno or errno.EIO) from None
        finally:
            self._client = None
        self._watch = watch
        if borrowed is not None:
            self._close = Close(borrowed)
        self.user.account.charge_watch((status.st_dev, status.st_ino))
        self._inode = (status.st_dev, status.st_ino)

    def modify(self, request: Request, target: Target) -> None:
        """Occurrences that wait are kept."""
        if self._is_over:
            raise RefusedError(errno.ENOENT)
        with self.user.lock:
            if not self.user.modify_locked(self, request):
                raise RefusedError(errno.ENOENT)
            self._limit = self._wanted(request)
        if self._watch is not None:
            self.user.system.watches.accompany(self._watch, request.events)
        self.user.poked()

    def dequeue(self) -> None:
        """Watch it no more."""
        if self._watch is not None:
            self.user.system.watches.remove(self, self._watch)
        if self._inode != (0, 0):
            self.user.account.uncharge_watch(self._inode)
        if self._close is not None:
            self._close.give_up()
            self._close = None
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
        with self.user.lock:
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

    def notice_close(self) -> bool:
        """Whether the file that the kevent was added by was closed, of all files of the inode."""
        close = self._close
        if close is None or close.over or self.state & (DEAD | REMOVED):
            return True
        if not close.look():
            return False
        self.user.closed(self, False)
        return True

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


class Close:
    """How the close of a descriptor that cannot be polled is seen."""

    def __init__(self, borrowed: Borrowed) -> None:
        self.over = False
        self._process = borrowed.process
        self._number = borrowed.number
        self._inode = (borrowed.stat.st_dev, borrowed.stat.st_ino)
        self._token = 0
        self._signal = 0
        if stat.S_ISDIR(borrowed.stat.st_mode):
            token = next(_tokens)
            lock = _FLOCK.pack(fcntl.F_RDLCK, 0, token, 1, 0)
            with contextlib.suppress(OSError):
                fcntl.fcntl(borrowed.fd, _F_OFD_SETLK, lock)
                self._token = token
        if not self._token:
            self._signal = fcntl.fcntl(borrowed.fd, _F_GETSIG)
            if not self._signal:
                self._signal = signal.SIGIO
                fcntl.fcntl(borrowed.fd, _F_SETSIG, self._signal)

    def is_of(self, borrowed: Borrowed) -> bool:
        """Whether it is that very open file."""
        return not self.over and self._is_ours(borrowed.fd)

    def _is_ours(self, fd: int) -> bool:
        status = os.fstat(fd)
        if self._inode != (status.st_dev, status.st_ino):
            return False
        if self._token:
            # A lock is in the way of all but who has it.
            asked = _FLOCK.pack(fcntl.F_WRLCK, 0, self._token, 1, 0)
            answer = fcntl.fcntl(fd, _F_OFD_GETLK, asked)
            return bool(_FLOCK.unpack(answer)[0] == fcntl.F_UNLCK)
        return fcntl.fcntl(fd, _F_GETSIG) == self._signal

    def look(self) -> bool:
        """Whether it was closed, everywhere."""
        if self._token:
            with open("/proc/locks") as file:
                self.over = f" {self._token} " not in file.read()
        else:
            self.over = not self._is_open()
        return self.over

    def _is_open(self) -> bool:
        return self._has(self._process.pidfd, self._number) or any(self._elsewhere())

    def _has(self, pidfd: int, number: int) -> bool:
        """Whether that descriptor of a process is the file."""
        try:
            fd = syscalls.pidfd_getfd(pidfd, number)
        except OSError:
            return False
        try:
            return self._is_ours(fd)
        except OSError:
            return False
        finally:
            os.close(fd)

    def _elsewhere(self) -> Iterator[bool]:
        """Descriptors of the file in any process that we may look at."""
        me = str(os.getpid())
        for pid in os.listdir("/proc"):
            if not pid.isdigit() or pid == me:
                continue
            with contextlib.suppress(OSError):
                numbers = [
                    number
                    for number in os.listdir(f"/proc/{pid}/fd")
                    if self._is_inode(f"/proc/{pid}/fd/{number}")
                ]
                if not numbers:
                    continue
                pidfd = os.pidfd_open(int(pid))
                try:
                    yield from (self._has(pidfd, int(number)) for number in numbers)
                finally:
                    os.close(pidfd)

    def _is_inode(self, path: str) -> bool:
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._inode

    def give_up(self) -> None:
        """Leave no lock behind in the client's open file, as far as it is within reach."""
        if not self._token or self.over:
            return
        with contextlib.suppress(OSError):
            if not self._process.alive():
                return
            fd = syscalls.pidfd_getfd(self._process.pidfd, self._number)
            try:
                if self._is_ours(fd):
                    lock = _FLOCK.pack(fcntl.F_UNLCK, 0, self._token, 1, 0)
                    fcntl.fcntl(fd, _F_OFD_SETLK, lock)
            finally:
                os.close(fd)
        self.over = True
