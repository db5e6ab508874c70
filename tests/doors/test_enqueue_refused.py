"""`leasehold.enqueue` refuses what it could not keep, and spoils no transaction by it."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import leasehold
from callers import ORDERS, PLACE, all_runs, engine_of, order, orders
from leasehold.errors import BadInputError, NotFoundError, SchemaError
from leasehold.store.database import Database
from leasehold.store.schema import SERVES_FACT


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"command": "echo hello"}, BadInputError, "no shell reads it"),
        ({"command": None}, BadInputError, "give a command"),
        ({"command": []}, BadInputError, r"commands\.0\.argv"),
        ({"command": ["a"], "commands": [{"argv": ["b"]}]}, BadInputError, "not both"),
        ({"command": ["a"], "timeout_s": "soon"}, BadInputError, "timeout_s"),
        ({"command": ["a"], "colour": "red"}, BadInputError, "there is no such field"),
        ({"command": ["a"], "key": "\n"}, BadInputError, "printable"),
        ({"command": ["a"], "environment": "nowhere"}, NotFoundError, "there are: place"),
        ({"command": ["a"], "tenant": "nobody", "environment": None}, NotFoundError, "tenant"),
        ({"command": ["a"], "lease_id": "x"}, BadInputError, "lease_id"),
    ],
)
def test_what_is_wrong_is_refused_and_the_transaction_goes_on(
    engine: sa.Engine, database: Database, given: dict[str, Any], kind: type, said: str
) -> None:
    with Session(engine) as session:
        with pytest.raises(kind, match=said):
            leasehold.enqueue(session, **{"environment": "place", **given})
        order(session)
        session.commit()
    assert (all_runs(database), len(orders(engine))) == ([], 1)


def test_a_database_without_our_tables_is_refused_and_the_transaction_goes_on(
    engine: sa.Engine, empty_database_url: str
) -> None:
    other = engine_of(empty_database_url)
    with other.begin() as connection:
        connection.execute(sa.text(ORDERS))
        with pytest.raises(SchemaError, match="holds no schema of Leasehold"):
            leasehold.enqueue(connection, ["true"])
    assert orders(other) == []
    other.dispose()


@pytest.mark.breaks_invariants
def test_a_database_of_another_version_is_refused(
    engine: sa.Engine, database: Database
) -> None:
    with database.write("test") as tx:
        tx.run("UPDATE leasehold_schema SET version_num = '9999'")
        tx.run("UPDATE facts SET value = '9998' WHERE name = :name", name=SERVES_FACT)
    with Session(engine) as session, pytest.raises(SchemaError, match="newer than this code"):
        leasehold.enqueue(session, ["true"], **PLACE)


def test_without_transactions_nothing_is_enqueued(
    engine: sa.Engine, database: Database
) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.begin()
        with pytest.raises(BadInputError, match="AUTOCOMMIT"):
            leasehold.enqueue(connection, ["true"], **PLACE)
    with (
        engine.connect() as connection,
        pytest.raises(BadInputError, match="in no transaction"),
    ):
        leasehold.enqueue(connection, ["true"], **PLACE)
    assert all_runs(database) == []


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_snapshot_is_refused(engine: sa.Engine, level: str) -> None:
    with Session(engine.execution_options(isolation_level=level)) as session:
        with pytest.raises(
            BadInputError, match=f"{level}; runs are enqueued in READ COMMITTED"
        ):
            leasehold.enqueue(session, ["true"], **PLACE)
        order(session)
        session.commit()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_transaction_that_saw_an_older_file_is_refused_before_it_reads_ours(
    engine: sa.Engine, database: Database
) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(sa.text("SELECT * FROM orders")).all()
        with database.write("test") as tx:
            tx.run("INSERT INTO orders (run_id) VALUES ('other')")
        with pytest.raises(sa.exc.OperationalError, match="database is locked"):
            leasehold.enqueue(connection, ["true"], **PLACE)
        connection.rollback()
    assert all_runs(database) == []


def test_what_is_no_session_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match=r"session: must be a Session.*got str"):
        leasehold.enqueue("session", ["true"])  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_savepoint_that_would_commit_is_refused(
    engine: sa.Engine, database: Database
) -> None:
    with Session(engine) as session:
        with pytest.raises(BadInputError, match="Savepoints on SQLite"), session.begin_nested():
            leasehold.enqueue(session, ["true"], **PLACE)
        session.rollback()
    assert all_runs(database) == []
