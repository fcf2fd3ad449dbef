# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's sock_diag knows of sockets by their inode numbers alone."""

from __future__ import annotations

import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST, _DUMP = 1, 0x300
_ERROR, _DONE = 2, 3
_UDIAG_SHOW_RQLEN = 0x10
_UNIX_DIAG_RQLEN = 4
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")
_UNIX_SIZE, _INET_SIZE = 16, 72
_RQUEUE_AT, _INODE_AT = 56, 68


def backlog(domain: int, inode: int) -> int:
    """Connections that wait at a listening socket; 0 where that is not known."""
    try:
        if domain == socket.AF_UNIX:
            return _unix(inode)
        if domain in (socket.AF_INET, socket.AF_INET6):
            return _tcp(domain, inode)
    except OSError:
        pass
    return 0


def _ask(flags: int, request: bytes) -> list[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        size = _HEADER.size + len(request)
        header = _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST | flags, 1, 0)
        netlink.send(header + request)
        answers: list[bytes] = []
        while True:
            data = netlink.recv(65536)
            while data:
                length, kind = _HEADER.unpack_from(data)[:2]
                if kind in (_ERROR, _DONE):
                    return answers
                answers.append(data[_HEADER.size : length])
                data = data[(length + 3) & ~3 :]
            if not flags & _DUMP:
                return answers


def _unix(inode: int) -> int:
    any_cookie = 0xFFFFFFFF
    request = struct.pack(
        "=BBHIIIII",
        socket.AF_UNIX,
        0,
        0,
        0xFFFFFFFF,
        inode,
        _UDIAG_SHOW_RQLEN,
        any_cookie,
        any_cookie,
    )
    for answer in _ask(0, request):
        attributes = answer[_UNIX_SIZE:]
        while len(attributes) >= 4:
            length, kind = struct.unpack_from("=HH", attributes)
            if kind == _UNIX_DIAG_RQLEN:
                return int(struct.unpack_from("=I", attributes, 4)[0])
            attributes = attributes[(length + 3) & ~3 :]
    return 0


def _tcp(domain: int, inode: int) -> int:
    request = struct.pack("=BBBBI48x", domain, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN)
    for answer in _ask(_DUMP, request):
        if len(answer) >= _INET_SIZE and struct.unpack_from("=I", answer, _INODE_AT)[0] == inode:
            return int(struct.unpack_from("=I", answer, _RQUEUE_AT)[0])
    return 0
