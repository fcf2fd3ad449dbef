# SPDX-License-Identifier: GPL-2.0-or-later
"""What the fuzzer of tests/fuzz leaves behind: programs, and the places reached."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .common import Failure, run
from .coverage import own_name

# A program as it was written right before it was run, the newest over the oldest.
RECENT = re.compile(rb"# program (\d+), seed \d+\n[^\0]*\0")
CALL = "__sanitizer_cov_trace_pc"


def programs(text: str) -> list[str]:
    """The programs of a corpus: what empty lines separate, without comments."""
    found = []
    for part in re.split(r"\n[ \t]*\n", text):
        lines = [line.strip() for line in part.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        if lines:
            found.append("\n".join(lines) + "\n")
    return found


def merge(texts: Iterable[str]) -> list[str]:
    """The programs of several corpora, each once, in their order."""
    return list(dict.fromkeys(program for text in texts for program in programs(text)))


def recent(ring: bytes) -> list[str]:
    """The last programs that were begun, the very last one at the end."""
    found = sorted((int(match[1]), match[0]) for match in RECENT.finditer(ring))
    return [record[:-1].decode("ascii") for _, record in found]


def summary(path: Path) -> dict[str, float]:
    """The numbers in the fuzzer's one line."""
    words = path.read_text(encoding="ascii").split()
    return {name: float(value) for name, _, value in (word.partition("=") for word in words)}


@dataclass(frozen=True, order=True)
class Site:
    """A place of the module that KCOV tells of: the address behind the call."""

    section: str
    offset: int


def sites_of(listing: str) -> list[Site]:
    """The places in what ``objdump -r`` prints, but for those gone after loading."""
    found = []
    section = ""
    for line in listing.splitlines():
        if match := re.match(r"RELOCATION RECORDS FOR \[(.+)\]:", line):
            section = match[1]
        words = line.split()
        if section.startswith(".text") and len(words) == 3 and words[2].startswith(CALL):
            # The relocation is at the last four bytes of the call.
            found.append(Site(section, int(words[0], 16) + 4))
    return found


def places_of(text: str) -> set[Site]:
    """The places in what the fuzzer wrote: a section and an offset a line."""
    pairs = (line.split() for line in text.splitlines())
    return {Site(section, int(offset, 16)) for section, offset in pairs}


def functions(module: Path, sites: list[Site]) -> dict[Site, tuple[str, str]]:
    """The source and the function of those *sites* that are the module's own."""
    by_section: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        by_section[site.section].append(site)
    found = {}
    for section, members in by_section.items():
        # Of the call itself, not of what comes after it.
        words = [hex(site.offset - 1) for site in members]
        said = run(["addr2line", "-f", "-e", module, "-j", section, *words], timeout=120)
        lines = said.splitlines()
        for site, function, place in zip(members, lines[::2], lines[1::2], strict=True):
            name = own_name(place.partition(":")[0])
            # Constructors that the compiler made.
            if name is not None and not function.startswith("_sub_"):
                found[site] = (name, function)
    return found


@dataclass
class Reach:
    """How much of the module was reached."""

    covered: int
    total: int
    # Of each source, the functions of which no place was.
    never: dict[str, list[str]]


def reach(module: Path, places: set[Site]) -> Reach:
    """What *places* are of all there are in the *module*."""
    all_sites = sites_of(run(["objdump", "-r", module], timeout=120))
    if not all_sites:
        raise Failure(f"{module} was built without KCOV")
    known = functions(module, all_sites)
    hit = {known[site] for site in places if site in known}
    never: dict[str, list[str]] = defaultdict(list)
    for name, function in sorted(set(known.values()) - hit):
        never[name].append(function)
    return Reach(len(places & known.keys()), len(known), dict(never))
