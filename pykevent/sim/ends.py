# SPDX-License-Identifier: GPL-2.0-or-later
"""The sockets of transfers, which are not held.

One registration of a socket, see `registration`, tells its lanes when to try again, and whether it
was closed.  To move something it is borrowed for that moment, from where it was last, or from
whoever has it: a transfer goes on while the socket is open anywhere.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pykevent.sim import syscalls
from pykevent.sim.client import Borrowed, Process
from pykevent.sim.lanes import Lane
from pykevent.sim.movers import Movers

if TYPE_CHECKING:
    from pykevent.sim.clocks import Alarm, Clocks
    from pykevent.sim.registration import Registration
    from pykevent.sim.system import System

_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLERR | select.EPOLLHUP
_MASK = _READABLE | select.EPOLLOUT
_PLACES = 8
"""How many places of a socket are remembered."""
_LOOK = 10_000_000
"""Nanoseconds between looks at a socket whose close nothing tells of."""
_AGAIN = [10_000_000 << turn for turn in range(7)]
"""And from one search for a socket that is out of reach to the next."""
_SHARE = 20
"""Searches take no more than this part of the time, whoever wants them."""


class Reach:
    """A socket for as long as something is moved, borrowed when it is needed."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._borrowed: Borrowed | None = None

    def borrowed(self) -> Borrowed | None:
        """The socket; None where it is out of reach."""
        if self._borrowed is None:
            self._borrowed = self._end.borrow()
        return self._borrowed

    def give_back(self) -> None:
        """Nothing is moved any more."""
        if self._borrowed is not None:
            self._borrowed.close()


class End:
    """A socket that has transfers."""

    def __init__(self, system: System, inode: int) -> None:
        self._system = system
        self.inode = inode
        self.lanes = Lane(self), Lane(self)
        self.users = 0
        """Transfers that refer to it.  Under the lock of the table."""
        self.close_watch = -1
        self._lock = threading.Lock()
        """Of coming and going."""
        self._registration: Registration | None = None
        self._places: dict[tuple[int, int], None] = {}
        self._looking = False
        self.searches = 0
        """That have not found it, since it was last in reach."""

    # Coming and going

    def readable(self) -> bool:
        """Whether there is something to receive, or the end."""
        registration = self._registration
        return registration is not None and (
            bool(registration.bits() & _READABLE) or registration.gone()
        )

    def is_of(self, borrowed: Borrowed) -> bool:
        """Whether it is that socket; until it is hooked the number of its inode says so."""
        registration = self._registration
        return registration is None or registration.same(os.getpid(), borrowed.fd) is True

    def found_at(self, borrowed: Borrowed) -> None:
        """Where the socket is."""
        with self._lock:
            place = borrowed.process.pid, borrowed.number
            self._places.pop(place, None)
            self._places[place] = None
            if len(self._places) > _PLACES:
                del self._places[next(iter(self._places))]

    def hook(self, borrowed: Borrowed) -> None:
        """Have the socket call, if it does not yet; RefusedError where that cannot be."""
        with self._lock:
            if self._registration is not None:
                return
            self._registration = self._system.files.register(borrowed, _MASK, False, self.active)
            self._system.closes.watch(self, borrowed)

    def unhook(self) -> None:
        """Nobody has the socket any more who wants to be called."""
        registration = self._registration
        if registration is not None:
            self._system.closes.unwatch(self)
            registration.end(self.borrow)
        self._registration = None
        self._system.ends.search.forget(self)

    @property
    def hooked(self) -> bool:
        """Whether the socket calls."""
        return self._registration is not None

    def active(self) -> None:
        """Have the first of each lane looked at."""
        for lane in self.lanes:
            lane.kick()

    # The close

    def closed(self) -> bool:
        """Whether the socket was closed, everywhere."""
        registration = self._registration
        return registration is not None and registration.gone()

    def notice_close(self, told: bool = False) -> bool:
        """Have all its transfers end once it was closed; whether no more looks are needed."""
        if self._registration is None:
            return True
        if not self.closed():
            return False
        self.active()
        return True

    def look_for_close(self, look: bool) -> None:
        """Have the socket looked at now and then, for nothing tells of its close; or not."""
        begins = look and not self._looking
        self._looking = look
        if begins:
            self._look_later()

    def _look_later(self) -> None:
        def looks(alarm: Alarm) -> None:
            if self._looking and not self.notice_close():
                self._look_later()

        self._system.clocks.set(time.CLOCK_MONOTONIC, time.monotonic_ns() + _LOOK, looks)

    # Reaching it

    @contextlib.contextmanager
    def reached(self) -> Iterator[Reach]:
        """The socket for as long as something is moved."""
        reach = Reach(self)
        try:
            yield reach
        finally:
            reach.give_back()

    def borrow(self) -> Borrowed | None:
        """The socket, for a moment, from where it was last, or from whoever has it."""
        borrowed = self._borrow_known()
        if borrowed is None and not self.closed() and self._system.ends.search.now(self):
            borrowed = self._borrow_known()
        return borrowed

    def _borrow_known(self) -> Borrowed | None:
        for place in reversed(list(self._places)):
            borrowed = self._borrow_at(*place)
            if borrowed is not None:
                return borrowed
        return None

    def search_at(self, pid: int, number: int) -> bool:
        """Whether the socket is there, and can be reached there."""
        borrowed = self._borrow_at(pid, number)
        if borrowed is None:
            return False
        self.found_at(borrowed)
        borrowed.close()
        return True

    def _borrow_at(self, pid: int, number: int) -> Borrowed | None:
        registration = self._registration
        if registration is None:
            return None
        try:
            # Nothing else is taken in hand.
            if not registration.same(pid, number):
                return None
            process = Process(pid, os.pidfd_open(pid))
            fd = syscalls.pidfd_getfd(process.pidfd, number)
        except OSError:
            return None
        borrowed = Borrowed(fd, process, number, self._system.clients.own_device)
        if registration.same(os.getpid(), fd):
            self.searches = 0
            return borrowed
        borrowed.close()
        return None

    def try_later(self) -> None:
        """The socket is open and out of reach: on its way between processes, perhaps."""
        self._system.ends.search.want(self)


