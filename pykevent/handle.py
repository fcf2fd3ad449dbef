# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a queue's descriptor: threads that use it, close(), fork.

Two things must not happen when a thread closes a queue in which another one waits.  The number
must not be reused while that thread may still call ioctl on it (it does so again after a signal):
so calls are counted, and the last one out closes the descriptor.  And the thread must not sleep
on: close(2) does not end an ioctl in progress, the kernel holds the file until it returns.  So
close() adds a kevent that is ready and stays ready, and every waiter finds it.

That kevent watches, in level mode, a socket whose peer is closed.  Being level it is never used
up: one waiter takes it, passes the wake-up on, and the next one finds it again, even one that had
not begun to wait.  (A posted user event goes to one waiter only, perhaps one of another process.)
It is added by close() and not before, so nobody ever sees it in info() or in a limit; a waiter
that wants `min` events needs as many of them.  Waiting in poll(2) with a second descriptor would
also do, but wakes every thread for each event and knows nothing of `min`.
"""

import contextlib
import errno
import os
import socket
import threading
import warnings
import weakref

from pykevent import abi, calls
from pykevent.abi import EventType, SocketEvents
from pykevent.errors import SIMULATOR_DIED, closed_error, request_error
from pykevent.events import Event
from pykevent.requests import Request, removal


class _Waker:
    """Kevents that are always ready, in a queue that is being closed."""

    def __init__(self, fd: int, number: int) -> None:
        """Add `number` of them; raises OSError, and leaves none, where not even one went in."""
        # Nobody else's cookie, not even that of a process with which the queue is shared.
        self.cookie = int.from_bytes(os.urandom(8), "little")
        self._requests: list[Request] = []
        self._sockets: list[socket.socket] = []
        try:
            peer, mine = socket.socketpair()
            peer.close()
            self._sockets.append(mine)
            self._add(fd, mine)
            for _ in range(number - 1):
                self._sockets.append(mine.dup())
                self._add(fd, self._sockets[-1])
        except OSError:
            # Some are better than none: most waiters want one event only.
            if not self._requests:
                self.release(fd)
                raise

    def _add(self, fd: int, watched: socket.socket) -> None:
        error = 0
        # Either type does, the bits are the same; a module can be built without one of them.
        for kind in (EventType.SOCKET, EventType.POLL):
            request = Request(kind, watched.fileno(), SocketEvents.RECV, 0, self.cookie)
            error = _change(fd, abi.ADD(1), request)
            if not error:
                self._requests.append(request)
                return
            if error not in (errno.EOPNOTSUPP, errno.ENXIO):
                break
        raise request_error(error, EventType.POLL)

    def release(self, fd: int) -> None:
        """Take the kevents out again: others may hold the same queue."""
        for request in self._requests:
            with contextlib.suppress(OSError):
                _change(fd, abi.REMOVE(1), removal(request.type, request.ident))
        self.release_sockets()

    def release_sockets(self) -> None:
        """Close the sockets and leave the queue alone, as a forked child must."""
        for watched in self._sockets:
            watched.close()


def _change(fd: int, number: int, request: Request) -> int:
    """Add or remove one request; returns 0 or an errno."""
    buffer = bytearray(abi.BATCH.pack(1, 0, 0) + request.encode())
    calls.ioctl(fd, number, buffer, blocking=False)
    result: int = abi.REQUEST.unpack_from(buffer, abi.BATCH.size)[6]
    return -result


class Handle:
    """A descriptor of the device, shared by the threads that call it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._closed = False
        # For each call in progress how many events it waits for.  Each thread adds to this list and
        # takes from it at one stroke, so calls need no lock, which only closing is done under.
        self._calls: list[int] = []
        self._waker: _Waker | None = None
        # Reentrant: a signal handler may close the queue in the middle of anything here.
        self._lock = threading.RLock()
        _handles.add(self)

    @property
    def closed(self) -> bool:
        """Whether close() was called, or the process is a fork of the one that opened it."""
        return self._closed

    def fileno(self) -> int:
        """The descriptor; ValueError once closed."""
        if self._closed:
            raise closed_error()
        return self._fd

    def enter(self, minimum: int = 0) -> int:
        """Begin a call: the descriptor stays open until leave().  ValueError once closed.

        A call that may wait says for how many events, and tells leave() the same.
        """
        self._calls.append(minimum)
        # Counted first, then looked: a close() before this line is seen by it, one after it finds
        # the call counted.
        if not self._closed:
            return self._fd
        self.leave(minimum)
        raise closed_error()

    def leave(self, minimum: int = 0) -> None:
        """End a call."""
        self._calls.remove(minimum)
        if self._closed and not self._calls:
            with self._lock:
                self._release()

    def close(self) -> None:
        """Close the descriptor, now or when the last call in progress ends, and hurry those up."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            # Calls may end meanwhile, and then wait for the lock to look after the descriptor.
            most = max(self._calls, default=None)
            if most is None:
                self._release()
            elif most:
                self._wake(most)

    def _wake(self, most: int) -> None:
        try:
            self._waker = _Waker(self._fd, most)
        except OSError as error:
            # The queue is full, no descriptor is left, or the device has neither type.
            message = f"threads that wait in the closed queue cannot be woken: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._waker is not None:
            self._waker.release(fd)
        try:
            os.close(fd)
        except OSError as error:
            # What a simulator that has died says; closed it is.
            if error.errno not in SIMULATOR_DIED:
                raise

    def delivered(self, events: list[Event]) -> list[Event]:
        """What a wait hands to its caller: without what close() added to wake it.

        Events that came by the same delivery are not lost.  Raises ValueError where the queue was
        closed meanwhile and there are none.
        """
        if not self._closed:
            return events
        with self._lock:  # Until it is over: it may be adding what woke us.
            waker = self._waker
        if waker is not None:
            events = [event for event in events if event.cookie != waker.cookie]
        if not events:
            raise closed_error()
        return events

    def forked(self) -> None:
        """In a forked child: give up the child's copy, without a word to the device.

        The queue is the parent's; threads, their calls and the lock they may hold are not here.
        """
        self._lock = threading.RLock()
        self._closed = True
        fd, self._fd = self._fd, -1
        if self._waker is not None:
            self._waker.release_sockets()
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __del__(self) -> None:
        # Nobody refers to it, so no call is in progress, whatever the count says that an
        # exception in the wrong moment has left behind.
        self._closed = True
        with contextlib.suppress(OSError):
            self._release()


_handles: "weakref.WeakSet[Handle]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for handle in list(_handles):
        handle.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
