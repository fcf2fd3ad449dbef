# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a queue was closed for good, which FUSE tells a moment after the close.

A close of any descriptor is told before it is done (`flushed`), the last close of the open file
after it.  In between an inotify watch on the device tells that some file of it was closed for
good: then who has to know waits for those that it may have been.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pykevent.sim import syscalls
from pykevent.sim.hub import Pool

if TYPE_CHECKING:
    from pykevent.sim.account import Account
    from pykevent.sim.queue import User

_SETTLE = 0.25
"""Seconds that the release of a queue may take, on a machine that is busy."""


class Releases:
    """The queues of which a descriptor was closed, and that may be closed for good."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._inotify = -1
        self._flushed: dict[User, None] = {}
        """Of which a descriptor was closed."""
        self._closing: dict[User, None] = {}
        """Of which the last may have been closed."""

    def watch(self, device: str) -> None:
        """Watch the device file, once it is served."""
        try:
            inotify = syscalls.inotify_init()
        except OSError:
            return  # all are taken: each close may be the last
        syscalls.inotify_add_watch(inotify, device.encode(), syscalls.IN_CLOSE)
        self._inotify = inotify
        self._pool.add(inotify, self._closed)

    def _closed(self) -> None:
        for _ in syscalls.inotify_read(self._inotify):
            while self._flushed:
                self._closing[self._flushed.popitem()[0]] = None

    def flushed(self, queue: User) -> None:
        """A descriptor of the queue is being closed."""
        (self._closing if self._inotify < 0 else self._flushed)[queue] = None

    def forget(self, queue: User) -> None:
        """The queue is in use, or was released."""
        self._flushed.pop(queue, None)
        self._closing.pop(queue, None)

    def released(self, queue: User) -> bool:
        """Whether the queue was closed for good before this call."""
        if queue in self._closing:
            self._settle([queue])
        return queue.released.is_set()

    def settle(self, account: Account) -> None:
        """Have every queue of a user released that was closed for good before this call."""
        self._settle([queue for queue in list(self._closing) if queue.account is account])

    def _settle(self, queues: list[User]) -> None:
        end = time.monotonic() + _SETTLE
        for queue in queues:
            queue.released.wait(max(end - time.monotonic(), 0))
            self._closing.pop(queue, None)
