# SPDX-License-Identifier: GPL-2.0-or-later
"""What every file of the suite needs: waiting for conditions, threads, forked processes.

Nothing here sleeps in place of a condition.  What must happen is waited for, at most DEADLINE
seconds (guests may be emulated and slow); what must not happen is looked for after something
that is known to come later.
"""

from __future__ import annotations

import os
import platform
import select
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import pytest

from pykevent import Event, Queue

DEADLINE = 20.0
"""Seconds after which something that should have happened is held not to happen."""

MAX = 510
"""Records in the largest WAIT."""

# Where a thread may sleep that waits for a queue; the numbers are those of the machine's ABI.
_SYSCALLS = {
    "x86_64": {"read": (0,), "readv": (19,), "ioctl": (16,), "poll": (7, 271, 23, 270, 232, 281)},
    "aarch64": {"read": (63,), "readv": (65,), "ioctl": (29,), "poll": (73, 72, 22)},
}.get(platform.machine())

T = TypeVar("T")


def eventually(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Return as soon as @condition holds; fail, saying @what, after so many @seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.002)


def now(queue: Queue, maximum: int = MAX) -> list[Event]:
    """What one WAIT that does not wait delivers."""
    return queue.wait(0, max=maximum)


def soon(queue: Queue, count: int = 1) -> list[Event]:
    """What one WAIT delivers that waits for @count events."""
    events = queue.wait(DEADLINE, min=count, max=MAX)
    assert len(events) >= count, f"{len(events)} of {count} events in {DEADLINE:g} s: {events}"
    return events


def one(queue: Queue) -> Event:
    """The only event there is, waited for."""
    events = soon(queue)
    assert len(events) == 1, events
    return events[0]


def drain(queue: Queue) -> list[Event]:
    """Everything that is ready now, of sources whose events are consumed by their delivery."""
    events: list[Event] = []
    while batch := now(queue):
        events += batch
    return events


def cookies(events: list[Event]) -> list[int]:
    """The cookies of @events in their order."""
    return [event.cookie for event in events]


@contextmanager
def refused(*errnos: int) -> Iterator[None]:
    """The block must raise OSError with one of @errnos."""
    with pytest.raises(OSError) as caught:
        yield
    names = [os.strerror(number) for number in errnos]
    assert caught.value.errno in errnos, f"{caught.value!r}, not {' or '.join(names)}"


def asleep_in(call: str, pid: int, tid: int) -> bool:
    """Whether thread @tid of process @pid sleeps in the system call "ioctl", "read" or "poll"."""
    task = Path(f"/proc/{pid}/task/{tid}")
    try:
        line = (task / "syscall").read_text()
    except (PermissionError, FileNotFoundError):
        # No such file in this kernel: sleeping is all that can be seen.
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "S"
    number = line.split()[0]
    if not number.isdigit():
        return False
    return _SYSCALLS is None or int(number) in _SYSCALLS[call]


def sleeps(pid: int, tid: int) -> int:
    """How many times thread @tid of process @pid went to sleep so far."""
    for line in Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise AssertionError("the kernel does not count context switches")


class InThread(Generic[T]):
    """A call under way on a thread of its own."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._values.append(self._function())
        except BaseException as error:  # handed to whoever asks for it
            self._error = error

    @property
    def tid(self) -> int:
        """The kernel's number of the thread."""
        eventually(lambda: self._thread.native_id is not None, "the thread runs")
        assert self._thread.native_id is not None
        return self._thread.native_id

    @property
    def ident(self) -> int:
        """The number that signal.pthread_kill() takes."""
        assert self._thread.ident is not None
        return self._thread.ident

    @property
    def running(self) -> bool:
        """Whether the call has not returned yet."""
        return self._thread.is_alive()

    def asleep(self, call: str = "ioctl") -> bool:
        """Whether the thread sleeps in that system call."""
        return self.running and asleep_in(call, os.getpid(), self.tid)

    def until_asleep(self, call: str = "ioctl") -> InThread[T]:
        """Return once the thread sleeps in that system call."""
        eventually(lambda: not self.running or self.asleep(call), f"a thread sleeps in {call}")
        assert self.running, f"returned instead of sleeping: {self._values or self._error}"
        return self

    def result(self) -> T:
        """What the call returned; raises what it raised."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), f"the call did not return in {DEADLINE:g} s"
        if self._error is not None:
            raise self._error
        return self._values[0]


def waiting(queue: Queue, *, minimum: int = 1, maximum: int = MAX) -> InThread[list[Event]]:
    """A thread that sleeps in WAIT, without end, and returns the events."""
    return InThread(lambda: queue.wait(None, min=minimum, max=maximum)).until_asleep()


class Child:
    """A forked process that runs a function; finish() raises where the function did."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._reader, writer = os.pipe()
        with warnings.catch_warnings():
            # Where other threads run, Python 3.12 warns of locks that they may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._reader)
                try:
                    function()
                except BaseException:
                    os.write(writer, traceback.format_exc().encode()[-4000:])
                    os._exit(1)
                os._exit(0)
            finally:
                os._exit(2)
        os.close(writer)
        self._status: int | None = None

    def until_asleep(self, call: str = "ioctl") -> Child:
        """Return once the process's only thread sleeps in that system call."""
        eventually(lambda: asleep_in(call, self.pid, self.pid), f"the child sleeps in {call}")
        return self

    @property
    def exited(self) -> bool:
        """Whether the process has ended, and is reaped."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def finish(self) -> None:
        """Wait for the end; fail with the child's traceback if it had one."""
        try:
            eventually(lambda: self.exited, "the child ends")
            report = os.read(self._reader, 4096).decode()
        finally:
            self.kill()
        assert self._status == 0, f"in the child: {report or self._status}"

    def kill(self) -> None:
        """End the process with SIGKILL, if it has not ended, and reap it."""
        if not self.exited:
            os.kill(self.pid, signal.SIGKILL)
            eventually(lambda: self.exited, "the killed child is gone")
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1


@contextmanager
def child(function: Callable[[], None]) -> Iterator[Child]:
    """A Child that is killed at the end of the block if it has not ended by then."""
    process = Child(function)
    try:
        yield process
    finally:
        process.kill()


def as_nobody(function: Callable[[], None]) -> None:
    """Run @function in a process without privileges (in this one's, if it has none)."""

    def unprivileged() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        function()

    with child(unprivileged) as process:
        process.finish()


def poll_bits(fd: int | socket.socket, mask: int) -> int:
    """What poll(2) says of @fd at once."""
    poller = select.poll()
    poller.register(fd, mask)
    return sum(bits for _, bits in poller.poll(0))


def until_polled(fd: int | socket.socket, mask: int) -> None:
    """Return once poll(2) reports all of @mask: what the network was to do is done."""
    eventually(lambda: poll_bits(fd, mask) & mask == mask, f"poll says {mask:#x}")


def tcp_pair(family: socket.AddressFamily = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets: the client's, and the one that accept() returned."""
    try:
        listener = socket.create_server(
            ("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family
        )
    except OSError as error:
        pytest.skip(f"no loopback for {family.name}: {error}")
    with listener:
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server
