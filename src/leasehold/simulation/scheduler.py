"""
Virtual time, and who acts in it: the one scheduler of a simulated deployment.

An *actor* is a greenlet, as a thread of some process would be. It runs alone until it waits
(`sleep`, a `Signal`); then the hub takes the next thing that is due. Nothing here reads a real
clock, so the same seed gives the same order for ever.

A *process* is what dies or stops as one. Killing it throws `Killed` into each of its actors
where they stand: the `with` blocks of an open transaction roll back, as a database does when
its client is gone, and nothing else of the code gets to run. A stopped process keeps all that
is due for it until it goes on, and finds the world as it is then.
"""

import hashlib
import heapq
import traceback
from collections.abc import Callable
from random import Random
from typing import Any, Final, TypeAlias

import greenlet

from leasehold import seams

YEAR_2026_US: Final = 1_767_225_600_000_000
Call: TypeAlias = Callable[[], Any]


def _wait(seconds: float) -> float:
    """Return a wait that moves every clock: a smaller one could be lost in a float."""
    return max(seconds, 1e-6) if seconds > 0 else 0.0


class Killed(BaseException):
    """The process of this actor is dead."""


class Host:
    """A machine: a boot-time clock of its own, and a network that may be cut."""

    def __init__(self, name: str, *, up_s: float) -> None:
        self.name = name
        self._up_s = up_s
        self.cut = False
        """Neither the database nor the broker nor a cloud can be reached from here."""

    def boot_time(self, now: float) -> float:
        return now + self._up_s

    def reboot(self, now: float) -> None:
        self._up_s = 1.0 - now


class Process:
    """What dies or is stopped as one."""

    def __init__(self, name: str, host: Host) -> None:
        self.name, self.host = name, host
        self.alive = True
        self.stopped_until = 0.0
        self.actors: dict[Actor, None] = {}
        self.on_death: list[Call] = []


class Actor:
    """One thread of a process."""

    __slots__ = ("greenlet", "name", "over", "process", "turn")

    def __init__(
        self, process: Process, name: str, body: Call, *, hub: greenlet.greenlet, over: "Signal"
    ) -> None:
        self.process = process
        self.name = f"{process.name}.{name}" if name else process.name
        self.greenlet = greenlet.greenlet(body, hub)
        self.over = over
        self.turn = 0
        """Counts its waits, so that a wait that is over wakes nobody."""


