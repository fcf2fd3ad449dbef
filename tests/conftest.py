# SPDX-License-Identifier: GPL-2.0-or-later
"""For all tests: in a guest, the kernel's log is read after each one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from runner.klog import Kmsg, complaints


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
