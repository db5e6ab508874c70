"""
``celery -A leasehold.celery_app worker``: a worker that is its own agent.

The process holds its own session and clock beside its Celery worker, and starts the beat lane
as a child (Celery's threads pool is one pool for all queues; a flood of acquires must not
delay the beats). Only the threads pool is served: a prefork child's death would go unseen.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from celery import Celery, signals
from kombu import Exchange

from leasehold import bootstrap, log, tasks, transport
from leasehold import settings as knobs
from leasehold.agent import child as worker_process
from leasehold.agent.agent import ledger_of, say_what_goes_on
from leasehold.agent.child import Orders
from leasehold.agent.children import Child, Children
from leasehold.errors import LeaseholdError, StoreUnavailableError
from leasehold.feed import Feed
from leasehold.ids import new_id
from leasehold.orchestrator import draining
from leasehold.runtime import courier
from leasehold.runtime.canary import Canary
from leasehold.runtime.guard import Beacon, BeaconGuard
from leasehold.runtime.keeper import Keeper
from leasehold.runtime.ticker import Ticker
from leasehold.runtime.worker import WorkerRuntime
from leasehold.settings import Settings

__all__ = ["standalone"]
_TURN_S = 0.5
_DRAIN_S = 30.0


class _Alone:
    """The agent's parts inside one Celery worker process."""

    def __init__(self, settings: Settings, celery: Celery, feed: Feed) -> None:
        self.settings, self.celery = settings, celery
        self.app = bootstrap.build(settings, pool_size=settings.worker_threads + 6)
        self.host_id = bootstrap.host_id_of(settings.host_home)
        self.session_id = new_id()
        self.beacon = Beacon(settings.host_home / f"session-{self.session_id}.beacon")
        self.keeper = Keeper(
            self.app.database,
            session_id=self.session_id,
            beacon=self.beacon,
            beat_every_s=self.app.timers.beat_every.total_seconds(),
            ledger=ledger_of(settings.host_home, self.app),
        )
        # A lost session cannot be mended from inside: leave, the supervisor starts us anew.
        self.keeper.on_lost = lambda: os._exit(70)
        publish = transport.Publisher(celery)
        context = self.app.context(publish=publish, worker_id=f"agent-{self.session_id}")
        self.ticker = Ticker(
            context,
            batch=settings.clock_batch,
            session_id=self.session_id,
            courier=courier.make(self.app, context),
        )
        context.nudge = self.ticker.nudge
        self.runtime = WorkerRuntime(
            self.app,
            kind="steps",
            worker_id=new_id(),
            host_id=self.host_id,
            session_id=self.session_id,
            publish=publish,
            nudge=self.ticker.nudge,
            guard=BeaconGuard(
                self.beacon.path, trust_s=self.app.timers.holder_trust.total_seconds()
            ),
            feed=feed,
        )
        self.children = Children(
            self.app.database,
            orders=self._orders,
            nudge=self.ticker.nudge,
            silent_s=self.app.timers.child_silent.total_seconds(),
        )
        self.children.add("beats", threads=1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="children", daemon=True)

    def _orders(self, slot: Child) -> Orders:
        return Orders(
            kind=slot.kind,
            worker_id=slot.worker_id,
            session_id=self.session_id,
            host_id=self.host_id,
            beacon=str(self.beacon.path),
            parent=os.getpid(),
            threads=slot.threads,
        )

    def start(self) -> list[str]:
        """Begin the session; return the queues to consume."""
        self.keeper.start(
            host_id=self.host_id,
            host_name=bootstrap.host_name(),
            capacity=bootstrap.host_capacity(self.settings),
            pid=os.getpid(),
            labels=self.settings.host_labels,
        )
        worker_process.enlist(self.runtime)
        queues = self.runtime.advertise()
        tasks.register(self.celery, self.runtime)
        worker_process.follow(self.runtime)
        self.runtime.start()
        self.ticker.start()
        self._thread.start()
        return queues

    def listen(self, worker: Any) -> None:
        """Prove consumption; a deaf worker ends, and the supervisor starts us anew."""
        canary = Canary(
            self.celery,
            worker_id=self.runtime.worker_id,
            threads=worker.concurrency,
            timers=self.app.timers,
        )
        queue = self.celery.amqp.queues[canary.queue]
        worker.app.amqp.queues.select_add(queue)
        queue.exchange = Exchange("")  # Celery has given it one
        canary.attach()

    def _loop(self) -> None:
        while not self._stop.is_set():
            self.children.turn(_TURN_S)

    def stop(self) -> None:
        """Drain: steps end, commands go on, and we say which."""
        self._stop.set()
        self._thread.join(timeout=5)
        self.children.drain(grace_s=_DRAIN_S)
        self.runtime.stop()
        try:
            context = self.runtime.context
            left = draining.leave_running(context, host_id=self.host_id)
            self.ticker.stop()
            self.keeper.stop()
        except StoreUnavailableError as error:
            log.get_logger(__name__).warning("agent.drain_unsure", why=str(error))
        else:
            say_what_goes_on(left)


