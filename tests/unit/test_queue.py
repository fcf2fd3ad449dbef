# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue's methods against a device within the process."""

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from fake_device import FakeDevice

import pykevent
from pykevent import Change, EventType, Flags, InodeEvents, Op, PollEvents, Queue, SocketEvents, abi

BIG = abi.EVENT.pack(1, 2, 40 << 32, 1, InodeEvents.CREATE, 3, 4) + b"n" * 40 + bytes(24)


def users(*idents: int) -> list[pykevent.Request]:
    return [pykevent.user_event(ident, cookie=ident + 1000) for ident in idents]


def adding(*idents: int) -> list[Change]:
    return [Change(Op.ADD, request) for request in users(*idents)]


@pytest.fixture
def on_usr1() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Install what SIGUSR1 does."""
    old = signal.getsignal(signal.SIGUSR1)

    def install(act: Callable[[], None]) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: act())

    yield install
    signal.signal(signal.SIGUSR1, old)


def send_usr1() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


# Opening and closing


def test_the_device_is_the_one_named_or_that_of_the_environment_or_dev_kevent(
    device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    real = os.open

    def recorded(path: str, flags: int) -> int:
        opened.append((path, flags & ~os.O_NONBLOCK, bool(flags & os.O_NONBLOCK)))
        return real("/dev/null", flags)

    monkeypatch.setattr(os, "open", recorded)
    monkeypatch.setenv("KEVENT_DEVICE", "/dev/named")
    Queue("/dev/given").close()
    Queue(nonblocking=True).close()
    monkeypatch.delenv("KEVENT_DEVICE")
    Queue().close()
    flags = os.O_RDWR | os.O_CLOEXEC
    assert opened == [
        ("/dev/given", flags, False),
        ("/dev/named", flags, True),
        ("/dev/kevent", flags, False),
    ]


def test_the_descriptor_is_not_inherited(queue: Queue) -> None:
    assert not os.get_inheritable(queue.fileno())


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (errno.ENOENT, FileNotFoundError, "insmod kevent.ko"),
        (errno.EACCES, PermissionError, "udev rule"),
        (errno.EPERM, PermissionError, "udev rule"),
        (errno.ENODEV, OSError, "insmod kevent.ko"),
        (errno.ENXIO, OSError, "insmod kevent.ko"),
        (errno.ENOTCONN, OSError, "simulator"),
        (errno.EMFILE, OSError, "Too many open files"),
    ],
)
def test_an_error_of_opening_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: int, kind: type[OSError], hint: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind) as caught:
        pykevent.open("/dev/other")
    assert caught.value.errno == error
    assert caught.value.filename == "/dev/other"
    assert hint in str(caught.value)


def test_a_file_that_is_no_kevent_device_is_refused_and_closed_again() -> None:
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    with pytest.raises(OSError, match="not a kevent device") as caught:
        pykevent.open("/dev/null")
    assert caught.value.errno == errno.ENOTTY
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lowest)


def test_another_version_of_the_abi_is_refused(device: FakeDevice) -> None:
    device.version = 2
    with pytest.raises(OSError, match="version 2 of the ABI, this package version 1"):
        pykevent.open("/dev/null")


def test_closing_twice_does_no_harm_and_closed_tells(queue: Queue) -> None:
    assert not queue.closed
    fd = queue.fileno()
    queue.close()
    queue.close()
    assert queue.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


CLOSED: list[Callable[[Queue], object]] = [
    lambda queue: queue.fileno(),
    lambda queue: queue.__enter__(),
    lambda queue: queue.add(pykevent.user_event(1)),
    lambda queue: queue.add_many([]),
    lambda queue: queue.add_path("/", InodeEvents.CREATE, 1),
    lambda queue: queue.add_path("/" * 20000, InodeEvents.CREATE, 1),
    lambda queue: queue.modify(pykevent.user_event(1)),
    lambda queue: queue.modify_many([]),
    lambda queue: queue.remove(EventType.USER, 1),
    lambda queue: queue.remove_many([]),
    lambda queue: queue.register(0, PollEvents.IN),
    lambda queue: queue.unregister(0),
    lambda queue: queue.post(1),
    lambda queue: queue.post_many([]),
    lambda queue: queue.wait(0),
    lambda queue: queue.wait(),
    lambda queue: queue.change_and_wait([], 0),
    lambda queue: queue.change_and_wait(adding(1)),
    lambda queue: queue.info(),
]


@pytest.mark.parametrize("method", CLOSED)
def test_every_method_of_a_closed_queue_raises_valueerror(
    device: FakeDevice, queue: Queue, method: Callable[[Queue], object]
) -> None:
    queue.close()
    with pytest.raises(ValueError, match=r"^I/O operation on closed kevent queue$"):
        method(queue)
    assert device.calls == []


def test_with_closes(device: FakeDevice) -> None:
    with pykevent.open("/dev/null") as queue:
        assert f"fd={queue.fileno()}" in repr(queue)
    assert queue.closed
    assert "closed" in repr(queue)


def test_fromfd_does_not_duplicate(device: FakeDevice) -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    queue = Queue.fromfd(fd)
    assert queue.fileno() == fd
    queue.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(ValueError, match="-1"):
        Queue.fromfd(-1)


def test_a_queue_that_is_forgotten_closes_its_descriptor(device: FakeDevice) -> None:
    fd = pykevent.open("/dev/null").fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# Changing


def test_the_errors_of_one_request_are_oserrors_with_their_errno(
    device: FakeDevice, queue: Queue
) -> None:
    queue.add(pykevent.user_event(1))
    with pytest.raises(FileExistsError):
        queue.add(pykevent.user_event(1))
    with pytest.raises(FileNotFoundError):
        queue.modify(pykevent.user_event(2))
    with pytest.raises(FileNotFoundError):
        queue.remove(EventType.USER, 2)
    with pytest.raises(FileNotFoundError):
        queue.remove(EventType.USER, 1, stale=True)
    with pytest.raises(OSError, match="does not know this type") as caught:
        queue.add(pykevent.Request(77, 1))
    assert caught.value.errno == errno.ENXIO
    device.features &= ~abi.Feature.TIMER
    with pytest.raises(OSError, match="left out when the module was built") as caught:
        queue.add(pykevent.timer_event(1, 1.0))
    assert caught.value.errno == errno.EOPNOTSUPP
    device.max_queue = 0
    with pytest.raises(OSError, match="how many kevents") as caught:
        queue.add(pykevent.user_event(3))
    assert caught.value.errno == errno.ENOSPC


def test_a_regular_file_is_a_permissionerror_that_says_why(queue: Queue) -> None:
    with open(__file__) as file, pytest.raises(PermissionError, match="cannot be polled"):
        queue.add(pykevent.poll_event(file, PollEvents.IN))


def test_a_batch_is_split_into_calls_that_hold_it(device: FakeDevice, queue: Queue) -> None:
    assert queue.add_many(users(*range(700))) == [0] * 700
    sizes = [call.size for call in device.calls]
    per_call = [(size - abi.BATCH.size) // abi.REQUEST.size for size in sizes]
    assert per_call == [292, 292, 116]
    assert [kevent.cookie for kevent in device.kevents.values()] == list(range(1000, 1700))
    assert queue.modify_many(users(*range(293))) == [0] * 293
    assert queue.remove_many(users(*range(293))) == [0] * 293
    assert device.last_calls() == [abi.IOC_NR_ADD] * 3 + [2] * 2 + [3] * 2


def test_every_entry_of_a_batch_has_its_own_result(device: FakeDevice, queue: Queue) -> None:
    queue.add_many(users(1, 300))
    expected = [-errno.EEXIST if ident in (1, 300) else 0 for ident in range(400)]
    assert queue.add_many(users(*range(400))) == expected
    gone: list[pykevent.Request | tuple[EventType, int]] = [*users(5, 999), (EventType.USER, 6)]
    assert queue.remove_many(gone) == [0, -errno.ENOENT, 0]


def test_an_empty_batch_succeeds_without_a_call(device: FakeDevice, queue: Queue) -> None:
    assert queue.add_many([]) == []
    assert queue.post_many([]) == []
    assert device.calls == []


def test_a_request_that_cannot_be_encoded_stops_the_whole_batch(
    device: FakeDevice, queue: Queue
) -> None:
    with pytest.raises(ValueError, match="cookie"):
        queue.add_many([*users(*range(400)), pykevent.user_event(1, cookie=-1)])
    assert device.kevents == {}


def test_register_chooses_the_type_and_unregister_finds_it(
    device: FakeDevice, queue: Queue
) -> None:
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    with one, other:
        queue.register(one, PollEvents.IN | PollEvents.OUT, 7, Flags.EDGE)
        queue.register(other, SocketEvents.RECV)
        queue.register(reader, PollEvents.IN, cookie=8)
        found = device.kevents[EventType.SOCKET, one.fileno()]
        expected = SocketEvents.RECV | SocketEvents.ACCEPT | SocketEvents.SEND
        assert (found.events, found.cookie, found.flags) == (expected, 7, Flags.EDGE)
        assert device.kevents[EventType.SOCKET, other.fileno()].events == SocketEvents.RECV
        assert device.kevents[EventType.POLL, reader].cookie == 8
        for fileobj in (one, other, reader):
            queue.unregister(fileobj)
        assert device.kevents == {}
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        queue.register(reader, PollEvents.IN)
    with pytest.raises(TypeError, match="fileno"):
        queue.register("abc", PollEvents.IN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="-3"):
        queue.register(-3, PollEvents.IN)


def test_add_path_encodes_the_path_and_names_it_in_errors(
    device: FakeDevice, queue: Queue, tmp_path: os.PathLike[str]
) -> None:
    queue.add_path(tmp_path, InodeEvents.CREATE, ident=7, cookie=9, limit=3)
    assert device.paths == {7: os.fsencode(tmp_path)}
    sent = abi.kevent_request.from_buffer_copy(device.calls[0].sent)
    assert (sent.type, sent.ident, sent.cookie, sent.param[0]) == (EventType.PATH, 7, 9, 3)
    with pytest.raises(FileNotFoundError) as caught:
        queue.add_path("/nowhere/at/all", InodeEvents.CREATE, 8)
    assert caught.value.filename == "/nowhere/at/all"
    with pytest.raises(ValueError, match="null byte"):
        queue.add_path("a\0b", InodeEvents.CREATE, 8)
    with pytest.raises(OSError) as too_long:
        queue.add_path("/" * 20000, InodeEvents.CREATE, 8)
    assert too_long.value.errno == errno.ENAMETOOLONG


def test_posts_coalesce_and_are_split_into_calls(device: FakeDevice, queue: Queue) -> None:
    queue.add(pykevent.user_event(5, cookie=6))
    assert queue.post_many([(5, number) for number in range(1000)]) == [0] * 1000
    queue.post(5, 2**64 - 1)
    assert device.last_calls() == [abi.IOC_NR_ADD, *[abi.IOC_NR_POST] * 3]
    (event,) = queue.wait(0)
    assert (event.count, event.data, event.cookie) == (1001, 2**64 - 1, 6)
    assert queue.post_many([(5, 1), (4, 1)]) == [0, -errno.ENOENT]
    with pytest.raises(FileNotFoundError):
        queue.post(4)
    with pytest.raises(ValueError, match="data"):
        queue.post(5, -1)


def test_info_has_every_field(device: FakeDevice, queue: Queue) -> None:
    queue.add(pykevent.user_event(5))
    queue.post(5)
    info = queue.info()
    assert (info.version, info.features) == (1, device.features)
    assert (info.max_name_queue, info.max_queue, info.max_user) == (16384, 1000, 5000)
    assert (info.kevents, info.ready, info.user_kevents) == (1, 1, 1)
    assert info.pinned == pykevent.FileKind(0)


# Waiting


def test_wait_tells_the_device_min_max_and_the_end(device: FakeDevice, queue: Queue) -> None:
    before = time.monotonic_ns()
    assert queue.wait(0.001, min=3, max=7) == []
    assert time.monotonic_ns() - before >= 10**6
    (call,) = device.calls
    header = abi.kevent_wait.from_buffer_copy(call.sent)
    assert (header.min, header.max, header.nr_changes) == (3, 7, 0)
    assert header.flags == abi.WaitFlags.ABSTIME
    assert header.timeout - before >= 10**6
    assert (call.number, call.blocking) == (abi.WAIT(7), True)


@pytest.mark.parametrize(("timeout", "minimum"), [(0, 1), (-1, 1), (None, 0), (5, 0)])
def test_a_wait_that_does_not_wait_is_no_blocking_call(
    device: FakeDevice, queue: Queue, timeout: float | None, minimum: int
) -> None:
    assert queue.wait(timeout, min=minimum) == []
    assert not device.calls[0].blocking


def test_min_and_max_out_of_range_are_refused(queue: Queue) -> None:
    with pytest.raises(ValueError, match="510 records"):
        queue.wait(0, max=511)
    with pytest.raises(ValueError, match="min"):
        queue.wait(0, min=-1)
    with pytest.raises(OSError) as caught:
        queue.wait(0, min=3, max=2)
    assert caught.value.errno == errno.EINVAL


def test_an_event_without_room_for_its_name_is_emsgsize(device: FakeDevice, queue: Queue) -> None:
    device.put(BIG)
    with pytest.raises(OSError) as caught:
        queue.wait(0, max=2)
    assert caught.value.errno == errno.EMSGSIZE
    (event,) = queue.wait(0, max=3)
    assert event.name == b"n" * 40


def test_after_a_signal_the_handler_runs_and_the_wait_goes_on_to_the_same_end(
    device: FakeDevice, queue: Queue, on_usr1: Callable[[Callable[[], None]], None]
) -> None:
    queue.add(pykevent.user_event(1))
    handled: list[int] = []
    on_usr1(lambda: handled.append(len(device.calls)))
    device.interruptions = [send_usr1, send_usr1]
    device.calls.clear()
    assert queue.wait(0.002) == []
    assert handled == [1, 2]
    ends = {abi.kevent_wait.from_buffer_copy(call.sent).timeout for call in device.calls}
    assert len(device.calls) == 3
    assert len(ends) == 1


def test_a_handler_that_raises_ends_the_wait(
    device: FakeDevice, queue: Queue, on_usr1: Callable[[Callable[[], None]], None]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    on_usr1(interrupt)
    device.interruptions = [send_usr1]
    with pytest.raises(KeyboardInterrupt):
        queue.wait()
    assert len(device.calls) == 1
    queue.close()


def test_a_handler_that_closes_the_queue_ends_the_wait(
    device: FakeDevice, queue: Queue, on_usr1: Callable[[Callable[[], None]], None]
) -> None:
    on_usr1(queue.close)
    device.interruptions = [send_usr1]
    fd = queue.fileno()
    with pytest.raises(ValueError, match="closed kevent queue"):
        queue.wait()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_an_interrupted_change_of_another_kind_is_made_again(
    device: FakeDevice, queue: Queue
) -> None:
    device.interruptions = [lambda: None]
    queue.add(pykevent.user_event(1))
    assert device.last_calls() == [abi.IOC_NR_ADD] * 2
    device.interruptions = [lambda: None]
    assert queue.info().kevents == 1


# Changing and waiting


def test_changes_and_wait_are_one_call(device: FakeDevice, queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    queue.post(1)
    device.calls.clear()
    changes = [*adding(2, 1), Change(Op.REMOVE, pykevent.user_event(9))]
    results, (event,) = queue.change_and_wait(changes, 5)
    assert results == [0, -errno.EEXIST, -errno.ENOENT]
    assert event.ident == 1
    assert [call.number for call in device.calls] == [abi.CHANGE_WAIT(3, 256)]


def test_a_change_that_failed_does_not_wait(device: FakeDevice, queue: Queue) -> None:
    assert queue.change_and_wait([Change(Op.REMOVE, pykevent.user_event(9))]) == ([-2], [])


def test_only_changes_need_no_room(device: FakeDevice, queue: Queue) -> None:
    assert queue.change_and_wait(adding(1), min=0, max=0) == ([0], [])
    assert device.calls[0].number == abi.CHANGE_WAIT(1, 0)


def test_no_changes_are_a_wait(device: FakeDevice, queue: Queue) -> None:
    assert queue.change_and_wait([], 0) == ([], [])
    assert device.last_calls() == [abi.IOC_NR_WAIT]


@pytest.mark.parametrize("number", [145, 146, 291, 292, 437, 600])
def test_more_changes_than_fit_go_ahead_in_calls_that_do_not_wait(
    device: FakeDevice, queue: Queue, number: int
) -> None:
    results, events = queue.change_and_wait(adding(*range(number)), 0.001)
    assert (results, events) == ([0] * number, [])
    assert list(device.kevents) == [(EventType.USER, ident) for ident in range(number)]
    *ahead, last = device.calls
    assert len(ahead) == (number - 145 + 290) // 291 if number > 145 else not ahead
    assert not any(call.blocking for call in ahead)
    assert last.blocking


def test_a_failure_in_the_calls_ahead_does_not_wait_either(
    device: FakeDevice, queue: Queue
) -> None:
    queue.add(pykevent.user_event(0))
    results, events = queue.change_and_wait(adding(*range(300)))
    assert results == [-errno.EEXIST] + [0] * 299
    assert events == []


def test_after_a_signal_changes_are_not_made_again(device: FakeDevice, queue: Queue) -> None:
    device.interruptions = [lambda: None, lambda: None]
    assert queue.change_and_wait(adding(1, 2), 0.001) == ([0, 0], [])
    assert device.last_calls() == [abi.IOC_NR_CHANGE_WAIT, abi.IOC_NR_WAIT, abi.IOC_NR_WAIT]


def test_after_a_signal_a_change_that_failed_still_does_not_wait(
    device: FakeDevice, queue: Queue
) -> None:
    queue.add(pykevent.user_event(1))
    device.interruptions = [lambda: None]
    assert queue.change_and_wait(adding(1, 2)) == ([-errno.EEXIST, 0], [])
    assert not device.calls[-1].blocking


@pytest.mark.parametrize("interrupted", [False, True])
def test_results_are_kept_where_the_events_do_not_fit(
    device: FakeDevice, queue: Queue, interrupted: bool
) -> None:
    device.put(BIG)
    if interrupted:
        device.interruptions = [lambda: None]
    changes = [*adding(1), Change(Op.REMOVE, pykevent.user_event(9))]
    with pytest.raises(pykevent.ChangesAppliedError) as caught:
        queue.change_and_wait(changes, max=1)
    assert caught.value.errno == errno.EMSGSIZE
    assert caught.value.results == [0, -errno.ENOENT]
