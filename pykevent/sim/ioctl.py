# SPDX-License-Identifier: GPL-2.0-or-later
"""The ioctls: the form of a call is checked here, what requests mean is the queue's business."""

from __future__ import annotations

import errno
import struct

from pykevent import abi
from pykevent.abi import BATCH, POSTING, REQUEST, WAIT_FOREVER, WAIT_HEADER, WaitFlags
from pykevent.sim.clocks import MAX_TIME, point_in_time
from pykevent.sim.device import Call, Deadline, Room, deliver
from pykevent.sim.kevent import U32_MAX, RefusedError, Request
from pykevent.sim.queue import User

_RESULT = struct.Struct("=i")
_REQUEST_RESULT: int = abi.kevent_request.result.offset
_REQUEST_PARAM: int = abi.kevent_request.param.offset
_REPORT = struct.Struct("=QQ")
_POST_RESULT: int = abi.kevent_post.result.offset
_CHANGED_AT: int = abi.kevent_wait.changed.offset
_COUNTS_AT: int = abi.kevent_wait.records.offset
_COUNTS = struct.Struct("=II")
_CHANGED = struct.Struct("=I")
_ABSTIME = int(WaitFlags.ABSTIME)
_CANCELED = -errno.ECANCELED

_BOTH, _READ = 3, 2
PATH_MAX = 4096


def is_known(number: int) -> bool:
    """Whether it is one of ours; the size is that of the argument, whatever that may be."""
    nr = number & 0xFF
    direction = _READ if nr == abi.IOC_NR_INFO else _BOTH
    known = number >> 8 & 0xFF == abi.IOC_MAGIC and nr <= abi.IOC_NR_ADD_PATH
    sized = nr != abi.IOC_NR_INFO or number >> 16 & 0x3FFF == abi.INFO_ANSWER.size
    return known and sized and number >> 30 == direction


def ioctl(queue: User, number: int, data: bytearray, call: Call) -> int:
    """Do what an ioctl says; its answer is left in @data.  Returns the result or -errno."""
    nr = number & 0xFF
    if not is_known(number):
        return -errno.ENOTTY
    try:
        if nr == abi.IOC_NR_WAIT:
            return _wait(queue, data, call, False)
        if nr == abi.IOC_NR_CHANGE_WAIT:
            return _wait(queue, data, call, True)
        if nr in (abi.IOC_NR_ADD, abi.IOC_NR_MODIFY, abi.IOC_NR_REMOVE):
            # The numbers of the ioctls are those of the ops.
            return _change(queue, data, call, nr)
        if nr == abi.IOC_NR_POST:
            return _post(queue, data)
        if nr == abi.IOC_NR_ADD_PATH:
            return _path(queue, data, call)
        if nr == abi.IOC_NR_INFO:
            return _info(queue, data)
    except RefusedError as refused:
        return -refused.errno
    return -errno.ENOTTY


def _one(queue: User, op: int, request: Request, call: Call, report: list[int]) -> int:
    """Apply one request: 0 or -errno, and in @report what REMOVE has to say."""
    try:
        if op == abi.Op.ADD:
            queue.add(request, call.client)
        elif op == abi.Op.MODIFY:
            queue.modify(request, call.client)
        elif op == abi.Op.REMOVE:
            report += queue.remove(request, call.client)
        else:
            return -errno.EINVAL
    except RefusedError as refused:
        return -refused.errno
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


def _change_all(queue: User, op: int, data: bytearray, at: int, count: int, call: Call) -> int:
    """Apply requests, each of its own op where @op is 0; returns how many succeeded."""
    changed = 0
    for offset in range(at, at + count * REQUEST.size, REQUEST.size):
        request = Request.parse(data, offset)
        result = -errno.EINVAL
        report: list[int] = []
        if not op or not request.op:
            result = _one(queue, op or request.op, request, call, report)
        changed += not result
        _RESULT.pack_into(data, offset + _REQUEST_RESULT, result)
        if any(report):
            _REPORT.pack_into(data, offset + _REQUEST_PARAM, *report)
    return changed


