# SPDX-License-Identifier: GPL-2.0-or-later
"""WAIT: min, max, timeouts, clocks, signals."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import pykevent
from pykevent import EventType, Queue

from . import raw
from .support import (
    DEADLINE,
    InThread,
    asleep_in,
    child,
    cookies,
    eventually,
    now,
    refused,
    waiting,
)

pytestmark = pytest.mark.needs("USER")

CLOCKS = [time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME]
MS = 1_000_000
SHORT = 30 * MS


@pytest.fixture
def users(queue: Queue) -> Queue:
    """The queue with user events 0 to 9, whose cookies are their numbers."""
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in range(10))
    return queue


@pytest.fixture(params=[True, False], ids=["SA_RESTART", "no SA_RESTART"])
def sigusr1(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    """SIGUSR1 is caught; the list holds the signals caught so far."""
    caught: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
    signal.siginterrupt(signal.SIGUSR1, not request.param)
    yield caught
    signal.signal(signal.SIGUSR1, previous)


def test_wait_returns_as_soon_as_there_is_one_event(users: Queue) -> None:
    waiter = waiting(users)
    users.post(4)
    assert cookies(waiter.result()) == [4]


def test_wait_returns_at_once_where_an_event_is_ready_already(users: Queue) -> None:
    users.post(4)
    assert cookies(users.wait(None)) == [4]


def test_wait_returns_when_min_events_are_ready_and_not_before(users: Queue) -> None:
    waiter = waiting(users, minimum=3)
    users.post(0)
    users.post(1)
    users.post(1)
    assert waiter.asleep()
    users.post(2)
    assert cookies(waiter.result()) == [0, 1, 2]


def test_wait_returns_more_than_min_where_more_is_ready(users: Queue) -> None:
    users.post_many((ident, 0) for ident in range(5))
    assert len(users.wait(None, min=2)) == 5


def test_when_the_time_is_up_wait_returns_what_there_is(users: Queue) -> None:
    users.post(1)
    begun = time.monotonic_ns()
    assert cookies(users.wait(timeout_ns=SHORT, min=2)) == [1]
    assert time.monotonic_ns() - begun >= SHORT


def test_wait_delivers_at_most_max_and_says_how_many_are_left(users: Queue) -> None:
    users.post_many((ident, 0) for ident in range(5))
    call = raw.wait(3)
    assert call(users.fileno()) == 3
    assert (call.wait().records, call.wait().left) == (3, 2)
    assert [record.event.cookie for record in call.records()] == [0, 1, 2]
    assert call(users.fileno()) == 2
    assert (call.wait().records, call.wait().left) == (2, 0)


def test_max_1_delivers_everything_one_by_one_in_order(users: Queue) -> None:
    users.post_many((ident, 0) for ident in (3, 1, 2))
    assert [cookies(now(users, maximum=1)) for _ in range(4)] == [[3], [1], [2], []]


def test_min_0_does_not_wait(users: Queue) -> None:
    assert users.wait(None, min=0) == []
    users.post(1)
    assert cookies(users.wait(None, min=0)) == [1]


def test_timeout_0_does_not_wait(users: Queue) -> None:
    assert users.wait(0, min=5) == []
    users.post(1)
    assert cookies(users.wait(0, min=5)) == [1]


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_relative_timeout_is_never_early(users: Queue, clock: int) -> None:
    call = raw.wait(4, timeout=SHORT, clock=clock)
    begun = time.clock_gettime_ns(clock)
    assert call(users.fileno()) == 0
    assert time.clock_gettime_ns(clock) - begun >= SHORT


@pytest.mark.parametrize("clock", CLOCKS)
def test_an_absolute_timeout_is_never_early(users: Queue, clock: int) -> None:
    end = time.clock_gettime_ns(clock) + SHORT
    assert users.wait(deadline_ns=end, clock=clock) == []
    assert time.clock_gettime_ns(clock) >= end


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("timeout", [0, 1, 1000])
def test_an_absolute_timeout_in_the_past_does_not_wait(
    users: Queue, clock: int, timeout: int
) -> None:
    call = raw.wait(4, timeout=timeout, clock=clock, flags=pykevent.abi.WaitFlags.ABSTIME)
    assert call(users.fileno()) == 0
    users.post(3)
    assert call(users.fileno()) == 1


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_timeout_far_away_ends_with_an_event(users: Queue, clock: int) -> None:
    call = raw.wait(4, timeout=3600 * 10**9, clock=clock)
    waiter = InThread(lambda: call(users.fileno())).until_asleep()
    users.post(1)
    assert waiter.result() == 1


@pytest.mark.parametrize("flags", [0, pykevent.abi.WaitFlags.ABSTIME], ids=["", "ABSTIME"])
def test_forever_ends_with_an_event_only(users: Queue, flags: int) -> None:
    call = raw.wait(4, timeout=raw.FOREVER, flags=flags)
    waiter = InThread(lambda: call(users.fileno())).until_asleep()
    assert users.info().ready == 0
    assert waiter.asleep()
    users.post(1)
    assert waiter.result() == 1


def test_the_last_moment_that_63_bits_hold_is_a_timeout_as_any_other(users: Queue) -> None:
    flags = pykevent.abi.WaitFlags.ABSTIME
    call = raw.wait(4, timeout=(1 << 63) - 1, flags=flags)
    waiter = InThread(lambda: call(users.fileno())).until_asleep()
    users.post(1)
    assert waiter.result() == 1


def test_a_signal_ends_wait_with_eintr(users: Queue, sigusr1: list[int]) -> None:
    call = raw.wait(4, timeout=raw.FOREVER)

    def waits() -> None:
        with refused(errno.EINTR):
            call(users.fileno())

    waiter = InThread(waits).until_asleep()
    signal.pthread_kill(waiter.ident, signal.SIGUSR1)
    waiter.result()


def test_a_signal_ends_a_wait_with_a_timeout_too(users: Queue, sigusr1: list[int]) -> None:
    call = raw.wait(4, timeout=3600 * 10**9)

    def waits() -> None:
        with refused(errno.EINTR):
            call(users.fileno())

    waiter = InThread(waits).until_asleep()
    signal.pthread_kill(waiter.ident, signal.SIGUSR1)
    waiter.result()


def test_a_signal_ends_wait_with_the_events_at_hand_although_min_is_not_reached(
    users: Queue, sigusr1: list[int]
) -> None:
    call = raw.wait(4, minimum=3, timeout=raw.FOREVER)
    waiter = InThread(lambda: call(users.fileno())).until_asleep()
    users.post(1)
    users.post(2)
    assert waiter.asleep()
    signal.pthread_kill(waiter.ident, signal.SIGUSR1)
    assert waiter.result() == 2
    assert [record.event.cookie for record in call.records()] == [1, 2]
    assert now(users) == []


def test_nothing_is_lost_when_a_signal_ends_wait(users: Queue, sigusr1: list[int]) -> None:
    call = raw.wait(4, timeout=raw.FOREVER)

    def waits() -> None:
        with refused(errno.EINTR):
            call(users.fileno())

    waiter = InThread(waits).until_asleep()
    signal.pthread_kill(waiter.ident, signal.SIGUSR1)
    waiter.result()
    users.post(5)
    assert cookies(now(users)) == [5]


def test_pykevent_runs_the_signal_handler_and_waits_on(users: Queue, sigusr1: list[int]) -> None:
    def interrupts_then_posts() -> None:
        until_main_thread_sleeps()
        signal.pthread_kill(thread_of_main(), signal.SIGUSR1)
        eventually(lambda: bool(sigusr1), "the handler runs")
        until_main_thread_sleeps()
        users.post(6)

    other = InThread(interrupts_then_posts)
    assert cookies(users.wait(DEADLINE)) == [6]
    other.result()
    assert sigusr1 == [signal.SIGUSR1]


def test_a_signal_handler_that_raises_ends_the_wait_of_pykevent(users: Queue) -> None:
    class Told(Exception):
        pass

    def raises(number: int, frame: object) -> None:
        raise Told

    def interrupts() -> None:
        until_main_thread_sleeps()
        signal.pthread_kill(thread_of_main(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, raises)
    try:
        with pytest.raises(Told):
            other = InThread(interrupts)
            users.wait(DEADLINE)
        other.result()
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_sigkill_ends_a_process_that_waits_for_ever() -> None:
    def waits_forever() -> None:
        with pykevent.open() as mine:
            mine.add(pykevent.user_event(1))
            mine.wait(None)

    with child(waits_forever) as process:
        process.until_asleep()
        begun = time.monotonic()
        process.kill()
        assert time.monotonic() - begun < DEADLINE


def test_a_killed_waiter_takes_no_event_with_it(users: Queue, stack: ExitStack) -> None:
    fd = os.dup(users.fileno())
    stack.callback(os.close, fd)

    def waits_forever() -> None:
        raw.wait(4, timeout=raw.FOREVER)(fd)

    with child(waits_forever) as process:
        process.until_asleep()
        process.kill()
    users.post(7)
    assert cookies(users.wait(DEADLINE)) == [7]


@pytest.mark.parametrize("wait_first", [True, False])
def test_a_post_before_or_during_the_wait_is_the_same(users: Queue, wait_first: bool) -> None:
    def posts() -> None:
        users.post(2, 9)

    waiter = waiting(users) if wait_first else None
    posts()
    (event,) = waiter.result() if waiter else users.wait(DEADLINE)
    assert (event.type, event.ident, event.data) == (EventType.USER, 2, 9)


def until_main_thread_sleeps() -> None:
    """Return once the main thread of this process sleeps in an ioctl."""
    pid = os.getpid()
    eventually(lambda: asleep_in("ioctl", pid, pid), "the main thread waits")


def thread_of_main() -> int:
    """The number of the main thread for pthread_kill()."""
    ident = threading.main_thread().ident
    assert ident is not None
    return ident
