# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that use the simulator: their descriptors, their paths, their permissions.

A descriptor is borrowed by pidfd_getfd(2) for as long as a call takes, from the process that makes
the call and no other, so that nobody can have anything looked into but what is open at home.  No
borrowed descriptor outlives the call: it would keep the client's file open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator

from pykevent.abi import FileKind
from pykevent.sim import syscalls
from pykevent.sim.hub import Pool
from pykevent.sim.kevent import RefusedError

_log = logging.getLogger("pykevent.sim")

YAMA = "/proc/sys/kernel/yama/ptrace_scope"
INT_MAX = (1 << 31) - 1
_PATH_FLAGS = os.O_PATH | os.O_CLOEXEC
_DESCRIPTOR = re.compile(rb"/(?:proc/self|proc/thread-self|dev)/fd/(0|[1-9][0-9]{0,8})")
"""A path that is an open file of who says it."""

SOCKET, PIPE, ANON = int(FileKind.SOCKET), int(FileKind.PIPE), int(FileKind.ANON)
PTY_SLAVE, PTY_MASTER = int(FileKind.PTY_SLAVE), int(FileKind.PTY_MASTER)
FIFO, KEVENT, OTHER = int(FileKind.FIFO), int(FileKind.KEVENT), int(FileKind.OTHER)

_LEAVES = {"[eventfd]", "[timerfd]", "[signalfd]", "inotify"}
"""Anonymous files that are no queues of other events, as /proc names them."""


def _devices() -> tuple[int, int]:
    """The devices that pipes and anonymous files are on."""
    ends = os.pipe()
    event = os.eventfd(0)
    try:
        return os.fstat(ends[0]).st_dev, os.fstat(event).st_dev
    finally:
        for fd in (*ends, event):
            os.close(fd)


_PIPE_DEVICE, _ANON_DEVICE = _devices()


class Process:
    """A process that was seen; a pidfd says whether its number is still its own."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    def alive(self) -> bool:
        """Whether the number still means this process."""
        return syscalls.pidfd_alive(self.pidfd)

    def __del__(self) -> None:
        os.close(self.pidfd)


class Borrowed:
    """An open file of a client, in our hands for a moment."""

    def __init__(self, fd: int, process: Process, number: int, own_device: int) -> None:
        self.fd = fd
        self.process = process
        self.number = number
        self.stat = syscalls.status(fd)
        self._own_device = own_device
        self._anonymous: str | None = None

    def close(self) -> None:
        """Give it back; that its server is not content with that is nobody's business."""
        with contextlib.suppress(OSError):
            os.close(self.fd)

    @property
    def kind(self) -> int:
        """Which KEVENT_FILE_* it is."""
        mode, device = self.stat.st_mode, self.stat.st_dev
        if device == self._own_device:
            return KEVENT
        if stat.S_ISSOCK(mode):
            return SOCKET
        if stat.S_ISFIFO(mode):
            return PIPE if device == _PIPE_DEVICE else FIFO
        if device == _ANON_DEVICE:
            return ANON
        if not stat.S_ISCHR(mode):
            return OTHER
        major, minor = os.major(self.stat.st_rdev), os.minor(self.stat.st_rdev)
        if (major, minor) == (5, 2):
            return PTY_MASTER
        return PTY_SLAVE if 136 <= major < 144 else OTHER

    @property
    def anonymous(self) -> str:
        """The name of an anonymous file."""
        if self._anonymous is None:
            link = os.readlink(f"/proc/self/fd/{self.fd}")
            self._anonymous = link.removeprefix("anon_inode:")
        return self._anonymous

    @property
    def nested(self) -> bool:
        """Whether it may itself be a queue of events."""
        kind = self.kind
        if kind == ANON:
            return self.anonymous not in _LEAVES
        return kind in (KEVENT, OTHER)


class BorrowedSocket(socket.socket):
    """A borrowed descriptor as a socket, which it stays the borrower's to close."""

    def __init__(self, fd: int) -> None:
        # Any family will do: it would be found by getsockname(2), which some sockets lack.
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)

    def __exit__(self, *_: object) -> None:
        self.detach()


