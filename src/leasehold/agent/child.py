"""
One worker process of an agent: a Celery worker on the threads pool, and its runtime.

It lives on two ropes. The pipe to its agent: it writes a byte to be alive, to nudge the
clock, and when it consumes. And the kernel's parent-death signal: if the agent is killed, it
drains and exits, within half a minute whatever hangs, while the commands that it started go on
by themselves.

Run as ``python -m leasehold.agent.child PIPE``. It imports all that it will need, and then
reads its orders, one JSON line on standard input: they may be there already, or come when
somebody has died (`children`). None at all mean that the agent is gone.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_ready, worker_shutting_down

from leasehold import bootstrap, log, poison, seams, tasks, transport
from leasehold import settings as knobs
from leasehold.domain.lifecycle import WorkerStatus
from leasehold.errors import StoreUnavailableError
from leasehold.feed import Feed
from leasehold.orchestrator.claiming import waits
from leasehold.provider import registry
from leasehold.runtime.canary import Canary
from leasehold.runtime.guard import BeaconGuard
from leasehold.runtime.latch import Latch
from leasehold.runtime.worker import WorkerRuntime
from leasehold.settings import Settings
from leasehold.store import hosts
from leasehold.store.database import Database

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
ALIVE: Final = b"."
NUDGE: Final = b"!"
READY: Final = b"+"
_ALIVE_EVERY_S: Final = 1.0
ALONE_S: Final = 30.0
"""How long a worker may finish its steps after its agent's death."""

_NEEDED: Final = (
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.apps.worker",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.concurrency.thread",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "leasehold.provider.fake",
)
"""What is else imported only when a worker starts."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What an agent tells its child."""

    kind: str
    worker_id: str
    session_id: str
    host_id: str
    beacon: str
    parent: int
    threads: int

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def main() -> None:
    """Get warm, read the orders, and work until told to stop."""
    pipe = int(sys.argv[1])
    threading.Thread(target=_stay_alive, args=(pipe,), daemon=True).start()
    not_dumpable()
    settings = knobs.load()
    log.configure(level=settings.log_level, as_json=settings.log_json)
    celery = warm(settings)
    # Heard once, a spare is judged by what is heard of it since; before, it may be importing.
    _say(pipe, ALIVE)
    log.get_logger(__name__).info("worker.warm", pid=os.getpid())
    line = sys.stdin.readline()
    if not line:
        return
    orders = Orders(**json.loads(line))
    tie_to(orders.parent)
    app = bootstrap.build(settings, pool_size=orders.threads + 4)
    runtime = WorkerRuntime(
        app,
        kind=orders.kind,
        worker_id=orders.worker_id,
        host_id=orders.host_id,
        session_id=orders.session_id,
        publish=transport.Publisher(celery),
        nudge=lambda: _say(pipe, NUDGE),
        guard=BeaconGuard(Path(orders.beacon), trust_s=app.timers.holder_trust.total_seconds()),
    )

    @worker_ready.connect(weak=False)
    def consumes(**_: Any) -> None:
        _say(pipe, READY)

    serve(celery, runtime, threads=orders.threads)


def warm(settings: Settings) -> Celery:
    """Import what a worker needs and return its Celery; nothing is connected to."""
    for name in _NEEDED:
        importlib.import_module(name)
    Database(settings.database_address).close()
    registry.preload()
    celery = transport.make(settings)
    celery.finalize()
    celery.connection_for_write().transport_cls  # noqa: B018  imports the broker's client
    return celery


def serve(celery: Celery, runtime: WorkerRuntime, *, threads: int) -> None:
    """Consume this worker's queues until a warm shutdown."""
    settings = runtime.app.settings
    enlist(runtime)
    queues = runtime.advertise()
    tasks.register(celery, runtime)
    equip(celery, runtime.feed)
    timers = runtime.app.timers
    canary = Canary(celery, worker_id=runtime.worker_id, threads=threads, timers=timers)
    canary.attach()
    runtime.start()
    follow(runtime)
    name = f"{runtime.kind}-{runtime.worker_id[-8:]}@{bootstrap.host_name()}"
    arguments = [
        "--quiet",
        "worker",
        "--pool=threads",
        f"--concurrency={threads}",
        f"--queues={','.join([*queues, canary.queue])}",
        f"--hostname={name}",
        "--without-gossip",
        "--without-mingle",
    ]
    if settings.events:
        arguments.append("--events")
    else:
        arguments.append("--without-heartbeat")
    try:
        celery.worker_main(arguments)
    finally:
        runtime.stop()


