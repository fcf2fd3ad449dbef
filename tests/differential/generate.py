# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes random programs: a hypothesis strategy of whole programs, so that a guest can run them all
at once, and the programs of a seed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from pykevent.abi import EventType, Flags, NaioEvents, Op

from . import program as plan
from . import transfers
from .program import Post, Program, Request, Step

Draw = Callable[[st.SearchStrategy[Any]], Any]

SOCKET, POLL, INODE = EventType.SOCKET, EventType.POLL, EventType.INODE
TIMER, USER, PATH = EventType.TIMER, EventType.USER, EventType.PATH
FOREVER = (1 << 64) - 1
_AT_ONCE = 100

_SOCKETS = ("stream", "dgram", "tcp", "listener", "tcp-listener")
_SOURCES = {
    "stream": [(SOCKET, 100), (SOCKET, 101), (POLL, 100), (SOCKET, 114)],
    "dgram": [(SOCKET, 102), (SOCKET, 103), (POLL, 103)],
    "tcp": [(SOCKET, 104), (SOCKET, 105), (POLL, 105), (SOCKET, 115)],
    "listener": [(SOCKET, 106), (POLL, 106), (SOCKET, 114), (SOCKET, 115)],
    "tcp-listener": [(SOCKET, 107), (POLL, 107), (SOCKET, 114), (SOCKET, 115)],
    "pipe": [(POLL, 108), (POLL, 109), (POLL, 114)],
    "eventfd": [(POLL, 110), (POLL, 110), (POLL, 115)],
    "files": [(INODE, 111), (INODE, 112), (PATH, 1), (INODE, 111), (INODE, 116)],
}
"""What a program with this in its cast watches."""

_EVENTS = {
    SOCKET: (0x0001, 0x0004, 0x0005, 0x2001, 0x2005, 0x4001, 0x4000, 0x0000, 0x601F),
    POLL: (0x0001, 0x0004, 0x0005, 0x2001, 0x0041, 0x0000, 0x27DF),
    INODE: (0x01FF, 0x0003, 0x0030, 0x000C, 0x00F0, 0x0050, 0x0021, 0x00C0),
    PATH: (0x01FF, 0x0003, 0x0030, 0x000C, 0x00F0, 0x0050, 0x0021, 0x00C0),
    TIMER: (1,),
    USER: (1,),
}
_MODES = (0, 0, Flags.EDGE, Flags.EDGE, Flags.ONESHOT, Flags.DISPATCH, Flags.DISABLED,
          Flags.EDGE | Flags.ONESHOT, Flags.EDGE | Flags.DISPATCH)  # fmt: skip
_OPTIONS = {
    SOCKET: (0, Flags.NOTIFY_BROKEN, Flags.BYTES, Flags.BYTES | Flags.NOTIFY_BROKEN),
    POLL: (0, Flags.NOTIFY_BROKEN),
    INODE: (0, Flags.NOTIFY_BROKEN),
    PATH: (0, 0, Flags.NOFOLLOW),
    TIMER: (0,),
    USER: (0,),
}
_TIMES = (
    (0, 0, 1),
    (0, 0, 0),
    (0, 0, 7),
    (plan.HOUR, 0, 1),
    (0, plan.HOUR, 1),
    (plan.HOUR, plan.HOUR, 0),
    (0, plan.SHORT, 1),
)
_PATHS = ("d", "d", "d/a", "d/b", "d/s", "d/a/x", "x", "", "d/.")
_NEARLY = (0, 1, 0x10, 0x20, 0x80, 0x100, 0x200, 0x40000000)

pick = st.sampled_from
numbers = st.integers


def _chance(draw: Draw, percent: int) -> bool:
    # Shrinks towards no.
    return bool(draw(numbers(0, 99)) >= 100 - percent)


def _sources(cast: tuple[str, ...]) -> list[tuple[int, int]]:
    found = [(int(TIMER), 1), (int(TIMER), 2), (int(USER), 1), (int(USER), 1), (int(USER), 2)]
    for kind in cast:
        found += [(int(type), ident) for type, ident in 2 * _SOURCES[kind]]
    return found


