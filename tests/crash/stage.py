"""
Several workers of one deployment in the test's own process, on either kind of database.

One of them may be stopped at a point, in a thread of its own, while the others go on: what a
process is that was paused by its kernel, its host or a debugger, and wakes up too late.
"""

import threading
from collections.abc import Callable
from typing import Any, Self

import structlog

from crash.harness import Cell, Engine, furnish
from leasehold import seams
from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.orchestrator import chain
from leasehold.orchestrator.jobs import Message
from leasehold.store import history, hosts, invariants
from leasehold.store.database import Database

TABLES = ("runs", "leases", "executions", "events", "output_chunks")
WAIT_S = 20.0


class Stage:
    """One deployment and the workers that act in it."""

    def __init__(self, cell: Cell, url: str, *, furnished: bool) -> None:
        self.cell = cell
        self.url = url
        self.engines: list[Engine] = []
        self.database = Database(url)
        # Traces of what goes wrong on purpose, drawn in colours, would take most of the time.
        self._logging = structlog.get_config()
        structlog.configure(
            processors=[structlog.processors.KeyValueRenderer()],
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )
        if not furnished:
            furnish(cell, Database(url))

    def engine(self, worker_id: str, *, own_session: bool = False, **context: Any) -> Engine:
        """Start a worker; with a session of its own, it seems to live on another agent."""
        session_id = f"session-{worker_id}" if own_session else "session"
        engine = Engine(
            self.cell, worker_id, database=Database(self.url), session_id=session_id, **context
        )
        if own_session:
            with engine.database.write("session.start") as tx:
                hosts.start_session(tx, session_id, host_id=engine.runtime.host_id, pid=1)
        engine.boot()
        self.engines.append(engine)
        return engine

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return everything that a stale holder might change."""
        with self.database.read() as tx:
            return {
                table: tx.all(
                    f"SELECT * FROM {table} ORDER BY"
                    + (" execution_id, stream, start" if table == "output_chunks" else " id")
                )
                for table in TABLES
            }

    def check(self) -> None:
        """Nothing is broken, and the sandboxes are those of the live leases."""
        with self.database.read() as tx:
            assert not (violations := invariants.check(tx)), violations
            assert not (differences := history.verify(tx)), differences
        engine = self.engines[-1]
        live = [row["id"] for row in engine.leases() if row["status"] not in LEASE_ENDS]
        assert engine.owned() == sorted(live)

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
        self.database.close()
        self.cell.end()
        structlog.configure(**self._logging)


class MissedError(AssertionError):
    """The worker has done its work and never passed the point."""


class Paused:
    """A worker in a thread of its own that stops at a point until it is woken."""

    def __init__(self, act: Callable[[], object], *, point: str, nth: int = 1) -> None:
        self._act, self._point, self._left = act, point, nth
        self._here, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listening = seams.listening(self._passed)
        self.error: BaseException | None = None

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as error:
            self.error = error

    def _passed(self, name: str) -> None:
        if threading.current_thread() is not self._thread or name != self._point:
            return
        self._left -= 1
        if not self._left:
            self._here.set()
            assert self._go.wait(WAIT_S)

    def __enter__(self) -> Self:
        self._listening.__enter__()
        self._thread.start()
        while not self._here.wait(0.01):
            if not self._thread.is_alive() and not self._here.is_set():
                self._listening.__exit__(None, None, None)
                assert self.error is None, self.error
                raise MissedError(f"it never came to {self._point}")
        return self

    def wake(self) -> None:
        """Let it go on, and wait until it has no more to do."""
        self._go.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        assert self.error is None, self.error

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join(WAIT_S)
        self._listening.__exit__(None, None, None)


def next_message(engine: Engine) -> Message:
    """Take the one message that lies in a worker's inbox."""
    item = engine.inbox.get_nowait()
    assert isinstance(item, Message)
    return item


def working_until_over(engine: Engine, key: str) -> Callable[[], object]:
    """Return what carries a run on to its end, whether a look or the watch sees its exit."""
    message = next_message(engine)

    def act() -> None:
        chain.run_message(engine.context, message)
        while not engine.over(key):
            engine.handle(engine.inbox.get(timeout=10))

    return act


def working(engine: Engine) -> Callable[[], object]:
    """Return what carries the run on whose message the worker has."""
    message = next_message(engine)
    return lambda: chain.run_message(engine.context, message)
