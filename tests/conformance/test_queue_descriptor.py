# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue's own descriptor: polled, read, inherited, passed on, nested, and never in a circle."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

import pykevent
from pykevent import Event, EventType, Flags, PollEvents, Queue, parse_records

from .support import (
    DEADLINE,
    InThread,
    as_nobody,
    child,
    cookies,
    now,
    one,
    poll_bits,
    refused,
    sleeps,
)

pytestmark = pytest.mark.needs("USER")


@pytest.fixture
def user(queue: Queue) -> Queue:
    """The queue with user event 1."""
    queue.add(pykevent.user_event(1, cookie=11))
    return queue


def test_poll_says_pollin_when_an_event_is_ready_and_not_before(user: Queue) -> None:
    asked = select.POLLIN | select.POLLRDNORM | select.POLLOUT | select.POLLPRI
    assert poll_bits(user.fileno(), asked) == 0
    user.post(1)
    assert poll_bits(user.fileno(), asked) == select.POLLIN | select.POLLRDNORM
    now(user)
    assert poll_bits(user.fileno(), asked) == 0


def test_an_empty_queue_is_not_readable(queue: Queue) -> None:
    assert poll_bits(queue.fileno(), select.POLLIN) == 0


@pytest.mark.needs("POLL")
def test_poll_looks_again_at_what_is_level(queue: Queue, pipe: tuple[int, int]) -> None:
    queue.add(pykevent.poll_event(pipe[0], PollEvents.IN))
    os.write(pipe[1], b"x")
    assert poll_bits(queue.fileno(), select.POLLIN)
    os.read(pipe[0], 1)
    assert not poll_bits(queue.fileno(), select.POLLIN)


def test_a_removed_kevent_is_not_readable(user: Queue) -> None:
    user.post(1)
    user.remove(EventType.USER, 1)
    assert not poll_bits(user.fileno(), select.POLLIN)


def test_poll_sleeps_until_an_event_is_ready(user: Queue) -> None:
    poller = select.poll()
    poller.register(user, select.POLLIN)
    polls = InThread(lambda: poller.poll(DEADLINE * 1000)).until_asleep("poll")
    user.post(1)
    assert polls.result() == [(user.fileno(), select.POLLIN)]


def test_select_sleeps_until_an_event_is_ready(user: Queue) -> None:
    selects = InThread(lambda: select.select([user], [], [], DEADLINE)).until_asleep("poll")
    user.post(1)
    assert selects.result() == ([user], [], [])


@pytest.mark.parametrize("edge", [0, select.EPOLLET], ids=["level", "edge"])
def test_epoll_holds_a_queue(user: Queue, edge: int) -> None:
    with select.epoll() as epoll:
        epoll.register(user, select.EPOLLIN | edge)
        assert epoll.poll(0) == []
        for _ in range(3):
            user.post(1)
            assert epoll.poll(DEADLINE) == [(user.fileno(), select.EPOLLIN)]
            assert epoll.poll(0) == ([] if edge else [(user.fileno(), select.EPOLLIN)])
            now(user)
            assert epoll.poll(0) == []


@pytest.mark.needs("POLL")
def test_what_others_hold_while_they_look_is_told_again(
    queue: Queue, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            poll_bits(queue.fileno(), select.POLLIN)

    with select.epoll() as epoll:
        epoll.register(queue, select.EPOLLIN | select.EPOLLET)
        looker = InThread(look)
        try:
            for _ in range(300):
                queue.add(pykevent.poll_event(reader, PollEvents.IN, Flags.ONESHOT, cookie=1))
                os.write(writer, b"x")
                events: list[Event] = []
                while not events:
                    assert epoll.poll(DEADLINE), "an edge was lost"
                    events = now(queue)
                assert cookies(events) == [1]
                os.read(reader, 1)
        finally:
            stop.set()
        looker.result()


def test_epoll_wakes_for_a_queue(user: Queue) -> None:
    with select.epoll() as epoll:
        epoll.register(user, select.EPOLLIN)
        polls = InThread(lambda: epoll.poll(DEADLINE)).until_asleep("poll")
        user.post(1)
        assert polls.result() == [(user.fileno(), select.EPOLLIN)]


def test_asyncio_holds_a_queue(user: Queue) -> None:
    async def collects() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        done = loop.create_future()

        def readable() -> None:
            seen.extend(cookies(now(user)))
            if len(seen) == 3:
                done.set_result(None)
            else:
                user.post(1)

        loop.add_reader(user, readable)
        user.post(1)
        await asyncio.wait_for(done, DEADLINE)
        loop.remove_reader(user)
        return seen

    assert asyncio.run(collects()) == [11, 11, 11]


def test_read_gives_the_records_that_wait_gives(user: Queue) -> None:
    user.post(1, 99)
    (event,) = parse_records(os.read(user.fileno(), 4096))
    assert (event.type, event.ident, event.cookie, event.data) == (EventType.USER, 1, 11, 99)
    assert now(user) == []


def test_read_gives_as_many_as_fit(queue: Queue) -> None:
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in range(5))
    queue.post_many((ident, 0) for ident in range(5))
    assert cookies(parse_records(os.read(queue.fileno(), 2 * 32))) == [0, 1]
    assert cookies(parse_records(os.read(queue.fileno(), 32 + 31))) == [2]
    assert cookies(parse_records(os.read(queue.fileno(), 4096))) == [3, 4]


