# SPDX-License-Identifier: GPL-2.0-or-later
"""NAIO SEND: ends when the socket has taken every byte, or with an errno and how many it took."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import tempfile
import threading

import pytest

from pykevent import Event, EventFlags, Feature, Info, NaioEvents, Queue

from .sockets import STREAMS, Pair, kinds, narrow, receive, udp_pair
from .support import (
    DEADLINE,
    InThread,
    child,
    cookies,
    now,
    one,
    poll_bits,
    refused,
    soon,
    until_polled,
)

pytestmark = pytest.mark.needs("NAIO")

TCP = ["TCP over IPv4", "TCP over IPv6"]
UDP = ["UDP over IPv4", "UDP over IPv6"]
MUCH = 3_000_000
"""Bytes that no socket takes at once here."""


@kinds(STREAMS + UDP)
def test_what_the_socket_has_room_for_is_sent_at_once(queue: Queue, ends: Pair) -> None:
    near, far = ends
    transfer = queue.send(near, b"hello", cookie=3)
    (event,) = now(queue)
    assert (event.ident, event.cookie, event.events) == (transfer.ident, 3, NaioEvents.SEND)
    assert (event.data, event.count, event.flags) == (5, 1, EventFlags.LAST)
    assert far.recv(100) == b"hello"


@kinds(STREAMS)
@pytest.mark.parametrize("blocking", [True, False])
def test_it_ends_when_every_byte_is_taken_and_not_before(
    queue: Queue, ends: Pair, blocking: bool
) -> None:
    near, far = ends
    narrow(near, far)
    near.setblocking(blocking)
    content = os.urandom(MUCH)
    transfer = queue.send(near, content)
    assert now(queue) == []
    assert receive(far, MUCH // 2) == content[: MUCH // 2]
    assert now(queue) == []
    assert not transfer.done
    assert receive(far, MUCH - MUCH // 2) == content[MUCH // 2 :]
    event = one(queue)
    assert (event.data, event.error) == (MUCH, 0)


@kinds(STREAMS)
def test_who_polls_the_queue_and_waits_when_told_has_all_sent(queue: Queue, ends: Pair) -> None:
    near, far = ends
    narrow(near, far)
    queue.send(near, bytes(MUCH))
    reader = InThread(lambda: receive(far, MUCH))
    events: list[Event] = []
    while not events:
        # Also when there is something to be moved, of which there is no event.
        until_polled(queue.fileno(), select.POLLIN)
        events = now(queue)
    assert [(event.data, event.last) for event in events] == [(MUCH, True)]
    assert poll_bits(queue.fileno(), select.POLLIN) == 0
    assert len(reader.result()) == MUCH


@kinds(STREAMS)
def test_bytes_of_several_transfers_come_in_their_order(queue: Queue, ends: Pair) -> None:
    near, far = ends
    narrow(near, far)
    contents = [os.urandom(1 + 7919 * n) for n in range(40)]
    for number, content in enumerate(contents):
        queue.send(near, content, cookie=number)
    whole = b"".join(contents)
    assert receive(far, len(whole)) == whole
    assert cookies(soon(queue, 40)) == list(range(40))


def test_what_two_threads_send_is_not_mixed(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    narrow(near, far)
    size, number = 50_000, 20

    def sends(mark: bytes) -> None:
        for _ in range(number):
            queue.send(near, mark * size)

    threads = [threading.Thread(target=sends, args=(mark,)) for mark in (b"a", b"b")]
    for thread in threads:
        thread.start()
    seen = [receive(far, size) for _ in range(2 * number)]
    for thread in threads:
        thread.join()
    assert sorted(seen) == [b"a" * size] * number + [b"b" * size] * number
    assert all(event.data == size for event in soon(queue, 2 * number))


@kinds(STREAMS)
def test_a_reset_by_the_peer_ends_it_with_what_was_taken(queue: Queue, ends: Pair) -> None:
    near, far = ends
    narrow(near, far)
    transfer = queue.send(near, bytes(MUCH))
    assert now(queue) == []
    # What it has not read is there when it is closed, so that is a reset.
    far.close()
    event = one(queue)
    assert event.error in (errno.ECONNRESET, errno.EPIPE)
    assert event.flags == EventFlags.ERROR | EventFlags.LAST
    assert 0 < event.data < MUCH
    with refused(event.error):
        transfer.result()


@kinds(STREAMS)
def test_a_direction_that_is_shut_is_epipe_and_no_signal(queue: Queue, ends: Pair) -> None:
    near, _ = ends
    near.shutdown(socket.SHUT_WR)
    queue.send(near, b"x")
    event = one(queue)
    assert (event.error, event.data) == (errno.EPIPE, 0)


@kinds(UDP)
def test_each_transfer_is_one_datagram(queue: Queue, ends: Pair) -> None:
    near, far = ends
    for content in (b"one", b"", b"three"):
        queue.send(near, content)
    assert [event.data for event in soon(queue, 3)] == [3, 0, 5]
    assert [far.recv(100) for _ in range(3)] == [b"one", b"", b"three"]


@kinds(["UDP over IPv4"])
def test_a_datagram_that_is_too_long_is_emsgsize(queue: Queue, ends: Pair) -> None:
    near, _ = ends
    queue.send(near, bytes(70_000))
    event = one(queue)
    assert (event.error, event.data) == (errno.EMSGSIZE, 0)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_udp_socket_has_to_be_connected_to_send(
    queue: Queue, family: socket.AddressFamily
) -> None:
    for end in udp_pair(family):
        end.close()
    with socket.socket(family, socket.SOCK_DGRAM) as alone:
        alone.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        queue.send(alone, b"hello")
        event = one(queue)
        assert (event.error, event.data) == (errno.EDESTADDRREQ, 0)
        assert event.flags == EventFlags.ERROR | EventFlags.LAST
        alone.connect(alone.getsockname())
        queue.send(alone, b"hello")
        assert one(queue).data == 5
        assert alone.recv(10) == b"hello"


def test_nothing_is_sent_at_once(queue: Queue, tcp: Pair) -> None:
    near, _ = tcp
    queue.send(near, b"")
    (event,) = now(queue)
    assert (event.data, event.error) == (0, 0)


def test_the_buffer_may_change_once_the_event_has_come(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    narrow(near, far)
    content = bytearray(os.urandom(MUCH))
    wanted = bytes(content)
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append(receive(far, MUCH)))
    queue.send(near, content)
    reader.start()
    assert one(queue).data == MUCH
    content[:] = bytes(MUCH)
    reader.join()
    assert seen == [wanted]


@kinds(["UNIX datagram", "UNIX seqpacket"])
def test_sending_by_a_unix_socket_of_messages_is_eopnotsupp(queue: Queue, ends: Pair) -> None:
    with refused(errno.EOPNOTSUPP):
        queue.send(ends[0], b"x")


@kinds(["UNIX stream"])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("of", ["memory", "a file"])
def test_what_a_unix_socket_sends_names_the_process_that_asked(
    queue: Queue, ends: Pair, info: Info, waits: bool, of: str
) -> None:
    if info.features & Feature.SIM and os.geteuid() != 0:
        pytest.skip("to name another process takes root")
    near, far = ends
    narrow(near, far)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    far.settimeout(DEADLINE)
    content = os.urandom(MUCH)
    if of == "memory":
        queue.send(near, content)
    else:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            queue.sendfile(near, file, prefix=content[:100])
        content = content[:100] + content
    got, senders = bytearray(), set()
    while len(got) < len(content):
        data, control, _, _ = far.recvmsg(65536, 1000)
        got += data
        senders |= {struct.unpack("3i", value) for _, _, value in control}
        if waits:
            now(queue)
    assert bytes(got) == content
    assert senders == {(os.getpid(), os.getuid(), os.getgid())}


@kinds(["UNIX stream"])
@pytest.mark.parametrize("of", ["memory", "a file"])
def test_what_a_unix_socket_sends_for_a_process_that_has_ended_is_cancelled(
    queue: Queue, ends: Pair, of: str, info: Info
) -> None:
    near, far = ends
    narrow(near, far)
    # A child finds the queue's own descriptor closed.
    device = os.dup(queue.fileno())
    content = os.urandom(MUCH)

    def asks() -> None:
        own = Queue.fromfd(device)
        if of == "memory":
            own.send(near, content, cookie=1)
        else:
            with tempfile.TemporaryFile() as file:
                file.write(content)
                file.flush()
                own.sendfile(near, file, cookie=1)
        # What a queue object does at the end of the interpreter would cancel it.
        os._exit(0)

    got = bytearray()
    with child(asks) as process:
        if of == "a file":
            # Until it was waited for it goes on.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            got += receive(far, MUCH // 2)
            assert now(queue) == []
        process.finish()
    os.close(device)
    while not (events := now(queue)):
        if poll_bits(far, select.POLLIN):
            got += far.recv(65536)
    (event,) = events
    # Memory that is not pinned has gone with the process.
    pinned = of == "a file" or Feature.PIN in info.features
    assert (event.cookie, event.error) == (1, errno.ECANCELED if pinned else errno.EFAULT)
    assert event.flags == EventFlags.ERROR | EventFlags.LAST
    near.shutdown(socket.SHUT_WR)
    got += receive(far, MUCH)
    assert got == content[: event.data]
    assert (MUCH // 2 if of == "a file" else 1) <= event.data < MUCH


def test_a_connection_in_progress_is_waited_for(queue: Queue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(server.getsockname())
        queue.send(client, b"hello")
        accepted, _ = server.accept()
        with accepted:
            assert receive(accepted, 5) == b"hello"
            assert one(queue).data == 5
