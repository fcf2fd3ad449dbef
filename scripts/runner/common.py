# SPDX-License-Identifier: GPL-2.0-or-later
"""What all the scripts share: where things are, locks, and how to fail."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
BUILD = TREE / "build"


class Failure(Exception):
    """Ends the script with this sentence and a status of 1."""


def cache_dir() -> Path:
    """The folder shared by all clones on this machine; made where missing."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path.
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    path = root / "kevent"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file *path*, waiting for it if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """Tell the person what is being done, on stderr."""
    print(text, file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Run *command* and return its stdout; its stderr is shown if it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env=env,
        )
    except FileNotFoundError as error:
        raise Failure(f"{words[0]} is not installed; run scripts/bootstrap") from error
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{' '.join(words)}: no end after {timeout:.0f} s") from error
    if done.returncode:
        raise Failure(
            f"{words[0]}: status {done.returncode}\n{' '.join(words)}\n"
            f"{done.stdout[-4000:]}{done.stderr[-4000:]}".rstrip()
        )
    return done.stdout


def entry(main: Callable[[], int]) -> None:
    """Run *main* as a script: its result is the status, a Failure is told."""
    try:
        status = main()
    except Failure as failure:
        say(f"{Path(sys.argv[0]).name}: {failure}")
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