def _request(draw: Draw, cast: tuple[str, ...], op: Op, changes: bool) -> Request:
    """A request, nearly always one that makes sense."""
    kind, ident = draw(pick(_sources(cast)))
    type = EventType(kind)
    given_op = int(op) if changes else 0
    wrong = draw(numbers(0, 39))
    if op == Op.REMOVE:
        descriptor = type in (SOCKET, POLL, INODE)
        flags = Flags.STALE if descriptor and draw(numbers(0, 3)) == 3 else 0
        if wrong == 39:
            flags |= draw(pick(_NEARLY))
        return Request(int(type), ident, flags=int(flags), op=given_op, cookie=int(wrong == 38))
    events = draw(pick(_EVENTS[type]))
    flags = int(draw(pick(_MODES)) | draw(pick(_OPTIONS[type])))
    params = (0, 0, 0)
    cookie = draw(numbers(0, 9))
    if type == TIMER:
        params = draw(pick(_TIMES))
        if wrong == 30:
            params, flags = (1, 0, 1), flags | Flags.ABSTIME
    elif type in (INODE, PATH):
        params = (draw(pick((0, 0, 0, 1, 2, 3))), 0, 0)
    if wrong == 39:
        flags |= draw(pick(_NEARLY))
    elif wrong == 38:
        events |= draw(pick((0x20, 0x800, 0x4000, 0x8000, 0x10000)))
    elif wrong == 37:
        params = draw(
            pick(((1, 0, 0), (0, 0, 2), (1 << 63, 0, 1), (1 << 20, 0, 0), (0, 0, 1 << 32)))
        )
    elif wrong == 36:
        ident = draw(pick((117, 90, 112, 110, 1 << 31, (1 << 64) - 1)))
        if ident in (90, 110) and type == INODE:
            ident = 117
    elif wrong == 35:
        return Request(draw(pick((0, 9, 0xFFFF))), ident, events, op=given_op)
    elif wrong == 34:
        given_op = draw(pick((0, 1, 2, 3, 4)))
    return Request(int(type), ident, events, int(flags), cookie, given_op, params)


def _header(draw: Draw, step: Step) -> Step:
    """A batch, with something wrong in its header now and then."""
    wrong = draw(numbers(0, 49))
    if not step.requests + step.posts:
        return step
    if wrong >= 48:
        return replace(step, extra=1 if wrong == 49 else -1)
    return replace(step, flags=int(wrong == 47), reserved=int(wrong == 46))


def _change(draw: Draw, cast: tuple[str, ...], queue: int) -> Step:
    op = draw(pick((Op.ADD, Op.ADD, Op.ADD, Op.MODIFY, Op.MODIFY, Op.REMOVE)))
    count = draw(pick((1, 1, 1, 2, 3, 0, 4)))
    requests = tuple(_request(draw, cast, op, False) for _ in range(count))
    return _header(draw, Step(op.name.lower(), queue, requests))


def _path(draw: Draw, cast: tuple[str, ...], queue: int) -> Step:
    request = _request(draw, ("files",), Op.ADD, False)
    if request.type != PATH and not _chance(draw, 10):
        events = draw(pick(_EVENTS[PATH]))
        flags = int(draw(pick(_MODES)))
        params = (draw(pick((0, 0, 1, 2))), 0, 0)
        request = Request(
            int(PATH), draw(numbers(1, 2)), events, flags, draw(numbers(0, 9)), 0, params
        )
    return Step("add_path", queue, (request,), path=draw(pick(_PATHS)))


