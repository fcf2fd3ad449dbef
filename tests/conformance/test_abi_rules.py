# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the ABI: flat structures, sizes in the numbers, fields that come back untouched."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable

import pytest

import pykevent
from pykevent import EventType, NaioEvents, Queue, abi

from . import raw
from .support import now, one, refused

MOST = (1 << 64) - 1


def test_a_request_is_56_bytes_and_an_event_32() -> None:
    assert ctypes.sizeof(abi.kevent_request) == 56
    assert ctypes.sizeof(abi.kevent_event) == 32


def test_the_headers_keep_what_follows_them_aligned_to_8_bytes() -> None:
    for header in (abi.kevent_batch, abi.kevent_wait, abi.kevent_post, abi.kevent_path):
        assert ctypes.sizeof(header) % 8 == 0, header


@pytest.mark.parametrize(
    ("number", "size"),
    [
        (abi.INFO, ctypes.sizeof(abi.kevent_info)),
        (abi.ADD(3), ctypes.sizeof(abi.kevent_batch) + 3 * 56),
        (abi.MODIFY(2), ctypes.sizeof(abi.kevent_batch) + 2 * 56),
        (abi.REMOVE(1), ctypes.sizeof(abi.kevent_batch) + 56),
        (abi.WAIT(7), ctypes.sizeof(abi.kevent_wait) + 7 * 32),
        (abi.CHANGE_WAIT(2, 7), ctypes.sizeof(abi.kevent_wait) + 2 * 56 + 7 * 32),
        (abi.POST(5), ctypes.sizeof(abi.kevent_batch) + 5 * 24),
        (abi.ADD_PATH(9), ctypes.sizeof(abi.kevent_path) + 9),
    ],
    ids=["INFO", "ADD", "MODIFY", "REMOVE", "WAIT", "CHANGE_WAIT", "POST", "ADD_PATH"],
)
def test_the_number_of_every_ioctl_carries_the_size_of_its_argument(number: int, size: int) -> None:
    assert (number >> 16) & 0x3FFF == size
    assert (number >> 8) & 0xFF == abi.IOC_MAGIC


def test_the_largest_batches_fit_the_14_bits_of_size() -> None:
    for number in (
        abi.ADD(abi.MAX_REQUESTS),
        abi.POST(abi.MAX_POSTS),
        abi.WAIT(abi.MAX_RECORDS),
    ):
        assert (number >> 16) & 0x3FFF <= abi.MAX_SIZE


@pytest.mark.needs("USER")
def test_the_cookie_comes_back_untouched(queue: Queue) -> None:
    queue.add(pykevent.user_event(1, cookie=MOST))
    queue.post(1)
    assert one(queue).cookie == MOST


@pytest.mark.needs("USER")
def test_the_identity_of_a_user_event_is_any_number_of_64_bits(queue: Queue) -> None:
    for ident in (0, 1 << 31, 1 << 32, MOST):
        queue.add(pykevent.user_event(ident))
        queue.post(ident, MOST)
        event = one(queue)
        assert (event.ident, event.data) == (ident, MOST)


@pytest.mark.needs("USER", "TIMER")
def test_type_and_identity_together_name_a_kevent(queue: Queue) -> None:
    queue.add(pykevent.user_event(7, cookie=1))
    queue.add(pykevent.timer_event(7, 0, cookie=2))
    queue.post(7)
    assert {event.type: event.cookie for event in now(queue)} == {
        EventType.USER: 1,
        EventType.TIMER: 2,
    }


@pytest.mark.needs("USER")
def test_the_cookie_is_no_part_of_the_identity(queue: Queue) -> None:
    queue.add(pykevent.user_event(7, cookie=1))
    with refused(errno.EEXIST):
        queue.add(pykevent.user_event(7, cookie=2))
    queue.modify(pykevent.user_event(7, cookie=3))
    queue.remove(EventType.USER, 7)


