# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: ``python -m pykevent info``."""

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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pykevent", description="Look at a kevent device."
    )
    parser.add_argument("--version", action="version", version=pykevent.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="print what the device says of itself")
    info.add_argument(
        "--device",
        help=f"the device; by default $KEVENT_DEVICE, or {pykevent.DEFAULT_DEVICE}",
    )
    options = parser.parse_args(arguments)
    try:
        with pykevent.open(options.device) as queue:
            print(describe(queue.info()))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
