# SPDX-License-Identifier: GPL-2.0-or-later
"""Level, edge, one-shot, dispatch, disabled: each mode on each kind of source that has a state."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

import pykevent
from pykevent import EventType, Flags, PollEvents, Queue, Request, SocketEvents

from .sockets import until_arrived
from .support import cookies, now, one, refused, tcp_pair, until_polled


@dataclass
class Source:
    """Something that becomes readable on demand."""

    type: EventType
    fd: int
    write: Callable[[], object]
    read: Callable[[], object]

    def request(self, flags: Flags | int = 0, cookie: int = 0) -> Request:
        """Interest in its becoming readable."""
        events = SocketEvents.RECV if self.type == EventType.SOCKET else PollEvents.IN
        return Request(self.type, self.fd, events, flags, cookie)

    def activity(self) -> None:
        """Make it readable, or more so, and wait until it is."""
        self.write()
        until_polled(self.fd, select.POLLIN)

    def quiet(self) -> None:
        """Read one activity's worth."""
        self.read()


def _socket_source(near: socket.socket, far: socket.socket, stack: ExitStack) -> Source:
    stack.enter_context(near)
    stack.enter_context(far)

    def write() -> None:
        far.send(b"x")
        if far.family != socket.AF_UNIX:
            until_arrived(far)

    return Source(EventType.SOCKET, near.fileno(), write, lambda: near.recv(1))


def make_source(kind: str, stack: ExitStack) -> Source:
    """A source of that kind, which @stack will close."""
    if kind == "tcp":
        return _socket_source(*tcp_pair(), stack)
    if kind == "unix":
        return _socket_source(*socket.socketpair(), stack)
    if kind == "datagram":
        return _socket_source(*socket.socketpair(type=socket.SOCK_DGRAM), stack)
    if kind == "pipe":
        near, far = os.pipe()
        stack.callback(os.close, near)
        stack.callback(os.close, far)
        return Source(EventType.POLL, near, lambda: os.write(far, b"x"), lambda: os.read(near, 1))
    fd = os.eventfd(0, os.EFD_SEMAPHORE)
    stack.callback(os.close, fd)
    return Source(EventType.POLL, fd, lambda: os.eventfd_write(fd, 1), lambda: os.eventfd_read(fd))


KINDS = ["tcp", "unix", "datagram", "pipe", "eventfd"]


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, stack: ExitStack, info: pykevent.Info) -> Source:
    """A source of every kind that INFO has."""
    made = make_source(request.param, stack)
    if not info.features & pykevent.Feature[made.type.name]:
        pytest.skip(f"INFO has no {made.type.name}")
    return made


def test_what_is_ready_when_added_is_reported_by_the_next_wait(
    queue: Queue, source: Source
) -> None:
    source.activity()
    queue.add(source.request(cookie=3))
    assert cookies(now(queue)) == [3]


def test_what_is_not_ready_is_not_reported(queue: Queue, source: Source) -> None:
    queue.add(source.request())
    assert now(queue) == []


def test_level_is_reported_by_every_wait_while_the_condition_holds(
    queue: Queue, source: Source
) -> None:
    queue.add(source.request())
    source.activity()
    for _ in range(3):
        assert len(now(queue)) == 1
    source.quiet()
    assert now(queue) == []


def test_level_goes_on_while_something_is_left_to_read(queue: Queue, source: Source) -> None:
    queue.add(source.request())
    source.activity()
    source.activity()
    source.quiet()
    assert len(now(queue)) == 1
    source.quiet()
    assert now(queue) == []


def test_level_is_never_stale(queue: Queue, source: Source) -> None:
    queue.add(source.request())
    source.activity()
    source.quiet()
    assert now(queue) == []


def test_level_is_reported_again_after_a_quiet_time(queue: Queue, source: Source) -> None:
    queue.add(source.request())
    for _ in range(3):
        source.activity()
        assert len(now(queue)) == 1
        source.quiet()
        assert now(queue) == []


