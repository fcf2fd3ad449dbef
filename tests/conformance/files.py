# SPDX-License-Identifier: GPL-2.0-or-later
"""One of each kind of file that INFO tells apart, and how its close shows to the world."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pykevent
from pykevent import (
    EventType,
    Feature,
    FileKind,
    Flags,
    InodeEvents,
    PollEvents,
    Request,
    SocketEvents,
)

from .support import poll_bits, tcp_pair


@dataclass
class Watched:
    """An open file that a test watches, and closes by its number."""

    type: EventType
    fd: int
    events: int
    act: Callable[[int], object]
    """Makes the events hold; is given a descriptor of the file."""
    released: Callable[[], bool]
    """Whether the open file is gone, whoever had it open."""

    def activity(self, fd: int = -1) -> None:
        """Make the events hold; @fd is a duplicate, where the file's own number is closed."""
        self.act(self.fd if fd < 0 else fd)

    def request(self, flags: Flags | int = 0, cookie: int = 0, fd: int = -1) -> Request:
        """Interest in it, under its own number or that of a duplicate."""
        return Request(self.type, self.fd if fd < 0 else fd, self.events, flags, cookie)


def _observe(fd: int, stack: ExitStack) -> Callable[[], bool]:
    """Whether the file @fd is gone, as an epoll instance knows, which does not hold it."""
    observer = stack.enter_context(select.epoll())
    observer.register(fd, 0)
    fdinfo = Path(f"/proc/self/fdinfo/{observer.fileno()}")
    return lambda: "tfd:" not in fdinfo.read_text()


def _tcp(stack: ExitStack, directory: Path) -> Watched:
    near, far = tcp_pair()
    stack.enter_context(far)
    return Watched(
        EventType.SOCKET,
        near.detach(),
        SocketEvents.RECV,
        lambda _: far.send(b"x"),
        lambda: bool(poll_bits(far, select.POLLRDHUP | select.POLLERR)),
    )


def _unix(stack: ExitStack, directory: Path) -> Watched:
    near, far = socket.socketpair()
    stack.enter_context(far)
    return Watched(
        EventType.SOCKET,
        near.detach(),
        SocketEvents.RECV,
        lambda _: far.send(b"x"),
        lambda: bool(poll_bits(far, select.POLLHUP)),
    )


def _polled_socket(stack: ExitStack, directory: Path) -> Watched:
    watched = _unix(stack, directory)
    watched.type, watched.events = EventType.POLL, PollEvents.IN
    return watched


def _reader(stack: ExitStack, directory: Path) -> Watched:
    near, far = os.pipe()
    stack.callback(os.close, far)
    return Watched(
        EventType.POLL,
        near,
        PollEvents.IN,
        lambda _: os.write(far, b"x"),
        lambda: bool(poll_bits(far, 0) & select.POLLERR),
    )


def _writer(stack: ExitStack, directory: Path) -> Watched:
    far, near = os.pipe()
    stack.callback(os.close, far)
    os.set_blocking(near, False)
    while poll_bits(near, select.POLLOUT):
        os.write(near, bytes(4096))
    return Watched(
        EventType.POLL,
        near,
        PollEvents.OUT,
        lambda _: os.read(far, 8192),
        lambda: bool(poll_bits(far, 0) & select.POLLHUP),
    )


def _eventfd(stack: ExitStack, directory: Path) -> Watched:
    near = os.eventfd(0)
    return Watched(
        EventType.POLL,
        near,
        PollEvents.IN,
        lambda fd: os.eventfd_write(fd, 1),
        _observe(near, stack),
    )


def _epoll(stack: ExitStack, directory: Path) -> Watched:
    inner = select.epoll()
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    inner.register(reader, select.EPOLLIN)
    fd = os.dup(inner.fileno())
    inner.close()
    return Watched(
        EventType.POLL,
        fd,
        PollEvents.IN,
        lambda _: os.write(writer, b"x"),
        _observe(fd, stack),
    )


