#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A web server of static files on one queue: examples/webserver.py DIRECTORY PORT [HOST]

The kernel receives requests and sends files, and tells when it has.  It sends one reply to a client
at a time; what is asked for meanwhile is kept, and where that is much the rest waits in the socket.
A client that vanishes ends its transfers with an error, one that asks for nothing is dropped by a
timer.  What there is to answer is in http_files.py.
"""

import argparse
import errno
import os
import resource
import socket
import time
from contextlib import suppress
from itertools import count

from http_files import LIMIT, answer, cut_request

import pykevent
from pykevent import Event, Flags, NaioEvents, Queue, SocketEvents

IDLE = 30.0  # seconds that a client may take to ask, or take nothing of what is sent
LISTENER, TIMER = 0, 1  # cookies; each client has another
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # of accept(): no use to repeat it
RECV = NaioEvents.RECV


class Client:
    """A connection: what it has sent that is not answered, and what comes next."""

    def __init__(self, queue: Queue, sock: socket.socket, cookie: int) -> None:
        self.queue, self.sock, self.cookie = queue, sock, cookie
        self.buffer = bytearray(2048)
        self.data = b""
        self.ended = False  # it sends no more
        self.keep = True  # after the last reply whatever comes is thrown away
        self.due = 0  # bytes that the reply under way must not fall short of; 0: there is none
        self.receive()

    def receive(self) -> None:
        """Have the kernel receive, again and again: what one wait brings is gone by the next."""
        self.receiver = self.queue.recv_into(
            self.sock, self.buffer, multishot=True, cookie=self.cookie
        )

    def received(self, length: int) -> None:
        """So much has come; 0 is the end."""
        if not length:
            self.ended = True
        elif self.keep:
            self.data += self.buffer[:length]
            if self.due and len(self.data) > LIMIT:
                self.receiver.cancel()  # until that is answered


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
        client = self.clients.get(event.cookie)
        if client:
            try:
                going = self.moved(event, client)
            except OSError:
                going = False
            if not going:
                self.drop(event.cookie)
        elif event.cookie == LISTENER:
            self.accept(event.data)
        elif event.cookie == TIMER:
            before = time.monotonic() - IDLE
            for cookie in [cookie for cookie, since in self.asked.items() if since < before]:
                self.drop(cookie)
            self.queue.modify(self.accepting)
        # Else it is of a client that was dropped.

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
        """A transfer has moved something; returns whether to go on."""
        if event.error:
            return False
        if event.events == RECV:
            client.received(event.data)
            return client.due > 0 or self.reply(client)
        if event.data < client.due:
            return False
        client.due = 0
        self.asked[event.cookie] = time.monotonic()
        if not client.keep:
            client.sock.shutdown(socket.SHUT_WR)  # to close would reset what is not read yet
        return self.reply(client)

    def reply(self, client: Client) -> bool:
        """Have the kernel send the next reply, if there is one to be; returns whether to go on."""
        if client.keep and client.data:
            request, client.data = cut_request(client.data)
            if request is not None:
                self.send(client, request)
                return True
        if client.receiver.done and not client.ended:
            client.receive()
        return not client.ended

    def send(self, client: Client, request: bytes) -> None:
        """Have the kernel send the reply to a request."""
        del self.asked[client.cookie]
        head, client.keep, file, offset, length = answer(self.root, request)
        client.due = len(head) + length
        if file < 0:
            self.queue.send(client.sock, head, cookie=client.cookie)
            return
        try:
            self.queue.sendfile(
                client.sock, file, offset, length, prefix=head, cookie=client.cookie
            )
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
    if not 0 <= options.port < 1 << 16:
        parser.error(f"{options.port} is no port")
    root = os.path.realpath(os.fsencode(options.directory)).rstrip(b"/")
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        address = options.host, options.port
        listener = socket.create_server(address, family=family, backlog=1024)
    except OSError as error:
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
