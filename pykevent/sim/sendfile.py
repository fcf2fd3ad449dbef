# SPDX-License-Identifier: GPL-2.0-or-later
"""NAIO SENDFILE: bytes of the client, a part of a file, and more bytes, to a socket.

The file is held, as on the module.  What of it is in memory is read by whoever moves the transfer.
What is not is read by a thread of the user's readers, which may take for ever: nobody waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import socket
import stat
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pykevent.abi import SENDFILE, SENDFILE_ALL, SENDFILE_EXTRA
from pykevent.sim import syscalls
from pykevent.sim.client import INT_MAX, KEVENT, Borrowed, Client
from pykevent.sim.kevent import ONESHOT, RefusedError, Request
from pykevent.sim.lanes import BLOCKED, ENDED, MORE, Lane
from pykevent.sim.memory import Caller, check_range
from pykevent.sim.moving import send_bytes
from pykevent.sim.transfer import Transfer

if TYPE_CHECKING:
    from pykevent.sim.queue import User

_S64_MAX = (1 << 63) - 1
_PIECE = 1 << 16
"""Bytes that are read at once."""
_PIECES = 16
"""How many are sent in one go."""
_LATER = (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL)
"""What a read says that does not wait, where it would have to, or cannot promise not to."""
_SECTOR = 512
"""Bytes of which a device has no parts."""
_VIEWS = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x62656570: "configfs",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x07655821: "resctrl",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x5A3C69F0: "apparmorfs",
    0xF97CFF8C: "selinuxfs",
    0x43415D53: "smackfs",
    0x42494E4D: "binfmt_misc",
    0x19800202: "mqueue",
    0x6E736673: "nsfs",
    0x50494446: "pidfs",
    0x5345434D: "memfd_secret",
    0xCAFE4A11: "bpf",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0x65735543: "fusectl",
}
"""File systems, as statfs(2) has them, whose files are what the kernel shows whoever reads, or that
have none which it could send.
"""
_DISK, _FUSE = 0, 0x65735546
_LOCAL = {
    _DISK: "a disk's",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x958458F6: "hugetlbfs",
}
"""Those that have no server, whose files are closed without waiting."""


def check_sendfile(request: Request) -> None:
    """Refuse what leads to no ``struct kevent_sendfile``."""
    if not SENDFILE.size <= request.param1 <= SENDFILE.size + SENDFILE_EXTRA:
        raise RefusedError(errno.EINVAL)


class HeldFile:
    """A file of a client, until it was sent."""

    def __init__(self, fd: int, user: User, local: bool) -> None:
        self._fd = fd
        self._account = user.account
        self._accounts = user.system.accounts
        self._accounts.hold(self._account)
        self._local = local
        """To close it is to wait for nobody."""
        self._lock = threading.Lock()
        self._lane: Lane | None = None
        """To be told; None where nobody wants anything of the file any more."""
        self._reading = False
        self._number = 0
        """Of the call that reads."""
        self._result: bytes | OSError | None = None

    def read(self, position: int, size: int, lane: Lane) -> bytes | None:
        """Some bytes, none at the end, or None where @lane is kicked when they are there."""
        with self._lock:
            if self._reading:
                return None
            result, self._result = self._result, None
            if isinstance(result, OSError):
                raise result
            if result is not None:
                return result
            direct = bool(fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_DIRECT)
            if not direct:
                buffer = bytearray(size)
                try:
                    count = os.preadv(self._fd, [buffer], position, os.RWF_NOWAIT)
                    return bytes(buffer[:count])
                except OSError as error:
                    if error.errno not in _LATER:
                        raise
            read = _read_direct if direct else os.pread
            call = partial(self._read, read, size, position)
            self._number = self._account.readers.start(call)
            self._reading = True
            self._lane = lane
        return None

    def _read(self, read: Callable[[int, int, int], bytes], size: int, position: int) -> None:
        result: bytes | OSError
        try:
            result = read(self._fd, size, position)
        except OSError as error:
            # One that would have its lane wait: nobody would call.
            blocks = isinstance(error, BlockingIOError)
            result = OSError(errno.EIO, os.strerror(errno.EIO)) if blocks else error
        with self._lock:
            self._reading = False
            self._result = result
            lane = self._lane
        if lane is None:
            self._close()
        else:
            lane.kick()

    def let_go(self) -> None:
        """Nobody wants it any more; whoever reads it closes it."""
        with self._lock:
            self._lane = None
            if self._reading and not self._account.readers.cancel(self._number):
                return
        if self._local:
            self._close()
        else:
            # That, too, may be to wait for a server, but not for those who read.
            self._account.closers.start(self._close)

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # its server may have died
            os.close(self._fd)
        self._account.uncharge_pin()
        self._accounts.put(self._account)


class SendfileKevent(Transfer):
    """A transfer from a file."""

    __slots__ = ("_after", "_all", "_file", "_out", "_over", "_position", "_suffix")

    def __init__(self, user: User, request: Request) -> None:
        super().__init__(user, request)
        self.flags |= ONESHOT
        self._file: HeldFile | None = None
        self._position = self._after = 0
        """The file is sent from one to the other."""
        self._all = self._over = False
        self._out = self._suffix = b""
        """What is to be sent now, and what comes last."""

    def open(self, request: Request, client: Client) -> None:
        """Read all that the request leads to, and hold the file."""
        address, size = request.param0, request.param1
        check_range(address, size)
        given = Caller(client.process.pid).read(address, size)
        if len(given) < SENDFILE.size:
            raise RefusedError(errno.EFAULT)
        offset, length, number, flags, prefix, suffix = SENDFILE.unpack_from(given)
        self._all = length == SENDFILE_ALL
        if (
            flags
            or prefix + suffix != size - SENDFILE.size
            or offset > _S64_MAX
            or (not self._all and length > _S64_MAX - offset)
        ):
            raise RefusedError(errno.EINVAL)
        if len(given) < size:
            raise RefusedError(errno.EFAULT)
        self._position = offset
        self._after = _S64_MAX if self._all else offset + length
        self._out = given[SENDFILE.size : SENDFILE.size + prefix]
        self._suffix = given[SENDFILE.size + prefix :]
        self._hold(number, client)

    def _hold(self, number: int, client: Client) -> None:
        borrowed = client.borrow(number if number >= 0 else INT_MAX + 1)
        try:
            if not _may_be_read(borrowed.fd):
                raise RefusedError(errno.EBADF)
            if not stat.S_ISREG(borrowed.stat.st_mode) or borrowed.kind == KEVENT:
                raise RefusedError(errno.EINVAL)
            kind = self._file_system(borrowed)
            # Others are shown, too, of which none is known here by its number.
            if kind in _VIEWS or syscalls.reads_into_iterators(borrowed.fd) is False:
                raise RefusedError(errno.EINVAL)
            self.user.system.descriptors.check()
            self.user.account.charge_pin(client.process.pid)
        except BaseException:
            borrowed.close()
            raise
        self._file = HeldFile(borrowed.fd, self.user, kind in _LOCAL)

    def _file_system(self, borrowed: Borrowed) -> int:
        """Which kind of file system a file is on, as statfs(2) has it."""
        if os.major(borrowed.stat.st_dev):
            return _DISK
        # Where that is seen, no server of FUSE is asked, who might not answer.
        kind = self.user.system.mounted_as(borrowed)
        if kind is not None and kind.partition(".")[0] == "fuse":
            return _FUSE
        return syscalls.file_system(borrowed.fd)

    def let_go(self) -> None:
        """The file is not needed any more."""
        file, self._file = self._file, None
        if file is not None:
            file.let_go()

    def move(self, sock: socket.socket) -> int:
        """Send some pieces."""
        for _ in range(_PIECES):
            if len(self._out) < _PIECE and not self._over and not self._fill() and not self._out:
                return BLOCKED
            if not self._out:
                return ENDED
            sent = send_bytes(sock, self._out, self._sender)
            self._moved += sent
            self._out = self._out[sent:]
        return MORE

    def _fill(self) -> bool:
        """What comes next of the file, and after it; false where it is not there yet."""
        assert self._file is not None
        assert self._lane is not None
        size = min(self._after - self._position, _PIECE)
        data = self._file.read(self._position, size, self._lane) if size else b""
        if data is None:
            return False
        self._position += len(data)
        self._out += data
        if data and self._position < self._after:
            return True
        self._over = True
        if self._all or self._position == self._after:
            self._out += self._suffix
        return True


def _read_direct(fd: int, size: int, position: int) -> bytes:
    """As os.pread(), of a file that is read in whole blocks, into memory that begins with one."""
    unit = min(max(os.fstat(fd).st_blksize, mmap.PAGESIZE), _PIECE)
    at = position - position % unit
    skip = position - at
    room = min(skip + size + -(skip + size) % unit, _PIECE - _PIECE % unit, _S64_MAX - at)
    buffer = mmap.mmap(-1, room)
    got = 0
    while got <= skip:
        count = os.preadv(fd, [memoryview(buffer)[got:]], at + got)
        got += count
        if not count or count % _SECTOR:
            break  # there is no more
    return buffer[skip : min(got, skip + size)]


def _may_be_read(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR)
