# SPDX-License-Identifier: GPL-2.0-or-later
"""The mount point: what it takes to mount there, what an earlier crash left, and the end."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shutil
import subprocess

from pykevent.sim import syscalls

FUSE_DEVICE = "/dev/fuse"
FUSE_CONFIGURATION = "/etc/fuse.conf"
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
"""What any call says of a mount whose server has died."""


class CannotMountError(Exception):
    """There can be no simulator; the message says what to do."""


def _fusepy() -> str | None:
    try:
        importlib.import_module("fuse")
    except ImportError:
        return "fusepy is not installed: pip install 'pykevent[sim]'"
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
    if shutil.which("fusermount") is None:
        return "fusermount is not installed: apt-get install fuse"
    return None


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


def is_dead(mountpoint: str) -> bool:
    """Whether a server was mounted there and has died."""
    try:
        # What stat(2) says may be remembered from before.
        os.scandir(mountpoint).close()
    except OSError as error:
        return error.errno in DEAD
    return False


def unmount(mountpoint: str) -> None:
    """Take the mount away, also while it is in use."""
    subprocess.run(
        ["fusermount", "-u", "-q", "-z", "--", mountpoint],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=10,
    )


def prepare(mountpoint: str) -> bool:
    """Have an empty directory to mount at; whether it was made for that.

    What an earlier crash left mounted is taken away.  CannotMountError where something is there.
    """
    if is_dead(mountpoint):
        unmount(mountpoint)
        if is_dead(mountpoint):
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
        if os.path.ismount(mountpoint):
            raise CannotMountError(f"{mountpoint}: something is mounted here already")
        if os.listdir(mountpoint):
            raise CannotMountError(f"{mountpoint}: the directory is not empty")
    except OSError as error:
        raise CannotMountError(f"{mountpoint}: {error.strerror}") from None
    return made


def remove(mountpoint: str) -> None:
    """Take the mount away, and the directory if it can be."""
    unmount(mountpoint)
    with contextlib.suppress(OSError):
        os.rmdir(mountpoint)
