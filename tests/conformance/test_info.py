# SPDX-License-Identifier: GPL-2.0-or-later
"""INFO: version, features, limits, and what is in the queue now."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import pytest

import pykevent
from pykevent import EventType, Feature, FileKind, Flags, PollEvents, Queue, abi

from . import raw
from .support import now


def test_info_answers_with_version_1(queue: Queue) -> None:
    assert queue.info().version == abi.ABI_VERSION == 1


def test_info_names_only_features_and_kinds_of_file_that_the_abi_defines(queue: Queue) -> None:
    known_features = Feature(0)
    for feature in Feature:
        known_features |= feature
    known_kinds = FileKind(0)
    for kind in FileKind:
        known_kinds |= kind
    assert queue.info().features & ~known_features == 0
    assert queue.info().pinned & ~known_kinds == 0


def test_info_tells_limits_that_leave_room(queue: Queue) -> None:
    info = queue.info()
    assert info.max_queue > 0
    assert info.max_user > 0
    assert info.max_name_queue > 0


def test_info_writes_the_whole_structure_and_zeros_where_it_is_reserved(queue: Queue) -> None:
    call = raw.Call(abi.INFO)
    call.buffer[: call.size] = b"\xff" * call.size
    assert call(queue.fileno()) == 0
    answer = abi.kevent_info.from_buffer_copy(call.buffer)
    assert answer.version == 1
    assert list(answer.reserved) == [0] * len(answer.reserved)


def test_info_changes_nothing_in_the_queue(queue: Queue) -> None:
    assert queue.info() == queue.info()


@pytest.mark.needs("USER")
def test_info_counts_the_kevents_of_this_queue(
    queue: Queue, new_queue: Callable[[], Queue]
) -> None:
    other = new_queue()
    queue.add_many(pykevent.user_event(ident) for ident in range(5))
    assert (queue.info().kevents, other.info().kevents) == (5, 0)
    queue.remove_many([(EventType.USER, 0), (EventType.USER, 1)])
    assert queue.info().kevents == 3


@pytest.mark.needs("USER")
def test_info_counts_the_kevents_of_all_queues_of_the_user(
    queue: Queue, new_queue: Callable[[], Queue]
) -> None:
    before = queue.info().user_kevents
    other = new_queue()
    queue.add_many(pykevent.user_event(ident) for ident in range(5))
    other.add_many(pykevent.user_event(ident) for ident in range(4))
    assert queue.info().user_kevents == other.info().user_kevents == before + 9
    other.close()
    assert queue.info().user_kevents == before + 5
    queue.remove(EventType.USER, 3)
    assert queue.info().user_kevents == before + 4


@pytest.mark.needs("USER")
def test_of_a_queue_that_was_closed_no_kevent_is_counted(
    queue: Queue, new_queue: Callable[[], Queue]
) -> None:
    before = queue.info().user_kevents
    for turn in range(20):
        other = new_queue()
        other.add_many(pykevent.user_event(ident) for ident in range(100 * turn))
        other.close()
        assert queue.info().user_kevents == before


@pytest.mark.needs("USER")
def test_info_counts_the_events_that_are_ready(queue: Queue) -> None:
    queue.add_many(pykevent.user_event(ident) for ident in range(3))
    assert queue.info().ready == 0
    queue.post_many([(0, 0), (2, 0), (2, 0)])
    assert queue.info().ready == 2
    now(queue, maximum=1)
    assert queue.info().ready == 1
    now(queue)
    assert queue.info().ready == 0


@pytest.mark.needs("USER")
def test_info_does_not_count_a_ready_event_whose_kevent_was_removed(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    queue.post(1)
    queue.remove(EventType.USER, 1)
    assert (queue.info().kevents, queue.info().ready) == (0, 0)


@pytest.mark.needs("USER")
def test_info_no_longer_counts_a_one_shot_after_its_delivery(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, flags=Flags.ONESHOT))
    queue.post(1)
    assert queue.info().kevents == 1
    now(queue)
    assert queue.info().kevents == 0


@pytest.mark.needs("POLL")
def test_info_counts_kevents_on_files_whether_it_calls_them_pinned_or_not(
    queue: Queue, pipe: tuple[int, int]
) -> None:
    master, slave = os.openpty()
    try:
        for fd in (*pipe, master, slave):
            queue.add(pykevent.poll_event(fd, PollEvents.IN))
        assert queue.info().kevents == 4
        for fd in (*pipe, master, slave):
            queue.remove(EventType.POLL, fd)
        assert queue.info().kevents == 0
    finally:
        os.close(master)
        os.close(slave)


def test_info_is_the_size_the_header_says() -> None:
    assert ctypes.sizeof(abi.kevent_info) == 16 + 5 * 8 + 9 * 8
