"""
What the kernel says of processes: identities that survive pid reuse, trees, signals.

Standard library only and cheap to import: the supervisor loads it too. A process is named by
(pid, start time, boot id, pid namespace); a pid alone proves nothing. A zombie keeps its start
time, so the state letter counts; but a process whose first thread has ended looks like a
zombie while its other threads go on.
"""

import os
import signal
import time
from collections.abc import Iterable
from functools import cache
from typing import Final, NamedTuple

_SMALL: Final = 8192


class Stat(NamedTuple):
    state: str
    parent: int
    session: int
    began: int
    """Kernel ticks since boot."""


class Identity(NamedTuple):
    """A supervisor and its command, as the name `go` records them."""

    supervisor: int
    supervisor_began: int
    child: int
    child_began: int
    boot: str
    namespace: int
    group: str | None
    """The execution's cgroup."""


@cache
def boot_id() -> str:
    """Return the kernel's random name of this boot."""
    return read_small("/proc/sys/kernel/random/boot_id").decode().strip()


@cache
def pid_namespace() -> int:
    """Return the inode of our pid namespace; pids of another one mean nothing to us."""
    return os.stat("/proc/self/ns/pid").st_ino


def now_cs() -> int:
    """Return 1/100 s since boot, suspend included."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * 100)


def read_small(path: str) -> bytes:
    """Read a file of the kernel's, in one go."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, _SMALL)
    finally:
        os.close(handle)


def stat(pid: int) -> Stat | None:
    """Look at a process; None if there is none. A comm may hold blanks and brackets."""
    try:
        text = read_small(f"/proc/{pid}/stat")
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split(None, 20)
    return Stat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def lives(pid: int, began: int) -> bool:
    """Tell whether exactly this process runs; a zombie does not."""
    seen = stat(pid)
    return seen is not None and seen.began == began and _counts(pid, seen)


def _counts(pid: int, seen: Stat) -> bool:
    if seen.state == "X":
        return False
    if seen.state != "Z":
        return True
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def table() -> dict[int, Stat]:
    """Look at all living processes."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            pid = int(name)
            seen = stat(pid)
            if seen is not None and _counts(pid, seen):
                found[pid] = seen
    return found


def below(roots: Iterable[int], processes: dict[int, Stat]) -> set[int]:
    """Return the descendants of `roots`, without the roots."""
    children: dict[int, list[int]] = {}
    for pid, seen in processes.items():
        children.setdefault(seen.parent, []).append(pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in found:
                found.add(pid)
                queue.append(pid)
    return found


def session_members(leader: int, began: int) -> set[int]:
    """
    Return who is left of the session that `leader` led, with descendants.

    A number stays taken while its session has a member: if it now belongs to a younger
    process, our session is gone.
    """
    processes = table()
    if leader in processes and processes[leader].began != began:
        return set()
    seen = stat(leader)
    if seen is not None and seen.began != began:
        return set()
    members = {pid for pid, one in processes.items() if one.session == leader}
    return members | below(members, processes)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send one signal to each; who is gone already is fine."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
