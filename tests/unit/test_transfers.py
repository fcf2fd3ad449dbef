# SPDX-License-Identifier: GPL-2.0-or-later
"""Handles of transfers, and the memory they hold, with a device that moves nothing."""

from __future__ import annotations

import ctypes
import errno
import gc
import io
import mmap
import os
import signal
import socket
import ssl
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_device import FakeDevice

import pykevent
from pykevent import EventFlags, EventType, NaioEvents, Queue, abi
from pykevent.transfers import Exported


def end(device: FakeDevice, ident: int, data: int, flags: int = 0, count: int = 1) -> None:
    """Let a transfer end like that."""
    del device.kevents[EventType.NAIO, ident]
    device.put(record(ident, data, flags | EventFlags.LAST, count))


def record(ident: int, data: int, flags: int = 0, count: int = 1) -> bytes:
    """An event of a transfer."""
    return abi.EVENT.pack(0, ident, data, count, NaioEvents.RECV, EventType.NAIO, flags)


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
    with pytest.raises(OSError, match=f"{os.strerror(errno.ECANCELED)}; the socket was closed"):
        transfer.result()


def test_a_result_that_was_cancelled_says_so(device: FakeDevice, queue: Queue) -> None:
    transfer = queue.recv_into(5, bytearray(10))
    device.moved = (0, errno.ECANCELED)
    assert transfer.cancel()
    with pytest.raises(OSError, match="it was cancelled, or its queue was closed") as caught:
        transfer.result()
    assert caught.value.errno == errno.ECANCELED


class Socket:
    """What a descriptor is taken from."""

    def fileno(self) -> int:
        """The descriptor's number."""
        return 5


@pytest.mark.parametrize("multishot", [False, True])
def test_the_socket_object_is_held_until_the_end_and_not_longer(
    device: FakeDevice, queue: Queue, multishot: bool
) -> None:
    sock = Socket()
    seen = weakref.ref(sock)
    transfer = queue.recv_into(sock, bytearray(1), multishot=multishot)
    del sock
    assert seen() is not None
    if multishot:
        device.put(record(transfer.ident, 1))
        queue.wait(0)
        assert seen() is not None
    end(device, transfer.ident, 0)
    queue.wait(0)
    assert transfer.done
    assert seen() is None


@pytest.mark.parametrize(
    ("length", "error", "said"),
    [
        (bytearray(3), TypeError, "not bytearray: recv_into"),
        (b"", TypeError, "not bytes: recv_into"),
        (True, TypeError, "length must be an int, not bool"),
        ("1", TypeError, "length must be an int, not str"),
        (1.5, TypeError, "length must be an int, not float"),
        (None, TypeError, "length must be an int, not NoneType"),
        (-1, ValueError, "from 1 to 0x7ffff000, not -1"),
        (0, ValueError, "from 1 to 0x7ffff000, not 0"),
        (abi.NAIO_MAX + 1, ValueError, "from 1 to 0x7ffff000, not 2147479553"),
        (1 << 70, ValueError, "from 1 to 0x7ffff000"),
    ],
)
def test_a_length_that_cannot_be_received_is_told_in_a_sentence(
    device: FakeDevice, queue: Queue, length: int, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        queue.recv(5, length)
    assert device.last_calls() == []


def test_a_length_may_be_whatever_is_an_int(device: FakeDevice, queue: Queue) -> None:
    queue.recv(5, EventType.NAIO)
    (kevent,) = device.kevents.values()
    assert kevent.param[1] == EventType.NAIO


def test_nothing_is_received_before_there_was_an_event(device: FakeDevice, queue: Queue) -> None:
    transfer, row = queue.recv(5, 4), queue.recv_into(5, bytearray(b"abcd"), multishot=True)
    for each in (transfer, row):
        with pytest.raises(ValueError, match="the transfer has not ended"):
            _ = each.received
    end(device, transfer.ident, 2)
    device.put(record(row.ident, 3))
    queue.wait(0)
    assert (transfer.received, row.received, row.done) == (bytes(2), b"abc", False)
    cancelled = queue.recv_into(5, bytearray(b"abcd"), waitall=True)
    device.moved = (1, errno.ECANCELED)
    assert cancelled.cancel()
    assert cancelled.received == b"a"


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


def test_closing_the_queue_cancels_many_in_one_call(device: FakeDevice, queue: Queue) -> None:
    transfers = [queue.recv_into(5, bytearray(1)) for _ in range(abi.MAX_REQUESTS + 1)]
    device.calls.clear()
    queue.close()
    assert device.last_calls() == [abi.IOC_NR_REMOVE] * 2
    assert device.kevents == {}
    assert all(transfer.done for transfer in transfers)


@pytest.mark.parametrize("error", [errno.ENOTCONN, errno.ECONNABORTED, errno.EIO])
def test_closing_the_queue_of_a_dead_simulator_lets_go_of_the_buffers(
    device: FakeDevice, queue: Queue, error: int
) -> None:
    buffers = [bytearray(1) for _ in range(3)]
    transfers = [queue.recv_into(5, buffer) for buffer in buffers]
    fd = queue.fileno()
    device.failures = [error]
    queue.close()
    assert queue.closed
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)
    assert not any(map(held, buffers))
    assert [transfer.error for transfer in transfers] == [errno.ECANCELED] * 3
    queue.close()


