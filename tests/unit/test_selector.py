# SPDX-License-Identifier: GPL-2.0-or-later
"""KeventSelector as `selectors` and asyncio use one."""

import asyncio
import contextlib
import os
import resource
import selectors
import socket
import threading
from collections.abc import Iterator
from selectors import EVENT_READ, EVENT_WRITE

import pytest
from fake_device import FakeDevice

from pykevent import EventType, KeventSelector, Queue, abi, user_event


@pytest.fixture
def selector(device: FakeDevice, queue: Queue) -> Iterator[KeventSelector]:
    selector = KeventSelector(queue)
    yield selector
    selector.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_file_that_is_ready_is_returned_with_its_key(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    key = selector.register(one, EVENT_READ, "data")
    assert key == (one, one.fileno(), EVENT_READ, "data")
    assert selector.select(0) == []
    other.send(b"x")
    assert selector.select() == [(key, EVENT_READ)]
    assert selector.select(0) == [(key, EVENT_READ)]
    both = selector.modify(one, EVENT_READ | EVENT_WRITE, "more")
    assert selector.select() == [(both, EVENT_READ | EVENT_WRITE)]
    assert selector.unregister(one) == both
    assert selector.select(0) == []


def test_a_closed_peer_is_news_for_readers_and_for_writers(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    other.close()
    selector.register(one, EVENT_READ)
    assert selector.select()[0][1] == EVENT_READ
    selector.modify(one, EVENT_WRITE)
    assert selector.select()[0][1] == EVENT_WRITE


def test_an_error_alone_reaches_whoever_waits(selector: KeventSelector) -> None:
    reader, writer = os.pipe()
    selector.register(writer, EVENT_WRITE)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(65536)):
            pass
    assert selector.select(0) == []
    os.close(reader)
    ((key, events),) = selector.select()
    assert (key.fd, events) == (writer, EVENT_WRITE)
    os.close(writer)


@pytest.mark.parametrize("number", [509, 510, 511, 1200])
def test_all_that_is_ready_is_returned_at_once(
    device: FakeDevice, selector: KeventSelector, number: int
) -> None:
    device.max_queue = number
    reader, writer = os.pipe()
    os.close(writer)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[0] < number + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number + 100, limits[1]))
    copies = [os.dup(reader) for _ in range(number)]
    try:
        for copy in copies:
            selector.register(copy, EVENT_READ)
        assert {key.fd for key, _ in selector.select()} == set(copies)
        assert len(selector.select()) == number
    finally:
        for copy in (reader, *copies):
            os.close(copy)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_hang_up_alone_reaches_a_reader(selector: KeventSelector) -> None:
    reader, writer = os.pipe()
    key = selector.register(reader, EVENT_READ)
    os.close(writer)
    assert selector.select() == [(key, EVENT_READ)]
    os.close(reader)


