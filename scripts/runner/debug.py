# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the kernels that look for bugs, from the distribution's source package.

Each is a series of ``scripts/kernels`` with a configuration of ours, made of files
in ``scripts/config``.  In the cache it looks like a fetched one; its entry is keyed
by the version of the source and by the configuration.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from .apt import Apt
from .common import TREE, Failure, run, say

SERIES = "6.12"
CONFIG = TREE / "scripts/config"
# Each on top of allnoconfig, in this order.
VARIANTS = {
    f"{SERIES}-debug": ("base", "debug"),
    f"{SERIES}-kcsan": ("base", "kcsan"),
}
# Seconds; on two cores it takes less than a fifth of it.
BUILD_LIMIT = 3600.0


def fragments(name: str) -> str:
    """The lines of configuration of the kernel *name*."""
    parts = [CONFIG / f"{part}.config" for part in VARIANTS[name]]
    return "".join(part.read_text(encoding="utf-8") for part in parts)


def settings(text: str) -> list[str]:
    """The lines of *text* that set something."""
    return [line for line in text.splitlines() if line.startswith("CONFIG_")]


def key(name: str) -> str:
    """What changes with the configuration of the kernel *name*."""
    words = "\n".join(settings(fragments(name)))
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def configure(name: str, source: Path, objects: Path) -> None:
    """Make the configuration of *name* in *objects*; Failure where a line was refused."""
    text = fragments(name)
    objects.mkdir()
    wanted = objects.with_suffix(".config")
    wanted.write_text(text, encoding="utf-8")
    make(source, objects, "allnoconfig", f"KCONFIG_ALLCONFIG={wanted}")
    got = set((objects / ".config").read_text(encoding="utf-8").splitlines())
    missing = [line for line in settings(text) if line not in got]
    if missing:
        raise Failure(f"{name}: this kernel or compiler does not take {' '.join(missing)}")


def make(source: Path, objects: Path, *words: str) -> None:
    """Run the kernel's make for the products in *objects*."""
    jobs = f"-j{(os.cpu_count() or 1) + 1}"
    # Flags of a make that runs us are not meant for this one.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
    run(
        ["make", "-s", jobs, "-C", source, f"O={objects}", *words],
        timeout=BUILD_LIMIT,
        env=env,
    )


def build(name: str, apt: Apt, scratch: Path) -> str:
    """Make ``root`` in *scratch*, with the kernel *name*; returns its version."""
    say(f"fetching the source of Linux {SERIES}")
    archive, version = apt.source(SERIES, scratch)
    run(["tar", "-xf", archive, "-C", scratch], timeout=600)
    source = scratch / f"linux-source-{SERIES}"
    objects = scratch / "objects"
    configure(name, source, objects)
    say(f"building Linux {name} {version}; it takes some minutes, once")
    # A suffix of its own, so that no module of another build is taken for one of these.
    local = f"LOCALVERSION=-{name.partition('-')[2]}"
    make(source, objects, local, "bzImage", "modules")
    release = (objects / "include/config/kernel.release").read_text(encoding="ascii").strip()
    root = scratch / "root"
    (root / "boot").mkdir(parents=True)
    (root / "lib/modules" / release).mkdir(parents=True)
    shutil.copy(objects / "arch/x86/boot/bzImage", root / "boot" / f"vmlinuz-{release}")
    shutil.copy(objects / ".config", root / "boot" / f"config-{release}")
    shutil.copy(objects / "System.map", root / "boot" / f"System.map-{release}")
    headers = root / "usr/src" / f"linux-headers-{release}"
    install = f"{source}/scripts/package/install-extmod-build {headers}"
    make(source, objects, local, "run-command", f"KBUILD_RUN_COMMAND={install}")
    return version
