# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_SOCKET: receive, accept, send, hang-up, error, on every kind of socket."""

from __future__ import annotations

import errno
import select
import socket
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import pykevent
from pykevent import EventType, Flags, Queue, SocketEvents

from .sockets import ALL, STREAMS, Pair, kinds
from .support import DEADLINE, eventually, now, one, poll_bits, soon, until_polled

pytestmark = pytest.mark.needs("SOCKET")

RECV, SEND = SocketEvents.RECV, SocketEvents.SEND
ACCEPT, RDHUP, PRI = SocketEvents.ACCEPT, SocketEvents.RDHUP, SocketEvents.PRI
ERR, HUP = SocketEvents.ERR, SocketEvents.HUP


@kinds(ALL)
def test_data_from_the_peer_is_recv(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV, cookie=1))
    assert now(queue) == []
    far.send(b"hello")
    event = one(queue)
    assert (event.type, event.ident, event.cookie) == (EventType.SOCKET, near.fileno(), 1)
    assert event.events == RECV
    assert near.recv(64) == b"hello"
    assert now(queue) == []


@kinds(ALL)
def test_room_to_send_is_send(queue: Queue, ends: Pair) -> None:
    queue.add(pykevent.socket_event(ends[0], SEND))
    assert one(queue).events == SEND


@kinds(ALL)
def test_recv_and_send_come_as_one_event(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV | SEND))
    far.send(b"x")
    until_polled(near, select.POLLIN)
    assert one(queue).events == RECV | SEND


@kinds(ALL)
def test_only_what_was_asked_for_is_reported(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, 0))
    far.send(b"x")
    until_polled(near, select.POLLIN)
    assert now(queue) == []


@kinds([*STREAMS, "UNIX datagram", "UNIX seqpacket"])
def test_send_stops_when_there_is_no_room_and_comes_back(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, SEND))
    far.settimeout(DEADLINE)
    sent = 0
    while poll_bits(near, select.POLLOUT):
        with suppress(BlockingIOError):
            sent += near.send(b"x" * 8000, socket.MSG_DONTWAIT)
    assert now(queue) == []
    while sent:
        sent -= len(far.recv(8000))
    assert one(queue).events == SEND


@kinds([*STREAMS, "UNIX seqpacket"])
def test_the_end_of_what_the_peer_sends_is_rdhup_and_recv(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV | RDHUP))
    far.shutdown(socket.SHUT_WR)
    until_polled(near, select.POLLRDHUP)
    assert one(queue).events == RECV | RDHUP
    assert near.recv(64) == b""


@kinds([*STREAMS, "UNIX seqpacket"])
def test_rdhup_is_not_reported_unless_asked_for(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, 0))
    far.shutdown(socket.SHUT_WR)
    until_polled(near, select.POLLRDHUP)
    assert now(queue) == []


@kinds([*STREAMS, "UNIX seqpacket"])
def test_the_end_of_both_directions_is_hup_although_not_asked_for(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, 0))
    far.shutdown(socket.SHUT_WR)
    near.shutdown(socket.SHUT_WR)
    assert one(queue).events == HUP


@kinds([*STREAMS, "UNIX seqpacket"])
def test_the_close_of_the_peer_is_rdhup_and_recv(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, RECV | RDHUP))
    far.close()
    until_polled(near, select.POLLRDHUP)
    assert one(queue).events & (RECV | RDHUP) == RECV | RDHUP


@kinds(["TCP over IPv4", "TCP over IPv6"])
def test_a_reset_is_err_and_hup_although_not_asked_for(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, 0))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    until_polled(near, select.POLLERR | select.POLLHUP)
    assert one(queue).events == ERR | HUP
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    assert one(queue).events == HUP


