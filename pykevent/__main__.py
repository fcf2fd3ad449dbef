# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: ``python -m pykevent info`` and ``python -m pykevent sim``."""

import argparse
import sys
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
    for name, meaning in _LIMITS.items():
        option = "--" + name.replace("_", "-")
        sim.add_argument(option, type=int, metavar="N", default=None, help=meaning)


_LIMITS = {
    "max_queue_kevents": "kevents in one queue",
    "max_user_kevents": "kevents in all queues of one user",
    "max_inode_events": "inode events that one kevent may have waiting",
    "max_user_inode_events": "inode events that all queues of one user may have waiting",
    "max_inode_watches": "kevents of one user on one inode",
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
        Limits(**{name: value for name, value in limits.items() if value is not None}),
    )
    return background(run) if options.background else foreground(run)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pykevent", description="Look at a kevent device, or simulate one."
    )
    parser.add_argument("--version", action="version", version=pykevent.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="print what the device says of itself")
    info.add_argument(
        "--device",
        help=f"the device; by default $KEVENT_DEVICE, or {pykevent.DEFAULT_DEVICE}",
    )
    add_sim(commands)
    options = parser.parse_args(arguments)
    if options.command == "sim":
        return sim(options)
    try:
        with pykevent.open(options.device) as queue:
            print(describe(queue.info()))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
