# SPDX-License-Identifier: GPL-2.0-or-later
"""What a web server of static files answers, whatever moves the bytes: HTTP/1.1 (RFC 9110, 9112).

GET and HEAD, keep-alive, single ranges.  Nothing outside of the directory is served, be it by "..",
by "%2e" or by a symbolic link.
"""

import errno
import mimetypes
import os
import re
import stat
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

LIMIT = 8192  # bytes of a request
END = b"\r\n\r\n"
TOKEN = r"[!#$%&'*+.^_`|~\w-]+"
LINE = re.compile(
    rf"({TOKEN}) (?:http://[^/?\s]+(/[^?\s]*)?|(/[^?\s]*))(?:\?\S*)? HTTP/1\.(\d)", re.ASCII
)
FIELD = re.compile(rf"({TOKEN}):[ \t]*([^\0\r\n]*?)[ \t]*", re.ASCII)
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)
PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUS = {errno.EACCES: 403, errno.EMFILE: 503, errno.ENFILE: 503}  # of others: 404


class Reply(NamedTuple):
    """`head` goes first, with the body where that is no file; `keep`: more may be asked for."""

    head: bytes
    keep: bool
    file: int = -1  # a descriptor to be closed, or -1
    offset: int = 0
    length: int = 0


class Refused(Exception):
    """A status, and fields that go with it."""


def cut_request(data: bytes) -> tuple[bytes | None, bytes]:
    """The first request, if all of it has come or it is too long, and what follows it."""
    request, end, rest = data.lstrip(b"\r\n").partition(END)
    return (request, rest) if end or len(request) > LIMIT else (None, data)


def answer(root: bytes, request: bytes) -> Reply:
    """The reply to a request without its empty line; `root` is a real path with no / at its end."""
    method, keep, file = "", False, -1
    try:
        method, path, fields, keep = parse(request)
        if method not in ("GET", "HEAD"):
            raise Refused(405, "Allow: GET, HEAD")
        if path.endswith(b"/"):
            path += b"index.html"
        file = open_below(root, path)
        size = os.stat(file).st_size
        ranged = method == "GET" and "if-range" not in fields
        part = find_range(fields.get("range", ""), size) if ranged else None
        begin, end = part or (0, size)
        ranges = f"Content-Range: bytes {begin}-{end - 1}/{size}"
        more = [f"Content-Type: {kind_of(path)}", ranges if part else "Accept-Ranges: bytes"]
        head = make_head(206 if part else 200, keep, end - begin, more)
        if method == "GET" and end > begin:
            return Reply(head, keep, file, begin, end - begin)
        os.close(file)
        return Reply(head, keep)
    except Refused as refused:
        status, *more = refused.args
    except (OSError, ValueError) as error:
        status, more = STATUS.get(getattr(error, "errno", 0), 404), []
    if file >= 0:
        os.close(file)
    body = f"{status} {PHRASES[status]}\n".encode()
    head = make_head(status, keep, len(body), ["Content-Type: text/plain", *more])
    return Reply(head if method == "HEAD" else head + body, keep)


def make_head(status: int, keep: bool, length: int, more: list[str]) -> bytes:
    """The status and the fields, `more` the last ones."""
    first, date = f"HTTP/1.1 {status} {PHRASES[status]}", f"Date: {date_of(int(time.time()))}"
    lines = [f"Content-Length: {length}", f"Connection: {'keep-alive' if keep else 'close'}"]
    return "\r\n".join([first, date, *lines, *more, "", ""]).encode()


@lru_cache(maxsize=1)
def date_of(seconds: int) -> str:
    """A point in time as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


@lru_cache(maxsize=1024)
def kind_of(path: bytes) -> str:
    """The media type of a file, as far as its name tells."""
    kind, packed = mimetypes.guess_type(os.fsdecode(path))
    return kind if kind and not packed else "application/octet-stream"


def parse(request: bytes) -> tuple[str, bytes, dict[str, str], bool]:
    """Method, path, fields, and whether another request may follow."""
    if len(request) > LIMIT:
        raise Refused(431)
    first, *lines = request.decode("latin-1").split("\r\n")
    found = LINE.fullmatch(first)
    fields: dict[str, str] = {}
    for line in lines:
        field = FIELD.fullmatch(line)
        if not field:
            raise Refused(400)
        name = field[1].lower()
        fields[name] = f"{fields[name]}, {field[2]}" if name in fields else field[2]
    # There has to be one host, but in HTTP/1.0.
    if not found or (found[4] != "0" and "," in fields.get("host", ",")):
        raise Refused(400)
    wishes = [wish.strip() for wish in fields.get("connection", "").lower().split(",")]
    keep = "close" not in wishes and (found[4] != "0" or "keep-alive" in wishes)
    # A body is not read, and must not be taken for the next request.
    bare = fields.get("content-length", "0") == "0" and "transfer-encoding" not in fields
    return found[1], unquote_to_bytes(found[2] or found[3] or "/"), fields, keep and bare


def open_below(root: bytes, path: bytes) -> int:
    """A descriptor of a regular file that is below `root`, wherever links have led."""
    if b".." in path.split(b"/"):
        raise Refused(404)
    place = os.open(root + path, os.O_PATH)
    try:
        link = b"/proc/self/fd/%d" % place
        if not os.readlink(link).startswith(root + b"/") or not stat.S_ISREG(
            os.stat(place).st_mode
        ):
            raise Refused(404)
        return os.open(link, os.O_RDONLY)
    finally:
        os.close(place)


def find_range(wanted: str, size: int) -> tuple[int, int] | None:
    """Where a single range begins and ends; None: the whole file, as for all that is no such."""
    found = RANGE.fullmatch(wanted)
    first, last = found.groups() if found else ("", "")
    if not size or not (first or last) or (first and last and int(last) < int(first)):
        return None
    begin = int(first) if first else max(size - int(last), 0)
    if begin >= size:
        raise Refused(416, f"Content-Range: bytes */{size}")
    return begin, min(int(last) + 1, size) if first and last else size