@kinds(["TCP over IPv4", "TCP over IPv6"])
def test_urgent_data_is_pri(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.add(pykevent.socket_event(near, PRI))
    far.send(b"!", socket.MSG_OOB)
    assert one(queue).events == PRI
    assert near.recv(1, socket.MSG_OOB) == b"!"
    assert now(queue) == []


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_a_refused_connection_is_err(queue: Queue) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(("127.0.0.1", free_port())) in (
            errno.EINPROGRESS,
            errno.ECONNREFUSED,
        )
        queue.add(pykevent.socket_event(sock, SEND))
        assert one(queue).events & (ERR | HUP)


def test_a_connection_that_is_made_is_send(queue: Queue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(server.getsockname()) == errno.EINPROGRESS
        queue.add(pykevent.socket_event(sock, SEND))
        assert one(queue).events == SEND
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_datagram_that_nobody_takes_is_err(queue: Queue) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        queue.add(pykevent.socket_event(sock, 0))
        sock.send(b"x")
        assert one(queue).events == ERR
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert now(queue) == []


def test_a_socket_that_is_not_connected_hangs_up_as_poll_says(queue: Queue) -> None:
    with socket.socket() as sock:
        queue.add(pykevent.socket_event(sock, SEND))
        assert one(queue).events == SEND | HUP


def listen(kind: str, directory: Path) -> socket.socket:
    """A listening socket of that kind."""
    if kind == "UNIX":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(directory / "listener"))
        server.listen(16)
        return server
    family = socket.AF_INET6 if kind == "IPv6" else socket.AF_INET
    try:
        return socket.create_server(("::1" if kind == "IPv6" else "127.0.0.1", 0), family=family)
    except OSError as error:
        pytest.skip(f"no loopback for {kind}: {error}")


LISTENERS = ["IPv4", "IPv6", "UNIX"]


@pytest.fixture(params=LISTENERS)
def server(request: pytest.FixtureRequest, tmp_path: Path, stack: ExitStack) -> socket.socket:
    """A listening socket of every kind."""
    return stack.enter_context(listen(request.param, tmp_path))


def connect(server: socket.socket, stack: ExitStack) -> socket.socket:
    """A client whose connection @server has not accepted yet."""
    client = stack.enter_context(socket.socket(server.family, server.type))
    client.connect(server.getsockname())
    return client


def test_a_connection_waiting_is_accept_and_never_recv(
    queue: Queue, server: socket.socket, stack: ExitStack
) -> None:
    queue.add(pykevent.socket_event(server, ACCEPT | RECV | SEND))
    assert now(queue) == []
    connect(server, stack)
    event = one(queue)
    assert event.events == ACCEPT
    server.accept()[0].close()
    assert now(queue) == []


def test_accept_is_not_reported_to_who_asked_for_recv(
    queue: Queue, server: socket.socket, stack: ExitStack
) -> None:
    queue.add(pykevent.socket_event(server, RECV))
    connect(server, stack)
    until_polled(server, select.POLLIN)
    assert now(queue) == []


def test_accept_tells_how_many_connections_wait(
    queue: Queue, server: socket.socket, stack: ExitStack
) -> None:
    queue.add(pykevent.socket_event(server, ACCEPT))
    for _ in range(3):
        connect(server, stack)

    def are_there() -> bool:
        if server.family == socket.AF_UNIX:
            return True
        # tcpi_unacked: of a listening socket, how many connections wait
        told = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
        return struct.unpack_from("I", told, 24) == (3,)

    # the last word of a handshake may come after connect()
    eventually(are_there, "three connections wait")
    for waiting in (3, 2, 1):
        assert one(queue).data == waiting
        server.accept()[0].close()
    assert now(queue) == []


def test_edge_reports_every_new_connection(
    queue: Queue, server: socket.socket, stack: ExitStack
) -> None:
    queue.add(pykevent.socket_event(server, ACCEPT, Flags.EDGE))
    for waiting in (1, 2, 3):
        connect(server, stack)
        assert soon(queue)[0].data == waiting
        assert now(queue) == []


def test_a_socket_that_begins_to_listen_reports_accept_from_then_on(
    queue: Queue, stack: ExitStack
) -> None:
    server = stack.enter_context(socket.socket())
    server.bind(("127.0.0.1", 0))
    queue.add(pykevent.socket_event(server, ACCEPT))
    now(queue)  # HUP: it is neither connected nor listening
    server.listen()
    connect(server, stack)
    until_polled(server, select.POLLIN)
    assert one(queue).events == ACCEPT
