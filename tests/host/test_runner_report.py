# SPDX-License-Identifier: GPL-2.0-or-later
"""That a test which a guest ran cannot be missing on the simulator unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from runner.common import Failure
from runner.report import Outcome, by_name, missing, on_simulator, outcomes

PASSED = Outcome("passed")
WAIT, CLOSE = "conformance.test_wait::test_a", "conformance.test_closing::test_b"


def test_what_ran_in_the_guest_and_not_here_is_missing() -> None:
    guest = {WAIT: PASSED, "kernel.test_c::test_d": PASSED}
    assert missing(guest, {WAIT: PASSED}) == []
    assert missing(guest, {}) == [WAIT]
    assert missing(guest, {WAIT: Outcome("skipped", "no such thing here")}) == [WAIT]
    assert missing(guest, {WAIT: Outcome("failed")}) == [WAIT]
    assert missing({WAIT: Outcome("skipped", "not there")}, {}) == []


def test_what_info_lacks_is_not_missing() -> None:
    assert missing({WAIT: PASSED}, {WAIT: Outcome("skipped", "INFO has no FDINFO")}) == []


def test_of_a_pinned_kind_of_file_other_tests_of_closing_run_here() -> None:
    pinned = f"{CLOSE}[FIFO]"
    visible = "conformance.test_closing::test_e[FIFO]"
    assert missing({pinned: PASSED}, {visible: PASSED}) == []
    assert missing({pinned: PASSED}, {visible.replace("FIFO", "epoll"): PASSED}) == [pinned]


def test_a_report_tells_what_became_of_each_test(tmp_path: Path) -> None:
    def report(number: int, *cases: str) -> Path:
        path = tmp_path / f"conformance-{number}.xml"
        inside = "".join(
            f'<testcase classname="tests.conformance.test_wait" name="test_{case}</testcase>'
            for case in cases
        )
        path.write_text(f"<testsuites><testsuite>{inside}</testsuite></testsuites>")
        return path

    first = report(0, 'a">', 'b"><skipped message="why"/>', 'c"><failure message="x"/>')
    assert by_name(first) == {
        WAIT: PASSED,
        WAIT[:-1] + "b": Outcome("skipped", "why"),
        WAIT[:-1] + "c": Outcome("failed", "x"),
    }
    assert outcomes(first)["conformance"] == {"passed": 1, "skipped": 1, "failed": 1}
    report(1, 'a"><skipped message="why"/>', 'b">')
    assert on_simulator(tmp_path)[WAIT] == on_simulator(tmp_path)[WAIT[:-1] + "b"] == PASSED
    with pytest.raises(Failure):
        by_name(tmp_path / "none.xml")