def test_a_queue_is_closed_even_where_its_transfers_cannot_be_cancelled(
    device: FakeDevice, queue: Queue
) -> None:
    queue.recv_into(5, bytearray(1))
    fd = queue.fileno()
    device.failures = [errno.ENOMEM]
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        queue.close()
    assert queue.closed
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)
    queue.close()


Remove = Callable[[Queue, int], object]


@pytest.mark.parametrize(
    "remove",
    [
        lambda queue, ident: queue.remove(EventType.NAIO, ident),
        lambda queue, ident: queue.remove_many([(EventType.TIMER, 1), (EventType.NAIO, ident)]),
        lambda queue, ident: queue.change_and_wait(
            [
                pykevent.Change(pykevent.Op.ADD, pykevent.timer_event(1, 1)),
                pykevent.Change(pykevent.Op.REMOVE, pykevent.Request(EventType.NAIO, ident)),
            ],
            0,
        ),
    ],
)
def test_a_transfer_that_is_removed_by_its_number_has_ended(
    device: FakeDevice, queue: Queue, remove: Remove
) -> None:
    buffer = bytearray(10)
    transfer, other = queue.recv_into(5, buffer), queue.recv_into(5, bytearray(1))
    device.moved = (4, errno.ECANCELED)
    remove(queue, transfer.ident)
    assert (transfer.done, transfer.moved, transfer.error) == (True, 4, errno.ECANCELED)
    assert not held(buffer)
    assert not other.done


def removing(ident: int) -> pykevent.Change:
    """The change that cancels a transfer."""
    return pykevent.Change(pykevent.Op.REMOVE, pykevent.Request(EventType.NAIO, ident))


def test_a_change_that_did_nothing_ends_no_transfer(device: FakeDevice, queue: Queue) -> None:
    transfer = queue.recv_into(5, bytearray(10))
    device.failures = [errno.EINVAL]
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        queue.change_and_wait([removing(transfer.ident)], 0)
    assert not transfer.done


def test_a_transfer_that_is_removed_has_ended_though_the_wait_was_interrupted(
    device: FakeDevice, queue: Queue
) -> None:
    transfer = queue.recv_into(5, bytearray(10))
    device.moved = (4, errno.ECANCELED)
    seen: list[bool] = []

    def handler() -> None:
        seen.append(transfer.done)
        raise KeyboardInterrupt

    device.interruptions = [handler]
    with pytest.raises(KeyboardInterrupt):
        queue.change_and_wait([removing(transfer.ident)], 0)
    assert seen == [False]
    assert transfer.done
    assert transfer.moved == 4


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
    with pytest.raises(OSError, match="left out when the module was built") as caught:
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


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_a_send_names_the_bytes(
    device: FakeDevice, queue: Queue, read: list[bytes], make: Callable[[bytes], object]
) -> None:
    text = bytes(range(256))
    for begin in (0, 1, 255):
        queue.send(5, make(text[begin:]))
        assert read.pop() == text[begin:]


