# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors, and the sentences that say what to do about them."""

import errno
import os

from pykevent.abi import EventType, NaioEvents, Op
from pykevent.mounts import is_simulated

_OPEN_HINTS = {
    errno.ENOENT: "load the module (`insmod kevent.ko`, or `modprobe kevent` where it is "
    "installed), or name another device in KEVENT_DEVICE",
    errno.EACCES: "the device should have mode 0666: install the module's udev rule "
    "(`make install`), or change the mode by hand, or name another device in KEVENT_DEVICE",
    errno.ENXIO: "the device node is there but the module is not: load it (`insmod kevent.ko`, "
    "or `modprobe kevent` where it is installed)",
    errno.ENOTTY: "this is not a kevent device: correct KEVENT_DEVICE",
    errno.ENOTCONN: "the simulator behind this device has died: start it again "
    "(python -m pykevent sim DIR)",
}
_OPEN_HINTS[errno.EPERM] = _OPEN_HINTS[errno.EACCES]
_OPEN_HINTS[errno.ENODEV] = _OPEN_HINTS[errno.ENXIO]
_OPEN_HINTS[errno.EINVAL] = _OPEN_HINTS[errno.ENOTTY]
_OPEN_HINTS[errno.ECONNABORTED] = _OPEN_HINTS[errno.EIO] = _OPEN_HINTS[errno.ENOTCONN]

SIMULATOR_DIED = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
"""What a call says whose simulator has died, before or in the middle of it."""

_AGAIN = "(python -m pykevent sim DIR), or unset KEVENT_DEVICE to have one started"

_REQUEST_HINTS = {
    errno.ENXIO: "the device does not know this type of event",
    errno.EOPNOTSUPP: "this type of event was left out when the module was built, or NOTIFY_BROKEN "
    "was asked of a file whose close cannot be seen, or it is an io_uring and would be pinned; "
    "info() tells of all three",
    errno.EMFILE: "the queues of this user keep as many files open as RLIMIT_NOFILE (ulimit -Hn) "
    "allows; info() tells which kinds of file are kept open",
    errno.ENOSPC: "info() tells how many kevents a queue, a user, and a user on one inode may have",
    errno.EINVAL: "a flag or an event that this type does not take, or both ONESHOT and DISPATCH",
}

_INVALID: dict[int, str] = {
    EventType.INODE: ", or no event but ISDIR, or a limit above max_name_queue of info()",
    EventType.TIMER: ", or a clock that is none of the three, or a time beyond 2**63 ns",
}
_INVALID[EventType.PATH] = _INVALID[EventType.INODE]

_NO_LAYERS = "not TCP with a protocol on top (MPTCP, or TLS of the kernel's)"
_NAIO_HINTS = {
    errno.EBADF: "the socket is not open",
    errno.ENOTSOCK: "transfers are for sockets; register() watches what else can be polled",
    errno.EINVAL: "more than 0x7ffff000 bytes, or none to receive, or a flag that it does not take",
    errno.EMFILE: "each file being sent is kept open, and the queues of this user keep as many "
    "open as RLIMIT_NOFILE (ulimit -Hn) allows",
    errno.EOPNOTSUPP: "this kind of socket is not supported: TCP, UDP and UNIX sockets receive, "
    f"{_NO_LAYERS}; wait with register() and call its recv()",
    errno.ENOMEM: "buffers of transfers that wait are pinned, and RLIMIT_MEMLOCK (ulimit -l) says "
    "how much one process may pin",
    errno.EFAULT: "a buffer to receive into has to be writable, and may not be a file's shared "
    "mapping",
}
_SEND_HINTS = {
    errno.EOPNOTSUPP: "this kind of socket is not supported: TCP, UDP and UNIX streams send, "
    f"{_NO_LAYERS}; of others, as UNIX datagrams, call send()",
    errno.EFAULT: "the bytes to send cannot be read",
}
_SENDFILE_HINTS = {
    errno.EBADF: "the file is not open, or not for reading, or the socket is not open",
    errno.EINVAL: "the file has to be a regular one (no pipe, socket or directory), nor one that "
    "the kernel makes up, as in /proc (read and send it), and the part to end before 2**63; or the "
    "argument is not as long as its parts, or a flag that it does not take",
    errno.EOPNOTSUPP: f"files go by streams alone, TCP or UNIX, {_NO_LAYERS}: by other sockets "
    "read and send them",
    errno.EFAULT: "the address has to lead to what sendfile_argument() makes",
}
_LEFT_OUT = "transfers were left out when the module was built: INFO has no NAIO"
_NOT_ONE = "exactly one of RECV, SEND and SENDFILE"
_MODIFY_NAIO_HINTS = {
    errno.EINVAL: "another socket than it was added with, or no multishot any more",
    errno.EOPNOTSUPP: "only a multishot can be resumed or modified",
}

