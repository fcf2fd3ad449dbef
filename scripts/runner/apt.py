# SPDX-License-Identifier: GPL-2.0-or-later
"""Gets packages of the Debian archive without installing them.

The machine's own sources are asked first.  Where they lack a suite, apt is run
with a sources list and folders of our own, on the mirrors that the machine's
sources name: no mirror is written down here.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .common import Failure, run, say

SECURITY = "-security"
# Names that stand for a release or its parts, without or with a suffix.
CODENAME = re.compile(
    r"(stable|oldstable|testing|bullseye|bookworm|trixie|forky)"
    r"(-security|-updates|-backports)?(/updates)?$"
)


@dataclass(frozen=True)
class Source:
    """One archive that the machine is configured to use."""

    uri: str
    security: bool
    options: tuple[str, ...] = ()

    def line(self, suite: str) -> str:
        """A line of sources.list that asks this archive for *suite*."""
        options = f"[{' '.join(self.options)}] " if self.options else ""
        return f"deb {options}{self.uri} {suite} main"


def one_line(text: str) -> Iterator[Source]:
    """The sources of a file in the format of sources.list."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)", line.strip())
        if match is None:
            continue
        options, uri, suite, components = match.groups()
        if CODENAME.match(suite) and "main" in components.split():
            kept = tuple(word for word in (options or "").split() if not word.startswith("arch="))
            yield Source(uri, SECURITY in suite or "/updates" in suite, kept)


def deb822(text: str) -> Iterator[Source]:
    """The sources of a file in the format of debian.sources."""
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        if "main" not in fields.get("components", "").split():
            continue
        signed = fields.get("signed-by", "")
        # A key in the file itself has no short form: leave it to the keyring.
        options = (f"signed-by={signed}",) if signed.startswith("/") else ()
        suites = [s for s in fields.get("suites", "").split() if CODENAME.match(s)]
        for uri in fields.get("uris", "").split():
            for suite in suites:
                yield Source(uri, SECURITY in suite, options)


def machine_sources(etc: Path = Path("/etc/apt")) -> list[Source]:
    """The Debian archives the machine uses, each once, in its own order."""
    found: list[Source] = []
    parts = etc / "sources.list.d"
    for path in (etc / "sources.list", *sorted(parts.glob("*.list"))):
        if path.is_file():
            found += one_line(path.read_text(encoding="utf-8"))
    for path in sorted(parts.glob("*.sources")):
        found += deb822(path.read_text(encoding="utf-8"))
    return list(dict.fromkeys(found))


def machine_release() -> str:
    """The codename of the Debian release that this machine runs, or ''."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)', text, re.MULTILINE)
    return match.group(1) if match else ""


@dataclass
class Apt:
    """apt with some set of sources: the machine's own, or private ones."""

    options: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if os.geteuid() == 0:
            # The unprivileged user apt would fetch as cannot enter our folders.
            self.options += ["-o", "APT::Sandbox::User=root"]

    @classmethod
    def private(cls, folder: Path, suites: Sequence[str]) -> Apt:
        """apt on *suites* alone, its lists below *folder*, brought up to date."""
        lines = []
        for source in machine_sources():
            lines += [
                source.line(suite)
                for suite in suites
                if source.security == suite.endswith(SECURITY)
            ]
        if not lines:
            raise Failure("no Debian archive in /etc/apt/sources.list*")
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        sources = folder / "sources.list"
        sources.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
        apt = cls(
            [
                "-o", f"Dir::Etc::SourceList={sources}",
                "-o", "Dir::Etc::SourceParts=-",
                "-o", f"Dir::State::Lists={folder / 'lists'}",
                "-o", f"Dir::Cache={folder / 'cache'}",
                "-o", "Acquire::Languages=none",
                # Pins on the machine's releases are not meant for these.
                "-o", "Dir::Etc::Preferences=-",
                "-o", "Dir::Etc::PreferencesParts=-",
                # No hooks of the machine: they look at the machine's lists.
                "-o", "APT::Update::Post-Invoke-Success::=true",
            ]
        )  # fmt: skip
        try:
            # Without the option a list that cannot be fetched is no error.
            strict = "APT::Update::Error-Mode=any"
            run(["apt-get", *apt.options, "-q", "-o", strict, "update"], timeout=300)
        except Failure as failure:
            # One suite may be missing where another has the package.
            say(str(failure))
        return apt

    def names(self, pattern: str) -> list[str]:
        """The names of all packages that match the expression *pattern*."""
        listing = run(
            ["apt-cache", *self.options, "search", "--names-only", pattern],
            timeout=60,
        )
        return [line.split(" ", 1)[0] for line in listing.splitlines()]

    def show(self, package: str) -> dict[str, str]:
        """The fields of the version of *package* that apt would install."""
        text = run(
            ["apt-cache", *self.options, "show", "--no-all-versions", package],
            timeout=60,
        )
        pairs = re.findall(r"^([A-Za-z0-9-]+): (.*)$", text, re.MULTILINE)
        return dict(pairs)

    def closure(self, packages: Sequence[str]) -> dict[str, str]:
        """*packages* and all that they depend on, with their versions, as if nothing
        at all were installed.
        """
        plan = run(
            [
                "apt-get", *self.options, "-q", "--simulate",
                "-o", "Dir::State::Status=/dev/null",
                "-o", "Dir::State::Extended_States=/dev/null",
                "--no-install-recommends", "install", *packages,
            ],
            timeout=120,
        )  # fmt: skip
        return dict(re.findall(r"^Inst (\S+) \((\S+)", plan, re.MULTILINE))

    def download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        """Fetch *packages* into the empty *folder*; returns the files."""
        run(
            ["apt-get", *self.options, "-q", "download", *packages],
            timeout=1800,
            cwd=folder,
        )
        return sorted(folder.glob("*.deb"))

    def source(self, series: str, scratch: Path) -> tuple[Path, str]:
        """Fetch the source package of the kernel *series* into *scratch*.

        Returns the archive of what would be ``linux-source-SERIES/``, and its version.
        """
        package = f"linux-source-{series}"
        version = self.show(package)["Version"]
        debs = scratch / "debs"
        debs.mkdir()
        (deb,) = self.download([f"{package}={version}"], debs)
        run(["dpkg", "-x", deb, scratch / "unpacked"], timeout=600)
        shutil.rmtree(debs)
        (archive,) = (scratch / "unpacked").glob("usr/src/linux-source-*.tar.*")
        return archive, version
