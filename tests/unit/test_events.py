# SPDX-License-Identifier: GPL-2.0-or-later
"""Records to events: names, types, bits that nobody knows."""

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykevent import (
    Event,
    EventFlags,
    EventType,
    InodeEvents,
    NaioEvents,
    PollEvents,
    SocketEvents,
    TimerEvents,
    UserEvents,
    parse_records,
)
from pykevent.abi import EVENT, EVENT_RECORDS

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)


def encode(event: Event) -> bytes:
    """The records of one event, as the header describes them and not as the parser reads them."""
    head = [event.cookie, event.ident, event.data, event.count, event.events, event.type]
    records = b"".join(
        number.to_bytes(size, "little")
        for number, size in zip(
            [*map(int, head), int(event.flags)], (8, 8, 8, 4, 2, 1, 1), strict=True
        )
    )
    name = event.name or b""
    return records + name + bytes(-len(name) % 32)


def an_event(kind: int, mask: int, flags: int = 0, data: int = 0) -> Event:
    (event,) = parse_records(EVENT.pack(7, 5, data, 1, mask, kind, flags))
    return event


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event a device may deliver, of any type, with a name or without."""
    kind: int = draw(st.integers(0, 255))
    masks: dict[int, type[int]] = {
        1: SocketEvents,
        2: PollEvents,
        3: InodeEvents,
        4: TimerEvents,
        5: UserEvents,
        6: InodeEvents,
        7: NaioEvents,
    }
    name = draw(st.none() | st.binary(min_size=1, max_size=255))
    flags = draw(st.integers(0, 255)) & ~EventFlags.NAME
    data = draw(U64)
    if name is not None:
        flags |= EventFlags.NAME
        data = len(name) << 32 | data & 0xFFFFFFFF
    return Event(
        type=EventType(kind) if kind in set(EventType) else kind,
        ident=draw(U64),
        cookie=draw(U64),
        events=masks.get(kind, int)(draw(st.integers(0, 0xFFFF))),
        flags=EventFlags(flags),
        data=data,
        count=draw(U32),
        name=name,
    )


@given(st.lists(events(), max_size=8))
def test_records_come_back_as_the_events_they_were_made_of(sent: list[Event]) -> None:
    found = parse_records(b"".join(map(encode, sent)))
    assert found == sent
    assert [type(event.events) for event in found] == [type(event.events) for event in sent]


@given(events(), st.data())
def test_records_that_end_within_an_event_are_refused(sent: Event, data: st.DataObject) -> None:
    records = encode(sent)
    end = data.draw(st.integers(1, len(records) - 1))
    with pytest.raises(ValueError, match=r"left over|cut off"):
        parse_records(records[:end])


def test_no_records_are_no_events() -> None:
    assert parse_records(b"") == []


@pytest.mark.parametrize(
    ("kind", "mask", "expected"),
    [
        (1, 0x4001, SocketEvents.RECV | SocketEvents.ACCEPT),
        (2, 0x0011, PollEvents.IN | PollEvents.HUP),
        (3, 0x4001, InodeEvents.CREATE | InodeEvents.ISDIR),
        (4, 1, TimerEvents.FIRED),
        (5, 1, UserEvents.POSTED),
        (6, 0x0040, InodeEvents.SELF_REMOVED),
        (7, 2, NaioEvents.SEND),
    ],
)
def test_a_mask_has_the_class_of_its_type(kind: int, mask: int, expected: int) -> None:
    event = an_event(kind, mask)
    assert event.events == expected
    assert type(event.events) is type(expected)
    assert event.type is EventType(kind)


def test_unknown_bits_survive() -> None:
    event = an_event(4, 0x8001, flags=0xC0)
    assert event.events == 0x8001
    assert TimerEvents.FIRED in TimerEvents(event.events)
    assert event.flags == 0xC0
    assert not event.broken


def test_an_unknown_type_stays_a_number() -> None:
    event = an_event(99, 0x8001)
    assert event.type == 99
    assert not isinstance(event.type, EventType)
    assert type(event.events) is int


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 255])
def test_a_name_has_its_length_and_the_next_event_follows(length: int) -> None:
    name = b"x" * (length - 1) + b"\xff"
    first = EVENT.pack(1, 2, length << 32, 1, InodeEvents.CREATE, 3, EventFlags.NAME)
    padded = name + bytes(-length % 32)
    assert (len(first) + len(padded)) // 32 <= EVENT_RECORDS
    second = EVENT.pack(3, 4, 0, 1, TimerEvents.FIRED, 4, 0)
    found = parse_records(first + padded + second)
    assert [event.name for event in found] == [name, None]
    assert found[1].ident == 4


def test_flags_are_properties() -> None:
    assert an_event(3, 0, EventFlags.BROKEN).broken
    assert an_event(3, 0, EventFlags.LAST).last
    assert an_event(3, 0, EventFlags.OVERFLOW).overflow
    plain = an_event(3, 1)
    assert (plain.broken, plain.last, plain.overflow) == (False, False, False)


def test_rename_is_the_low_half_of_an_inode_events_data() -> None:
    assert an_event(3, 4, data=1 << 32 | 77).rename == 77
    assert an_event(6, 4, data=78).rename == 78
    assert an_event(4, 1, data=77).rename == 0


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        an_event(4, 1).count = 2  # type: ignore[misc]


def test_an_event_that_came_is_as_one_that_was_made() -> None:
    came = an_event(7, 1, EventFlags.LAST, data=5)
    made = Event(EventType.NAIO, 5, 7, NaioEvents.RECV, EventFlags.LAST, 5, 1)
    assert type(came) is Event
    assert came == made
    assert (hash(came), repr(came)) == (hash(made), repr(made))
    assert dataclasses.replace(came, data=6).data == 6
    assert pickle.loads(pickle.dumps(came)) == made
    with pytest.raises(dataclasses.FrozenInstanceError):
        came.data = 6  # type: ignore[misc]
