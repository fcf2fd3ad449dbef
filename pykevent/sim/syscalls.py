# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that Python has no function for.  Each raises OSError."""

import array
import ctypes
import errno
import fcntl
import os
import platform
import struct
import termios
import threading
from collections.abc import Iterator
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
for _copy in (_libc.process_vm_readv, _libc.process_vm_writev):
    _copy.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_ulong,
    )
    _copy.restype = ctypes.c_ssize_t

_U64 = (1 << 64) - 1
_PAGE = os.sysconf("SC_PAGE_SIZE")

# Those that are the same on every architecture; the others by architecture.
_PIDFD_SEND_SIGNAL, _PIDFD_OPEN, _OPENAT2, _PIDFD_GETFD = 424, 434, 437, 438
_KCMP, _SETGROUPS = {
    "x86_64": (312, 116),
    "aarch64": (272, 159),
    "riscv64": (272, 159),
}.get(platform.machine(), (272, 159))

_IO_SETUP, _IO_SUBMIT = (206, 209) if platform.machine() == "x86_64" else (0, 2)

_KCMP_FILE, _KCMP_EPOLL_TFD = 0, 7

_STATX_KNOWN = 0x1000 | 0x4000  # AT_EMPTY_PATH, AT_STATX_DONT_SYNC
_STATX_IDENTITY = 0x4 | 0x100  # STATX_NLINK, STATX_INO
_STATX_KIND = 0x1 | 0x2 | 0x100  # STATX_TYPE, STATX_MODE, STATX_INO

_IOV_MAX = 1024
"""Pieces of memory in one call."""

_IOCB = struct.Struct("=20xI2Q24x")
"""That reads: from which descriptor, to which address, how many bytes."""

_INOTIFY_EVENT = struct.Struct("=iIII")

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x01, 0x02, 0x10

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_CLOSE_NOWRITE = 0x2, 0x4, 0x8, 0x10
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_UNMOUNT = 0x400, 0x800, 0x2000
IN_Q_OVERFLOW, IN_IGNORED, IN_ISDIR = 0x4000, 0x8000, 0x40000000
IN_MASK_ADD = 0x20000000
IN_CLOSE = IN_CLOSE_WRITE | IN_CLOSE_NOWRITE


class Status(NamedTuple):
    """What no server of a file system has to be asked for, under the names of fstat(2)."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_rdev: int


class _EpollSlot(ctypes.Structure):
    _fields_ = (("efd", ctypes.c_uint32), ("tfd", ctypes.c_uint32), ("toff", ctypes.c_uint32))


def _check(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A duplicate of the descriptor @fd of another process."""
    return _check(_libc.syscall(_PIDFD_GETFD, pidfd, fd, 0))


def pidfd_alive(pidfd: int) -> bool:
    """Whether the process has not been reaped, and its number thus not been given away."""
    return bool(
        _libc.syscall(_PIDFD_SEND_SIGNAL, pidfd, 0, None, 0) == 0
        or ctypes.get_errno() != errno.ESRCH
    )


def same_file_in_epoll(pid: int, fd: int, epoll: int, target: int) -> bool | None:
    """Whether @fd of process @pid is the open file that our @epoll watches as number @target.

    None where the epoll watches it no more: it was closed.  EBADF where @pid has no such fd.
    """
    slot = _EpollSlot(epoll, target, 0)
    order = _libc.syscall(
        _KCMP, pid, _self(), _KCMP_EPOLL_TFD, ctypes.c_ulong(fd), ctypes.byref(slot)
    )
    if order >= 0:
        return bool(order == 0)
    error = ctypes.get_errno()
    if error == errno.ENOENT:
        return None
    raise OSError(error, os.strerror(error))


def same_file(pid: int, fd: int, other_pid: int, other_fd: int) -> bool:
    """Whether two descriptors are the same open file."""
    order = _libc.syscall(
        _KCMP, pid, other_pid, _KCMP_FILE, ctypes.c_ulong(fd), ctypes.c_ulong(other_fd)
    )
    return _check(order) == 0


