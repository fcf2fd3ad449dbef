# SPDX-License-Identifier: GPL-2.0-or-later
"""Points in time on three clocks: one heap and one timerfd each, whatever the number of alarms."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from functools import partial

from pykevent.sim import syscalls
from pykevent.sim.hub import guarded

MAX_TIME = (1 << 63) - 1
CLOCKS = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)


def point_in_time(value: int, clock: int, absolute: bool) -> tuple[int, int]:
    """A time of the ABI as a point in time and its clock; ValueError where there is none.

    A span of time does not move when somebody sets CLOCK_REALTIME.
    """
    if value > MAX_TIME or clock not in CLOCKS:
        raise ValueError("no such time")
    if absolute:
        return value, clock
    if clock == time.CLOCK_REALTIME:
        clock = time.CLOCK_MONOTONIC
    expires = time.clock_gettime_ns(clock) + value
    if expires > MAX_TIME:
        raise ValueError("too far away")
    return expires, clock


class Alarm:
    """A call to be made at a point in time."""

    __slots__ = ("call", "expires")

    def __init__(self, expires: int, call: Callable[[Alarm], None]) -> None:
        self.expires = expires
        self.call: Callable[[Alarm], None] | None = call

    def cancel(self) -> None:
        """Do not make it."""
        self.call = None


class _Clock:
    def __init__(self, clock: int) -> None:
        self.clock = clock
        self.timerfd = syscalls.timerfd_create(clock)
        self.heap: list[tuple[int, int, Alarm]] = []
        self.set_for = 0


class Clocks:
    """The alarms of the whole simulator."""

    def __init__(self) -> None:
        self._calls = threading.Lock()
        """Who makes the calls.  Outside of it may be a pool's lock, inside of it a queue's."""
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._clocks = {clock: _Clock(clock) for clock in CLOCKS}
        self._cleaning = 1024

    def filenos(self) -> list[int]:
        """Descriptors that are readable when `expire` has something to do."""
        return [each.timerfd for each in self._clocks.values()]

    def close(self) -> None:
        """No alarm goes off any more."""
        for each in self._clocks.values():
            os.close(each.timerfd)

    def set(self, clock: int, expires: int, call: Callable[[Alarm], None]) -> Alarm:
        """Have @call made at a point in time, which must not have calls made itself."""
        alarm = Alarm(expires, call)
        each = self._clocks[clock]
        with self._lock:
            if len(each.heap) > self._cleaning:
                self._clean(each)
            heapq.heappush(each.heap, (expires, next(self._order), alarm))
            self._arm(each)
        return alarm

    def _clean(self, each: _Clock) -> None:
        """Of those that were cancelled none is kept for ever."""
        each.heap = [entry for entry in each.heap if entry[2].call is not None]
        heapq.heapify(each.heap)
        self._cleaning = 1024 + 2 * max(len(other.heap) for other in self._clocks.values())

    def _arm(self, each: _Clock) -> None:
        if each.heap and each.set_for != each.heap[0][0]:
            each.set_for = each.heap[0][0]
            # A time of 0 would mean never.
            syscalls.timerfd_settime(each.timerfd, max(each.set_for, 1))

    def fired(self) -> None:
        """A timerfd has expired; perhaps too early, if somebody has set the clock back since."""
        with self._lock:
            for each in self._clocks.values():
                each.set_for = 0
        self.expire()

    def expire(self) -> None:
        """Make the calls that are due, in their order: when this returns they have been made."""
        with self._calls:
            for each in self._clocks.values():
                while each.heap:
                    with self._lock:
                        alarm = self._due(each)
                    if alarm is None:
                        break
                    if alarm.call is not None:
                        guarded(partial(alarm.call, alarm))

    def _due(self, each: _Clock) -> Alarm | None:
        """Take the first alarm whose time has come; else see to it that the clock tells of it."""
        if each.heap and each.heap[0][0] <= time.clock_gettime_ns(each.clock):
            each.set_for = 0
            return heapq.heappop(each.heap)[2]
        if each.set_for == 0:
            self._arm(each)
        return None
