# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as the queue delivers them."""

from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache

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

# To look at plain numbers, and to make flags of each number once, is what a queue has time for.
_NAME, _ERROR = int(EventFlags.NAME), int(EventFlags.ERROR)
_flags_of = lru_cache(maxsize=256)(EventFlags)

EventMask = SocketEvents | PollEvents | InodeEvents | TimerEvents | UserEvents | NaioEvents | int
"""The mask of an event: which class depends on its type, a plain int where that is unknown."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event delivered.

    `type`, `ident` and `cookie` are those of the request; `ident` is a descriptor's number for
    SOCKET, POLL and INODE.  `events` is what happened.  `data` is what the source knows: expiries
    of a timer, the number last posted to a user kevent, connections waiting on a listening
    socket, bytes to read or room to write where `Flags.BYTES` asked for it, bytes that a transfer
    has moved.  `count` is how many occurrences this event stands for; it stops at 0xffffffff.
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
        return bool(self.flags & EventFlags.BROKEN)

    @property
    def last(self) -> bool:
        """Whether the kevent was removed by this delivery."""
        return bool(self.flags & EventFlags.LAST)

    @property
    def overflow(self) -> bool:
        """Whether inode events were lost before this one."""
        return bool(self.flags & EventFlags.OVERFLOW)

    @property
    def truncated(self) -> bool:
        """Whether a datagram was longer than the buffer of the transfer."""
        return bool(self.flags & EventFlags.TRUNCATED)

    @property
    def error(self) -> int:
        """The errno with which a transfer has failed; 0 where it has not."""
        return self.count if int(self.flags) & _ERROR else 0

    @property
    def rename(self) -> int:
        """The number that pairs an inode's MOVED_FROM with its MOVED_TO; 0 where there is none."""
        if self.type in (EventType.INODE, EventType.PATH):
            return inode_rename(self.data)
        return 0


@lru_cache(maxsize=1024)
def _mask_of(kind: int, mask: int) -> EventMask:
    known = _MASKS.get(kind)
    return mask if known is None else known(mask)


def parse_records(data: bytes | bytearray | memoryview) -> list[Event]:
    """The events in records as WAIT and read(2) write them.

    Raises ValueError where `data` does not end with the end of an event.
    """
    events: list[Event] = []
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < EVENT.size:
            raise ValueError(f"{end - offset} bytes are left over, a record takes {EVENT.size}")
        cookie, ident, value, count, mask, kind, flags = EVENT.unpack_from(data, offset)
        offset += EVENT.size
        name = None
        if flags & _NAME:
            room = name_records(value) * EVENT.size
            if end - offset < room:
                raise ValueError(f"a name of {name_length(value)} bytes is cut off")
            name = bytes(data[offset : offset + name_length(value)])
            offset += room
        events.append(
            Event(
                _TYPES.get(kind, kind),
                ident,
                cookie,
                _mask_of(kind, mask),
                _flags_of(flags),
                value,
                count,
                name,
            )
        )
    return events