_DESCRIPTORS = (EventType.SOCKET, EventType.POLL, EventType.INODE, EventType.NAIO)

_MAY_NOT_LOOK = (
    "the simulator may not look at this process, which has been set-user-ID, or is not dumpable "
    "(prctl(PR_SET_DUMPABLE, 1) makes it so again)"
)
"""Why a simulator that root has not started is refused the descriptors, or a path, of a client."""

_YAMA = (
    ", or has not let it (Yama; pykevent.open() and Queue.fromfd() do, in a forked child once more)"
)
_BY_ROOT = "; one that root has started may"


class ChangesAppliedError(OSError):
    """A `Queue.change_and_wait` that could not deliver, after its changes were made.

    `results` is what the call would have returned for the changes: 0 or -errno each.
    """

    results: list[int]

    def __init__(self, error: int, message: str, results: list[int]) -> None:
        super().__init__(error, message)
        self.results = results


def open_error(error: int, device: str, *, before: str = "", after: str = "") -> OSError:
    """The error of opening `device`, with the same errno and a sentence about what to do next.

    What is to be said `before` that sentence, and `after` it, is up to the caller.
    """
    hint = _OPEN_HINTS.get(error, "")
    if error in (errno.EACCES, errno.EPERM) and is_simulated(device):
        hint = (
            "it is the simulator of another user: start one of your own, or have that one started "
            "with --allow-other"
        )
    elif error == errno.EISDIR:
        hint = f"a simulator's device is the file in its folder: {os.path.join(device, 'kevent')}"
    parts = (os.strerror(error), before, hint, after)
    return OSError(error, "; ".join(filter(None, parts)), device)


def named_device_gone(device: str) -> str:
    """What to say besides of a device that KEVENT_DEVICE names and that is not there."""
    if os.path.dirname(os.path.abspath(device)) == "/dev":
        return ""
    return f"if a simulator served it, start that again {_AGAIN}"


def call_error(error: int) -> OSError:
    """The error of an ioctl."""
    message = os.strerror(error)
    if error in SIMULATOR_DIED:
        message = f"{message}; the simulator behind this queue has died: open another queue"
        if os.environ.get("KEVENT_DEVICE"):
            message = f"{message}, once it was started again {_AGAIN}"
    return OSError(error, message)


def room_error(minimum: int, room: int) -> OSError:
    """The error of a wait that wants more events than it has room for."""
    message = os.strerror(errno.EINVAL)
    return OSError(errno.EINVAL, f"{message}; min ({minimum}) is more than max ({room})")


