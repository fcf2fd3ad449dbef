# SPDX-License-Identifier: GPL-2.0-or-later
"""A simulator that runs out of descriptors: what it refuses has not happened, and no more."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner.simulator import Simulator

import pykevent
from pykevent import Flags, InodeEvents, PollEvents, Queue, SocketEvents
from tests.conformance.support import cookies, eventually, now, one, refused

RECV, SEND = SocketEvents.RECV, SocketEvents.SEND
FEW = 128
Pairs = list[tuple[socket.socket, socket.socket]]


@pytest.fixture
def few(place: Path) -> Iterator[Simulator]:
    """A simulator that may have 128 descriptors."""
    with Simulator(place / "few", descriptors=FEW) as served:
        yield served


@pytest.fixture
def queue(few: Simulator) -> Iterator[Queue]:
    """A queue of it."""
    with pykevent.open(few.device) as opened:
        yield opened


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    """More sockets than can be watched one by one."""
    made = [socket.socketpair() for _ in range(FEW)]
    yield made
    for near, far in made:
        near.close()
        far.close()


def fill(queue: Queue, pairs: Pairs, flags: Flags | int) -> list[int]:
    """Watch until no more can be; the results."""
    return queue.add_many(
        [
            pykevent.socket_event(near, RECV, flags, cookie=cookie)
            for cookie, (near, _) in enumerate(pairs)
        ]
    )


def test_each_request_has_a_result_of_its_own(queue: Queue, pairs: Pairs) -> None:
    results = fill(queue, pairs, Flags.EDGE)
    good = results.count(0)
    assert results == [0] * good + [-errno.ENOSPC] * (FEW - good)
    assert FEW // 2 < good < FEW
    assert queue.info().kevents == good


def test_a_modify_that_is_refused_changes_nothing(queue: Queue, pairs: Pairs) -> None:
    fill(queue, pairs, Flags.EDGE)
    near, far = pairs[1]
    with refused(errno.ENOSPC):
        queue.modify(pykevent.socket_event(near, SEND, Flags.EDGE, cookie=500))
    far.send(b"x")
    event = one(queue)
    assert (event.cookie, event.events) == (1, RECV)


def test_a_modify_that_others_see_in_the_middle_ends_no_kevent(queue: Queue, pairs: Pairs) -> None:
    # Level kevents share an instance, which a change has to leave and to enter.
    assert fill(queue, pairs, 0) == [0] * FEW
    near, far = pairs[-1]
    far.send(b"x")
    stop = threading.Event()

    def looks() -> None:
        while not stop.is_set():
            now(queue)

    other = threading.Thread(target=looks)
    other.start()
    try:
        for turn in range(3000):
            queue.modify(pykevent.socket_event(near, RECV, cookie=1000 + turn % 2))
    finally:
        stop.set()
        other.join()
    assert queue.info().kevents == FEW
    assert cookies(now(queue)) == [1001]


def test_nothing_is_lost_to_those_who_have_their_descriptors(queue: Queue, pairs: Pairs) -> None:
    queue.add(pykevent.timer_event(1, 0.05, 0.05, cookie=900))
    fill(queue, pairs, Flags.EDGE)
    files = [os.open("/dev/random", os.O_RDONLY) for _ in range(FEW)]
    try:
        results = queue.add_many(pykevent.poll_event(fd, PollEvents.IN) for fd in files)
        assert -errno.ENOSPC in results
        for _ in range(3):
            eventually(lambda: 900 in cookies(queue.wait(1)), "the timer goes on")
    finally:
        for fd in files:
            os.close(fd)


def test_one_that_has_none_left_can_still_be_ended(few: Simulator) -> None:
    queues = []
    with contextlib.suppress(OSError):
        for _ in range(FEW):
            queues.append(pykevent.open(few.device))
            queues[-1].add(pykevent.timer_event(1, 1))
    with tempfile.TemporaryDirectory() as folder:
        results = [add_path(queues[0], Path(folder, f"{number}")) for number in range(2 * FEW)]
    assert errno.ENOSPC in results
    for queue in queues:
        queue.close()
    assert few.terminate() == 0


def add_path(queue: Queue, path: Path) -> int:
    """Watch a new file; 0 or its errno."""
    path.touch()
    try:
        queue.add_path(path, InodeEvents.MODIFY, ident=int(path.name))
    except OSError as error:
        return error.errno or -1
    return 0


def test_what_was_taken_is_given_back(few: Simulator, pairs: Pairs) -> None:
    def used() -> int:
        return len(os.listdir(f"/proc/{few.pid}/fd"))

    def round_of(flags: Flags | int) -> None:
        with pykevent.open(few.device) as queue:
            fill(queue, pairs, flags)

    # The first time it keeps what it needs to share.
    round_of(0)
    before = used()
    for flags in (Flags.EDGE, 0) * 3:
        round_of(flags)
        eventually(lambda: used() <= before, f"{used()} descriptors come down to {before}")


def test_transfers_of_more_sockets_than_there_are_descriptors_work_or_are_refused(
    queue: Queue, pairs: Pairs
) -> None:
    buffers = [bytearray(4) for _ in pairs]
    asked: dict[int, bytearray] = {}
    for cookie, ((near, _), buffer) in enumerate(zip(pairs, buffers, strict=True)):
        try:
            queue.recv_into(near, buffer, cookie=cookie)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        else:
            asked[cookie] = buffer
    assert len(asked) > FEW // 2  # some share
    for cookie, (_, far) in enumerate(pairs[:20]):
        far.send(b"%4d" % cookie)
    told = 0
    while told < 20:
        for event in queue.wait(10):
            assert (event.data, int(asked[event.cookie])) == (4, event.cookie)
            told += 1
    for near, _ in pairs[20:40]:
        near.close()
    told = 0
    while told < 20:
        for event in queue.wait(10):
            assert event.broken
            assert 20 <= event.cookie < 40
            told += 1
    for transfer in queue._transfers.pending():
        assert transfer.cancel()
    assert queue.info().kevents == 0
