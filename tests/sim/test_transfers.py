# SPDX-License-Identifier: GPL-2.0-or-later
"""Transfers on the simulator: whose memory it is, where the socket is, and that nothing is held."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, cast

import pytest
from runner.simulator import Simulator, mounted

import pykevent
from pykevent import EventType, Flags, NaioEvents, Queue, abi, mounts
from pykevent.sim import (
    account,
    client,
    device,
    interrupts,
    lanes,
    memory,
    movers,
    moving,
    syscalls,
)
from pykevent.sim import ends as ends_
from pykevent.sim.account import Limits
from pykevent.sim.kevent import RefusedError, Request
from pykevent.sim.system import System
from pykevent.transfers import Exported
from tests.conformance.sockets import narrow, receive
from tests.conformance.support import (
    InThread,
    as_nobody,
    child,
    cookies,
    eventually,
    now,
    one,
    refused,
    soon,
    tcp_pair,
)
from tests.conformance.test_naio_send import MUCH
from tests.sim.test_hostile import CLONE_NEWNS, MS_PRIVATE, MS_REC, unshare
from tests.sim.test_missing import refuses
from tests.sim.test_robust import descriptors

PAGE = mmap.PAGESIZE
SO_PEEK_OFF = 42
_MNT_DETACH = 2
Pair = tuple[socket.socket, socket.socket]
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def tcp() -> Iterator[Pair]:
    """Two connected TCP sockets."""
    near, far = tcp_pair()
    with near, far:
        yield near, far


@pytest.fixture
def shared(queue: Queue) -> Iterator[int]:
    """A descriptor of the queue for a forked process, to which it is closed."""
    fd = os.dup(queue.fileno())
    yield fd
    os.close(fd)


class Buffer:
    """Memory that stays where it is."""

    def __init__(self, size: int = PAGE) -> None:
        self.memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = Exported(self.memory, writable=True).address
        self.size = size

    def recv(self, sock: socket.socket | int, ident: int = 1, flags: int = 0) -> pykevent.Request:
        """What asks for a receive into it."""
        return pykevent.naio_event(ident, NaioEvents.RECV, sock, self.address, self.size, flags)


def ask_to_send(queue: Queue, sock: socket.socket, file: int, ident: int = 1) -> None:
    """Have a whole file sent."""
    argument = abi.SENDFILE.pack(0, abi.SENDFILE_ALL, file, 0, 0, 0)
    exported = Exported(argument, writable=False)
    events = NaioEvents.SENDFILE
    queue.add(pykevent.naio_event(ident, events, sock, exported.address, len(argument)))
    exported.release()


# Nothing is held


def test_a_socket_that_waits_is_not_held_and_takes_one_descriptor_whatever_waits(
    simulator: Simulator, queue: Queue, tcp: Pair, stack: ExitStack
) -> None:
    def sockets() -> int:
        return sum(link.startswith("socket:") for link in descriptors(simulator.pid).values())

    queue.recv_into(tcp[0], bytearray(1)).cancel()
    before, sockets_before = len(descriptors(simulator.pid)), sockets()
    pairs = [tcp_pair() for _ in range(20)]
    for ends in pairs:
        for end in ends:
            stack.enter_context(end)
    for near, _ in pairs:
        for _ in range(30):
            queue.recv_into(near, bytearray(10))
    # One for each, one for the memory of all.
    assert len(descriptors(simulator.pid)) <= before + len(pairs) + 1
    assert sockets() == sockets_before
    for near, _ in pairs:
        near.close()
    assert all(event.broken for event in soon(queue, 500))
    assert all(event.broken for event in soon(queue, 90))
    assert queue.info().kevents == 0
    assert len(descriptors(simulator.pid)) <= before


def test_clients_that_die_in_a_transfer_leave_nothing_behind(
    simulator: Simulator, queue: Queue
) -> None:
    near, far = tcp_pair()
    narrow(near, far)

    def asks() -> None:
        mine = pykevent.open(simulator.device)
        mine.recv_into(near, bytearray(100))
        mine.add(Buffer().recv(near, 7, Flags.MULTISHOT))
        mine.send(near, bytes(MUCH))
        mine.wait(None)

    with near, far:
        queue.recv_into(near, bytearray(1)).cancel()
        before = len(descriptors(simulator.pid))
        for _ in range(10):
            with child(asks) as process:
                eventually(lambda: queue.info().user_kevents == 3, "it has asked")
                process.until_asleep()
                process.kill()
            eventually(lambda: queue.info().user_kevents == 0, "its kevents are gone")
        eventually(lambda: len(descriptors(simulator.pid)) <= before, "their descriptors are gone")
        far.send(b"hello")
        assert near.recv(10) == b"hello"


def test_files_that_were_sent_are_not_held(simulator: Simulator, queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    narrow(near, far)
    content = os.urandom(MUCH)
    queue.recv_into(near, bytearray(1)).cancel()
    before = len(descriptors(simulator.pid))
    file = os.memfd_create("sent")
    os.write(file, content)
    for ident in range(3):
        ask_to_send(queue, near, file, ident)
    os.close(file)
    assert receive(far, MUCH + 1) == content + content[:1]
    queue.remove(EventType.NAIO, 1)
    queue.remove(EventType.NAIO, 2)
    assert one(queue).data == MUCH
    near.close()
    eventually(lambda: len(descriptors(simulator.pid)) <= before, "nothing is held")


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, None), (0, 1), (1, None), (511, 2), (512, 512), (PAGE + 1, 70_001), (99_999, None),
        (99_999, 5), (100_000, None), (100_001, None), (170_000, 10),
    ],
)  # fmt: skip
def test_any_part_of_a_file_that_is_read_past_its_cache_is_sent(
    queue: Queue, tcp: Pair, tmp_path: Path, offset: int, length: int | None
) -> None:
    near, far = tcp
    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    try:
        file = os.open(tmp_path / "file", os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"no O_DIRECT in {tmp_path}: {error.strerror}")
    queue.sendfile(near, file, offset, length, prefix=b"<")
    os.close(file)
    wanted = b"<" + content[offset:][:length]
    event = one(queue)
    assert (event.data, event.error) == (len(wanted), 0)
    near.close()
    assert receive(far, len(wanted) + 1) == wanted


# Where the socket is


@pytest.mark.skipif(os.geteuid() != 0, reason="to mount takes root")
def test_a_file_that_is_what_the_kernel_shows_is_refused_wherever_it_is_mounted(
    queue: Queue, shared: int, place: Path, tcp: Pair
) -> None:
    (place / "proc").mkdir()
    (reader, writer) = os.pipe()

    def asks() -> None:
        theirs = Queue.fromfd(shared)
        os.close(writer)
        os.read(reader, 1)
        for number in socket.recv_fds(brings, 1, 2)[1]:
            with refused(errno.EINVAL):
                ask_to_send(theirs, tcp[0], number)

    carries, brings = socket.socketpair()
    with carries, brings, child(asks) as process:
        with child(lambda: send_hidden(carries, place / "proc")) as other:
            other.finish()
        os.close(writer)
        process.finish()
    os.close(reader)
    assert queue.info().kevents == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="to mount takes root")
@pytest.mark.parametrize("name", ["securityfs", "debugfs", "binfmt_misc", "cgroup2", "fusectl"])
def test_so_is_one_of_any_file_system_of_the_kernels_own(
    queue: Queue, place: Path, tcp: Pair, name: str
) -> None:
    folder = place / name
    folder.mkdir()
    if _libc.mount(b"none", os.fsencode(folder), name.encode(), 0, None) != 0:
        pytest.skip(f"no {name} here: {os.strerror(ctypes.get_errno())}")
    try:
        files = [path for path in folder.rglob("*") if readable(path)][:20]
        if not files:
            pytest.skip(f"{name} has no files")
        for path in files:
            with path.open("rb", 0) as file, refused(errno.EINVAL):
                ask_to_send(queue, tcp[0], file.fileno())
    finally:
        assert _libc.umount2(os.fsencode(folder), _MNT_DETACH) == 0
    assert queue.info().kevents == 0


def readable(path: Path) -> bool:
    """Whether it is a file that can be opened to be read."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return path.is_file()
    except OSError:
        return False


