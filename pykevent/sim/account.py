# SPDX-License-Identifier: GPL-2.0-or-later
"""How many kevents there may be: in one queue, and in all queues of one user."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from dataclasses import dataclass, field

from pykevent.sim.kevent import RefusedError
from pykevent.sim.movers import Movers

COST = 4096
"""What the dearest kevent costs, in bytes, by a generous estimate."""

_CAP_SYS_RESOURCE = 24

Inode = tuple[int, int]
"""Device and number."""


def has_capability(pid: int, number: int) -> bool:
    """Whether a thread has a capability that counts here."""
    try:
        if not os.path.samefile(f"/proc/{pid}/ns/user", "/proc/self/ns/user"):
            return False  # whoever made a namespace has all of them there
    except OSError:
        return False
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return False


def ids_of(tid: int) -> tuple[int, int]:
    """The real user and group of a thread."""
    found = {"Uid:": 0, "Gid:": 0}
    with open(f"/proc/{tid}/status") as file:
        for line in file:
            name, *numbers = line.split()
            if name in found:
                found[name] = int(numbers[0])
    return found["Uid:"], found["Gid:"]


def limits_of(pid: int, name: str) -> tuple[float, float]:
    """The soft and the hard limit of a process, under the name that /proc has for it."""
    with open(f"/proc/{pid}/limits") as file:
        for line in file:
            if line.startswith(name):
                soft, hard = line.removeprefix(name).split()[:2]
                return float(soft.replace("unlimited", "inf")), float(
                    hard.replace("unlimited", "inf")
                )
    return 0, 0


def _default_kevents() -> int:
    """As many as a twenty-fifth of memory holds."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 25 // COST


@dataclass
class Limits:
    """The module's parameters, under the same names; 0 is their default."""

    max_queue_kevents: int = 0
    max_user_kevents: int = 0
    max_inode_events: int = 16384
    max_user_inode_events: int = 0
    max_inode_watches: int = 128

    def __post_init__(self) -> None:
        self.max_user_kevents = self.max_user_kevents or _default_kevents()
        self.max_queue_kevents = self.max_queue_kevents or self.max_user_kevents
        self.max_user_inode_events = self.max_user_inode_events or self.max_user_kevents


@dataclass
class Account:
    """The kevents of all queues of one user.  A queue counts for who opened it."""

    uid: int
    limits: Limits
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    """Queues, and files that are held though their queue may be gone."""
    kevents: int = 0
    inode_events: int = 0
    pins: int = 0
    pages: int = 0
    """Of memory, that transfers which wait still need."""
    watches: Counter[Inode] = field(default_factory=Counter)
    movers: Movers = field(default_factory=Movers)
    readers: Movers = field(default_factory=Movers)
    """Of files, which may take for ever."""
    closers: Movers = field(default_factory=Movers)
    """Of files, whose server may take as long."""

    def charge(self, in_queue: int) -> None:
        """One more kevent, in a queue that has so many; ENOSPC where a limit is reached."""
        with self.lock:
            if (
                in_queue >= self.limits.max_queue_kevents
                or self.kevents >= self.limits.max_user_kevents
            ):
                raise RefusedError(errno.ENOSPC)
            self.kevents += 1

    def uncharge(self) -> None:
        """One kevent less."""
        with self.lock:
            self.kevents -= 1

    def charge_pin(self, pid: int) -> None:
        """One more file that is held; EMFILE past what a process may have open."""
        with self.lock:
            _, most = limits_of(pid, "Max open files")
            if self.pins >= most and not has_capability(pid, _CAP_SYS_RESOURCE):
                raise RefusedError(errno.EMFILE)
            self.pins += 1

    def uncharge_pin(self) -> None:
        """One less."""
        with self.lock:
            self.pins -= 1

    def charge_pages(self, pages: int, room: float) -> bool:
        """So many more, whoever asked; false where they do not fit."""
        with self.lock:
            fits = self.pages + pages <= room
            if fits:
                self.pages += pages
            return fits

    def uncharge_pages(self, pages: int) -> None:
        """So many less."""
        with self.lock:
            self.pages -= pages

    def charge_watch(self, inode: Inode) -> None:
        """One more kevent on an inode; ENOSPC where there are too many."""
        with self.lock:
            if self.watches[inode] >= self.limits.max_inode_watches:
                raise RefusedError(errno.ENOSPC)
            self.watches[inode] += 1

    def uncharge_watch(self, inode: Inode) -> None:
        """One less."""
        with self.lock:
            self.watches[inode] -= 1
            if not self.watches[inode]:
                del self.watches[inode]

    def charge_event(self) -> bool:
        """One more inode event that waits; false where there are too many."""
        with self.lock:
            if self.inode_events >= self.limits.max_user_inode_events:
                return False
            self.inode_events += 1
            return True

    def uncharge_event(self) -> None:
        """One less."""
        with self.lock:
            self.inode_events -= 1


class Accounts:
    """Those of all users."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._accounts: dict[int, Account] = {}

    def get(self, uid: int) -> Account:
        """The account of @uid, to be put."""
        with self._lock:
            account = self._accounts.setdefault(uid, Account(uid, self.limits))
            account.users += 1
            return account

    def hold(self, account: Account) -> None:
        """It is needed once more, to be put."""
        with self._lock:
            account.users += 1

    def put(self, account: Account) -> None:
        """A queue, or a file, is done with it."""
        with self._lock:
            account.users -= 1
            if not account.users:
                del self._accounts[account.uid]
