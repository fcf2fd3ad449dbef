# SPDX-License-Identifier: GPL-2.0-or-later
"""Which device is meant where none is named, and what its opening failed for."""

import errno
import os

from pykevent import autostart
from pykevent.errors import named_device_gone, open_error

DEFAULT_DEVICE = "/dev/kevent"


def open_device(device: str | os.PathLike[str] | None, mode: int) -> tuple[int, str]:
    """Open the device that is meant; its descriptor and its name.

    One that was named; or what KEVENT_DEVICE names in the environment; or /dev/kevent; or that of a
    simulator, started where nobody has named one.  Raises as `pykevent.open`.
    """
    by_variable = os.environ.get("KEVENT_DEVICE")
    name = os.fspath(device or by_variable or DEFAULT_DEVICE)
    try:
        return os.open(name, mode), name
    except OSError as error:
        number = error.errno or errno.EIO
    if number != errno.ENOENT or device:
        raise open_error(number, name)
    if by_variable:
        raise open_error(number, name, after=named_device_gone(name))
    if not autostart.wanted():
        said = f"{autostart.VARIABLE}={os.environ[autostart.VARIABLE]}"
        raise open_error(number, name, after=f"{said} forbids a simulator: unset it to have one")
    try:
        return autostart.open_device(mode)
    except autostart.CannotStartError as error:
        raise open_error(number, name, before=f"the simulator cannot be started: {error}") from None
    except OSError as error:
        raise open_error(error.errno or errno.EIO, str(error.filename or name)) from None
