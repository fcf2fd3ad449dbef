# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs programs on the device that KEVENT_DEVICE names, and writes down what was answered.

With every answer goes what poll(2), and FIONREAD where a kevent counts bytes, say of the files
thereafter: the model knows what a queue has to make of that, and not what a socket is like.

    python -m tests.differential.execute PROGRAMS ANSWERS

has a program, and thereafter its answers, per line.  It runs in an emulated guest, so it imports
little.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pykevent import abi, calls

from . import program as plan
from . import transfers

Answer = dict[str, Any]

ALL = 0x27DF
"""Every bit that poll(2) may be asked for."""
UNSET = -77
"""In a result that nobody wrote."""
LIMIT = 120.0
"""Seconds after which a program is held to hang."""
LISTENS = 2
"""In place of the side of a connection: a listening socket."""
_SETTLED = 5.0
_UNACKNOWLEDGED = (4, 9, 11)
"""States of TCP: FIN_WAIT1, LAST_ACK, CLOSING."""


class HangError(Exception):
    """A call did not return."""


def _pack(request: plan.Request) -> bytes:
    return abi.REQUEST.pack(
        request.ident,
        request.cookie,
        request.type,
        request.op,
        request.flags,
        request.events,
        UNSET,
        *request.params,
    )


def _fionread(fd: int) -> int:
    value = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, value)
    except OSError:
        return 0
    return value[0]


