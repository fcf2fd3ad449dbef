# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels named in ``scripts/kernels`` and in debug.py, and their cache.

A cached kernel is a folder that looks like the root of an installed system:
the image in ``boot``, the modules in ``lib/modules``, the headers in
``usr/src``.  It is made under another name and renamed when it is complete.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import debug
from .apt import Apt, machine_release
from .common import TREE, Failure, cache_dir, locked, run, say

ARCH = "amd64"


@dataclass(frozen=True)
class Kernel:
    """One kernel in the cache."""

    series: str
    root: Path
    # Built here, with all it has inside: it needs neither modules nor udev.
    lean: bool = False
    # The release whose compiler the headers want, or '' for the machine's own.
    compiler: str = ""

    @property
    def release(self) -> str:
        """What ``uname -r`` says in it."""
        return next((self.root / "lib/modules").iterdir()).name

    @property
    def image(self) -> Path:
        """The bootable image; newer packages have it beside the modules."""
        image = self.root / "boot" / f"vmlinuz-{self.release}"
        return image if image.exists() else self.root / "lib/modules" / self.release / "vmlinuz"

    @property
    def headers(self) -> Path:
        """The folder to give to ``make -C`` when building a module."""
        return self.root / "usr/src" / f"linux-headers-{self.release}"


@dataclass(frozen=True)
class Line:
    """What ``scripts/kernels`` says of a series."""

    checked: bool  # by make check, too
    compiler: str  # see Kernel
    suites: list[str]


def lines_of(text: str) -> dict[str, Line]:
    """The table in *text*, by series; Failure where a line makes no sense."""
    found: dict[str, Line] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) < 4 or words[1] not in ("check", "-") or words[0] in found:
            raise Failure(f"scripts/kernels: not a line of the table, or there twice: {line}")
        series, lane, compiler, *suites = words
        found[series] = Line(lane == "check", "" if compiler == "-" else compiler, suites)
    return found


def table() -> dict[str, Line]:
    """The series we know, and what there is to know of each."""
    return lines_of((TREE / "scripts/kernels").read_text(encoding="utf-8"))


def names() -> list[str]:
    """All kernels there are: those of the table, and those that we build."""
    return [*table(), *debug.VARIANTS]


def line_of(series: str) -> Line:
    """The line of *series*; Failure for a series not in the table."""
    known = table()
    if series not in known:
        raise Failure(f"no kernel {series!r} in scripts/kernels: {', '.join(known)}")
    return known[series]


def chosen() -> list[str]:
    """The series that the tests are to run on: the one that ``KERNEL`` names, or all
    where ``KERNEL`` is ``all``, or else those of make check.
    """
    wish = os.environ.get("KERNEL", "")
    if wish not in ("", "all"):
        return [wish]
    return [series for series, line in table().items() if line.checked or wish]


def numbers(name: str) -> tuple[int, ...]:
    """A key that sorts versions: the numbers before any ``+`` or ``~``."""
    return tuple(int(n) for n in re.findall(r"\d+", re.split(r"[+~]", name)[0]))


def cached(folder: Path) -> Path | None:
    """The newest complete entry of a cache folder, or None."""
    if not folder.is_dir():
        return None
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return max(entries, key=lambda path: numbers(path.name), default=None)


def with_sources(suites: list[str], scratch: Path, attempt: Callable[[Apt], str]) -> str:
    """Call *attempt* with the machine's own apt, and where that fails, or the
    machine runs another release than *suites*, with a private one.
    """
    if machine_release() == suites[0].partition("-")[0]:
        try:
            return attempt(Apt())
        except Failure as failure:
            say(f"the configured sources will not do ({str(failure).splitlines()[0]})")
            for path in scratch.iterdir():
                shutil.rmtree(path)
    apt_folder = scratch / "apt"
    apt_folder.mkdir()
    return attempt(Apt.private(apt_folder, suites))