def test_whether_a_file_can_be_read_as_the_module_does_is_found_out_without_reading_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open("/proc/self/ns/uts") as shown, open(__file__) as kept:
        assert syscalls.reads_into_iterators(shown.fileno()) is False
        assert syscalls.reads_into_iterators(kept.fileno()) is True
        monkeypatch.setattr(syscalls, "_IO_SUBMIT", -1)
        assert syscalls.reads_into_iterators(kept.fileno()) is None


def send_hidden(carries: socket.socket, folder: Path) -> None:
    """Send a file of a /proc that only we see, and of one that nobody sees any more."""
    unshare(CLONE_NEWNS)
    assert _libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
    for _ in range(2):
        assert _libc.mount(b"proc", os.fsencode(folder), b"proc", 0, None) == 0
    numbers = [os.open(folder / "1/stat", os.O_RDONLY)]
    assert _libc.umount2(os.fsencode(folder), _MNT_DETACH) == 0
    numbers.append(os.open(folder / "1/stat", os.O_RDONLY))
    socket.send_fds(carries, [b"x"], numbers)


def test_a_transfer_goes_on_when_a_socket_that_was_on_its_way_has_come(
    queue: Queue, tcp: Pair
) -> None:
    near, far = tcp
    buffer = bytearray(10)
    queue.recv_into(near, buffer)
    assert now(queue) == []  # nobody looks at it any more
    carries, brings = socket.socketpair()
    with carries, brings:
        socket.send_fds(carries, [b"x"], [near.fileno()])
        near.close()
        far.send(b"hello")
        assert queue.wait(0.1) == []
        _, (number,), _, _ = socket.recv_fds(brings, 1, 1)
        assert one(queue).data == 5
        assert bytes(buffer[:5]) == b"hello"
        os.close(number)


