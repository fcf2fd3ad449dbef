# SPDX-License-Identifier: GPL-2.0-or-later
"""KeventSelector: the selectors module's own rules, and asyncio on top of it."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from pykevent import KeventSelector

from .support import DEADLINE, InThread

pytestmark = pytest.mark.needs("SOCKET", "POLL")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@pytest.fixture
def selector() -> Iterator[KeventSelector]:
    """The selector under test."""
    with KeventSelector() as opened:
        yield opened


def ready(selector: KeventSelector, timeout: float | None = 0) -> dict[object, int]:
    """What is ready, by file object."""
    return {key.fileobj: events for key, events in selector.select(timeout)}


def test_register_returns_a_key_that_the_map_holds(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, _ = pair
    key = selector.register(near, READ, "data")
    assert key == (near, near.fileno(), READ, "data")
    assert selector.get_key(near) == selector.get_map()[near] == key
    assert selector.get_map()[near.fileno()] == key
    assert len(selector.get_map()) == 1
    assert selector.get_map().get(999) is None


def test_select_reports_reading_and_writing(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    selector.register(near, READ | WRITE)
    assert ready(selector) == {near: WRITE}
    far.send(b"x")
    assert ready(selector) == {near: READ | WRITE}
    near.recv(1)
    assert ready(selector) == {near: WRITE}


def test_select_is_level_triggered(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    selector.register(near, READ)
    far.send(b"x")
    for _ in range(3):
        assert ready(selector) == {near: READ}
    near.recv(1)
    assert ready(selector) == {}


def test_modify_changes_events_and_data(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    selector.register(near, READ, 1)
    assert selector.modify(near, WRITE, 2) == (near, near.fileno(), WRITE, 2)
    far.send(b"x")
    assert ready(selector) == {near: WRITE}
    assert selector.modify(near, WRITE, 3).data == 3
    assert selector.get_key(near).data == 3


def test_unregister_forgets(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    selector.register(near, READ)
    far.send(b"x")
    assert selector.unregister(near).fileobj is near
    assert ready(selector) == {}
    with pytest.raises(KeyError):
        selector.get_key(near)


def test_errors_are_those_of_the_selectors_module(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, _ = pair
    selector.register(near, READ)
    with pytest.raises(KeyError):
        selector.register(near, READ)
    with pytest.raises(KeyError):
        selector.unregister(999_999)
    with pytest.raises(KeyError):
        selector.modify(999_999, READ)
    for bad in (0, 4, 999_999):
        with pytest.raises(ValueError, match="Invalid events"):
            selector.register(pair[1], bad)
    with pytest.raises(ValueError):
        selector.register(-10, READ)
    with pytest.raises(ValueError, match="Invalid file object"):
        selector.register("abc", READ)  # type: ignore[arg-type]


def test_a_regular_file_is_refused_as_epoll_refuses_it(selector: KeventSelector) -> None:
    with open(__file__, "rb") as file, pytest.raises(PermissionError):
        selector.register(file, READ)
    assert len(selector.get_map()) == 0


def test_a_file_that_was_closed_can_still_be_unregistered(selector: KeventSelector) -> None:
    near, far = socket.socketpair()
    with far:
        selector.register(near, READ)
        near.close()
        selector.unregister(near)
        assert len(selector.get_map()) == 0


def test_a_number_used_again_after_unregistering_meets_no_ghost(
    selector: KeventSelector,
) -> None:
    for turn in range(10):
        near, far = socket.socketpair()
        with near, far:
            selector.register(near, READ, turn)
            far.send(b"x")
            ((key, _),) = selector.select(DEADLINE)
            assert key.data == turn
            selector.unregister(near)


def test_the_end_of_a_connection_is_readable(
    selector: KeventSelector, tcp: tuple[socket.socket, socket.socket]
) -> None:
    near, far = tcp
    selector.register(near, READ)
    far.close()
    assert ready(selector, DEADLINE) == {near: READ}


def test_a_listening_socket_is_readable_when_a_connection_waits(
    selector: KeventSelector,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        selector.register(server, READ)
        assert ready(selector) == {}
        with socket.create_connection(server.getsockname()):
            assert ready(selector, DEADLINE) == {server: READ}


def test_pipes_are_watched_too(selector: KeventSelector, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    selector.register(reader, READ)
    selector.register(writer, WRITE)
    assert ready(selector) == {writer: WRITE}
    os.write(writer, b"x")
    assert ready(selector) == {reader: READ, writer: WRITE}
    os.close(reader)
    assert ready(selector) == {writer: WRITE}


def test_select_waits_for_its_timeout_and_not_less(selector: KeventSelector) -> None:
    begun = time.monotonic_ns()
    assert selector.select(0.03) == []
    assert time.monotonic_ns() - begun >= 30_000_000


def test_select_without_a_timeout_waits_for_an_event(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    selector.register(near, READ)
    selects = InThread(lambda: ready(selector, None)).until_asleep()
    far.send(b"x")
    assert selects.result() == {near: READ}


def test_a_closed_selector_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    selector = KeventSelector()
    selector.register(pair[0], READ)
    selector.close()
    selector.close()
    with pytest.raises(RuntimeError):
        selector.get_key(pair[0])


# asyncio


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run @main in an event loop on top of a KeventSelector."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(KeventSelector())) as runner:
        runner.run(asyncio.wait_for(main, 2 * DEADLINE))


def test_asyncio_serves_many_clients_with_streams() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def client(port: int, number: int) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = []
        for turn in range(3):
            writer.write(f"client {number} line {turn}\n".encode())
            answers.append(await reader.readline())
        writer.close()
        await writer.wait_closed()
        return answers

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        answers = await asyncio.gather(*(client(port, number) for number in range(5)))
        assert answers == [
            [f"CLIENT {number} LINE {turn}\n".encode() for turn in range(3)] for number in range(5)
        ]
        server.close()
        await server.wait_closed()

    run(main())


def test_asyncio_moves_more_than_a_socket_holds() -> None:
    size = 1 << 20

    async def main() -> None:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            loop = asyncio.get_running_loop()

            async def receives() -> int:
                received = 0
                while received < size:
                    received += len(await loop.sock_recv(far, 65536))
                return received

            _, received = await asyncio.gather(loop.sock_sendall(near, bytes(size)), receives())
            assert received == size

    run(main())


def test_asyncio_runs_timers_and_calls_of_other_threads() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.sleep(0.02)
        assert loop.time() - begun >= 0.02
        told = loop.create_future()
        thread = InThread(lambda: loop.call_soon_threadsafe(told.set_result, "told"))
        assert await told == "told"
        thread.result()

    run(main())
