# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiler of another Debian release, and what Kbuild needs beside it.

The headers of a kernel want the compiler that built it, and their own programs the
libraries of its release.  Both are unpacked into a folder of the cache, not
installed, and commands run with that folder's ``/usr`` as theirs, by bubblewrap: no
root is needed, and no mount outlives the command.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .apt import Apt, machine_release
from .common import Failure, cache_dir, run, say
from .kernels import fill

# The last ones for the libraries that the programs of linux-kbuild are linked with.
TOOLS = (
    "gcc", "binutils", "make", "sparse", "pahole", "bash", "coreutils", "dash", "findutils",
    "gawk", "grep", "perl-base", "sed", "libelf-dev", "libssl-dev", "zlib1g-dev",
)  # fmt: skip
# The newest kernels want the newest sparse: the program alone is taken from here.
SPARSE = "forky"
# Where /bin and the like point since these are all one with those in /usr.
MERGED = ("bin", "lib", "lib64", "sbin")


def root_of(release: str) -> Path:
    """The root with the tools of *release*, from the cache or from the archive."""
    tools = hashlib.sha256(" ".join([*TOOLS, SPARSE]).encode()).hexdigest()[:8]
    suites = [release, f"{release}-updates", f"{release}-security"]

    def make(scratch: Path) -> str:
        version = unpack(Apt.private(scratch / "apt", suites), release, scratch)
        replace_sparse(Apt.private(scratch / "apt-sparse", [SPARSE]), scratch)
        return version

    return fill(cache_dir() / "compilers" / f"{release}-{tools}", make, refresh=False)


def unpack(apt: Apt, release: str, scratch: Path) -> str:
    """Make ``root`` in *scratch* from the packages; returns the version of gcc."""
    packages = apt.closure(TOOLS)
    say(f"fetching the compiler of {release}: {len(packages)} packages")
    debs = scratch / "debs"
    debs.mkdir()
    root = scratch / "root"
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(Path("usr") / name)
    for deb in apt.download([f"{name}={version}" for name, version in packages.items()], debs):
        run(["dpkg", "-x", deb, root], timeout=600)
        deb.unlink()
    # The one link that only the script of a package would make.
    (root / "usr/bin/awk").symlink_to("gawk")
    return packages["gcc"].partition(":")[2] or packages["gcc"]


def replace_sparse(apt: Apt, scratch: Path) -> None:
    """Put the sparse that *apt* has into ``root`` in *scratch*."""
    debs = scratch / "sparse"
    debs.mkdir()
    (deb,) = apt.download(["sparse"], debs)
    run(["dpkg", "-x", deb, debs / "root"], timeout=600)
    (debs / "root/usr/bin/sparse").replace(scratch / "root/usr/bin/sparse")


def enclose(
    command: Sequence[str],
    release: str,
    *,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
) -> list[str]:
    """The words that run *command* with the tools of *release*, and of the machine's
    files see only those in the folders *readable* and *writable*, where they are.

    *release* may be '': then, or if the machine runs it, these are *command* itself.
    """
    if release in ("", machine_release()):
        return list(command)
    root = root_of(release)
    # objtool asks for the limits of its process.
    words = ["bwrap", "--die-with-parent", "--ro-bind", "/proc", "/proc"]
    words += ["--dev", "/dev", "--tmpfs", "/tmp"]
    # One by one: the machine's files may be below /usr as well.
    for folder in sorted((root / "usr").iterdir()):
        words += ["--ro-bind", str(folder), f"/usr/{folder.name}"]
    for name in MERGED:
        words += ["--symlink", f"usr/{name}", f"/{name}"]
    for name, value in (("PATH", "/usr/bin:/usr/sbin"), ("LANG", "C"), ("LC_ALL", "C")):
        words += ["--setenv", name, value]
    check(words, release)
    for option, folders in (("--ro-bind", readable), ("--bind", writable)):
        for folder in folders:
            words += [option, str(folder), str(folder)]
    return [*words, *command]


def check(words: Sequence[str], release: str) -> None:
    """Raise Failure where bubblewrap cannot do on this machine what *words* ask."""
    try:
        done = subprocess.run(
            [*words, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError as error:
        raise Failure("bwrap is not installed; run scripts/bootstrap") from error
    if done.returncode:
        raise Failure(
            f"the compiler of {release} runs in a namespace of its own, which is refused here"
            f" ({done.stderr.strip()}); it takes user namespaces, or root outside of a container"
        )
