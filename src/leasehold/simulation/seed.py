"""
One seed from beginning to end: calm, storm, calm again, and the promises asked.

A failing seed replays exactly: `simulate(seed, keep=True)` gives its history.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from leasehold import bootstrap, log, seams
from leasehold.settings import Settings
from leasehold.simulation.broker import Broker
from leasehold.simulation.checks import Checks
from leasehold.simulation.database import SimDatabase
from leasehold.simulation.fleet import SimApp, World
from leasehold.simulation.keeping import Keeper
from leasehold.simulation.people import Person, make_environments
from leasehold.simulation.planted import Planted
from leasehold.simulation.sandboxes import Sandboxes
from leasehold.simulation.scheduler import Host, Killed, Scheduler
from leasehold.simulation.tidying import Tidier
from leasehold.simulation.trouble import Trouble
from leasehold.simulation.weather import Weather

TIMERS: Final = {
    "sandbox_ttl": 60,
    "host_grace": 15,
    "detached_ttl": 300,
    "idle_ttl": 15,
    "retained_ttl": 30,
    "start_timeout": 60,
    "queue_timeout": 120,
    "deadline": 600,
    "heartbeat_max": 8,
    "provider_call": 20,
    "retry_max": 10,
    "cleanup_retry_max": 10,
    "republish_max": 20,
    "sweep_every": 12,
    "sweep_grace": 10,
}
"""Seconds; shorter than in production where only patience is at stake."""

HEAL_S: Final = 450.0
"""How long a deployment may take to come to rest after the storm."""

_SLICE_S: Final = 4.0


@dataclass(slots=True)
class Report:
    """What one seed did and met."""

    seed: int
    broken: list[str] = field(default_factory=list)
    """Broken promises and faults of ours; empty is the only good answer."""

    met: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    """Status and code → how many runs ended so."""

    reached: Counter[str] = field(default_factory=Counter)
    """Transactions and events by name: what the seed has exercised."""

    starts: int = 0
    virtual_s: float = 0.0
    healed_s: float = 0.0
    """How long it took to come to rest after the storm."""

    cpu_s: float = 0.0
    digest: str = ""
    """The mark of its whole history: the same seed gives the same."""

    history: list[str] = field(default_factory=list)


def simulate(
    seed: int,
    *,
    keep: bool = False,
    storm: bool = True,
    force: Mapping[str, float] | None = None,
) -> Report:
    """
    Run one seed.

    Args:
        keep: Keep every line of history in the report.
        storm: False: nothing goes wrong.
        force: Kinds of faults that this seed must have, each with its chance at an
            opportunity, or with the seconds between two (`weather`).
    """
    began = time.process_time()
    scheduler = Scheduler(seed, keep=keep)
    with seams.running_on(scheduler.machine()):
        deployment = Deployment(scheduler, seed, storm=storm, force=force or {})
        with seams.listening(deployment.at_point), _faults_heard(deployment):
            try:
                deployment.live()
            finally:
                scheduler.close()
                deployment.database.close()
    report = deployment.report(seed)
    report.cpu_s = time.process_time() - began
    return report


@contextmanager
def _faults_heard(deployment: "Deployment") -> Iterator[None]:
    """Take the engine's log: what it calls a fault of ours is a finding."""

    def hear(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        deployment.hear(event)
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = processors.copy()
    processors[:] = [structlog.processors.format_exc_info, log.without_secrets, hear]
    try:
        yield
    finally:
        processors[:] = before
        log.hide([])


class Deployment:
    """Everything of one seed."""

    def __init__(
        self, scheduler: Scheduler, seed: int, *, storm: bool, force: Mapping[str, float]
    ) -> None:
        self.scheduler = scheduler
        self._stormy = storm
        self._planned = Weather(scheduler.rng, storm=storm)
        self._planned.force(force)
        self.weather = Weather(scheduler.rng, storm=False)
        self.database = SimDatabase(scheduler, self.weather)
        broker = Broker(scheduler, self.weather)
        world = World(
            scheduler=scheduler,
            weather=self.weather,
            broker=broker,
            bound=Sandboxes("box", now=lambda: scheduler.now),
            cloud=Sandboxes("cloud", now=lambda: scheduler.now),
            planted=Planted(seed),
        )
        self.world = world
        broker.on_publish = lambda message: world.planted.look("a message", message)
        settings = Settings.model_construct(timers=TIMERS)
        built = bootstrap.build(settings, database=self.database)
        self.checks = Checks(
            scheduler,
            self.database,
            world.bound,
            world.cloud,
            planted=world.planted,
            ttl_s=built.timers.session_ttl.total_seconds(),
        )
        self.app = SimApp(
            settings=settings,
            database=self.database,
            timers=built.timers,
            deployment=built.deployment,
            epoch=built.epoch,
            vault=built.vault,
            world=world,
        )
        rng = scheduler.rng
        self.desk = scheduler.process("desk", Host("desk", up_s=500.0))
        self._storm_s = rng.uniform(15, 90)
        self.healed_s = 0.0
        self._keeps_little = rng.random() < 0.5  # noqa: PLR2004
        self.people: list[Person] = []
        self.trouble = Trouble(self.app, hosts=rng.choice((1, 2, 2, 3)), database=self.database)

    # What happens.

    def live(self) -> None:
        """Begin, weather the storm, come to rest, be judged."""
        scheduler, rng = self.scheduler, self.scheduler.rng
        self.trouble.begin()
        self._until(lambda: self.checks.count("SELECT count(*) FROM providers") > 0, 30.0)
        scheduler.spawn(self.desk, "", lambda: make_environments(self.app))
        self._until(lambda: self.checks.count("SELECT count(*) FROM environments") > 5, 30.0)  # noqa: PLR2004
        if self._keeps_little:
            Keeper(self.app).begin()
        for number in range(rng.choice((1, 2, 3))):
            deeds = rng.randrange(4, 16)
            person = Person(
                self.world,
                self.app,
                f"person{number}",
                deeds=deeds,
                within_s=self._storm_s * 0.7,
            )
            self.people.append(person)
            person.begin()
        self.weather.chances, self.weather.every_s = (
            self._planned.chances,
            self._planned.every_s,
        )
        self.trouble.brew()
        scheduler.run(until=scheduler.now + self._storm_s)
        self._come_to_rest()
        self.checks.at_rest(self.people, stormy=self._stormy)

    def _come_to_rest(self) -> None:
        scheduler = self.scheduler
        scheduler.trace("calm")
        self.weather.calm()
        self.trouble.heal()
        end = scheduler.now + HEAL_S
        tidier = Tidier(self.app, self.checks, self.desk)
        calm_at = scheduler.now
        while scheduler.now < end:
            scheduler.run(until=scheduler.now + _SLICE_S)
            if all(person.is_done for person in self.people) and tidier.is_quiet():
                self.healed_s = scheduler.now - calm_at
                return
            if self.scheduler.faults or self.world.faults:
                return
        self.checks.break_("P1", f"not at rest after {HEAL_S:.0f} s: {tidier.why()}")

    def _until(self, true: Callable[[], bool], within_s: float) -> None:
        end = self.scheduler.now + within_s
        while not true() and self.scheduler.now < end:
            self.scheduler.run(until=self.scheduler.now + 0.5)
        assert true(), "the simulated deployment does not start"

    # What the engine tells.

    def at_point(self, name: str) -> None:
        """Meet a point between two effects: die there, stop there, or be late."""
        scheduler, weather = self.scheduler, self.weather
        actor = scheduler.current
        if actor is None:
            return
        scheduler.die_if_dead()
        if name.startswith("commit."):
            self.database.at_commit(name)
            return
        scheduler.trace(name)
        if weather.strikes("process.killed"):
            scheduler.kill(actor.process)
            raise Killed
        if weather.strikes("process.stopped"):
            scheduler.stop(actor.process, weather.some(0.1, 40.0))
            scheduler.sleep(0.0)
        elif weather.strikes("thread.late"):
            scheduler.sleep(weather.some(0.001, 20.0))
        elif scheduler.rng.random() < 0.3:  # noqa: PLR2004
            scheduler.sleep(scheduler.rng.expovariate(1000))

    def hear(self, event: MutableMapping[str, Any]) -> None:
        """Hear a line of the engine's log."""
        name = str(event.get("event"))
        self.world.planted.look(f"the log's line {name}", event)
        if name.endswith(".fault"):
            self.world.faults.append(f"{name}: {event.get('exception')}")
            self.scheduler.trace(f"BROKEN {name}")

    def report(self, seed: int) -> Report:
        scheduler = self.scheduler
        report = Report(seed, met=self.weather.met, virtual_s=scheduler.now)
        report.healed_s = self.healed_s
        report.broken = [*self.checks.broken, *self.world.faults, *scheduler.faults]
        report.starts = len(self.world.bound.started) + len(self.world.cloud.started)
        report.digest = scheduler.digest()
        report.history = scheduler.lines
        report.runs, report.reached = self.checks.ends, self.checks.reached
        return report
