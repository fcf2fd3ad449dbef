# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the report that pytest leaves in a guest."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from .common import Failure

OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}


def outcomes(report: Path) -> dict[str, Counter[str]]:
    """How many tests of each folder passed, failed and were skipped.

    The folder is what comes after ``tests.`` in a test's name, such as
    ``conformance``.  Failure where there is no report.
    """
    try:
        root = ET.parse(report).getroot()
    except (FileNotFoundError, ET.ParseError) as error:
        raise Failure("the guest left no report of its tests") from error
    # A test that fails, and whose fixture fails too, has two entries.
    seen: dict[tuple[str, str], str] = {}
    for case in root.iter("testcase"):
        name = (case.get("classname", ""), case.get("name", ""))
        kinds = [OUTCOMES[child.tag] for child in case if child.tag in OUTCOMES]
        if seen.get(name) != "failed":
            seen[name] = kinds[0] if kinds else "passed"
    found: dict[str, Counter[str]] = {}
    for (classname, _), outcome in seen.items():
        folder = classname.removeprefix("tests.").partition(".")[0]
        found.setdefault(folder, Counter())[outcome] += 1
    return found


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
