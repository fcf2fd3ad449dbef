# SPDX-License-Identifier: GPL-2.0-or-later
"""Who answers programs: the simulator, here, and the module, in a guest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

from runner.common import BUILD, TREE, Failure
from runner.simulator import Simulator

from .model import Answer
from .program import Program, dump

CANNOT_RUN = 77
_EXECUTE = "tests.differential.execute"
_SHARED_MEMORY = Path("/dev/shm")


class UnavailableError(Exception):
    """This machine cannot have that side; says why."""


class Side(ABC):
    """Something that answers programs."""

    name: str
    simulated: bool
    """Whether it may do what the README lists as a difference of the simulator."""
    rounds: int
    """How many batches a program is worth that is to be made shorter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, programs: list[Program]) -> list[list[Answer]]:
        """The answers of each program."""
        return self._run(programs, self.folder)

    def run_shorter(self, programs: list[Program]) -> list[list[Answer]]:
        """The same for candidates: the files of the whole run stay as they are."""
        return self._run(programs, self.folder / "shorter")

    def _run(self, programs: list[Program], folder: Path) -> list[list[Answer]]:
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / "programs.jsonl"
        written.write_text("".join(dump(program) + "\n" for program in programs))
        found = self.answer(written)
        answers = [json.loads(line) for line in found.read_text().splitlines()]
        if len(answers) != len(programs):
            raise Failure(f"{self.name}: {len(answers)} answers to {len(programs)} programs")
        return answers

    @abstractmethod
    def answer(self, programs: Path) -> Path:
        """Have a file of programs answered; the file of answers."""


class Simulated(Side):
    """The simulator, a new one for each batch."""

    name = "simulator"
    simulated = True
    rounds = 25

    def answer(self, programs: Path) -> Path:
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise UnavailableError("there is no /dev/fuse that we may open")
        answers = programs.with_name("answers.jsonl")
        # As in a guest, where it is a tmpfs.
        scratch = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
        with (
            tempfile.TemporaryDirectory(prefix="kevent-differential-") as place,
            tempfile.TemporaryDirectory(dir=scratch, prefix="kevent-programs-") as files,
            Simulator(Path(place) / "mount") as simulator,
        ):
            environment = {**os.environ, "KEVENT_DEVICE": str(simulator.device), "TMPDIR": files}
            subprocess.run(
                [sys.executable, "-m", _EXECUTE, programs, answers],
                cwd=TREE,
                env=environment,
                timeout=1800,
                check=True,
            )
        return answers


class Module(Side):
    """The module, in a guest that is booted for each batch."""

    name = "module"
    simulated = False
    rounds = 6

    def __init__(self, folder: Path, series: str) -> None:
        super().__init__(folder)
        self.series = series

    def answer(self, programs: Path) -> Path:
        # The guest's folder is emptied before each boot.
        results = programs.with_name("results")
        inside = programs.relative_to(TREE)
        command = f'{sys.executable} -m {_EXECUTE} {inside} "$KEVENT_RESULTS/answers.jsonl"'
        status = subprocess.run(
            [
                sys.executable, "scripts/guest", self.series, "--timeout", "1500",
                "--results", results, "--", "sh", "-c", command,
            ],
            cwd=TREE,
            timeout=2400,
            check=False,
        ).returncode  # fmt: skip
        if status == CANNOT_RUN:
            raise UnavailableError("no guest can be run on this machine")
        if status:
            raise Failure(f"the guest's status is {status}; see {results.relative_to(TREE)}")
        return results / "answers.jsonl"


FOLDER = BUILD / "differential"
