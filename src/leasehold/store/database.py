"""
One database: its engine, its transactions, its clock.

The database referees everything, so what a transaction means is said here, once. On
PostgreSQL it is READ COMMITTED with row locks; on SQLite ``BEGIN IMMEDIATE`` under one lock
per process, so that writers queue in order instead of polling for the file's lock.

`db_now` is the database's clock plus the stored offset (`domain.pace`): on PostgreSQL a
function of the schema, ``leasehold_now()``; on SQLite a function of that name for the wall
clock, which a simulator may drive, and the offset beside it. Time is never taken from
``now()``, which stands still inside a transaction.

Killed inside a transaction: the database rolls back. Killed while a commit is under way: ids
were chosen before, so the same question is asked again and answered by the rows.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, Protocol, TypeAlias

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import create_engine

from leasehold.errors import LostClaimError, SchemaError, StoreUnavailableError
from leasehold.seams import point
from leasehold.store import sqlite
from leasehold.store.sql import combined, ready

Row: TypeAlias = dict[str, Any]
SQLITE_MIN: Final = (3, 37, 0)

_NAMES: Final[dict[tuple[str, str], tuple[str, ...]]] = {}
_NAMES_MAX: Final = 2000
"""Statements whose columns are remembered; texts with lists of ids differ by their length."""

_PREPARED: Final = 300
"""Statements that a connection keeps prepared; the driver's own 100 are fewer than ours."""


def host_us() -> int:
    """Return the host's wall clock: `db_now()` of SQLite, where we are the server."""
    return time.time_ns() // 1000


