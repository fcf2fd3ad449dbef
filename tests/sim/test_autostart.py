# SPDX-License-Identifier: GPL-2.0-or-later
"""pykevent.open() where there is no device: a simulator for the process tree, by itself."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner.common import TREE
from runner.simulator import Simulator, eventually, mounted, processes

import pykevent
from pykevent import autostart, home

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


def without_device(place: Path) -> dict[str, str]:
    """An environment that names no device; what is started in it is below *place*."""
    environment = {name: value for name, value in os.environ.items() if name != "KEVENT_DEVICE"}
    environment.pop(autostart.VARIABLE, None)
    return environment | {"XDG_RUNTIME_DIR": str(place)}


def run(program: str, place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an environment without a device."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=TREE,
        env=without_device(place) | variables,
        timeout=60,
        check=False,
    )


def gone(folder: Path) -> None:
    """Nothing of the simulator at *folder* may be left, soon."""
    eventually(lambda: not processes(folder), "the simulator has ended")
    assert not mounted(folder)
    assert not folder.exists()
    log = folder.parent / "log"
    assert (log.read_text() if log.exists() else "") == ""
    assert not folder.parent.exists()


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


def readme_program(number: int, place: Path) -> list[str]:
    """What that program of the README prints."""
    text = (TREE / "README.md").read_text().partition("## From Python")[2].partition("\n## ")[0]
    program = text.split("```python\n")[number].partition("```")[0]
    assert "pykevent.open()" in program
    done = run(program, place)
    assert done.returncode == 0, done.stderr
    (folder,) = STARTED.findall(done.stderr)
    gone(Path(folder))
    return done.stdout.splitlines()


def test_the_readme_program_runs_as_it_stands_without_a_device(place: Path) -> None:
    posting, timer = readme_program(1, place)
    assert "type=<EventType.USER: 5>" in posting
    assert "data=42" in posting
    assert "type=<EventType.TIMER: 4>" in timer


def test_the_transfer_of_the_readme_moves_what_it_says(place: Path) -> None:
    assert readme_program(2, place) == ["5 b'hello'"]


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


@pytest.mark.parametrize("off", ["off", "OFF", "0", "no"])
def test_off_starts_none_and_the_error_says_what_forbids_it(place: Path, off: str) -> None:
    done = run("import pykevent; pykevent.open()", place, PYKEVENT_SIMULATOR=off)
    assert done.returncode == 1
    assert "No such file or directory; load the module" in done.stderr
    assert f"PYKEVENT_SIMULATOR={off} forbids a simulator" in done.stderr
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("value", ["on", "relative/folder", __file__])
def test_a_variable_that_can_name_no_simulator_is_an_error(place: Path, value: str) -> None:
    done = run("import pykevent; pykevent.open()", place, PYKEVENT_SIMULATOR=value)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("FileNotFoundError: [Errno 2] No such file or directory; the simulator")
    assert f"PYKEVENT_SIMULATOR is '{value}', which is neither off nor the absolute path" in last
    assert list(place.iterdir()) == []


def test_a_device_that_is_named_and_missing_starts_none(place: Path) -> None:
    done = run("import pykevent; pykevent.open()", place, KEVENT_DEVICE="/dev/there-is-none")
    assert done.returncode == 1
    assert "No such file or directory; load the module" in done.stderr
    assert "simulator" not in done.stderr
    assert list(place.iterdir()) == []


def test_where_none_can_be_started_the_error_says_what_is_missing(place: Path) -> None:
    done = run("import pykevent; pykevent.open()", place, PATH="/nowhere")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "FileNotFoundError: [Errno 2] No such file or directory; the simulator cannot be started: "
        "fusermount is not installed: apt-get install fuse3; load the module"
    )
    assert list(place.iterdir()) == []


def test_a_simulator_that_has_ended_and_is_named_still_is_an_error_that_says_so(
    place: Path,
) -> None:
    done = run("import pykevent; pykevent.open()", place, KEVENT_DEVICE=f"{place}/mount/kevent")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "if a simulator served it, start that again (python -m pykevent sim DIR), or" in last
    assert "unset KEVENT_DEVICE to have one started" in last


def test_a_relative_runtime_directory_is_ignored(place: Path) -> None:
    (place / "runtime").mkdir()
    (place / "tmp").mkdir()
    program = f"import os, pykevent; os.chdir({str(place)!r}); pykevent.open(); print(os.environ"
    program += "['PYKEVENT_SIMULATOR'])"
    done = run(program, place, XDG_RUNTIME_DIR="runtime", TMPDIR=str(place / "tmp"))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.parent.parent == place / "tmp"
    gone(folder)


PRINT = """
import os, pykevent
with pykevent.open() as queue:
    print(os.environ["PYKEVENT_SIMULATOR"], queue.info().kevents, flush=True)
    queue.wait(%s)
"""


@contextlib.contextmanager
def serving(place: Path, *before: str | Path) -> Iterator[Path]:
    """A simulator that another process has started and uses: where it is mounted."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", PRINT % "None"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=TREE,
        env=without_device(place),
    )
    with process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().split()[0])
        try:
            yield folder
        finally:
            process.kill()