class Client:
    """Who makes a call: one thread, for the duration of it."""

    def __init__(self, clients: Clients, tid: int, uid: int, gid: int) -> None:
        self.clients = clients
        self.tid = tid
        self.uid = uid
        self.gid = gid
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The process that the thread belongs to."""
        if self._process is None:
            self._process = self.clients.process_of(self.tid)
        return self._process

    def borrow(self, number: int) -> Borrowed:
        """The open file behind a descriptor's number; EBADF where there is none."""
        if number > INT_MAX:
            raise RefusedError(errno.EBADF)
        return self.clients.borrow(self.process, number)

    def dying(self) -> bool:
        """Whether a fatal signal is on its way to the thread."""
        if self.tid <= 0:
            return False  # it cannot be seen from where we are
        try:
            with open(f"/proc/{self.tid}/status") as file:
                for line in file:
                    if line.startswith("SigPnd:"):
                        return bool(int(line.split()[1], 16) & 0x100)
        except (FileNotFoundError, ProcessLookupError):
            pass
        return True

    @contextlib.contextmanager
    def permissions(self) -> Iterator[None]:
        """Look at files as the client would, in the calling thread."""
        me = self.clients.me
        if self.uid == me[0] or me[0] != 0:
            yield  # an ordinary user's simulator may do no more than that user
            return
        groups = self._groups()
        ours = os.getgroups()
        try:
            syscalls.setgroups(groups)
            syscalls.setfsgid(self.gid)
            syscalls.setfsuid(self.uid)
            yield
        finally:
            syscalls.setfsuid(me[0])
            syscalls.setfsgid(me[1])
            syscalls.setgroups(ours)
            if syscalls.setfsuid(me[0]) != me[0]:
                os._exit(70)  # never serve anybody else with these permissions

    def _groups(self) -> list[int]:
        with open(f"/proc/{self.tid}/status") as file:
            for line in file:
                if line.startswith("Groups:"):
                    return [int(word) for word in line.split()[1:]]
        return []

    def resolve(self, path: bytes, follow: bool) -> int:
        """A descriptor that leads to what @path does for the client, and opens nothing.

        Links of /proc that jump are not followed but where the path begins with one: they would
        be followed by us, into our own descriptors.
        """
        pid = self.process.pid
        flags = _PATH_FLAGS | (0 if follow else os.O_NOFOLLOW)
        task = b"/proc/%d/task/%d" % (pid, self.tid)
        path = re.sub(rb"^//+", b"/", path)
        own = _DESCRIPTOR.fullmatch(path)
        if own is not None and follow:
            return self._reopen(int(own[1]))
        for prefix in (b"/proc/self", b"/proc/thread-self"):
            rest = path.removeprefix(prefix)
            if path.startswith(prefix) and rest[:1] in (b"", b"/"):
                path = (b"/proc/%d" % pid if prefix == b"/proc/self" else task) + rest
        resolve = syscalls.RESOLVE_NO_MAGICLINKS
        start = b"/root" if path.startswith(b"/") else b"/cwd"
        if not self._sees_what_we_see(task):
            # Whatever the path has in it, it leads nowhere out of the client's root.
            resolve |= syscalls.RESOLVE_IN_ROOT
            if start == b"/cwd":
                path = self._from_its_root(task) + b"/" + path
            start = b"/root"
        at = self._beginning(task + start)
        try:
            with self.permissions():
                return syscalls.openat2(at, path, flags, resolve)
        finally:
            os.close(at)

    def _reopen(self, number: int) -> int:
        try:
            fd = self.clients.borrow_any(self.process, number)
        except RefusedError as refused:
            # It is a path that leads nowhere.
            raise RefusedError(
                errno.ENOENT if refused.errno == errno.EBADF else refused.errno
            ) from None
        try:
            return os.open(f"/proc/self/fd/{fd}", _PATH_FLAGS)
        finally:
            os.close(fd)

    @staticmethod
    def _beginning(link: bytes) -> int:
        try:
            return os.open(link, _PATH_FLAGS | os.O_DIRECTORY)
        except FileNotFoundError:
            raise RefusedError(errno.ESRCH) from None

    @staticmethod
    def _sees_what_we_see(task: bytes) -> bool:
        """Whether the client has our root, and our mounts."""
        try:
            return os.path.samefile(task + b"/ns/mnt", b"/proc/self/ns/mnt") and os.path.samefile(
                task + b"/root", b"/"
            )
        except FileNotFoundError:
            raise RefusedError(errno.ESRCH) from None
        except PermissionError:
            return False

    def _from_its_root(self, task: bytes) -> bytes:
        """The path of the client's directory; ENOENT where that is not below its root."""
        root, path = os.readlink(task + b"/root"), os.readlink(task + b"/cwd")
        path = path.removeprefix(root.rstrip(b"/"))
        at = self._beginning(task + b"/root")
        try:
            resolve = syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_IN_ROOT
            found = syscalls.openat2(at, path or b"/", _PATH_FLAGS, resolve)
        finally:
            os.close(at)
        try:
            if not os.path.samestat(os.fstat(found), os.stat(task + b"/cwd")):
                raise RefusedError(errno.ENOENT)
        finally:
            os.close(found)
        return path


