# SPDX-License-Identifier: GPL-2.0-or-later
"""Telling a thread that waits on behalf of a client that the client was sent a signal.

libfuse calls back as soon as the kernel tells it.  No thread looks again and again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pykevent.sim.kevent import RefusedError, Waiter

_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)

MAX_BLOCKED = 1024
"""Calls of one user that may wait at once: each has a thread of libfuse's."""
MAX_ALL = 4 * MAX_BLOCKED
"""And of all users."""
MAX_CALLS = 2 * MAX_BLOCKED
"""Calls of one user that may be under way, also those that others keep waiting."""


class Interrupts:
    """The calls that wait."""

    def __init__(self, libfuse: ctypes.CDLL | Any) -> None:
        self._register = libfuse.fuse_req_interrupt_func
        self._register.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self._register.restype = None
        self._waiters: dict[int, Waiter] = {}
        self._users: Counter[int] = Counter()
        self._calls: dict[int, int] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._stopped = False
        self._callback = _Callback(self._interrupted)  # to be kept as long as it may be called
        self._address = ctypes.cast(self._callback, ctypes.c_void_p)

    def _interrupted(self, request: int | None, number: int | None) -> None:
        waiter = self._waiters.get(number or 0)
        if waiter is not None:
            waiter.interrupted = True
            waiter.wake()

    @contextlib.contextmanager
    def told(self, request: int, waiter: Waiter, uid: int) -> Iterator[None]:
        """Meanwhile a signal wakes the waiter.  ENOMEM where too many wait already."""
        number = next(self._numbers)
        with self._lock:
            if self._users[uid] >= MAX_BLOCKED or len(self._waiters) >= MAX_ALL:
                raise RefusedError(errno.ENOMEM)
            self._users[uid] += 1
            self._waiters[number] = waiter
            if self._stopped:
                waiter.interrupted = True
        self._register(request, self._address, number)
        try:
            yield
        finally:
            self._register(request, None, None)
            with self._lock:
                del self._waiters[number]
                self._users[uid] -= 1
                if not self._users[uid]:
                    del self._users[uid]

    def begin(self, uid: int) -> bool:
        """A call is under way until `end`, unless too many are already."""
        with self._lock:
            calls = self._calls.get(uid, 0)
            if calls < MAX_CALLS:
                self._calls[uid] = calls + 1
            return calls < MAX_CALLS

    def end(self, uid: int) -> None:
        """It is not any more."""
        with self._lock:
            left = self._calls[uid] - 1
            if left:
                self._calls[uid] = left
            else:
                del self._calls[uid]

    def stop(self) -> None:
        """Wake all, now and from now on: the simulator ends."""
        with self._lock:
            self._stopped = True
            for waiter in list(self._waiters.values()):
                waiter.interrupted = True
                waiter.wake()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiters)
