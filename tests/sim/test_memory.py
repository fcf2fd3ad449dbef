# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that cannot be written: nothing is done, nothing is lost.

The conformance tests of this are not run on a simulator, for FUSE writes the answer when all is
done; it is looked at before.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterator

import pytest

import pykevent
from pykevent import Op, Queue, abi
from tests.conformance import raw
from tests.conformance.support import cookies, now, refused
from tests.conformance.test_bad_calls import EVERY_IOCTL, USER


@pytest.fixture
def ready(queue: Queue) -> Queue:
    """The queue with user events 1 to 3, all of them posted."""
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in (1, 2, 3))
    queue.post_many((ident, 0) for ident in (1, 2, 3))
    return queue


@pytest.fixture
def written() -> Iterator[Callable[[raw.Call], int]]:
    """Puts a call into memory that can only be read; returns its address."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with mmap.mmap(-1, 8 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        anchor = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(anchor)

        def put(call: raw.Call) -> int:
            memory[: call.size] = bytes(call.buffer[: call.size])
            assert not libc.mprotect(address, 8 * mmap.PAGESIZE, mmap.PROT_READ), os.strerror(
                ctypes.get_errno()
            )
            return address

        yield put
        libc.mprotect(address, 8 * mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)
        del anchor


@pytest.mark.parametrize("name", EVERY_IOCTL)
def test_a_call_in_memory_that_can_only_be_read_does_nothing(
    ready: Queue, name: str, written: Callable[[raw.Call], int]
) -> None:
    call = EVERY_IOCTL[name]()
    with refused(errno.EFAULT):
        raw.ioctl(ready.fileno(), call.number, written(call))
    assert ready.info().kevents == 3
    assert cookies(now(ready)) == [1, 2, 3]


def test_so_does_one_of_many_pages(ready: Queue, written: Callable[[raw.Call], int]) -> None:
    changes = [raw.request(USER, ident, 1, op=Op.ADD) for ident in range(10, 100)]
    call = raw.wait(300, changes=changes)
    assert call.size > 3 * mmap.PAGESIZE
    assert call.number & 0xFF == abi.IOC_NR_CHANGE_WAIT
    with refused(errno.EFAULT):
        raw.ioctl(ready.fileno(), call.number, written(call))
    assert ready.info().kevents == 3
    assert cookies(now(ready)) == [1, 2, 3]


def test_a_one_shot_is_not_removed(queue: Queue, written: Callable[[raw.Call], int]) -> None:
    queue.add(pykevent.user_event(1, pykevent.Flags.ONESHOT))
    queue.post(1, 5)
    call = raw.wait(1)
    with refused(errno.EFAULT):
        raw.ioctl(queue.fileno(), call.number, written(call))
    (event,) = now(queue)
    assert (event.data, event.last) == (5, True)


def test_a_read_delivers_nothing_to_memory_that_can_only_be_read(
    ready: Queue, written: Callable[[raw.Call], int]
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    address = written(raw.wait(1))
    assert libc.read(ready.fileno(), ctypes.c_void_p(address), 4096) == -1
    assert ctypes.get_errno() == errno.EFAULT
    assert cookies(now(ready)) == [1, 2, 3]
