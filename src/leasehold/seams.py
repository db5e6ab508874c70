"""
The seams: named points between two effects, and what a process takes from its machine.

Every effect of ours (a commit, a publish, a provider call, a file that matters) is
bracketed by `point` calls. In production nothing listens. A crash test installs a hook
that counts the points and kills the process at one of them, so the list of all points is
made by running, never by hand.

Time that passes, threads and chance come from the `Machine`. The simulator puts its own in
place, so that one seed decides everything; a wait there takes no time at all.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

Hook: TypeAlias = Callable[[str], None]

_hooks: list[Hook] = []


class Flag(Protocol):
    """A `threading.Event`."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Thread(Protocol):
    """A `threading.Thread` that ends with its process."""

    def start(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


class Pool(Protocol):
    """A `ThreadPoolExecutor` whose results nobody asks for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any: ...
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...  # noqa: FBT001, FBT002  as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a process takes from the machine that it runs on."""

    boot_time: Callable[[], float]
    """Seconds since boot, suspend included."""

    wall_ns: Callable[[], int]
    """Nanoseconds since the epoch; may jump, so only ids use it."""

    sleep: Callable[[float], None]
    entropy: Callable[[int], bytes]
    """So many random bytes."""

    flag: Callable[[], Flag] = threading.Event
    thread: Callable[[Callable[[], None], str], Thread]
    pool: Callable[[int, str], Pool]


_REAL = Machine(
    boot_time=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    wall_ns=time.time_ns,
    sleep=time.sleep,
    entropy=os.urandom,
    thread=lambda target, name: threading.Thread(target=target, name=name, daemon=True),
    pool=lambda size, name: ThreadPoolExecutor(size, thread_name_prefix=name),
)
_machine: list[Machine] = [_REAL]


def boot_time() -> float:
    """Seconds since boot, suspend included: the clock for "how long may I trust this"."""
    return _machine[-1].boot_time()


def wall_ns() -> int:
    return _machine[-1].wall_ns()


def sleep(seconds: float) -> None:
    _machine[-1].sleep(seconds)


def entropy(count: int) -> bytes:
    return _machine[-1].entropy(count)


def flag() -> Flag:
    return _machine[-1].flag()


def thread(target: Callable[[], None], *, name: str) -> Thread:
    return _machine[-1].thread(target, name)


def pool(size: int, *, name: str) -> Pool:
    return _machine[-1].pool(size, name)


@contextmanager
def running_on(machine: Machine) -> Iterator[None]:
    """Take time and chance from `machine` while the block runs; the simulator only."""
    _machine.append(machine)
    try:
        yield
    finally:
        _machine.remove(machine)


def point(name: str) -> None:
    """Say that the instruction `name` is about to happen or has just happened."""
    for hook in _hooks:
        hook(name)


@contextmanager
def effect(name: str) -> Iterator[None]:
    """Bracket one effect: ``<name>:before`` and, when it went well, ``<name>:after``."""
    point(f"{name}:before")
    yield
    point(f"{name}:after")


@contextmanager
def listening(hook: Hook) -> Iterator[None]:
    """Call `hook` at each point while the block runs; tests and the simulator only."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)
