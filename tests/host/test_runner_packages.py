# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels are found in whatever archive the machine uses, and cached whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest
from runner.apt import Apt, deb822, machine_sources, one_line
from runner.common import Failure, cache_dir
from runner.kernels import Kernel, cached, fill, newest, numbers, parts, relocate, suites_of


def test_sources_in_one_line_format_are_found() -> None:
    text = """
# deb http://commented.example/debian bookworm main
deb http://one.example/debian bookworm main contrib
deb [arch=amd64 signed-by=/k.gpg] http://two.example/debian bookworm-updates main
deb http://sec.example/debian-security bookworm-security main
deb-src http://one.example/debian bookworm main
deb http://other.example/stuff nodistro main
"""
    found = [(s.uri, s.security, s.options) for s in one_line(text)]
    assert found == [
        ("http://one.example/debian", False, ()),
        ("http://two.example/debian", False, ("signed-by=/k.gpg",)),
        ("http://sec.example/debian-security", True, ()),
    ]


def test_sources_in_deb822_format_are_found() -> None:
    text = """
Types: deb
# a comment in the middle
URIs: http://one.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://sec.example/debian-security
Suites: trixie-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: trixie
Components: main
"""
    found = list(dict.fromkeys(deb822(text)))
    assert [(s.uri, s.security) for s in found] == [
        ("http://one.example/debian", False),
        ("http://sec.example/debian-security", True),
    ]
    assert found[0].line("bookworm-backports") == (
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        " http://one.example/debian bookworm-backports main"
    )


def test_sources_of_all_files_are_found_once(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    line = "deb http://one.example/debian bookworm main\n"
    (tmp_path / "sources.list").write_text(line, encoding="utf-8")
    (tmp_path / "sources.list.d/more.list").write_text(line, encoding="utf-8")
    assert [source.uri for source in machine_sources(tmp_path)] == ["http://one.example/debian"]


class FakeApt(Apt):
    """An archive of a few packages."""

    packages: ClassVar = {
        "linux-headers-6.12.9+deb12-amd64": "",
        "linux-headers-6.12.107+deb12-amd64": (
            "linux-base (>= 4.12~), linux-headers-6.12.107+deb12-common (= 1), "
            "linux-image-6.12.107+deb12-amd64 (= 1) | linux-image-6.12.107+deb12-amd64-unsigned, "
            "linux-kbuild-6.12.107+deb12, gcc-12"
        ),
        "linux-headers-6.12.107+deb12-cloud-amd64": "",
        "linux-headers-6.12.107+deb12-common": "",
        "linux-kbuild-6.12.107+deb12": "libc6",
        "linux-image-6.12.107+deb12-amd64-unsigned": "kmod",
    }

    def names(self, pattern: str) -> list[str]:
        return [name for name in self.packages if re.search(pattern, name)]

    def show(self, package: str) -> dict[str, str]:
        return {"Version": "1", "Depends": self.packages[package]}


def test_the_newest_generic_kernel_is_chosen() -> None:
    assert newest(FakeApt(), "6.12") == "6.12.107+deb12"


def test_the_parts_of_a_kernel_are_its_own_and_the_unsigned_image_will_do() -> None:
    assert sorted(parts(FakeApt(), "6.12.107+deb12")) == [
        "linux-headers-6.12.107+deb12-amd64=1",
        "linux-headers-6.12.107+deb12-common=1",
        "linux-image-6.12.107+deb12-amd64-unsigned=1",
        "linux-kbuild-6.12.107+deb12=1",
    ]


def test_a_series_that_is_not_there_is_told() -> None:
    with pytest.raises(Failure, match=r"no linux-headers-5\.10"):
        newest(FakeApt(), "5.10")
    with pytest.raises(Failure, match=r"no kernel '5\.10' in scripts/kernels"):
        suites_of("5.10")


def test_versions_sort_by_their_numbers() -> None:
    names = ["6.12.107+deb12", "6.12.9+deb12", "6.1.0-56", "6.1.0-9"]
    assert sorted(names, key=numbers) == names[::-1]


def test_headers_work_where_they_were_unpacked(tmp_path: Path) -> None:
    headers = tmp_path / "usr/src/linux-headers-6.1.0-56-amd64"
    modules = tmp_path / "lib/modules/6.1.0-56-amd64"
    headers.mkdir(parents=True)
    modules.mkdir(parents=True)
    makefile = headers / "Makefile"
    makefile.write_text("include /usr/src/linux-headers-6.1.0-56-common/Makefile\n")
    (modules / "build").symlink_to("/usr/src/linux-headers-6.1.0-56-amd64")
    relocate(tmp_path)
    assert makefile.read_text() == "include ../linux-headers-6.1.0-56-common/Makefile\n"
    assert (modules / "build").resolve() == headers
    assert Kernel("6.1", tmp_path).headers == headers


def test_an_interrupted_fetch_leaves_nothing_and_the_next_one_starts_anew(tmp_path: Path) -> None:
    def interrupted(scratch: Path) -> str:
        (scratch / "root").mkdir()
        raise KeyboardInterrupt

    def complete(scratch: Path) -> str:
        (scratch / "root").mkdir()
        return "6.1.1-1~deb12u1"

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, interrupted, refresh=False)
    assert cached(tmp_path) is None
    # As a killed one would leave it.
    (tmp_path / ".new-x/root").mkdir(parents=True)
    entry = fill(tmp_path, complete, refresh=False)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == [entry.name]


def test_what_is_cached_is_not_fetched_again_unless_asked(tmp_path: Path) -> None:
    def newer(scratch: Path) -> str:
        (scratch / "root").mkdir()
        return "6.1.10-1"

    (tmp_path / "6.1.9-1").mkdir()
    assert fill(tmp_path, newer, refresh=False).name == "6.1.9-1"
    assert fill(tmp_path, newer, refresh=True).name == "6.1.10-1"
    assert fill(tmp_path, newer, refresh=False).name == "6.1.10-1"


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "kevent"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache/kevent"
