# SPDX-License-Identifier: GPL-2.0-or-later
"""NAIO RECV: what arrives is moved into the caller's memory, and an event says so."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

import pykevent
from pykevent import EventFlags, EventType, NaioEvents, Queue

from .sockets import ALL, STREAMS, Pair, kinds, until_arrived
from .support import (
    DEADLINE,
    InThread,
    cookies,
    eventually,
    now,
    one,
    poll_bits,
    refused,
    soon,
    until_polled,
    waiting,
)

pytestmark = pytest.mark.needs("NAIO")

PACKETS = ["UDP over IPv4", "UDP over IPv6", "UNIX datagram", "UNIX seqpacket"]


@kinds(ALL)
def test_what_is_there_already_is_received_at_once(queue: Queue, ends: Pair) -> None:
    near, far = ends
    far.send(b"hello")
    # Loopback may take a moment, also where the sender has returned.
    near.recv(1, socket.MSG_PEEK)
    buffer = bytearray(100)
    transfer = queue.recv_into(near, buffer, cookie=7)
    (event,) = now(queue)
    assert (event.type, event.ident, event.cookie) == (EventType.NAIO, transfer.ident, 7)
    assert (event.events, event.data, event.count) == (NaioEvents.RECV, 5, 1)
    assert event.flags == EventFlags.LAST
    assert bytes(buffer[:6]) == b"hello\0"
    assert transfer.result() == 5


@kinds(ALL)
def test_recv_has_a_buffer_of_its_own_and_received_is_what_came(queue: Queue, ends: Pair) -> None:
    near, far = ends
    transfer = queue.recv(near, 100, cookie=7)
    with pytest.raises(ValueError, match="the transfer has not ended"):
        _ = transfer.received
    far.send(b"hello")
    event = one(queue)
    assert (event.ident, event.cookie, event.data) == (transfer.ident, 7, 5)
    assert type(transfer.received) is bytes
    assert (transfer.received, transfer.result()) == (b"hello", 5)


@kinds(STREAMS)
def test_recv_with_waitall_receives_until_the_length_or_the_end(queue: Queue, ends: Pair) -> None:
    near, far = ends
    transfers = [queue.recv(near, 4, waitall=True) for _ in range(3)]
    for part in (b"ab", b"cde", b"fghi"):
        far.send(part)
    far.shutdown(socket.SHUT_WR)
    soon(queue, 3)
    assert [transfer.received for transfer in transfers] == [b"abcd", b"efgh", b"i"]
    end = queue.recv(near, 4)
    assert one(queue).data == 0
    assert end.received == b""


def test_what_came_before_a_recv_was_cancelled_is_received(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    transfer = queue.recv(near, 10, waitall=True)
    far.send(b"abc")
    until_arrived(far)
    eventually(lambda: not _waits(near), "the bytes are taken")
    assert transfer.cancel()
    assert transfer.received == b"abc"


@kinds(ALL)
def test_what_comes_later_is_received_when_it_comes(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffer = bytearray(100)
    transfer = queue.recv_into(near, buffer)
    assert now(queue) == []
    assert not transfer.done
    far.send(b"hello")
    event = one(queue)
    assert (event.data, event.error, event.flags) == (5, 0, EventFlags.LAST)
    assert bytes(buffer[:6]) == b"hello\0"


@kinds(ALL)
@pytest.mark.parametrize("blocking", [True, False])
def test_whether_the_socket_blocks_makes_no_difference(
    queue: Queue, ends: Pair, blocking: bool
) -> None:
    near, far = ends
    near.setblocking(blocking)
    buffer = bytearray(100)
    queue.recv_into(near, buffer)
    far.send(b"x")
    assert one(queue).data == 1


@kinds(ALL)
def test_transfers_of_one_socket_end_in_the_order_they_were_asked_for(
    queue: Queue, ends: Pair
) -> None:
    near, far = ends
    buffers = [bytearray(4) for _ in range(50)]
    for number, buffer in enumerate(buffers):
        queue.recv_into(near, buffer, cookie=number)
    for number in range(50):
        far.send(f"{number:4}".encode())
    assert cookies(soon(queue, 50)) == list(range(50))
    assert [int(buffer) for buffer in buffers] == list(range(50))


def test_order_holds_between_queues(
    queue: Queue, new_queue: Callable[[], Queue], tcp: Pair
) -> None:
    near, far = tcp
    other = new_queue()
    first, second = bytearray(3), bytearray(3)
    queue.recv_into(near, first)
    other.recv_into(near, second)
    far.send(b"abcdef")
    assert (one(queue).data, one(other).data) == (3, 3)
    assert bytes(first + second) == b"abcdef"


def test_a_transfer_does_not_pass_one_that_waits(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    first, second = bytearray(3), bytearray(3)
    queue.recv_into(near, first, waitall=True, cookie=1)
    far.send(b"ab")
    queue.recv_into(near, second, cookie=2)
    far.send(b"cd")
    assert cookies(soon(queue, 2)) == [1, 2]
    assert bytes(first + second[:1]) == b"abcd"


@kinds(STREAMS)
def test_any_part_ends_it_without_waitall(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffer = bytearray(1000)
    queue.recv_into(near, buffer)
    far.send(b"abc")
    assert one(queue).data == 3


@kinds(STREAMS)
def test_with_waitall_it_ends_when_the_buffer_is_full(queue: Queue, ends: Pair) -> None:
    near, far = ends
    content = os.urandom(200_000)
    buffer = bytearray(len(content))
    transfer = queue.recv_into(near, buffer, waitall=True)
    for start in range(0, len(content), 1000):
        assert not transfer.done
        assert now(queue) == []
        far.sendall(content[start : start + 1000])
    assert one(queue).data == len(content)
    assert bytes(buffer) == content


@kinds(STREAMS)
def test_with_waitall_the_end_of_the_stream_ends_it(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffer = bytearray(100)
    queue.recv_into(near, buffer, waitall=True)
    far.send(b"abc")
    far.shutdown(socket.SHUT_WR)
    event = one(queue)
    assert (event.data, event.error) == (3, 0)
    assert bytes(buffer[:4]) == b"abc\0"


@kinds(STREAMS)
def test_the_end_of_the_stream_is_0_bytes(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffer = bytearray(100)
    queue.recv_into(near, buffer)
    far.shutdown(socket.SHUT_WR)
    event = one(queue)
    assert (event.data, event.error, event.flags) == (0, 0, EventFlags.LAST)


@kinds(PACKETS)
def test_a_transfer_takes_one_datagram(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffers = [bytearray(100) for _ in range(2)]
    for buffer in buffers:
        queue.recv_into(near, buffer)
    far.send(b"first")
    far.send(b"second")
    assert [event.data for event in soon(queue, 2)] == [5, 6]
    assert bytes(buffers[0][:6] + buffers[1][:7]) == b"first\0second\0"


@kinds(PACKETS)
@pytest.mark.parametrize("early", [True, False])
def test_a_datagram_that_does_not_fit_is_cut_off_and_said_to_be(
    queue: Queue, ends: Pair, early: bool
) -> None:
    near, far = ends
    buffer = bytearray(4)
    if early:
        far.send(b"too long")
        near.recv(1, socket.MSG_PEEK)
    transfer = queue.recv_into(near, buffer)
    if not early:
        far.send(b"too long")
    event = one(queue)
    assert (event.data, event.error) == (4, 0)
    assert event.flags == EventFlags.LAST | EventFlags.TRUNCATED
    assert buffer == b"too "
    assert transfer.truncated
    far.send(b"next")
    buffer[:] = bytes(4)
    queue.recv_into(near, buffer)
    event = one(queue)
    assert (event.data, event.flags, bytes(buffer)) == (4, EventFlags.LAST, b"next")


@kinds(["UDP over IPv4", "UNIX datagram"])
def test_an_empty_datagram_is_0_bytes(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffer = bytearray(4)
    queue.recv_into(near, buffer)
    far.send(b"")
    event = one(queue)
    assert (event.data, event.error) == (0, 0)


@pytest.mark.parametrize("early", [True, False])
def test_a_reset_by_the_peer_is_told_with_its_errno(queue: Queue, tcp: Pair, early: bool) -> None:
    near, far = tcp
    buffer = bytearray(100)
    if not early:
        queue.recv_into(near, buffer)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    if early:
        queue.recv_into(near, buffer)
    event = one(queue)
    assert (event.error, event.data) == (errno.ECONNRESET, 0)
    assert event.flags == EventFlags.ERROR | EventFlags.LAST


def test_what_came_before_a_reset_is_counted(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(100)
    transfer = queue.recv_into(near, buffer, waitall=True)
    far.send(b"abc")
    until_arrived(far)
    eventually(lambda: not _waits(near), "the bytes are taken")
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    event = one(queue)
    assert (event.error, event.data) == (errno.ECONNRESET, 3)
    with refused(errno.ECONNRESET):
        transfer.result()
    assert transfer.moved == 3


def _waits(sock: socket.socket) -> bool:
    """Whether there is something to read."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


