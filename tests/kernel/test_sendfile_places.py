# SPDX-License-Identifier: GPL-2.0-or-later
"""Files to send on file systems that take root to have: on a disk, and in user space.

Of these the module sees what is cached, has the rest read, or has all of it read.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import pykevent
from pykevent import Event, Feature, Queue
from pykevent.transfers import Exported
from tests.conformance.sockets import Pair, Receiver, receive
from tests.conformance.support import DEADLINE, as_nobody, child, eventually, now, tcp_pair
from tests.kernel import stuck

FOLDER = Path(__file__).resolve().parent
DEVICE = Path(os.environ.get("KEVENT_DEVICE") or "/dev/kevent")
LIBC = ctypes.CDLL(None, use_errno=True)
PAGE = 4096
SIZE = 8 << 20
READERS = 16
"""Files that are read for one user at once, see KEVENT_READERS."""
AT_ONCE = 10.0
"""Seconds within which what waits for nobody returns, also on a slow machine."""

# A file system is unmounted when the queue is closed that holds files of it: tests name it first.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.environ.get("KEVENT_CHECK_KMSG") != "1", reason="mounts file systems: in a guest only"
    ),
]


def one(queue: Queue) -> Event:
    """The only event there is, also where it takes a slow machine long to read a disk."""
    events = queue.wait(5 * DEADLINE)
    assert len(events) == 1, events
    return events[0]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def queue(stack: ExitStack) -> Queue:
    opened = stack.enter_context(pykevent.open())
    if Feature.NAIO not in opened.info().features:
        pytest.skip("INFO has no NAIO")
    return opened


@pytest.fixture
def new_pair(stack: ExitStack) -> Callable[[], Pair]:
    """Makes connections, of which the first end has little room to send."""

    def made() -> Pair:
        near, far = tcp_pair()
        stack.enter_context(near)
        stack.enter_context(far)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        return near, far

    return made


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def have(*modules: str) -> None:
    """Skip where this kernel has no such file system."""
    for name in modules:
        done = subprocess.run(["modprobe", name], stdin=subprocess.DEVNULL, capture_output=True)
        known = Path("/proc/filesystems").read_text().split()
        if done.returncode and name not in known and not Path("/sys/module", name).exists():
            pytest.skip(f"no {name} in this kernel")


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < seconds, f"{what} took {took:.1f} s"


def unmount(place: Path, seconds: float = DEADLINE) -> None:
    """Once nobody holds a file of it any more, which no one does for long."""

    def gone() -> bool:
        return not subprocess.run(["umount", place], capture_output=True).returncode

    eventually(gone, f"nobody holds a file of {place}", seconds)


# On a disk


class Disk:
    """A file system on a disk, with one file that is nowhere but there."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "file"
        self.content = os.urandom(SIZE)
        self.path.write_bytes(self.content)

    def forget(self) -> None:
        """Have nothing of it cached."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert not self.cached(file.fileno(), 0)

    @staticmethod
    def cached(fd: int, at: int) -> bool:
        """Whether a byte of the file is in memory; looking has nothing read."""
        with mmap.mmap(fd, 0, mmap.MAP_PRIVATE) as memory:
            view = Exported(memory, writable=True)
            page = ctypes.c_void_p(view.address + at - at % PAGE)
            there = ctypes.c_ubyte()
            status = LIBC.mincore(page, ctypes.c_size_t(1), ctypes.byref(there))
            view.release()
        assert not status, os.strerror(ctypes.get_errno())
        return bool(there.value & 1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    have("loop", "ext4")
    image, place = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    place.mkdir()
    run("mkfs.ext4", "-q", "-F", image)
    run("mount", "-o", "loop", image, place)
    try:
        yield Disk(place)
    finally:
        unmount(place)


def test_a_file_is_read_from_the_disk(
    disk: Disk, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, far = new_pair()
    receiver = Receiver(far)
    wanted = b""
    for offset, length in ((0, SIZE), (1, SIZE - 1), (12_345, 3_000_000), (SIZE - 9, 9)):
        disk.forget()
        with disk.path.open("rb") as file:
            queue.sendfile(near, file, offset, length, prefix=b"head", suffix=b"tail")
        event = one(queue)
        assert (event.data, event.error) == (length + 8, 0)
        wanted += b"head" + disk.content[offset : offset + length] + b"tail"
    near.close()
    assert receiver.all() == wanted


def test_a_part_of_the_file_may_be_there(
    disk: Disk, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, far = new_pair()
    receiver = Receiver(far)
    with disk.path.open("rb") as file:
        disk.forget()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for page in (0, 1, 7, 8, 9, 31, 32, 100, 1000):
            os.pread(file.fileno(), 1, page * PAGE)
        queue.sendfile(near, file)
        assert one(queue).data == SIZE
    near.close()
    assert receiver.all() == disk.content


def test_pages_that_are_evicted_meanwhile_are_read_again(
    disk: Disk, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, far = new_pair()
    receiver = Receiver(far)
    stop = threading.Event()

    def evicts() -> None:
        with disk.path.open("rb") as file:
            while not stop.is_set():
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    thread = threading.Thread(target=evicts)
    thread.start()
    try:
        with disk.path.open("rb") as file:
            for _ in range(3):
                queue.sendfile(near, file)
                event = one(queue)
                assert (event.data, event.error) == (SIZE, 0)
    finally:
        stop.set()
        thread.join()
    near.close()
    assert receiver.all() == 3 * disk.content


def test_what_comes_next_is_read_while_the_peer_is_slow_and_no_more(
    disk: Disk, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, far = new_pair()
    disk.forget()
    got = 0

    def follows() -> int:
        """A byte that is to be sent soon, wherever in the file that is."""
        ways = ((far, termios.FIONREAD), (near, termios.TIOCOUTQ))
        queued = [fcntl.ioctl(sock, way, bytes(4)) for sock, way in ways]
        return got + 60_000 + sum(int.from_bytes(number, sys.byteorder) for number in queued)

    with disk.path.open("rb") as file:
        transfer = queue.sendfile(near, file)
        while got < 1_500_000:
            got += len(receive(far, 32768))
            eventually(lambda: disk.cached(file.fileno(), follows()), "it is read ahead")
        assert not disk.cached(file.fileno(), SIZE // 2)
        assert transfer.cancel()
        assert transfer.moved < SIZE // 4


def test_the_access_is_dated_as_the_mount_says(
    disk: Disk, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, _ = new_pair()

    def dated(how: str) -> bool:
        run("mount", "-o", f"remount,{how}", disk.place)
        # long before it was written to
        os.utime(disk.path, ns=(10**9, 2 * 10**9))
        with disk.path.open("rb") as file:
            os.pread(file.fileno(), 0, 0)
            queue.sendfile(near, file, 0, 100)
            assert one(queue).data == 100
            return os.fstat(file.fileno()).st_atime_ns > 10**9

    assert dated("relatime")
    assert dated("strictatime")
    assert not dated("noatime")


@pytest.mark.parametrize("size", [5, PAGE, 100_003, 4 * 16 * PAGE, SIZE])
def test_a_file_of_which_nothing_is_to_be_cached_is_sent(
    queue: Queue, new_pair: Callable[[], Pair], disk: Disk, size: int
) -> None:
    near, far = new_pair()
    receiver = Receiver(far)
    os.truncate(disk.path, size)
    disk.forget()
    wanted = b""
    file = os.open(disk.path, os.O_RDONLY | os.O_DIRECT)
    for offset, length in ((0, None), (0, size), (1, 3), (size // 3, size // 2), (size - 1, None)):
        queue.sendfile(near, file, offset, length, prefix=b"head", suffix=b"tail")
        part = disk.content[offset : size if length is None else offset + length]
        event = one(queue)
        assert (event.data, event.error) == (len(part) + 8, 0)
        wanted += b"head" + part + b"tail"
    os.close(file)
    with disk.path.open("rb") as read:
        assert not any(disk.cached(read.fileno(), at) for at in (0, size // 2, size - 1))
    near.close()
    assert receiver.all() == wanted


def test_what_machines_may_share_is_read_though_it_is_cached(
    queue: Queue, new_pair: Callable[[], Pair], disk: Disk, tmp_path: Path
) -> None:
    have("minix")
    if shutil.which("mkfs.minix") is None:
        pytest.skip("no mkfs.minix")
    image, place = tmp_path / "other-image", tmp_path / "other"
    image.write_bytes(bytes(4 << 20))
    place.mkdir()
    run("mkfs.minix", image)
    run("mount", "-o", "loop", image, place)

    def referred(path: Path) -> bool:
        """Whether pages of the file's own are on their way, which a write changes."""
        near, far = new_pair()
        path.write_bytes(b"a" * PAGE)
        with path.open("rb") as file:
            assert file.read() == b"a" * PAGE
            queue.sendfile(near, file)
            assert one(queue).data == PAGE
        with path.open("r+b") as file:
            file.write(b"b" * PAGE)
        got = receive(far, PAGE)
        assert got in (b"a" * PAGE, b"b" * PAGE)
        return got == b"b" * PAGE

    try:
        assert referred(disk.place / "file")
        # nobody knows that it asks no other machine
        assert not referred(place / "file")
    finally:
        unmount(place)


