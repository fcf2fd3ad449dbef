# SPDX-License-Identifier: GPL-2.0-or-later
"""NAIO RECV with MULTISHOT: a row of receives into the same memory, made by WAIT."""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pykevent
from pykevent import EventFlags, EventType, Flags, InodeEvents, NaioEvents, Queue
from pykevent.transfers import Exported

from . import raw
from .sockets import ALL, STREAMS, Pair, kinds
from .support import InThread, child, cookies, eventually, now, one, refused, soon, until_polled

pytestmark = pytest.mark.needs("NAIO")

RECV, MULTISHOT = NaioEvents.RECV, Flags.MULTISHOT
PAGE = mmap.PAGESIZE
# of socket(7), which Python's socket does not have
SO_TIMESTAMPING, TX_SOFTWARE, SOFTWARE = 37, 1 << 1, 1 << 4
PACKETS = [kind for kind in ALL if kind not in STREAMS]


@kinds(ALL)
def test_each_wait_receives_what_came(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffer = bytearray(100)
    transfer = queue.recv_into(near, buffer, multishot=True, cookie=7)
    for word in (b"hello", b"to", b"the world"):
        assert now(queue) == []
        far.send(word)
        event = one(queue)
        assert (event.type, event.ident, event.cookie) == (EventType.NAIO, transfer.ident, 7)
        assert (event.events, event.data, event.count, event.flags) == (RECV, len(word), 1, 0)
        assert transfer.received == word
        assert not transfer.done
    assert queue.info().kevents == 1


@kinds(ALL)
def test_what_is_there_already_is_received_by_the_next_wait(queue: Queue, ends: Pair) -> None:
    near, far = ends
    far.send(b"early")
    near.recv(1, socket.MSG_PEEK)
    transfer = queue.recv_into(near, bytearray(100), multishot=True)
    (event,) = now(queue)
    assert (event.data, transfer.received) == (5, b"early")


@kinds(STREAMS)
def test_what_the_buffer_does_not_hold_is_for_the_next_wait(queue: Queue, ends: Pair) -> None:
    near, far = ends
    transfer = queue.recv_into(near, bytearray(4), multishot=True)
    far.send(b"abcdefghij")
    got = [(one(queue).data, transfer.received) for _ in range(3)]
    assert got == [(4, b"abcd"), (4, b"efgh"), (2, b"ij")]
    assert now(queue) == []


@kinds(PACKETS)
def test_each_wait_receives_one_packet(queue: Queue, ends: Pair) -> None:
    near, far = ends
    transfer = queue.recv_into(near, bytearray(3), multishot=True)
    for packet in (b"abc", b"defgh", b"i"):
        far.send(packet)
    got = []
    for _ in range(3):
        event = one(queue)
        got.append((transfer.received, event.truncated))
    assert got == [(b"abc", False), (b"def", True), (b"i", False)]
    assert now(queue) == []


@kinds(["UDP over IPv4", "UNIX datagram"])
def test_an_empty_datagram_is_not_the_end(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.recv_into(near, bytearray(3), multishot=True)
    far.send(b"")
    event = one(queue)
    assert (event.data, event.last) == (0, False)
    far.send(b"x")
    assert one(queue).data == 1


@kinds(ALL)
def test_a_read_of_the_queue_receives_as_a_wait_does(queue: Queue, ends: Pair) -> None:
    near, far = ends
    buffer = bytearray(10)
    transfer = queue.recv_into(near, buffer, multishot=True, cookie=7)
    reader = InThread(lambda: os.read(queue.fileno(), 32)).until_asleep("read")
    for word in (b"hello", b"you"):
        far.send(word)
        (event,) = pykevent.parse_records(reader.result())
        assert (event.ident, event.cookie, event.data) == (transfer.ident, 7, len(word))
        assert (event.events, event.flags) == (RECV, 0)
        assert buffer.startswith(word)
        reader = InThread(lambda: os.read(queue.fileno(), 32)).until_asleep("read")
    near.close()
    (event,) = pykevent.parse_records(reader.result())
    assert (event.error, event.broken, event.last) == (errno.ECANCELED, True, True)


def test_the_buffer_is_not_touched_between_two_waits(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    buffer = bytearray(b"-" * 10)
    queue.recv_into(near, buffer, multishot=True)
    far.send(b"hello")
    assert near.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) == b"hello"
    assert select.select([queue], [], [], 0)[0] == [queue]
    assert queue.info().ready == 1
    assert buffer == b"-" * 10
    assert one(queue).data == 5
    assert buffer == b"hello-----"


@kinds([*STREAMS, "UNIX seqpacket"])
def test_the_end_of_the_stream_is_the_last_event(queue: Queue, ends: Pair) -> None:
    near, far = ends
    transfer = queue.recv_into(near, bytearray(10), multishot=True)
    far.send(b"bye")
    far.shutdown(socket.SHUT_WR)
    event = one(queue)
    assert (event.data, event.last) == (3, False)
    event = one(queue)
    assert (event.data, event.error, event.flags) == (0, 0, EventFlags.LAST)
    assert transfer.done
    assert transfer.result() == 0
    assert queue.info().kevents == 0


def test_an_error_is_the_last_event(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    transfer = queue.recv_into(near, bytearray(10), multishot=True)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    far.close()
    event = one(queue)
    assert (event.data, event.error) == (0, errno.ECONNRESET)
    assert event.flags == EventFlags.LAST | EventFlags.ERROR
    assert transfer.done
    assert queue.info().kevents == 0


@kinds(ALL)
@pytest.mark.parametrize("dispatch", [False, True])
def test_a_close_of_the_socket_is_the_last_event(queue: Queue, ends: Pair, dispatch: bool) -> None:
    near, far = ends
    transfer = queue.recv_into(near, bytearray(10), multishot=True, dispatch=dispatch)
    far.send(b"x")
    assert one(queue).data == 1
    near.close()
    event = one(queue)
    assert (event.data, event.error) == (0, errno.ECANCELED)
    assert event.flags == EventFlags.LAST | EventFlags.ERROR | EventFlags.BROKEN
    assert transfer.done
    assert queue.info().kevents == 0


def test_with_dispatch_nothing_comes_until_it_is_resumed(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    transfer = queue.recv_into(near, bytearray(3), multishot=True, dispatch=True)
    far.send(b"abcdef")
    assert one(queue).data == 3
    far.send(b"ghi")
    near.recv(6, socket.MSG_PEEK | socket.MSG_WAITALL)
    assert now(queue) == []
    for expected in (b"def", b"ghi"):
        transfer.resume()
        assert one(queue).data == 3
        assert transfer.received == expected
    transfer.resume()
    assert now(queue) == []
    far.send(b"j")
    assert one(queue).data == 1


def test_disabled_it_waits_for_a_modify(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    memory = Exported(bytearray(10), writable=True)
    request = pykevent.naio_event(1, RECV, near, memory.address, 10, MULTISHOT | Flags.DISABLED)
    queue.add(request)
    far.send(b"x")
    near.recv(1, socket.MSG_PEEK)
    assert now(queue) == []
    queue.modify(pykevent.naio_event(1, RECV, near, memory.address, 10, MULTISHOT))
    assert one(queue).data == 1


@kinds(ALL)
def test_disabled_it_tells_the_close_of_the_socket(queue: Queue, ends: Pair) -> None:
    near, far = ends
    memory = Exported(bytearray(10), writable=True)
    flags = MULTISHOT | Flags.DISABLED
    queue.add(pykevent.naio_event(1, RECV, near, memory.address, 10, flags))
    far.send(b"x")
    near.recv(1, socket.MSG_PEEK)
    assert now(queue) == []
    near.close()
    event = one(queue)
    assert (event.ident, event.data, event.error) == (1, 0, errno.ECANCELED)
    assert event.flags == EventFlags.LAST | EventFlags.ERROR | EventFlags.BROKEN
    assert memory.source == bytes(10)
    assert queue.info().kevents == 0


def test_modify_gives_other_memory(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    first, second = bytearray(4), bytearray(9)
    queue.recv_into(near, first, multishot=True)
    (transfer,) = queue._transfers.pending()
    far.send(b"ab")
    assert one(queue).data == 2
    with_memory = Exported(second, writable=True)
    queue.modify(
        pykevent.naio_event(transfer.ident, RECV, near, with_memory.address, 9, MULTISHOT, 5)
    )
    far.send(b"cdefghi")
    event = one(queue)
    assert (event.data, event.cookie) == (7, 5)
    assert (bytes(first), bytes(second)) == (b"ab\0\0", b"cdefghi\0\0")


@kinds(["UNIX stream"])
def test_modify_is_for_the_same_socket_and_a_multishot(queue: Queue, tcp: Pair, ends: Pair) -> None:
    near, _ = tcp
    memory = Exported(bytearray(10), writable=True)
    queue.add(pykevent.naio_event(1, RECV, near, memory.address, 10, MULTISHOT))
    queue.add(pykevent.naio_event(2, RECV, ends[0], memory.address, 10))
    for request, error in (
        (pykevent.naio_event(1, RECV, ends[0], memory.address, 10, MULTISHOT), errno.EINVAL),
        (pykevent.naio_event(1, RECV, near, memory.address, 10), errno.EINVAL),
        (pykevent.naio_event(1, RECV, near, memory.address, 0, MULTISHOT), errno.EINVAL),
        (pykevent.naio_event(1, RECV, near, 1 << 63, 10, MULTISHOT), errno.EFAULT),
        (pykevent.naio_event(1, RECV, 1 << 20, memory.address, 10, MULTISHOT), errno.EBADF),
        (pykevent.naio_event(2, RECV, ends[0], memory.address, 10), errno.EOPNOTSUPP),
        (pykevent.naio_event(2, RECV, ends[0], memory.address, 10, MULTISHOT), errno.EOPNOTSUPP),
        (pykevent.naio_event(3, RECV, near, memory.address, 10, MULTISHOT), errno.ENOENT),
    ):
        with refused(error):
            queue.modify(request)
    tcp[1].send(b"hello")
    assert one(queue).data == 5


@pytest.mark.parametrize(
    ("events", "flags"),
    [
        (RECV, Flags.EDGE),
        (RECV, Flags.ONESHOT),
        (RECV, Flags.WAITALL),
        (RECV, Flags.NOTIFY_BROKEN),
        (NaioEvents.SEND, Flags(0)),
        (NaioEvents.SENDFILE, Flags(0)),
    ],
)
def test_what_makes_no_row_is_refused(
    queue: Queue, tcp: Pair, events: NaioEvents, flags: Flags
) -> None:
    memory = Exported(bytearray(10), writable=True)
    with refused(errno.EINVAL):
        queue.add(pykevent.naio_event(1, events, tcp[0], memory.address, 10, flags | MULTISHOT))
    assert queue.info().kevents == 0


def test_later_receives_wait_until_it_ends(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    row = queue.recv_into(near, bytearray(10), multishot=True, cookie=1)
    queue.recv_into(near, bytearray(10), cookie=2)
    far.send(b"abc")
    assert cookies(soon(queue)) == [1]
    assert row.cancel()
    far.send(b"de")
    event = one(queue)
    assert (event.cookie, event.data) == (2, 2)


def test_it_waits_for_those_before_it(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    queue.recv_into(near, bytearray(3), waitall=True, cookie=1)
    queue.recv_into(near, bytearray(10), multishot=True, cookie=2)
    far.send(b"abcde")
    got = soon(queue, 2)
    assert [(event.cookie, event.data) for event in got] == [(1, 3), (2, 2)]


def test_many_sockets_are_received_by_one_wait(queue: Queue) -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    transfers = [
        queue.recv_into(near, bytearray(8), multishot=True, cookie=number)
        for number, (near, _) in enumerate(pairs)
    ]
    for turn in range(3):
        for number, (_, far) in enumerate(pairs):
            far.send(f"{turn}{number:4}".encode())
        assert sorted(cookies(soon(queue, len(pairs)))) == list(range(len(pairs)))
        for number, transfer in enumerate(transfers):
            assert transfer.received == f"{turn}{number:4}".encode()
    for near, far in pairs:
        near.close()
        far.close()


def test_removing_it_leaves_the_bytes_in_the_socket(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    transfer = queue.recv_into(near, bytearray(10), multishot=True)
    far.send(b"hello")
    near.recv(1, socket.MSG_PEEK)
    assert transfer.cancel()
    assert (transfer.moved, transfer.error) == (0, errno.ECANCELED)
    assert now(queue) == []
    assert near.recv(10) == b"hello"


def test_memory_that_is_gone_is_the_last_event(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    memory = mmap.mmap(-1, PAGE)
    exported = Exported(memory, writable=True)
    queue.add(pykevent.naio_event(1, RECV, near, exported.address, 10, MULTISHOT))
    exported.release()
    memory.close()
    far.send(b"hello")
    event = one(queue)
    assert (event.error, event.last) == (errno.EFAULT, True)
    assert near.recv(10) == b"hello"


def test_it_pins_nothing(queue: Queue, tcp: Pair) -> None:
    memory = mmap.mmap(-1, 64 * PAGE)
    transfer = queue.recv_into(tcp[0], memory, multishot=True)
    status = Path("/proc/self/status").read_text()
    assert "VmPin:\t       0 kB" in status
    transfer.cancel()
    memory.close()


@pytest.fixture
def memory() -> Iterator[Exported]:
    """A page that a child has a copy of."""
    page = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[:10] = b"-" * 10
    exported = Exported(page, writable=True)
    yield exported
    exported.release()
    page.close()


@kinds(STREAMS)
@pytest.mark.parametrize("armed", [True, False])
@pytest.mark.parametrize("how", ["reset", "closed"])
def test_an_end_behind_the_last_bytes_is_told(
    queue: Queue, ends: Pair, armed: bool, how: str
) -> None:
    near, far = ends
    buffer = bytearray(10)
    if armed:
        queue.recv_into(near, buffer, multishot=True)
    far.send(b"hello")
    if how == "reset":
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    until_polled(near, select.POLLRDHUP)
    if not armed:
        queue.recv_into(near, buffer, multishot=True)
    event = one(queue)
    assert (event.data, event.last, bytes(buffer[:5])) == (5, False, b"hello")
    event = one(queue)
    told = errno.ECONNRESET if how == "reset" and near.family != socket.AF_UNIX else 0
    assert (event.data, event.error, event.last) == (0, told, True)


def test_a_wait_of_a_child_receives_into_the_memory_of_who_asked(
    queue: Queue, tcp: Pair, memory: Exported
) -> None:
    near, far = tcp
    queue.add(pykevent.naio_event(1, RECV, near, memory.address, 10, MULTISHOT))
    # A child finds the queue's own descriptor closed.
    device = os.dup(queue.fileno())
    far.send(b"hello")

    def waits() -> None:
        call = raw.wait(1, timeout=raw.FOREVER)
        assert call(device) == 1
        assert call.records()[0].event.data == 5
        assert memory.source[:10] == b"-" * 10

    with child(waits) as process:
        process.finish()
    os.close(device)
    assert memory.source[:10] == b"hello-----"
    far.send(b"you")
    assert one(queue).data == 3
    assert memory.source[:10] == b"youlo-----"


def test_a_wait_of_a_child_ends_it_when_the_memory_of_who_asked_is_gone(
    queue: Queue, tcp: Pair
) -> None:
    near, far = tcp
    page = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory = Exported(page, writable=True)
    queue.add(pykevent.naio_event(1, RECV, near, memory.address, 10, MULTISHOT))
    device = os.dup(queue.fileno())
    far.send(b"hello")

    def waits() -> None:
        # Until the parent has said that its memory is gone.
        assert far.recv(1) == b"x"
        call = raw.wait(1, timeout=raw.FOREVER)
        assert call(device) == 1
        event = call.records()[0].event
        assert (event.count, event.flags) == (errno.EFAULT, EventFlags.ERROR | EventFlags.LAST)

    with child(waits) as process:
        memory.release()
        page.close()
        near.send(b"x")
        process.finish()
    os.close(device)
    assert near.recv(10) == b"hello"
    assert queue.info().kevents == 0


def test_when_who_asked_is_gone_it_ends(queue: Queue, tcp: Pair, memory: Exported) -> None:
    near, far = tcp
    device, where = os.dup(queue.fileno()), memory.address

    def asks() -> None:
        params = (where, 10, near.fileno())
        call = raw.add(raw.request(EventType.NAIO, 1, RECV, MULTISHOT, params=params))
        assert call(device) == 1

    with child(asks) as process:
        process.finish()
    os.close(device)
    far.send(b"hello")
    event = one(queue)
    assert (event.error, event.last) == (errno.EFAULT, True)
    assert near.recv(10) == b"hello"


def test_a_thread_asleep_in_wait_is_woken(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    transfer = queue.recv_into(near, bytearray(10), multishot=True)
    for word in (b"one", b"two"):
        waiter = InThread(lambda: one(queue)).until_asleep()
        far.send(word)
        assert waiter.result().data == 3
        assert transfer.received == word


def test_no_byte_is_received_twice_or_lost_by_many_threads(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    far.settimeout(60)
    content = os.urandom(300_000)
    transfer = queue.recv_into(near, bytearray(5000), multishot=True, dispatch=True)
    got = bytearray()
    lock = threading.Lock()

    def receives() -> None:
        while True:
            for event in queue.wait(max=1):
                if event.type == EventType.USER:
                    return
                # Nobody else is given an event of it before it is resumed.
                with lock:
                    got.extend(transfer.received)
                transfer.resume()

    queue.add(pykevent.user_event(1))
    threads = [InThread(receives) for _ in range(4)]
    far.sendall(content)
    eventually(lambda: len(got) == len(content), "all bytes are received")
    for _ in threads:
        queue.post(1)
        eventually(lambda: not queue.info().ready, "one of them has seen it")
    for thread in threads:
        thread.result()
    assert bytes(got) == content


def test_only_the_first_multishot_of_a_socket_is_ready(queue: Queue, tcp: Pair) -> None:
    near, far = tcp
    first = queue.recv_into(near, bytearray(10), multishot=True, dispatch=True)
    second = queue.recv_into(near, bytearray(10), multishot=True, dispatch=True)
    far.send(b"hello")
    eventually(lambda: queue.info().ready == 1, "the first one is ready")
    second.resume()
    began = time.monotonic()
    (event,) = queue.wait(0.3, min=2)
    assert time.monotonic() - began >= 0.3
    assert (event.ident, event.data) == (first.ident, 5)
    far.send(b"there")
    eventually(lambda: bool(near.recv(5, socket.MSG_PEEK)), "it has come")
    assert select.select([queue], [], [], 0)[0] == []
    first.cancel()
    assert select.select([queue], [], [], 10)[0] == [queue]
    assert one(queue).ident == second.ident


@pytest.mark.parametrize(
    ("family", "error"), [(socket.AF_INET, errno.ENOTCONN), (socket.AF_UNIX, errno.EINVAL)]
)
def test_one_of_a_listening_socket_ends_at_once(
    queue: Queue, tmp_path: Path, family: int, error: int
) -> None:
    with socket.socket(family) as server:
        server.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "name"))
        server.listen()
        queue.recv_into(server, bytearray(10), multishot=True)
        event = one(queue)
        assert (event.error, event.last) == (error, True)


def test_who_polls_a_queue_is_told_of_one_of_a_listening_socket(queue: Queue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        queue.recv_into(server, bytearray(10), multishot=True)
        queue.add(pykevent.user_event(1))
        assert select.select([queue], [], [], 0)[0] == [queue]
        queue.post(1)
        events = queue.wait(10, min=2)
        assert sorted(event.error for event in events) == [0, errno.ENOTCONN]


@kinds(ALL)
@pytest.mark.parametrize("mode", [Flags(0), Flags.DISABLED])
def test_a_close_ends_what_is_behind_one_of_another_queue(
    queue: Queue, new_queue: Callable[[], Queue], ends: Pair, mode: Flags
) -> None:
    near, _ = ends
    other = new_queue()
    memory = Exported(bytearray(10), writable=True)
    other.add(multishot_event(near, memory, mode))
    queue.recv_into(near, bytearray(10))
    near.close()
    for each in (queue, other):
        event = one(each)
        assert (event.data, event.error, event.last) == (0, errno.ECANCELED, True)
        assert now(each) == []
    assert other.info().kevents == 0


@kinds(PACKETS)
def test_the_close_is_not_said_to_be_truncated(queue: Queue, ends: Pair) -> None:
    near, far = ends
    queue.recv_into(near, bytearray(1), multishot=True)
    far.send(b"abc")
    assert one(queue).flags == EventFlags.TRUNCATED
    near.close()
    assert one(queue).flags == EventFlags.LAST | EventFlags.ERROR | EventFlags.BROKEN


@pytest.mark.parametrize("multishot", [True, False])
def test_what_is_in_the_error_queue_makes_nothing_ready(queue: Queue, multishot: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE)
        queue.recv_into(sock, bytearray(10), multishot=multishot)
        sock.send(b"x")
        until_polled(sock, select.POLLERR)
        assert one(queue).data == 1
        if not multishot:
            queue.recv_into(sock, bytearray(10))
        assert now(queue) == []
        assert select.select([queue], [], [], 0)[0] == []
        sock.send(b"yz")
        assert one(queue).data == 2


@pytest.mark.parametrize("multishot", [True, False])
def test_what_comes_while_the_socket_is_in_a_message_is_received_when_it_has_arrived(
    queue: Queue, multishot: bool
) -> None:
    near, far = socket.socketpair()
    here, there = socket.socketpair()
    with near, far, here, there:
        queue.recv_into(near, bytearray(10), multishot=multishot)
        socket.send_fds(here, [b"x"], [near.fileno()])
        far.send(b"hello")
        events = queue.wait(0.1)  # of a module there are none
        _, (arrived,), *_ = socket.recv_fds(there, 1, 1)
        os.close(arrived)
        assert [event.data for event in events or soon(queue)] == [5]


def multishot_event(near: socket.socket, memory: Exported, flags: int = 0) -> pykevent.Request:
    """A multishot of that socket, by number."""
    return pykevent.naio_event(1, RECV, near, memory.address, memory.length, MULTISHOT | flags)


@pytest.fixture
def untold(queue: Queue, ends: Pair, tmp_path: Path) -> Exported:
    """The memory of a multishot of one end, whose WAIT had no room left to tell of 5 bytes."""
    near, far = ends
    memory = Exported(bytearray(10), writable=True)
    queue.add(multishot_event(near, memory))
    assert now(queue) == []
    queue.add_path(tmp_path, InodeEvents.CREATE, ident=2)
    (tmp_path / "name").touch()
    eventually(lambda: queue.info().ready == 1, "the name comes first")
    far.send(b"first")
    eventually(lambda: queue.info().ready == 2, "the bytes have come")
    (event,) = queue.wait(0, max=2)
    assert event.name == b"name"
    return memory


@pytest.mark.needs("INODE")
@kinds(ALL)
def test_what_comes_behind_a_receive_that_had_no_room_is_told(
    queue: Queue, ends: Pair, untold: Exported
) -> None:
    far = ends[1]
    far.send(b"second")
    assert (one(queue).data, untold.source[:5]) == (5, b"first")
    assert (one(queue).data, untold.source[:6]) == (6, b"second")
    assert now(queue) == []


@pytest.mark.needs("INODE")
@kinds(ALL)
def test_what_was_received_and_not_told_stays_where_it_is_if_the_buffer_is_replaced(
    queue: Queue, ends: Pair, untold: Exported
) -> None:
    near, far = ends
    other = Exported(bytearray(10), writable=True)
    queue.modify(multishot_event(near, other))
    assert one(queue).data == 5
    assert (untold.source[:5], other.source) == (b"first", bytes(10))
    far.send(b"second")
    assert (one(queue).data, untold.source[:5], other.source[:6]) == (6, b"first", b"second")


@pytest.mark.needs("INODE")
@kinds([*STREAMS, "UNIX seqpacket"])
def test_the_end_behind_a_receive_that_had_no_room_is_told(
    queue: Queue, ends: Pair, untold: Exported
) -> None:
    ends[1].shutdown(socket.SHUT_WR)
    assert (one(queue).data, untold.source[:5]) == (5, b"first")
    event = one(queue)
    assert (event.data, event.error, event.flags) == (0, 0, EventFlags.LAST)


@pytest.mark.needs("INODE")
@pytest.mark.parametrize("mode", [Flags(0), Flags.DISABLED, Flags.DISPATCH])
@kinds(ALL)
def test_the_close_behind_a_receive_that_had_no_room_is_told(
    queue: Queue, ends: Pair, untold: Exported, mode: Flags
) -> None:
    near = ends[0]
    if mode:
        queue.modify(multishot_event(near, untold, mode))
    if mode == Flags.DISABLED:
        assert now(queue) == []
    near.close()
    assert (one(queue).data, untold.source[:5]) == (5, b"first")
    event = one(queue)
    assert (event.data, event.error) == (0, errno.ECANCELED)
    assert event.flags == EventFlags.LAST | EventFlags.ERROR | EventFlags.BROKEN
