# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue: which kevents it holds, and how they come and go.

Locks, outermost first: `User.mutex`, one queue's changes; the lock of the hub or of a source; and
`ReadyList.lock`, the ready list and the state of kevents.  WAIT takes the last alone, and none at
all while it asks a source, so ADD, MODIFY, REMOVE and POST never wait behind it.

Every way out of a queue ends in `User._destroy`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pykevent import abi
from pykevent.abi import EventType
from pykevent.sim import sources
from pykevent.sim.account import Account
from pykevent.sim.client import Client
from pykevent.sim.hook import PINNED, FileKevent
from pykevent.sim.hub import guarded
from pykevent.sim.kevent import (
    AGAIN,
    BROKEN,
    DEAD,
    NEW,
    NOFOLLOW,
    REMOVED,
    STALE,
    Kevent,
    RefusedError,
    Request,
    Target,
)
from pykevent.sim.ready import ReadyList
from pykevent.sim.user import UserKevent

if TYPE_CHECKING:
    from pykevent.sim.lanes import Lane
    from pykevent.sim.system import System
    from pykevent.sim.watches import Watches

GHOST_SCAN = 16
"""How many neighbours of one number an ADD looks at for ghosts."""

_PATIENCE = 0.1
"""Seconds that a WAIT waits for what moves transfers."""

Key = tuple[int, int]


