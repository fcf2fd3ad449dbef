# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kinds of file a kevent keeps open, for each kernel that we speak of.

INFO has the answer of the module, which it finds by a probe, and all other tests go by
INFO: were the probe wrong, they would skip what they should have looked at.  So here
is what it has to find, and that the manual page says the same.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import pytest

import pykevent
from pykevent import FileKind

TREE = Path(__file__).resolve().parents[2]
DEVICE = Path(os.environ.get("KEVENT_DEVICE") or "/dev/kevent")

ALWAYS = FileKind.PTY_MASTER | FileKind.FIFO | FileKind.OTHER
# By series, as in scripts/kernels.
PINNED = {
    "6.1": ALWAYS,
    "6.12": ALWAYS,
    "7.3": ALWAYS | FileKind.ANON,
}


def series_of(release: str) -> str:
    """The first two numbers of what ``uname -r`` says."""
    found = re.match(r"\d+\.\d+", release)
    assert found, release
    return found[0]


def manual() -> dict[str, str]:
    """What the manual page has under "Pinned files", by the kind's name."""
    text = (TREE / "doc/kevent.4").read_text(encoding="utf-8")
    section = text.partition(".SS Pinned files")[2].partition(".RE")[0]
    entries = re.findall(r"^\.B KEVENT_FILE_(\w+)\n((?:[^.].*\n)+)", section, re.MULTILINE)
    # without what follows the name in brackets
    return {name: re.sub(r"^\([^)]*\) ", "", words).strip() for name, words in entries}


@pytest.mark.skipif(
    not DEVICE.exists() and os.environ.get("KEVENT_CHECK_KMSG") != "1",
    reason=f"no {DEVICE}: this needs the module",
)
def test_info_names_the_kinds_of_file_that_this_kernel_is_known_to_pin() -> None:
    series = series_of(platform.release())
    # A guest's kernel is one of scripts/kernels, and so of these.
    if series not in PINNED and os.environ.get("KEVENT_CHECK_KMSG") != "1":
        pytest.skip(f"nobody has said what Linux {series} pins")
    with pykevent.open() as queue:
        assert queue.info().pinned == PINNED[series]


def test_it_is_known_of_each_kernel_that_we_test_on() -> None:
    lines = (TREE / "scripts/kernels").read_text(encoding="utf-8").splitlines()
    assert {line.split()[0] for line in lines if line and line[0] != "#"} == PINNED.keys()


@pytest.mark.parametrize("kind", list(FileKind), ids=lambda kind: str(kind.name))
def test_the_manual_page_says_the_same(kind: FileKind) -> None:
    pinned = {series for series, kinds in PINNED.items() if kind in kinds}
    words = manual()[str(kind.name)]
    if pinned == PINNED.keys():
        assert words == "pinned"
    elif not pinned:
        assert words == "not pinned"
    else:
        free, _, rest = words.partition(";\n")
        assert set(re.findall(r"\d+\.\d+", free)) == PINNED.keys() - pinned
        assert free.startswith("not pinned on Linux ")
        since = re.fullmatch(r"pinned from Linux (\d+)\.(\d+) on", rest)
        assert since, words
        first = (int(since[1]), int(since[2]))
        for series in PINNED:
            major, minor = series.split(".")
            assert (series in pinned) == ((int(major), int(minor)) >= first)
