# SPDX-License-Identifier: GPL-2.0-or-later
"""A batch never half-fails silently: every entry has a result, the call says how many succeeded."""

from __future__ import annotations

import errno

import pytest

import pykevent
from pykevent import EventType, Queue, abi

from . import raw
from .support import cookies, drain, now, one, refused

pytestmark = pytest.mark.needs("USER")

USER = EventType.USER
UNKNOWN_TYPE = 77


def user(ident: int, flags: int = 0, cookie: int = 0) -> abi.kevent_request:
    """A request for a user event."""
    return raw.request(USER, ident, abi.UserEvents.POSTED, flags, cookie=cookie)


def plain(ident: int) -> abi.kevent_request:
    """What REMOVE looks at."""
    return raw.request(USER, ident)


def test_add_returns_how_many_were_added(queue: Queue) -> None:
    call = raw.add(user(1), user(2), user(3))
    assert call(queue.fileno()) == 3
    assert call.results() == [0, 0, 0]
    assert queue.info().kevents == 3


def test_every_entry_of_add_has_its_own_result(queue: Queue) -> None:
    call = raw.add(
        user(1),
        user(1),
        raw.request(UNKNOWN_TYPE, 2),
        user(3, flags=1 << 31),
        raw.request(USER, 4, 0),
        user(5),
    )
    assert call(queue.fileno()) == 2
    assert call.results() == [
        0,
        -errno.EEXIST,
        -errno.ENXIO,
        -errno.EINVAL,
        -errno.EINVAL,
        0,
    ]
    assert queue.info().kevents == 2


def test_an_entry_that_fails_stops_none_of_those_behind_it(queue: Queue) -> None:
    call = raw.add(raw.request(UNKNOWN_TYPE, 1), user(2))
    assert call(queue.fileno()) == 1
    queue.post(2)
    assert one(queue).ident == 2


def test_a_batch_of_which_nothing_succeeds_returns_0(queue: Queue) -> None:
    call = raw.add(raw.request(UNKNOWN_TYPE, 1), raw.request(UNKNOWN_TYPE, 2))
    assert call(queue.fileno()) == 0
    assert call.results() == [-errno.ENXIO, -errno.ENXIO]


def test_every_entry_of_modify_has_its_own_result(queue: Queue) -> None:
    queue.add_many([pykevent.user_event(1), pykevent.user_event(3)])
    call = raw.modify(user(1, cookie=10), user(2), user(3, cookie=30))
    assert call(queue.fileno()) == 2
    assert call.results() == [0, -errno.ENOENT, 0]
    queue.post_many([(1, 0), (3, 0)])
    assert cookies(now(queue)) == [10, 30]


def test_every_entry_of_remove_has_its_own_result(queue: Queue) -> None:
    queue.add_many([pykevent.user_event(1), pykevent.user_event(2)])
    call = raw.remove(plain(1), plain(1), plain(9), plain(2))
    assert call(queue.fileno()) == 2
    assert call.results() == [0, -errno.ENOENT, -errno.ENOENT, 0]
    assert queue.info().kevents == 0


def test_every_entry_of_post_has_its_own_result(queue: Queue) -> None:
    queue.add_many([pykevent.user_event(1), pykevent.user_event(2)])
    call = raw.posts(raw.post(1, 11), raw.post(9), raw.post(2, 22), raw.post(2, 0, flags=1))
    assert call(queue.fileno()) == 2
    assert call.results() == [0, -errno.ENOENT, 0, -errno.EINVAL]
    assert [(event.ident, event.data) for event in drain(queue)] == [(1, 11), (2, 22)]


def test_the_requests_of_a_batch_are_applied_in_their_order(queue: Queue) -> None:
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in (3, 1, 2))
    queue.post_many([(2, 0), (3, 0), (1, 0)])
    assert cookies(now(queue)) == [2, 3, 1]


@pytest.mark.parametrize(
    "call",
    [
        raw.batch(abi.ADD(0)),
        raw.batch(abi.MODIFY(0)),
        raw.batch(abi.REMOVE(0)),
        raw.batch(abi.POST(0)),
        raw.wait(0, minimum=0),
        raw.wait(0, minimum=0, changes=[]),
    ],
    ids=["ADD", "MODIFY", "REMOVE", "POST", "WAIT", "CHANGE_WAIT"],
)
def test_a_batch_of_no_entries_succeeds_and_returns_0(queue: Queue, call: raw.Call) -> None:
    assert call(queue.fileno()) == 0


def test_pykevent_takes_batches_of_no_entries(queue: Queue) -> None:
    assert queue.add_many([]) == []
    assert queue.modify_many([]) == []
    assert queue.remove_many([]) == []
    assert queue.post_many([]) == []


def test_the_largest_batch_is_added_posted_delivered_and_removed(queue: Queue) -> None:
    idents = range(abi.MAX_REQUESTS)
    call = raw.add(*(user(ident, cookie=ident) for ident in idents))
    assert call(queue.fileno()) == len(idents)
    assert raw.posts(*(raw.post(ident) for ident in idents))(queue.fileno()) == len(idents)
    waited = raw.wait(abi.MAX_RECORDS, minimum=len(idents))
    assert waited(queue.fileno()) == len(idents)
    assert [record.event.cookie for record in waited.records()] == list(idents)
    assert raw.remove(*(plain(ident) for ident in idents))(queue.fileno()) == len(idents)
    assert queue.info().kevents == 0


def test_the_largest_wait_delivers_as_many_events_as_it_has_records(queue: Queue) -> None:
    count = abi.MAX_RECORDS + 10
    assert not any(queue.add_many(pykevent.user_event(ident) for ident in range(count)))
    assert not any(queue.post_many((ident, 0) for ident in range(count)))
    waited = raw.wait(abi.MAX_RECORDS)
    assert waited(queue.fileno()) == abi.MAX_RECORDS
    assert waited.wait().left == 10
    assert len(now(queue)) == 10


def test_pykevent_splits_what_one_ioctl_cannot_hold(queue: Queue) -> None:
    count = 2 * abi.MAX_REQUESTS + 5
    requests = [pykevent.user_event(ident) for ident in range(count)]
    assert queue.add_many(requests) == [0] * count
    assert queue.modify_many(requests) == [0] * count
    assert queue.post_many((ident, 0) for ident in range(count)) == [0] * count
    assert len(drain(queue)) == count
    assert queue.remove_many((USER, ident) for ident in range(count)) == [0] * count
    assert queue.info().kevents == 0


def test_pykevent_raises_where_a_single_entry_fails(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    with refused(errno.EEXIST):
        queue.add(pykevent.user_event(1))
    with refused(errno.ENOENT):
        queue.modify(pykevent.user_event(2))
    with refused(errno.ENOENT):
        queue.remove(USER, 2)
    with refused(errno.ENOENT):
        queue.post(2)
