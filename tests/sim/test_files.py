# SPDX-License-Identifier: GPL-2.0-or-later
"""The close of regular files watched by descriptor, which no epoll and no lock tells of."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import pykevent
from pykevent import EventType, Flags, InodeEvents, Queue
from tests.conformance.support import child, cookies, now, one, refused

MODIFY = InodeEvents.MODIFY


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file open for writing, whose number a test may close."""
    path = tmp_path / "file"
    path.touch()
    number = os.open(path, os.O_RDWR)
    yield number
    try:
        os.close(number)
    except OSError:
        return


def test_its_close_is_reported_though_others_have_the_file_open(queue: Queue, fd: int) -> None:
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    try:
        queue.add(pykevent.inode_event(fd, MODIFY, Flags.NOTIFY_BROKEN, cookie=3))
        os.close(fd)
        event = one(queue)
        assert (event.cookie, event.broken, event.last) == (3, True, True)
    finally:
        os.close(other)


def test_the_close_of_another_is_not_its_own(queue: Queue, fd: int) -> None:
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    queue.add(pykevent.inode_event(fd, MODIFY, Flags.NOTIFY_BROKEN))
    os.close(other)
    assert now(queue) == []
    os.write(fd, b"x")
    assert one(queue).events == MODIFY


def test_opened_again_under_its_number_it_is_another(queue: Queue, fd: int, tmp_path: Path) -> None:
    queue.add(pykevent.inode_event(fd, MODIFY, Flags.NOTIFY_BROKEN, cookie=1))
    os.close(fd)
    assert os.open(tmp_path / "file", os.O_RDWR) == fd
    with refused(errno.ENOENT):
        queue.remove(EventType.INODE, fd)
    queue.add(pykevent.inode_event(fd, MODIFY, cookie=2))
    os.write(fd, b"x")
    assert [(event.cookie, event.broken) for event in now(queue)] == [(1, True), (2, False)]


def test_a_duplicate_keeps_it(queue: Queue, fd: int) -> None:
    twin = os.dup(fd)
    queue.add(pykevent.inode_event(fd, MODIFY, cookie=4))
    os.close(fd)
    os.write(twin, b"x")
    assert cookies(now(queue)) == [4]
    os.close(twin)
    assert queue.info().kevents == 0


def test_a_forked_process_keeps_it(queue: Queue, fd: int, stack: ExitStack) -> None:
    near, far = socket.socketpair()
    stack.enter_context(near)
    stack.enter_context(far)

    def writes() -> None:
        near.close()
        far.recv(1)
        os.write(fd, b"x")

    queue.add(pykevent.inode_event(fd, MODIFY, Flags.NOTIFY_BROKEN, cookie=5))
    with child(writes) as process:
        far.close()
        os.close(fd)
        assert now(queue) == []
        near.send(b"x")
        process.finish()
    assert [(event.cookie, event.broken) for event in now(queue)] == [(5, False), (5, True)]
