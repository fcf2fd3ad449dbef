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

    def notice_close(self, told: bool = False) -> bool:
        """Report the close of the file once it is done."""
        if not self.gone():
            return False
        self.user.closed(self, False)
        return True

    def look_for_close(self, look: bool) -> None:
        """Have the file looked at now and then, for nothing tells of its close; or not."""
        user = self.user
        if look:
            user.reporters[self] = None
            (user.system.nested if self in user.nested else user.system.looker).kick()
        else:
            user.reporters.pop(self, None)

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
        system = self.user.system
        if self.kind == KEVENT:
            self._enqueue_queue(request, borrowed)
            return
        if self.kind & PINNED and system.is_fuse(borrowed):
            raise RefusedError(errno.EOPNOTSUPP)
        if self.kind == ANON and self.nested:
            self.user.nested[self] = None
            self.inside = system.queues_inside(borrowed)
            for queue in self.inside:
                self._hang_on(queue)
            self.check_loop()
        self._register(request, borrowed)
        if self.kind & PINNED:
            self._hold(request, borrowed)
        elif self.kind != SOCKET:
            # The contract lets a socket be counted for a while after its close.
            self.user.silent[self] = None
        if self.kind == ANON and borrowed.anonymous == "[signalfd]":
            self.signals = Signals(borrowed)
            self.user.looked_at[self] = None
            system.looker.kick()
        if request.flags & NOTIFY_BROKEN:
            system.closes.watch(self, borrowed)

    def _hold(self, request: Request, borrowed: Borrowed) -> None:
        """Keep a file of a kind open that the module keeps open, too."""
        if request.flags & NOTIFY_BROKEN:
            raise RefusedError(errno.EOPNOTSUPP)
        self.user.system.descriptors.check()
        pin = os.dup(borrowed.fd)
        try:
            self.user.account.charge_pin(borrowed.process.pid)
        except BaseException:
            os.close(pin)
            raise
        self._pin = pin

    def _register(self, request: Request, borrowed: Borrowed) -> None:
        """Register the file as the request wants it; where that is refused nothing is changed."""
        user = self.user
        mask = self.wanted(request.events) | _ALWAYS
        self._early, self._registering = False, True
        try:
            fresh = self._registry.register(
                borrowed, mask, bool(request.flags & EDGE), self._active
            )
            with user.lock:
                lives = user.modify_locked(self, request)
                old: Registration | None = fresh
                if lives:
                    # Nobody who asks meets one that has ended.
                    old, self._registration = self._registration, fresh
                    self.mask = mask
            if old is not None:
                old.end(self.borrow_again)
            if not lives:
                raise RefusedError(errno.ENOENT)
            # What is ready now takes its place now, behind all that was ready before.
            user.system.drain(self._registry.pool)
        finally:
            # What it called for meanwhile.
            with user.lock:
                self._registering = False
                wake = self._early and user.ready_locked(self)
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
        if request.flags & NOTIFY_BROKEN and self._pin >= 0:
            raise RefusedError(errno.EOPNOTSUPP)
        if self.inner is not None:
            self._modify_queue(request)
            return
        self._register(request, borrowed)
        system.closes.unwatch(self)
        if request.flags & NOTIFY_BROKEN:
            system.closes.watch(self, borrowed)
        if self.signals is not None:
            self.signals.seen = 0

    def look(self, pending: dict[int, int]) -> None:
        """Look whether a signal came since the last time; @pending as `Signals.pending` says."""
        signals = self.signals
        if signals is not None and signals.news(pending):
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
        self.user.silent.pop(self, None)
        self.user.nested.pop(self, None)
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
            return _IN & self.mask if signals.pending({}) else 0
        while (registration := self._registration) is not None:
            found = registration.bits()
            if registration is self._registration:
                return found & self.mask
        return 0

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

    def _enqueue_queue(self, request: Request, borrowed: Borrowed) -> None:
        inner = self.user.system.queue_of(borrowed)
        if inner is None or inner is self.user:
            raise RefusedError(errno.ELOOP if inner is not None else errno.EPERM)
        self.inner = inner
        self.mask = self.wanted(request.events) | _ALWAYS
        self.user.silent[self] = None
        self._hang_on(inner)
        self.check_loop()
        if inner.has_ready(1) and self.mask & _IN:
            self.user.activity(self)

    def _modify_queue(self, request: Request) -> None:
        with self.user.lock:
            if not self.user.modify_locked(self, request):
                raise RefusedError(errno.ENOENT)
            self.mask = self.wanted(request.events) | _ALWAYS
        if not request.flags & DISABLED and self.poll(None):
            self.user.activity(self)

    def _hang_on(self, queue: User) -> None:
        queue.outer[self] = None
        if queue.released.is_set():
            queue.outer.pop(self, None)  # it has forgotten all others already

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

    def pending(self, known: dict[int, int]) -> int:
        """Those that wait, for the process or any of its threads; @known has those of processes."""
        pid = self._process.pid
        if pid not in known:
            known[pid] = _pending(pid)
        return known[pid] & self._mask

    def news(self, known: dict[int, int]) -> bool:
        """Whether one came that was not there before."""
        before, self.seen = self.seen, self.pending(known)
        return bool(self.seen & ~before)


def _pending(pid: int) -> int:
    """The signals that wait for a process, or any of its threads."""
    found = 0
    task = f"/proc/{pid}/task"
    try:
        for thread in os.listdir(task):
            with open(f"{task}/{thread}/status") as file:
                for line in file:
                    if line.startswith(("SigPnd:", "ShdPnd:")):
                        found |= int(line.split()[1], 16)
    except OSError:
        return 0
    return found
