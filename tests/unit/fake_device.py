# SPDX-License-Identifier: GPL-2.0-or-later
"""A kevent device within this process: as much of one as the tests of pykevent's own code need.

It stands in for `pykevent.calls.ioctl`, the function through which every call goes, and understands
level kevents on descriptors, user events, and records that a test puts into it.  What a device
must do is the business of tests/conformance; this one only answers.
"""

import errno
import os
import select
import threading
import time
from collections.abc import Callable

from pykevent import abi
from pykevent.abi import EventType, Flags, Op, WaitFlags

DESCRIPTORS = (EventType.SOCKET, EventType.POLL)
FEATURES = (
    abi.Feature.SOCKET | abi.Feature.POLL | abi.Feature.USER | abi.Feature.TIMER | abi.Feature.NAIO
)
TYPE_FEATURES = {
    EventType.SOCKET: abi.Feature.SOCKET,
    EventType.POLL: abi.Feature.POLL,
    EventType.INODE: abi.Feature.INODE,
    EventType.PATH: abi.Feature.INODE,
    EventType.TIMER: abi.Feature.TIMER,
    EventType.USER: abi.Feature.USER,
    EventType.NAIO: abi.Feature.NAIO,
}


class Kevent:
    """One registered kevent."""

    def __init__(self, fields: tuple[int, ...]) -> None:
        self.ident, self.cookie, self.type, _, self.flags, self.events, _, *self.param = fields
        self.posts = 0
        self.data = 0


class Call:
    """One call as it was made."""

    def __init__(self, number: int, buffer: bytearray, blocking: bool) -> None:
        self.number = number
        self.nr = number & 0xFF
        self.size = number >> 16 & 0x3FFF
        self.sent = bytes(buffer)
        self.blocking = blocking


