# SPDX-License-Identifier: GPL-2.0-or-later
"""Closing a descriptor that is watched, for every kind of file, pinned or not."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

import pykevent
from pykevent import FileKind, Flags, Info, Queue

from . import raw
from .files import KINDS, Kind, Watched
from .support import child, cookies, eventually, now, one, refused, soon, waiting


class Maker:
    """Makes files of one kind."""

    def __init__(self, kind: Kind, stack: ExitStack, directory: Path) -> None:
        self._kind, self._stack, self._directory = kind, stack, directory

    def __call__(self) -> Watched:
        made = self._kind.make(self._stack, self._directory)
        self._stack.callback(_close, made.fd)
        return made

    def at(self, fd: int) -> Watched:
        """A new one under the number @fd, which is free."""
        held = os.open("/", os.O_RDONLY)
        if held != fd:  # nothing else that is made may get the number
            os.dup2(held, fd, inheritable=False)
        made = self._kind.make(self._stack, self._directory)
        os.dup2(made.fd, fd, inheritable=False)
        os.close(made.fd)
        if held != fd:
            os.close(held)
        made.fd = fd
        return made


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs on every kind of file, or on those that its fixture is about."""
    if "make" not in metafunc.fixturenames:
        return
    kinds = list(KINDS)
    try:
        with pykevent.open() as queue:
            pinned = queue.info().pinned
    except OSError:
        pass  # the tests themselves will say it
    else:
        if {"visible", "prompt"} & set(metafunc.fixturenames):
            kinds = [kind for kind in kinds if not KINDS[kind].file & pinned]
        if "prompt" in metafunc.fixturenames:
            kinds = [kind for kind in kinds if KINDS[kind].file != FileKind.SOCKET]
        if "pinned" in metafunc.fixturenames:
            kinds = [kind for kind in kinds if KINDS[kind].file & pinned]
    metafunc.parametrize("make", kinds, indirect=True)


@pytest.fixture
def make(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path, info: Info) -> Maker:
    """Makes files of every kind."""
    kind = KINDS[request.param]
    if not info.features & kind.feature:
        pytest.skip(f"INFO has no {kind.feature.name}")
    return Maker(kind, stack, tmp_path)


@pytest.fixture
def watched(make: Maker) -> Watched:
    """A file of every kind."""
    return make()


@pytest.fixture
def visible(make: Maker) -> Watched:
    """A file of every kind whose close this kernel shows."""
    return make()


@pytest.fixture
def prompt(make: Maker) -> Watched:
    """One of those, but for sockets, whose kevents are counted for a while after their close."""
    return make()


@pytest.fixture
def pinned(make: Maker) -> Watched:
    """A file of every kind that a kevent holds on this kernel."""
    return make()


def test_close_really_closes_at_once_although_the_file_is_watched(
    queue: Queue, visible: Watched
) -> None:
    queue.add(visible.request())
    assert not visible.released()
    os.close(visible.fd)
    eventually(visible.released, "the world sees the close")


def test_a_pinned_file_stays_open_until_its_kevent_is_removed(
    queue: Queue, pinned: Watched
) -> None:
    queue.add(pinned.request())
    os.close(pinned.fd)
    assert not pinned.released()
    queue.remove(pinned.type, pinned.fd, stale=True)
    eventually(pinned.released, "the world sees the close")


def test_a_pinned_file_stays_open_until_its_queue_is_closed(queue: Queue, pinned: Watched) -> None:
    queue.add(pinned.request())
    os.close(pinned.fd)
    assert not pinned.released()
    queue.close()
    eventually(pinned.released, "the world sees the close")


def test_a_pinned_file_that_is_removed_before_its_close_closes_as_ever(
    queue: Queue, pinned: Watched
) -> None:
    queue.add(pinned.request())
    queue.remove(pinned.type, pinned.fd)
    os.close(pinned.fd)
    eventually(pinned.released, "the world sees the close")


def test_after_the_close_nothing_is_delivered(queue: Queue, visible: Watched) -> None:
    queue.add(visible.request())
    visible.activity()
    soon(queue)
    os.close(visible.fd)
    assert now(queue) == []


def test_an_event_that_was_ready_but_not_delivered_vanishes_with_the_close(
    queue: Queue, visible: Watched
) -> None:
    queue.add(visible.request())
    visible.activity()
    os.close(visible.fd)
    assert now(queue) == []


def test_a_closed_file_that_is_no_socket_is_not_counted_by_its_own_queue(
    queue: Queue, prompt: Watched
) -> None:
    queue.add(prompt.request(Flags.EDGE))
    prompt.activity()
    os.close(prompt.fd)
    call = raw.wait(0, minimum=0)
    assert call(queue.fileno()) == 0
    assert call.wait().left == 0
    after = queue.info()
    assert (after.kevents, after.ready) == (0, 0)


