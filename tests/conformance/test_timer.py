# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_TIMER: once, periodic, absolute; three clocks; expiries are counted; never early."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

import pytest

import pykevent
from pykevent import EventType, Flags, Queue, Request, TimerEvents

from .support import cookies, now, one, refused, soon, waiting

pytestmark = pytest.mark.needs("TIMER")

CLOCKS = [time.CLOCK_MONOTONIC, time.CLOCK_REALTIME, time.CLOCK_BOOTTIME]
MS = 1_000_000
HOUR = 3600 * 10**9

# What no timer can be set to: of the first, that depends on what the time is.
IMPOSSIBLE = {
    "too-far-from-now": pykevent.timer_event(1, value_ns=(1 << 63) - 1, flags=Flags.ONESHOT),
    "beyond-63-bits": pykevent.timer_event(1, value_ns=1 << 63, flags=Flags.ONESHOT),
    "interval": pykevent.timer_event(1, value_ns=0, interval_ns=1 << 63, flags=Flags.ONESHOT),
    "clock": pykevent.timer_event(1, value_ns=0, clock=time.CLOCK_TAI, flags=Flags.ONESHOT),
}


def until(queue: Queue, ns: int) -> None:
    """Return @ns from now, by a timer of another queue."""
    with pykevent.open() as other:
        other.add(pykevent.timer_event(1, value_ns=ns))
        one(other)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_timer_fires_after_its_time_and_never_early(queue: Queue, clock: int) -> None:
    begun = time.clock_gettime_ns(clock)
    queue.add(pykevent.timer_event(1, value_ns=30 * MS, clock=clock, cookie=4))
    event = one(queue)
    assert time.clock_gettime_ns(clock) - begun >= 30 * MS
    assert (event.type, event.ident, event.cookie) == (EventType.TIMER, 1, 4)
    assert (event.events, event.data, event.count) == (TimerEvents.FIRED, 1, 1)


@pytest.mark.parametrize("clock", CLOCKS)
def test_an_absolute_timer_fires_at_its_time_and_never_early(queue: Queue, clock: int) -> None:
    end = time.clock_gettime_ns(clock) + 30 * MS
    queue.add(pykevent.timer_event(1, value_ns=end, clock=clock, absolute=True))
    assert one(queue).data == 1
    assert time.clock_gettime_ns(clock) >= end


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("value", [0, 1])
def test_an_absolute_time_in_the_past_fires_at_once(queue: Queue, clock: int, value: int) -> None:
    queue.add(pykevent.timer_event(1, value_ns=value, clock=clock, absolute=True))
    assert one(queue).data == 1


def test_a_relative_time_of_0_fires_at_once(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=0))
    assert one(queue).data == 1


def test_a_timer_that_has_not_fired_is_silent(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=HOUR))
    until(queue, MS)
    assert now(queue) == []


def test_the_longest_time_that_63_bits_hold_can_be_asked_for(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=(1 << 63) - 1, absolute=True))
    assert now(queue) == []
    queue.remove(EventType.TIMER, 1)


def test_without_an_interval_a_timer_fires_once_and_stays_registered(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=MS))
    assert not one(queue).last
    until(queue, 5 * MS)
    assert now(queue) == []
    assert queue.info().kevents == 1
    queue.remove(EventType.TIMER, 1)


def test_a_one_shot_timer_is_removed_by_its_delivery(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=MS, interval_ns=MS, flags=Flags.ONESHOT))
    assert one(queue).last
    assert queue.info().kevents == 0
    until(queue, 5 * MS)
    assert now(queue) == []


def test_a_periodic_timer_fires_again_and_again_and_never_early(queue: Queue) -> None:
    begun = time.monotonic_ns()
    queue.add(pykevent.timer_event(1, value_ns=5 * MS, interval_ns=10 * MS))
    expiries = 0
    while expiries < 5:
        event = one(queue)
        assert event.data == event.count >= 1
        expiries += event.data
        assert time.monotonic_ns() - begun >= 5 * MS + (expiries - 1) * 10 * MS


