# SPDX-License-Identifier: GPL-2.0-or-later
"""The README's C program, compiled as it says, on the simulator that the environment names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from runner.common import TREE
from runner.simulator import Simulator


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program, compiled."""
    text = (TREE / "README.md").read_text()
    source = text.partition("## From C")[2].partition("```c\n")[2].partition("```")[0]
    (tmp_path / "try.c").write_text(source)
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-Ichardev", "-o", f"{tmp_path}/try"]
    subprocess.run([*command, f"{tmp_path}/try.c"], cwd=TREE, check=True, timeout=60)
    return tmp_path / "try"


def test_the_c_program_opens_what_kevent_device_names(program: Path, simulator: Simulator) -> None:
    environment = {**os.environ, "KEVENT_DEVICE": str(simulator.device)}
    for word, said in ((b"x", "input\n"), (b"", "time is up\n")):
        reader, writer = os.pipe()
        try:
            os.write(writer, word)
            done = subprocess.run(
                [program], stdin=reader, capture_output=True, text=True, timeout=20, env=environment
            )
        finally:
            os.close(reader)
            os.close(writer)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