class Tx:
    """One open transaction; what store and orchestrator functions take."""

    __slots__ = (
        "_cursor",
        "_pending",
        "_stamp",
        "after_commit",
        "before_commit",
        "connection",
        "dialect",
        "history",
        "statements",
    )

    def __init__(self, connection: sa.Connection, *, cursor: Any = None) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name
        self.after_commit: list[Callable[[], object]] = []
        """Run by the door once the commit is confirmed: publishes, nudges."""

        self.before_commit: list[Callable[[], None]] = []
        self.history: list[tuple[str, str | None, str | None, str, str, str | None]] = []
        """Lines of history that wait for the commit; see `moves.record`."""

        self.statements = 0
        self._pending: list[tuple[str, str, Mapping[str, Any], str | None]] = []
        self._stamp: int | None = None
        self._cursor: Any = _cursor(connection) if cursor is None else cursor

    def execute(self, text: str, params: Mapping[str, Any]) -> Any:
        """
        Send one ready statement through the driver's own cursor; return the cursor.

        SQLAlchemy gives the connection, the pool and its errors; its result objects would
        cost as much as the statement itself.
        """
        if self._pending:
            self.settle()
        return self.send(text, params)

    def later(
        self, table: str, text: str, params: Mapping[str, Any], *, what: str | None
    ) -> None:
        """
        Write to one row whose outcome is known: before the next statement or the commit.

        On PostgreSQL what has been gathered goes as one statement, since each costs as much
        in the driver and on the wire as in the database. Only for rows that are locked by
        this transaction or made by it.

        Args:
            what: The row, for the error if it was not there after all; None: it writes
                whatever rows there are to write, maybe none.
        """
        if any(table == other for other, *_ in self._pending):
            self.settle()
        self._pending.append((table, text, params, what))

    def settle(self) -> None:
        """
        Send the writes that wait.

        Raises:
            LostClaimError: A row was not as its holder had it.
        """
        pending, self._pending = self._pending, []
        if len(pending) > 1 and self.dialect == "postgresql":
            params = {
                f"w{number}_{name}": value
                for number, (_, _, values, _) in enumerate(pending)
                for name, value in values.items()
            }
            text = combined(tuple(text for _, text, _, _ in pending))
            counts = self.send(text, params).fetchone()
        else:
            counts = [self.send(text, values).rowcount for _, text, values, _ in pending]
        for count, (_, _, _, what) in zip(counts, pending, strict=True):
            if not count and what is not None:
                raise LostClaimError(f"{what} is not as it was held")

    def send(self, text: str, params: Mapping[str, Any]) -> Any:
        """Send one statement now; `execute`, without a look at the writes that wait."""
        sql, names = ready(text, self.dialect)
        self.statements += 1
        values = params if self.dialect == "sqlite" else [params[name] for name in names]
        try:
            return self._cursor.execute(sql, values)
        except self._errors as error:
            raise self._wrapped(sql, error) from error

    def begin(self, sql: str, *, busy_ms: int | None = sqlite.BUSY_MS) -> None:
        """
        Begin as SQLite must be told to; PostgreSQL's driver does it by itself.

        Args:
            busy_ms: How long to wait for a turn to write; None: nobody else can write.
        """
        try:
            if sql == sqlite.WRITE and busy_ms is not None:
                sqlite.take_turn(self._cursor, busy_ms=busy_ms)
            else:
                self._cursor.execute(sql)
        except self._errors as error:
            raise self._wrapped(sql, error) from error

    @property
    def _errors(self) -> type[Exception]:
        errors: type[Exception] = self.connection.dialect.dbapi.Error  # type: ignore[union-attr]  # a real dialect has one
        return errors

    def _wrapped(self, sql: str, error: Exception) -> Exception:
        """Return SQLAlchemy's error for the driver's, as its own execution would raise."""
        dialect = self.connection.dialect
        gone = dialect.is_disconnect(
            error,  # type: ignore[arg-type]  # it is the driver's own class
            self.connection.connection.driver_connection,
            self._cursor,
        )
        if gone:
            self.connection.invalidate()
        return DBAPIError.instance(
            sql, None, error, self._errors, connection_invalidated=gone, dialect=dialect
        )

    def run(self, text: str, **params: Any) -> int:
        """Send a statement that returns no rows; return how many it touched."""
        return int(self.execute(text, params).rowcount)

    def all(self, text: str, **params: Any) -> list[Row]:
        cursor = self.execute(text, params)
        rows = cursor.fetchall()
        if not rows:
            return []
        names = self._names(text, cursor, count=len(rows[0]))
        return [dict(zip(names, row, strict=True)) for row in rows]

    def one(self, text: str, **params: Any) -> Row | None:
        cursor = self.execute(text, params)
        values = cursor.fetchone()
        if values is None:
            return None
        names = self._names(text, cursor, count=len(values))
        row = dict(zip(names, values, strict=True))
        if "now_us" in row:
            self._stamp = row["now_us"]
        return row

    def _names(self, text: str, cursor: Any, *, count: int) -> tuple[str, ...]:
        """
        Return the columns of a statement; asked of the driver once, since that is dear.

        Once more if there is another `count` of them: a migration came while we lived.
        """
        names = _NAMES.get((self.dialect, text))
        if names is None or len(names) != count:
            names = tuple(column[0] for column in cursor.description)
            if len(_NAMES) < _NAMES_MAX:
                _NAMES[self.dialect, text] = names
        return names

    def value(self, text: str, **params: Any) -> Any:
        row = self.execute(text, params).fetchone()
        return None if row is None else row[0]

    def now(self) -> int:
        """Return `db_now()`: microseconds since the epoch on the database's clock."""
        self._stamp = int(self.value("SELECT {now}"))
        return self._stamp

    def stamp(self) -> int:
        """Return `db_now()` as this transaction has seen it last; asked for once at most."""
        return self.now() if self._stamp is None else self._stamp


def _cursor(connection: sa.Connection) -> Any:
    """Return the driver's own cursor; PostgreSQL's leaves the text as it is."""
    if connection.dialect.name == "sqlite":
        return connection.connection.cursor()
    from psycopg import RawCursor

    return RawCursor(connection.connection.driver_connection)  # type: ignore[arg-type]  # it is psycopg's


class Begun(Protocol):
    """A transaction that was begun: rolled back unless it is committed."""

    @property
    def connection(self) -> sa.Connection: ...

    def commit(self) -> None: ...


_NO_TURN: Final = nullcontext()