def _count(data: bytearray, each: int) -> int:
    """How many entries a batch has."""
    if len(data) < BATCH.size:
        raise RefusedError(errno.EINVAL)
    count, flags, reserved = BATCH.unpack_from(data)
    if flags or reserved or count > (len(data) - BATCH.size) // each:
        raise RefusedError(errno.EINVAL)
    return int(count)


def _change(queue: User, data: bytearray, call: Call, op: int) -> int:
    count = _count(data, REQUEST.size)
    queue.system.sync(queue)
    return _change_all(queue, op, data, BATCH.size, count, call)


def _post(queue: User, data: bytearray) -> int:
    count = _count(data, POSTING.size)
    queue.system.sync(queue)
    posted = 0
    for offset in range(BATCH.size, BATCH.size + count * POSTING.size, POSTING.size):
        ident, value, flags, _ = POSTING.unpack_from(data, offset)
        result = -errno.EINVAL
        if not flags:
            try:
                queue.post(ident, value)
                result = 0
            except RefusedError as refused:
                result = -refused.errno
        posted += not result
        _RESULT.pack_into(data, offset + _POST_RESULT, result)
    return posted


def _deadline(timeout: int, clock: int, absolute: bool) -> Deadline:
    now = not timeout and not absolute
    forever = timeout == WAIT_FOREVER
    try:
        # The clock is checked also where it does not matter.
        expires, base = point_in_time(0 if forever else timeout, clock, absolute or forever or now)
    except ValueError:
        raise RefusedError(errno.EINVAL) from None
    return Deadline(MAX_TIME if forever else expires, base, now)


def _wait(queue: User, data: bytearray, call: Call, change: bool) -> int:
    if len(data) < WAIT_HEADER.size:
        return -errno.EINVAL
    (changes, _, minimum, maximum, timeout, clock, flags, _, _, reserved) = WAIT_HEADER.unpack_from(
        data
    )
    room_for = len(data) - WAIT_HEADER.size
    if (
        flags & ~_ABSTIME
        or reserved
        or minimum > maximum
        or (changes and not change)
        or changes * REQUEST.size + maximum * abi.EVENT.size > room_for
    ):
        return -errno.EINVAL
    deadline = _deadline(timeout, clock, bool(flags & _ABSTIME))
    _COUNTS.pack_into(data, _COUNTS_AT, 0, 0)
    if change:
        _CHANGED.pack_into(data, _CHANGED_AT, 0)
    queue.system.sync(queue)
    records_at = WAIT_HEADER.size + changes * REQUEST.size
    if changes:
        changed = _change_all(queue, 0, data, WAIT_HEADER.size, changes, call)
        _CHANGED.pack_into(data, _CHANGED_AT, changed)
        if changed < changes:
            deadline.now = True
        queue.system.sync(queue)
    room = Room(maximum)
    result, left = deliver(queue, room, minimum, deadline, call)
    data[records_at : records_at + len(room.records)] = room.records
    _COUNTS.pack_into(data, _COUNTS_AT, room.used, min(left, U32_MAX))
    return result


def _path(queue: User, data: bytearray, call: Call) -> int:
    if len(data) <= REQUEST.size:
        return -errno.EINVAL
    path, nul, _ = bytes(data[REQUEST.size :]).partition(b"\0")
    if not nul:
        return -errno.EINVAL
    request = Request.parse(data, 0)
    queue.system.sync(queue)
    try:
        if request.op:
            raise RefusedError(errno.EINVAL)
        if len(path) >= PATH_MAX:
            raise RefusedError(errno.ENAMETOOLONG)
        queue.add_path(request, path, call.client)
        result = 0
    except RefusedError as refused:
        result = -refused.errno
    except OSError as error:
        result = -(error.errno or errno.EIO)
    _RESULT.pack_into(data, _REQUEST_RESULT, result)
    return not result


def _info(queue: User, data: bytearray) -> int:
    queue.system.sync(queue)
    data[:] = queue.info()
    return 0
