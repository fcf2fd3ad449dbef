# SPDX-License-Identifier: GPL-2.0-or-later
"""Times: rounding up, ranges, and what becomes of a timeout."""

import math
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pykevent.abi import WAIT_FOREVER, WaitFlags
from pykevent.timeouts import MAX_TIME, make_deadline, nanoseconds


def relative(timeout: float | None) -> int:
    """What is left, in ns, of a deadline made of a timeout just now."""
    before = time.monotonic_ns()
    end = make_deadline(timeout, None, None, time.CLOCK_MONOTONIC)
    assert end.flags == WaitFlags.ABSTIME
    return end.timeout - before


@pytest.mark.parametrize(
    ("seconds", "ns"),
    [
        (0, 0),
        (1, 10**9),
        (0.1, 10**8),
        (1e-9, 1),
        (1e-10, 1),
        (1.1e-9, 2),
        (0.0001000001, 100001),
        (5e-324, 1),
        (9_000_000_000, 9 * 10**18),
    ],
)
def test_seconds_are_rounded_up_to_nanoseconds(seconds: float, ns: int) -> None:
    assert nanoseconds(seconds) == ns


@given(st.floats(min_value=1e-12, max_value=9e9))
def test_rounding_is_never_early_and_less_than_one_nanosecond_late(seconds: float) -> None:
    exact = Fraction(seconds) * 10**9
    # The product of two floats is itself rounded, by half a unit of its last place.
    slack = Fraction(math.ulp(seconds * 1e9)) / 2
    assert exact - slack <= nanoseconds(seconds) < exact + 1 + slack


@pytest.mark.parametrize("seconds", [1e10, 10**10, 2**63 / 1e9, math.inf, 1e300])
def test_a_time_that_does_not_fit_in_63_bits_is_refused(seconds: float) -> None:
    with pytest.raises(OverflowError, match="292 years"):
        nanoseconds(seconds)
    with pytest.raises(OverflowError, match="292 years"):
        make_deadline(seconds, None, None, time.CLOCK_MONOTONIC)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        make_deadline(math.nan, None, None, time.CLOCK_MONOTONIC)


def test_a_timeout_whose_end_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError, match="292 years"):
        make_deadline(None, MAX_TIME, None, time.CLOCK_MONOTONIC)
    with pytest.raises(OverflowError, match="63 bits"):
        make_deadline(None, None, MAX_TIME + 1, time.CLOCK_MONOTONIC)


def test_no_timeout_waits_for_ever() -> None:
    end = make_deadline(None, None, None, time.CLOCK_MONOTONIC)
    assert (end.timeout, end.flags, end.blocks) == (WAIT_FOREVER, 0, True)


@pytest.mark.parametrize("timeout", [0, 0.0, -0.5, -3])
def test_zero_or_less_does_not_wait(timeout: float) -> None:
    end = make_deadline(timeout, None, None, time.CLOCK_MONOTONIC)
    assert (end.timeout, end.flags, end.blocks) == (0, 0, False)
    assert not make_deadline(None, -1, None, time.CLOCK_MONOTONIC).blocks
    assert not make_deadline(None, None, -1, time.CLOCK_MONOTONIC).blocks


def test_a_timeout_becomes_a_point_in_time() -> None:
    assert 2 * 10**9 <= relative(2) < 3 * 10**9
    assert relative(1e-10) >= 1


def test_timeout_ns_is_exact() -> None:
    before = time.monotonic_ns()
    end = make_deadline(None, 1_000_000_007, None, time.CLOCK_MONOTONIC)
    after = time.monotonic_ns()
    assert before <= end.timeout - 1_000_000_007 <= after


def test_a_deadline_keeps_its_clock() -> None:
    end = make_deadline(None, None, 12345, time.CLOCK_REALTIME)
    assert (end.timeout, end.clock, end.flags) == (12345, time.CLOCK_REALTIME, WaitFlags.ABSTIME)


def test_a_length_of_time_does_not_follow_a_clock_that_can_be_set() -> None:
    end = make_deadline(1.0, None, None, time.CLOCK_REALTIME)
    assert end.clock == time.CLOCK_MONOTONIC
    assert abs(end.timeout - time.monotonic_ns()) < 10**10
    assert make_deadline(1.0, None, None, time.CLOCK_BOOTTIME).clock == time.CLOCK_BOOTTIME


def test_only_one_of_the_three_may_be_given() -> None:
    with pytest.raises(TypeError, match="only one"):
        make_deadline(1.0, 1, None, time.CLOCK_MONOTONIC)
    with pytest.raises(TypeError, match="only one"):
        make_deadline(None, 1, 1, time.CLOCK_MONOTONIC)
