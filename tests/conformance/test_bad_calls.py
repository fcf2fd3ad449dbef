# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole calls that are refused: headers, counts and sizes, and memory that is not there."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from collections.abc import Callable, Iterator

import pytest

import pykevent
from pykevent import EventType, Op, Queue, abi

from . import raw
from .support import cookies, now, refused

pytestmark = pytest.mark.needs("USER")

U32 = (1 << 32) - 1
U64 = (1 << 64) - 1
USER = EventType.USER
CLOCKS = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)


@pytest.fixture
def ready(queue: Queue) -> Queue:
    """The queue with user events 1 to 3, all of them posted."""
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in (1, 2, 3))
    queue.post_many((ident, 0) for ident in (1, 2, 3))
    return queue


def unharmed(queue: Queue) -> None:
    """Nothing was added, removed, changed or lost of what @ready holds."""
    assert queue.info().kevents == 3
    assert cookies(now(queue)) == [1, 2, 3]


BATCHES: dict[str, Callable[[], raw.Call]] = {
    "ADD": lambda: raw.add(raw.request(USER, 9, 1)),
    "MODIFY": lambda: raw.modify(raw.request(USER, 1, 1, cookie=99)),
    "REMOVE": lambda: raw.remove(raw.request(USER, 1)),
    "POST": lambda: raw.posts(raw.post(1, 99)),
}
NUMBERS = {"ADD": abi.ADD, "MODIFY": abi.MODIFY, "REMOVE": abi.REMOVE, "POST": abi.POST}


@pytest.mark.parametrize("name", BATCHES)
def test_every_flag_of_a_batch_is_einval(ready: Queue, name: str) -> None:
    for bit in range(32):
        call = BATCHES[name]()
        call.batch().flags = 1 << bit
        with refused(errno.EINVAL):
            call(ready.fileno())
    unharmed(ready)


@pytest.mark.parametrize("name", BATCHES)
def test_the_reserved_field_of_a_batch_is_einval(ready: Queue, name: str) -> None:
    for value in (1, 1 << 32, U64):
        call = BATCHES[name]()
        call.batch().reserved = value
        with refused(errno.EINVAL):
            call(ready.fileno())
    unharmed(ready)


@pytest.mark.parametrize("name", BATCHES)
def test_a_count_larger_than_the_size_holds_is_einval(ready: Queue, name: str) -> None:
    for count in (2, 3, 0xFFFF, 1 << 26, 1 << 31, U32):
        call = BATCHES[name]()
        call.batch().count = count
        with refused(errno.EINVAL):
            call(ready.fileno())
    unharmed(ready)


@pytest.mark.parametrize("name", BATCHES)
def test_a_size_smaller_than_the_header_is_einval(ready: Queue, name: str) -> None:
    for size in (0, 1, 4, 8, 15):
        number = NUMBERS[name](1) & ~(0x3FFF << 16) | size << 16
        with refused(errno.EINVAL):
            raw.Call(number)(ready.fileno())
    unharmed(ready)


@pytest.mark.parametrize("name", BATCHES)
def test_a_size_that_holds_only_part_of_an_entry_does_not_hold_it(ready: Queue, name: str) -> None:
    call = BATCHES[name]()
    short = raw.Call(call.number - (1 << 16))
    short.buffer[: short.size] = call.buffer[: short.size]
    with refused(errno.EINVAL):
        short(ready.fileno())
    unharmed(ready)


@pytest.mark.parametrize("nr", [abi.IOC_NR_WAIT, abi.IOC_NR_CHANGE_WAIT])
def test_a_wait_smaller_than_its_header_is_einval(ready: Queue, nr: int) -> None:
    for size in (0, 8, 47):
        number = 3 << 30 | size << 16 | abi.IOC_MAGIC << 8 | nr
        with refused(errno.EINVAL):
            raw.Call(number)(ready.fileno())
    unharmed(ready)


@pytest.mark.needs("INODE")
def test_a_path_smaller_than_its_request_is_einval(ready: Queue) -> None:
    request = bytes(raw.request(EventType.PATH, 1, 1))
    for size in (0, 8, 55, 56):
        call = raw.Call(3 << 30 | size << 16 | abi.IOC_MAGIC << 8 | abi.IOC_NR_ADD_PATH)
        call.buffer[:size] = request[:size]
        with refused(errno.EINVAL):
            call(ready.fileno())
    unharmed(ready)


def test_a_max_larger_than_the_size_holds_is_einval(ready: Queue) -> None:
    for maximum in (3, 4, 1 << 27, U32):
        call = raw.wait(2)
        call.wait().max = maximum
        with refused(errno.EINVAL):
            call(ready.fileno())
    unharmed(ready)


def test_more_changes_than_the_size_holds_are_einval(ready: Queue) -> None:
    for changes in (1, 2, 1 << 26, U32):
        call = raw.wait(1, changes=[])
        call.wait().nr_changes = changes
        with refused(errno.EINVAL):
            call(ready.fileno())
    unharmed(ready)


