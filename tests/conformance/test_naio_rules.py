# SPDX-License-Identifier: GPL-2.0-or-later
"""What NAIO takes and refuses, and what memory it takes."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pykevent
from pykevent import EventType, Flags, NaioEvents, Queue, Request, abi
from pykevent.transfers import Exported

from . import raw
from .sockets import Pair, kinds, narrow, receive, until_arrived
from .support import as_nobody, child, eventually, now, one, refused

pytestmark = pytest.mark.needs("NAIO")

RECV, SEND = NaioEvents.RECV, NaioEvents.SEND
PAGE = mmap.PAGESIZE


@pytest.fixture
def address() -> Iterator[int]:
    """That of a page of memory that can be written to."""
    memory = Exported(mmap.mmap(-1, PAGE), writable=True)
    yield memory.address
    memory.release()


@pytest.mark.parametrize("events", [0, RECV | SEND, 0x8, 0x8000, RECV | NaioEvents.SENDFILE])
def test_events_say_one_thing(queue: Queue, tcp: Pair, address: int, events: int) -> None:
    with refused(errno.EINVAL):
        queue.add(pykevent.naio_event(1, events, tcp[0], address, 10))


@pytest.mark.parametrize(
    "flags",
    [Flags.EDGE, Flags.DISPATCH, Flags.DISABLED, Flags.NOTIFY_BROKEN, Flags.BYTES, 0x800],
)
def test_flags_that_mean_nothing_to_a_transfer_are_refused(
    queue: Queue, tcp: Pair, address: int, flags: int
) -> None:
    with refused(errno.EINVAL):
        queue.add(pykevent.naio_event(1, RECV, tcp[0], address, 10, flags))


def test_waitall_is_for_recv_alone(queue: Queue, tcp: Pair, address: int) -> None:
    with refused(errno.EINVAL):
        queue.add(pykevent.naio_event(1, SEND, tcp[0], address, 10, Flags.WAITALL))
    with refused(errno.EINVAL):
        queue.add(pykevent.timer_event(1, 1.0, flags=Flags.WAITALL))


def test_oneshot_may_be_said(queue: Queue, tcp: Pair, address: int) -> None:
    queue.add(pykevent.naio_event(1, SEND, tcp[0], address, 10, Flags.ONESHOT))
    assert one(queue).last


def test_lengths_have_bounds(queue: Queue, tcp: Pair, address: int) -> None:
    for events, length in ((RECV, 0), (RECV, abi.NAIO_MAX + 1), (SEND, 2**32), (SEND, 2**64 - 1)):
        with refused(errno.EINVAL):
            queue.add(pykevent.naio_event(1, events, tcp[0], address, length))


def test_a_descriptor_has_to_be_a_socket(queue: Queue, address: int) -> None:
    for descriptor, error in (
        (1 << 20, errno.EBADF),
        (1 << 31, errno.EBADF),
        (2**32 - 1, errno.EBADF),
        (1 << 32, errno.EINVAL),
        (2**64 - 1, errno.EINVAL),  # -1, made longer
        (queue.fileno(), errno.ENOTSOCK),
    ):
        request = Request(EventType.NAIO, 1, RECV, params=(address, 10, descriptor))
        with refused(error):
            queue.add(request)
    assert queue.info().kevents == 0


def test_other_kinds_of_socket_are_eopnotsupp(queue: Queue, address: int) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as other, refused(errno.EOPNOTSUPP):
        queue.add(pykevent.naio_event(1, RECV, other, address, 10))


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("bad", [0, 1 << 47, 1 << 63, 2**64 - PAGE])
def test_memory_that_is_not_there_is_efault(queue: Queue, tcp: Pair, bad: int, early: bool) -> None:
    near, far = tcp
    if early:
        far.send(b"x")
        near.recv(1, socket.MSG_PEEK)
    with refused(errno.EFAULT):
        queue.add(pykevent.naio_event(1, RECV, near, bad, 10))
    assert queue.info().kevents == 0
    assert now(queue) == []


@pytest.mark.parametrize("early", [True, False])
def test_memory_that_cannot_be_written_to_is_efault_for_recv(
    queue: Queue, tcp: Pair, early: bool
) -> None:
    near, far = tcp
    if early:
        far.send(b"x")
        near.recv(1, socket.MSG_PEEK)
    memory = Exported(mmap.mmap(-1, PAGE, prot=mmap.PROT_READ), writable=False)
    with refused(errno.EFAULT):
        queue.add(pykevent.naio_event(1, RECV, near, memory.address, 10))
    far.send(b"y")
    assert near.recv(1, socket.MSG_PEEK) in (b"x", b"y")
    queue.add(pykevent.naio_event(1, SEND, near, memory.address, 10))
    assert one(queue).data == 10


def test_a_buffer_half_of_which_is_missing_is_efault_and_nothing_is_pinned(
    queue: Queue, tcp: Pair
) -> None:
    before = pinned()
    # The last page of a file that is shorter than its mapping is a SIGBUS.
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * PAGE)
        memory = mmap.mmap(file.fileno(), 2 * PAGE, mmap.MAP_PRIVATE)
        file.truncate(PAGE)
        view = Exported(memory, writable=True)
        with refused(errno.EFAULT):
            queue.add(pykevent.naio_event(1, RECV, tcp[0], view.address, 2 * PAGE))
    assert pinned() == before


def pinned() -> int:
    """Pages that this process is charged for."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmPin:"):
            return int(line.split()[1]) * 1024 // PAGE
    return 0


