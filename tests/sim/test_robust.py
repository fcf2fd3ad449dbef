# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients and simulators that are killed, many who wait, and what is left of it all: nothing."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from runner.common import TREE, Failure
from runner.simulator import Simulator, eventually, mounted, processes

import pykevent
from pykevent import Queue, SocketEvents, mounts
from tests.conformance.support import (
    Child,
    InThread,
    child,
    cookies,
    now,
    poll_bits,
    refused,
    waiting,
)

THREADS = 300


def descriptors(pid: int) -> dict[str, str]:
    """What a process has open."""
    folder = Path(f"/proc/{pid}/fd")
    found = {}
    for number in os.listdir(folder):
        with suppress(FileNotFoundError):  # closed meanwhile
            found[number] = os.readlink(folder / number)
    return found


def threads(pid: int) -> int:
    """How many a process runs."""
    return len(os.listdir(f"/proc/{pid}/task"))


def waits_for_ever(simulator: Simulator) -> Callable[[], None]:
    """What a client does that is going to be killed."""

    def waits() -> None:
        near, _far = pykevent_pair()
        with pykevent.open(simulator.device) as mine:
            mine.add(pykevent.socket_event(near, SocketEvents.RECV))
            mine.add(pykevent.timer_event(1, 3600))
            mine.add_path("/", pykevent.InodeEvents.CREATE, 1)
            mine.wait(None)

    return waits


def pykevent_pair() -> tuple[int, int]:
    """Two connected sockets, as numbers: nobody closes them."""
    near, far = socket.socketpair()
    return near.detach(), far.detach()


def test_clients_killed_in_a_wait_leave_nothing_behind(simulator: Simulator, queue: Queue) -> None:
    def until_it_waits(process: Child) -> None:
        eventually(lambda: queue.info().user_kevents == 3, "its kevents are there")
        process.until_asleep()

    with child(waits_for_ever(simulator)) as first:
        until_it_waits(first)  # whatever is opened once is open now
    eventually(lambda: queue.info().user_kevents == 0, "the first one's kevents are gone")
    before = len(descriptors(simulator.pid))
    for _ in range(50):
        with child(waits_for_ever(simulator)) as process:
            until_it_waits(process)
            process.kill()
        eventually(lambda: queue.info().user_kevents == 0, "its kevents are gone")
    try:
        eventually(lambda: len(descriptors(simulator.pid)) <= before, "their descriptors are gone")
    except Failure:
        pytest.fail(f"{before} descriptors have become {descriptors(simulator.pid)}")
    eventually(lambda: threads(simulator.pid) < 30, "the threads that served them are gone")


def test_clients_killed_anywhere_leave_nothing_behind(simulator: Simulator, queue: Queue) -> None:
    with child(waits_for_ever(simulator)) as first:
        eventually(lambda: queue.info().user_kevents == 3, "its kevents are there")
    eventually(lambda: queue.info().user_kevents == 0, "the first one's kevents are gone")
    eventually(lambda: first.exited, "the first one is gone")
    before = len(descriptors(simulator.pid))
    for turn in range(100):
        with child(waits_for_ever(simulator)) as process:
            time.sleep(turn / 10_000)  # no condition: this is about any moment
            process.kill()
    eventually(lambda: queue.info().user_kevents == 0, "their kevents are gone")
    try:
        eventually(lambda: len(descriptors(simulator.pid)) <= before, "their descriptors are gone")
    except Failure:
        pytest.fail(f"{before} descriptors have become {descriptors(simulator.pid)}")


def test_a_killed_client_that_waits_is_gone_within_50_ms(simulator: Simulator) -> None:
    taken = []
    for _ in range(11):
        process = Child(waits_for_ever(simulator))
        try:
            process.until_asleep()
            begun = time.monotonic()
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            taken.append(time.monotonic() - begun)
        finally:
            process.kill()
    assert statistics.median(taken) < 0.05, taken


def test_a_signal_ends_a_wait_within_50_ms(simulator: Simulator, queue: Queue) -> None:
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    taken = []

    def waits() -> float:
        buffer = bytearray(
            pykevent.abi.WAIT_HEADER.pack(0, 0, 1, 1, 2**64 - 1, 1, 0, 0, 0, 0) + bytes(32)
        )
        with pytest.raises(InterruptedError):
            pykevent.calls.ioctl(queue.fileno(), pykevent.abi.WAIT(1), buffer, blocking=True)
        return time.monotonic()

    try:
        for _ in range(11):
            thread = InThread(waits).until_asleep()
            begun = time.monotonic()
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            taken.append(thread.result() - begun)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert statistics.median(taken) < 0.05, taken


