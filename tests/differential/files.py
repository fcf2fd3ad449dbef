# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model knows of files: what is open where, who is whose peer, what a step does to whom.

What poll(2) says of them is taken from the answers.
"""

from __future__ import annotations

import errno
import select
from dataclasses import dataclass, field
from typing import Any

from pykevent.abi import FileKind, InodeEvents

from . import program as plan
from .program import Step

READABLE = select.POLLIN | select.POLLRDNORM
WRITABLE = select.POLLOUT | select.POLLWRNORM | select.POLLWRBAND
ANY = 0x27DF
LISTENS = 2
_SOCKETS = ("stream", "dgram", "tcp", "listener", "tcp-listener")

CREATE, REMOVE = InodeEvents.CREATE, InodeEvents.REMOVE
MOVED_FROM, MOVED_TO = InodeEvents.MOVED_FROM, InodeEvents.MOVED_TO
MODIFY, ATTRIB = InodeEvents.MODIFY, InodeEvents.ATTRIB
SELF_REMOVED, SELF_MOVED = InodeEvents.SELF_REMOVED, InodeEvents.SELF_MOVED
ISDIR = InodeEvents.ISDIR


@dataclass(eq=False)
class Inode:
    """A file or a directory."""

    directory: bool = False

    @property
    def dir_bit(self) -> int:
        """ISDIR or nothing."""
        return int(ISDIR) if self.directory else 0


_ANONYMOUS = Inode()
"""Of all files that have none of their own."""


@dataclass(eq=False)
class OpenFile:
    """An open file, whatever descriptors it has."""

    kind: str
    end: tuple[int, int] = (0, 0)
    inode: Inode | None = None
    queue: int | None = None
    bits: int = 0
    bytes: int = 0
    pending: list[int] = field(default_factory=list)
    node: Inode = field(default_factory=Inode)
    """The inode of what is no file or directory: write(2) modifies that, too."""

    @property
    def is_socket(self) -> bool:
        """Whether it is a socket."""
        return self.kind in _SOCKETS

    @property
    def listens(self) -> bool:
        """Whether it is a listening socket."""
        return self.kind in ("listener", "tcp-listener")

    @property
    def pollable(self) -> bool:
        """Whether poll(2) can wait for it."""
        return self.inode is None

    @property
    def anonymous(self) -> bool:
        """Whether it shares its inode with others that have no name."""
        return self.kind == "eventfd"

    @property
    def pinned_as(self) -> int:
        """Its kind, in the `pinned` of INFO."""
        if self.is_socket:
            return FileKind.SOCKET
        return {"eventfd": FileKind.ANON, "pipe": FileKind.PIPE}.get(self.kind, FileKind.OTHER)


@dataclass
class Effect:
    """What a step did."""

    closed: list[OpenFile] = field(default_factory=list)
    certain: dict[OpenFile, int] = field(default_factory=dict)
    """Bits of poll(2) of which there is new activity."""
    possible: dict[OpenFile, int] = field(default_factory=dict)
    """Bits whose waiters may be woken all the same."""
    happened: list[tuple[Inode, tuple[int, int, str | None]]] = field(default_factory=list)
    """Inode events: where, and events, the number of a rename, the entry's name."""
    ended: list[Inode] = field(default_factory=list)