class Scheduler:
    """Runs actors and calls in the order of their times; ties fall as the seed says."""

    def __init__(self, seed: int, *, keep: bool = False) -> None:
        self.rng = Random(seed)  # noqa: S311  a simulation
        self._ids = Random(seed ^ 0x5EED)  # noqa: S311
        self.now = 0.0
        self.current: Actor | None = None
        self.lines: list[str] = []
        """The history, if it is kept."""

        self.faults: list[str] = []
        """What nobody foresaw: exceptions that left an actor."""

        self.before_wait: Call = lambda: None
        """Called whenever an actor is about to wait."""

        self._keep = keep
        self._hash = hashlib.blake2b(digest_size=8)
        self._heap: list[tuple[float, float, int, Actor | None, Any]] = []
        self._count = 0
        self._processes: list[Process] = []
        self._hub = greenlet.getcurrent()
        self._over = False

    # History.

    def trace(self, what: str) -> None:
        """Write one line of history."""
        who = self.current.name if self.current is not None else "world"
        line = f"{self.now:11.4f} {who:<22} {what}"
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)

    def digest(self) -> str:
        """Return the mark of all history so far."""
        return self._hash.hexdigest()

    # What the engine takes from its machine.

    def machine(self) -> seams.Machine:
        return seams.Machine(
            boot_time=self.boot_time,
            wall_ns=lambda: int(self.now * 1e9) + YEAR_2026_US * 1000,
            sleep=self.sleep,
            entropy=self._ids.randbytes,
            flag=lambda: Signal(self),
            thread=lambda body, name: Strand(self, body, name),
            pool=lambda _size, name: Strands(self, name),
        )

    def boot_time(self) -> float:
        """Return the boot time of the machine that asks."""
        if self.current is None:
            return self.now
        return self.current.process.host.boot_time(self.now)

    def sleep(self, seconds: float) -> None:
        """Let the current actor wait."""
        actor = self.current
        assert actor is not None, "only an actor can wait"
        self._wake(actor, self.now + _wait(seconds))
        self._wait(actor)

    # Actors.

    def process(self, name: str, host: Host) -> Process:
        """Begin a process; it has no actor yet."""
        process = Process(name, host)
        self._processes.append(process)
        return process

    def spawn(self, process: Process, name: str, body: Call, *, after: float = 0.0) -> Actor:
        """Begin a thread of a process."""

        def whole() -> None:
            try:
                body()
            except Killed:
                pass
            except Exception as error:  # noqa: BLE001  it is told, as a finding
                self.faults.append(f"{actor.name}: {traceback.format_exc()}")
                self.trace(f"fault {type(error).__name__}: {error}")
            finally:
                process.actors.pop(actor, None)
                actor.over.set()

        actor = Actor(process, name, whole, hub=self._hub, over=Signal(self))
        process.actors[actor] = None
        self._wake(actor, self.now + after)
        return actor

    def call(self, after: float, what: Call) -> None:
        """Do something later that no process does: a message arrives, a fault strikes."""
        self._push(self.now + after, None, what)

    def kill(self, process: Process) -> None:
        """End a process at once; each of its actors finds out where it stands."""
        if not process.alive:
            return
        process.alive = False
        self.trace(f"killed {process.name}")
        for actor in process.actors:
            if actor is not self.current:
                self._wake(actor, self.now)
        for what in process.on_death:
            self.call(0.0, what)

    def die_if_dead(self) -> None:
        """Raise `Killed` in an actor whose process is dead."""
        if self.current is not None and not self.current.process.alive:
            raise Killed

    def stop(self, process: Process, seconds: float) -> None:
        """Stop a process for a while, as SIGSTOP does; its clocks go on."""
        process.stopped_until = max(process.stopped_until, self.now + seconds)

    # The hub.

    def run(self, *, until: float) -> None:
        """Let things happen until this time, or until `finish`."""
        self._over = False
        while self._heap and not self._over:
            if self._heap[0][0] > until:
                break
            at, _, _, actor, what = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            if actor is None:
                what()
            elif actor.turn == what:
                self._resume(actor)
        else:
            return
        self.now = max(self.now, until)

    def finish(self) -> None:
        """Let `run` return."""
        self._over = True

    def close(self) -> None:
        """Throw away every actor that is left."""
        for process in self._processes:
            process.alive = False
            for actor in list(process.actors):
                self._switch(actor, kill=True)
        self._heap.clear()

    def _resume(self, actor: Actor) -> None:
        process = actor.process
        if process.alive and process.stopped_until > self.now:
            self._push(process.stopped_until, actor, actor.turn)
            return
        self._switch(actor, kill=not process.alive)

    def _switch(self, actor: Actor, *, kill: bool) -> None:
        actor.turn += 1
        self.current = actor
        try:
            if kill:
                if actor.greenlet:
                    actor.greenlet.throw(Killed)
                else:
                    actor.process.actors.pop(actor, None)
            else:
                actor.greenlet.switch()
        finally:
            self.current = None

    def _wake(self, actor: Actor, at: float) -> None:
        self._push(at, actor, actor.turn)

    def _wait(self, actor: Actor) -> None:
        self.before_wait()
        self._hub.switch()
        if not actor.process.alive:
            raise Killed

    def _push(self, at: float, actor: Actor | None, what: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self.rng.random(), self._count, actor, what))


class Signal:
    """A `threading.Event` in virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._set = False
        self._waiting: dict[Actor, None] = {}

    def is_set(self) -> bool:
        return self._set

    def clear(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, {}
        for actor in waiting:
            self._scheduler._wake(actor, self._scheduler.now)  # noqa: SLF001  they are one

    def wait(self, timeout: float | None = None) -> bool:
        if self._set:
            return True
        scheduler = self._scheduler
        actor = scheduler.current
        assert actor is not None
        self._waiting[actor] = None
        if timeout is not None:
            scheduler._wake(actor, scheduler.now + _wait(timeout))  # noqa: SLF001
        try:
            scheduler._wait(actor)  # noqa: SLF001
        finally:
            self._waiting.pop(actor, None)
        return self._set


class Strand:
    """A `threading.Thread` of the process that makes it."""

    def __init__(self, scheduler: Scheduler, body: Call, name: str) -> None:
        assert scheduler.current is not None
        self._scheduler, self._body, self._name = scheduler, body, name
        self._process = scheduler.current.process
        self._actor: Actor | None = None

    def start(self) -> None:
        self._actor = self._scheduler.spawn(self._process, self._name, self._body)

    def join(self, timeout: float | None = None) -> None:
        if self._actor is not None:
            self._actor.over.wait(timeout)


class Strands:
    """A thread pool of the process that makes it; it has always one thread more."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        assert scheduler.current is not None
        self._scheduler, self._name = scheduler, name
        self._process = scheduler.current.process

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> None:
        if self._process.alive:
            self._scheduler.spawn(self._process, self._name, lambda: fn(*args))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  as it is
        """Nothing is left to wait for: an actor ends by itself or with its process."""