def test_hundreds_may_wait_and_nobody_else_is_held_up(simulator: Simulator, queue: Queue) -> None:
    queue.add_many(pykevent.user_event(ident) for ident in range(THREADS))
    waiters = [waiting(queue, maximum=1) for _ in range(THREADS)]
    assert threads(simulator.pid) < THREADS + 30
    begun = time.monotonic()
    for _ in range(20):
        queue.info()
        with pykevent.open(simulator.device) as other:
            other.wait(0)
    assert time.monotonic() - begun < 2
    queue.post_many((ident, 0) for ident in range(THREADS))
    assert sorted(event.ident for waiter in waiters for event in waiter.result()) == [
        *range(THREADS)
    ]
    eventually(lambda: threads(simulator.pid) < 30, "the threads that served them are gone")


def test_a_killed_simulator_leaves_no_mount_and_its_clients_a_sentence(
    simulator: Simulator, queue: Queue
) -> None:
    queue.add(pykevent.user_event(1))
    waiter = waiting(queue)
    simulator.kill()
    with pytest.raises(OSError, match="the simulator behind this queue has died") as caught:
        waiter.result()
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    with pytest.raises(OSError, match="the simulator behind this queue has died"):
        queue.post(1)
    eventually(lambda: not mounted(simulator.folder), "the mount is gone")
    eventually(lambda: not processes(simulator.folder), "no process is left")
    with pytest.raises(FileNotFoundError):
        pykevent.open(simulator.device)


def test_closing_the_queue_of_a_dead_simulator_lets_go_of_the_buffers(
    simulator: Simulator, queue: Queue
) -> None:
    near, far = socket.socketpair()
    with near, far:
        buffers = [bytearray(10) for _ in range(3)]
        transfers = [queue.recv_into(near, buffer) for buffer in buffers]
        fd = queue.fileno()
        simulator.kill()
        queue.close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)
        for buffer, transfer in zip(buffers, transfers, strict=True):
            buffer.extend(b"ours again")
            assert (transfer.done, transfer.error) == (True, errno.ECANCELED)


@pytest.mark.parametrize("end", [Simulator.kill, Simulator.terminate])
def test_the_end_of_a_simulator_is_told_as_the_manual_page_says(
    simulator: Simulator, queue: Queue, end: Callable[[Simulator], object]
) -> None:
    waiter = waiting(queue)
    # It may sleep before the simulator has taken its call over, which is when EIO would be right:
    # calls are taken in their order.
    queue.info()
    end(simulator)
    with pytest.raises(OSError, match="has died") as caught:
        waiter.result()
    assert caught.value.errno == errno.ECONNABORTED
    for _ in range(2):
        with refused(errno.ENOTCONN):
            queue.info()
    assert poll_bits(queue.fileno(), select.POLLIN) == select.POLLERR
    eventually(lambda: not mounted(simulator.folder), "the mount is gone")


def test_a_simulator_that_is_told_to_end_does_so_although_somebody_waits(
    simulator: Simulator, queue: Queue
) -> None:
    waiter = waiting(queue)
    assert simulator.terminate() == 0
    assert not mounted(simulator.folder)
    with pytest.raises(OSError, match="has died"):
        waiter.result()


def test_a_simulator_that_is_unmounted_ends(simulator: Simulator) -> None:
    mounts.unmount(str(simulator.folder))
    assert simulator.wait() == 0


def helper(simulator: Simulator) -> int:
    """The process that unmounts after a crash."""
    (line,) = [each for each in processes(simulator.folder) if "fusermount" in each]
    return int(line.split(":")[0])


def test_what_a_crash_left_mounted_is_taken_away_by_the_next_one(place: Path) -> None:
    crashed = Simulator(place / "mount")
    crashed.__enter__()
    os.kill(helper(crashed), signal.SIGKILL)
    crashed.kill()
    assert mounted(crashed.folder)
    with refused(errno.ENOTCONN, errno.ECONNABORTED):
        os.listdir(crashed.folder)
    with Simulator(place / "mount") as again, pykevent.open(again.device) as queue:
        assert queue.info().kevents == 0


