# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of a simulator that was started by itself, and who may take it away.

    BASE/pykevent-XXXXXXXX/
        lock        the mark of such a folder
        mount/      where the simulator is mounted
        log         what it has complained of

Who starts a simulator holds a shared lock (flock(2)) on `lock`, and so does the simulator as long
as it lives.  The lock ends with the process, however that ends, and is seen from every container
that has the folder.  So a folder is left over where its mark is ours and can be locked alone.
Nothing else is ever removed, whatever its name, and no mount is asked: one may never answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time

from pykevent.mounts import SIMULATED, mounts, unmount

PREFIX = "pykevent-"
LOCK, MOUNT, LOG = "lock", "mount", "log"

_LAST = 0.5  # seconds
_MARK = b"A simulator of pykevent holds a lock on this file for as long as it lives.\n"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Home:
    """A folder whose lock is held until `release`."""

    def __init__(self, folder: str, lock: int) -> None:
        self.folder = folder
        self.mountpoint = os.path.join(folder, MOUNT)
        self.log = os.path.join(folder, LOG)
        self._lock = lock

    @classmethod
    def make(cls, base: str) -> Home:
        """A new one in `base`.  Raises OSError."""
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=base)
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            os.chmod(folder, 0o711)  # the simulator says who may open the device
            # It has its name only when it is locked: nobody takes it for left over.
            path = os.path.join(folder, LOCK)
            lock = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, lock)
            os.write(lock, _MARK)
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.mkdir(os.path.join(folder, MOUNT))
            os.rename(path + ".new", path)
            undo.pop_all()
        return cls(folder, lock)

    @classmethod
    def of(cls, mountpoint: str) -> Home:
        """That of a mount point, locked once more.  Raises OSError."""
        folder = os.path.dirname(mountpoint)
        lock = os.open(os.path.join(folder, LOCK), _FILE)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, lock)

    def release(self) -> None:
        """Hold the lock no more."""
        os.close(self._lock)

    def remove(self) -> None:
        """Take the folder away; a log with something in it stays, and the folder with it."""
        with contextlib.suppress(OSError):
            folder = os.open(self.folder, _FOLDER)
            try:
                _empty(folder, self.folder)
            finally:
                os.close(folder)


def _empty(folder: int, path: str) -> None:
    """Remove what is in a folder of ours, and the folder.  OSError as soon as something stays."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(MOUNT, dir_fd=folder)
    os.unlink(LOCK, dir_fd=folder)
    with contextlib.suppress(FileNotFoundError):
        if not os.stat(LOG, dir_fd=folder, follow_symlinks=False).st_size:
            os.unlink(LOG, dir_fd=folder)
    os.rmdir(path)


def _is_left(folder: int, lock: int) -> bool:
    """Whether a folder with a file `lock` is one of ours, and nobody lives there; then nobody
    can come to, for as long as that file is open.  BlockingIOError where somebody does."""
    status = os.fstat(lock)
    if not stat.S_ISREG(status.st_mode) or os.fstat(folder).st_uid != os.geteuid():
        return False
    if status.st_uid != os.geteuid() or os.read(lock, len(_MARK) + 1) != _MARK:
        return False
    if not {LOCK, MOUNT, LOG}.issuperset(os.listdir(folder)):
        return False
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return os.fstat(lock).st_nlink == 1  # nobody else was faster


def remove_dead(path: str) -> None:
    """Take away the folder of a simulator that was seen to be gone.

    One that is killed closes its files one after the other: the lock may be the last of them.
    """
    end = time.monotonic() + _LAST
    while not remove_left(path, mounts()) and time.monotonic() < end:
        time.sleep(0.005)


def remove_left(path: str, table: dict[str, str]) -> bool:
    """Take away a folder that a simulator has left, and what is mounted there; nothing else.

    `table` is what is mounted.  Returns false where somebody lives there.
    """
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    if path in table:
        return True
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        folder = os.open(path, _FOLDER)
        opened.callback(os.close, folder)
        lock = os.open(LOCK, _FILE, dir_fd=folder)
        opened.callback(os.close, lock)
        try:
            left = _is_left(folder, lock)
        except BlockingIOError:
            return False
        if left:
            mountpoint = os.path.join(path, MOUNT)
            if table.get(mountpoint) == SIMULATED:
                unmount(mountpoint)
            _empty(folder, path)
    return True


def clean(base: str) -> None:
    """Take away what simulators that were killed have left in `base`.  Raises OSError."""
    table = mounts()
    for name in os.listdir(base):
        if not name.startswith(PREFIX):
            continue
        remove_left(os.path.join(base, name), table)
