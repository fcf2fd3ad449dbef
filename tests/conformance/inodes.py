# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching directories and files, and saying what was seen in a line."""

from __future__ import annotations

import os
from pathlib import Path

from pykevent import Event, InodeEvents

ALL = InodeEvents(0x01FF)
"""Every event of an inode that may be asked for."""

ENTRIES = InodeEvents.CREATE | InodeEvents.REMOVE | InodeEvents.MOVED_FROM | InodeEvents.MOVED_TO
"""Those of a directory's entries, their names."""


class Opened:
    """A file or directory held open for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def close(self) -> None:
        """Close it; more than once does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Seen = tuple[InodeEvents, bytes | None]


def seen(events: list[Event]) -> list[Seen]:
    """What happened to which name, in order."""
    return [(InodeEvents(int(event.events)), event.name) for event in events]


def happened(events: list[Event]) -> InodeEvents:
    """Everything that happened, together."""
    together = InodeEvents(0)
    for event in events:
        together |= InodeEvents(int(event.events))
    return together
