# SPDX-License-Identifier: GPL-2.0-or-later
"""A simulator for each test that wants one, of which nothing may be left."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from runner.simulator import Simulator, eventually, mounted

import pykevent
from pykevent import Queue
from pykevent.sim import daemon, server
from tests.conformance.support import child

FOLDER = Path(__file__).parent

assert server.LIBFUSE  # what a child without privileges needs is loaded


def pytest_configure(config: pytest.Config) -> None:
    """What is borrowed from the conformance tests has their marker; a simulator has everything."""
    config.addinivalue_line("markers", "needs(*features): see tests/conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test of this folder may hang the run."""
    for item in items:
        if item.path.is_relative_to(FOLDER) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opens, last first."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="kevent-sim-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def simulator(place: Path) -> Iterator[Simulator]:
    """One that serves; when the test is over it is ended, and nothing may be left."""
    with Simulator(place / "mount") as served:
        yield served


@pytest.fixture
def theirs(place: Path) -> Iterator[Path]:
    """Where the simulator of another user is mounted."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    place.chmod(0o777)
    folder = place / "theirs"
    reader, writer = os.pipe()

    class Tells(daemon.ReadyCall):
        def __call__(self) -> None:
            os.write(writer, b"x")

    def serves() -> None:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        daemon.Daemon(daemon.Options(str(folder))).run(Tells())

    try:
        with child(serves) as process:
            os.close(writer)
            assert os.read(reader, 1) == b"x"
            yield folder
            # Where it is killed it depends on the kernel whether fusermount may unmount it.
            os.kill(process.pid, signal.SIGTERM)
            process.finish()
    finally:
        os.close(reader)
        eventually(lambda: not mounted(folder), "the mount is gone")


@pytest.fixture
def new_queue(simulator: Simulator, stack: ExitStack) -> Callable[[], Queue]:
    """Opens as many queues as the test wants."""
    return lambda: stack.enter_context(pykevent.open(simulator.device))


@pytest.fixture
def queue(new_queue: Callable[[], Queue]) -> Queue:
    """A queue of the simulator."""
    return new_queue()


@pytest.fixture
def simulator_cpu(simulator: Simulator) -> Callable[[], float]:
    """Tells how many seconds of processor the simulator has used."""

    def used() -> float:
        fields = Path(f"/proc/{simulator.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return used
