# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract, doc/kevent.4, as a small program that no kernel and no descriptor is needed for.

It follows a program step by step, with the answers of a device at hand, and says what is wrong with
them.  What the contract says is demanded as it stands: return values, errnos, results, each event
and its place.  What it leaves open is taken as it is answered, and held against what comes later:

- Of a kevent that something may have woken without anything being new (the shutdown of a socket
  wakes all who wait for it), or whose condition came and went, it is not said whether it is on the
  ready list until a WAIT has looked.  `left` and the `ready` of INFO may count it.
- An item got on the list between `low` and `high`; so items may change places where these overlap.

Programs have one thread, so nothing here is ever claimed.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Iterator
from typing import Any

from pykevent.abi import EventType, FileKind, Flags, Op

from . import program as plan
from . import transfers
from .files import Files, OpenFile
from .kevents import (
    INODE,
    NEVER,
    PATH,
    POLL,
    READABLE,
    SOCKET,
    TIMER,
    USER,
    Happened,
    Item,
    Kevent,
    Queue,
    Renames,
    describe,
)
from .program import Request, Step

Answer = dict[str, Any]

KTIME_MAX = (1 << 63) - 1
MODES = Flags.EDGE | Flags.ONESHOT | Flags.DISPATCH | Flags.DISABLED

TAKES = {
    SOCKET: (0x601F, MODES | Flags.NOTIFY_BROKEN | Flags.BYTES),
    POLL: (0x27DF, MODES | Flags.NOTIFY_BROKEN),
    INODE: (0x01FF, MODES | Flags.NOTIFY_BROKEN),
    TIMER: (1, MODES | Flags.ABSTIME),
    USER: (1, MODES),
    PATH: (0x01FF, MODES | Flags.NOFOLLOW),
}
"""The events and flags of each type."""


class WrongError(Exception):
    """An answer is not what the contract says."""

    def __init__(self, what: str, expected: object, got: object) -> None:
        super().__init__(f"{what}: the contract says {expected}, the answer is {got}")
        self.what = what
        self.expected = expected


