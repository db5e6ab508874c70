"""Who finds a newer schema goes on with it if that says so, and refuses it if not."""

import pytest

from leasehold.errors import SchemaError
from leasehold.store import schema
from leasehold.store.database import Database


def put(database: Database, *, revision: str, serves: str | None) -> None:
    with database.write("test") as tx:
        tx.run(f"UPDATE {schema.VERSION_TABLE} SET version_num = :r", r=revision)
        tx.run("DELETE FROM facts WHERE name = :name", name=schema.SERVES_FACT)
        if serves is not None:
            tx.run(
                "INSERT INTO facts (name, value) VALUES (:name, :value)",
                name=schema.SERVES_FACT,
                value=serves,
            )


def test_an_upgrade_says_whom_the_schema_serves(database: Database) -> None:
    with database.read() as tx:
        said = tx.value("SELECT value FROM facts WHERE name = :n", n=schema.SERVES_FACT)
    assert said == schema.SERVES
    assert schema.SERVES in schema.REVISIONS
    before = schema.REVISIONS[-2]
    assert schema.REVISIONS.index(schema.SERVES) <= schema.REVISIONS.index(before)


def test_a_newer_schema_that_serves_this_program_is_good(database: Database) -> None:
    put(database, revision="9999", serves=schema.HEAD)
    schema.check(database)
    schema.upgrade(database)
    assert schema.state(database).current == "9999", "there is nothing to do, and no way down"
    with database.read() as tx:
        schema.check_connected(tx, where="here")


@pytest.mark.parametrize("serves", ["9998", None])
def test_a_newer_schema_that_does_not_is_refused(
    database: Database, serves: str | None
) -> None:
    put(database, revision="9999", serves=serves)
    with pytest.raises(SchemaError, match="newer than this code"):
        schema.check(database)
    with pytest.raises(SchemaError, match="newer"):
        schema.upgrade(database)
    with pytest.raises(SchemaError, match="newer"), database.read() as tx:
        schema.check_connected(tx, where="here")