class Clients:
    """All processes that were seen."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.me = (os.geteuid(), os.getegid())
        self.own_device = -1
        """Of our own mount, once there is one."""
        self._lock = threading.Lock()
        self._by_thread: dict[int, Process] = {}
        self._many = 64
        self._warned = False

    def process_of(self, tid: int) -> Process:
        """The process of a thread, which is in the middle of a call."""
        if tid <= 0:
            raise RefusedError(errno.EPERM)  # it cannot be seen from where we are
        known = self._by_thread.get(tid)
        if known is not None and known.alive() and os.path.exists(f"/proc/{known.pid}/task/{tid}"):
            return known
        found, fresh = self._find(tid)
        with self._lock:
            self._by_thread[tid] = found
            many = len(self._by_thread) >= self._many
        if many:
            self._sweep()
        if fresh:
            # Where it has ended meanwhile that is told at once.
            self._pool.add(found.pidfd, lambda: self._ended(found))
        return found

    def _sweep(self) -> None:
        """Forget the threads that have ended, whose process has not."""
        with self._lock:
            for thread, process in list(self._by_thread.items()):
                if not os.path.exists(f"/proc/{process.pid}/task/{thread}"):
                    del self._by_thread[thread]
            self._many = 64 + 2 * len(self._by_thread)

    def _ended(self, process: Process) -> None:
        """A process has ended: nothing is kept of it."""
        self._pool.forget(process.pidfd)
        with self._lock:
            for thread, other in list(self._by_thread.items()):
                if other is process:
                    del self._by_thread[thread]

    def _find(self, tid: int) -> tuple[Process, bool]:
        """The process of a thread, and whether it was not known before."""
        pid = tid
        try:
            with open(f"/proc/{tid}/status") as file:
                for line in file:
                    if line.startswith("Tgid:"):
                        pid = int(line.split()[1])
                        break
        except OSError:
            raise RefusedError(errno.ESRCH) from None
        for other in list(self._by_thread.values()):
            if other.pid == pid and other.alive():
                return other, False
        try:
            return Process(pid, os.pidfd_open(pid)), True
        except OSError as error:
            raise RefusedError(error.errno or errno.ESRCH) from None

    def borrow_any(self, process: Process, number: int) -> int:
        """A descriptor of the open file behind a number of a process."""
        try:
            return syscalls.pidfd_getfd(process.pidfd, number)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
                self._warn(process.pid, error)
                raise RefusedError(errno.EPERM) from None
            raise RefusedError(error.errno or errno.EBADF) from None

    def borrow(self, process: Process, number: int) -> Borrowed:
        """The open file behind a number of a process."""
        fd = self.borrow_any(process, number)
        try:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
                raise RefusedError(errno.EBADF)
            return Borrowed(fd, process, number, self.own_device)
        except BaseException:
            os.close(fd)
            raise

    def _warn(self, pid: int, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("process %d: %s", pid, refusal(error))


def refusal(error: OSError, what: str = "its descriptors") -> str:
    """What to do where we may not look into a process, in a sentence."""
    text = f"{what} cannot be looked at ({error.strerror})"
    try:
        with open(YAMA) as file:
            scope = int(file.read())
    except (OSError, ValueError):
        scope = 0
    if scope > 1:
        return (
            f"{text}: Yama allows that to nobody{' but root' if scope == 2 else ''} "
            f"(kernel.yama.ptrace_scope is {scope}); run the simulator as root, or where scope 3 "
            "forbids that too, boot with a lower one"
        )
    if scope:
        return (
            f"{text}: Yama allows that to ancestors only (kernel.yama.ptrace_scope is {scope}); "
            "have the program call prctl(PR_SET_PTRACER, the simulator's pid), as pykevent.open() "
            "does, run the simulator as root, or set kernel.yama.ptrace_scope to 0"
        )
    return (
        f"{text}: run the simulator as the same user or as root, and if this is a container allow "
        "pidfd_getfd, kcmp, process_vm_readv and process_vm_writev in its seccomp profile "
        "(CAP_SYS_PTRACE does that in Docker's)"
    )
