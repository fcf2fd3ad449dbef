# SPDX-License-Identifier: GPL-2.0-or-later
"""The process around a simulator: its signals, its limits, its end."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pykevent.sim import mount
from pykevent.sim.account import Limits

if TYPE_CHECKING:
    from pykevent.sim.server import Server

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STACK = 1 << 20
_SWITCH = 0.001  # seconds until a busy thread has to let another one run
_DESCRIPTORS = 1 << 20

FIRST_USE = 30.0
"""Seconds in which somebody has to open the device of a simulator that is to end when unused."""
LINGER = 1.0
"""Seconds that such a one waits for the next user."""
GRACE = 2.0
"""Seconds that calls which are woken have to return."""


@dataclass
class Options:
    """How a simulator is to be run."""

    mountpoint: str
    until_unused: bool = False
    allow_other: bool = False
    limits: Limits = field(default_factory=Limits)


class Daemon:
    """One simulator, which is this process."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._mountpoint = os.path.abspath(options.mountpoint)
        self._server: Server | None = None
        self._made = False
        self._use = threading.Event()
        self._stopping = threading.Lock()

    def run(self, ready: ReadyCall) -> int:
        """Serve until the end; returns the exit status.  CannotMountError where it cannot."""
        lacking = mount.missing()
        if lacking:
            raise mount.CannotMountError("\n".join(lacking))
        if self._options.allow_other:
            mount.check_allow_other()
        self._made = mount.prepare(self._mountpoint)
        _raise_limits()
        os.environ["FUSE_THREAD_STACK"] = str(_STACK)
        sys.setswitchinterval(_SWITCH)
        # From here on only the thread that waits for them sees these.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        threading.Thread(target=self._await_signal, daemon=True).start()
        try:
            self._serve(ready)
        except RuntimeError as error:
            self._clean_up()
            raise mount.CannotMountError(
                f"{self._mountpoint}: mounting failed ({error}); in a container it takes "
                "--cap-add SYS_ADMIN, and for other users than root a fusermount that is setuid"
            ) from None
        self._clean_up()
        return 0

    def _serve(self, ready: ReadyCall) -> None:
        from pykevent.sim.server import Server
        from pykevent.sim.system import System

        def begins(server: Server) -> None:
            self._server = server

        def is_ready() -> None:
            if self._options.until_unused:
                threading.Thread(target=self._await_unused, daemon=True).start()
            ready()

        everybody = {"allow_other": True} if self._options.allow_other or not os.geteuid() else {}
        Server(
            System(self._options.limits),
            self._mountpoint,
            begins,
            is_ready,
            self._use.set,
            **everybody,
        )

    def _clean_up(self) -> None:
        mount.unmount(self._mountpoint)
        if self._made or self._options.until_unused:
            with contextlib.suppress(OSError):
                os.rmdir(self._mountpoint)

    def _await_signal(self) -> None:
        signal.sigwait(_STOP)
        self._stop()

    def _stop(self) -> None:
        """The end, whoever still has a queue open."""
        with self._stopping:
            if self._server is not None:
                self._server.interrupts.stop()
            self._clean_up()
            end = time.monotonic() + GRACE
            while (
                self._server is not None
                and self._server.interrupts.waiting
                and time.monotonic() < end
            ):
                time.sleep(0.01)
            os._exit(0)

    def _await_unused(self) -> None:
        assert self._server is not None
        queues = self._server.system.queues
        self._use.wait(FIRST_USE)
        while True:
            if not queues:
                time.sleep(LINGER)
            if not queues:
                # Nobody can come any more; who just came may stay.
                self._clean_up()
                if not queues:
                    self._stop()
            self._use.clear()
            if queues:
                self._use.wait()


class ReadyCall:
    """Tells whoever started the simulator that it can be used."""

    def __call__(self) -> None:
        """It can."""


class _Printed(ReadyCall):
    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint

    def __call__(self) -> None:
        path = os.path.join(self._mountpoint, "kevent")
        print(f"serving {path}; to use it: export KEVENT_DEVICE={path}", flush=True)


class _Piped(ReadyCall):
    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def __call__(self) -> None:
        """Nobody listens to this process any more."""
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        os.write(self._pipe, b"1")
        os.close(self._pipe)


def _raise_limits() -> None:
    """A kevent of a file takes a descriptor of ours: have as many as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (max(hard, _DESCRIPTORS), hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return


def _complain(error: mount.CannotMountError) -> int:
    print(error, file=sys.stderr, flush=True)
    return 1


def foreground(options: Options) -> int:
    """Serve in this process."""
    try:
        return Daemon(options).run(_Printed(os.path.abspath(options.mountpoint)))
    except mount.CannotMountError as error:
        return _complain(error)


def background(options: Options) -> int:
    """Serve in a process of its own, and return when it can be used, or cannot."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            os.setsid()
            os.chdir("/")
            status = Daemon(options).run(_Piped(writer))
        except mount.CannotMountError as error:
            _complain(error)
        finally:
            os._exit(status)
    os.close(writer)
    answer = os.read(reader, 1)
    os.close(reader)
    if answer:
        return 0
    os.waitpid(child, 0)
    return 1
