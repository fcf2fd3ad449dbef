# SPDX-License-Identifier: GPL-2.0-or-later
"""Handles of transfers, and the memory they hold, with a device that moves nothing."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
from collections.abc import Callable

import pytest
from fake_device import FakeDevice

import pykevent
from pykevent import EventFlags, EventType, NaioEvents, Queue, abi
from pykevent.transfers import Exported


def end(device: FakeDevice, ident: int, data: int, flags: int = 0, count: int = 1) -> None:
    """Let a transfer end like that."""
    del device.kevents[EventType.NAIO, ident]
    flags |= EventFlags.LAST
    record = abi.EVENT.pack(0, ident, data, count, NaioEvents.RECV, EventType.NAIO, flags)
    device.put(record)


def held(buffer: bytearray) -> bool:
    """Whether the buffer cannot be resized."""
    try:
        buffer.append(0)
    except BufferError:
        return True
    del buffer[-1]
    return False


def test_a_request_names_the_memory_of_the_buffer(device: FakeDevice, queue: Queue) -> None:
    buffer = bytearray(b"hello")
    with Held(buffer) as address:
        transfer = queue.recv_into(5, memoryview(buffer)[1:4], waitall=True, cookie=9)
    (kevent,) = device.kevents.values()
    assert (kevent.ident, kevent.cookie) == (transfer.ident, 9)
    assert (kevent.events, kevent.flags) == (NaioEvents.RECV, pykevent.Flags.WAITALL)
    assert kevent.param == [address + 1, 3, 5]


class Held:
    """The address of a buffer."""

    def __init__(self, buffer: bytearray) -> None:
        self._exported = Exported(buffer, writable=True)

    def __enter__(self) -> int:
        return self._exported.address

    def __exit__(self, *_: object) -> None:
        self._exported.release()


def test_the_buffer_is_held_until_the_event_is_seen(device: FakeDevice, queue: Queue) -> None:
    buffer = bytearray(10)
    transfer = queue.recv_into(5, buffer)
    assert held(buffer)
    with pytest.raises(ValueError, match="has not ended"):
        transfer.result()
    end(device, transfer.ident, 7)
    assert held(buffer)
    (event,) = queue.wait(0)
    assert (event.ident, event.data, event.error) == (transfer.ident, 7, 0)
    assert not held(buffer)
    assert transfer.done
    assert transfer.result() == 7
    assert not transfer.cancel()


def test_an_error_is_an_oserror_with_its_errno(device: FakeDevice, queue: Queue) -> None:
    transfer = queue.recv_into(5, bytearray(10))
    flags = EventFlags.ERROR | EventFlags.BROKEN
    end(device, transfer.ident, 3, flags, count=errno.ECANCELED)
    (event,) = queue.wait(0)
    assert event.error == errno.ECANCELED
    assert (transfer.moved, transfer.broken) == (3, True)
    with pytest.raises(OSError, match=os.strerror(errno.ECANCELED)):
        transfer.result()


def test_cancel_says_what_the_device_says(device: FakeDevice, queue: Queue) -> None:
    buffer = bytearray(10)
    transfer = queue.recv_into(5, buffer)
    device.moved = (4, errno.ECANCELED)
    assert transfer.cancel()
    assert (transfer.moved, transfer.error) == (4, errno.ECANCELED)
    assert not held(buffer)
    assert device.kevents == {}


def test_cancel_leaves_to_the_event_what_is_being_delivered(
    device: FakeDevice, queue: Queue
) -> None:
    buffer = bytearray(10)
    transfer = queue.recv_into(5, buffer)
    end(device, transfer.ident, 10)
    assert not transfer.cancel()
    assert held(buffer)
    queue.wait(0)
    assert transfer.result() == 10
    assert not held(buffer)


def test_a_number_that_is_taken_is_not_insisted_on(device: FakeDevice, queue: Queue) -> None:
    first = queue.recv_into(5, bytearray(1))
    queue._transfers._next -= 1
    second = queue.recv_into(5, bytearray(1))
    assert first.ident != second.ident
    assert len(device.kevents) == 2


def test_closing_the_queue_cancels_all(device: FakeDevice, queue: Queue) -> None:
    buffers = [bytearray(1) for _ in range(3)]
    transfers = [queue.recv_into(5, buffer) for buffer in buffers]
    device.moved = (1, errno.ECANCELED)
    queue.close()
    assert device.kevents == {}
    assert all(transfer.moved == 1 for transfer in transfers)
    assert not any(map(held, buffers))
    with pytest.raises(ValueError, match="closed"):
        queue.recv_into(5, buffers[0])
    assert not held(buffers[0])


def test_a_queue_that_is_forgotten_cancels_all(device: FakeDevice) -> None:
    buffer = bytearray(1)
    queue = pykevent.open("/dev/null")
    queue.recv_into(5, buffer)
    del queue
    gc.collect()
    assert device.kevents == {}
    assert not held(buffer)


def test_a_refused_request_holds_nothing(device: FakeDevice, queue: Queue) -> None:
    buffer = bytearray(1)
    device.features &= ~abi.Feature.NAIO
    with pytest.raises(OSError, match="UNIX sockets") as caught:
        queue.recv_into(5, buffer)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert not held(buffer)


@pytest.fixture
def read(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the requests that follow have led the device to, when they were made."""
    seen: list[bytes] = []
    apply: Callable[[int, tuple[int, ...]], int] = device._apply

    def look(op: int, fields: tuple[int, ...]) -> int:
        if op == abi.Op.ADD:
            seen.append(ctypes.string_at(fields[7], fields[8]))
        return apply(op, fields)

    monkeypatch.setattr(device, "_apply", look)
    return seen


