# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_USER: posted by any thread; posts become one event with a count and the last data."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack

import pytest

import pykevent
from pykevent import EventType, Flags, Queue, UserEvents

from .support import InThread, child, cookies, now, one, refused, waiting

pytestmark = pytest.mark.needs("USER")


def test_a_post_is_an_event_with_its_data(queue: Queue) -> None:
    queue.add(pykevent.user_event(3, cookie=30))
    assert now(queue) == []
    queue.post(3, 0xFEDCBA9876543210)
    event = one(queue)
    assert (event.type, event.ident, event.cookie) == (EventType.USER, 3, 30)
    assert (event.events, event.data, event.count) == (
        UserEvents.POSTED,
        0xFEDCBA9876543210,
        1,
    )
    assert not event.last


def test_posts_become_one_event_with_their_count_and_the_last_data(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    for data in range(1, 101):
        queue.post(1, data)
    event = one(queue)
    assert (event.count, event.data) == (100, 100)


def test_after_a_delivery_counting_begins_again(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    for posted in (3, 1, 2):
        for _ in range(posted):
            queue.post(1)
        assert one(queue).count == posted


@pytest.mark.parametrize("flags", [0, Flags.EDGE], ids=["level", "edge"])
def test_a_post_is_consumed_by_its_delivery(queue: Queue, flags: Flags) -> None:
    queue.add(pykevent.user_event(1, flags))
    for _ in range(2):
        queue.post(1)
        assert len(now(queue)) == 1
        assert now(queue) == []


def test_posts_to_several_come_in_the_order_of_the_first_of_each(queue: Queue) -> None:
    queue.add_many(pykevent.user_event(ident) for ident in range(4))
    for ident in (2, 0, 2, 3, 0):
        queue.post(ident)
    assert [(event.ident, event.count) for event in now(queue)] == [(2, 2), (0, 2), (3, 1)]


def test_a_post_to_an_unknown_one_is_enoent(queue: Queue) -> None:
    with refused(errno.ENOENT):
        queue.post(1)
    queue.add(pykevent.user_event(1))
    queue.remove(EventType.USER, 1)
    with refused(errno.ENOENT):
        queue.post(1)


@pytest.mark.needs("TIMER")
def test_only_user_events_can_be_posted(queue: Queue) -> None:
    queue.add(pykevent.timer_event(1, 3600))
    with refused(errno.ENOENT):
        queue.post(1)
    assert now(queue) == []


def test_any_thread_may_post(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    waiter = waiting(queue)
    InThread(lambda: queue.post(1, 5)).result()
    assert [event.data for event in waiter.result()] == [5]


def test_posts_of_many_threads_are_all_counted(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))

    def posts() -> None:
        for _ in range(200):
            queue.post(1)

    threads = [InThread(posts) for _ in range(4)]
    counted = 0
    while counted < 800:
        counted += one(queue).count
    for thread in threads:
        thread.result()
    assert counted == 800
    assert now(queue) == []


def test_another_process_that_holds_the_queue_may_post(queue: Queue, stack: ExitStack) -> None:
    queue.add(pykevent.user_event(1))
    held = os.dup(queue.fileno())
    stack.callback(os.close, held)

    def posts() -> None:
        pykevent.Queue.fromfd(held).post(1, 77)

    with child(posts) as process:
        process.finish()
    assert one(queue).data == 77


def test_a_one_shot_is_removed_by_its_delivery_with_everything_posted(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, Flags.ONESHOT))
    queue.post(1, 5)
    queue.post(1, 6)
    event = one(queue)
    assert (event.count, event.data, event.last) == (2, 6, True)
    with refused(errno.ENOENT):
        queue.post(1)


def test_dispatch_keeps_what_is_posted_until_it_is_armed(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, Flags.DISPATCH))
    queue.post(1, 1)
    assert one(queue).count == 1
    queue.post(1, 2)
    queue.post(1, 3)
    assert now(queue) == []
    queue.modify(pykevent.user_event(1, Flags.DISPATCH))
    event = one(queue)
    assert (event.count, event.data) == (2, 3)
    queue.modify(pykevent.user_event(1, Flags.DISPATCH))
    assert now(queue) == []


def test_what_is_posted_while_disabled_is_delivered_once_armed(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, Flags.DISABLED))
    queue.post(1, 8)
    assert now(queue) == []
    queue.modify(pykevent.user_event(1, cookie=2))
    event = one(queue)
    assert (event.count, event.data, event.cookie) == (1, 8, 2)


def test_modify_keeps_what_was_posted_and_not_delivered(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, cookie=1))
    queue.post(1, 8)
    queue.modify(pykevent.user_event(1, cookie=2))
    queue.post(1, 9)
    event = one(queue)
    assert (event.count, event.data, event.cookie) == (2, 9, 2)


def test_disabling_what_was_posted_keeps_it(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    queue.post(1, 8)
    queue.modify(pykevent.user_event(1, Flags.DISABLED))
    assert now(queue) == []
    queue.modify(pykevent.user_event(1))
    assert one(queue).data == 8


def test_remove_drops_what_was_posted(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    queue.post(1)
    queue.remove(EventType.USER, 1)
    queue.add(pykevent.user_event(1))
    assert now(queue) == []


def test_a_post_to_one_that_is_delivered_already_queues_it_at_the_end(queue: Queue) -> None:
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in (1, 2, 3))
    queue.post_many([(1, 0), (2, 0)])
    assert cookies(now(queue, maximum=1)) == [1]
    queue.post_many([(3, 0), (1, 0)])
    assert cookies(now(queue)) == [2, 3, 1]
