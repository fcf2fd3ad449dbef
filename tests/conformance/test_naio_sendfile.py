# SPDX-License-Identifier: GPL-2.0-or-later
"""NAIO SENDFILE: bytes of a file, and what goes round them, by a stream."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import resource
import socket
import stat
import struct
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import pykevent
from pykevent import (
    EventFlags,
    EventType,
    FileKind,
    Flags,
    NaioEvents,
    PollEvents,
    Queue,
    Request,
    abi,
)
from pykevent.requests import sendfile_argument
from pykevent.transfers import Exported

from .sockets import STREAMS, Pair, Receiver, kinds, narrow, receive
from .support import as_nobody, child, cookies, eventually, now, one, refused, soon, tcp_pair
from .test_naio_send import MUCH

pytestmark = pytest.mark.needs("NAIO")

SENDFILE = NaioEvents.SENDFILE
TCP_OR_UNIX = ["TCP over IPv4", "UNIX stream"]
PAGE = mmap.PAGESIZE
SIZE = 100_003
"""Bytes of a file that fits into a socket, and ends in the middle of a page."""


def in_memory() -> int:
    """A file that is nothing but its page cache."""
    return os.memfd_create("test", os.MFD_CLOEXEC)


def on_disk() -> int:
    """A file of whatever temporary files are in."""
    fd, name = tempfile.mkstemp()
    os.unlink(name)
    return fd


Make = Callable[[bytes], int]
PLACES = {"memory": in_memory, "disk": on_disk}


@pytest.fixture(params=list(PLACES))
def make(request: pytest.FixtureRequest, stack: ExitStack) -> Make:
    """Makes files, open for reading and writing, of bytes."""

    def made(content: bytes) -> int:
        fd = PLACES[request.param]()
        stack.callback(close_quietly, fd, os.fstat(fd))
        at = 0
        while at < len(content):
            at += os.pwrite(fd, content[at : at + (1 << 20)], at)
        return fd

    return made


def close_quietly(fd: int, status: os.stat_result) -> None:
    """Close @fd unless a test has done so, and perhaps used its number again."""
    try:
        if os.path.samestat(os.fstat(fd), status):
            os.close(fd)
    except OSError:
        return


@pytest.fixture(scope="module")
def content() -> bytes:
    """Those of a file."""
    return os.urandom(SIZE)


@pytest.fixture(scope="module")
def much() -> bytes:
    """Those of a file that no socket takes at once here."""
    return os.urandom(MUCH)


def begun(sock: socket.socket, count: int = 1) -> None:
    """Return once so many bytes have come, and leave them there."""
    # A UNIX socket does not wait for all of what is only looked at.
    eventually(lambda: len(sock.recv(count, socket.MSG_PEEK)) == count, f"{count} bytes have come")


# What is sent


@kinds(STREAMS)
def test_a_file_is_sent(queue: Queue, ends: Pair, make: Make, content: bytes) -> None:
    near, far = ends
    transfer = queue.sendfile(near, make(content), 0, SIZE, cookie=3)
    receiver = Receiver(far)
    event = one(queue)
    assert (event.ident, event.cookie, event.events) == (transfer.ident, 3, SENDFILE)
    assert (event.data, event.count, event.flags) == (SIZE, 1, EventFlags.LAST)
    near.close()
    assert receiver.all() == content


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 1),
        (0, PAGE),
        (1, PAGE - 1),
        (PAGE - 1, 2),
        (PAGE, 3 * PAGE),
        (5, 17 * PAGE),
        (2 * PAGE + 7, 70_001),
        (SIZE - 1, 1),
        (SIZE - SIZE % PAGE, SIZE % PAGE),
        (SIZE - SIZE % PAGE - 1, SIZE % PAGE + 1),
    ],
)
def test_any_part_of_a_file_is_sent(
    queue: Queue, tcp: Pair, make: Make, content: bytes, offset: int, length: int
) -> None:
    near, far = tcp
    queue.sendfile(near, make(content), offset, length)
    assert receive(far, length) == content[offset : offset + length]
    event = one(queue)
    assert (event.data, event.error) == (length, 0)
    near.close()
    assert far.recv(1) == b""


def test_without_a_length_the_rest_of_the_file_is_sent(
    queue: Queue, tcp: Pair, make: Make, content: bytes
) -> None:
    near, far = tcp
    queue.sendfile(near, make(content), 12_345, suffix=b"tail")
    whole = content[12_345:] + b"tail"
    assert receive(far, len(whole)) == whole
    assert one(queue).data == len(whole)


@kinds(TCP_OR_UNIX)
@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [(b"head", b""), (b"", b"tail"), (b"head", b"tail!"), (bytes(9000), b"\xff" * 7384)],
)
def test_bytes_go_before_and_after_the_file(
    queue: Queue, ends: Pair, make: Make, content: bytes, prefix: bytes, suffix: bytes
) -> None:
    near, far = ends
    queue.sendfile(near, make(content), 10, 50_000, prefix=prefix, suffix=suffix)
    whole = prefix + content[10:50_010] + suffix
    assert receive(far, len(whole)) == whole
    assert one(queue).data == len(whole)
    near.close()
    assert far.recv(1) == b""


def test_what_goes_round_a_file_needs_no_file_between(queue: Queue, tcp: Pair, make: Make) -> None:
    near, far = tcp
    file = make(b"")
    queue.sendfile(near, file, 0, 0, prefix=b"a", suffix=b"b", cookie=1)
    queue.sendfile(near, file, prefix=b"c", suffix=b"d", cookie=2)
    queue.sendfile(near, file, 5, 0, cookie=3)
    assert receive(far, 4) == b"abcd"
    assert [(event.cookie, event.data, event.error) for event in soon(queue, 3)] == [
        (1, 2, 0),
        (2, 2, 0),
        (3, 0, 0),
    ]


def test_a_file_that_ends_early_ends_the_transfer_without_the_suffix(
    queue: Queue, tcp: Pair, make: Make, content: bytes
) -> None:
    near, far = tcp
    queue.sendfile(near, make(content), SIZE - 5000, 5001, prefix=b"head", suffix=b"tail")
    event = one(queue)
    assert (event.data, event.error) == (5004, 0)
    near.close()
    assert receive(far, 10_000) == b"head" + content[-5000:]


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, SIZE + 100 * PAGE, 2**62, 2**63 - 1])
def test_beyond_the_end_of_the_file_there_is_nothing(
    queue: Queue, tcp: Pair, make: Make, content: bytes, offset: int
) -> None:
    near, far = tcp
    file = make(content)
    queue.sendfile(near, file, offset, prefix=b"head", suffix=b"tail")
    event = one(queue)
    assert (event.data, event.error) == (8, 0)
    if offset + 10 < 2**63:
        queue.sendfile(near, file, offset, 10, prefix=b"next", suffix=b"lost")
        event = one(queue)
        assert (event.data, event.error) == (4, 0)
    queue.sendfile(near, file, offset, 0, prefix=b"none", suffix=b"asked")
    assert one(queue).data == 9
    near.close()
    assert receive(far, 100) in (b"headtailnextnoneasked", b"headtailnoneasked")


def test_what_was_never_written_is_sent_as_zeros(queue: Queue, tcp: Pair, make: Make) -> None:
    near, far = tcp
    file = make(b"begin")
    os.pwrite(file, b"middle", 50 * PAGE + 9)
    os.ftruncate(file, 90 * PAGE + 1)
    wanted = os.pread(file, 100 * PAGE, 0)
    receiver = Receiver(far)
    queue.sendfile(near, file)
    assert one(queue).data == 90 * PAGE + 1
    near.close()
    assert receiver.all() == wanted


@kinds(TCP_OR_UNIX)
def test_what_becomes_cached_while_it_is_read_is_sent_once(
    queue: Queue, ends: Pair, make: Make
) -> None:
    near, far = ends
    narrow(near, far)
    file = make(b"")
    # What is read for the hole at the beginning has some of the rest in it.
    os.pwrite(file, b"a" * (99 * PAGE), PAGE)
    os.pwrite(file, b"b" * (99 * PAGE), 200 * PAGE)
    wanted = os.pread(file, 300 * PAGE, 0)
    queue.sendfile(near, file)
    assert now(queue) == []
    assert receive(far, len(wanted)) == wanted
    assert one(queue).data == len(wanted)


def sparse(fd: int, pages: int, has: Callable[[int], bool]) -> bytes:
    """Give a file so many pages, of which some are never written; what it is then."""
    os.ftruncate(fd, pages * PAGE)
    for number in range(pages):
        if has(number):
            os.pwrite(fd, os.urandom(PAGE), number * PAGE)
    return os.pread(fd, pages * PAGE, 0)


def same(got: bytes, wanted: bytes) -> None:
    """As an assertion, but say where they differ, which are long."""
    assert len(got) == len(wanted)
    if got != wanted:
        at = next(n for n, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1])
        found = wanted.find(got[at : at + 64])
        pytest.fail(f"wrong from byte {at} (page {at // PAGE}) on, which is that at {found}")


@pytest.mark.parametrize("every", [2, 3, 5, 16, 17, 33])
@pytest.mark.parametrize("holes", [True, False], ids=["holes", "islands"])
def test_holes_come_where_they_are(
    queue: Queue, tcp: Pair, make: Make, every: int, holes: bool
) -> None:
    near, far = tcp
    narrow(near, far)
    file = make(b"")
    wanted = sparse(file, 512, lambda page: (page % every != 0) == holes)
    queue.sendfile(near, file, 0, len(wanted))
    receiver = Receiver(far)
    event = one(queue)
    assert (event.data, event.error) == (len(wanted), 0)
    near.close()
    same(receiver.all(), wanted)


@kinds(TCP_OR_UNIX)
@pytest.mark.parametrize("seed", range(12))
def test_any_part_of_any_layout_is_sent(queue: Queue, ends: Pair, make: Make, seed: int) -> None:
    near, far = ends
    narrow(near, far)
    chance = random.Random(seed)
    runs: list[bool] = []
    while len(runs) < 300:
        runs += [chance.random() < 0.6] * chance.choice([1, 1, 2, 3, 7, 15, 16, 17, 31, 32, 40])
    file = make(b"")
    content = sparse(file, len(runs), runs.__getitem__)
    receiver = Receiver(far)
    wanted = b""
    for number in range(3):
        offset = chance.randrange(len(content) // 2)
        length = chance.randrange(1, len(content) - offset + 1)
        queue.sendfile(near, file, offset, length, prefix=b"<", suffix=b">", cookie=number)
        wanted += b"<" + content[offset : offset + length] + b">"
    assert [(event.cookie, event.error) for event in soon(queue, 3)] == [(0, 0), (1, 0), (2, 0)]
    near.close()
    same(receiver.all(), wanted)


def test_a_hole_that_is_filled_meanwhile_moves_nothing(queue: Queue, tcp: Pair, make: Make) -> None:
    near, far = tcp
    narrow(near, far)
    chance = random.Random(1)
    pages = 400
    file = make(b"")
    # every page is zeros, or its number throughout
    numbers = [struct.pack("<Q", number) * (PAGE // 8) for number in range(pages)]
    os.ftruncate(file, pages * PAGE)
    for number in range(0, pages, 3):
        os.pwrite(file, numbers[number], number * PAGE)
    queue.sendfile(near, file, 0, pages * PAGE)
    got = b""
    while len(got) < pages * PAGE:
        number = chance.randrange(pages)
        os.pwrite(file, numbers[number], number * PAGE)
        got += receive(far, min(16384, pages * PAGE - len(got)))
        now(queue)
    for number in range(pages):
        page = got[number * PAGE : (number + 1) * PAGE]
        assert set(struct.unpack(f"<{PAGE // 8}Q", page)) <= {0, number}


def test_a_file_may_end_where_the_numbers_do(queue: Queue, tcp: Pair, stack: ExitStack) -> None:
    near, far = tcp
    file = in_memory()
    stack.callback(os.close, file)
    os.ftruncate(file, 2**63 - 1)
    last = 2**63 - PAGE
    os.pwrite(file, b"hello", last - 3)
    queue.sendfile(near, file, last - PAGE - 9, suffix=b"tail")
    whole = bytes(PAGE + 6) + b"hello" + bytes(PAGE - 3) + b"tail"
    assert receive(far, len(whole)) == whole
    assert one(queue).data == len(whole)


def test_a_file_that_is_not_cached_is_sent(
    queue: Queue, tcp: Pair, make: Make, much: bytes
) -> None:
    near, far = tcp
    file = make(much)
    os.fsync(file)
    receiver = Receiver(far)
    for number in range(3):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        queue.sendfile(near, file, cookie=number)
        event = one(queue)
        assert (event.cookie, event.data, event.error) == (number, MUCH, 0)
    near.close()
    assert receiver.all() == 3 * much


@pytest.mark.parametrize("path", ["/proc/self/stat", "/proc/filesystems", "/sys/kernel/fscaps"])
def test_a_file_that_is_what_the_kernel_shows_is_refused(
    queue: Queue, tcp: Pair, path: str
) -> None:
    near, far = tcp
    with open(path, "rb") as file, refused(errno.EINVAL):
        queue.sendfile(near, file)
    assert queue.info().kevents == 0
    near.close()
    assert far.recv(1) == b""


MEMFD_SECRET = 447


def test_a_regular_file_that_is_nothing_to_be_read_is_refused(
    queue: Queue, tcp: Pair, stack: ExitStack
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    name = b"/kevent-%d" % os.getpid()
    message_queue = libc.mq_open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, None)
    libc.mq_unlink(name)
    # Neither of these is in every kernel.
    files = [fd for fd in (message_queue, libc.syscall(MEMFD_SECRET, 0)) if fd >= 0]
    files.append(os.open("/proc/self/ns/uts", os.O_RDONLY))
    for fd in files:
        stack.callback(os.close, fd)
    for fd in files:
        assert stat.S_ISREG(os.fstat(fd).st_mode)
        with refused(errno.EINVAL):
            queue.sendfile(tcp[0], fd, 0, 1)
    assert queue.info().kevents == 0


def test_what_is_written_meanwhile_may_or_may_not_be_sent_but_the_length_stands(
    queue: Queue, tcp: Pair, make: Make
) -> None:
    near, far = tcp
    narrow(near, far)
    file = make(b"a" * MUCH)
    queue.sendfile(near, file, 0, MUCH)
    assert now(queue) == []
    os.pwrite(file, b"b" * MUCH, 0)
    got = receive(far, MUCH)
    assert got.count(b"a") + got.count(b"b") == MUCH
    assert got[-PAGE:] == b"b" * PAGE
    assert one(queue).data == MUCH


def test_a_file_that_is_truncated_meanwhile_ends_the_transfer_there(
    queue: Queue, tcp: Pair, make: Make, much: bytes
) -> None:
    near, far = tcp
    narrow(near, far)
    half = 400 * PAGE
    file = make(much)
    queue.sendfile(near, file, 0, MUCH, suffix=b"tail")
    assert now(queue) == []
    os.ftruncate(file, half)
    got = receive(far, half)
    event = one(queue)
    assert (event.data, event.error) == (half, 0)
    assert got == much[:half]
    near.close()
    assert far.recv(1) == b""


def test_a_file_that_grows_meanwhile_is_sent_to_its_new_end(
    queue: Queue, tcp: Pair, make: Make, much: bytes
) -> None:
    near, far = tcp
    narrow(near, far)
    file = make(much)
    queue.sendfile(near, file, suffix=b"tail")
    assert now(queue) == []
    os.pwrite(file, b"more", MUCH)
    assert receive(far, MUCH + 8) == much + b"moretail"
    assert one(queue).data == MUCH + 8


# When it ends, and in which order


@kinds(STREAMS)
@pytest.mark.parametrize("blocking", [True, False])
def test_it_ends_when_every_byte_is_taken_and_not_before(
    queue: Queue, ends: Pair, make: Make, much: bytes, blocking: bool
) -> None:
    near, far = ends
    narrow(near, far)
    near.setblocking(blocking)
    transfer = queue.sendfile(near, make(much), 1, MUCH - 1)
    assert now(queue) == []
    assert receive(far, MUCH // 2) == much[1 : MUCH // 2 + 1]
    assert now(queue) == []
    assert not transfer.done
    assert receive(far, MUCH // 2 - 1) == much[MUCH // 2 + 1 :]
    event = one(queue)
    assert (event.data, event.error) == (MUCH - 1, 0)


@kinds(TCP_OR_UNIX)
def test_files_and_buffers_of_one_socket_come_in_their_order(
    queue: Queue, ends: Pair, make: Make, content: bytes
) -> None:
    near, far = ends
    narrow(near, far)
    file, other = make(content), make(content[::-1])
    whole = b""
    for number in range(0, 40, 4):
        at, length = 997 * number, 1 + 1499 * number
        queue.send(near, b"%08d" % number, cookie=number)
        queue.sendfile(near, file, at, length, prefix=b"<", suffix=b">", cookie=number + 1)
        queue.send(near, content[:length], cookie=number + 2)
        queue.sendfile(near, other, 0, length, cookie=number + 3)
        whole += b"%08d<" % number + content[at : at + length]
        whole += b">" if at + length <= SIZE else b""
        whole += content[:length] + content[::-1][:length]
    assert receive(far, len(whole)) == whole
    assert cookies(soon(queue, 40)) == list(range(40))


def test_a_hundred_are_under_way_at_once(
    queue: Queue, stack: ExitStack, make: Make, much: bytes
) -> None:
    file = make(much)
    length = MUCH // 4
    pairs = [tcp_pair() for _ in range(100)]
    for number, (near, far) in enumerate(pairs):
        stack.enter_context(near)
        stack.enter_context(far)
        narrow(near, far)
        queue.sendfile(near, file, 7 * number, length, cookie=number)
    assert queue.info().kevents == 100
    got = [bytearray() for _ in pairs]
    seen: list[int] = []
    left = dict(enumerate(far for _, far in pairs))
    while left:
        # the ones are faster than the others
        for number, far in list(left.items()):
            got[number] += far.recv(4096 * (1 + number % 16))
            if len(got[number]) >= length:
                del left[number]
        seen += cookies(now(queue))
    while len(seen) < 100:
        seen += cookies(soon(queue))
    assert sorted(seen) == list(range(100))
    for number, content in enumerate(got):
        assert content == much[7 * number : 7 * number + length], number


# What is needed only by the ADD


def test_the_file_may_be_closed_and_removed_at_once(
    queue: Queue, tcp: Pair, tmp_path: Path, much: bytes
) -> None:
    near, far = tcp
    narrow(near, far)
    path = tmp_path / "file"
    path.write_bytes(much)
    with path.open("rb") as file:
        number = file.fileno()
        queue.sendfile(near, file, 0, MUCH)
    path.unlink()
    with open("/dev/null", "rb") as other:
        assert other.fileno() == number
        assert receive(far, MUCH) == much
    assert one(queue).data == MUCH


def test_the_position_of_the_file_is_left_alone(
    queue: Queue, tcp: Pair, make: Make, content: bytes
) -> None:
    near, far = tcp
    file = make(content)
    os.lseek(file, 77, os.SEEK_SET)
    queue.sendfile(near, file, 5, 50)
    assert receive(far, 50) == content[5:55]
    assert one(queue).data == 50
    assert os.lseek(file, 0, os.SEEK_CUR) == 77


def test_what_goes_round_the_file_is_read_by_the_add(
    queue: Queue, tcp: Pair, make: Make, much: bytes
) -> None:
    near, far = tcp
    narrow(near, far)
    argument = bytearray(sendfile_argument(make(much), 0, MUCH, b"head", b"tail"))
    memory = Exported(argument, writable=True)
    queue.add(pykevent.naio_event(1, SENDFILE, near, memory.address, memory.length))
    argument[:] = bytes(len(argument))
    memory.release()
    assert receive(far, MUCH + 8) == b"head" + much + b"tail"
    assert one(queue).data == MUCH + 8


# Cancelling, closing


@kinds(TCP_OR_UNIX)
def test_cancelling_says_how_far_it_came_and_nothing_more_is_sent(
    queue: Queue, ends: Pair, make: Make, much: bytes
) -> None:
    near, far = ends
    narrow(near, far)
    transfer = queue.sendfile(near, make(much), prefix=b"head")
    begun(far, 5)
    assert transfer.cancel()
    assert 4 < transfer.moved < MUCH
    assert transfer.error == errno.ECANCELED
    got = receive(far, transfer.moved)
    near.sendall(b"next")
    near.close()
    assert got + receive(far, MUCH) == (b"head" + much)[: transfer.moved] + b"next"
    assert now(queue) == []
    assert queue.info().kevents == 0


def test_cancelling_one_leaves_the_others_in_their_order(
    queue: Queue, tcp: Pair, make: Make, much: bytes
) -> None:
    near, far = tcp
    narrow(near, far)
    file = make(much)
    transfers = [queue.sendfile(near, file, 0, MUCH // 4, cookie=n) for n in range(6)]
    for number in (1, 4):
        assert transfers[number].cancel()
        assert (transfers[number].moved, transfers[number].error) == (0, errno.ECANCELED)
    assert transfers[0].cancel()
    part = much[: MUCH // 4]
    whole = part[: transfers[0].moved] + 3 * part
    assert receive(far, len(whole)) == whole
    assert cookies(soon(queue, 3)) == [2, 3, 5]


def test_cancelling_what_has_ended_says_how_it_has(
    queue: Queue, tcp: Pair, make: Make, content: bytes
) -> None:
    near, far = tcp
    sent = queue.sendfile(near, make(content), 0, 100)
    assert receive(far, 100) == content[:100]
    eventually(lambda: queue.info().ready == 1, "it has ended")
    assert sent.cancel()
    assert (sent.moved, sent.error) == (100, 0)


@kinds(TCP_OR_UNIX)
def test_a_close_of_the_socket_ends_it_and_tells_how_much_was_sent(
    queue: Queue, ends: Pair, make: Make, much: bytes
) -> None:
    near, far = ends
    narrow(near, far)
    transfer = queue.sendfile(near, make(much))
    begun(far)
    near.close()
    event = one(queue)
    assert (event.error, event.broken) == (errno.ECANCELED, True)
    assert transfer.broken
    assert receive(far, MUCH) == much[: event.data]
    assert 0 < event.data < MUCH


def test_a_peer_that_goes_away_is_an_error(
    queue: Queue, tcp: Pair, make: Make, much: bytes
) -> None:
    near, far = tcp
    narrow(near, far)
    queue.sendfile(near, make(much))
    begun(far)
    # What was not received makes this a reset.
    far.close()
    event = one(queue)
    assert event.error in (errno.ECONNRESET, errno.EPIPE)
    assert 0 < event.data < MUCH


@kinds(TCP_OR_UNIX)
def test_what_cannot_be_sent_any_more_is_epipe(
    queue: Queue, ends: Pair, make: Make, content: bytes
) -> None:
    near, _ = ends
    near.shutdown(socket.SHUT_WR)
    queue.sendfile(near, make(content))
    event = one(queue)
    assert (event.error, event.data) == (errno.EPIPE, 0)


@kinds(TCP_OR_UNIX)
def test_closing_the_queue_cancels(
    new_queue: Callable[[], Queue], ends: Pair, make: Make, much: bytes
) -> None:
    near, far = ends
    narrow(near, far)
    queue = new_queue()
    transfer = queue.sendfile(near, make(much))
    queue.close()
    assert (transfer.done, transfer.error) == (True, errno.ECANCELED)
    near.close()
    assert receive(far, MUCH) == much[: transfer.moved]


def test_the_end_of_the_process_cancels(tcp: Pair, make: Make, much: bytes) -> None:
    near, far = tcp
    narrow(near, far)
    file = make(much)

    def asks() -> None:
        own = pykevent.open()
        own.sendfile(near, file)
        begun(far)
        os._exit(0)

    with child(asks) as process:
        process.finish()
    near.close()
    got = receive(far, MUCH)
    assert got == much[: len(got)]
    assert 0 < len(got) < MUCH


# What is refused


def ask(
    queue: Queue,
    sock: socket.socket,
    argument: bytes,
    flags: int = 0,
    size: int | None = None,
    events: int = SENDFILE,
) -> None:
    """ADD of a SENDFILE that is led to these bytes."""
    memory = Exported(bytes(argument), writable=False)
    try:
        length = memory.length if size is None else size
        queue.add(pykevent.naio_event(1, events, sock, memory.address, length, flags))
    finally:
        memory.release()


@pytest.fixture
def argument(make: Make, content: bytes) -> bytes:
    """What a SENDFILE takes."""
    return sendfile_argument(make(content), 0, 10, b"head", b"tail")


@pytest.mark.parametrize(
    "flags",
    [
        Flags.EDGE, Flags.DISPATCH, Flags.DISABLED, Flags.NOTIFY_BROKEN, Flags.BYTES,
        Flags.WAITALL, Flags.MULTISHOT, 0x800, 1 << 31,
    ],
)  # fmt: skip
def test_flags_that_mean_nothing_to_it_are_einval(
    queue: Queue, tcp: Pair, argument: bytes, flags: int
) -> None:
    with refused(errno.EINVAL):
        ask(queue, tcp[0], argument, flags)


def test_other_events_besides_are_einval(queue: Queue, tcp: Pair, argument: bytes) -> None:
    for more in (NaioEvents.RECV, NaioEvents.SEND, 8):
        with refused(errno.EINVAL):
            ask(queue, tcp[0], argument, events=SENDFILE | more)


def test_oneshot_may_be_said(queue: Queue, tcp: Pair, argument: bytes) -> None:
    ask(queue, tcp[0], argument, Flags.ONESHOT)
    assert one(queue).last


@pytest.mark.parametrize("size", [0, 1, 31, 32, 39, 41, 32 + 16384, 2**31, 2**40, 2**64 - 1])
def test_a_size_that_is_not_that_of_all_its_bytes_is_einval(
    queue: Queue, tcp: Pair, argument: bytes, size: int
) -> None:
    assert len(argument) == 40
    with refused(errno.EINVAL):
        ask(queue, tcp[0], argument + bytes(20_000), size=size)


def test_what_goes_round_a_file_is_bounded(queue: Queue, tcp: Pair, make: Make) -> None:
    near, far = tcp
    file = make(b"file")
    most = abi.SENDFILE_EXTRA
    for prefix, suffix in ((most + 1, 0), (0, most + 1), (most // 2, most // 2 + 1)):
        with refused(errno.EINVAL):
            argument = abi.SENDFILE.pack(0, 1, file, 0, prefix, suffix)
            ask(queue, near, argument + bytes(prefix + suffix))
    # sizes whose sum is small, and is not if it is made as it should be
    for prefix, suffix in ((2**32 - 1, 1), (2**31, 2**31), (2**32 - 8, 16)):
        with refused(errno.EINVAL):
            ask(queue, near, abi.SENDFILE.pack(0, 1, file, 0, prefix, suffix) + bytes(8))
    queue.sendfile(near, file, prefix=bytes(most - 1), suffix=b"x")
    assert receive(far, most + 4) == bytes(most - 1) + b"filex"
    assert one(queue).data == most + 4


def test_flags_of_the_file_are_einval(queue: Queue, tcp: Pair, make: Make) -> None:
    for bit in range(32):
        with refused(errno.EINVAL):
            ask(queue, tcp[0], abi.SENDFILE.pack(0, 1, make(b"x"), 1 << bit, 0, 0))


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (2**63, 0),
        (2**63, abi.SENDFILE_ALL),
        (2**64 - 1, 1),
        (2**63 - 1, 1),
        (1, 2**63 - 1),
        (0, 2**63),
        (0, 2**64 - 2),
    ],
)
def test_a_part_that_ends_beyond_what_a_file_can_have_is_einval(
    queue: Queue, tcp: Pair, make: Make, offset: int, length: int
) -> None:
    with refused(errno.EINVAL):
        ask(queue, tcp[0], abi.SENDFILE.pack(offset, length, make(b"x"), 0, 0, 0))


def test_the_longest_part_is_taken(queue: Queue, tcp: Pair, make: Make) -> None:
    ask(queue, tcp[0], abi.SENDFILE.pack(1, 2**63 - 2, make(b"xyz"), 0, 0, 0))
    assert one(queue).data == 2
    assert tcp[1].recv(10) == b"yz"


@pytest.mark.parametrize("number", [-1, -100, -(2**31), 1 << 20, 2**31 - 1])
def test_a_file_that_is_not_open_is_ebadf(queue: Queue, tcp: Pair, number: int) -> None:
    with refused(errno.EBADF):
        ask(queue, tcp[0], abi.SENDFILE.pack(0, 1, number, 0, 0, 0))


def test_a_file_that_is_not_open_for_reading_is_ebadf(
    queue: Queue, tcp: Pair, tmp_path: Path, stack: ExitStack
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for mode in (os.O_WRONLY, os.O_PATH):
        file = os.open(path, mode)
        stack.callback(os.close, file)
        with refused(errno.EBADF):
            queue.sendfile(tcp[0], file)


def test_what_is_no_regular_file_is_einval(
    queue: Queue, tcp: Pair, pipe: tuple[int, int], tmp_path: Path, stack: ExitStack
) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    stack.callback(os.close, folder)
    device = os.open("/dev/zero", os.O_RDONLY)
    stack.callback(os.close, device)
    for other in (pipe[0], folder, tcp[1].fileno(), device, queue.fileno()):
        with refused(errno.EINVAL):
            queue.sendfile(tcp[0], other)


def test_a_descriptor_has_to_be_a_socket(
    queue: Queue, tcp: Pair, make: Make, content: bytes, pipe: tuple[int, int]
) -> None:
    file = make(content)
    memory = Exported(sendfile_argument(file, 0, 10), writable=False)
    for descriptor, error in (
        (1 << 20, errno.EBADF),
        (1 << 31, errno.EBADF),
        (1 << 32, errno.EINVAL),
        (pipe[1], errno.ENOTSOCK),
        (file, errno.ENOTSOCK),
    ):
        params = (memory.address, memory.length, descriptor)
        with refused(error):
            queue.add(Request(EventType.NAIO, 1, SENDFILE, params=params))
    assert queue.info().kevents == 0


@kinds(["UDP over IPv4", "UDP over IPv6", "UNIX datagram", "UNIX seqpacket"])
def test_other_sockets_than_streams_are_eopnotsupp(
    queue: Queue, ends: Pair, argument: bytes
) -> None:
    with refused(errno.EOPNOTSUPP):
        ask(queue, ends[0], argument)


@pytest.mark.parametrize("bad", [0, 1 << 47, 1 << 63, 2**64 - PAGE])
def test_memory_that_is_not_there_is_efault(queue: Queue, tcp: Pair, bad: int) -> None:
    with refused(errno.EFAULT):
        queue.add(pykevent.naio_event(1, SENDFILE, tcp[0], bad, abi.SENDFILE.size))
    assert queue.info().kevents == 0


def test_bytes_that_are_not_there_are_efault(queue: Queue, tcp: Pair, argument: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        # What is mapped beyond the last page of a file is a SIGBUS.
        file.truncate(2 * PAGE)
        memory = mmap.mmap(file.fileno(), 2 * PAGE, mmap.MAP_PRIVATE)
        file.truncate(PAGE)
        view = Exported(memory, writable=True)
        for there in (len(argument) - 1, abi.SENDFILE.size, 1):
            memory[PAGE - there : PAGE] = argument[:there]
            address = view.address + PAGE - there
            with refused(errno.EFAULT):
                queue.add(pykevent.naio_event(1, SENDFILE, tcp[0], address, len(argument)))
    assert queue.info().kevents == 0


def test_modify_is_eopnotsupp(queue: Queue, tcp: Pair, make: Make, much: bytes) -> None:
    near, far = tcp
    narrow(near, far)
    memory = Exported(sendfile_argument(make(much), 0, None), writable=False)
    request = pykevent.naio_event(1, SENDFILE, near, memory.address, memory.length)
    queue.add(request)
    with refused(errno.EEXIST):
        queue.add(request)
    with refused(errno.EOPNOTSUPP):
        queue.modify(request)
    assert receive(far, MUCH) == much
    assert one(queue).data == MUCH


def test_no_more_files_are_held_than_one_process_could_have_open(tcp: Pair, much: bytes) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    near, far = tcp
    narrow(near, far)

    def asks() -> None:
        file = in_memory()
        os.pwrite(file, much, 0)
        with pykevent.open() as later, pykevent.open() as own:
            resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
            transfers = [own.sendfile(near, file) for _ in range(20)]
            with refused(errno.EMFILE):
                own.sendfile(near, file)
            assert transfers[5].cancel()
            own.sendfile(near, file)
            with refused(errno.EMFILE):
                own.sendfile(near, file)
            own.close()
            later.sendfile(near, file, 0, 1)

    as_nobody(asks)


@pytest.mark.needs("POLL")
def test_files_being_sent_are_held_together_with_those_that_poll_pins(
    tcp: Pair, much: bytes
) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    near, far = tcp
    narrow(near, far)

    def asks() -> None:
        file = in_memory()
        os.pwrite(file, much, 0)
        # A device, which is pinned by every kernel.
        devices = [os.open("/dev/random", os.O_RDONLY | os.O_CLOEXEC) for _ in range(5)]
        pin = [pykevent.poll_event(device, PollEvents.PRI) for device in devices]
        with pykevent.open() as own:
            assert own.info().pinned & FileKind.OTHER
            resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
            assert own.add_many(pin[:4]) == [0] * 4
            transfers = [own.sendfile(near, file) for _ in range(16)]
            for _ in range(2):
                with refused(errno.EMFILE):
                    own.sendfile(near, file)
                with refused(errno.EMFILE):
                    own.add(pin[4])
                assert transfers[5].cancel()
                own.add(pin[4])
                own.remove(EventType.POLL, devices[4])
                transfers[5] = own.sendfile(near, file)

    as_nobody(asks)
