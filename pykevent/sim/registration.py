# SPDX-License-Identifier: GPL-2.0-or-later
"""How a client's file is registered with an epoll instance of ours, which does not hold it.

The borrowed descriptor is registered and given back; the registration goes with the last close of
the client's open file.  It can be asked what holds now (epoll_wait), and whether a descriptor is
that very file (kcmp with KCMP_EPOLL_TFD).  The instance is a member of the hub's, edge-triggered,
so that each wake-up of the file is one of it.

As a rule each file has an instance `Alone`: to end its registration one need not reach the file,
only close the instance, and wake-ups of several files keep their order.  Where descriptors run
short, level kevents share one (`Shared`), and their order among each other is not exact.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from pykevent.sim import syscalls
from pykevent.sim.client import Borrowed
from pykevent.sim.hub import Pool
from pykevent.sim.kevent import RefusedError

SHARE = 0.5
"""Of all descriptors, the part that may be instances for one file."""
FULL = 0.95
"""And the part that may be instances at all."""
ROOM = 32
"""Files in one that is shared."""


class Descriptors:
    """How many descriptors we have, of how many that we may have."""

    def __init__(self) -> None:
        self.most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._counted = self._calls = 0

    def used(self) -> float:
        """The part that is in use."""
        count = os.stat("/proc/self/fd").st_size
        if not count:
            # Before Linux 6.2 they have to be listed, so that is done now and then.
            self._calls += 1
            if self._calls > self._counted // 64:
                self._counted, self._calls = len(os.listdir("/proc/self/fd")), 0
            count = self._counted + self._calls
        return count / self.most

    def check(self) -> None:
        """ENOSPC where one more that is kept would leave none to work with."""
        if self.used() > FULL:
            raise RefusedError(errno.ENOSPC)


class Registration(Protocol):
    """What a kevent knows of its file."""

    def bits(self) -> int:
        """Those bits of poll(2) that hold now, of those it was registered for."""
        ...

    def same(self, pid: int, number: int) -> bool | None:
        """Whether a descriptor is that open file; None where the file was closed everywhere."""
        ...

    def gone(self) -> bool:
        """Whether the file was closed everywhere."""
        ...

    def end(self, again: Callable[[], Borrowed | None]) -> None:
        """Unregister the file; @again borrows it once more."""
        ...


_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.EINVAL)
"""Also EINVAL: an open file can wake five hundred instances, and no more."""


def _refused(error: OSError) -> RefusedError:
    number = error.errno or errno.EIO
    return RefusedError(errno.ENOSPC if number in _NO_ROOM else number)


class Alone:
    """An instance for one file."""

    def __init__(
        self,
        pool: Pool,
        borrowed: Borrowed,
        mask: int,
        edges: bool,
        active: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._number = borrowed.fd
        self._lock = threading.Lock()
        self._ended = False
        """Under the lock: no number is looked at that may be another file's by now."""
        try:
            self._epoll = select.epoll()
        except OSError as error:
            raise _refused(error) from None
        self._fileno = self._epoll.fileno()
        try:
            if edges:
                # A pipe that nobody asks for edges wakes its readers by the first byte alone.
                self._epoll.register(borrowed.fd, mask | select.EPOLLET)
                self._epoll.modify(borrowed.fd, mask)
            else:
                self._epoll.register(borrowed.fd, mask)
            pool.add(self._fileno, active)
        except OSError as error:
            self._epoll.close()
            raise _refused(error) from None

    def bits(self) -> int:
        """Those bits of poll(2) that hold now."""
        with self._lock:
            found = [] if self._ended else self._epoll.poll(0, 1)
        return found[0][1] if found else 0

    def same(self, pid: int, number: int) -> bool | None:
        """Whether a descriptor is that open file."""
        with self._lock:
            if self._ended:
                return None
            return syscalls.same_file_in_epoll(pid, number, self._fileno, self._number)

    def gone(self) -> bool:
        """Whether the file was closed everywhere; not if it is we who have ended."""
        # Any descriptor of ours will do to be compared with.
        return self.same(os.getpid(), self._fileno) is None and not self._ended

    def end(self, again: Callable[[], Borrowed | None]) -> None:
        """The file goes with the instance."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._pool.forget(self._fileno)
            self._epoll.close()


class _Shard:
    """An instance for several files, which are told apart by their numbers."""

    def __init__(self, pool: Pool, lock: threading.Lock) -> None:
        self._lock = lock
        self.epoll = select.epoll()
        self.fileno = self.epoll.fileno()
        self.members: dict[int, Shared | None] = {}
        """By number; None where one has ended that could not be unregistered."""
        pool.add(self.fileno, self._active)

    def _active(self) -> None:
        with self._lock:
            if self.epoll.closed:
                return
            found = self.epoll.poll(0, ROOM)
            members = [(self.members.get(number), bits) for number, bits in found]
        for member, bits in members:
            if member is not None and bits & member.mask:
                member.active()


class Shared:
    """One file in an instance for several."""

    def __init__(
        self,
        registry: Registry,
        shard: _Shard,
        number: int,
        mask: int,
        active: Callable[[], None],
    ) -> None:
        self._registry = registry
        self.shard = shard
        self.number = number
        self.mask = mask
        self.active = active

    @property
    def _is_member(self) -> bool:
        return self.shard.members.get(self.number) is self

    def bits(self) -> int:
        """Those bits of poll(2) that hold now."""
        with self._registry.lock:
            if not self._is_member:
                return 0
            found = self.shard.epoll.poll(0, ROOM)
        return next((bits for number, bits in found if number == self.number), 0)

    def same(self, pid: int, number: int) -> bool | None:
        """Whether a descriptor is that open file."""
        with self._registry.lock:
            if not self._is_member:
                return None
            return syscalls.same_file_in_epoll(pid, number, self.shard.fileno, self.number)

    def gone(self) -> bool:
        """Whether the file was closed everywhere; not if it is we who have ended."""
        return self.same(os.getpid(), self.shard.fileno) is None and self._is_member

    def end(self, again: Callable[[], Borrowed | None]) -> None:
        """Unregister the file if it is within reach, or else ignore it until it is closed."""
        self._registry.leave(self, again)


class Registry:
    """All registrations of one pool."""

    def __init__(self, pool: Pool, descriptors: Descriptors) -> None:
        self.pool = pool
        self._descriptors = descriptors
        self.lock = threading.Lock()
        """Of what is shared."""
        self._shards: dict[_Shard, None] = {}
        self._open: dict[_Shard, None] = {}
        """Those with room."""
        self._null = -1
        self._numbers: list[int] = []

    def register(
        self, borrowed: Borrowed, mask: int, edges: bool, active: Callable[[], None]
    ) -> Registration:
        """Register a file; RefusedError as epoll_ctl(2) has it, ENOSPC without descriptors."""
        if self._descriptors.used() > SHARE and not edges:
            return self._share(borrowed, mask, active)
        self._descriptors.check()
        return Alone(self.pool, borrowed, mask, edges, active)

    def _reserve(self) -> None:
        """Numbers that no other descriptor of ours ever has, and what they refer to between."""
        with contextlib.ExitStack() as unwind:
            numbers = []
            for _ in range(1 + ROOM):
                numbers.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                unwind.callback(os.close, numbers[-1])
            unwind.pop_all()
        self._null, *self._numbers = numbers

    @contextlib.contextmanager
    def _as(self, borrowed: Borrowed, number: int) -> Iterator[None]:
        os.dup2(borrowed.fd, number, inheritable=False)
        try:
            yield
        finally:
            os.dup2(self._null, number, inheritable=False)

    def _share(self, borrowed: Borrowed, mask: int, active: Callable[[], None]) -> Shared:
        with self.lock:
            try:
                if not self._numbers:
                    self._reserve()
                if not self._open:
                    self._descriptors.check()
                    shard = _Shard(self.pool, self.lock)
                    self._shards[shard] = self._open[shard] = None
            except OSError as error:
                raise _refused(error) from None
            shard = next(iter(self._open))
            number = next(n for n in self._numbers if n not in shard.members)
            member = Shared(self, shard, number, mask, active)
            shard.members[number] = member
            if len(shard.members) == ROOM:
                del self._open[shard]
            try:
                with self._as(borrowed, number):
                    shard.epoll.register(number, mask)
            except OSError as error:
                self._forget(member)
                raise _refused(error) from None
            return member

    def _forget(self, member: Shared) -> None:
        shard = member.shard
        del shard.members[member.number]
        self._open[shard] = None
        if not any(shard.members.values()):
            # Those that have ended and could not be unregistered go with it.
            del self._open[shard], self._shards[shard]
            self.pool.forget(shard.fileno)
            shard.epoll.close()

    def leave(self, member: Shared, again: Callable[[], Borrowed | None]) -> None:
        """The end of one that is shared."""
        if member.shard.members.get(member.number) is not member:
            return
        gone = member.gone()
        borrowed = None if gone else again()
        with self.lock:
            shard = member.shard
            if borrowed is not None:
                with contextlib.suppress(OSError), self._as(borrowed, member.number):
                    shard.epoll.unregister(member.number)
                    gone = True
            shard.members[member.number] = None
            if gone or not any(shard.members.values()):
                self._forget(member)
        if borrowed is not None:
            borrowed.close()
