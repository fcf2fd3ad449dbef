# SPDX-License-Identifier: GPL-2.0-or-later
"""What the package says of itself when it is built."""

import importlib
import tomllib

from runner.common import TREE

from pykevent import __version__

PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == __version__


def test_the_command_is_the_one_of_python_m() -> None:
    module, _, name = PROJECT["scripts"]["pykevent"].partition(":")
    assert module == "pykevent.__main__"
    assert callable(getattr(importlib.import_module(module), name))


def test_the_licence_and_the_description_go_with_it() -> None:
    assert (TREE / PROJECT["readme"]).is_file()
    assert "GNU GENERAL PUBLIC LICENSE" in "".join(
        (TREE / path).read_text() for path in PROJECT["license-files"]
    )