def _pty_master(stack: ExitStack, directory: Path) -> Watched:
    near, far = pty.openpty()
    stack.callback(os.close, far)
    return Watched(
        EventType.POLL,
        near,
        PollEvents.IN,
        lambda _: os.write(far, b"x"),
        lambda: bool(poll_bits(far, 0) & select.POLLHUP),
    )


def _pty_slave(stack: ExitStack, directory: Path) -> Watched:
    far, near = pty.openpty()
    stack.callback(os.close, far)
    return Watched(
        EventType.POLL,
        near,
        PollEvents.IN,
        lambda _: os.write(far, b"x\n"),
        lambda: bool(poll_bits(far, 0) & select.POLLHUP),
    )


def _fifo(stack: ExitStack, directory: Path) -> Watched:
    path = directory / f"fifo-{len(list(directory.iterdir()))}"
    os.mkfifo(path)
    near = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    far = os.open(path, os.O_WRONLY)
    stack.callback(os.close, far)
    return Watched(
        EventType.POLL,
        near,
        PollEvents.IN,
        lambda _: os.write(far, b"x"),
        lambda: bool(poll_bits(far, 0) & select.POLLERR),
    )


def _kevent(stack: ExitStack, directory: Path) -> Watched:
    inner = pykevent.open()
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    inner.add(pykevent.poll_event(reader, PollEvents.IN))
    fd = os.dup(inner.fileno())
    inner.close()
    return Watched(
        EventType.POLL,
        fd,
        PollEvents.IN,
        lambda _: os.write(writer, b"x"),
        _observe(fd, stack),
    )


def _device(stack: ExitStack, directory: Path) -> Watched:
    near = os.open("/dev/random", os.O_RDONLY)
    return Watched(
        EventType.POLL,
        near,
        PollEvents.IN,
        lambda _: None,
        _observe(near, stack),
    )


def _directory(stack: ExitStack, directory: Path) -> Watched:
    path = directory / f"directory-{len(list(directory.iterdir()))}"
    path.mkdir()
    near, other = (os.open(path, os.O_RDONLY) for _ in range(2))
    stack.callback(os.close, other)
    fcntl.flock(near, fcntl.LOCK_EX)

    def released() -> bool:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(other, fcntl.LOCK_UN)
        return True

    return Watched(
        EventType.INODE,
        near,
        InodeEvents.CREATE,
        lambda _: os.mkdir(path / f"{len(list(path.iterdir()))}"),
        released,
    )


@dataclass(frozen=True)
class Kind:
    """A kind of file, and how one is made."""

    file: FileKind
    feature: Feature
    make: Callable[[ExitStack, Path], Watched]


_POLL, _SOCKET, _INODE = Feature.POLL, Feature.SOCKET, Feature.INODE

KINDS = {
    "TCP socket": Kind(FileKind.SOCKET, _SOCKET, _tcp),
    "UNIX socket": Kind(FileKind.SOCKET, _SOCKET, _unix),
    "polled socket": Kind(FileKind.SOCKET, _POLL, _polled_socket),
    "pipe reader": Kind(FileKind.PIPE, _POLL, _reader),
    "pipe writer": Kind(FileKind.PIPE, _POLL, _writer),
    "eventfd": Kind(FileKind.ANON, _POLL, _eventfd),
    "epoll": Kind(FileKind.ANON, _POLL, _epoll),
    "pty master": Kind(FileKind.PTY_MASTER, _POLL, _pty_master),
    "pty slave": Kind(FileKind.PTY_SLAVE, _POLL, _pty_slave),
    "FIFO": Kind(FileKind.FIFO, _POLL, _fifo),
    "kevent": Kind(FileKind.KEVENT, _POLL, _kevent),
    "device": Kind(FileKind.OTHER, _POLL, _device),
    "directory": Kind(FileKind.INODE, _INODE, _directory),
}
