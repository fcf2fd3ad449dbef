# SPDX-License-Identifier: GPL-2.0-or-later
"""What one client, or one bad server, cannot do to the others, or find out about them."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from runner.simulator import Simulator

import pykevent
from pykevent import EventType, Flags, InodeEvents, PollEvents, Queue
from pykevent.sim import hook, interrupts, syscalls
from pykevent.sim.account import Limits
from pykevent.sim.client import Client
from pykevent.sim.kevent import RefusedError, Request, Waiter
from pykevent.sim.system import System
from tests.conformance import raw
from tests.conformance.support import InThread, child, cookies, eventually, now, one, refused

CREATE = InodeEvents.CREATE
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
CONNECTIONS = b"/sys/fs/fuse/connections"
READ_ONLY_IOCTL = 2 << 30 | 4096 << 16 | 0x41 << 8 | 1
_libc = ctypes.CDLL(None, use_errno=True)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="another root takes root")


def unshare(flags: int) -> None:
    """unshare(2)."""
    assert _libc.unshare(flags) == 0, os.strerror(ctypes.get_errno())


@pytest.mark.parametrize("name", ["kevent", "pid"])
def test_an_ioctl_that_is_not_ours_leaves_the_memory_of_who_makes_it_alone(
    simulator: Simulator, name: str
) -> None:
    fd = os.open(simulator.folder / name, os.O_RDONLY)
    memory = ctypes.create_string_buffer(b"\xa5" * 4096, 4096)
    try:
        for _ in range(20):
            with refused(errno.ENOTTY):
                raw.ioctl(fd, READ_ONLY_IOCTL, ctypes.addressof(memory))
            assert memory.raw == b"\xa5" * 4096
    finally:
        os.close(fd)


@pytest.fixture
def shared(queue: Queue) -> Iterator[int]:
    """A descriptor of the queue for a forked process, to which it is closed."""
    fd = os.dup(queue.fileno())
    yield fd
    os.close(fd)


@root_only
def test_a_path_leads_nowhere_out_of_the_root_of_who_says_it(
    queue: Queue, shared: int, place: Path
) -> None:
    (place / "jail/inside").mkdir(parents=True)
    (place / "outside").mkdir()
    (place / "jail/out").symlink_to("/outside")

    def jailed() -> None:
        theirs = Queue.fromfd(shared)
        os.chdir(place / "jail/inside")
        os.chroot(place / "jail")
        for path in ("../../outside", "/../outside", "../out"):
            with refused(errno.ENOENT):
                theirs.add_path(path, CREATE, 1)
        theirs.add_path("../inside", CREATE, 2)
        os.mkdir("made")

    with child(jailed) as process:
        process.finish()
    assert one(queue).name == b"made"


@root_only
def test_a_path_leads_where_the_mounts_of_who_says_it_do(shared: int, place: Path) -> None:
    covered = place / "covered"
    covered.mkdir()

    def elsewhere() -> None:
        theirs = Queue.fromfd(shared)
        unshare(CLONE_NEWNS)
        assert _libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
        assert _libc.mount(b"none", os.fsencode(covered), b"tmpfs", 0, None) == 0
        os.chdir(covered)
        theirs.add_path(covered, CREATE, 1)
        theirs.add_path(".", CREATE, 2)
        (covered / "mine").mkdir()
        assert [event.name for event in theirs.wait(0)] == [b"mine"] * 2

    (covered / "before").touch()
    with child(elsewhere) as process:
        process.finish()


@root_only
def test_a_namespace_of_ones_own_gives_no_more_pins(shared: int) -> None:
    most = 30

    def pins() -> None:
        theirs = Queue.fromfd(shared)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        unshare(CLONE_NEWUSER)
        for count in range(most + 1):
            fd = os.open("/dev/random", os.O_RDONLY)
            try:
                theirs.add(pykevent.poll_event(fd, PollEvents.IN))
            except OSError as error:
                assert (error.errno, count) == (errno.EMFILE, most)
                return
            finally:
                os.close(fd)
        raise AssertionError("the limit was not heeded")

    with child(pins) as process:
        process.finish()


def test_a_long_chain_of_queues_tells_the_last(new_queue: Callable[[], Queue]) -> None:
    queues = [new_queue() for _ in range(600)]
    queues[0].add(pykevent.user_event(1))
    for inner, outer in itertools.pairwise(queues):
        outer.add(pykevent.poll_event(inner, PollEvents.IN))
    queues[0].post(1)
    assert cookies(now(queues[-1])) == [0]


@contextmanager
def stopped(server: Simulator) -> Iterator[None]:
    """Meanwhile the process of a server does not run."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_server_that_does_not_answer_stops_nobody_but_who_uses_it(
    new_queue: Callable[[], Queue], place: Path
) -> None:
    theirs, mine = new_queue(), new_queue()
    mine.add(pykevent.user_event(1, cookie=4))
    stirs = os.eventfd(0)
    with (
        Simulator(place / "other") as other,
        pykevent.open(other.device) as silent,
        select.epoll() as epoll,
    ):
        silent.add(pykevent.user_event(1))
        silent.post(1)
        epoll.register(silent, select.EPOLLIN)
        epoll.register(stirs, select.EPOLLIN)
        theirs.add(pykevent.poll_event(epoll, PollEvents.IN))
        begun = time.monotonic()
        with stopped(other):
            os.eventfd_write(stirs, 1)
            for number in range(5):
                mine.post(1, number)
                assert cookies(mine.wait(1)) == [4]
        assert time.monotonic() - begun < 1
        theirs.remove(EventType.POLL, epoll)
    os.close(stirs)


