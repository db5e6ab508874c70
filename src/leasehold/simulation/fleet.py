"""
Hosts, their agents and their workers: the real keeper, clock, runtime and chain as actors.

What differs from `leasehold.agent` is only what the kernel does there: a child is a `Process`
of the scheduler instead of a forked one, its messages come from the simulated broker instead
of Celery, and the beacon is a number instead of a mapped file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from leasehold import tasks
from leasehold.agent.child import say_ready
from leasehold.blobs import Blobs
from leasehold.bootstrap import App
from leasehold.errors import LeaseholdError, StoreUnavailableError
from leasehold.ids import new_id
from leasehold.maintenance import sessions
from leasehold.orchestrator import draining
from leasehold.orchestrator.jobs import Context, Message
from leasehold.provider.registry import Registry
from leasehold.runtime.guard import Beacon, too_old
from leasehold.runtime.keeper import Keeper
from leasehold.runtime.ticker import Ticker
from leasehold.runtime.worker import WorkerRuntime
from leasehold.simulation.broker import Broker, Slot
from leasehold.simulation.planted import Planted
from leasehold.simulation.provider import SimProvider
from leasehold.simulation.sandboxes import Sandboxes
from leasehold.simulation.scheduler import Host, Process, Scheduler, Signal
from leasehold.simulation.weather import Weather
from leasehold.store import hosts

BATCH: Final = 200
SLOTS: Final = {"steps": 3, "beats": 1}
TURN_S: Final = 0.5
DRAIN_S: Final = 30.0


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that one seed consists of."""

    scheduler: Scheduler
    weather: Weather
    broker: Broker
    bound: Sandboxes
    cloud: Sandboxes
    planted: Planted
    faults: list[str] = field(default_factory=list)
    """Faults of ours that some code caught and logged."""


@dataclass(frozen=True, kw_only=True)
class SimApp(App):
    """The parts of a process, with chance and plugins from the simulation."""

    world: World

    def context(
        self,
        *,
        publish: Callable[[Message], bool | None],
        worker_id: str = "",
        nudge: Callable[[], None] = lambda: None,
        **parts: Any,
    ) -> Context:
        rng = Random(self.world.scheduler.rng.random())  # noqa: S311  a simulation
        context = super().context(
            publish=publish, worker_id=worker_id, nudge=nudge, rng=rng, **parts
        )
        # Nothing of a simulation reaches a disk.
        context.blobs = Blobs("memory://")
        context.vault = self.world.planted.vault(self.database)
        return context

    def registry(self, host_id: str) -> Registry:  # noqa: ARG002  known by the process
        world = self.world
        assert world.scheduler.current is not None
        host = world.scheduler.current.process.host

        def make(sandboxes: Sandboxes, *, bound: bool) -> SimProvider:
            return SimProvider(
                sandboxes, world.scheduler, world.weather, world.planted, host=host, bound=bound
            )

        return Registry(
            {
                world.bound.key: make(world.bound, bound=True),
                world.cloud.key: make(world.cloud, bound=False),
            }
        )


class SimBeacon(Beacon):
    """The agent's proof of life, read by its children in no time."""

    def __init__(self) -> None:
        self.sent_at = -1e9
        self.wanted = 0

    def ask(self, sweep: int) -> None:
        self.wanted = sweep

    def confirm(self, sent_at: float) -> None:
        self.sent_at = sent_at

    def lose(self) -> None:
        self.sent_at = -1e9

    def remove(self) -> None:
        """Leave the number as it is: nobody confirms it any more."""


class SimGuard:
    """The holder's side of the beacon."""

    def __init__(self, beacon: SimBeacon, *, trust_s: float) -> None:
        self._beacon, self._trust_s = beacon, trust_s

    def lost(self) -> str | None:
        return too_old(self._beacon.sent_at, trust_s=self._trust_s)

    def wanted(self) -> int:
        return self._beacon.wanted


class Worker:
    """One child of an agent."""

    def __init__(self, agent: "Agent", kind: str, process: Process) -> None:
        self.agent, self.kind, self.process = agent, kind, process
        self.worker_id = new_id()
        self.draining = False
        self._busy = 0
        self._slots: list[Slot] = []

    def main(self) -> None:
        """Start, say so, and consume; a database that is away now is a failed start."""
        agent, scheduler = self.agent, self.agent.world.scheduler
        scheduler.sleep(scheduler.rng.uniform(0.3, 1.5))
        trust_s = agent.app.timers.holder_trust.total_seconds()
        runtime = WorkerRuntime(
            agent.app,
            kind=self.kind,
            worker_id=self.worker_id,
            host_id=agent.host_id,
            session_id=agent.session_id,
            publish=agent.world.broker.publish,
            nudge=agent.nudge,
            guard=SimGuard(agent.beacon, trust_s=trust_s),
        )
        try:
            self._enlist(runtime)
            queues = runtime.advertise()
            runtime.start()
            scheduler.spawn(self.process, "ready", lambda: say_ready(runtime))
        except StoreUnavailableError:
            scheduler.kill(self.process)
            return
        for number in range(SLOTS[self.kind]):
            slot = Slot(scheduler, queues)
            self._slots.append(slot)
            scheduler.spawn(self.process, f"t{number}", lambda s=slot: self._serve(runtime, s))  # type: ignore[misc]  # bound now

    def _enlist(self, runtime: WorkerRuntime) -> None:
        with runtime.app.database.write("worker.enlist") as tx:
            hosts.add_worker(
                tx,
                {
                    "id": self.worker_id,
                    "session_id": runtime.session_id,
                    "host_id": runtime.host_id,
                    "kind": self.kind,
                    "pid": 1,
                    "version": "simulated",
                    "queues": [],
                },
            )

    def _serve(self, runtime: WorkerRuntime, slot: Slot) -> None:
        world = self.agent.world
        while not self.draining:
            message = world.broker.take(slot, connected=self._connected)
            self._busy += 1
            try:
                tasks.handle(runtime, message)
            except LeaseholdError as error:
                world.scheduler.trace(f"task stopped: {error}")
            self._busy -= 1
        if not self._busy:
            world.scheduler.kill(self.process)

    def _connected(self) -> bool:
        return self.process.alive and not self.process.host.cut and not self.draining

    def drain(self) -> None:
        """Finish what is under way, take nothing new, then exit."""
        self.draining = True
        if not self._busy:
            self.agent.world.scheduler.kill(self.process)