def fill(folder: Path, make: Callable[[Path], str], refresh: bool) -> Path:
    """Return the newest entry of the cache *folder*, made by *make* if need be.

    *make* is given a scratch folder, fills ``root`` in it, and returns the
    entry's name.  Nothing half-made is ever seen under that name.
    """
    entry = None if refresh else cached(folder)
    if entry is not None:
        return entry
    with locked(folder / ".lock"):
        entry = None if refresh else cached(folder)
        if entry is not None:
            return entry
        for left in folder.glob(".new-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
            scratch = Path(temporary)
            name = make(scratch)
            entry = folder / name.replace("~", "_")
            if not entry.exists():
                (scratch / "root").rename(entry)
    return entry


def fetch(series: str, *, refresh: bool = False) -> Kernel:
    """The newest kernel of *series*, from the cache or from the archive.

    The archive is asked only when the cache has none, or by *refresh*.
    """
    lean = series in debug.VARIANTS
    line = line_of(debug.SERIES if lean else series)
    folder = cache_dir() / "kernels" / series
    if lean:
        folder /= debug.key(series)

    def attempt(apt: Apt, scratch: Path) -> str:
        return (debug.build if lean else unpack)(series, apt, scratch)

    def make(scratch: Path) -> str:
        return with_sources(line.suites, scratch, lambda apt: attempt(apt, scratch))

    return Kernel(series, fill(folder, make, refresh), lean, line.compiler)


def newest(apt: Apt, series: str) -> str:
    """The newest release of *series* whose generic kernel *apt* has."""
    pattern = rf"^linux-headers-({re.escape(series)}\.[0-9]+(-[0-9]+)?(\+[a-z0-9]+)?)-{ARCH}$"
    matches = [re.match(pattern, name) for name in apt.names(pattern)]
    releases = [match.group(1) for match in matches if match]
    if not releases:
        raise Failure(f"no linux-headers-{series}.*-{ARCH}")
    return max(releases, key=numbers)


def parts(apt: Apt, release: str) -> list[str]:
    """The image, the headers and all they need of this kernel: ``name=version``."""
    found: dict[str, str] = {}
    image = f"linux-image-{release}-{ARCH}"
    todo = [[f"linux-headers-{release}-{ARCH}"], [image, f"{image}-unsigned"]]
    while todo:
        choices = todo.pop()
        if found.keys() & set(choices):
            continue
        known = [name for name in choices if apt.names(f"^{re.escape(name)}$")]
        if not known:
            raise Failure(f"no package {' or '.join(choices)}")
        fields = apt.show(known[0])
        found[known[0]] = f"{known[0]}={fields['Version']}"
        for dependency in fields.get("Depends", "").split(","):
            names = [word.split()[0] for word in dependency.split("|") if word.strip()]
            ours = [n for n in names if release in n or n.startswith("linux-kbuild-")]
            if ours:
                todo.append(ours)
    return list(found.values())


def unpack(series: str, apt: Apt, scratch: Path) -> str:
    """Make ``root`` in *scratch* from the packages; returns their version."""
    release = newest(apt, series)
    packages = parts(apt, release)
    say(f"fetching Linux {release}: {' '.join(p.split('=')[0] for p in packages)}")
    debs = scratch / "debs"
    debs.mkdir()
    root = scratch / "root"
    for deb in apt.download(packages, debs):
        run(["dpkg", "-x", deb, root], timeout=600)
        deb.unlink()
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    relocate(root)
    complete(root)
    kernel = Kernel(series, root)
    if not kernel.image.is_file():
        raise Failure(f"no vmlinuz is in {' '.join(packages)}")
    run(["/sbin/depmod", "-b", root, kernel.release], timeout=600)
    return packages[0].partition("=")[2]


def relocate(root: Path) -> None:
    """Make the headers work where they are: replace paths from ``/usr/src``."""
    for makefile in (root / "usr/src").glob("linux-headers-*/Makefile"):
        text = makefile.read_text(encoding="utf-8")
        # Relative to where make is told to begin, which is there.
        found = re.sub(r"^(include |KBUILD_OUTPUT=)/usr/src/", r"\1../", text, flags=re.MULTILINE)
        if found != text:
            makefile.write_text(found, encoding="utf-8")
    for link in (root / "lib/modules").glob("*/*"):
        if link.is_symlink() and str(link.readlink()).startswith("/usr/"):
            target = link.readlink()
            link.unlink()
            link.symlink_to(Path("../../..") / target.relative_to("/"))


def complete(root: Path) -> None:
    """Add the script by which Kbuild asks whether sparse will do, which the packages
    forget.  A sparse that will not do is going to say so itself.
    """
    for scripts in (root / "usr/lib").glob("linux-kbuild-*/scripts"):
        script = scripts / "checker-valid.sh"
        if not script.exists():
            script.write_text('#!/bin/sh\n"$@" /dev/null && echo 1\n', encoding="ascii")
            script.chmod(0o755)