class FakeDevice:
    """Answers ioctls for one queue, whose descriptor is really /dev/null."""

    def __init__(self) -> None:
        self.kevents: dict[tuple[int, int], Kevent] = {}
        self.records: list[bytes] = []
        self.paths: dict[int, bytes] = {}
        self.calls: list[Call] = []
        self.version = abi.ABI_VERSION
        self.features = FEATURES
        self.max_queue = 1000
        self.moved: tuple[int, int] = (0, 0)
        """What REMOVE says of a transfer: bytes, and an errno."""
        self.interruptions: list[Callable[[], None]] = []
        """For each call that is to fail with EINTR: what happens before it does."""
        self.failures: list[int] = []
        """Errnos with which the next calls fail, having done nothing."""
        self.waiting = 0
        self.changed = threading.Condition()
        self._sleepers: list[int] = []
        self._answers = {
            abi.IOC_NR_INFO: self._info,
            abi.IOC_NR_ADD: lambda buffer: self._batch(Op.ADD, buffer),
            abi.IOC_NR_MODIFY: lambda buffer: self._batch(Op.MODIFY, buffer),
            abi.IOC_NR_REMOVE: lambda buffer: self._batch(Op.REMOVE, buffer),
            abi.IOC_NR_WAIT: self._change_wait,
            abi.IOC_NR_CHANGE_WAIT: self._change_wait,
            abi.IOC_NR_POST: self._post,
            abi.IOC_NR_ADD_PATH: self._add_path,
        }

    def ioctl(self, fd: int, number: int, buffer: bytearray, *, blocking: bool) -> int:
        """What `pykevent.calls.ioctl` is replaced with."""
        null = os.stat("/dev/null")
        assert os.fstat(fd).st_rdev == null.st_rdev, "a call on a descriptor closed or reused"
        call = Call(number, buffer, blocking)
        assert call.size == len(buffer), "the buffer is not of the encoded size"
        with self.changed:
            self.calls.append(call)
            if self.failures:
                error = self.failures.pop(0)
                raise OSError(error, os.strerror(error))
        return self._answers[call.nr](buffer)

    def last_calls(self) -> list[int]:
        """The numbers of the calls made since this was last asked."""
        numbers = [call.nr for call in self.calls]
        self.calls.clear()
        return numbers

    def until_waiting(self, threads: int) -> None:
        """Return once so many threads sleep in WAIT."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.waiting == threads, 10)

    def put(self, records: bytes) -> None:
        """Let records be delivered as they are: one event."""
        self.records.append(records)
        self._wake()

    def _wake(self) -> None:
        with self.changed:
            for sleeper in self._sleepers:
                os.eventfd_write(sleeper, 1)

    def _interrupt(self) -> None:
        if self.interruptions:
            self.interruptions.pop(0)()
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))

    def _info(self, buffer: bytearray) -> int:
        answer = [self.version, self.features, 0, 16384, self.max_queue, 5000, 128]
        answer += [len(self.kevents), len(self.ready()), len(self.kevents)]
        buffer[:] = abi.INFO_ANSWER.pack(*answer, *[0] * 8)
        self._interrupt()
        return 0

    def _apply(self, op: int, fields: tuple[int, ...]) -> int:
        kevent = Kevent(fields)
        name = (kevent.type, kevent.ident)
        if op == Op.REMOVE:
            assert not kevent.flags & ~Flags.STALE
            assert not kevent.events
            if kevent.flags & Flags.STALE:
                return errno.ENOENT
            return 0 if self.kevents.pop(name, None) else errno.ENOENT
        if kevent.type not in set(EventType):
            return errno.ENXIO
        if not TYPE_FEATURES[EventType(kevent.type)] & self.features:
            return errno.EOPNOTSUPP
        if kevent.type in DESCRIPTORS:
            try:
                select.epoll(1).register(kevent.ident)
            except OSError as error:
                return error.errno or errno.EIO
        if op == Op.ADD and name in self.kevents:
            return errno.EEXIST
        if op == Op.MODIFY and name not in self.kevents:
            return errno.ENOENT
        if op == Op.ADD and len(self.kevents) >= self.max_queue:
            return errno.ENOSPC
        self.kevents[name] = kevent
        self._wake()
        return 0

    def _requests(self, op: int, buffer: bytearray, start: int, count: int) -> int:
        done = 0
        for index in range(count):
            at = start + index * abi.REQUEST.size
            fields = list(abi.REQUEST.unpack_from(buffer, at))
            error = self._apply(op or fields[3], tuple(fields))
            fields[6] = -error
            if fields[2] == EventType.NAIO and (op or fields[3]) == Op.REMOVE and not error:
                fields[7:9] = self.moved
            abi.REQUEST.pack_into(buffer, at, *fields)
            done += not error
        return done

    def _batch(self, op: int, buffer: bytearray) -> int:
        self._interrupt()
        count, flags, reserved = abi.BATCH.unpack_from(buffer)
        assert flags == reserved == 0
        return self._requests(op, buffer, abi.BATCH.size, count)

    def _post(self, buffer: bytearray) -> int:
        done = 0
        for at in range(abi.BATCH.size, len(buffer), abi.POSTING.size):
            ident, data, flags, _ = abi.POSTING.unpack_from(buffer, at)
            kevent = self.kevents.get((EventType.USER, ident))
            if kevent is not None:
                kevent.posts += 1
                kevent.data = data
            result = -errno.ENOENT if kevent is None else 0
            abi.POSTING.pack_into(buffer, at, ident, data, flags, result)
            done += kevent is not None
        self._wake()
        return done

    def _add_path(self, buffer: bytearray) -> int:
        fields = list(abi.REQUEST.unpack_from(buffer))
        path = bytes(buffer[abi.REQUEST.size :])
        assert path.endswith(b"\0")
        if os.path.exists(path[:-1]):
            self.paths[fields[0]] = path[:-1]
        else:
            fields[6] = -errno.ENOENT
            abi.REQUEST.pack_into(buffer, 0, *fields)
        return int(not fields[6])

    def ready(self) -> list[bytes]:
        """The records of every event that is ready, in one bytes for each event."""
        events = list(self.records)
        for kevent in tuple(self.kevents.values()):
            found, data, count = 0, kevent.data, kevent.posts
            if kevent.type == EventType.USER and count:
                found = 1
            elif kevent.type in DESCRIPTORS:
                poll = select.poll()
                poll.register(kevent.ident, kevent.events & 0x3FFF)
                found, data, count = sum(mask for _, mask in poll.poll(0)), 0, 1
            if found:
                fields = (kevent.cookie, kevent.ident, data, count, found, kevent.type, 0)
                events.append(abi.EVENT.pack(*fields))
        return events

    def _wait_for(self, minimum: int, deadline: int) -> None:
        """Sleep until so many events are ready or the time is over."""
        sleeper = os.eventfd(0, os.EFD_CLOEXEC)
        with self.changed:
            self._sleepers.append(sleeper)
            self.waiting += 1
            self.changed.notify_all()
        try:
            while len(self.ready()) < minimum:
                poll = select.poll()
                poll.register(sleeper, select.POLLIN)
                for kevent in tuple(self.kevents.values()):
                    if kevent.type in DESCRIPTORS:
                        poll.register(kevent.ident, kevent.events & 0x3FFF)
                left = None
                if deadline != abi.WAIT_FOREVER:
                    left = max(deadline - time.monotonic_ns(), 0) / 1e6
                if not poll.poll(left):
                    break
        finally:
            with self.changed:
                self.waiting -= 1
                self._sleepers.remove(sleeper)
                os.close(sleeper)

    def _change_wait(self, buffer: bytearray) -> int:
        header = list(abi.WAIT_HEADER.unpack_from(buffer))
        changes, _, minimum, room, timeout, clock, flags, *out = header
        if minimum > room:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if timeout not in (0, abi.WAIT_FOREVER):
            assert flags == WaitFlags.ABSTIME
            assert clock == time.CLOCK_MONOTONIC
        assert out == [0, 0, 0], "a field that the device writes was not 0"
        header[1] = self._requests(0, buffer, abi.WAIT_HEADER.size, changes)
        abi.WAIT_HEADER.pack_into(buffer, 0, *header)
        self._interrupt()
        if header[1] < changes:
            timeout = 0
        if minimum and timeout:
            self._wait_for(minimum, timeout)
        start = abi.WAIT_HEADER.size + changes * abi.REQUEST.size
        taken = self._take(room)
        data = b"".join(taken)
        buffer[start : start + len(data)] = data
        header[7] = len(data) // abi.EVENT.size
        header[8] = len(self.ready())
        abi.WAIT_HEADER.pack_into(buffer, 0, *header)
        return len(taken)

    def _take(self, room: int) -> list[bytes]:
        taken: list[bytes] = []
        for event in self.ready():
            room -= len(event) // abi.EVENT.size
            if room < 0:
                break
            taken.append(event)
        if not taken and room < 0 and self.ready() and len(self.ready()[0]) > abi.EVENT.size:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        for event in taken:
            if event in self.records:
                self.records.remove(event)
            _, ident, _, _, _, kind, _ = abi.EVENT.unpack_from(event)
            if (kind, ident) in self.kevents:
                # Delivered: a user event is used up, a level one goes to the end of the list.
                kevent = self.kevents.pop((kind, ident))
                kevent.posts = 0
                self.kevents[kind, ident] = kevent
        return taken
