#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One thread, one queue: sockets, files, timers, other threads, and a descriptor that is closed.

Prints what happens as it happens.  Ends by itself, with status 0 if every kind of event was seen
with the right content, else with status 1 and what is missing.

The pattern to copy: give each kevent a cookie, and let the cookie choose the handler.
"""

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pykevent
from pykevent import Event, Flags, InodeEvents, PollEvents, Queue, SocketEvents

CLIENTS = 3
POSTS = [10, 20, 30]
TICK_NS = 50_000_000
DEADLINE_NS = 60 * 10**9
KINDS = [
    *("accept", "recv", "send", "inode create", "inode remove"),
    *("timer", "user", "edge", "one-shot", "closed descriptor"),
]


class Demo:
    """Everything that is watched, and what was seen of it."""

    def __init__(self, queue: Queue, directory: Path) -> None:
        self.queue = queue
        self.directory = directory
        self.begun = 0  # ns
        self.handlers: dict[int, Callable[[Event], None]] = {}
        self.cookies: Iterator[int] = count(1)
        self.seen: set[str] = set()
        self.wrong: list[str] = []
        self.ticks = self.writes = self.edges = self.posted = 0

        self.listener = socket.create_server(("127.0.0.1", 0))
        self.pipe = os.pipe()
        self.eventfd = os.eventfd(1)
        self.doomed, self.peer = socket.socketpair()
        self.threads = [threading.Thread(target=self.post, daemon=True)]
        for number in range(CLIENTS):
            self.threads.append(threading.Thread(target=self.client, args=(number,), daemon=True))

    def cookie(self, handler: Callable[[Event], None]) -> int:
        """A new cookie, whose events go to `handler`."""
        cookie = next(self.cookies)
        self.handlers[cookie] = handler
        return cookie

    def see(self, kind: str, source: str, detail: str, *, right: bool = True) -> None:
        """A line of the timeline; `right` says whether the content was as it should be."""
        ms = (time.monotonic_ns() - self.begun) / 1e6
        print(f"{ms:9.1f} ms  {source:<8} {kind:<18} {detail}", flush=True)
        if right:
            self.seen.add(kind)
        else:
            self.wrong.append(f"{kind}: {detail}")

    def start(self) -> None:
        """Fill the queue, and set the other threads going."""
        watch, queue = self.cookie, self.queue
        self.begun = time.monotonic_ns()
        entries = InodeEvents.CREATE | InodeEvents.REMOVE
        queue.add_path(self.directory, entries, ident=1, cookie=watch(self.on_entry))
        requests = [
            pykevent.socket_event(self.listener, SocketEvents.ACCEPT, 0, watch(self.on_accept)),
            pykevent.timer_event(
                1, value_ns=TICK_NS, interval_ns=TICK_NS, cookie=watch(self.on_tick)
            ),
            pykevent.user_event(1, 0, watch(self.on_post)),
            pykevent.poll_event(self.pipe[0], PollEvents.IN, Flags.EDGE, watch(self.on_edge)),
            pykevent.poll_event(self.eventfd, PollEvents.IN, Flags.ONESHOT, watch(self.on_once)),
            pykevent.socket_event(
                self.doomed, SocketEvents.RECV, Flags.NOTIFY_BROKEN, watch(self.on_closed)
            ),
        ]
        for request, result in zip(requests, queue.add_many(requests), strict=True):
            if result:
                raise OSError(-result, f"{os.strerror(-result)}: {request}")
        for thread in self.threads:
            thread.start()

    # Other threads

    def client(self, number: int) -> None:
        """A client of the echo server."""
        greeting = f"hello from client {number}".encode()
        with socket.create_connection(self.listener.getsockname(), timeout=30) as sock:
            sock.sendall(greeting)
            reply = b"".join(iter(lambda: sock.recv(len(greeting)), b""))
            if reply != greeting:
                self.wrong.append(f"client {number} sent {greeting!r} and received {reply!r}")

    def post(self) -> None:
        """Post user events; the queue wakes whoever waits in it."""
        for data in POSTS:
            self.queue.post(1, data)

    # Handlers, all in the one thread that waits

    def on_accept(self, event: Event) -> None:
        """A connection waits: accept it, and wait for what it sends."""
        sock, address = self.listener.accept()
        waiting = f"{event.data} waiting, took {address[0]}:{address[1]}"
        self.see("accept", "socket", waiting, right=event.data >= 1)
        cookie = self.cookie(lambda event: self.on_recv(event, sock))
        self.queue.add(pykevent.socket_event(sock, SocketEvents.RECV, Flags.BYTES, cookie))

    def on_recv(self, event: Event, sock: socket.socket) -> None:
        """Data has come: echo it as soon as there is room to send."""
        data = sock.recv(4096)
        right = data.startswith(b"hello from client") and event.data == len(data)
        self.see("recv", "socket", f"{event.data} bytes: {data.decode()!r}", right=right)
        cookie = self.cookie(lambda event: self.on_send(event, sock, data))
        self.queue.modify(pykevent.socket_event(sock, SocketEvents.SEND, Flags.BYTES, cookie))

    def on_send(self, event: Event, sock: socket.socket, data: bytes) -> None:
        """There is room: answer, and close the connection; its kevent goes with it."""
        sock.sendall(data)
        self.see("send", "socket", f"room for {event.data} bytes", right=event.data >= len(data))
        sock.close()

    def on_entry(self, event: Event) -> None:
        """A file came or went."""
        kind = "inode create" if event.events & InodeEvents.CREATE else "inode remove"
        self.see(kind, "path", f"{event.name!r}", right=event.name == b"news.txt")

    def on_tick(self, event: Event) -> None:
        """Time has passed: make something happen."""
        self.ticks += event.data
        late = time.monotonic_ns() - self.begun - self.ticks * TICK_NS
        detail = f"{event.data} expired, {self.ticks} in all, {late / 1e6:.1f} ms late"
        self.see("timer", "timer", detail, right=event.data >= 1 and late >= 0)
        if "inode create" not in self.seen:
            (self.directory / "news.txt").touch()
        elif "inode remove" not in self.seen:
            (self.directory / "news.txt").unlink(missing_ok=True)
        if self.edges < 2:
            os.write(self.pipe[1], b"x")
            self.writes += 1
        if self.doomed.fileno() >= 0:
            self.doomed.close()  # watched as it is

    def on_post(self, event: Event) -> None:
        """Another thread has posted, perhaps more than once."""
        self.posted += event.count
        self.see("user", "user", f"{event.count} posted, the last with {event.data}")

    def on_edge(self, event: Event) -> None:
        """The pipe was written to; nobody reads it, and it is not reported again for that."""
        self.edges += 1
        # Writes that came before one delivery are one event.
        right = self.edges <= self.writes
        self.see("edge", "pipe", f"event number {self.edges}", right=right)

    def on_once(self, event: Event) -> None:
        """The eventfd is readable, and stays so, but is no longer in the queue."""
        first = "one-shot" not in self.seen
        self.see("one-shot", "eventfd", "removed by this delivery", right=first and event.last)

    def on_closed(self, event: Event) -> None:
        """The socket that was closed in on_tick(): its peer must have seen it at once."""
        self.peer.setblocking(False)
        end = self.peer.recv(1) == b""  # raises BlockingIOError where something holds the socket
        detail = f"descriptor {event.ident}, its peer reads end of file"
        self.see("closed descriptor", "socket", detail, right=end and event.broken and event.last)

    def run(self) -> list[str]:
        """Wait and handle until all was seen or time is up; returns what is missing or wrong."""
        self.start()
        while any(kind not in self.seen for kind in KINDS) or self.busy():
            events = self.queue.wait(deadline_ns=self.begun + DEADLINE_NS)
            if not events or self.wrong:
                break
            for event in events:
                self.handlers[event.cookie](event)
        missing = [f"{kind} was not seen" for kind in KINDS if kind not in self.seen]
        if self.posted != len(POSTS):
            missing.append(f"{len(POSTS)} posts, {self.posted} counted")
        return self.wrong + missing

    def busy(self) -> bool:
        """Whether a client, or the thread that posts, has not ended or been heard yet."""
        return self.posted < len(POSTS) or any(thread.is_alive() for thread in self.threads)


def main() -> int:
    """Run the demo; the exit status."""
    with pykevent.open() as queue, tempfile.TemporaryDirectory() as directory:
        problems = Demo(queue, Path(directory)).run()
    for problem in problems:
        print(f"demo: {problem}", file=sys.stderr)
    if not problems:
        print(f"demo: every kind of event was seen: {', '.join(KINDS)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
