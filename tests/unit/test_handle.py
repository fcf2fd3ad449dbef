# SPDX-License-Identifier: GPL-2.0-or-later
"""A queue closed while threads wait in it, and a queue in a forked child."""

import os
import signal
import threading
import traceback
from collections.abc import Callable

import pytest
from fake_device import FakeDevice

import pykevent
from pykevent import EventType, Queue, abi
from pykevent.handle import Handle


class Waiter(threading.Thread):
    """A thread that waits once, and what came of it."""

    def __init__(self, queue: Queue, timeout: float | None = None, minimum: int = 1) -> None:
        super().__init__(daemon=True)
        self.wait: Callable[[], object] = lambda: queue.wait(timeout, min=minimum)
        self.outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.wait()
        except BaseException as error:
            self.outcome = error

    def ended(self) -> object:
        self.join(10)
        assert not self.is_alive(), "the thread still waits"
        return self.outcome


def is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def assert_closed_error(outcome: object) -> None:
    assert isinstance(outcome, ValueError)
    assert str(outcome) == "I/O operation on closed kevent queue"


def test_a_queue_whose_handle_went_first_makes_no_call(device: FakeDevice, queue: Queue) -> None:
    # The collector of cycles ends both in any order.
    fd = queue.fileno()
    queue._handle.__del__()
    assert is_closed(fd)
    assert queue.closed
    queue.close()
    assert device.last_calls() == []


# thread 1   thread 2   thread 3      close()
#  wait       wait       wait min=3     |
#    \__________\__________\____ all woken
@pytest.mark.parametrize(
    "features", [abi.Feature.SOCKET | abi.Feature.POLL, abi.Feature.SOCKET, abi.Feature.POLL]
)
def test_close_wakes_every_thread_that_waits(
    device: FakeDevice, queue: Queue, features: abi.Feature
) -> None:
    device.features = features
    waiters = [Waiter(queue), Waiter(queue, 60), Waiter(queue, minimum=3)]
    device.until_waiting(3)
    assert queue.info().kevents == 0
    fd = queue.fileno()
    queue.close()
    for waiter in waiters:
        assert_closed_error(waiter.ended())
    assert is_closed(fd)
    assert device.kevents == {}


def test_close_wakes_a_thread_in_change_and_wait(device: FakeDevice, queue: Queue) -> None:
    waiter = Waiter.__new__(Waiter)
    threading.Thread.__init__(waiter, daemon=True)
    changes = [pykevent.Change(pykevent.Op.ADD, pykevent.user_event(1))]
    waiter.wait = lambda: queue.change_and_wait(changes)
    waiter.start()
    device.until_waiting(1)
    queue.close()
    assert_closed_error(waiter.ended())


def test_the_descriptor_stays_open_until_the_last_call_has_returned() -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    handle = Handle(fd)
    assert [handle.enter(), handle.enter()] == [fd, fd]
    handle.close()
    with pytest.raises(ValueError, match="closed kevent queue"):
        handle.enter()
    handle.leave()
    assert not is_closed(fd)
    handle.leave()
    assert is_closed(fd)


def test_without_any_type_that_wakes_the_wait_ends_by_itself(
    device: FakeDevice, queue: Queue
) -> None:
    device.features = abi.Feature(0)
    waiter = Waiter(queue)
    device.until_waiting(1)
    fd = queue.fileno()
    with pytest.warns(RuntimeWarning, match="cannot be woken"):
        queue.close()
    assert not is_closed(fd)
    device.put(abi.EVENT.pack(1, 2, 0, 1, 1, EventType.TIMER, 0))
    assert isinstance(waiter.ended(), list)
    assert is_closed(fd)


def test_a_wait_that_is_over_asks_for_nothing(device: FakeDevice, queue: Queue) -> None:
    assert queue.wait(0.001, min=5) == []
    waiter = Waiter(queue)
    device.until_waiting(1)
    device.calls.clear()
    queue.close()
    assert_closed_error(waiter.ended())
    assert device.last_calls() == [abi.IOC_NR_ADD, abi.IOC_NR_REMOVE]


def test_a_handler_may_close_the_queue_in_the_middle_of_its_bookkeeping() -> None:
    handle = Handle(os.open("/dev/null", os.O_RDWR))

    def run() -> None:
        with handle._lock:
            handle.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert handle.closed


