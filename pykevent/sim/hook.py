# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching a client's file without holding it, for the sources that watch files by polling them.

`registration` says how.  Another queue of this simulator is watched directly, not through the
kernel, which would come back to us in the middle of things.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING

from pykevent.sim.client import ANON, KEVENT, OTHER, SOCKET, Borrowed, Process
from pykevent.sim.kevent import (
    DISABLED,
    EDGE,
    NOTIFY_BROKEN,
    Event,
    Kevent,
    RefusedError,
    Request,
    Target,
)
from pykevent.sim.registration import Registration, Registry

if TYPE_CHECKING:
    from pykevent.sim.queue import User

MAX_DEPTH = 5
"""How deep a queue of queues is looked into."""
MAX_WATCHERS = 1000
"""How many may watch a queue that watches another, directly or through others."""

PINNED = OTHER
"""The kinds of file that a kevent keeps open: devices and the rest, as on the module."""

_ALWAYS = select.EPOLLERR | select.EPOLLHUP
_IN = select.EPOLLIN | select.EPOLLRDNORM


class FileKevent(Kevent):
    """A kevent of a file that can be polled."""

    __slots__ = (
        "_early",
        "_pin",
        "_registering",
        "_registration",
        "close_watch",
        "inner",
        "inside",
        "kind",
        "mask",
        "nested",
        "process",
        "signals",
        "silent",
    )

    descriptor = True
    condition = True

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self._registration: Registration | None = None
        self._registering = self._early = False
        self._pin = -1
        self.close_watch = -1
        self.kind = 0
        self.mask = 0
        self.nested = False
        self.process: Process | None = None
        self.silent = False
        self.signals: Signals | None = None
        """Of a signalfd, which the kernel shows to its own process only."""
        self.inner: User | None = None
        """The queue of ours that is watched."""
        self.inside: tuple[User, ...] = ()
        """Queues of ours in the epoll that is watched, as far as that was seen."""

    def wanted(self, events: int) -> int:
        """The bits of poll(2) to be woken for."""
        return events

    # Which file it is

    def is_target(self, target: Target) -> bool:
        """Whether the request's descriptor is the open file that is watched."""
        borrowed = target.borrowed
        if borrowed is None:
            return False
        if self.inner is not None or borrowed.kind == KEVENT:
            return self.inner is not None and self.inner is self.user.system.queue_of(borrowed)
        registration = self._registration
        return registration is not None and registration.same(os.getpid(), borrowed.fd) is True

    def gone(self) -> bool:
        """Whether the file was closed, everywhere."""
        if self.inner is not None:
            return self.user.system.releases.released(self.inner)
        registration = self._registration
        return registration is None or registration.gone()

    def notice_close(self) -> bool:
        """Report the close of the file once it is done."""
        if not self.gone():
            return False
        self.user.closed(self, False)
        return True

    def borrow_again(self) -> Borrowed | None:
        """The file, if it is still behind the number that it was added under."""
        registration, process = self._registration, self.process
        if registration is None or process is None:
            return None
        try:
            if not process.alive() or not registration.same(process.pid, self.ident):
                return None
            borrowed = self.user.system.clients.borrow(process, self.ident)
        except (OSError, RefusedError):
            return None
        if registration.same(os.getpid(), borrowed.fd):
            return borrowed
        borrowed.close()
        return None

    # Coming and going

    def enqueue(self, request: Request, target: Target) -> None:
        """Watch the file."""
        borrowed = target.borrowed
        assert borrowed is not None
        self.process = borrowed.process
        self.kind = borrowed.kind
        self.nested = borrowed.nested
        self.mask = self.wanted(request.events) | _ALWAYS
        system = self.user.system
        if self.kind == KEVENT:
            self._enqueue_queue(borrowed)
            return
        if self.kind & PINNED and system.is_fuse(borrowed):
            raise RefusedError(errno.EOPNOTSUPP)
        if self.kind == ANON and self.nested:
            self.inside = system.queues_inside(borrowed)
            for queue in self.inside:
                queue.outer[self] = None
            self.check_loop()
        self._register(borrowed, bool(request.flags & EDGE))
        if self.kind & PINNED:
            self._hold(request, borrowed)
        elif self.kind != SOCKET:
            self._is_silent()
        if self.kind == ANON and borrowed.anonymous == "[signalfd]":
            self.signals = Signals(borrowed)
            self.user.looked_at[self] = None
            system.leaves.kick()
        if request.flags & NOTIFY_BROKEN:
            system.closes.watch(self, borrowed)

    def _is_silent(self) -> None:
        """It must not be counted any more after its close, which the contract lets a socket be."""
        self.silent = True
        self.user.silent += 1

    def _hold(self, request: Request, borrowed: Borrowed) -> None:
        """Keep a file of a kind open that the module keeps open, too."""
        if request.flags & NOTIFY_BROKEN:
            raise RefusedError(errno.EOPNOTSUPP)
        self.user.account.charge_pin(borrowed.process.pid)
        self._pin = os.dup(borrowed.fd)

    def _register(self, borrowed: Borrowed, edges: bool) -> None:
        user = self.user
        self._early, self._registering = False, True
        fresh = None
        try:
            fresh = self._registry.register(borrowed, self.mask, edges, self._active)
            if self._registration is not None:
                self._registration.end(self.borrow_again)
            self._registration = fresh
            # What is ready now takes its place now, behind all that was ready before.
            self._registry.pool.drain()
        finally:
            # What it called for before it could be asked.
            with user.lock:
                self._registering = False
                wake = self._early and fresh is not None and user.ready_locked(self)
        if wake:
            user.poked()

    @property
    def _registry(self) -> Registry:
        system = self.user.system
        return system.queue_files if self.nested and self.kind == ANON else system.files

    def _active(self) -> None:
        user = self.user
        with user.lock:
            if self._registering:
                self._early = True
                return
            wake = user.ready_locked(self)
        if wake:
            user.poked()

    def modify(self, request: Request, target: Target) -> None:
        """Watch for something else."""
        borrowed = target.borrowed
        assert borrowed is not None
        system = self.user.system
        mask = self.wanted(request.events) | _ALWAYS
        if request.flags & NOTIFY_BROKEN and self._pin >= 0:
            raise RefusedError(errno.EOPNOTSUPP)
        with self.user.lock:
            if not self.user.modify_locked(self, request):
                raise RefusedError(errno.ENOENT)
            self.mask = mask
        if self.inner is None:
            self._register(borrowed, bool(request.flags & EDGE))
            system.closes.unwatch(self)
            if request.flags & NOTIFY_BROKEN:
                system.closes.watch(self, borrowed)
        if self.signals is not None:
            self.signals.seen = 0
        if self.inner is not None and not request.flags & DISABLED and self.poll(None):
            self.user.activity(self)

    def look(self) -> None:
        """Look whether a signal came since the last time."""
        signals = self.signals
        if signals is not None and signals.news():
            self.user.activity(self)

    def dequeue(self) -> None:
        """Watch it no more."""
        self.user.looked_at.pop(self, None)
        for queue in self.inside if self.inner is None else (self.inner,):
            queue.outer.pop(self, None)
        self.user.system.closes.unwatch(self)
        if self._registration is not None:
            self._registration.end(self.borrow_again)
            self._registration = None
        if self.silent:
            self.silent = False
            self.user.silent -= 1
        self.process = self.signals = None
        if self._pin >= 0:
            os.close(self._pin)
            self._pin = -1
            self.user.account.uncharge_pin()

    # What holds

    def bits(self) -> int:
        """Those bits of poll(2) that were asked for and hold now."""
        if self.inner is not None:
            return _IN & self.mask if self.inner.has_ready(1) else 0
        signals = self.signals
        if signals is not None:
            return _IN & self.mask if signals.pending() else 0
        registration = self._registration
        return registration.bits() & self.mask if registration is not None else 0

    def poll(self, event: Event | None) -> int:
        """What holds now."""
        if self.inner is not None and self.user.system.releases.released(self.inner):
            return 0
        return self.bits()

    def poll_as_polled(self, depth: int) -> bool:
        """Other queues of events might lead back to who asks: their last word stands."""
        if not self.nested:
            return bool(self.poll(None))
        if self.inner is None or depth >= MAX_DEPTH:
            return True
        if self.user.system.releases.released(self.inner):
            return False
        return self.inner.has_ready(depth + 1)

    # Queues of queues

    def _enqueue_queue(self, borrowed: Borrowed) -> None:
        inner = self.user.system.queue_of(borrowed)
        if inner is None or inner is self.user:
            raise RefusedError(errno.ELOOP if inner is not None else errno.EPERM)
        self.inner = inner
        self._is_silent()
        inner.outer[self] = None
        self.check_loop()
        if inner.has_ready(1) and self.mask & _IN:
            self.user.activity(self)

    def check_loop(self) -> None:
        """ELOOP where a wake-up of our queue's pollers comes back to it, or reaches too many."""
        reached = {self.user: None}
        queues = [self.user]
        called = 0
        while queues:
            for watcher in list(queues.pop().outer):
                queue = watcher.user
                called += 1
                if queue is self.user or called > MAX_WATCHERS:
                    raise RefusedError(errno.ELOOP)
                if queue not in reached:
                    reached[queue] = None
                    queues.append(queue)


class Signals:
    """The signals that a signalfd would give to the process that it is of."""

    def __init__(self, borrowed: Borrowed) -> None:
        self._process = borrowed.process
        self.seen = 0
        """Those that were pending when it was last looked."""
        self._mask = 0
        with open(f"/proc/self/fdinfo/{borrowed.fd}") as file:
            for line in file:
                if line.startswith("sigmask:"):
                    self._mask = int(line.split()[1], 16)

    def pending(self) -> int:
        """Those that wait, for the process or any of its threads."""
        found = 0
        task = f"/proc/{self._process.pid}/task"
        try:
            for thread in os.listdir(task):
                with open(f"{task}/{thread}/status") as file:
                    for line in file:
                        if line.startswith(("SigPnd:", "ShdPnd:")):
                            found |= int(line.split()[1], 16)
        except OSError:
            return 0
        return found & self._mask

    def news(self) -> bool:
        """Whether one came that was not there before."""
        before, self.seen = self.seen, self.pending()
        return bool(self.seen & ~before)
