# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: ``pykevent info`` and ``pykevent sim``, also as ``python -m pykevent``."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from enum import IntFlag

import pykevent


def names(value: IntFlag) -> list[str]:
    """The names of the bits that are set; those without one together as a number."""
    known = [part for part in value if part.name is not None]
    unknown = int(value) & ~sum(known)
    return [str(part.name) for part in known] + ([hex(unknown)] if unknown else [])


def describe(info: pykevent.Info) -> str:
    """INFO in lines of ``name: value``, flags by their names."""
    lines = []
    for field in fields(info):
        value = getattr(info, field.name)
        text = " ".join(names(value)) or "none" if isinstance(value, IntFlag) else str(value)
        lines.append(f"{field.name}: {text}")
    return "\n".join(lines)


def add_sim(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command that serves a simulator."""
    sim = commands.add_parser(
        "sim",
        help="serve a device without a kernel module, through FUSE",
        description="Serve a simulated device, MOUNTPOINT/kevent, until a signal or an unmount.",
    )
    sim.add_argument("mountpoint", metavar="MOUNTPOINT", help="a directory; made if need be")
    sim.add_argument(
        "--background", action="store_true", help="return as soon as the device can be used"
    )
    sim.add_argument(
        "--until-unused", action="store_true", help="end when the last queue was closed"
    )
    sim.add_argument(
        "--allow-other",
        action="store_true",
        help="let other users open it; root's is open to all, others need user_allow_other in "
        "/etc/fuse.conf",
    )
    sim.add_argument(
        "--log",
        metavar="FILE",
        help="append complaints to it; by default those of one that "
        "serves in the background are lost",
    )
    sim.add_argument("--at-home", action="store_true", help=argparse.SUPPRESS)
    limits = sim.add_argument_group("limits", "The module's parameters; 0 is the default of each.")
    for name, (bits, meaning) in _LIMITS.items():
        option = "--" + name.replace("_", "-")
        limits.add_argument(option, type=_number(bits), metavar="N", default=0, help=meaning)


def _number(bits: int) -> Callable[[str], int]:
    """A type of argument: a number that INFO has so many bits for."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = -1
        if not 0 <= value < 1 << bits:
            raise argparse.ArgumentTypeError(f"a number from 0 to 2**{bits} - 1, not {text!r}")
        return value

    return number


_LIMITS = {
    "max_queue_kevents": (64, "kevents in one queue (by default as many as those of one user)"),
    "max_user_kevents": (
        64,
        "kevents in all queues of one user (by default as many as 4 %% of memory hold)",
    ),
    "max_inode_events": (32, "inode events that one kevent may have waiting (by default 16384)"),
    "max_user_inode_events": (
        64,
        "inode events that all queues of one user may have waiting (by default as many as kevents)",
    ),
    "max_inode_watches": (64, "kevents of one user on one inode (by default 128)"),
}


def sim(options: argparse.Namespace) -> int:
    """Serve a simulator."""
    from pykevent.sim.account import Limits
    from pykevent.sim.daemon import Options, background, foreground

    limits = {name: getattr(options, name) for name in _LIMITS}
    run = Options(
        options.mountpoint,
        options.until_unused,
        options.allow_other,
        Limits(**{name: value for name, value in limits.items() if value}),
        options.log,
        options.at_home,
    )
    return background(run) if options.background else foreground(run)


def info(device: str | None) -> int:
    """Print what the device says of itself."""
    try:
        with pykevent.open(device) as queue:
            text = describe(queue.info())
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"{where}{error.strerror}", file=sys.stderr)
        return 1
    print(text)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    installed = os.path.basename(sys.argv[0]) == "pykevent"
    parser = argparse.ArgumentParser(
        prog="pykevent" if installed else "python -m pykevent",
        description="Look at a kevent device, or simulate one.",
    )
    parser.add_argument("--version", action="version", version=pykevent.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    about = commands.add_parser("info", help="print what the device says of itself")
    about.add_argument(
        "--device",
        help=f"the device; by default $KEVENT_DEVICE, or {pykevent.DEFAULT_DEVICE}",
    )
    add_sim(commands)
    options = parser.parse_args(arguments)
    try:
        status = sim(options) if options.command == "sim" else info(options.device)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read what we print has enough: end as a program that SIGPIPE ends, and let the
        # interpreter, which flushes once more, find nobody missing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
