# SPDX-License-Identifier: GPL-2.0-or-later
"""examples/webserver.py keeps its promises, whatever clients do."""

from __future__ import annotations

import errno
import http.client
import importlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from .support import DEADLINE, eventually

# A server is a Python that has to start, which an emulated machine may take half a minute for.
pytestmark = [pytest.mark.needs("NAIO"), pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAM = str(EXAMPLES / "webserver.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{EXAMPLES}:{EXAMPLES.parent}"}
SIZES = {"empty": 0, "byte": 1, "page": 4096, "odd.txt": 100_003, "large": 6_000_001}
# As main() but for how patient it is: more than any test on an emulated machine, or less.
PATIENT, IMPATIENT = (
    f"import webserver; webserver.IDLE = {seconds}; webserver.main()" for seconds in (600, 2)
)
# As main() with an accept() that fails; the timer, which comes each second, may be put off.
FAILING = """
import socket, webserver
class Listener(socket.socket):
    errors = {errors}
    def accept(self):
        if self.errors and (error := self.errors.pop(0)):
            raise OSError(error, "")
        return super().accept()
socket.socket = Listener
timer = webserver.pykevent.timer_event
webserver.pykevent.timer_event = lambda *_, **named: timer(
    1, **dict(named, value={tick}, interval={tick})
)
webserver.main()
"""
NEVER = 3600


def content(name: str) -> bytes:
    """What is in one of the files: bytes that differ from place to place."""
    words = b"".join(struct.pack("<I", number * 2654435761 % 2**32) for number in range(4096))
    return (words * (SIZES[name] // len(words) + 1))[: SIZES[name]]


@dataclass
class Reply:
    """A reply as it came."""

    status: int
    fields: dict[str, str]
    body: bytes


@dataclass
class Server:
    """The server as a process, and the folder that it serves."""

    process: subprocess.Popen[str]
    port: int
    folder: Path

    def connect(self, room: int = 0) -> socket.socket:
        """A connection; `room` is the size of the buffer for what comes, 0 the usual one."""
        sock = socket.socket()
        if room:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.settimeout(DEADLINE)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def ask(self, path: str, method: str = "GET", **fields: str) -> Reply:
        """One request by the standard library's client."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, headers=fields)
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def serving(folder: Path, *start: str, host: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server of `folder`, which is there to the end, and then ends by SIGINT without a word."""
    process = subprocess.Popen(
        [sys.executable, *(start or (PROGRAM,)), str(folder), "0", *host],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout and process.stderr
            address = process.stdout.readline()
            name = re.escape(f"[{host[0]}]" if host else "127.0.0.1")
            found = re.fullmatch(rf"http://{name}:(\d+)/\n", address)
            assert found, address + process.stderr.read()
            yield Server(process, int(found[1]), folder)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=DEADLINE)
            assert (process.returncode, said) == (0, "")
        finally:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is served; beside it is what is not."""
    above = tmp_path_factory.mktemp("web")
    folder = above / "public"
    (folder / "inside").mkdir(parents=True)
    for name in SIZES:
        (folder / name).write_bytes(content(name))
    (folder / "index.html").write_text("<p>start")
    (folder / "inside/a b.html").write_text("<p>blank")
    (folder / "inside/\N{EURO SIGN}").write_text("euro")
    (folder / "packed.tar.gz").write_bytes(b"packed")
    (folder / "link").symlink_to("inside/a b.html")
    (above / "secret").write_text("secret")
    (above / "public-too").write_text("secret")
    (folder / "out").symlink_to("../secret")
    (folder / "up").symlink_to("..")
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "turn").symlink_to("turn")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Server]:
    """One server for all tests, which none of them brings down."""
    with serving(folder, "-c", PATIENT) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The server, which has to serve after the test as well, and to have lost nothing by it."""
    before = running.descriptors()
    yield running
    assert running.ask("/byte").body == content("byte")
    eventually(lambda: running.descriptors() <= before, "the server closes what it opened")


def read_reply(stream: BinaryIO, method: str = "GET") -> Reply:
    """The next reply of a connection; its body may be cut off."""
    status, fields = stream.readline(), {}
    assert re.fullmatch(rb"HTTP/1\.1 \d\d\d [\w -]+\r\n", status), status
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.decode().partition(": ")
        fields[name] = value.removesuffix("\r\n")
    body = b"" if method == "HEAD" else stream.read(int(fields["Content-Length"]))
    return Reply(int(status.split()[1]), fields, body)


def exchange(server: Server, request: bytes) -> tuple[Reply, bytes]:
    """The reply to what is sent, and all that comes after it until the server closes."""
    with server.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(request)
        reply = read_reply(stream)
        assert reply.fields["Connection"] == "close"
        return reply, stream.read()


def get(path: str, *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    """A request as bytes."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: it", *fields, "", ""]).encode()


# What is served


@pytest.mark.parametrize("name", SIZES)
def test_a_file_is_served_with_its_length(server: Server, name: str) -> None:
    reply = server.ask(f"/{name}")
    assert reply.status == 200
    assert reply.body == content(name)
    assert reply.fields["Content-Length"] == str(SIZES[name])
    assert reply.fields["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("name", SIZES)
def test_head_tells_the_same_and_sends_nothing(server: Server, name: str) -> None:
    reply, more = exchange(server, get(f"/{name}", "Connection: close", method="HEAD"))
    assert (reply.status, reply.body + more) == (200, b"")
    assert reply.fields["Content-Length"] == str(SIZES[name])


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/", b"<p>start", "text/html"),
        ("/index.html?query=/..", b"<p>start", "text/html"),
        ("/inside/a%20b.html", b"<p>blank", "text/html"),
        ("/inside/%E2%82%AC", b"euro", "application/octet-stream"),
        ("/packed.tar.gz", b"packed", "application/octet-stream"),
        ("/link", b"<p>blank", "application/octet-stream"),
        ("/up/public/byte", None, ""),
        ("http://elsewhere/inside/a%20b.html", b"<p>blank", "text/html"),
        ("http://elsewhere", b"<p>start", "text/html"),
        ("http://elsewhere?/..", b"<p>start", "text/html"),
    ],
)
def test_a_path_leads_to_a_file(server: Server, path: str, body: bytes | None, kind: str) -> None:
    reply, _ = exchange(server, get(path, "Connection: close"))
    if body is None:
        # the way is outside, the file is not
        body, kind = content("byte"), "application/octet-stream"
    assert (reply.status, reply.body, reply.fields["Content-Type"]) == (200, body, kind)


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret", "/%2e%2e/secret", "/.%2E/secret", "/inside/../../secret", "/..%2fsecret"),
        *("/../public/byte", "/../public-too", "/..", "/../", "//../secret", "/up/public-too"),
        *("/out", "/up/secret", "/up/", "/passwd", "//etc/passwd", "http://it/../secret"),
        *("/nothing", "/byte/", "/byte/..", "/inside", "/inside/", "/fifo", "/turn", "/byte%00"),
        *("/" + "a" * 300, "/%", "/%zz", "/%ff", "/%e2%82"),
    ],
)
def test_nothing_else_is_there(server: Server, path: str) -> None:
    reply, more = exchange(server, get(path, "Connection: close"))
    assert (reply.status, reply.body, more) == (404, b"404 Not Found\n", b"")


# What is refused


@pytest.mark.parametrize(
    "request_line",
    [
        *(
            "GET",
            "GET /",
            "GET  / HTTP/1.1",
            "GET /byte HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET  HTTP/1.1",
        ),
        *("GET byte HTTP/1.1", "GET / HTTP/2.0", "GET / HTTP/1.", "GET / HTTP/1.1\rX: y", "\0"),
        *("G\xc3\x84T / HTTP/1.1", "GET http:///byte HTTP/1.1", "OPTIONS * HTTP/1.1"),
    ],
)
def test_a_line_that_is_no_request_is_refused(server: Server, request_line: str) -> None:
    reply, more = exchange(server, f"{request_line}\r\nHost: it\r\n\r\n".encode("latin-1"))
    assert (reply.status, reply.body, more) == (400, b"400 Bad Request\n", b"")


@pytest.mark.parametrize(
    "field",
    [
        *("Host: two", "No colon", "Space : before", " folded: line", ": nameless"),
        *("Bare: \r return", "Bare: \n feed", "Nul: \0", "N\xe4me: value"),
    ],
)
def test_a_field_that_is_none_is_refused(server: Server, field: str) -> None:
    text = f"GET / HTTP/1.1\r\nHost: it\r\n{field}\r\n\r\n"
    reply, more = exchange(server, text.encode("latin-1"))
    assert (reply.status, more) == (400, b"")


def test_a_host_is_to_be_named_but_in_http_1_0(server: Server) -> None:
    reply, _ = exchange(server, b"GET /byte HTTP/1.1\r\n\r\n")
    assert reply.status == 400
    reply, _ = exchange(server, b"GET /byte HTTP/1.0\r\n\r\n")
    assert (reply.status, reply.body) == (200, content("byte"))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "get", "BREW"])
def test_other_methods_are_refused_and_those_that_are_not_are_named(
    server: Server, method: str
) -> None:
    reply = server.ask("/byte", method)
    assert (reply.status, reply.fields["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("length", [8193, 9000, 100_000, 5_000_000])
def test_a_request_that_is_too_long_is_refused_and_the_client_hears_of_it(
    server: Server, length: int
) -> None:
    request = get("/byte", "X: " + "x" * length)
    with server.connect() as sock, sock.makefile("rb") as stream:
        sender = threading.Thread(target=sock.sendall, args=(request,))
        sender.start()
        reply = read_reply(stream)
        sender.join()
        sock.shutdown(socket.SHUT_WR)
        assert (reply.status, stream.read()) == (431, b"")


def test_a_request_as_long_as_may_be_is_answered(server: Server) -> None:
    request = get("/byte", "Connection: close", "X: ")
    request = get("/byte", "Connection: close", "X: " + "x" * (8192 + 4 - len(request)))
    assert len(request) == 8192 + 4  # with the empty line
    reply, _ = exchange(server, request)
    assert (reply.status, reply.body) == (200, content("byte"))


@pytest.mark.parametrize("field", ["Content-Length: 40", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_is_not_taken_for_a_request(server: Server, method: str, field: str) -> None:
    reply, more = exchange(server, get("/byte", field, method=method) + get("/page"))
    assert (reply.status, more) == (200 if method == "GET" else 405, b"")


# Ranges

WHOLE = (200, 0, 100_003)
RANGES: dict[str, tuple[int, int, int]] = {
    "bytes=0-0": (206, 0, 1),
    "bytes=0-99": (206, 0, 100),
    "bytes=100-199": (206, 100, 200),
    "bytes=99999-100002": (206, 99_999, 100_003),
    "bytes=99999-100003": (206, 99_999, 100_003),
    "bytes=99999-999999999999999999": (206, 99_999, 100_003),
    "bytes=100002-": (206, 100_002, 100_003),
    "bytes=0-": (206, 0, 100_003),
    "BYTES=5-6": (206, 5, 7),
    "bytes=007-8": (206, 7, 9),
    "bytes=-1": (206, 100_002, 100_003),
    "bytes=-100003": (206, 0, 100_003),
    "bytes=-999999": (206, 0, 100_003),
    "bytes=100003-": (416, 0, 0),
    "bytes=100003-200000": (416, 0, 0),
    "bytes=-0": (416, 0, 0),
    # what is no range, more than one, or of another unit is the whole file
    **dict.fromkeys(
        [
            *("bytes=-", "bytes=", "bytes", "", "0-1", "bytes=2-1", "bytes=a-b", "bytes=0x0-1"),
            *("bytes=0-1,3-4", "bytes=0-1,", "bytes=,0-1", "bytes 0-1", "lines=0-1", "bytes=--1"),
            *("bytes=+1-2", "bytes=1_0-20", "bytes=\u0661-2", "bytes=0-1-2", "bytes=1 - 2"),
            *("bytes=0-" + "9" * 5000, "bytes=-" + "9" * 5000, "bytes=" + "9" * 5000 + "-"),
        ],
        WHOLE,
    ),
}


@pytest.mark.parametrize("wanted", RANGES, ids=lambda wanted: wanted[:30])
def test_a_range_is_answered_rightly(server: Server, wanted: str) -> None:
    status, begin, end = RANGES[wanted]
    with server.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/odd.txt", f"Range: {wanted}"))
        reply = read_reply(stream)
    assert reply.status == status
    given = reply.fields.get("Content-Range")
    if status == 416:
        assert given == "bytes */100003"
        return
    assert given == (None if status == 200 else f"bytes {begin}-{end - 1}/100003")
    assert reply.body == content("odd.txt")[begin:end]


@pytest.mark.parametrize(
    "fields",
    [
        ["Range: bytes=0-1", 'If-Range: "tag"'],
        ["Range: bytes=0-1", "Range: bytes=2-3"],
        ["X-Range: bytes=0-1"],
    ],
)
def test_the_whole_file_is_sent_where_a_range_does_not_count(
    server: Server, fields: list[str]
) -> None:
    reply, _ = exchange(server, get("/odd.txt", "Connection: close", *fields))
    assert (reply.status, reply.body) == (200, content("odd.txt"))


def test_head_knows_no_ranges(server: Server) -> None:
    reply = server.ask("/page", "HEAD", Range="bytes=0-1")
    assert (reply.status, reply.fields["Content-Length"]) == (200, "4096")


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_has_no_ranges(server: Server, wanted: str) -> None:
    reply = server.ask("/empty", Range=wanted)
    assert (reply.status, reply.body) == (200, b"")


# Connections


def test_a_connection_is_kept_for_one_request_after_the_other(server: Server) -> None:
    with server.connect() as sock, sock.makefile("rb") as stream:
        for name in ["byte", "large", "empty", "page", "nothing", "byte"] * 2:
            sock.sendall(get(f"/{name}"))
            reply = read_reply(stream)
            assert reply.fields["Connection"] == "keep-alive"
            assert reply.body == (content(name) if name in SIZES else b"404 Not Found\n")


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: close"], False),
        ("1.1", ["Connection: upgrade, Close"], False),
        ("1.1", ["Connection: keep-alive"], True),
        ("1.9", [], True),
        ("1.0", [], False),
        ("1.0", ["Connection: Keep-Alive"], True),
        ("1.0", ["Connection: keep-alive, close"], False),
        ("1.0", ["connection:x", "CONNECTION:\tkeep-alive\t"], True),
    ],
)
def test_it_is_closed_or_kept_as_the_client_wishes(
    server: Server, version: str, fields: list[str], kept: bool
) -> None:
    with server.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/page", *fields, version=version))
        reply = read_reply(stream)
        assert reply.body == content("page")
        assert reply.fields["Connection"] == ("keep-alive" if kept else "close")
        if kept:
            sock.sendall(get("/byte", "Connection: close"))
            assert read_reply(stream).body == content("byte")
        assert stream.read() == b""


def test_requests_that_come_at_once_are_answered_in_order(server: Server) -> None:
    names = ["odd.txt", "byte", "nothing", "empty", "page"] * 40
    requests = [
        get(f"/{name}", method="HEAD" if i % 3 == 0 else "GET") for i, name in enumerate(names)
    ]
    with server.connect() as sock, sock.makefile("rb") as stream:
        sender = threading.Thread(target=sock.sendall, args=(b"\r\n".join(requests),))
        sender.start()
        for i, name in enumerate(names):
            reply = read_reply(stream, "HEAD" if i % 3 == 0 else "GET")
            assert (reply.status == 200) == (name in SIZES)
            if i % 3 and name in SIZES:
                assert reply.body == content(name)
        sender.join()


def test_what_is_asked_for_while_a_reply_is_not_read_waits(server: Server) -> None:
    # more bytes than the server takes at once, or keeps
    many = [get("/page", "X-Filler: " + "x" * 180)] * 250
    with server.connect(room=1 << 16) as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/large"))
        sender = threading.Thread(target=sock.sendall, args=(b"".join(many),))
        sender.start()
        assert server.ask("/byte").body == content("byte")
        assert read_reply(stream).body == content("large")
        for _ in many:
            assert read_reply(stream).body == content("page")
        sender.join()


def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    with server.connect() as sock, sock.makefile("rb") as stream:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in get("/page", "Connection: close"):
            sock.sendall(bytes([byte]))
        assert read_reply(stream).body == content("page")
        assert stream.read() == b""


def test_a_client_that_sends_no_more_is_answered_all_the_same(server: Server) -> None:
    with server.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/large") + get("/page"))
        sock.shutdown(socket.SHUT_WR)
        assert read_reply(stream).body == content("large")
        assert read_reply(stream).body == content("page")
        assert stream.read() == b""


def test_clients_that_read_slowly_hold_up_nobody(server: Server) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(server.connect(room=4096)) for _ in range(20)]
        for sock in slow:
            sock.sendall(get("/large", "Connection: close"))
        assert server.ask("/large").body == content("large")
        for sock in slow[:3]:
            stream = stack.enter_context(sock.makefile("rb"))
            assert read_reply(stream).body == content("large")


def reset(sock: socket.socket) -> None:
    """Close it so that the peer is told by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
@pytest.mark.parametrize(
    "said",
    [b"", b"GET /by", get("/byte"), get("/large"), get("/large") * 20, b"nonsense\r\n\r\n"],
    ids=["nothing", "half", "a request", "a large one", "many", "nonsense"],
)
def test_clients_that_vanish_cost_nothing(
    server: Server, leave: Callable[[socket.socket], None], said: bytes
) -> None:
    for number in range(10):
        sock = server.connect(room=4096)
        sock.sendall(said)
        if number % 2 and said.startswith(b"GET /large"):
            assert sock.recv(100)
        leave(sock)


def test_a_file_that_shrinks_while_it_is_sent_ends_the_connection(server: Server) -> None:
    path = server.folder / "shrinks"
    path.write_bytes(content("large") * 4)
    with server.connect(room=4096) as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/shrinks") + get("/byte"))
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        os.truncate(path, 1000)
        # as by sendfile(2) pages are sent that may have been cleared meanwhile
        body = stream.read().partition(b"\r\n\r\n")[2]
    assert body[:1000] == content("large")[:1000]
    assert len(body) < 4 * SIZES["large"]


def test_a_file_that_is_removed_while_it_is_sent_is_sent(server: Server) -> None:
    path = server.folder / "goes"
    path.write_bytes(content("large"))
    with server.connect(room=4096) as sock, sock.makefile("rb") as stream:
        sock.sendall(get("/goes") + get("/goes", "Connection: close"))
        eventually(lambda: bool(sock.recv(1, socket.MSG_PEEK)), "the reply begins")
        path.unlink()
        assert read_reply(stream).body == content("large")
        assert read_reply(stream).status == 404


# A server that waits two seconds


@pytest.fixture(scope="module")
def impatient(folder: Path) -> Iterator[Server]:
    """A server that waits two seconds for requests."""
    with serving(folder, "-c", IMPATIENT) as server:
        yield server


@pytest.mark.parametrize("said", [b"", b"GET /by", get("/byte")], ids=["nothing", "half", "once"])
def test_a_client_that_asks_for_nothing_is_dropped(impatient: Server, said: bytes) -> None:
    with impatient.connect() as sock, sock.makefile("rb") as stream:
        sock.sendall(said)
        if said.endswith(b"\r\n\r\n"):
            assert read_reply(stream).body == content("byte")
        assert stream.read() == b""


def test_a_client_that_asks_byte_by_byte_for_too_long_is_dropped(impatient: Server) -> None:
    with impatient.connect() as sock:
        sock.settimeout(0.05)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(400):
                sock.sendall(b"x")
                with pytest.raises(TimeoutError):
                    if sock.recv(1) == b"":
                        raise BrokenPipeError


def test_a_client_that_takes_nothing_is_dropped(impatient: Server) -> None:
    before = impatient.descriptors()
    with impatient.connect(room=4096) as sock:
        sock.sendall(get("/large"))
        assert sock.recv(1) == b"H"
        eventually(lambda: impatient.descriptors() <= before, "the server gives up")


# How it is started, and accept()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Starts a server in this process; SystemExit where it does not come to serve anything."""
    monkeypatch.syspath_prepend(EXAMPLES)
    main: Callable[[], None] = importlib.import_module("webserver").main

    def call(*words: str) -> object:
        monkeypatch.setattr(sys, "argv", [PROGRAM, *words])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code

    return call


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "required: directory, port"),
        ((".",), "required: port"),
        ((".", "http"), "invalid int value: 'http'"),
        ((".", "65536"), "65536 is no port"),
        ((".", "0", "192.0.2.1"), "Cannot assign requested address"),
        (("nowhere", "0"), "nowhere is no directory"),
        ((PROGRAM, "0"), "webserver.py is no directory"),
    ],
)
def test_words_that_make_no_server_are_told_in_a_sentence(
    started: Callable[..., object],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    assert started(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: webserver.py [-h] directory port [host]\n")
    assert said in error


def test_it_can_be_asked_how_it_is_started(
    started: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert started("--help") == 0
    assert capsys.readouterr().out.startswith("usage: webserver.py [-h] directory port [host]\n")


def test_it_serves_by_ipv6(folder: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no loopback for IPv6: {error}")
    with serving(folder, host=("::1",)) as server:
        connection = http.client.HTTPConnection("::1", server.port, timeout=DEADLINE)
        connection.request("GET", "/byte")
        assert connection.getresponse().read() == content("byte")
        connection.close()


def failing(folder: Path, *errors: int, tick: int = NEVER) -> AbstractContextManager[Server]:
    """A server whose accept() fails like that, 0 being not at all, before it does not any more."""
    return serving(folder, "-c", FAILING.format(errors=list(errors), tick=tick))


def test_an_accept_that_fails_keeps_nobody_waiting(folder: Path) -> None:
    errors = [errno.ECONNABORTED, errno.EAGAIN, errno.EPROTO, errno.EPERM]
    # Each fails twice before somebody comes in.
    with failing(folder, *(number for error in errors for number in (error, error, 0))) as server:
        for _ in errors:
            assert server.ask("/byte").body == content("byte")


def test_without_a_descriptor_it_does_not_try_to_accept_again_at_once(folder: Path) -> None:
    with failing(folder, 0, errno.EMFILE) as server, server.connect() as sock:
        stream = sock.makefile("rb")
        sock.sendall(get("/nothing"))  # no file is open any more when the reply comes
        assert read_reply(stream).status == 404
        before = server.descriptors()
        with server.connect():
            for _ in range(3):
                # A listener that was armed again would have been seen to before this.
                sock.sendall(get("/nothing"))
                assert read_reply(stream).status == 404
            assert server.descriptors() == before
        stream.close()


def test_without_a_descriptor_it_tries_to_accept_again_a_second_later(folder: Path) -> None:
    with failing(folder, errno.EMFILE, tick=1) as server:
        assert server.ask("/byte").body == content("byte")
