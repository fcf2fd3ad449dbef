# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a simulator for tests, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from runner.common import TREE, Failure

DEADLINE = 20.0


def eventually(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Return as soon as *condition* holds; a Failure that says *what* after so many *seconds*."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)


def mounted(folder: Path) -> bool:
    """Whether anything is mounted at *folder*, alive or not."""
    with open("/proc/self/mounts") as file:
        return any(line.split()[1] == str(folder) for line in file)


def processes(folder: Path) -> list[str]:
    """The commands of all processes that have *folder* among their words."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(folder) in words:
            found.append(f"{entry.name}: {b' '.join(words).decode(errors='replace')}")
    return found


class Simulator:
    """A simulator that serves *folder*, until the end of the block."""

    def __init__(self, folder: Path, *options: str, descriptors: int = 0) -> None:
        self.folder = folder
        self.device = folder / "kevent"
        self.log = folder.with_name(folder.name + ".log")
        self._command = [sys.executable, "-m", "pykevent", "sim", *options, str(folder)]
        if descriptors:
            # No more than so many, for it or for what it starts.
            self._command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *self._command]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Simulator:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=TREE, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            eventually(self._serves, f"{self.device} can be used; {self.log} says more")
        except BaseException:
            self.kill()
            raise
        return self

    def _serves(self) -> bool:
        if self.exited:
            raise Failure(f"no simulator: {self.log.read_text().strip()}")
        return b"serving" in self.log.read_bytes()

    @property
    def exited(self) -> bool:
        """Whether the process has ended."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self) -> int:
        """Its status, once it has ended."""
        assert self._process is not None
        return self._process.wait(DEADLINE)

    def terminate(self) -> int:
        """End it as one should; returns its status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.exited:
            self.terminate()
        if kind is None:
            self.check_nothing_left()

    def check_nothing_left(self) -> None:
        """A Failure where a mount, a process or a complaint is left."""
        eventually(lambda: not mounted(self.folder), f"nothing is mounted at {self.folder}")
        eventually(lambda: not processes(self.folder), f"no process serves {self.folder}")
        said = [line for line in self.log.read_text().splitlines() if "serving" not in line]
        if said:
            raise Failure("the simulator said:\n" + "\n".join(said))


def run_pytest(words: Sequence[str], device: Path, timeout: float) -> int:
    """Run pytest in the tree, on *device*; what it says goes where ours does."""
    env = {**os.environ, "KEVENT_DEVICE": str(device)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=TREE, env=env, timeout=timeout, check=False).returncode
