# SPDX-License-Identifier: GPL-2.0-or-later
"""The mount point: what it takes to mount there, what an earlier crash left, and the end."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import queue
import shutil
import tempfile
import threading

from pykevent.mounts import PROGRAMS, fusermount, mounted, unmount
from pykevent.sim import syscalls

FUSE_DEVICE = "/dev/fuse"
FUSE_CONFIGURATION = "/etc/fuse.conf"
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
"""What any call says of a mount whose server has died."""
PATIENCE = 3.0
"""Seconds that another server has to answer."""


class CannotMountError(Exception):
    """There can be no simulator; the message says what to do."""


def _fusepy() -> str | None:
    try:
        importlib.import_module("fuse")
    except ImportError:
        return "fusepy is not installed: pip install fusepy"
    except (OSError, AttributeError) as error:
        # What it raises where it finds no library.
        return f"libfuse 2 is not installed ({error}): apt-get install libfuse2"
    return None


def _device() -> str | None:
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return (
            f"there is no {FUSE_DEVICE}: modprobe fuse, or start the container with "
            f"--device {FUSE_DEVICE} --cap-add SYS_ADMIN"
        )
    except OSError as error:
        return (
            f"{FUSE_DEVICE} cannot be opened ({error.strerror}): it should have mode 0666, and a "
            f"container has to be started with --device {FUSE_DEVICE}"
        )
    return None


def _fusermount() -> str | None:
    if fusermount() is None:
        return "fusermount is not installed: apt-get install fuse3"
    return None


def find_fusermount() -> contextlib.ExitStack:
    """Let libfuse 2, which looks for fusermount, find a fusermount3 in its place, until closed."""
    until = contextlib.ExitStack()
    program = fusermount()
    if program is not None and shutil.which(PROGRAMS[0]) is None:
        folder = until.enter_context(tempfile.TemporaryDirectory(prefix="kevent-fusermount-"))
        os.symlink(os.path.abspath(program), os.path.join(folder, PROGRAMS[0]))
        os.environ["PATH"] = os.pathsep.join((folder, os.environ.get("PATH", os.defpath)))
    return until


def _descriptors() -> str | None:
    me = os.getpid()
    try:
        pidfd = os.pidfd_open(me)
        try:
            fd = syscalls.pidfd_getfd(pidfd, pidfd)
            try:
                syscalls.same_file(me, fd, me, pidfd)
            finally:
                os.close(fd)
        finally:
            os.close(pidfd)
    except OSError as error:
        return (
            f"descriptors of other processes cannot be had ({error.strerror}): that takes Linux "
            "5.6 or later with kcmp, and in a container a seccomp profile that allows pidfd_open, "
            "pidfd_getfd and kcmp (Docker: --cap-add SYS_PTRACE)"
        )
    return None


def check_allow_other() -> None:
    """CannotMountError where this user may not let others in."""
    if os.geteuid() == 0:
        return
    with contextlib.suppress(OSError), open(FUSE_CONFIGURATION) as file:
        if any(line.strip() == "user_allow_other" for line in file):
            return
    raise CannotMountError(
        f"--allow-other is root's alone unless {FUSE_CONFIGURATION} has a line user_allow_other"
    )


def missing() -> list[str]:
    """What this machine lacks, each with what to do about it."""
    found = (_fusepy(), _device(), _fusermount(), _descriptors())
    return [sentence for sentence in found if sentence is not None]


def _check_dead(mountpoint: str, kind: str) -> None:
    """CannotMountError where the server of what is mounted there lives."""
    here = f"{mountpoint}: something is mounted here already"
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def ask() -> None:
        try:
            # What stat(2) says may be remembered from before.
            os.scandir(mountpoint).close()
            answers.put(0)
        except OSError as error:
            answers.put(error.errno or errno.EIO)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise CannotMountError(f"{here}, and its server does not answer ({kind})") from None
    if error == errno.EACCES:
        raise CannotMountError(f"{here}, by another user ({kind})")
    if error not in DEAD:
        raise CannotMountError(here)


def prepare(mountpoint: str) -> bool:
    """Have an empty directory to mount at; whether it was made for that.

    What an earlier crash left mounted is taken away.  CannotMountError where something is there.
    """
    kind = mounted(mountpoint)
    if kind is not None:
        _check_dead(mountpoint, kind)
        unmount(mountpoint)
        if mounted(mountpoint) is not None:
            raise CannotMountError(
                f"{mountpoint}: a server that has died is still mounted here, and cannot be "
                "unmounted: fusermount -u -z, or umount -l as root"
            )
    made = False
    try:
        os.mkdir(mountpoint)
        made = True
    except FileExistsError:
        pass
    except OSError as error:
        raise CannotMountError(f"{mountpoint}: {error.strerror}") from None
    try:
        if os.listdir(mountpoint):
            raise CannotMountError(f"{mountpoint}: the directory is not empty")
    except OSError as error:
        raise CannotMountError(f"{mountpoint}: {error.strerror}") from None
    return made