@pytest.mark.needs("USER")
def test_fewer_requests_may_be_given_than_the_encoded_size_holds(queue: Queue) -> None:
    requests = [raw.request(EventType.USER, ident, 1) for ident in range(3)]
    call = raw.batch(abi.ADD(3), *requests, count=2)
    assert call(queue.fileno()) == 2
    assert queue.info().kevents == 2


@pytest.mark.needs("USER")
def test_the_result_of_an_earlier_call_may_stand_in_a_request(queue: Queue) -> None:
    stale = raw.request(EventType.USER, 1, 1)
    stale.result = -errno.ENOENT
    call = raw.add(stale)
    assert call(queue.fileno()) == 1
    assert call.results() == [0]


@pytest.mark.needs("USER")
def test_nothing_of_a_request_but_its_result_is_written(queue: Queue) -> None:
    request = raw.request(EventType.USER, 5, 1, abi.Flags.DISPATCH, cookie=9)
    before = bytes(request)
    call = raw.add(request)
    call(queue.fileno())
    assert bytes(call.request()) == before


@pytest.mark.needs("USER")
def test_only_the_records_that_are_counted_are_written(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    queue.post(1)
    call = raw.wait(4)
    start = ctypes.sizeof(abi.kevent_wait)
    call.buffer[start : call.size] = b"\x5a" * (call.size - start)
    assert call(queue.fileno()) == 1
    assert call.wait().records == 1
    assert call.buffer[start + 32 : call.size] == b"\x5a" * (3 * 32)


@pytest.mark.parametrize("nr", [8, 9, 0x7F, 0xFF])
def test_an_unknown_ioctl_is_enotty(queue: Queue, nr: int) -> None:
    with refused(errno.ENOTTY):
        raw.Call((3 << 30) | (48 << 16) | (abi.IOC_MAGIC << 8) | nr)(queue.fileno())


def test_an_ioctl_of_another_device_is_enotty(queue: Queue) -> None:
    number = abi.WAIT(4) ^ (0x01 << 8)
    with refused(errno.ENOTTY):
        raw.Call(number)(queue.fileno())


@pytest.mark.parametrize("unknown", [0, 8, 9, 255, 0xFFFF])
def test_an_unknown_type_has_an_errno_of_its_own(queue: Queue, unknown: int) -> None:
    for number in (abi.ADD(1), abi.MODIFY(1), abi.REMOVE(1)):
        call = raw.batch(number, raw.request(unknown, 1))
        assert call(queue.fileno()) == 0
        assert call.results() == [-errno.ENXIO]


ONE_OF_EACH: dict[str, Callable[[], pykevent.Request]] = {
    "SOCKET": lambda: pykevent.Request(EventType.SOCKET, 0, 0),
    "POLL": lambda: pykevent.Request(EventType.POLL, 0, 0),
    "INODE": lambda: pykevent.Request(EventType.INODE, 0, 1),
    "TIMER": lambda: pykevent.timer_event(1, 1.0),
    "USER": lambda: pykevent.user_event(1),
    "NAIO": lambda: pykevent.naio_event(1, NaioEvents.RECV, 0, 0, 1),
}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_source_that_info_lacks_is_refused_with_eopnotsupp(
    queue: Queue, info: pykevent.Info, name: str
) -> None:
    if info.features & pykevent.Feature[name]:
        pytest.skip(f"INFO has {name}")
    with refused(errno.EOPNOTSUPP):
        queue.add(ONE_OF_EACH[name]())


def test_kevents_of_one_queue_are_unknown_to_another(
    queue: Queue, new_queue: Callable[[], Queue], info: pykevent.Info
) -> None:
    if not info.features & pykevent.Feature.USER:
        pytest.skip("INFO has no USER")
    other = new_queue()
    queue.add(pykevent.user_event(1))
    assert other.info().kevents == 0
    with refused(errno.ENOENT):
        other.post(1)
    with refused(errno.ENOENT):
        other.remove(EventType.USER, 1)
    assert now(other) == []