def test_who_asks_pays_for_what_is_read_from_the_disk(
    queue: Queue, new_pair: Callable[[], Pair], disk: Disk, tmp_path: Path
) -> None:
    group = tmp_path / "cgroup"
    group.mkdir()
    run("mount", "-t", "cgroup2", "none", group)
    try:
        if "io" not in (group / "cgroup.controllers").read_text().split():
            pytest.skip("no io controller in the unified hierarchy")
        (group / "cgroup.subtree_control").write_text("+io")
        own = group / "own"
        own.mkdir()
        disk.forget()
        near, far = new_pair()
        receiver = Receiver(far)

        def asks() -> None:
            (own / "cgroup.procs").write_text(str(os.getpid()))
            with pykevent.open() as other, disk.path.open("rb") as file:
                other.sendfile(near, file)
                assert one(other).data == SIZE

        with child(asks) as process:
            process.finish()
        near.close()
        assert receiver.all() == disk.content
        number = os.stat(disk.path).st_dev
        line = f"{os.major(number)}:{os.minor(number)} "
        said = (own / "io.stat").read_text()
        found = [words for words in said.splitlines() if words.startswith(line)]
        assert found, said
        figures = dict(word.split("=") for word in found[0].split()[1:])
        assert int(figures["rbytes"]) >= SIZE, said
        own.rmdir()
    finally:
        run("umount", group)


