# SPDX-License-Identifier: GPL-2.0-or-later
"""What the core and the sources share: a kevent, its items, and the requests that make it."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pykevent.abi import REQUEST, Flags

if TYPE_CHECKING:
    from pykevent.sim.client import Borrowed, Client
    from pykevent.sim.queue import User

READY = 0x01  # its own item is on the ready list
AGAIN = 0x02  # active again while it was claimed
MODIFIED = 0x04  # modified while it was claimed
ASLEEP = 0x08  # disabled: by the caller, or dispatched
BROKEN = 0x10  # its storage is gone, to be delivered once more
DEAD = 0x20  # never delivered again; on the dead list
REMOVED = 0x40  # out of the queue
NEW = 0x100  # being added: not to be delivered yet

# The flags as plain numbers: an IntFlag costs ten times as much to combine.
EDGE, ONESHOT, DISPATCH = int(Flags.EDGE), int(Flags.ONESHOT), int(Flags.DISPATCH)
DISABLED, NOTIFY_BROKEN = int(Flags.DISABLED), int(Flags.NOTIFY_BROKEN)
BYTES, ABSTIME = int(Flags.BYTES), int(Flags.ABSTIME)
NOFOLLOW, STALE = int(Flags.NOFOLLOW), int(Flags.STALE)
WAITALL, MULTISHOT = int(Flags.WAITALL), int(Flags.MULTISHOT)
MODES = EDGE | ONESHOT | DISPATCH | DISABLED

U32_MAX = (1 << 32) - 1


class Request(NamedTuple):
    """``struct kevent_request`` as it came."""

    ident: int
    cookie: int
    type: int
    op: int
    flags: int
    events: int
    result: int
    param0: int
    param1: int
    param2: int

    @classmethod
    def parse(cls, data: bytes | bytearray, offset: int) -> Request:
        """The request that begins there."""
        return cls._make(REQUEST.unpack_from(data, offset))


class RefusedError(Exception):
    """A request cannot be met; carries the errno that goes into its result."""

    def __init__(self, error: int) -> None:
        super().__init__(errno.errorcode.get(error, str(error)))
        self.errno = error


@dataclass(slots=True)
class Target:
    """What a request names, resolved.  Closed by whoever resolved it."""

    client: Client
    borrowed: Borrowed | None = None
    path: int = -1
    """Of KEVENT_PATH: a descriptor that leads to the inode and opens nothing."""


@dataclass(slots=True)
class Event:
    """One event on its way out: the fields of ``struct kevent_event``, and the name."""

    cookie: int
    ident: int
    data: int
    count: int
    events: int
    type: int
    flags: int
    name: bytes


class Item:
    """An entry of a ready list: a kevent has one, and an inode one for each occurrence."""

    __slots__ = ("claimed", "kevent", "offered")

    def __init__(self, kevent: Kevent) -> None:
        self.kevent = kevent
        self.claimed = False
        self.offered = False


class Kevent:
    """One interest of one queue in one storage; a source is a subclass.

    State, claims, cookie, events, flags and what a source counts belong to the queue's lock.
    """

    __slots__ = (
        "claims",
        "cookie",
        "events",
        "flags",
        "ident",
        "item",
        "round",
        "state",
        "user",
    )

    name: ClassVar[str]
    """In messages."""
    type: ClassVar[int]
    feature: ClassVar[int]
    descriptor: ClassVar[bool] = False
    """The identity is a descriptor."""
    all_events: ClassVar[int]
    exact: ClassVar[bool] = False
    """All events must be asked for."""
    all_flags: ClassVar[int] = 0
    """Beyond the modes."""
    condition: ClassVar[bool] = False
    """Its events hold or do not (`poll`); else they add up (`peek`, `consume`)."""
    counts: ClassVar[bool] = False
    """`consume` says whether more is left also where its events are a condition."""

    def __init__(self, user: User, request: Request) -> None:
        self.user = user
        self.ident = request.ident
        self.cookie = request.cookie
        self.events = request.events
        self.flags = request.flags
        self.state = NEW | (ASLEEP if request.flags & DISABLED else 0)
        self.claims = 0
        self.round = 0
        self.item = Item(self)

    @classmethod
    def make(cls, user: User, request: Request) -> Kevent:
        """The kevent that a request is for."""
        return cls(user, request)

    @classmethod
    def check(cls, request: Request) -> None:
        """Refuse parameters that mean nothing."""
        if request.param0 or request.param1 or request.param2:
            raise RefusedError(errno.EINVAL)

    @classmethod
    def check_request(cls, request: Request) -> None:
        """Refuse what no kevent of the type can mean."""
        flags = request.flags
        if (
            flags & ~(MODES | cls.all_flags)
            or (flags & ONESHOT and flags & DISPATCH)
            or request.events & ~cls.all_events
            or (cls.exact and request.events != cls.all_events)
        ):
            raise RefusedError(errno.EINVAL)
        cls.check(request)

    @classmethod
    def permit(cls, target: Target) -> None:
        """Refuse a target that the client may not watch."""

    def is_target(self, target: Target) -> bool:
        """Whether it is what the request names: a descriptor says which open file."""
        return True

    def enqueue(self, request: Request, target: Target) -> None:
        """Hang it on its storage, and make it ready where that is.  Under the mutex."""

    def modify(self, request: Request, target: Target) -> None:
        """Take over a request.  Under the mutex."""
        raise NotImplementedError

    def cancel(self) -> tuple[int, int]:
        """What REMOVE has to say of it: `param[0]` and `param[1]`.  Under the mutex."""
        return 0, 0

    def dequeue(self) -> None:
        """Take it off its storage, wholly or in part hung on it.  Under the mutex."""

    def poll(self, event: Event | None) -> int:
        """What holds now, and where @event is given its data.  No lock is held."""
        raise NotImplementedError

    def poll_as_polled(self, depth: int) -> bool:
        """Whether its condition holds, asked by who polls the queue."""
        return bool(self.poll(None))

    def peek(self, item: Item, event: Event) -> None:
        """Fill in @event.  Under the lock."""
        raise NotImplementedError

    def consume(self, item: Item, event: Event) -> bool:
        """Take off what was reported; whether more is left.  Under the lock."""
        return False

    def gone(self) -> bool:
        """Whether what it watches was closed without a word."""
        return False

    def notice_close(self, told: bool = False) -> bool:
        """Look whether its file was closed, and report that; whether no more looks are needed.

        @told says that news of a close ask for it.
        """
        return True

    def park(self, park: bool) -> bool:
        """All items but its own off the ready list, or back on it; whether it has any."""
        return False

    @property
    def parks(self) -> bool:
        """Whether it has items besides its own."""
        return False


class Waiter:
    """A thread that sleeps for events: anybody may wake it, as often as they like."""

    __slots__ = ("_lock", "interrupted", "minimum")

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum
        self.interrupted = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Let it look again."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # it was woken already

    def sleep(self, seconds: float) -> None:
        """Until somebody wakes it, or the time is up; for ever if negative."""
        self._lock.acquire(timeout=seconds if seconds >= 0 else -1)