class Files:
    """The open files of a program, and its directory."""

    def __init__(self, cast: tuple[str, ...]) -> None:
        self.table: dict[int, OpenFile] = {}
        self.connections = 0
        self.renames = 0
        self.root, self.directory = Inode(True), Inode(True)
        self.names: dict[str, Inode] = {"a": Inode(), "s": Inode(True)}
        self.fresh: set[str | None] = set()
        """Names that were made by the program."""
        effect = Effect()
        for kind in cast:
            self.open_kind(kind, effect)

    @property
    def open(self) -> list[OpenFile]:
        """Every open file."""
        return list(dict.fromkeys(self.table.values()))

    def at(self, fd: int) -> OpenFile | None:
        """What a descriptor stands for."""
        return self.table.get(fd)

    def look(self, answer: dict[str, Any]) -> None:
        """Take over what was seen of the files."""
        for fd, bits in answer.get("bits", {}).items():
            if bits is not None and int(fd) in self.table:
                self.table[int(fd)].bits = bits
        for fd, count in answer.get("bytes", {}).items():
            if int(fd) in self.table:
                self.table[int(fd)].bytes = count

    def peer(self, file: OpenFile) -> OpenFile | None:
        """The other end, where it is open."""
        connection, side = file.end
        if not connection or side == LISTENS:
            return None
        for other in self.table.values():
            if other.end == (connection, 1 - side):
                return other
        return None

    def _connection(self) -> int:
        self.connections += 1
        return self.connections

    def _place(self, fd: int, file: OpenFile, effect: Effect) -> None:
        if fd in self.table:
            self._close(fd, effect)
        self.table[fd] = file

    def _close(self, fd: int, effect: Effect) -> None:
        file = self.table.pop(fd)
        if file in self.table.values():
            return
        effect.closed.append(file)
        peer = self.peer(file)
        if peer is not None:
            effect.possible[peer] = ANY
        for other in self.table.values():
            if other.end in [(connection, 0) for connection in file.pending]:
                effect.possible[other] = ANY

    def open_kind(self, kind: str, effect: Effect) -> None:
        """Open a kind of file, anew if it is open."""
        place = plan.PLACES[kind]
        for fd in place:
            if fd in self.table:
                self._close(fd, effect)
        if kind == "files":
            self._place(place[0], OpenFile(kind, inode=self.directory), effect)
            inode = self.names.get("a")
            if inode is not None and not inode.directory:
                self._place(place[1], OpenFile(kind, inode=inode), effect)
            return
        connection = 0 if kind == "eventfd" else self._connection()
        shared = Inode()
        for side, fd in enumerate(place):
            if len(place) == 1 and connection:
                side = LISTENS
            file = OpenFile(kind, (connection, side))
            if kind == "eventfd":
                file.node = _ANONYMOUS
            elif kind == "pipe":
                file.node = shared
            self._place(fd, file, effect)

    def step(self, step: Step, answer: dict[str, Any]) -> Effect:
        """A step, and what it was answered."""
        effect = Effect()
        if isinstance(answer["ret"], int) and answer["ret"] < 0:
            # A failed write to a socket or a pipe may wake somebody, as a failed read may.
            file = self.at(step.fd) if step.do in ("send", "recv", "shutdown") else None
            if file is not None:
                effect.possible[file] = ANY
            return effect
        getattr(self, f"_{step.do}" if step.do != "close" else "_shut")(step, effect)
        return effect

    def _open(self, step: Step, effect: Effect) -> None:
        self.open_kind(step.kind, effect)

    def _shut(self, step: Step, effect: Effect) -> None:
        self._close(step.fd, effect)

    def _dup(self, step: Step, effect: Effect) -> None:
        file = self.table[step.fd]
        if step.to in self.table:
            self._close(step.to, effect)
        self.table[step.to] = file

    def _openat(self, step: Step, effect: Effect) -> None:
        self._place(step.to, OpenFile("files", inode=self.names[step.name]), effect)

    def _send(self, step: Step, effect: Effect) -> None:
        file = self.table[step.fd]
        if step.size or file.kind == "eventfd":
            effect.happened.append((file.node, (MODIFY, 0, None)))
        effect.possible[file] = WRITABLE
        if file.kind == "eventfd":
            # An addition of nothing is no activity.
            effect.possible[file] |= READABLE
            if step.size:
                effect.certain[file] = READABLE
            return
        peer = self.peer(file)
        if peer is not None:
            effect.possible[peer] = ANY & ~WRITABLE
            if step.size or file.kind == "dgram":
                effect.certain[peer] = READABLE

    def _recv(self, step: Step, effect: Effect) -> None:
        file = self.table[step.fd]
        peer = self.peer(file)
        if file.kind == "eventfd":
            effect.possible[file] = WRITABLE
        if peer is not None:
            effect.possible[peer] = WRITABLE

    def _shutdown(self, step: Step, effect: Effect) -> None:
        file = self.table[step.fd]
        effect.possible[file] = ANY
        peer = self.peer(file)
        if peer is not None:
            effect.possible[peer] = ANY

    def _connect(self, step: Step, effect: Effect) -> None:
        listener = self.table[step.fd]
        connection = self._connection()
        listener.pending.append(connection)
        kind = "stream" if listener.kind == "listener" else "tcp"
        self._place(step.to, OpenFile(kind, (connection, 0)), effect)
        effect.certain[listener] = READABLE

    def _accept(self, step: Step, effect: Effect) -> None:
        listener = self.table[step.fd]
        connection = listener.pending.pop(0)
        kind = "stream" if listener.kind == "listener" else "tcp"
        effect.possible[listener] = WRITABLE
        self._place(step.to, OpenFile(kind, (connection, 1)), effect)
        peer = self.peer(self.table[step.to])
        if peer is not None:
            effect.possible[peer] = ANY

    # The directory

    def look_up(self, path: str) -> Inode | int:
        """What a path leads to, or -errno."""
        if not path:
            return -errno.ENOENT
        inode, directory = self.directory, self.root
        for word in path.split("/"):
            if not inode.directory and directory is not self.root:
                return -errno.ENOTDIR
            if directory is self.root:
                if word != "d":
                    return -errno.ENOENT
                directory = inode = self.directory
            elif word == "." and inode.directory:
                continue
            elif inode is not self.directory or word not in self.names:
                return -errno.ENOENT
            else:
                inode = self.names[word]
        return inode

    def _in_directory(self, effect: Effect, events: int, name: str, rename: int = 0) -> None:
        effect.happened.append((self.directory, (events, rename, name)))

    def _gone(self, effect: Effect, inode: Inode, attrib: bool) -> None:
        """The last name of an inode is gone: programs do not open what they remove."""
        if attrib:
            effect.happened.append((inode, (ATTRIB | inode.dir_bit, 0, None)))
        effect.happened.append((inode, (SELF_REMOVED | inode.dir_bit, 0, None)))
        effect.ended.append(inode)

    def _create(self, step: Step, effect: Effect) -> None:
        self.names[step.name] = Inode(step.do == "mkdir")
        self.fresh.add(step.name)
        self._in_directory(effect, CREATE | self.names[step.name].dir_bit, step.name)

    _mkdir = _create

    def _unlink(self, step: Step, effect: Effect) -> None:
        inode = self.names.pop(step.name)
        self._gone(effect, inode, not inode.directory)
        self._in_directory(effect, REMOVE | inode.dir_bit, step.name)

    _rmdir = _unlink

    def _rename(self, step: Step, effect: Effect) -> None:
        if step.name == step.other:
            return
        inode = self.names.pop(step.name)
        target = self.names.get(step.other)
        self.names[step.other] = inode
        self.fresh.add(step.other)
        self.renames += 1
        bit = inode.dir_bit
        self._in_directory(effect, MOVED_FROM | bit, step.name, self.renames)
        self._in_directory(effect, MOVED_TO | bit, step.other, self.renames)
        if target is not None:
            self._gone(effect, target, True)
        effect.happened.append((inode, (SELF_MOVED | bit, 0, None)))

    def _touched(self, step: Step, effect: Effect, events: int) -> None:
        inode = self.directory if step.name == "." else self.names[step.name]
        bit = inode.dir_bit
        if step.name != ".":
            self._in_directory(effect, events | bit, step.name)
        effect.happened.append((inode, (events | bit, 0, None)))

    def _write(self, step: Step, effect: Effect) -> None:
        if step.size:
            self._touched(step, effect, MODIFY)

    def _chmod(self, step: Step, effect: Effect) -> None:
        self._touched(step, effect, ATTRIB)