def test_bytes_that_are_sent_stay_until_the_event_is_seen(device: FakeDevice, queue: Queue) -> None:
    text = bytes(range(256))
    before = sys.getrefcount(text)
    ident = queue.send(5, text).ident
    assert sys.getrefcount(text) > before
    end(device, ident, 256)
    queue.wait(0)
    assert sys.getrefcount(text) == before


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
    for part in ("prefix", "suffix"):
        with pytest.raises(TypeError, match=rf"{part} must be bytes-like, not str: encode\(\) it"):
            queue.sendfile(5, 7, **{part: "text"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be bytes-like, not int"):
        queue.sendfile(5, 7, prefix=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"BytesIO .* has no descriptor: send\(\) its bytes"):
        queue.sendfile(5, io.BytesIO(b"bytes"))
    assert device.kevents == {}


def test_what_cannot_be_written_to_is_not_received_into(queue: Queue) -> None:
    for source in (b"constant", memoryview(bytearray(1)).toreadonly()):
        with pytest.raises(BufferError, match=f"{type(source).__name__} is read-only: use a byte"):
            queue.recv_into(5, source)
    with pytest.raises(TypeError, match=r"must be bytes-like, not int: recv\(\) takes a length"):
        queue.recv_into(5, 4096)


def test_what_has_no_bytes_is_not_sent(queue: Queue) -> None:
    with pytest.raises(TypeError, match=r"data must be bytes-like, not str: encode\(\) it"):
        queue.send(5, "no bytes")
    with pytest.raises(TypeError, match=r"data must be bytes-like, not int$"):
        queue.send(5, 4096)


def test_a_socket_that_encrypts_is_refused(device: FakeDevice, queue: Queue) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    near, far = socket.socketpair()
    buffer = bytearray(10)
    with far, context.wrap_socket(near, do_handshake_on_connect=False) as tls:
        for ask in (
            lambda: queue.recv_into(tls, buffer),
            lambda: queue.send(tls, b"secret"),
            lambda: queue.sendfile(tls, 7),
            lambda: pykevent.naio_event(1, NaioEvents.SEND, tls, 0, 1),
        ):
            with pytest.raises(TypeError, match=r"SSLSocket: call its recv\(\) and send\(\)"):
                ask()
    assert not held(buffer)
    assert device.kevents == {}


def test_a_number_that_no_descriptor_has_is_refused(queue: Queue) -> None:
    with pytest.raises(ValueError, match=r"fileobj must be from 0 to 2\*\*31 - 1"):
        queue.send(2**33, b"x")


def test_who_would_cancel_a_transfer_otherwise_is_told_how(queue: Queue) -> None:
    transfer = queue.recv(5, 10)
    for named in (transfer, 5.5):
        with pytest.raises(TypeError, match=r"by an int, .*: call Transfer\.cancel\(\)"):
            queue.remove(EventType.NAIO, named)  # type: ignore[arg-type]


def test_what_the_device_would_refuse_is_refused_in_a_sentence_and_holds_nothing(
    device: FakeDevice, queue: Queue
) -> None:
    empty, buffer = bytearray(), bytearray(10)
    with pytest.raises(ValueError, match="an empty buffer receives nothing"):
        queue.recv_into(5, empty)
    with pytest.raises(ValueError, match="not with waitall"):
        queue.recv_into(5, buffer, multishot=True, waitall=True)
    with pytest.raises(ValueError, match="dispatch is for multishot"):
        queue.recv_into(5, buffer, dispatch=True)
    with pytest.raises(ValueError, match="more than 16384 bytes together"):
        queue.sendfile(5, 7, prefix=bytes(16384), suffix=b"x")
    for path in ("a path", b"a path", Path("a path")):
        with pytest.raises(TypeError, match=r"a path.* is not an open file: open\(\) it first"):
            queue.sendfile(5, path)  # type: ignore[arg-type]
    assert not held(buffer)
    assert device.kevents == {}


@pytest.mark.parametrize("receives", [True, False])
def test_what_is_longer_than_a_transfer_may_be_is_refused(queue: Queue, receives: bool) -> None:
    # Nothing is in this file, so it takes no memory.
    with tempfile.TemporaryFile() as file:
        file.truncate(abi.NAIO_MAX + 1)
        memory = mmap.mmap(file.fileno(), abi.NAIO_MAX + 1)
    with memory, pytest.raises(ValueError, match="at most 0x7ffff000 bytes, not 0x7ffff001"):
        _ = queue.recv_into(5, memory) if receives else queue.send(5, memory)


def test_nothing_may_be_sent(device: FakeDevice, queue: Queue) -> None:
    queue.send(5, b"")
    assert len(device.kevents) == 1


def test_only_a_receive_has_received_something(device: FakeDevice, queue: Queue) -> None:
    transfer = queue.recv(5, 10)
    end(device, transfer.ident, 7)
    queue.wait(0)
    assert transfer.received == bytes(7)
    for other in (queue.send(5, b"hello"), queue.sendfile(5, 7)):
        with pytest.raises(ValueError, match="does not receive"):
            _ = other.received


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errno.ENOMEM, "ulimit -l"),
        (errno.EFAULT, "has to be writable"),
        (errno.EOPNOTSUPP, "not TCP with a protocol on top"),
        (errno.EPIPE, "Broken"),
    ],
)
def test_the_result_says_what_can_be_done(
    device: FakeDevice, queue: Queue, error: int, said: str
) -> None:
    transfer = queue.recv_into(5, bytearray(10))
    end(device, transfer.ident, 3, EventFlags.ERROR, count=error)
    queue.wait(0)
    with pytest.raises(OSError, match=said) as caught:
        transfer.result()
    assert caught.value.errno == error


