# SPDX-License-Identifier: GPL-2.0-or-later
"""The model that random programs are held against: it accepts what is right, and nothing else."""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable
from typing import Any

import pytest

from pykevent.abi import EventType, Flags
from tests.differential import transfers
from tests.differential.generate import generate
from tests.differential.model import check
from tests.differential.program import Post, Program, Request, Step, dump, load
from tests.differential.shrink import find, shrink

USER, SOCKET = int(EventType.USER), int(EventType.SOCKET)
INFO = [1, 31, 0, 16384, 1000, 1000, 128]
PROGRAM = Program(
    ("stream",),
    (
        Step(
            "add",
            requests=(
                Request(USER, 1, 1, cookie=3),
                Request(SOCKET, 100, 0x0001, int(Flags.EDGE)),
                Request(SOCKET, 100, 0x0001),
            ),
        ),
        Step("post", posts=(Post(1, 7), Post(1, 8), Post(2))),
        Step("send", fd=101, size=5),
        Step("wait", min=1, max=1),
        Step("wait", max=4),
        Step("info"),
        Step("poll"),
    ),
)
ANSWERS: list[dict[str, Any]] = [
    {"ret": 0, "info": [*INFO, 0, 0, 0, *[0] * 8], "bits": {"100": 0x304, "101": 0x304}},
    {"ret": 2, "results": [0, 0, -17], "bits": {}},
    {"ret": 2, "results": [0, 0, -2], "bits": {}},
    {"ret": 5, "bits": {"100": 0x345}},
    {
        "ret": 1, "records": 1, "left": 1, "events": [[3, 1, 8, 2, 1, USER, 0, None]], "bits": {},
    },
    {
        "ret": 1, "records": 1, "left": 0, "events": [[0, 100, 0, 1, 1, SOCKET, 0, None]],
        "bits": {},
    },
    {"ret": 0, "info": [*INFO, 2, 0, 2, *[0] * 8], "bits": {}},
    {"ret": 0, "bits": {}},
]  # fmt: skip

Change = Callable[[list[dict[str, Any]]], object]


def test_what_the_contract_says_is_accepted() -> None:
    assert check(PROGRAM, ANSWERS) is None


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (0, lambda a: a[1]["results"].__setitem__(2, 0)),
        (0, lambda a: a[1].__setitem__("ret", 3)),
        (1, lambda a: a[2]["results"].__setitem__(2, -22)),
        (3, lambda a: a[4]["events"][0].__setitem__(0, 4)),
        (3, lambda a: a[4]["events"][0].__setitem__(2, 7)),
        (3, lambda a: a[4]["events"][0].__setitem__(3, 1)),
        (3, lambda a: a[4]["events"][0].__setitem__(6, 8)),
        (3, lambda a: a[4].__setitem__("left", 2)),
        (3, lambda a: a[4].__setitem__("records", 2)),
        (3, lambda a: a[4].__setitem__("events", a[5]["events"])),
        (3, lambda a: a[4].update(ret=0, records=0, events=[])),
        (4, lambda a: a[5]["events"][0].__setitem__(4, 5)),
        (4, lambda a: a[5].update(ret=0, records=0, events=[])),
        (5, lambda a: a[6]["info"].__setitem__(7, 3)),
        (5, lambda a: a[6]["info"].__setitem__(8, 1)),
        (6, lambda a: a[7].__setitem__("ret", 0x41)),
        (6, lambda a: a[7].__setitem__("ret", "hangs")),
    ],
)
def test_any_other_answer_is_refused(step: int, change: Change) -> None:
    answers = copy.deepcopy(ANSWERS)
    change(answers)
    found = check(PROGRAM, answers)
    assert found is not None
    assert found[0] == step


