"""
What befalls whole machines: agents that die and come back, hosts that vanish and return, a
network that is cut, a broker or a database that is away, sandboxes that burn down.
"""

from collections.abc import Callable
from typing import Final

from leasehold.simulation.database import SimDatabase
from leasehold.simulation.fleet import Agent, SimApp
from leasehold.simulation.scheduler import Host
from leasehold.simulation.weather import EVERY_S


class Machine:
    """One host and whoever starts its agent again, as an init system does."""

    def __init__(self, app: SimApp, name: str) -> None:
        self.app, self.world = app, app.world
        self.host = Host(name, up_s=self.world.scheduler.rng.uniform(10, 1e6))
        self.agent: Agent | None = None
        self.agents: list[Agent] = []
        self.down_until = self.cut_until = 0.0
        self._count = 0

    def begin(self) -> None:
        """Start an agent, now or when the machine is up."""
        scheduler = self.world.scheduler
        if scheduler.now < self.down_until:
            scheduler.call(self.down_until - scheduler.now, self.begin)
            return
        self._count += 1
        process = scheduler.process(f"{self.host.name}.{self._count}", self.host)
        self.agent = Agent(self.app, self.host, process, steps=1)
        self.agents.append(self.agent)
        process.on_death.append(
            lambda: scheduler.call(scheduler.rng.uniform(0.5, 5), self.begin)
        )
        scheduler.spawn(process, "", self.agent.main)

    def crash(self, seconds: float) -> None:
        """Everything on it dies; its disk stays."""
        scheduler = self.world.scheduler
        self.down_until = scheduler.now + seconds
        for agent in self.agents:
            for worker in agent.workers:
                scheduler.kill(worker.process)
            scheduler.kill(agent.process)
        self.world.bound.reboot(self.host.name)
        self.host.reboot(scheduler.now)

    def stop(self, seconds: float) -> None:
        """Stop all of its processes, as a suspend does."""
        for agent in self.agents:
            for process in [agent.process, *(worker.process for worker in agent.workers)]:
                self.world.scheduler.stop(process, seconds)


class Trouble:
    """All that befalls machines and services by the clock of the weather."""

    def __init__(self, app: SimApp, *, hosts: int, database: SimDatabase) -> None:
        self.world, self.database = app.world, database
        self.machines = [Machine(app, f"h{number}") for number in range(1, hosts + 1)]
        self._deeds: Final[dict[str, Callable[[Machine], None]]] = {
            "broker.away": self._broker_away,
            "broker.flushed": lambda _: self.world.broker.flush(),
            "database.away": self._database_away,
            "host.cut": self._cut,
            "host.crashed": lambda machine: machine.crash(self._some(0.5, 120)),
            "agent.killed": self._kill,
            "agent.drained": self._drain,
            "agent.stopped": lambda machine: machine.stop(self._some(0.5, 90)),
            "clock.jumped": lambda _: self._jump(),
            "clock.unwatched": self._jump_unwatched,
            "sandbox.lost": lambda _: self._lose(),
        }

    def begin(self) -> None:
        for machine in self.machines:
            machine.begin()

    def brew(self) -> None:
        """Plan the first of each kind."""
        for kind in EVERY_S:
            self._plan(kind)

    def heal(self) -> None:
        """Bring everything back."""
        scheduler = self.world.scheduler
        self.database.come_back()
        self.world.broker.away_until = 0.0
        for machine in self.machines:
            machine.down_until = scheduler.now
            machine.host.cut = False
        self.world.broker.reconnect()

    def _plan(self, kind: str) -> None:
        after = self.world.weather.next_after(kind)
        if after is not None:
            self.world.scheduler.call(after, lambda: self._strike(kind))

    def _strike(self, kind: str) -> None:
        weather, scheduler = self.world.weather, self.world.scheduler
        if weather.is_calm or kind not in self._deeds:
            return
        weather.met[kind] += 1
        scheduler.trace(kind)
        self._deeds[kind](scheduler.rng.choice(self.machines))
        self._plan(kind)

    def _some(self, low: float, high: float) -> float:
        return self.world.weather.some(low, high)

    def _broker_away(self, _: Machine) -> None:
        self.world.broker.away_until = self.world.scheduler.now + self._some(0.5, 60)

    def _database_away(self, _: Machine) -> None:
        self.database.go_away(self._some(0.5, 60))

    def _cut(self, machine: Machine) -> None:
        scheduler, seconds = self.world.scheduler, self._some(1, 150)
        machine.host.cut = True
        machine.cut_until = max(machine.cut_until, scheduler.now + seconds)

        def mend() -> None:
            if scheduler.now >= machine.cut_until:
                machine.host.cut = False
                self.world.broker.reconnect()

        scheduler.call(seconds + 1e-3, mend)

    def _kill(self, machine: Machine) -> None:
        if machine.agent is not None:
            self.world.scheduler.kill(machine.agent.process)

    def _drain(self, machine: Machine) -> None:
        if machine.agent is not None:
            machine.agent.stop()

    def _jump(self) -> None:
        """Set the wall clock of the database's host."""
        far = self._some(6, 20_000) * self.world.scheduler.rng.choice((-1, 1))
        self.database.jump_us += int(far * 1e6)

    def _jump_unwatched(self, machine: Machine) -> None:
        """Set it forward while no agent runs; this host's is the last to come back."""
        for each in self.machines:
            self._kill(each)
        machine.down_until = self.world.scheduler.now + self._some(10, 150)
        self.database.jump_us += int(self._some(20, 300) * 1e6)

    def _lose(self) -> None:
        boxes = [*self.world.bound.living(), *self.world.cloud.living()]
        if boxes:
            box = self.world.scheduler.rng.choice(boxes)
            self.world.scheduler.trace(f"lost {box.lease_id}")
            world = self.world.bound if box.host else self.world.cloud
            world.lose(box)
