# SPDX-License-Identifier: GPL-2.0-or-later
"""What in a kernel's log means that something is broken."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

# Also the lines of debug kernels: lockdep, KASAN, UBSAN, kmemleak, DEBUG_OBJECTS.
COMPLAINT = re.compile(
    r"""
      # The guest's first process, which is not the kernel, has warnings of its own.
      (?<!virtme-ng-init:\ )\bWARNING:
    | \bBUG\b
    | \bOops\b
    | Kernel\ panic
    | general\ protection
    | [Uu]nable\ to\ handle
    | \b(KASAN|KCSAN|KMSAN|KFENCE|UBSAN):
    | \bODEBUG:
    | refcount_t:
    | Busy\ inodes\ after\ unmount
    | unregister_netdevice:\ waiting
    | list_(add|del)\ corruption
    | possible\ (recursive\ locking|circular\ locking|irq\ lock|deadlock)
    | suspicious\ RCU\ usage
    | inconsistent\ lock\ state
    | trying\ to\ register\ non-static\ key
    | bad\ unlock\ balance
    | scheduling\ while\ atomic
    | sleeping\ function\ called
    | blocked\ for\ more\ than\ \d+\ seconds
    | (self-)?detected\ (expedited\ )?stalls?
    | rcu_\w+\ kthread\ (starved|timer\ wakeup)
    | soft\ lockup | hard\ LOCKUP
    | new\ suspected\ memory\ leaks
    | unreferenced\ object
    | Out\ of\ memory: | Memory\ cgroup\ out\ of\ memory:
    | workqueue:\ .*\ hogged\ CPU
    """,
    re.VERBOSE,
)

# Bits of /proc/sys/kernel/tainted that a healthy run leaves clear, and what
# sets them.  The unsigned module of ours sets others.
TAINTS = {5: "bad page", 7: "oops", 9: "warning", 14: "soft lockup"}


# Begins the lines that the tests themselves write: their names may say anything.
MARK = "kevent-test:"


# A report of KCSAN begins so, with the two functions that raced.  Those of the kernel
# race as well; only ours are for us.
DATA_RACE = re.compile(r"BUG: KCSAN: ")
OURS = "[kevent]"
# Each of its stacks begins so: "write to 0xffff888000c4e410 of 4 bytes by task 7 on cpu 0:"
ACCESS = re.compile(r" to 0x[0-9a-f]+ of \d+ bytes by .* on cpu \d+:$")
FRAME = re.compile(r"(?:^|\s)(?P<name>\w+)[.\w]*\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?$")
# No report is longer; behind this something else begins.
REPORT_LINES = 150

# What handles a tree, a list, a wait queue or bytes for its caller, who has to know that
# nobody else is there: a race inside is the caller's.  Nothing is in here that the
# kernel does for itself as well, as its scheduler, RCU and timers do below a WAIT.
HELPER = re.compile(
    r"""
      _*(rb|list|hlist|hlist_bl|llist|plist)_\w+
    | _*(add|remove)_wait_queue\w*
    | _*mem(cpy|move|set|cmp|chr|scan|dup)\w* | _*str\w*(len|cmp|cpy|chr|cat|str|dup)
    | _*(copy|strncpy)_(to|from|in)_(user|iter)\w* | _*copy_user\w* | _*clear_user\w*
    | _*find_\w*bit\w* | _*bitmap_\w+
    | _*(tsan|kcsan)_\w+
    """,
    re.VERBOSE,
)
# To free what somebody looks at is a race with the one who frees; KCSAN asserts so.
ASSERTION = re.compile(r"BUG: KCSAN: assert: ")
FREE = re.compile(r"_*(kfree|kvfree|kmem_cache_free)\w*")


def callers(title: str, below: Iterable[str]) -> list[str]:
    """The lines of who made the accesses of a data race, one for each stack of its report,
    which has *title* and the lines *below* it: the first that is no HELPER.
    """
    found: list[str] = []
    looking = False
    for line in below:
        if DATA_RACE.search(line) or "=====" in line:
            break
        if ACCESS.search(line):
            looking = True
        elif looking and (frame := FRAME.search(line)):
            name = frame["name"]
            if HELPER.fullmatch(name) or (ASSERTION.search(title) and FREE.fullmatch(name)):
                continue
            found.append(line)
            looking = False
    return found


def complaints(lines: Iterable[str]) -> list[str]:
    """Those of *lines* that no healthy kernel writes.  Of a data race they are the title
    and, where that does not say it, who of ours it was.
    """
    log = list(lines)
    found: list[str] = []
    for number, line in enumerate(log):
        if not COMPLAINT.search(line) or MARK in line:
            continue
        if not DATA_RACE.search(line):
            found.append(line)
            continue
        who = callers(line, log[number + 1 : number + 1 + REPORT_LINES])
        ours = [caller for caller in who if OURS in caller]
        if OURS in line:
            found.append(line)
        elif ours:
            found += [line, *ours]
    return found


def taints(mask: int) -> list[str]:
    """The names of the bits of *mask* that a healthy run leaves clear."""
    return [name for bit, name in TAINTS.items() if mask >> bit & 1]


class Kmsg:
    """The running kernel's own log, from now on, through /dev/kmsg.

    Raises OSError where the log cannot be read and written.
    """

    def __init__(self, path: Path = Path("/dev/kmsg")) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def close(self) -> None:
        """Stop reading."""
        os.close(self._fd)

    def mark(self, text: str) -> None:
        """Put a line of our own into the log."""
        os.write(self._fd, f"{MARK} {text}\n".encode())

    def lines(self) -> list[str]:
        """What was written since the last call, without the record headers."""
        found: list[str] = []
        while True:
            try:
                record = os.read(self._fd, 8192).decode("utf-8", "replace")
            except BlockingIOError:
                return found
            except BrokenPipeError:
                # Overwritten before we read it: what it said we cannot know.
                found.append("WARNING: lines of the kernel log were lost")
                continue
            found.append(record.partition(";")[2].partition("\n")[0])
