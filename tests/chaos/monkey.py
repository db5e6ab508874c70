"""
The monkey: one seed decides what it breaks, where and in which order.

Each fault is a generator: it does its harm, yields for how long, and mends it when it goes
on. `Monkey.turn` resumes those whose time has come, so that a long fault (a host cut off)
goes on while workers are being killed. A longer fault has its host to itself. Workers are
killed in a stream of their own, the other faults come from a deck in which each kind lies
once, shuffled anew when it is through.
"""

import random
import signal
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from chaos.hosts import Host, send, supervisors
from chaos.recovery import Case, Held, Watch
from chaos.servers import BrokerServer, PostgresServer
from chaos.sight import Sight
from leasehold.store.database import Database

Fault = Generator[float, None, None]
PAST_SESSION_S: Final = 13.0
"""Longer than a session's time to live (10 s), so that observers expire it."""

MOMENT_S: Final = 4.0
SUPERVISORS: Final = 4
"""Killed at a time."""

STARTING: Final = 0.25
"""The part of the kills that may meet the spare or a worker which is not there yet."""

AIM_S: Final = 0.6
AIM_HOST_S: Final = 6.0
_AGAIN_S: Final = 1.5
_SOON_S: Final = 0.3
_SETTLE_S: Final = 5.0
"""So long after a fault's end its effects still stretch a recovery."""


@dataclass
class World:
    """What can be broken."""

    hosts: list[Host]
    broker: BrokerServer
    postgres: PostgresServer | None
    database: Database
    """The monkey's own view."""
    marks: Path
    may_lose: Callable[[str], bool]
    """Whether the run of that name bears the loss of its command."""


