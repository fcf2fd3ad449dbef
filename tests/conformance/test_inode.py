# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_INODE: what happens in a directory, and to a file, by descriptor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import pykevent
from pykevent import EventType, Flags, InodeEvents, Queue

from .inodes import ALL, ENTRIES, Opened, happened, seen
from .support import DEADLINE, cookies, drain, now, one, waiting

pytestmark = pytest.mark.needs("INODE")

CREATE, REMOVE = InodeEvents.CREATE, InodeEvents.REMOVE
MOVED_FROM, MOVED_TO = InodeEvents.MOVED_FROM, InodeEvents.MOVED_TO
MODIFY, ATTRIB, ISDIR = InodeEvents.MODIFY, InodeEvents.ATTRIB, InodeEvents.ISDIR


@pytest.fixture
def directory(tmp_path: Path, stack: ExitStack) -> Opened:
    """An empty directory, held open."""
    (tmp_path / "watched").mkdir()
    return stack.enter_context(Opened(tmp_path / "watched"))


def test_a_file_that_is_made_is_create_with_its_name(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, CREATE, cookie=9))
    assert now(queue) == []
    (directory.path / "made").touch()
    event = one(queue)
    assert (event.type, event.ident, event.cookie) == (
        EventType.INODE,
        directory.fileno(),
        9,
    )
    assert (event.events, event.name, event.count) == (CREATE, b"made", 1)
    assert now(queue) == []


@pytest.mark.parametrize(
    "make",
    [
        Path.touch,
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.hardlink_to(path.parent.parent / "other"),
    ],
    ids=["file", "FIFO", "symlink", "link"],
)
def test_an_entry_of_any_kind_is_create_and_remove(
    queue: Queue, directory: Opened, make: Callable[[Path], object]
) -> None:
    (directory.path.parent / "other").touch()
    queue.add(pykevent.inode_event(directory, ENTRIES))
    make(directory.path / "entry")
    (directory.path / "entry").unlink()
    assert seen(drain(queue)) == [(CREATE, b"entry"), (REMOVE, b"entry")]


def test_a_directory_in_a_directory_is_marked_as_one(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, ENTRIES))
    (directory.path / "sub").mkdir()
    (directory.path / "sub").rename(directory.path / "renamed")
    (directory.path / "renamed").rmdir()
    assert seen(drain(queue)) == [
        (CREATE | ISDIR, b"sub"),
        (MOVED_FROM | ISDIR, b"sub"),
        (MOVED_TO | ISDIR, b"renamed"),
        (REMOVE | ISDIR, b"renamed"),
    ]


def test_a_rename_in_one_directory_pairs_both_names(queue: Queue, directory: Opened) -> None:
    (directory.path / "old").touch()
    queue.add(pykevent.inode_event(directory, ENTRIES))
    (directory.path / "old").rename(directory.path / "new")
    events = drain(queue)
    assert seen(events) == [(MOVED_FROM, b"old"), (MOVED_TO, b"new")]
    assert events[0].rename == events[1].rename != 0


def test_every_rename_has_a_number_of_its_own(queue: Queue, directory: Opened) -> None:
    (directory.path / "0").touch()
    queue.add(pykevent.inode_event(directory, ENTRIES))
    for step in range(5):
        (directory.path / str(step)).rename(directory.path / str(step + 1))
    events = drain(queue)
    sources, targets = events[::2], events[1::2]
    assert [event.rename for event in sources] == [event.rename for event in targets]
    assert len({event.rename for event in sources}) == 5


def test_a_rename_across_two_directories_pairs_both_names(queue: Queue, directory: Opened) -> None:
    target = directory.path.parent / "target"
    target.mkdir()
    (directory.path / "old").touch()
    with Opened(target) as other:
        queue.add(pykevent.inode_event(directory, ENTRIES, cookie=1))
        queue.add(pykevent.inode_event(other, ENTRIES, cookie=2))
        (directory.path / "old").rename(target / "new")
        events = drain(queue)
        assert cookies(events) == [1, 2]
        assert seen(events) == [(MOVED_FROM, b"old"), (MOVED_TO, b"new")]
        assert events[0].rename == events[1].rename != 0


def test_a_rename_into_or_out_of_what_is_watched_has_one_half(
    queue: Queue, directory: Opened
) -> None:
    outside = directory.path.parent / "outside"
    outside.touch()
    queue.add(pykevent.inode_event(directory, ENTRIES))
    outside.rename(directory.path / "inside")
    (directory.path / "inside").rename(outside)
    assert seen(drain(queue)) == [(MOVED_TO, b"inside"), (MOVED_FROM, b"inside")]


def test_only_a_rename_has_a_number(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, ALL))
    (directory.path / "file").write_text("x")
    (directory.path / "file").unlink()
    assert {event.rename for event in drain(queue)} == {0}


