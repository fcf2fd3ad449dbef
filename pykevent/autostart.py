# SPDX-License-Identifier: GPL-2.0-or-later
"""A simulator for this process and those it starts, where there is no device.

It is a process of its own, which ends soon after the last queue was closed.  Children find it by
the environment.
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
import time
from pathlib import Path

_log = logging.getLogger("pykevent")

VARIABLE = "PYKEVENT_SIMULATOR"
"""Where the simulator of this process tree is mounted; "off" says that none is to be started."""

_PREFIX = "pykevent-"
_GONE = (errno.ENOENT, errno.ENOTCONN, errno.ECONNABORTED)
_ATTEMPTS = 3
_YOUNG = 60.0
_START = 30.0
_PR_SET_PTRACER = 0x59616D61

_lock = threading.Lock()


class CannotStartError(Exception):
    """There can be no simulator; the message says what is missing."""


def wanted() -> bool:
    """Whether one may be started."""
    return os.environ.get(VARIABLE) != "off"


def open_device(flags: int) -> tuple[int, str]:
    """Open the device of this process tree's simulator, starting that if need be.

    Returns the descriptor and the path.  Raises CannotStartError, or OSError.
    """
    for _ in range(_ATTEMPTS):
        with _lock:
            path = _running() or _start()
        try:
            return os.open(path, flags), path
        except OSError as error:
            # It has ended since, having nothing to do, or has died.
            if error.errno not in _GONE:
                raise
            _forget()
    raise CannotStartError("the simulator ends as soon as it is started")


def _running() -> str | None:
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    path = os.path.join(folder, "kevent")
    if os.path.exists(path):
        return path
    _forget()
    return None


def _forget() -> None:
    """The simulator of this process tree is gone: leave nothing of it."""
    folder = os.environ.pop(VARIABLE, None)
    if folder is not None:
        _remove(folder)


def _remove(folder: str) -> None:
    """Take away the folder of a simulator that has ended, and what is left mounted there."""
    try:
        # What stat(2) says of a mount may be remembered from before.
        os.scandir(folder).close()
    except OSError as error:
        if error.errno not in _GONE[1:]:
            return
        subprocess.run(
            ["fusermount", "-u", "-q", "-z", "--", folder],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _base() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return runtime if os.access(runtime, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _start() -> str:
    base = _base()
    _clean(base)
    folder = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
    environment = dict(os.environ)
    package = str(Path(__file__).parent.parent)
    paths = [package, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", "pykevent", "sim", "--background", "--until-unused", folder]
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
        said, failed = done.stderr.strip(), done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        said, failed = str(error), True
    if failed:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        raise CannotStartError(said.replace("\n", "; "))
    os.environ[VARIABLE] = folder
    path = os.path.join(folder, "kevent")
    _log.warning(
        "there is no /dev/kevent: started the simulator, at %s, for this process and its children",
        path,
    )
    return path


def _clean(base: str) -> None:
    """Take away what simulators that were killed have left."""
    with os.scandir(base) as entries:
        folders = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for folder in folders:
        with contextlib.suppress(OSError):
            # One that somebody is about to mount at is young.
            if time.time() - os.lstat(folder).st_mtime < _YOUNG and not os.path.ismount(folder):
                continue
        _remove(folder)


def let_look(path: str) -> None:
    """Allow the simulator to look at our descriptors where Yama would not have it."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as file:
            if file.read().strip() != "1":
                return
        with open(os.path.join(os.path.dirname(path), "pid")) as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)
