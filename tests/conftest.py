# SPDX-License-Identifier: GPL-2.0-or-later
"""For all tests: in a guest, the kernel's log is read after each one.

A guest's kernel may die before pytest reports: failures are written down at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner.klog import Kmsg, complaints


def pytest_configure() -> None:
    """A job in the background is started without SIGINT, by which tests end what they started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kernel_log() -> Iterator[Kmsg | None]:
    """The running kernel's log, or None where KEVENT_CHECK_KMSG is not 1."""
    if os.environ.get("KEVENT_CHECK_KMSG") != "1":
        yield None
        return
    log = Kmsg()
    yield log
    log.close()


@pytest.fixture(autouse=True)
def kernel_is_content(kernel_log: Kmsg | None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test during which the kernel complained, or since the one before."""
    if kernel_log is None:
        yield
        return
    # Where the kernel ends here, the log's end is all there is to read.
    kernel_log.mark(request.node.nodeid)
    yield
    lines = kernel_log.lines()
    if complaints(lines):
        pytest.fail("the kernel log says:\n" + "\n".join(lines), pytrace=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    folder = os.environ.get("KEVENT_RESULTS")
    if report.failed and folder:
        with (Path(folder) / "failures.txt").open("a", encoding="utf-8") as file:
            file.write(f"=== {report.nodeid} ({report.when})\n{report.longreprtext}\n")
