# SPDX-License-Identifier: GPL-2.0-or-later
"""NAIO SENDFILE."""

from __future__ import annotations

import errno

from pykevent.sim.kevent import RefusedError, Request
from pykevent.sim.transfer import Transfer


class SendfileKevent(Transfer):
    """Bytes, a part of a file, and more bytes, to a socket."""

    __slots__ = ()


def check_sendfile(request: Request) -> None:
    raise RefusedError(errno.EOPNOTSUPP)
