# SPDX-License-Identifier: GPL-2.0-or-later
"""kevent: one queue for every kind of event a program waits for.

    with pykevent.open() as queue:
        queue.add(pykevent.socket_event(server, SocketEvents.ACCEPT))
        queue.add(pykevent.timer_event(1, value=0.5, interval=0.5))
        queue.add_path(".", InodeEvents.CREATE | InodeEvents.REMOVE, ident=2)
        for event in queue.wait(timeout=1.0):
            print(event)

`Queue.recv_into`, `Queue.send` and `Queue.sendfile` have the kernel move bytes between a socket and
memory, or from a file; each gives a `Transfer`, and its end is an event as any other.

`pykevent.open` goes by that name only: ``from pykevent import *`` leaves the built-in one alone.
`pykevent.abi` has the structures and ioctl numbers underneath, `pykevent.selector` a selector for
`selectors` and asyncio.
"""

from pykevent.abi import (
    EventFlags,
    EventType,
    Feature,
    FileKind,
    Flags,
    InodeEvents,
    NaioEvents,
    Op,
    PollEvents,
    SocketEvents,
    TimerEvents,
    UserEvents,
    WaitFlags,
)
from pykevent.errors import ChangesAppliedError
from pykevent.events import Event, EventMask, parse_records
from pykevent.opening import DEFAULT_DEVICE
from pykevent.queue import Info, Queue
from pykevent.queue import open as open  # not in __all__, where it would hide the built-in one
from pykevent.requests import (
    Change,
    FileLike,
    HasFileno,
    Request,
    inode_event,
    naio_event,
    poll_event,
    sendfile_argument,
    socket_event,
    timer_event,
    user_event,
)
from pykevent.selector import KeventSelector
from pykevent.transfers import Transfer

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_DEVICE",
    "Change",
    "ChangesAppliedError",
    "Event",
    "EventFlags",
    "EventMask",
    "EventType",
    "Feature",
    "FileKind",
    "FileLike",
    "Flags",
    "HasFileno",
    "Info",
    "InodeEvents",
    "KeventSelector",
    "NaioEvents",
    "Op",
    "PollEvents",
    "Queue",
    "Request",
    "SocketEvents",
    "TimerEvents",
    "Transfer",
    "UserEvents",
    "WaitFlags",
    "inode_event",
    "naio_event",
    "parse_records",
    "poll_event",
    "sendfile_argument",
    "socket_event",
    "timer_event",
    "user_event",
]