def test_a_kevent_comes_once_in_a_wait_however_often_its_source_was_active(
    queue: Queue, source: Source
) -> None:
    queue.add(source.request())
    for _ in range(4):
        source.activity()
    assert len(now(queue)) == 1


def test_edge_reports_an_activity_once(queue: Queue, source: Source) -> None:
    queue.add(source.request(Flags.EDGE))
    source.activity()
    assert len(now(queue)) == 1
    assert now(queue) == []


def test_edge_reports_new_activity_whatever_happened_to_the_old(
    queue: Queue, source: Source
) -> None:
    queue.add(source.request(Flags.EDGE))
    for _ in range(3):
        source.activity()
        assert len(now(queue)) == 1
        assert now(queue) == []


def test_edge_that_modify_asked_for_reports_new_activity_too(queue: Queue, source: Source) -> None:
    queue.add(source.request())
    source.activity()
    queue.modify(source.request(Flags.EDGE))
    assert len(now(queue)) == 1
    for _ in range(2):
        source.activity()
        assert len(now(queue)) == 1
        assert now(queue) == []


def test_edge_reports_activities_between_two_waits_as_one(queue: Queue, source: Source) -> None:
    queue.add(source.request(Flags.EDGE))
    source.activity()
    source.activity()
    assert len(now(queue)) == 1
    assert now(queue) == []


def test_edge_reports_nothing_where_the_condition_is_gone(queue: Queue, source: Source) -> None:
    queue.add(source.request(Flags.EDGE))
    source.activity()
    source.quiet()
    assert now(queue) == []


def test_edge_reports_what_is_ready_when_added_once(queue: Queue, source: Source) -> None:
    source.activity()
    queue.add(source.request(Flags.EDGE))
    assert len(now(queue)) == 1
    assert now(queue) == []


def test_modify_looks_at_the_source_again_so_edge_reports_what_is_ready(
    queue: Queue, source: Source
) -> None:
    queue.add(source.request(Flags.EDGE))
    source.activity()
    assert len(now(queue)) == 1
    queue.modify(source.request(Flags.EDGE, cookie=2))
    assert cookies(now(queue)) == [2]
    assert now(queue) == []


def test_one_shot_is_removed_by_its_delivery_and_says_so(queue: Queue, source: Source) -> None:
    queue.add(source.request(Flags.ONESHOT))
    source.activity()
    assert one(queue).last
    assert now(queue) == []
    assert queue.info().kevents == 0
    with refused(errno.ENOENT):
        queue.remove(source.type, source.fd)


def test_one_shot_may_be_added_again_after_its_delivery(queue: Queue, source: Source) -> None:
    source.activity()
    for _ in range(3):
        queue.add(source.request(Flags.ONESHOT))
        assert one(queue).last
    assert now(queue) == []


def test_one_shot_waits_for_its_condition(queue: Queue, source: Source) -> None:
    queue.add(source.request(Flags.ONESHOT))
    source.activity()
    source.quiet()
    assert now(queue) == []
    assert queue.info().kevents == 1
    source.activity()
    assert one(queue).last


def test_only_one_shot_events_are_marked_as_the_last(queue: Queue, source: Source) -> None:
    source.activity()
    for flags in (Flags(0), Flags.EDGE, Flags.DISPATCH):
        queue.add(source.request(flags))
        assert not one(queue).last
        queue.remove(source.type, source.fd)


def test_dispatch_is_disabled_by_its_delivery(queue: Queue, source: Source) -> None:
    queue.add(source.request(Flags.DISPATCH))
    source.activity()
    assert len(now(queue)) == 1
    source.activity()
    assert now(queue) == []
    assert queue.info().kevents == 1


def test_modify_arms_dispatch_again_and_what_is_ready_is_reported(
    queue: Queue, source: Source
) -> None:
    queue.add(source.request(Flags.DISPATCH))
    source.activity()
    for cookie in (5, 6, 7):
        assert len(now(queue)) == 1
        assert now(queue) == []
        queue.modify(source.request(Flags.DISPATCH, cookie=cookie))
    assert cookies(now(queue)) == [7]


