# SPDX-License-Identifier: GPL-2.0-or-later
"""Transfers that the kernel completes by itself, and the memory that they need meanwhile.

A buffer that a transfer was given stays exported, so that it can neither be resized nor freed,
until its event has arrived, its cancelling has returned, or the queue is closed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pykevent.abi import NAIO_MAX, REQUEST, EventFlags, EventType, NaioEvents
from pykevent.errors import transfer_error
from pykevent.events import Event
from pykevent.requests import FileLike, check_length, naio_event, socket_of, view_of

if TYPE_CHECKING:
    from pykevent.queue import Queue


class _Buffer(ctypes.Structure):
    """Python's Py_buffer."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_obtain = ctypes.pythonapi.PyObject_GetBuffer
_obtain.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_obtain.restype = ctypes.c_int
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.POINTER(_Buffer),)
_release.restype = None

# Where in an object of bytes they begin; one more, a NUL, follows them, and is in the size.
_BYTES_AT = bytes.__basicsize__ - 1

# As plain values, for there is one look at each for every event.
_NAIO = EventType.NAIO
_RECV = int(NaioEvents.RECV)
_LAST, _BROKEN = int(EventFlags.LAST), int(EventFlags.BROKEN)
_TRUNCATED = int(EventFlags.TRUNCATED)
_and = int.__and__

_SIMPLE = 0
_WRITABLE = 1


class Exported:
    """The memory of an object, which stays where it is until release().

    What keeps it there is a memoryview, which ends without a line of Python: a Ctrl-C that came
    in the middle of a finalizer would be lost.
    """

    __slots__ = ("_view", "address", "length", "source")

    def __init__(self, source: Any, *, writable: bool) -> None:
        """BufferError where it is not contiguous, or read-only; TypeError if it has no memory."""
        self.source = source
        self._view = (
            view_of(source, "buffer", ": recv() takes a length")
            if writable
            else view_of(source, "data")
        )
        buffer = _Buffer()
        try:
            _obtain(source, ctypes.byref(buffer), _WRITABLE if writable else _SIMPLE)
        except BufferError:
            if writable and self._view.readonly:
                kind = type(source).__name__
                raise BufferError(f"this {kind} is read-only: use a bytearray") from None
            raise
        self.address: int = buffer.buf or 0
        self.length: int = buffer.len
        _release(ctypes.byref(buffer))

    def release(self) -> None:
        """Let go of it; more than once does no harm."""
        self._view.release()


