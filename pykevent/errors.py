# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors, and the sentences that say what to do about them."""

import errno
import os

from pykevent.abi import EventType

_OPEN_HINTS = {
    errno.ENOENT: "load the module (`insmod kevent.ko`, or `modprobe kevent` where it is "
    "installed), or name another device in KEVENT_DEVICE",
    errno.EACCES: "the device should have mode 0666: install the module's udev rule "
    "(`make install`), or change the mode by hand, or name another device in KEVENT_DEVICE",
    errno.ENXIO: "the device node is there but the module is not: load it (`insmod kevent.ko`, "
    "or `modprobe kevent` where it is installed)",
    errno.ENOTTY: "this is not a kevent device: correct KEVENT_DEVICE",
    errno.ENOTCONN: "the simulator behind this device has died: start it again",
}
_OPEN_HINTS[errno.EPERM] = _OPEN_HINTS[errno.EACCES]
_OPEN_HINTS[errno.ENODEV] = _OPEN_HINTS[errno.ENXIO]
_OPEN_HINTS[errno.EINVAL] = _OPEN_HINTS[errno.ENOTTY]
_OPEN_HINTS[errno.ECONNABORTED] = _OPEN_HINTS[errno.EIO] = _OPEN_HINTS[errno.ENOTCONN]

SIMULATOR_DIED = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
"""What a call says whose simulator has died, before or in the middle of it."""

_REQUEST_HINTS = {
    errno.ENXIO: "the device does not know this type of event",
    errno.EOPNOTSUPP: "this type of event was left out when the module was built, or NOTIFY_BROKEN "
    "was asked of a file whose close cannot be seen, or it is an io_uring and would be pinned; "
    "info() tells of all three",
    errno.EMFILE: "the queues of this user keep as many files open as RLIMIT_NOFILE (ulimit -Hn) "
    "allows; info() tells which kinds of file are kept open",
    errno.ENOSPC: "info() tells how many kevents a queue, a user, and a user on one inode may have",
}


class ChangesAppliedError(OSError):
    """A `Queue.change_and_wait` that could not deliver, after its changes were made.

    `results` is what the call would have returned for the changes: 0 or -errno each.
    """

    results: list[int]

    def __init__(self, error: int, message: str, results: list[int]) -> None:
        super().__init__(error, message)
        self.results = results


def open_error(error: int, device: str, more: str = "") -> OSError:
    """The error of opening `device`, with the same errno and a sentence about what to do next."""
    message = os.strerror(error)
    if error in (errno.EACCES, errno.EPERM) and _is_simulated(device):
        message = (
            f"{message}; it is the simulator of another user: start one of your own, or have that "
            "one started with --allow-other"
        )
    elif error in _OPEN_HINTS:
        message = f"{message}; {_OPEN_HINTS[error]}"
    if more:
        message = f"{message}; {more}"
    return OSError(error, message, device)


def _is_simulated(device: str) -> bool:
    """Whether a device is in a simulator's mount, going by the table of mounts."""
    folder = os.path.dirname(os.path.abspath(device))
    try:
        with open("/proc/self/mounts") as file:
            return any(line.split()[1:3] == [folder, "fuse.pykevent"] for line in file)
    except OSError:
        return False


def call_error(error: int) -> OSError:
    """The error of an ioctl."""
    message = os.strerror(error)
    if error in SIMULATOR_DIED:
        message = f"{message}; the simulator behind this queue has died: open another queue"
    return OSError(error, message)


def request_error(error: int, kind: int) -> OSError:
    """The error of one request of type `kind`."""
    message = os.strerror(error)
    hint = _REQUEST_HINTS.get(error)
    if error == errno.EPERM and kind == EventType.POLL:
        hint = "this file cannot be polled; a regular file never can"
    elif error == errno.ELOOP and kind != EventType.PATH:
        hint = (
            "a queue can watch neither itself nor what watches it; nor, where a thousand others "
            "watch it, anything that may be a queue of events itself"
        )
    if hint is not None:
        message = f"{message}; {hint}"
    return OSError(error, message)


def closed_error() -> ValueError:
    """What every method of a closed queue raises."""
    return ValueError("I/O operation on closed kevent queue")
