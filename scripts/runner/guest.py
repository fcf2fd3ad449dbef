# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots a kernel of the cache in QEMU and runs a command.

The guest's root is this machine's own file system, read-only for what it keeps
and writable on top.  One folder is shared for writing, ``/run/kevent`` there: the
job goes in through it, and the status comes back through it.  A run is good only
if that status was written, the machine ended as it should, and the kernel's log
on the console shows no complaint.
"""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from .common import say
from .kernels import Kernel
from .klog import complaints, taints
from .machine import (
    EVENTS,
    SHARED,
    Job,
    check_machine,
    command,
    ending,
    environment,
    heard,
    monitor,
)

TIMED_OUT = 124  # as timeout(1)
BROKEN = 125  # the command was content, the kernel was not
TAIL = 60
# A kernel patches its own code as it boots, by way of this instruction.  The emulated
# CPUs of QEMU 7.2 sometimes run what another one has patched back already.
TORN = "Oops: int3: "


@dataclass
class Result:
    """What came of a Job."""

    status: int
    complaints: list[str]
    console: list[str]
    # It died of the emulator, before anything of ours ran in it.
    stillborn: bool = False

    @property
    def good(self) -> bool:
        """Whether command and kernel were both content."""
        return self.status == 0 and not self.complaints


def write_job(shared: Path, job: Job) -> None:
    """Put what scripts/guest-init reads into the folder shared with the guest."""
    module = ""
    if job.module is not None:
        # A copy: the next build may replace it while the guest still boots.
        shutil.copyfile(job.module, shared / "kevent.ko")
        module = f"{SHARED}/kevent.ko"
    variables = {
        "KEVENT_RESULTS": SHARED,
        "KEVENT_MODULE": module,
        "LANG": "C.UTF-8",
        # The tree is read-only there, or a layer that is thrown away.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **job.environment,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines += [
        f"module={shlex.quote(module)}",
        f"module_objects={shlex.quote(str(job.module.parent) if job.module else '')}",
        f"module_arguments={shlex.quote(' '.join(job.module_arguments))}",
        # The clock of a guest that counts instructions leaps when it is idle.
        f"limit={0 if job.icount else job.limit:.0f}",
        f"set -- {shlex.join(job.command)}",
    ]
    (shared / "job").write_text("\n".join(lines) + "\n", encoding="utf-8")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End *process* and all it started, which is a process group of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=5)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def on_signal(number: int, _frame: FrameType | None) -> None:
    """Turn a deadly signal into an exit that ends the guest on the way."""
    sys.exit(128 + number)


def follow(
    process: subprocess.Popen[bytes],
    output: IO[bytes] | None,
    console: IO[bytes],
    deadline: float,
) -> bool:
    """Pass on the command's output to *output*, and its stderr, which is the guest's
    console, to *console*, until all is read; returns whether *deadline* on the
    monotonic clock came first.
    """
    assert process.stdout is not None and process.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, console)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            for key, _ in selector.select(left):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.data is not None:
                    key.data.write(data)
                    key.data.flush()
    return False


def boot(
    kernel: Kernel,
    job: Job,
    *,
    output: IO[bytes] | None = None,
    results: Path | None = None,
) -> Result:
    """Run *job* under *kernel*.

    The command's output goes to *output*.  What it left in ``$KEVENT_RESULTS``,
    and the kernel's log, go to the folder *results*.
    """
    check_machine()
    with (
        tempfile.TemporaryDirectory(prefix="kevent-guest-") as temporary,
        monitor() as (ours, theirs),
    ):
        shared = Path(temporary)
        write_job(shared, job)
        previous = {
            number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGHUP)
        }
        process = subprocess.Popen(
            command(kernel, job, shared, theirs.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        try:
            deadline = time.monotonic() + job.boot_limit + job.limit
            with (shared / "console.log").open("wb") as console:
                late = follow(process, output, console, deadline)
            if not late:
                late = not ended(process, deadline)
        finally:
            end_group(process)
            for number, handler in previous.items():
                signal.signal(number, handler)
        (shared / EVENTS).write_bytes(heard(ours))
        if results is not None:
            shutil.rmtree(results, ignore_errors=True)
            shutil.copytree(shared, results)
        return judge(kernel, shared, process.returncode, late)


def ended(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for *process*; returns whether it ended by *deadline*."""
    try:
        process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def lines_of(path: Path) -> list[str]:
    """The lines of a log; none where there is no such file."""
    if not path.is_file():
        return []
    # Read so, the \r\n of a serial line is one end of a line.
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def judge(kernel: Kernel, shared: Path, code: int, late: bool) -> Result:
    """What the guest's own mark, the machine, which ended with *code*, and the
    console say together.
    """
    console = lines_of(shared / "console.log")
    # A console may drop lines; what the guest saved of its log has them still.
    seen = complaints(console)
    found = seen + [
        line for line in complaints(lines_of(shared / "kernel.log")) if line not in seen
    ]
    try:
        status = int((shared / "status").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        if late:
            found.append("the guest did not end in time and was killed")
            return Result(TIMED_OUT, found, console)
        found.append(f"the guest ended without a status ({ending(kernel, shared, code, None)})")
        stillborn = not (shared / "began").exists() and any(TORN in line for line in console)
        return Result(BROKEN, found, console, stillborn)
    if late:
        found.append("the command ended, the guest did not and was killed")
    elif doubt := ending(kernel, shared, code, status):
        found.append(f"the guest wrote status {status}, {doubt}")
    for name in ("failed", "tainted"):
        if not (shared / name).is_file():
            continue
        said = (shared / name).read_text(encoding="utf-8").strip()
        if name == "failed":
            found.append(said)
        else:
            found += [f"the kernel is tainted: {why}" for why in taints(int(said))]
    return Result(status, found, console)


def shell(kernel: Kernel, job: Job) -> int:
    """Give the person an interactive shell in a guest, on this terminal."""
    check_machine()
    with tempfile.TemporaryDirectory(prefix="kevent-guest-") as temporary:
        shared = Path(temporary)
        write_job(shared, job)
        words = command(kernel, job, shared, None)
        return subprocess.run(words, env=environment()).returncode


def report(result: Result) -> int:
    """Say what was wrong, if anything; returns the status to exit with."""
    if result.complaints:
        say("\n".join(["--- the console's end", *result.console[-TAIL:]]))
        say("\n".join(["--- what is wrong", *result.complaints]))
    if result.status == 0 and result.complaints:
        return BROKEN
    return result.status
