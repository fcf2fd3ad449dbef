# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's table of mounts, as it is and as it may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pykevent import mounts

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
40 22 0:50 / {folder}/with\\040space rw,nosuid - fuse.pykevent kevent rw,user_id=0
41 22 0:51 / {folder}/over rw shared:7 master:2 - tmpfs none rw
42 41 0:52 / {folder}/over rw - fuse.other kevent rw
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the table has mounts, of which none is real."""
    (tmp_path / "table").write_text(TABLE.format(folder=tmp_path))
    monkeypatch.setattr(mounts, "_TABLE", str(tmp_path / "table"))
    return tmp_path


def test_the_last_of_several_mounts_counts_and_names_may_have_spaces(folder: Path) -> None:
    assert mounts.mounts() == {
        "/": "ext4",
        f"{folder}/with space": "fuse.pykevent",
        f"{folder}/over": "fuse.other",
    }


def test_a_simulators_device_is_known_by_the_table_alone(folder: Path) -> None:
    assert mounts.is_simulated(f"{folder}/with space/kevent")
    assert not mounts.is_simulated(f"{folder}/with space/pid")
    assert not mounts.is_simulated(f"{folder}/over/kevent")
    assert not mounts.is_simulated("/dev/kevent")


def test_links_above_a_mount_and_to_it_are_followed(folder: Path) -> None:
    (folder / "above").symlink_to(folder)
    (folder / "to").symlink_to(folder / "over")
    assert mounts.mounted(f"{folder}/above/over") == "fuse.other"
    assert mounts.mounted(f"{folder}/to") == "fuse.other"
    assert mounts.mounted(f"{folder}/above") is None


def test_without_a_table_nothing_is_mounted(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(mounts, "_TABLE", str(folder / "none"))
    assert mounts.mounts() == {}
    assert mounts.mounted("/") is None