def _self() -> int:
    return os.getpid()


def status(fd: int) -> Status:
    """What an open file is, as far as is known here: that does not change."""
    answer = ctypes.create_string_buffer(256)
    _check(_libc.statx(fd, b"", _STATX_KNOWN, _STATX_KIND, answer))
    mode, number, *devices = struct.unpack_from("=28xH2xQ88x4I", answer)
    return Status(mode, number, os.makedev(*devices[2:]), os.makedev(*devices[:2]))


def identity(path: bytes, fd: int = -1) -> tuple[tuple[int, int], int]:
    """The device and the number of an inode, and how many names it has, as far as is known here.

    No file system's server is asked.  An empty @path is @fd itself.
    """
    status = ctypes.create_string_buffer(256)
    _check(_libc.statx(fd, path, _STATX_KNOWN, _STATX_IDENTITY, status))
    (names,) = struct.unpack_from("=I", status, 16)
    number, major, minor = struct.unpack_from("=Q96xII", status, 32)
    return (os.makedev(major, minor), number), names


def file_system(fd: int) -> int:
    """Which kind of file system a file is on; its server is asked, if it has one."""
    status = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(fd, status))
    return ctypes.c_ulong.from_buffer(status).value


class _Reads:
    """What io_submit(2) takes to begin reads, of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = self._context = 0

    def context(self) -> int:
        """Its number, which a forked process has to have another of."""
        with self._lock:
            if self._pid != os.getpid():
                context = ctypes.c_ulong()
                _check(_libc.syscall(_IO_SETUP, 128, ctypes.byref(context)))
                self._pid, self._context = os.getpid(), context.value
            return self._context


_reads = _Reads()


def reads_into_iterators(fd: int) -> bool | None:
    """Whether a file has the operation read_iter, which all have that are kept somewhere.

    A read is asked for that fails: for want of that, or since its memory is nobody's.  The file is
    not read.  None where that cannot be found out.
    """
    asked = _IOCB.pack(fd, _U64 + 1 - _PAGE, 1)
    first = ctypes.c_char_p(asked)
    try:
        _check(_libc.syscall(_IO_SUBMIT, ctypes.c_ulong(_reads.context()), 1, ctypes.byref(first)))
    except OSError as error:
        return {errno.EINVAL: False, errno.EFAULT: True}.get(error.errno or 0)
    return None


def inotify_init() -> int:
    """A new inotify instance, which does not block."""
    return _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_add_watch(instance: int, path: bytes, mask: int) -> int:
    """Watch what @path leads to; returns the watch's number."""
    return _check(_libc.inotify_add_watch(instance, path, ctypes.c_uint32(mask)))


def inotify_rm_watch(instance: int, watch: int) -> None:
    """End a watch."""
    _check(_libc.inotify_rm_watch(instance, watch))


def inotify_read(instance: int) -> Iterator[list[tuple[int, int, int, bytes]]]:
    """What was told so far, some at a time: the watch, the mask, the cookie and the name of each.

    What is told meanwhile is for the next time, or there might be no end.
    """
    left = array.array("i", [0])
    fcntl.ioctl(instance, termios.FIONREAD, left)
    while left[0] > 0:
        try:
            data = os.read(instance, 65536)
        except BlockingIOError:
            return
        left[0] -= len(data)
        events: list[tuple[int, int, int, bytes]] = []
        offset = 0
        while offset < len(data):
            watch, mask, cookie, length = _INOTIFY_EVENT.unpack_from(data, offset)
            offset += _INOTIFY_EVENT.size + length
            events.append((watch, mask, cookie, data[offset - length : offset].rstrip(b"\0")))
        yield events


def timerfd_create(clock: int) -> int:
    """A timer of that clock, which does not block."""
    return _check(_libc.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC))