class Machine:
    """The files of one program, and its queues."""

    def __init__(self, device: str, folder: str, counts: bool) -> None:
        self.device = device
        self.folder = folder
        self.counts = counts
        # What is open: of each descriptor its kind and, of a socket, whose connection it is.
        self.kinds: dict[int, str] = {}
        self.ends: dict[int, tuple[int, int]] = {}
        self.connections = 0
        # Connections that wait to be accepted, by listening socket, and ends that were closed.
        self.pending: dict[int, list[int]] = {}
        self.gone: set[tuple[int, int]] = set()
        self.renames: dict[int, int] = {}
        self.seen_bits: dict[int, int] = {}
        self.seen_bytes: dict[int, int] = {}
        os.mkdir(f"{folder}/d")
        os.mkdir(f"{folder}/d/s")
        os.close(os.open(f"{folder}/d/a", os.O_CREAT | os.O_WRONLY, 0o600))
        self.steps: dict[str, Callable[[plan.Step], Answer]] = {
            "add": self.change,
            "modify": self.change,
            "remove": self.change,
            "change_wait": self.wait,
            "wait": self.wait,
            "add_path": self.add_path,
            "post": self.post,
            "info": self.info,
            "poll": self.poll,
            "read": self.read,
        }

    # Descriptors

    def place(self, fd: int, to: int, kind: str, end: tuple[int, int] | None = None) -> None:
        """Move @fd to where the program expects it, not blocking."""
        os.set_blocking(fd, False)
        if to in self.kinds:
            self.close(to)
        # What is there now is looked at anew.
        self.seen_bits.pop(to, None)
        self.seen_bytes.pop(to, None)
        os.dup2(fd, to, inheritable=False)
        os.close(fd)
        self.kinds[to] = kind
        if end is not None:
            self.ends[to] = end

    def at(self, end: tuple[int, int]) -> list[int]:
        """Descriptors of one end of a connection."""
        return [fd for fd, other in self.ends.items() if other == end]

    def other(self, fd: int) -> tuple[int, int]:
        """The other end of the connection."""
        connection, side = self.ends[fd]
        return connection, 1 - side

    def connection(self) -> int:
        """A number that no connection had before."""
        self.connections += 1
        return self.connections

    def close(self, fd: int) -> None:
        """Close a descriptor, and see to it that the peer has heard."""
        kind = self.kinds.pop(fd)
        end = self.ends.pop(fd, None)
        os.close(fd)
        if end is None or end in self.ends.values():
            return
        lost = [end]
        if end[1] == LISTENS:
            lost = [(connection, 1) for connection in self.pending.pop(end[0])]
        for connection, side in lost:
            self.gone.add((connection, side))
            if kind in ("tcp", "tcp-listener"):
                self.until_hung_up((connection, 1 - side))

    def open(self, kind: str) -> None:
        """Open a kind of file anew."""
        place = plan.PLACES[kind]
        for fd in place:
            if fd in self.kinds:
                self.close(fd)
        pair: tuple[socket.socket, socket.socket] | None = None
        if kind == "stream":
            pair = socket.socketpair()
        elif kind == "dgram":
            pair = socket.socketpair(type=socket.SOCK_DGRAM)
        elif kind == "tcp":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                near = socket.create_connection(listener.getsockname())
                far, _ = listener.accept()
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = near, far
        elif kind == "listener":
            sock = socket.socket(socket.AF_UNIX)
            sock.bind("")
            sock.listen(16)
            self.listen(sock, place[0], kind)
        elif kind == "tcp-listener":
            sock = socket.create_server(("127.0.0.1", 0), backlog=16)
            self.listen(sock, place[0], kind)
        elif kind == "pipe":
            for fd, to in zip(os.pipe(), place, strict=True):
                self.place(fd, to, kind)
        elif kind == "eventfd":
            self.place(os.eventfd(0), place[0], kind)
        elif kind == "files":
            self.place(os.open(f"{self.folder}/d", os.O_RDONLY), place[0], kind)
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                self.place(os.open(f"{self.folder}/d/a", os.O_RDWR), place[1], kind)
        if pair is not None:
            number = self.connection()
            for side, (end, to) in enumerate(zip(pair, place, strict=True)):
                self.place(end.detach(), to, kind, (number, side))

    def listen(self, sock: socket.socket, to: int, kind: str) -> None:
        """Put a listening socket where it belongs."""
        number = self.connection()
        self.pending[number] = []
        self.place(sock.detach(), to, kind, (number, LISTENS))

    def until_hung_up(self, end: tuple[int, int]) -> None:
        """Wait until one end of a connection has heard of the end of it, if it is open."""
        for fd in self.at(end)[:1]:
            poller = select.poll()
            poller.register(fd, select.POLLRDHUP)
            poller.poll(_SETTLED * 1000)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what the network has to do; whatever it did is in the answer."""
        end = time.monotonic() + _SETTLED
        while not condition() and time.monotonic() < end:
            time.sleep(0.0005)

    @staticmethod
    def bits(fd: int) -> int:
        """What poll(2) says."""
        poller = select.poll()
        poller.register(fd, ALL)
        return sum(bits for _, bits in poller.poll(0))

    def look(self, answer: Answer) -> None:
        """Add to an answer what has changed of the files."""
        poller = select.poll()
        pollable = [fd for fd, kind in self.kinds.items() if kind != "files"]
        for fd in pollable:
            poller.register(fd, ALL)
        now = dict.fromkeys(pollable, 0)
        now.update(poller.poll(0))
        answer["bits"] = {
            str(fd): now.get(fd)
            for fd in {*now, *self.seen_bits}
            if now.get(fd) != self.seen_bits.get(fd)
        }
        self.seen_bits = now
        if self.counts:
            counted = {fd: _fionread(fd) for fd in pollable}
            answer["bytes"] = {
                str(fd): count for fd, count in counted.items() if count != self.seen_bytes.get(fd)
            }
            self.seen_bytes = counted

    # Calls of the device

    def ioctl(self, step: plan.Step, number: int, buffer: bytearray) -> Answer:
        """The call itself."""
        try:
            return {"ret": calls.ioctl(plan.QUEUES[step.queue], number, buffer, blocking=True)}
        except OSError as error:
            return {"ret": -(error.errno or 0)}

    def change(self, step: plan.Step) -> Answer:
        """ADD, MODIFY, REMOVE."""
        number = {"add": abi.ADD, "modify": abi.MODIFY, "remove": abi.REMOVE}[step.do]
        count = len(step.requests)
        buffer = bytearray(abi.BATCH.pack(count + step.extra, step.flags, step.reserved))
        for request in step.requests:
            buffer += _pack(request)
        answer = self.ioctl(step, number(count), buffer)
        if answer["ret"] >= 0:
            answer["results"] = self.results(buffer, abi.BATCH.size, count)
        return answer

    @staticmethod
    def results(buffer: bytearray, offset: int, count: int) -> list[int]:
        """Of so many requests."""
        at = range(offset, offset + count * abi.REQUEST.size, abi.REQUEST.size)
        return [abi.REQUEST.unpack_from(buffer, where)[6] for where in at]

    def wait(self, step: plan.Step) -> Answer:
        """WAIT and CHANGE_WAIT."""
        count = len(step.requests)
        buffer = bytearray(
            abi.WAIT_HEADER.pack(
                count + step.extra,
                UNSET & 0xFFFFFFFF,
                step.min,
                step.max,
                step.timeout,
                step.clock,
                step.flags,
                0,
                0,
                step.reserved,
            )
        )
        for request in step.requests:
            buffer += _pack(request)
        at = abi.WAIT_HEADER.size + abi.REQUEST.size * (count + step.extra)
        buffer += bytes(32 * step.max)
        change = step.do == "change_wait"
        number = abi.CHANGE_WAIT(count, step.max) if change else abi.WAIT(step.max)
        answer = self.ioctl(step, number, buffer)
        header = abi.WAIT_HEADER.unpack_from(buffer)
        if answer["ret"] >= 0 or answer["ret"] == -errno.EMSGSIZE:
            answer["records"], answer["left"] = header[7:9]
            answer["events"] = self.events(bytes(buffer[at : at + 32 * header[7]]))
            if change:
                answer["changed"] = header[1]
                answer["results"] = self.results(buffer, abi.WAIT_HEADER.size, count)
        return answer

    def events(self, records: bytes) -> list[list[Any]]:
        """Events as lists: cookie, ident, data, count, events, type, flags, name."""
        found, at = [], 0
        while at < len(records):
            event: list[Any] = list(abi.EVENT.unpack_from(records, at))
            at += 32
            name = None
            if event[6] & abi.EventFlags.NAME:
                length = event[2] >> 32
                name = records[at : at + length].decode()
                at += (length + 31) // 32 * 32
            if event[5] in (abi.EventType.INODE, abi.EventType.PATH) and event[2] & 0xFFFFFFFF:
                # Which number pairs a rename is up to the kernel.
                pair = self.renames.setdefault(event[2] & 0xFFFFFFFF, len(self.renames) + 1)
                event[2] = event[2] >> 32 << 32 | pair
            found.append([*event, name])
        return found

    def add_path(self, step: plan.Step) -> Answer:
        """ADD_PATH; the path is below the program's folder."""
        path = os.fsencode(f"{self.folder}/{step.path}" if step.path else "") + b"\0"
        buffer = bytearray(_pack(step.requests[0]) + path)
        answer = self.ioctl(step, abi.ADD_PATH(len(path)), buffer)
        if answer["ret"] >= 0:
            answer["results"] = self.results(buffer, 0, 1)
        return answer

    def post(self, step: plan.Step) -> Answer:
        """POST."""
        count = len(step.posts)
        buffer = bytearray(abi.BATCH.pack(count + step.extra, step.flags, step.reserved))
        for post in step.posts:
            buffer += abi.POSTING.pack(post.ident, post.data, post.flags, UNSET)
        answer = self.ioctl(step, abi.POST(count), buffer)
        if answer["ret"] >= 0:
            at = range(abi.BATCH.size, len(buffer), abi.POSTING.size)
            answer["results"] = [abi.POSTING.unpack_from(buffer, where)[3] for where in at]
        return answer

    def info(self, step: plan.Step) -> Answer:
        """INFO."""
        buffer = bytearray(abi.INFO_ANSWER.size)
        answer = self.ioctl(step, abi.INFO, buffer)
        if answer["ret"] >= 0:
            answer["info"] = list(abi.INFO_ANSWER.unpack(buffer))
        return answer

    def poll(self, step: plan.Step) -> Answer:
        """poll(2) of a queue."""
        return {"ret": self.bits(plan.QUEUES[step.queue])}

    def read(self, step: plan.Step) -> Answer:
        """read(2) of a queue, which does not block."""
        records = os.read(plan.QUEUES[step.queue], step.size)
        return {"ret": len(records), "events": self.events(records)}

    # All other calls

    def act(self, step: plan.Step) -> int:
        """Do something to the files; what the call returned."""
        fd = step.fd
        if step.do == "open_queue":
            queue = os.open(self.device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            os.dup2(queue, plan.QUEUES[step.queue], inheritable=False)
            os.close(queue)
        elif step.do == "close_queue":
            os.close(plan.QUEUES[step.queue])
        elif step.do == "open":
            self.open(step.kind)
        elif step.do == "close":
            if fd not in self.kinds:
                return -errno.EBADF
            self.close(fd)
        elif step.do == "dup":
            if fd not in self.kinds or step.to == fd:
                return -errno.EBADF
            if step.to in self.kinds:
                self.close(step.to)
            os.dup2(fd, step.to, inheritable=False)
            self.seen_bits.pop(step.to, None)
            self.seen_bytes.pop(step.to, None)
            self.kinds[step.to] = self.kinds[fd]
            if fd in self.ends:
                self.ends[step.to] = self.ends[fd]
        elif step.do == "send":
            return self.send(fd, b"x" * step.size)
        elif step.do == "recv":
            return len(os.read(fd, step.size))
        elif step.do == "shutdown":
            return self.shutdown(fd, step.size)
        elif step.do == "connect":
            return self.connect(fd, step.to)
        elif step.do == "accept":
            return self.accept(fd, step.to)
        else:
            self.touch(step)
        return 0

    def send(self, fd: int, data: bytes) -> int:
        """write(2), and until TCP has delivered it."""
        kind = self.kinds.get(fd)
        if kind == "eventfd":
            data = len(data).to_bytes(8, sys.byteorder)
        others = self.at(self.other(fd)) if kind == "tcp" else []
        before = _fionread(others[0]) if others else 0
        count = os.write(fd, data)
        if others:
            self.until(
                lambda: (
                    _fionread(others[0]) >= before + count or self.bits(fd) & select.POLLHUP != 0
                )
            )
        elif kind == "tcp" and self.other(fd) in self.gone:
            self.until(lambda: self.bits(fd) & select.POLLHUP != 0)
        return count

    def shutdown(self, fd: int, how: int) -> int:
        """shutdown(2), and until TCP has delivered it."""
        if fd not in self.ends or self.ends[fd][1] == LISTENS:
            return -errno.EINVAL
        with socket.socket(fileno=os.dup(fd)) as sock:
            sock.shutdown(how)
        if how != socket.SHUT_RD and self.kinds[fd] == "tcp":
            self.until_hung_up(self.other(fd))
            # Its acknowledgement, which may be delayed, wakes this end.
            self.until(lambda: self.tcp_info(fd)[0] not in _UNACKNOWLEDGED)
        return 0

    def connect(self, fd: int, to: int) -> int:
        """Connect a new socket to a listening one."""
        kind = self.kinds.get(fd)
        if kind not in ("listener", "tcp-listener") or to == fd:
            return -errno.EINVAL
        with socket.socket(fileno=os.dup(fd)) as listener:
            sock = socket.socket(listener.family)
            if kind == "listener":
                sock.setblocking(False)
                sock.connect(listener.getsockname())
            else:
                before = self.backlog(fd)
                sock.connect(listener.getsockname())
                self.until(lambda: self.backlog(fd) > before)
        number = self.connection()
        self.pending[self.ends[fd][0]].append(number)
        self.place(sock.detach(), to, "stream" if kind == "listener" else "tcp", (number, 0))
        return 0

    @staticmethod
    def tcp_info(fd: int) -> bytes:
        """A struct tcp_info; the first byte is the state."""
        with socket.socket(fileno=os.dup(fd)) as sock:
            return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)

    def backlog(self, fd: int) -> int:
        """How many connections wait: what tcp_info of a listening socket has as "unacked"."""
        return int.from_bytes(self.tcp_info(fd)[24:28], sys.byteorder)

    def accept(self, fd: int, to: int) -> int:
        """Accept a connection."""
        kind = self.kinds.get(fd)
        if kind not in ("listener", "tcp-listener") or to == fd:
            return -errno.EINVAL
        with socket.socket(fileno=os.dup(fd)) as listener:
            listener.setblocking(False)
            sock, _ = listener.accept()
        number = self.pending[self.ends[fd][0]].pop(0)
        self.place(sock.detach(), to, "stream" if kind == "listener" else "tcp", (number, 1))
        return 0

    def touch(self, step: plan.Step) -> None:
        """What is done to entries of the directory."""
        where = f"{self.folder}/d/{step.name}" if step.name != "." else f"{self.folder}/d"
        if step.do == "create":
            os.close(os.open(where, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        elif step.do == "mkdir":
            os.mkdir(where)
        elif step.do == "unlink":
            os.unlink(where)
        elif step.do == "rmdir":
            os.rmdir(where)
        elif step.do == "rename":
            os.rename(where, f"{self.folder}/d/{step.other}")
        elif step.do == "write":
            fd = os.open(where, os.O_WRONLY)
            try:
                os.write(fd, b"x" * step.size)
            finally:
                os.close(fd)
        elif step.do == "chmod":
            os.chmod(where, step.size)
        elif step.do == "openat":
            fd = os.open(where, os.O_RDONLY)
            if os.path.isdir(where):
                os.close(fd)
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            self.place(fd, step.to, "files")
        else:
            raise ValueError(step.do)

    def step(self, step: plan.Step) -> Answer:
        """Do one step; its answer, and what became of the files."""
        try:
            call = self.steps.get(step.do)
            answer = {"ret": self.act(step)} if call is None else call(step)
        except HangError:
            return {"ret": "hangs"}
        except OSError as error:
            answer = {"ret": -(error.errno or 0)}
        self.look(answer)
        return answer

    def end(self) -> None:
        """Close everything."""
        for fd in [*self.kinds, *plan.QUEUES]:
            with contextlib.suppress(OSError):
                os.close(fd)


def execute(program: plan.Program, device: str) -> list[Answer]:
    """The answers of a program: one for its beginning, then one for each step."""
    if program.cast == (transfers.NAME,):
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        try:
            return transfers.execute(program, device)
        except HangError:
            return [{"ret": 0}, {"ret": "hangs"}]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    counts = any(
        request.flags & abi.Flags.BYTES for step in program.steps for request in step.requests
    )
    folder = tempfile.mkdtemp(prefix="kevent-program-")
    machine = Machine(device, folder, counts)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        answers: list[Answer] = []
        for kind in program.cast:
            machine.open(kind)
        for queue in range(len(plan.QUEUES)):
            machine.act(plan.Step("open_queue", queue=queue))
        answers.append(machine.info(plan.Step("info")))
        machine.look(answers[0])
        for step in program.steps:
            answers.append(machine.step(step))
            if answers[-1]["ret"] == "hangs":
                break
        return answers
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        machine.end()
        shutil.rmtree(folder)


def _hang(_number: int, _frame: object) -> None:
    raise HangError


def main() -> int:
    programs, answers = Path(sys.argv[1]), Path(sys.argv[2])
    device = os.environ.get("KEVENT_DEVICE", "/dev/kevent")
    signal.signal(signal.SIGALRM, _hang)
    with programs.open() as lines, answers.open("w") as out:
        for line in lines:
            answer = execute(plan.load(line), device)
            out.write(json.dumps(answer, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
