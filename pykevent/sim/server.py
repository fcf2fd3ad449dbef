# SPDX-License-Identifier: GPL-2.0-or-later
"""The FUSE side: a directory with the device in it.

fusepy has no poll operation, and copies more than an ioctl needs: this adds the one and replaces
what is called often, from outside the library.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

import fuse  # type: ignore[import-untyped]

from pykevent.sim import device, syscalls
from pykevent.sim.client import Client
from pykevent.sim.interrupts import Interrupts
from pykevent.sim.ioctl import ioctl, is_known
from pykevent.sim.queue import User
from pykevent.sim.system import IDENTIFY, System
from pykevent.sim.threads import stay_known

_log = logging.getLogger("pykevent.sim")

DEVICE, PID = "/kevent", "/pid"
_IOC_WRITE = 1 << 30
LIBFUSE = 29
"""The version of libfuse that there is a fusepy for."""

_lib = ctypes.CDLL(fuse._libfuse_path)


class _Context(ctypes.Structure):
    """libfuse's struct fuse_context_i: what fuse_get_context() points to, and the request."""

    _fields_ = (
        ("fuse", ctypes.c_void_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("pid", ctypes.c_int32),
        ("private_data", ctypes.c_void_p),
        ("umask", ctypes.c_uint32),
        ("request", ctypes.c_void_p),
    )


_lib.fuse_get_context.restype = ctypes.POINTER(_Context)
_lib.fuse_notify_poll.argtypes = (ctypes.c_void_p,)
_lib.fuse_pollhandle_destroy.argtypes = (ctypes.c_void_p,)

_Poll = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(fuse.fuse_file_info),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint),
)


class _Operations(ctypes.Structure):
    """fusepy's table of operations, and the one that libfuse 2.9 has behind it."""

    _fields_ = (*fuse.fuse_operations._fields_, ("poll", _Poll))


class _Names:
    """The operations that there are, for fusepy to ask for."""

    use_ns = True
    # What is done with an open file has no path, which libfuse would keep locked all the while.
    flag_nullpath_ok = flag_nopath = True
    getattr = readdir = open = read = write = flush = release = ioctl = poll = init = True
    truncate = True


class _Poller:
    """Who polls a queue's descriptor, as the kernel has announced it."""

    def __init__(self, queue: User) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._handle: int | None = None
        queue.tell = self.tell

    def arm(self, handle: int | None) -> None:
        """Tell this one of the next event, and the previous one no more."""
        with self._lock:
            handle, self._handle = self._handle, handle
        if handle:
            _lib.fuse_pollhandle_destroy(handle)

    def end(self) -> None:
        """The queue is closed."""
        self.arm(None)
        self._queue.tell = lambda: None

    def tell(self) -> None:
        """There is something new: once told, who is still interested polls again."""
        if self._handle:
            with self._lock:
                handle, self._handle = self._handle, None
            if handle:
                _lib.fuse_notify_poll(handle)
                _lib.fuse_pollhandle_destroy(handle)


