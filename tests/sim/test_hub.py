# SPDX-License-Identifier: GPL-2.0-or-later
"""The hub's thread: what it is woken for it is woken for."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from pykevent.sim import syscalls
from pykevent.sim.clocks import Alarm, Clocks
from pykevent.sim.hub import Pool
from pykevent.sim.releases import Releases
from tests.conformance.support import eventually

ROUNDS = 3000
PATIENCE = 5.0


def test_a_kick_reaches_the_thread_although_calls_drain_all_the_time() -> None:
    ticked = threading.Event()

    def tick() -> None:
        ticked.set()

    pool = Pool("tested")
    pool.tick = tick
    member = os.eventfd(0)
    pool.add(member, lambda: None)
    for number in range(ROUNDS):
        ticked.clear()
        pool.kick()
        pool.drain()
        assert ticked.wait(PATIENCE), f"kick {number} was lost"
    pool.forget(member)
    os.close(member)


def test_there_is_one_thread_however_many_begin_at_once() -> None:
    pool = Pool("begun by many")
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        pool.kick()

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [thread.name for thread in threading.enumerate()].count("begun by many") == 1


def test_a_call_that_fails_hinders_no_other(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool("with a bad member")
    members = [os.eventfd(0) for _ in range(3)]
    called: list[int] = []

    def fails() -> None:
        called.append(1)
        raise OSError("no more descriptors")

    calls = (lambda: called.append(0), fails, lambda: called.append(2))
    for fd, call in zip(members, calls, strict=True):
        pool.add(fd, call)
    for fd in members:
        os.eventfd_write(fd, 1)
    pool.drain()
    eventually(lambda: sorted(called) == [0, 1, 2], "each is called")
    assert "no more descriptors" in caplog.text
    for fd in members:
        pool.forget(fd)
        os.close(fd)


def test_an_alarm_that_fails_stops_no_clock(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    pool = Pool("clocks")
    for fd in clocks.filenos():
        pool.add(fd, clocks.fired)
    rung = threading.Event()

    def fails(alarm: Alarm) -> None:
        raise OSError("no more descriptors")

    now = time.monotonic_ns()
    clocks.set(time.CLOCK_MONOTONIC, now + 1_000_000, fails)
    clocks.set(time.CLOCK_MONOTONIC, now + 20_000_000, lambda alarm: rung.set())
    assert rung.wait(PATIENCE)
    assert "no more descriptors" in caplog.text
    for fd in clocks.filenos():
        pool.forget(fd)
    clocks.close()


def test_a_clock_that_was_set_back_after_its_timer_fired_is_set_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks()
    rung: list[Alarm] = []
    alarm = clocks.set(time.CLOCK_REALTIME, 1000, rung.append)
    set_for: list[int] = []
    monkeypatch.setattr(syscalls, "timerfd_settime", lambda fd, when: set_for.append(when))
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: 500)
    clocks.fired()
    assert (rung, set_for) == ([], [1000])
    monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: 1000)
    clocks.fired()
    assert rung == [alarm]
    clocks.close()


@pytest.mark.parametrize("call", ["inotify_init", "inotify_add_watch"])
def test_where_all_inotify_watches_are_taken_queues_are_released_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no more watches")

    monkeypatch.setattr(syscalls, call, refused)
    before = len(os.listdir("/proc/self/fd"))
    releases = Releases(Pool("without watches"))
    kept = len(os.listdir("/proc/self/fd"))
    releases.watch(str(tmp_path), str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == kept > before
    releases.done()
    releases.settle()


def test_who_asks_a_pool_that_hangs_is_not_kept() -> None:
    pool = Pool("that hangs")
    goes_on, hangs = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait()

    member = os.eventfd(1)
    pool.add(member, hang)
    assert hangs.wait(PATIENCE)
    begun = time.monotonic()
    pool.ask(0.01)
    assert time.monotonic() - begun < PATIENCE
    goes_on.set()
    pool.forget(member)
    os.close(member)