def test_of_a_datagram_its_bytes_are_told_and_not_who_has_sent_it(
    queue: Queue, stack: ExitStack
) -> None:
    ends = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(3)]
    for end in ends:
        end.bind(("127.0.0.1", 0))
    near, *senders = ends
    buffers = [bytearray(5) for _ in senders]
    for buffer, far in zip(buffers, senders, strict=True):
        queue.recv_into(near, buffer)
        far.sendto(b"hello", near.getsockname())
    first, second = soon(queue, 2)
    assert first == replace(second, ident=first.ident)
    assert buffers == [b"hello", b"hello"]


@kinds(["UNIX stream", "UNIX datagram", "UNIX seqpacket"])
@pytest.mark.parametrize("multishot", [False, True])
@pytest.mark.parametrize("early", [True, False])
def test_of_a_message_its_bytes_are_told_and_descriptors_in_it_are_closed(
    queue: Queue, ends: Pair, pipe: tuple[int, int], early: bool, multishot: bool
) -> None:
    near, far = ends
    near.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    reader, writer = pipe
    buffer = bytearray(10)
    if not early:
        queue.recv_into(near, buffer, multishot=multishot)
    socket.send_fds(far, [b"hello"], [writer])
    os.close(writer)
    opened = os.listdir("/proc/self/fd")
    if early:
        # It lives on in the message, that nobody receives yet.
        assert poll_bits(reader, select.POLLIN) == 0
        queue.recv_into(near, buffer, multishot=multishot)
    event = one(queue)
    assert (event.data, event.error) == (5, 0)
    assert event.flags == (0 if multishot else EventFlags.LAST)
    assert bytes(buffer) == b"hello" + bytes(5)
    until_polled(reader, select.POLLHUP)
    assert os.listdir("/proc/self/fd") == opened


