# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of clients, for transfers.

While a client is in the middle of the call that asks for a transfer, its memory is read and written
as by process_vm_readv(2), which respects its protection.  A transfer that waits has to meet the
same memory later, whatever the process has become by then: /proc/PID/mem, once opened, is that of
the program that ran at the time, and empty when that has gone.  /proc/PID/maps is the same.

Nothing is pinned.  Pages are counted against RLIMIT_MEMLOCK as if they were: those of the process
and, since one that forks begins at 0 again, those of the queue's user.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import platform
import threading
from typing import TYPE_CHECKING, Protocol

from pykevent.sim import syscalls
from pykevent.sim.account import Account, has_capability, limits_of
from pykevent.sim.client import refusal
from pykevent.sim.kevent import RefusedError

if TYPE_CHECKING:
    from pykevent.sim.client import Process

_log = logging.getLogger("pykevent.sim")

PAGE = os.sysconf("SC_PAGE_SIZE")
_CAP_IPC_LOCK = 14
_END = (1 << 47) - PAGE if platform.machine() == "x86_64" else 1 << 48
"""Where no memory of a process is, with the usual tables of pages."""
_MAPS = 1 << 16
"""Bytes of the maps that are read at once."""


class Space(Protocol):
    """Memory of a client.  RefusedError where none of what is wanted is there: EFAULT."""

    def read(self, address: int, size: int) -> bytes:
        """What is there, up to what cannot be read."""
        ...

    def write(self, address: int, data: bytes) -> int:
        """Write, up to what cannot be written; returns how many bytes that was."""
        ...


def check_range(address: int, size: int) -> None:
    """EFAULT where no process has memory."""
    if address + size > _END:
        raise RefusedError(errno.EFAULT)


def pages_of(address: int, size: int) -> int:
    """How many pages that is."""
    return (address % PAGE + size + PAGE - 1) // PAGE if size else 0


