# SPDX-License-Identifier: GPL-2.0-or-later
"""What the simulator does otherwise than the module: the list of the README, each pinned here.

A test that fails because a difference has gone is good news: strike it from the list.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import platform
import select
import signal
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from runner.simulator import Simulator

import pykevent
from pykevent import (
    EventType,
    FileKind,
    InodeEvents,
    NaioEvents,
    PollEvents,
    Queue,
    SocketEvents,
)
from pykevent.sim import device, interrupts, watches
from pykevent.sim.account import Limits
from pykevent.sim.client import Client
from pykevent.sim.kevent import RefusedError, Waiter
from pykevent.sim.system import System
from pykevent.transfers import Exported
from tests.conformance import raw
from tests.conformance.support import (
    InThread,
    as_nobody,
    child,
    cookies,
    drain,
    eventually,
    now,
    one,
    refused,
    tcp_pair,
    until_polled,
)

MODIFY, CREATE = InodeEvents.MODIFY, InodeEvents.CREATE
F_GETSIG = 11
PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None, use_errno=True)


def test_devices_are_pinned_and_nothing_else(queue: Queue) -> None:
    assert queue.info().pinned == FileKind.OTHER


def test_fdinfo_has_no_line_for_a_kevent(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    assert "kevent:" not in Path(f"/proc/self/fdinfo/{queue.fileno()}").read_text()


def test_the_inode_of_a_file_without_one_of_its_own_cannot_be_watched(queue: Queue) -> None:
    fd = os.eventfd(0)
    try:
        with refused(errno.EOPNOTSUPP):
            queue.add(pykevent.inode_event(fd, MODIFY))
    finally:
        os.close(fd)


@pytest.fixture
def read_only() -> Iterator[tuple[int, mmap.mmap]]:
    """Two pages, each of which can be read only once `protect` was called, and their address."""
    with mmap.mmap(-1, 2 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        anchor = ctypes.c_char.from_buffer(memory)
        yield ctypes.addressof(anchor), memory
        for page in range(2):
            address = ctypes.addressof(anchor) + page * mmap.PAGESIZE
            protect(address, mmap.PROT_READ | mmap.PROT_WRITE)
        del anchor


def protect(address: int, protection: int) -> None:
    """mprotect(2) of a page."""
    assert _libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, protection) == 0


def test_where_a_part_of_the_answer_cannot_be_written_nothing_is_delivered(
    queue: Queue, read_only: tuple[int, mmap.mmap]
) -> None:
    address, memory = read_only
    queue.add_many(pykevent.user_event(ident, cookie=ident) for ident in (1, 2, 3))
    queue.post_many((ident, 0) for ident in (1, 2, 3))
    call = raw.wait(3)
    # The header and the first record lie in memory that can be written, the others do not.
    start = mmap.PAGESIZE - ctypes.sizeof(pykevent.abi.kevent_wait) - 32
    memory[start : start + call.size] = bytes(call.buffer[: call.size])
    protect(address + mmap.PAGESIZE, mmap.PROT_READ)
    with refused(errno.EFAULT):  # the module delivers one
        raw.ioctl(queue.fileno(), call.number, address + start)
    assert cookies(now(queue)) == [1, 2, 3]


def test_a_second_read_of_one_descriptor_waits_behind_the_first(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    first = InThread(lambda: os.read(queue.fileno(), 32)).until_asleep("read")
    os.set_blocking(queue.fileno(), False)
    second = InThread(lambda: os.read(queue.fileno(), 32))
    assert second.tid
    queue.post(1)
    assert len(first.result()) == 32
    with refused(errno.EAGAIN):
        second.result()


def test_a_signalfd_reports_what_is_pending_for_another_thread(
    queue: Queue, stack: ExitStack
) -> None:
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, previous)
    mask = (ctypes.c_ulong * 16)()
    mask[0] = 1 << (signal.SIGUSR2 - 1)
    fd = _libc.signalfd(-1, mask, os.O_CLOEXEC)
    stack.callback(os.close, fd)
    queue.add(pykevent.poll_event(fd, PollEvents.IN))
    told, ended = threading.Event(), threading.Event()

    def gets_a_signal() -> None:
        signal.raise_signal(signal.SIGUSR2)
        told.set()
        ended.wait()

    other = InThread(gets_a_signal)
    told.wait()
    try:
        assert one(queue).events == PollEvents.IN
        with pytest.raises(BlockingIOError):
            os.set_blocking(fd, False)
            os.read(fd, 128)
    finally:
        ended.set()
        other.result()


def test_a_file_of_another_fuse_server_cannot_be_polled(queue: Queue, place: Path) -> None:
    with (
        Simulator(place / "other") as other,
        pykevent.open(other.device) as theirs,
        refused(errno.EOPNOTSUPP),
    ):
        queue.add(pykevent.poll_event(theirs, PollEvents.IN))
    assert queue.info().kevents == 0


def test_a_path_through_a_link_of_proc_that_jumps_is_eloop(queue: Queue, tmp_path: Path) -> None:
    with refused(errno.ELOOP):
        queue.add_path(f"/proc/{os.getppid()}/cwd", CREATE, 1)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        queue.add_path(f"/proc/self/fd/{fd}", CREATE, 1)  # but for this one
    finally:
        os.close(fd)
    (tmp_path / "made").touch()
    assert one(queue).name == b"made"


def test_a_file_watched_by_descriptor_has_a_signal_set_that_no_other_of_its_inode_has(
    queue: Queue, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    fd, other = (os.open(tmp_path / "file", os.O_RDONLY) for _ in range(2))
    try:
        queue.add(pykevent.inode_event(fd, MODIFY))
        assert fcntl.fcntl(fd, F_GETSIG) == signal.SIGIO
        queue.add(pykevent.inode_event(other, MODIFY))
        assert signal.SIGRTMIN <= fcntl.fcntl(other, F_GETSIG) <= signal.SIGRTMAX
        for number in (fd, other):
            queue.remove(EventType.INODE, number)
            assert fcntl.fcntl(number, F_GETSIG) == 0
    finally:
        os.close(fd)
        os.close(other)


def test_of_more_entries_than_have_companions_writes_in_a_row_may_count_as_one(
    queue: Queue, tmp_path: Path
) -> None:
    names = [f"{number:04}" for number in range(watches.MAX_COMPANIONS + 1)]
    for name in names:
        (tmp_path / name).touch()
    queue.add_path(tmp_path, MODIFY, 1)
    counts = {}
    for name in names:
        with (tmp_path / name).open("r+b", buffering=0) as file:
            for _ in range(3):
                file.write(b"x")
        counts[name] = sum(event.count for event in drain(queue))
    assert sorted(counts.values())[0] in (1, 2, 3)
    assert list(counts.values()).count(3) >= watches.MAX_COMPANIONS


def test_a_path_of_a_file_keeps_its_file_system_mounted(queue: Queue, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    target = os.fsencode(tmp_path)
    if _libc.mount(b"kevent-test", target, b"tmpfs", 0, None) != 0:
        pytest.skip(f"mount: {os.strerror(ctypes.get_errno())}")
    try:
        (tmp_path / "file").touch()
        queue.add_path(tmp_path / "file", MODIFY, 1)
        assert _libc.umount2(target, 0) == -1
        assert ctypes.get_errno() == errno.EBUSY
        queue.remove(EventType.PATH, 1)
        assert _libc.umount2(target, 0) == 0
    finally:
        _libc.umount2(target, 2)


def test_a_directory_watched_by_descriptor_has_a_lock_that_others_can_see(
    queue: Queue, tmp_path: Path
) -> None:
    fd, other = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    try:
        queue.add(pykevent.inode_event(fd, CREATE))
        asked = struct.pack("=hh4xqqi4x", fcntl.F_WRLCK, 0, 1 << 61, 0, 0)
        found = struct.unpack("=hh4xqqi4x", fcntl.fcntl(other, 36, asked))  # F_OFD_GETLK
        assert found[0] == fcntl.F_RDLCK
        assert found[3] == 1
        queue.remove(EventType.INODE, fd)
        found = struct.unpack("=hh4xqqi4x", fcntl.fcntl(other, 36, asked))
        assert found[0] == fcntl.F_UNLCK
    finally:
        os.close(fd)
        os.close(other)


def test_more_calls_than_may_wait_at_once_are_enomem(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        """libfuse, as far as this goes."""

        fuse_req_interrupt_func = _libc.getpid

    monkeypatch.setattr(interrupts, "MAX_BLOCKED", 1)
    calls = interrupts.Interrupts(Library())
    system = System(Limits())
    call = device.Call(Client(system.clients, os.getpid(), 0, 0), 0, calls)
    full = system.queues[system.open(0)]
    with calls.told(0, Waiter(1), 0), pytest.raises(RefusedError) as caught:
        device.deliver(full, device.Room(1), 1, device.Deadline(), call)
    assert caught.value.errno == errno.ENOMEM
    assert queue.info().kevents == 0


def test_the_bytes_of_a_socket_that_was_closed_here_are_not_known(queue: Queue) -> None:
    near, far = socket.socketpair()
    with near, far:
        twin = near.dup()
        with twin:
            queue.add(pykevent.socket_event(near, SocketEvents.RECV, pykevent.Flags.BYTES))
            far.send(b"123")
            assert one(queue).data == 3
            near.close()
            assert one(queue).data == 0


def test_more_kevents_of_one_file_than_it_can_wake_are_enospc(queue: Queue) -> None:
    reader, writer = os.pipe()
    twins = [os.dup(reader) for _ in range(501)]
    try:
        results = queue.add_many([pykevent.poll_event(fd, PollEvents.IN) for fd in twins])
        assert results == [0] * 500 + [-errno.ENOSPC]
        with refused(errno.ENOSPC):
            queue.modify(pykevent.poll_event(twins[0], PollEvents.IN, cookie=9))
        os.write(writer, b"x")
        assert set(cookies(now(queue))) == {0}
    finally:
        for fd in (*twins, reader, writer):
            os.close(fd)


def test_a_chain_of_epolls_is_shorter_by_two(queue: Queue, stack: ExitStack) -> None:
    chain = [stack.enter_context(select.epoll()) for _ in range(4)]
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    chain[0].register(reader, select.EPOLLIN)
    for inner, outer in itertools.pairwise(chain):
        outer.register(inner, select.EPOLLIN)
    queue.add(pykevent.poll_event(chain[2], PollEvents.IN))
    with refused(errno.ELOOP):
        queue.add(pykevent.poll_event(chain[3], PollEvents.IN))


def test_a_read_of_more_than_128_kib_waits_for_more(queue: Queue) -> None:
    count = (128 << 10) // 32
    queue.add_many(pykevent.user_event(ident) for ident in range(count))
    queue.post_many((ident, 0) for ident in range(count))
    with mmap.mmap(-1, 1 << 20) as memory:
        reading = InThread(lambda: os.readv(queue.fileno(), [memory])).until_asleep("readv")
        eventually(lambda: queue.info().ready == 0, "the first part is read")
        queue.post(1)
        assert reading.result() == 32 * (count + 1)


def test_the_whole_argument_of_an_ioctl_is_written(queue: Queue) -> None:
    queue.add(pykevent.user_event(1))
    call = raw.wait(8, timeout=pykevent.abi.WAIT_FOREVER)
    waiting = InThread(lambda: call(queue.fileno())).until_asleep("ioctl")
    call.buffer[call.size - 1] = 7
    queue.post(1)
    assert waiting.result() == 1
    assert call.buffer[call.size - 1] == 0  # the module writes the first record alone


def waiting_for(queue: Queue, near: socket.socket, pages: int) -> mmap.mmap:
    """Memory that a transfer waits to receive into."""
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    exported = Exported(memory, writable=True)
    queue.add(pykevent.naio_event(1, NaioEvents.RECV, near, exported.address, len(memory)))
    exported.release()
    return memory


@pytest.mark.parametrize("change", ["unmapped", "moved"])
def test_memory_that_is_not_there_any_more_ends_its_transfer(queue: Queue, change: str) -> None:
    near, far = socket.socketpair()
    with near, far:
        memory = waiting_for(queue, near, 4)
        assert not queue.info().features & pykevent.Feature.PIN
        (pinned,) = [
            line.split()[1]
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmPin:")
        ]
        assert pinned == "0"
        if change == "moved":
            memory.resize(4096 * mmap.PAGESIZE)
        else:
            memory.close()
        far.send(b"hello")
        event = one(queue)
        assert (event.error, event.data) == (errno.EFAULT, 0)
        assert near.recv(10) == b"hello"


def test_memory_of_who_has_died_ends_its_transfer(queue: Queue) -> None:
    near, far = socket.socketpair()
    shared = os.dup(queue.fileno())
    try:
        with near, far:
            with child(lambda: waiting_for(Queue.fromfd(shared), near, 1).flush()) as process:
                process.finish()
            far.send(b"hello")
            event = one(queue)
            assert (event.error, event.data) == (errno.EFAULT, 0)
            assert near.recv(10) == b"hello"
    finally:
        os.close(shared)


def test_a_datagram_that_meets_a_bad_buffer_stays(queue: Queue) -> None:
    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    with near, far:
        far.send(b"hello")
        with refused(errno.EFAULT):
            queue.add(pykevent.naio_event(1, NaioEvents.RECV, near, 0, 10))
        assert near.recv(10) == b"hello"


def test_what_a_unix_socket_sends_names_the_simulator_unless_it_is_roots(theirs: Path) -> None:
    def sends() -> None:
        # Who has changed users may not be looked into, unless they say so.
        assert _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
        near, far = socket.socketpair()
        with near, far, pykevent.open(theirs / "kevent") as queue:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            queue.send(near, b"hello")
            assert one(queue).data == 5
            _, [(_, _, credentials)], _, _ = far.recvmsg(10, 100)
            sender = struct.unpack("3i", credentials)
            assert sender == (int((theirs / "pid").read_text()), os.getuid(), os.getgid())

    as_nobody(sends)


def test_a_shared_mapping_of_a_file_is_received_into(queue: Queue, tmp_path: Path) -> None:
    near, far = socket.socketpair()
    with near, far, (tmp_path / "file").open("w+b") as file:
        file.truncate(mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), mmap.PAGESIZE) as memory:
            queue.recv_into(near, memory)
            far.send(b"hello")
            assert one(queue).data == 5
        assert os.pread(file.fileno(), 5, 0) == b"hello"


def test_what_came_while_nobody_had_the_socket_is_received_once_somebody_has(
    queue: Queue,
) -> None:
    near, far = socket.socketpair()
    left, right = socket.socketpair()
    buffer = bytearray(10)
    with near, far, left, right:
        queue.recv_into(near, buffer)
        assert now(queue) == []  # nobody looks at it any more
        rights = array.array("i", [near.fileno()])
        left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        near.close()
        far.send(b"hello")
        assert queue.wait(0.1) == []
        _, ancillary, _, _ = right.recvmsg(1, 100)
        (received,) = struct.unpack("i", ancillary[0][2])
        assert one(queue).data == 5
        assert bytes(buffer[:5]) == b"hello"
        os.close(received)


_EXIT = {"x86_64": 60, "aarch64": 93}


@pytest.mark.skipif(platform.machine() not in _EXIT, reason="exit(2) has another number here")
def test_a_process_whose_first_thread_has_ended_cannot_be_looked_into(queue: Queue) -> None:
    shared = os.dup(queue.fileno())

    def goes_on() -> None:
        first = os.getpid()

        def adds() -> None:
            status = 1
            try:
                eventually(lambda: _state_of(first) == "Z", "the first thread has ended")
                with pytest.raises(ProcessLookupError):
                    Queue.fromfd(shared).add(pykevent.poll_event(shared, PollEvents.IN))
                status = 0
            finally:
                os._exit(status)

        threading.Thread(target=adds).start()
        _libc.syscall(_EXIT[platform.machine()], 0)

    try:
        with child(goes_on) as process:
            process.finish()
    finally:
        os.close(shared)


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_who_cannot_be_seen_from_here_has_no_descriptors_or_paths() -> None:
    # The kernel says 0 of a process in a namespace that is no child of ours.
    client = Client(System(Limits()).clients, 0, 0, 0)
    for look in (lambda: client.borrow(0), lambda: client.resolve(b"/", True)):
        with pytest.raises(RefusedError) as caught:
            look()
        assert caught.value.errno == errno.EPERM
    assert not client.dying()


def test_the_device_is_a_regular_file_of_no_size(queue: Queue, simulator: Simulator) -> None:
    status = os.fstat(queue.fileno())
    assert (stat.S_ISREG(status.st_mode), status.st_size) == (True, 0)
    with refused(errno.ENOSYS):
        simulator.device.chmod(0o600)
    queue.add(pykevent.user_event(1))
    queue.post(1)
    # The module takes each part for a read of its own, which is too short.
    assert os.readv(queue.fileno(), [bytearray(8), bytearray(24)]) == 32


def test_the_limits_are_options_and_not_files(simulator: Simulator) -> None:
    assert sorted(entry.name for entry in simulator.folder.iterdir()) == ["kevent", "pid"]


def test_another_users_simulator_is_refused_in_a_sentence(theirs: Path) -> None:
    with pytest.raises(PermissionError, match="it is the simulator of another user"):
        pykevent.open(theirs / "kevent")
    as_nobody(lambda: pykevent.open(theirs / "kevent").close())


def test_a_receive_that_waits_leaves_the_mark_of_urgent_data_where_it_is(queue: Queue) -> None:
    near, far = tcp_pair()
    with near, far:
        transfer = queue.recv(near, 10)
        far.send(b"!", socket.MSG_OOB)
        until_polled(near, select.POLLPRI)
        assert now(queue) == []
        assert not transfer.done
        assert near.recv(1, socket.MSG_OOB) == b"!"
        transfer.cancel()
