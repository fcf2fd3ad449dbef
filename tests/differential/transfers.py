# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of network transfers: what they may do, what has to come of it, and how to run them.

A transfer is moved by somebody else, in their own time.  So the one who runs a program knows what
has to come of each step, by the same model that the answers are held against, and waits for it
before the next one: until INFO counts as many events as there must be, and FIONREAD as many bytes.
It waits no longer than a few seconds, and the answer says how it was then.  Steps of which the
contract does not say what comes of them, such as one that makes TCP send a reset, are not made by
either.

There are pairs of sockets, `PAIRS`, two queues with nothing but transfers in them, and `SLOTS`
pieces of memory.  The params of a request are a slot, or `NOWHERE`, a length, and a descriptor.
Byte number n that anybody writes in a program is `byte(n)`, so that one that is lost, doubled or
misplaced shows.

Another kind of transfer is a line in `OUTCOMES`, a flag in `World._acceptable()`, and what
`World._begin()` or `World._first()` makes of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pykevent import abi, calls
from pykevent.abi import EventFlags, EventType, Flags, NaioEvents, Op

from . import program as plan
from .program import Program, Request, Step

Answer = dict[str, Any]

NAME = "transfers"
"""What the cast of such a program is."""
PAIRS: dict[tuple[int, int], str] = {
    (100, 101): "stream",
    (102, 103): "dgram",
    (104, 105): "tcp",
}
SLOTS, SLOT = 6, 64
"""Pieces of memory, and the size of one."""
NOWHERE = 99
"""In place of a slot: no address that there is."""
PIPE = 108
"""The reading end of one: no socket."""
MAX = abi.NAIO_MAX
_PATIENCE = 5.0
_UNSET = -77

OUTCOMES = {NaioEvents.RECV, NaioEvents.SEND}
"""The events that a transfer may be of."""