class User(ReadyList):
    """Everything that one open device holds."""

    def __init__(self, system: System, account: Account, watches: Watches) -> None:
        super().__init__()
        self.system = system
        self.account = account
        self.watches = watches
        self.mutex = threading.Lock()
        self.kevents: dict[Key, list[Kevent]] = {}
        self.count = 0
        self.reporters: dict[Kevent, None] = {}
        """Those whose close is to be reported and shows only to who looks."""
        self.looked_at: dict[FileKevent, None] = {}
        """Those whose activity shows only to who looks."""
        self.nested: dict[FileKevent, None] = {}
        """Those of files that may be queues of events."""
        self.outer: dict[FileKevent, None] = {}
        """Kevents of other queues that watch this one, directly or through an epoll."""
        self.lanes: Counter[Lane] = Counter()
        """Where its transfers wait, and how many."""
        self.released = threading.Event()

    def poked(self) -> None:
        """Those who poll the queue are to look again, other queues among them, and so on."""
        pending: list[User] = [self]
        while pending:
            queue = pending.pop()
            queue.tell()
            for watcher in list(queue.outer):
                if watcher.inner is queue:
                    with watcher.user.lock:
                        wake = watcher.user.ready_locked(watcher)
                    if wake:
                        pending.append(watcher.user)

    # What a request names

    def _target(
        self, kind: type[Kevent], ident: int, client: Client, optional: bool = False
    ) -> Target:
        target = Target(client)
        if kind.descriptor:
            try:
                target.borrowed = client.borrow(ident)
            except RefusedError:
                if not optional:
                    raise
        return target

    def _find(self, kind: type[Kevent], ident: int, target: Target) -> Kevent | None:
        ended = None
        for kevent in self.kevents.get((kind.type, ident), ()):
            if kevent.state & BROKEN:
                # One that only waits to report its end is not found by its descriptor.
                if not kind.descriptor and ended is None:
                    ended = kevent
            elif kevent.is_target(target):
                return kevent
        return ended

    # Coming and going

    def _insert(self, kevent: Kevent) -> None:
        self.kevents.setdefault((kevent.type, kevent.ident), []).append(kevent)

    def _erase(self, kevent: Kevent) -> None:
        key = (kevent.type, kevent.ident)
        others = self.kevents[key]
        others.remove(kevent)
        if not others:
            del self.kevents[key]

    def _destroy(self, kevent: Kevent) -> None:
        self._erase(kevent)
        with self.lock:
            if kevent.state & DEAD:
                self.dead.pop(kevent, None)
            else:
                self.forget_locked(kevent)
            kevent.state |= REMOVED
        self.reporters.pop(kevent, None)
        self.count -= 1
        self.account.uncharge()
        guarded(kevent.dequeue)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """The mutex, and nothing left to be reaped before or after."""
        try:
            with self.mutex:
                self.reap()
                yield
        finally:
            self.try_reap()

    def reap(self) -> None:
        """Remove the kevents that ended where the mutex was not at hand.  Under the mutex."""
        while self.dead:
            with self.lock:
                kevent = next(iter(self.dead), None)
            if kevent is None:
                return
            self._destroy(kevent)

    def try_reap(self) -> None:
        """The same where nobody has the mutex; whoever has it will reap."""
        if self.dead and self.mutex.acquire(blocking=False):
            try:
                self.reap()
            finally:
                self.mutex.release()

    def _reap_ghosts(self, kind: type[Kevent], ident: int) -> None:
        for kevent in self.kevents.get((kind.type, ident), [])[:GHOST_SCAN]:
            if kevent.gone() and not kevent.state & BROKEN:
                self._destroy(kevent)

    def _reap_all_ghosts(self) -> None:
        for kevents in list(self.kevents.values()):
            for kevent in list(kevents):
                if kevent.descriptor and not kevent.state & BROKEN and kevent.gone():
                    self._destroy(kevent)

    def _charge(self) -> None:
        try:
            self.account.charge(self.count)
        except RefusedError:
            self._reap_all_ghosts()
            self.system.releases.settle()
            self.account.charge(self.count)
        self.count += 1

    def release(self) -> None:
        """The last close of the device: nobody has the queue any more."""
        with self.mutex:
            for kevents in list(self.kevents.values()):
                for kevent in list(kevents):
                    self._destroy(kevent)
        self.released.set()
        for watcher in list(self.outer):
            if watcher.inner is self:
                watcher.user.closed(watcher, False)
        self.outer.clear()
        self.system.accounts.put(self.account)

    # Changes

    def add(self, request: Request, client: Client) -> None:
        """Add a kevent; RefusedError where it cannot be."""
        kind = sources.type_of(request.type)
        if kind.type == EventType.PATH:
            raise RefusedError(errno.EINVAL)
        kind.check_request(request)
        target = self._target(kind, request.ident, client)
        try:
            self._add(kind, request, target)
        finally:
            if target.borrowed is not None:
                target.borrowed.close()

    def add_path(self, request: Request, path: bytes, client: Client) -> None:
        """Add a kevent of the inode that a path leads to."""
        kind = sources.type_of(request.type)
        if kind.type != EventType.PATH:
            raise RefusedError(errno.EINVAL)
        kind.check_request(request)
        if not path:
            raise RefusedError(errno.ENOENT)
        try:
            fd = client.resolve(path, not request.flags & NOFOLLOW)
        except OSError as error:
            raise RefusedError(error.errno or errno.EIO) from None
        try:
            self._add(kind, request, Target(client, None, fd))
        finally:
            os.close(fd)

    def _add(self, kind: type[Kevent], request: Request, target: Target) -> None:
        kind.permit(target)
        kevent = kind.make(self, request)
        with self._changing():
            if kind.descriptor:
                self._reap_ghosts(kind, request.ident)
            found = self._find(kind, request.ident, target)
            if found is not None and not found.state & BROKEN:
                raise RefusedError(errno.EEXIST)
            self._charge()
            self._insert(kevent)
            try:
                kevent.enqueue(request, target)
            except BaseException:
                self._destroy(kevent)
                raise
            self._publish(kevent)

    def _publish(self, kevent: Kevent) -> None:
        """From here on a new kevent may be delivered."""
        with self.lock:
            kevent.state &= ~NEW
            wake = kevent.park(False)
            if kevent.state & AGAIN:
                kevent.state &= ~AGAIN
                wake |= self.ready_locked(kevent)
        if wake:
            self.poked()

    def modify(self, request: Request, client: Client) -> None:
        """Change what a kevent reports, and how."""
        kind = sources.type_of(request.type)
        kind.check_request(request)
        target = self._target(kind, request.ident, client)
        try:
            with self._changing():
                kevent = self._find(kind, request.ident, target)
                if kevent is None:
                    raise RefusedError(errno.ENOENT)
                kevent.modify(request, target)
        finally:
            if target.borrowed is not None:
                target.borrowed.close()

    def remove(self, request: Request, client: Client) -> tuple[int, int]:
        """Remove a kevent: no WAIT that starts later delivers it.  Returns how far it came."""
        kind = sources.type_of(request.type)
        stale = bool(request.flags & STALE)
        if (
            request.flags & ~STALE
            or (stale and not kind.descriptor)
            or request.cookie
            or request.events
            or request.param0
            or request.param1
            or request.param2
        ):
            raise RefusedError(errno.EINVAL)
        target = self._target(kind, request.ident, client, optional=stale)
        try:
            with self._changing():
                if stale:
                    self._remove_stale(kind, request.ident, target)
                    return 0, 0
                kevent = self._find(kind, request.ident, target)
                if kevent is None:
                    raise RefusedError(errno.ENOENT)
                report = kevent.cancel()
                self._destroy(kevent)
                return report
        finally:
            if target.borrowed is not None:
                target.borrowed.close()

    def _remove_stale(self, kind: type[Kevent], ident: int, target: Target) -> None:
        found = False
        for kevent in list(self.kevents.get((kind.type, ident), ())):
            if kevent.state & BROKEN:
                continue
            if target.borrowed is not None and kevent.is_target(target):
                continue
            found |= not kevent.gone()
            self._destroy(kevent)
        if not found:
            raise RefusedError(errno.ENOENT)

    def post(self, ident: int, data: int) -> None:
        """Post to a kevent of type USER."""
        with self._changing():
            for kevent in self.kevents.get((UserKevent.type, ident), ()):
                if isinstance(kevent, UserKevent) and kevent.post(data):
                    return
            raise RefusedError(errno.ENOENT)

    def has_to_look(self, nested: bool) -> bool:
        """Whether there is anything for `look`."""
        if nested:
            return not self.nested.keys().isdisjoint(self.reporters.keys())
        return bool(self.looked_at) or not self.reporters.keys() <= self.nested.keys()

    def look(self, nested: bool) -> None:
        """Notice what shows only to who looks: closes that are to be reported, and signals.

        Or the closes of @nested files, which to look at may be to wait for who polls this queue.
        """
        for kevent in list(self.reporters):
            if (kevent in self.nested) == nested and kevent.gone():
                self.closed(kevent, False)
        if nested:
            return
        pending: dict[int, int] = {}
        for watcher in list(self.looked_at):
            watcher.look(pending)

    def settle_lanes(self) -> None:
        """Have moved what the sockets of its transfers have called for; that may take long."""
        end = time.monotonic() + _PATIENCE
        for lane in list(self.lanes):
            lane.settle(end)

    def info(self) -> bytes:
        """``struct kevent_info``."""
        self.system.releases.settle()
        limits = self.account.limits
        with self._changing():
            self._reap_all_ghosts()
            return abi.INFO_ANSWER.pack(
                abi.ABI_VERSION,
                sources.FEATURES,
                PINNED,
                limits.max_inode_events,
                limits.max_queue_kevents,
                limits.max_user_kevents,
                limits.max_inode_watches,
                self.count,
                len(self.ready),
                self.account.kevents,
                *[0] * 8,
            )
