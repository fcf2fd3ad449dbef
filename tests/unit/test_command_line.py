# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m pykevent`` as a person types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_device import FakeDevice

import pykevent
from pykevent import __main__ as command
from pykevent.sim import daemon
from pykevent.sim.account import Limits


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


PIPED = """
import os, sys
from pykevent import calls
from pykevent.__main__ import main
from fake_device import FakeDevice

calls.ioctl = FakeDevice().ioctl
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
sys.exit(main(["info", "--device", "/dev/null"]))
"""


def test_a_reader_that_has_enough_is_no_error_of_the_device() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", PIPED], capture_output=True, text=True, env=environment, timeout=20
    )
    assert ended.stderr == ""
    assert ended.returncode == 141  # as a shell tells of who was ended by SIGPIPE


@pytest.mark.parametrize(
    ("option", "most"),
    [
        ("--max-queue-kevents", 2**64 - 1),
        ("--max-user-kevents", 2**64 - 1),
        ("--max-inode-events", 2**32 - 1),
        ("--max-user-inode-events", 2**64 - 1),
        ("--max-inode-watches", 2**64 - 1),
    ],
)
def test_a_limit_is_what_info_can_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, most: int
) -> None:
    served: list[Limits] = []

    def serves(run: daemon.Options) -> int:
        served.append(run.limits)
        return 0

    monkeypatch.setattr(daemon, "foreground", serves)
    for wrong in ("-5", str(most + 1), "many", "1.5"):
        with pytest.raises(SystemExit) as caught:
            command.main(["sim", f"{option}={wrong}", "/mount"])
        assert caught.value.code == 2
        assert f"argument {option}: a number from 0 to 2**" in capsys.readouterr().err
    for good in ("0", "1", str(most)):
        assert command.main(["sim", option, good, "/mount"]) == 0
    name = option.removeprefix("--").replace("-", "_")
    default = getattr(Limits(), name)
    assert default > 0
    assert [getattr(limits, name) for limits in served] == [default, 1, most]


def test_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["sim", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "The module's parameters; 0 is the default of each." in printed
    assert printed.count("(by default") == 5
    assert "--at-home" not in printed


def test_a_mount_point_is_meant_from_where_the_command_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    options = daemon.Options("mount", log="log")
    monkeypatch.chdir("/")
    assert options.device == f"{tmp_path}/mount/kevent"
    assert options.log == f"{tmp_path}/log"
