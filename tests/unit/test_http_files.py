# SPDX-License-Identifier: GPL-2.0-or-later
"""What examples/http_files.py answers, without a server."""

from __future__ import annotations

import errno
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from http_files import LIMIT, Refused, answer, cut_request, find_range
from hypothesis import given
from hypothesis import strategies as st

STATUS = {200, 206, 400, 404, 405, 416, 431}
PIECES = st.sampled_from(
    [
        *(b"GET", b"HEAD", b"POST", b" ", b"/", b"/file", b"..", b"%2e", b"%", b"?", b"http://x"),
        *(
            b" HTTP/1.1",
            b"\r\n",
            b"\r",
            b"\n",
            b":",
            b"Host: x",
            b"Range: bytes=",
            b"-",
            b"0-1",
            b",",
        ),
        *(b"Connection: close", b"Content-Length: 1", b"\0", b"\xff", b"9" * 30),
    ]
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A folder with a file."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "file").write_bytes(b"0123456789")
    return os.fsencode(folder)


def opened() -> set[str]:
    """What this process has open."""
    return set(os.listdir("/proc/self/fd"))


@given(
    st.sampled_from([b"", b"GET /file HTTP/1.1\r\nHost: x\r\n", b"GET /file HTTP/1.0\r\n"]),
    st.lists(PIECES | st.binary(max_size=5), max_size=30).map(b"".join),
)
def test_whatever_is_asked_is_answered(root: bytes, begin: bytes, rest: bytes) -> None:
    before = opened()
    reply = answer(root, begin + rest)
    head, _, body = reply.head.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
    assert status in STATUS and length
    if reply.file >= 0:
        os.close(reply.file)
        assert status in (200, 206) and not body and reply.length == int(length[1])
    elif body:
        assert len(body) == int(length[1])
    assert reply.keep == (b"\r\nConnection: keep-alive" in head)
    assert opened() == before


@given(st.integers(0, 30), st.none() | st.integers(0, 40), st.none() | st.integers(0, 40))
def test_a_range_is_what_it_says(size: int, first: int | None, last: int | None) -> None:
    wanted = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    whole = list(range(size))
    if first is None and last is None:
        expected = whole
    elif first is None:
        assert last is not None
        expected = whole[max(0, size - last) :]
    elif last is None:
        expected = whole[first:]
    else:
        expected = whole if last < first else whole[first : last + 1]
    try:
        begin, end = find_range(wanted, size) or (0, size)
    except Refused as refused:
        assert refused.args == (416, f"Content-Range: bytes */{size}")
        assert expected == []
    else:
        assert whole[begin:end] == expected
        assert begin < end or not size


@given(st.lists(st.sampled_from([b"GET / HTTP/1.1", b"x", b"\r\n\r\n", b"\r\n", b"\r"])), st.data())
def test_requests_are_the_same_however_they_come_in_pieces(
    pieces: list[bytes], data: st.DataObject
) -> None:
    text = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=5))
    places = [0, *sorted(cuts), len(text)]

    def cut(parts: list[bytes]) -> tuple[list[bytes], bytes]:
        requests, rest = [], b""
        for part in parts:
            rest += part
            while True:
                request, rest = cut_request(rest)
                if request is None:
                    break
                requests.append(request)
        return requests, rest.lstrip(b"\r\n")

    parts = [text[a:b] for a, b in pairwise(places)]
    assert cut(parts) == cut([text])


def test_a_request_without_an_end_is_cut_where_it_is_too_long() -> None:
    assert cut_request(b"x" * LIMIT) == (None, b"x" * LIMIT)
    assert cut_request(b"x" * (LIMIT + 1)) == (b"x" * (LIMIT + 1), b"")
    assert answer(b"/none", b"x" * (LIMIT + 1)).head.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("number", "status"),
    [
        *((errno.EACCES, 403), (errno.EMFILE, 503), (errno.ENFILE, 503), (errno.ENOENT, 404)),
        *((errno.ENOTDIR, 404), (errno.ELOOP, 404), (errno.ENAMETOOLONG, 404)),
    ],
)
def test_what_cannot_be_opened_has_a_status(
    root: bytes, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def refuse(path: bytes, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("http_files.os.open", refuse)
    reply = answer(root, b"GET /file HTTP/1.1\r\nHost: it")
    assert reply.head.startswith(f"HTTP/1.1 {status} ".encode())
    assert reply.keep


def test_the_root_of_all_may_be_served(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    reply = answer(b"", f"GET {tmp_path}/file HTTP/1.1\r\nHost: it".encode())
    os.close(reply.file)
    assert (reply.length, reply.keep) == (1, True)
