# SPDX-License-Identifier: GPL-2.0-or-later
"""What a call costs, and that idle sockets cost it nothing.  The figures are printed (-s)."""

from __future__ import annotations

import os
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runner.simulator import Simulator

import pykevent
from pykevent import EventType, Queue, SocketEvents
from tests.conformance.support import Child, cookies, eventually, now, poll_bits

RECV = SocketEvents.RECV
IDLE = 20_000
MICROSECOND = 1000
FEW = 128
TURNS = 500


def median(call: Callable[[], object], turns: int = 500) -> float:
    """What one call takes, in microseconds."""
    taken = []
    for _ in range(turns):
        begun = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - begun)
    return sorted(taken)[turns // 2] / MICROSECOND


def best(call: Callable[[], object]) -> float:
    """The same on a machine that does other things, too: the best of some medians."""
    return min(median(call, 200) for _ in range(40))


@pytest.fixture
def one_processor(simulator: Simulator) -> Iterator[None]:
    """We and the simulator share one: what it takes to wake another one is not counted."""
    ours = os.sched_getaffinity(0)
    one = {min(ours)}
    try:
        os.sched_setaffinity(0, one)
        for thread in Path(f"/proc/{simulator.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), one)
        yield
    finally:
        os.sched_setaffinity(0, ours)


def room() -> int:
    """How many sockets this process may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200


def registers(fd: int, count: int, done: int, until: tuple[int, int]) -> Callable[[], None]:
    """What a process does that has so many idle sockets watched until it is told to end."""

    def runs() -> None:
        os.close(until[1])
        shared = Queue.fromfd(fd)
        sockets = [end for _ in range(count // 2) for end in socket.socketpair()]
        results = shared.add_many([pykevent.socket_event(end, RECV) for end in sockets])
        assert results == [0] * count
        os.write(done, b"x")
        os.read(until[0], 1)

    return runs


def test_a_call_takes_no_fresh_memory(queue: Queue, simulator: Simulator) -> None:
    """As it would if the interpreter had to get to know the calling thread each time."""

    def faults() -> int:
        fields = Path(f"/proc/{simulator.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[7])

    def calls(turns: int) -> None:
        for _ in range(turns):
            queue.info()
            queue.wait(0)
            poll_bits(queue.fileno(), select.POLLIN)

    calls(TURNS)
    before = faults()
    calls(TURNS)
    assert faults() - before < TURNS


@pytest.mark.usefixtures("one_processor")
def test_a_call_takes_less_than_100_microseconds(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    figures = {
        "INFO": best(queue.info),
        "POST": best(lambda: queue.post(1)),
        "WAIT, nothing ready": best(lambda: queue.wait(0, max=16)),
    }
    print({name: f"{value:.0f} us" for name, value in figures.items()})
    assert max(figures.values()) < 100, figures


@pytest.mark.usefixtures("one_processor")
def test_20_000_idle_sockets_cost_a_wait_nothing(queue: Queue) -> None:
    near, far = socket.socketpair()
    done, written = os.pipe()
    until, held = os.pipe()
    fd = os.dup(queue.fileno())
    with near, far:
        queue.add(pykevent.socket_event(near, RECV, cookie=9))
        alone = best(lambda: queue.wait(0, max=16))
        each = min(IDLE, room()) // 2 * 2
        processes: list[Child] = []
        try:
            # In several processes, as one may not be allowed as many.
            for count in [each] * (IDLE // each) + [IDLE % each] * bool(IDLE % each):
                processes.append(Child(registers(fd, count, written, (until, held))))
                assert os.read(done, 1) == b"x"
            assert queue.info().kevents == IDLE + 1
            crowded = best(lambda: queue.wait(0, max=16))
            far.send(b"x")
            assert cookies(now(queue)) == [9]
            os.close(held)
            held = -1
            for process in processes:
                process.finish()
        finally:
            for process in processes:
                process.kill()
            for end in (done, written, until, held, fd):
                if end >= 0:
                    os.close(end)
        eventually(lambda: queue.info().kevents == 1, "their kevents are gone with them")
        # The machine may have got busier, or less busy, since the first time.
        alone = max(alone, best(lambda: queue.wait(0, max=16)))
        print(f"WAIT: {alone:.1f} us; among {IDLE} idle sockets: {crowded:.1f} us")
        assert crowded < alone * 1.1


def test_where_descriptors_are_few_kevents_share_them(place: Path) -> None:
    few = Simulator(place / "few", descriptors=FEW)
    sockets = [end for _ in range(FEW) for end in socket.socketpair()]
    with few, pykevent.open(few.device) as queue:
        for cookie, end in enumerate(sockets):
            queue.add(pykevent.socket_event(end, RECV, cookie=cookie))
        for end in sockets:
            end.send(b"x")
        assert sorted(cookies(now(queue, 510))) == sorted(range(len(sockets)))
        for end in sockets[::2]:
            queue.remove(EventType.SOCKET, end)
        assert sorted(cookies(now(queue))) == list(range(1, len(sockets), 2))
        for end in sockets:
            end.close()
        assert now(queue) == []
        assert queue.info().kevents == 0
