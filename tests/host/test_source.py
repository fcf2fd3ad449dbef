# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be said of the source without running it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner.common import TREE

FOLDERS = (".ci", ".github", "chardev", "examples", "kmod", "pykevent", "scripts", "tests")
SCRIPTS = (
    "bench", "bench-limits", "bench-naio", "bench-web", "build-module", "check-debug",
    "check-kcsan", "check-module", "check-sim", "fetch-kernel", "fuzz", "guest", "prove-debug",
)  # fmt: skip
NO_LICENCE_LINE = {".md", ".txt", ".typed"}


def files() -> Iterator[Path]:
    """All files of ours, relative to the tree; not what was built or cached."""
    for path in TREE.iterdir():
        if path.is_file() and path.name != ".git":
            yield path.relative_to(TREE)
    for folder in FOLDERS:
        for path in (TREE / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(TREE)


def module(*words: str) -> None:
    """Run a Python module as a command in the tree; its words are shown if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=TREE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(words[:2])}:\n{done.stdout}", pytrace=False)


def test_ruff_has_nothing_to_say() -> None:
    module("ruff", "check", "--quiet")


def test_python_is_formatted() -> None:
    module("ruff", "format", "--check", "--quiet")


def test_types_hold() -> None:
    module("mypy", "pykevent", "examples", "tests", "scripts/runner")


def test_types_of_scripts_hold() -> None:
    module("mypy", "--scripts-are-modules", *[f"scripts/{name}" for name in SCRIPTS])


def test_words_are_spelt_right() -> None:
    module("codespell_lib", *[str(path) for path in files()])


def test_shell_scripts_parse() -> None:
    scripts = [path for path in files() if (TREE / path).read_bytes().startswith(b"#!/bin/sh\n")]
    assert Path(".ci/run") in scripts
    for path in scripts:
        subprocess.run(["/bin/sh", "-n", TREE / path], check=True, timeout=10)


def test_every_file_says_its_licence() -> None:
    silent = [
        str(path)
        for path in files()
        if path.suffix not in NO_LICENCE_LINE
        and not path.name.startswith("LICENSE")
        and (TREE / path).stat().st_size
        and b"SPDX-License-Identifier: GPL-2.0" not in (TREE / path).read_bytes()[:300]
    ]
    assert silent == []