class Search:
    """The search for sockets that are out of reach: one for all of them.

    It looks through all that is open anywhere, so it is not begun again before it has rested.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._threads = Movers()
        self._lock = threading.Lock()
        self._wanted: dict[End, int] = {}
        """And from when on they are to be searched for again."""
        self._searching = False
        self._rested = 0
        self._alarm: Alarm | None = None

    def want(self, end: End) -> None:
        """Have an end active once its socket was found, or is closed."""
        with self._lock:
            self._arm(self._wanted.setdefault(end, time.monotonic_ns()))

    def forget(self, end: End) -> None:
        """Nobody wants its socket any more."""
        with self._lock:
            self._wanted.pop(end, None)

    def now(self, end: End) -> bool:
        """Search at once for an end that was not searched for yet; whether it may be in reach."""
        with self._lock:
            # A search that is being made, or was made a moment ago, is as good.
            if self._searching or end.searches or time.monotonic_ns() < self._rested:
                return False
            self._wanted.setdefault(end, 0)
            self._searching = True
        self._search()
        return end not in self._wanted

    def _arm(self, due: int) -> None:
        """Under the lock: have a search made."""
        due = max(due, self._rested)
        if self._searching or (self._alarm is not None and self._alarm.expires <= due):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._clocks.set(time.CLOCK_MONOTONIC, due, self._expired)

    def _expired(self, alarm: Alarm) -> None:
        with self._lock:
            if self._alarm is alarm:
                self._alarm = None
            if self._searching or not self._wanted:
                return
            if time.monotonic_ns() < self._rested:
                self._arm(self._rested)
                return
            self._searching = True
        self._threads.start(self._search)

    def _search(self) -> None:
        begun = time.monotonic_ns()
        with self._lock:
            wanted = list(self._wanted)
        served: list[End] = []
        try:
            served = _in_reach(wanted)
        finally:
            now = time.monotonic_ns()
            with self._lock:
                self._searching = False
                self._rested = now + max(_AGAIN[0], _SHARE * (now - begun))
                for end in served:
                    self._wanted.pop(end, None)
                for end in wanted:
                    if self._wanted.get(end, now) < now:
                        self._wanted[end] = now + _AGAIN[min(end.searches, len(_AGAIN) - 1)]
                        end.searches += 1
                if self._wanted:
                    self._arm(min(self._wanted.values()))
        for end in served:
            end.active()


def _in_reach(wanted: list[End]) -> list[End]:
    """Those whose socket is found where we may reach it, or is closed, or not needed any more."""
    served = [end for end in wanted if end.closed() or not end.hooked]
    missing: dict[str, list[End]] = {}
    for end in set(wanted).difference(served):
        missing.setdefault(f"socket:[{end.inode}]", []).append(end)
    for link, pid, number in _links():
        if not missing:
            break
        for end in missing.get(link, ()):
            if end.search_at(pid, number):
                served.append(end)
                missing[link] = [other for other in missing[link] if other is not end]
        if link in missing and not missing[link]:
            del missing[link]
    return served


def _links() -> Iterator[tuple[str, int, int]]:
    """What processes have open, as far as we may look, and its numbers there."""
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in numbers:
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{number}"), int(pid), int(number)


class Ends:
    """All sockets that have transfers, by the number of their inode."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.search = Search(system.clocks)
        self._lock = threading.Lock()
        self._ends: dict[int, End] = {}

    def get(self, borrowed: Borrowed) -> End:
        """The end that a socket is, to be put."""
        inode = borrowed.stat.st_ino
        with self._lock:
            end = self._ends.get(inode)
            if end is None or not end.is_of(borrowed):
                # Of one that was closed nothing is asked any more but how it ended.
                end = self._ends[inode] = End(self._system, inode)
            end.users += 1
        end.found_at(borrowed)
        return end

    def put(self, end: End, inode: int) -> None:
        """One transfer less."""
        with self._lock:
            end.users -= 1
            if end.users:
                return
            if self._ends.get(inode) is end:
                del self._ends[inode]
        end.unhook()