class Caller:
    """The memory of a process that is in the middle of a call."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def read(self, address: int, size: int) -> bytes:
        """As its protection allows it."""
        try:
            return syscalls.read_process(self._pid, address, size)
        except OSError as error:
            raise _refused(self._pid, error) from None

    def write(self, address: int, data: bytes) -> int:
        """As its protection allows it."""
        try:
            return syscalls.write_process(self._pid, address, data)
        except OSError as error:
            raise _refused(self._pid, error) from None

    def check(self, address: int, size: int, write: bool) -> None:
        """EFAULT where not all of it can be read, or with @write written."""
        try:
            syscalls.touch_process(self._pid, address, size, write)
        except OSError as error:
            raise _refused(self._pid, error) from None


class Memory:
    """The memory that a process had when this was opened, in the middle of a call.

    It may be slow to look at: whoever makes it wait waits, and no other process.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.users = 0
        self.pages = 0
        """That are counted."""
        self._maps = -1
        self._lock = threading.Lock()
        """Of what has a position in the maps."""
        self._program = _program(process.pid)
        try:
            self._fd = os.open(f"/proc/{process.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _refused(process.pid, error) from None
        if not process.alive():
            self.close()
            raise RefusedError(errno.ESRCH)

    def close(self) -> None:
        """Nobody needs it any more."""
        os.close(self._fd)
        if self._maps >= 0:
            os.close(self._maps)

    def keep_maps(self) -> None:
        """Its protection is wanted later; its process is in the middle of a call."""
        with self._lock:
            if self._maps >= 0:
                return
            try:
                self._maps = os.open(f"/proc/{self.process.pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise _refused(self.process.pid, error) from None

    def current(self) -> bool:
        """Whether it is that of its process, which is in the middle of a call.

        Somebody may have kept the memory of a program that has made room for another.
        """
        return self._program == _program(self.process.pid) and not self.ended()

    def ended(self) -> bool:
        """Whether the program has."""
        try:
            return not os.pread(self._fd, 1, 0)
        except OSError:
            return False

    def read(self, address: int, size: int) -> bytes:
        """Whatever the protection is by now."""
        try:
            data = os.pread(self._fd, size, address)
        except OSError:
            data = b""
        if size and not data:
            raise RefusedError(errno.EFAULT)
        return data

    def write(self, address: int, data: bytes) -> int:
        """Whatever the protection is by now."""
        try:
            written = os.pwrite(self._fd, data, address)
        except OSError:
            written = 0
        if data and not written:
            raise RefusedError(errno.EFAULT)
        return written

    def writable(self, address: int, size: int) -> bool:
        """Whether the protection of all of it allows that now."""
        after = address + size
        rest, position = b"", 0
        with self._lock:
            while address < after:
                try:
                    data = os.pread(self._maps, _MAPS, position)
                except OSError:
                    return False
                if not data:
                    return False
                position += len(data)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    bounds, rights = line.split(maxsplit=2)[:2]
                    begins, ends = (int(bound, 16) for bound in bounds.split(b"-"))
                    if ends <= address:
                        continue
                    if begins > address or rights[1:2] != b"w":
                        return False
                    address = ends
                    if address >= after:
                        break
        return True


class Current:
    """The memory of a process that may be in the middle of a call, or not exist any more."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def read(self, address: int, size: int) -> bytes:
        """What is there."""
        return self._memory.read(address, size)

    def write(self, address: int, data: bytes) -> int:
        """Write all, or nothing where the protection does not allow it now."""
        # The process itself is not touched: it may be another program by now, one with privileges.
        if not self._memory.writable(address, len(data)):
            raise RefusedError(errno.EFAULT)
        return self._memory.write(address, data)


class Memories:
    """Those of all processes that have a transfer that waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Under it no process is looked at: one that likes may have us wait."""
        self._memories: dict[Process, Memory] = {}

    def charge(self, account: Account, process: Process, tid: int, pages: int) -> Memory:
        """Count pages of memory that is needed later; ENOMEM past the limit of who asks."""
        memory = self._get(process)
        try:
            if pages and not self._count(account, memory, pages, *_room(process.pid)):
                if not has_capability(tid, _CAP_IPC_LOCK):
                    raise RefusedError(errno.ENOMEM)
                self._count(account, memory, pages, math.inf, math.inf)
        except BaseException:
            self.uncharge(account, memory, 0)
            raise
        return memory

    def _get(self, process: Process) -> Memory:
        """The memory of who is in the middle of a call, with one user more."""
        with self._lock:
            known = self._memories.get(process)
            if known is not None:
                known.users += 1
        if known is not None:
            current = False
            try:
                current = known.current()
            finally:
                if not current:
                    self._put(known)
            if current:
                return known
        fresh = Memory(process)
        with self._lock:
            memory = self._memories.get(process)
            # Another thread of it may have been faster.
            if memory is None or memory is known:
                memory = self._memories[process] = fresh
            memory.users += 1
        if memory is not fresh:
            fresh.close()
        return memory

    def _count(
        self, account: Account, memory: Memory, pages: int, room: float, of_user: float
    ) -> bool:
        """Count them, if they fit."""
        if not account.charge_pages(pages, of_user):
            return False
        with self._lock:
            fits = memory.pages + pages <= room
            if fits:
                memory.pages += pages
        if not fits:
            account.uncharge_pages(pages)
        return fits

    def uncharge(self, account: Account, memory: Memory, pages: int) -> None:
        """They are not needed any more."""
        account.uncharge_pages(pages)
        with self._lock:
            memory.pages -= pages
        self._put(memory)

    def _put(self, memory: Memory) -> None:
        """One user less."""
        with self._lock:
            memory.users -= 1
            if memory.users:
                return
            if self._memories.get(memory.process) is memory:
                del self._memories[memory.process]
        memory.close()


def _room(pid: int) -> tuple[float, float]:
    """How many pages a process may have pinned, besides those that others did; and its user."""
    limit, _ = limits_of(pid, "Max locked memory")
    # What is unlimited is no number once it was divided so.
    most = limit if limit == math.inf else limit // PAGE
    return most - _pinned(pid), most


def _program(pid: int) -> bytes:
    """What the kernel has told the program of a process, which no two runs are told alike.

    Among it is where the program is in memory.
    """
    try:
        with open(f"/proc/{pid}/auxv", "rb") as file:
            return file.read()
    except OSError as error:
        raise _refused(pid, error) from None


def _pinned(pid: int) -> int:
    """Pages that others have pinned for a process."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmPin:"):
                return int(line.split()[1]) * 1024 // PAGE
    return 0


_warned = False


def _refused(pid: int, error: OSError) -> RefusedError:
    """What is told the client; where it is for want of permission somebody can do something."""
    global _warned
    if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return RefusedError(error.errno or errno.EFAULT)
    if not _warned:
        _warned = True
        _log.warning("process %d: %s", pid, refusal(error, "its memory"))
    return RefusedError(errno.EPERM)