def byte(number: int) -> int:
    """Of all that is written in a program."""
    return (number * 7 + number // 251) % 251 + 1


# The model


@dataclass(eq=False)
class Transfer:
    """A kevent."""

    queue: int
    request: Request
    moved: int = 0
    error: int = 0
    flags: int = 0
    ended: bool = False
    told: bool = False
    """Ended by a byte, or by nobody but us, so that it can be seen to have ended."""
    unheard: bool = False
    """The socket was closed before anybody need have heard of the end."""

    @property
    def receives(self) -> bool:
        """Whether it is from a socket."""
        return self.request.events == NaioEvents.RECV

    def events(self) -> list[list[int]]:
        """What may be told of it: cookie, ident, data, count, events, type, flags."""
        found = [self._event(self.error, self.flags)]
        if self.unheard:
            found.append(self._event(errno.ECANCELED, int(EventFlags.BROKEN)))
        return found

    def _event(self, error: int, flags: int) -> list[int]:
        r = self.request
        flags |= int(EventFlags.LAST | (EventFlags.ERROR if error else 0))
        kind = int(EventType.NAIO)
        return [r.cookie, r.ident, self.moved, error or 1, r.events, kind, flags]


@dataclass(eq=False)
class End:
    """One end of a connection."""

    kind: str
    peer: int
    open: bool = True
    shut: bool = False
    """It sends no more."""
    messages: list[bytes] = field(default_factory=list)
    """To be received; of a stream they are one."""
    lane: list[Transfer] = field(default_factory=list)
    """Transfers that wait to receive."""

    @property
    def stream(self) -> bool:
        """Whether its bytes are no messages."""
        return self.kind != "dgram"

    @property
    def readable(self) -> int:
        """What FIONREAD says."""
        return len(self.messages[0]) if self.messages else 0

    def put(self, data: bytes) -> None:
        """Somebody sent this."""
        if self.stream and self.messages:
            self.messages[0] += data
        elif data or not self.stream:
            self.messages.append(data)

    def take(self, most: int) -> tuple[bytes, bool]:
        """So many bytes at most, and whether a message was longer."""
        message = self.messages.pop(0)
        if self.stream and message[most:]:
            self.messages.insert(0, message[most:])
        return message[:most], not self.stream and len(message) > most


class World:
    """What there is in a program: the model itself."""

    def __init__(self) -> None:
        self.ends: dict[int, End] = {}
        for pair, kind in PAIRS.items():
            for fd, peer in zip(pair, reversed(pair), strict=True):
                self.ends[fd] = End(kind, peer)
        self.queues = [True for _ in plan.QUEUES]
        self.kevents: list[Transfer] = []
        """Of all queues; those that have ended in the order in which they did."""
        self.memory = bytearray(byte(n) for n in range(SLOTS * SLOT))
        self.written = SLOTS * SLOT
        """How many bytes were written so far."""

    def at(self, fd: int) -> End | None:
        """What a descriptor stands for, if it is a socket."""
        end = self.ends.get(fd)
        return end if end is not None and end.open else None

    def fresh(self, count: int) -> bytes:
        """Bytes that were not there before."""
        data = bytes(byte(self.written + n) for n in range(count))
        self.written += count
        return data

    def of(self, queue: int) -> list[Transfer]:
        """The kevents of a queue."""
        return [t for t in self.kevents if t.queue == queue]

    def ready(self, queue: int) -> list[Transfer]:
        """Those that have an event."""
        return [t for t in self.of(queue) if t.ended]

    def announced(self, queue: int) -> range:
        """How many events are ready: a socket may have called for those that have none yet."""
        return range(len(self.ready(queue)), len(self.of(queue)) + 1)

    def peer_is_gone(self, end: End) -> bool:
        """Nobody has the other end."""
        return not self.ends[end.peer].open

    # Steps around the device

    def possible(self, step: Step) -> bool:
        """Whether it is known what comes of a step; if not it is not made."""
        if step.do in ("add", "change_wait", "remove", "modify", "wait", "info"):
            # What is sent might be received into its own memory, or not yet, within one call.
            alone = len(step.requests) == 1
            return all(self._known(request, alone) for request in step.requests)
        if step.do in ("open_queue", "close_queue"):
            return self.queues[step.queue] == (step.do == "close_queue")
        end = self.at(step.fd)
        if end is None:
            return False
        if step.do == "send":
            return not end.shut and not self.peer_is_gone(end)
        if step.do == "recv":
            # Not beside transfers that wait: nobody says who is first.
            return bool(end.messages) and not end.lane
        if step.do == "shutdown":
            return end.stream and not end.shut
        # One that is closed over unread bytes resets the connection.
        return step.do == "close" and not end.messages

    def _known(self, request: Request, alone: bool) -> bool:
        if request.events == NaioEvents.SEND and not alone:
            return False
        end = self.at(request.params[2])
        if end is None or request.events != NaioEvents.SEND or not end.stream:
            return True
        # What is sent to nobody succeeds or fails.
        return end.shut or not self.peer_is_gone(end)

    def send(self, fd: int, size: int) -> bytes:
        """write(2) of the next bytes."""
        data = self.fresh(size)
        self.arrive(self.ends[self.ends[fd].peer], data)
        return data

    def arrive(self, end: End, data: bytes) -> None:
        """Bytes, or a message, for one end."""
        end.put(data)
        self.move(end)

    def recv(self, fd: int, size: int) -> bytes:
        """read(2)."""
        return self.ends[fd].take(size)[0]

    def shutdown(self, fd: int) -> None:
        """Of the direction that this end sends in."""
        end = self.ends[fd]
        end.shut = True
        self.move(self.ends[end.peer])

    def close(self, fd: int) -> None:
        """The only descriptor of one end."""
        end = self.ends[fd]
        end.open, end.shut = False, True
        for t in end.lane:
            t.error, t.flags = errno.ECANCELED, int(EventFlags.BROKEN)
            self._ended(t)
        end.lane.clear()
        for t in self.kevents:
            if t.ended and not t.told and t.request.params[2] == fd:
                t.unheard = True
        self.move(self.ends[end.peer])

    def close_queue(self, queue: int) -> None:
        """All of its transfers are cancelled."""
        self.queues[queue] = False
        for t in self.of(queue):
            self._forget(t)

    # Transfers

    def _forget(self, t: Transfer) -> None:
        self.kevents.remove(t)
        for end in self.ends.values():
            if t in end.lane:
                end.lane.remove(t)
                # It may have been in the way.
                self.move(end)

    def _ended(self, t: Transfer, told: bool = True) -> None:
        t.ended, t.told = True, told
        self.kevents.remove(t)
        self.kevents.append(t)

    def move(self, end: End) -> None:
        """Whatever can be moved: the first, and then those behind it."""
        while end.open and end.lane and self._first(end, end.lane[0]):
            at_end = end.stream and not self._full(end.lane[0])
            self._ended(end.lane.pop(0), told=not at_end)

    @staticmethod
    def _full(t: Transfer) -> bool:
        """Whether it ended because of what it had moved."""
        whole = bool(t.request.flags & Flags.WAITALL)
        return t.moved == t.request.params[1] or (t.moved > 0 and not whole)

    def _first(self, end: End, t: Transfer) -> bool:
        """Whether the first transfer of a lane has ended, after what could be moved."""
        whole = bool(t.request.flags & Flags.WAITALL) and end.stream
        slot, length, _ = t.request.params
        if end.messages:
            data, longer = end.take(length - t.moved)
            at = slot * SLOT + t.moved
            self.memory[at : at + len(data)] = data
            t.moved += len(data)
            t.flags = int(EventFlags.TRUNCATED) if longer else 0
            if not whole or t.moved == length:
                return True
        return end.stream and self.ends[end.peer].shut

    def _acceptable(self, request: Request) -> bool:
        if request.events not in OUTCOMES:
            return False
        takes = Flags.ONESHOT
        if request.events == NaioEvents.RECV:
            takes |= Flags.WAITALL
            if not request.params[1]:
                return False
        return not request.flags & ~int(takes) and request.params[1] <= MAX

    def change(self, queue: int, request: Request, op: Op) -> tuple[set[int], list[list[int]]]:
        """A request: what its result may be, and what its params after a REMOVE.

        Of two things that are wrong either may be told.
        """
        found = [t for t in self.of(queue) if t.request.ident == request.ident]
        if op == Op.REMOVE:
            if request.events or any(request.params) or request.flags or request.cookie:
                return {-errno.EINVAL}, []
            if not found:
                return {-errno.ENOENT}, []
            (t,) = found
            self._forget(t)
            cancelled = [t.moved, errno.ECANCELED]
            if not t.ended:
                return {0}, [cancelled]
            # Of the end of a stream nobody may have heard yet.
            return {0}, [[t.moved, t.error], *([] if t.told else [cancelled])]
        if not self._acceptable(request):
            return {-errno.EINVAL}, []
        if op == Op.MODIFY:
            return {-errno.EOPNOTSUPP if found else -errno.ENOENT}, []
        wrong = self._wrong(request)
        if found:
            wrong.add(-errno.EEXIST)
        if not wrong:
            self._begin(Transfer(queue, request))
        return wrong or {0}, []

    def _wrong(self, request: Request) -> set[int]:
        slot, _, fd = request.params
        wrong = set()
        if slot == NOWHERE:
            wrong.add(-errno.EFAULT)
        end = self.at(fd)
        if fd == PIPE:
            wrong.add(-errno.ENOTSOCK)
        elif end is None:
            wrong.add(-errno.EBADF)
        elif request.events == NaioEvents.SEND and not end.stream:
            wrong.add(-errno.EOPNOTSUPP)
        return wrong

    def _begin(self, t: Transfer) -> None:
        self.kevents.append(t)
        slot, length, fd = t.request.params
        end = self.ends[fd]
        if t.receives:
            end.lane.append(t)
            self.move(end)
            return
        # What programs send always fits.
        if end.shut:
            t.error = errno.EPIPE
        else:
            t.moved = length
        self._ended(t)
        if not t.error:
            data = bytes(self.memory[slot * SLOT : slot * SLOT + length])
            self.arrive(self.ends[end.peer], data)


class MismatchError(Exception):
    """What is wrong with an answer: what, as expected, as it is."""


def expect(what: str, expected: object, got: object) -> None:
    """Complain of an answer that is not the expected one; a set or a range has all that may be."""
    good = got == expected
    if isinstance(expected, range | set):
        good = got in expected
    if not good:
        raise MismatchError(what, expected, got)


class Check:
    """Holds answers against the model."""

    def __init__(self) -> None:
        self.world = World()

    def step(self, step: Step, answer: Answer) -> None:
        """Follow one step; a MismatchError where its answer is wrong."""
        world = self.world
        if answer["ret"] == "hangs":
            raise MismatchError("the call", "an answer", "none, it hangs")
        if not world.possible(step):
            expect("the step", "left out", answer["ret"])
            return
        if step.do in ("open_queue", "close_queue"):
            if step.do == "close_queue":
                world.close_queue(step.queue)
            else:
                world.queues[step.queue] = True
            expect("the call's answer", 0, answer["ret"])
        elif step.do == "send":
            expect("the call's answer", len(world.send(step.fd, step.size)), answer["ret"])
        elif step.do == "recv":
            expect("the bytes", world.recv(step.fd, step.size).hex(), answer["ret"])
        elif step.do in ("shutdown", "close"):
            getattr(world, step.do)(step.fd)
            expect("the call's answer", 0, answer["ret"])
        elif not world.queues[step.queue]:
            expect("the call's answer", -errno.EBADF, answer["ret"])
        elif step.do == "wait":
            self.wait(step, answer)
        else:
            self.changes(step, answer)
        self.settled(answer)

    def changes(self, step: Step, answer: Answer) -> None:
        """ADD, MODIFY and REMOVE."""
        good = 0
        for number, request in enumerate(step.requests):
            op = {"add": Op.ADD, "modify": Op.MODIFY, "remove": Op.REMOVE}[step.do]
            allowed, params = self.world.change(step.queue, request, op)
            expect(f"the result of request {number}", allowed, answer["results"][number])
            if params and answer["params"][number] not in params:
                raise MismatchError(
                    f"the params of request {number}", params, answer["params"][number]
                )
            good += 0 in allowed
        expect("the call's answer", good, answer["ret"])

    def wait(self, step: Step, answer: Answer) -> None:
        """All that has ended, as far as there is room, and no more: each lane in its order."""
        count = min(len(self.world.ready(step.queue)), step.max)
        for number, event in enumerate(answer["events"][:count]):
            first: dict[tuple[int, bool], Transfer] = {}
            for t in self.world.ready(step.queue):
                first.setdefault((t.request.params[2], t.receives), t)
            fitting = [t for t in first.values() if event in t.events()]
            if not fitting:
                listed = [told for t in first.values() for told in t.events()]
                raise MismatchError(f"event {number}", listed, event)
            self.world.kevents.remove(fitting[0])
        expect("the number of events", count, answer["ret"])
        expect("left", self.world.announced(step.queue), answer["left"])

    def settled(self, answer: Answer) -> None:
        """What was seen when all had to be done."""
        world = self.world
        for queue, counts in enumerate(answer["counts"]):
            if world.queues[queue]:
                expect(f"kevents of queue {queue}", len(world.of(queue)), counts[0])
                expect(f"ready of queue {queue}", world.announced(queue), counts[1])
        bytes_left = [end.readable if end.open else 0 for end in world.ends.values()]
        expect("bytes to be read", bytes_left, answer["bytes"])
        expect("the memory", bytes(world.memory).hex(), answer["memory"])


def check(program: Program, answers: list[Answer]) -> tuple[int, MismatchError] | None:
    """The first step whose answer is wrong, and why."""
    checked = Check()
    at = -1
    try:
        for step, answer in zip(program.steps, answers[1:], strict=False):
            at += 1
            checked.step(step, answer)
    except MismatchError as wrong:
        return at, wrong
    return None


# Running


class Machine:
    """The sockets, the memory and the queues of one program, and what has to come of it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.world = World()
        self.check = Check()
        self.check.world = self.world
        self.lost = False
        self.memory = ctypes.create_string_buffer(bytes(self.world.memory), SLOTS * SLOT)
        for pair, kind in PAIRS.items():
            for fd, to in zip(_pair(kind), pair, strict=True):
                os.dup2(fd, to, inheritable=False)
                os.close(fd)
        reader, writer = os.pipe()
        os.dup2(reader, PIPE, inheritable=False)
        os.close(reader)
        os.close(writer)
        for queue in range(len(plan.QUEUES)):
            self.open_queue(queue)

    def open_queue(self, queue: int) -> None:
        """A new one."""
        fd = os.open(self.device, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(fd, plan.QUEUES[queue], inheritable=False)
        os.close(fd)

    def end(self) -> None:
        """Close everything."""
        for fd in (*plan.QUEUES, *self.world.ends, PIPE):
            with contextlib.suppress(OSError):
                os.close(fd)

    def step(self, step: Step) -> Answer:
        """Do one step; its answer, and what was seen when all was done."""
        if not self.world.possible(step):
            return {"ret": "left out"}
        # Before the model knows, as it would be too late to ask it afterwards.
        due = len(self.world.ready(step.queue))
        try:
            answer = self.act(step, due)
        except OSError as error:
            answer = {"ret": -(error.errno or 0)}
        with contextlib.suppress(MismatchError, KeyError, IndexError):
            # Its complaints are for who compares.
            self.check.step(step, {**answer, **self.seen()})
        self.settle()
        return {**answer, **self.seen()}

    def act(self, step: Step, due: int) -> Answer:
        """The call itself."""
        if step.do == "open_queue":
            self.open_queue(step.queue)
        elif step.do == "close_queue":
            os.close(plan.QUEUES[step.queue])
        elif step.do == "send":
            start = self.world.written
            return {"ret": os.write(step.fd, bytes(byte(start + n) for n in range(step.size)))}
        elif step.do == "recv":
            return {"ret": os.read(step.fd, step.size).hex()}
        elif step.do == "shutdown":
            with socket.socket(fileno=os.dup(step.fd)) as sock:
                sock.shutdown(socket.SHUT_WR)
        elif step.do == "close":
            os.close(step.fd)
        elif step.do == "wait":
            return self.wait(step, min(due, step.max))
        else:
            return self.change(step)
        return {"ret": 0}

    def pack(self, request: Request) -> bytes:
        """As a struct kevent_request, with an address in place of the slot."""
        slot, *rest = request.params
        if request.events or request.params[1]:
            slot = 1 << 63 if slot == NOWHERE else ctypes.addressof(self.memory) + slot * SLOT
        return abi.REQUEST.pack(
            request.ident, request.cookie, request.type, request.op, request.flags,
            request.events, _UNSET, slot, *rest,
        )  # fmt: skip

    def change(self, step: Step) -> Answer:
        """ADD, MODIFY, REMOVE."""
        number = {"add": abi.ADD, "modify": abi.MODIFY, "remove": abi.REMOVE}[step.do]
        count = len(step.requests)
        buffer = bytearray(abi.BATCH.pack(count, 0, 0))
        for request in step.requests:
            buffer += self.pack(request)
        ret = calls.ioctl(plan.QUEUES[step.queue], number(count), buffer, blocking=True)
        after = [
            abi.REQUEST.unpack_from(buffer, abi.BATCH.size + n * abi.REQUEST.size)
            for n in range(count)
        ]
        return {
            "ret": ret,
            "results": [r[6] for r in after],
            "params": [list(r[7:9]) for r in after],
        }

    @staticmethod
    def wait(step: Step, least: int) -> Answer:
        """WAIT until what has to be there is there."""
        buffer = bytearray(
            abi.WAIT_HEADER.pack(0, 0, least, step.max, plan.SOON, 1, 0, 0, 0, 0)
        ) + bytes(32 * step.max)
        ret = calls.ioctl(plan.QUEUES[step.queue], abi.WAIT(step.max), buffer, blocking=True)
        records, left = abi.WAIT_HEADER.unpack_from(buffer)[7:9]
        at = range(abi.WAIT_HEADER.size, abi.WAIT_HEADER.size + 32 * records, 32)
        events = [list(abi.EVENT.unpack_from(buffer, where)) for where in at]
        return {"ret": ret, "left": left, "events": events}

    def counts(self) -> Iterator[list[int]]:
        """Kevents, and events that are ready, of each queue."""
        for fd in plan.QUEUES:
            buffer = bytearray(abi.INFO_ANSWER.size)
            try:
                calls.ioctl(fd, abi.INFO, buffer, blocking=True)
            except OSError:
                yield []
                continue
            yield list(abi.INFO_ANSWER.unpack(buffer)[7:9])

    def seen(self) -> Answer:
        """What an answer has besides."""
        return {
            "counts": list(self.counts()),
            "bytes": [_fionread(fd) for fd in self.world.ends],
            "memory": bytes(self.memory).hex(),
        }

    def settle(self) -> None:
        """Until all has come that has to, or it is clear that it does not."""
        end = time.monotonic() + _PATIENCE
        while not self.lost:
            try:
                self.check.settled(self.seen())
                break
            except MismatchError:
                # No later step will find what this one lacks.
                self.lost = time.monotonic() > end
                time.sleep(0.0005)
        for end_fd, one in self.world.ends.items() if not self.lost else ():
            # And the end of a stream, of which no number tells.
            if one.open and one.stream and self.world.ends[one.peer].shut:
                poller = select.poll()
                poller.register(end_fd, select.POLLRDHUP)
                poller.poll(_PATIENCE * 1000)


def _fionread(fd: int) -> int:
    try:
        answer = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])


def _pair(kind: str) -> tuple[int, int]:
    """Two descriptors of a connection, which do not block."""
    if kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = socket.create_connection(listener.getsockname())
            two, _ = listener.accept()
        for end in (one, two):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        type = socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM
        one, two = socket.socketpair(type=type)
    for end in (one, two):
        end.setblocking(False)
    return one.detach(), two.detach()


def execute(program: Program, device: str) -> list[Answer]:
    """The answers of a program, after one for its beginning."""
    machine = Machine(device)
    try:
        return [{"ret": 0}, *(machine.step(step) for step in program.steps)]
    finally:
        machine.end()
