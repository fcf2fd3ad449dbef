# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest runner believes no run that was not good."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runner.accel import kvm_works
from runner.common import TREE, Failure
from runner.guest import BROKEN, TIMED_OUT, end_group, follow, judge
from runner.kernels import Kernel
from runner.klog import complaints, taints
from runner.machine import EVENTS
from runner.report import facts, outcomes, sentence, unit_tests

BAD_LINES = [
    "[    9.1] WARNING: CPU: 1 PID: 293 at kmod/queue.c:15 f+0x3d/0x60 [kevent]",
    "[    9.1] WARNING: possible circular locking dependency detected",
    "[    9.1] kernel BUG at kmod/queue.c:17!",
    "[    9.1] BUG: unable to handle page fault for address: 0000000000001234",
    "[    9.1] BUG: KASAN: slab-use-after-free in f+0x1/0x2",
    "[    9.1] Oops: general protection fault, 0000 [#1] PREEMPT SMP",
    "[    9.1] general protection fault, probably for non-canonical address",
    "[    9.1] Kernel panic - not syncing: Fatal exception",
    "[  242.1] INFO: task sh:293 blocked for more than 120 seconds.",
    "[   60.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[   60.1] rcu: INFO: rcu_preempt self-detected stall on CPU",
    "[   60.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:293]",
    "[    9.1] refcount_t: underflow; use-after-free.",
    "[    9.1] list_add corruption. prev->next should be next",
    "[    9.1] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
]
GOOD_LINES = [
    '[    7.6] virtme-ng-init: WARNING: failed to run: "systemd-tmpfiles" --create',
    "[    0.1] kevent: loading out-of-tree module taints kernel.",
    "[    0.1] debug: something named BUGGY or warning: in lower case",
    "[    9.1] kevent-test: tests/conformance/test_x.py::test_WARNING: is_its_name",
    "[    0.1] rcu: Hierarchical RCU implementation.",
    "[    0.1] x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'",
]


VNG = Kernel("6.1", Path())
LEAN = Kernel("6.12-debug", Path(), lean=True)


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_broken_kernels_line_is_a_complaint(line: str) -> None:
    assert complaints([*GOOD_LINES, line]) == [line]


def test_a_healthy_kernels_lines_are_not() -> None:
    assert complaints(GOOD_LINES) == []


def test_our_own_taints_are_no_complaint() -> None:
    out_of_tree_and_unsigned = 1 << 12 | 1 << 13
    assert taints(out_of_tree_and_unsigned) == []
    assert taints(out_of_tree_and_unsigned | 1 << 9) == ["warning"]


def leave(shared: Path, console: str = "quiet", **marks: str) -> Path:
    """Put into the folder *shared* what a guest leaves there."""
    # A serial console ends its lines so.
    (shared / "console.log").write_bytes(console.encode() + b"\r\n")
    for name, text in marks.items():
        (shared / name).write_text(text + "\n", encoding="utf-8")
    return shared


def test_a_status_that_both_report_is_believed(tmp_path: Path) -> None:
    result = judge(VNG, leave(tmp_path, status="3", tainted="12288"), 3, False)
    assert (result.status, result.complaints) == (3, [])


def test_no_status_is_a_broken_guest_whatever_vng_says(tmp_path: Path) -> None:
    result = judge(VNG, leave(tmp_path), 0, False)
    assert result.status == BROKEN
    assert not result.good


def test_a_guest_that_the_emulator_broke_before_anything_of_ours_ran_is_told_apart(
    tmp_path: Path,
) -> None:
    assert not judge(VNG, leave(tmp_path), 255, False).stillborn
    leave(tmp_path, console="[    1.602009] Oops: int3: 0000 [#1] SMP NOPTI")
    result = judge(VNG, tmp_path, 255, False)
    assert result.stillborn and not result.good
    (tmp_path / "began").touch()
    assert not judge(VNG, tmp_path, 255, False).stillborn


def test_a_status_that_vng_contradicts_is_not_believed(tmp_path: Path) -> None:
    assert not judge(VNG, leave(tmp_path, status="0"), 255, False).good


@pytest.mark.parametrize(
    ("reason", "good"), [("guest-shutdown", True), ("guest-reset", False), (None, False)]
)
def test_a_machine_of_ours_has_to_power_itself_off(
    tmp_path: Path, reason: str | None, good: bool
) -> None:
    leave(tmp_path, status="0")
    events = ['{"QMP": {"version": {}}}', '{"return": {}}']
    if reason:
        events.append(json.dumps({"event": "SHUTDOWN", "data": {"guest": True, "reason": reason}}))
    (tmp_path / EVENTS).write_text("\n".join(events) + "\n", encoding="utf-8")
    assert judge(LEAN, tmp_path, 0, False).good is good


