# SPDX-License-Identifier: GPL-2.0-or-later
"""The names of directory entries, the room that they take, and the bound on what may wait."""

from __future__ import annotations

import errno
import os

import pytest

import pykevent
from pykevent import EventFlags, InodeEvents, Queue, abi

from . import raw
from .inodes import Opened, seen
from .support import drain, now, one, refused

pytestmark = pytest.mark.needs("INODE")

CREATE, REMOVE = InodeEvents.CREATE, InodeEvents.REMOVE


def make(directory: Opened, name: bytes) -> None:
    """An empty file of that name."""
    os.close(os.open(os.fsencode(directory.path) + b"/" + name, os.O_CREAT | os.O_WRONLY))


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 63, 64, 65, 254, 255])
def test_a_name_of_any_length_arrives_whole(queue: Queue, directory: Opened, length: int) -> None:
    name = bytes(ord("a") + index % 26 for index in range(length))
    queue.add(pykevent.inode_event(directory, CREATE))
    make(directory, name)
    assert one(queue).name == name


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"\xc3\x28 not UTF-8", b"new\nline", "größe €".encode(), b" ", b"..."]
)
def test_a_name_is_bytes_and_not_text(queue: Queue, directory: Opened, name: bytes) -> None:
    queue.add(pykevent.inode_event(directory, CREATE | REMOVE))
    make(directory, name)
    os.unlink(os.fsencode(directory.path) + b"/" + name)
    assert seen(drain(queue)) == [(CREATE, name), (REMOVE, name)]


@pytest.mark.parametrize(("length", "records"), [(1, 2), (32, 2), (33, 3), (255, 9)])
def test_a_name_takes_the_records_behind_its_event(
    queue: Queue, directory: Opened, length: int, records: int
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE))
    make(directory, b"n" * length)
    call = raw.wait(abi.EVENT_RECORDS)
    assert call(queue.fileno()) == 1
    assert call.wait().records == records
    (record,) = call.records()
    assert record.event.flags == EventFlags.NAME
    assert record.name == b"n" * length


def test_an_event_that_does_not_fit_stays_and_stops_the_delivery(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE))
    for name in (b"short", b"l" * 100, b"s"):
        make(directory, name)
    call = raw.wait(4)
    assert call(queue.fileno()) == 1  # 2 records; the next needs 5, and the third waits its turn
    assert [record.name for record in call.records()] == [b"short"]
    assert call.wait().left > 0
    assert [event.name for event in drain(queue)] == [b"l" * 100, b"s"]


@pytest.mark.parametrize("maximum", [1, 8])
def test_emsgsize_where_not_even_the_first_event_fits_and_nothing_is_lost(
    queue: Queue, directory: Opened, maximum: int
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE))
    make(directory, b"n" * 255)
    for _ in range(2):
        with refused(errno.EMSGSIZE):
            raw.wait(maximum)(queue.fileno())
    assert [event.name for event in now(queue)] == [b"n" * 255]


@pytest.mark.needs("USER")
def test_what_stands_before_an_event_that_does_not_fit_is_delivered(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.user_event(1))
    queue.add(pykevent.inode_event(directory, CREATE))
    queue.post(1)
    make(directory, b"n" * 255)
    call = raw.wait(9)
    assert call(queue.fileno()) == 1
    assert [event.name for event in now(queue)] == [b"n" * 255]


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_past_its_limit_a_kevent_drops_events_and_says_so_in_their_place(
    queue: Queue, directory: Opened, limit: int
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE, cookie=6, limit=limit))
    for number in range(limit + 10):
        make(directory, b"%d" % number)
    events = drain(queue)
    assert [event.name for event in events[:-1]] == [b"%d" % number for number in range(limit)]
    assert not any(event.overflow for event in events[:-1])
    last = events[-1]
    assert (last.overflow, last.events, last.name, last.cookie) == (True, 0, None, 6)


def test_after_an_overflow_was_delivered_events_are_reported_again(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE, limit=2))
    for turn in (b"a", b"b"):
        for number in range(5):
            make(directory, turn + b"%d" % number)
        events = drain(queue)
        assert [event.overflow for event in events] == [False, False, True]
        assert [event.name for event in events] == [turn + b"0", turn + b"1", None]


def test_events_after_an_overflow_stand_behind_it(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, CREATE, limit=3))
    for number in range(5):
        make(directory, b"%d" % number)
    call = raw.wait(4)
    assert call(queue.fileno()) == 2  # there is room in the kevent again
    make(directory, b"later")
    events = drain(queue)
    assert [(event.name, event.overflow) for event in events] == [
        (b"2", False),
        (None, True),
        (b"later", False),
    ]


def test_the_limit_of_one_kevent_is_not_that_of_another(queue: Queue, directory: Opened) -> None:
    with Opened(directory.path) as twin:
        queue.add(pykevent.inode_event(directory, CREATE, cookie=1, limit=2))
        queue.add(pykevent.inode_event(twin, CREATE, cookie=2))
        for number in range(6):
            make(directory, b"%d" % number)
        events = drain(queue)
        assert len([event for event in events if event.cookie == 2]) == 6
        assert len([event for event in events if event.cookie == 1]) == 3


def test_the_largest_limit_is_the_one_that_info_tells(queue: Queue, directory: Opened) -> None:
    most = queue.info().max_name_queue
    queue.add(pykevent.inode_event(directory, CREATE, limit=most))
    with refused(errno.EINVAL):
        queue.modify(pykevent.inode_event(directory, CREATE, limit=most + 1))


def test_the_default_limit_is_the_16th_part_of_the_largest(queue: Queue, directory: Opened) -> None:
    limit = queue.info().max_name_queue // 16
    if limit > 5000:
        pytest.skip(f"{limit} files take too long to make")
    queue.add(pykevent.inode_event(directory, CREATE | REMOVE))
    for number in range(limit // 2 + 2):
        make(directory, b"%d" % number)
        os.unlink(directory.path / str(number))
    events = drain(queue)
    assert len(events) == limit + 1
    assert events[-1].overflow
