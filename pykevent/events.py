# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as the queue delivers them."""

import struct
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from typing import cast

from pykevent.abi import (
    EVENT,
    EventFlags,
    EventType,
    InodeEvents,
    NaioEvents,
    PollEvents,
    SocketEvents,
    TimerEvents,
    UserEvents,
    inode_rename,
    name_length,
    name_records,
)

_TYPES: dict[int, EventType] = {int(kind): kind for kind in EventType}
_MASKS: dict[int, type[IntFlag]] = {
    EventType.SOCKET: SocketEvents,
    EventType.POLL: PollEvents,
    EventType.INODE: InodeEvents,
    EventType.TIMER: TimerEvents,
    EventType.USER: UserEvents,
    EventType.PATH: InodeEvents,
    EventType.NAIO: NaioEvents,
}

# To look at plain numbers, and to make enumerations of each number once, is what a queue has time
# for.
_NAME, _ERROR = int(EventFlags.NAME), int(EventFlags.ERROR)
_BROKEN, _LAST = int(EventFlags.BROKEN), int(EventFlags.LAST)
_OVERFLOW, _TRUNCATED = int(EventFlags.OVERFLOW), int(EventFlags.TRUNCATED)
_and = int.__and__  # which that of flags, in Python, takes many times as long as

# A record with the three last fields as one number.
_RECORD = struct.Struct("=QQQII")
_WORD, _FIELDS = struct.Struct("=I"), struct.Struct("=HBB")

EventMask = SocketEvents | PollEvents | InodeEvents | TimerEvents | UserEvents | NaioEvents | int
"""The mask of an event: which class depends on its type, a plain int where that is unknown."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event delivered.

    `type`, `ident` and `cookie` are those of the request; `ident` is a descriptor's number for
    SOCKET, POLL and INODE.  `events` is what happened.  `data` is what the source knows: expiries
    of a timer, the number last posted to a user kevent, connections waiting on a listening
    socket, bytes to read or room to write where `Flags.BYTES` asked for it, bytes that a transfer
    has moved.  `count` is how many occurrences this event stands for; it stops at 0xffffffff,
    and of a transfer that failed it is the errno, see `error`.
    `name` is the entry's name of an inode event that has one, as bytes (`os.fsdecode` makes it a
    str).
    """

    type: EventType | int
    ident: int
    cookie: int
    events: EventMask
    flags: EventFlags
    data: int
    count: int
    name: bytes | None = None

    @property
    def broken(self) -> bool:
        """Whether the source was closed, or is otherwise gone, and the kevent with it."""
        return _and(self.flags, _BROKEN) != 0

    @property
    def last(self) -> bool:
        """Whether the kevent was removed by this delivery."""
        return _and(self.flags, _LAST) != 0

    @property
    def overflow(self) -> bool:
        """Whether inode events were lost before this one."""
        return _and(self.flags, _OVERFLOW) != 0

    @property
    def truncated(self) -> bool:
        """Whether a datagram was longer than the buffer of the transfer."""
        return _and(self.flags, _TRUNCATED) != 0

    @property
    def error(self) -> int:
        """The errno with which a transfer has failed; 0 where it has not."""
        return self.count if _and(self.flags, _ERROR) else 0

    @property
    def rename(self) -> int:
        """The number that pairs an inode's MOVED_FROM with its MOVED_TO; 0 where there is none."""
        if self.type in (EventType.INODE, EventType.PATH):
            return inode_rename(self.data)
        return 0


class _Made:
    """An event in the making.

    What is frozen is set field by field through a function, which takes four times as long; so
    one that is not is filled, and becomes an `Event` with all that is in it.
    """

    __slots__ = Event.__slots__

    def __init__(
        self,
        kind: EventType | int,
        ident: int,
        cookie: int,
        events: EventMask,
        flags: EventFlags,
        data: int,
        count: int,
        name: bytes | None,
    ) -> None:
        self.type = kind
        self.ident = ident
        self.cookie = cookie
        self.events = events
        self.flags = flags
        self.data = data
        self.count = count
        self.name = name
        self.__class__ = Event  # type: ignore[assignment]


@lru_cache(maxsize=1024)
def _what_of(word: int) -> tuple[EventType | int, EventMask, EventFlags]:
    """Type, mask and flags of an event, from the last four bytes of its record."""
    mask, kind, flags = _FIELDS.unpack(_WORD.pack(word))
    known = _MASKS.get(kind)
    return _TYPES.get(kind, kind), mask if known is None else known(mask), EventFlags(flags)


def parse_records(data: bytes | bytearray | memoryview) -> list[Event]:
    """The events in records as WAIT and read(2) write them.

    Raises ValueError where `data` does not end with the end of an event.
    """
    events: list[_Made] = []
    over = len(data) % EVENT.size
    records = _RECORD.iter_unpack(memoryview(data)[: len(data) - over])
    offset = 0
    for cookie, ident, value, count, word in records:
        kind, mask, flags = _what_of(word)
        offset += EVENT.size
        name = None
        if _and(flags, _NAME):
            following = name_records(value)
            if len(data) - offset < following * EVENT.size:
                raise ValueError(f"a name of {name_length(value)} bytes is cut off")
            name = bytes(data[offset : offset + name_length(value)])
            for _ in range(following):
                next(records)
            offset += following * EVENT.size
        events.append(_Made(kind, ident, cookie, mask, flags, value, count, name))
    if over:
        raise ValueError(f"{over} bytes are left over, a record takes {EVENT.size}")
    return cast(list[Event], events)