def test_a_refusal_speaks_of_what_was_asked_for(device: FakeDevice, queue: Queue) -> None:
    def refusing(error: int) -> None:
        device._apply = lambda op, fields: error  # type: ignore[method-assign]

    transfer = queue.recv_into(5, bytearray(10))
    multishot = queue.recv_into(5, bytearray(10), multishot=True)
    both = pykevent.naio_event(1, NaioEvents.RECV | NaioEvents.SEND, 5, 0, 1)
    for error, ask, said, unsaid in (
        (errno.EBADF, lambda: queue.recv(5, 1), "the socket is not open", "reading"),
        (errno.EBADF, lambda: queue.sendfile(5, 7), "the file is not open, or not for", "buffer"),
        (errno.EINVAL, lambda: queue.send(5, b"x"), "more than 0x7ffff000 bytes", "regular"),
        (errno.EINVAL, lambda: queue.sendfile(5, 7), "a regular one", "0x7ffff000"),
        (errno.ENOTSOCK, lambda: queue.recv(5, 1), r"for sockets; register\(\) w", "poll_"),
        (errno.EOPNOTSUPP, lambda: queue.recv(5, 1), "UNIX sockets receive", "left out"),
        (errno.EOPNOTSUPP, lambda: queue.send(5, b"x"), r"datagrams, call send\(\)", "left out"),
        (errno.EOPNOTSUPP, lambda: queue.sendfile(5, 7), "read and send them", "left out"),
        (errno.EFAULT, lambda: queue.recv(5, 1), "has to be writable", "sent|send"),
        (errno.EFAULT, lambda: queue.send(5, b"x"), "to send cannot be read", "writable"),
        (errno.EFAULT, lambda: queue.sendfile(5, 7), "what sendfile_argument", "writable"),
        (errno.EINVAL, lambda: queue.sendfile(5, 7), "makes up, as in /proc", "0x7ffff000"),
        (errno.EINVAL, lambda: queue.add(both), "exactly one of RECV, SEND and", "0x7ffff000"),
        (errno.ENOENT, multishot.resume, "the transfer has ended", "NAIO"),
        (errno.EINVAL, multishot.resume, "another socket than it was added with", "regular"),
        (errno.EOPNOTSUPP, transfer.resume, "only a multishot can be resumed", "UNIX"),
    ):
        refusing(error)
        with pytest.raises(OSError, match=said) as caught:
            ask()
        assert caught.value.errno == error
        assert unsaid not in str(caught.value)


def test_a_transfer_that_has_ended_cannot_be_resumed(device: FakeDevice, queue: Queue) -> None:
    multishot = queue.recv_into(5, bytearray(10), multishot=True)
    end(device, multishot.ident, 0)
    queue.wait(0)
    device.last_calls()
    with pytest.raises(FileNotFoundError, match="the transfer has ended"):
        multishot.resume()
    assert device.last_calls() == []


def test_an_event_of_somebody_elses_transfer_passes(device: FakeDevice, queue: Queue) -> None:
    device.put(abi.EVENT.pack(0, 1, 2, 1, NaioEvents.SEND, EventType.NAIO, EventFlags.LAST))
    (event,) = queue.wait(0)
    assert (event.ident, event.data, event.type) == (1, 2, EventType.NAIO)


class InterruptedHereError(Exception):
    """What a handler of a signal raises."""


def test_a_signal_that_comes_while_memory_is_let_go_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    def interrupts(number: int, frame: object) -> None:
        raise InterruptedHereError

    previous = signal.signal(signal.SIGALRM, interrupts)
    try:
        for _ in range(300):
            with pytest.raises(InterruptedHereError):
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                while not lost:
                    Exported(bytearray(1), writable=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
