# SPDX-License-Identifier: GPL-2.0-or-later
"""A selector for `selectors` and asyncio, on top of one queue.

Use it as ``asyncio.SelectorEventLoop(KeventSelector())``.
"""

import contextlib
import errno
import os
import selectors
import stat
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pykevent.abi import MAX_RECORDS, EventType, Feature, PollEvents, SocketEvents
from pykevent.queue import Queue
from pykevent.requests import FileLike, Request, descriptor_of

_ALL = selectors.EVENT_READ | selectors.EVENT_WRITE

# A listening socket reports ACCEPT and never RECV, others the reverse: asking for both is right
# for either.  The remaining bits are those of <poll.h>.
_READ = {EventType.SOCKET: SocketEvents.RECV | SocketEvents.ACCEPT, EventType.POLL: PollEvents.IN}
_WRITE = {EventType.SOCKET: SocketEvents.SEND, EventType.POLL: PollEvents.OUT}


class _Map(Mapping[FileLike, selectors.SelectorKey]):
    """File objects, or descriptors, to keys: a view of a selector's registrations."""

    def __init__(self, keys: dict[int, selectors.SelectorKey]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, fileobj: FileLike) -> selectors.SelectorKey:
        fd = _lookup(self._keys, fileobj)
        if fd not in self._keys:
            raise KeyError(f"{fileobj!r} is not registered")
        return self._keys[fd]

    def __iter__(self) -> Iterator[FileLike]:
        return iter(self._keys)


def _descriptor(fileobj: FileLike) -> int:
    try:
        return descriptor_of(fileobj)
    except TypeError as error:
        # What the selectors of the standard library raise.
        raise ValueError(f"Invalid file object: {fileobj!r}") from error


def _lookup(keys: dict[int, selectors.SelectorKey], fileobj: FileLike) -> int:
    """The descriptor under which `fileobj` is registered, also where it was closed since."""
    try:
        return _descriptor(fileobj)
    except ValueError:
        for key in keys.values():
            if key.fileobj is fileobj:
                return key.fd
        raise


class KeventSelector(selectors.BaseSelector):
    """A `selectors.BaseSelector` whose registrations are level kevents of one queue.

    Sockets are watched as SOCKET, other files as POLL; a regular file raises PermissionError as
    with epoll.  A file that was closed before it is unregistered does no harm, even where another
    process still holds it.
    """

    def __init__(self, queue: Queue | None = None) -> None:
        """Use `queue`, which is then the selector's own, or open one, see `pykevent.open`.

        Nothing else may be added to `queue`: `select` would use up its events.  Open a queue of
        your own for transfers and the like, and register that.
        """
        self._queue = Queue() if queue is None else queue
        self._features = self._queue.info().features
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._kinds: dict[int, EventType] = {}
        self._map: _Map | None = _Map(self._keys)

    def fileno(self) -> int:
        """The queue's descriptor; ValueError once closed."""
        return self._queue.fileno()

    def register(self, fileobj: FileLike, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch `fileobj` for EVENT_READ, EVENT_WRITE or both; ioctl ADD.

        Raises ValueError for other events or no descriptor, KeyError if it is registered, OSError
        as `Queue.add`.
        """
        fd = _descriptor(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        kind = self._kind(fd)
        self._queue.add(_request(kind, fd, events))
        self._kinds[fd] = kind
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self._keys[fd] = key
        return key

    def unregister(self, fileobj: FileLike) -> selectors.SelectorKey:
        """Stop watching, also where it was closed since; KeyError if it is not registered."""
        fd = _lookup(self._keys, fileobj)
        if fd not in self._keys:
            raise KeyError(f"{fileobj!r} is not registered")
        key = self._keys.pop(fd)
        kind = self._kinds.pop(fd)
        try:
            self._queue.remove(kind, fd)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOENT):
                raise
            # Closed since, and its kevent with it, unless somebody else holds the file.
            with contextlib.suppress(OSError):
                self._queue.remove(kind, fd, stale=True)
        return key

    def modify(self, fileobj: FileLike, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change what is watched for, or the data alone; ioctl MODIFY.

        Raises as `register`, KeyError if it is not registered.  A registration that can no longer
        be watched is dropped.
        """
        fd = _lookup(self._keys, fileobj)
        if fd not in self._keys:
            raise KeyError(f"{fileobj!r} is not registered")
        key = self._keys[fd]
        if events != key.events:
            request = _request(self._kinds[fd], fd, events)
            try:
                self._queue.modify(request)
            except OSError:
                self.unregister(fd)
                raise
        key = key._replace(events=events, data=data)
        self._keys[fd] = key
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait; returns (key, ready events) for each file that is ready; ioctl WAIT.

        `timeout` in seconds: None waits for ever, 0 and less not at all.  Files beyond the 510
        that one call returns are fetched by further ones.
        """
        found: dict[int, int] = {}
        events = self._queue.wait(timeout, max=MAX_RECORDS)
        while events:
            before = len(found)
            for event in events:
                # Of another type it is none of this selector's.
                if event.type == self._kinds.get(event.ident):
                    found[event.ident] = event.events
            # A level event goes to the end of the ready list: what was not returned yet comes
            # first, and a call that brings nothing new has been all around.
            if len(events) < MAX_RECORDS or len(found) == before:
                break
            events = self._queue.wait(0, max=MAX_RECORDS)
        ready = []
        for fd, mask in found.items():
            key = self._keys.get(fd)
            kind = self._kinds.get(fd)
            if key is None or kind is None:
                continue  # Unregistered by another thread meanwhile.
            # Whoever waits to write must also hear of an error, and whoever waits to read.
            seen = 0
            if mask & ~_WRITE[kind]:
                seen |= selectors.EVENT_READ
            if mask & ~_READ[kind]:
                seen |= selectors.EVENT_WRITE
            if seen & key.events:
                ready.append((key, seen & key.events))
        return ready

    def close(self) -> None:
        """Close the queue and forget every registration."""
        self._queue.close()
        self._keys.clear()
        self._kinds.clear()
        self._map = None

    def get_map(self) -> Mapping[FileLike, selectors.SelectorKey]:
        """File objects and descriptors to keys; None once closed, as get_key() relies on."""
        return cast(Mapping[FileLike, selectors.SelectorKey], self._map)

    def _kind(self, fd: int) -> EventType:
        if Feature.SOCKET in self._features and stat.S_ISSOCK(os.fstat(fd).st_mode):
            return EventType.SOCKET
        return EventType.POLL


def _request(kind: EventType, fd: int, events: int) -> Request:
    if not events or events & ~_ALL:
        raise ValueError(f"Invalid events: {events!r}")
    mask = 0
    if events & selectors.EVENT_READ:
        mask |= _READ[kind]
    if events & selectors.EVENT_WRITE:
        mask |= _WRITE[kind]
    return Request(kind, fd, mask)
