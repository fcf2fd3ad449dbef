# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue: one open kevent device."""

import contextlib
import errno
import functools
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pykevent import abi, autostart, calls
from pykevent.abi import (
    EventType,
    Feature,
    FileKind,
    Flags,
    InodeEvents,
    NaioEvents,
    Op,
    PollEvents,
    SocketEvents,
)
from pykevent.errors import (
    SIMULATOR_DIED,
    ChangesAppliedError,
    ended_error,
    open_error,
    request_error,
    room_error,
)
from pykevent.events import Event, parse_records
from pykevent.handle import Handle
from pykevent.mounts import is_simulated
from pykevent.opening import open_device
from pykevent.requests import (
    BytesLike,
    Change,
    FileLike,
    Request,
    check_range,
    descriptor_of,
    encoded,
    receive_flags,
    receive_length,
    removal,
    sendfile_argument,
)
from pykevent.timeouts import Deadline, make_deadline, no_wait
from pykevent.transfers import Exported, Transfer, Transfers

# Looked up and made once.
_RESULT, _IDENT = struct.Struct("=i"), struct.Struct("=Q")
_ADD_ONE, _MODIFY_ONE, _REMOVE_ONE = abi.ADD(1), abi.MODIFY(1), abi.REMOVE(1)
_POST_ONE = abi.POST(1)
_OPS = {_ADD_ONE: Op.ADD, _MODIFY_ONE: Op.MODIFY, _REMOVE_ONE: Op.REMOVE}
_ONE = abi.BATCH.pack(1, 0, 0)
_SOCKET, _NAIO, _USER = EventType.SOCKET, EventType.NAIO, EventType.USER
_RECV, _SEND, _SENDFILE = map(int, (NaioEvents.RECV, NaioEvents.SEND, NaioEvents.SENDFILE))
_wait_number = functools.cache(abi.WAIT)
_REQUEST_RESULT: int = abi.kevent_request.result.offset
_POST_RESULT: int = abi.kevent_post.result.offset
_MEANT_OTHERWISE = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ELOOP)
_HEADER_SIZE, _EVENT_SIZE = abi.WAIT_HEADER.size, abi.EVENT.size
_MAX_CHANGES = (abi.MAX_SIZE - abi.WAIT_HEADER.size) // abi.REQUEST.size


@dataclass(frozen=True, slots=True)
class Info:
    """What a device says of itself and of one queue, see ``struct kevent_info``.

    `pinned` are the kinds of file which a kevent keeps open on this kernel.  `max_queue` and
    `max_user` bound the kevents of a queue and of a user, `max_inode` those of a user on one inode,
    `max_name_queue` the inode events that one kevent may have waiting.  `kevents` and `ready` count
    those in this queue, `user_kevents` those in all queues of this queue's owner.
    """

    version: int
    features: Feature
    pinned: FileKind
    max_name_queue: int
    max_queue: int
    max_user: int
    max_inode: int
    kevents: int
    ready: int
    user_kevents: int


