# SPDX-License-Identifier: GPL-2.0-or-later
"""Loops that hold a queue of the simulator sleep while it has nothing, and how exact timers are."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import statistics
import threading
import time
from collections.abc import Callable

import pytest

import pykevent
from pykevent import Queue
from tests.conformance.support import InThread, now, one, refused, sleeps

SECONDS = 0.5


def naps(call: Callable[[], object]) -> int:
    """How often the calling thread goes to sleep in @call, which takes a while."""
    tid = threading.get_native_id()
    before = sleeps(os.getpid(), tid)
    begun = time.monotonic()
    call()
    assert time.monotonic() - begun >= SECONDS
    return sleeps(os.getpid(), tid) - before


@pytest.fixture
def used(queue: Queue) -> Queue:
    """A queue that was ready, was emptied, and holds more that is silent."""
    queue.add(pykevent.user_event(1))
    queue.add(pykevent.timer_event(1, 3600))
    reader, _writer = os.pipe()
    queue.add(pykevent.poll_event(reader, pykevent.PollEvents.IN))
    queue.post(1)
    assert len(now(queue)) == 1
    return queue


def test_select_sleeps(used: Queue) -> None:
    assert naps(lambda: select.select([used], [], [], SECONDS)) < 10


@pytest.mark.parametrize("edge", [0, select.EPOLLET], ids=["level", "edge"])
def test_epoll_sleeps(used: Queue, edge: int) -> None:
    with select.epoll() as epoll:
        epoll.register(used, select.EPOLLIN | edge)
        assert naps(lambda: epoll.poll(SECONDS)) < 10


def test_asyncio_sleeps(used: Queue) -> None:
    called: list[None] = []

    async def waits() -> None:
        asyncio.get_running_loop().add_reader(used, called.append, None)
        await asyncio.sleep(SECONDS)

    assert naps(lambda: asyncio.run(waits())) < 20
    assert called == []


def test_asyncio_is_called_once_for_each_event(used: Queue) -> None:
    called: list[int] = []

    async def waits() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(used, lambda: called.append(len(now(used))))
        for _ in range(3):
            await loop.run_in_executor(None, used.post, 1)
            await asyncio.sleep(SECONDS / 5)

    asyncio.run(waits())
    assert called == [1, 1, 1]


def test_a_wait_sleeps_and_so_does_the_simulator(
    used: Queue, simulator_cpu: Callable[[], float]
) -> None:
    waiters = [InThread(lambda: used.wait(SECONDS * 4)) for _ in range(50)]
    for waiter in waiters:
        waiter.until_asleep()
    used.info()  # is taken after these
    before = simulator_cpu()
    time.sleep(SECONDS)  # no condition: nothing is to happen
    assert simulator_cpu() - before < SECONDS / 10
    for waiter in waiters:
        waiter.result()


def test_there_is_nothing_to_write_and_nowhere_to_seek(queue: Queue) -> None:
    with refused(errno.EINVAL):
        os.write(queue.fileno(), b"x")
    with refused(errno.ESPIPE):
        os.lseek(queue.fileno(), 0, os.SEEK_SET)
    with refused(errno.ESPIPE):
        os.pread(queue.fileno(), 32, 0)


def test_timers_are_exact_to_the_millisecond(queue: Queue) -> None:
    late = []
    for _ in range(51):
        end = time.monotonic_ns() + 5_000_000
        queue.add(
            pykevent.timer_event(1, value_ns=end, absolute=True, flags=pykevent.Flags.ONESHOT)
        )
        one(queue)
        late.append((time.monotonic_ns() - end) / 1e6)
    late.sort()
    print(f"timers are {late[0]:.2f} ms late, {statistics.median(late):.2f} in the median")
    assert late[0] >= 0
    # On a busy machine everybody is late: those count that had it for themselves.
    assert late[len(late) // 10] < 1, late