class Sought:
    """A socket that is out of reach, as far as the search knows it."""

    hooked = True
    searches = 0

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.calls = 0

    def closed(self) -> bool:
        """It is not."""
        return False

    def search_at(self, pid: int, number: int) -> bool:
        """It is nowhere."""
        return False

    def active(self) -> None:
        """It was found."""
        self.calls += 1


def test_one_search_serves_all_sockets_that_are_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searches = []
    links = ends_._links

    def counts() -> Iterator[tuple[str, int, int]]:
        searches.append(time.monotonic())
        return links()

    monkeypatch.setattr(ends_, "_links", counts)
    search = System(Limits()).ends.search
    sought = [cast("ends_.End", Sought(number)) for number in range(100)]
    for end in sought:
        assert not search.now(end)
        search.want(end)
    eventually(lambda: all(end.searches > 2 for end in sought), "all were searched for")
    # One after 10 ms, after 20 and 40 more, and for those that came a moment later.
    assert len(searches) < 20
    for end in sought:
        search.forget(end)


def test_sockets_on_their_way_cost_the_others_little(
    queue: Queue, stack: ExitStack, simulator_cpu: Callable[[], float]
) -> None:
    carries, brings = (stack.enter_context(end) for end in socket.socketpair())
    pairs = [tcp_pair() for _ in range(200)]
    for near, far in pairs:
        stack.enter_context(far)
        queue.recv_into(near, bytearray(1))
    assert now(queue) == []  # nobody looks at them any more
    for first in range(0, len(pairs), 100):
        numbers = [near.fileno() for near, _ in pairs[first : first + 100]]
        socket.send_fds(carries, [b"x"], numbers)
    for near, far in pairs:
        near.close()
        far.send(b"x")
    before = simulator_cpu()
    assert queue.wait(3) == []
    assert simulator_cpu() - before < 0.5
    received = []
    for _ in range(len(pairs) // 100):
        received += socket.recv_fds(brings, 1, 100)[1]
    assert [event.data for event in soon(queue, len(pairs))] == [1] * len(pairs)
    for number in received:
        os.close(number)


def test_a_transfer_goes_on_while_a_forked_process_has_the_socket(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(10)
    queue.recv_into(near, buffer)
    reader, writer = os.pipe()

    def keeps() -> None:
        os.close(writer)
        os.read(reader, 1)

    with child(keeps) as process:
        near.close()
        far.send(b"hello")
        assert one(queue).data == 5
        assert bytes(buffer[:5]) == b"hello"
        os.close(writer)
        process.finish()
    os.close(reader)


def test_a_number_that_is_another_sockets_by_now_is_left_alone(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    number = near.fileno()
    twin = near.dup()
    buffer = bytearray(10)
    queue.recv_into(near, buffer)
    other, its_peer = socket.socketpair()
    with other, its_peer, twin:
        os.dup2(other.fileno(), number)
        its_peer.send(b"not for you")
        far.send(b"hello")
        assert one(queue).data == 5
        assert bytes(buffer[:5]) == b"hello"
        assert other.recv(20) == b"not for you"


def test_a_close_that_nothing_tells_of_is_seen_all_the_same(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, queue: Queue, tcp: Pair
) -> None:
    near, far = tcp
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if os.geteuid() != 0:
        pytest.skip("lowering a limit takes root")
    before = limit.read_text()
    limit.write_text("0")
    try:
        # It has none yet for closes.
        buffer = bytearray(10)
        queue.recv_into(near, buffer)
    finally:
        limit.write_text(before)
    near.close()
    assert one(queue).broken
    assert far.recv(1) == b""


# Who sends

CREDENTIALS = struct.Struct("=iII")


def test_who_may_not_be_named_sends_nothing_instead_of_sending_as_the_simulator() -> None:
    def sends() -> None:
        process = client.Process(os.getpid(), os.pidfd_open(os.getpid()))
        other = client.Process(os.getppid(), os.pidfd_open(os.getppid()))
        uid, gid = os.getuid(), os.getgid()
        near, far = socket.socketpair()
        with near, far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            for sender in (
                moving.Sender(process, uid + 1, gid),
                moving.Sender(process, uid, gid + 1),
                moving.Sender(other, uid + 1, gid + 1),
            ):
                with refused(errno.EPERM):
                    moving.send_bytes(near, b"hello", sender)
            # Another process of the same user.
            assert moving.send_bytes(near, b"hello", moving.Sender(other, uid, gid)) == 5
            data, [(_, _, credentials)], _, _ = far.recvmsg(20, 100)
            assert (data, CREDENTIALS.unpack(credentials)) == (b"hello", (os.getpid(), uid, gid))

    as_nobody(sends)


# Whose memory it is


def test_memory_of_a_program_that_was_replaced_is_nobodys(
    queue: Queue, shared: int, tcp: Pair
) -> None:
    near, far = tcp
    buffer = Buffer()

    def asks() -> None:
        Queue.fromfd(shared).add(buffer.recv(near))
        os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"])

    reader, writer = os.pipe()

    def asks_and_waits() -> None:
        os.close(writer)
        os.dup2(reader, 0)
        asks()

    with child(asks_and_waits) as process:
        eventually(lambda: queue.info().kevents == 1, "it has asked")
        eventually(
            lambda: b"sys.stdin.read" in Path(f"/proc/{process.pid}/cmdline").read_bytes(),
            "it is another program",
        )
        far.send(b"hello")
        event = one(queue)
        assert (event.error, event.data) == (errno.EFAULT, 0)
        os.close(writer)
        process.finish()
    os.close(reader)
    assert near.recv(10) == b"hello"


NEXT = """
import sys
from pykevent import Queue
import socket
queue, sock = Queue.fromfd(int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))
if sys.argv[3:]:
    buffer = bytearray(10)
    queue.recv_into(sock, buffer)
    print("asks", flush=True)
    sys.stdin.readline()
    print(bytes(buffer[:5]).decode(), flush=True)
else:
    print("runs", flush=True)
sys.stdin.read()
"""
"""The program that comes next."""
_CLONE_VM = 0x100


@contextmanager
def replaced(
    queue: int, sock: socket.socket, asks: Callable[[], None], *words: str
) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A process that asks for something and becomes another program; somebody keeps its memory.

    What that reads, and what it writes.
    """
    (reader, to_it), (from_it, writer) = os.pipe(), os.pipe()
    stack = ctypes.create_string_buffer(1 << 16)
    arguments = [sys.executable, "-c", NEXT, str(queue), str(sock.fileno()), *words]

    def becomes() -> None:
        asks()
        os.close(to_it)
        os.close(from_it)
        os.dup2(reader, 0)
        os.dup2(writer, 1)
        os.set_inheritable(queue, True)
        sock.set_inheritable(True)
        top = ctypes.c_void_p(ctypes.addressof(stack) + len(stack) - 64)
        keeper = _libc.clone(_libc.pause, top, _CLONE_VM, None)
        assert keeper > 0, os.strerror(ctypes.get_errno())
        os.write(1, b"%d\n" % keeper)
        os.execv(sys.executable, arguments)

    with child(becomes) as process, open(to_it, "wb", 0) as told, open(from_it, "rb") as tells:
        os.close(reader)
        os.close(writer)
        keeper = int(tells.readline())
        try:
            yield told, tells
        finally:
            told.close()
            os.kill(keeper, signal.SIGKILL)
        process.finish()


def test_a_multishot_leaves_the_program_alone_that_came_after_who_asked(
    queue: Queue, shared: int, tcp: Pair
) -> None:
    near, far = tcp
    buffer = Buffer()

    def asks() -> None:
        Queue.fromfd(os.dup(shared)).add(buffer.recv(near, flags=Flags.MULTISHOT))

    with replaced(shared, near, asks) as (_, tells):
        assert tells.readline() == b"runs\n"
        far.send(b"hello")
        # That memory is as it was, and is received into.
        event = one(queue)
        assert (event.error, event.data) == (0, 5)
        queue.remove(EventType.NAIO, 1)


def test_what_asks_is_the_program_that_runs_now(queue: Queue, shared: int, tcp: Pair) -> None:
    near, far = tcp
    other, its_peer = tcp_pair()
    buffer = Buffer()

    def asks() -> None:
        Queue.fromfd(os.dup(shared)).add(buffer.recv(other, 7))

    with other, its_peer, replaced(shared, near, asks, "asks") as (told, tells):
        assert tells.readline() == b"asks\n"
        far.send(b"hello")
        event = one(queue)
        assert (event.error, event.data) == (0, 5)
        told.write(b"\n")
        assert tells.readline() == b"hello\n"
        queue.remove(EventType.NAIO, 7)


def test_memory_that_is_protected_later_is_received_into_as_on_the_module(
    queue: Queue, tcp: Pair
) -> None:
    near, far = tcp
    buffer = Buffer()
    queue.add(buffer.recv(near))
    address = ctypes.c_void_p(buffer.address)
    assert _libc.mprotect(address, PAGE, mmap.PROT_READ) == 0
    far.send(b"hello")
    assert one(queue).data == 5
    assert buffer.memory[:5] == b"hello"


def test_a_multishot_respects_the_protection_of_its_memory(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = Buffer()
    queue.add(buffer.recv(near, flags=Flags.MULTISHOT))
    assert _libc.mprotect(ctypes.c_void_p(buffer.address), PAGE, mmap.PROT_READ) == 0
    far.send(b"hello")
    event = one(queue)
    assert (event.error, event.last) == (errno.EFAULT, True)
    assert near.recv(10) == b"hello"


def test_a_multishot_receives_into_memory_of_who_asked_whoever_waits(
    queue: Queue, shared: int, tcp: Pair
) -> None:
    near, far = tcp
    buffer = Buffer()
    queue.add(buffer.recv(near, flags=Flags.MULTISHOT))

    def waits() -> None:
        assert one(Queue.fromfd(shared)).data == 5
        assert buffer.memory[:5] == bytes(5)

    far.send(b"hello")
    with child(waits) as process:
        process.finish()
    assert buffer.memory[:5] == b"hello"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_whose_owner_looks_ahead_is_received_from_in_order(
    queue: Queue, kind: int
) -> None:
    near, far = socket.socketpair(type=kind)
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 1)
        for part in (b"hello", b"world"):
            far.send(part)
        buffers = [bytearray(5) for _ in range(2)]
        for buffer in buffers:
            queue.recv_into(near, buffer)
        assert [event.data for event in soon(queue, 2)] == [5, 5]
        assert buffers == [b"hello", b"world"]


@pytest.mark.parametrize("call", ["read_process", "write_process", "touch_process"])
def test_where_memory_may_not_be_looked_at_the_log_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    call: str,
) -> None:
    (tmp_path / "scope").write_text("1\n")
    monkeypatch.setattr(client, "YAMA", str(tmp_path / "scope"))
    monkeypatch.setattr(memory, "_warned", False)
    monkeypatch.setattr(syscalls, call, refuses(errno.EPERM))
    theirs = memory.Caller(os.getpid())
    calls: dict[str, Callable[[], object]] = {
        "read_process": lambda: theirs.read(0, 1),
        "write_process": lambda: theirs.write(0, b"x"),
        "touch_process": lambda: theirs.check(0, 1, True),
    }
    with pytest.raises(RefusedError) as caught:
        calls[call]()
    assert caught.value.errno == errno.EPERM
    assert "its memory cannot be looked at" in caplog.text
    assert "PR_SET_PTRACER" in caplog.text


# A protocol on top of TCP


TCP_ULP = 31
RECV, SEND, MULTISHOT = NaioEvents.RECV, NaioEvents.SEND, Flags.MULTISHOT


class Inside:
    """A queue of a simulator that is this process."""

    def __init__(self) -> None:
        system = System(Limits())
        self.client = client.Client(system.clients, os.getpid(), 0, 0)
        self.queue = system.queues[system.open(0)]
        # Nobody interrupts it.
        self._call = device.Call(self.client, 0, cast("interrupts.Interrupts", None))

    def add(self, ident: int, events: int, sock: socket.socket, buffer: Buffer, flags: int) -> None:
        """ADD of a transfer."""
        memory = (buffer.address, buffer.size, sock.fileno())
        self.queue.add(
            Request(ident, 0, int(EventType.NAIO), 0, int(flags), int(events), 0, *memory),
            self.client,
        )

    def ends(self) -> tuple[int, int, int]:
        """The number, the error and the bytes of the next event."""
        eventually(lambda: self.queue.has_ready(1), "there is an event")
        room = device.Room(1)
        device.deliver(self.queue, room, 1, device.Deadline(now=True), self._call)
        _, ident, moved, count, _, _, said = abi.EVENT.unpack(room.records)
        assert said & pykevent.EventFlags.LAST
        return ident, count if said & pykevent.EventFlags.ERROR else 0, moved


@pytest.fixture
def inside() -> Iterator[Inside]:
    """One such."""
    made = Inside()
    yield made
    made.queue.release()


@pytest.fixture
def layered(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Sockets, by their inodes, that have a protocol on top, as far as a simulator here sees."""
    found: set[int] = set()

    def getsockopt(sock: socket.socket, level: int, option: int, size: int = 0) -> bytes | int:
        if (level, option) == (socket.IPPROTO_TCP, TCP_ULP) and os.fstat(
            sock.fileno()
        ).st_ino in found:
            return b"tls".ljust(16, b"\0")[:size]
        return socket.socket.getsockopt(sock, level, option, size)

    monkeypatch.setattr(client.BorrowedSocket, "getsockopt", getsockopt, raising=False)
    return found


@pytest.mark.parametrize(
    ("events", "flags"), [(RECV, 0), (SEND, 0), (RECV, MULTISHOT)], ids=["RECV", "SEND", "MULTI"]
)
def test_a_socket_with_a_protocol_on_top_is_refused(
    inside: Inside, layered: set[int], tcp: Pair, events: int, flags: int
) -> None:
    near, far = tcp
    layered.add(os.fstat(near.fileno()).st_ino)
    with pytest.raises((RefusedError, OSError)) as caught:
        inside.add(1, events, near, Buffer(), flags)
    assert cast("OSError", caught.value).errno == errno.EOPNOTSUPP
    inside.add(1, events, far, Buffer(), flags)


def test_what_waits_for_a_socket_that_is_given_a_protocol_moves_nothing_more(
    inside: Inside, layered: set[int], tcp: Pair
) -> None:
    near, far = tcp
    narrow(near, far)
    buffer = Buffer(MUCH)
    inside.add(1, RECV, near, buffer, 0)
    inside.add(2, RECV, near, buffer, MULTISHOT)
    inside.add(3, SEND, near, buffer, 0)
    layered.add(os.fstat(near.fileno()).st_ino)
    far.send(b"x")
    # What else the socket has it calls as well.
    ends = sorted(inside.ends() for _ in range(3))
    assert [error for _, error, _ in ends] == [errno.EOPNOTSUPP] * 3
    assert [moved for _, _, moved in ends[:2]] == [0, 0]
    assert 0 < ends[2][2] < MUCH
    assert near.recv(2) == b"x"


def test_tls_of_the_kernels_is_such_a_protocol(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = Buffer()
    queue.add(buffer.recv(near))
    try:
        near.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    except OSError as error:
        pytest.skip(f"no tls here: {error}")
    far.send(b"x")
    assert one(queue).error == errno.EOPNOTSUPP
    with refused(errno.EOPNOTSUPP):
        queue.add(buffer.recv(near))
    assert near.recv(2) == b"x"


# Who waits for whom


_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
_UFFDIO_API, _UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00


@contextmanager
def withheld(buffer: Buffer) -> Iterator[None]:
    """Meanwhile whoever touches the memory waits."""
    fd = _libc.syscall(_USERFAULTFD[platform.machine()], os.O_CLOEXEC)
    if fd < 0:
        pytest.skip(f"no userfaultfd here: {os.strerror(ctypes.get_errno())}; it takes root")
    fcntl.ioctl(fd, _UFFDIO_API, struct.pack("=QQQ", 0xAA, 0, 0))
    fcntl.ioctl(fd, _UFFDIO_REGISTER, struct.pack("=QQQQ", buffer.address, buffer.size, 1, 0))
    buffer.memory.madvise(mmap.MADV_DONTNEED)
    try:
        yield
    finally:
        os.close(fd)


@pytest.mark.skipif(platform.machine() not in _USERFAULTFD, reason="it has another number here")
def test_memory_that_does_not_come_keeps_only_its_own_transfers_waiting(
    queue: Queue, new_queue: Callable[[], Queue], tcp: Pair
) -> None:
    near, far = tcp
    buffer, other = Buffer(), new_queue()
    far.send(b"hello")
    mine, peer = tcp_pair()
    with mine, peer:
        with withheld(buffer):
            asking = InThread(lambda: queue.add(buffer.recv(near))).until_asleep()
            other.recv_into(mine, bytearray(10), cookie=3)
            peer.send(b"x")
            assert cookies(soon(other)) == [3]
            other.add(pykevent.user_event(1, cookie=4))
            other.post(1)
            assert cookies(now(other)) == [4]
        asking.result()
        assert one(queue).data == 5
        assert buffer.memory[:5] == b"hello"


HANGS = """
import os, stat, sys, threading
import fuse

class Hangs(fuse.Operations):
    def getattr(self, path, fh=None):
        if os.path.exists(sys.argv[1] + ".hangs"):
            threading.Event().wait()
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": 4096}

    def read(self, path, size, offset, fh):
        threading.Event().wait()

fuse.FUSE(Hangs(), sys.argv[1], foreground=True, allow_other=False, attr_timeout=0)
"""
"""Once there is a file of its name and ".hangs" it does not say either what its files are."""


@contextmanager
def hanging(folder: Path) -> Iterator[Path]:
    """A file that whoever reads waits for, until the end of the block."""
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", HANGS, str(folder)])
    try:
        eventually(lambda: mounted(folder), "it is served")
        yield folder / "file"
    finally:
        process.kill()
        process.wait()
        mounts.unmount(str(folder))


def stuck(pid: int) -> int:
    """How many threads of a process wait and do not hear signals."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return [stat.read_text().rpartition(")")[2].split()[0] for stat in stats].count("D")


def test_a_process_that_nobody_can_look_at_keeps_only_itself_waiting(place: Path) -> None:
    (first, tell_first), (second, tell_second) = os.pipe(), os.pipe()
    hung = place / "hangs/file"

    def closes() -> None:
        """Look at a page that does not come, and have another wait to change what is mapped."""
        os.read(first, 1)
        with open(hung, "rb") as file:
            slow = mmap.mmap(file.fileno(), PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ)
        at, itself = Exported(slow, writable=False).address, os.open("/proc/self/mem", os.O_RDONLY)

        def changes() -> None:
            os.read(second, 1)
            mmap.mmap(-1, 64 * PAGE)

        threading.Thread(target=changes, daemon=True).start()
        os.pread(itself, 1, at)

    memories, user = memory.Memories(), account.Account(0, Limits())
    mine = client.Process(os.getpid(), os.pidfd_open(os.getpid()))
    with child(closes) as process:
        theirs = client.Process(process.pid, os.pidfd_open(process.pid))
        memories.charge(user, theirs, process.pid, 1)
        with hanging(hung.parent):
            os.write(tell_first, b"x")
            eventually(lambda: stuck(process.pid) == 1, "it looks")
            os.write(tell_second, b"x")
            eventually(lambda: stuck(process.pid) == 2, "it is closed to all")
            asking = InThread(lambda: memories.charge(user, theirs, process.pid, 1))
            eventually(lambda: stuck(os.getpid()) == 1, "somebody looks at it")
            memories.charge(user, mine, os.getpid(), 1)
            assert asking.running
        asking.result()
    for fd in (first, tell_first, second, tell_second):
        os.close(fd)


def test_a_file_that_does_not_come_keeps_nobody_waiting(
    queue: Queue, place: Path, tcp: Pair
) -> None:
    near, far = tcp
    with hanging(place / "hangs") as hung:
        fd = os.open(hung, os.O_RDONLY)
        ask_to_send(queue, near, fd)
        os.close(fd)
        queue.recv_into(near, bytearray(10), cookie=3)
        far.send(b"x")
        assert cookies(soon(queue)) == [3]
        queue.remove(EventType.NAIO, 1)
        assert queue.info().kevents == 0
    far.send(b"y")
    assert near.recv(2) == b"y"


def test_a_file_is_closed_though_all_who_read_for_its_user_wait(
    simulator: Simulator, queue: Queue, place: Path, stack: ExitStack
) -> None:
    near, far = (stack.enter_context(end) for end in tcp_pair())
    narrow(near, far)
    with hanging(place / "hangs") as hung:
        fd = os.open(hung, os.O_RDONLY)
        for ident in range(movers.MOST + 2):
            ends = [stack.enter_context(end) for end in tcp_pair()]
            ask_to_send(queue, ends[0], fd, 100 + ident)
        eventually(lambda: reading(simulator) == movers.MOST, "all read")
        queue.send(near, bytes(MUCH))
        before = len(descriptors(simulator.pid))
        file = os.memfd_create("sent")
        for _ in range(100):
            ask_to_send(queue, near, file)
            queue.remove(EventType.NAIO, 1)
        os.close(file)
        eventually(lambda: len(descriptors(simulator.pid)) <= before, "nothing is held", 5)
        # Nor are those that nobody has come to read.
        for ident in range(movers.MOST + 2):
            queue.remove(EventType.NAIO, 100 + ident)
        eventually(
            lambda: str(descriptors(simulator.pid)).count(str(hung)) == movers.MOST,
            "those are held that are read",
        )
        os.close(fd)
    eventually(lambda: str(hung) not in str(descriptors(simulator.pid)), "none is held", 5)


PREAD = "17" if platform.machine() == "x86_64" else "67"


def reading(simulator: Simulator) -> int:
    """How many threads of a simulator read from a file."""
    found = 0
    for task in Path(f"/proc/{simulator.pid}/task").iterdir():
        with suppress(OSError):
            found += (task / "syscall").read_text().split()[0] == PREAD
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_a_file_counts_until_it_is_closed_whatever_has_become_of_its_queue(
    simulator: Simulator, place: Path, stack: ExitStack
) -> None:
    most = 200
    pairs = [tcp_pair() for _ in range(movers.MOST + 1)]
    for ends in pairs:
        for end in ends:
            stack.enter_context(end)
    waits, goes_on = os.pipe()

    def asks(fd: int) -> None:
        queues = [pykevent.open(simulator.device) for _ in range(2)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

        def has_room(queue: Queue, number: int) -> bool:
            try:
                ask_to_send(queue, pairs[min(number, movers.MOST)][0], fd, number)
            except OSError as error:
                assert error.errno == errno.EMFILE
                return False
            return True

        def fill(queue: Queue, room: int) -> None:
            for number in range(room):
                eventually(partial(has_room, queue, number), "there is room")
            assert not has_room(queue, room)

        fill(queues[0], most)
        os.close(goes_on)
        os.read(waits, 1)
        queues[0].close()
        fill(queues[1], most - movers.MOST)
        queues[1].close()
        # Now there is none.
        with pykevent.open(simulator.device) as queue:
            fill(queue, most - movers.MOST)

    with hanging(place / "hangs") as hung:
        fd = os.open(hung, os.O_RDONLY)
        running = InThread(lambda: as_nobody(lambda: asks(fd)))
        eventually(lambda: reading(simulator) == movers.MOST, "all read")
        os.close(goes_on)
        running.result()
        eventually(
            lambda: str(descriptors(simulator.pid)).count(str(hung)) == movers.MOST,
            "those are held that are read",
        )
        os.close(fd)
    os.close(waits)
    eventually(lambda: str(hung) not in str(descriptors(simulator.pid)), "none is held", 5)


def test_to_have_a_file_sent_waits_for_no_server_that_has_it(
    queue: Queue, place: Path, tcp: Pair
) -> None:
    with hanging(place / "hangs") as hung:
        fd = os.open(hung, os.O_RDONLY)
        (place / "hangs.hangs").touch()
        asking = InThread(lambda: ask_to_send(queue, tcp[0], fd))
        try:
            eventually(lambda: not asking.running, "it was asked for")
            queue.remove(EventType.NAIO, 1)
            asking.result()
            os.close(fd)
        finally:
            (place / "hangs.hangs").unlink()


def test_busy_sockets_are_all_given_a_turn(queue: Queue, stack: ExitStack) -> None:
    pairs = [tcp_pair() for _ in range(4)]
    for ends in pairs:
        for end in ends:
            stack.enter_context(end)
    count = 4 * lanes._STEPS
    for near, _ in pairs:
        for number in range(count):
            queue.recv_into(near, bytearray(1), cookie=number)
    for _, far in pairs:
        far.send(bytes(count))
    events = soon(queue, len(pairs) * count)
    assert sorted(cookies(events)) == sorted(list(range(count)) * len(pairs))


def test_who_may_lock_any_memory_may_have_any_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "limits_of", lambda *_: (float("inf"), float("inf")))
    monkeypatch.setattr(memory, "has_capability", lambda *_: False)
    system = System(Limits())
    queue = system.queues[system.open(os.getuid())]
    process = client.Client(system.clients, os.getpid(), os.getuid(), os.getgid()).process
    pages = 1 << 20
    held = system.memories.charge(queue.account, process, os.getpid(), pages)
    system.memories.uncharge(queue.account, held, pages)
    queue.release()


def test_a_packet_takes_no_more_memory_than_it_has_bytes() -> None:
    class Nowhere:
        """Memory of somebody else, as much as they like."""

        def read(self, address: int, size: int) -> bytes:
            return bytes(size)

        def write(self, address: int, data: bytes) -> int:
            return len(data)

    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        far.send(b"hello")
        tracemalloc.start()
        try:
            space = cast(memory.Space, Nowhere())
            assert moving.receive_packet(near, space, 0, abi.NAIO_MAX) == (5, False)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1 << 20