def test_a_guest_that_was_killed_was_not_good(tmp_path: Path) -> None:
    assert judge(VNG, leave(tmp_path), -9, True).status == TIMED_OUT
    assert not judge(VNG, leave(tmp_path, status="0"), -9, True).good


def test_a_warning_on_the_console_spoils_a_good_status(tmp_path: Path) -> None:
    result = judge(VNG, leave(tmp_path, console=BAD_LINES[0], status="0"), 0, False)
    assert result.complaints == [BAD_LINES[0]]


def test_a_warning_that_the_console_has_dropped_spoils_a_good_status(tmp_path: Path) -> None:
    leave(tmp_path, console=BAD_LINES[1], status="0")
    (tmp_path / "kernel.log").write_text("\n".join(BAD_LINES[:2]) + "\n", encoding="utf-8")
    assert judge(VNG, tmp_path, 0, False).complaints == [BAD_LINES[1], BAD_LINES[0]]


def test_a_taint_spoils_a_good_status(tmp_path: Path) -> None:
    assert not judge(VNG, leave(tmp_path, status="0", tainted="512"), 0, False).good


def test_a_sentence_of_the_guest_spoils_a_good_status(tmp_path: Path) -> None:
    result = judge(VNG, leave(tmp_path, status="0", failed="it leaks"), 0, False)
    assert result.complaints == ["it leaks"]


def test_a_process_past_its_time_is_killed_with_all_it_started() -> None:
    # The shell ignores SIGTERM, and so does the sleep that holds its pipes.
    process = subprocess.Popen(
        ["/bin/sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    with os.fdopen(os.dup(process.stdout.fileno()), "rb") as pipe:
        assert follow(process, None, io.BytesIO(), time.monotonic() + 0.1)
        end_group(process)
        assert process.returncode == -signal.SIGKILL
        # The end of file says that the last holder of the pipe is gone.
        assert pipe.read() == b""


def test_kvm_that_boots_nothing_is_not_used_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def probe(kernel: Kernel) -> bool:
        asked.append(kernel)
        return False

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KEVENT_ACCEL", raising=False)
    monkeypatch.setattr("runner.accel.opens", lambda: True)
    monkeypatch.setattr("runner.accel.probe", probe)
    kernel = Kernel("6.1", tmp_path)
    assert not kvm_works(kernel)
    assert not kvm_works(kernel)
    assert asked == [kernel]
    monkeypatch.setattr("runner.accel.machine_boot", lambda: "another")
    assert not kvm_works(kernel)
    assert asked == [kernel, kernel]


def test_the_report_of_a_guest_is_counted_by_folder(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(
        """<testsuites><testsuite>
        <testcase classname="tests.conformance.test_wait" name="a"/>
        <testcase classname="tests.conformance.test_wait" name="b"><skipped/></testcase>
        <testcase classname="tests.conformance.test_wait" name="c"/>
        <testcase classname="tests.conformance.test_wait" name="c"><error/></testcase>
        <testcase classname="tests.kernel.test_kernel" name="d"/>
        </testsuite></testsuites>"""
    )
    found = outcomes(report)
    assert found["conformance"] == {"passed": 1, "skipped": 1, "failed": 1}
    assert found["kernel"] == {"passed": 1}
    assert sentence(found) == "1 conformance, 1 kernel tests passed, 1 failed, 1 skipped"


def test_unit_tests_of_the_module_count_only_as_a_whole(tmp_path: Path) -> None:
    results = tmp_path / "kunit"
    results.write_text("    1..2\n    ok 1 one\n    ok 2 two\nok 1 kevent\n")
    assert unit_tests(results) == 2
    for cut in ("    1..2\n    ok 1 one\n", "    1..2\n    ok 1 one\n    not ok 2 two\n", ""):
        results.write_text(cut)
        with pytest.raises(Failure, match="unit tests of the module"):
            unit_tests(results)


def test_what_programs_did_is_added_up_but_for_seeds(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("actor=add pairs=15 rounds=10 seed=7\nactor=wait pairs=12 rounds=5 seed=7\n")
    assert facts(path) == {"pairs": 27, "rounds": 15, "seed": 7}
    with pytest.raises(Failure, match="says nothing"):
        facts(tmp_path / "nothing.txt")


def test_a_missing_report_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="left no report"):
        outcomes(tmp_path / "junit.xml")


def test_a_command_goes_to_the_guest_word_by_word() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/guest", "9.9", "--", "--help"],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "invalid choice: '9.9'" in done.stderr
