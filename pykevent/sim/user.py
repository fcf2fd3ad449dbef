# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_USER: posted by whoever has the queue; what was not delivered yet is one event."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pykevent.abi import EventType, Feature, UserEvents
from pykevent.sim.kevent import (
    DEAD,
    MODIFIED,
    ONESHOT,
    U32_MAX,
    Event,
    Item,
    Kevent,
    RefusedError,
    Request,
    Target,
)

if TYPE_CHECKING:
    from pykevent.sim.queue import User


class UserKevent(Kevent):
    """A kevent that is posted to."""

    __slots__ = ("_data", "_posts")

    name = "user"
    type = int(EventType.USER)
    feature = int(Feature.USER)
    all_events = int(UserEvents.POSTED)
    exact = True

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self._data = 0
        self._posts = 0

    def modify(self, request: Request, target: Target) -> None:
        """Postings that wait are kept."""
        wake = False
        with self.user.lock:
            alive = self.user.modify_locked(self, request)
            if alive and self._posts:
                wake = self.user.ready_locked(self)
        if wake:
            self.user.poked()
        if not alive:
            raise RefusedError(errno.ENOENT)

    def post(self, data: int) -> bool:
        """One posting; false where nobody would see it."""
        with self.user.lock:
            if self.state & DEAD:
                return False
            # Of a one-shot nobody sees more than one event, which may be on its way, or full.
            if self.flags & ONESHOT:
                leaving = self.item.offered and not self.state & MODIFIED
                if leaving or self._posts >= U32_MAX:
                    return False
            self._data = data
            self._posts += 1
            wake = self.user.ready_locked(self)
        if wake:
            self.user.poked()
        return True

    def peek(self, item: Item, event: Event) -> None:
        """The last data, and how often."""
        event.events = self.all_events
        event.data = self._data
        event.count = min(self._posts, U32_MAX)

    def consume(self, item: Item, event: Event) -> bool:
        """What was counted is delivered; more than one event holds is the next one."""
        self._posts -= event.count
        return self._posts > 0
