# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests: identities, ranges, and the constructors of each source."""

import socket
import time
from typing import Any

import pytest

import pykevent
from pykevent import Change, EventType, Flags, InodeEvents, Op, PollEvents, Request, SocketEvents
from pykevent.abi import REQUEST, kevent_request
from pykevent.requests import encoded


def decode(request: Request | Change) -> kevent_request:
    return kevent_request.from_buffer_copy(request.encode())


def test_every_field_stands_in_its_place() -> None:
    request = Request(EventType.TIMER, 2**64 - 1, 3, Flags.EDGE, 2**64 - 2, (4, 5, 6))
    found = decode(request)
    assert (found.ident, found.cookie, found.type) == (2**64 - 1, 2**64 - 2, EventType.TIMER)
    assert (found.op, found.flags, found.events, found.result) == (0, Flags.EDGE, 3, 0)
    assert list(found.param) == [4, 5, 6]
    assert len(request.encode()) == REQUEST.size


def test_an_object_with_fileno_stands_for_its_descriptor() -> None:
    with socket.socket() as one:
        assert decode(pykevent.socket_event(one, SocketEvents.RECV)).ident == one.fileno()
        assert decode(pykevent.poll_event(one.fileno(), PollEvents.IN)).ident == one.fileno()


def test_the_descriptor_is_the_one_of_the_moment_of_the_call() -> None:
    one = socket.socket()
    request = pykevent.socket_event(one, SocketEvents.RECV)
    one.close()
    with pytest.raises(ValueError, match="-1 is no descriptor: was it closed"):
        request.encode()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((Op.ADD, pykevent.user_event(1)), Request),
        (Change(Op.ADD, pykevent.user_event(1)), Request),
        (pykevent.user_event(1), Change),
        (Change(Op.REMOVE, (EventType.USER, 1)), Change),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_request_or_change_is_told_what_is(given: Any, wanted: Any) -> None:
    with pytest.raises(TypeError, match=r"user_event\(\)|Change\(Op.ADD, request\)"):
        encoded(given, wanted)


def test_an_op_is_a_number() -> None:
    with pytest.raises(TypeError, match="op must be an int"):
        Change("add", pykevent.user_event(1)).encode()  # type: ignore[arg-type]


def test_a_file_to_send_is_not_the_socket() -> None:
    with socket.socket() as one, pytest.raises(TypeError, match=r"sendfile\(socket, file\)"):
        pykevent.sendfile_argument(one, 0, None)


@pytest.mark.parametrize("kind", [EventType.SOCKET, EventType.POLL, EventType.INODE])
def test_a_descriptor_is_an_int_or_has_fileno(kind: EventType) -> None:
    with pytest.raises(TypeError, match="fileno"):
        Request(kind, "abc").encode()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="-1"):
        Request(kind, -1).encode()


def test_fileno_must_return_an_int() -> None:
    class Odd:
        def fileno(self) -> str:
            return "3"

    with pytest.raises(TypeError, match="'3'"):
        Request(EventType.POLL, Odd()).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [EventType.TIMER, EventType.USER, EventType.PATH, 99])
def test_other_types_are_named_by_a_number(kind: int) -> None:
    assert decode(Request(kind, 2**64 - 1)).ident == 2**64 - 1
    with pytest.raises(ValueError, match="ident"):
        Request(kind, -1).encode()
    with pytest.raises(ValueError, match="ident"):
        Request(kind, 2**64).encode()
    with socket.socket() as one, pytest.raises(TypeError, match="named by an int"):
        Request(kind, one).encode()


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (Request(5, 1, cookie=-1), "cookie"),
        (Request(5, 1, cookie=2**64), "cookie"),
        (Request(5, 1, events=2**32), "events"),
        (Request(5, 1, flags=-1), "flags"),
        (Request(2**16, 1), "type"),
        (Request(5, 1, params=(0, 2**64)), "param"),
        (Request(5, 1, params=(0, 0, 0, 0)), "3 params"),
    ],
)
def test_a_number_that_its_field_does_not_hold_is_refused(request_: Request, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        request_.encode()


@pytest.mark.parametrize("wrong", [object(), "1", 1.5, None])
def test_what_is_no_number_is_refused_by_the_name_of_its_field(wrong: int) -> None:
    with pytest.raises(TypeError, match="cookie must be an int, not"):
        Request(5, 1, cookie=wrong).encode()


def test_a_change_carries_its_op() -> None:
    request = pykevent.user_event(9, Flags.EDGE, cookie=3)
    assert decode(Change(Op.ADD, request)).op == Op.ADD
    assert decode(Change(Op.MODIFY, request)).flags == Flags.EDGE


def test_a_removal_carries_the_identity_and_stale_alone() -> None:
    request = Request(EventType.POLL, 5, 1, Flags.EDGE | Flags.STALE, 3, (4,))
    found = decode(Change(Op.REMOVE, request))
    assert (found.op, found.type, found.ident) == (Op.REMOVE, EventType.POLL, 5)
    assert (found.flags, found.events, found.cookie) == (Flags.STALE, 0, 0)
    assert list(found.param) == [0, 0, 0]


def test_a_timer_in_seconds_is_rounded_up_to_ns() -> None:
    found = decode(pykevent.timer_event(1, 0.5, 1.1e-9))
    assert list(found.param) == [500_000_000, 2, time.CLOCK_MONOTONIC]
    assert (found.events, found.flags) == (1, 0)


def test_a_timer_in_ns_is_exact() -> None:
    request = pykevent.timer_event(
        1, value_ns=2**60 + 1, interval_ns=7, clock=time.CLOCK_BOOTTIME, flags=Flags.ONESHOT
    )
    assert list(decode(request).param) == [2**60 + 1, 7, time.CLOCK_BOOTTIME]
    assert decode(request).flags == Flags.ONESHOT


def test_an_absolute_timer_says_so() -> None:
    request = pykevent.timer_event(1, 5, clock=time.CLOCK_REALTIME, absolute=True)
    found = decode(request)
    assert found.flags == Flags.ABSTIME
    assert list(found.param) == [5 * 10**9, 0, time.CLOCK_REALTIME]


def test_a_timer_needs_one_value_and_no_negative_time() -> None:
    with pytest.raises(TypeError, match="value"):
        pykevent.timer_event(1)
    with pytest.raises(TypeError, match="value"):
        pykevent.timer_event(1, 0.5, value_ns=3)
    with pytest.raises(TypeError, match="interval"):
        pykevent.timer_event(1, 0.5, 0.5, interval_ns=3)
    with pytest.raises(ValueError, match="negative"):
        pykevent.timer_event(1, -0.5)
    with pytest.raises(ValueError, match="negative"):
        pykevent.timer_event(1, 0, interval_ns=-1)
    with pytest.raises(OverflowError):
        pykevent.timer_event(1, 1e300)


def test_inode_and_user_requests() -> None:
    found = decode(pykevent.inode_event(5, InodeEvents.CREATE, limit=12))
    assert (found.type, found.ident, found.events) == (EventType.INODE, 5, InodeEvents.CREATE)
    assert list(found.param) == [12, 0, 0]
    assert decode(pykevent.user_event(6, cookie=8)).events == pykevent.UserEvents.POSTED
