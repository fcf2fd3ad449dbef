# SPDX-License-Identifier: GPL-2.0-or-later
"""The interpreter knows each of libfuse's threads for as long as that lives, and no longer."""

from __future__ import annotations

import ctypes
import threading

import pytest

from pykevent.sim.threads import stay_known

THREADS = 50

_libc = ctypes.CDLL(None)
pytestmark = pytest.mark.skipif(
    not hasattr(_libc, "__cxa_thread_atexit_impl"), reason="this libc is not glibc"
)

_Routine = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_python = ctypes.pythonapi
_python.PyInterpreterState_Main.restype = ctypes.c_void_p
for _walk in (_python.PyInterpreterState_ThreadHead, _python.PyThreadState_Next):
    _walk.argtypes, _walk.restype = (ctypes.c_void_p,), ctypes.c_void_p


def known() -> set[int]:
    """The threads that the interpreter knows."""
    found: set[int] = set()
    state = _python.PyInterpreterState_ThreadHead(_python.PyInterpreterState_Main())
    while state:
        found.add(state)
        state = _python.PyThreadState_Next(state)
    return found


def test_a_thread_that_calls_back_stays_known_until_it_ends() -> None:
    own = threading.local()
    seen: list[object] = []
    before = known()

    def second(_: int | None) -> None:
        seen.append(getattr(own, "number", "forgotten"))

    def first(number: int | None) -> None:
        own.number = number
        stay_known()
        stay_known()
        # What was asked for last comes first when the thread ends.
        assert _libc.__cxa_thread_atexit_impl(at_its_end, None, routine) == 0

    routine, at_its_end = _Routine(first), _Routine(second)
    thread = ctypes.c_ulong()
    for number in range(1, THREADS + 1):
        assert _libc.pthread_create(ctypes.byref(thread), None, routine, number) == 0
        assert _libc.pthread_join(thread, None) == 0
        assert known() == before
    assert seen == list(range(1, THREADS + 1))