def test_expiries_that_nobody_waited_for_are_counted(queue: Queue) -> None:
    begun = time.monotonic_ns()
    queue.add(pykevent.timer_event(1, value_ns=2 * MS, interval_ns=2 * MS))
    until(queue, 40 * MS)
    event = one(queue)
    assert 19 <= event.data == event.count <= (time.monotonic_ns() - begun) // (2 * MS)


def test_expiries_are_counted_since_the_last_delivery(queue: Queue) -> None:
    begun = time.monotonic_ns()
    queue.add(pykevent.timer_event(1, value_ns=MS, interval_ns=MS))
    total = 0
    for _ in range(5):
        until(queue, 3 * MS)
        total += one(queue).data
    passed = time.monotonic_ns() - begun
    assert 10 <= total <= passed // MS


@pytest.mark.parametrize("interval", [1, 1000])
def test_an_interval_shorter_than_the_machine_can_follow_still_counts_right(
    queue: Queue, interval: int
) -> None:
    begun = time.monotonic_ns()
    queue.add(pykevent.timer_event(1, value_ns=interval, interval_ns=interval))
    until(queue, 2 * MS)
    expiries = one(queue).data
    queue.remove(EventType.TIMER, 1)
    assert 1 <= expiries <= (time.monotonic_ns() - begun) // interval


def test_a_periodic_timer_that_began_in_the_past_counts_from_then(queue: Queue) -> None:
    start = time.monotonic_ns() - 100 * MS
    queue.add(pykevent.timer_event(1, value_ns=start, interval_ns=10 * MS, absolute=True))
    event = one(queue)
    assert 11 <= event.data <= (time.monotonic_ns() - start) // (10 * MS) + 1


@pytest.mark.parametrize("flags", [0, Flags.EDGE], ids=["level", "edge"])
def test_a_timer_is_consumed_by_its_delivery(queue: Queue, flags: Flags) -> None:
    queue.add(pykevent.timer_event(1, value_ns=0, flags=flags))
    assert one(queue).data == 1
    assert now(queue) == []


def test_modify_restarts_a_timer(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=HOUR, cookie=1))
    begun = time.monotonic_ns()
    queue.modify(pykevent.timer_event(1, value_ns=10 * MS, cookie=2))
    assert one(queue).cookie == 2
    assert time.monotonic_ns() - begun >= 10 * MS


def test_modify_puts_a_timer_off(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=200 * MS))
    queue.modify(pykevent.timer_event(1, value_ns=HOUR))
    until(queue, 250 * MS)
    assert now(queue) == []


def test_modify_rearms_a_timer_that_has_fired(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=MS))
    for _ in range(3):
        assert one(queue).data == 1
        queue.modify(pykevent.timer_event(1, value_ns=MS))
    assert one(queue).data == 1


def test_modify_makes_a_periodic_timer_of_one_that_fires_once_and_back(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=MS))
    one(queue)
    queue.modify(pykevent.timer_event(1, value_ns=MS, interval_ns=MS))
    one(queue)
    one(queue)
    queue.modify(pykevent.timer_event(1, value_ns=MS))
    soon(queue)
    now(queue)
    until(queue, 5 * MS)
    assert now(queue) == []


def test_modify_changes_the_clock(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=HOUR))
    for clock in CLOCKS:
        end = time.clock_gettime_ns(clock) + 5 * MS
        queue.modify(pykevent.timer_event(1, value_ns=end, clock=clock, absolute=True))
        assert one(queue).data == 1
        assert time.clock_gettime_ns(clock) >= end


def test_modify_drops_what_expired_and_was_not_delivered(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=0, interval_ns=MS))
    until(queue, 5 * MS)
    queue.modify(pykevent.timer_event(1, value_ns=HOUR))
    assert now(queue) == []


