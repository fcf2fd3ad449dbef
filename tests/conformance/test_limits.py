# SPDX-License-Identifier: GPL-2.0-or-later
"""How many kevents a queue and a user may have, and what happens past that."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pykevent
from pykevent import EventType, Flags, InodeEvents, Queue

from .support import as_nobody, cookies, now, refused

pytestmark = pytest.mark.needs("USER")

PARAMETERS = Path("/sys/module/kevent/parameters")
FEW = 3000
"""A limit no larger than this is tested as it is."""


@contextmanager
def lowered(name: str, value: int) -> Iterator[None]:
    """The module's parameter is @value for the duration, where it can be set."""
    parameter = PARAMETERS / name
    if not os.access(parameter, os.W_OK):
        yield
        return
    before = parameter.read_text()
    parameter.write_text(str(value))
    try:
        yield
    finally:
        parameter.write_text(before)


@pytest.fixture
def room(queue: Queue) -> Iterator[int]:
    """How many kevents the queue has room for; few enough to fill it."""
    with lowered("max_queue_kevents", 50):
        limit = queue.info().max_queue
        if limit > FEW:
            pytest.skip(f"a limit of {limit} kevents in a queue cannot be lowered here")
        yield limit


@pytest.fixture
def user_room(queue: Queue) -> Iterator[int]:
    """How many kevents the user has room for; few enough to use it up."""
    with lowered("max_user_kevents", queue.info().user_kevents + 50):
        info = queue.info()
        if info.max_user - info.user_kevents > FEW:
            pytest.skip(f"a limit of {info.max_user} kevents of a user cannot be lowered here")
        yield info.max_user - info.user_kevents


def users(start: int, count: int) -> list[pykevent.Request]:
    """Requests for so many user events."""
    return [pykevent.user_event(ident, cookie=ident) for ident in range(start, start + count)]


def test_a_queue_takes_as_many_kevents_as_info_tells_and_no_more(queue: Queue, room: int) -> None:
    results = queue.add_many(users(0, room + 5))
    assert results == [0] * room + [-errno.ENOSPC] * 5
    assert queue.info().kevents == room
    with refused(errno.ENOSPC):
        queue.add(pykevent.user_event(room + 100))


def test_a_full_queue_works_as_ever(queue: Queue, room: int) -> None:
    queue.add_many(users(0, room))
    with refused(errno.EEXIST):
        queue.add(pykevent.user_event(0))
    queue.modify(pykevent.user_event(0, cookie=77))
    queue.post(0)
    assert cookies(now(queue)) == [77]


def test_what_is_removed_makes_room(queue: Queue, room: int) -> None:
    queue.add_many(users(0, room))
    queue.remove(EventType.USER, 3)
    queue.add(pykevent.user_event(room))
    with refused(errno.ENOSPC):
        queue.add(pykevent.user_event(3))


def test_a_one_shot_makes_room_by_its_delivery(queue: Queue, room: int) -> None:
    queue.add(pykevent.user_event(room, Flags.ONESHOT))
    queue.add_many(users(0, room - 1))
    queue.post(room)
    assert len(now(queue)) == 1
    queue.add(pykevent.user_event(room + 1))


@pytest.mark.needs("INODE")
def test_a_path_counts_as_any_other(queue: Queue, room: int, tmp_path: Path) -> None:
    queue.add_many(users(0, room - 1))
    queue.add_path(tmp_path, InodeEvents.CREATE, 1)
    with refused(errno.ENOSPC):
        queue.add_path(tmp_path, InodeEvents.CREATE, 2)


def test_a_request_that_is_refused_takes_no_room(queue: Queue, room: int) -> None:
    queue.add_many(users(0, room - 1))
    for _ in range(5):
        with refused(errno.EINVAL):
            queue.add(pykevent.user_event(room, Flags.BYTES))
    queue.add(pykevent.user_event(room))


def test_another_queue_has_a_limit_of_its_own(
    queue: Queue, room: int, new_queue: Callable[[], Queue]
) -> None:
    queue.add_many(users(0, room))
    new_queue().add(pykevent.user_event(1))


def test_a_user_may_have_as_many_kevents_as_info_tells_in_all_queues(
    queue: Queue, user_room: int, new_queue: Callable[[], Queue]
) -> None:
    others = [new_queue() for _ in range(2)]
    half = user_room // 2
    assert not any(others[0].add_many(users(0, half)))
    results = others[1].add_many(users(0, user_room))
    assert results == [0] * (user_room - half) + [-errno.ENOSPC] * half
    with refused(errno.ENOSPC):
        queue.add(pykevent.user_event(1))


def test_closing_a_queue_gives_its_room_back_to_the_user(
    queue: Queue, user_room: int, new_queue: Callable[[], Queue]
) -> None:
    other = new_queue()
    other.add_many(users(0, user_room))
    with refused(errno.ENOSPC):
        queue.add(pykevent.user_event(1))
    other.close()
    assert not any(queue.add_many(users(0, user_room)))


def test_one_user_does_not_use_up_the_room_of_another(queue: Queue, user_room: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    queue.add_many(users(0, user_room))
    with refused(errno.ENOSPC):
        queue.add(pykevent.user_event(user_room))

    def adds() -> None:
        with pykevent.open() as mine:
            assert mine.info().user_kevents == 0
            mine.add(pykevent.user_event(1))
            assert mine.info().user_kevents == 1

    as_nobody(adds)


@pytest.mark.needs("INODE")
def test_a_user_may_have_as_many_kevents_on_one_inode_as_info_tells(
    queue: Queue, tmp_path: Path
) -> None:
    with lowered("max_inode_watches", 20):
        limit = queue.info().max_inode
        if limit > FEW:
            pytest.skip(f"a limit of {limit} kevents on an inode cannot be lowered here")
        for ident in range(limit):
            queue.add_path(tmp_path, InodeEvents.CREATE, ident)
        with refused(errno.ENOSPC):
            queue.add_path(tmp_path, InodeEvents.CREATE, limit)
        other = tmp_path / "other"
        other.mkdir()
        queue.add_path(other, InodeEvents.CREATE, limit)
        queue.remove(EventType.PATH, 0)
        queue.add_path(tmp_path, InodeEvents.CREATE, limit + 1)
