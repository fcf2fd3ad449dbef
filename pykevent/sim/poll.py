# SPDX-License-Identifier: GPL-2.0-or-later
"""KEVENT_POLL: whatever poll(2) can wait for."""

from __future__ import annotations

import select

from pykevent.abi import EventType, Feature
from pykevent.sim.hook import FileKevent
from pykevent.sim.kevent import NOTIFY_BROKEN


class PollKevent(FileKevent):
    """A kevent of any file."""

    __slots__ = ()

    name = "poll"
    type = int(EventType.POLL)
    feature = int(Feature.POLL)
    all_events = (
        select.POLLIN
        | select.POLLPRI
        | select.POLLOUT
        | select.POLLERR
        | select.POLLHUP
        | select.POLLRDNORM
        | select.POLLRDBAND
        | select.POLLWRNORM
        | select.POLLWRBAND
        | select.POLLMSG
        | select.POLLRDHUP
    )
    all_flags = NOTIFY_BROKEN
