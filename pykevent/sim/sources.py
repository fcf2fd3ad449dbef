# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of types.  A new source is a file with a subclass of Kevent, and a row here."""

from __future__ import annotations

import errno

from pykevent.abi import Feature
from pykevent.sim.inode import InodeKevent, PathKevent
from pykevent.sim.kevent import Kevent, RefusedError
from pykevent.sim.naio import NaioKevent
from pykevent.sim.poll import PollKevent
from pykevent.sim.socket import SocketKevent
from pykevent.sim.timer import TimerKevent
from pykevent.sim.user import UserKevent

_KINDS: tuple[type[Kevent], ...] = (
    SocketKevent,
    PollKevent,
    InodeKevent,
    PathKevent,
    TimerKevent,
    UserKevent,
    NaioKevent,
)
_TYPES = {kind.type: kind for kind in _KINDS}

FEATURES = int(Feature.SIM)
for _kind in _KINDS:
    FEATURES |= _kind.feature


def type_of(number: int) -> type[Kevent]:
    """The type of that number; ENXIO where there is none."""
    try:
        return _TYPES[number]
    except KeyError:
        raise RefusedError(errno.ENXIO) from None