def request_error(
    error: int,
    kind: int,
    *,
    events: int = 0,
    op: Op | None = Op.ADD,
    ident: int | None = None,
    stale: bool = False,
    left_out: bool = False,
    simulated: bool = False,
) -> OSError:
    """The error of one request of type `kind`, or of a posting, of which `op` is None.

    `ident` is what was named, if that is known; `stale` that a removal was of what went by that
    number before.  `left_out` says that the device was built without the type, `simulated` that a
    simulator has refused it.  Of a transfer also `events` matters.
    """
    hints = [os.strerror(error)]
    if ident is not None and (error == errno.EEXIST or (error == errno.ENOENT and op != Op.ADD)):
        hints.append(_whether_there(error, kind, ident, op, stale=stale))
    elif error == errno.EPERM and kind == EventType.POLL:
        hints.append("this file cannot be polled; a regular file never can")
    elif error == errno.ELOOP and kind != EventType.PATH:
        hints.append(
            "a queue can watch neither itself nor what watches it; nor, where a thousand others "
            "watch it, anything that may be a queue of events itself"
        )
    elif kind == EventType.NAIO and error == errno.EOPNOTSUPP and left_out:
        hints.append(_LEFT_OUT)
    elif kind == EventType.NAIO and error in (hints_of := _naio_hints(events, op)):
        hints.append(hints_of[error])
    elif kind == EventType.SOCKET and error == errno.ENOTSOCK:
        hints.append("register() and poll_event() watch other files, too")
    elif error in _REQUEST_HINTS:
        more = _INVALID.get(kind, "") if error == errno.EINVAL else ""
        hints.append(_REQUEST_HINTS[error] + more)
    if simulated:
        hints += _simulated_hint(error, kind)
    return OSError(error, "; ".join(hints))


def transfer_error(error: int, *, events: int = 0, broken: bool = False) -> OSError:
    """The error with which a transfer has ended; `broken` where its socket was closed."""
    if error == errno.ECANCELED:
        why = "the socket was closed" if broken else "it was cancelled, or its queue was closed"
        return OSError(error, f"{os.strerror(error)}; {why}")
    if error in (errno.ENOMEM, errno.EFAULT, errno.EOPNOTSUPP):
        return request_error(error, EventType.NAIO, events=events)
    return OSError(error, os.strerror(error))


def ended_error() -> OSError:
    """What a transfer that has ended cannot do."""
    return OSError(errno.ENOENT, f"{os.strerror(errno.ENOENT)}; the transfer has ended")


def _whether_there(error: int, kind: int, ident: int, op: Op | None, *, stale: bool) -> str:
    try:
        name = f"{EventType(kind).name} {ident}"
    except ValueError:
        name = f"kevent {ident} of type {kind}"
    if error == errno.EEXIST:
        return f"{name} is in this queue already"
    if stale:
        return f"there is no stale {name} in this queue"
    if op is None:
        return f"there is no {name} in this queue, or it is one-shot and is being delivered"
    more = ": its transfer has ended, or never was" if kind == EventType.NAIO else ""
    return f"there is no {name} in this queue{more}"


def _naio_hints(events: int, op: Op | None) -> dict[int, str]:
    hints = dict(_NAIO_HINTS)
    if events == NaioEvents.SEND:
        hints |= _SEND_HINTS
    elif events == NaioEvents.SENDFILE:
        hints |= _SENDFILE_HINTS
    elif events != NaioEvents.RECV:
        hints[errno.EINVAL] = _NOT_ONE
    if op == Op.MODIFY:
        hints |= _MODIFY_NAIO_HINTS
    return hints


def _simulated_hint(error: int, kind: int) -> list[str]:
    if error == errno.EPERM and kind in _DESCRIPTORS:
        either = "or " if kind == EventType.POLL else ""
        return [either + _MAY_NOT_LOOK + _YAMA + _BY_ROOT]
    if error == errno.EACCES and kind == EventType.PATH:
        return [f"if you may read it yourself, {_MAY_NOT_LOOK}{_BY_ROOT}"]
    if error == errno.EOPNOTSUPP and kind == EventType.POLL:
        return ["or it is a file of another FUSE server, which no simulator can wait for"]
    if error == errno.ELOOP and kind == EventType.PATH:
        return [
            "or the path leads through a link of /proc that jumps, such as /proc/self/cwd, which "
            "no simulator follows; /proc/self/fd/N works"
        ]
    return []


def closed_error() -> ValueError:
    """What every method of a closed queue raises."""
    return ValueError("I/O operation on closed kevent queue")
