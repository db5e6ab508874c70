"""
A container's control groups, seen and used from the host.

A container is a control group to the kernel. Inside of it every execution gets a group of its
own (``lh-<id>``), which only the host can write to: what a command starts is born there and
cannot leave, whatever sessions it makes. So the tree of one command can be listed, signalled
and seen gone from the host, by `cgroup.procs`, without asking the engine and without running
anything inside, where a hostile command could fight it.

On version 2 that is a child of the container's group, without controllers of its own, so that
the limits stay where the engine put them. On version 1 the freezer's hierarchy is taken: the
engine uses it, and it counts nothing.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

from leasehold.provider import UnavailableError

_PREFIX: Final = "lh-"


@dataclass(frozen=True, slots=True)
class Groups:
    tree: str
    """Where the container's processes are, and the executions' groups are made."""

    memory: str
    """A file with a line ``oom_kill N``; empty if there is none."""


@cache
def _mounts() -> dict[str, str]:
    """Return where the hierarchies are mounted: version 1 by controller, version 2 as ""."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            where, kind = left.split()[4], right.split()[0]
            if kind == "cgroup2":
                found.setdefault("", where)
            elif kind == "cgroup":
                for option in right.split()[2].split(","):
                    found.setdefault(option, where)
    return found


def of_process(pid: int) -> Groups:
    """
    Find the groups of the container whose first process has this number on this host.

    Raises:
        UnavailableError: They cannot be seen from here: the worker is not on the engine's host.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError as error:
        raise UnavailableError(f"process {pid} of the engine is not on this host") from error
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    mounts = _mounts()
    for kind, events in (("freezer", "memory.oom_control"), ("", "memory.events")):
        path = paths.get(kind, "/")
        if path == "/" or kind not in mounts:
            continue
        tree = mounts[kind] + path
        memory = tree if kind == "" else mounts.get("memory", "") + paths.get("memory", "")
        if os.access(f"{tree}/cgroup.procs", os.W_OK):
            counter = f"{memory}/{events}"
            return Groups(tree, counter if os.access(counter, os.R_OK) else "")
    raise UnavailableError("the container's control groups cannot be written from here")


def processes(group: str) -> list[int]:
    """Return the members of a group; none if it is gone."""
    try:
        with open(f"{group}/cgroup.procs", encoding="ascii") as file:
            return [int(line) for line in file]
    except (FileNotFoundError, OSError):
        return []


def alive(groups: Groups | None) -> bool:
    """Tell, by the kernel alone, whether the container runs."""
    return groups is not None and bool(processes(groups.tree))


def make(groups: Groups, execution_id: str) -> str:
    """
    Make the execution's group, or find it.

    Raises:
        UnavailableError: The container has stopped meanwhile.
    """
    path = f"{groups.tree}/{_PREFIX}{execution_id}"
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"cannot make the group of {execution_id}: {error}") from error
    return path


def remove(groups: Groups, execution_id: str) -> None:
    """Remove the group of an execution that has ended; a living one refuses."""
    with suppress(OSError):
        os.rmdir(f"{groups.tree}/{_PREFIX}{execution_id}")


def execution_ids(groups: Groups) -> list[str]:
    """Return which executions have a group."""
    with suppress(FileNotFoundError):
        entries = os.listdir(groups.tree)
        return [name.removeprefix(_PREFIX) for name in entries if name.startswith(_PREFIX)]
    return []
