# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that measure in a guest: building and running them, and their rows."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .common import BUILD, TREE, Failure, run

FOLDER = BUILD / "bench"
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")
CANNOT_RUN = 77


@dataclass(frozen=True)
class Row:
    """Instructions for one *unit*; None where a column does not have it."""

    name: str
    unit: str
    kevent: float | None
    epoll: float | None
    uring: float | None
    other: float | None

    @property
    def ratio(self) -> float | None:
        """kevent's share of epoll's: below 1 is better."""
        if self.kevent is None or not self.epoll:
            return None
        return self.kevent / self.epoll


def compile_program(name: str, patterns: Iterable[str], without: Iterable[str] = ()) -> Path:
    """Build *name* from the sources that match *patterns*, but for those *without*."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    left_out = {path for pattern in without for path in TREE.glob(pattern)}
    found = [path for pattern in patterns for path in sorted(TREE.glob(pattern))]
    sources = [path for path in found if path not in left_out]
    run([os.environ.get("CC", "gcc"), *FLAGS, *sources, "-o", FOLDER / name], timeout=300)
    return FOLDER / name


def measure(
    series: str,
    program: Sequence[str | Path],
    name: str,
    limit: float,
    options: Sequence[str],
    arguments: Sequence[str] = (),
) -> Path:
    """Run *program* in a guest, with the file for its rows, which has *name*, and
    *arguments* behind that; returns the file.  *options* are those of scripts/guest.
    """
    results = FOLDER / f"{series}-{Path(name).stem}"
    found = results / name
    found.unlink(missing_ok=True)
    words = [str(word) for word in program]
    command = [
        sys.executable, "scripts/guest", series, *options, "--timeout", str(limit),
        "--results", str(results),
        "--", "sh", "-c",
        f'exec "$@" "$KEVENT_RESULTS/{name}" {shlex.join(arguments)}', "sh", *words,
    ]  # fmt: skip
    # The rows as they come are for who watches; the table is the result.
    status = subprocess.run(command, cwd=TREE, stdout=sys.stderr, check=False).returncode
    if status == CANNOT_RUN:
        sys.exit(CANNOT_RUN)
    if status or not found.is_file():
        raise Failure(f"the guest ended with status {status}; its logs are in {results}")
    return found


def rows_of(path: Path) -> tuple[str, list[Row]]:
    """The kernel's release, and the rows."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["release"], [Row(**row) for row in content["rows"]]


def cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def show(release: str, rows: list[Row], what: str) -> None:
    """Print the table; *what* says in a word or two what the figures are."""
    width = max(len(row.name) for row in rows)
    print(f"Linux {release}, {what}")
    print(f"{'':{width}} {'kevent':>8} {'epoll':>8} {'ratio':>6} {'uring':>7} {'other':>7}")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        print(
            f"{row.name:{width}} {cell(row.kevent):>8} {cell(row.epoll):>8} {ratio:>6}"
            f" {cell(row.uring):>7} {cell(row.other):>7}  a {row.unit}"
        )
