# SPDX-License-Identifier: GPL-2.0-or-later
"""Transfers in asyncio: a queue of their own that the loop reads, and a future for each."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import pytest

from pykevent import KeventSelector, Queue, Transfer

from .sockets import Pair, narrow
from .support import DEADLINE
from .test_naio_send import MUCH

pytestmark = pytest.mark.needs("NAIO", "POLL")

Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, Loop] = {
    "of the standard library": asyncio.SelectorEventLoop,
    "on a queue": lambda: asyncio.SelectorEventLoop(KeventSelector()),
}


class Transfers:
    """As the README says."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.futures: dict[int, asyncio.Future[int]] = {}
        asyncio.get_running_loop().add_reader(queue.fileno(), self.drain)

    def drain(self) -> None:
        """Set the future of each transfer that has ended."""
        for event in self.queue.wait(0):
            future = self.futures.pop(event.ident)
            if future.cancelled():
                continue
            if event.error:
                future.set_exception(OSError(event.error, os.strerror(event.error)))
            else:
                future.set_result(event.data)

    async def end(self, transfer: Transfer) -> int:
        """How many bytes it has moved."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.futures[transfer.ident] = future
        try:
            return await future
        except asyncio.CancelledError:
            transfer.cancel()
            raise


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    """Runs coroutines on a loop of that kind."""
    return asyncio.Runner(loop_factory=LOOPS[request.param])


def test_both_ends_of_a_stream_are_moved_by_one_thread(
    queue: Queue, tcp: Pair, runner: asyncio.Runner
) -> None:
    near, far = tcp
    narrow(near, far)
    content = os.urandom(MUCH)
    buffer = bytearray(MUCH)

    async def both() -> tuple[int, int]:
        ends = Transfers(queue)
        return await asyncio.wait_for(
            asyncio.gather(
                ends.end(queue.send(near, content)),
                ends.end(queue.recv_into(far, buffer, waitall=True)),
            ),
            DEADLINE,
        )

    with runner:
        assert tuple(runner.run(both())) == (MUCH, MUCH)
    assert bytes(buffer) == content


def test_hundreds_of_sockets_are_served_at_once(queue: Queue, runner: asyncio.Runner) -> None:
    pairs = [socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(200)]

    async def hear(ends: Transfers, near: socket.socket) -> bytes:
        transfer = queue.recv(near, 100)
        await ends.end(transfer)
        return transfer.received

    async def all_of_them() -> list[bytes]:
        ends = Transfers(queue)
        tasks = [asyncio.create_task(hear(ends, near)) for near, _ in pairs]
        await asyncio.sleep(0)
        for number, (_, far) in enumerate(pairs):
            far.send(b"%d" % number)
        return await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE)

    with runner:
        assert runner.run(all_of_them()) == [b"%d" % number for number in range(200)]
    for near, far in pairs:
        near.close()
        far.close()


def test_a_task_that_is_cancelled_cancels_its_transfer(
    queue: Queue, tcp: Pair, runner: asyncio.Runner
) -> None:
    near, far = tcp
    buffer = bytearray(10)

    async def gives_up() -> Transfer:
        ends = Transfers(queue)
        transfer = queue.recv_into(near, buffer)
        task = asyncio.create_task(ends.end(transfer))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return transfer

    with runner:
        transfer = runner.run(gives_up())
    assert (transfer.done, transfer.error) == (True, errno.ECANCELED)
    buffer.extend(b"ours again")
    far.send(b"hello")
    assert near.recv(10) == b"hello"


def test_a_multishot_with_dispatch_waits_for_who_uses_its_bytes(
    queue: Queue, tcp: Pair, runner: asyncio.Runner
) -> None:
    near, far = tcp
    content, buffer = os.urandom(1000), bytearray(7)

    async def hear() -> bytes:
        ends = Transfers(queue)
        transfer = queue.recv_into(near, buffer, multishot=True, dispatch=True)
        heard = b""
        while moved := await ends.end(transfer):
            await asyncio.sleep(0)  # the loop looks at the queue meanwhile
            heard += buffer[:moved]
            if not transfer.done:
                transfer.resume()
        return heard

    async def both() -> bytes:
        task = asyncio.create_task(hear())
        for begin in range(0, len(content), 100):
            far.send(content[begin : begin + 100])
            await asyncio.sleep(0)
        far.close()
        return await asyncio.wait_for(task, DEADLINE)

    with runner:
        assert runner.run(both()) == content


def test_an_error_of_a_transfer_is_raised_where_it_is_awaited(
    queue: Queue, tcp: Pair, runner: asyncio.Runner
) -> None:
    near, _ = tcp
    near.shutdown(socket.SHUT_WR)

    async def sends() -> None:
        ends = Transfers(queue)
        await ends.end(queue.send(near, b"x"))

    with runner, pytest.raises(BrokenPipeError):
        runner.run(sends())