class Transfer:
    """One transfer of a queue: from `Queue.recv`, `recv_into`, `send` or `sendfile`.

    Its end is an event of the queue of type NAIO, with this `ident`, which has the cookie and all
    that is to be known; once a wait of this queue object has returned that, it is known here too:
    `moved`, how many bytes; `error`, an errno or 0; `truncated`, whether a datagram was longer than
    the buffer; `broken`, whether the socket was closed; and `received`, a copy of what came.  A
    multishot has many events, and here stands what the latest one said.

    A transfer that is under way holds the socket object, which thus is not closed by being dropped.
    """

    __slots__ = (
        "__weakref__",
        "_cookie",
        "_done",
        "_fileobj",
        "_flags",
        "_memory",
        "_queue",
        "_told",
        "broken",
        "error",
        "ident",
        "kind",
        "moved",
        "truncated",
    )

    def __init__(
        self,
        queue: Queue,
        kind: int,
        fileobj: FileLike,
        memory: Exported | bytes,
        flags: int,
        cookie: int,
    ) -> None:
        self.ident = 0
        """The number that its events have; 2**63 or more."""
        self.moved = 0
        """Bytes, once `done`; of a multishot those that the latest event, or cancel(), told of."""
        self.error = 0
        """An errno once `done`, or 0; ECANCELED if it was cancelled or the socket was closed."""
        self.truncated = False
        """Whether a datagram was longer than the buffer."""
        self.broken = False
        """Whether the socket was closed."""
        self._queue = queue
        self.kind = kind
        self._fileobj = fileobj
        self._memory = memory
        self._flags = flags
        self._cookie = cookie
        self._done = self._told = False

    def __repr__(self) -> str:
        state = f"moved={self.moved} error={self.error}" if self._done else "in progress"
        return f"<{type(self).__name__} {self.ident:#x} {state}>"

    @property
    def done(self) -> bool:
        """Whether it has ended, as far as this process has been told."""
        return self._done

    def cancel(self) -> bool:
        """End it, if it has not ended; ioctl REMOVE.

        True: the kernel does not touch the buffer any more, and the handle is `done`: `moved`
        bytes had been, of a multishot those that no event has told of, so take `received` before;
        `error` is ECANCELED unless it had ended before.  No event comes, unless another thread's
        wait was being handed it at this moment: then both say the same.  False: it had ended, as
        its event or an earlier cancel() has said; where another thread's wait has the event, the
        handle is `done` in a moment, unless that is a wait of another queue object
        (`Queue.fromfd`).
        """
        return self._queue._cancel(self)

    @property
    def received(self) -> bytes:
        """What came: a copy of the first `moved` bytes of the buffer.

        ValueError unless it is a receive that has ended, or a multishot that has had an event.
        """
        if self.kind != _RECV or not isinstance(self._memory, Exported):
            raise ValueError("this transfer does not receive")
        if not (self._done or self._told):
            raise ValueError("the transfer has not ended")
        return bytes(memoryview(self._memory.source).cast("B")[: self.moved])

    def resume(self) -> None:
        """Let a multishot with `dispatch` have its next event; ioctl MODIFY.

        Raises FileNotFoundError if it has ended, OSError with EOPNOTSUPP if it is no multishot.
        The socket object has to be open: ValueError where it was closed, though a duplicate keeps
        the transfer going; for a number OSError with EBADF, or EINVAL if it is another socket's.
        """
        self._queue._resume(self)

    def result(self) -> int:
        """The bytes moved.  OSError with its errno if it failed, ValueError if it has not ended."""
        if not self._done:
            raise ValueError("the transfer has not ended")
        if self.error:
            raise transfer_error(self.error, events=self.kind, broken=self.broken)
        return self.moved

    def _encode(self) -> bytes:
        """The 56 bytes of ``struct kevent_request``.

        Raises as encoding a `Request` does, and ValueError for a length that is refused.
        """
        memory = self._memory
        if isinstance(memory, bytes):
            # Never moved: that there is a reference is enough.
            address, length = id(memory) + _BYTES_AT, len(memory)
        else:
            address, length = memory.address, memory.length
        if not 0 < length <= NAIO_MAX:
            check_length(self.kind, length)
        fd = socket_of(self._fileobj)
        kind, flags = self.kind, self._flags
        try:
            return REQUEST.pack(
                self.ident, self._cookie, _NAIO, 0, flags, kind, 0, address, length, fd
            )
        except struct.error:
            # Which says what does not fit.
            return naio_event(self.ident, kind, fd, address, length, flags, self._cookie).encode()

    def _tell(self, event: Event, flags: int) -> None:
        """An event of it, with these flags, has arrived."""
        self.moved = event.data
        self.error = event.error
        self.truncated = flags & _TRUNCATED != 0
        self.broken = flags & _BROKEN != 0
        if flags & _LAST:
            self._done = True
            self._release()
        else:
            self._told = True

    def _settle(self, moved: int, error: int) -> None:
        """It has ended, without an event, and come to that."""
        self.moved, self.error = moved, error
        self.truncated = self.broken = False
        self._done = True
        self._release()

    def _release(self) -> None:
        """The buffer is its owner's again, and the socket is not needed any more."""
        self._fileobj = -1
        if isinstance(self._memory, Exported):
            self._memory.release()


class Transfers:
    """All transfers of one queue object that have not ended."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may do anything here, in the middle of anything.
        self.lock = threading.RLock()
        # Another queue object of the same device must not choose the same numbers.
        self._next = int.from_bytes(os.urandom(7), "little")
        self._all: dict[int, Transfer] = {}
        _everyone.add(self)

    def add(self, transfer: Transfer, submit: Callable[[Transfer], None]) -> None:
        """Have a transfer submitted under a number of its own."""
        with self.lock:
            while True:
                self._next = (self._next + 1) & (2**63 - 1)
                ident = transfer.ident = 2**63 + self._next
                self._all[ident] = transfer
                try:
                    submit(transfer)
                    return
                except FileExistsError:
                    del self._all[ident]
                except BaseException:
                    del self._all[ident]
                    transfer._release()
                    raise

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return not self._all

    def pending(self) -> list[Transfer]:
        """Those that have not ended."""
        with self.lock:
            return list(self._all.values())

    def removed(self, ident: int, moved: int, error: int) -> None:
        """One was removed from the queue, perhaps none of these; says how far it had come."""
        with self.lock:
            transfer = self._all.pop(ident, None)
            if transfer is not None:
                transfer._settle(moved, error)

    def delivered(self, events: Iterable[Event]) -> None:
        """Events have arrived, of transfers or not, perhaps of none of these."""
        if not self._all:
            return
        with self.lock:
            for event in events:
                if event.type is not _NAIO:
                    continue
                transfer = self._all.get(event.ident)
                if transfer is not None:
                    flags = _and(event.flags, -1)  # a plain number
                    if flags & _LAST:
                        del self._all[event.ident]
                    transfer._tell(event, flags)

    def forked(self) -> None:
        """In a forked child: they are the parent's."""
        self.lock = threading.RLock()
        for transfer in self._all.values():
            transfer._settle(0, errno.ECANCELED)
        self._all.clear()


_everyone: weakref.WeakSet[Transfers] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for transfers in list(_everyone):
        transfers.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