def test_a_socket_that_is_not_connected_is_told_by_an_event(queue: Queue) -> None:
    with socket.socket() as alone:
        queue.recv_into(alone, bytearray(10))
        assert one(queue).error == errno.ENOTCONN


def test_a_batch_of_256_transfers_is_one_call(queue: Queue, pair: Pair) -> None:
    near, far = pair
    memory = bytearray(256)
    view = pykevent.transfers.Exported(memory, writable=True)
    requests = [
        pykevent.naio_event(n, NaioEvents.RECV, near, view.address + n, 1, cookie=n)
        for n in range(256)
    ]
    assert queue.add_many(requests) == [0] * 256
    far.send(bytes(range(256)))
    assert cookies(soon(queue, 256)) == list(range(256))
    view.release()
    assert memory == bytes(range(256))


def test_one_socket_may_have_thousands_at_once(queue: Queue, pair: Pair) -> None:
    near, far = pair
    many = 2000
    memory = bytearray(many)
    view = pykevent.transfers.Exported(memory, writable=True)
    requests = [
        pykevent.naio_event(n, NaioEvents.RECV, near, view.address + n, 1, cookie=n)
        for n in range(many)
    ]
    assert queue.add_many(requests) == [0] * many
    assert now(queue) == []
    assert queue.info().kevents == many
    content = os.urandom(many)
    far.sendall(content)
    seen: list[int] = []
    while len(seen) < many:
        seen += cookies(soon(queue))
    assert seen == list(range(many))
    assert memory == content
    view.release()


def test_a_wait_for_several_counts_transfers(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    for number in range(3):
        queue.recv_into(near, bytearray(1), cookie=number)
    waiter = waiting(queue, minimum=3)
    far.send(b"ab")
    eventually(lambda: queue.info().ready == 2, "two have ended")
    waiter.until_asleep()
    far.send(b"c")
    assert cookies(waiter.result()) == [0, 1, 2]


@kinds(ALL)
def test_poll_of_the_queue_says_that_a_transfer_ends_and_not_before(
    queue: Queue, ends: Pair
) -> None:
    near, far = ends
    queue.recv_into(near, bytearray(10))
    assert poll_bits(queue.fileno(), select.POLLIN) == 0
    assert select.select([queue], [], [], 0)[0] == []
    far.send(b"hello")
    until_polled(queue.fileno(), select.POLLIN)
    assert select.select([queue], [], [], 0)[0] == [queue]
    event = one(queue)
    assert (event.data, event.last) == (5, True)
    assert poll_bits(queue.fileno(), select.POLLIN) == 0


def test_a_thread_that_polls_the_queue_is_woken_by_the_end_of_a_transfer(
    queue: Queue, tcp: Pair
) -> None:
    near, far = tcp
    queue.recv_into(near, bytearray(10))
    poller = InThread(lambda: select.select([queue], [], [], DEADLINE)[0]).until_asleep("poll")
    far.send(b"hello")
    assert poller.result() == [queue]
    assert one(queue).data == 5


def test_recv_and_send_of_one_socket_do_not_wait_for_each_other(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(10)
    queue.recv_into(near, buffer, cookie=1)
    queue.send(near, b"out", cookie=2)
    assert cookies(soon(queue)) == [2]
    assert far.recv(10) == b"out"
    far.send(b"in")
    assert cookies(soon(queue)) == [1]