@contextmanager
def abort_after(seconds: float, mountpoint: Path) -> Iterator[None]:
    """If this takes so long, have the kernel end the connection: nothing else ends who hangs."""
    abort = Path(os.fsdecode(CONNECTIONS), f"{os.minor(os.stat(mountpoint).st_dev)}/abort")
    ours = not abort.exists() and not _libc.mount(b"none", CONNECTIONS, b"fusectl", 0, None)
    timer = threading.Timer(seconds, abort.write_text, ("1",))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if ours:
            _libc.umount2(CONNECTIONS, 0)


@root_only
def test_a_circle_that_an_epoll_closes_later_stops_nobody(
    queue: Queue, new_queue: Callable[[], Queue], simulator: Simulator
) -> None:
    other = new_queue()
    with abort_after(10, simulator.folder), select.epoll() as epoll:
        queue.add(pykevent.poll_event(epoll, PollEvents.IN, Flags.NOTIFY_BROKEN))
        epoll.register(queue, select.EPOLLIN)
        queue.add(pykevent.user_event(7))
        queue.post(7)
        for _ in range(20):
            queue.wait(0.01)
            queue.post(7)
        fd = os.eventfd(0)
        other.add(pykevent.poll_event(fd, PollEvents.IN, Flags.NOTIFY_BROKEN))
        os.close(fd)
        assert one(other).broken
        with select.epoll() as another:
            other.add(pykevent.poll_event(another, PollEvents.IN, Flags.NOTIFY_BROKEN))
        assert one(other).broken


def test_removing_the_device_waits_for_nobody_and_nobody_for_that(
    queue: Queue, new_queue: Callable[[], Queue], simulator: Simulator
) -> None:
    queue.add(pykevent.user_event(1))
    waiting = InThread(lambda: queue.wait(30)).until_asleep("ioctl")
    for call in (os.unlink, os.rmdir):
        with pytest.raises(OSError):
            call(simulator.device)
    with pytest.raises(OSError):
        simulator.device.rename(simulator.folder / "other")
    assert new_queue().info().kevents == 0
    assert waiting.running
    queue.post(1)
    assert len(waiting.result()) == 1


