# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system of which reads do not end until they are told to.

``python stuck.py FOLDER`` serves it there, and is told by the end of its standard input.  Each read
that begins says the name of its file in a line.  The file "broken" cannot be read behind its first
100,000 bytes, and those are read at once.
"""

import errno
import os
import stat
import sys
import threading
from typing import Any

SIZE = 1 << 20
GOOD = 100_000
# What a file repeats: to work out each byte that is read takes an emulated machine seconds.
PERIOD = bytes((at >> 8 ^ at) & 0xFF for at in range(1 << 16))


def content(offset: int, size: int) -> bytes:
    """So many bytes of any file."""
    size = max(min(size, SIZE - offset), 0)
    begin = offset % len(PERIOD)
    return (PERIOD * (size // len(PERIOD) + 2))[begin : begin + size]


def serve(place: str) -> None:
    """Until it is unmounted."""
    import fuse  # type: ignore[import-untyped]

    class Stuck(fuse.Operations):  # type: ignore[misc]
        """Files of any name."""

        def __init__(self) -> None:
            self._end = threading.Event()

        def init(self, path: str) -> None:
            """A thread can only be started once the server is in the background, or not."""
            threading.Thread(target=self._wait, daemon=True).start()

        def _wait(self) -> None:
            sys.stdin.read()
            self._end.set()

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            """The attributes of the folder, or of one of its files."""
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": SIZE}

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            """Bytes, in the end."""
            if path == "/broken":
                if offset >= GOOD:
                    raise fuse.FuseOSError(errno.EIO)
                return content(offset, min(size, GOOD - offset))
            # print() writes the end of a line for itself: another thread's may come between
            os.write(1, f"{path[1:]}\n".encode())
            self._end.wait()
            return content(offset, size)

    # Each read is asked for as it is, so that some can fail and others not.
    fuse.FUSE(Stuck(), place, foreground=True, direct_io=True)


if __name__ == "__main__":
    serve(sys.argv[1])
