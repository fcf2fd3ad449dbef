# SPDX-License-Identifier: GPL-2.0-or-later
"""The hub's thread: what it is woken for it is woken for."""

from __future__ import annotations

import os
import threading

from pykevent.sim.hub import Pool

ROUNDS = 3000
PATIENCE = 5.0


def test_a_kick_reaches_the_thread_although_calls_drain_all_the_time() -> None:
    ticked = threading.Event()

    def tick() -> None:
        ticked.set()

    pool = Pool("tested")
    pool.tick = tick
    member = os.eventfd(0)
    pool.add(member, lambda: None)
    for number in range(ROUNDS):
        ticked.clear()
        pool.kick()
        pool.drain()
        assert ticked.wait(PATIENCE), f"kick {number} was lost"
    pool.forget(member)
    os.close(member)


def test_there_is_one_thread_however_many_begin_at_once() -> None:
    pool = Pool("begun by many")
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        pool.kick()

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [thread.name for thread in threading.enumerate()].count("begun by many") == 1
