# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels are found in whatever archive the machine uses, and cached whole."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar

import pytest
from runner.apt import Apt, deb822, machine_sources, one_line
from runner.common import Failure, cache_dir, run
from runner.compiler import enclose
from runner.kernels import (
    Kernel,
    Line,
    cached,
    chosen,
    complete,
    fill,
    line_of,
    lines_of,
    newest,
    numbers,
    parts,
    relocate,
    table,
)


def test_sources_in_one_line_format_are_found() -> None:
    text = """
# deb test:commented/debian bookworm main
deb test:one/debian bookworm main contrib
deb [arch=amd64 signed-by=/k.gpg] test:two/debian bookworm-updates main
deb test:sec/debian-security bookworm-security main
deb-src test:one/debian bookworm main
deb test:other/stuff nodistro main
"""
    found = [(s.uri, s.security, s.options) for s in one_line(text)]
    assert found == [
        ("test:one/debian", False, ()),
        ("test:two/debian", False, ("signed-by=/k.gpg",)),
        ("test:sec/debian-security", True, ()),
    ]


def test_sources_in_deb822_format_are_found() -> None:
    text = """
Types: deb
# a comment in the middle
URIs: test:one/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: test:sec/debian-security
Suites: trixie-security
Components: main

Types: deb
Enabled: no
URIs: test:off/debian
Suites: trixie
Components: main
"""
    found = list(dict.fromkeys(deb822(text)))
    assert [(s.uri, s.security) for s in found] == [
        ("test:one/debian", False),
        ("test:sec/debian-security", True),
    ]
    assert found[0].line("bookworm-backports") == (
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        " test:one/debian bookworm-backports main"
    )


def test_sources_of_all_files_are_found_once(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    line = "deb test:one/debian bookworm main\n"
    (tmp_path / "sources.list").write_text(line, encoding="utf-8")
    (tmp_path / "sources.list.d/more.list").write_text(line, encoding="utf-8")
    assert [source.uri for source in machine_sources(tmp_path)] == ["test:one/debian"]


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
        line_of("5.10")


def test_a_line_of_the_table_is_a_series_its_lane_its_compiler_and_its_suites() -> None:
    text = "# a comment\n\n6.1 check - one two # the first\n7.3\t-\ttrixie\tthree\n"
    assert lines_of(text) == {
        "6.1": Line(checked=True, compiler="", suites=["one", "two"]),
        "7.3": Line(checked=False, compiler="trixie", suites=["three"]),
    }


@pytest.mark.parametrize(
    "text", ["6.1 check -", "6.1 always - one", "6.1", "6.1 check - one\n6.1 - - two"]
)
def test_a_line_that_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(Failure, match="not a line of the table"):
        lines_of(text)


def test_the_tests_run_on_what_make_check_has_on_all_or_on_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KERNEL", raising=False)
    checked = chosen()
    assert {"6.1", "6.12"} <= set(checked) < set(table())
    monkeypatch.setenv("KERNEL", "all")
    assert chosen() == list(table())
    monkeypatch.setenv("KERNEL", "6.1")
    assert chosen() == ["6.1"]


def test_versions_sort_by_their_numbers() -> None:
    names = ["6.12.107+deb12", "6.12.9+deb12", "6.1.0-56", "6.1.0-9"]
    assert sorted(names, key=numbers) == names[::-1]


def test_headers_work_where_they_were_unpacked(tmp_path: Path) -> None:
    headers = tmp_path / "usr/src/linux-headers-6.1.0-56-amd64"
    modules = tmp_path / "lib/modules/6.1.0-56-amd64"
    headers.mkdir(parents=True)
    modules.mkdir(parents=True)
    makefile = headers / "Makefile"
    makefile.write_text(
        "KBUILD_OUTPUT=/usr/src/linux-headers-6.1.0-56-amd64\n"
        "include /usr/src/linux-headers-6.1.0-56-common/Makefile\n"
    )
    (modules / "build").symlink_to("/usr/src/linux-headers-6.1.0-56-amd64")
    relocate(tmp_path)
    assert makefile.read_text() == (
        "KBUILD_OUTPUT=../linux-headers-6.1.0-56-amd64\n"
        "include ../linux-headers-6.1.0-56-common/Makefile\n"
    )
    assert (modules / "build").resolve() == headers
    assert Kernel("6.1", tmp_path).headers == headers


def test_the_image_is_found_in_boot_and_beside_the_modules(tmp_path: Path) -> None:
    modules = tmp_path / "lib/modules/7.3.4"
    modules.mkdir(parents=True)
    assert Kernel("7.3", tmp_path).image == modules / "vmlinuz"
    (tmp_path / "boot").mkdir()
    image = tmp_path / "boot/vmlinuz-7.3.4"
    image.touch()
    assert Kernel("7.3", tmp_path).image == image


def test_headers_without_the_script_that_asks_for_sparse_get_one(tmp_path: Path) -> None:
    scripts = tmp_path / "usr/lib/linux-kbuild-7.3.4/scripts"
    scripts.mkdir(parents=True)
    complete(tmp_path)
    script = scripts / "checker-valid.sh"
    assert run([script, "cat"], timeout=10) == "1\n"
    with pytest.raises(Failure):
        run([script, "false"], timeout=10)
    script.write_text("their own")
    complete(tmp_path)
    assert script.read_text() == "their own"


def test_all_that_a_package_needs_is_read_from_what_apt_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = "Inst gcc (4:14.2.0-1 Debian:13.8/stable [amd64]) []\nInst libc6 (2.41-12 x [amd64])\n"
    monkeypatch.setattr("runner.apt.run", lambda *_, **__: plan + "Conf gcc (4:14.2.0-1 x)\n")
    assert Apt().closure(["gcc"]) == {"gcc": "4:14.2.0-1", "libc6": "2.41-12"}


def test_the_machines_own_compiler_is_used_where_it_is_the_one_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runner.compiler.machine_release", lambda: "trixie")
    assert enclose(["make"], "") == ["make"]
    assert enclose(["make"], "trixie") == ["make"]


def test_another_releases_tools_see_only_the_folders_that_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine's own programs, in the place of another release's.
    (tmp_path / "root").mkdir()
    (tmp_path / "root/usr").symlink_to("/usr")
    for name in ("given", "written", "kept"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("runner.compiler.root_of", lambda release: tmp_path / "root")
    script = f"touch {tmp_path}/written/by; touch {tmp_path}/given/by; ls {tmp_path}"
    command = enclose(
        ["sh", "-c", script],
        "another",
        readable=[tmp_path / "given"],
        writable=[tmp_path / "written"],
    )
    assert run(command, timeout=10) == "given\nwritten\n"
    assert (tmp_path / "written/by").exists()
    assert not (tmp_path / "given/by").exists()


def test_a_machine_that_refuses_namespaces_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usr").mkdir()
    monkeypatch.setattr("runner.compiler.root_of", lambda release: tmp_path)
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho 'bwrap: No permissions' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Failure, match=r"another .* refused here \(bwrap: No permissions\)"):
        enclose(["make"], "another")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Failure, match="bwrap is not installed"):
        enclose(["make"], "another")


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
