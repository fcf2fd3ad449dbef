# SPDX-License-Identifier: GPL-2.0-or-later
"""The one function through which every ioctl of this package goes."""

import ctypes
import errno
import fcntl

from pykevent.errors import call_error

_libc_ioctl = ctypes.CDLL(None, use_errno=True).ioctl
_libc_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_libc_ioctl.restype = ctypes.c_int
_first_byte = ctypes.c_char.from_buffer
_address_of = ctypes.addressof

# What fcntl.ioctl copies aside before it releases the GIL.
_FCNTL_COPIES = 1024


def ioctl(fd: int, number: int, buffer: bytearray, *, blocking: bool) -> int:
    """Call the device once and return its answer; `buffer` is changed in place, also on an error.

    `blocking` says that the call may wait.  Raises OSError with the device's errno, thus
    InterruptedError after a signal: trying again is the caller's business.
    """
    # fcntl.ioctl keeps the GIL during the whole call where the buffer is mutable and larger than
    # 1,024 bytes (until Python 3.14): a thread that waits would freeze all others, and one that
    # looks up a path on a file system served by this process would wait for ever.  Nor does it
    # say in every version whether the buffer is written back on EINTR, which CHANGE_WAIT needs.
    # ctypes always releases the GIL and always works in place.
    if not blocking and len(buffer) <= _FCNTL_COPIES:
        try:
            copied: int = fcntl.ioctl(fd, number, buffer, True)
        except OSError as failed:
            raise call_error(failed.errno or errno.EIO) from None
        return copied
    argument = _first_byte(buffer)
    answer: int = _libc_ioctl(fd, number, _address_of(argument))
    if answer < 0:
        raise call_error(ctypes.get_errno())
    return answer
