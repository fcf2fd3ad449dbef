# SPDX-License-Identifier: GPL-2.0-or-later
"""What the interpreter knows of libfuse's threads.

ctypes has it learn of such a thread at each callback and forget it at the callback's end, which
takes longer than most calls of the device.  So a thread that was seen once stays known until it
ends: libfuse ends some of them when more than ten have nothing to do.
"""

from __future__ import annotations

import ctypes
import threading

_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_ensure = ctypes.pythonapi.PyGILState_Ensure
_release = ctypes.pythonapi.PyGILState_Release
_LOCKED = 0

# glibc's, for thread_local objects of C++.  The destructors of pthread_key_create(3) come too late:
# by then the thread does not know any more what the interpreter knows it by.
_at_thread_exit = getattr(ctypes.CDLL(None), "__cxa_thread_atexit_impl", None)
if _at_thread_exit is not None:
    _at_thread_exit.argtypes = (_Destructor, ctypes.c_void_p, ctypes.c_void_p)
_owner = ctypes.cast(_ensure, ctypes.c_void_p)
"""Of what has the destructor: the interpreter, which stays loaded."""


class _Seen(threading.local):
    before = False


_seen = _Seen()


def _forget(_: int | None) -> None:
    # One more than the callback's own, which is thus the last.
    _release(_LOCKED)


_destructor = _Destructor(_forget)


def stay_known() -> None:
    """Called in a callback: the thread that makes it stays known to the interpreter."""
    if _seen.before or _at_thread_exit is None:
        return
    _seen.before = True
    if _at_thread_exit(_destructor, None, _owner) == 0:
        _ensure()
