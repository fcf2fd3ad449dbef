# SPDX-License-Identifier: GPL-2.0-or-later
"""A queue among threads and processes, as pykevent hands it out."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress

import pytest

import pykevent
from pykevent import EventType, Flags, Queue, SocketEvents

from .support import InThread, child, cookies, eventually, now, one, soon, waiting

pytestmark = pytest.mark.needs("USER")


def test_a_forked_process_sees_the_queue_closed(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))

    def looks() -> None:
        assert queue.closed
        with pytest.raises(ValueError, match="closed"):
            queue.wait(0)
        queue.close()

    with child(looks) as process:
        process.finish()
    assert not queue.closed
    queue.post(1)
    assert len(now(queue)) == 1


def test_the_end_of_a_forked_process_leaves_the_queue_as_it_was(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    for _ in range(3):
        with child(lambda: None) as process:
            process.finish()
    assert queue.info().kevents == 1


def test_a_forked_process_may_open_its_own(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))

    def opens() -> None:
        with pykevent.open() as mine:
            assert mine.info().kevents == 0
            mine.add(pykevent.user_event(1))
            mine.post(1, 4)
            assert [event.data for event in now(mine)] == [4]

    with child(opens) as process:
        process.finish()
    assert now(queue) == []


@pytest.mark.needs("SOCKET")
def test_a_process_that_dies_leaves_nothing_behind(queue: Queue) -> None:
    before = queue.info().user_kevents

    def dies() -> None:
        with pykevent.open() as mine:
            near, _ = socket.socketpair()
            mine.add_many(pykevent.user_event(ident) for ident in range(100))
            mine.add(pykevent.socket_event(near, SocketEvents.RECV))
            mine.add(pykevent.user_event(1000, Flags.ONESHOT))
            mine.post_many((ident, 0) for ident in range(50))
            os.kill(os.getpid(), signal.SIGKILL)

    with child(dies) as process:
        eventually(lambda: process.exited, "the child is dead")
    eventually(lambda: queue.info().user_kevents == before, "its kevents are gone")


def test_closing_a_queue_wakes_the_thread_that_waits_in_it(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    waiters = [waiting(queue) for _ in range(2)]
    queue.close()
    for waiter in waiters:
        with pytest.raises(ValueError, match="closed"):
            waiter.result()
    assert queue.closed


def test_closing_twice_does_no_harm_and_methods_say_that_it_is_closed(queue: Queue) -> None:
    queue.close()
    queue.close()
    for call in (
        queue.fileno,
        queue.info,
        lambda: queue.wait(0),
        lambda: queue.add(pykevent.user_event(1)),
        lambda: queue.post(1),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_other_threads_run_while_one_waits(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    waiter = waiting(queue, maximum=510)  # as large a buffer as there is
    assert sum(range(10_000)) == 49_995_000
    assert waiter.asleep()
    queue.post(1)
    assert len(waiter.result()) == 1


def test_threads_that_add_post_wait_and_remove_at_once_lose_nothing(queue: Queue) -> None:
    each, threads = 40, 3
    total = each * threads
    done = threading.Event()
    counted: list[int] = []

    def adds_and_posts(first: int) -> None:
        for ident in range(first, first + each):
            queue.add(pykevent.user_event(ident, cookie=ident))
            queue.post(ident)

    def waits() -> None:
        while not done.is_set():
            for event in queue.wait(None, max=4):
                counted.append(event.cookie)
                if event.cookie != total:
                    queue.remove(EventType.USER, event.ident)

    queue.add(pykevent.user_event(total, cookie=total))
    waiters = [InThread(waits) for _ in range(2)]
    adders = [InThread(lambda n=n: adds_and_posts(n * each)) for n in range(threads)]  # type: ignore[misc]
    for adder in adders:
        adder.result()
    eventually(lambda: len(counted) == total, "every event is delivered")
    done.set()

    def released() -> bool:
        queue.post(total)
        return not any(waiter.running for waiter in waiters)

    eventually(released, "the waiters end")
    for waiter in waiters:
        waiter.result()
    assert sorted(cookie for cookie in counted if cookie != total) == list(range(total))
    assert queue.info().kevents == 1


@pytest.mark.needs("SOCKET")
def test_a_socket_closed_by_one_thread_is_no_trouble_to_another_that_waits(
    queue: Queue,
) -> None:
    queue.add(pykevent.user_event(1, cookie=1))
    waiter = waiting(queue, minimum=2)
    for _ in range(20):
        near, far = socket.socketpair()
        with near, far:
            queue.add(pykevent.socket_event(near, SocketEvents.RECV))
    assert waiter.asleep()
    queue.add(pykevent.user_event(2, cookie=2))
    queue.post_many([(1, 0), (2, 0)])
    assert cookies(waiter.result()) == [1, 2]


@pytest.mark.needs("SOCKET")
def test_add_and_remove_against_traffic_never_delivers_what_was_removed(
    queue: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    far.setblocking(False)
    stop = threading.Event()

    def sends() -> None:
        while not stop.is_set():
            with suppress(BlockingIOError):
                far.send(b"x")

    sender = InThread(sends)
    try:
        for turn in range(100):
            queue.add(pykevent.socket_event(near, SocketEvents.RECV, cookie=turn))
            assert cookies(soon(queue)) == [turn]
            queue.remove(EventType.SOCKET, near)
            assert now(queue) == []
            near.recv(4096)
    finally:
        stop.set()
        sender.result()


@pytest.mark.needs("TIMER")
def test_a_timer_may_fire_while_it_is_removed(queue: Queue) -> None:
    for turn in range(100):
        queue.add(pykevent.timer_event(1, value_ns=1 + turn * 1000, interval_ns=10_000))
        queue.remove(EventType.TIMER, 1)
        assert now(queue) == []


def test_a_queue_made_of_a_descriptor_shares_the_queue(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, cookie=5))
    with Queue.fromfd(os.dup(queue.fileno())) as twin:
        twin.post(1)
        assert one(queue).cookie == 5
    assert queue.info().kevents == 1
