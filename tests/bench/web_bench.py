#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Serve the same files to the same clients by kevent and by epoll: web_bench.py LOAD RESULT

LOAD is the program of web_load.c.  Each row has the requests per million instructions, of all that
the machine did or of a part of that; the median of three runs, in turns.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
SERVERS = {"kevent": TREE / "examples/webserver.py", "epoll": TREE / "tests/bench/web_epoll.py"}
PARTS = {
    "whole": "all",
    "server": "the server",
    "user": "the server's Python",
    "client": "the clients",
}
RUNS = 3
LIMIT = 600
# Instructions that may go by with nothing to do: more would mean that somebody had waited.
IDLE = 0.01


@dataclass(frozen=True)
class Load:
    """So many clients, each of which asks so often for a file of so many bytes."""

    size: int
    clients: int
    requests: int

    @property
    def name(self) -> str:
        return f"{self.size // 1024} KiB, {self.clients} clients"


LOADS = (Load(1024, 1000, 2), Load(65536, 1000, 2))


def run(server: Path, load: Load, program: str, folder: Path) -> dict[str, int]:
    """One run: what the program said, which fails where a single reply is not right."""
    environment = {**os.environ, "PYTHONPATH": f"{TREE}:{TREE / 'examples'}"}
    process = subprocess.Popen(
        [sys.executable, server, folder, "0"], env=environment, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout
            found = re.fullmatch(r"http://.*:(\d+)/\n", process.stdout.readline())
            assert found
            words = [found[1], process.pid, load.clients, load.requests]
            name = str(load.size)
            done = subprocess.run(
                [program, *map(str, words), f"/{name}", folder / name],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            process.send_signal(signal.SIGINT)
            status = process.wait(LIMIT)
            assert status == 0, status
        finally:
            process.kill()
    said: dict[str, int] = json.loads(done.stdout)
    assert said["idle"] <= IDLE * said["whole"], said
    return said


def main() -> int:
    program, result = sys.argv[1:]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for load in LOADS:
            (folder / str(load.size)).write_bytes(os.urandom(load.size))
            found: dict[str, list[dict[str, int]]] = {server: [] for server in SERVERS}
            for _ in range(RUNS):
                for server, path in SERVERS.items():
                    found[server].append(run(path, load, program, folder))
                    print(f"{load.name}, {server}: {found[server][-1]}", flush=True)
            number = load.clients * load.requests
            for part, what in PARTS.items():
                values = {
                    server: number * 1e6 / statistics.median(one[part] for one in runs)
                    for server, runs in found.items()
                }
                unit = f"request per million instructions, {what}"
                rows.append({"name": f"{load.name}: {what}", "unit": unit, **values})
    content = {"release": platform.release(), "rows": rows}
    Path(result).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