@pytest.mark.needs("PIN")
def test_what_waits_is_pinned_and_what_has_ended_is_not(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    before = pinned()
    memory = mmap.mmap(-1, 10 * PAGE)
    view = Exported(memory, writable=True)
    queue.add(pykevent.naio_event(1, RECV, near, view.address + 1, 9 * PAGE))
    assert pinned() == before + 10
    queue.add(pykevent.naio_event(2, RECV, near, view.address, PAGE))
    assert pinned() == before + 11
    queue.remove(EventType.NAIO, 2)
    assert pinned() == before + 10
    far.send(b"x")
    assert one(queue).data == 1
    assert pinned() == before
    assert memory[1:2] == b"x"


def test_what_does_not_wait_is_not_pinned(queue: Queue, tcp: Pair) -> None:
    before = pinned()
    queue.send(tcp[0], bytes(10 * PAGE))
    assert pinned() == before


def test_more_than_rlimit_memlock_is_enomem(tcp: Pair) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    near, _ = tcp

    def asks() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 * PAGE, 8 * PAGE))
        memory = Exported(mmap.mmap(-1, 16 * PAGE), writable=True)
        with pykevent.open() as own:
            ask = [
                pykevent.naio_event(n, RECV, near, memory.address, pages * PAGE)
                for n, pages in enumerate((9, 8, 1))
            ]
            assert own.add_many(ask) == [-errno.ENOMEM, 0, -errno.ENOMEM]
            own.remove(EventType.NAIO, 1)
            assert own.add_many(ask) == [-errno.ENOMEM, 0, -errno.ENOMEM]

    as_nobody(asks)


def test_what_a_user_may_have_pinned_is_no_more_for_who_forks(tcp: Pair) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    near, _ = tcp

    def asks() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 * PAGE, 8 * PAGE))
        memory = Exported(mmap.mmap(-1, 16 * PAGE), writable=True)

        def ask(own: Queue, ident: int, pages: int) -> None:
            own.add(pykevent.naio_event(ident, RECV, near, memory.address, pages * PAGE))

        def asks_too() -> None:
            with pykevent.open() as other:
                with refused(errno.ENOMEM):
                    ask(other, 1, 3)
                ask(other, 2, 2)

        with pykevent.open() as own:
            ask(own, 1, 6)
            for _ in range(2):
                with child(asks_too) as process:
                    process.finish()
            own.remove(EventType.NAIO, 1)
            ask(own, 3, 8)

    as_nobody(asks)