class Agent:
    """One host agent, from its start to its end."""

    def __init__(self, app: SimApp, host: Host, process: Process, *, steps: int) -> None:
        self.app, self.world = app, app.world
        self.host, self.process = host, process
        self.host_id = host.name
        self.stopping = False
        self.session_id = ""
        self.beacon = SimBeacon()
        self.workers: list[Worker] = []
        self._kinds = ["steps"] * steps + ["beats"]
        self._owed: list[str] = []
        self._bell = Signal(self.world.scheduler)
        self._ticker: Ticker | None = None
        self._count = 0
        process.on_death.append(self._orphan)

    def main(self) -> None:
        """Serve until stopped; a lost session begins anew."""
        while not self.stopping:
            self._one_session()
        self.world.scheduler.kill(self.process)

    def nudge(self) -> None:
        if self._ticker is not None:
            self._ticker.nudge()

    def stop(self) -> None:
        """Ask for a drain, as SIGTERM does."""
        self.stopping = True
        self._bell.set()

    def _one_session(self) -> None:
        scheduler, timers = self.world.scheduler, self.app.timers
        self.session_id, self.beacon = new_id(), SimBeacon()
        keeper = Keeper(
            self.app.database,
            session_id=self.session_id,
            beacon=self.beacon,
            beat_every_s=timers.beat_every.total_seconds(),
        )
        keeper.on_lost = self._bell.set
        try:
            keeper.start(host_id=self.host_id, host_name=self.host.name, capacity=50, pid=0)
        except StoreUnavailableError:
            scheduler.sleep(2.0)
            return
        context = self.app.context(
            publish=self.world.broker.publish, worker_id=f"agent-{self.session_id}"
        )
        self._ticker = Ticker(context, batch=BATCH, session_id=self.session_id)
        context.nudge = self._ticker.nudge
        for kind in self._kinds:
            self._spawn(kind)
        self._ticker.start()
        while not self.stopping and not keeper.lost.is_set():
            self._bell.wait(TURN_S if self._owed else None)
            self._bell.clear()
            self._look()
        if keeper.lost.is_set():
            self._kill_all()
        else:
            self._drain()
        self._ticker.stop()
        self._say_goodbye(keeper)

    def _say_goodbye(self, keeper: Keeper) -> None:
        try:
            keeper.stop()
        except StoreUnavailableError as error:
            self.world.scheduler.trace(f"good-bye unsaid: {error}")

    def _spawn(self, kind: str) -> None:
        scheduler = self.world.scheduler
        self._count += 1
        name = f"{self.process.name}.{kind[0]}{self._count}"
        worker = Worker(self, kind, scheduler.process(name, self.host))
        worker.process.on_death.append(self._bell.set)
        self.workers.append(worker)
        scheduler.spawn(worker.process, "", worker.main)

    def _look(self) -> None:
        """See deaths: give up their claims, fill their places."""
        for worker in [w for w in self.workers if not w.process.alive]:
            self.workers.remove(worker)
            self._owed.append(worker.worker_id)
            self._give_up()
            if not self.stopping:
                self._spawn(worker.kind)
        if self._owed:
            self._give_up()

    def _give_up(self) -> None:
        try:
            while self._owed:
                with self.app.database.write("worker.gone") as tx:
                    sessions.worker_gone(tx, self._owed[0])
                self._owed.pop(0)
            self.nudge()
        except StoreUnavailableError as error:
            self.world.scheduler.trace(f"worker gone later: {error}")

    def _kill_all(self) -> None:
        for worker in self.workers:
            self.world.scheduler.kill(worker.process)
            self._owed.append(worker.worker_id)
        self.workers.clear()
        self._give_up()
        self._owed.clear()

    def _drain(self) -> None:
        scheduler = self.world.scheduler
        until = scheduler.now + DRAIN_S
        for worker in self.workers:
            worker.drain()
        while any(w.process.alive for w in self.workers) and scheduler.now < until:
            self._bell.wait(TURN_S)
            self._bell.clear()
            self._look()
        for worker in self.workers:
            scheduler.kill(worker.process)
        self._look()
        try:
            context = self.app.context(publish=self.world.broker.publish, worker_id="agent")
            context.providers = self.app.registry(self.host_id)
            draining.leave_running(context, host_id=self.host_id)
        except StoreUnavailableError as error:
            scheduler.trace(f"drain unsure: {error}")

    def _orphan(self) -> None:
        """The agent is dead: its children are told by the kernel, and drain."""
        for worker in self.workers:
            if worker.process.alive:
                worker.drain()
