# SPDX-License-Identifier: GPL-2.0-or-later
"""The module's source builds for every kernel without a word from any tool.

See runner.kernels.chosen() for which kernels these are.
"""

from __future__ import annotations

import os
import shutil

import pytest
from runner.apt import machine_sources
from runner.kernels import chosen
from runner.module import EVENT_SOURCES, check_build, check_patch, sources

SERIES = chosen()
NEWEST = SERIES[-1]


@pytest.fixture(autouse=True)
def debian() -> None:
    """Kernels come from the Debian archive: skip where there is none, unless in CI."""
    missing = [name for name in ("apt-get", "dpkg", "make") if shutil.which(name) is None]
    if not missing and machine_sources():
        return
    reason = f"not a Debian machine: no {' '.join(missing) or 'archive'}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.parametrize("series", SERIES)
def test_gcc_and_sparse_have_nothing_to_say(series: str) -> None:
    assert check_build(series) == []


@pytest.mark.parametrize("series", SERIES)
def test_it_builds_without_any_source(series: str) -> None:
    assert check_build(series, [f"CONFIG_KEVENT_{source}=n" for source in EVENT_SOURCES]) == []


@pytest.mark.parametrize("source", EVENT_SOURCES)
def test_it_builds_without_one_source(source: str) -> None:
    assert check_build(NEWEST, [f"CONFIG_KEVENT_{source}=n"]) == []


def test_checkpatch_has_nothing_to_say() -> None:
    assert check_patch(sources()) == []
