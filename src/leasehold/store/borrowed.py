"""
A transaction of somebody else's, in a database that holds our tables beside theirs.

Theirs is the connection, its settings, its commit and its rollback. Ours are the statements,
sent through a cursor of our own, so that no row factory or loader of theirs changes what we
read. What may go wrong is refused before the first of them:

- **A driver** that is not the one of `store.database`: psycopg 3 or sqlite3, not asyncio.
- **No transaction**: with AUTOCOMMIT a rollback would leave the run behind.
- **An isolation level** other than READ COMMITTED on PostgreSQL: after waiting for a lock a
  snapshot would show the past. Whoever used the same key meanwhile would not be seen.
- **SQLite that only read so far**: we must be the one writer before we look. A transaction
  that saw an older state of the file can never be that; SQLite says "database is locked".
- **A savepoint on SQLite as Python's driver comes**: the driver begins a transaction at the
  first write only. A SAVEPOINT before that is the transaction itself, and its end commits.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from leasehold.errors import BadInputError
from leasehold.store import schema, sqlite
from leasehold.store.database import Tx
from leasehold.store.sqlite import NowFunction

_DRIVERS: Final = {"postgresql": "psycopg", "sqlite": "pysqlite"}
_LEVEL: Final = "read committed"
_CHECKED: Final = "leasehold_checked"
"""In the `info` of a connection: it knows our clock, its database has our schema."""

_LEGACY: Final = -1
"""`autocommit` of a sqlite3 connection that goes by its `isolation_level`."""

_LIMITS: Final = (
    "SELECT set_config('statement_timeout', :ms, true), set_config('lock_timeout', :ms, true),"
    " set_config('idle_in_transaction_session_timeout', :ms, true)"
)


def lend(connection: sa.Connection, now: NowFunction) -> Tx:
    """
    Return the transaction that is open on this connection, ready for our functions.

    Args:
        now: The clock of SQLite, which has none that we could ask.

    Raises:
        BadInputError: Nothing of ours can be done in it; says why and what to do.
        SchemaError: The database has no schema of ours, or another version's.
        OperationalError: SQLAlchemy's own: somebody else writes to the SQLite file.
    """
    _check_driver(connection)
    if not connection.in_transaction():
        raise BadInputError(
            "session: its connection is in no transaction; begin one", field="session"
        )
    checked = connection.info.get(_CHECKED, False)
    if connection.dialect.name == "sqlite":
        tx = Tx(connection, cursor=_plain_cursor(connection))
        if not checked:
            _raw(connection).create_function("leasehold_now", 0, now)
        _be_the_writer(tx)
    else:
        tx = Tx(connection, cursor=_raw_cursor(connection))
        _check_level(tx)
    if not checked:
        schema.check_connected(tx, where=connection.engine.url.render_as_string())
        connection.info[_CHECKED] = True
    return tx


def finish(tx: Tx) -> None:
    """Send what waits for the commit; that itself is not ours."""
    for call in tx.before_commit:
        call()
    tx.settle()


def limit(tx: Tx, *, seconds: float) -> None:
    """Let the server end this transaction if its client stands still; not the next ones."""
    if tx.dialect == "postgresql":
        tx.value(_LIMITS, ms=str(int(seconds * 1000)))


def _check_driver(connection: sa.Connection) -> None:
    dialect = connection.dialect
    wanted = _DRIVERS.get(dialect.name)
    if wanted is None or dialect.driver != wanted or dialect.is_async:
        asked = f"{dialect.name}+{dialect.driver}" + (" (asyncio)" if dialect.is_async else "")
        raise BadInputError(
            f"session: is connected by {asked}; Leasehold works in transactions of"
            " postgresql+psycopg and sqlite (pysqlite)",
            field="session",
        )


def _raw(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection


def _raw_cursor(connection: sa.Connection) -> Any:
    """Return psycopg's cursor as the engine wants it, whatever its connection is set to."""
    from psycopg import RawCursor
    from psycopg.rows import tuple_row
    from psycopg.types.string import TextLoader

    raw = _raw(connection)
    if raw.autocommit:
        raise _no_transaction()
    cursor = RawCursor(raw, row_factory=tuple_row)
    for kind in ("json", "jsonb"):
        cursor.adapters.register_loader(kind, TextLoader)
    return cursor


def _plain_cursor(connection: sa.Connection) -> Any:
    cursor = _raw(connection).cursor()
    cursor.row_factory = None
    return cursor


def _check_level(tx: Tx) -> None:
    level = tx.value("SELECT current_setting('transaction_isolation')")
    if level != _LEVEL:
        raise BadInputError(
            f"session: its transaction is {str(level).upper()}; runs are enqueued in READ"
            " COMMITTED only: an older snapshot hides who else used the key",
            field="session",
        )


def _be_the_writer(tx: Tx) -> None:
    """Take SQLite's one writer's turn, before anything is read."""
    raw = _raw(tx.connection)
    mode = getattr(raw, "autocommit", _LEGACY)  # since Python 3.12
    begins_late = mode == _LEGACY and raw.isolation_level is not None
    if begins_late and tx.connection.in_nested_transaction():
        raise BadInputError(
            "session: a savepoint on SQLite needs a connection that begins by itself; Python's"
            " driver does it at the first write, and the savepoint's end would commit. See"
            ' "Savepoints on SQLite" in docs/python.md',
            field="session",
        )
    if mode is True or not (raw.in_transaction or begins_late):
        raise _no_transaction()
    if not raw.in_transaction:
        tx.begin(sqlite.WRITE, busy_ms=int(tx.value("PRAGMA busy_timeout")))
        return
    try:
        tx.run("UPDATE facts SET value = value WHERE 1 = 0")
    except DBAPIError as error:
        if not schema.is_no_table(error):
            raise  # what is there instead, the check says


def _no_transaction() -> BadInputError:
    return BadInputError(
        "session: its connection commits each statement by itself (AUTOCOMMIT); a rollback"
        " would leave the run behind",
        field="session",
    )
