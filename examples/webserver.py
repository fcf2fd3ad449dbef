#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A web server of static files on one queue: examples/webserver.py DIRECTORY PORT [HOST]

The kernel receives requests and sends files, and tells when it has.  It does one of these for a
client at a time; what is asked for meanwhile waits in the socket.  A client that vanishes ends its
transfer with an error, one that asks for nothing is dropped by a timer.  What there is to answer is
in http_files.py.
"""

import argparse
import errno
import os
import resource
import socket
import time
from contextlib import suppress
from itertools import count

from http_files import answer, cut_request

import pykevent
from pykevent import Event, Flags, NaioEvents, Queue, SocketEvents

IDLE = 30.0  # seconds that a client may take to ask, or take nothing of what is sent
LISTENER, TIMER = 0, 1  # cookies; each client has another
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # of accept(): no use to repeat it


class Client:
    """A connection: what it has sent that is not answered, and what comes next."""

    def __init__(self, queue: Queue, sock: socket.socket, cookie: int) -> None:
        self.sock = sock
        self.buffer = bytearray(2048)
        self.receiver = queue.recv_into(
            sock, self.buffer, multishot=True, dispatch=True, cookie=cookie
        )
        self.data = b""
        self.keep = True  # after the last reply whatever comes is thrown away
        self.due = 1  # bytes that the transfer under way must not fall short of


class Server:
    """All connections, by their cookies, and those that have to ask, the oldest first."""

    def __init__(self, queue: Queue, listener: socket.socket, root: bytes) -> None:
        self.queue, self.listener, self.root = queue, listener, root
        self.cookies = count(TIMER + 1)
        self.clients: dict[int, Client] = {}
        self.asked: dict[int, float] = {}
        accept, mode = SocketEvents.ACCEPT, Flags.DISPATCH
        self.accepting = pykevent.socket_event(listener, accept, mode, LISTENER)
        queue.add(self.accepting)
        queue.add(pykevent.timer_event(1, value=1, interval=1, cookie=TIMER))

    def handle(self, event: Event) -> None:
        """Whatever has happened."""
        if event.cookie == LISTENER:
            self.accept(event.data)
        elif event.cookie == TIMER:
            before = time.monotonic() - IDLE
            for cookie in [cookie for cookie, since in self.asked.items() if since < before]:
                self.drop(cookie)
            self.queue.modify(self.accepting)
        elif event.cookie in self.clients:  # else it was dropped
            with suppress(OSError):
                if self.moved(event, self.clients[event.cookie]):
                    return self.move(event.cookie, self.clients[event.cookie])
            self.drop(event.cookie)
        return None

    def accept(self, waiting: int) -> None:
        """Begin with so many clients, or as many as there is room for: the timer tries again."""
        try:
            for _ in range(waiting):
                sock, cookie = self.listener.accept()[0], next(self.cookies)
                self.clients[cookie] = Client(self.queue, sock, cookie)
                self.asked[cookie] = time.monotonic()
        except OSError as error:
            if error.errno in FULL:
                return
        self.queue.modify(self.accepting)

    def moved(self, event: Event, client: Client) -> bool:
        """A transfer has ended; returns whether that was well."""
        if event.error or event.data < client.due:
            return False
        if event.events == NaioEvents.RECV:
            client.data = client.data + client.buffer[: event.data] if client.keep else b""
        else:
            self.asked[event.cookie] = time.monotonic()
            if not client.keep:
                client.sock.shutdown(socket.SHUT_WR)  # to close would reset what is not read yet
        return True

    def move(self, cookie: int, client: Client) -> None:
        """Have the kernel send a reply, or else receive more."""
        request, rest = cut_request(client.data) if client.keep else (None, b"")
        if request is None:
            client.due = 1  # none is the end
            client.receiver.resume()
            return
        del self.asked[cookie]
        head, client.keep, file, offset, length = answer(self.root, request)
        client.data, client.due = rest, len(head) + length
        if file < 0:
            self.queue.send(client.sock, head, cookie=cookie)
            return
        try:
            self.queue.sendfile(client.sock, file, offset, length, prefix=head, cookie=cookie)
        finally:
            os.close(file)

    def drop(self, cookie: int) -> None:
        """Close a connection, with nothing left of it in the queue."""
        client = self.clients.pop(cookie)
        client.receiver.cancel()
        client.sock.close()
        self.asked.pop(cookie, None)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve the files of a directory by HTTP.")
    parser.add_argument("directory")
    parser.add_argument("port", type=int, help="0: any that is free")
    parser.add_argument("host", nargs="?", default="127.0.0.1", help="an address (%(default)s)")
    options = parser.parse_args()
    if not os.path.isdir(options.directory):
        parser.error(f"{options.directory} is no directory")
    root = os.path.realpath(os.fsencode(options.directory)).rstrip(b"/")
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        address = options.host, options.port
        listener = socket.create_server(address, family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        parser.error(str(error))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener.setblocking(False)
    # Clients have these from it: a peer that is silent or takes nothing is lost in the end.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * IDLE))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(KeyboardInterrupt), listener, pykevent.open() as queue:
        server = Server(queue, listener, root)
        host, port = listener.getsockname()[:2]
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
        while True:
            for event in queue.wait():
                server.handle(event)


if __name__ == "__main__":
    main()
