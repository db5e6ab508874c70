"""
Control groups: the fence around a process tree that no process can leave by itself.

Two uses. *Ending a tree* needs only a writable cgroup v2 directory with ``cgroup.kill`` (Linux
5.14); it works without any controller, also where the controllers are still v1. *Limits*
(memory, pids, cpu) need the controller, v2 or v1. What cannot be had is not offered.

Every sandbox has one directory per hierarchy, below ours; each execution has one below its
sandbox's in v2. Standard library only: the supervisor loads it too.

If we die after a mkdir: an empty directory stays until the sandbox is destroyed, which removes
whatever is below its own.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Final, NamedTuple

from leasehold_local.processes import read_small, send

_GONE = (FileNotFoundError, NotADirectoryError)
_ENODEV = 19
_TRIES = 20


def _mounts() -> Iterator[tuple[str, str, set[str]]]:
    """Yield (mount point, type, options) of each cgroup mount."""
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            left, _, right = line.decode(errors="surrogateescape").partition(" - ")
            kind, _, options = right.split()[:3]
            if kind in {"cgroup", "cgroup2"}:
                yield left.split()[4], kind, set(options.split(","))


def _own(controller: str) -> str:
    """Return our own path in a hierarchy; an empty name means v2."""
    for line in read_small("/proc/self/cgroup").decode().splitlines():
        _, names, path = line.split(":", 2)
        if (controller in names.split(",")) if controller else not names:
            return path.rstrip("/")
    return ""


def _candidates(controller: str) -> Iterator[str]:
    """Yield directories below which ours may be made: our own cgroup, then the root's."""
    wanted = "cgroup2" if not controller else "cgroup"
    for point, kind, options in _mounts():
        if kind == wanted and (not controller or controller in options):
            own = _own(controller)
            if own and os.path.isdir(point + own):
                yield point + own
            yield point


def _usable(parent: str, name: str, needs: str) -> str | None:
    """See whether a directory below `parent` would have the file `needs`; leave nothing."""
    probe = f"{parent}/{name}.probe.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        os.mkdir(probe, 0o755)
    except OSError:
        return None
    good = os.access(f"{probe}/{needs}", os.W_OK) and os.access(
        f"{probe}/cgroup.procs", os.W_OK
    )
    with contextlib.suppress(OSError):
        os.rmdir(probe)
    return f"{parent}/{name}" if good else None


def ensure(path: str) -> None:
    """Make a directory with its parents; another process may be removing an empty parent."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(path, mode=0o755, exist_ok=True)
            return
    os.makedirs(path, mode=0o755, exist_ok=True)


def find_tree(name: str) -> str | None:
    """Return where our directory for ending trees can be made, or None."""
    paths = (_usable(parent, name, "cgroup.kill") for parent in _candidates(""))
    return next(filter(None, paths), None)


class Limit(NamedTuple):
    """Where a limit can be set: our directory (made when needed), and how."""

    base: str
    controller: str
    file: str
    v2: bool

    def apply(self, sandbox: str, value: int) -> str:
        """Make the sandbox's directory with the limit in it; return its path."""
        path = f"{self.base}/{sandbox}"
        ensure(path)
        if self.v2:
            write(f"{self.base}/cgroup.subtree_control", f"+{self.controller}")
        self._fit_swap(path, value)
        write(f"{path}/{self.file}", str(value))
        self._fit_swap(path, value)
        return path

    def _fit_swap(self, path: str, value: int) -> None:
        """Let memory not go on in swap space; v1 refuses a sum below the memory, so twice."""
        if self.controller == "memory":
            name, most = ("swap.max", 0) if self.v2 else ("memsw.limit_in_bytes", value)
            with contextlib.suppress(OSError):
                write(f"{path}/memory.{name}", str(most))


CPU_PERIOD: Final = 100_000
"""What both versions begin with, in microseconds; the limit of "cpu" is a share of it."""


def find_limit(name: str, controller: str) -> Limit | None:
    """Return how "memory", "pids" or "cpu" can be limited here, or None."""
    v2, v1 = {
        "memory": ("memory.max", "memory.limit_in_bytes"),
        "pids": ("pids.max", "pids.max"),
        "cpu": ("cpu.max", "cpu.cfs_quota_us"),
    }[controller]
    for parent in _candidates(""):
        if path := _usable(parent, name, v2):
            return Limit(path, controller, v2, v2=True)
    for parent in _candidates(controller):
        # A v1 root has no limit of its own, a directory below it does.
        if path := _usable(parent, name, v1):
            return Limit(path, controller, v1, v2=False)
    return None


def write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def join(path: str) -> None:
    """
    Move this process, which has one thread, into a directory.

    The v1 file `tasks` is asked first: a thread that moves itself through it needs none of the
    locks that make `cgroup.procs` wait for a grace period of the kernel's.
    """
    try:
        write(f"{path}/tasks", "0")
    except FileNotFoundError:
        write(f"{path}/cgroup.procs", "0")


def members(path: str) -> set[int]:
    """Return the pids in a directory and below it."""
    found: set[int] = set()
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs", "rb") as lines:
            found.update(int(line) for line in lines)
    return found


def kill(path: str) -> None:
    """Kill everything in a directory and below it."""
    try:
        write(f"{path}/cgroup.kill", "1")
    except OSError:
        send(members(path), signal.SIGKILL)


def remove(path: str) -> bool:
    """Remove a directory and those below it; false if somebody is still in there."""
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except _GONE:
            continue
        except OSError as error:
            if error.errno != _ENODEV:
                return False
    return True


def oom_kills(path: str) -> int:
    """Count the kills for lack of memory, v1 or v2."""
    for name in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError):
            for line in read_small(f"{path}/{name}").decode().splitlines():
                word, _, number = line.partition(" ")
                if word == "oom_kill":
                    return int(number)
    return 0
