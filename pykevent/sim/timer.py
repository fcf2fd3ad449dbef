# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_TIMER: once, periodic, or at a point in time.

A periodic timer that has expired is set again only when its expiries are delivered, which counts
those that have passed meanwhile: a short interval costs its owner, not the simulator.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from pykevent.abi import EventType, Feature, TimerEvents
from pykevent.sim.clocks import MAX_TIME, Alarm, point_in_time
from pykevent.sim.kevent import (
    ABSTIME,
    AGAIN,
    U32_MAX,
    Event,
    Item,
    Kevent,
    RefusedError,
    Request,
    Target,
)

if TYPE_CHECKING:
    from pykevent.sim.queue import User


def _due(request: Request) -> tuple[int, int]:
    try:
        return point_in_time(request.param0, request.param2, bool(request.flags & ABSTIME))
    except ValueError:
        raise RefusedError(errno.EINVAL) from None


class TimerKevent(Kevent):
    """A kevent of the passing of time."""

    __slots__ = ("_alarm", "_clock", "_expires", "_expiries", "_interval", "_peeked", "_set")

    name = "timer"
    type = int(EventType.TIMER)
    feature = int(Feature.TIMER)
    all_events = int(TimerEvents.FIRED)
    exact = True
    all_flags = ABSTIME

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self._alarm: Alarm | None = None
        self._clock = time.CLOCK_MONOTONIC
        self._expires = 0
        self._interval = 0
        self._expiries = 0
        self._peeked = 0
        self._set = False

    @classmethod
    def check(cls, request: Request) -> None:
        """Times that overflow and other clocks are refused."""
        if request.param1 > MAX_TIME:
            raise RefusedError(errno.EINVAL)
        _due(request)

    def _start(self, expires: int, clock: int, interval: int) -> None:
        with self.user.lock:
            self._clock, self._expires, self._interval = clock, expires, interval
            self._expiries = self._peeked = 0
            self._set_locked()
        if expires <= time.clock_gettime_ns(clock):
            self._expire(self._alarm)

    def _set_locked(self) -> None:
        self._set = True
        self._alarm = self.user.system.clocks.set(self._clock, self._expires, self._expire)

    def _stop_locked(self) -> None:
        self._set = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _expire(self, alarm: Alarm | None) -> None:
        wake = False
        with self.user.lock:
            if alarm is None or self._alarm is not alarm:
                return  # set anew since, or it has expired already
            self._stop_locked()
            if self._interval:
                self._forward_locked()
            else:
                self._expiries = 1
            wake = self.user.ready_locked(self)
        if wake:
            self.user.poked()

    def _forward_locked(self) -> None:
        """Count the expiries that have passed since the timer was last set."""
        if not self._interval or self._set:
            return
        late = time.clock_gettime_ns(self._clock) - self._expires
        if late < 0:
            return
        passed = late // self._interval + 1
        self._expires = min(self._expires + passed * self._interval, MAX_TIME)
        self._expiries += passed

    def enqueue(self, request: Request, target: Target) -> None:
        """Set it for the first time."""
        expires, clock = _due(request)
        self._start(expires, clock, request.param1)

    def modify(self, request: Request, target: Target) -> None:
        """Set it anew, and forget the expiries that were not delivered."""
        expires, clock = _due(request)
        with self.user.lock:
            if not self.user.modify_locked(self, request):
                raise RefusedError(errno.ENOENT)
            self._stop_locked()
            self._interval = self._expiries = self._peeked = 0
            self.user.forget_locked(self)
            self.state &= ~AGAIN
        self._start(expires, clock, request.param1)

    def dequeue(self) -> None:
        """It does not expire any more."""
        with self.user.lock:
            self._stop_locked()

    def peek(self, item: Item, event: Event) -> None:
        """How often it has expired."""
        self._forward_locked()
        self._peeked = self._expiries
        event.events = self.all_events
        event.data = self._expiries
        event.count = min(self._expiries, U32_MAX)

    def consume(self, item: Item, event: Event) -> bool:
        """Set it again if it is periodic."""
        self._expiries -= self._peeked
        if self._peeked and self._interval and not self._set:
            self._set_locked()
        self._peeked = 0
        return self._expiries > 0