def test_a_difference_is_made_shorter_as_long_as_it_stays_the_same() -> None:
    rest = tuple(Step("info", 1) for _ in range(9))
    program = Program(("pipe", "stream"), (*rest, Step("poll"), *rest))

    def run(programs: list[Program]) -> list[list[dict[str, Any]]]:
        info: dict[str, Any] = {"ret": 0, "info": [*INFO, 0, 0, 0, *[0] * 8]}
        poll: dict[str, Any] = {"ret": 0x41}
        return [
            [info, *(info if step.do == "info" else poll for step in program.steps)]
            for program in programs
        ]

    difference = find(program, run([program])[0], simulated=False)
    assert difference is not None
    short = shrink(difference, run, simulated=False, rounds=20).program
    assert short == Program((), (Step("poll"),))


def test_a_seed_makes_the_same_programs_again_and_they_survive_being_written() -> None:
    programs = generate(20, 3)
    assert len(set(programs)) == 20
    assert programs == generate(20, 3)
    assert programs == [load(dump(program)) for program in programs]
    assert programs != generate(20, 4)


NAIO = int(EventType.NAIO)
RECEIVES = Program(
    (transfers.NAME,),
    (
        Step("add", requests=(Request(NAIO, 1, 1, cookie=4, params=(0, 5, 101)),)),
        Step("send", fd=100, size=3),
        Step("wait", max=4),
        Step("add", requests=(Request(NAIO, 2, 1, 0x200, params=(1, 9, 101)),)),
        Step("send", fd=100, size=2),
        Step("remove", requests=(Request(NAIO, 2),)),
        Step("shutdown", fd=102),
    ),
)


def received() -> list[dict[str, Any]]:
    """What has to be answered."""
    size = transfers.SLOTS * transfers.SLOT
    memory = bytearray(transfers.byte(n) for n in range(size))
    idle = {"counts": [[0, 0], [0, 0]], "bytes": [0] * 6, "memory": memory.hex()}
    waiting = {**idle, "counts": [[1, 0], [0, 0]]}
    memory[:3] = bytes(transfers.byte(size + n) for n in range(3))
    first = {**idle, "memory": memory.hex()}
    memory[64:66] = bytes(transfers.byte(size + n) for n in range(3, 5))
    second = {**idle, "memory": memory.hex()}
    return [
        {"ret": 0},
        {"ret": 1, "results": [0], "params": [[0, 5]], **waiting},
        {"ret": 3, **first, "counts": [[1, 1], [0, 0]]},
        {"ret": 1, "left": 0, "events": [[4, 1, 3, 1, 1, NAIO, 8]], **first},
        {"ret": 1, "results": [0], "params": [[0, 9]], **first, "counts": [[1, 0], [0, 0]]},
        {"ret": 2, **second, "counts": [[1, 0], [0, 0]]},
        {"ret": 1, "results": [0], "params": [[2, errno.ECANCELED]], **second},
        {"ret": "left out"},
    ]


def test_what_the_contract_says_of_transfers_is_accepted() -> None:
    assert check(RECEIVES, received()) is None


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (0, lambda a: a[1].update(ret=0, results=[-errno.EFAULT])),
        (1, lambda a: a[2].update(counts=[[1, 0], [0, 0]])),
        (1, lambda a: a[2].update(counts=[[1, 2], [0, 0]])),
        (1, lambda a: a[2].update(bytes=[0, 3, 0, 0, 0, 0])),
        (1, lambda a: a[2].update(memory=a[1]["memory"])),
        (2, lambda a: a[3]["events"][0].__setitem__(2, 2)),
        (2, lambda a: a[3]["events"][0].__setitem__(6, 0)),
        (2, lambda a: a[3].update(ret=0, events=[])),
        (4, lambda a: a[5].update(counts=[[0, 0], [0, 0]])),
        (5, lambda a: a[6].update(params=[[0, errno.ECANCELED]])),
        (5, lambda a: a[6].update(params=[[2, 0]])),
        (6, lambda a: a[7].update(ret=0)),
    ],
)
def test_any_other_answer_to_transfers_is_refused(step: int, change: Change) -> None:
    answers = received()
    change(answers)
    found = check(RECEIVES, answers)
    assert found is not None
    assert found[0] == step
