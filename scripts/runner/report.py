# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the report that pytest leaves in a guest."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .common import Failure

OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}


@dataclass(frozen=True)
class Outcome:
    """What became of a test, and why if it was skipped."""

    word: str
    why: str = ""


def by_name(report: Path) -> dict[str, Outcome]:
    """By the name of each test, ``conformance.test_wait::test_...``, what became of it.

    Failure where there is no report.
    """
    try:
        root = ET.parse(report).getroot()
    except (FileNotFoundError, ET.ParseError) as error:
        raise Failure(f"the tests left no report, {report.name}") from error
    # A test that fails, and whose fixture fails too, has two entries.
    found: dict[str, Outcome] = {}
    for case in root.iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
        kinds = [
            Outcome(OUTCOMES[child.tag], child.get("message", ""))
            for child in case
            if child.tag in OUTCOMES
        ]
        if name not in found or found[name].word != "failed":
            found[name] = kinds[0] if kinds else Outcome("passed")
    return found


def outcomes(report: Path) -> dict[str, Counter[str]]:
    """How many tests of each folder, such as ``conformance``, passed, failed and were skipped."""
    found: dict[str, Counter[str]] = {}
    for name, outcome in by_name(report).items():
        found.setdefault(name.partition(".")[0], Counter())[outcome.word] += 1
    return found


def on_simulator(folder: Path) -> dict[str, Outcome]:
    """What became of each test in all runs of `check-sim`; nothing where it was not run."""
    found: dict[str, Outcome] = {}
    for report in sorted(folder.glob("conformance-*.xml")):
        for name, outcome in by_name(report).items():
            if name not in found or outcome.word != "skipped":
                found[name] = outcome
    return found


def missing(guest: dict[str, Outcome], simulator: dict[str, Outcome]) -> list[str]:
    """The conformance tests that passed in a guest and not on the simulator, nor say that INFO
    lacks what they need, nor are about a kind of file that INFO says is pinned in the guest only.
    """
    ran = {name for name, outcome in guest.items() if outcome.word == "passed"}
    here = {name for name, outcome in simulator.items() if outcome.word == "passed"}
    shown = {_kind(name) for name in here - ran}
    return sorted(
        name
        for name in ran - here
        if name.startswith("conformance.")
        and not (name in simulator and simulator[name].why.startswith("INFO has no "))
        and not (name not in simulator and _kind(name) in shown)
    )


def _kind(name: str) -> str:
    """Of a test of closing, the kind of file that it is about."""
    test, _, kind = name.partition("[")
    return kind if test.startswith("conformance.test_closing::") else test


def sentence(found: dict[str, Counter[str]]) -> str:
    """One line: ``214 conformance, 31 kernel tests passed, 2 skipped``."""
    passed = ", ".join(f"{found[folder]['passed']} {folder}" for folder in sorted(found))
    text = f"{passed or 'no'} tests passed"
    for outcome in ("failed", "skipped"):
        if count := sum(counter[outcome] for counter in found.values()):
            text += f", {count} {outcome}"
    return text


def facts(path: Path) -> dict[str, int]:
    """The sums of the numbers that a program wrote down as ``name=number``, over all
    lines; of a seed the last one.  Failure where there is nothing.
    """
    found: dict[str, int] = {}
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for name, number in re.findall(r"\b([a-z_]+)=(\d+)\b", text):
        found[name] = int(number) + (0 if name == "seed" else found.get(name, 0))
    if not found:
        raise Failure(f"{path.name} says nothing of what was done")
    return found


def unit_tests(path: Path) -> int:
    """How many of KUnit's tests passed, by their results; Failure where one did not,
    or where there are none.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    bad = re.findall(r"^ *not ok .*", text, re.MULTILINE)
    good = re.findall(r"^    ok \d+ \w+$", text, re.MULTILINE)
    plan = re.findall(r"^    1\.\.(\d+)$", text, re.MULTILINE)
    if bad or not good or plan != [str(len(good))]:
        said = bad or [f"{len(good)} passed, of {' '.join(plan) or 'none'}"]
        raise Failure("\n".join(["unit tests of the module:", *said]))
    return len(good)
