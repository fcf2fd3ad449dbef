# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_INODE: what happens in a directory, and to a file, by descriptor."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import pykevent
from pykevent import EventType, Flags, InodeEvents, Queue

from .inodes import ALL, ENTRIES, Opened, happened, seen
from .support import cookies, drain, now, one, refused

pytestmark = pytest.mark.needs("INODE")

CREATE, REMOVE = InodeEvents.CREATE, InodeEvents.REMOVE
MOVED_FROM, MOVED_TO = InodeEvents.MOVED_FROM, InodeEvents.MOVED_TO
MODIFY, ATTRIB, ISDIR = InodeEvents.MODIFY, InodeEvents.ATTRIB, InodeEvents.ISDIR


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


def test_when_the_last_name_of_an_open_file_goes_self_removed_comes_and_then_the_end(
    queue: Queue, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    with Opened(tmp_path / "file") as file:
        queue.add(pykevent.inode_event(file, InodeEvents.SELF_REMOVED))
        (tmp_path / "file").unlink()
        assert now(queue) == []
        (tmp_path / "link").unlink()
        events = drain(queue)
        assert seen(events) == [(InodeEvents.SELF_REMOVED, None), (InodeEvents(0), None)]
        assert [event.broken and event.last for event in events] == [False, True]
        assert queue.info().kevents == 0


def test_after_the_end_nothing_of_the_open_file_is_reported_and_it_can_be_added_again(
    queue: Queue, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open("r+b", buffering=0) as file:
        queue.add(pykevent.inode_event(file, MODIFY, cookie=1))
        path.unlink()
        file.write(b"x")
        assert [(event.cookie, event.last) for event in drain(queue)] == [(1, True)]
        queue.add(pykevent.inode_event(file, MODIFY, cookie=2))
        file.write(b"x")
        assert [(event.cookie, event.last) for event in drain(queue)] == [(2, False)]


def test_a_file_without_a_name_is_watched_until_its_close(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open("r+b", buffering=0) as file:
        path.unlink()
        queue.add(pykevent.inode_event(file, MODIFY | ATTRIB))
        file.write(b"x")
        os.fchmod(file.fileno(), 0o600)
        assert seen(drain(queue)) == [(MODIFY, None), (ATTRIB, None)]
    assert now(queue) == []


def test_a_directory_held_open_by_what_is_watched_vanishes_with_its_close(
    queue: Queue, directory: Opened
) -> None:
    queue.add(pykevent.inode_event(directory, InodeEvents.SELF_REMOVED))
    directory.path.rmdir()
    assert now(queue) == []
    directory.close()
    assert now(queue) == []
    assert queue.info().kevents == 0


def test_a_one_shot_reports_one_event_also_at_the_end_of_its_inode(
    queue: Queue, tmp_path: Path
) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    flags = Flags.ONESHOT
    queue.add_path(path, InodeEvents.CREATE | InodeEvents.SELF_REMOVED, 1, flags=flags)
    (path / "entry").touch()
    (path / "entry").unlink()
    path.rmdir()
    events = drain(queue)
    assert [(event.events, event.last) for event in events] == [(InodeEvents.CREATE, True)]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_of_several_open_files_of_one_inode_those_that_were_closed_are_told(
    queue: Queue, tmp_path: Path, stack: ExitStack, kind: str
) -> None:
    path = tmp_path / "watched"
    path.touch() if kind == "file" else path.mkdir()
    files = [stack.enter_context(Opened(path)) for _ in range(5)]
    for cookie, file in enumerate(files):
        queue.add(pykevent.inode_event(file, ATTRIB, Flags.NOTIFY_BROKEN, cookie=cookie))
    for cookie in (3, 0, 4):
        files[cookie].close()
        assert [(event.cookie, event.broken) for event in now(queue)] == [(cookie, True)]
    path.chmod(0o700)
    assert sorted(cookies(drain(queue))) == [1, 2]
    queue.remove(EventType.INODE, files[1].fileno())
    files[2].close()
    assert [(event.cookie, event.broken) for event in now(queue)] == [(2, True)]
    assert queue.info().kevents == 0


def test_what_is_open_elsewhere_under_another_number_is_not_closed_by_others_closes(
    queue: Queue, directory: Opened
) -> None:
    twin = os.dup(directory.fileno())
    try:
        queue.add(pykevent.inode_event(directory, CREATE, Flags.NOTIFY_BROKEN, cookie=1))
        directory.close()
        for number in range(20):
            Opened(directory.path).close()
            assert now(queue) == []
            (directory.path / str(number)).touch()
            assert cookies(now(queue)) == [1]
    finally:
        os.close(twin)
    assert [event.broken for event in drain(queue)] == [True]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_opened_again_under_its_number_it_is_another_file(
    queue: Queue, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "watched"
    path.touch() if kind == "file" else path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    try:
        for cookie in range(3):
            queue.add(pykevent.inode_event(fd, ATTRIB, Flags.NOTIFY_BROKEN, cookie=cookie))
            again = os.open(path, os.O_RDONLY)
            os.dup2(again, fd, inheritable=False)
            os.close(again)
            assert [(event.cookie, event.broken) for event in now(queue)] == [(cookie, True)]
            with refused(errno.ENOENT):
                queue.remove(EventType.INODE, fd)
    finally:
        os.close(fd)