def server_of(folder: Path) -> int:
    """The process that serves *folder*, without a word to it."""
    (line,) = [each for each in processes(folder) if "pykevent" in each and "sim" in each.split()]
    return int(line.split(":")[0])


def test_simulators_that_do_not_answer_hold_nobody_up(place: Path) -> None:
    by_hand = place / "pykevent-by-hand"
    with serving(place) as folder, Simulator(by_hand) as other:
        stopped = [server_of(folder), other.pid]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            # Longer than the kernel believes what it was told of a file.
            done = run("import time; time.sleep(1.1)" + PRINT % 0, place)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(" 0\n")
        assert mounted(folder)
        assert mounted(by_hand)
        gone(Path(done.stdout.split()[0]))
    gone(folder)


def test_what_is_not_a_simulators_folder_stays_whatever_its_name(place: Path) -> None:
    old = time.time() - 7200
    empty, named_so, full = (place / f"pykevent-{name}" for name in ("notes", "locked", "full"))
    for folder in (empty, named_so, full):
        folder.mkdir()
    (named_so / "lock").touch()
    (full / "lock").write_bytes(home._MARK)
    (full / "precious").touch()
    (place / "pykevent-file").touch()
    (place / "pykevent-link").symlink_to(full)
    before = sorted(place.rglob("*"))
    for path in before:
        os.utime(path, (old, old), follow_symlinks=False)
    done = run(PRINT % 0, place)
    assert done.returncode == 0, done.stderr
    gone(Path(done.stdout.split()[0]))
    assert sorted(place.rglob("*")) == before


def test_an_empty_folder_that_the_variable_names_stays(place: Path) -> None:
    for name in ("keepme", "mount"):
        (place / name).mkdir()
        done = run(PRINT % 0, place, PYKEVENT_SIMULATOR=str(place / name))
        assert done.returncode == 0, done.stderr
        gone(Path(done.stdout.split()[0]))
        assert (place / name).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_one_that_lives_in_another_mount_namespace_is_let_be(place: Path) -> None:
    with serving(place, "unshare", "-m") as folder:
        assert not mounted(folder)
        done = run(PRINT % 0, place)
        assert done.returncode == 0, done.stderr
        gone(Path(done.stdout.split()[0]))
        assert (folder.parent / "lock").exists()
        assert folder.exists()
        # It has not been unmounted there either, as a removed mount point is.
        namespace = Path(f"/proc/{server_of(folder)}/mounts").read_text()
        assert f" {folder} fuse.pykevent " in namespace
    gone(folder)


def test_what_a_simulator_that_was_killed_has_left_is_taken_away_by_the_next(place: Path) -> None:
    with serving(place) as folder:
        helpers = [each for each in processes(folder) if "fusermount" in each]
        for line in helpers:  # it would unmount
            os.kill(int(line.split(":")[0]), signal.SIGKILL)
        os.kill(server_of(folder), signal.SIGKILL)
    eventually(lambda: not processes(folder), "it is gone")
    assert mounted(folder)
    done = run(PRINT % 0, place)
    assert done.returncode == 0, done.stderr
    gone(folder)
    gone(Path(done.stdout.split()[0]))
    assert list(place.iterdir()) == []


def test_complaints_stay_beside_the_mount(place: Path) -> None:
    with serving(place) as folder:
        log = folder.parent / "log"
        assert log.read_bytes() == b""
        with log.open("a") as file:
            file.write("something is wrong\n")
    eventually(lambda: not processes(folder), "it has ended")
    assert not folder.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["log"]


FORKED = """
import os, signal, subprocess, sys, threading
import pykevent
from pykevent import autostart, home

starting, go_on, run = threading.Event(), threading.Event(), subprocess.run

def held_up(*words, **named):
    starting.set()
    go_on.wait()
    return run(*words, **named)

autostart.subprocess.run = held_up
thread = threading.Thread(target=pykevent.open)
thread.start()
starting.wait()  # the lock is held
child = os.fork()
if child == 0:
    signal.alarm(20)
    autostart.subprocess.run = run
    with pykevent.open() as queue:
        os._exit(queue.info().kevents)
status = os.waitpid(child, 0)[1]
go_on.set()
thread.join()
sys.exit(status)
"""


def test_a_fork_while_another_thread_starts_one_can_open_a_queue(place: Path) -> None:
    done = run(FORKED, place)
    assert done.returncode == 0, done.stderr
    folders = STARTED.findall(done.stderr)
    assert len(folders) == 2
    for folder in folders:
        gone(Path(folder))


HANDLER = """
import os, signal, subprocess
import pykevent
from pykevent import autostart, home

run = subprocess.run

def handler(*_):
    with pykevent.open() as queue:
        print(queue.info().kevents)

def interrupted(*words, **named):
    autostart.subprocess.run = run
    os.kill(os.getpid(), signal.SIGUSR1)
    return run(*words, **named)

signal.signal(signal.SIGUSR1, handler)
autostart.subprocess.run = interrupted
signal.alarm(40)
with pykevent.open() as queue:
    print(queue.info().kevents)
"""


def test_a_signal_handler_can_open_a_queue_while_one_is_started(place: Path) -> None:
    done = run(HANDLER, place)
    assert (done.returncode, done.stdout) == (0, "0\n0\n"), done.stderr
    for folder in STARTED.findall(done.stderr):
        gone(Path(folder))
