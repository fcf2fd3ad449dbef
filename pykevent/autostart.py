# SPDX-License-Identifier: GPL-2.0-or-later
"""A simulator for this process and those it starts, where there is no device.

It is a process of its own, which ends soon after the last queue was closed.  Children find it by
the environment: those that were started after it, and while it lives.  `pykevent.home` tells where
it lives, and who takes away what one has left that was killed.
"""

import contextlib
import ctypes
import errno
import logging
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from pykevent import home
from pykevent.home import Home
from pykevent.mounts import mounts

_log = logging.getLogger("pykevent")

VARIABLE = "PYKEVENT_SIMULATOR"
"""Where the simulator of this process tree is mounted; "off" says that none is to be started."""

_OFF = {"off", "no", "0", "false"}
_GONE = (errno.ENOENT, errno.ENOTCONN, errno.ECONNABORTED)
_ATTEMPTS = 3
_START = 30.0
_PR_SET_PTRACER = 0x59616D61
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"

# Reentrant: a signal handler may open a queue in the middle of anything here.  It then starts a
# simulator of its own.
_lock = threading.RLock()


def _after_fork_in_child() -> None:
    # Who held it is not here.
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


class CannotStartError(Exception):
    """There can be no simulator; the message says what is missing."""


def wanted() -> bool:
    """Whether one may be started."""
    return os.environ.get(VARIABLE, "").lower() not in _OFF


def open_device(flags: int) -> tuple[int, str]:
    """Open the device of this process tree's simulator, starting that if need be.

    Returns the descriptor and the path.  Raises CannotStartError, or OSError.
    """
    for _ in range(_ATTEMPTS):
        with _lock:
            folder = _running() or _start()
        path = os.path.join(folder, "kevent")
        try:
            return os.open(path, flags), path
        except NotADirectoryError:
            raise CannotStartError(_no_folder(folder)) from None
        except OSError as error:
            # It has ended since, having nothing to do, or has died.
            if error.errno not in _GONE:
                raise
            _forget(folder)
    raise CannotStartError("the simulator ends as soon as it is started")


def _no_folder(value: str) -> str:
    return (
        f"{VARIABLE} is {value!r}, which is neither off nor the absolute path of a folder where "
        "a simulator is mounted: unset it"
    )


def _running() -> str | None:
    """Where one should be mounted; nobody but who opens its device asks whether it is."""
    folder = os.environ.get(VARIABLE)
    if folder and not os.path.isabs(folder):
        raise CannotStartError(_no_folder(folder))
    return folder or None


def _forget(folder: str) -> None:
    """The simulator at *folder* is gone: leave nothing of it."""
    with _lock:
        if os.environ.get(VARIABLE) == folder:
            del os.environ[VARIABLE]
    parent, name = os.path.split(folder)
    if name == home.MOUNT:
        home.remove_dead(parent)


def _base() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # By its specification a relative one is to be ignored.
    good = os.path.isabs(runtime) and os.path.isdir(runtime)
    return runtime if good and os.access(runtime, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _start() -> str:
    base = _base()
    try:
        home.clean(base)
        made = Home.make(base)
    except OSError as error:
        raise CannotStartError(f"{error.filename or base}: {error.strerror}") from None
    try:
        complaint = _serve(made)
    finally:
        made.release()
    if complaint is not None:
        home.remove_left(made.folder, mounts())
        raise CannotStartError(complaint.replace("\n", "; "))
    os.environ[VARIABLE] = made.mountpoint
    _log.warning(
        "there is no /dev/kevent: started the simulator, at %s, for this process and its children",
        os.path.join(made.mountpoint, "kevent"),
    )
    return made.mountpoint


def _serve(made: Home) -> str | None:
    """Start one; returns None once it serves, or why it does not."""
    environment = dict(os.environ)
    package = str(Path(__file__).parent.parent)
    paths = [package, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", "pykevent", "sim", "--background", "--until-unused"]
    command += ["--at-home", "--log", made.log, made.mountpoint]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd="/",
            timeout=_START,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return done.stderr.strip() or f"it ended with status {done.returncode}"


def let_look(device: str) -> None:
    """Allow the simulator of `device` to look at our descriptors where Yama would not have it."""
    if not yama_asks():
        return
    with contextlib.suppress(OSError, ValueError):
        with open(os.path.join(os.path.dirname(device), "pid")) as file:
            pid = int(file.read())
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def yama_asks() -> bool:
    """Whether a process has to allow another one to look at its descriptors (ptrace_scope 1)."""
    try:
        with open(_YAMA) as file:
            return file.read().strip() == "1"
    except OSError:
        return False