def test_what_waits_is_not_received_into_a_shared_mapping_of_a_file(
    disk: Disk, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, _ = new_pair()
    with disk.path.open("r+b") as file, mmap.mmap(file.fileno(), PAGE) as memory:
        with pytest.raises(OSError, match="a file's shared mapping") as caught:
            queue.recv_into(near, memory)
        assert caught.value.errno == errno.EFAULT


def test_what_the_kernel_makes_up_is_refused_below_an_overlay_too(
    queue: Queue, new_pair: Callable[[], Pair], tmp_path: Path
) -> None:
    have("overlay")
    group, other, whole = (tmp_path / name for name in ("cgroup", "other", "whole"))
    for place in (group, other, whole):
        place.mkdir()
    (other / "file").write_bytes(b"of a disk, or of memory")
    near, far = new_pair()
    run("mount", "-t", "cgroup2", "none", group)
    try:
        run("mount", "-t", "overlay", "none", whole, "-o", f"lowerdir={group}:{other}")
        try:
            for place in (group, whole):
                with (place / "cgroup.procs").open("rb") as file:
                    with pytest.raises(OSError, match="makes up, as in /proc") as caught:
                        queue.sendfile(near, file)
                    assert caught.value.errno == errno.EINVAL
            with (whole / "file").open("rb") as file:
                queue.sendfile(near, file)
                assert one(queue).data == 23
            assert far.recv(100) == b"of a disk, or of memory"
        finally:
            unmount(whole)
    finally:
        run("umount", group)


# In user space


class Served:
    """A file system that `stuck` serves."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.patience = DEADLINE
        self._process = subprocess.Popen(
            [sys.executable, FOLDER / "stuck.py", place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Python and its modules come slowly where all is emulated.
        eventually(lambda: os.path.ismount(place), "it is mounted", 100)

    def until_read(self, count: int) -> list[str]:
        """The files of which so many reads have begun."""
        assert self._process.stdout is not None
        return [self._process.stdout.readline().strip() for _ in range(count)]

    def answer(self) -> None:
        """Have all reads end, from now on at once."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> None:
        """Unmount it, which takes that nobody has a file of it open."""
        self.answer()
        unmount(self.place, self.patience)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(60)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    have("fuse")
    place = tmp_path / "stuck"
    place.mkdir()
    found = Served(place)
    try:
        yield found
    finally:
        found.end()


def test_a_file_in_user_space_is_sent(
    served: Served, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, far = new_pair()
    receiver = Receiver(far)
    served.answer()
    with (served.place / "any").open("rb") as file:
        queue.sendfile(near, file, prefix=b"head", suffix=b"tail")
        assert one(queue).data == stuck.SIZE + 8
        queue.sendfile(near, file, 12_345, 500_000)
        assert one(queue).data == 500_000
    near.close()
    whole = stuck.content(0, stuck.SIZE)
    assert receiver.all() == b"head" + whole + b"tail" + whole[12_345:512_345]


def test_a_file_that_cannot_be_read_is_an_error_after_what_could(
    served: Served, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, far = new_pair()
    receiver = Receiver(far)
    with (served.place / "broken").open("rb") as file:
        queue.sendfile(near, file, prefix=b"head", suffix=b"tail")
        event = one(queue)
        assert (event.data, event.error) == (stuck.GOOD + 4, errno.EIO)
        queue.sendfile(near, file, stuck.GOOD, 1)
        event = one(queue)
        assert (event.data, event.error) == (0, errno.EIO)
    near.close()
    assert receiver.all() == b"head" + stuck.content(0, stuck.GOOD)


def test_a_socket_that_its_user_has_corked_stays_so(
    served: Served, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    near, far = new_pair()
    receiver = Receiver(far)
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    with (served.place / "broken").open("rb") as file:
        queue.sendfile(near, file, prefix=b"head")
        assert one(queue).error == errno.EIO
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 1
    near.close()
    assert receiver.all() == b"head" + stuck.content(0, stuck.GOOD)


def test_files_that_nobody_reads_hold_up_neither_remove_nor_close(
    served: Served, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    transfers = []
    for number in range(READERS + 4):
        near, _ = new_pair()
        with (served.place / f"file{number}").open("rb") as file, within(AT_ONCE, "ADD"):
            transfers.append(queue.sendfile(near, file, prefix=b"head"))
    reading = served.until_read(READERS)
    assert sorted(reading) == sorted(f"file{number}" for number in range(READERS))
    with within(AT_ONCE, "WAIT"):
        assert now(queue) == []
    for transfer in transfers[::3]:
        with within(AT_ONCE, "REMOVE"):
            assert transfer.cancel()
        assert (transfer.moved, transfer.error) == (4, errno.ECANCELED)
    with within(AT_ONCE, "close"):
        queue.close()
    assert all(transfer.done for transfer in transfers)


def test_files_that_nobody_reads_hold_up_no_other_that_is_cached(
    served: Served, queue: Queue, new_pair: Callable[[], Pair]
) -> None:
    for number in range(READERS):
        near, _ = new_pair()
        with (served.place / f"file{number}").open("rb") as file:
            queue.sendfile(near, file)
    served.until_read(READERS)
    near, far = new_pair()
    holes = os.memfd_create("test")
    os.pwrite(holes, b"hello", 0)
    queue.sendfile(near, holes)
    assert one(queue).data == 5
    assert far.recv(10) == b"hello"
    os.ftruncate(holes, 3 * PAGE)

    def asks() -> None:
        # what has to be read takes a reader, of which another user has as many
        with pykevent.open() as own:
            own.sendfile(near, holes)
            assert one(own).data == 3 * PAGE

    as_nobody(asks)
    assert receive(far, 3 * PAGE) == b"hello".ljust(3 * PAGE, b"\0")
    # the same user's waits for its turn
    last = queue.sendfile(near, holes, cookie=1)
    assert now(queue) == []
    assert not last.done
    served.answer()
    eventually(lambda: bool(now(queue)) or last.done, "a reader has time for it")
    assert receive(far, 3 * PAGE) == b"hello".ljust(3 * PAGE, b"\0")
    os.close(holes)


def test_a_file_that_nobody_reads_holds_up_no_process_that_is_killed(
    served: Served, new_pair: Callable[[], Pair]
) -> None:
    near, _ = new_pair()

    def asks() -> None:
        own = pykevent.open()
        with (served.place / "any").open("rb") as file:
            own.sendfile(near, file)
        own.wait()

    with child(asks) as process:
        served.until_read(1)
        with within(AT_ONCE, "SIGKILL"):
            process.kill()


def test_many_users_whose_files_nobody_reads_hold_up_no_other(
    new_pair: Callable[[], Pair], served: Served
) -> None:
    near = [new_pair()[0] for _ in range(READERS)]
    last, far = new_pair()
    # All these reads end one after the other, and their server is an emulated Python.
    served.patience = 100

    def as_user(number: int, function: Callable[[Queue], None]) -> None:
        def asks() -> None:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(70_000 + number, 70_000 + number, 70_000 + number)
            with pykevent.open() as own:
                function(own)

        with child(asks) as process:
            process.finish()

    def keeps(own: Queue) -> None:
        for sock, file in zip(near, files, strict=True):
            own.sendfile(sock, file)
        # they are read although the user ends, and the transfers with it
        served.until_read(READERS)

    def hopes(own: Queue) -> None:
        holes = os.memfd_create("test")
        os.ftruncate(holes, PAGE)
        own.sendfile(last, holes)
        assert one(own).data == PAGE

    files = [os.open(served.place / f"file{number}", os.O_RDONLY) for number in range(READERS)]
    try:
        # more than one workqueue has done at once
        for number in range(256 // READERS):
            as_user(number, keeps)
        as_user(256, hopes)
    finally:
        for file in files:
            os.close(file)
    assert receive(far, PAGE) == bytes(PAGE)