def test_dispatch_armed_again_waits_for_the_next_activity(queue: Queue, source: Source) -> None:
    queue.add(source.request(Flags.DISPATCH))
    source.activity()
    assert len(now(queue)) == 1
    source.quiet()
    queue.modify(source.request(Flags.DISPATCH))
    assert now(queue) == []
    source.activity()
    assert len(now(queue)) == 1


def test_disabled_is_silent_until_it_is_modified(queue: Queue, source: Source) -> None:
    source.activity()
    queue.add(source.request(Flags.DISABLED))
    source.activity()
    assert now(queue) == []
    queue.modify(source.request(cookie=4))
    assert cookies(now(queue)) == [4]


def test_modify_can_disable_what_is_ready(queue: Queue, source: Source) -> None:
    queue.add(source.request())
    source.activity()
    queue.modify(source.request(Flags.DISABLED))
    assert now(queue) == []
    source.activity()
    assert now(queue) == []


def test_modify_replaces_the_cookie_of_an_event_that_is_ready(queue: Queue, source: Source) -> None:
    queue.add(source.request(cookie=1))
    source.activity()
    queue.modify(source.request(cookie=2))
    assert cookies(now(queue)) == [2]


def test_modify_changes_the_mode(queue: Queue, source: Source) -> None:
    queue.add(source.request())
    source.activity()
    assert len(now(queue)) == len(now(queue)) == 1
    queue.modify(source.request(Flags.EDGE))
    assert [len(now(queue)) for _ in range(2)] == [1, 0]
    queue.modify(source.request(Flags.ONESHOT))
    assert one(queue).last
    assert queue.info().kevents == 0


def test_modify_to_events_that_do_not_hold_silences_what_was_ready(
    queue: Queue, source: Source
) -> None:
    queue.add(source.request())
    source.activity()
    queue.modify(Request(source.type, source.fd, 0))
    assert now(queue) == []
    queue.modify(source.request())
    assert len(now(queue)) == 1


def test_after_remove_returned_no_wait_delivers(queue: Queue, source: Source) -> None:
    queue.add(source.request())
    source.activity()
    queue.remove(source.type, source.fd)
    assert now(queue) == []
    source.activity()
    assert now(queue) == []


def test_what_was_removed_may_be_added_again(queue: Queue, source: Source) -> None:
    source.activity()
    for cookie in range(3):
        queue.add(source.request(cookie=cookie))
        assert cookies(now(queue)) == [cookie]
        queue.remove(source.type, source.fd)


def test_events_are_delivered_in_the_order_in_which_they_became_ready(
    queue: Queue, stack: ExitStack, source: Source
) -> None:
    sources = [make_source("unix", stack) for _ in range(4)]
    if not queue.info().features & pykevent.Feature.SOCKET:
        pytest.skip("INFO has no SOCKET")
    sources.insert(2, source)
    for cookie, each in enumerate(sources):
        queue.add(each.request(Flags.EDGE, cookie))
    for cookie in (3, 2, 0, 4, 1):
        sources[cookie].activity()
    assert cookies(now(queue)) == [3, 2, 0, 4, 1]


def test_a_level_kevent_that_was_delivered_goes_to_the_end_of_the_line(
    queue: Queue, source: Source, stack: ExitStack
) -> None:
    other = make_source("pipe" if source.type == EventType.POLL else "unix", stack)
    queue.add(source.request(cookie=1))
    queue.add(other.request(cookie=2))
    source.activity()
    other.activity()
    turns = [one_of_many(queue) for _ in range(6)]
    assert turns == [1, 2, 1, 2, 1, 2]


def one_of_many(queue: Queue) -> int:
    """The cookie of the event that a WAIT with room for one delivers."""
    (cookie,) = cookies(now(queue, maximum=1))
    return cookie
