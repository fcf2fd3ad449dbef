# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots each kernel and runs the conformance and the kernel tests in it.

See runner.kernels.chosen() for which kernels these are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runner.common import BUILD, TREE, Failure
from runner.kernels import chosen
from runner.module import build_bare
from runner.report import by_name, missing, on_simulator, outcomes, sentence

LIMIT = 2400  # seconds for the tests of one guest: a slow machine takes 1400
CANNOT_RUN = 77

SERIES = chosen()


def failures(results: Path) -> str:
    """What the tests in the guest wrote down as they failed."""
    written = results / "failures.txt"
    return written.read_text(encoding="utf-8") if written.is_file() else ""


@pytest.mark.parametrize("series", SERIES)
def test_conformance_and_kernel_tests_pass_in_a_guest(
    series: str, reports: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    python = sys.executable
    results = BUILD / series / "tests"
    bare = build_bare(series)
    with capfd.disabled():
        # Minutes pass in there: show what happens as it happens.
        print(f"\n--- Linux {series}", flush=True)
        status = subprocess.run(
            [
                python, "scripts/guest", series, "--timeout", str(LIMIT), "--results", results,
                "--env", f"KEVENT_MODULE_BARE={bare}",
                "--", "scripts/guest-tests",
            ],
            cwd=TREE,
            timeout=LIMIT + 600,
        ).returncode  # fmt: skip
        print("---", flush=True)
    if status == CANNOT_RUN:
        reason = "no guest can be run on this machine; the reason is above"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        found = outcomes(results / "junit.xml")
    except Failure as failure:
        pytest.fail(f"{failure}\n{failures(results)}", pytrace=False)
    reports.append(f"Linux {series}: {sentence(found)}")
    if status:
        pytest.fail(f"the guest's status is {status}; the reasons are above", pytrace=False)
    for folder in ("conformance", "kernel"):
        assert found[folder]["passed"] > 0
        assert found[folder]["failed"] == 0
    simulated = on_simulator(BUILD / "sim")
    if simulated or os.environ.get("CI") == "true":
        # They are the same tests, and the simulator has run them before, less what INFO lacks.
        assert missing(by_name(results / "junit.xml"), simulated) == []
