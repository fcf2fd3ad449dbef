# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of an inode's events between their happening and their delivery."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import pykevent
from pykevent import EventType, Flags, InodeEvents, Queue

from .inodes import Opened, seen
from .support import drain, now, one, waiting

pytestmark = pytest.mark.needs("INODE")

CREATE, REMOVE, MODIFY = InodeEvents.CREATE, InodeEvents.REMOVE, InodeEvents.MODIFY


def test_identical_events_in_a_row_are_one_with_a_count(queue: Queue, directory: Opened) -> None:
    (directory.path / "file").touch()
    queue.add(pykevent.inode_event(directory, MODIFY | CREATE))
    with (directory.path / "file").open("r+b", buffering=0) as file:
        for _ in range(5):
            file.write(b"x")
        (directory.path / "other").touch()
        file.write(b"x")
    events = drain(queue)
    assert seen(events) == [(MODIFY, b"file"), (CREATE, b"other"), (MODIFY, b"file")]
    assert [event.count for event in events] == [5, 1, 1]


def test_the_count_is_right_however_many_files_came_and_went(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, MODIFY))
    for _ in range(1100):
        (directory.path / "new").touch()
        (directory.path / "new").rename(directory.path / "file")
        assert now(queue) == []
    with (directory.path / "file").open("r+b", buffering=0) as file:
        for _ in range(5):
            file.write(b"x")
    event = one(queue)
    assert (event.events, event.name, event.count) == (MODIFY, b"file", 5)


def test_what_was_delivered_is_not_merged_with_what_comes_after(
    queue: Queue, directory: Opened
) -> None:
    (directory.path / "file").touch()
    queue.add(pykevent.inode_event(directory, MODIFY))
    with (directory.path / "file").open("r+b", buffering=0) as file:
        for _ in range(3):
            file.write(b"x")
            (event,) = drain(queue)
            assert event.count == 1


@pytest.mark.parametrize("flags", [0, Flags.EDGE], ids=["level", "edge"])
def test_an_event_of_an_inode_is_consumed_by_its_delivery(
    queue: Queue, directory: Opened, flags: Flags
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE, flags))
    (directory.path / "a").touch()
    assert len(now(queue)) == 1
    assert now(queue) == []
    (directory.path / "b").touch()
    assert [event.name for event in now(queue)] == [b"b"]


def test_a_one_shot_delivers_the_first_event_and_is_removed(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE, Flags.ONESHOT))
    (directory.path / "a").touch()
    (directory.path / "b").touch()
    event = one(queue)
    assert (event.name, event.last) == (b"a", True)
    assert now(queue) == []
    assert queue.info().kevents == 0


def test_dispatch_delivers_one_event_and_keeps_the_rest_until_it_is_armed(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE, Flags.DISPATCH))
    for name in (b"a", b"b", b"c"):
        os.close(os.open(os.fsencode(directory.path) + b"/" + name, os.O_CREAT))
    for name in (b"a", b"b", b"c"):
        assert [event.name for event in now(queue)] == [name]
        assert now(queue) == []
        queue.modify(pykevent.inode_event(directory, CREATE, Flags.DISPATCH))
    assert now(queue) == []


def test_what_happens_while_disabled_is_kept_and_delivered_once_armed(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE, Flags.DISABLED))
    (directory.path / "a").touch()
    (directory.path / "b").touch()
    assert now(queue) == []
    queue.modify(pykevent.inode_event(directory, CREATE, cookie=3))
    assert [(event.name, event.cookie) for event in drain(queue)] == [(b"a", 3), (b"b", 3)]


def test_modify_keeps_the_events_that_wait_and_changes_those_to_come(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE))
    (directory.path / "a").touch()
    queue.modify(pykevent.inode_event(directory, REMOVE))
    (directory.path / "b").touch()
    (directory.path / "a").unlink()
    assert seen(drain(queue)) == [(CREATE, b"a"), (REMOVE, b"a")]


def test_remove_drops_the_events_that_wait(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, CREATE))
    (directory.path / "a").touch()
    queue.remove(EventType.INODE, directory)
    (directory.path / "b").touch()
    assert now(queue) == []


def test_two_queues_each_see_everything(
    queue: Queue, new_queue: Callable[[], Queue], directory: Opened
) -> None:
    other = new_queue()
    for each in (queue, other):
        each.add(pykevent.inode_event(directory, CREATE))
    (directory.path / "a").touch()
    assert [event.name for event in now(queue)] == [b"a"]
    assert [event.name for event in now(other)] == [b"a"]


def test_two_descriptors_of_one_directory_each_see_everything(
    queue: Queue, directory: Opened
) -> None:
    with Opened(directory.path) as twin:
        queue.add(pykevent.inode_event(directory, CREATE, cookie=1))
        queue.add(pykevent.inode_event(twin, REMOVE, cookie=2))
        (directory.path / "a").touch()
        (directory.path / "a").unlink()
        assert [(event.cookie, event.events) for event in drain(queue)] == [
            (1, CREATE),
            (2, REMOVE),
        ]


def test_events_of_two_directories_come_in_the_order_in_which_they_happened(
    queue: Queue, directory: Opened
) -> None:
    other = directory.path.parent / "other"
    other.mkdir()
    with Opened(other) as second:
        queue.add(pykevent.inode_event(directory, CREATE))
        queue.add(pykevent.inode_event(second, CREATE))
        for number in range(6):
            ((directory.path, other)[number % 2] / str(number)).touch()
        assert [event.name for event in drain(queue)] == [b"%d" % n for n in range(6)]


def test_an_event_wakes_one_who_waits(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, CREATE))
    waiter = waiting(queue)
    (directory.path / "a").touch()
    assert [event.name for event in waiter.result()] == [b"a"]


def test_several_events_of_one_directory_are_several_events_for_min(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, CREATE))
    waiter = waiting(queue, minimum=3)
    for name in ("a", "b"):
        (directory.path / name).touch()
    assert waiter.asleep()
    (directory.path / "c").touch()
    assert [event.name for event in waiter.result()] == [b"a", b"b", b"c"]
