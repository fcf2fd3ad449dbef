# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that lacks something says what, and what to do about it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runner.common import TREE
from runner.simulator import Simulator, eventually

from pykevent import Queue, autostart
from pykevent.sim import client, daemon, mount, syscalls
from pykevent.sim.daemon import Options

WITHOUT = """
import sys
sys.modules["fuse"] = None
from pykevent.__main__ import main
sys.exit(main(["sim", sys.argv[1]]))
"""


def refuses(error: int) -> Callable[..., int]:
    """A system call that fails."""

    def call(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    return call


def test_nothing_is_missing_here() -> None:
    assert mount.missing() == []


def test_without_fusepy_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "mount")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert done.stderr == "fusepy is not installed: pip install fusepy\n"
    assert not (tmp_path / "mount").exists()


def test_without_libfuse_the_command_says_how_to_get_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pykevent", "sim", str(tmp_path / "mount")]
    environment = {**os.environ, "FUSE_LIBRARY_PATH": "/there/is/none.so"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("libfuse 2 is not installed (")
    assert done.stderr.endswith("): apt-get install libfuse2\n")


def test_without_fusermount_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert mount.missing() == ["fusermount is not installed: apt-get install fuse3"]


def test_fusermount3_does_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "fusermount3"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mount.missing() == []
    # libfuse 2 looks for the other name along PATH, while it mounts.
    with mount.find_fusermount():
        found = shutil.which("fusermount")
        assert found is not None
        assert os.path.realpath(found) == str(program)
    assert not os.path.exists(found)


HIDDEN = """
mount --bind "$0" "$1" && shift
PATH=$1 exec "$2" -c 'import os, pykevent
with pykevent.open() as queue:
    print(queue.info().kevents, os.path.ismount(os.environ["PYKEVENT_SIMULATOR"]))
'
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_a_simulator_is_mounted_by_fusermount3_alone(place: Path) -> None:
    real = shutil.which("fusermount")
    assert real is not None
    (place / "bin").mkdir()
    shutil.copy2(real, place / "bin" / "fusermount3")
    (place / "none").touch()  # what cannot be executed is not found
    hidden = ["unshare", "-m", "sh", "-c", HIDDEN, f"{place}/none", real, f"{place}/bin"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("KEVENT_DEVICE", "PYKEVENT_SIMULATOR")
    } | {"XDG_RUNTIME_DIR": str(place)}
    done = subprocess.run(
        [*hidden, sys.executable],
        capture_output=True,
        text=True,
        cwd=TREE,
        env=environment,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "0 True\n"), done.stderr
    eventually(lambda: not list(place.glob("pykevent-*")), "it has ended and left nothing")


def test_without_the_device_it_says_what_a_container_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mount, "FUSE_DEVICE", str(tmp_path / "fuse"))
    (sentence,) = mount.missing()
    assert sentence.startswith(
        f"there is no {tmp_path}/fuse: modprobe fuse, or start the container"
    )


def test_a_device_that_cannot_be_opened_is_told_from_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mount, "FUSE_DEVICE", str(tmp_path))  # a directory: EISDIR
    (sentence,) = mount.missing()
    assert "cannot be opened (Is a directory)" in sentence


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_a_seccomp_profile_that_forbids_pidfd_getfd_is_named(
    monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    monkeypatch.setattr(syscalls, "pidfd_getfd", refuses(error))
    (sentence,) = mount.missing()
    assert os.strerror(error) in sentence
    assert "pidfd_getfd and kcmp" in sentence


def test_everything_that_is_missing_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(mount, "FUSE_DEVICE", str(tmp_path / "fuse"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert daemon.foreground(Options(str(tmp_path / "mount"))) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_yama_is_named_where_it_is_what_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = OSError(errno.EPERM, os.strerror(errno.EPERM))
    monkeypatch.setattr(client, "YAMA", str(tmp_path / "scope"))
    assert "seccomp" in client.refusal(refused)
    (tmp_path / "scope").write_text("1\n")
    assert "kernel.yama.ptrace_scope is 1" in client.refusal(refused)


def test_a_queue_by_descriptor_lets_its_simulator_look_where_yama_asks(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, queue: Queue, tmp_path: Path
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(autostart, "let_look", seen.append)
    monkeypatch.setattr(autostart, "_YAMA", str(tmp_path / "scope"))
    for scope, asked in ((None, []), ("0", []), ("1", [str(simulator.device)]), ("2", [])):
        if scope is not None:
            (tmp_path / "scope").write_text(f"{scope}\n")
        seen.clear()
        Queue.fromfd(os.dup(queue.fileno())).close()
        Queue.fromfd(os.open("/dev/null", os.O_RDWR)).close()
        assert seen == asked


def test_letting_others_in_takes_root_or_a_line_in_fuse_conf(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    configuration = tmp_path / "fuse.conf"
    configuration.write_text("#user_allow_other\n")
    monkeypatch.setattr(mount, "FUSE_CONFIGURATION", str(configuration))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert daemon.foreground(Options(str(tmp_path / "mount"), allow_other=True)) == 1
    assert capsys.readouterr().err == (
        f"--allow-other is root's alone unless {configuration} has a line user_allow_other\n"
    )
    configuration.write_text("user_allow_other\n")
    mount.check_allow_other()