def standalone(settings: Settings) -> Celery:
    """
    Return a Celery application whose worker brings its own session, clock and beat lane.

    Celery swallows what a signal's receiver raises, except `SystemExit`: whatever keeps the
    worker from working ends its process there, in one line, before it has consumed anything.
    """
    log.configure(level=settings.log_level, as_json=settings.log_json)
    celery, feed = transport.make(settings), Feed()
    worker_process.equip(celery, feed)
    started: list[_Alone] = []

    @signals.celeryd_init.connect(weak=False)
    def refuse(options: dict[str, Any], **_: Any) -> None:
        if (pool := wrong_pool(options.get("pool_cls"), sys.argv)) is not None:
            _leave(
                f"pool {pool!r}: Leasehold runs on --pool=threads only, since the death of a"
                " pool's child process would go unseen and its run would wait for a timeout"
            )

    @signals.celeryd_after_setup.connect(weak=False)
    def begin(instance: Any, **_: Any) -> None:
        worker_process.not_dumpable()
        try:
            alone = _Alone(settings, celery, feed)
            started.append(alone)
            queues = alone.start()
        except LeaseholdError as error:
            _leave(str(error))
        except Exception as error:  # noqa: BLE001  Celery would go on without a session
            _leave(f"{type(error).__name__}: {error}")
        for queue in queues:
            instance.app.amqp.queues.select_add(queue)
        alone.listen(instance)

    @signals.worker_shutdown.connect(weak=False)
    def end(**_: Any) -> None:
        for alone in started:
            alone.stop()

    return celery


def wrong_pool(pool_cls: Any, argv: Sequence[str]) -> str | None:
    """
    Return the pool that the worker was asked for, if it is not `threads`.

    Celery takes ``--pool=prefork`` for its own default and replaces it silently by the
    configured one, so the words of the command line are looked at too.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-P", "--pool")
    with suppress(argparse.ArgumentError):
        asked, _ = parser.parse_known_args([word for word in argv if word != "-h"])
        if asked.pool not in {None, "threads"}:
            return str(asked.pool)
    name = pool_cls if isinstance(pool_cls, str) else getattr(pool_cls, "__module__", "")
    return None if pool_cls is None or "thread" in name else name.rpartition(".")[2]


def _leave(why: str) -> NoReturn:
    sys.stderr.write(f"leasehold: {why}\n")
    sys.stderr.flush()
    raise SystemExit(1)


def __getattr__(name: str) -> Any:
    """Build the application when Celery's command line asks for it."""
    if name in {"app", "celery"}:
        try:
            built = standalone(knobs.load())
        except LeaseholdError as error:
            _leave(str(error))
        globals()["app"] = globals()["celery"] = built
        return built
    raise AttributeError(name)
