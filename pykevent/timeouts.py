# SPDX-License-Identifier: GPL-2.0-or-later
"""Times: seconds to nanoseconds, timeouts to deadlines."""

import math
import time
from dataclasses import dataclass

from pykevent.abi import WAIT_FOREVER, WaitFlags

MAX_TIME = 2**63 - 1
"""The last point in time, and the longest time, that the device takes: in ns, 292 years."""


def nanoseconds(seconds: float) -> int:
    """Seconds as ns, rounded up: nothing ever ends early.

    Raises ValueError for a NaN and OverflowError where 63 bits do not hold it.
    """
    if math.isnan(seconds):
        raise ValueError("a time must be a number, not NaN")
    if isinstance(seconds, int):
        ns = seconds * 10**9
    else:
        product = seconds * 1e9
        ns = MAX_TIME + 1 if math.isinf(product) else math.ceil(product)
    if abs(ns) > MAX_TIME:
        raise OverflowError("a time of more than 292 years does not fit in 63 bits of nanoseconds")
    return ns


@dataclass(slots=True)
class Deadline:
    """When a wait ends, as the fields of ``struct kevent_wait`` want it."""

    timeout: int
    clock: int
    flags: int

    @property
    def blocks(self) -> bool:
        """Whether a call with this deadline may wait at all."""
        return self.timeout != 0


def no_wait() -> Deadline:
    """The deadline that does not wait."""
    return Deadline(0, time.CLOCK_MONOTONIC, 0)


def make_deadline(
    timeout: float | None, timeout_ns: int | None, deadline_ns: int | None, clock: int
) -> Deadline:
    """Turn the arguments of `Queue.wait` into one deadline.

    A relative timeout becomes a point in time here, once: a wait that was interrupted is then
    simply repeated.  Raises TypeError where more than one is given, ValueError and OverflowError
    as `nanoseconds` does.
    """
    if timeout is None and timeout_ns is None and deadline_ns is None:
        return Deadline(WAIT_FOREVER, clock, 0)
    if sum(value is not None for value in (timeout, timeout_ns, deadline_ns)) > 1:
        raise TypeError("give only one of timeout, timeout_ns and deadline_ns")
    if deadline_ns is not None:
        if deadline_ns > MAX_TIME:
            raise OverflowError("deadline_ns does not fit in 63 bits")
        return Deadline(max(deadline_ns, 0), clock, WaitFlags.ABSTIME)
    if timeout is not None:
        timeout_ns = nanoseconds(timeout)
    if timeout_ns is None or timeout_ns <= 0:
        return Deadline(0, clock, 0)
    # The real-time clock can be set while we wait; a length of time cannot change with it.
    if clock == time.CLOCK_REALTIME:
        clock = time.CLOCK_MONOTONIC
    end = time.clock_gettime_ns(clock) + timeout_ns
    if end > MAX_TIME:
        raise OverflowError("the timeout ends after 292 years, which does not fit in 63 bits")
    return Deadline(end, clock, WaitFlags.ABSTIME)
