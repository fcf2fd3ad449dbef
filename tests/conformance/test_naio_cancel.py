# SPDX-License-Identifier: GPL-2.0-or-later
"""REMOVE of a transfer, the close of its socket, the close of its queue."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

import pytest

import pykevent
from pykevent import Event, EventFlags, EventType, NaioEvents, Queue
from pykevent.transfers import Exported

from . import raw
from .sockets import ALL, Pair, kinds, narrow, receive
from .support import InThread, child, cookies, eventually, now, one, refused, soon
from .test_naio_send import MUCH

pytestmark = pytest.mark.needs("NAIO")


@kinds(ALL)
def test_a_transfer_that_waits_is_cancelled(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffer = bytearray(10)
    transfer = queue.recv_into(near, buffer)
    assert transfer.cancel()
    assert (transfer.moved, transfer.error) == (0, errno.ECANCELED)
    far.send(b"hello")
    near.recv(1, socket.MSG_PEEK)
    assert now(queue) == []
    assert buffer == bytes(10)
    assert queue.info().kevents == 0


@kinds(ALL)
def test_cancelling_one_leaves_the_others_in_their_order(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffers = [bytearray(1) for _ in range(9)]
    transfers = [queue.recv_into(near, buffer, cookie=n) for n, buffer in enumerate(buffers)]
    for number in (0, 4, 8):
        assert transfers[number].cancel()
    for number in range(6):
        far.send(b"%d" % number)
    assert cookies(soon(queue, 6)) == [1, 2, 3, 5, 6, 7]
    assert b"".join(buffers[n] for n in (1, 2, 3, 5, 6, 7)) == b"012345"


def test_cancelling_says_how_much_was_received(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(10)
    transfer = queue.recv_into(near, buffer, waitall=True)
    far.send(b"abc")
    eventually(lambda: buffer[:3] == b"abc", "three bytes are received")
    assert transfer.cancel()
    assert (transfer.moved, transfer.error) == (3, errno.ECANCELED)
    far.send(b"def")
    assert near.recv(3, socket.MSG_WAITALL) == b"def"
    assert bytes(buffer) == b"abc" + bytes(7)


def test_cancelling_says_how_much_was_sent(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    narrow(near, far)
    content = os.urandom(MUCH)
    transfer = queue.send(near, content)
    assert transfer.cancel()
    assert 0 < transfer.moved < MUCH
    near.shutdown(socket.SHUT_WR)
    assert receive(far, MUCH) == content[: transfer.moved]


def test_cancelling_what_has_ended_says_how_it_has(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    sent = queue.send(near, b"hello")
    assert sent.cancel()
    assert (sent.moved, sent.error) == (5, 0)
    assert far.recv(10) == b"hello"
    near.shutdown(socket.SHUT_WR)
    failed = queue.send(near, b"x")
    assert failed.cancel()
    assert (failed.moved, failed.error) == (0, errno.EPIPE)
    assert now(queue) == []


def test_what_was_delivered_cannot_be_cancelled(queue: Queue, tcp: Pair) -> None:
    transfer = queue.send(tcp[0], b"hello")
    one(queue)
    assert not transfer.cancel()
    assert transfer.moved == 5
    with refused(errno.ENOENT):
        queue.remove(EventType.NAIO, transfer.ident)


def test_one_that_is_just_being_delivered_is_removed_and_delivered_and_both_say_the_same(
    queue: Queue, tcp: Pair
) -> None:
    near, far = tcp
    rounds = 400
    memory = bytearray(rounds)
    view = Exported(memory, writable=True)
    seen: list[Event] = []

    def waits() -> None:
        while True:
            (event,) = queue.wait(max=1)
            if event.type == EventType.USER:
                return
            seen.append(event)

    queue.add(pykevent.user_event(1))
    threads = [InThread(waits) for _ in range(2)]
    answers = []
    for number in range(rounds):
        queue.add(pykevent.naio_event(number, NaioEvents.RECV, near, view.address + number, 1))
        far.send(b"x")
        call = raw.remove(raw.request(EventType.NAIO, number))
        call(queue.fileno())
        answers.append((call.request().result, *call.request().param[:2]))
    for _ in threads:
        queue.post(1)
        eventually(lambda: not queue.info().ready, "one of them has seen it")
    for thread in threads:
        thread.result()
    events = {event.ident: (event.data, event.error) for event in seen}
    assert len(events) == len(seen)
    for number, (result, *said) in enumerate(answers):
        if result:
            assert (result, events[number]) == (-errno.ENOENT, (1, 0))
        else:
            assert said in ([1, 0], [0, errno.ECANCELED])
            assert events.get(number, (1, 0)) == (1, 0)
            assert number not in events or said == [1, 0]
        moved = 1 if result else said[0]
        assert memory[number : number + 1] == b"x"[:moved].ljust(1, b"\0")
    assert queue.info().kevents == 1


@kinds(ALL)
def test_a_close_of_the_socket_ends_all_its_transfers(queue: Queue, ends: Pair) -> None:
    near, _ = ends
    buffers = [bytearray(10) for _ in range(5)]
    transfers = [queue.recv_into(near, buffer, cookie=n) for n, buffer in enumerate(buffers)]
    near.close()
    events = soon(queue, 5)
    assert cookies(events) == list(range(5))
    for event, transfer in zip(events, transfers, strict=True):
        assert (event.error, event.data) == (errno.ECANCELED, 0)
        assert event.flags == EventFlags.ERROR | EventFlags.BROKEN | EventFlags.LAST
        assert transfer.broken


def test_the_peer_sees_the_close_at_once(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    queue.recv_into(near, bytearray(10))
    near.close()
    assert far.recv(1) == b""
    assert one(queue).broken


def test_a_close_tells_how_much_was_sent(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    narrow(near, far)
    content = os.urandom(MUCH)
    queue.send(near, content)
    near.close()
    event = one(queue)
    assert (event.error, event.broken) == (errno.ECANCELED, True)
    assert receive(far, MUCH) == content[: event.data]
    assert 0 < event.data < MUCH


def test_a_duplicate_keeps_the_transfer_going(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(10)
    queue.recv_into(near, buffer)
    with near.dup():
        near.close()
        far.send(b"hello")
        assert one(queue).data == 5
    assert bytes(buffer[:5]) == b"hello"


def test_closing_the_queue_cancels(new_queue: Callable[[], Queue], tcp: Pair) -> None:
    near, far = tcp
    queue = new_queue()
    buffer = bytearray(10)
    transfer = queue.recv_into(near, buffer)
    queue.close()
    assert (transfer.done, transfer.error) == (True, errno.ECANCELED)
    buffer.extend(b"it is ours again")
    far.send(b"hello")
    assert near.recv(10) == b"hello"
    assert buffer[:10] == bytes(10)


def test_the_end_of_the_process_cancels(tcp: Pair) -> None:
    near, far = tcp

    def asks() -> None:
        own = pykevent.open()
        own.recv_into(near, bytearray(10))
        os._exit(0)

    with child(asks) as process:
        process.finish()
    far.send(b"hello")
    assert near.recv(10) == b"hello"


def test_the_number_can_be_used_again_once_the_event_is_delivered(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    with_memory = Exported(bytearray(10), writable=True)
    request = pykevent.naio_event(1, NaioEvents.RECV, near, with_memory.address, 10)
    queue.add(request)
    with refused(errno.EEXIST):
        queue.add(request)
    far.send(b"x")
    assert one(queue).ident == 1
    queue.add(request)
    queue.remove(EventType.NAIO, 1)
    queue.add(request)
    queue.remove(EventType.NAIO, 1)


def test_a_buffer_is_held_until_its_transfer_has_ended(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(10)
    queue.recv_into(near, buffer)
    with pytest.raises(BufferError):
        buffer.extend(b"more")
    far.send(b"x")
    one(queue)
    buffer.extend(b"more")


def test_a_handle_learns_nothing_from_another_object_of_the_queue(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(10)
    transfer = queue.recv_into(near, buffer)
    with Queue.fromfd(os.dup(queue.fileno())) as twin:
        far.send(b"hello")
        event = one(twin)
        assert (event.ident, event.data) == (transfer.ident, 5)
        assert event.ident >= 2**63
    assert not transfer.done
    assert not transfer.cancel()
    with pytest.raises(BufferError):
        buffer.extend(b"more")
    queue.close()
    assert transfer.done
    buffer.extend(b"more")


def test_transfers_go_on_while_a_handle_is_forgotten(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    for number in range(10):
        queue.recv_into(near, bytearray(1), cookie=number)
    far.send(bytes(10))
    assert cookies(soon(queue, 10)) == list(range(10))