def test_after_the_close_the_number_is_ebadf(queue: Queue, watched: Watched) -> None:
    queue.add(watched.request())
    os.close(watched.fd)
    with refused(errno.EBADF):
        queue.add(watched.request())
    with refused(errno.EBADF):
        queue.modify(watched.request())
    with refused(errno.EBADF):
        queue.remove(watched.type, watched.fd)


def test_after_the_close_nothing_stale_is_left_to_remove(queue: Queue, visible: Watched) -> None:
    queue.add(visible.request())
    os.close(visible.fd)
    with refused(errno.ENOENT):
        queue.remove(visible.type, visible.fd, stale=True)


def test_the_number_is_free_at_once_for_another_file_of_the_same_kind(
    queue: Queue, make: Maker, visible: Watched
) -> None:
    queue.add(visible.request(cookie=1))
    visible.activity()
    os.close(visible.fd)
    again = make.at(visible.fd)
    queue.add(again.request(cookie=2))
    again.activity()
    assert cookies(soon(queue)) == [2]
    queue.remove(again.type, again.fd)
    assert now(queue) == []


def test_another_file_under_the_number_is_not_registered(
    queue: Queue, make: Maker, watched: Watched
) -> None:
    queue.add(watched.request())
    os.close(watched.fd)
    again = make.at(watched.fd)
    with refused(errno.ENOENT):
        queue.remove(again.type, again.fd)
    with refused(errno.ENOENT):
        queue.modify(again.request())


def test_a_number_used_again_and_again_leaves_no_heap_of_ghosts(
    queue: Queue, make: Maker, visible: Watched
) -> None:
    for _ in range(20):
        queue.add(visible.request())
        os.close(visible.fd)
        make.at(visible.fd)
    assert queue.info().kevents <= 1
    assert now(queue) == []


def test_a_pinned_file_and_its_successor_under_the_number_are_both_watched(
    queue: Queue, make: Maker, pinned: Watched
) -> None:
    queue.add(pinned.request(cookie=1))
    os.close(pinned.fd)
    again = make.at(pinned.fd)
    queue.add(again.request(cookie=2))
    assert queue.info().kevents == 2
    queue.remove(pinned.type, pinned.fd, stale=True)
    eventually(pinned.released, "the world sees the close of the first")
    again.activity()
    assert cookies(soon(queue)) == [2]


def test_a_duplicate_keeps_the_kevent_until_the_last_close(queue: Queue, visible: Watched) -> None:
    twin = os.dup(visible.fd)
    queue.add(visible.request(cookie=3))
    os.close(visible.fd)
    assert not visible.released()
    visible.activity(twin)
    event = one(queue)
    assert (event.ident, event.cookie) == (visible.fd, 3)
    os.close(twin)
    eventually(visible.released, "the world sees the last close")
    assert now(queue) == []


def test_stale_removes_what_a_duplicate_keeps(queue: Queue, visible: Watched) -> None:
    twin = os.dup(visible.fd)
    try:
        queue.add(visible.request())
        os.close(visible.fd)
        with refused(errno.EBADF):
            queue.remove(visible.type, visible.fd)
        queue.remove(visible.type, visible.fd, stale=True)
        assert queue.info().kevents == 0
        visible.activity(twin)
        assert now(queue) == []
        with refused(errno.ENOENT):
            queue.remove(visible.type, visible.fd, stale=True)
    finally:
        os.close(twin)


def test_stale_removes_nothing_that_the_number_refers_to(queue: Queue, watched: Watched) -> None:
    queue.add(watched.request(cookie=2))
    with refused(errno.ENOENT):
        queue.remove(watched.type, watched.fd, stale=True)
    watched.activity()
    assert cookies(soon(queue)) == [2]


def test_the_close_is_reported_once_where_that_was_asked_for(
    queue: Queue, visible: Watched
) -> None:
    queue.add(visible.request(Flags.NOTIFY_BROKEN, cookie=5))
    os.close(visible.fd)
    eventually(visible.released, "the world sees the close")
    event = one(queue)
    assert (event.type, event.ident, event.cookie) == (visible.type, visible.fd, 5)
    assert event.broken and event.last
    assert now(queue) == []
    assert queue.info().kevents == 0


def test_the_report_of_a_close_wakes_one_who_waits(queue: Queue, visible: Watched) -> None:
    queue.add(visible.request(Flags.NOTIFY_BROKEN))
    waiter = waiting(queue)
    os.close(visible.fd)
    assert [event.broken for event in waiter.result()] == [True]


