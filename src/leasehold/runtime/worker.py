"""
What one worker process works with: plugins, context, the watchers of its own threads.

Built after the fork, once. The interrupts thread looks, while provider calls are under way,
whether their runs are to end, so that a cancel does not wait for an image pull. Exits that a
provider's watcher sees are taken up in this process, without a hop through the broker.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from leasehold import seams
from leasehold.bootstrap import App
from leasehold.errors import LeaseholdError, StoreUnavailableError
from leasehold.feed import Feed
from leasehold.ids import start_number
from leasehold.log import get_logger
from leasehold.orchestrator import chain, claiming, vetting
from leasehold.orchestrator.jobs import Context, Job, Message
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Health, HealthState, Info
from leasehold.provider.registry import Registry
from leasehold.runtime.sweeper import Sweeper
from leasehold.store import hosts, runs
from leasehold.store.runs import find

log = get_logger(__name__)
_INTERRUPT_EVERY_S: Final = 0.5
_WATCH_THREADS: Final = 4
_EXIT_TRIES: Final = 40
_EXIT_WAIT_S: Final = 0.05


class WorkerRuntime:
    """The parts of one worker process (`steps` or `beats`)."""

    def __init__(
        self,
        app: App,
        *,
        kind: str,
        worker_id: str,
        host_id: str,
        session_id: str,
        publish: Callable[[Message], bool | None],
        nudge: Callable[[], None],
        guard: Any,
        feed: Feed | None = None,
    ) -> None:
        self.app, self.kind = app, kind
        self.worker_id, self.host_id, self.session_id = worker_id, host_id, session_id
        self._guard = guard
        self.registry: Registry = app.registry(host_id)
        self.interrupts: dict[str, str] = {}
        self.feed = feed or Feed()
        self.context: Context = app.context(
            publish=publish,
            worker_id=worker_id,
            nudge=nudge,
            providers=self.registry,
            guard=guard,
            interrupts=self.interrupts,
            sticky=kind == "steps",
            on_step=self.feed.on_step,
        )
        self._busy = 0
        self._busy_lock = threading.Lock()
        self._stop = seams.flag()
        self._exits = seams.pool(_WATCH_THREADS, name="exit")
        self.queues: list[str] = []
        self._unproven: list[str] = []
        """Providers whose health is still what another worker of this host said."""

    def advertise(self) -> list[str]:
        """
        Say in SQL what this host serves; return the queues to consume.

        What decides about no queue and was advertised here as healthy, in this version, is not
        probed again until this worker consumes: probes take time, and work may be waiting.
        """
        queues = ["leasehold", f"leasehold.host.{self.host_id}"]
        with self.app.database.read() as tx:
            known = hosts.versions(tx, self.host_id)
        adverts = []
        for key in self.registry.keys():  # noqa: SIM118  a method, not a mapping
            provider = self.registry.require(key)
            info = provider.describe()
            if info.capabilities.host_bound and known.get(key) == info.version:
                self._unproven.append(key)
                continue
            health = _probe(provider)
            if health.state is HealthState.HEALTHY and not info.capabilities.host_bound:
                queues.append(f"leasehold.provider.{key}")
            adverts.append(advertised(info, health))
        with self.app.database.write("worker.advertise") as tx:
            for advert in adverts:
                hosts.advertise(tx, self.host_id, advert)
            for key, why in self.registry.failures.items():
                hosts.advertise(tx, self.host_id, failed(key, why))
            keep = [*self.registry.keys(), *self.registry.failures]
            hosts.withdraw(tx, self.host_id, keep=keep)
        if self.kind == "beats":
            queues = [f"{queue}.beat" for queue in queues]
        self.queues = queues
        self.context.queues = frozenset(queues)
        return queues

    def start(self) -> None:
        """Watch for exits on this host and for runs that are to end."""
        for key in self.registry.keys():  # noqa: SIM118  a method, not a mapping
            provider = self.registry.require(key)
            if provider.describe().capabilities.watch:
                provider.watch(self._on_exit)
        seams.thread(self._watch_ends, name="interrupts").start()
        if self.kind == "beats":
            sweeper = Sweeper(
                self.context,
                self.registry,
                host_id=self.host_id,
                wanted=self._guard.wanted,
                stop=self._stop,
            )
            seams.thread(sweeper.loop, name="sweep").start()

    def prove(self) -> None:
        """Probe what `advertise` has left for later, and say what came of it."""
        while self._unproven:
            provider = self.registry.require(self._unproven[0])
            advert = advertised(provider.describe(), _probe(provider))
            try:
                with self.app.database.write("worker.prove") as tx:
                    hosts.advertise(tx, self.host_id, advert)
            except StoreUnavailableError as error:
                # What stands there was true for the worker before: the next one says it.
                log.warning("worker.health_unsaid", provider=advert["key"], why=str(error))
            self._unproven.pop(0)

    def stop(self) -> None:
        self._stop.set()
        self._exits.shutdown(wait=True, cancel_futures=True)

    def handle(self, message: Message) -> bool:
        """Do what a message asks for; False if its row is not as the message says."""
        with self._counted():
            return chain.run_message(self.context, message)

    def answer(self, check_id: str) -> None:
        """Say what a provider thinks of a config; a question that is over is passed by."""
        with self._counted():
            vetting.answer(self.context, check_id)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count jobs under way, so that an idle worker asks SQL nothing."""
        with self._busy_lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._busy_lock:
                self._busy -= 1

    def _on_exit(self, execution_id: str) -> None:
        try:
            self._exits.submit(self._take_up, execution_id)
        except RuntimeError:
            log.debug("exit.unseen", execution=execution_id)

    def _take_up(self, execution_id: str) -> None:
        """Record an exit that was seen; whoever holds the run now is waited for shortly."""
        run_id = execution_id.split(".", 1)[0]
        number = start_number(execution_id)
        if number is None:
            # A question of ours to the sandbox, whose asker listens by himself (`choosing`).
            return
        try:
            with self._counted(), self.feed.chain(None):
                for _ in range(_EXIT_TRIES):
                    job, wait = self._claim_exit(run_id, execution_id, number)
                    if job is not None:
                        chain.run_job(self.context, job)
                        return
                    if not wait or self._stop.wait(_EXIT_WAIT_S):
                        return
        except LeaseholdError as error:
            # The beat finds it: only latency is lost.
            log.info("exit.left_to_beat", run=run_id, why=str(error))

    def _claim_exit(
        self, run_id: str, execution_id: str, number: int
    ) -> tuple[Job | None, bool]:
        """
        Claim the run for the exit of its start `number`; else say whether to wait for it.

        What ended before the run's latest start is recorded long since. A claim for it would
        have to seize the sandbox, and a command that is starting there would never start.
        """
        self.context.check_trust()
        tried: tuple[str, int] | None = None
        try:
            with self.app.database.write("exit.claim") as tx:
                run = find(tx, run_id)
                if run is None or run["status"] != "running" or run["lease_id"] is None:
                    return None, False
                if run["starts"] != number:
                    return None, False
                if run["claimed_by"] is not None or run["step"] != "heartbeat":
                    return None, True
                fence = runs.lease_fence(tx, run["lease_id"])
                tried = run["lease_id"], fence + 1
                job = claiming.claim_run(tx, self.context, run_id, fence=fence)
                if job is None:
                    return None, True
                if job.execution is None or job.execution["id"] != execution_id:
                    job.taken_over = True
                else:
                    # Nobody acted between the start and this look but pure beats.
                    job.taken_over = job.end_requested is not None
                return job, False
        except StoreUnavailableError:
            if tried is not None:
                # The answer may be lost and the claim ours: nobody would ever work on it.
                lease_id, fence = tried
                if self.context.holds.has(lease_id, fence):
                    # It was not: a message's thread has it, under the same fence.
                    raise
                claiming.abandon(self.context, run_id=run_id, lease_id=lease_id, fence=fence)
            raise

    def _watch_ends(self) -> None:
        while not self._stop.wait(_INTERRUPT_EVERY_S):
            if not self._busy:
                self.interrupts.clear()
                continue
            try:
                with self.app.database.read() as tx:
                    ending = runs.to_end_of(tx, self.worker_id)
            except StoreUnavailableError:
                continue
            for run_id in set(self.interrupts) - set(ending):
                self.interrupts.pop(run_id, None)
            for run_id, kind in ending.items():
                self.interrupts[run_id] = f"the run is to end ({kind})"


def _probe(provider: Any) -> Health:
    try:
        health: Health = provider.probe({}, budget=Budget(10.0))
    except Exception as error:  # noqa: BLE001  a plugin's fault must not stop the worker
        return Health(state=HealthState.UNHEALTHY, summary=f"its probe failed: {error}")
    return health


def advertised(info: Info, health: Health) -> dict[str, Any]:
    """Return the row of a loaded plugin."""
    from dataclasses import asdict

    capabilities = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in asdict(info.capabilities).items()
    }
    return {
        "key": info.key,
        "version": info.version,
        "health": health.state.value,
        "summary": health.summary,
        "host_bound": info.capabilities.host_bound,
        "capacity": health.capacity,
        "capabilities": capabilities,
        "config_schema": dict(info.config_schema),
    }


def failed(key: str, why: str) -> dict[str, Any]:
    """Return the row of a plugin that could not be loaded."""
    return {
        "key": key,
        "version": "",
        "health": HealthState.UNDETECTED.value,
        "summary": why,
        "host_bound": True,
        "capacity": None,
        "capabilities": {},
        "config_schema": {},
    }
