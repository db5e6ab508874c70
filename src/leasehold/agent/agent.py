"""
The host agent: parent of this host's workers, holder of its session, one of the clocks.

Die here? Its children notice (parent-death signal), drain and exit; commands go on. Observers
expire the session after its time to live; the claims are given up; the next agent of this
host, by the id that lies beside its sandboxes, serves the same host queue and re-attaches.

If the session is lost while the agent lives (it was stopped for too long, or the database was
away for observers too), the children are killed, since nobody may trust them any more, and
the agent begins anew with a fresh session.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from leasehold import bootstrap, transport
from leasehold.agent.child import Orders
from leasehold.agent.children import Child, Children
from leasehold.bootstrap import App
from leasehold.errors import StoreUnavailableError
from leasehold.ids import new_id
from leasehold.log import get_logger
from leasehold.orchestrator import draining
from leasehold.runtime import courier
from leasehold.runtime.guard import Beacon
from leasehold.runtime.keeper import Keeper
from leasehold.runtime.latch import Latch
from leasehold.runtime.ledger import Ledger
from leasehold.runtime.ticker import Ticker
from leasehold.settings import Settings

log = get_logger(__name__)
DRAIN_S: Final = 30.0
_TURN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What an agent runs on this host."""

    processes: int
    threads: int
    beat_threads: int = 1
    cancel_on_exit: bool = False


class Agent:
    """One agent; `run` returns after a drain."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings, self.plan = settings, plan
        self.app = bootstrap.build(settings)
        self.home = settings.host_home
        self.host_id = bootstrap.host_id_of(self.home)
        self._stop = Latch()
        self._wakeups: list[Callable[[], None]] = []
        self._publish = transport.Publisher(transport.make(settings))
        self.still_running: list[dict[str, Any]] = []
        """After a drain: commands that go on, and until when their sandboxes live."""

    def stop(self) -> None:
        """Drain and return from `run`; from any thread or a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Serve until stopped; a lost session begins anew."""
        while not self._stop.is_set():
            self._one_session()

    def _one_session(self) -> None:
        session_id = new_id()
        beacon = Beacon(self.home / f"session-{session_id}.beacon")
        try:
            self.app = bootstrap.renewed(self.app)
            keeper = self._keeper(session_id, beacon)
            keeper.start(
                host_id=self.host_id,
                host_name=bootstrap.host_name(),
                capacity=bootstrap.host_capacity(self.settings),
                pid=os.getpid(),
                labels=self.settings.host_labels,
            )
        except StoreUnavailableError as error:
            beacon.remove()
            log.warning("agent.waits_for_database", why=str(error))
            self._stop.wait(2.0)
            return
        ticker = self._ticker(session_id)
        children = self._children(session_id, beacon, ticker)
        ticker.start()
        log.info("agent.started", host=self.host_id, session=session_id)
        while not self._stop.is_set() and not keeper.lost.is_set():
            children.turn(_TURN_S)
        if keeper.lost.is_set():
            children.kill()
        else:
            self._drain(children)
        ticker.stop()
        keeper.stop()
        log.info("agent.stopped", host=self.host_id, session=session_id)

    def _keeper(self, session_id: str, beacon: Beacon) -> Keeper:
        return Keeper(
            self.app.database,
            session_id=session_id,
            beacon=beacon,
            beat_every_s=self.app.timers.beat_every.total_seconds(),
            ledger=ledger_of(self.home, self.app),
        )

    def _ticker(self, session_id: str) -> Ticker:
        context = self.app.context(publish=self._publish, worker_id=f"agent-{session_id}")
        ticker = Ticker(
            context,
            batch=self.settings.clock_batch,
            session_id=session_id,
            courier=courier.make(self.app, context),
        )
        context.nudge = ticker.nudge
        return ticker

    def _children(self, session_id: str, beacon: Beacon, ticker: Ticker) -> Children:
        def orders(slot: Child) -> Orders:
            return Orders(
                kind=slot.kind,
                worker_id=slot.worker_id,
                session_id=session_id,
                host_id=self.host_id,
                beacon=str(beacon.path),
                parent=os.getpid(),
                threads=slot.threads,
            )

        children = Children(
            self.app.database,
            orders=orders,
            nudge=ticker.nudge,
            spare=True,
            silent_s=self.app.timers.child_silent.total_seconds(),
        )
        for _ in range(self.plan.processes):
            children.add("steps", threads=self.plan.threads)
        children.add("beats", threads=self.plan.beat_threads)
        return children

    def _drain(self, children: Children) -> None:
        """Finish the steps under way; commands go on and are re-attached later."""
        log.info("agent.draining", host=self.host_id)
        try:
            if self.plan.cancel_on_exit:
                self._cancel_all(children)
            context = self.app.context(publish=self._publish, worker_id="agent")
            children.drain(grace_s=DRAIN_S)
            registry = self.app.registry(self.host_id)
            context.providers = registry
            self.still_running = draining.leave_running(context, host_id=self.host_id)
        except StoreUnavailableError as error:
            log.warning("agent.drain_unsure", why=str(error))
            children.kill()

    def _cancel_all(self, children: Children) -> None:
        context = self.app.context(publish=self._publish)
        ids = draining.cancel_all(context, host_id=self.host_id)
        left = 100
        while ids and left:
            children.turn(0.1)
            ids = draining.still_live(context, ids)
            left -= 1


def ledger_of(home: Path, app: App) -> Ledger:
    """Return the memory of the host whose home this is."""
    return Ledger(home / "ledger.json", deployment=app.deployment, epoch=app.epoch)


def say_what_goes_on(still_running: Sequence[Mapping[str, Any]]) -> None:
    """Say on stderr which commands go on, and for how long their sandboxes live."""
    for left in still_running:
        hours = left["for_s"] / 3600
        sys.stderr.write(
            f"leasehold: run {left['run']} goes on by itself; its sandbox lives for"
            f" {hours:.1f} h, the next worker of this host re-attaches to it\n"
        )


def report(agent: Agent) -> None:
    """Say what goes on after an agent's drain."""
    say_what_goes_on(agent.still_running)


def run(
    settings: Settings, plan: Plan, *, on_started: Callable[[Agent], None] | None = None
) -> Agent:
    """Run an agent in this thread until SIGTERM or SIGINT; return it after its drain."""
    agent = Agent(settings, plan)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        agent.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if on_started is not None:
        on_started(agent)
    agent.run()
    return agent
