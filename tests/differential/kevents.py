# SPDX-License-Identifier: GPL-2.0-or-later
"""A queue of the model: its kevents, and what is known of their places on the ready list."""

from __future__ import annotations

import select
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pykevent.abi import EventFlags, EventType, Flags

from .files import Inode, OpenFile

NEVER = 1 << 62
READABLE = select.POLLIN | select.POLLRDNORM
ALWAYS = select.POLLERR | select.POLLHUP
SOCKET, POLL, INODE = EventType.SOCKET, EventType.POLL, EventType.INODE
TIMER, USER, PATH = EventType.TIMER, EventType.USER, EventType.PATH

_RECV, _SEND, _RDHUP, _ACCEPT = 0x0001, 0x0004, 0x2000, 0x4000


@dataclass(eq=False)
class Happened:
    """An inode event that waits."""

    events: int
    rename: int
    name: str | None
    low: int
    high: int
    count: int = 1
    exact: bool = True
    """Whether `count` is known; else it is the most that it can be."""


@dataclass(eq=False)
class Kevent:
    """A kevent, and what is known of its place on the ready list."""

    type: int
    ident: int
    file: OpenFile | None
    cookie: int = 0
    events: int = 0
    flags: int = 0
    params: tuple[int, int, int] = (0, 0, 0)
    asleep: bool = False
    broken: bool = False
    pinned: bool = False
    unseen: bool = False
    """Its bytes are not counted: a difference of the simulator, once its number is closed."""
    untold: bool = False
    """Nothing has told of its end yet but the next call: a difference of the simulator."""
    # Its own item: certainly on the list from `high` on, perhaps from `low` on.
    low: int = NEVER
    high: int = NEVER
    # USER
    posts: int = 0
    data: int = 0
    # TIMER: whether it may expire at any time, and what it counts then.
    short: bool = False
    counts: bool = False
    # INODE, PATH
    inode: Inode | None = None
    born: int = 0
    waiting: list[Happened] = field(default_factory=list)
    overflow: Happened | None = None
    limit: int = 0

    @property
    def conditional(self) -> bool:
        """Whether its events are a condition, rather than adding up."""
        return self.type in (SOCKET, POLL)

    @property
    def level(self) -> bool:
        """Whether it is reported for as long as the condition holds."""
        return self.conditional and not self.flags & Flags.EDGE

    @property
    def mask(self) -> int:
        """The bits of poll(2) that it waits for."""
        if self.type == POLL:
            return self.events | ALWAYS
        mask = ALWAYS
        if self.events & (_RECV | _ACCEPT):
            mask |= READABLE
        if self.events & 0x0002:
            mask |= select.POLLPRI
        if self.events & _SEND:
            mask |= select.POLLOUT | select.POLLWRNORM
        if self.events & _RDHUP:
            mask |= select.POLLRDHUP
        return mask

    def holds(self) -> int:
        """What it would report now."""
        assert self.file is not None
        bits = self.file.bits
        if self.type == POLL:
            return bits & self.mask
        events = bits & 0x001E
        if bits & select.POLLIN:
            events |= _ACCEPT if self.file.listens else _RECV
        if bits & select.POLLRDHUP:
            events |= _RDHUP
        return events & (self.events | ALWAYS)

    @property
    def on(self) -> bool:
        """Whether it is certainly on the list."""
        return self.high < NEVER

    @property
    def maybe(self) -> bool:
        """Whether it may be there, but need not."""
        return self.low < NEVER and not self.on

    def join(self, now: int) -> None:
        """Something happened: it goes to the end of the list, unless it is there already."""
        if self.asleep and not self.broken:
            return
        self.low = min(self.low, now)
        self.high = min(self.high, now)

    def may_join(self, now: int) -> None:
        """Something may have happened."""
        if not self.asleep or self.broken:
            self.low = min(self.low, now)

    def leave(self) -> None:
        """Off the list."""
        self.low = self.high = NEVER

    @property
    def one_only(self) -> bool:
        """Whether one inode event is on the list at a time."""
        oneshot = bool(self.flags & Flags.ONESHOT)
        return oneshot or (bool(self.flags & Flags.DISPATCH) and not self.broken)

    def listed(self) -> list[Happened]:
        """The inode events that are on the list."""
        if self.asleep and not self.broken:
            return []
        return self.waiting[:1] if self.one_only else list(self.waiting)


@dataclass(frozen=True)
class Rename:
    """The data of one half of a rename: the number of the pair is the kernel's choice."""

    data: int
    number: int


