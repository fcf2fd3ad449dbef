# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated machine: what starts QEMU for a job, and how it ended.

A distribution's kernel is booted through virtme-ng, one of our own making by QEMU
itself with scripts/guest-lean as its first process: without modules and udev, which
take minutes where every access to memory is checked.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .common import TREE, Failure, run
from .kernels import Kernel

SHARED = "/run/kevent"
BOOT_LIMIT = 180.0

ICOUNT = ("-icount", "shift=0,sleep=off")
# What follows an oops, or a task that is stuck, may hang for ever: end there.  An
# emulated CPU on a busy machine may be slow, but not as slow as this.
WATCHED = (
    "oops=panic",
    "softlockup_panic=1",
    "watchdog_thresh=30",
    "sysctl.kernel.hung_task_panic=1",
)
# Where the clock leaps, all that waits looks stuck.
LEFT_ALONE = (
    "oops=panic",
    "nowatchdog",
    "sysctl.kernel.hung_task_timeout_secs=0",
    "rcupdate.rcu_cpu_stall_suppress=1",
    "cryptomgr.notests=1",
)
# A machine of ours has tests inside, and one complaint ends it, there and then: but for
# data races, which are the kernel's own for the most part.
OURS = ("panic=-1", "kunit.enable=1")
STRICT = "panic_on_warn=1"
# An emulated CPU that has to share a core measures its clocks wrongly as it boots, and
# time would run at many times its speed; the HPET says itself how fast it is.  Nor is
# the kernel to find that out later: it changes its code then, which an emulated second
# CPU may run half-changed (Oops: int3).
EMULATED = ("tsc=unstable", "no_timer_check")
# Where QEMU writes what became of the machine.
EVENTS = "machine.events"


class Unavailable(Failure):
    """No guest can be run on this machine."""


@dataclass
class Job:
    """What to run in a guest, and in what kind of guest."""

    command: Sequence[str]
    module: Path | None = None
    module_arguments: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    limit: float = 600.0  # seconds, for the command alone
    boot_limit: float = BOOT_LIMIT
    cpus: int = 2
    memory: str = "2G"
    kernel_arguments: Sequence[str] = ()
    qemu_arguments: Sequence[str] = ()
    kvm: bool = False
    icount: bool = False  # the guest's clock counts instructions


def vng() -> Path:
    """The vng command: of the Python that runs us, or of the tree's .venv."""
    for folder in (Path(sys.executable).parent, TREE / ".venv/bin"):
        if (folder / "vng").is_file():
            return folder / "vng"
    raise Unavailable("virtme-ng is not installed; run scripts/bootstrap")


def check_machine() -> None:
    """Raise Unavailable where a guest cannot be run."""
    vng()
    if os.uname().machine != "x86_64":
        raise Unavailable(f"guests are x86_64; this machine is {os.uname().machine}")
    for program in ("qemu-system-x86_64", "busybox", "udevadm", "file"):
        if shutil.which(program, path=search_path()) is None:
            raise Unavailable(f"{program} is not installed; run scripts/bootstrap")


