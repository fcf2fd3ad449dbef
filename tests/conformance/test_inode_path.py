# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_PATH: an inode watched by path, under a number of the caller's, until it is gone."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import pykevent
from pykevent import Event, EventType, Flags, InodeEvents, Queue

from . import raw
from .inodes import ALL, ENTRIES, Opened, happened, seen
from .support import as_nobody, drain, now, one, refused

pytestmark = pytest.mark.needs("INODE")

CREATE, REMOVE, MODIFY = InodeEvents.CREATE, InodeEvents.REMOVE, InodeEvents.MODIFY
ATTRIB, ISDIR = InodeEvents.ATTRIB, InodeEvents.ISDIR
SELF_REMOVED, SELF_MOVED = InodeEvents.SELF_REMOVED, InodeEvents.SELF_MOVED


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory."""
    (tmp_path / "watched").mkdir()
    return tmp_path / "watched"


def test_a_path_is_watched_under_the_callers_number(queue: Queue, directory: Path) -> None:
    queue.add_path(directory, CREATE, 1 << 40, cookie=3)
    (directory / "made").touch()
    event = one(queue)
    assert (event.type, event.ident, event.cookie) == (EventType.PATH, 1 << 40, 3)
    assert (event.events, event.name) == (CREATE, b"made")


def test_a_path_needs_no_descriptor_to_stay_open(queue: Queue, directory: Path) -> None:
    descriptors = os.listdir("/proc/self/fd")
    queue.add_path(directory, ENTRIES, 1)
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_relative_path_is_taken_from_the_working_directory(
    queue: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    queue.add_path(".", CREATE, 1)
    (directory / "made").touch()
    assert one(queue).name == b"made"


def test_the_inode_is_watched_and_not_the_path(queue: Queue, directory: Path) -> None:
    queue.add_path(directory, CREATE | SELF_MOVED, 1)
    moved = directory.rename(directory.parent / "moved")
    directory.mkdir()
    (directory / "in the new one").touch()
    (moved / "in the old one").touch()
    (first, second) = seen(drain(queue))
    assert first[0] & ~ISDIR == SELF_MOVED
    assert second == (CREATE, b"in the old one")


def test_a_file_is_watched_by_path(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    queue.add_path(path, MODIFY | ATTRIB, 1)
    with path.open("r+b", buffering=0) as file:
        file.write(b"x")
    path.chmod(0o600)
    assert seen(drain(queue)) == [(MODIFY, None), (ATTRIB, None)]


def test_several_paths_to_one_inode_are_kevents_of_their_own(queue: Queue, directory: Path) -> None:
    queue.add_path(directory, CREATE, 1)
    queue.add_path(directory, CREATE, 2)
    (directory / "made").touch()
    assert sorted(event.ident for event in drain(queue)) == [1, 2]
    queue.remove(EventType.PATH, 1)
    (directory / "more").touch()
    assert [event.ident for event in drain(queue)] == [2]


def test_a_number_can_be_used_once(queue: Queue, directory: Path) -> None:
    queue.add_path(directory, CREATE, 1)
    with refused(errno.EEXIST):
        queue.add_path(directory.parent, CREATE, 1)
    queue.remove(EventType.PATH, 1)
    queue.add_path(directory.parent, CREATE, 1)


def test_remove_ends_it(queue: Queue, directory: Path) -> None:
    queue.add_path(directory, CREATE, 1)
    (directory / "made").touch()
    queue.remove(EventType.PATH, 1)
    (directory / "more").touch()
    assert now(queue) == []
    with refused(errno.ENOENT):
        queue.remove(EventType.PATH, 1)


def test_modify_changes_what_is_reported(queue: Queue, directory: Path) -> None:
    queue.add_path(directory, CREATE, 1)
    queue.modify(pykevent.Request(EventType.PATH, 1, REMOVE, cookie=2))
    (directory / "made").touch()
    (directory / "made").unlink()
    event = one(queue)
    assert (event.events, event.cookie) == (REMOVE, 2)


def check_end(events: list[Event]) -> None:
    """The last of @events, and it alone, says that the kevent is over; nothing else happened."""
    assert [event.last for event in events] == [False] * (len(events) - 1) + [True]
    assert [event.broken for event in events] == [False] * (len(events) - 1) + [True]
    assert (events[-1].events, events[-1].name) == (0, None)


def test_when_the_last_name_of_a_file_goes_self_removed_comes_and_then_the_end(
    queue: Queue, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    queue.add_path(path, SELF_REMOVED, 1, cookie=5)
    path.unlink()
    events = drain(queue)
    assert [(event.events, event.cookie) for event in events] == [(SELF_REMOVED, 5), (0, 5)]
    check_end(events)


def test_the_end_is_told_though_self_removed_was_not_asked_for(
    queue: Queue, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    queue.add_path(path, MODIFY, 1)
    path.unlink()
    check_end(drain(queue))
    assert queue.info().kevents == 0


def test_everything_that_happened_in_a_directory_comes_before_its_end(
    queue: Queue, directory: Path
) -> None:
    queue.add_path(directory, ALL, 1)
    (directory / "made").touch()
    (directory / "made").unlink()
    directory.rmdir()
    events = drain(queue)
    assert seen(events[:2]) == [(CREATE, b"made"), (REMOVE, b"made")]
    assert happened(events[2:]) & SELF_REMOVED
    check_end(events)


def test_after_its_end_the_kevent_is_gone_and_its_number_free(
    queue: Queue, directory: Path
) -> None:
    queue.add_path(directory, SELF_REMOVED, 1)
    directory.rmdir()
    check_end(drain(queue))
    assert queue.info().kevents == 0
    with refused(errno.ENOENT):
        queue.remove(EventType.PATH, 1)
    directory.mkdir()
    queue.add_path(directory, CREATE, 1)
    (directory / "made").touch()
    assert one(queue).name == b"made"


def test_a_kevent_whose_end_is_still_to_be_told_leaves_its_number_to_others(
    queue: Queue, directory: Path, tmp_path: Path
) -> None:
    queue.add_path(directory, SELF_REMOVED, 1, cookie=1)
    directory.rmdir()
    queue.add_path(tmp_path, CREATE, 1, cookie=2)
    with refused(errno.EEXIST):
        queue.add_path(tmp_path, CREATE, 1)
    (tmp_path / "made").touch()
    events = drain(queue)
    assert [event.cookie for event in events] == [1] * (len(events) - 1) + [2]
    assert events[-2].broken
    queue.remove(EventType.PATH, 1)
    assert queue.info().kevents == 0


def test_the_end_does_not_wait_for_those_who_hold_the_file_open(
    queue: Queue, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    queue.add_path(path, SELF_REMOVED, 1)
    with Opened(path):
        path.unlink()
        events = drain(queue)
        assert happened(events) == SELF_REMOVED
        check_end(events)
        assert queue.info().kevents == 0
    assert now(queue) == []


def test_of_a_directory_the_end_waits_for_those_who_hold_it_open(
    queue: Queue, directory: Path
) -> None:
    queue.add_path(directory, SELF_REMOVED, 1)
    with Opened(directory):
        directory.rmdir()
        assert now(queue) == []
    events = drain(queue)
    assert happened(events) & ~ISDIR == SELF_REMOVED
    check_end(events)


def test_a_symlink_is_followed(queue: Queue, directory: Path) -> None:
    link = directory.parent / "link"
    link.symlink_to(directory)
    queue.add_path(link, CREATE, 1)
    (directory / "made").touch()
    assert one(queue).name == b"made"


def test_nofollow_does_not_look_through_a_last_symlink(queue: Queue, directory: Path) -> None:
    link = directory.parent / "link"
    link.symlink_to(directory)
    queue.add_path(link, CREATE | SELF_MOVED, 1, Flags.NOFOLLOW)
    (directory / "made").touch()
    assert now(queue) == []
    link.rename(directory.parent / "renamed")
    assert one(queue).events == SELF_MOVED


def test_nofollow_follows_the_symlinks_before_the_last(queue: Queue, directory: Path) -> None:
    link = directory.parent / "link"
    link.symlink_to(directory.parent)
    queue.add_path(link / "watched", CREATE, 1, Flags.NOFOLLOW)
    (directory / "made").touch()
    assert one(queue).name == b"made"


def test_a_dangling_symlink_is_enoent_unless_it_is_itself_what_is_watched(
    queue: Queue, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with refused(errno.ENOENT):
        queue.add_path(link, ALL, 1)
    queue.add_path(link, SELF_REMOVED, 1, Flags.NOFOLLOW)
    link.unlink()
    assert seen(drain(queue))[0] == (SELF_REMOVED, None)


def test_paths_fail_as_open_does(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    failures = {
        tmp_path / "missing": errno.ENOENT,
        tmp_path / "missing" / "deeper": errno.ENOENT,
        tmp_path / "file" / "below": errno.ENOTDIR,
        tmp_path / "loop": errno.ELOOP,
        tmp_path / ("n" * 256): errno.ENAMETOOLONG,
        Path("/".join(["d"] * 2500)): errno.ENAMETOOLONG,
    }
    for path, error in failures.items():
        with refused(error):
            queue.add_path(path, CREATE, 1)
    assert queue.info().kevents == 0


def test_an_empty_path_is_enoent(queue: Queue) -> None:
    call = raw.path(raw.request(EventType.PATH, 1, CREATE), b"")
    assert call(queue.fileno()) == 0
    assert call.request().result == -errno.ENOENT


def test_a_path_that_is_not_terminated_within_its_size_is_einval(queue: Queue) -> None:
    call = raw.path(raw.request(EventType.PATH, 1, CREATE), b"/tmp", terminate=False)
    with refused(errno.EINVAL):
        call(queue.fileno())
    assert queue.info().kevents == 0


def test_what_stands_behind_the_end_of_the_path_does_not_matter(
    queue: Queue, directory: Path
) -> None:
    name = os.fsencode(directory) + b"\0" + b"rubbish"
    call = raw.path(raw.request(EventType.PATH, 1, CREATE), name)
    assert call(queue.fileno()) == 1
    (directory / "made").touch()
    assert one(queue).name == b"made"


@pytest.mark.parametrize("by", ["descriptor", "path"])
def test_watching_needs_read_permission(public_path: Path, by: str) -> None:
    secret = public_path / "secret"
    secret.touch()
    if os.geteuid() == 0:
        os.chown(secret, 65534, 65534)
    secret.chmod(0o200)

    def watches() -> None:
        with pykevent.open() as queue, refused(errno.EACCES):
            if by == "path":
                queue.add_path(secret, MODIFY, 1)
            else:
                queue.add(pykevent.inode_event(os.open(secret, os.O_WRONLY), MODIFY))

    as_nobody(watches)


def test_a_path_below_a_directory_that_may_not_be_searched_is_eacces(public_path: Path) -> None:
    locked = public_path / "locked"
    (locked / "inner").mkdir(parents=True)
    locked.chmod(0)

    def watches() -> None:
        with pykevent.open() as queue, refused(errno.EACCES):
            queue.add_path(locked / "inner", CREATE, 1)

    try:
        as_nobody(watches)
    finally:
        locked.chmod(0o700)


def test_who_may_read_a_directory_may_watch_it_without_privileges(public_path: Path) -> None:
    shared = public_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)

    def watches() -> None:
        with pykevent.open() as queue:
            queue.add_path(shared, CREATE, 1)
            (shared / "made").touch()
            assert one(queue).name == b"made"

    as_nobody(watches)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of its own, unmounted at the end if the test has not done so."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    target = tmp_path / "mounted"
    target.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"kevent-test", os.fsencode(target), b"tmpfs", 0, None) != 0:
        pytest.skip(f"mount: {os.strerror(ctypes.get_errno())}")
    yield target
    libc.umount2(os.fsencode(target), 2)


def unmount(path: Path) -> None:
    """umount(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.umount2(os.fsencode(path), 0) == 0, os.strerror(ctypes.get_errno())


def test_a_watched_path_does_not_keep_its_file_system_mounted(queue: Queue, mounted: Path) -> None:
    queue.add_path(mounted, ENTRIES, 1)
    unmount(mounted)


def test_the_end_of_the_file_system_is_unmount_and_ends_the_kevent(
    queue: Queue, mounted: Path
) -> None:
    queue.add_path(mounted, ENTRIES | InodeEvents.UNMOUNT, 1)
    (mounted / "made").touch()
    unmount(mounted)
    events = drain(queue)
    assert seen(events[:1]) == [(CREATE, b"made")]
    assert happened(events[1:]) & ~ISDIR == InodeEvents.UNMOUNT
    check_end(events)
    assert queue.info().kevents == 0
