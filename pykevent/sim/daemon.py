# SPDX-License-Identifier: GPL-2.0-or-later
"""The process around a simulator: its signals, its limits, its end."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pykevent import mounts
from pykevent.home import Home
from pykevent.sim import mount
from pykevent.sim.account import Limits

if TYPE_CHECKING:
    from pykevent.sim.server import Server

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STACK = 1 << 20
_SWITCH = 0.001  # seconds until a busy thread has to let another one run
_DESCRIPTORS = 1 << 20
_SPARE = 8

FIRST_USE = 30.0
"""Seconds in which somebody has to open the device of a simulator that is to end when unused."""
LINGER = 1.0
"""Seconds that such a one waits for the next user."""
GRACE = 2.0
"""Seconds that calls which are woken have to return."""


@dataclass
class Options:
    """How a simulator is to be run.

    `log` is a file for its complaints.  `at_home` says that the mount point is in a folder made for
    this simulator, see `pykevent.home`, which it holds, and takes away at its end.
    """

    mountpoint: str
    until_unused: bool = False
    allow_other: bool = False
    limits: Limits = field(default_factory=Limits)
    log: str | None = None
    at_home: bool = False

    def __post_init__(self) -> None:
        # The working directory is going to be another.
        self.mountpoint = os.path.abspath(self.mountpoint)
        if self.log is not None:
            self.log = os.path.abspath(self.log)

    @property
    def device(self) -> str:
        """What is going to be served."""
        return os.path.join(self.mountpoint, "kevent")


class Daemon:
    """One simulator, which is this process."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._mountpoint = options.mountpoint
        self._home: Home | None = None
        self._server: Server | None = None
        self._made = False
        self._use = threading.Event()
        self._stopping = threading.Lock()
        self._cleaning = threading.Lock()
        self._spare: list[int] = []
        """Descriptors that the end takes, where clients have used up all others."""

    def run(self, ready: ReadyCall) -> int:
        """Serve until the end; returns the exit status.  CannotMountError where it cannot."""
        lacking = mount.missing()
        if lacking:
            raise mount.CannotMountError("\n".join(lacking))
        if self._options.allow_other:
            mount.check_allow_other()
        if self._options.at_home:
            self._home = _hold(self._mountpoint)
        self._made = mount.prepare(self._mountpoint)
        _raise_limits()
        self._spare = [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(_SPARE)]
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

        found = mount.find_fusermount()

        def is_ready() -> None:
            found.close()  # it is mounted
            if self._options.until_unused:
                threading.Thread(target=self._await_unused, daemon=True).start()
            ready()

        everybody = {"allow_other": True} if self._options.allow_other or not os.geteuid() else {}
        with found:
            Server(
                System(self._options.limits),
                self._mountpoint,
                begins,
                is_ready,
                self._use.set,
                **everybody,
            )

    def _clean_up(self) -> None:
        # Unmounting ends what the main thread does, which must not end the process before all
        # is done that is to be done here.
        with self._cleaning:
            while self._spare:
                os.close(self._spare.pop())
            mounts.unmount(self._mountpoint)
            if self._home is not None:
                self._home.remove()
            elif self._made or self._options.until_unused:
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
    """Tells whoever started the simulator that it can be used; its complaints go to `log` then."""

    def __init__(self, log: str | None = None) -> None:
        self._log = -1 if log is None else _open_log(log)

    def __call__(self) -> None:
        """It can."""
        if self._log >= 0:
            os.dup2(self._log, 2)


class _Printed(ReadyCall):
    def __init__(self, options: Options) -> None:
        super().__init__(options.log)
        self._device = options.device

    def __call__(self) -> None:
        print(f"serving {self._device}; {_to_use(self._device)}", flush=True)
        super().__call__()


class _Piped(ReadyCall):
    def __init__(self, options: Options, pipe: int) -> None:
        super().__init__(options.log)
        self._pipe = pipe

    def __call__(self) -> None:
        """Nobody listens to this process any more."""
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.close(null)
        super().__call__()
        os.write(self._pipe, b"1")
        os.close(self._pipe)


def _to_use(device: str) -> str:
    return f"to use it: export KEVENT_DEVICE={shlex.quote(device)}"


def _open_log(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise mount.CannotMountError(f"{path}: {error.strerror}") from None


def _hold(mountpoint: str) -> Home:
    try:
        return Home.of(mountpoint)
    except OSError as error:
        raise mount.CannotMountError(f"{mountpoint}: its lock: {error.strerror}") from None


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
    """Serve in this process, which ends with that; returns where it cannot be done."""
    try:
        status = Daemon(options).run(_Printed(options))
    except mount.CannotMountError as error:
        return _complain(error)
    # Threads of libfuse's may still be about to end, which tell the interpreter so.
    os._exit(status)


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
            status = Daemon(options).run(_Piped(options, writer))
        except mount.CannotMountError as error:
            _complain(error)
        finally:
            os._exit(status)
    os.close(writer)
    answer = os.read(reader, 1)
    os.close(reader)
    if answer:
        print(f"serving {options.device}, process {child}; {_to_use(options.device)}", flush=True)
        return 0
    os.waitpid(child, 0)
    return 1