def search_path() -> str:
    """PATH, with the folders that hold what a guest needs."""
    return os.pathsep.join([str(vng().parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def environment() -> dict[str, str]:
    """Our environment, in which the words of command() find their own parts."""
    return {**os.environ, "PATH": search_path()}


def command(kernel: Kernel, job: Job, shared: Path, events: int | None) -> list[str]:
    """The words that boot *kernel* for the *job* that is written down in *shared*.

    Its output is their stdout and the guest's console their stderr.  *events* is one
    end of monitor(), inherited; without it the terminal is a shell's in the guest.
    """
    words = lean_command if kernel.lean else vng_command
    return words(kernel, job, shared, events)


@contextmanager
def monitor() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of sockets on which QEMU tells what becomes of the machine: ours, QEMU's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # It tells nothing to who has not said this.
        ours.sendall(b'{"execute": "qmp_capabilities"}\n')
        yield ours, theirs


def heard(ours: socket.socket) -> bytes:
    """All that QEMU, which has ended, has told."""
    told = b""
    try:
        while data := ours.recv(65536):
            told += data
    except ConnectionResetError:
        pass  # it ended without having listened to us
    return told


def ending(kernel: Kernel, shared: Path, code: int, status: int | None) -> str:
    """What is wrong with the machine's own end, or ''.

    *code* is what the words of command() exited with, *status* what the guest wrote.
    """
    if not kernel.lean:
        return "" if code == status else f"vng says {code}"
    reason = shutdown_reason(shared / EVENTS)
    return "" if (code, reason) == (0, "guest-shutdown") else f"QEMU says {reason or code}"


def kernel_arguments(job: Job) -> list[str]:
    watchdogs = LEFT_ALONE if job.icount else WATCHED
    return [*watchdogs, "log_buf_len=4M", *job.kernel_arguments]


def vng_command(kernel: Kernel, job: Job, shared: Path, events: int | None) -> list[str]:
    """The words that boot *kernel* through virtme-ng."""
    qemu_arguments = [*(ICOUNT if job.icount else ()), *job.qemu_arguments]
    words = [
        str(vng()), "--run", str(kernel.image),
        "--user", "root",
        # The same devices and file system whatever the machine has.
        "--force-9p", "--disable-microvm",
        "--cpus", str(job.cpus), "--memory", job.memory,
        "--rwdir", f"{SHARED}={shared}",
        "--cwd", str(TREE),
    ]  # fmt: skip
    if not job.kvm:
        words.append("--disable-kvm")
    clock = () if job.kvm or job.icount else EMULATED
    for argument in (*kernel_arguments(job), *clock):
        words += ["--append", argument]
    if qemu_arguments:
        words.append(f"--qemu-opts={shlex.join(qemu_arguments)}")
    init = str(TREE / "scripts/guest-init")
    if events is None:
        return [*words, "--shell", init]
    return [*words, "--verbose", "--", shlex.join([init])]


def make_initramfs(target: Path) -> None:
    """Write the archive that holds busybox and the first process."""
    busybox = shutil.which("busybox", path=search_path())
    assert busybox is not None  # check_machine() has seen it
    folder = target.with_suffix(".d")
    (folder / "bin").mkdir(parents=True)
    shutil.copy(busybox, folder / "bin/busybox")
    shutil.copy(TREE / "scripts/guest-lean", folder / "init")
    # The first line of the script, before busybox has made its links.
    (folder / "bin/sh").symlink_to("busybox")
    archive = 'cd "$0" && find . | "$1" cpio -o -H newc > "$2"'
    run(["sh", "-c", archive, folder, busybox, target], timeout=60)
    shutil.rmtree(folder)


def lean_command(kernel: Kernel, job: Job, shared: Path, events: int | None) -> list[str]:
    """The words that boot *kernel* without modules and udev."""
    initramfs = shared / "initramfs"
    make_initramfs(initramfs)
    append = [
        "console=ttyS0", "earlyprintk=serial",
        f"kevent.tree={TREE}", f"kevent.shell={int(events is None)}",
        *kernel_arguments(job), *OURS, *([STRICT] if kernel.series.endswith("-debug") else []),
    ]  # fmt: skip
    if not job.kvm and not job.icount:
        append += EMULATED
    accel = "kvm" if job.kvm else "tcg,thread=single" if job.icount else "tcg,thread=multi"
    words = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", accel,
        "-cpu", "host" if job.kvm else "max",
        "-smp", str(job.cpus), "-m", job.memory,
        "-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", " ".join(append),
        # the console
        "-chardev", "file,id=console,path=/dev/stderr", "-serial", "chardev:console",
        # what the command reads and writes
        "-device", "virtio-serial-pci", "-chardev", "stdio,id=words,signal=off",
        "-device", "virtconsole,chardev=words",
    ]  # fmt: skip
    if events is not None:
        words += ["-chardev", f"socket,id=events,fd={events}"]
        words += ["-mon", "chardev=events,mode=control"]
    for tag, path, mode in (("host", Path("/"), "readonly=on"), ("shared", shared, "readonly=off")):
        words += [
            "-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap,{mode}",
            "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
        ]  # fmt: skip
    return [*words, *(ICOUNT if job.icount else ()), *job.qemu_arguments]


def shutdown_reason(events: Path) -> str:
    """Why the machine stopped, in QEMU's words; '' where it did not say."""
    if not events.is_file():
        return ""
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event.get("event") == "SHUTDOWN":
            return str(event["data"]["reason"])
    return ""
