# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of what becomes ready by one call, which asks different sources in different ways."""

from __future__ import annotations

import socket

import pykevent
from pykevent import Change, EventType, Flags, Op, Queue, SocketEvents
from tests.conformance.support import cookies, now

RECV, SEND = SocketEvents.RECV, SocketEvents.SEND


def test_what_a_batch_finds_ready_is_delivered_in_the_order_of_the_batch(queue: Queue) -> None:
    near, far = socket.socketpair()
    with near, far:
        requests = [
            pykevent.socket_event(near, SEND, cookie=1),
            pykevent.timer_event(1, value_ns=0, cookie=2),
            pykevent.poll_event(far, 4, cookie=3),
            pykevent.timer_event(2, value_ns=0, cookie=4),
        ]
        assert queue.add_many(requests) == [0] * 4
        assert cookies(now(queue)) == [1, 2, 3, 4]


def test_an_edge_that_was_found_ready_is_one_report(queue: Queue) -> None:
    near, far = socket.socketpair()
    with near, far:
        for turn in range(200):
            change = Change(Op.ADD, pykevent.socket_event(near, SEND, Flags.EDGE, cookie=turn))
            assert [event.cookie for event in queue.change_and_wait([change], 0)[1]] == [turn]
            assert now(queue) == []
            queue.modify(pykevent.socket_event(near, SEND, Flags.EDGE, cookie=turn + 1000))
            assert cookies(now(queue)) == [turn + 1000]
            assert now(queue) == []
            queue.remove(EventType.SOCKET, near)


def test_what_modify_finds_ready_goes_behind_what_was_ready(queue: Queue) -> None:
    near, far = socket.socketpair()
    with near, far:
        queue.add(pykevent.socket_event(near, RECV, cookie=1))
        queue.add(pykevent.user_event(1, cookie=2))
        queue.post(1)
        queue.modify(pykevent.socket_event(near, SEND, cookie=3))
        assert cookies(now(queue)) == [2, 3]