def test_only_the_last_close_is_reported(queue: Queue, visible: Watched) -> None:
    queue.add(visible.request(Flags.NOTIFY_BROKEN))
    twin = os.dup(visible.fd)
    os.close(visible.fd)
    assert now(queue) == []
    os.close(twin)
    assert one(queue).broken


def test_after_the_report_was_left_in_the_queue_the_number_can_be_used_again(
    queue: Queue, make: Maker, visible: Watched
) -> None:
    queue.add(visible.request(Flags.NOTIFY_BROKEN, cookie=1))
    os.close(visible.fd)
    again = make.at(visible.fd)
    queue.add(again.request(cookie=2))
    again.activity()
    events = soon(queue, 2)
    assert [(event.cookie, event.broken) for event in events] == [(1, True), (2, False)]


def test_what_only_waits_to_report_its_close_is_not_found_under_its_number(
    queue: Queue, make: Maker, visible: Watched
) -> None:
    queue.add(visible.request(Flags.NOTIFY_BROKEN, cookie=1))
    os.close(visible.fd)
    again = make.at(visible.fd)
    with refused(errno.ENOENT):
        queue.remove(again.type, again.fd)
    with refused(errno.ENOENT):
        queue.modify(again.request())
    event = one(queue)
    assert (event.cookie, event.broken, event.last) == (1, True, True)


def test_a_close_after_remove_is_not_reported(queue: Queue, visible: Watched) -> None:
    queue.add(visible.request(Flags.NOTIFY_BROKEN))
    queue.remove(visible.type, visible.fd)
    os.close(visible.fd)
    assert now(queue) == []


def test_modify_turns_the_report_of_a_close_off(queue: Queue, visible: Watched) -> None:
    queue.add(visible.request(Flags.NOTIFY_BROKEN))
    queue.modify(visible.request())
    os.close(visible.fd)
    assert now(queue) == []


def test_modify_turns_the_report_of_a_close_on(queue: Queue, visible: Watched) -> None:
    queue.add(visible.request())
    queue.modify(visible.request(Flags.NOTIFY_BROKEN))
    os.close(visible.fd)
    assert one(queue).broken


def test_the_report_of_a_close_that_cannot_be_seen_is_refused(
    queue: Queue, pinned: Watched
) -> None:
    with refused(errno.EOPNOTSUPP):
        queue.add(pinned.request(Flags.NOTIFY_BROKEN))
    assert queue.info().kevents == 0
    queue.add(pinned.request())
    with refused(errno.EOPNOTSUPP):
        queue.modify(pinned.request(Flags.NOTIFY_BROKEN))


def test_a_forked_process_keeps_the_kevent_until_its_end(
    queue: Queue, visible: Watched, stack: ExitStack
) -> None:
    near, far = socket.socketpair()
    stack.enter_context(near)
    stack.enter_context(far)

    def holds() -> None:
        near.close()
        far.recv(1)

    queue.add(visible.request(Flags.NOTIFY_BROKEN))
    with child(holds) as process:
        far.close()
        os.close(visible.fd)
        assert not visible.released()
        assert now(queue) == []
        near.send(b"x")
        process.finish()
    assert one(queue).broken


def test_a_killed_holder_lets_the_kevent_go(queue: Queue, visible: Watched) -> None:
    reader, writer = socket.socketpair()

    def holds() -> None:
        reader.recv(1)

    queue.add(visible.request(Flags.NOTIFY_BROKEN))
    with reader, writer, child(holds) as process:
        os.close(visible.fd)
        assert now(queue) == []
        process.kill()
        assert one(queue).broken


def test_a_file_passed_to_others_and_closed_here_stays_watched(
    queue: Queue, visible: Watched
) -> None:
    near, far = socket.socketpair()
    with near, far:
        queue.add(visible.request(cookie=4))
        socket.send_fds(near, [b"x"], [visible.fd])
        os.close(visible.fd)
        assert not visible.released()
        assert now(queue) == []
        _, (received,), _, _ = socket.recv_fds(far, 1, 1)
        visible.activity(received)
        assert cookies(soon(queue)) == [4]
        os.close(received)
    eventually(visible.released, "the world sees the last close")
    assert now(queue) == []


def test_closing_the_queue_leaves_the_file_alone(queue: Queue, watched: Watched) -> None:
    queue.add(watched.request())
    queue.close()
    assert not watched.released()
    with pykevent.open() as another:
        another.add(watched.request(cookie=6))
        watched.activity()
        assert cookies(soon(another)) == [6]
        another.remove(watched.type, watched.fd)
