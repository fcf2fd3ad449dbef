# SPDX-License-Identifier: GPL-2.0-or-later
"""What is mounted where, as the kernel's table has it, and unmounting.

A mount is never asked itself: its server may be stopped, and then nobody gets an answer.
"""

import contextlib
import os
import re
import shutil
import subprocess

SIMULATED = "fuse.pykevent"
"""The type of file system that a simulator is in the table."""

PROGRAMS = ("fusermount", "fusermount3")
"""What unmounts for other users than root: of Debian's fuse, and of fuse3."""

_TABLE = "/proc/self/mountinfo"
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_PATIENCE = 10.0


def mounts() -> dict[str, str]:
    """The type of what is mounted at each path, the last of several; none where /proc is silent."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open(_TABLE, "rb") as file:
        for line in file:
            before, _, after = line.partition(b" - ")
            path = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), before.split()[4])
            found[os.fsdecode(path)] = os.fsdecode(after.split()[0])
    return found


def mounted(path: str) -> str | None:
    """The type of what is mounted at `path`, None where nothing is."""
    table = mounts()
    above, name = os.path.split(os.path.abspath(path))
    # Links are followed above the mount; only where there is none it can be looked at.
    found = table.get(os.path.join(os.path.realpath(above), name))
    return found if found is not None else table.get(os.path.realpath(path))


def is_simulated(device: str) -> bool:
    """Whether a simulator serves `device`."""
    folder, name = os.path.split(os.path.abspath(device))
    return name == "kevent" and mounted(folder) == SIMULATED


def fusermount() -> str | None:
    """The program that unmounts, where there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def unmount(mountpoint: str) -> None:
    """Take a mount away, also while it is in use; without a word where that does not succeed."""
    program = fusermount()
    if program is None:
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [program, "-u", "-q", "-z", "--", mountpoint],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_PATIENCE,
        )