def equip(celery: Celery, feed: Feed) -> None:
    """Give a Celery worker poison guard, Flower's feed and our log; before it is made."""
    # Celery sends this one from inside its handler of TERM, under a lock: with one that is not
    # reentrant, a second TERM on top of the first waits for its own thread for ever.
    worker_shutting_down.lock = threading.RLock()  # type: ignore[attr-defined]  # not in the stubs
    poison.install(celery)
    feed.attach(celery)
    # A receiver means that Celery leaves logging alone: `log.configure` has done it.
    setup_logging.connect(_logging_is_ours)
    # Celery's advice against root is about pickle, which is never read here.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def _logging_is_ours(**_: Any) -> None:
    """Exist."""


def enlist(runtime: WorkerRuntime) -> None:
    """Write the worker's row: it starts."""
    from leasehold import __version__

    with runtime.app.database.write("worker.enlist") as tx:
        hosts.add_worker(
            tx,
            {
                "id": runtime.worker_id,
                "session_id": runtime.session_id,
                "host_id": runtime.host_id,
                "kind": runtime.kind,
                "pid": os.getpid(),
                "version": __version__,
                "queues": [],
            },
        )


def say_ready(runtime: WorkerRuntime) -> None:
    """Write that this worker consumes, whenever the database takes it."""
    for wait in waits():
        try:
            with runtime.app.database.write("worker.ready") as tx:
                hosts.worker_ready(tx, runtime.worker_id, queues=runtime.queues)
        except StoreUnavailableError as error:
            log.get_logger(__name__).warning("worker.ready_unsaid", why=str(error))
        except Exception:  # noqa: BLE001  said below, and tried again
            # A read-only standby, a schema that is being restored: a worker that consumes and
            # never says so is one that nobody counts on, and nobody replaces.
            log.get_logger(__name__).exception("worker.ready_fault")
        else:
            runtime.context.nudge()
            runtime.prove()
            return
        seams.sleep(wait)


def follow(runtime: WorkerRuntime) -> None:
    """Write the worker's status as Celery tells of it."""

    @worker_ready.connect(weak=False)
    def ready(**_: Any) -> None:
        # Celery would log a database that is away now, and nobody would say it again.
        seams.thread(lambda: say_ready(runtime), name="ready").start()

    told = Latch()

    def say_draining() -> None:
        told.wait()
        try:
            with runtime.app.database.write("worker.draining") as tx:
                hosts.move_worker(tx, runtime.worker_id, WorkerStatus.DRAINING)
        except StoreUnavailableError as error:
            log.get_logger(__name__).warning("worker.draining_unsaid", why=str(error))

    @worker_shutting_down.connect(weak=False)
    def draining(**_: Any) -> None:
        # We are inside a signal handler, so this thread may be in the middle of a transaction,
        # or of this handler for the TERM before: who takes a lock here may wait for itself.
        told.set()

    threading.Thread(target=say_draining, name="draining", daemon=True).start()


def tie_to(parent: int) -> None:
    """Ask the kernel for TERM when the agent dies; it may have died already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def not_dumpable() -> None:
    """Keep our memory from commands that run under the same uid."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def _say(pipe: int, word: bytes) -> None:
    # A full pipe means that the agent has enough to read; a broken one, that it is gone.
    try:
        os.write(pipe, word)
    except OSError:
        return


def _stay_alive(pipe: int) -> None:
    os.set_blocking(pipe, False)
    pause = threading.Event()
    parent, alone_s = os.getppid(), 0.0
    while not pause.wait(_ALIVE_EVERY_S):
        _say(pipe, ALIVE)
        if os.getppid() != parent:
            alone_s += _ALIVE_EVERY_S
        if alone_s > ALONE_S:
            # A step that hangs, a database that never comes back: whose agent is dead has lost
            # its session, so others may have what it holds, and nobody will kill it.
            os._exit(72)


if __name__ == "__main__":
    main()
