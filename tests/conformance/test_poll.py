# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_POLL: any file that poll(2) knows, in the bits of <poll.h>."""

from __future__ import annotations

import ctypes
import errno
import os
import pty
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import pykevent
from pykevent import EventType, Flags, PollEvents, Queue

from .support import now, one, poll_bits, refused, until_polled

pytestmark = pytest.mark.needs("POLL")

IN, OUT, PRI = PollEvents.IN, PollEvents.OUT, PollEvents.PRI
ERR, HUP, RDHUP = PollEvents.ERR, PollEvents.HUP, PollEvents.RDHUP
ANY = IN | OUT | PRI | RDHUP | PollEvents.RDNORM | PollEvents.WRNORM

_libc = ctypes.CDLL(None, use_errno=True)


def opened(stack: ExitStack, fd: int) -> int:
    """@fd, which @stack will close."""
    assert fd >= 0, os.strerror(ctypes.get_errno())
    stack.callback(os.close, fd)
    return fd


def timerfd(stack: ExitStack, ns: int) -> int:
    """A timerfd that expires once after so many @ns."""
    fd = opened(stack, _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC))
    times = struct.pack("=qqqq", 0, 0, ns // 10**9, ns % 10**9)
    assert _libc.timerfd_settime(fd, 0, times, None) == 0
    return fd


def signalfd(stack: ExitStack, number: int) -> int:
    """A signalfd for that signal."""
    mask = (ctypes.c_ulong * 16)()
    mask[0] = 1 << (number - 1)
    return opened(stack, _libc.signalfd(-1, mask, os.O_CLOEXEC))


def inotify(stack: ExitStack, directory: Path) -> int:
    """An inotify descriptor that sees files made in @directory."""
    fd = opened(stack, _libc.inotify_init1(os.O_CLOEXEC))
    assert _libc.inotify_add_watch(fd, os.fsencode(directory), 0x100) > 0
    return fd


def check(queue: Queue, fd: int, expected: int) -> None:
    """The one event must say what is @expected, and what poll(2) says."""
    event = one(queue)
    assert (event.type, event.ident) == (EventType.POLL, fd)
    assert event.events == expected
    assert event.events == poll_bits(fd, ANY)


def test_the_reading_end_of_a_pipe(queue: Queue, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    queue.add(pykevent.poll_event(reader, IN))
    assert now(queue) == []
    os.write(writer, b"x")
    assert one(queue).events == IN
    os.read(reader, 1)
    assert now(queue) == []
    os.close(writer)
    assert one(queue).events == HUP


def test_the_writing_end_of_a_pipe(queue: Queue, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    queue.add(pykevent.poll_event(writer, OUT))
    assert one(queue).events == OUT
    os.set_blocking(writer, False)
    while poll_bits(writer, select.POLLOUT):
        os.write(writer, bytes(4096))
    assert now(queue) == []
    os.read(reader, 65536)
    assert one(queue).events == OUT
    os.close(reader)
    assert one(queue).events == OUT | ERR


def test_every_bit_that_poll_reports_is_reported(queue: Queue, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    queue.add(pykevent.poll_event(reader, ANY))
    os.write(writer, b"x")
    check(queue, reader, IN | PollEvents.RDNORM)
    os.close(writer)
    check(queue, reader, IN | PollEvents.RDNORM | HUP)


def test_hup_and_err_are_reported_although_not_asked_for(
    queue: Queue, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    queue.add(pykevent.poll_event(writer, 0))
    assert now(queue) == []
    os.close(reader)
    assert one(queue).events == ERR


def test_an_eventfd(queue: Queue, stack: ExitStack) -> None:
    fd = opened(stack, os.eventfd(0))
    queue.add(pykevent.poll_event(fd, IN | OUT))
    assert one(queue).events == OUT
    os.eventfd_write(fd, 3)
    assert one(queue).events == IN | OUT
    os.eventfd_write(fd, 2**64 - 2 - 3)
    assert one(queue).events == IN
    os.eventfd_read(fd)
    assert one(queue).events == OUT


def test_a_timerfd(queue: Queue, stack: ExitStack) -> None:
    begun = time.monotonic_ns()
    fd = timerfd(stack, 20_000_000)
    queue.add(pykevent.poll_event(fd, IN))
    assert one(queue).events == IN
    assert time.monotonic_ns() - begun >= 20_000_000
    os.read(fd, 8)
    assert now(queue) == []


def test_a_signalfd(queue: Queue, stack: ExitStack) -> None:
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, previous)
    fd = signalfd(stack, signal.SIGUSR2)
    queue.add(pykevent.poll_event(fd, IN))
    assert now(queue) == []
    signal.raise_signal(signal.SIGUSR2)
    assert one(queue).events == IN
    assert len(os.read(fd, 1024)) == 128
    assert now(queue) == []


def test_an_inotify_descriptor(queue: Queue, stack: ExitStack, tmp_path: Path) -> None:
    fd = inotify(stack, tmp_path)
    queue.add(pykevent.poll_event(fd, IN))
    assert now(queue) == []
    (tmp_path / "made").touch()
    assert one(queue).events == IN
    os.read(fd, 4096)
    assert now(queue) == []


def raw_pty(stack: ExitStack) -> tuple[int, int]:
    """A pty: master, slave; without echo and line editing."""
    master, slave = pty.openpty()
    opened(stack, master)
    opened(stack, slave)
    mode = termios.tcgetattr(slave)
    mode[1] &= ~termios.OPOST
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    return master, slave


def test_the_master_of_a_pty(queue: Queue, stack: ExitStack) -> None:
    master, slave = raw_pty(stack)
    queue.add(pykevent.poll_event(master, IN))
    assert now(queue) == []
    os.write(slave, b"x")
    assert one(queue).events == IN
    os.read(master, 16)
    assert now(queue) == []
    queue.remove(EventType.POLL, master)


def test_the_slave_of_a_pty(queue: Queue, stack: ExitStack) -> None:
    master, slave = raw_pty(stack)
    queue.add(pykevent.poll_event(slave, IN))
    assert now(queue) == []
    os.write(master, b"x")
    assert one(queue).events == IN
    os.read(slave, 16)
    assert now(queue) == []


def test_the_master_hangs_up_when_the_slave_is_closed(queue: Queue) -> None:
    master, slave = pty.openpty()
    try:
        queue.add(pykevent.poll_event(master, 0))
    finally:
        os.close(slave)
    try:
        assert one(queue).events == HUP
        queue.remove(EventType.POLL, master)
    finally:
        os.close(master)


def test_the_slave_of_a_pty_whose_master_is_gone_reports_hup(queue: Queue) -> None:
    master, slave = pty.openpty()
    os.close(master)
    try:
        queue.add(pykevent.poll_event(slave, IN))
        assert one(queue).events == poll_bits(slave, IN) == IN | ERR | HUP
    finally:
        os.close(slave)


def test_a_fifo(queue: Queue, stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = opened(stack, os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    queue.add(pykevent.poll_event(reader, IN))
    assert now(queue) == []
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, b"x")
    assert one(queue).events == IN
    os.read(reader, 16)
    assert now(queue) == []
    os.close(writer)
    assert one(queue).events == HUP
    queue.remove(EventType.POLL, reader)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_a_socket_may_be_watched_by_poll_as_well(
    queue: Queue, tcp: tuple[socket.socket, socket.socket], family: int
) -> None:
    near, far = tcp if family == socket.AF_INET else socket.socketpair()
    with near, far:
        queue.add(pykevent.poll_event(near, IN | RDHUP))
        assert now(queue) == []
        far.send(b"x")
        assert one(queue).events == IN
        far.shutdown(socket.SHUT_WR)
        until_polled(near, select.POLLRDHUP)
        assert one(queue).events == IN | RDHUP


def test_a_listening_socket_is_pollin(queue: Queue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        queue.add(pykevent.poll_event(server, IN))
        with socket.create_connection(server.getsockname()):
            assert one(queue).events == IN


@pytest.mark.needs("SOCKET")
def test_the_same_descriptor_may_be_watched_as_socket_and_by_poll(
    queue: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    queue.add(pykevent.poll_event(near, IN))
    queue.add(pykevent.socket_event(near, pykevent.SocketEvents.RECV))
    far.send(b"x")
    assert {event.type for event in now(queue)} == {EventType.POLL, EventType.SOCKET}


def test_an_epoll_descriptor(queue: Queue, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with select.epoll() as epoll:
        epoll.register(reader, select.EPOLLIN)
        queue.add(pykevent.poll_event(epoll, IN))
        assert now(queue) == []
        os.write(writer, b"x")
        assert one(queue).events == IN
        os.read(reader, 1)
        assert now(queue) == []


def test_another_queue(queue: Queue, new_queue: Callable[[], Queue], pipe: tuple[int, int]) -> None:
    inner = new_queue()
    inner.add(pykevent.poll_event(pipe[0], IN))
    queue.add(pykevent.poll_event(inner, IN))
    assert now(queue) == []
    os.write(pipe[1], b"x")
    assert one(queue).events == IN
    assert one(inner).ident == pipe[0]
    os.read(pipe[0], 1)
    assert now(queue) == []


def test_every_duplicate_of_a_descriptor_is_a_kevent_of_its_own(
    queue: Queue, pipe: tuple[int, int]
) -> None:
    twin = os.dup(pipe[0])
    try:
        queue.add(pykevent.poll_event(pipe[0], IN, Flags.EDGE))
        queue.add(pykevent.poll_event(twin, IN, Flags.EDGE))
        os.write(pipe[1], b"x")
        assert sorted(event.ident for event in now(queue)) == sorted([pipe[0], twin])
    finally:
        os.close(twin)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/", "/proc/self/status"])
def test_what_cannot_be_polled_is_eperm(queue: Queue, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        with refused(errno.EPERM):
            queue.add(pykevent.poll_event(fd, IN))
    finally:
        os.close(fd)


def test_a_regular_file_is_eperm(queue: Queue, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, refused(errno.EPERM):
        queue.add(pykevent.poll_event(file, IN))
