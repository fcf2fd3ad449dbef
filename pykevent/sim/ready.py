# SPDX-License-Identifier: GPL-2.0-or-later
"""The ready list: how kevents get on it, who is woken, and how events leave it.

A delivery claims items, which takes them off the list, asks their sources without any lock held,
and only when the device has found room for them decides what becomes of each kevent.  A claimed
kevent is with one waiter only, and remembers in AGAIN what happens to it meanwhile.  What found no
room goes back to the head of the list.

Functions whose names end in ``_locked`` want the queue's lock held.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from pykevent.sim.kevent import (
    AGAIN,
    ASLEEP,
    BROKEN,
    DEAD,
    DISABLED,
    DISPATCH,
    EDGE,
    MODIFIED,
    NEW,
    NOTIFY_BROKEN,
    ONESHOT,
    READY,
    REMOVED,
    Event,
    Item,
    Kevent,
    Request,
    Waiter,
)

_log = logging.getLogger("pykevent.sim")

BATCH = 64
"""How many events are claimed at once."""

_EVENT_BROKEN, _EVENT_LAST = 0x01, 0x08


class ReadyList:
    """The part of a queue that events go through.

    `poked` is called without any lock whenever those who poll the queue are to look again.
    """

    tell: Callable[[], None]
    """Tells those who poll the queue's descriptor."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ready: OrderedDict[Item, None] = OrderedDict()
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        self.dead: dict[Kevent, None] = {}
        self.silent: dict[Kevent, None] = {}
        """Those that end with a close that nobody tells of."""
        self.claims = 0
        self.missed = False
        self.round = 0
        self.tell = lambda: None

    def poked(self) -> None:
        """Those who poll the queue are to look again."""
        self.tell()

    # Waking

    def wake_one_locked(self) -> None:
        """Wake the first waiter that has not been woken and whose wish can be met."""
        ready = len(self.ready)
        for waiter in self.waiters:
            if ready >= waiter.minimum:
                del self.waiters[waiter]
                waiter.wake()
                return

    def append_locked(self, item: Item) -> None:
        """Put an item at the end of the list, and wake one who waits."""
        self.ready[item] = None
        if self.waiters:
            self.wake_one_locked()

    # Getting on the list

    def ready_locked(self, kevent: Kevent) -> bool:
        """Enqueue a kevent, at most once; whether `poked` is to be called."""
        if kevent.state & (DEAD | REMOVED | ASLEEP | READY):
            return False
        if kevent.item.claimed or kevent.state & NEW:
            kevent.state |= AGAIN
            return False
        kevent.state |= READY
        self.append_locked(kevent.item)
        return True

    def activity(self, kevent: Kevent) -> None:
        """A source's call: something happened."""
        with self.lock:
            wake = self.ready_locked(kevent)
        if wake:
            self.poked()

    def item_ready_locked(self, kevent: Kevent, item: Item) -> bool:
        """Enqueue one of many occurrences; whether `poked` is to be called."""
        if kevent.state & (DEAD | REMOVED | ASLEEP | NEW):
            return False
        self.append_locked(item)
        return True

    def forget_locked(self, kevent: Kevent) -> None:
        """Take all that a kevent has off the list."""
        if kevent.state & READY:
            kevent.state &= ~READY
            del self.ready[kevent.item]
        if kevent.parks:
            kevent.park(True)

    def kill_locked(self, kevent: Kevent) -> None:
        """The end of a kevent, but for what needs the mutex."""
        if kevent.state & (DEAD | REMOVED):
            return
        kevent.state |= DEAD
        self.forget_locked(kevent)
        self.dead[kevent] = None

    def closed(self, kevent: Kevent, report: bool) -> None:
        """The storage of a kevent is gone; with @report that is told unasked."""
        wake = before = False
        with self.lock:
            if kevent.state & (DEAD | REMOVED | BROKEN):
                return
            if report or kevent.flags & NOTIFY_BROKEN:
                kevent.state |= BROKEN
                kevent.state &= ~ASLEEP
                # First what happened before that; of a one-shot, nothing else.
                if kevent.parks:
                    before = kevent.park(False)
                if not before or not kevent.flags & ONESHOT:
                    wake = self.ready_locked(kevent)
                wake |= before
            else:
                self.kill_locked(kevent)
        if wake:
            self.poked()

    def modify_locked(self, kevent: Kevent, request: Request) -> bool:
        """Take over the common part of a request; false where the kevent has ended."""
        if kevent.state & (DEAD | BROKEN):
            return False
        kevent.cookie = request.cookie
        kevent.events = request.events
        kevent.flags = request.flags
        if request.flags & DISABLED:
            kevent.state |= ASLEEP
        else:
            kevent.state &= ~ASLEEP
        if kevent.claims:
            kevent.state |= MODIFIED
        if kevent.state & ASLEEP:
            self.forget_locked(kevent)
        elif kevent.parks:
            # The mode says how many of the occurrences are on the list.
            kevent.park(True)
            kevent.park(False)
        return True

    def bury(self, round: int) -> None:
        """Take those off the list whose file was closed; those of a round were just looked at."""
        if not self.silent:
            return
        with self.lock:
            ready = [
                item.kevent
                for item in self.ready
                if item.kevent in self.silent and not 0 < round <= item.kevent.round
            ]
        for kevent in ready:
            kevent.notice_close()

    # Leaving the list

    def claim_locked(self, item: Item) -> None:
        """Take an item for oneself."""
        kevent = item.kevent
        del self.ready[item]
        item.claimed = True
        kevent.claims += 1
        self.claims += 1
        if item is kevent.item:
            kevent.state &= ~READY

    def unclaim_locked(self, item: Item) -> bool:
        """Give up a claim; whether the kevent lives on."""
        kevent = item.kevent
        item.claimed = item.offered = False
        kevent.claims -= 1
        self.claims -= 1
        return not kevent.state & (REMOVED | DEAD)

    def put_back_locked(self, item: Item) -> None:
        """To the head of the list, as if it had never been claimed."""
        kevent = item.kevent
        own = item is kevent.item
        outdated = _is_outdated(item)
        if not self.unclaim_locked(item):
            return
        if not kevent.claims:
            kevent.state &= ~MODIFIED
        if own:
            kevent.state &= ~AGAIN
        if outdated or kevent.state & ASLEEP:
            return
        self.ready[item] = None
        self.ready.move_to_end(item, last=False)
        if own:
            kevent.state |= READY

    def put_back_all_locked(self, items: list[Item]) -> None:
        """The same for several, which keep their order."""
        for item in reversed(items):
            self.put_back_locked(item)
        items.clear()

    def is_empty(self) -> bool:
        """Whether a WAIT that does not wait has nothing to look at.

        What others have claimed and put back may be news to nobody: those who poll are told once
        more.
        """
        if self.ready:
            return False
        with self.lock:
            empty = not self.ready
            if empty and self.claims:
                self.missed = True
        return empty

    def missed_locked(self) -> bool:
        """Whether there was nothing because all was claimed, and now there is."""
        if not self.missed or not self.ready:
            return False
        self.missed = False
        return True

    def stale_locked(self, item: Item, gone: bool) -> None:
        """A condition that did not hold any more; perhaps because of a close."""
        kevent = item.kevent
        again = kevent.state & (AGAIN | BROKEN)
        kevent.state &= ~(AGAIN | MODIFIED)
        if not self.unclaim_locked(item):
            return
        if gone and not again & BROKEN:
            self.kill_locked(kevent)
        elif again and self.ready_locked(kevent):
            self.missed = True

    def settle(self, wanted: int, depth: int, good: list[Item]) -> bool:
        """Drop what does not hold any more from the list, until @wanted are known to hold.

        Those stay claimed, in @good, where there are as many, and else go back.  With a @depth
        it is somebody who polls the queue that asks, at that depth of nesting.
        """
        found = 0
        with self.lock:
            turns = len(self.ready)
        while found < wanted and turns:
            turns -= 1
            with self.lock:
                if not self.ready:
                    break
                item = next(iter(self.ready))
                kevent = item.kevent
                self.claim_locked(item)
                ask = kevent.condition and not kevent.state & BROKEN
            holds, gone = True, False
            try:
                if ask:
                    holds = kevent.poll_as_polled(depth) if depth else bool(kevent.poll(None))
                    gone = not holds and kevent.gone()
            except Exception:
                _log.exception("a %s kevent cannot be asked", kevent.name)
                holds = False
            if holds:
                good.append(item)
                found += 1
            else:
                with self.lock:
                    self.stale_locked(item, gone)
        with self.lock:
            if found < wanted or depth:
                self.put_back_all_locked(good)
            # Others may have gone to sleep over what was claimed meanwhile.
            if self.ready:
                self.wake_one_locked()
            missed = self.missed_locked()
            if depth and not found and self.claims:
                self.missed = True
        if missed:
            self.poked()
        return found >= wanted

    def has_ready(self, depth: int) -> bool:
        """Whether a WAIT would find something, for who polls the queue."""
        if not self.ready and not self.claims:
            return False
        return self.settle(1, depth, [])

    # Waiting

    def wait(
        self, waiter: Waiter, remaining: Callable[[], float] | None, interrupted: Callable[[], bool]
    ) -> str:
        """Sleep until enough may be ready: "", or "time" or "signal" where that ended it.

        @remaining says how many seconds are left, None that there is no end.
        """
        minimum = waiter.minimum
        while True:
            with self.lock:
                if interrupted():
                    ended = "signal"
                elif remaining is not None and remaining() <= 0:
                    ended = "time"
                elif len(self.ready) >= minimum:
                    ended = ""
                else:
                    # Also if woken for events that somebody else took first.
                    self.waiters[waiter] = None
                    ended = "no"
                if ended != "no":
                    self.waiters.pop(waiter, None)
                    return ended
            waiter.sleep(-1 if remaining is None else max(remaining(), 0))


