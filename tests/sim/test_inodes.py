# SPDX-License-Identifier: GPL-2.0-or-later
"""Inodes in the simulator: seeing closes without ever guessing, and what may fail on the way.

What takes a failure at a certain point, or a certain moment, has the simulator in this process.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from runner.simulator import Simulator

import pykevent
from pykevent import EventFlags, Flags, InodeEvents, Queue
from pykevent.abi import EVENT, EventType
from pykevent.sim import device, inode, marks, syscalls, watches
from pykevent.sim.account import Limits
from pykevent.sim.client import Borrowed, Client
from pykevent.sim.inode import InodeKevent
from pykevent.sim.interrupts import Interrupts
from pykevent.sim.kevent import NEW, RefusedError, Request
from pykevent.sim.marks import Close, Marks
from pykevent.sim.system import System
from tests.conformance.support import Child, InThread, cookies, eventually, now, soon

CREATE, MODIFY, ATTRIB = InodeEvents.CREATE, InodeEvents.MODIFY, InodeEvents.ATTRIB
OVERFLOW = EventFlags.OVERFLOW
NOTIFY_BROKEN = Flags.NOTIFY_BROKEN
NAME = EventFlags.NAME
F_SETSIG, F_GETSIG = 10, 11
_libc = syscalls._libc


class Inside:
    """A queue of a simulator in this process."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.number = self.system.open(os.getuid())
        self.queue = self.system.queues[self.number]
        self.client = Client(self.system.clients, os.getpid(), os.getuid(), os.getgid())

    def add(self, path: Path, events: InodeEvents, ident: int = 1) -> InodeKevent:
        """Watch a path; returns the kevent."""
        request = Request(ident, ident, EventType.PATH, 0, 0, events, 0, 0, 0, 0)
        self.queue.add_path(request, os.fsencode(path), self.client)
        return self.kevent(EventType.PATH, ident)

    def add_file(self, fd: int, events: InodeEvents = MODIFY) -> InodeKevent:
        """Watch what a descriptor of ours leads to."""
        request = Request(fd, fd, EventType.INODE, 0, 0, events, 0, 0, 0, 0)
        self.queue.add(request, self.client)
        return self.kevent(EventType.INODE, fd)

    def kevent(self, type: EventType, ident: int) -> InodeKevent:
        """The only one of that identity."""
        (found,) = self.queue.kevents[type, ident]
        assert isinstance(found, InodeKevent)
        return found

    def remove(self, ident: int) -> None:
        """The opposite of `add`."""
        request = Request(ident, 0, EventType.PATH, 0, 0, 0, 0, 0, 0, 0)
        self.queue.remove(request, self.client)

    def wait(self) -> list[tuple[int, int, int, int]]:
        """What one WAIT delivers: cookie, events, count and flags of each."""
        self.system.sync(self.queue)
        room = device.Room(500)
        call = device.Call(self.client, 0, Interrupts(_Library()))
        device.deliver(self.queue, room, 1, device.Deadline(now=True), call)
        found = []
        offset = 0
        while offset < room.used * EVENT.size:
            cookie, _, data, count, events, _, flags = EVENT.unpack_from(room.records, offset)
            found.append((cookie, events, count, flags))
            offset += EVENT.size * (1 + ((data >> 32) + EVENT.size - 1) // EVENT.size)
        return found


class _Library:
    """libfuse, as far as this goes."""

    fuse_req_interrupt_func = _libc.getpid


@pytest.fixture(scope="module")
def system() -> System:
    """One for all tests: it goes with the process."""
    return System(Limits())


@pytest.fixture
def inside(system: System) -> Iterator[Inside]:
    """A queue of it."""
    made = Inside(system)
    yield made
    made.system.close(made.number)


class Holder:
    """A process that has a file open, and does with it what it is told."""

    def __init__(self, path: Path) -> None:
        self._near, far = socket.socketpair()
        self.number = 200

        def holds() -> None:
            self._near.close()
            fd = os.open(path, os.O_RDONLY)
            os.dup2(fd, self.number)
            os.close(fd)
            place = self.number
            far.send(b"x")
            while far.recv(1) == b"m":
                os.dup2(place, place + 1)
                os.close(place)
                place += 1
                far.send(b"x")

        self._process = Child(holds)
        far.close()
        assert self._near.recv(1)

    def moves(self) -> None:
        """Have it under another number."""
        self._near.send(b"m")
        assert self._near.recv(1)

    def ends(self) -> None:
        """With the process the file is closed."""
        self._near.send(b"e")
        self._process.finish()

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self._near.close()
        self._process.kill()

    @contextmanager
    def borrowed(self, inside: Inside) -> Iterator[Borrowed]:
        """The file, in our hands."""
        client = Client(inside.system.clients, self._process.pid, os.getuid(), os.getgid())
        borrowed = client.borrow(self.number)
        try:
            yield borrowed
        finally:
            borrowed.close()

    def close(self, inside: Inside, is_fuse: bool = False) -> Close:
        """The close of its file, to be looked for."""
        with self.borrowed(inside) as borrowed:
            return Close(borrowed, Marks(borrowed.stat, is_fuse))


@pytest.fixture(params=["file", "directory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file, and a directory: their closes are seen in different ways."""
    made = tmp_path / "watched"
    if request.param == "file":
        made.touch()
    else:
        made.mkdir()
    return made


def no_descriptor(*_: object, **__: object) -> None:
    """What fails for want of one."""
    raise OSError(errno.EMFILE, "no descriptor")


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each search through all processes."""
    made: list[int] = []
    search = Marks._search

    def counted(self: Marks, wanted: int) -> None:
        made.append(wanted)
        search(self, wanted)

    monkeypatch.setattr(Marks, "_search", counted)
    return made


# Closes


def is_followed(inside: Inside, path: Path) -> None:
    """The close of what has moved to another number is seen, and not before it is closed."""
    with Holder(path) as holder:
        close = holder.close(inside)
        assert close.look() is False
        holder.moves()
        assert close.look() is False
        holder.ends()
        eventually(lambda: close.look() is True, "its close is seen")


def test_what_was_closed_is_told_from_what_has_moved(inside: Inside, path: Path) -> None:
    is_followed(inside, path)


def test_a_directory_whose_lock_was_left_out_of_the_list_is_not_closed(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "_listed", lambda token: (False, False))
    is_followed(inside, tmp_path)


def test_a_long_list_of_locks_is_not_taken_for_whole(tmp_path: Path, stack: ExitStack) -> None:
    for number in range(200):
        file = stack.enter_context((tmp_path / str(number)).open("w"))
        fcntl.flock(file, fcntl.LOCK_EX)
    assert marks._listed(1) == (False, False)


@pytest.mark.parametrize(
    ("where", "what"),
    [(os, "pidfd_open"), (syscalls, "pidfd_getfd"), (os, "listdir"), (marks, "open")],
    ids=["a process", "a file", "all files", "locks"],
)
def test_where_something_cannot_be_looked_at_nothing_is_closed(
    inside: Inside, path: Path, monkeypatch: pytest.MonkeyPatch, where: object, what: str
) -> None:
    with Holder(path) as holder:
        close = holder.close(inside)
        holder.moves()
        with monkeypatch.context() as patch:
            patch.setattr(where, what, no_descriptor, raising=False)
            assert close.look() is not True
            holder.moves()
            assert close.look() is not True
        eventually(lambda: close.look() is False, "it is found")
        holder.ends()
        eventually(lambda: close.look() is True, "its close is seen")


def test_what_is_not_known_is_looked_for_again(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inode, "_LOOK_AGAIN", 1_000_000)
    answers = [None, None, None, True]
    monkeypatch.setattr(Close, "look", lambda self: answers.pop(0))
    with (tmp_path / "file").open("w") as file:
        kevent = inside.add_file(file.fileno())
        assert kevent.notice_close() is False
        eventually(lambda: kevent in inside.queue.dead, "the close is noticed")
    assert answers == []


def test_what_was_found_elsewhere_is_not_searched_for_again(
    inside: Inside, tmp_path: Path, searches: list[int]
) -> None:
    (tmp_path / "file").touch()
    with Holder(tmp_path / "file") as holder:
        close = holder.close(inside)
        holder.moves()
        for _ in range(100):
            assert close.look() is False
        assert len(searches) == 1


def test_the_close_of_an_entry_is_not_that_of_its_directory(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Close] = []

    def look(self: Close) -> bool:
        looks.append(self)
        return False

    monkeypatch.setattr(Close, "look", look)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        inside.add_file(fd, CREATE)
        (tmp_path / "file").touch()
        (tmp_path / "file").open().close()
        inside.wait()
        assert looks == []
        os.listdir(tmp_path)
        inside.wait()
        assert looks
    finally:
        os.close(fd)


def test_what_moves_all_the_time_is_searched_for_now_and_then_only(
    inside: Inside, tmp_path: Path, searches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "PAUSE", 60.0)
    (tmp_path / "file").touch()
    with Holder(tmp_path / "file") as holder:
        close = holder.close(inside)
        holder.moves()
        assert close.look() is False
        holder.moves()
        for _ in range(100):
            assert close.look() is None
        assert len(searches) == 1


def test_one_search_finds_all_files_of_the_inode(
    inside: Inside, tmp_path: Path, searches: list[int]
) -> None:
    path = tmp_path / "file"
    path.touch()
    with ExitStack() as stack:
        holders = [stack.enter_context(Holder(path)) for _ in range(8)]
        with holders[0].borrowed(inside) as first:
            shared = Marks(first.stat, False)
        closes = []
        for holder in holders:
            with holder.borrowed(inside) as borrowed:
                closes.append(Close(borrowed, shared))
        for holder in holders:
            holder.moves()
        assert [close.look() for close in closes] == [False] * 8
        for holder in holders:
            holder.ends()
        eventually(lambda: closes[0].look() is True, "its close is seen")
        assert [close.look() for close in closes] == [True] * 8
    assert len(searches) == 2


def test_a_file_that_another_process_got_during_the_search_is_found(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    near, far = socket.socketpair()
    with near, far, Holder(tmp_path / "file") as holder, ExitStack() as stack:
        with holder.borrowed(inside) as borrowed:
            close = Close(borrowed, Marks(borrowed.stat, False))
            socket.send_fds(near, [b"x"], [borrowed.fd])
        holder.ends()
        look_at = Marks._search_process
        pids: list[int] = []

        def takes() -> None:
            socket.recv_fds(far, 1, 1)
            far.send(b"x")
            signal.pause()

        def gives_away(self: Marks, pid: int, found: dict[int, marks.Place]) -> None:
            look_at(self, pid, found)
            if not pids:
                pids.append(pid)
                process = Child(takes)
                stack.callback(process.kill)
                assert near.recv(1)

        monkeypatch.setattr(Marks, "_search_process", gives_away)
        assert close.look() is False


def test_a_descriptor_of_a_fuse_server_is_not_borrowed_to_look_for_its_close(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with Holder(tmp_path / "file") as holder:
        close = holder.close(inside, is_fuse=True)

        def borrows(pidfd: int, fd: int) -> int:
            raise AssertionError("to close it is to wait for the server")

        monkeypatch.setattr(syscalls, "pidfd_getfd", borrows)
        assert close.look() is False
        holder.moves()
        assert close.look() is False
        holder.ends()
        eventually(lambda: close.look() is True, "its close is seen")
        close.give_up()


def test_open_files_of_one_inode_have_signals_of_their_own_until_they_are_removed(
    queue: Queue, tmp_path: Path, stack: ExitStack
) -> None:
    files = [stack.enter_context((tmp_path / "file").open("w")) for _ in range(5)]
    for file in files:
        queue.add(pykevent.inode_event(file, MODIFY))
    assert len({fcntl.fcntl(file, F_GETSIG) for file in files} - {0}) == 5
    for file in files:
        queue.remove(EventType.INODE, file.fileno())
    assert [fcntl.fcntl(file, F_GETSIG) for file in files] == [0] * 5


def test_a_signal_that_was_set_before_is_left(queue: Queue, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        fcntl.fcntl(file, F_SETSIG, signal.SIGUSR1)
        queue.add(pykevent.inode_event(file, MODIFY))
        queue.remove(EventType.INODE, file.fileno())
        assert fcntl.fcntl(file, F_GETSIG) == signal.SIGUSR1


def test_a_mark_stays_as_long_as_one_of_two_queues_wants_it(
    new_queue: Callable[[], Queue], tmp_path: Path
) -> None:
    first, second = new_queue(), new_queue()
    with (tmp_path / "file").open("w") as file:
        for queue in (first, second):
            queue.add(pykevent.inode_event(file, MODIFY, cookie=1))
        first.remove(EventType.INODE, file.fileno())
        (tmp_path / "file").open().close()
        file.write("x")
        file.flush()
        assert cookies(soon(second)) == [1]


# What fails on the way


def test_one_event_that_cannot_be_told_takes_no_other_with_it(
    inside: Inside,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    inside.add(tmp_path, CREATE)
    report = InodeKevent.report

    def fails(self: InodeKevent, events: int, rename: int, name: bytes) -> None:
        if name.startswith(b"bad"):
            raise OSError(errno.EMFILE, "no descriptor")
        report(self, events, rename, name)

    monkeypatch.setattr(InodeKevent, "report", fails)
    with caplog.at_level(logging.ERROR, "pykevent.sim"), inside.system.leaves._lock:
        # All in one chunk.
        for name in ("before", "bad", "bad too", "after"):
            (tmp_path / name).touch()
    assert inside.wait() == [
        (1, CREATE, 1, NAME),
        (1, 0, 2, OVERFLOW),
        (1, CREATE, 1, NAME),
    ]
    assert len(caplog.records) == 1


def test_what_cannot_be_watched_leaves_no_watch(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.add(tmp_path, CREATE)
    (tmp_path / "file").touch()
    monkeypatch.setattr(watches.Watches, "_begin", no_descriptor)
    with pytest.raises(RefusedError) as caught:
        inside.add(tmp_path / "file", MODIFY, 2)
    assert caught.value.errno == errno.EMFILE
    every = inside.queue.watches
    assert len(every._watches) == 1
    assert Path(f"/proc/self/fdinfo/{every._inotify}").read_text().count("inotify wd") == 1
    assert len(inside.queue.account.watches) == 1


def happens_meanwhile(
    monkeypatch: pytest.MonkeyPatch, what: Callable[[InodeKevent], object]
) -> None:
    """Have something done each time when an inode is watched, and its kevent not there yet."""
    add = watches.Watches.add

    def late(self: watches.Watches, kevent: InodeKevent, *rest: Any) -> watches.Watch:
        watch = add(self, kevent, *rest)
        assert kevent.state & NEW
        what(kevent)
        return watch

    monkeypatch.setattr(watches.Watches, "add", late)


def test_what_happens_while_a_kevent_is_added_is_delivered_when_it_is_there(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = []

    def makes(kevent: InodeKevent) -> None:
        (tmp_path / "made").touch()
        delivered.append(inside.wait())

    happens_meanwhile(monkeypatch, makes)
    inside.add(tmp_path, CREATE)
    assert delivered == [[]]
    assert inside.wait() == [(1, CREATE, 1, NAME)]


def test_an_inode_that_ends_while_its_kevent_is_added_is_reported_in_order(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(kevent: InodeKevent) -> None:
        kevent.report(CREATE, 0, b"")
        kevent.over()

    happens_meanwhile(monkeypatch, ends)
    inside.add(tmp_path, CREATE)
    broken = EventFlags.BROKEN | EventFlags.LAST
    assert inside.wait() == [(1, CREATE, 1, 0), (1, 0, 1, broken)]


def test_of_a_kevent_that_is_refused_nothing_is_delivered(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:

        def fails(*_: object) -> None:
            file.write(b"x")
            assert inside.wait() == []
            raise OSError(errno.EIO, "too bad")

        monkeypatch.setattr(inode, "Close", fails)
        with pytest.raises(RefusedError):
            inside.add_file(file.fileno())
        assert inside.wait() == []
    assert inside.queue.account.inode_events == 0
    assert not inside.queue.account.watches
    assert not inside.queue.watches._watches


def test_a_kevent_too_many_on_an_inode_is_refused_before_it_is_watched(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside.system.limits, "max_inode_watches", 1)
    inside.add(tmp_path, CREATE)
    happens_meanwhile(monkeypatch, lambda kevent: pytest.fail("it is watched"))
    with pytest.raises(RefusedError) as caught:
        inside.add(tmp_path, CREATE, 2)
    assert caught.value.errno == errno.ENOSPC


def test_a_watch_that_ends_while_another_kevent_joins_it_is_begun_anew(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.add(tmp_path, CREATE, 1)
    watch = syscalls.inotify_add_watch

    def loses(instance: int, path: bytes, mask: int) -> int:
        number = watch(instance, path, mask)
        if (EventType.PATH, 1) in inside.queue.kevents:
            # What REMOVE does, whose lock the ADD has here.
            inside.queue._destroy(inside.kevent(EventType.PATH, 1))
        return number

    monkeypatch.setattr(syscalls, "inotify_add_watch", loses)
    inside.add(tmp_path, CREATE, 2)
    (tmp_path / "made").touch()
    assert inside.wait() == [(2, CREATE, 1, NAME)]


# Companions


def writes(path: Path, times: int = 5) -> None:
    """Writes in a row, which inotify alone would make one."""
    with path.open("ab", buffering=0) as file:
        for _ in range(times):
            file.write(b"x")


def test_a_file_that_has_gone_gives_its_place_to_another(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "MAX_COMPANIONS", 3)
    watch = inside.add(tmp_path, MODIFY)._watch
    assert watch is not None
    for _ in range(5):
        (tmp_path / "new").touch()
        (tmp_path / "new").rename(tmp_path / "file")
        (tmp_path / "gone").touch()
        (tmp_path / "gone").unlink()
        inside.wait()
    (tmp_path / "last").touch()
    inside.wait()
    writes(tmp_path / "last")
    assert inside.wait() == [(1, MODIFY, 5, NAME)]
    assert sorted(watch.companions) == [b"file", b"last"]
    assert len(inside.queue.watches._watches) == 3


def test_companions_go_with_the_last_kevent_that_counts(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watch = inside.add(tmp_path, CREATE, 1)._watch
    assert watch is not None
    inside.add(tmp_path, MODIFY, 2)
    inside.add(tmp_path / "file", MODIFY, 3)
    assert list(watch.companions) == [b"file"]
    inside.remove(2)
    assert list(watch.companions) == []
    (tmp_path / "another").touch()
    inside.wait()
    inside.add(tmp_path, MODIFY, 2)
    assert sorted(watch.companions) == [b"another", b"file"]
    for ident in (1, 2, 3):
        inside.remove(ident)
    assert inside.queue.watches._watches == {}


def test_another_directory_at_the_old_path_is_no_source_of_companions(
    inside: Inside, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    watch = inside.add(tmp_path / "old", CREATE | MODIFY)._watch
    assert watch is not None
    (tmp_path / "old").rename(tmp_path / "moved")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    (tmp_path / "moved" / "file").touch()
    assert inside.wait() == [(1, CREATE, 1, NAME)]
    assert list(watch.companions) == []


def waits(adds: InThread[None]) -> bool:
    """Whether the thread waits for the server, or has just ended."""
    try:
        return adds.asleep()
    except ProcessLookupError:
        return True


def test_a_directory_of_a_fuse_server_that_hangs_holds_nobody_else_up(
    queue: Queue, new_queue: Callable[[], Queue], place: Path, tmp_path: Path, stack: ExitStack
) -> None:
    other = stack.enter_context(Simulator(place / "other"))
    queue.add_path(tmp_path, CREATE, 1)
    hung = new_queue()
    hung.add_path(other.folder, ATTRIB, 1)
    os.kill(other.pid, signal.SIGSTOP)
    try:
        adds = InThread(lambda: hung.add_path(other.folder, MODIFY, 2))
        eventually(lambda: not adds.running or waits(adds), "it is added, or waits")
        (tmp_path / "made").touch()
        assert [event.name for event in InThread(lambda: soon(queue)).result()] == [b"made"]
        assert InThread(lambda: now(queue)).result() == []
    finally:
        os.kill(other.pid, signal.SIGCONT)
    adds.result()


def test_what_is_mounted_in_a_directory_is_no_companion(
    inside: Inside, place: Path, stack: ExitStack
) -> None:
    (place / "file").touch()
    stack.enter_context(Simulator(place / "other"))
    watch = inside.add(place, MODIFY)._watch
    assert watch is not None
    assert sorted(watch.companions) == [b"file", b"other.log"]


def test_nothing_is_listed_on_a_fuse_file_system(inside: Inside, simulator: Simulator) -> None:
    watch = inside.add(simulator.folder, MODIFY)._watch
    assert watch is not None
    assert watch.path == b""
    assert not watch.companions


def test_what_happened_before_a_close_is_told_before_it_whoever_looks_first(
    inside: Inside, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    request = Request(fd, 7, EventType.INODE, 0, NOTIFY_BROKEN, MODIFY, 0, 0, 0, 0)
    with inside.system.leaves._lock:  # the hub reads nothing
        # That lists the directory, which is news of a close as well.
        inside.queue.add(request, inside.client)
        kevent = inside.kevent(EventType.INODE, fd)
        writes(tmp_path / "file")
        os.close(fd)
        assert kevent.notice_close()
    assert inside.wait() == [(7, MODIFY, 5, NAME), (7, 0, 1, EventFlags.BROKEN | EventFlags.LAST)]


# Users


def test_what_one_user_watches_too_much_of_is_nobody_elses_loss(
    system: System, inside: Inside, tmp_path: Path
) -> None:
    number = system.open(os.getuid() + 1)
    other = system.queues[number]
    assert other.watches is not inside.queue.watches
    inside.add(tmp_path, CREATE)
    inside.queue.watches._overflow()
    assert [flags & OVERFLOW for _, _, _, flags in inside.wait()] == [OVERFLOW]
    request = Request(1, 1, EventType.PATH, 0, 0, CREATE, 0, 0, 0, 0)
    other.add_path(request, os.fsencode(tmp_path), inside.client)
    inside.queue.watches._overflow()
    (tmp_path / "made").touch()
    system.sync(other)
    assert len(other.ready) == 1
    (kevent,) = other.kevents[EventType.PATH, 1]
    assert isinstance(kevent, InodeKevent)
    assert kevent._overflow not in kevent._occurrences
    system.close(number)


def test_companions_leave_watches_for_others(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        (tmp_path / name).touch()
    monkeypatch.setattr(inside.queue.watches, "_most_companions", 3)
    watch = inside.add(tmp_path, MODIFY)._watch
    assert watch is not None
    assert len(watch.companions) == 3
    inside.remove(1)
    monkeypatch.setattr(inside.queue.watches, "_most_companions", 4)
    watch = inside.add(tmp_path, MODIFY)._watch
    assert watch is not None
    assert len(watch.companions) == 4


def test_two_users_of_one_open_file_share_its_mark(
    system: System, inside: Inside, tmp_path: Path
) -> None:
    number = system.open(os.getuid() + 1)
    other = system.queues[number]
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        inside.add_file(fd)
        request = Request(fd, fd, EventType.INODE, 0, 0, MODIFY, 0, 0, 0, 0)
        other.add(request, inside.client)
        inside.queue.remove(Request(fd, 0, EventType.INODE, 0, 0, 0, 0, 0, 0, 0), inside.client)
        (kevent,) = other.kevents[EventType.INODE, fd]
        assert not kevent.notice_close()
    finally:
        os.close(fd)
    assert kevent.notice_close()
    system.close(number)
