# SPDX-License-Identifier: GPL-2.0-or-later
"""Many threads at one queue: who is woken, who gets what, and that nobody is in another's way."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import ExitStack

import pytest

import pykevent
from pykevent import Event, EventType, Flags, PollEvents, Queue, SocketEvents

from . import raw
from .support import (
    InThread,
    child,
    cookies,
    eventually,
    now,
    sleeps,
    waiting,
)

pytestmark = pytest.mark.needs("USER")


@pytest.fixture
def users(queue: Queue) -> Queue:
    """The queue with user events 0 to 99, whose cookies are their numbers."""
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in range(100))
    return queue


def release(queue: Queue, waiters: list[InThread[list[Event]]]) -> None:
    """Post user event 1 until every one of @waiters has returned."""

    def all_returned() -> bool:
        queue.post(1)
        return not any(waiter.running for waiter in waiters)

    eventually(all_returned, "every waiter returns")


#  t0  t1  t2  t3
#    \  |  |  /       WAIT, max 1
#      queue
#        |            4 posts
#      users
def test_each_event_is_delivered_to_exactly_one_thread(users: Queue) -> None:
    waiters = [waiting(users, maximum=1) for _ in range(4)]
    for ident in range(4):
        users.post(ident)
    delivered = [cookies(waiter.result()) for waiter in waiters]
    assert sorted(delivered) == [[0], [1], [2], [3]]
    assert now(users) == []


def test_each_event_is_delivered_once_however_many_threads_take_them(users: Queue) -> None:
    def takes() -> list[int]:
        taken: list[int] = []
        while 99 not in taken:
            taken += cookies(users.wait(None, max=3))
        users.post(99)  # for the next of us
        return taken

    waiters = [InThread(takes) for _ in range(4)]
    for ident in range(99):
        users.post(ident)
    users.post(99)
    taken = [cookie for waiter in waiters for cookie in waiter.result()]
    assert sorted(cookie for cookie in taken if cookie != 99) == list(range(99))


#  t0  t1  t2  t3
#    \  |  |  /       all asleep
#      queue
#        |            1 post
#       user
def test_one_event_wakes_one_thread(users: Queue) -> None:
    waiters = [waiting(users) for _ in range(4)]
    before = {waiter.tid: sleeps(os.getpid(), waiter.tid) for waiter in waiters}
    users.post(1)
    eventually(lambda: sum(waiter.running for waiter in waiters) == 3, "one has the event")
    asleep = [waiter for waiter in waiters if waiter.running]
    assert all(waiter.asleep() for waiter in asleep)
    assert all(sleeps(os.getpid(), w.tid) == before[w.tid] for w in asleep), "woken for nothing"
    release(users, asleep)


#  t0 t1 .. t5
#    \ | /          WAIT, max 1
#    queue
#      |            6 events by one POST
#    users
def test_a_thread_that_leaves_work_in_the_queue_hands_the_wake_up_on(users: Queue) -> None:
    waiters = [waiting(users, maximum=1) for _ in range(6)]
    users.post_many((ident, 0) for ident in range(6))
    delivered = [cookies(waiter.result()) for waiter in waiters]
    assert sorted(delivered) == [[ident] for ident in range(6)]


#  t0         t1
#  min 3      min 1
#     \      /
#      queue ---- 1 post: enough for t1, not for t0
def test_a_thread_that_wants_more_does_not_keep_an_event_from_one_that_wants_less(
    users: Queue,
) -> None:
    wants_three = waiting(users, minimum=3)
    wants_one = waiting(users)
    users.post(1)
    assert cookies(wants_one.result()) == [1]
    assert wants_three.asleep()
    users.post_many([(1, 0), (2, 0), (3, 0)])
    assert cookies(wants_three.result()) == [1, 2, 3]


@pytest.mark.parametrize("order", ["first", "last"])
def test_the_wake_up_of_a_thread_that_a_signal_took_away_is_not_lost(
    users: Queue, order: str
) -> None:
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    call = raw.wait(1, timeout=raw.FOREVER)

    def interrupted() -> int:
        try:
            return call(users.fileno())
        except InterruptedError:
            return -1

    try:
        for ident in range(20):
            if order == "first":
                struck = InThread(interrupted).until_asleep()
                other = waiting(users, maximum=1)
            else:
                other = waiting(users, maximum=1)
                struck = InThread(interrupted).until_asleep()
            users.post(ident)
            signal.pthread_kill(struck.ident, signal.SIGUSR1)
            if struck.result() == 1:
                users.post(ident)
            assert cookies(other.result()) == [ident]
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_the_wake_up_of_a_process_that_was_killed_is_not_lost(
    users: Queue, stack: ExitStack
) -> None:
    fd = os.dup(users.fileno())
    stack.callback(os.close, fd)

    def waits_forever() -> None:
        raw.wait(1, timeout=raw.FOREVER)(fd)

    for ident in range(5):
        with child(waits_forever) as process:
            process.until_asleep()
            other = waiting(users, maximum=1)
            users.post(ident)
            process.kill()
            # the process may have taken the event before it died, or hands it on just now
            end = time.monotonic() + 1
            while other.asleep() and time.monotonic() < end:
                time.sleep(0.002)
            if other.asleep():
                users.post(ident)
            assert cookies(other.result()) == [ident]


@pytest.mark.parametrize("minimum", [1, 5])
def test_add_modify_and_remove_do_not_wait_behind_a_wait(
    queue: Queue, pair: tuple[socket.socket, socket.socket], minimum: int
) -> None:
    queue.add(pykevent.user_event(1, cookie=1))
    waiters = [waiting(queue, minimum=minimum, maximum=minimum) for _ in range(2)]
    for ident in range(10, 20):
        queue.add(pykevent.user_event(ident))
        queue.modify(pykevent.user_event(ident, cookie=2))
        queue.remove(EventType.USER, ident)
    assert queue.info().kevents == 1
    assert all(waiter.asleep() for waiter in waiters)
    queue.add_many(pykevent.user_event(ident) for ident in range(20, 20 + 2 * minimum))
    queue.post_many((ident, 0) for ident in range(20, 20 + 2 * minimum))
    assert [len(waiter.result()) for waiter in waiters] == [minimum, minimum]


@pytest.mark.needs("SOCKET")
def test_what_is_ready_when_added_wakes_one_who_waits_already(
    queue: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    far.send(b"x")
    waiter = waiting(queue)
    queue.add(pykevent.socket_event(near, SocketEvents.RECV, cookie=5))
    assert cookies(waiter.result()) == [5]


@pytest.mark.needs("SOCKET")
def test_what_is_ready_when_modified_wakes_one_who_waits_already(
    queue: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    far.send(b"x")
    queue.add(pykevent.socket_event(near, 0))
    waiter = waiting(queue)
    queue.modify(pykevent.socket_event(near, SocketEvents.RECV, cookie=6))
    assert cookies(waiter.result()) == [6]


@pytest.mark.needs("POLL")
def test_activity_of_a_watched_file_wakes_one_who_waits(
    queue: Queue, pipe: tuple[int, int]
) -> None:
    queue.add(pykevent.poll_event(pipe[0], PollEvents.IN, cookie=5))
    waiter = waiting(queue)
    os.write(pipe[1], b"x")
    assert cookies(waiter.result()) == [5]


def test_after_remove_returns_a_wait_that_starts_later_does_not_deliver(users: Queue) -> None:
    for ident in range(50):
        posts = InThread(lambda ident=ident: users.post_many([(ident, 0)]))  # type: ignore[misc]
        users.remove(EventType.USER, ident)
        assert ident not in cookies(now(users))
        posts.result()
    assert now(users) == []


def test_a_removed_kevent_does_not_count_for_min(users: Queue) -> None:
    waiter = waiting(users, minimum=2)
    users.post(1)
    users.remove(EventType.USER, 1)
    users.post(2)
    assert waiter.asleep()
    users.post(3)
    assert cookies(waiter.result()) == [2, 3]


@pytest.mark.needs("POLL")
def test_a_one_shot_goes_to_one_thread_and_is_removed(queue: Queue, pipe: tuple[int, int]) -> None:
    waiters = [waiting(queue) for _ in range(3)]
    queue.add(pykevent.user_event(1))
    queue.add(pykevent.poll_event(pipe[0], PollEvents.IN, Flags.ONESHOT, cookie=4))
    os.write(pipe[1], b"x")
    eventually(lambda: sum(waiter.running for waiter in waiters) == 2, "one has the event")
    (winner,) = [waiter for waiter in waiters if not waiter.running]
    (event,) = winner.result()
    assert (event.cookie, event.last) == (4, True)
    assert queue.info().kevents == 1
    assert all(waiter.asleep() for waiter in waiters if waiter.running)
    release(queue, waiters)


@pytest.mark.needs("POLL")
def test_a_level_event_reaches_every_thread_that_waits_for_it(
    queue: Queue, pipe: tuple[int, int]
) -> None:
    queue.add(pykevent.poll_event(pipe[0], PollEvents.IN, cookie=4))
    waiters = [waiting(queue) for _ in range(3)]
    os.write(pipe[1], b"x")
    for waiter in waiters:
        assert cookies(waiter.result()) == [4]