def test_only_what_was_asked_for_is_reported(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, REMOVE))
    (directory.path / "a").write_text("x")
    (directory.path / "a").rename(directory.path / "b")
    (directory.path / "b").unlink()
    assert seen(drain(queue)) == [(REMOVE, b"b")]


def test_everything_between_two_waits_is_reported_in_order(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, ENTRIES | MODIFY | ATTRIB))
    (directory.path / "a").touch()
    (directory.path / "b").mkdir()
    with (directory.path / "a").open("a") as file:
        file.write("x")
    (directory.path / "a").chmod(0o600)
    (directory.path / "a").rename(directory.path / "c")
    (directory.path / "b").rmdir()
    (directory.path / "c").unlink()
    assert seen(drain(queue)) == [
        (CREATE, b"a"),
        (CREATE | ISDIR, b"b"),
        (MODIFY, b"a"),
        (ATTRIB, b"a"),
        (MOVED_FROM, b"a"),
        (MOVED_TO, b"c"),
        (REMOVE | ISDIR, b"b"),
        (REMOVE, b"c"),
    ]


def test_many_files_are_reported_in_order_without_loss(queue: Queue, directory: Opened) -> None:
    queue.add(pykevent.inode_event(directory, CREATE))
    names = [f"file number {number}" for number in range(300)]
    for name in names:
        (directory.path / name).touch()
    events = drain(queue)
    assert [event.name for event in events] == [name.encode() for name in names]
    assert not any(event.overflow for event in events)


def test_a_write_to_an_entry_is_modify_with_its_name(queue: Queue, directory: Opened) -> None:
    (directory.path / "file").touch()
    queue.add(pykevent.inode_event(directory, MODIFY))
    with (directory.path / "file").open("r+b", buffering=0) as file:
        file.write(b"x")
        assert seen(drain(queue)) == [(MODIFY, b"file")]
        file.truncate(0)
        assert seen(drain(queue)) == [(MODIFY, b"file")]


def test_a_write_to_the_file_itself_is_modify_without_a_name(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Opened(tmp_path / "file") as file:
        queue.add(pykevent.inode_event(file, MODIFY))
        (tmp_path / "file").write_bytes(b"x")
        assert happened(drain(queue)) == MODIFY
        os.truncate(tmp_path / "file", 0)
        assert seen(drain(queue)) == [(MODIFY, None)]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.chmod(0o640),
        lambda path: os.utime(path, (1, 1)),
        lambda path: os.chown(path, os.getuid(), os.getgid()),
    ],
    ids=["chmod", "utime", "chown"],
)
def test_a_change_of_mode_times_or_owner_is_attrib(
    queue: Queue, directory: Opened, change: Callable[[Path], None]
) -> None:
    path = directory.path / "file"
    path.touch()
    with Opened(path) as file:
        queue.add(pykevent.inode_event(directory, ATTRIB, cookie=1))
        queue.add(pykevent.inode_event(file, ATTRIB, cookie=2))
        change(path)
        events = {event.cookie: (event.events, event.name) for event in drain(queue)}
        assert events == {1: (ATTRIB, b"file"), 2: (ATTRIB, None)}


def test_a_new_link_and_a_lost_link_are_attrib_of_the_file(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Opened(tmp_path / "file") as file:
        queue.add(pykevent.inode_event(file, ATTRIB))
        (tmp_path / "link").hardlink_to(tmp_path / "file")
        assert seen(drain(queue)) == [(ATTRIB, None)]
        (tmp_path / "link").unlink()
        assert seen(drain(queue)) == [(ATTRIB, None)]


def test_a_directory_reports_its_own_attributes_without_a_name(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, ATTRIB))
    directory.path.chmod(0o700)
    (event,) = drain(queue)
    assert (event.events & ~ISDIR, event.name) == (ATTRIB, None)


def test_a_rename_of_the_inode_itself_is_self_moved(queue: Queue, directory: Opened) -> None:
    (directory.path / "file").touch()
    with Opened(directory.path / "file") as file:
        queue.add(pykevent.inode_event(file, InodeEvents.SELF_MOVED))
        (directory.path / "file").rename(directory.path / "renamed")
        (event,) = drain(queue)
        assert (event.events, event.name) == (InodeEvents.SELF_MOVED, None)


def test_the_last_name_of_an_open_file_that_goes_is_self_removed_at_once(
    queue: Queue, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    with Opened(tmp_path / "file") as file:
        queue.add(pykevent.inode_event(file, InodeEvents.SELF_REMOVED))
        (tmp_path / "file").unlink()
        assert now(queue) == []
        (tmp_path / "link").unlink()
        assert seen(drain(queue)) == [(InodeEvents.SELF_REMOVED, None)]


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
    begun = time.monotonic()
    for name in ("a", "b"):
        (directory.path / name).touch()
    assert waiter.asleep()
    (directory.path / "c").touch()
    assert [event.name for event in waiter.result()] == [b"a", b"b", b"c"]
    assert time.monotonic() - begun < DEADLINE
