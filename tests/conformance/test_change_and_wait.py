# SPDX-License-Identifier: GPL-2.0-or-later
"""CHANGE_WAIT: a batch of changes, then a wait, in one ioctl."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time

import pytest

import pykevent
from pykevent import Change, EventType, Flags, Op, PollEvents, Queue, Request, SocketEvents, abi

from . import raw
from .support import DEADLINE, InThread, cookies, now, one

pytestmark = pytest.mark.needs("USER")


def add(request: Request) -> Change:
    """The change that adds it."""
    return Change(Op.ADD, request)


def modify(request: Request) -> Change:
    """The change that modifies it."""
    return Change(Op.MODIFY, request)


def remove(type: EventType, ident: int) -> Change:
    """The change that removes it."""
    return Change(Op.REMOVE, Request(type, ident, 0))


@pytest.mark.needs("POLL")
def test_what_a_change_adds_is_delivered_by_the_same_call(
    queue: Queue, pipe: tuple[int, int]
) -> None:
    os.write(pipe[1], b"x")
    results, events = queue.change_and_wait(
        [add(pykevent.poll_event(pipe[0], PollEvents.IN, cookie=8))], DEADLINE
    )
    assert results == [0]
    assert cookies(events) == [8]


@pytest.mark.needs("TIMER")
def test_the_call_waits_for_what_its_changes_bring(queue: Queue) -> None:
    results, events = queue.change_and_wait([add(pykevent.timer_event(1, 0.02))], DEADLINE)
    assert results == [0]
    assert [event.type for event in events] == [EventType.TIMER]


def test_changes_are_applied_in_their_order(queue: Queue) -> None:
    results, events = queue.change_and_wait(
        [
            remove(EventType.USER, 1),
            add(pykevent.user_event(1, cookie=1)),
            modify(pykevent.user_event(1, cookie=2)),
            add(pykevent.user_event(1)),
            remove(EventType.USER, 1),
            modify(pykevent.user_event(1)),
            add(pykevent.user_event(1, cookie=3)),
        ],
        0,
    )
    assert results == [-errno.ENOENT, 0, 0, -errno.EEXIST, 0, -errno.ENOENT, 0]
    assert events == []
    queue.post(1)
    assert one(queue).cookie == 3


def test_a_change_that_fails_stops_none_of_those_behind_it(queue: Queue) -> None:
    call = raw.wait(
        4,
        changes=[
            raw.request(99, 1, op=abi.Op.ADD),
            raw.request(EventType.USER, 1, 1, op=abi.Op.ADD),
        ],
    )
    assert call(queue.fileno()) == 0
    assert call.results() == [-errno.ENXIO, 0]
    assert call.wait().changed == 1


def test_the_call_does_not_wait_where_a_change_failed(queue: Queue) -> None:
    results, events = queue.change_and_wait([remove(EventType.USER, 1)], None)
    assert results == [-errno.ENOENT]
    assert events == []


def test_events_at_hand_are_delivered_although_a_change_failed(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, cookie=6))
    queue.post(1)
    results, events = queue.change_and_wait([add(pykevent.user_event(1))], None, min=3)
    assert results == [-errno.EEXIST]
    assert cookies(events) == [6]


def test_the_call_with_max_0_and_min_0_only_changes(queue: Queue) -> None:
    queue.add(pykevent.user_event(2))
    queue.post(2)
    results, events = queue.change_and_wait([add(pykevent.user_event(1))], None, min=0, max=0)
    assert (results, events) == ([0], [])
    assert queue.info().kevents == 2
    assert len(now(queue)) == 1


def test_the_call_without_changes_is_a_wait(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    queue.post(1)
    results, events = queue.change_and_wait([], DEADLINE)
    assert (results, len(events)) == ([], 1)


def test_the_call_keeps_its_timeout(queue: Queue) -> None:
    begun = time.monotonic_ns()
    results, events = queue.change_and_wait([add(pykevent.user_event(1))], 0.05)
    assert time.monotonic_ns() - begun >= 50_000_000
    assert (results, events) == ([0], [])


def test_the_call_waits_for_min_events_and_takes_no_more_than_max(queue: Queue) -> None:
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in range(4))
    call = InThread(
        lambda: queue.change_and_wait([add(pykevent.user_event(4, cookie=4))], None, min=3, max=3)
    ).until_asleep()
    queue.post_many([(4, 0), (0, 0)])
    assert call.asleep()
    queue.post_many([(1, 0), (2, 0)])
    results, events = call.result()
    assert (results, cookies(events)) == ([0], [4, 0, 1])
    assert cookies(now(queue)) == [2]


def test_changes_reach_those_who_wait_already(queue: Queue, pipe: tuple[int, int]) -> None:
    if not queue.info().features & pykevent.Feature.POLL:
        pytest.skip("INFO has no POLL")
    waiter = InThread(lambda: queue.wait(None)).until_asleep()
    os.write(pipe[1], b"x")
    change = add(pykevent.poll_event(pipe[0], PollEvents.IN, Flags.ONESHOT, cookie=4))
    queue.change_and_wait([change], None, min=0, max=0)
    assert cookies(waiter.result()) == [4]


def test_records_stand_behind_the_changes(queue: Queue) -> None:
    changes = [raw.request(EventType.USER, n, 1, op=abi.Op.ADD) for n in range(3)]
    queue.add(pykevent.user_event(7, cookie=70))
    queue.post(7, 71)
    call = raw.wait(2, changes=changes)
    assert call(queue.fileno()) == 1
    assert (call.wait().changed, call.wait().records, call.wait().left) == (3, 1, 0)
    assert call.results() == [0, 0, 0]
    (record,) = call.records()
    assert (record.event.cookie, record.event.data) == (70, 71)


def test_a_signal_ends_the_call_and_changed_says_what_was_changed(queue: Queue) -> None:
    changes = [
        raw.request(EventType.USER, 1, 1, op=abi.Op.ADD),
        raw.request(EventType.USER, 2, 1, op=abi.Op.ADD),
    ]
    call = raw.wait(2, timeout=raw.FOREVER, changes=changes)
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)

    def waits() -> int:
        with pytest.raises(OSError) as caught:
            call(queue.fileno())
        return caught.value.errno or 0

    try:
        thread = InThread(waits).until_asleep()
        signal.pthread_kill(thread.ident, signal.SIGUSR1)
        assert thread.result() == errno.EINTR
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert call.wait().changed == 2
    assert call.results() == [0, 0]
    assert queue.info().kevents == 2


@pytest.mark.needs("SOCKET")
def test_a_server_needs_no_other_call(
    queue: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    far.send(b"question")
    _, (event,) = queue.change_and_wait(
        [add(pykevent.socket_event(near, SocketEvents.RECV, Flags.DISPATCH))], DEADLINE
    )
    assert event.events & SocketEvents.RECV
    near.recv(64)
    _, (event,) = queue.change_and_wait(
        [modify(pykevent.socket_event(near, SocketEvents.SEND, Flags.DISPATCH))], DEADLINE
    )
    assert event.events == SocketEvents.SEND
    results, events = queue.change_and_wait([remove(EventType.SOCKET, near.fileno())], 0)
    assert (results, events) == ([0], [])