class Model:
    """All queues, and the files that they watch."""

    def __init__(self, cast: tuple[str, ...], start: Answer, *, simulated: bool = False) -> None:
        self.simulated = simulated
        self.files = Files(cast)
        self.queues: list[Queue | None] = [Queue() for _ in plan.QUEUES]
        self.start = start["info"]
        self.pinned = self.start[2]
        self.name_limit = self.start[3]
        self.now = 0
        self.renames = Renames()
        self.queue_files = [OpenFile("queue", queue=number) for number in range(len(plan.QUEUES))]
        self.files.look(start)
        if self.start[0] != 1 or any(self.start[7:]):
            raise WrongError("INFO of the first queue", "version 1 and nothing in it", self.start)

    def step(self, step: Step, answer: Answer) -> None:
        """Follow one step; a WrongError where its answer is not as it should be."""
        self.now += 1000
        if answer["ret"] == "hangs":
            raise WrongError("the call", "an answer", "none, it hangs")
        handler = getattr(self, f"do_{step.do}", None)
        if handler is not None:
            queue = self.queues[step.queue]
            if queue is None:
                # poll(2) says so in its own way.
                gone = select.POLLNVAL if step.do == "poll" else -errno.EBADF
                self.expect("the call's answer", gone, answer["ret"])
            else:
                self.called(queue)
                handler(step, answer, queue)
        elif step.do == "open_queue":
            self.queues[step.queue] = Queue()
            self.queue_files[step.queue] = OpenFile("queue", queue=step.queue)
        elif step.do == "close_queue":
            self.queues[step.queue] = None
        else:
            self.around(step, answer)
        self.settle()

    def called(self, queue: Queue) -> None:
        """A call of the device looks at what shows only to who looks."""
        queue.called = self.now
        for k in queue.kevents:
            if k.untold:
                k.untold = False
                k.high = self.now - 1

    @staticmethod
    def expect(what: str, expected: object, got: object) -> None:
        """Complain of an answer that is not the expected one; a tuple is a range."""
        if isinstance(expected, tuple):
            assert isinstance(got, int)
            if expected[0] <= got <= expected[1]:
                return
        elif expected == got:
            return
        raise WrongError(what, expected, got)

    def all(self) -> Iterator[tuple[Queue, Kevent]]:
        """Every kevent, with its queue; either may be removed meanwhile."""
        for queue in self.queues:
            if queue is not None:
                for k in list(queue.kevents):
                    yield queue, k

    def settle(self) -> None:
        """Whatever the step was: what holds is on the list, what does not may have left it."""
        for _, k in self.all():
            k.unseen = self.simulated and self.file(k.ident) is not k.file
            if not k.conditional or k.broken or k.asleep:
                continue
            if not k.holds():
                k.high = NEVER
            elif k.level:
                k.join(self.now)

    # Around the device

    def around(self, step: Step, answer: Answer) -> None:
        """A step that does something to the files."""
        before = {file: file.bits for file in self.files.open}
        effect = self.files.step(step, answer)
        self.files.look(answer)
        for file in effect.closed:
            self.closed(file)
        for _, k in self.all():
            if not k.conditional or k.broken or k.file is None:
                continue
            new = k.file.bits & ~before.get(k.file, 0) if k.file in before else 0
            certain = new | effect.certain.get(k.file, 0)
            if certain & k.mask and k.holds():
                k.join(self.now)
            elif (effect.possible.get(k.file, 0) | certain) & k.mask:
                k.may_join(self.now)
        for inode, happened in effect.happened:
            for _, k in self.all():
                if k.inode is inode:
                    self.happens(k, *happened, name_is_new=happened[2] in self.files.fresh)
        for inode in effect.ended:
            for queue, k in self.all():
                if k.inode is inode:
                    self.ends(queue, k)

    def closed(self, file: OpenFile) -> None:
        """The last close of a file: its kevents end."""
        for queue, k in self.all():
            if k.file is not file or k.pinned:
                continue
            if k.broken:
                # It waits to say so already.
                continue
            if k.flags & Flags.NOTIFY_BROKEN:
                self.ends(queue, k)
                continue
            queue.kevents.remove(k)
            if file.is_socket:
                queue.ghosts.append((k.type, k.ident))
            else:
                queue.gone += 1

    def ends(self, queue: Queue, k: Kevent) -> None:
        """One last event says that the source is gone, behind what has happened before."""
        if k.broken:
            return
        # What was kept off the list so far, because it slept or was to, joins it.
        listed = k.listed()
        k.broken, k.asleep = True, False
        for happened in k.waiting:
            if happened not in listed:
                happened.low = happened.high = self.now
        if not (k.waiting and k.flags & Flags.ONESHOT):
            # Of what has happened since the last call nobody may have heard before the end.
            unheard = k.high >= queue.called
            k.untold = self.simulated and k.file is not None and k.file.anonymous and unheard
            k.join(self.now)

    def relist(self, k: Kevent, anew: bool) -> None:
        """Inode events that waited go on the list again, or for the first time."""
        for happened in k.waiting:
            if anew:
                happened.low = self.now
            happened.high = self.now

    def happens(
        self, k: Kevent, events: int, rename: int, name: str | None, *, name_is_new: bool
    ) -> None:
        """Something happened to an inode that is watched."""
        if k.broken or not events & k.events:
            return
        last = k.waiting[-1] if k.waiting else None
        if (
            last is not None
            and not rename
            and (last.events, last.rename, last.name) == (events, 0, name)
        ):
            last.count += 1
            last.exact &= not (self.simulated and name_is_new)
            return
        if sum(bool(happened.events) for happened in k.waiting) >= k.limit:
            if k.overflow is None or k.overflow not in k.waiting:
                k.overflow = Happened(0, 0, None, self.now, self.now)
                k.waiting.append(k.overflow)
            return
        k.waiting.append(Happened(events, rename, name, self.now, self.now))

    # Changes

    def do_add(self, step: Step, answer: Answer, queue: Queue) -> None:
        """ADD, MODIFY, REMOVE."""
        if step.flags or step.reserved or step.extra > 0:
            self.expect("the call's answer", -errno.EINVAL, answer["ret"])
            return
        op = {"add": Op.ADD, "modify": Op.MODIFY, "remove": Op.REMOVE}[step.do]
        count = len(step.requests) + step.extra
        self.expect("the call's answer", (0, count), answer["ret"])
        good = self.changes(queue, step.requests[:count], answer, op)
        self.expect("the call's answer", good, answer["ret"])
        self.expect("results behind the count", [-77] * -step.extra, answer["results"][count:])

    do_modify = do_remove = do_add

    def changes(
        self, queue: Queue, requests: tuple[Request, ...], answer: Answer, op: Op | None
    ) -> int:
        """Requests; how many succeed."""
        good = 0
        for number, request in enumerate(requests):
            self.now += 1
            result = self.change(queue, request, op)
            self.expect(f"the result of request {number}", result, answer["results"][number])
            good += not result
        return good

    def change(self, queue: Queue, request: Request, op: Op | None) -> int:
        """One request; its result."""
        if op is None:
            if request.op not in tuple(Op):
                return -errno.EINVAL
            op = Op(request.op)
        elif request.op:
            return -errno.EINVAL
        if request.type not in TAKES:
            return -errno.ENXIO
        if op == Op.REMOVE:
            return self.remove(queue, request)
        if op == Op.ADD and request.type == PATH:
            return -errno.EINVAL
        if not self.acceptable(request):
            return -errno.EINVAL
        file = None
        if request.type in (SOCKET, POLL, INODE):
            file = self.file(request.ident)
            if file is None:
                return -errno.EBADF
        if op == Op.ADD:
            return self.add(queue, request, file)
        return self.modify(queue, request, file)

    def file(self, fd: int) -> OpenFile | None:
        """What a descriptor stands for."""
        if fd in plan.QUEUES:
            number = plan.QUEUES.index(fd)
            return None if self.queues[number] is None else self.queue_files[number]
        return self.files.at(fd)

    def acceptable(self, request: Request) -> bool:
        """Whether the type takes all that is said."""
        events, flags = (int(mask) for mask in TAKES[EventType(request.type)])
        if request.flags & ~flags or request.events & ~events:
            return False
        if request.flags & Flags.ONESHOT and request.flags & Flags.DISPATCH:
            return False
        first, second, third = request.params
        if request.type in (TIMER, USER) and request.events != 1:
            return False
        if request.type == TIMER:
            if first > KTIME_MAX or second > KTIME_MAX or third not in (0, 1, 7):
                return False
            # Nobody's machine is up for less than a second, or for a hundred years.
            return bool(request.flags & Flags.ABSTIME) or first <= KTIME_MAX - (1 << 61)
        if request.type in (INODE, PATH):
            return bool(request.events) and first <= self.name_limit and not second | third
        return not first | second | third

    def add(self, queue: Queue, request: Request, file: OpenFile | None) -> int:
        """ADD of what is acceptable."""
        queue.ghosts = [ghost for ghost in queue.ghosts if ghost != (request.type, request.ident)]
        other = queue.find(request.type, request.ident, file)
        if other is not None and not other.broken:
            return -errno.EEXIST
        k = Kevent(request.type, request.ident, file, born=self.now)
        if request.type == SOCKET:
            assert file is not None
            if not file.is_socket:
                return -errno.ENOTSOCK
        if request.type == POLL:
            assert file is not None
            if file.queue is not None:
                return -errno.ELOOP
            if not file.pollable:
                return -errno.EPERM
            k.pinned = bool(file.pinned_as & self.pinned)
            if k.pinned and request.flags & Flags.NOTIFY_BROKEN:
                return -errno.EOPNOTSUPP
        if request.type == INODE:
            assert file is not None
            if file.anonymous and (self.simulated or self.pinned & FileKind.ANON):
                return -errno.EOPNOTSUPP
            k.inode = file.inode or file.node
        queue.kevents.append(k)
        self.take(k, request)
        if k.conditional:
            self.look_at(k)
        if k.type == TIMER:
            self.set(k)
        return 0

    def look_at(self, k: Kevent) -> None:
        """ADD and MODIFY look at the source."""
        assert k.file is not None
        if k.holds():
            k.join(self.now)
        elif k.file.bits & k.mask:
            # A listening socket has something to accept, and is asked for something to receive.
            k.may_join(self.now)

    def take(self, k: Kevent, request: Request) -> None:
        """What ADD and MODIFY have in common."""
        k.cookie, k.events, k.flags = request.cookie, request.events, request.flags
        k.params = request.params
        k.asleep = bool(request.flags & Flags.DISABLED)
        k.limit = request.params[0] or max(self.name_limit // 16, 1)

    def set(self, k: Kevent) -> None:
        """Set a timer: programs have such as are due, such as expire soon, and such as never do."""
        first, interval, _ = k.params
        absolute = bool(k.flags & Flags.ABSTIME)
        k.leave()
        k.short = not absolute and 0 < first < plan.HOUR
        k.counts = bool(interval) and (absolute or interval < plan.HOUR)
        if k.short:
            k.may_join(self.now)
        elif not first or (absolute and first < plan.HOUR):
            k.join(self.now)

    def modify(self, queue: Queue, request: Request, file: OpenFile | None) -> int:
        """MODIFY of what is acceptable."""
        k = queue.find(request.type, request.ident, file)
        if k is None or k.broken:
            return -errno.ENOENT
        if k.pinned and request.flags & Flags.NOTIFY_BROKEN:
            return -errno.EOPNOTSUPP
        anew = k.asleep
        self.take(k, request)
        if k.asleep:
            k.leave()
        if k.type == TIMER:
            self.set(k)
        elif k.type == USER and k.posts:
            k.join(self.now)
        elif k.conditional and not k.asleep:
            self.look_at(k)
        elif k.waiting and not k.asleep:
            self.relist(k, anew)
        return 0

    def remove(self, queue: Queue, request: Request) -> int:
        """REMOVE."""
        stale = bool(request.flags & Flags.STALE)
        named = request.type in (SOCKET, POLL, INODE)
        if (
            request.flags & ~int(Flags.STALE)
            or (stale and not named)
            or request.cookie
            or request.events
            or any(request.params)
        ):
            return -errno.EINVAL
        file = self.file(request.ident) if named else None
        if not stale:
            if named and file is None:
                return -errno.EBADF
            k = queue.find(request.type, request.ident, file)
            if k is None:
                return -errno.ENOENT
            queue.kevents.remove(k)
            return 0
        found = [
            k
            for k in queue.kevents
            if (k.type, k.ident) == (request.type, request.ident)
            and k.file is not file
            and not k.broken
        ]
        for k in found:
            queue.kevents.remove(k)
        return 0 if found else -errno.ENOENT

    def do_add_path(self, step: Step, answer: Answer, queue: Queue) -> None:
        """ADD_PATH."""
        result = self.path(queue, step)
        self.expect("the result", [result], answer.get("results"))
        self.expect("the call's answer", int(not result), answer["ret"])

    def path(self, queue: Queue, step: Step) -> int:
        """What becomes of it."""
        request = step.requests[0]
        if request.op:
            return -errno.EINVAL
        if request.type not in TAKES:
            return -errno.ENXIO
        if request.type != PATH or not self.acceptable(request):
            return -errno.EINVAL
        inode = self.files.look_up(step.path)
        if isinstance(inode, int):
            return inode
        result = self.add(queue, request, None)
        if not result:
            queue.kevents[-1].inode = inode
        return result

    def do_post(self, step: Step, answer: Answer, queue: Queue) -> None:
        """POST."""
        if step.flags or step.reserved or step.extra > 0:
            self.expect("the call's answer", -errno.EINVAL, answer["ret"])
            return
        count = len(step.posts) + step.extra
        good = 0
        for number, post in enumerate(step.posts[:count]):
            self.now += 1
            k = queue.find(USER, post.ident, None)
            result = -errno.EINVAL if post.flags else 0 if k is not None else -errno.ENOENT
            self.expect(f"the result of posting {number}", result, answer["results"][number])
            if not result:
                assert k is not None
                k.posts += 1
                k.data = post.data
                k.join(self.now)
                good += 1
        self.expect("the call's answer", good, answer["ret"])

    # Waiting

    def do_wait(self, step: Step, answer: Answer, queue: Queue) -> None:
        """WAIT and CHANGE_WAIT."""
        change = step.do == "change_wait"
        count = len(step.requests) + step.extra
        if self.bad_wait(step, change):
            self.expect("the call's answer", -errno.EINVAL, answer["ret"])
            return
        good = 0
        if "results" in answer:
            good = self.changes(queue, step.requests[:count], answer, None)
            self.expect("changed", good, answer["changed"])
            self.settle()
        self.now += 100
        self.deliver(queue, answer, step.max)
        waited = answer["ret"] >= 0 and step.timeout >= plan.SOON and good == count
        if waited and answer["ret"] < step.min:
            raise WrongError("the number of events", f"{step.min} at least", answer["ret"])

    @staticmethod
    def bad_wait(step: Step, change: bool) -> bool:
        """Whether the call itself is refused."""
        count = len(step.requests) + step.extra
        # What is free behind the requests that there are is less than another one.
        too_many = count * 56 + step.max * 32 > len(step.requests) * 56 + step.max * 32
        if step.flags & ~1 or step.reserved or step.min > step.max or too_many:
            return True
        if (count and not change) or step.clock not in (0, 1, 7):
            return True
        forever = step.timeout == (1 << 64) - 1
        most = KTIME_MAX if step.flags & 1 else KTIME_MAX - (1 << 61)
        return not forever and step.timeout > most

    do_change_wait = do_wait

    def deliver(self, queue: Queue, answer: Answer, room: int) -> None:
        """Events, and what they leave behind."""
        items = list(queue.items())
        events = answer.get("events", [])
        if answer["ret"] == -errno.EMSGSIZE:
            first = min((item.high for item in items if item.certain), default=NEVER)
            if not any(item.records > room and item.low <= first for item in items) or not room:
                raise WrongError("the call's answer", "no EMSGSIZE: it fits", answer["ret"])
        else:
            self.expect("the number of events", len(events), answer["ret"])
        used, current = 0, -1
        for number, event in enumerate(events):
            fitting = [item for item in items if self.renames.fit(item.expected(), event)]
            if not fitting:
                listed = "; ".join(str(item) for item in items) or "no more"
                raise WrongError(f"event {number}", listed, describe(event))
            item = min(fitting, key=lambda item: item.high)
            if item.high < current:
                listed = "; ".join(str(other) for other in items)
                raise WrongError(f"the place of event {number}", listed, describe(event))
            self.renames.learn(item.expected(), event)
            current = max(current, item.low)
            used += item.records
            items.remove(item)
            self.delivered(queue, item, self.now + number)
            k = item.kevent
            if item.happened is not None and k in queue.kevents:
                items += [new for new in queue.items() if new.kevent is k]
        self.rest(items, room - used, current)
        misfit = answer["ret"] == -errno.EMSGSIZE or self.misfit(items, room - used)
        if used < room and not misfit:
            self.looked_at(queue)
        if "records" in answer:
            self.expect("records", used, answer["records"])
        if "left" in answer:
            least, most = queue.ready()
            self.expect("left", (least, most), answer["left"])

    @staticmethod
    def misfit(items: list[Item], room: int) -> bool:
        """Whether the next event may not have fitted."""
        first = min((item.high for item in items if item.certain), default=NEVER)
        return any(item.records > room and item.low <= first for item in items)

    def rest(self, items: list[Item], room: int, current: int) -> None:
        """Items that were not delivered: there was no room, or they are not certain."""
        certain = [item for item in items if item.certain]
        if room > 0 and certain and not self.misfit(items, room):
            listed = "; ".join(str(item) for item in certain)
            raise WrongError("further events", listed, "none")
        for item in certain:
            if item.high < current:
                raise WrongError("an event that is older than a delivered one", item, "left behind")

    def delivered(self, queue: Queue, item: Item, now: int) -> None:
        """What becomes of a kevent."""
        k = item.kevent
        if item.happened is not None:
            k.waiting.remove(item.happened)
            if k.flags & Flags.ONESHOT:
                queue.kevents.remove(k)
            elif k.flags & Flags.DISPATCH and not k.broken:
                k.asleep = True
            return
        if k.broken or k.flags & Flags.ONESHOT:
            queue.kevents.remove(k)
            return
        k.leave()
        k.posts = 0
        if k.flags & Flags.DISPATCH:
            k.asleep = True
        elif k.level:
            k.low = k.high = now
        elif k.type == TIMER and 0 < k.params[1] < plan.HOUR:
            k.short = True
            k.may_join(now)

    def looked_at(self, queue: Queue) -> None:
        """A WAIT came to the end of the list: what was not delivered is not on it."""
        for k in queue.kevents:
            if k.maybe and k.type != TIMER:
                k.leave()

    def do_read(self, step: Step, answer: Answer, queue: Queue) -> None:
        """read(2), which does not block."""
        room = step.size // 32
        if not room:
            self.expect("the call's answer", -errno.EINVAL, answer["ret"])
            return
        if answer["ret"] == -errno.EAGAIN:
            answer = {**answer, "ret": 0}
        elif answer["ret"] >= 0:
            self.expect("bytes", True, answer["ret"] > 0 and not answer["ret"] % 32)
            answer = {**answer, "ret": len(answer["events"])}
        self.deliver(queue, answer, room)

    def do_poll(self, step: Step, answer: Answer, queue: Queue) -> None:
        """poll(2) of the queue."""
        items = list(queue.items())
        if any(item.certain for item in items):
            self.expect("what poll(2) says", READABLE, answer["ret"])
        elif not items:
            self.expect("what poll(2) says", 0, answer["ret"])
        elif answer["ret"] not in (0, READABLE):
            raise WrongError("what poll(2) says", "POLLIN, POLLRDNORM or nothing", answer["ret"])
        if not answer["ret"]:
            self.looked_at(queue)

    def do_info(self, step: Step, answer: Answer, queue: Queue) -> None:
        """INFO."""
        info = answer["info"]
        self.expect("INFO but for its counts", self.start[:7], info[:7])
        self.expect("reserved fields of INFO", [0] * 8, info[10:])
        mine = len(queue.kevents)
        self.expect("kevents", (mine, mine + len(queue.ghosts)), info[7])
        self.expect("ready", queue.ready(), info[8])
        queue.gone = 0
        everything = sum(1 for _ in self.all())
        most = everything + sum(len(q.ghosts) + q.gone for q in self.queues if q is not None)
        self.expect("user_kevents", (everything, most), info[9])


def check(
    program: plan.Program, answers: list[Answer], *, simulated: bool = False
) -> tuple[int, WrongError] | None:
    """The first step whose answer is wrong, and why; -1 is the beginning."""
    if program.cast == (transfers.NAME,):
        found = transfers.check(program, answers)
        return found and (found[0], WrongError(*found[1].args))
    at = -1
    try:
        model = Model(program.cast, answers[0], simulated=simulated)
        for step, answer in zip(program.steps, answers[1:], strict=False):
            at += 1
            model.step(step, answer)
    except WrongError as wrong:
        return at, wrong
    return None
