# SPDX-License-Identifier: GPL-2.0-or-later
"""The one function that calls the device, tried on a pipe's FIONREAD."""

import errno
import os
import sys
import termios
from collections.abc import Iterator

import pytest

from pykevent import calls


@pytest.fixture
def pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.write(writer, b"12345")
    yield reader
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("size", [4, 1024, 1025, 16383])
def test_the_buffer_is_changed_in_place(pipe: int, blocking: bool, size: int) -> None:
    buffer = bytearray(size)
    assert calls.ioctl(pipe, termios.FIONREAD, buffer, blocking=blocking) == 0
    assert int.from_bytes(buffer[:4], sys.byteorder) == 5
    buffer += b"x"  # No export is left on it.


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("size", [4, 4096])
def test_an_error_is_an_oserror_with_its_errno(pipe: int, blocking: bool, size: int) -> None:
    with pytest.raises(OSError) as caught:
        calls.ioctl(pipe, 0xC004E7FF, bytearray(size), blocking=blocking)
    assert caught.value.errno == errno.ENOTTY
    assert caught.value.strerror == os.strerror(errno.ENOTTY)


def test_only_a_short_call_that_cannot_wait_goes_through_fcntl(
    pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def recorded(fd: int, number: int, buffer: bytearray, mutate: bool) -> int:
        used.append(len(buffer))
        return 0

    monkeypatch.setattr("fcntl.ioctl", recorded)
    for size, blocking in ((4, False), (1024, False), (1025, False), (4, True), (2048, True)):
        calls.ioctl(pipe, termios.FIONREAD, bytearray(size), blocking=blocking)
    assert used == [4, 1024]
