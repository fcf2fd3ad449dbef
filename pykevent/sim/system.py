# SPDX-License-Identifier: GPL-2.0-or-later
"""What all queues of one simulator share."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
import time
from functools import partial
from weakref import WeakValueDictionary

from pykevent.sim import syscalls
from pykevent.sim.account import Accounts, Limits
from pykevent.sim.client import ANON, KEVENT, Borrowed, Clients
from pykevent.sim.clocks import Clocks
from pykevent.sim.closes import Closes, Looks
from pykevent.sim.ends import Ends
from pykevent.sim.hub import Pool
from pykevent.sim.inode import InodeKevent
from pykevent.sim.kevent import RefusedError
from pykevent.sim.marks import Marks
from pykevent.sim.memory import Memories
from pykevent.sim.queue import User
from pykevent.sim.registration import Descriptors, Registry
from pykevent.sim.releases import Releases
from pykevent.sim.watches import Watches

IDENTIFY = 2 << 30 | 8 << 16 | 0xE7 << 8 | 0x7F
"""An ioctl that only the simulator itself may make: which queue a descriptor is."""

TICK = 0.01
"""Seconds between looks at files whose close nothing tells of, where somebody wants to know."""

_PATIENCE = 0.1
"""Seconds that a call waits for news of files that are queues of events themselves."""

_MAX_DEPTH = 5


class System:
    """The simulator behind the device file."""

    def __init__(self, limits: Limits) -> None:
        InodeKevent.most = limits.max_inode_events
        self.limits = limits
        self.accounts = Accounts(limits)
        self.clocks = Clocks()
        self.leaves = Pool("leaves")
        self.clients = Clients(self.leaves)
        self.nested = Pool("nested")
        self.nested.tick = partial(self._tick, nested=True)
        self.looker = Pool("looker")
        """Its thread looks at what shows only to who looks, however long that takes."""
        self.looker.tick = partial(self._tick, nested=False)
        self.descriptors = Descriptors()
        self.files = Registry(self.leaves, self.descriptors)
        self.queue_files = Registry(self.nested, self.descriptors)
        """Files that may be queues of events: to look at one may be to wait for its owner."""
        self.releases = Releases(self.leaves)
        self.looks = Looks(self.clocks)
        self.closes = Closes(self)
        self.memories = Memories()
        self.ends = Ends(self)
        self._lock = threading.Lock()
        self._watches: dict[int, Watches] = {}
        self._marks: WeakValueDictionary[tuple[int, int], Marks] = WeakValueDictionary()
        self.queues: dict[int, User] = {}
        self._numbers = itertools.count(1)
        for fd in self.clocks.filenos():
            self.leaves.add(fd, self.clocks.fired)

    # Queues

    def open(self, uid: int) -> int:
        """A new queue, by its number."""
        number = next(self._numbers)
        # Nobody's events get lost because others have too many.
        with self._lock:
            watches = self._watches.get(uid) or self._watches.setdefault(uid, Watches(self))
        self.queues[number] = User(self, self.accounts.get(uid), watches)
        return number

    def marks(self, status: os.stat_result, is_fuse: bool) -> Marks:
        """The marks on the files of an inode, whichever users watch it."""
        inode = status.st_dev, status.st_ino
        with self._lock:
            marks = self._marks.get(inode)
            if marks is None:
                marks = self._marks[inode] = Marks(status, is_fuse)
            return marks

    def close(self, number: int) -> None:
        """The end of one."""
        queue = self.queues.pop(number)
        queue.release()
        self.releases.done()

    def drain(self, pool: Pool) -> None:
        """Have what a pool was told of known."""
        if pool is self.nested:
            # To look at what others look at may be to wait for a server that does not answer.
            pool.ask(_PATIENCE)
        else:
            pool.drain()

    def sync(self, queue: User) -> None:
        """Let the queue know of all that has happened before this call."""
        self.leaves.drain()
        if queue.nested:
            self.drain(self.nested)
        self.clocks.expire()
        self.looks.look_at_all()
        if queue.has_to_look(nested=False):
            queue.look(nested=False)

    def sync_polled(self, queue: User) -> None:
        """The same for who polls the queue, perhaps by way of what it watches: no looking there."""
        self.leaves.drain()
        self.clocks.expire()
        self.looks.look_at_all()
        if queue.has_to_look(nested=False):
            queue.look(nested=False)

    def _tick(self, nested: bool) -> float | None:
        looking = [queue for queue in list(self.queues.values()) if queue.has_to_look(nested)]
        if not looking:
            return None
        begun = time.monotonic()
        for queue in looking:
            queue.look(nested)
        # No more than a twentieth of the time is spent on this.
        return max(TICK, 20 * (time.monotonic() - begun))

    # Files that are queues

    def queue_of(self, borrowed: Borrowed) -> User | None:
        """The queue of this simulator that an open file is."""
        if borrowed.kind != KEVENT:
            return None
        answer = ctypes.create_string_buffer(8)
        try:
            syscalls.ioctl(borrowed.fd, IDENTIFY, answer)
        except OSError:
            return None
        return self.queues.get(int.from_bytes(answer.raw, "little"))

    def queues_inside(
        self, borrowed: Borrowed, depth: int = 0, seen: set[int] | None = None
    ) -> tuple[User, ...]:
        """The queues that an epoll of the client's watches, as far as they can be found."""
        seen = set() if seen is None else seen
        if borrowed.anonymous != "[eventpoll]" or depth >= _MAX_DEPTH or borrowed.number in seen:
            return ()
        seen.add(borrowed.number)
        found: dict[User, None] = {}
        for number, device in _watched_by(borrowed.fd):
            if device not in (self.clients.own_device, borrowed.stat.st_dev):
                continue
            try:
                other = self.clients.borrow(borrowed.process, number)
            except RefusedError:
                continue
            try:
                if syscalls.same_file_in_epoll(os.getpid(), other.fd, borrowed.fd, number):
                    queue = self.queue_of(other)
                    if queue is not None:
                        found[queue] = None
                    elif other.kind == ANON:
                        found.update(dict.fromkeys(self.queues_inside(other, depth + 1, seen)))
            except OSError:
                continue
            finally:
                other.close()
        return tuple(found)

    @staticmethod
    def is_fuse(borrowed: Borrowed) -> bool:
        """Whether to look at a file would be to wait for another FUSE server."""
        kind = System.mounted_as(borrowed)
        if kind is not None:
            return kind.startswith("fuse")
        # Files of the kernel's own are mounted nowhere; others have been unmounted.
        link = os.readlink(f"/proc/self/fd/{borrowed.fd}")
        return not link.startswith(("anon_inode:", "/memfd:"))

    @staticmethod
    def mounted_as(borrowed: Borrowed) -> str | None:
        """What kind of file system a file is on, where we or its owner see that mounted."""
        with open(f"/proc/self/fdinfo/{borrowed.fd}") as file:
            mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        for process in ("self", borrowed.process.pid):
            with open(f"/proc/{process}/mountinfo") as file:
                for line in file:
                    if line.split()[0] == mount:
                        return line.partition(" - ")[2].split()[0]
        return None


def _watched_by(epoll: int) -> list[tuple[int, int]]:
    """The numbers and devices of what an epoll watches."""
    found = []
    with open(f"/proc/self/fdinfo/{epoll}") as file:
        for line in file:
            if not line.startswith("tfd:"):
                continue
            words = line.replace(":", ": ").split()
            fields = dict(zip(words[::2], words[1::2], strict=False))
            device = int(fields["sdev:"], 16)
            # As the kernel keeps it: 12 bits for the major number, 20 for the minor one.
            found.append((int(fields["tfd:"]), os.makedev(device >> 20, device & 0xFFFFF)))
    return found
