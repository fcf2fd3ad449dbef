# SPDX-License-Identifier: GPL-2.0-or-later
"""The sentences that stand behind an errno, and who says them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_device import FakeDevice

import pykevent
from pykevent import EventType, Queue, abi, errors

LOOK = "the simulator may not look at this process"
DESCRIPTORS = (EventType.SOCKET, EventType.POLL, EventType.INODE, EventType.NAIO)


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_only_a_simulator_is_told_to_lack_permission_to_look(kind: EventType) -> None:
    assert LOOK not in str(errors.request_error(errno.EPERM, kind))
    said = str(errors.request_error(errno.EPERM, kind, simulated=True))
    assert LOOK in said
    assert "Yama" in said
    assert "PR_SET_DUMPABLE" in said


SIMULATED = [
    (errno.EACCES, EventType.PATH, LOOK),
    (errno.EOPNOTSUPP, EventType.POLL, "a file of another FUSE server"),
    (errno.ELOOP, EventType.PATH, "a link of /proc that jumps, such as /proc/self/cwd"),
]


@pytest.mark.parametrize(("error", "kind", "sentence"), SIMULATED)
def test_what_a_simulator_refuses_otherwise_is_named(
    error: int, kind: EventType, sentence: str
) -> None:
    assert sentence not in str(errors.request_error(error, kind))
    assert sentence in str(errors.request_error(error, kind, simulated=True))
    # It is said of that type alone.
    assert sentence not in str(errors.request_error(error, EventType.TIMER, simulated=True))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (EventType.INODE, "no event but ISDIR, or a limit above max_name_queue"),
        (EventType.PATH, "no event but ISDIR, or a limit above max_name_queue"),
        (EventType.TIMER, "a clock that is none of the three"),
        (EventType.USER, "both ONESHOT and DISPATCH"),
        (77, "does not take"),
    ],
)
def test_an_invalid_request_is_told_what_may_be_wrong(kind: int, sentence: str) -> None:
    error = errors.request_error(errno.EINVAL, kind)
    assert error.errno == errno.EINVAL
    assert sentence in str(error)


def test_a_queue_by_descriptor_asks_the_device_only_where_that_may_matter(
    device: FakeDevice,
) -> None:
    with Queue.fromfd(os.open("/dev/null", os.O_RDWR)) as queue, open(__file__) as file:
        assert device.last_calls() == []
        with pytest.raises(FileNotFoundError):
            queue.post(1)
        assert device.last_calls() == [abi.IOC_NR_POST]
        device.features |= abi.Feature.SIM
        for numbers in ([abi.IOC_NR_ADD, abi.IOC_NR_INFO], [abi.IOC_NR_ADD]):
            with pytest.raises(PermissionError, match=f"regular file never can; or {LOOK}"):
                queue.add(pykevent.poll_event(file, 1))
            assert device.last_calls() == numbers


def test_what_is_not_there_is_named(queue: Queue) -> None:
    near, far = socket.socketpair()
    with near, far:
        missing: dict[str, Callable[[], object]] = {
            "no TIMER 5 in this queue$": lambda: queue.remove(EventType.TIMER, 5),
            "no TIMER 6 in this queue$": lambda: queue.modify(pykevent.timer_event(6, 1)),
            "no kevent 5 of type 77 in this queue$": lambda: queue.remove(77, 5),
            f"no SOCKET {near.fileno()} in this queue$": lambda: queue.unregister(near),
            "no stale SOCKET 7 in": lambda: queue.remove(EventType.SOCKET, 7, stale=True),
            "no NAIO 9 in this queue: its tran": lambda: queue.remove(EventType.NAIO, 9),
            "no USER 1 in this queue, or it is one-shot and is being": lambda: queue.post(1),
        }
        for said, ask in missing.items():
            with pytest.raises(FileNotFoundError, match=said):
                ask()


def test_what_is_there_already_is_named(queue: Queue) -> None:
    for request, said in (
        (pykevent.timer_event(5, 1), "TIMER 5 is in this queue already"),
        (pykevent.user_event(1), "USER 1 is in this queue already"),
    ):
        queue.add(request)
        with pytest.raises(FileExistsError, match=said):
            queue.add(request)


def test_a_path_that_is_not_there_is_not_taken_for_a_kevent() -> None:
    said = str(errors.request_error(errno.ENOENT, EventType.PATH, ident=3))
    assert said == f"[Errno 2] {os.strerror(errno.ENOENT)}"
    said = str(errors.request_error(errno.EEXIST, EventType.PATH, ident=3))
    assert said.endswith("PATH 3 is in this queue already")


def test_a_wait_for_more_than_there_is_room_for_says_so(queue: Queue) -> None:
    for changes in ([], [pykevent.Change(pykevent.Op.ADD, pykevent.user_event(1))]):
        with pytest.raises(OSError, match=r"min \(3\) is more than max \(2\)") as caught:
            queue.change_and_wait(changes, 0, min=3, max=2)
        assert caught.value.errno == errno.EINVAL


def test_a_simulator_that_died_is_to_be_started_again_where_it_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KEVENT_DEVICE", raising=False)
    said = str(errors.call_error(errno.ENOTCONN))
    assert said.endswith("has died: open another queue")
    monkeypatch.setenv("KEVENT_DEVICE", "/mount/kevent")
    said = str(errors.call_error(errno.ENOTCONN))
    assert "open another queue, once it was started again (python -m pykevent sim DIR), or" in said
    assert "unset KEVENT_DEVICE" in said


def test_a_folder_in_place_of_the_device_is_told_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEVENT_DEVICE", str(tmp_path))
    with pytest.raises(IsADirectoryError, match=f"the file in its folder: {tmp_path}/kevent"):
        pykevent.open()


def test_a_star_import_leaves_the_built_in_open_alone() -> None:
    names: dict[str, object] = {}
    exec("from pykevent import *", names)
    assert "open" not in names
    assert names["Queue"] is pykevent.Queue
    assert callable(pykevent.open)
