# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of the module a debug build has run, from what its gcov counters say."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .common import TREE, Failure, run
from .module import FOLDERS

# Tests of the module are not the module.
LEFT_OUT = ("kmod/kunit.c",)


@dataclass
class Coverage:
    """How often each line of each file was run; lines without code are not there."""

    files: dict[str, dict[int, int]] = field(default_factory=dict)

    def add(self, report: str) -> None:
        """Add what gcov says in *report*, one JSON object a line."""
        for words in report.splitlines():
            for entry in json.loads(words)["files"]:
                name = own_name(entry["file"])
                if name is None:
                    continue
                lines = self.files.setdefault(name, {})
                for line in entry["lines"]:
                    number = line["line_number"]
                    lines[number] = lines.get(number, 0) + line["count"]

    def covered(self, name: str) -> tuple[int, int]:
        """Of a file, how many lines were run, and how many there are."""
        lines = self.files[name]
        return sum(count > 0 for count in lines.values()), len(lines)

    def total(self) -> tuple[int, int]:
        """The same of all files."""
        parts = [self.covered(name) for name in self.files]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def missed(self, name: str) -> list[int]:
        """The lines of a file that were never run."""
        return sorted(number for number, count in self.files[name].items() if not count)


def own_name(path: str) -> str | None:
    """*path* as it is in the tree, or None for what is not the module's."""
    parts = Path(path).parts[-2:]
    name = "/".join(parts)
    if len(parts) < 2 or parts[0] not in FOLDERS or name in LEFT_OUT:
        return None
    return name if (TREE / name).is_file() else None


def read(objects: Path, counters: Iterable[Path]) -> Coverage:
    """What the folders *counters*, one of each guest, say of the module that was
    built in *objects*.
    """
    found = Coverage()
    gcov = os.environ.get("GCOV", "gcov")
    for folder in counters:
        for counter in sorted(folder.rglob("*.gcda")):
            notes = objects / counter.relative_to(folder).with_suffix(".gcno")
            with tempfile.TemporaryDirectory() as scratch:
                shutil.copy(notes, scratch)
                shutil.copy(counter, scratch)
                words = [gcov, "--json-format", "--stdout", counter.name]
                found.add(run(words, timeout=60, cwd=Path(scratch)))
    if not found.files:
        raise Failure("the guests left no counters of lines")
    return found


def table(coverage: Coverage) -> str:
    """A line for each file: its share, and the lines never run."""
    rows = []
    for name in sorted(coverage.files):
        ran, lines = coverage.covered(name)
        missed = " ".join(spans(coverage.missed(name)))
        rows.append(
            f"{name:22} {ran:4} of {lines:4}  {100 * ran / lines:5.1f} %  {missed}".rstrip()
        )
    return "\n".join(rows)


def spans(numbers: list[int]) -> list[str]:
    """``[1, 2, 3, 7]`` as ``["1-3", "7"]``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [str(a) if a == b else f"{a}-{b}" for a, b in found]