def test_a_sendfile_names_the_file_and_what_goes_round_it(
    device: FakeDevice, queue: Queue, read: list[bytes]
) -> None:
    transfer = queue.sendfile(5, 7, 10, 20, prefix=b"head", suffix=b"tail!", cookie=9)
    (kevent,) = device.kevents.values()
    assert (kevent.ident, kevent.cookie) == (transfer.ident, 9)
    assert (kevent.events, kevent.flags) == (NaioEvents.SENDFILE, 0)
    assert kevent.param[1:] == [abi.SENDFILE.size + 9, 5]
    assert read == [abi.SENDFILE.pack(10, 20, 7, 0, 4, 5) + b"headtail!"]


def test_a_sendfile_without_a_length_is_all_of_the_file(queue: Queue, read: list[bytes]) -> None:
    queue.sendfile(5, 7)
    assert read == [abi.SENDFILE.pack(0, abi.SENDFILE_ALL, 7, 0, 0, 0)]


def test_a_sendfile_holds_nothing_after_the_call(device: FakeDevice, queue: Queue) -> None:
    prefix = bytearray(b"head")
    transfer = queue.sendfile(5, 7, prefix=prefix)
    assert not held(prefix)
    assert not transfer.done
    end(device, transfer.ident, 24)
    queue.wait(0)
    assert transfer.result() == 24
    device.features &= ~abi.Feature.NAIO
    with pytest.raises(OSError, match="not supported"):
        queue.sendfile(5, 7, prefix=prefix)
    assert not held(prefix)


def test_a_sendfile_can_be_cancelled(device: FakeDevice, queue: Queue) -> None:
    transfer = queue.sendfile(5, 7)
    device.moved = (4, errno.ECANCELED)
    assert transfer.cancel()
    assert (transfer.moved, transfer.error) == (4, errno.ECANCELED)


def test_a_part_of_a_file_is_told_by_numbers_from_0_on(device: FakeDevice, queue: Queue) -> None:
    for offset, length, file in ((-1, 1, 7), (0, -1, 7), (0, 2**63, 7), (0, 1, -1), (0, 1, 2**31)):
        with pytest.raises(ValueError, match=r"not|no descriptor"):
            queue.sendfile(5, file, offset, length)
    with pytest.raises(TypeError):
        queue.sendfile(5, 7, prefix="text")  # type: ignore[arg-type]
    assert device.kevents == {}


def test_what_cannot_be_written_to_is_not_received_into(queue: Queue) -> None:
    with pytest.raises(BufferError):
        queue.recv_into(5, b"constant")
    with pytest.raises(TypeError):
        queue.send(5, "no bytes")


def test_an_event_of_somebody_elses_transfer_passes(device: FakeDevice, queue: Queue) -> None:
    device.put(abi.EVENT.pack(0, 1, 2, 1, NaioEvents.SEND, EventType.NAIO, EventFlags.LAST))
    (event,) = queue.wait(0)
    assert (event.ident, event.data, event.type) == (1, 2, EventType.NAIO)