def test_a_full_queue_cannot_wake_and_says_so(device: FakeDevice, queue: Queue) -> None:
    device.max_queue = 0
    waiter = Waiter(queue)
    device.until_waiting(1)
    with pytest.warns(RuntimeWarning, match="No space left"):
        queue.close()
    device.put(abi.EVENT.pack(1, 2, 0, 1, 1, EventType.TIMER, 0))
    assert isinstance(waiter.ended(), list)


def test_events_that_come_with_the_close_are_not_lost(device: FakeDevice, queue: Queue) -> None:
    queue.add(pykevent.user_event(7))
    waiter = Waiter(queue, minimum=2)
    device.until_waiting(1)
    queue.post(7, 3)
    queue.close()
    events = waiter.ended()
    assert isinstance(events, list)
    assert [(event.ident, event.data) for event in events] == [(7, 3)]


def test_closing_with_nobody_waiting_adds_nothing(device: FakeDevice, queue: Queue) -> None:
    queue.close()
    assert device.calls == []


def test_adding_and_posting_while_another_thread_waits(device: FakeDevice, queue: Queue) -> None:
    waiter = Waiter(queue)
    device.until_waiting(1)
    queue.add(pykevent.user_event(7))
    queue.post(7)
    events = waiter.ended()
    assert isinstance(events, list)
    assert events[0].ident == 7


def test_a_signal_handler_may_close_the_queue_in_which_its_thread_sleeps(
    device: FakeDevice, queue: Queue
) -> None:
    old = signal.signal(signal.SIGUSR1, lambda *_: queue.close())
    main = threading.main_thread().ident
    assert main is not None

    done = threading.Event()

    def interrupt() -> None:
        device.until_waiting(1)
        # Once is not enough: a signal just before the thread sleeps does not end its sleep.
        while not done.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            done.wait(0.01)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(ValueError, match="closed kevent queue"):
            queue.wait()
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, old)
    assert device.kevents == {}


def in_child(check: Callable[[], None]) -> None:
    """Fork, run `check` in the child, and fail where it did."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(10)
            check()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_forked_child_sees_the_queue_closed_and_closes_its_own_descriptor_only(
    device: FakeDevice, queue: Queue
) -> None:
    queue.add(pykevent.user_event(7))
    fd = queue.fileno()
    device.calls.clear()

    def check() -> None:
        assert queue.closed
        assert is_closed(fd)
        with pytest.raises(ValueError, match="closed kevent queue"):
            queue.wait(0)
        queue.close()
        assert device.calls == []

    in_child(check)
    assert not queue.closed
    queue.post(7)
    assert [event.ident for event in queue.wait(0)] == [7]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_lock_that_another_thread_holds_at_the_fork_does_not_stop_the_child(
    device: FakeDevice, queue: Queue
) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with queue._handle._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    try:
        in_child(queue.close)
    finally:
        release.set()
        thread.join()
    assert queue.info().kevents == 0


def test_a_handler_that_forks_within_a_wait_leaves_both_in_order(
    device: FakeDevice, queue: Queue
) -> None:
    inherited = queue.fileno()
    children: list[int] = []
    device.interruptions = [lambda: children.append(os.fork())]
    status = 1
    try:
        assert queue.wait(0.001) == []
        assert children[0]
    except ValueError:
        # The child: its wait has found the queue closed, which is right.
        status = 0 if is_closed(inherited) and not children[0] else 1
    finally:
        if not children[0]:
            os._exit(status)
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not queue.closed


def test_a_child_may_use_a_duplicate(device: FakeDevice, queue: Queue) -> None:
    copy = os.dup(queue.fileno())

    def check() -> None:
        with Queue.fromfd(copy) as mine:
            assert mine.info().version == 1

    in_child(check)
    os.close(copy)


def test_the_kevent_that_wakes_is_no_event_of_an_open_queue(
    device: FakeDevice, queue: Queue
) -> None:
    reader, writer = os.pipe()
    queue.register(reader, pykevent.PollEvents.IN, cookie=2**64 - 1)
    os.write(writer, b"x")
    assert [event.type for event in queue.wait()] == [EventType.POLL]
    os.close(reader)
    os.close(writer)