class Queue:
    """A queue of events: everything that one open kevent device holds.

    Any number of threads may use one at a time; adding and removing never wait for a thread that
    waits.  The descriptor is not inherited by programs that are executed, and can itself be
    polled.  A forked child sees the queue closed; to use it there, duplicate the descriptor
    before, and make a queue of the duplicate after the fork, with `fromfd`.

    Every method raises ValueError once the queue is closed, and OSError with the device's errno
    where it refuses.
    """

    def __init__(
        self, device: str | os.PathLike[str] | None = None, *, nonblocking: bool = False
    ) -> None:
        """Open `device`; by default what KEVENT_DEVICE names in the environment, or /dev/kevent.

        Where neither is there, a simulator is started for this process and those that it starts,
        see `pykevent.autostart`; the logger `pykevent` says so.  `nonblocking` makes a read(2) of
        the descriptor fail where it would wait; it does not concern `wait`.  Raises
        FileNotFoundError, PermissionError or another OSError with a sentence about what to do.
        """
        mode = os.O_RDWR | os.O_CLOEXEC | (os.O_NONBLOCK if nonblocking else 0)
        fd, name = open_device(device, mode)
        self._handle = Handle(fd)
        self._transfers = Transfers()
        self._simulated: bool | None = None
        try:
            info = self.info()
        except OSError as error:
            self.close()
            raise open_error(error.errno or errno.EIO, name) from None
        version = info.version
        self._simulated = Feature.SIM in info.features
        if self._simulated:
            autostart.let_look(name)
        if version != abi.ABI_VERSION:
            self.close()
            message = f"the device speaks version {version} of the ABI, this package"
            raise OSError(errno.EPROTO, f"{message} version {abi.ABI_VERSION}", name)

    @classmethod
    def fromfd(cls, fd: int) -> Self:
        """A queue of a descriptor that is open already.

        It is not duplicated: closing the queue closes it.  ValueError for a negative one.  A
        transfer's handle learns from the queue object that made it: an event that another object of
        the same queue takes does not reach it.

        Where a simulator serves it, and Yama has processes allow that (ptrace_scope 1), this lets
        the simulator look at this process's descriptors.  A forked child has to allow it anew, for
        which it is enough to call this, or `open`, there.
        """
        queue = cls.__new__(cls)
        queue._handle = Handle(descriptor_of(fd))
        queue._transfers = Transfers()
        queue._simulated = None
        if autostart.yama_asks():
            with contextlib.suppress(OSError):
                device = os.readlink(f"/proc/self/fd/{queue.fileno()}")
                if is_simulated(device):
                    autostart.let_look(device)
        return queue

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd={self.fileno()}"
        return f"<{type(self).__name__} {state}>"

    def __enter__(self) -> Self:
        self.fileno()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the queue is closed: by close(), or because this process is a fork."""
        return self._handle.closed

    def fileno(self) -> int:
        """The descriptor, readable for poll(2) when an event is ready."""
        return self._handle.fileno()

    def close(self) -> None:
        """Close the queue; more than once does no harm.

        A thread that waits in it is woken, and gets ValueError, or the events which it had
        already.  The descriptor itself is closed as soon as no call is in progress.  Where the
        device has no room for one more kevent a waiting thread cannot be woken: a RuntimeWarning
        says so, and its wait goes on until it ends by itself.  Transfers of this queue object are
        cancelled.
        """
        with self._transfers.lock:
            try:
                if not self._handle.closed:
                    self._cancel_all()
            finally:
                self._handle.close()

    def __del__(self) -> None:
        # Others may hold the same queue, for whom the kernel would go on to move bytes.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            if self._transfers.pending() and not self._handle.closed:
                self._cancel_all()

    # Changing what is watched

    def add(self, request: Request) -> None:
        """Watch one more source; ioctl ADD.

        A source that is ready already is reported by the next wait.  Raises FileExistsError where
        (type, identity) is in the queue; OSError with EBADF for a closed descriptor, EPERM for a
        file that cannot be polled, ENOTSOCK, ELOOP for a cycle of queues, ENOSPC past a limit,
        ENXIO for a type that the device does not know, EOPNOTSUPP for one it was built without,
        EINVAL for flags or events that the type does not take.
        """
        self._one(_ADD_ONE, request)

    def add_many(self, requests: Iterable[Request]) -> list[int]:
        """Add each, in as few ioctls as hold them; returns 0 or -errno for each."""
        return self._many(abi.ADD, requests)

    def add_path(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        events: InodeEvents | int,
        ident: int,
        flags: Flags | int = 0,
        cookie: int = 0,
        *,
        limit: int = 0,
    ) -> None:
        """Watch a file or directory by path, under a number of the caller's; ioctl ADD_PATH.

        Needs read permission.  `limit` is how many events may wait before some are dropped and
        OVERFLOW is reported, 0 for the device's default.  `Flags.NOFOLLOW` does not follow a last
        symbolic link.  To end it: ``remove(EventType.PATH, ident)``.  Raises what open(2) does
        for the path, besides what `add` does.
        """
        name = os.fsencode(path)
        if b"\0" in name:
            raise ValueError("embedded null byte")
        request = Request(EventType.PATH, ident, events, flags, cookie, (limit,))
        buffer = bytearray(request.encode() + name + b"\0")
        if len(buffer) > abi.MAX_SIZE:
            self.fileno()
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        self._call(abi.ADD_PATH(len(name) + 1), buffer)
        (result,) = _RESULT.unpack_from(buffer, _REQUEST_RESULT)
        if result:
            error = self._refused(-result, EventType.PATH, ident=ident)
            raise OSError(error.errno, error.strerror, path)

    def modify(self, request: Request) -> None:
        """Replace events, flags, cookie and params of a kevent, and arm it; ioctl MODIFY.

        Raises FileNotFoundError where it is not in the queue, otherwise as `add`.
        """
        self._one(_MODIFY_ONE, request)

    def modify_many(self, requests: Iterable[Request]) -> list[int]:
        """Modify each; returns 0 or -errno for each."""
        return self._many(abi.MODIFY, requests)

    def remove(self, kind: EventType | int, ident: FileLike, *, stale: bool = False) -> None:
        """Stop watching; ioctl REMOVE.  No wait that starts after it delivers that kevent.

        `stale` removes instead all kevents that were added under this number of descriptor and
        whose file it does not refer to any more, though another process holds it.  A transfer is
        cancelled.  Raises FileNotFoundError where there is none, OSError with EBADF for a closed
        descriptor.
        """
        answer = self._one(_REMOVE_ONE, removal(kind, ident, stale=stale))
        self._removed(0, answer, abi.BATCH.size, 1)

    def remove_many(
        self, requests: Iterable[Request | tuple[EventType | int, FileLike]]
    ) -> list[int]:
        """Remove each, given as a request or as (type, identity); returns 0 or -errno for each."""
        return self._many(
            abi.REMOVE,
            (
                removal(*request)
                if isinstance(request, tuple)
                else removal(request.type, request.ident, stale=bool(request.flags & Flags.STALE))
                for request in requests
            ),
        )

    def register(
        self, fileobj: FileLike, events: int, cookie: int = 0, flags: Flags | int = 0
    ) -> None:
        """Watch a descriptor as SOCKET if it is one, else as POLL, in the bits of ``<poll.h>``.

        As in poll(2) POLLIN also means a connection to accept, unless `events` are `SocketEvents`
        and so say it themselves.  Raises as `add`.
        """
        kind = _kind_of(fileobj)
        if kind is _SOCKET and not isinstance(events, SocketEvents):
            events = SocketEvents(events)
            if events & PollEvents.IN:
                events |= SocketEvents.ACCEPT
        self.add(Request(kind, fileobj, events, flags, cookie))

    def unregister(self, fileobj: FileLike) -> None:
        """Stop watching a descriptor that was given to `register`.  Raises as `remove`.

        Transfers go on: it is `Transfer.cancel` that ends one.
        """
        self.remove(_kind_of(fileobj), fileobj)

    # User events

    def post(self, ident: int, data: int = 0) -> None:
        """Make a user event ready, with 64 bits of data; ioctl POST.

        Posts that were not delivered yet become one event: `count` says how many, and the last
        `data` stands.  Raises FileNotFoundError where no such kevent is in the queue.
        """
        self._single(_POST_ONE, _posting(ident, data), _POST_RESULT, _USER)

    def post_many(self, postings: Iterable[tuple[int, int]]) -> list[int]:
        """Post each (ident, data); returns 0 or -errno for each."""
        entries = [_posting(ident, data) for ident, data in postings]
        return self._batch(abi.POST, entries, abi.MAX_POSTS, _POST_RESULT)

    # Transfers

    def recv(
        self, fileobj: FileLike, length: int, *, waitall: bool = False, cookie: int = 0
    ) -> Transfer:
        """As `recv_into` with a buffer of its own; `Transfer.received` is what came.

        Raises TypeError where `length` is no int, and ValueError unless it is from 1 to 0x7ffff000.
        """
        if type(length) is not int or not 0 < length <= abi.NAIO_MAX:
            length = receive_length(length)
        return self.recv_into(fileobj, bytearray(length), waitall=waitall, cookie=cookie)

    def recv_into(
        self,
        fileobj: FileLike,
        buffer: Any,
        *,
        waitall: bool = False,
        multishot: bool = False,
        dispatch: bool = False,
        cookie: int = 0,
    ) -> Transfer:
        """Have the kernel receive from a socket into a buffer; ioctl ADD.

        The event tells how many bytes, 0 at the end of the stream: any number, or with `waitall`
        as many as the buffer holds unless the stream ends before.  Of a datagram what does not fit
        is lost, and said to be; who has sent it is not told, and descriptors in a UNIX message are
        closed.  Transfers of one socket end in the order they were asked for.

        `multishot`: again and again.  Each wait that returns an event of it has put what the event
        tells of into the buffer, at its beginning; `done` is true after the last one, which is that
        of the end of the stream, of an error or of the close (0 bytes alone may be a datagram that
        is empty).  The next wait of any thread
        overwrites the buffer: send a copy of it (``bytes(buffer[:moved])``, or `received`), or use
        `dispatch`, with which there is none after an event until `Transfer.resume`, and resume
        once the send is done.  With several threads take the number of bytes from the event, not
        from the handle.

        The timeout of a socket object does not count: wait with one, and `Transfer.cancel`; what
        had come by then, `moved` bytes, is in the buffer.

        The buffer cannot be resized or freed until then.  Raises BufferError where it cannot be
        written to; ValueError where it is empty or longer than 0x7ffff000 bytes, for `multishot`
        with `waitall`, and for `dispatch` without `multishot`; otherwise as `send`.
        """
        flags = receive_flags(waitall=waitall, multishot=multishot, dispatch=dispatch)
        exported = Exported(buffer, writable=True)
        return self._transfer(_RECV, fileobj, exported, flags, cookie)

    def send(self, fileobj: FileLike, data: Any, *, cookie: int = 0) -> Transfer:
        """Have the kernel send all of `data`, any bytes-like object, by a socket; ioctl ADD.

        The event comes when the socket has taken every byte, which is not to say that the peer
        has.  A close of the socket before that cancels it.  A UDP socket has to be connected.
        Do not change `data` before the event: what was not sent until then would go out changed.

        Raises TypeError where `data` has no bytes, or `fileobj` no descriptor, or is an SSLSocket
        (its encryption would be left out); BufferError where `data` is not contiguous; ValueError
        for more than 0x7ffff000 bytes, and for a socket object that was closed; OSError with
        EOPNOTSUPP for a kind of socket that is not supported, ENOMEM past RLIMIT_MEMLOCK,
        otherwise as `add`.  Where the socket has taken some at once, and the rest is more than
        RLIMIT_MEMLOCK leaves, it is the event that says ENOMEM, and how much was sent (`moved`).
        """
        memory = data if type(data) is bytes else Exported(data, writable=False)
        return self._transfer(_SEND, fileobj, memory, 0, cookie)

    def sendfile(
        self,
        fileobj: FileLike,
        file: FileLike,
        offset: int = 0,
        length: int | None = None,
        *,
        prefix: BytesLike = b"",
        suffix: BytesLike = b"",
        cookie: int = 0,
    ) -> Transfer:
        """Have the kernel send `length` bytes of a file by a socket, from `offset` on; ioctl ADD.

        None sends all up to the end of the file.  The bytes of `prefix` go before those of the
        file, those of `suffix` after them.  A file that ends before `length` bytes ends the
        transfer, without the suffix; `moved`, which counts all that was sent, says so.  Neither
        position nor descriptor of the file is needed any more when this returns.  ``flush()`` a
        file object that was written to: what it holds back is not in the file.

        Raises TypeError for a path, and a file object without a descriptor; ValueError where prefix
        and suffix are more than 16384 bytes together; OSError with EBADF for a file that is not
        open for reading, EINVAL for one that is not regular, EMFILE where too many are being sent;
        otherwise as `send`.
        """
        argument = sendfile_argument(file, offset, length, prefix, suffix)
        return self._transfer(_SENDFILE, fileobj, argument, 0, cookie)

    # Waiting

    def wait(
        self,
        timeout: float | None = None,
        *,
        timeout_ns: int | None = None,
        deadline_ns: int | None = None,
        clock: int = time.CLOCK_MONOTONIC,
        min: int = 1,
        max: int = 256,
    ) -> list[Event]:
        """Wait until `min` events are ready, and return what is ready; ioctl WAIT.

        `timeout` in seconds, `timeout_ns` in ns: None waits for ever, 0 and less not at all;
        fractions of a ns are rounded up.  `deadline_ns` is a point in time of `clock` instead.
        When the time is over the list holds what there is, perhaps nothing.  A signal runs its
        handler, and if that returns the wait goes on for the rest of the time.

        `max`, at most 510, is room in records of 32 bytes: an event takes one, an inode event
        with a name up to 9.  What does not fit stays in the queue; OSError with EMSGSIZE where
        not even the first event fits.  OSError with EINVAL where `min` is more than `max`.
        """
        deadline = make_deadline(timeout, timeout_ns, deadline_ns, clock)
        _check_room(min, max)
        return self._wait(deadline, min, max)

    def change_and_wait(
        self,
        changes: Iterable[Change],
        timeout: float | None = None,
        *,
        timeout_ns: int | None = None,
        deadline_ns: int | None = None,
        clock: int = time.CLOCK_MONOTONIC,
        min: int = 1,
        max: int = 256,
    ) -> tuple[list[int], list[Event]]:
        """Apply changes in order, then `wait`; ioctl CHANGE_WAIT, one call where all fits in it.

        Returns 0 or -errno for each change, and the events.  If a change failed it does not wait.
        A transfer is a change as `naio_event` makes it; it has no handle then.

            changes = [Change(Op.ADD, user_event(1)), Change(Op.REMOVE, user_event(2))]
            results, events = queue.change_and_wait(changes, timeout=1)

        With ``min=0, max=0`` only the changes are made.  Raises as `wait` does;
        `ChangesAppliedError` where the changes were made and the events did not fit.
        """
        entries = [encoded(change, Change) for change in changes]
        deadline = make_deadline(timeout, timeout_ns, deadline_ns, clock)
        _check_room(min, max)
        results: list[int] = []
        fit = (abi.MAX_SIZE - abi.WAIT_HEADER.size - max * abi.EVENT.size) // abi.REQUEST.size
        try:
            while len(entries) > fit:
                self._change_wait(entries[:_MAX_CHANGES], results, no_wait(), 0, 0)
                del entries[:_MAX_CHANGES]
            if any(results):
                deadline = no_wait()
            if not entries:
                return results, self._wait(deadline, min, max)
            return results, self._change_wait(entries, results, deadline, min, max)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            raise ChangesAppliedError(errno.EMSGSIZE, error.strerror or "", results) from None

    def info(self) -> Info:
        """What the device is and how full the queue is; ioctl INFO."""
        buffer = bytearray(abi.INFO_ANSWER.size)
        self._call(abi.INFO, buffer)
        version, features, pinned, *rest = abi.INFO_ANSWER.unpack(buffer)
        return Info(version, Feature(features), FileKind(pinned), *rest[:7])

    # Inside

    def _transfer(
        self, kind: int, fileobj: FileLike, memory: Exported | bytes, flags: int, cookie: int
    ) -> Transfer:
        transfer = Transfer(self, kind, fileobj, memory, flags, cookie)
        self._transfers.add(transfer, self._submit)
        return transfer

    def _submit(self, transfer: Transfer) -> None:
        self._single(_ADD_ONE, transfer._encode(), _REQUEST_RESULT, _NAIO, transfer.kind)

    def _resume(self, transfer: Transfer) -> None:
        if transfer.done:
            raise ended_error()
        try:
            self._single(_MODIFY_ONE, transfer._encode(), _REQUEST_RESULT, _NAIO, transfer.kind)
        except FileNotFoundError:
            raise ended_error() from None

    def _cancel(self, transfer: Transfer) -> bool:
        """Remove a transfer; False where its event was delivered, or another thread has it."""
        if transfer.done:
            return False
        try:
            self.remove(EventType.NAIO, transfer.ident)
        except FileNotFoundError:
            return False
        return True

    def _cancel_all(self) -> None:
        pending = self._transfers.pending()
        try:
            self._many(abi.REMOVE, (removal(EventType.NAIO, each.ident) for each in pending))
        except OSError as error:
            # With a simulator its transfers have died.
            if error.errno not in SIMULATOR_DIED:
                raise
        for each in pending:
            # No event of what is left will be looked at, and the kernel is done with it.
            self._transfers.removed(each.ident, 0, errno.ECANCELED)

    def _removed(self, op: int, buffer: bytearray, first: int, number: int) -> None:
        """Tell transfers of this queue object what the answers to their removal say."""
        if self._transfers.empty:
            return
        for at in range(first, first + number * abi.REQUEST.size, abi.REQUEST.size):
            ident, _, kind, was, _, _, result, moved, error, _ = abi.REQUEST.unpack_from(buffer, at)
            if (kind, was, result) == (EventType.NAIO, op, 0):
                self._transfers.removed(ident, moved, error)

    def _call(self, number: int, buffer: bytearray) -> int:
        """A call that does not wait.  Interrupted, it has done nothing and is made again."""
        handle = self._handle
        while True:
            fd = handle.enter()
            try:
                return calls.ioctl(fd, number, buffer, blocking=False)
            except InterruptedError:
                continue
            finally:
                handle.leave()

    def _batch(
        self, number: Callable[[int], int], entries: list[bytes], most: int, result_at: int
    ) -> list[int]:
        """Send entries, `most` in a call; returns the result that stands in each of them."""
        self.fileno()
        results: list[int] = []
        for start in range(0, len(entries), most):
            part = entries[start : start + most]
            buffer = bytearray(abi.BATCH.pack(len(part), 0, 0) + b"".join(part))
            self._call(number(len(part)), buffer)
            if number is abi.REMOVE:
                self._removed(0, buffer, abi.BATCH.size, len(part))
            results += _results(buffer, abi.BATCH.size + result_at, len(part[0]), len(part))
        return results

    def _many(self, number: Callable[[int], int], requests: Iterable[Request]) -> list[int]:
        # All are encoded before the first is sent: a bad one raises with nothing done.
        entries = [encoded(request, Request) for request in requests]
        return self._batch(number, entries, abi.MAX_REQUESTS, _REQUEST_RESULT)

    def _one(self, number: int, request: Request) -> bytearray:
        entry = encoded(request, Request)
        return self._single(number, entry, _REQUEST_RESULT, request.type, request.events)

    def _single(
        self, number: int, entry: bytes, result_at: int, kind: int, events: int = 0
    ) -> bytearray:
        """Send one entry; returns it as it was answered, and raises where it was refused."""
        buffer = bytearray(_ONE + entry)
        if self._call(number, buffer) != 1:
            (result,) = _RESULT.unpack_from(buffer, abi.BATCH.size + result_at)
            if result:
                # A posting has its ident in the same place, and neither flags nor events.
                (ident,) = _IDENT.unpack_from(entry)
                flags = 0 if number == _POST_ONE else abi.REQUEST.unpack(entry)[4]
                op, stale = _OPS.get(number), bool(flags & Flags.STALE)
                raise self._refused(-result, kind, events=events, op=op, ident=ident, stale=stale)
        return buffer

    def _refused(
        self,
        error: int,
        kind: int,
        *,
        events: int = 0,
        op: Op | None = Op.ADD,
        ident: int | None = None,
        stale: bool = False,
    ) -> OSError:
        """The error of a request, as this device means it."""
        left_out = False
        unsupported = error == errno.EOPNOTSUPP and kind == _NAIO
        if unsupported or (self._simulated is None and error in _MEANT_OTHERWISE):
            with contextlib.suppress(OSError, ValueError):
                features = self.info().features
                self._simulated = Feature.SIM in features
                left_out = Feature.NAIO not in features
        return request_error(
            error,
            kind,
            events=events,
            op=op,
            ident=ident,
            stale=stale,
            left_out=left_out,
            simulated=bool(self._simulated),
        )

    def _wait(self, deadline: Deadline, minimum: int, room: int) -> list[Event]:
        while True:
            buffer = bytearray(_HEADER_SIZE + room * _EVENT_SIZE)
            _fill_header(buffer, deadline, minimum, room, 0)
            try:
                return self._deliver(_wait_number(room), buffer, 0, deadline, minimum)
            except InterruptedError:
                # The handler has run and has not raised (PEP 475).  The deadline is a point in
                # time, so the same call waits for what is left of it.
                continue

    def _change_wait(
        self,
        entries: list[bytes],
        results: list[int],
        deadline: Deadline,
        minimum: int,
        room: int,
    ) -> list[Event]:
        """One CHANGE_WAIT; extends `results` also where OSError says EINTR or EMSGSIZE."""
        changes = b"".join(entries)
        buffer = bytearray(_HEADER_SIZE + len(changes) + room * _EVENT_SIZE)
        _fill_header(buffer, deadline, minimum, room, len(entries))
        buffer[_HEADER_SIZE : _HEADER_SIZE + len(changes)] = changes
        number = abi.CHANGE_WAIT(len(entries), room)
        at = _HEADER_SIZE + _REQUEST_RESULT
        try:
            events = self._deliver(number, buffer, len(entries), deadline, minimum)
        except OSError as error:
            if error.errno not in (errno.EINTR, errno.EMSGSIZE):
                raise
            made = _results(buffer, at, abi.REQUEST.size, len(entries))
            results += made
            if error.errno == errno.EMSGSIZE:
                raise
            # The changes were made before the signal came: what is left to do is to wait.
            return self._wait(no_wait() if any(made) else deadline, minimum, room)
        results += _results(buffer, at, abi.REQUEST.size, len(entries))
        return events

    def _deliver(
        self, number: int, buffer: bytearray, changes: int, deadline: Deadline, minimum: int
    ) -> list[Event]:
        waits_for = minimum if deadline.timeout else 0
        handle = self._handle
        fd = handle.enter(waits_for)
        try:
            calls.ioctl(fd, number, buffer, blocking=waits_for > 0)
        except OSError as error:
            room: int = abi.WAIT_HEADER.unpack_from(buffer)[3]
            if error.errno == errno.EINVAL and minimum > room:
                raise room_error(minimum, room) from None
            raise
        finally:
            handle.leave(waits_for)
            # Also where the wait has failed; a call that did nothing says so by `changed`.
            if changes and abi.WAIT_HEADER.unpack_from(buffer)[1]:
                self._removed(Op.REMOVE, buffer, _HEADER_SIZE, changes)
        records: int = abi.WAIT_HEADER.unpack_from(buffer)[7]
        start = _HEADER_SIZE + changes * abi.REQUEST.size
        events = parse_records(memoryview(buffer)[start : start + records * _EVENT_SIZE])
        self._transfers.delivered(events)
        return handle.delivered(events)


def open(device: str | os.PathLike[str] | None = None, *, nonblocking: bool = False) -> Queue:
    """Open a queue: of `device`, of what KEVENT_DEVICE names in the environment, or of /dev/kevent.

    Where none is named and there is no /dev/kevent, a simulator is started for this process and
    those that it starts later on; it ends a second after its last queue was closed, and the logger
    `pykevent` says that it was started.  PYKEVENT_SIMULATOR=off in the environment forbids it;
    while one runs that variable says where.

    Raises FileNotFoundError where there is no device and a simulator cannot be started,
    PermissionError, or another OSError, with a sentence about what to do.  See `Queue` for more.
    """
    return Queue(device, nonblocking=nonblocking)


def _kind_of(fileobj: FileLike) -> EventType:
    mode = os.fstat(descriptor_of(fileobj)).st_mode
    return EventType.SOCKET if stat.S_ISSOCK(mode) else EventType.POLL


def _posting(ident: int, data: int) -> bytes:
    try:
        return abi.POSTING.pack(ident, data, 0, 0)
    except struct.error:
        check_range(ident, 64, "ident")
        check_range(data, 64, "data")
        raise


def _check_room(minimum: int, room: int) -> None:
    if type(minimum) is int and type(room) is int and 0 <= minimum <= room <= abi.MAX_RECORDS:
        return
    check_range(minimum, 32, "min")
    if not 0 <= room <= abi.MAX_RECORDS:
        raise ValueError(f"max must be from 0 to {abi.MAX_RECORDS} records, not {room}")


def _fill_header(
    buffer: bytearray, deadline: Deadline, minimum: int, room: int, changes: int
) -> None:
    timeout, clock, flags = deadline.timeout, deadline.clock, deadline.flags
    abi.WAIT_HEADER.pack_into(buffer, 0, changes, 0, minimum, room, timeout, clock, flags, 0, 0, 0)


def _results(buffer: bytearray, first: int, step: int, number: int) -> list[int]:
    return [_RESULT.unpack_from(buffer, first + step * index)[0] for index in range(number)]
