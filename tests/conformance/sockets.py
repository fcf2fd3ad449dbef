# SPDX-License-Identifier: GPL-2.0-or-later
"""Pairs of connected sockets, of every kind that loopback and socketpair() give; their bytes."""

from __future__ import annotations

import fcntl
import socket
import termios
import threading

import pytest

from .support import DEADLINE, eventually, tcp_pair

Pair = tuple[socket.socket, socket.socket]


def udp_pair(family: socket.AddressFamily) -> Pair:
    """Two UDP sockets on the loopback interface, connected to each other."""
    ends = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        for end in ends:
            end.bind((host, 0))
    except OSError as error:
        for end in ends:
            end.close()
        pytest.skip(f"no loopback for {family.name}: {error}")
    ends[0].connect(ends[1].getsockname())
    ends[1].connect(ends[0].getsockname())
    return ends[0], ends[1]


def make_pair(kind: str) -> Pair:
    """Two connected sockets of that kind."""
    match kind:
        case "TCP over IPv4":
            return tcp_pair(socket.AF_INET)
        case "TCP over IPv6":
            return tcp_pair(socket.AF_INET6)
        case "UDP over IPv4":
            return udp_pair(socket.AF_INET)
        case "UDP over IPv6":
            return udp_pair(socket.AF_INET6)
        case "UNIX datagram":
            return socket.socketpair(type=socket.SOCK_DGRAM)
        case "UNIX seqpacket":
            return socket.socketpair(type=socket.SOCK_SEQPACKET)
    return socket.socketpair()


STREAMS = ["TCP over IPv4", "TCP over IPv6", "UNIX stream"]
DATAGRAMS = ["UDP over IPv4", "UDP over IPv6", "UNIX datagram"]
ALL = [*STREAMS, *DATAGRAMS, "UNIX seqpacket"]


def kinds(names: list[str]) -> pytest.MarkDecorator:
    """Run the test on pairs of these kinds."""
    return pytest.mark.parametrize("ends", names, indirect=True)


def narrow(*ends: socket.socket) -> None:
    """Leave these sockets little room to send, and the kernel no occasion to give them more."""
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131072)


def until_arrived(sock: socket.socket) -> None:
    """Wait until all that this TCP socket has sent is with its peer, of which send() is ahead."""

    def arrived() -> bool:
        return fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) == bytes(4)

    eventually(arrived, "what was sent has arrived")


def take(sock: socket.socket, most: int) -> bytes:
    """Receive some bytes of a stream, and have TCP tell the sender of it now, not 40 ms later.

    Who has little room to send has no more than one segment under way, which is what TCP waits for
    another behind.
    """
    part = sock.recv(most)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return part


def receive(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer if the stream ends."""
    got = bytearray()
    while len(got) < count and (part := take(sock, min(count - len(got), 65536))):
        got += part
    return bytes(got)


class Receiver:
    """Takes all that comes, on a thread of its own, until the stream ends."""

    def __init__(self, sock: socket.socket) -> None:
        self._got = bytearray()
        self._sock = sock
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while part := take(self._sock, 65536):
            self._got += part

    def all(self) -> bytes:
        """Everything, once the stream has ended."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the stream does not end"
        return bytes(self._got)
