# SPDX-License-Identifier: GPL-2.0-or-later
"""What a random program is: a cast of open files, and steps.  Plain data, to be written as JSON.

Every descriptor has a fixed number, so that answers of two runs can be compared.  A step that makes
no sense where it stands, such as one on a closed descriptor, fails as it would in any program, and
the failure is its answer; so steps can be left out at will.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

QUEUES = (90, 91)
"""Descriptors of the two queues."""

PLACES: dict[str, tuple[int, ...]] = {
    "stream": (100, 101),
    "dgram": (102, 103),
    "tcp": (104, 105),
    "listener": (106,),
    "tcp-listener": (107,),
    "pipe": (108, 109),
    "eventfd": (110,),
    "files": (111, 112),
}
"""The kinds of file, and where they are: pairs, the reading end of the pipe first; a directory and
the file "a" in it."""

SPARE = (114, 115, 116)
"""Where a dup, an accepted or a connecting socket, or another file may go."""

DESCRIPTORS = tuple(fd for place in PLACES.values() for fd in place) + SPARE
DIRECTORY, FILE = PLACES["files"]
NAMES = ("a", "b", "c", "s")
"""Of entries of the directory; "a" and "s", a directory, are there at the beginning."""

MS = 1_000_000
HOUR = 3600 * 1000 * MS
SHORT = 2 * MS
"""When a timer expires that a program waits for, in ns."""
SOON = 30 * 1000 * MS
"""The timeout of a WAIT that something has to end, in ns."""


@dataclass(frozen=True)
class Request:
    """A struct kevent_request."""

    type: int
    ident: int
    events: int = 0
    flags: int = 0
    cookie: int = 0
    op: int = 0
    params: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Post:
    """A struct kevent_post."""

    ident: int
    data: int = 0
    flags: int = 0


@dataclass(frozen=True)
class Step:
    """One call; `do` says which, and with it which of the other fields mean anything."""

    do: str
    queue: int = 0
    requests: tuple[Request, ...] = ()
    posts: tuple[Post, ...] = ()
    extra: int = 0
    """Added to the count of the header, which is then wrong."""
    flags: int = 0
    reserved: int = 0
    min: int = 0
    max: int = 0
    timeout: int = 0
    clock: int = 1
    path: str = ""
    fd: int = 0
    to: int = 0
    size: int = 0
    kind: str = ""
    name: str = ""
    other: str = ""

    def __str__(self) -> str:
        words = []
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                words.append(f"{field.name}={_text(value)}")
        return f"{self.do}({', '.join(words)})"


def _text(value: object) -> str:
    if isinstance(value, Request | Post):
        words = []
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if inner != field.default:
                shown = hex(inner) if field.name in ("flags", "events") else repr(inner)
                words.append(f"{field.name}={shown}")
        return f"{type(value).__name__}({', '.join(words)})"
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(inner) for inner in value) + "]"
    return repr(value)


@dataclass(frozen=True)
class Program:
    """The kinds of file that are open at the beginning, and what is done."""

    cast: tuple[str, ...]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"cast: {', '.join(self.cast)}"]
        lines += [f"{number:3} {step}" for number, step in enumerate(self.steps)]
        return "\n".join(lines)

    @property
    def size(self) -> int:
        """For comparing: how much there is of it."""
        changes = sum(len(step.requests) + len(step.posts) for step in self.steps)
        return 4 * len(self.steps) + 2 * changes + len(self.cast)


def dump(program: Program) -> str:
    """One line of JSON."""
    steps = []
    for step in program.steps:
        plain = dataclasses.asdict(step)
        kept = {"do": step.do}
        for field in dataclasses.fields(step)[1:]:
            if plain[field.name] != field.default:
                kept[field.name] = plain[field.name]
        steps.append(kept)
    return json.dumps({"cast": program.cast, "steps": steps}, separators=(",", ":"))


def load(line: str) -> Program:
    """The opposite of dump()."""
    plain = json.loads(line)
    return Program(tuple(plain["cast"]), tuple(_step(step) for step in plain["steps"]))


def _step(plain: dict[str, Any]) -> Step:
    requests = [
        Request(**{**request, "params": tuple(request["params"])})
        for request in plain.pop("requests", ())
    ]
    posts = [Post(**post) for post in plain.pop("posts", ())]
    return Step(requests=tuple(requests), posts=tuple(posts), **plain)