def _is_outdated(item: Item) -> bool:
    """Claimed for something that a MODIFY since then has put an end to."""
    kevent = item.kevent
    return item is kevent.item and kevent.state & (MODIFIED | AGAIN | BROKEN) == MODIFIED


class Delivery:
    """One call's worth of events on their way out."""

    def __init__(self, queue: ReadyList) -> None:
        self.queue = queue
        self.claimed: list[Item] = []
        self.round = 0
        self.again = False
        self.more = False
        self.batch: list[tuple[Event, Item]] = []

    def claim(self, minimum: int) -> bool:
        """Claim that many at once, to be delivered first; whether there were as many."""
        return self.queue.settle(minimum, 0, self.claimed)

    def _take_locked(self) -> Item | None:
        queue = self.queue
        while self.claimed:
            item = self.claimed.pop(0)
            if not _is_outdated(item):
                return item
            queue.put_back_locked(item)
        if not queue.ready:
            return None
        item = next(iter(queue.ready))
        # Dealt with by this call or a later one, as is all that follows.
        if item.kevent.round >= self.round and item is item.kevent.item:
            return None
        queue.claim_locked(item)
        return item

    @staticmethod
    def _fill_locked(item: Item) -> Event:
        kevent = item.kevent
        flags = _EVENT_LAST if kevent.flags & ONESHOT else 0
        event = Event(kevent.cookie, kevent.ident, 0, 1, 0, kevent.type, flags, b"")
        item.offered = True
        if kevent.state & BROKEN and item is kevent.item:
            event.flags = _EVENT_BROKEN | _EVENT_LAST
        elif not kevent.condition:
            kevent.peek(item, event)
        return event

    def next(self, maximum: int) -> list[Event]:
        """Claim a batch of at most so many events; none where nothing is ready.

        `done` has to be called before the next one.
        """
        queue = self.queue
        maximum = min(maximum, BATCH)
        while True:
            batch: list[tuple[Event, Item]] = []
            with queue.lock:
                if not self.round:
                    queue.round += 1
                    self.round = queue.round
                while len(batch) < maximum:
                    item = self._take_locked()
                    if item is None:
                        break
                    batch.append((self._fill_locked(item), item))
            self.more = len(batch) == maximum
            if not batch:
                return []
            self.batch = [entry for entry in batch if self._holds(*entry)]
            if self.batch:
                return [event for event, _ in self.batch]

    def _holds(self, event: Event, item: Item) -> bool:
        """Ask the source whose events are a condition; drop what does not hold."""
        kevent = item.kevent
        if not kevent.condition or event.flags & _EVENT_BROKEN:
            return True
        try:
            event.events = kevent.poll(event)
        except Exception:
            # One source must not take the events of the others with it.
            _log.exception("a %s kevent cannot be asked", kevent.name)
            event.events = 0
        if event.events:
            return True
        gone = kevent.gone()
        with self.queue.lock:
            kevent.round = self.round
            self.queue.stale_locked(item, gone)
        return False

    def done(self, number: int) -> None:
        """So many of the batch were handed over; the others stay queued, in their order."""
        with self.queue.lock:
            for event, item in self.batch[:number]:
                self._delivered_locked(event, item)
            self.claimed[:0] = [item for _, item in self.batch[number:]]
        self.batch = []

    def _delivered_locked(self, event: Event, item: Item) -> None:
        queue, kevent = self.queue, item.kevent
        alive = queue.unclaim_locked(item)
        if item is not kevent.item:
            kevent.consume(item, event)
            if alive:
                self._used_up_locked(kevent)
            return
        if not alive:
            return
        if event.flags & _EVENT_BROKEN:
            queue.kill_locked(kevent)
            return
        if not kevent.condition:
            kevent.state &= ~AGAIN
        if (not kevent.condition or kevent.counts) and kevent.consume(item, event):
            kevent.state |= AGAIN
        kevent.round = self.round
        self._requeue_locked(kevent, kevent.state)

    def _used_up_locked(self, kevent: Kevent) -> None:
        """One of many occurrences was delivered."""
        if kevent.state & MODIFIED:
            if not kevent.claims:
                kevent.state &= ~MODIFIED
            kevent.park(False)
        elif kevent.flags & ONESHOT:
            self.queue.kill_locked(kevent)
        elif kevent.flags & DISPATCH and not kevent.state & BROKEN:
            kevent.state |= ASLEEP

    def _requeue_locked(self, kevent: Kevent, state: int) -> None:
        """What becomes of a kevent whose own item was delivered."""
        fresh = state & (AGAIN | BROKEN)
        kevent.state &= ~(AGAIN | MODIFIED)
        if not state & MODIFIED:
            if kevent.flags & ONESHOT:
                self.queue.kill_locked(kevent)
                return
            # A close since then is still to be told.
            if kevent.flags & DISPATCH and not state & BROKEN:
                kevent.state |= ASLEEP
        if kevent.state & ASLEEP:
            return
        if not fresh and (not kevent.condition or kevent.counts or kevent.flags & EDGE):
            return
        if fresh:
            self.again = True
        kevent.state |= READY
        self.queue.ready[kevent.item] = None

    def end(self, put: int) -> int:
        """Finish; whoever leaves with work still queued passes the wake-up on.

        Of the last batch @put were delivered.  Returns how many events are ready now.
        """
        queue = self.queue
        with queue.lock:
            queue.put_back_all_locked(self.claimed)
        queue.bury(self.round)
        with queue.lock:
            if queue.ready and queue.waiters:
                queue.wake_one_locked()
            left = len(queue.ready)
            # What others had claimed may have come back after we looked.
            if not put and (queue.ready or queue.claims):
                queue.missed = True
            missed = queue.missed_locked()
        if missed or self.again:
            queue.poked()
        return left
