# SPDX-License-Identifier: GPL-2.0-or-later
"""What any open device can do besides ioctl: how events are waited for, read and polled."""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pykevent.abi import EVENT
from pykevent.sim.client import Client
from pykevent.sim.clocks import MAX_TIME, Alarm
from pykevent.sim.interrupts import Interrupts
from pykevent.sim.kevent import Event, Waiter
from pykevent.sim.queue import User
from pykevent.sim.ready import Delivery

RECORD: int = EVENT.size
_POLLED = select.POLLIN | select.POLLRDNORM


@dataclass(slots=True)
class Call:
    """One call of a client."""

    client: Client
    request: int
    """What libfuse calls it."""
    interrupts: Interrupts


@dataclass(slots=True)
class Room:
    """Where delivered events go: so many records."""

    max: int
    used: int = 0
    records: bytearray = field(default_factory=bytearray)

    def put(self, event: Event) -> bool:
        """Write an event and its name; false where they do not fit."""
        records = 1 + (len(event.name) + RECORD - 1) // RECORD
        if self.used + records > self.max:
            return False
        self.records += EVENT.pack(
            event.cookie,
            event.ident,
            event.data,
            event.count,
            event.events,
            event.type,
            event.flags,
        )
        if event.name:
            self.records += event.name.ljust((records - 1) * RECORD, b"\0")
        self.used += records
        return True


@dataclass(slots=True)
class Deadline:
    """How long to wait: until a point in time of a clock, for ever, or not at all."""

    expires: int = MAX_TIME
    clock: int = time.CLOCK_MONOTONIC
    now: bool = False

    @property
    def remaining(self) -> Callable[[], float] | None:
        """How many seconds are left; None where there is no end."""
        if self.expires == MAX_TIME:
            return None
        expires, clock = self.expires, self.clock
        return lambda: (expires - time.clock_gettime_ns(clock)) / 1e9


def _deliver_now(
    queue: User, room: Room, minimum: int, call: Call, interrupted: bool
) -> tuple[int, int]:
    """What there is, if it is @minimum at least: events or -errno, and how many are left."""
    delivery = Delivery(queue)
    if minimum > 1 and not delivery.claim(minimum):
        return 0, 0
    total = error = put = 0
    # What a dying thread took would be lost: it only hands the wake-up on.
    if not interrupted or not call.client.dying():
        while room.used < room.max:
            events = delivery.next(room.max - room.used)
            put = 0
            while put < len(events) and room.put(events[put]):
                put += 1
            if events:
                delivery.done(put)
            total += put
            if put < len(events):
                error = -errno.EMSGSIZE
                break
            if not events or not delivery.more:
                break
    left = delivery.end(put)
    queue.try_reap()
    return total or error, left


def deliver(
    queue: User, room: Room, minimum: int, deadline: Deadline, call: Call
) -> tuple[int, int]:
    """Wait for events and hand them over.

    Returns how many, or -EINTR where a signal came and there were none, or -EMSGSIZE where the
    first does not fit; and how many are still ready then.
    """
    if queue.lanes:
        queue.settle_lanes()
    if deadline.now and queue.is_empty():
        return 0, 0
    ended = ""
    while True:
        result, left = _deliver_now(queue, room, 0 if ended else minimum, call, ended == "signal")
        if result or not minimum or ended == "time" or (minimum == 1 and deadline.now):
            return result, left
        if ended:
            return -errno.EINTR, left
        ended = "time" if deadline.now else _wait(queue, minimum, deadline, call)


def _wait(queue: User, minimum: int, deadline: Deadline, call: Call) -> str:
    waiter = Waiter(minimum)
    remaining = deadline.remaining
    alarm: Alarm | None = None
    if remaining is not None and deadline.clock != time.CLOCK_MONOTONIC:
        # The clock can be set, or the machine sleep: an alarm hears of it.
        alarm = queue.system.clocks.set(deadline.clock, deadline.expires, lambda _: waiter.wake())
    try:
        with call.interrupts.told(call.request, waiter, call.client.uid):
            return queue.wait(waiter, remaining, lambda: waiter.interrupted)
    finally:
        if alarm is not None:
            alarm.cancel()


def read(queue: User, size: int, nonblocking: bool, call: Call) -> bytes:
    """read(2): the records that WAIT delivers; OSError."""
    room = Room(size // RECORD)
    if not room.max:
        raise OSError(errno.EINVAL, "room for less than a record")
    queue.system.sync(queue)
    result, _ = deliver(queue, room, 1, Deadline(now=nonblocking), call)
    if result <= 0:
        raise OSError(-result or errno.EAGAIN, "no event")
    return bytes(room.records)


def polled(queue: User) -> int:
    """poll(2): what holds of the queue."""
    queue.system.sync_polled(queue)
    if queue.lanes:
        queue.settle_lanes()
    return _POLLED if queue.has_ready(1) else 0
