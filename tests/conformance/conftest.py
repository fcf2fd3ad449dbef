# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the conformance suite.  KEVENT_DEVICE names the device, /dev/kevent by default."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import pykevent
from pykevent import Queue

from .inodes import Opened
from .sockets import make_pair
from .support import tcp_pair

FOLDER = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Make the suite's marker known."""
    config.addinivalue_line(
        "markers", "needs(*features): skip where INFO lacks one of these names of a Feature"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test of this folder may hang the run: 60 s each, unless it says otherwise."""
    for item in items:
        # Others, which have limits of their own, may be in the same run.
        if not item.path.is_relative_to(FOLDER):
            continue
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture(scope="session")
def info() -> pykevent.Info:
    """What an empty queue's INFO answered when the run began."""
    with pykevent.open() as opened:
        return opened.info()


@pytest.fixture(autouse=True)
def needed(request: pytest.FixtureRequest, info: pykevent.Info) -> None:
    """Skip a test whose marker "needs" names a feature that INFO has not."""
    for marker in request.node.iter_markers("needs"):
        for name in marker.args:
            if not info.features & pykevent.Feature[name]:
                pytest.skip(f"INFO has no {name}")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opens, last first."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def new_queue(stack: ExitStack) -> Callable[[], Queue]:
    """Opens as many queues as the test wants."""
    return lambda: stack.enter_context(pykevent.open())


@pytest.fixture
def queue(new_queue: Callable[[], Queue]) -> Queue:
    """The queue under test."""
    return new_queue()


@pytest.fixture
def directory(tmp_path: Path, stack: ExitStack) -> Opened:
    """An empty directory, held open."""
    (tmp_path / "watched").mkdir()
    return stack.enter_context(Opened(tmp_path / "watched"))


@pytest.fixture
def public_path(stack: ExitStack) -> Path:
    """An empty directory that every user may enter, as pytest's own are not."""
    path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path.chmod(0o755)
    return path


@pytest.fixture
def pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two connected UNIX stream sockets: what one sends the other has at once."""
    near, far = socket.socketpair()
    return stack.enter_context(near), stack.enter_context(far)


@pytest.fixture
def tcp(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets on the loopback interface."""
    near, far = tcp_pair()
    return stack.enter_context(near), stack.enter_context(far)


@pytest.fixture
def ends(request: pytest.FixtureRequest, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets of the kind that is asked for."""
    near, far = make_pair(request.param)
    return stack.enter_context(near), stack.enter_context(far)


@pytest.fixture
def pipe(stack: ExitStack) -> tuple[int, int]:
    """A pipe: the end to read, the end to write.  Either may be closed by the test."""
    ends = os.pipe()
    for end in ends:
        stack.callback(close_if_open, end, os.fstat(end))
    return ends


def close_if_open(fd: int, status: os.stat_result) -> None:
    """Close @fd if it still is the file that had this @status."""
    try:
        if os.path.samestat(os.fstat(fd), status):
            os.close(fd)
    except OSError:
        return
