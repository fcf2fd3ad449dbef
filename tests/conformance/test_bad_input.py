# SPDX-License-Identifier: GPL-2.0-or-later
"""What is refused, and with which errno: every field and bit that a request may get wrong."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

import pykevent
from pykevent import EventType, Flags, Info, Queue, abi

from . import raw
from .support import now, refused

U32 = (1 << 32) - 1
U64 = (1 << 64) - 1

ANY = Flags.EDGE | Flags.ONESHOT | Flags.DISPATCH | Flags.DISABLED
"""The modes, which every type takes."""

TAKES = {
    EventType.SOCKET: ANY | Flags.NOTIFY_BROKEN | Flags.BYTES,
    EventType.POLL: ANY | Flags.NOTIFY_BROKEN,
    EventType.INODE: ANY | Flags.NOTIFY_BROKEN,
    EventType.TIMER: ANY | Flags.ABSTIME,
    EventType.USER: ANY,
}
"""The flags that an ADD of each type takes."""

EVENTS = {
    EventType.SOCKET: 0x601F,
    EventType.POLL: 0x27DF,
    EventType.INODE: 0x01FF,
    EventType.TIMER: 0x0001,
    EventType.USER: 0x0001,
}
"""The events that may be asked of each type."""

PARAMS = {EventType.INODE: 1, EventType.TIMER: 3}
"""How many of the parameters mean something; the others are 0."""


class Requests:
    """Good requests of one type, in which a test spoils something."""

    def __init__(self, type: EventType, ident: int, events: int, params: tuple[int, ...]) -> None:
        self.type, self.ident, self.events, self.params = type, ident, events, params

    def __call__(self, flags: int = 0, **fields: int) -> abi.kevent_request:
        made = raw.request(self.type, self.ident, self.events, flags, params=self.params)
        for name, value in fields.items():
            setattr(made, name, value)
        return made


@pytest.fixture(params=TAKES, ids=lambda kind: kind.name)
def good(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path, info: Info) -> Requests:
    """Good requests of every type that INFO has."""
    kind: EventType = request.param
    if not info.features & pykevent.Feature[kind.name]:
        pytest.skip(f"INFO has no {kind.name}")
    if kind in (EventType.SOCKET, EventType.POLL):
        near, far = socket.socketpair()
        stack.enter_context(near)
        stack.enter_context(far)
        return Requests(kind, near.fileno(), 0x0001, ())
    if kind == EventType.INODE:
        fd = os.open(tmp_path, os.O_RDONLY)
        stack.callback(os.close, fd)
        return Requests(kind, fd, 0x0001, ())
    return Requests(kind, 1, 0x0001, (3600 * 10**9, 0, 1) if kind == EventType.TIMER else ())


def result(queue: Queue, call: raw.Call) -> int:
    """The errno of the one request in @call, 0 if it succeeded."""
    succeeded = call(queue.fileno())
    (answer,) = call.results()
    assert succeeded == (answer == 0)
    return -answer


def test_a_good_request_is_good(queue: Queue, good: Requests) -> None:
    assert result(queue, raw.add(good())) == 0
    assert result(queue, raw.modify(good())) == 0
    assert result(queue, raw.remove(raw.request(good.type, good.ident))) == 0


def test_every_flag_that_the_type_does_not_take_is_einval(queue: Queue, good: Requests) -> None:
    for bit in range(32):
        flag = 1 << bit
        if flag & TAKES[good.type]:
            continue
        assert result(queue, raw.add(good(flag))) == errno.EINVAL, Flags(flag)
    assert queue.info().kevents == 0


def test_every_flag_that_the_type_takes_is_taken(queue: Queue, good: Requests) -> None:
    for flag in TAKES[good.type]:
        assert result(queue, raw.add(good(flag))) == 0, flag
        assert result(queue, raw.remove(raw.request(good.type, good.ident))) == 0


def test_modify_refuses_the_flags_that_add_refuses(queue: Queue, good: Requests) -> None:
    assert result(queue, raw.add(good())) == 0
    for bit in range(32):
        flag = 1 << bit
        expected = 0 if flag & TAKES[good.type] else errno.EINVAL
        assert result(queue, raw.modify(good(flag))) == expected, Flags(flag)


def test_one_shot_and_dispatch_exclude_each_other(queue: Queue, good: Requests) -> None:
    for more in (0, Flags.EDGE, Flags.DISABLED):
        both = Flags.ONESHOT | Flags.DISPATCH | more
        assert result(queue, raw.add(good(both))) == errno.EINVAL


def test_every_event_that_the_type_does_not_know_is_einval(queue: Queue, good: Requests) -> None:
    for bit in range(32):
        event = 1 << bit
        if event & EVENTS[good.type]:
            continue
        assert result(queue, raw.add(good(events=event))) == errno.EINVAL, hex(event)
        assert result(queue, raw.add(good(events=event | 1))) == errno.EINVAL, hex(event)
    assert queue.info().kevents == 0


def test_every_event_that_the_type_knows_is_taken(queue: Queue, good: Requests) -> None:
    for bit in range(32):
        if 1 << bit & EVENTS[good.type]:
            assert result(queue, raw.add(good(events=1 << bit))) == 0, hex(1 << bit)
            assert result(queue, raw.remove(raw.request(good.type, good.ident))) == 0


def test_modify_refuses_the_events_that_add_refuses(queue: Queue, good: Requests) -> None:
    assert result(queue, raw.add(good())) == 0
    for bit in range(32):
        if not 1 << bit & EVENTS[good.type]:
            assert result(queue, raw.modify(good(events=1 << bit))) == errno.EINVAL


def test_no_events_are_einval_but_for_what_always_reports_errors(
    queue: Queue, good: Requests
) -> None:
    polled = good.type in (EventType.SOCKET, EventType.POLL)
    assert result(queue, raw.add(good(events=0))) == (0 if polled else errno.EINVAL)


def test_a_parameter_that_means_nothing_is_einval(queue: Queue, good: Requests) -> None:
    for index in range(PARAMS.get(good.type, 0), 3):
        for value in (1, U64):
            request = good()
            request.param[index] = value
            assert result(queue, raw.add(request)) == errno.EINVAL, index
    assert queue.info().kevents == 0


def test_an_op_outside_of_change_wait_is_einval(queue: Queue, good: Requests) -> None:
    for op in (1, 2, 3, 4, 0xFFFF):
        assert result(queue, raw.add(good(op=op))) == errno.EINVAL
    assert result(queue, raw.add(good())) == 0
    for op in (1, 2, 3, 4, 0xFFFF):
        assert result(queue, raw.modify(good(op=op))) == errno.EINVAL
        bad = raw.request(good.type, good.ident, op=op)
        assert result(queue, raw.remove(bad)) == errno.EINVAL
    assert queue.info().kevents == 1


def test_an_op_that_change_wait_does_not_know_is_einval(queue: Queue, good: Requests) -> None:
    for op in (0, 4, 0xFFFF):
        assert result(queue, raw.wait(1, changes=[good(op=op)])) == errno.EINVAL
    assert queue.info().kevents == 0


def test_remove_takes_nothing_but_type_identity_and_stale(queue: Queue, good: Requests) -> None:
    assert result(queue, raw.add(good())) == 0
    for name in ("cookie", "events", "flags"):
        request = raw.request(good.type, good.ident)
        setattr(request, name, 1)
        assert result(queue, raw.remove(request)) == errno.EINVAL, name
    for params in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        request = raw.request(good.type, good.ident, params=params)
        assert result(queue, raw.remove(request)) == errno.EINVAL, params
    assert queue.info().kevents == 1


def test_twice_the_same_is_eexist(queue: Queue, good: Requests) -> None:
    assert result(queue, raw.add(good())) == 0
    assert result(queue, raw.add(good())) == errno.EEXIST
    assert queue.info().kevents == 1


def test_an_identity_that_is_not_registered_is_enoent(queue: Queue, good: Requests) -> None:
    assert result(queue, raw.modify(good())) == errno.ENOENT
    assert result(queue, raw.remove(raw.request(good.type, good.ident))) == errno.ENOENT


DESCRIPTORS = [EventType.SOCKET, EventType.POLL, EventType.INODE]


def has(info: Info, kind: EventType) -> None:
    """Skip the test where INFO lacks the type."""
    if not info.features & pykevent.Feature[kind.name]:
        pytest.skip(f"INFO has no {kind.name}")


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_a_number_that_cannot_be_a_descriptor_is_ebadf(
    queue: Queue, info: Info, kind: EventType
) -> None:
    has(info, kind)
    for ident in (1 << 31, U32, 1 << 32, (1 << 32) + 1, 1 << 63, U64):
        assert result(queue, raw.add(raw.request(kind, ident, 1))) == errno.EBADF
        assert result(queue, raw.modify(raw.request(kind, ident, 1))) == errno.EBADF
        assert result(queue, raw.remove(raw.request(kind, ident))) == errno.EBADF


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_a_closed_descriptor_is_ebadf(queue: Queue, info: Info, kind: EventType) -> None:
    has(info, kind)
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    assert result(queue, raw.add(raw.request(kind, fd, 1))) == errno.EBADF
    assert result(queue, raw.modify(raw.request(kind, fd, 1))) == errno.EBADF
    assert result(queue, raw.remove(raw.request(kind, fd))) == errno.EBADF


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_a_path_only_descriptor_is_ebadf(queue: Queue, info: Info, kind: EventType) -> None:
    has(info, kind)
    fd = os.open("/", os.O_PATH)
    try:
        assert result(queue, raw.add(raw.request(kind, fd, 1))) == errno.EBADF
    finally:
        os.close(fd)


@pytest.mark.needs("SOCKET")
def test_what_is_no_socket_is_enotsock(queue: Queue, pipe: tuple[int, int], tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        for fd in (*pipe, directory, queue.fileno()):
            assert result(queue, raw.add(raw.request(EventType.SOCKET, fd, 1))) == errno.ENOTSOCK
    finally:
        os.close(directory)


@pytest.mark.needs("INODE")
def test_a_path_comes_by_add_path_only(queue: Queue) -> None:
    assert result(queue, raw.add(raw.request(EventType.PATH, 1, 1))) == errno.EINVAL


@pytest.mark.needs("INODE")
def test_add_path_takes_paths_only(queue: Queue) -> None:
    for kind in (1, 2, 3, 4, 5, 8, 0xFFFF):
        call = raw.path(raw.request(kind, 1, 1), b"/")
        assert call(queue.fileno()) == 0
        assert call.request().result in (-errno.EINVAL, -errno.ENXIO), kind
    assert queue.info().kevents == 0


@pytest.mark.needs("INODE")
def test_add_path_refuses_flags_events_parameters_and_ops_as_add_does(queue: Queue) -> None:
    takes = ANY | Flags.NOFOLLOW
    bad = [raw.request(EventType.PATH, 1, 1, 1 << bit) for bit in range(32)]
    bad = [request for request in bad if not request.flags & (takes | Flags.NOTIFY_BROKEN)]
    bad += [raw.request(EventType.PATH, 1, 1 << bit) for bit in range(9, 32)]
    bad.append(raw.request(EventType.PATH, 1, 0))
    bad.append(raw.request(EventType.PATH, 1, 1, op=1))
    bad.append(raw.request(EventType.PATH, 1, 1, params=(0, 1, 0)))
    bad.append(raw.request(EventType.PATH, 1, 1, params=(0, 0, 1)))
    bad.append(raw.request(EventType.PATH, 1, 1, params=(U64, 0, 0)))
    for request in bad:
        call = raw.path(request, b"/")
        assert call(queue.fileno()) == 0
        assert call.request().result == -errno.EINVAL, bytes(request).hex()
    assert queue.info().kevents == 0


@pytest.mark.needs("INODE")
@pytest.mark.parametrize("flag", [Flags.NOFOLLOW, Flags.STALE])
def test_a_flag_of_add_path_or_remove_is_refused_by_add(queue: Queue, flag: Flags) -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        request = raw.request(EventType.INODE, fd, 1, flag)
        assert result(queue, raw.add(request)) == errno.EINVAL
    finally:
        os.close(fd)


@pytest.mark.needs("TIMER")
def test_a_timer_of_another_clock_is_einval(queue: Queue) -> None:
    for clock in (2, 3, 4, 5, 6, 8, 9, 11, 12, U32, U32 + 1, U64 - 1):
        request = raw.request(EventType.TIMER, 1, 1, params=(10**9, 0, clock))
        assert result(queue, raw.add(request)) == errno.EINVAL, clock


@pytest.mark.needs("TIMER")
@pytest.mark.parametrize("clock", [0, 1, 7])
def test_times_that_overflow_are_refused_and_not_wrapped(queue: Queue, clock: int) -> None:
    most = (1 << 63) - 1
    bad = [
        (0, (most + 1, 0, clock)),
        (0, (U64, 0, clock)),
        (0, (0, most + 1, clock)),
        (0, (0, U64, clock)),
        (0, (most, 0, clock)),  # from now on it is later than a clock can tell
        (Flags.ABSTIME, (most + 1, 0, clock)),
        (Flags.ABSTIME, (0, most + 1, clock)),
    ]
    for flags, params in bad:
        request = raw.request(EventType.TIMER, 1, 1, flags, params=params)
        assert result(queue, raw.add(request)) == errno.EINVAL, params
    queue.add(pykevent.timer_event(1, 3600))
    for flags, params in bad:
        request = raw.request(EventType.TIMER, 1, 1, flags, params=params)
        assert result(queue, raw.modify(request)) == errno.EINVAL, params
    assert now(queue) == []


@pytest.mark.needs("USER")
def test_every_flag_of_a_posting_is_einval(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    for bit in range(32):
        assert result(queue, raw.posts(raw.post(1, 0, 1 << bit))) == errno.EINVAL
    assert now(queue) == []


def test_a_refused_modify_changes_nothing(queue: Queue, good: Requests) -> None:
    flags = Flags.DISABLED
    request = pykevent.Request(good.type, good.ident, good.events, flags, 1, good.params)
    queue.add(request)
    for spoiled in (good(1 << 31), good(events=1 << 31), good(op=1)):
        assert result(queue, raw.modify(spoiled)) == errno.EINVAL
    if good.type == EventType.USER:
        queue.post(good.ident)
    assert now(queue) == []  # it is disabled still


def test_pykevent_itself_refuses_what_has_no_descriptor(queue: Queue) -> None:
    with pytest.raises(TypeError):
        queue.add(pykevent.poll_event(object(), 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="-1"):
        queue.add(pykevent.poll_event(-1, 1))
    with refused(errno.EBADF):
        queue.add(pykevent.poll_event(1 << 20, 1))