def test_a_listening_socket_is_asked_for_what_it_reports(
    device: FakeDevice, selector: KeventSelector
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        selector.register(server, EVENT_READ)
        kevent = device.kevents[EventType.SOCKET, server.fileno()]
        assert kevent.events == abi.SocketEvents.RECV | abi.SocketEvents.ACCEPT


def test_without_the_socket_feature_sockets_are_polled(
    device: FakeDevice, queue: Queue, pair: tuple[socket.socket, socket.socket]
) -> None:
    device.features &= ~abi.Feature.SOCKET
    with KeventSelector(queue) as selector:
        key = selector.register(pair[0], EVENT_WRITE)
        assert (EventType.POLL, pair[0].fileno()) in device.kevents
        assert selector.select() == [(key, EVENT_WRITE)]
        selector.unregister(pair[0])
        assert device.kevents == {}


def test_register_refuses_what_the_standard_selectors_refuse(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    selector.register(pair[0], EVENT_READ)
    with pytest.raises(KeyError, match="already registered"):
        selector.register(pair[0].fileno(), EVENT_WRITE)
    for events in (0, 4, 999999, -1):
        with pytest.raises(ValueError, match="Invalid events"):
            selector.register(pair[1], events)
    with pytest.raises(ValueError, match="-10"):
        selector.register(-10, EVENT_READ)
    with pytest.raises(ValueError, match="Invalid file object"):
        selector.register("abc", EVENT_READ)  # type: ignore[arg-type]
    with open(__file__) as file, pytest.raises(PermissionError):
        selector.register(file, EVENT_READ)
    assert len(selector.get_map()) == 1
    for method in (selector.unregister, selector.get_key):
        with pytest.raises(KeyError):
            method(pair[1])
    with pytest.raises(KeyError):
        selector.modify(pair[1], EVENT_READ)


def test_the_map_finds_by_object_and_by_number_and_has_get(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    keys = selector.get_map()
    assert len(keys) == 0
    key = selector.register(one, EVENT_READ)
    assert keys[one] is key
    assert keys.get(one.fileno()) is key
    assert keys.get(other) is None
    assert list(keys) == [one.fileno()]
    assert one in keys
    assert other not in keys
    with pytest.raises(TypeError):
        del keys[one]  # type: ignore[attr-defined]


def test_modify_of_the_data_alone_is_no_call(
    device: FakeDevice, selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    selector.register(pair[0], EVENT_READ, 1)
    device.calls.clear()
    assert selector.modify(pair[0], EVENT_READ, 2).data == 2
    assert selector.get_key(pair[0]).data == 2
    assert device.calls == []
    selector.modify(pair[0], EVENT_WRITE, 2)
    assert device.last_calls() == [abi.IOC_NR_MODIFY]


def test_a_modify_that_fails_drops_the_registration(
    device: FakeDevice, selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    selector.register(pair[0], EVENT_READ)
    device.kevents.clear()
    with pytest.raises(FileNotFoundError):
        selector.modify(pair[0], EVENT_WRITE)
    assert len(selector.get_map()) == 0


def test_a_file_closed_before_unregister_does_no_harm(
    device: FakeDevice, selector: KeventSelector
) -> None:
    one, other = socket.socketpair()
    key = selector.register(one, EVENT_READ)
    one.close()
    device.kevents.clear()
    device.calls.clear()
    assert selector.unregister(one) is key
    assert device.last_calls() == [abi.IOC_NR_REMOVE] * 2
    other.close()


def test_another_error_of_unregister_is_raised(
    device: FakeDevice, selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    selector.register(pair[0], EVENT_READ)
    device.failures = [5]
    with pytest.raises(OSError, match="Input/output"):
        selector.unregister(pair[0])


def test_a_closed_selector_is_closed(
    selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    selector.register(pair[0], EVENT_READ)
    selector.close()
    selector.close()
    assert selector.get_map() is None
    with pytest.raises(RuntimeError, match="closed"):
        selector.get_key(pair[0])
    for method in (selector.select, selector.fileno):
        with pytest.raises(ValueError, match="closed kevent queue"):
            method()


def test_an_event_of_another_type_is_not_taken_for_a_files(
    device: FakeDevice, queue: Queue, selector: KeventSelector
) -> None:
    reader, writer = os.pipe()
    key = selector.register(reader, EVENT_READ)
    queue.add(user_event(reader))
    queue.post(reader)
    assert selector.select(0) == []
    os.write(writer, b"x")
    queue.post(reader)
    assert selector.select(0) == [(key, EVENT_READ)]
    os.close(reader)
    os.close(writer)


def test_asyncio_runs_on_it(device: FakeDevice, selector: KeventSelector) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def main() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"hello\n")
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            await asyncio.sleep(0.001)
            return answer

    assert isinstance(selector, selectors.BaseSelector)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        assert runner.run(main()) == b"hello\n"
    assert any(call.nr == abi.IOC_NR_WAIT and call.blocking for call in device.calls)


def test_another_thread_may_register_while_one_selects(
    device: FakeDevice, selector: KeventSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(selector.select()))
    thread.start()
    device.until_waiting(1)
    key = selector.register(pair[0], EVENT_WRITE)
    thread.join(10)
    assert found == [(key, EVENT_WRITE)]
