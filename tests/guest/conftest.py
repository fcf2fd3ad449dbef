# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guests report is repeated at the end of the run."""

from __future__ import annotations

import pytest

REPORTS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORTS] = []


@pytest.fixture
def reports(pytestconfig: pytest.Config) -> list[str]:
    """Lines to show above pytest's closing line."""
    return pytestconfig.stash[REPORTS]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[REPORTS]:
        terminalreporter.section("guests")
        for line in config.stash[REPORTS]:
            terminalreporter.write_line(line)
