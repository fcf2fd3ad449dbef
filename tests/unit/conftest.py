# SPDX-License-Identifier: GPL-2.0-or-later
"""Unit tests: pykevent's own code, on any machine, with no device."""

from collections.abc import Iterator

import pytest
from fake_device import FakeDevice

import pykevent
from pykevent import calls


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """A device within the process, in place of every ioctl."""
    fake = FakeDevice()
    monkeypatch.setattr(calls, "ioctl", fake.ioctl)
    return fake


@pytest.fixture
def queue(device: FakeDevice) -> Iterator[pykevent.Queue]:
    """A queue of that device; the calls of opening it are forgotten."""
    with pykevent.open("/dev/null") as queue:
        device.calls.clear()
        yield queue