def sim(*words: str | Path, cwd: Path = TREE) -> subprocess.CompletedProcess[str]:
    """The command, which must end."""
    command = [sys.executable, "-m", "pykevent", "sim", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=False, cwd=cwd, env=environment
    )


def test_a_mount_point_in_use_is_refused_in_a_sentence(simulator: Simulator, queue: Queue) -> None:
    done = sim(simulator.folder)
    assert done.returncode == 1
    assert done.stderr == f"{simulator.folder}: something is mounted here already\n"
    assert queue.info().kevents == 0


def test_a_mount_point_whose_server_does_not_answer_is_refused_in_a_sentence(
    simulator: Simulator,
) -> None:
    os.kill(simulator.pid, signal.SIGSTOP)
    try:
        done = sim(simulator.folder)
    finally:
        os.kill(simulator.pid, signal.SIGCONT)
    assert (done.returncode, done.stderr) == (
        1,
        f"{simulator.folder}: something is mounted here already, and its server does not answer "
        "(fuse.pykevent)\n",
    )


def test_a_mount_point_with_files_in_it_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = sim(tmp_path)
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}: the directory is not empty\n")


def test_a_simulator_in_the_background_can_be_used_when_the_command_returns(place: Path) -> None:
    folder = place / "mount"
    done = sim("--background", "--until-unused", folder)
    assert (done.returncode, done.stderr) == (0, "")
    device, pid = folder / "kevent", (folder / "pid").read_text().strip()
    assert done.stdout == (
        f"serving {device}, process {pid}; to use it: export KEVENT_DEVICE={device}\n"
    )
    with pykevent.open(device) as queue:
        queue.add(pykevent.user_event(1, cookie=3))
        queue.post(1)
        assert cookies(now(queue)) == [3]
    eventually(lambda: not mounted(folder) and not processes(folder), "it has ended")
    assert not folder.exists()


def test_the_background_keeps_to_the_directory_of_who_started_it(place: Path) -> None:
    done = sim("--background", "--log", "said", "a folder", cwd=place)
    assert done.returncode == 0, done.stderr
    folder = place / "a folder"
    try:
        assert mounted_at(folder)
        assert f"export KEVENT_DEVICE='{folder}/kevent'\n" in done.stdout
        with pykevent.open(folder / "kevent") as queue:
            assert queue.info().kevents == 0
    finally:
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    eventually(lambda: not mounted_at(folder) and not processes(folder), "it has ended")
    assert not folder.exists()
    assert (place / "said").read_text() == ""


def mounted_at(folder: Path) -> bool:
    """As mounted(), for a name with a space in it."""
    return mounts.mounted(str(folder)) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_complaints_of_one_in_the_background_are_in_its_log(place: Path) -> None:
    folder, log = place / "mount", place / "log"
    sees_nothing = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]
    command = [*sees_nothing, sys.executable, "-m", "pykevent", "sim", "--background"]
    subprocess.run([*command, "--log", log, folder], cwd=TREE, check=True, timeout=20)
    near, far = socket.socketpair()
    try:
        with near, far, pykevent.open(folder / "kevent") as queue:
            with pytest.raises(PermissionError, match="the simulator may not look at this process"):
                queue.add(pykevent.socket_event(near, SocketEvents.RECV))
            with pytest.raises(PermissionError, match=r"never can; or the simulator may not look"):
                queue.add(pykevent.poll_event(near, 1))
            with pytest.raises(PermissionError, match="the simulator may not look at this process"):
                queue.add(pykevent.inode_event(os.open("/", os.O_RDONLY), 1))
            with pytest.raises(PermissionError, match="the simulator may not look at this process"):
                queue.recv(near, 1)
            with pytest.raises(PermissionError, match="if you may read it yourself, the simulator"):
                queue.add_path("/", 1, 1)
            # One that only has the descriptor is told the same.
            other = Queue.fromfd(os.dup(queue.fileno()))
            with other, pytest.raises(PermissionError, match="the simulator may not look"):
                other.add(pykevent.socket_event(near, SocketEvents.RECV))
    finally:
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    assert log.read_text().count("\n") == 1
    assert "descriptors" in log.read_text()
    eventually(lambda: not mounted(folder) and not processes(folder), "it has ended")


def test_the_mount_of_another_user_is_refused_in_a_sentence(theirs: Path) -> None:
    done = sim(theirs)
    assert (done.returncode, done.stderr) == (
        1,
        f"{theirs}: something is mounted here already, by another user (fuse.pykevent)\n",
    )
