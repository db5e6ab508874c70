"""
The deployment's database: the real `Database` on SQLite in memory, with a bad connection.

A transaction is atomic here as there: nobody else runs between its first statement and its
commit. Before it, the database may be away, refuse or stall; at the commit the connection may
be cut before it or after it, so that its answer is lost; after it the thread may be late.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TypeAlias

import sqlalchemy as sa
from sqlalchemy import event

from leasehold.errors import StoreUnavailableError
from leasehold.simulation.scheduler import YEAR_2026_US, Killed, Scheduler
from leasehold.simulation.weather import Weather
from leasehold.store import environments, schema
from leasehold.store.database import Begun, Database, Tx

Line: TypeAlias = tuple[str, str | None, str | None, str, str, str | None]
"""Tenant, run, lease, name, data and actor of one line of history."""


@cache
def template() -> bytes:
    """Return a migrated database, as SQLite keeps it in a file."""
    database = Database("sqlite://", pool_size=1)
    schema.upgrade(database)
    with database.write("template") as tx:
        environments.set_fact(tx, "deployment", "simulated")
    with database.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        data = raw.serialize()
    database.close()
    return data


class _Kept:
    """The one connection, and its transactions one after the other."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        self._raw = raw

    def __enter__(self) -> "_Kept":
        assert not self._raw.in_transaction, "a transaction inside of another one"
        return self

    def commit(self) -> None:
        self._raw.commit()

    def __exit__(self, *_: object) -> None:
        if self._raw.in_transaction:
            self._raw.rollback()


class SimDatabase(Database):
    """One database for all processes; whoever asks is known by the scheduler."""

    def __init__(self, scheduler: Scheduler, weather: Weather) -> None:
        super().__init__("sqlite://", pool_size=1, wall_us=self._wall)
        self._scheduler, self._weather = scheduler, weather
        self.away_until = 0.0
        self.outages: list[tuple[float, float]] = []
        self.jump_us = 0
        """How far the wall clock of its server is off."""

        self.on_commit: Callable[[str, list[Line]], None] = lambda _name, _lines: None
        """Told of each commit that happened, whether its answer arrives or not."""

        self.open: str | None = None
        """The transaction that somebody is inside of: nobody may wait or call out there."""

        self._pending: tuple[str, list[Line]] | None = None
        self._kept: _Kept | None = None
        self.raw: sqlite3.Connection

        @event.listens_for(self.engine, "connect")
        def connected(raw: sqlite3.Connection, _record: object) -> None:
            raw.deserialize(template())
            self.raw = raw

    def _wall(self) -> int:
        return int(self._scheduler.now * 1e6) + YEAR_2026_US + self.jump_us

    def _transaction(self) -> AbstractContextManager[Begun]:
        # One connection for all: a pool's would cost more than most transactions.
        if self._kept is None:
            self._kept = _Kept(self.engine.connect())
        return self._kept

    @contextmanager
    def write(self, name: str) -> Iterator[Tx]:
        self._reach()
        with super().write(name) as tx:
            self.open = name
            try:
                yield tx
                self._pending = (name, list(tx.history))
            finally:
                self.open = None

    @contextmanager
    def read(self) -> Iterator[Tx]:
        self._reach()
        with super().read() as tx:
            self.open = "read"
            try:
                yield tx
            finally:
                self.open = None

    def close(self) -> None:
        if self._kept is not None:
            self._kept.connection.close()
        super().close()

    def go_away(self, seconds: float) -> None:
        """Answer nobody for a while."""
        now = self._scheduler.now
        self.away_until = max(self.away_until, now + seconds)
        self.outages.append((now, now + seconds))

    def come_back(self) -> None:
        now = self._scheduler.now
        self.outages = [(start, min(end, now)) for start, end in self.outages]
        self.away_until = now

    def at_commit(self, name: str) -> None:
        """Hear of a point of a commit: ``commit.<name>:before`` or ``:after``."""
        before = name.endswith(":before")
        if not before and self._pending is not None:
            pending, self._pending = self._pending, None
            self.on_commit(*pending)
        if self._weather.strikes("process.killed"):
            actor = self._scheduler.current
            assert actor is not None
            self._scheduler.kill(actor.process)
            raise Killed
        if self._weather.strikes("commit.cut" if before else "commit.answer_lost"):
            self._scheduler.trace("the connection is cut")
            raise StoreUnavailableError("the connection was cut")

    def _reach(self) -> None:
        scheduler, weather = self._scheduler, self._weather
        actor = scheduler.current
        if actor is None:
            return
        scheduler.die_if_dead()
        if weather.strikes("database.slow"):
            scheduler.sleep(weather.some(0.05, 8.0))
        if actor.process.host.cut or scheduler.now < self.away_until:
            # A server that is away refuses at once or lets the caller wait.
            scheduler.sleep(scheduler.rng.choice((0.001, 0.2, 5.0)))
            raise StoreUnavailableError("the database does not answer")
        if weather.strikes("database.refused"):
            raise StoreUnavailableError("the database refuses")