@dataclass
class Monkey:
    """Breaks things until it is told to stop."""

    world: World
    rng: random.Random
    watch: Watch
    kill_every_s: float
    fault_every_s: float
    say: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    """Processes killed, by what they were."""

    refused: set[str] = field(default_factory=set)
    """Faults that this machine does not permit."""

    only_kills_s: float = 0.0
    """So long at first workers are killed and nothing else: recovery by itself."""

    def __post_init__(self) -> None:
        self._open: list[tuple[float, int, str, Fault]] = []
        self._number = count()
        self.sight = Sight(self.world.database)
        self._exclusive = False
        self._deck: list[str] = []
        self._next_kill = monotonic()
        self._mixed_from = self._next_kill + self.only_kills_s
        self._next_fault = self._mixed_from
        self._spans: list[tuple[float, float]] = []
        self._current: dict[int, float] = {}

    def turn(self) -> None:
        """Do what is due now; call it often."""
        self.resume()
        now = monotonic()
        if now >= self._next_kill:
            self._next_kill = now + self.rng.expovariate(1 / self.kill_every_s)
            self._begin("kill child", self.kill_child())
            if now >= self._mixed_from:
                self.kill_supervisors()
        if now >= self._next_fault:
            self._draw(now)

    def resume(self) -> None:
        """Go on with the faults whose time has come."""
        while self._open and self._open[0][0] <= monotonic():
            _, number, name, fault = heappop(self._open)
            self._step(number, name, fault)

    @property
    def is_quiet(self) -> bool:
        """Tell whether every fault is mended."""
        return not self._open

    def troubled(self, case: Case) -> bool:
        """Tell whether a fault beside the kill itself was open since shortly before it."""
        if len(self._current) > (case.kind == "host"):
            return True
        return any(end + _SETTLE_S > case.at for _, end in self._spans)

    def _draw(self, now: float) -> None:
        if not self._deck:
            self._deck = [name for name in FAULTS if name not in self.refused]
            self.rng.shuffle(self._deck)
        if self._exclusive or (self._deck[-1] == "kill host" and self._current):
            # Its recovery is measured, so nothing else may be open.
            self._next_fault = now + _SOON_S
            return
        name = self._deck.pop()
        fault = FAULTS[name](self)
        if fault is None:
            if name not in self.refused:
                # Its host is busy: it comes later.
                self._deck.insert(0, name)
            self._next_fault = now + _AGAIN_S
            return
        self._next_fault = now + self.rng.uniform(0.6, 1.4) * self.fault_every_s
        self.say(name)
        self.counts[name] += 1
        self._begin(name, fault)

    def _begin(self, name: str, fault: Fault) -> None:
        self._step(next(self._number), name, fault)

    def _step(self, number: int, name: str, fault: Fault) -> None:
        counted = name != "kill child"
        if counted:
            self._current.setdefault(number, monotonic())
        try:
            wait = next(fault)
        except StopIteration:
            if counted:
                self._spans.append((self._current.pop(number), monotonic()))
            return
        heappush(self._open, (monotonic() + wait, number, name, fault))

    def _idle_hosts(self) -> list[Host]:
        return [host for host in self.world.hosts if host.is_up and not host.busy]

    def _any_host(self) -> Host | None:
        free = self._idle_hosts()
        # One host stays whole, so that there is an elsewhere.
        if len(free) < min(2, len(self.world.hosts)):
            return None
        return self.rng.choice(free)

    def kill_child(self) -> Fault:
        """SIGKILL one worker, preferably one that holds something."""
        hosts = self._idle_hosts()
        if monotonic() < self._mixed_from:
            # What a kill costs a host that is whole: each comes to rest before the next.
            hosts = [host for host in hosts if self.sight.is_whole(host)]
        if not hosts:
            return
        host = self.rng.choice(hosts)
        known = self.sight.workers(host)
        # Not too often: a host whose workers die while they start never works at all.
        mixed = monotonic() >= self._mixed_from and self.rng.random() < STARTING
        pids = [pid for pid in host.children() if pid in known or mixed]
        if not pids:
            return
        pid = self.rng.choice(pids)
        if pid not in known:
            # The spare, or one that has not told SQL of itself yet.
            self.kills["child without a row"] += send([pid], signal.SIGKILL)
            return
        alone = not self._current and self.sight.is_whole(host)
        held: list[Held] = []
        until = monotonic() + self.rng.choice((0.0, AIM_S))
        while True:
            # Whoever holds something now may have let go of it before it is stopped.
            busy = set(self.sight.busy([known[p] for p in pids if p in known]))
            pid = next((p for p in pids if known.get(p) in busy), pid)
            if not send([pid], signal.SIGSTOP):
                return
            held = self.sight.held([known[pid]])
            if held or monotonic() >= until:
                break
            send([pid], signal.SIGCONT)
            sleep(0.01)
        self.kills["child"] += send([pid], signal.SIGKILL)
        self.watch.follow(
            Case("child", monotonic(), held, frozenset([known[pid]]), alone=alone)
        )
        yield from ()

    def kill_supervisors(self) -> None:
        """
        SIGKILL supervisors of idempotent commands: these must be started again.

        Of others the fate would be unknown, and they would rightly fail.
        """
        pids = supervisors(self.world.marks, self.world.may_lose)
        chosen = self.rng.sample(pids, min(SUPERVISORS, len(pids)))
        self.kills["supervisor"] += send(chosen, signal.SIGKILL)

    def kill_agent(self) -> Fault | None:
        host = self._any_host()
        return None if host is None else self._kill_agent(host)

    def _kill_agent(self, host: Host) -> Fault:
        """SIGKILL the agent alone: its children drain by themselves; systemd restarts it."""
        self.kills["agent"] += host.signal_agent(signal.SIGKILL)
        yield MOMENT_S

    def kill_host(self) -> Fault | None:
        host = self._any_host()
        if host is None or any(each.busy for each in self.world.hosts):
            return None
        return self._kill_host(host)

    def _kill_host(self, host: Host) -> Fault:
        """SIGKILL all of a host, which stays away until others have seen it."""
        host.busy = self._exclusive = True
        yield _SETTLE_S
        alone = len(self._current) <= 1
        bound, held = f"leasehold.host.{host.id}", list[Held]()
        until = monotonic() + AIM_HOST_S
        while monotonic() < until:
            known = self.sight.workers(host)
            ids = [known[pid] for pid in host.children() if pid in known]
            if any(not each.queue.startswith(bound) for each in self.sight.held(ids)):
                break
            yield 0.005
        if not host.is_up:
            host.busy = self._exclusive = False
            return
        known = self.sight.workers(host)
        pids = host.freeze()
        ids = [known[pid] for pid in pids if pid in known]
        held = [each for each in self.sight.held(ids) if not each.queue.startswith(bound)]
        host.held = True
        self.kills["host"] += host.kill_all()
        self.watch.follow(Case("host", monotonic(), held, frozenset(ids), alone=alone))
        yield PAST_SESSION_S + 3
        host.held = host.busy = self._exclusive = False

    # ---- stopping

    def stop_child(self) -> Fault | None:
        host = self._any_host()
        pids = host.children() if host else []
        return self._stop_child(self.rng.choice(pids)) if pids else None

    def _stop_child(self, pid: int) -> Fault:
        """SIGSTOP a worker for a while, and let it go on as if nothing had been."""
        send([pid], signal.SIGSTOP)
        yield self.rng.choice((3.0, 8.0, 25.0))
        send([pid], signal.SIGCONT)

    def stop_host(self) -> Fault | None:
        host = self._any_host()
        return None if host is None else self._stop_host(host)

    def _stop_host(self, host: Host) -> Fault:
        """SIGSTOP agent and workers past their session, then let them go on."""
        host.busy = True
        pids = host.freeze()
        yield PAST_SESSION_S
        send(pids[1:], signal.SIGCONT)
        # The workers first: for a moment they run without an agent that could tell them.
        yield 0.3
        send(pids[:1], signal.SIGCONT)
        yield MOMENT_S
        host.busy = False

    def rolling(self) -> Fault | None:
        host = self._any_host()
        return None if host is None else self._rolling()

    def _rolling(self) -> Fault:
        """SIGTERM one host after the other, as a deployment does."""
        for host in self.world.hosts:
            if host.busy or not host.signal_agent(signal.SIGTERM):
                continue
            old = host.agent
            until = monotonic() + 45
            while old is not None and old.poll() is None and monotonic() < until:
                yield 0.2
            yield 2.0

    # ---- the servers

    def broker_restart(self) -> Fault | None:
        return None if self.world.broker.is_down else self._broker_restart()

    def _broker_restart(self) -> Fault:
        self.world.broker.kill()
        self.kills["broker"] += 1
        yield self.rng.uniform(0.0, 3.0)
        self.world.broker.start()

    def broker_flush(self) -> Fault | None:
        return None if self.world.broker.is_down else self._broker_flush()

    def _broker_flush(self) -> Fault:
        self.world.broker.flush()
        yield 0.5

    def _postgres(self, *, immediate: bool) -> Fault | None:
        server = self.world.postgres
        if server is None:
            self.refused |= {"postgres fast", "postgres immediate"}
            return None
        return None if server.is_down else self._restart(server, immediate=immediate)

    def _restart(self, server: PostgresServer, *, immediate: bool) -> Fault:
        server.stop(immediate=immediate)
        self.kills["postgres"] += 1
        yield self.rng.uniform(0.0, 4.0)
        server.restarts += 1
        server.start()

    # ---- what only some hosts have

    def cut(self) -> Fault | None:
        host = next((each for each in self.world.hosts if each.wire is not None), None)
        if host is None:
            self.refused.add("cut off")
        if host is None or host.busy or host not in self._idle_hosts():
            return None
        return self._cut(host)

    def _cut(self, host: Host) -> Fault:
        """Cut a host off, for a moment or for longer than the others wait for it."""
        assert host.wire is not None
        host.busy = True
        host.wire.cut()
        yield self.rng.choice((5.0, PAST_SESSION_S, 22.0))
        host.wire.mend()
        yield MOMENT_S
        host.busy = False

    def fill(self) -> Fault | None:
        host = next((each for each in self.world.hosts if each.quota is not None), None)
        if host is None:
            self.refused.add("disk full")
        if host is None or host.busy or host not in self._idle_hosts():
            return None
        return self._fill(host)

    def _fill(self, host: Host) -> Fault:
        """Fill a host's disk and free it again."""
        assert host.quota is not None
        host.quota.fill()
        yield self.rng.uniform(4.0, 10.0)
        host.quota.empty()
        yield 1.0


FAULTS: Final[dict[str, Callable[[Monkey], Fault | None]]] = {
    "kill agent": Monkey.kill_agent,
    "kill host": Monkey.kill_host,
    "stop worker": Monkey.stop_child,
    "stop host past its session": Monkey.stop_host,
    "rolling restart": Monkey.rolling,
    "broker restart": Monkey.broker_restart,
    "broker flush": Monkey.broker_flush,
    "postgres fast": lambda monkey: monkey._postgres(immediate=False),
    "postgres immediate": lambda monkey: monkey._postgres(immediate=True),
    "cut off": Monkey.cut,
    "disk full": Monkey.fill,
}
"""Every kind of fault beside the killing of workers; None: not now, or not here."""