def test_a_limit_that_is_met_half_way_is_told_by_the_event(tcp: Pair) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    near, far = tcp
    narrow(near, far)

    def asks() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (PAGE, PAGE))
        with pykevent.open() as own:
            own.send(near, bytes(3_000_000))
            event = one(own)
            assert event.error == errno.ENOMEM
            assert 0 < event.data < 3_000_000

    as_nobody(asks)


def may_lock() -> bool:
    """Whether this process has CAP_IPC_LOCK."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 14 & 1)
    raise AssertionError("the kernel does not tell of capabilities")


def test_with_cap_ipc_lock_the_limit_does_not_count(tcp: Pair) -> None:
    if not may_lock():
        pytest.skip("it takes CAP_IPC_LOCK")
    near, far = tcp

    def asks() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (PAGE, PAGE))
        memory = mmap.mmap(-1, 16 * PAGE)
        with pykevent.open() as own:
            own.recv_into(near, memory)
            far.send(b"hello")
            assert one(own).data == 5
        assert memory[:5] == b"hello"

    with child(asks) as process:
        process.finish()


@pytest.mark.needs("PIN")
@kinds(["UDP over IPv4", "UDP over IPv6", "UNIX datagram", "UNIX seqpacket"])
def test_a_datagram_that_meets_a_bad_buffer_is_lost(queue: Queue, ends: Pair) -> None:
    near, far = ends
    far.send(b"first")
    far.send(b"second")
    near.recv(1, socket.MSG_PEEK)
    with refused(errno.EFAULT):
        queue.add(pykevent.naio_event(1, RECV, near, 0, 10))
    assert near.recv(10) == b"second"
    assert not pending(near)


@pytest.mark.needs("PIN")
def test_memory_that_is_unmapped_meanwhile_does_no_harm(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    memory = mmap.mmap(-1, 4 * PAGE)
    view = Exported(memory, writable=True)
    queue.add(pykevent.naio_event(1, RECV, near, view.address, 4 * PAGE))
    view.release()
    memory.close()
    far.send(b"hello")
    assert one(queue).data == 5


def test_memory_of_a_parent_stays_its_own_after_a_fork(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(PAGE)
    queue.recv_into(near, buffer)

    def writes() -> None:
        for position in range(PAGE):
            buffer[position] = 0xFF

    with child(writes) as process:
        buffer[PAGE - 1] = 1
        far.send(b"hello")
        assert one(queue).data == 5
        process.finish()
    assert bytes(buffer[:6]) == b"hello\0"


def test_memory_is_the_childs_if_the_child_asked(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    memory = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:6] = b"------"
    view = Exported(memory, writable=True)
    device = os.dup(queue.fileno())
    reader, writer = os.pipe()

    def asks() -> None:
        os.close(writer)
        Queue.fromfd(device).add(pykevent.naio_event(1, RECV, near, view.address, 10))
        far.send(b"hello")
        # The parent has seen the event.
        assert os.read(reader, 1) == b""
        assert memory[:6] == b"hello-"

    with child(asks) as process:
        os.close(reader)
        event = one(queue)
        assert (event.ident, event.data, event.error) == (1, 5, 0)
        os.close(writer)
        process.finish()
    os.close(device)
    assert memory[:6] == b"------"


def test_shared_memory_is_received_into(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    memory = mmap.mmap(-1, PAGE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    view = Exported(memory, writable=True)
    queue.add(pykevent.naio_event(1, RECV, near, view.address, PAGE))
    far.send(b"hello")
    one(queue)
    assert memory[:5] == b"hello"


def test_memory_of_a_file_is_received_into_or_refused(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    with tempfile.TemporaryFile() as file:
        file.truncate(PAGE)
        memory = mmap.mmap(file.fileno(), PAGE)
        view = Exported(memory, writable=True)
        try:
            queue.add(pykevent.naio_event(1, RECV, near, view.address, PAGE))
        except OSError as error:
            assert error.errno == errno.EFAULT
            assert now(queue) == []
            return
        far.send(b"hello")
        assert one(queue).data == 5
        assert os.pread(file.fileno(), 5, 0) == b"hello"


def test_memory_of_a_file_is_sent(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    narrow(near, far)
    content = os.urandom(600 * PAGE)
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        memory = mmap.mmap(file.fileno(), len(content), prot=mmap.PROT_READ)
        queue.send(near, memory)
        assert receive(far, len(content)) == content
        assert one(queue).data == len(content)


@pytest.mark.needs("PIN")
def test_memory_that_moves_takes_its_transfer_along(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    memory = mmap.mmap(-1, 2 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = Exported(memory, writable=True)
    queue.add(pykevent.naio_event(1, RECV, near, view.address + PAGE - 2, 5))
    view.release()
    memory.resize(512 * PAGE)
    far.send(b"hello")
    assert one(queue).data == 5
    assert memory[PAGE - 2 : PAGE + 3] == b"hello"


def test_huge_pages_are_received_into(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    size = 4 << 20
    memory = mmap.mmap(-1, 2 * size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError as error:
        pytest.skip(f"no huge pages here: {error}")
    content = os.urandom(size)
    view = Exported(memory, writable=True)
    queue.add(pykevent.naio_event(1, RECV, near, view.address + 4097, size, Flags.WAITALL))
    far.sendall(content)
    assert one(queue).data == size
    assert memory[4097 : 4097 + size] == content


def test_a_buffer_may_begin_anywhere_and_span_mappings(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    memory = mmap.mmap(-1, 100 * PAGE)
    view = Exported(memory, writable=True)
    content = os.urandom(98 * PAGE)
    queue.add(pykevent.naio_event(1, RECV, near, view.address + 123, len(content), Flags.WAITALL))
    far.sendall(content)
    assert one(queue).data == len(content)
    assert memory[123 : 123 + len(content)] == content


def test_a_transfer_cannot_be_modified(queue: Queue, tcp: Pair, address: int) -> None:
    request = pykevent.naio_event(1, RECV, tcp[0], address, 10)
    with refused(errno.ENOENT):
        queue.modify(request)
    queue.add(request)
    with refused(errno.EOPNOTSUPP):
        queue.modify(request)
    queue.remove(EventType.NAIO, 1)


def test_remove_says_in_the_request_how_far_it_came(queue: Queue, tcp: Pair, address: int) -> None:
    near, far = tcp
    queue.add(pykevent.naio_event(1, RECV, near, address, 10, Flags.WAITALL))
    far.send(b"abc")
    until_arrived(far)
    eventually(lambda: not pending(near), "three bytes are taken")
    call = raw.batch(abi.REMOVE(1), raw.request(EventType.NAIO, 1))
    assert call(queue.fileno()) == 1
    answer = abi.REQUEST.unpack_from(call.buffer, abi.BATCH.size)
    assert answer[6:] == (0, 3, errno.ECANCELED, 0)


@kinds(["UNIX datagram"])
def test_what_is_refused_is_told_with_a_way_out(
    queue: Queue, tcp: Pair, ends: Pair, pipe: tuple[int, int], address: int
) -> None:
    near = tcp[0]
    with open("/proc/self/status") as made_up, tempfile.TemporaryFile() as file:
        refusals: dict[str, Callable[[], object]] = {
            r"UNIX streams send, .*call send\(\)": lambda: queue.send(ends[0], b"x"),
            "files go by streams alone": lambda: queue.sendfile(ends[0], file),
            "makes up, as in /proc": lambda: queue.sendfile(near, made_up),
            r"for sockets; register\(\) watches what else can be polled": lambda: queue.recv(
                pipe[0], 1
            ),
            "exactly one of RECV, SEND and SENDFILE": lambda: queue.add(
                pykevent.naio_event(1, RECV | SEND, near, address, 10)
            ),
            r"what sendfile_argument\(\) makes": lambda: queue.add(
                pykevent.naio_event(1, NaioEvents.SENDFILE, near, 0, abi.SENDFILE.size)
            ),
        }
        for said, ask in refusals.items():
            with pytest.raises(OSError, match=said):
                ask()
    assert queue.info().kevents == 0


def pending(sock: socket.socket) -> bool:
    """Whether there is something to read."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False
