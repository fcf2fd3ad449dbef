# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzzer's programs as text, and what the host reads of its runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from runner.common import TREE
from runner.fuzz import Site, merge, places_of, programs, recent, sites_of

CORPUS = TREE / "tests/fuzz/corpus.prog"
ONE = "0 add 64 0 0 0 0 0 4 1 7 0 2 1 1000 0 1\n1 wait 64 0 0 0 1 8 0xf4240 1 0 0\n"
TWO = "0 post 64 0 0 0 0 0 1 18446744073709551615 0\n"


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzzer, which needs no device for what is asked of it here."""
    program = tmp_path_factory.mktemp("fuzz") / "fuzz"
    sources = sorted(TREE.glob("tests/fuzz/*.c")) + sorted(TREE.glob("tests/kernel/lib*.c"))
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    compiler = os.environ.get("CC", "gcc")
    subprocess.run([compiler, *flags, *sources, "-o", program], check=True, timeout=300)
    return program


def ask(fuzz: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [fuzz, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


def test_a_program_is_read_as_it_was_written(fuzz: Path, tmp_path: Path) -> None:
    made = ask(fuzz, "--generate", "300", "--seed", "7").stdout
    assert len(programs(made)) == 300
    file = tmp_path / "made.prog"
    file.write_text(made)
    again = ask(fuzz, "--print", file)
    assert (again.returncode, again.stdout) == (0, made)


def test_a_seed_brings_back_the_same_programs(fuzz: Path) -> None:
    first, second, other = (
        ask(fuzz, "--generate", "50", "--seed", seed).stdout for seed in ("5", "5", "6")
    )
    assert first == second != other


def test_every_program_of_the_corpus_can_be_read(fuzz: Path) -> None:
    said = ask(fuzz, "--print", CORPUS)
    assert said.returncode == 0, said.stderr
    assert programs(said.stdout) == programs(CORPUS.read_text(encoding="ascii"))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("0 fly 64", "no such call"),
        ("9 close 64", "no such thread"),
        ("0 close", "wrong number of arguments"),
        ("0 close 64 65", "wrong number of arguments"),
        ("0 add 64 0 0 0 0 0 1 2 3", "wrong number of arguments"),
        ("0 close sixty-four", "not a number"),
        ("0 close 64x", "not a number"),
        ("0 nap 0\n" * 33, "too many calls"),
    ],
)
def test_what_is_no_program_is_refused(
    fuzz: Path, tmp_path: Path, line: str, complaint: str
) -> None:
    file = tmp_path / "bad.prog"
    file.write_text(line + "\n")
    said = ask(fuzz, "--print", file)
    assert said.returncode == 1
    assert complaint in said.stderr


def test_empty_lines_separate_programs_and_comments_are_none() -> None:
    text = f"# a head\n\n{ONE}\n# said of the second\n{TWO}\n\n"
    assert programs(text) == [ONE, TWO]
    assert programs("# nothing\n") == []


def test_corpora_are_merged_without_repetition() -> None:
    assert merge([f"{ONE}\n{TWO}", f"# again\n{TWO}\n{ONE}"]) == [ONE, TWO]


def test_the_last_programs_come_out_of_the_ring_in_their_order() -> None:
    slots = {8: ONE, 9: TWO, 2: ONE}
    ring = b"".join(
        f"# program {number}, seed 1\n{text}\0older, longer text\n".encode().ljust(4096, b"\0")
        for number, text in slots.items()
    )
    found = recent(ring)
    assert [record.splitlines()[0] for record in found] == [
        "# program 2, seed 1", "# program 8, seed 1", "# program 9, seed 1",
    ]  # fmt: skip
    assert programs(found[-1]) == [TWO]


def test_a_program_that_was_not_wholly_written_is_left_out() -> None:
    assert recent(f"# program 3, seed 1\n{ONE}".encode()) == []


def test_places_are_where_calls_of_kcov_return_to() -> None:
    listing = """
kevent.o:     file format elf64-x86-64

RELOCATION RECORDS FOR [.text]:
OFFSET           TYPE              VALUE
0000000000000045 R_X86_64_PLT32    __sanitizer_cov_trace_pc-0x0000000000000004
0000000000000051 R_X86_64_PLT32    mutex_lock-0x0000000000000004

RELOCATION RECORDS FOR [.init.text]:
OFFSET           TYPE              VALUE
0000000000000005 R_X86_64_PLT32    __sanitizer_cov_trace_pc-0x0000000000000004

RELOCATION RECORDS FOR [.text.unlikely]:
OFFSET           TYPE              VALUE
0000000000000010 R_X86_64_PLT32    __sanitizer_cov_trace_pc-0x0000000000000004
"""
    assert sites_of(listing) == [Site(".text", 0x49), Site(".text.unlikely", 0x14)]
    assert places_of(".text 0x49\n.text.unlikely 0x14\n") == set(sites_of(listing))
