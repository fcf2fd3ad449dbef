# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a program's instructions go, function by function, in an emulated machine.

Nothing is sampled.  While the program does the same again and again, QEMU is told to
translate one instruction at a time and to log the address of each; the addresses are
looked up in the guest's own /proc/kallsyms, which has the module's functions too, and
in the program.  What the kernel has inlined is its caller's.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .bench import CANNOT_RUN
from .common import TREE, Failure, run

# Of log, where an instruction is a line of some 80 bytes.
ENOUGH = 60 << 20
PATIENCE = 120.0
TRACED = re.compile(rb"^Trace \d+: 0x[0-9a-f]+ \[[0-9a-f]+/([0-9a-f]+)/")
BEGIN = re.compile(r"begin 0x([0-9a-f]+) (\d+) (.+)")


class Monitor:
    """QEMU's, by the socket at *path*."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw", encoding="utf-8")
        self.file.readline()
        self.command("qmp_capabilities")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        # both, for it takes one of us at a time
        self.file.close()
        self.socket.close()

    def command(self, name: str, **arguments: str) -> None:
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        for line in self.file:
            answer = json.loads(line)
            if "error" in answer:
                raise Failure(f"QEMU refuses {name}: {answer['error']['desc']}")
            if "return" in answer:
                # a command for a person tells in words what is wrong
                if answer["return"]:
                    raise Failure(f"QEMU says of {arguments or name}: {answer['return']}")
                return
        raise Failure("QEMU has gone away")

    def type(self, line: str) -> None:
        """A command as a person types it."""
        self.command("human-monitor-command", **{"command-line": line})


class Symbols:
    """Functions by address."""

    def __init__(self, lines: Iterable[str]) -> None:
        found: dict[int, str] = {}
        for line in lines:
            address, kind, *words = line.split()
            # of several names of one place the first is as good as any
            if kind in "tTwW" and words:
                found.setdefault(int(address, 16), " ".join(words))
        self.addresses = sorted(found)
        self.names = [found[address] for address in self.addresses]

    def name(self, address: int) -> str:
        at = bisect_right(self.addresses, address)
        return self.names[at - 1] if at else "?"


@dataclass
class Profile:
    """What was executed in *rounds* of one way, which has *label*."""

    label: str
    rounds: int
    instructions: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def each(self, name: str) -> float:
        return self.instructions[name] / self.rounds

    @property
    def total(self) -> float:
        return self.instructions.total() / self.rounds


def record(monitor: Monitor, log: Path) -> None:
    """Have a part of what is executed logged to *log*."""
    monitor.command("stop")
    monitor.type(f"logfile {log}")
    monitor.type("singlestep on")
    monitor.type("log exec,nochain")
    monitor.command("cont")
    deadline = time.monotonic() + PATIENCE
    while log.stat().st_size < ENOUGH:
        if time.monotonic() > deadline:
            raise Failure("QEMU logs nothing")
        time.sleep(0.05)
    monitor.command("stop")
    monitor.type("log none")
    monitor.type("singlestep off")
    monitor.command("cont")


def addresses(log: IO[bytes]) -> Iterable[int]:
    for line in log:
        if found := TRACED.match(line):
            yield int(found[1], 16)


def digest(log: Path, label: str, entry: int, per: int, symbols: Symbols) -> Profile:
    """Count whole rounds: from one call of the function at *entry* to the last."""
    counted: Counter[int] = Counter()
    pending: Counter[int] = Counter()
    rounds = -1
    with log.open("rb") as lines:
        for address in addresses(lines):
            if address == entry:
                if rounds >= 0:
                    counted += pending
                pending.clear()
                rounds += 1
            pending[address] += 1
    if rounds < 1:
        raise Failure(f"the log of {label} does not hold one whole round")
    profile = Profile(label, rounds * per)
    starts = set(symbols.addresses)
    for address, number in counted.items():
        name = symbols.name(address)
        profile.instructions[name] += number
        if address in starts:
            profile.calls[name] += number
    return profile


def profiles(
    series: str,
    program: Path,
    row: str,
    ways: Sequence[str],
    options: Sequence[str],
    qemu: str,
    folder: Path,
) -> list[Profile]:
    """Run *program* in a guest, and count each of *ways* to do *row*.

    *options* are those of scripts/guest, *qemu* those of QEMU.
    """
    logs: list[tuple[Path, str, int, int]] = []
    with tempfile.TemporaryDirectory(prefix="kevent-profile-") as temporary:
        path = Path(temporary) / "qmp"
        calls = "; ".join(
            shlex.join([str(program), "/dev/null", "--repeat", "2", row, way]) + " || exit 1"
            for way in ways
        )
        command = [
            sys.executable, "scripts/guest", series, *options,
            "--timeout", "600", "--results", str(folder),
            f"--qemu-args=-qmp unix:{path},server=on,wait=off {qemu}",
            "--", "sh", "-c", f"cat /proc/kallsyms > $KEVENT_RESULTS/kallsyms; {calls}",
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=TREE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                begun = BEGIN.match(line)
                if not begun:
                    sys.stderr.write(line)
                    continue
                log = Path(temporary) / f"log{len(logs)}"
                log.touch()
                with Monitor(path) as monitor:
                    record(monitor, log)
                logs.append((log, begun[3], int(begun[1], 16), int(begun[2])))
        finally:
            status = process.wait()
        if status == CANNOT_RUN:
            sys.exit(CANNOT_RUN)
        if status or len(logs) != len(ways):
            raise Failure(f"the guest ended with status {status}; its logs are in {folder}")
        own = run(["nm", program], timeout=60)
        symbols = Symbols([
            *(folder / "kallsyms").read_text(encoding="utf-8").splitlines(),
            *(f"{line} [program]" for line in own.splitlines() if line[:1] != " "),
        ])  # fmt: skip
        found = [digest(log, label, entry, per, symbols) for log, label, entry, per in logs]
    return found


def show(found: Sequence[Profile], most: int) -> None:
    """The functions in which most instructions are, or most more than in the second."""
    first = found[0]
    names = {name for profile in found for name in profile.instructions}
    if len(found) > 1:
        order = sorted(names, key=lambda name: found[1].each(name) - first.each(name))
    else:
        order = sorted(names, key=lambda name: -first.each(name))
    print("instructions of one transfer by function; calls of the first way in brackets")
    for profile in found:
        print(f"{profile.total:10.1f}  {profile.label}: {profile.rounds} transfers")
    for name in order[:most] + ([] if len(found) == 1 else order[-most // 4 :]):
        figures = " ".join(f"{profile.each(name):9.1f}" for profile in found)
        more = f" {first.each(name) - found[1].each(name):+9.1f}" if len(found) > 1 else ""
        print(f"{figures}{more} ({first.calls[name] / first.rounds:.2f}) {name}")
    module = [profile.instructions for profile in found]
    own = " ".join(
        f"{sum(n for name, n in counts.items() if name.endswith('[kevent]')) / p.rounds:9.1f}"
        for counts, p in zip(module, found, strict=True)
    )
    print(f"{own} all of the module's own")