class Server(fuse.FUSE):  # type: ignore[misc]
    """A mount; serves it until it is unmounted or `stop` is called.

    `begins` is called before it is mounted, `ready` once it is served, `unused` whenever the last
    open queue was closed.
    """

    def __init__(
        self,
        system: System,
        mountpoint: str,
        begins: Callable[[Server], None],
        ready: Callable[[], None],
        unused: Callable[[], None],
        **options: Any,
    ) -> None:
        version = _lib.fuse_version()
        if version != LIBFUSE:
            raise RuntimeError(f"libfuse {version / 10} is not the 2.9 that fusepy is for")
        self.system = system
        self.interrupts = Interrupts(_lib)
        self._mountpoint = mountpoint
        self._ready = ready
        self._unused = unused
        self._pollers: dict[int, _Poller] = {}
        self._begun = time.time()
        begins(self)
        fuse.fuse_operations = _Operations
        super().__init__(
            _Names(),
            mountpoint,
            foreground=True,
            fsname="kevent",
            subtype="pykevent",
            auto_unmount=True,
            atomic_o_trunc=True,
            default_permissions=True,
            **options,
        )

    @staticmethod
    def _wrapper(call: Callable[..., int], *arguments: Any) -> int:
        """Through which fusepy makes every call."""
        stay_known()
        return int(fuse.FUSE._wrapper(call, *arguments))

    # The directory

    def init(self, connection: int) -> int:
        """libfuse is about to serve: from now on threads may be started."""
        threading.Thread(target=self._settle_in, daemon=True).start()
        return 0

    def _settle_in(self) -> None:
        try:
            self.system.clients.own_device = os.stat(self._mountpoint).st_dev
            self.system.releases.watch(self._mountpoint + DEVICE, self._mountpoint)
            self._ready()
        except OSError as error:
            _log.error("%s: %s", self._mountpoint, error)
            os._exit(1)

    def getattr(self, path: bytes, buffer: Any) -> int:
        """stat(2)."""
        return self._status(path.decode(errors="replace"), buffer)

    def fgetattr(self, path: bytes | None, buffer: Any, fip: Any) -> int:
        """fstat(2)."""
        return self._status(DEVICE if fip.contents.fh else PID, buffer)

    def _status(self, name: str, buffer: Any) -> int:
        ctypes.memset(buffer, 0, ctypes.sizeof(fuse.c_stat))
        status = buffer.contents
        if name == "/":
            status.st_mode, status.st_nlink = stat.S_IFDIR | 0o755, 2
        elif name == DEVICE:
            # poll(2) takes it for a file that is never empty, and so do ls and cp.
            status.st_mode, status.st_nlink = stat.S_IFREG | 0o666, 1
        elif name == PID:
            status.st_mode, status.st_nlink = stat.S_IFREG | 0o444, 1
            status.st_size = len(self._pid())
        else:
            return -errno.ENOENT
        status.st_uid, status.st_gid = self.system.clients.me
        for each in (status.st_atimespec, status.st_mtimespec, status.st_ctimespec):
            each.tv_sec = int(self._begun)
        return 0

    def readdir(self, path: bytes, buffer: Any, filler: Any, offset: int, fip: Any) -> int:
        """Names in the directory."""
        for name in (b".", b"..", DEVICE[1:].encode(), PID[1:].encode()):
            filler(buffer, name, None, 0)
        return 0

    @staticmethod
    def _pid() -> bytes:
        return b"%d\n" % os.getpid()

    # The device

    def open(self, path: bytes, fip: Any) -> int:
        """open(2): each is a queue."""
        info = fip.contents
        info.direct_io = 1
        if path == DEVICE.encode():
            info.nonseekable = 1
            info.fh = self.system.open(_lib.fuse_get_context().contents.uid)
            self._pollers[info.fh] = _Poller(self.system.queues[info.fh])
            return 0
        info.fh = 0
        return 0 if path == PID.encode() else -errno.ENOENT

    def flush(self, path: bytes, fip: Any) -> int:
        """close(2) of one descriptor; there may be others."""
        return 0

    def release(self, path: bytes, fip: Any) -> int:
        """The last close."""
        number = fip.contents.fh
        if number:
            self._pollers.pop(number).end()
            self.system.close(number)
            if not self.system.queues:
                self._unused()
        return 0

    def _call(self) -> device.Call:
        context = _lib.fuse_get_context().contents
        client = Client(self.system.clients, context.pid, context.uid, context.gid)
        return device.Call(client, context.request, self.interrupts)

    def read(self, path: bytes, buffer: Any, size: int, offset: int, fip: Any) -> int:
        """read(2)."""
        info = fip.contents
        if not info.fh:
            data = self._pid()[offset : offset + size]
        else:
            queue = self.system.queues[info.fh]
            nonblocking = bool(info.flags & os.O_NONBLOCK)
            data = device.read(queue, size, nonblocking, self._call())
        ctypes.memmove(buffer, data, len(data))
        return len(data)

    def write(self, path: bytes, buffer: Any, size: int, offset: int, fip: Any) -> int:
        """write(2): there is nothing to write."""
        return -errno.EINVAL

    def truncate(self, path: bytes, length: int) -> int:
        """truncate(2) and ftruncate(2): there is nothing to cut off; open(2) with O_TRUNC may."""
        return -errno.EINVAL

    def ftruncate(self, path: bytes, length: int, fip: Any) -> int:
        """The same of an open file."""
        return -errno.EINVAL

    def poll(self, path: bytes, fip: Any, handle: int | None, revents: Any) -> int:
        """poll(2)."""
        number = fip.contents.fh
        if not number:
            revents[0] = 0x41
            return 0
        if handle:
            self._pollers[number].arm(handle)
        revents[0] = device.polled(self.system.queues[number])
        return 0

    def ioctl(
        self, path: bytes, number: int, argument: int | None, fip: Any, flags: int, data: int | None
    ) -> int:
        """ioctl(2)."""
        handle = fip.contents.fh
        queue = self.system.queues.get(handle)
        number &= 0xFFFFFFFF
        size = number >> 16 & 0x3FFF
        tid = _lib.fuse_get_context().contents.pid
        if data is not None and not number & _IOC_WRITE:
            # What is handed back whatever happens: it must not be what others had there before.
            ctypes.memset(data, 0, size)
        if queue is not None and number == IDENTIFY:
            return self._identify(handle, data)
        if queue is None or not is_known(number):
            if data is not None:
                syscalls.read_memory(tid, argument or 0, data, size)
            return -errno.ENOTTY
        call = self._call()
        uid = call.client.uid
        if not self.interrupts.begin(uid):
            return -errno.ENOMEM
        try:
            if data is None:
                return ioctl(queue, number, bytearray(), call)
            # The answer is written when all is done: what cannot be written must not be done.
            if not syscalls.may_write(tid, argument or 0, data, size):
                return -errno.EFAULT
            buffer = bytearray(ctypes.string_at(data, size))
            result = ioctl(queue, number, buffer, call)
            ctypes.memmove(data, bytes(buffer), size)
            return result
        finally:
            self.interrupts.end(uid)

    @staticmethod
    def _is_our_own() -> bool:
        """Whether it is a thread of ours that calls."""
        return os.path.exists(f"/proc/self/task/{_lib.fuse_get_context().contents.pid}")

    def _identify(self, number: int, data: int | None) -> int:
        if data is None or not self._is_our_own():
            return -errno.ENOTTY
        ctypes.memmove(data, number.to_bytes(8, "little"), 8)
        return 0
