# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving bytes between a socket and memory of a client, without waiting for the socket.

What is received is looked at first, and taken from the socket when it has been written: what cannot
be written stays there.  BlockingIOError says that the socket has to call, another OSError what it
has to say, RefusedError what is wrong with the memory.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from typing import NamedTuple

from pykevent.sim.client import Process
from pykevent.sim.kevent import RefusedError
from pykevent.sim.memory import Space

CHUNK = 1 << 20
"""Bytes of a stream in one call."""

_PIECE = 1 << 16
"""Bytes that are read at once to be sent, and that there is always room for to be received."""
_SO_PEEK_OFF = 42
_MOST = 0xFFFF
"""No datagram by UDP is longer."""
_SCM_CREDENTIALS = 2
_UCRED = struct.Struct("=iII")
_NOW = socket.MSG_DONTWAIT
SENDING = _NOW | socket.MSG_NOSIGNAL
_PEEK = _NOW | socket.MSG_PEEK


class Sender(NamedTuple):
    """Who is said to have sent what a UNIX socket sends."""

    process: Process
    uid: int
    gid: int


def _looking_moves(sock: socket.socket) -> bool:
    """Whether a look does not begin at what is next, which the socket's owner wants so."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF) >= 0
    except OSError:
        return False


def available(sock: socket.socket) -> int:
    """How many bytes there are to receive; 0 where the socket does not say."""
    answer = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, answer)
    except OSError:
        return 0
    return max(answer[0], 0)


def _room(sock: socket.socket, space: Space, address: int, size: int) -> int:
    """How much of what there is to receive can be written, as it seems."""
    size = min(size, max(available(sock), _PIECE))
    return space.write(address, space.read(address, size))


def _correct(space: Space, address: int, seen: bytes, taken: bytes) -> None:
    """Somebody else has received what was seen: what came then is written in its place."""
    if seen != taken:
        _write_all(space, address, taken)


def _write_all(space: Space, address: int, data: bytes) -> None:
    if data and space.write(address, data) < len(data):
        raise RefusedError(errno.EFAULT)


def receive_stream(sock: socket.socket, space: Space, address: int, size: int) -> int:
    """Receive up to @size bytes; returns how many, 0 at the end."""
    if _looking_moves(sock):
        data = sock.recv(_room(sock, space, address, size), _NOW)
        _write_all(space, address, data)
        return len(data)
    # Some may come meanwhile.
    seen = sock.recv(min(size, max(available(sock), _PIECE)), _PEEK)
    if not seen:
        return 0
    written = space.write(address, seen)
    taken = sock.recv(written, _NOW)
    _correct(space, address, seen[:written], taken)
    return len(taken)


def _packet(sock: socket.socket, size: int, flags: int) -> tuple[bytes, int, bool]:
    """A packet, or as much of it as fits into @size; how long it seems; and whether it is cut."""
    buffer = bytearray(size)
    length, _, said, _ = sock.recvmsg_into([buffer], 0, flags)
    return bytes(buffer[:length]), length, bool(said & socket.MSG_TRUNC)


def receive_packet(sock: socket.socket, space: Space, address: int, size: int) -> tuple[int, bool]:
    """Receive a packet; returns how many bytes, and whether it had more."""
    most = min(size, _MOST)
    if _looking_moves(sock):
        if _room(sock, space, address, size) < most:
            raise RefusedError(errno.EFAULT)
        taken, _, cut = _packet(sock, min(size, max(available(sock), most)), _NOW)
        _write_all(space, address, taken)
        return len(taken), cut
    seen, length, _ = _packet(sock, most, _PEEK | socket.MSG_TRUNC)
    if length > most and size > most:
        most = min(size, length)
        seen, _, _ = _packet(sock, most, _PEEK)
    _write_all(space, address, seen)
    taken, _, cut = _packet(sock, most, _NOW)
    _correct(space, address, seen, taken)
    return len(taken), cut


def send_stream(
    sock: socket.socket,
    space: Space,
    address: int,
    size: int,
    sender: Sender | None,
    moved: Callable[[int], None],
) -> None:
    """Send up to @size bytes; @moved is told how many, also where it fails then."""
    left = min(size, CHUNK)
    while True:
        data = space.read(address, min(left, _PIECE)) if left else b""
        sent = send_bytes(sock, data, sender)
        moved(sent)
        address += sent
        left -= sent
        if not left:
            return


def send_bytes(sock: socket.socket, data: bytes, sender: Sender | None) -> int:
    """Send some bytes: what goes by a UNIX socket says which process sent it."""
    if sender is None:
        return sock.send(data, SENDING)
    if not sender.process.alive():
        # Its number may be another's by now.
        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
    said = _UCRED.pack(sender.process.pid, sender.uid, sender.gid)
    try:
        return sock.sendmsg([data], [(socket.SOL_SOCKET, _SCM_CREDENTIALS, said)], SENDING)
    except PermissionError:
        # Only root may name another than itself, and nobody else is to be taken for us.
        if (sender.uid, sender.gid) != (os.getuid(), os.getgid()):
            raise
        return sock.send(data, SENDING)


def send_packet(sock: socket.socket, space: Space, address: int, size: int) -> int:
    """Send a packet."""
    if size > _MOST:
        # The socket says that it is too long, whatever is in it.
        data = bytes(_MOST + 1)
    else:
        data = space.read(address, size) if size else b""
        if len(data) < size:
            raise RefusedError(errno.EFAULT)
    return sock.send(data, SENDING)