@pytest.mark.needs("INODE")
def test_read_gives_names_and_refuses_room_that_is_too_small(queue: Queue, tmp_path: Path) -> None:
    queue.add_path(tmp_path, pykevent.InodeEvents.CREATE, 1)
    (tmp_path / ("n" * 100)).touch()
    with refused(errno.EMSGSIZE):
        os.read(queue.fileno(), 4 * 32)
    (event,) = parse_records(os.read(queue.fileno(), 5 * 32))
    assert event.name == b"n" * 100


def test_read_sleeps_until_an_event_is_ready(user: Queue) -> None:
    reads = InThread(lambda: os.read(user.fileno(), 4096)).until_asleep("read")
    user.post(1)
    assert cookies(parse_records(reads.result())) == [11]


def test_read_of_a_nonblocking_queue_is_eagain_when_nothing_is_ready(stack: ExitStack) -> None:
    queue = stack.enter_context(pykevent.open(nonblocking=True))
    queue.add(pykevent.user_event(1))
    with refused(errno.EAGAIN):
        os.read(queue.fileno(), 4096)
    queue.post(1)
    assert len(os.read(queue.fileno(), 4096)) == 32
    with refused(errno.EAGAIN):
        os.read(queue.fileno(), 4096)


@pytest.mark.parametrize("size", [1, 31])
def test_read_of_less_than_a_record_is_einval(user: Queue, size: int) -> None:
    user.post(1)
    with refused(errno.EINVAL):
        os.read(user.fileno(), size)
    assert len(now(user)) == 1


def test_a_reader_and_a_waiter_share_the_events(queue: Queue) -> None:
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in range(2))
    reads = InThread(lambda: os.read(queue.fileno(), 32)).until_asleep("read")
    waits = InThread(lambda: queue.wait(None, max=1)).until_asleep()
    queue.post_many([(0, 0), (1, 0)])
    both = cookies(parse_records(reads.result())) + cookies(waits.result())
    assert sorted(both) == [0, 1]


def test_the_descriptor_is_closed_by_exec(queue: Queue) -> None:
    assert fcntl.fcntl(queue, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    program = f"import os; os.fstat({queue.fileno()})"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        close_fds=False,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=DEADLINE * 2,
    )
    assert done.returncode == 1


def test_a_forked_process_uses_the_same_queue(user: Queue, stack: ExitStack) -> None:
    held = os.dup(user.fileno())
    stack.callback(os.close, held)

    def uses() -> None:
        mine = Queue.fromfd(held)
        assert mine.info().kevents == 1
        mine.add(pykevent.user_event(2, cookie=22))
        mine.post(2)

    with child(uses) as process:
        process.finish()
    assert one(user).cookie == 22
    assert user.info().kevents == 2


def test_a_queue_passed_to_another_process_works_there(user: Queue) -> None:
    near, far = socket.socketpair()

    def uses() -> None:
        near.close()
        _, (received,), _, _ = socket.recv_fds(far, 1, 1)
        with Queue.fromfd(received) as mine:
            mine.post(1, 5)
            assert cookies(now(mine)) == [11]
            mine.post(1, 6)

    with near, far, child(uses) as process:
        socket.send_fds(near, [b"q"], [user.fileno()])
        process.finish()
    assert one(user).data == 6


@pytest.mark.needs("POLL")
def test_a_queue_closed_here_lives_on_where_it_was_passed(pipe: tuple[int, int]) -> None:
    near, far = socket.socketpair()
    with near, far:
        with pykevent.open() as queue:
            queue.add(pykevent.poll_event(pipe[0], PollEvents.IN, cookie=3))
            socket.send_fds(near, [b"q"], [queue.fileno()])
        os.write(pipe[1], b"x")
        _, (received,), _, _ = socket.recv_fds(far, 1, 1)
    with Queue.fromfd(received) as again:
        assert cookies(now(again)) == [3]


def test_closing_the_queue_removes_everything(queue: Queue, pipe: tuple[int, int]) -> None:
    before = queue.info().user_kevents
    with pykevent.open() as other:
        other.add_many(pykevent.user_event(ident) for ident in range(10))
        assert queue.info().user_kevents == before + 10
    assert queue.info().user_kevents == before


@pytest.mark.needs("POLL")
def test_a_queue_that_holds_a_queue_is_as_readable_as_that(
    user: Queue, new_queue: Callable[[], Queue]
) -> None:
    outer, outermost = new_queue(), new_queue()
    outer.add(pykevent.poll_event(user, PollEvents.IN))
    outermost.add(pykevent.poll_event(outer, PollEvents.IN))
    assert not poll_bits(outermost.fileno(), select.POLLIN)
    waits = InThread(lambda: outermost.wait(DEADLINE)).until_asleep()
    user.post(1)
    assert [event.ident for event in waits.result()] == [outer.fileno()]
    assert poll_bits(outermost.fileno(), select.POLLIN)
    now(user)
    assert not poll_bits(outermost.fileno(), select.POLLIN)
    assert now(outermost) == []


