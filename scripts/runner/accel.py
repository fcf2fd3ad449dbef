# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds out whether KVM really boots a guest on this machine.

A /dev/kvm that opens says little: under some hypervisors a guest never gets
past its first instructions.  So one guest is booted, with a short limit, and the
answer is remembered until the machine is booted again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from .common import Failure, cache_dir, locked, say
from .guest import boot
from .kernels import Kernel
from .machine import Job

PROBE_LIMIT = 40.0


def machine_boot() -> str:
    """What changes when the machine is booted again."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def opens(device: str = "/dev/kvm") -> bool:
    """Whether we may use *device* at all."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def probe(kernel: Kernel) -> bool:
    """Whether *kernel* boots under KVM within the limit."""
    say(f"trying whether KVM boots a guest (at most {PROBE_LIMIT:.0f} s) ...")
    job = Job(["true"], kvm=True, limit=0, boot_limit=PROBE_LIMIT)
    return boot(kernel, job).status == 0


def kvm_works(kernel: Kernel) -> bool:
    """The remembered answer, or that of a probe with *kernel*.

    ``KEVENT_ACCEL=kvm`` or ``tcg`` in the environment overrides it.
    """
    wish = os.environ.get("KEVENT_ACCEL", "")
    if wish not in ("", "kvm", "tcg"):
        raise Failure(f"KEVENT_ACCEL is {wish!r}, not kvm or tcg")
    if wish or not opens():
        return wish == "kvm"
    memory = cache_dir() / "kvm.json"
    with locked(cache_dir() / ".kvm.lock"):
        try:
            known = json.loads(memory.read_text(encoding="utf-8"))
            if known["boot"] == machine_boot():
                return bool(known["works"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass  # never asked, or written by something else
        works = probe(kernel)
        scratch = memory.with_suffix(".new")
        scratch.write_text(json.dumps({"boot": machine_boot(), "works": works}), encoding="utf-8")
        scratch.rename(memory)
    return works