def test_a_request_that_fails_oddly_ends_no_batch(queue: Queue, place: Path) -> None:
    with Simulator(place / "other") as other:
        dead = os.open(other.device, os.O_RDWR)
        other.kill()
    try:
        results = queue.add_many(
            [
                pykevent.user_event(1),
                pykevent.socket_event(dead, 1),
                pykevent.inode_event(dead, CREATE),
                pykevent.user_event(2),
            ]
        )
        assert (results[0], results[-1]) == (0, 0)
        assert results[1] < 0
        assert queue.info().kevents == results.count(0)
    finally:
        with suppress(OSError):
            os.close(dead)  # which nobody hears of any more


class Library:
    """libfuse, as far as this goes."""

    fuse_req_interrupt_func = _libc.getpid


def test_what_one_user_has_waiting_leaves_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interrupts, "MAX_BLOCKED", 1)
    calls = interrupts.Interrupts(Library())
    with calls.told(1, Waiter(1), 1000):
        with pytest.raises(RefusedError, match="ENOMEM"), calls.told(2, Waiter(1), 1000):
            pass
        with calls.told(3, Waiter(1), 1001):
            assert calls.waiting == 2
    with calls.told(4, Waiter(1), 1000):
        assert calls.waiting == 1


def test_what_one_user_keeps_waiting_leaves_threads_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interrupts, "MAX_CALLS", 1)

    calls = interrupts.Interrupts(Library())
    assert calls.begin(1000)
    assert not calls.begin(1000)
    assert calls.begin(1001)
    calls.end(1000)
    assert calls.begin(1000)


def test_what_happens_while_news_are_read_is_left_for_the_next_time(tmp_path: Path) -> None:
    instance = syscalls.inotify_init()
    try:
        syscalls.inotify_add_watch(instance, os.fsencode(tmp_path), syscalls.IN_CREATE)
        (tmp_path / "first").touch()
        news = syscalls.inotify_read(instance)
        assert [name for _, _, _, name in next(news)] == [b"first"]
        (tmp_path / "second").touch()
        assert list(news) == []
        assert [[event[3] for event in some] for some in syscalls.inotify_read(instance)] == [
            [b"second"]
        ]
    finally:
        os.close(instance)


def test_queues_that_others_have_closed_somewhere_do_not_hold_up_info(
    queue: Queue, new_queue: Callable[[], Queue]
) -> None:
    others = [new_queue() for _ in range(200)]
    for other in others:
        os.close(os.dup(other.fileno()))
    begun = time.monotonic()
    assert queue.info().kevents == 0
    assert time.monotonic() - begun < 0.5


def test_a_process_is_looked_at_once_for_all_its_signalfds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def pending(pid: int) -> int:
        looks.append(pid)
        return 0

    monkeypatch.setattr(hook, "_pending", pending)
    system = System(Limits())
    queue = system.queues[system.open(0)]
    client = Client(system.clients, os.getpid(), 0, 0)
    mask = (ctypes.c_ulong * 16)()
    fds = [_libc.signalfd(-1, mask, os.O_CLOEXEC) for _ in range(9)]
    try:
        for fd in fds:
            queue.add(
                Request(fd, 0, int(EventType.POLL), 0, int(Flags.EDGE), 1, 0, 0, 0, 0), client
            )
        looks.clear()
        queue.look(nested=False)
        assert looks == [os.getpid()]
    finally:
        queue.release()
        for fd in fds:
            os.close(fd)


def test_truncating_the_device_is_not_for_those_who_open_it(simulator: Simulator) -> None:
    os.close(os.open(simulator.device, os.O_RDWR | os.O_TRUNC))
    fd = os.open(simulator.device, os.O_RDWR)
    try:
        with refused(errno.EINVAL):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)
    eventually(lambda: simulator.device.stat().st_size == 0, "it is as it was")