@pytest.mark.needs("POLL")
def test_a_queue_that_waits_is_not_woken_for_another_queue_that_has_nothing(
    user: Queue, new_queue: Callable[[], Queue]
) -> None:
    outer = new_queue()
    outer.add(pykevent.poll_event(user, PollEvents.IN, Flags.EDGE))
    waits = InThread(lambda: outer.wait(None)).until_asleep()
    before = sleeps(os.getpid(), waits.tid)
    user.add(pykevent.user_event(2))
    user.remove(EventType.USER, 2)
    assert waits.asleep()
    assert sleeps(os.getpid(), waits.tid) == before
    user.post(1)
    waits.result()


@pytest.mark.needs("POLL")
def test_a_queue_refuses_itself(queue: Queue) -> None:
    twin = os.dup(queue.fileno())
    try:
        for fd in (queue.fileno(), twin):
            with refused(errno.ELOOP):
                queue.add(pykevent.poll_event(fd, PollEvents.IN))
    finally:
        os.close(twin)
    assert queue.info().kevents == 0


@pytest.mark.needs("POLL")
@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_circle_of_queues_is_refused(new_queue: Callable[[], Queue], length: int) -> None:
    queues = [new_queue() for _ in range(length)]
    for outer, inner in pairwise(queues):
        outer.add(pykevent.poll_event(inner, PollEvents.IN))
    with refused(errno.ELOOP):
        queues[-1].add(pykevent.poll_event(queues[0], PollEvents.IN))
    assert queues[-1].info().kevents == 0
    assert now(queues[0]) == []


@pytest.mark.needs("POLL")
def test_a_circle_through_epoll_is_refused(queue: Queue) -> None:
    with select.epoll() as inner, select.epoll() as outer:
        inner.register(queue, select.EPOLLIN)
        outer.register(inner, select.EPOLLIN)
        for epoll in (inner, outer):
            with refused(errno.ELOOP):
                queue.add(pykevent.poll_event(epoll, PollEvents.IN))


@pytest.mark.needs("POLL")
def test_no_circle_is_seen_where_there_is_none(new_queue: Callable[[], Queue]) -> None:
    top, left, right, bottom = (new_queue() for _ in range(4))
    bottom.add(pykevent.user_event(1))
    for outer in (left, right):
        outer.add(pykevent.poll_event(bottom, PollEvents.IN))
        top.add(pykevent.poll_event(outer, PollEvents.IN))
    bottom.post(1)
    assert sorted(event.ident for event in top.wait(DEADLINE, min=2)) == sorted(
        [left.fileno(), right.fileno()]
    )


@pytest.mark.needs("POLL")
def test_a_circle_that_epoll_closes_hangs_nobody(new_queue: Callable[[], Queue]) -> None:
    def closes_it() -> None:
        with pykevent.open() as queue, select.epoll() as epoll:
            queue.add(pykevent.poll_event(epoll, PollEvents.IN))
            queue.add(pykevent.user_event(1))
            try:
                epoll.register(queue, select.EPOLLIN)
            except OSError as error:
                assert error.errno == errno.ELOOP
            queue.post(1)
            assert any(event.type == EventType.USER for event in now(queue))

    with child(closes_it) as process:
        process.finish()


@pytest.mark.needs("FDINFO")
def test_fdinfo_lists_the_kevents(queue: Queue, pair: tuple[socket.socket, socket.socket]) -> None:
    queue.add(pykevent.user_event(5, Flags.EDGE, cookie=0xAB))
    if queue.info().features & pykevent.Feature.SOCKET:
        queue.add(pykevent.socket_event(pair[0], 0x2001, cookie=7))
    lines = [
        line
        for line in Path(f"/proc/self/fdinfo/{queue.fileno()}").read_text().splitlines()
        if line.startswith("kevent:")
    ]
    assert len(lines) == queue.info().kevents
    pattern = re.compile(
        r"kevent: type: (\w+) ident: (\d+) events: ([0-9a-f]+) flags: ([0-9a-f]+) "
        r"cookie: ([0-9a-f]+) close: (inode|mark|pin|self|none)"
    )
    found = {match[1]: match.groups()[1:] for match in map(pattern.fullmatch, lines) if match}
    assert len(found) == len(lines), lines
    assert found["user"] == ("5", "1", "1", "ab", "none")
    if "socket" in found:
        assert found["socket"][:4] == (str(pair[0].fileno()), "2001", "0", "7")


def test_the_device_node_can_be_opened_by_everyone() -> None:
    device = os.environ.get("KEVENT_DEVICE") or "/dev/kevent"
    assert os.stat(device).st_mode & 0o666 == 0o666
    as_nobody(lambda: pykevent.open().close())