@pytest.mark.parametrize("impossible", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
@pytest.mark.parametrize("expired", [False, True], ids=["pending", "expired"])
def test_a_modify_that_fails_leaves_a_timer_as_it_was(
    queue: Queue, impossible: Request, expired: bool
) -> None:
    begun = time.monotonic_ns()
    queue.add(pykevent.timer_event(1, value_ns=30 * MS, cookie=1))
    if expired:
        until(queue, 40 * MS)
        assert queue.info().ready == 1
    with refused(errno.EINVAL):
        queue.modify(impossible)
    event = one(queue)
    assert time.monotonic_ns() - begun >= 30 * MS
    assert (event.cookie, event.data, event.last) == (1, 1, False)
    assert now(queue) == []
    assert queue.info().kevents == 1


@pytest.mark.parametrize("impossible", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_modify_that_fails_lets_a_periodic_timer_go_on(queue: Queue, impossible: Request) -> None:
    begun = time.monotonic_ns()
    queue.add(pykevent.timer_event(1, value_ns=2 * MS, interval_ns=2 * MS, cookie=1))
    until(queue, 10 * MS)
    with refused(errno.EINVAL):
        queue.modify(impossible)
    events = [one(queue) for _ in range(3)]
    assert cookies(events) == [1, 1, 1]
    # those before the MODIFY are told as well, and none comes twice
    assert events[0].data >= 4
    assert sum(event.data for event in events) <= (time.monotonic_ns() - begun) // (2 * MS)


def test_a_dispatched_timer_is_armed_by_modify_which_sets_it_anew(queue: Queue) -> None:
    flags = Flags.DISPATCH
    queue.add(pykevent.timer_event(1, value_ns=MS, interval_ns=MS, flags=flags))
    for _ in range(3):
        one(queue)
        until(queue, 5 * MS)
        assert now(queue) == []
        begun = time.monotonic_ns()
        queue.modify(pykevent.timer_event(1, value_ns=5 * MS, interval_ns=HOUR, flags=flags))
        soon(queue)
        assert time.monotonic_ns() - begun >= 5 * MS
        queue.modify(pykevent.timer_event(1, value_ns=MS, interval_ns=MS, flags=flags))


def test_a_disabled_timer_is_silent_and_its_expiries_are_not_told_later(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=0, interval_ns=MS, flags=Flags.DISABLED))
    until(queue, 3 * MS)
    assert now(queue) == []
    queue.modify(pykevent.timer_event(1, value_ns=HOUR))
    assert now(queue) == []
    queue.modify(pykevent.timer_event(1, value_ns=MS, cookie=2))
    assert one(queue).cookie == 2


def test_after_remove_a_timer_is_silent(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, value_ns=0, interval_ns=MS))
    queue.remove(EventType.TIMER, 1)
    until(queue, 3 * MS)
    assert now(queue) == []


def test_a_timer_wakes_one_who_waits(queue: Queue) -> None:
    waiter = waiting(queue)
    queue.add(pykevent.timer_event(1, value_ns=MS, cookie=7))
    assert cookies(waiter.result()) == [7]


def test_timers_are_delivered_in_the_order_in_which_they_fire(queue: Queue) -> None:
    # far enough away, and apart, for who adds them to be held up meanwhile
    start = time.monotonic_ns() + 300 * MS
    for ident, after in enumerate((300, 100, 200)):
        queue.add(
            pykevent.timer_event(ident, value_ns=start + after * MS, absolute=True, cookie=after)
        )
    assert cookies(soon(queue, 3)) == [100, 200, 300]


def test_the_same_number_means_another_timer_in_another_queue(
    queue: Queue, new_queue: Callable[[], Queue]
) -> None:
    other = new_queue()
    queue.add(pykevent.timer_event(1, value_ns=0, cookie=1))
    other.add(pykevent.timer_event(1, value_ns=HOUR, cookie=2))
    assert cookies(soon(queue)) == [1]
    assert now(other) == []
    other.modify(pykevent.timer_event(1, value_ns=0, cookie=3))
    assert cookies(soon(other)) == [3]


def test_a_float_of_seconds_is_rounded_up(queue: Queue) -> None:
    begun = time.monotonic_ns()
    queue.add(pykevent.timer_event(1, 0.0100000001))
    one(queue)
    assert time.monotonic_ns() - begun >= 10_000_001