def test_changes_and_max_share_the_size(ready: Queue) -> None:
    call = raw.wait(2, changes=[raw.request(USER, 9, 1, op=Op.ADD)])
    call.wait().max = 3
    with refused(errno.EINVAL):
        call(ready.fileno())
    unharmed(ready)


def test_a_plain_wait_takes_no_changes(ready: Queue) -> None:
    for changes in (1, U32):
        call = raw.wait(8)
        call.wait().nr_changes = changes
        with refused(errno.EINVAL):
            call(ready.fileno())
    unharmed(ready)


@pytest.mark.parametrize("changes", [None, []], ids=["WAIT", "CHANGE_WAIT"])
def test_a_min_larger_than_max_is_einval(
    ready: Queue, changes: list[abi.kevent_request] | None
) -> None:
    for minimum, maximum in ((1, 0), (3, 2), (U32, 2)):
        with refused(errno.EINVAL):
            raw.wait(maximum, minimum=minimum, changes=changes)(ready.fileno())
    unharmed(ready)


def test_every_unknown_flag_of_wait_is_einval(ready: Queue) -> None:
    for bit in range(1, 32):
        with refused(errno.EINVAL):
            raw.wait(2, flags=1 << bit)(ready.fileno())
    unharmed(ready)


def test_the_reserved_field_of_wait_is_einval(ready: Queue) -> None:
    for value in (1, 1 << 32, U64):
        call = raw.wait(2)
        call.wait().reserved = value
        with refused(errno.EINVAL):
            call(ready.fileno())
    unharmed(ready)


def test_a_wait_by_another_clock_is_einval(ready: Queue) -> None:
    for clock in (2, 3, 4, 5, 6, 8, 9, 11, 12, 1 << 31, U32):
        with refused(errno.EINVAL):
            raw.wait(2, clock=clock, timeout=10**9)(ready.fileno())
    unharmed(ready)


@pytest.mark.parametrize("flags", [0, 1], ids=["relative", "absolute"])
def test_a_timeout_of_more_than_63_bits_is_einval(ready: Queue, flags: int) -> None:
    for clock in CLOCKS:
        for timeout in (1 << 63, U64 - 1):
            with refused(errno.EINVAL):
                raw.wait(2, clock=clock, timeout=timeout, flags=flags)(ready.fileno())
    unharmed(ready)


def test_a_relative_timeout_that_ends_beyond_63_bits_is_einval(ready: Queue) -> None:
    for clock in CLOCKS:
        with refused(errno.EINVAL):
            raw.wait(2, clock=clock, timeout=(1 << 63) - 1)(ready.fileno())
    unharmed(ready)


def test_a_header_of_change_wait_that_is_refused_changes_nothing(ready: Queue) -> None:
    add = raw.request(USER, 9, 1, op=Op.ADD)
    bad = [
        raw.wait(2, minimum=3, changes=[add]),
        raw.wait(2, flags=2, changes=[add]),
        raw.wait(2, clock=2, timeout=1, changes=[add]),
        raw.wait(2, timeout=1 << 63, changes=[add]),
    ]
    for call in bad:
        with refused(errno.EINVAL):
            call(ready.fileno())
        assert call.wait().changed == 0
    unharmed(ready)


# Memory


EVERY_IOCTL: dict[str, Callable[[], raw.Call]] = {
    **BATCHES,
    "INFO": lambda: raw.Call(abi.INFO),
    "WAIT": lambda: raw.wait(1),
    "CHANGE_WAIT": lambda: raw.wait(2, changes=[raw.request(USER, 9, 1, op=Op.ADD)]),
    "ADD_PATH": lambda: raw.path(raw.request(EventType.PATH, 1, 1), b"/"),
}
WILD = [0, 1, 0x1000, 1 << 46, (1 << 47) - 4096, 1 << 63, U64 - 4095, U64 - 15]


@pytest.mark.parametrize("name", EVERY_IOCTL)
def test_an_address_that_is_not_there_is_efault(ready: Queue, name: str) -> None:
    for address in WILD:
        with refused(errno.EFAULT):
            raw.ioctl(ready.fileno(), EVERY_IOCTL[name]().number, address)
    unharmed(ready)


