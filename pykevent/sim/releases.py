# SPDX-License-Identifier: GPL-2.0-or-later
"""How many queues were closed for good, which FUSE tells a moment after the close.

An inotify instance tells of the last close of each open file of the device, before close(2)
returns.  Whoever has to know of all closes so far waits until as many queues were released.  The
directory is watched besides the device: two events in turn for each close, of which none is taken
for a repetition and left out.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from pykevent.sim import syscalls
from pykevent.sim.hub import Pool

if TYPE_CHECKING:
    from pykevent.sim.queue import User

_SETTLE = 0.25
"""Seconds that releases may take, on a machine that is busy."""


class Releases:
    """Closes that were told of, and releases."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._inotify = self._device = -1
        self._closes = self._done = 0
        self._changed = threading.Condition()

    def watch(self, device: str, folder: str) -> None:
        """Watch the device file, once it is served."""
        try:
            inotify = syscalls.inotify_init()
        except OSError:
            return  # all are taken: releases are known when they come
        try:
            self._device = syscalls.inotify_add_watch(inotify, device.encode(), syscalls.IN_CLOSE)
            syscalls.inotify_add_watch(inotify, folder.encode(), syscalls.IN_CLOSE)
        except OSError:
            os.close(inotify)
            return
        self._inotify = inotify
        self._pool.add(inotify, self._closed)

    def _closed(self) -> None:
        for events in syscalls.inotify_read(self._inotify):
            for watch, mask, _, _ in events:
                with self._changed:
                    if mask & syscalls.IN_Q_OVERFLOW:
                        self._closes = self._done
                    elif watch == self._device:
                        self._closes += 1

    def done(self) -> None:
        """A queue was released."""
        with self._changed:
            if self._inotify >= 0:
                self._done += 1
            self._changed.notify_all()

    def released(self, queue: User) -> bool:
        """Whether the queue was closed for good before this call."""
        if not queue.released.is_set():
            self.settle()
        return queue.released.is_set()

    def settle(self) -> None:
        """Have every queue released that was closed for good before this call."""
        with self._changed:
            closes = self._closes
            self._changed.wait_for(lambda: self._done >= closes, _SETTLE)