def timerfd_settime(fd: int, when: int) -> None:
    """Let it expire at that point in time, in ns."""
    times = struct.pack("=qqqq", 0, 0, when // 10**9, when % 10**9)
    _check(_libc.timerfd_settime(fd, 1, times, None))


def setfsuid(uid: int) -> int:
    """The calling thread looks at files as @uid; returns who it was."""
    return int(_libc.setfsuid(uid))


def setfsgid(gid: int) -> int:
    """The same for the group."""
    return int(_libc.setfsgid(gid))


def setgroups(groups: list[int]) -> None:
    """The supplementary groups of the calling thread alone."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    _check(_libc.syscall(_SETGROUPS, len(groups), array))


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """open(2) from a directory, with restrictions on the way."""
    how = struct.pack("=QQQ", flags, 0, resolve)
    return _check(_libc.syscall(_OPENAT2, directory, path, how, len(how)))


def ioctl(fd: int, number: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """ioctl(2), without the interpreter's lock."""
    return _check(_libc.ioctl(fd, ctypes.c_ulong(number), ctypes.byref(buffer)))


def read_memory(tid: int, address: int, data: int, size: int) -> None:
    """Copy a thread's memory to ours at @data, as far as it can be read."""
    ours, theirs = struct.pack("=QQ", data, size), struct.pack("=QQ", address & _U64, size)
    _libc.process_vm_readv(tid, ours, 1, theirs, 1, 0)


def may_write(tid: int, address: int, data: int, size: int) -> bool:
    """Whether a thread's memory can be written, where it has what we have at @data.

    A byte of each page is written as it is.  Where we may not look it is taken for good.
    """
    if not size:
        return True
    offsets = [0, *range(_PAGE - address % _PAGE, size, _PAGE), size - 1]
    ours = struct.pack(f"={2 * len(offsets)}Q", *(n for at in offsets for n in (data + at, 1)))
    theirs = struct.pack(
        f"={2 * len(offsets)}Q", *(n for at in offsets for n in (address + at & _U64, 1))
    )
    written = _libc.process_vm_writev(tid, ours, len(offsets), theirs, len(offsets), 0)
    return bool(written == len(offsets) or (written < 0 and ctypes.get_errno() != errno.EFAULT))


def read_process(pid: int, address: int, size: int) -> bytes:
    """A copy of a process's memory: all of it, or what comes before what cannot be read."""
    data = ctypes.create_string_buffer(size)
    ours = struct.pack("=QQ", ctypes.addressof(data), size)
    theirs = struct.pack("=QQ", address & _U64, size)
    count = _check(_libc.process_vm_readv(pid, ours, 1, theirs, 1, 0))
    return data.raw[:count]


def write_process(pid: int, address: int, data: bytes) -> int:
    """Write to a process's memory; returns how many bytes could be written."""
    ours = struct.pack(
        "=QQ", ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0, len(data)
    )
    theirs = struct.pack("=QQ", address & _U64, len(data))
    return _check(_libc.process_vm_writev(pid, ours, 1, theirs, 1, 0))


def touch_process(pid: int, address: int, size: int, write: bool) -> None:
    """OSError where a process's memory cannot be read, or with @write written.

    A byte of each page is looked at, and written as it is.
    """
    after = address + size
    pages = range(address - address % _PAGE, after, _PAGE) if size else range(0)
    data = ctypes.create_string_buffer(_IOV_MAX)
    for first in range(0, len(pages), _IOV_MAX):
        bytes_at = [max(page, address) for page in pages[first : first + _IOV_MAX]]
        count = len(bytes_at)
        ours = struct.pack("=QQ", ctypes.addressof(data), count)
        theirs = struct.pack(f"={2 * count}Q", *(n for at in bytes_at for n in (at & _U64, 1)))
        done = _check(_libc.process_vm_readv(pid, ours, 1, theirs, count, 0))
        if done == count and write:
            done = _check(_libc.process_vm_writev(pid, ours, 1, theirs, count, 0))
        if done < count:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