@pytest.fixture
def pages() -> Iterator[tuple[int, mmap.mmap]]:
    """Two pages of memory, and their address."""
    with mmap.mmap(-1, 2 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        anchor = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(anchor)
        yield address, memory
        protect(address, 2, mmap.PROT_READ | mmap.PROT_WRITE)
        del anchor


def protect(address: int, pages: int, protection: int) -> None:
    """mprotect(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    length = pages * mmap.PAGESIZE
    assert libc.mprotect(address, length, protection) == 0, os.strerror(ctypes.get_errno())


@pytest.mark.parametrize("name", sorted({*EVERY_IOCTL} - {"CHANGE_WAIT"}))
def test_a_buffer_that_ends_outside_of_memory_is_efault(
    ready: Queue, name: str, pages: tuple[int, mmap.mmap]
) -> None:
    address, memory = pages
    call = EVERY_IOCTL[name]()
    start = mmap.PAGESIZE - call.size + 8
    content = bytes(call.buffer[: call.size])
    memory[start : start + call.size] = content
    protect(address + mmap.PAGESIZE, 1, 0)
    with refused(errno.EFAULT):
        raw.ioctl(ready.fileno(), call.number, address + start)
    protect(address + mmap.PAGESIZE, 1, mmap.PROT_READ | mmap.PROT_WRITE)
    unharmed(ready)


@pytest.mark.parametrize("name", EVERY_IOCTL)
def test_memory_that_can_only_be_read_is_efault(
    ready: Queue, name: str, pages: tuple[int, mmap.mmap]
) -> None:
    address, memory = pages
    call = EVERY_IOCTL[name]()
    memory[: call.size] = bytes(call.buffer[: call.size])
    protect(address, 2, mmap.PROT_READ)
    with refused(errno.EFAULT):
        raw.ioctl(ready.fileno(), call.number, address)
    protect(address, 2, mmap.PROT_READ | mmap.PROT_WRITE)
    assert memory[: call.size] == bytes(call.buffer[: call.size])
    unharmed(ready)


@pytest.mark.needs("PARTIAL")
def test_events_whose_records_cannot_be_written_stay_in_the_queue(
    ready: Queue, pages: tuple[int, mmap.mmap]
) -> None:
    address, memory = pages
    call = raw.wait(3)
    # The header and the first record lie in memory that can be written, the others do not.
    header = ctypes.sizeof(abi.kevent_wait)
    start = mmap.PAGESIZE - header - 32
    memory[start : start + call.size] = bytes(call.buffer[: call.size])
    protect(address + mmap.PAGESIZE, 1, mmap.PROT_READ)
    written = raw.ioctl(ready.fileno(), call.number, address + start)
    assert written == 1
    (first,) = raw.parse(memory[start + header : mmap.PAGESIZE])
    assert first.event.cookie == 1
    protect(address + mmap.PAGESIZE, 1, mmap.PROT_READ | mmap.PROT_WRITE)
    assert cookies(now(ready)) == [2, 3]


@pytest.mark.needs("PARTIAL")
def test_where_no_record_can_be_written_the_results_of_the_changes_are_told(
    ready: Queue, pages: tuple[int, mmap.mmap]
) -> None:
    address, memory = pages
    call = raw.wait(1, changes=[raw.request(USER, 9, 1, op=Op.ADD)])
    start = mmap.PAGESIZE - call.size + 32
    memory[start : start + call.size] = bytes(call.buffer[: call.size])
    protect(address + mmap.PAGESIZE, 1, mmap.PROT_READ)
    with refused(errno.EFAULT):
        raw.ioctl(ready.fileno(), call.number, address + start)
    protect(address + mmap.PAGESIZE, 1, mmap.PROT_READ | mmap.PROT_WRITE)
    call.buffer[: call.size] = memory[start : start + call.size]
    assert (call.wait().changed, call.results()) == (1, [0])
    ready.remove(USER, 9)
    unharmed(ready)


def test_a_one_shot_whose_record_cannot_be_written_is_not_removed(
    queue: Queue, pages: tuple[int, mmap.mmap]
) -> None:
    address, memory = pages
    queue.add(pykevent.user_event(1, pykevent.Flags.ONESHOT))
    queue.post(1, 5)
    call = raw.wait(1)
    memory[: call.size] = bytes(call.buffer[: call.size])
    protect(address, 1, mmap.PROT_READ)
    with refused(errno.EFAULT):
        raw.ioctl(queue.fileno(), call.number, address)
    protect(address, 1, mmap.PROT_READ | mmap.PROT_WRITE)
    (event,) = now(queue)
    assert (event.data, event.last) == (5, True)


def read_to(fd: int, address: int) -> None:
    """read(2) to a bare address."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    if libc.read(fd, address, 4096) < 0:
        raise OSError(ctypes.get_errno(), "read")


def test_a_read_to_an_address_that_is_not_there_is_efault(ready: Queue) -> None:
    for address in WILD:
        with refused(errno.EFAULT):
            read_to(ready.fileno(), address)
    unharmed(ready)


def test_a_read_to_memory_that_can_only_be_read_is_efault(
    ready: Queue, pages: tuple[int, mmap.mmap]
) -> None:
    address, _ = pages
    protect(address, 2, mmap.PROT_READ)
    with refused(errno.EFAULT):
        read_to(ready.fileno(), address)
    protect(address, 2, mmap.PROT_READ | mmap.PROT_WRITE)
    unharmed(ready)
