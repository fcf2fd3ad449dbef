# SPDX-License-Identifier: GPL-2.0-or-later
"""pykevent.open() where there is no device: a simulator for the process tree, by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from runner.common import TREE
from runner.simulator import eventually, mounted, processes

import pykevent
from pykevent import autostart

pytestmark = pytest.mark.skipif(
    os.path.exists(pykevent.DEFAULT_DEVICE), reason="there is a device on this machine"
)

STARTED = re.compile(r"there is no /dev/kevent: started the simulator, at (/\S+)/kevent, for")

TWICE = """
import logging, os, subprocess, sys, pykevent
logging.basicConfig(format="%(name)s %(message)s")
for _ in range(2):
    with pykevent.open() as queue:
        queue.add(pykevent.user_event(1, cookie=7))
        queue.post(1)
        print([event.cookie for event in queue.wait(10)], flush=True)
        again = "import pykevent; print(pykevent.open().info().user_kevents)"
        subprocess.run([sys.executable, "-c", again], check=True)
"""


def run(program: str, place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an environment without a device."""
    environment = {name: value for name, value in os.environ.items() if name != "KEVENT_DEVICE"}
    environment.pop(autostart.VARIABLE, None)
    environment |= {"XDG_RUNTIME_DIR": str(place), **variables}
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=TREE,
        env=environment,
        timeout=60,
        check=False,
    )


def gone(folder: Path) -> None:
    """Nothing of the simulator at *folder* may be left, soon."""
    eventually(lambda: not processes(folder), "the simulator has ended")
    assert not mounted(folder)
    assert not folder.exists()


def test_open_starts_one_for_the_process_tree_and_says_so_once(place: Path) -> None:
    done = run(TWICE, place)
    assert done.returncode == 0, done.stderr
    # The children find one kevent, their parent's: it is the same simulator.
    assert done.stdout == "[7]\n1\n" * 2
    (said,) = done.stderr.splitlines()
    match = re.match("pykevent " + STARTED.pattern, said)
    assert match is not None, said
    gone(Path(match[1]))
    assert list(place.iterdir()) == []


def test_the_readme_program_runs_as_it_stands_without_a_device(place: Path) -> None:
    text = (TREE / "README.md").read_text()
    program = text.partition("## From Python")[2].partition("```python\n")[2].partition("```")[0]
    assert "pykevent.open()" in program
    done = run(program.replace("8000", "0"), place)
    assert done.returncode == 0, done.stderr
    (folder,) = STARTED.findall(done.stderr)
    gone(Path(folder))
    # The second is the timer, unless somebody else is busy in /tmp.
    first, _second = done.stdout.splitlines()[:2]
    assert "type=<EventType.USER: 5>" in first
    assert "data=42" in first


def test_one_whose_only_user_is_killed_ends_too(place: Path) -> None:
    program = (
        "import os, signal, pykevent; queue = pykevent.open(); "
        "print(os.environ['PYKEVENT_SIMULATOR'], flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run(program, place)
    assert done.returncode == -9
    gone(Path(done.stdout.strip()))


def test_one_that_was_killed_is_replaced(place: Path) -> None:
    program = """
import os, signal, pykevent
queue = pykevent.open()
with open(os.environ["PYKEVENT_SIMULATOR"] + "/pid") as file:
    pid = int(file.read())
os.kill(pid, signal.SIGKILL)
try:
    while True:
        queue.info()
except OSError as error:
    print(error.strerror)
with pykevent.open() as queue:
    print(queue.info().kevents)
"""
    done = run(program, place)
    assert done.returncode == 0, done.stderr
    died, kevents = done.stdout.splitlines()
    assert died.endswith("the simulator behind this queue has died: open another queue")
    assert kevents == "0"
    assert len(STARTED.findall(done.stderr)) == 2
    for folder in STARTED.findall(done.stderr):
        gone(Path(folder))


def test_off_starts_none(place: Path) -> None:
    done = run("import pykevent; pykevent.open()", place, PYKEVENT_SIMULATOR="off")
    assert done.returncode == 1
    assert "No such file or directory; load the module" in done.stderr
    assert list(place.iterdir()) == []


def test_a_device_that_is_named_and_missing_starts_none(place: Path) -> None:
    done = run("import pykevent; pykevent.open()", place, KEVENT_DEVICE="/dev/there-is-none")
    assert done.returncode == 1
    assert "No such file or directory; load the module" in done.stderr
    assert list(place.iterdir()) == []


def test_where_none_can_be_started_the_error_says_what_is_missing(place: Path) -> None:
    done = run("import pykevent; pykevent.open()", place, PATH="/nowhere")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("FileNotFoundError: [Errno 2] No such file or directory; load the")
    assert "the simulator cannot be started: fusermount is not installed: apt-get" in last
    assert list(place.iterdir()) == []
