# SPDX-License-Identifier: GPL-2.0-or-later
"""The ioctls as bytes, with nothing between a test and the device.

A Call is one buffer of exactly the encoded size.  Tests change its fields to what pykevent would
never send, and look at what came back whether the ioctl succeeded or not.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass

from pykevent import abi

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)

FOREVER = (1 << 64) - 1
GUARD = 64
"""Bytes behind every buffer that no ioctl may touch."""


def ioctl(fd: int, number: int, address: int) -> int:
    """ioctl(2) with a bare @address; OSError with its errno."""
    result: int = _libc.ioctl(fd, number, address)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def request(
    type: int,
    ident: int,
    events: int = 0,
    flags: int = 0,
    *,
    cookie: int = 0,
    op: int = 0,
    params: Sequence[int] = (0, 0, 0),
) -> abi.kevent_request:
    """A struct kevent_request."""
    made = abi.kevent_request()
    made.ident, made.cookie, made.type, made.op = ident, cookie, type, op
    made.flags, made.events = flags, events
    for index, value in enumerate(params):
        made.param[index] = value
    return made


def post(ident: int, data: int = 0, flags: int = 0) -> abi.kevent_post:
    """A struct kevent_post."""
    made = abi.kevent_post()
    made.ident, made.data, made.flags = ident, data, flags
    return made


@dataclass
class Record:
    """An event as it stands in the records, with the name that followed it."""

    event: abi.kevent_event
    name: bytes | None


class Call:
    """One ioctl: its number, and the buffer of its encoded size."""

    def __init__(self, number: int, *parts: ctypes.Structure, size: int | None = None) -> None:
        self.number = number
        self.size = (number >> 16) & 0x3FFF if size is None else size
        content = b"".join(bytes(part) for part in parts)
        self.buffer = bytearray(content.ljust(self.size, b"\0")[: self.size] + b"\xa5" * GUARD)
        self._memory = (ctypes.c_char * len(self.buffer)).from_buffer(self.buffer)

    @property
    def address(self) -> int:
        """Where the buffer begins."""
        return ctypes.addressof(self._memory)

    def __call__(self, fd: int) -> int:
        """Do it: what the ioctl returned, or OSError."""
        try:
            return ioctl(fd, self.number, self.address)
        finally:
            assert self.buffer[self.size :] == b"\xa5" * GUARD, "written past the encoded size"

    def batch(self) -> abi.kevent_batch:
        """The header of ADD, MODIFY, REMOVE, POST, in place."""
        return abi.kevent_batch.from_buffer(self.buffer)

    def wait(self) -> abi.kevent_wait:
        """The header of WAIT and CHANGE_WAIT, in place."""
        return abi.kevent_wait.from_buffer(self.buffer)

    def request(self, index: int = 0) -> abi.kevent_request:
        """A request behind the header, in place."""
        size = ctypes.sizeof(abi.kevent_request)
        offset = ctypes.sizeof(abi.kevent_batch)
        if (self.number & 0xFF) == abi.IOC_NR_CHANGE_WAIT:
            offset = ctypes.sizeof(abi.kevent_wait)
        elif (self.number & 0xFF) == abi.IOC_NR_ADD_PATH:
            offset = 0
        return abi.kevent_request.from_buffer(self.buffer, offset + index * size)

    def post(self, index: int = 0) -> abi.kevent_post:
        """A posting behind the header, in place."""
        size = ctypes.sizeof(abi.kevent_post)
        offset = ctypes.sizeof(abi.kevent_batch) + index * size
        return abi.kevent_post.from_buffer(self.buffer, offset)

    def results(self) -> list[int]:
        """The result of every request or posting that the header counts."""
        header = self.batch()
        if (self.number & 0xFF) == abi.IOC_NR_POST:
            return [self.post(index).result for index in range(header.count)]
        count = header.count
        if (self.number & 0xFF) == abi.IOC_NR_CHANGE_WAIT:
            count = self.wait().nr_changes
        return [self.request(index).result for index in range(count)]

    def records(self) -> list[Record]:
        """The events that WAIT or CHANGE_WAIT wrote."""
        header = self.wait()
        at = ctypes.sizeof(abi.kevent_wait)
        at += header.nr_changes * ctypes.sizeof(abi.kevent_request)
        return parse(bytes(self.buffer[at : at + 32 * header.records]))


def parse(content: bytes) -> list[Record]:
    """The events in so many bytes of records, as WAIT and read(2) write them."""
    found, at = [], 0
    while at < len(content):
        event = abi.kevent_event.from_buffer_copy(content, at)
        at += 32
        name = None
        if event.flags & abi.EventFlags.NAME:
            length = event.data >> 32
            name = content[at : at + length]
            room = (length + 31) // 32 * 32
            assert content[at + length : at + room] == bytes(room - length), "padded with zeros"
            at += room
        found.append(Record(event, name))
    assert at == len(content)
    return found


def batch(
    number: int,
    *parts: ctypes.Structure,
    count: int | None = None,
    flags: int = 0,
    reserved: int = 0,
) -> Call:
    """An ADD, MODIFY, REMOVE or POST, @count as many as there are unless told otherwise."""
    header = abi.kevent_batch()
    header.count = len(parts) if count is None else count
    header.flags, header.reserved = flags, reserved
    return Call(number, header, *parts)


def add(*requests: abi.kevent_request) -> Call:
    """ADD of these."""
    return batch(abi.ADD(len(requests)), *requests)


def modify(*requests: abi.kevent_request) -> Call:
    """MODIFY of these."""
    return batch(abi.MODIFY(len(requests)), *requests)


def remove(*requests: abi.kevent_request) -> Call:
    """REMOVE of these."""
    return batch(abi.REMOVE(len(requests)), *requests)


def posts(*postings: abi.kevent_post) -> Call:
    """POST of these."""
    return batch(abi.POST(len(postings)), *postings)


def wait(
    maximum: int = 16,
    *,
    minimum: int = 1,
    timeout: int = 0,
    clock: int = 1,
    flags: int = 0,
    changes: Sequence[abi.kevent_request] | None = None,
) -> Call:
    """WAIT, or where @changes are given CHANGE_WAIT; @timeout in ns, clock 1 is monotonic."""
    header = abi.kevent_wait()
    header.min, header.max, header.timeout = minimum, maximum, timeout
    header.clock, header.flags = clock, flags
    if changes is None:
        return Call(abi.WAIT(maximum), header)
    header.nr_changes = len(changes)
    return Call(abi.CHANGE_WAIT(len(changes), maximum), header, *changes)


def path(request: abi.kevent_request, name: bytes, *, terminate: bool = True) -> Call:
    """ADD_PATH of @name, and its NUL unless told otherwise."""
    text = name + b"\0" if terminate else name
    call = Call(abi.ADD_PATH(len(text)), request)
    call.buffer[ctypes.sizeof(request) : ctypes.sizeof(request) + len(text)] = text
    return call
