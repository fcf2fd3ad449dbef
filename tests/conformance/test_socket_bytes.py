# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_BYTES: how much there is to read, or how much room to write, as the socket itself says."""

from __future__ import annotations

import array
import fcntl
import select
import socket
import termios

import pytest

import pykevent
from pykevent import Flags, Queue, SocketEvents

from .sockets import ALL, DATAGRAMS, STREAMS, Pair, kinds
from .support import now, one, until_polled

pytestmark = pytest.mark.needs("SOCKET")

# <asm/socket.h>; Python has no name for it.
SO_PEEK_OFF = 42
RECV, SEND, ACCEPT = SocketEvents.RECV, SocketEvents.SEND, SocketEvents.ACCEPT


def readable(sock: socket.socket) -> int:
    """What FIONREAD answers."""
    answer = array.array("i", [-1])
    fcntl.ioctl(sock, termios.FIONREAD, answer)
    return answer[0]


@kinds(ALL)
def test_without_the_flag_data_is_0(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV | SEND))
    far.send(b"12345")
    until_polled(near, select.POLLIN)
    assert one(queue).data == 0


@kinds(ALL)
def test_data_is_what_fionread_answers(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV, Flags.BYTES))
    far.send(b"12345")
    assert one(queue).data == readable(near) == 5


@kinds(STREAMS)
def test_data_counts_all_that_a_stream_holds(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV, Flags.BYTES))
    far.send(b"x" * 100)
    far.send(b"x" * 23)
    far.shutdown(socket.SHUT_WR)
    until_polled(near, select.POLLRDHUP)
    assert one(queue).data == readable(near) == 123
    near.recv(100)
    assert one(queue).data == readable(near) == 23


@kinds(DATAGRAMS)
def test_data_is_the_size_of_the_first_datagram(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV, Flags.BYTES))
    for size in (7, 300):
        far.send(b"x" * size)
    for size in (7, 300):
        assert one(queue).data == readable(near) == size
        near.recv(1000)
    assert now(queue) == []


@kinds(DATAGRAMS)
def test_counting_leaves_the_socket_as_it_was(queue: Queue, ends: Pair) -> None:
    near, far = ends
    near.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    queue.add(pykevent.socket_event(near, RECV, Flags.BYTES))
    far.send(b"first")
    far.send(b"second one")
    for _ in range(3):
        assert one(queue).data == 5
    assert near.recv(1000, socket.MSG_PEEK) == b"first"
    assert near.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF) == 5


@kinds(STREAMS)
def test_at_the_end_of_the_stream_data_is_0(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV, Flags.BYTES))
    far.shutdown(socket.SHUT_WR)
    event = one(queue)
    assert (event.events, event.data) == (RECV, 0)


@kinds(ALL)
def test_data_is_the_room_to_write_where_only_that_is_reported(queue: Queue, ends: Pair) -> None:
    near, _ = ends
    queue.add(pykevent.socket_event(near, RECV | SEND, Flags.BYTES))
    event = one(queue)
    assert event.events == SEND
    assert 0 < event.data <= near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


@kinds(["UNIX stream", "UNIX seqpacket", "UNIX datagram"])
def test_the_room_shrinks_by_what_the_peer_has_not_read(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, SEND, Flags.BYTES))
    empty = one(queue).data
    near.send(b"x" * 1000)
    assert one(queue).data <= empty - 1000
    far.recv(1000)
    assert one(queue).data == empty


@kinds(ALL)
def test_where_both_are_reported_data_is_what_there_is_to_read(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV | SEND, Flags.BYTES))
    far.send(b"123")
    until_polled(near, select.POLLIN)
    event = one(queue)
    assert (event.events, event.data) == (RECV | SEND, 3)


@kinds(["TCP over IPv4", "UNIX stream"])
def test_modify_turns_the_counting_on_and_off(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV))
    far.send(b"123")
    assert one(queue).data == 0
    queue.modify(pykevent.socket_event(near, RECV, Flags.BYTES))
    assert one(queue).data == 3
    queue.modify(pykevent.socket_event(near, RECV))
    assert one(queue).data == 0


def test_a_listening_socket_counts_connections_with_the_flag_as_without(queue: Queue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        queue.add(pykevent.socket_event(server, ACCEPT, Flags.BYTES))
        with socket.create_connection(server.getsockname()):
            assert one(queue).data == 1