def _wait(draw: Draw, cast: tuple[str, ...], queue: int) -> Step:
    most = draw(pick((16, 16, 16, 16, 4, 2, 1, 3, 0, 20)))
    least = min(draw(pick((0, 1, 1, 2, 3))), most)
    timeout = draw(pick((0, 0, 0, plan.MS // 2)))
    clock, flags, extra, reserved = draw(pick((1, 1, 0, 7))), 0, 0, 0
    wrong = draw(numbers(0, 49))
    if wrong == 49:
        extra = 1
    elif wrong == 48:
        flags = draw(pick((2, 4)))
    elif wrong == 47:
        reserved = 1
    elif wrong == 46:
        clock = draw(pick((2, 3, 11)))
    elif wrong == 45:
        least = most + 1
    elif wrong == 44:
        timeout = draw(pick((1 << 63, (1 << 63) - 1)))
        least = 0 if timeout < 1 << 63 else least
    elif wrong == 43:
        timeout, flags = 1, 1
    return Step(
        "wait", queue, min=least, max=most, timeout=timeout, clock=clock, flags=flags,
        extra=extra, reserved=reserved,
    )  # fmt: skip


def _change_wait(draw: Draw, cast: tuple[str, ...], queue: int) -> Step:
    count = draw(pick((1, 1, 2, 3, 0)))
    ops = [draw(pick((Op.ADD, Op.ADD, Op.MODIFY, Op.REMOVE))) for _ in range(count)]
    requests = tuple(_request(draw, cast, op, True) for op in ops)
    most = draw(pick((16, 16, 4, 0, 1)))
    extra = draw(pick((0,) * 20 + (1, -1))) if count else 0
    return Step("change_wait", queue, requests, min=min(1, most), max=most, extra=extra)


def _until(draw: Draw, cast: tuple[str, ...], queue: int) -> Step:
    """Adds timers that expire soon, and waits for as many events."""
    count = draw(pick((1, 1, 2)))
    mode = draw(pick((0, Flags.ONESHOT, Flags.DISPATCH, Flags.EDGE)))
    interval = draw(pick((0, 0, plan.SHORT, plan.HOUR)))
    clock = draw(pick((1, 0, 7)))
    first = draw(numbers(100, 139))
    requests = tuple(
        Request(
            int(TIMER),
            first + 100 * number,
            1,
            int(mode),
            number,
            int(Op.ADD),
            (plan.SHORT + number, interval, clock),
        )
        for number in range(count)
    )
    timeout = draw(pick((plan.SOON, plan.SOON, FOREVER)))
    return Step("change_wait", queue, requests, min=count, max=16, timeout=timeout)


def _post(draw: Draw, cast: tuple[str, ...], queue: int) -> Step:
    posts = tuple(
        Post(draw(pick((1, 1, 1, 1, 2, 3))), draw(numbers(0, 9)), int(_chance(draw, 3)))
        for _ in range(draw(pick((1, 1, 2, 3, 0))))
    )
    return _header(draw, Step("post", queue, posts=posts))


def _traffic(draw: Draw, cast: tuple[str, ...]) -> Step:
    kinds = [kind for kind in cast if kind != "files"]
    if not kinds:
        return _entry(draw)
    kind = draw(pick(kinds))
    ends = list(plan.PLACES[kind])
    spare = draw(pick(plan.SPARE))
    if kind in ("listener", "tcp-listener"):
        what = draw(pick(("connect", "connect", "accept", "accept", "send", "recv", "shutdown")))
        if what in ("connect", "accept"):
            return Step(what, fd=ends[0], to=spare)
        ends = [114, 115]
    elif kind in ("pipe", "eventfd"):
        what = draw(pick(("send", "send", "recv", "recv")))
        if kind == "pipe" and not _chance(draw, 5):
            ends = [ends[1 if what == "send" else 0]]
    else:
        what = draw(pick(("send", "send", "send", "recv", "recv", "shutdown")))
    fd = spare if _chance(draw, 10) else draw(pick(ends))
    if what == "shutdown":
        return Step(what, fd=fd, size=draw(numbers(0, 2)))
    return Step(what, fd=fd, size=draw(pick((1, 5, 100) if what == "send" else (4096, 1, 8, 5))))


def _descriptor(draw: Draw, cast: tuple[str, ...]) -> Step:
    what = draw(pick(("close", "close", "dup", "open")))
    if what == "open" and cast:
        return Step("open", kind=draw(pick(cast)))
    places = [fd for kind in cast for fd in plan.PLACES[kind]]
    if not places:
        return Step("info")
    if what == "dup":
        return Step(
            "dup", fd=draw(pick([*places, *plan.SPARE])), to=draw(pick([*plan.SPARE, *places]))
        )
    return Step("close", fd=draw(pick([*places, *plan.SPARE])))


def _entry(draw: Draw) -> Step:
    what = draw(
        pick(("create", "write", "write", "chmod", "unlink", "rename", "mkdir", "rmdir", "openat"))
    )
    name = draw(pick(plan.NAMES))
    if what == "rename":
        return Step(what, name=name, other=draw(pick(plan.NAMES)))
    if what == "write":
        return Step(what, name=name, size=1)
    if what == "chmod":
        return Step(what, name=draw(pick((*plan.NAMES, "."))), size=draw(pick((0o700, 0o755))))
    if what == "openat":
        return Step(what, name=name, to=draw(pick((116, 112))))
    return Step(what, name=name)


def _step(draw: Draw, cast: tuple[str, ...]) -> Step:
    queue = 1 if draw(numbers(0, 5)) == 5 else 0
    files = "files" in cast
    choice = draw(numbers(0, 99))
    if choice < 30:
        return _change(draw, cast, queue)
    if choice < 48:
        return _wait(draw, cast, queue)
    if choice < 68:
        return _entry(draw) if files and draw(numbers(0, 1)) else _traffic(draw, cast)
    if choice < 75:
        return _post(draw, cast, queue)
    if choice < 82:
        return _descriptor(draw, cast)
    if choice < 85 and files:
        return _path(draw, cast, queue)
    if choice < 88:
        return _change_wait(draw, cast, queue)
    if choice < 90:
        return _until(draw, cast, queue)
    if choice < 94:
        return Step("info", queue)
    if choice < 97:
        return Step("poll", queue)
    if choice < 99:
        return Step("read", queue, size=draw(pick((512, 64, 32, 31))))
    return Step(draw(pick(("close_queue", "open_queue"))), queue)


def _itself(step: Step) -> Step:
    """The same, where a queue is to watch no other one than itself, which it refuses."""
    own = plan.QUEUES[step.queue]
    requests = tuple(
        replace(request, ident=own) if request.ident in plan.QUEUES else request
        for request in step.requests
    )
    return replace(step, requests=requests)


def _transfer(draw: Draw) -> Request:
    """An ADD of a transfer, nearly always one that makes sense."""
    send = _chance(draw, 30)
    fd = draw(pick((100, 101, 104, 104, 105) if send else (100, 100, 101, 102, 103, 104, 105, 105)))
    events = int(NaioEvents.SEND if send else NaioEvents.RECV)
    flags = draw(pick((0, 0, 0, int(Flags.ONESHOT))))
    if not send and _chance(draw, 40):
        flags |= int(Flags.WAITALL)
    slot = draw(numbers(0, transfers.SLOTS - 1))
    length = draw(pick((1, 5, 20, 40, transfers.SLOT)))
    if send and _chance(draw, 5):
        length = 0
    wrong = draw(numbers(0, 49))
    if wrong == 49:
        flags |= draw(pick((1, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x800)))
    elif wrong == 48:
        events = draw(pick((0, 3, 8, 0x10000)))
    elif wrong == 47:
        length = draw(pick((0, transfers.MAX + 1, 1 << 63)))
    elif wrong == 46:
        slot = transfers.NOWHERE
    elif wrong >= 44:
        fd = draw(pick((117, transfers.PIPE, 100, 1 << 31, (1 << 32) - 1)))
    return Request(
        int(EventType.NAIO), draw(numbers(0, 5)), events, flags, draw(numbers(0, 9)), 0,
        (slot, length, fd),
    )  # fmt: skip


def _transfer_step(draw: Draw) -> Step:
    queue = 1 if draw(numbers(0, 4)) == 4 else 0
    choice = draw(numbers(0, 99))
    if choice < 35:
        count = draw(pick((1, 1, 1, 2, 3)))
        wanted = [_transfer(draw) for _ in range(count)]
        # One that sends is not made beside others.
        if any(request.events == NaioEvents.SEND for request in wanted):
            del wanted[1:]
        return Step("add", queue, tuple(wanted))
    if choice < 45:
        count = draw(pick((1, 1, 2)))
        gone = tuple(
            Request(int(EventType.NAIO), draw(numbers(0, 5)), cookie=int(_chance(draw, 3)))
            for _ in range(count)
        )
        return Step("remove", queue, gone)
    if choice < 47:
        return Step("modify", queue, (_transfer(draw),))
    if choice < 62:
        return Step("wait", queue, max=draw(pick((16, 16, 16, 4, 1, 2))))
    fd = draw(pick((100, 101, 101, 102, 103, 103, 104, 104, 105)))
    if choice < 83:
        return Step("send", fd=fd, size=draw(pick((1, 5, 5, 20, 64, 100))))
    if choice < 91:
        return Step("recv", fd=fd, size=draw(pick((100, 100, 1, 8))))
    if choice < 94:
        return Step("shutdown", fd=fd)
    if choice < 97:
        return Step("close", fd=fd)
    return Step(draw(pick(("close_queue", "open_queue"))), queue)


def _of_transfers(draw: Draw) -> Program:
    steps = tuple(_transfer_step(draw) for _ in range(draw(numbers(5, 40))))
    return Program((transfers.NAME,), steps)


@st.composite
def programs(draw: Draw) -> Program:
    """A program of up to forty steps."""
    if _chance(draw, 25):
        return _of_transfers(draw)
    count = draw(numbers(1, 3))
    kinds = [draw(pick(tuple(plan.PLACES))) for _ in range(count)]
    cast = tuple(dict.fromkeys(kinds))
    # Something to begin with, or most of what follows would be about nothing.
    first = tuple(_request(draw, cast, Op.ADD, False) for _ in range(draw(numbers(1, 5))))
    steps = [Step("add", 0, first)]
    steps += [_itself(_step(draw, cast)) for _ in range(draw(numbers(5, 40)))]
    return Program(cast, tuple(steps))


def generate(count: int, number: int) -> list[Program]:
    """So many programs, no two alike: always the same of one seed, by one version of hypothesis."""
    found: dict[Program, None] = {}
    each = min(count, _AT_ONCE)
    turn = 0
    with ProcessPoolExecutor() as workers:
        while len(found) < count:
            # It repeats itself now and then, the more the longer it goes on.
            turns = range(turn, turn + (count - len(found)) // each + 1)
            for some in workers.map(_some, [(number, turn, each) for turn in turns]):
                found.update(dict.fromkeys(some))
            turn = turns.stop
    return list(found)[:count]


def _some(turn: tuple[int, int, int]) -> list[Program]:
    """As many as hypothesis makes in one go."""
    number, chunk, count = turn
    found: list[Program] = []

    @seed(number * 1_000_003 + chunk)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def collect(program: Program) -> None:
        found.append(program)

    collect()
    return found
