# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m pykevent`` as a person types it."""

import subprocess
import sys

import pytest
from fake_device import FakeDevice

import pykevent
from pykevent import __main__ as command


def test_info_prints_every_field_with_flags_by_name(
    device: FakeDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    device.features = pykevent.Feature.SOCKET | pykevent.Feature.USER | 0x100
    assert command.main(["info", "--device", "/dev/null"]) == 0
    printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert printed == {
        "version": "1",
        "features": "SOCKET USER 0x100",
        "pinned": "none",
        "max_name_queue": "16384",
        "max_queue": "1000",
        "max_user": "5000",
        "max_inode": "128",
        "kevents": "0",
        "ready": "0",
        "user_kevents": "0",
    }


def test_a_missing_device_is_a_sentence_and_status_1() -> None:
    arguments = [sys.executable, "-m", "pykevent", "info", "--device", "/dev/there-is-none"]
    ended = subprocess.run(arguments, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("/dev/there-is-none: No such file or directory; load the module")
    assert len(ended.stderr.splitlines()) == 1


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main([])
    assert caught.value.code == 2
    assert "required: command" in capsys.readouterr().err
