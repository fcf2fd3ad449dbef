# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the simulator hears of everything: one epoll instance over all that can be active.

`Pool.drain` tells the sources of what has happened, in its order.  A thread of the hub does that
whenever something does; and every call does it before it looks at a queue, so that what happened
before a call is known to it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

_log = logging.getLogger("pykevent.sim")

_AT_ONCE = 256
_PAUSE = 0.1


def guarded(call: Callable[[], None]) -> None:
    """Make a call on nobody's behalf: if it fails, all that can be done is to say so."""
    try:
        call()
    except Exception:
        _log.exception("in the hub")


class Pool:
    """An epoll instance, what is to be called for its members, and a thread that waits for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        # For the thread alone: no member, or a call that drains would take it away.
        self._kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asked: deque[threading.Event] = deque()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.tick: Callable[[], float | None] = lambda: None
        """Called by the thread each time it wakes; says after how many seconds again at most."""

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Have @call made for each activity of @fd from now on, and for what holds now."""
        self._calls[fd] = call
        try:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        except BaseException:
            del self._calls[fd]
            raise
        self._start()

    def forget(self, fd: int) -> None:
        """No call for @fd any more, which is about to be closed."""
        self._calls.pop(fd, None)

    def drain(self) -> None:
        """Make the calls that are due: none hinders the others, or concerns who has them made."""
        with self._lock:
            # Each is told of once, however busy it is.
            for _ in range(len(self._calls) // _AT_ONCE + 1):
                events = self._epoll.poll(0, _AT_ONCE)
                for fd, _ in events:
                    call = self._calls.get(fd)
                    if call is not None:
                        guarded(call)
                if len(events) < _AT_ONCE:
                    return

    def ask(self, seconds: float) -> None:
        """Have the thread make the calls that are due, and wait so long for that at most."""
        done = threading.Event()
        self._asked.append(done)
        self.kick()
        done.wait(seconds)

    def kick(self) -> None:
        """Have the thread look after its ticks."""
        os.eventfd_write(self._kick, 1)
        self._start()

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._start_lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        asked: list[threading.Event] = []
        poller = select.poll()
        poller.register(self._epoll.fileno(), select.POLLIN)
        poller.register(self._kick, select.POLLIN)
        while True:
            try:
                seconds = self.tick()
                for done in asked:
                    done.set()
                asked = []
                ready = poller.poll(None if seconds is None else seconds * 1000)
                if any(fd == self._kick for fd, _ in ready):
                    os.eventfd_read(self._kick)
                asked = [self._asked.popleft() for _ in range(len(self._asked))]
                self.drain()
            except Exception:
                _log.exception("in the hub")
                time.sleep(_PAUSE)
