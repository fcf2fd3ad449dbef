# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the C programs of this folder, one test for each of their cases.

They are looked for in ``$KEVENT_KERNEL_TESTS``, or else ``build/kernel-tests``,
where ``make kernel-tests`` puts them; where that is ``build/debug-tests`` they are
those of ``tests/debug``.  A case is a process of its own; exit
status 77 is a skip, and its stderr (with the seed) is shown where it fails.
Without a device everything is skipped, except in a guest, where that fails.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("KEVENT_KERNEL_TESTS") or TREE / "build/kernel-tests")
SOURCES = TREE / "tests" / PROGRAMS.name.removesuffix("-tests")
DEVICE = Path(os.environ.get("KEVENT_DEVICE") or "/dev/kevent")
SKIP = 77
# The programs keep their own limit for each case, and say where it was stuck;
# this one is for the case that they cannot, in seconds.
LIMIT = 1000.0 + float(os.environ.get("KEVENT_TEST_LIMIT") or 0)
# These need the machine for themselves, so they come last.
LAST = ("races", "pairs", "module", "fault_load")


@dataclass(frozen=True)
class Case:
    program: Path
    name: str

    def __str__(self) -> str:
        return f"{self.program.name}-{self.name}"


def programs() -> list[Path]:
    """What there is to run, with those of LAST at the end."""
    found = sorted(path for path in PROGRAMS.glob("*") if os.access(path, os.X_OK))
    return sorted(
        (path for path in found if path.is_file()),
        key=lambda path: LAST.index(path.name) if path.name in LAST else -1,
    )


def cases() -> list[Case]:
    """Every case of every program, by asking the program."""
    found = []
    for program in programs():
        listing = subprocess.run(
            [program, "--list"], check=True, capture_output=True, text=True, timeout=60
        )
        found += [Case(program, name) for name in listing.stdout.split()]
    return found


def in_guest() -> bool:
    return os.environ.get("KEVENT_CHECK_KMSG") == "1"


def test_there_are_programs_to_run() -> None:
    if not programs() and not in_guest():
        pytest.skip(f"nothing in {PROGRAMS}: make kernel-tests")
    names = {path.name for path in programs()}
    sources = {path.stem for path in SOURCES.glob("*.c") if not path.stem.startswith("lib")}
    assert sources <= names


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernel(case: Case) -> None:
    if not DEVICE.exists() and not in_guest():
        pytest.skip(f"no {DEVICE}: this needs the module")
    # A file, not a pipe: what hangs in the kernel for good would keep that open.
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(
            [case.program, case.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            start_new_session=True,
        )
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            status = None
        words.seek(0)
        said = words.read().strip()
    if status == SKIP:
        pytest.skip(said.splitlines()[-1].removeprefix("skipped: "))
    if status:
        pytest.fail(f"exit status {status}\n{said}", pytrace=False)
    if status is None:
        pytest.fail(f"no end after {LIMIT:.0f} s\n{said}", pytrace=False)


@pytest.mark.parametrize("scale", ["much", "2x", "0", "-1", "nan", "inf"])
def test_a_scale_that_is_no_number_is_refused(scale: str) -> None:
    if not programs():
        pytest.skip(f"nothing in {PROGRAMS}: make kernel-tests")
    done = subprocess.run(
        [programs()[0], cases()[0].name],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "KEVENT_TEST_SCALE": scale},
    )
    assert done.returncode == 2
    assert f"KEVENT_TEST_SCALE={scale} is not a number" in done.stderr
