#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The web server of examples/webserver.py on epoll and sendfile(2): web_epoll.py DIRECTORY PORT

It does the same for the same clients, so that only how it waits and how it moves bytes differs.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
import time
from contextlib import suppress

from http_files import answer, cut_request

IDLE = 30.0  # seconds that a client may take to ask, or take nothing of what is sent


class Client:
    """A connection: what it has sent that is not answered, and what is left to send."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.keep = True  # after the last reply whatever comes is thrown away
        self.head: bytes | memoryview = b""
        self.file, self.offset, self.length = -1, 0, 0
        self.waits_for_room = False


class Server:
    """All connections, by their descriptors, and those that have to ask, the oldest first."""

    def __init__(self, epoll: select.epoll, listener: socket.socket, root: bytes) -> None:
        self.epoll, self.listener, self.root = epoll, listener, root
        self.clients: dict[int, Client] = {}
        self.asked: dict[int, float] = {}
        epoll.register(listener, select.EPOLLIN)

    def handle(self, fd: int) -> None:
        """Whatever has happened."""
        if fd == self.listener.fileno():
            with suppress(OSError):
                self.begin(Client(self.listener.accept()[0]))
            return
        client = self.clients[fd]
        try:
            if self.busy(client):
                going = self.send(fd, client) and self.reply(fd, client)
            else:
                going = self.receive(fd, client)
        except OSError:
            going = False
        if not going:
            self.drop(fd)

    def tick(self) -> None:
        """A second has passed."""
        before = time.monotonic() - IDLE
        for fd in [fd for fd, since in self.asked.items() if since < before]:
            self.drop(fd)

    def begin(self, client: Client) -> None:
        """A connection is there: wait for a request."""
        client.sock.setblocking(False)
        fd = client.sock.fileno()
        self.clients[fd], self.asked[fd] = client, time.monotonic()
        self.epoll.register(fd, select.EPOLLIN)

    @staticmethod
    def busy(client: Client) -> bool:
        return bool(client.head) or client.file >= 0

    def receive(self, fd: int, client: Client) -> bool:
        """Receive what there is, and answer it; returns whether to go on."""
        try:
            data = client.sock.recv(2048)
        except BlockingIOError:
            return True
        if not data:
            return False
        client.data = client.data + data if client.keep else b""
        return self.reply(fd, client)

    def reply(self, fd: int, client: Client) -> bool:
        """Answer all requests that are there, as far as there is room; returns whether to go on."""
        while client.keep and not self.busy(client):
            request, client.data = cut_request(client.data)
            if request is None:
                break
            del self.asked[fd]
            head, client.keep, file, offset, length = answer(self.root, request)
            client.head = memoryview(head)
            client.file, client.offset, client.length = file, offset, length
            if not self.send(fd, client):
                return False
        return True

    def send(self, fd: int, client: Client) -> bool:
        """Send what there is room for; returns whether to go on."""
        try:
            while client.head:
                more = socket.MSG_MORE if client.file >= 0 else 0
                client.head = client.head[client.sock.send(client.head, more) :]
            while client.length:
                sent = os.sendfile(fd, client.file, client.offset, client.length)
                if not sent:
                    return False  # the file has become shorter
                client.offset += sent
                client.length -= sent
        except BlockingIOError:
            self.wait_for_room(fd, client, True)
            return True
        if client.file >= 0:
            os.close(client.file)
            client.file = -1
        self.asked[fd] = time.monotonic()
        if not client.keep:
            client.sock.shutdown(socket.SHUT_WR)
        self.wait_for_room(fd, client, False)
        return True

    def wait_for_room(self, fd: int, client: Client, waits: bool) -> None:
        """Wait for room in the socket, or else for what it has to be read."""
        if client.waits_for_room != waits:
            client.waits_for_room = waits
            self.epoll.modify(fd, select.EPOLLOUT if waits else select.EPOLLIN)

    def drop(self, fd: int) -> None:
        """Close a connection."""
        client = self.clients.pop(fd)
        if client.file >= 0:
            os.close(client.file)
        client.sock.close()
        self.asked.pop(fd, None)


def main() -> None:
    """Serve until interrupted."""
    directory, port = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=1024)
    listener.setblocking(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * IDLE))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(KeyboardInterrupt), listener, select.epoll() as epoll:
        server = Server(epoll, listener, os.path.realpath(os.fsencode(directory)).rstrip(b"/"))
        print("http://{}:{}/".format(*listener.getsockname()), flush=True)
        then = time.monotonic() + 1
        while True:
            for fd, _ in epoll.poll(max(0.0, then - time.monotonic()), 256):
                if fd in server.clients or fd == listener.fileno():
                    server.handle(fd)
            if time.monotonic() >= then:
                server.tick()
                then = time.monotonic() + 1


if __name__ == "__main__":
    main()
