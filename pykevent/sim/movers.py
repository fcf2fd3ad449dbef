# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that move what transfers move, some for each user.

A client's memory may be slow to come, and a close may linger: whoever sees to that keeps none but
their own transfers waiting.  A thread that has nothing to do for a while ends.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable

from pykevent.sim.hub import guarded

MOST = 8
"""Threads of one user."""
_IDLE = 1.0
"""Seconds until one ends."""


class Movers:
    """Those of one user."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: OrderedDict[int, Callable[[], None]] = OrderedDict()
        self._numbers = itertools.count()
        self._threads = self._idle = 0

    def start(self, call: Callable[[], None]) -> int:
        """Have a call made, soon, by a thread that is none of the caller's; returns its number."""
        with self._changed:
            number = next(self._numbers)
            self._calls[number] = call
            if self._idle >= len(self._calls) or self._threads == MOST:
                self._changed.notify()
                return number
            try:
                threading.Thread(target=self._run, name="mover", daemon=True).start()
            except RuntimeError:
                if not self._threads:
                    del self._calls[number]
                    raise
            else:
                self._threads += 1
            return number

    def cancel(self, number: int) -> bool:
        """Do without a call that no thread had time for; whether it was such a one."""
        with self._changed:
            return self._calls.pop(number, None) is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._calls, _IDLE)
                self._idle -= 1
                if not self._calls:
                    self._threads -= 1
                    return
                _, call = self._calls.popitem(last=False)
            guarded(call)
            del call
