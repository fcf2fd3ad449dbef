# SPDX-License-Identifier: GPL-2.0-or-later
"""Closing a watched socket, as a server does it all day: nothing is held, nothing is late."""

from __future__ import annotations

import socket

import pytest

import pykevent
from pykevent import Flags, Queue, SocketEvents

from .sockets import STREAMS, Pair, kinds
from .support import DEADLINE, cookies, now, one, tcp_pair, waiting

pytestmark = pytest.mark.needs("SOCKET")

RECV, SEND, ACCEPT = SocketEvents.RECV, SocketEvents.SEND, SocketEvents.ACCEPT
FLAGS = [Flags(0), Flags.EDGE, Flags.ONESHOT, Flags.DISPATCH, Flags.NOTIFY_BROKEN]


@kinds(STREAMS)
@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_the_peer_reads_end_of_file_at_once(queue: Queue, ends: Pair, flags: Flags) -> None:
    near, far = ends
    far.settimeout(DEADLINE)
    queue.add(pykevent.socket_event(near, RECV, flags))
    near.close()
    assert far.recv(1) == b""


@kinds(STREAMS)
def test_the_peer_still_receives_what_was_sent_before_the_close(queue: Queue, ends: Pair) -> None:
    near, far = ends
    far.settimeout(DEADLINE)
    queue.add(pykevent.socket_event(near, RECV))
    near.send(b"last words")
    near.close()
    assert far.recv(64) == b"last words"
    assert far.recv(64) == b""


@kinds(STREAMS)
def test_the_number_is_used_by_another_socket_at_once_and_works(queue: Queue, ends: Pair) -> None:
    near, _ = ends
    queue.add(pykevent.socket_event(near, RECV, cookie=1))
    number = near.fileno()
    near.close()
    others = socket.socketpair()
    with others[0], others[1]:
        successor = next((end for end in others if end.fileno() == number), None)
        assert successor is not None, "the lowest free number is given out first"
        peer = others[1] if successor is others[0] else others[0]
        queue.add(pykevent.socket_event(successor, RECV, cookie=2))
        assert now(queue) == []
        peer.send(b"for the second")
        assert cookies(now(queue)) == [2]
        assert successor.recv(64) == b"for the second"
        assert now(queue) == []


def test_many_sockets_under_one_number_never_meet(queue: Queue) -> None:
    number = -1
    for turn in range(50):
        near, far = socket.socketpair()
        with near, far:
            number = near.fileno() if number < 0 else number
            assert near.fileno() == number
            queue.add(pykevent.socket_event(near, RECV, cookie=turn))
            far.send(b"x")
            assert cookies(now(queue)) == [turn]
    assert now(queue) == []


def test_a_closed_listener_gives_its_port_back_at_once(queue: Queue) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()
    queue.add(pykevent.socket_event(server, ACCEPT))
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address).close()
    with socket.create_server(address) as again:
        queue.add(pykevent.socket_event(again, ACCEPT, cookie=2))
        with socket.create_connection(address):
            assert one(queue).cookie == 2


def test_a_closed_listener_with_connections_waiting_lets_them_go(queue: Queue) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    queue.add(pykevent.socket_event(server, ACCEPT))
    with socket.create_connection(server.getsockname()) as client:
        assert one(queue).data == 1
        server.close()
        client.settimeout(DEADLINE)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert now(queue) == []


def test_a_closed_udp_socket_gives_its_port_back_at_once(queue: Queue) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as first:
        first.bind(("127.0.0.1", 0))
        address = first.getsockname()
        queue.add(pykevent.socket_event(first, RECV))
    with socket.socket(type=socket.SOCK_DGRAM) as second:
        second.bind(address)


@pytest.mark.needs("POLL")
def test_every_kevent_of_the_socket_ends_with_it(queue: Queue) -> None:
    near, far = tcp_pair()
    with near, far:
        queue.add(pykevent.socket_event(near, RECV, Flags.NOTIFY_BROKEN, cookie=1))
        queue.add(pykevent.poll_event(near, RECV, Flags.NOTIFY_BROKEN, cookie=2))
        twin = near.dup()
        queue.add(pykevent.socket_event(twin, RECV, Flags.NOTIFY_BROKEN, cookie=3))
        near.close()
        assert now(queue) == []
        twin.close()
        events = now(queue)
        assert sorted(cookies(events)) == [1, 2, 3]
        assert all(event.broken and event.last for event in events)


@pytest.mark.needs("USER")
def test_a_close_without_a_report_disturbs_nobody_who_waits(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, cookie=9))
    near, far = tcp_pair()
    with near, far:
        queue.add(pykevent.socket_event(near, RECV | SocketEvents.RDHUP))
        waiter = waiting(queue)
        near.close()
        far.settimeout(DEADLINE)
        assert far.recv(1) == b""
        assert waiter.asleep()
    queue.post(1)
    assert cookies(waiter.result()) == [9]


@pytest.mark.parametrize("flags", [Flags.EDGE, Flags.ONESHOT, Flags.DISPATCH], ids=str)
def test_broken_comes_once_in_every_mode(queue: Queue, flags: Flags) -> None:
    near, far = socket.socketpair()
    with near, far:
        queue.add(pykevent.socket_event(near, RECV, flags | Flags.NOTIFY_BROKEN))
        near.close()
        event = one(queue)
        assert event.broken and event.last
        assert now(queue) == []
        assert queue.info().kevents == 0


def test_a_one_shot_that_was_delivered_reports_no_close(queue: Queue) -> None:
    near, far = socket.socketpair()
    with near, far:
        queue.add(pykevent.socket_event(near, RECV, Flags.ONESHOT | Flags.NOTIFY_BROKEN))
        far.send(b"x")
        event = one(queue)
        assert (event.last, event.broken) == (True, False)
        near.close()
        assert now(queue) == []