class Database:
    """An engine and the rules for its transactions; one per process, made after a fork."""

    def __init__(
        self,
        url: str | sa.URL,
        *,
        pool_size: int = 5,
        statement_timeout_s: float = 8.0,
        wall_us: Callable[[], int] | None = None,
    ) -> None:
        self.url = sa.make_url(url)
        self.dialect = self.url.get_backend_name()
        self._writer = threading.RLock()
        self._wall_us = wall_us or host_us
        self.offset_us = 0
        """SQLite only: how far a test lets this process's wall clock be off."""

        self._busy_ms: int | None = None
        self._sqlite_now = sqlite.NowFunction(lambda: self._wall_us() + self.offset_us)
        if self.dialect == "sqlite":
            self.engine = sqlite.make_engine(self.url, self._sqlite_now, pool_size=pool_size)
            # What is in memory belongs to one connection.
            self._busy_ms = sqlite.BUSY_MS if self.url.database else None
        else:
            self.engine = self._postgresql(pool_size, statement_timeout_s)

    def _postgresql(self, pool_size: int, statement_timeout_s: float) -> sa.Engine:
        from psycopg.types.string import TextLoader

        timeout_ms = int(statement_timeout_s * 1000)
        url = self.url.set(drivername="postgresql+psycopg")
        engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=20,
            pool_pre_ping=False,
            connect_args={
                "connect_timeout": 5,
                "keepalives": 1,
                "keepalives_idle": 3,
                "keepalives_interval": 2,
                "keepalives_count": 2,
                "tcp_user_timeout": timeout_ms,
                "application_name": "leasehold",
                "options": (
                    f"-c statement_timeout={timeout_ms} -c lock_timeout={timeout_ms}"
                    f" -c idle_in_transaction_session_timeout={timeout_ms}"
                ),
            },
        )

        @event.listens_for(engine, "connect")
        def connected(raw: Any, _record: object) -> None:
            # Most JSON that a row brings is never looked at: `sql.load` decodes what is.
            for kind in ("json", "jsonb"):
                raw.adapters.register_loader(kind, TextLoader)
            raw.prepared_max = _PREPARED

        return engine

    def write(self, name: str) -> AbstractContextManager[Tx]:
        """
        Open a transaction that writes; leave it with commit, or by an error with rollback.

        `name` names its commit among the crash points (``commit.<name>:before``/``:after``).
        The transaction's `after_commit` calls run once the commit is confirmed.

        Raises:
            StoreUnavailableError: The database did not answer; whether a commit happened is
                unknown, so ask the rows again.
        """
        if self.dialect == "sqlite":
            return self._open(sqlite.WRITE, name, turn=self._writer)
        return self._open(None, name)

    def read(self) -> AbstractContextManager[Tx]:
        """Open a transaction that only reads."""
        return self._open("BEGIN" if self.dialect == "sqlite" else None, None)

    @contextmanager
    def _transaction(self) -> Iterator[Begun]:
        """Begin on a connection of the pool's, who gets it back."""
        with self.engine.connect() as connection, connection.begin() as transaction:
            yield transaction

    @contextmanager
    def _open(
        self,
        begin: str | None,
        name: str | None,
        *,
        turn: AbstractContextManager[object] = _NO_TURN,
    ) -> Iterator[Tx]:
        try:
            with turn, self._transaction() as transaction:
                tx = Tx(transaction.connection)
                if begin:
                    tx.begin(begin, busy_ms=self._busy_ms)
                yield tx
                for call in tx.before_commit:
                    call()
                tx.settle()
                if name:
                    point(f"commit.{name}:before")
                transaction.commit()
                if name:
                    point(f"commit.{name}:after")
        except sqlite3.OperationalError as error:
            self._sqlite_now.raise_kept(error)  # a later row of an answer
            raise
        except OperationalError as error:
            self._sqlite_now.raise_kept(error)
            if _say(error).startswith(("no such column", "no such table")):
                # SQLite has one error for "away" and for "not this schema".
                raise SchemaError(
                    f"{self.where()} is not of this code's schema: {_say(error)}"
                ) from error
            raise StoreUnavailableError(_say(error)) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise StoreUnavailableError(_say(error)) from error
            raise
        for call in tx.after_commit:
            call()

    def where(self) -> str:
        """Return the database's address without its password, for messages."""
        return self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        self.engine.dispose()


def _say(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if error.orig else str(error)