@dataclass
class Item:
    """What a WAIT may deliver next of a kevent: its own item, or an inode event."""

    kevent: Kevent
    happened: Happened | None
    low: int
    high: int
    certain: bool

    @property
    def records(self) -> int:
        """The room it takes."""
        return 2 if self.happened is not None and self.happened.name is not None else 1

    def __str__(self) -> str:
        return describe(self.expected()) + ("" if self.certain else " (perhaps)")

    def expected(self) -> list[Any]:
        """The event: cookie, ident, data, count, events, type, flags, name; None means any."""
        k = self.kevent
        last = EventFlags.LAST if k.flags & Flags.ONESHOT else 0
        data: object = 0
        count: object = 1
        events, flags, name = 0, int(last), None
        if self.happened is not None:
            h = self.happened
            events, name = h.events, h.name
            count = h.count if h.exact else (1, h.count)
            data = len(name or "") << 32
            if h.rename:
                data = Rename(data, h.rename)
            if name is not None:
                flags |= EventFlags.NAME
            if not h.events:
                # How many were lost is nobody's promise.
                flags |= EventFlags.OVERFLOW
                count = (1, NEVER)
        elif k.broken:
            flags = EventFlags.BROKEN | EventFlags.LAST
        elif k.type == USER:
            events, data, count = 1, k.data, k.posts
        elif k.type == TIMER:
            events = 1
            data = count = (1, NEVER) if k.counts else 1
        elif k.conditional:
            events = k.holds()
            data = self._amount(events)
        return [k.cookie, k.ident, data, count, events, int(k.type), int(flags), name]

    def _amount(self, events: int) -> object:
        k = self.kevent
        assert k.file is not None
        if k.type != SOCKET:
            return 0
        if events & _ACCEPT:
            return len(k.file.pending)
        if not k.flags & Flags.BYTES or k.unseen:
            return 0
        if events & _RECV:
            return k.file.bytes
        return (1, NEVER) if events & _SEND else 0


def describe(event: list[Any]) -> str:
    """An event for people."""
    cookie, ident, data, count, events, kind, flags, name = event
    words = f"{EventType(kind).name} ident={ident} events={events:#x} cookie={cookie}"
    if isinstance(data, Rename):
        words += f" rename={data.number}"
    elif data:
        words += f" data={data}"
    if count != 1:
        words += f" count={count}"
    if flags:
        words += f" flags={EventFlags(flags)!r}"
    return words if name is None else f"{words} name={name}"


class Renames:
    """Which number of the kernel's stands for which rename."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}

    def fit(self, expected: list[Any], got: list[Any]) -> bool:
        """Whether an event is the expected one."""
        for want, have in zip(expected, got, strict=True):
            if isinstance(want, Rename):
                number = have & 0xFFFFFFFF
                if have >> 32 << 32 != want.data or not number:
                    return False
                if self.known.get(want.number, number) != number:
                    return False
                if want.number not in self.known and number in self.known.values():
                    return False
            elif isinstance(want, tuple):
                if not want[0] <= have <= want[1]:
                    return False
            elif want != have:
                return False
        return True

    def learn(self, expected: list[Any], got: list[Any]) -> None:
        """The event was that one."""
        if isinstance(expected[2], Rename):
            self.known[expected[2].number] = got[2] & 0xFFFFFFFF


class Queue:
    """One queue."""

    def __init__(self) -> None:
        self.kevents: list[Kevent] = []
        self.ghosts: list[tuple[int, int]] = []
        """Types and numbers of kevents of closed sockets, which may be counted."""
        self.called = 0
        """When it was last called."""
        self.gone = 0
        """Kevents of other closed files, since a call last looked at this queue: `user_kevents`
        of another one may count them."""

    def find(self, type: int, ident: int, file: OpenFile | None) -> Kevent | None:
        """The kevent of that name; one that waits to report its end is not found by a number."""
        found = [k for k in self.kevents if (k.type, k.ident, k.file) == (type, ident, file)]
        for k in found:
            if not k.broken:
                return k
        return found[0] if found and type == PATH else None

    def items(self) -> Iterator[Item]:
        """What may be delivered next."""
        for k in self.kevents:
            first = k.listed()[:1]
            if first:
                yield Item(k, first[0], first[0].low, first[0].high, True)
            elif k.low < NEVER:
                if k.conditional and not k.broken and not k.holds():
                    continue
                yield Item(k, None, k.low, k.high, k.on)

    def ready(self) -> tuple[int, int]:
        """At least, and at most, so many events are ready."""
        least = most = 0
        for k in self.kevents:
            listed = len(k.listed())
            least += listed
            most += listed
            if k.low < NEVER:
                most += 1
                least += k.on
        return least, most + len(self.ghosts)
