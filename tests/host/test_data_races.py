# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose a data race is, by the reports of KCSAN."""

from __future__ import annotations

import pytest
from runner.klog import complaints

SYSCALL = ("__x64_sys_ioctl", "x64_sys_call", "do_syscall_64", "entry_SYSCALL_64_after_hwframe")
# From a function of ours to the one that a system call comes by.
WAIT = ("kevent_deliver [kevent]", "kevent_ioctl [kevent]", *SYSCALL)
POST = ("kevent_post [kevent]", "kevent_ioctl [kevent]", *SYSCALL)
TICK = ("tick_nohz_handler", "__hrtimer_run_queues", "hrtimer_interrupt")
INTERRUPT = ("__sysvec_apic_timer_interrupt", "asm_sysvec_apic_timer_interrupt")
IDLE = ("do_idle", "cpu_startup_entry", "start_secondary", "common_startup_64")


def frames(stack: tuple[str, ...]) -> list[str]:
    split = (function.partition(" ") for function in stack)
    return [f" {name}+0x1d/0x180{space}{module}" for name, space, module in split]


def report(*stacks: tuple[str, ...], kind: str = "data-race") -> list[str]:
    """What the kernel writes of accesses with these *stacks*; of one alone, nobody knows
    with whom it raced.
    """
    ways = ["write", "read"] if len(stacks) > 1 else ["race at unknown origin, with read"]
    names = [stack[0] for stack in stacks] if len(stacks) > 1 else [frames(stacks[0])[0].strip()]
    lines = ["=" * 66, f"BUG: KCSAN: {kind} in {' / '.join(names)}"]
    for way, stack in zip(ways, stacks, strict=True):
        lines += ["", f"{way} to 0xffff888000c4e410 of 8 bytes by task 145 on cpu 0:"]
        lines += frames(stack)
    lines += [
        "",
        "value changed: 0x00000001 -> 0x00000000",
        "",
        "Reported by Kernel Concurrency Sanitizer on:",
        "CPU: 1 UID: 0 PID: 151 Comm: delivery Tainted: G           O     N 6.12.117-kcsan #1 ",
        "Tainted: [O]=OOT_MODULE, [N]=TEST",
        "=" * 66,
    ]
    return [f"[   17.775038] {line}" for line in lines]


IN_OURS = report(("kevent_claim_locked [kevent]", *WAIT), ("kevent_user_post [kevent]", *POST))
OURS_AND_THEIRS = report(("kevent_claim_locked [kevent]", *WAIT), ("fsnotify", "vfs_write"))
IN_A_TREE = report(("rb_erase", "kevent_destroy [kevent]", *POST), ("rb_next", "vfs_write"))
IN_A_LIST = report(
    ("__list_del_entry_valid_or_report", "kevent_claim_locked [kevent]", *WAIT),
    ("__list_add_valid_or_report", "kevent_ready_locked [kevent]", *POST),
)
IN_A_WAIT_QUEUE = report(
    ("__list_add_valid_or_report", "add_wait_queue", "ep_ptable_queue_proc", *SYSCALL),
    ("__list_del_entry_valid_or_report", "remove_wait_queue", "kevent_unhook [kevent]", *POST),
)
IN_A_COPY = report(("fsnotify", "vfs_write"), ("memcpy", "kevent_inode_merge [kevent]"))
OF_A_PART = report(("rb_insert_color.part.0", "kevent_insert [kevent]"), ("rb_first",))
OF_UNKNOWN_ORIGIN = report(("rb_next", "kevent_show [kevent]", "seq_show", *SYSCALL))
FREED_IN_USE = report(
    ("kmem_cache_free", "kevent_free [kevent]", *POST),
    ("__wake_up_common", "__wake_up_locked_key", "eventfd_write", "vfs_write"),
    kind="assert: race",
)


def title(lines: list[str]) -> str:
    return lines[1]


@pytest.mark.parametrize("lines", [IN_OURS, OURS_AND_THEIRS])
def test_a_race_that_names_the_module_is_ours(lines: list[str]) -> None:
    assert complaints(lines) == [title(lines)]


@pytest.mark.parametrize(
    ("lines", "who"),
    [
        (IN_A_TREE, ["kevent_destroy"]),
        (IN_A_LIST, ["kevent_claim_locked", "kevent_ready_locked"]),
        (IN_A_WAIT_QUEUE, ["kevent_unhook"]),
        (IN_A_COPY, ["kevent_inode_merge"]),
        (OF_A_PART, ["kevent_insert"]),
        (OF_UNKNOWN_ORIGIN, ["kevent_show"]),
        (FREED_IN_USE, ["kevent_free"]),
    ],
    ids=["tree", "list", "wait queue", "copy", "part", "unknown origin", "free"],
)
def test_a_race_inside_of_what_handles_our_memory_is_ours(lines: list[str], who: list[str]) -> None:
    said = complaints(lines)
    assert said[0] == title(lines)
    assert [line.split()[-2].partition("+")[0] for line in said[1:]] == who


@pytest.mark.parametrize(
    "lines",
    [
        # The scheduler, RCU and timers have memory of their own, whoever calls them.
        report(("try_to_wake_up", "wake_up_process", *WAIT), ("schedule", *WAIT)),
        report(("__rcu_read_unlock", *POST), ("rcu_sched_clock_irq", *TICK, *INTERRUPT, *IDLE)),
        report(("__hrtimer_run_queues", *INTERRUPT), ("hrtimer_start_range_ns", *WAIT)),
        # An interrupt's stack goes on with what it interrupted.
        report((*TICK, *INTERRUPT, "__tsan_read4", *WAIT), ("tick_nohz_idle_got_tick", *IDLE)),
        # A list of the kernel's, in a function of the kernel's that we call.
        report(
            ("__list_add_valid_or_report", "list_lru_add", "iput", "kevent_free [kevent]"),
            ("__list_del_entry_valid_or_report", "list_lru_walk_one", "kswapd"),
        ),
        # Freeing is an access only where the kernel asserts that it is the last.
        report(("kmem_cache_free", "kevent_free [kevent]"), ("___slab_alloc", "vfs_write")),
        report(("fsnotify", "vfs_write"), ("fsnotify_detach_mark", "fsnotify_destroy_mark")),
        report(("rb_next", "rb_first")),
    ],
    ids=["scheduler", "RCU", "timer", "interrupt", "list", "slab", "marks", "nobody"],
)
def test_a_race_of_the_kernels_is_not(lines: list[str]) -> None:
    assert complaints(lines) == []


def test_a_report_ends_where_the_next_one_begins() -> None:
    theirs = report(("rb_erase", "timerqueue_del"), ("rb_next", "timerqueue_add"))
    assert complaints([*theirs, *IN_A_TREE, *theirs])[0] == title(IN_A_TREE)
    # Cut off in the middle, as by a panic, it still says whose it is.
    assert complaints([*theirs[:8], *IN_OURS[:2]]) == [title(IN_OURS)]
    assert complaints([*theirs[:4], *IN_A_TREE[:6]])[1:] == [IN_A_TREE[5]]


def test_other_complaints_stay_between_reports() -> None:
    warning = "[    9.1] WARNING: CPU: 1 PID: 293 at kmod/queue.c:15 f+0x3d/0x60 [kevent]"
    theirs = report(("fsnotify", "vfs_write"), ("fsnotify_detach_mark", "fsnotify_destroy_mark"))
    assert complaints([*theirs, warning, *IN_OURS]) == [warning, title(IN_OURS)]
