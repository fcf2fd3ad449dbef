# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds kevent.ko against a kernel of the cache, and checks its source.

Kbuild puts its products beside the sources.  To keep the tree clean each build
has a folder of its own, ``build/<series>/<name>``, of links to the sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .apt import Apt
from .common import BUILD, TREE, Failure, cache_dir, locked, run
from .compiler import enclose
from .kernels import Kernel, fetch, fill, line_of, with_sources

FOLDERS = ("kmod", "chardev")
SOURCES = ("*.c", "*.h")
# Each can be left out of a build.
EVENT_SOURCES = ("SOCKET", "POLL", "INODE", "TIMER", "USER", "NAIO")
LIMIT = 900.0
# checkpatch and its word lists come from the source package of this series.
CHECKPATCH_SERIES = "6.12"
CHECKPATCH_FILES = ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch")


def sources(tree: Path = TREE) -> list[Path]:
    """The module's sources and headers, relative to *tree*."""
    return sorted(
        path.relative_to(tree)
        for folder in FOLDERS
        for pattern in SOURCES
        for path in (tree / folder).glob(pattern)
    )


def link_sources(target: Path, tree: Path = TREE) -> None:
    """Make *target* a tree of links to the sources, and to no other."""
    wanted = {Path("Kbuild"), *sources(tree)}
    for found in target.rglob("*"):
        if found.is_symlink() and found.relative_to(target) not in wanted:
            found.unlink()
    for source in wanted:
        link = target / source
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(tree / source, link.parent))


def build(series: str, *, name: str = "module", arguments: Sequence[str] = ()) -> Path:
    """Build the module for *series* in ``build/<series>/<name>``.

    *arguments* are handed to make, such as ``CONFIG_KEVENT_INODE=n``.  Returns
    the path of kevent.ko.  The compiler's words go to stdout as they come.
    """
    target = BUILD / series / name
    kernel = fetch(series)
    if kernel.lean:
        arguments = ["CONFIG_KEVENT_DEBUG=y", *arguments]
    with locked(BUILD / series / f".{name}.lock"):
        link_sources(target)
        # Other arguments mean other objects, which make does not see.
        stamp = target / ".arguments"
        words = "\n".join([str(kernel.root), *arguments])
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != words:
            make(kernel, target, ["clean"])
            stamp.write_text(words, encoding="utf-8")
        status, output = make(kernel, target, ["modules", *arguments])
        print(output, end="", flush=True)
        if status:
            raise Failure(f"the module does not build for Linux {kernel.release}")
    return target / "kevent.ko"


def build_bare(series: str) -> Path:
    """Build the module without any source of events; returns the path of kevent.ko."""
    return build(series, name="bare", arguments=[f"CONFIG_KEVENT_{s}=n" for s in EVENT_SOURCES])


def make(kernel: Kernel, target: Path, words: Sequence[str]) -> tuple[int, str]:
    """Run Kbuild on *target*; returns its status and what it said, with the
    file names as they are in the tree.
    """
    jobs = f"-j{os.cpu_count() or 1}"
    command = ["make", "-s", jobs, "-C", str(kernel.headers), f"M={target}", *words]
    # The folder of links, what they lead to, and the headers are all that this needs.
    readable = [TREE, kernel.root]
    command = enclose(command, kernel.compiler, readable=readable, writable=[target])
    # Flags of a make that runs us are not meant for this one.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            env=env,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"make: no end after {LIMIT:.0f} s") from error
    lines = [
        line.replace(f"{target}/", "")
        for line in done.stdout.splitlines(keepends=True)
        # The headers package of 6.1 brings no vmlinux; nobody can help that.
        if not line.startswith("Skipping BTF generation")
    ]
    return done.returncode, "".join(lines)


def check_build(series: str, arguments: Sequence[str] = ()) -> list[str]:
    """Build from nothing with ``W=1`` and sparse, and *arguments* for make such as
    ``CONFIG_KEVENT_INODE=n``; returns the complaints.
    """
    if shutil.which("sparse") is None:
        raise Failure("sparse is not installed; run scripts/bootstrap")
    target = BUILD / series / "check"
    kernel = fetch(series)
    with locked(BUILD / series / ".check.lock"):
        # What make need not compile again it would not complain about.
        shutil.rmtree(target, ignore_errors=True)
        link_sources(target)
        status, output = make(kernel, target, ["W=1", "C=2", "modules", *arguments])
    complaints = [line for line in output.splitlines() if line.strip()]
    if status and not complaints:
        complaints = [f"make: status {status}"]
    return complaints


def checkpatch_folder() -> Path:
    """The cached folder that holds checkpatch.pl and its word lists."""

    def unpack(apt: Apt, scratch: Path) -> str:
        archive, version = apt.source(CHECKPATCH_SERIES, scratch)
        (scratch / "root").mkdir()
        folder = f"linux-source-{CHECKPATCH_SERIES}/scripts"
        names = [f"{folder}/{name}" for name in CHECKPATCH_FILES]
        run(
            ["tar", "-xf", archive, "-C", scratch / "root", *names,
             "--strip-components=2"],
            timeout=600,
        )  # fmt: skip
        return version

    suites = line_of(CHECKPATCH_SERIES).suites
    return fill(
        cache_dir() / "checkpatch",
        lambda scratch: with_sources(suites, scratch, lambda apt: unpack(apt, scratch)),
        refresh=False,
    )


def check_patch(files: Sequence[Path], tree: Path = TREE) -> list[str]:
    """Run ``checkpatch.pl --strict`` on *files*; returns the complaints."""
    # In few words it does not say what it looked at and found to be clean.
    praise = " has no obvious style problems and is ready for submission."
    said = checkpatch([], files, tree)
    bad = [path for path in files if f"{path}{praise}" not in said]
    if not bad:
        return [] if files else ["checkpatch: no file to look at"]
    return checkpatch(["--terse"], bad, tree) or [f"checkpatch: {path}?" for path in bad]


def checkpatch(options: Sequence[str], files: Sequence[Path], tree: Path) -> list[str]:
    """The lines that checkpatch.pl writes about *files*."""
    script = checkpatch_folder() / "checkpatch.pl"
    words = ["perl", str(script), "--no-tree", "--strict", "--show-types", "--color=never"]
    done = subprocess.run(
        [*words, *options, "--file", *[str(path) for path in files]],
        cwd=tree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return [line for line in done.stdout.splitlines() if not line.startswith("total: ")]
