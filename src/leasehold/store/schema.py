"""
The schema's version: bring a database up to this code, refuse one that is not.

The database says which revision it has, in one row of `VERSION_TABLE`; this module says which
ones the code knows. Each process checks when it starts, with one query; only ``leasehold db
upgrade`` and the holder of an embedded home migrate.

An upgrade is one transaction under a lock: an advisory one on PostgreSQL, ``BEGIN IMMEDIATE``
on SQLite. Two at once: the second waits and finds nothing to do. Killed inside: the database
rolls back, and the next upgrade starts from the same revision. There is no way down.

Old and new work side by side: first the schema is upgraded, then one host after the other. So a
migration only expands (ADR 0012), and the upgrade writes down the oldest revision whose program
may go on with it (`SERVES`). A program that finds a newer schema works with it if it is served,
and refuses it otherwise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DBAPIError

from leasehold.errors import SchemaError
from leasehold.store.database import Database, Tx

REVISIONS: Final = (
    *("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"),
    *("0010", "0011", "0012", "0013", "0014"),
)
"""Every revision that this code knows, the oldest first; a test compares it with Alembic's."""

HEAD: Final = REVISIONS[-1]
SERVES: Final = "0009"
"""
The oldest revision whose program works with the schema of `HEAD`.

It is moved on by a migration that takes something away: then what is older must be gone first.
"""

VERSION_TABLE: Final = "leasehold_schema"
"""Our own name, so that a program that holds our tables beside its own keeps its Alembic."""

UPGRADE_COMMAND: Final = "leasehold db upgrade"
SERVES_FACT: Final = "schema_serves"
_LOCK_KEY: Final = 0x6C65_6173_6568_6F6C
_UNDEFINED_TABLE: Final = "42P01"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What the database has and what the code needs."""

    current: str | None
    """None: there is no schema of ours in this database."""

    head: str
    where: str
    """The database's address without its password."""

    serves: str | None = None
    """The oldest revision that a newer schema still serves, by its own word."""

    @property
    def ready(self) -> bool:
        return self.current == self.head or self.served

    @property
    def served(self) -> bool:
        """Whether the schema is newer, and this code may work with it all the same."""
        return self.newer and self.serves in REVISIONS

    @property
    def newer(self) -> bool:
        """Whether a newer program has upgraded this database."""
        return self.current is not None and self.current not in REVISIONS

    def problem(self) -> str | None:
        """Return what is wrong and the command that mends it, or None."""
        if self.ready:
            return None
        if self.current is None:
            return f"{self.where} holds no schema of Leasehold; run `{UPGRADE_COMMAND}`"
        if self.newer:
            return (
                f"the schema of {self.where} is newer than this code (it has {self.current},"
                f" this code knows up to {self.head}); update Leasehold on this machine"
            )
        return (
            f"the schema of {self.where} is older than this code (it has {self.current},"
            f" this code needs {self.head}); run `{UPGRADE_COMMAND}`"
        )


def state(database: Database) -> SchemaState:
    """Return what the database has and what this code needs, with one query."""
    path = database.url.database
    if database.dialect == "sqlite" and path and not Path(path).exists():
        return SchemaState(None, HEAD, database.where())  # opening it would create it
    with database.read() as tx:
        return _seen(tx, where=database.where())


def check(database: Database) -> None:
    """
    Refuse a database whose schema is not the one that this code was written for.

    Raises:
        SchemaError: Says what it has and which command mends it.
    """
    if problem := state(database).problem():
        raise SchemaError(problem)


def check_connected(tx: Tx, *, where: str) -> None:
    """
    Refuse the database that a connection of somebody else's is connected to.

    On PostgreSQL the tables are looked for first: an error would end the transaction.

    Raises:
        SchemaError: It holds no schema of ours, or another version's.
    """
    there = True
    if tx.dialect == "postgresql":
        there = tx.value("SELECT to_regclass(:name) IS NOT NULL", name=VERSION_TABLE)
    seen = _seen(tx, where=where) if there else SchemaState(None, HEAD, where)
    if problem := seen.problem():
        raise SchemaError(problem)


def upgrade(database: Database) -> None:
    """
    Bring the schema up to this code; nothing happens if it is there already.

    Raises:
        SchemaError: The schema is newer than this code.
    """
    seen = state(database)
    if seen.ready:
        return
    if seen.newer:
        raise SchemaError(seen.problem())
    # Alembic takes a quarter of a second to import; only an upgrade pays for it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "leasehold.store:migrations")
    config.set_main_option("path_separator", "os")
    with database.write("schema") as tx:
        _lock(tx)
        # What we saw is old news now; Alembic reads the revision again, under the lock.
        config.attributes["connection"] = tx.connection
        try:
            command.upgrade(config, HEAD)
        except CommandError as error:
            raise SchemaError(f"{seen.where}: {error}") from error
        tx.run(
            "INSERT INTO facts (name, value) VALUES (:name, :value)"
            " ON CONFLICT (name) DO UPDATE SET value = :value",
            name=SERVES_FACT,
            value=SERVES,
        )


def _lock(tx: Tx) -> None:
    """Wait until no other upgrade is under way; an upgrade may take its time."""
    if tx.dialect == "sqlite":
        return
    for timeout in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        tx.run(f"SET LOCAL {timeout} = 0")
    tx.value("SELECT pg_advisory_xact_lock(:key)", key=_LOCK_KEY)


def _seen(tx: Tx, *, where: str) -> SchemaState:
    current = _version(tx)
    serves = None
    if current is not None and current not in REVISIONS:
        serves = tx.value("SELECT value FROM facts WHERE name = :name", name=SERVES_FACT)
    return SchemaState(current, HEAD, where, serves)


def _version(tx: Tx) -> str | None:
    try:
        value = tx.value(f"SELECT version_num FROM {VERSION_TABLE}")
    except DBAPIError as error:
        if not is_no_table(error):
            raise
        return None
    return None if value is None else str(value)


def is_no_table(error: DBAPIError) -> bool:
    """Say whether a statement failed since its table is not there."""
    state = getattr(error.orig, "sqlstate", None)
    return state == _UNDEFINED_TABLE or "no such table" in str(error.orig)
