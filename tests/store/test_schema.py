"""Migrations make what the tables say, once, whoever else tries; other versions are refused."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from leasehold.errors import SchemaError
from leasehold.store import schema
from leasehold.store.database import Database, Tx
from leasehold.store.tables import METADATA


def shape(engine: sa.Engine) -> dict[str, Any]:
    """Return everything that the database itself says of its tables."""
    inspector = sa.inspect(engine)
    found: dict[str, Any] = {}
    for table in inspector.get_table_names():
        if table == schema.VERSION_TABLE:
            continue
        columns = [{**c, "type": str(c["type"])} for c in inspector.get_columns(table)]
        rest = (
            inspector.get_indexes(table),
            inspector.get_check_constraints(table),
            inspector.get_unique_constraints(table),
            inspector.get_foreign_keys(table),
        )
        found[table] = {
            "columns": columns,
            "key": inspector.get_pk_constraint(table),
            "rest": [sorted(json.dumps(i, default=str) for i in items) for items in rest],
        }
    return found


def test_migrations_equal_the_tables(database: Database, empty_database_url: str) -> None:
    made = Database(empty_database_url)
    METADATA.create_all(made.engine)
    try:
        assert shape(database.engine) == shape(made.engine)
    finally:
        made.close()
    with database.engine.connect() as connection:
        options = {"version_table": schema.VERSION_TABLE, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []


def test_the_known_revisions_are_those_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", "leasehold.store:migrations")
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    there = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(there)) == schema.REVISIONS
    assert scripts.get_current_head() == schema.HEAD


def test_a_second_upgrade_changes_nothing(database: Database) -> None:
    with database.read() as tx:
        before = tx.all("SELECT * FROM facts ORDER BY name")
    schema.upgrade(database)
    with database.read() as tx:
        assert tx.all("SELECT * FROM facts ORDER BY name") == before
        assert {row["name"] for row in before} == {
            "clock_offset_us",
            "deployment",
            "epoch",
            schema.SERVES_FACT,
        }
        assert [row["id"] for row in tx.all("SELECT id FROM tenants ORDER BY id")] == [
            "_platform",
            "default",
        ]
    assert schema.state(database).ready


def test_upgrades_at_the_same_time_make_one_schema(empty_database_url: str) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(4)

    def upgrade() -> None:
        # A Database of its own has locks of its own, as another process would.
        mine = Database(empty_database_url)
        try:
            together.wait()
            schema.upgrade(mine)
            schema.check(mine)
        except BaseException as error:
            errors.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    after = Database(empty_database_url)
    with after.read() as tx:
        assert tx.value("SELECT count(*) FROM tenants") == 2
        assert tx.value("SELECT count(*) FROM facts") == 4
    after.close()


def test_a_database_without_a_schema_is_refused_with_the_command_that_mends_it(
    empty_database_url: str,
) -> None:
    empty = Database(empty_database_url)
    with pytest.raises(SchemaError, match=r"holds no schema.*`leasehold db upgrade`"):
        schema.check(empty)
    empty.close()


def test_looking_at_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    assert schema.state(database).current is None
    database.close()
    assert not (tmp_path / "none.db").exists()


def test_an_older_schema_is_refused_with_the_command_that_mends_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))
    monkeypatch.setattr(schema, "HEAD", "9999")
    with pytest.raises(SchemaError, match=r"older than this code.*`leasehold db upgrade`"):
        schema.check(database)


def test_a_newer_schema_is_neither_used_nor_touched(database: Database) -> None:
    with database.write("test") as tx:
        tx.run("UPDATE leasehold_schema SET version_num = '9999'")
        tx.run("UPDATE facts SET value = '9998' WHERE name = :name", name=schema.SERVES_FACT)
    with pytest.raises(SchemaError, match=r"newer than this code \(it has 9999"):
        schema.check(database)
    with pytest.raises(SchemaError, match="newer than this code"):
        schema.upgrade(database)


def test_a_password_is_not_shown_in_a_refusal() -> None:
    state = schema.SchemaState(current=None, head="1", where="postgresql://u:***@h/d")
    assert state.problem() is not None
    assert Database("postgresql://u:secret@h/d").where() == state.where


def test_the_check_is_one_query(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    execute = Tx.execute

    def note(tx: Tx, text: str, params: Mapping[str, Any]) -> Any:
        sent.append(text)
        return execute(tx, text, params)

    monkeypatch.setattr(Tx, "execute", note)
    schema.check(database)
    assert sent == ["SELECT version_num FROM leasehold_schema"]


def test_the_offset_moves_the_clock(database: Database) -> None:
    with database.write("test") as tx:
        before = tx.now()
        tx.run("UPDATE facts SET value = '-5000000000' WHERE name = 'clock_offset_us'")
        shown = tx.now() - before
    assert -5_000_000_000 <= shown < -4_900_000_000


def test_the_clock_goes_on_inside_a_transaction(database: Database) -> None:
    with database.read() as tx:
        first = tx.now()
        for _ in range(10_000):
            if tx.now() > first:
                return
    pytest.fail("the clock stands still")


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_due_query_uses_its_index(database: Database) -> None:
    with database.write("test") as tx:
        tx.run("SET LOCAL enable_seqscan = off")
        plan = tx.all("EXPLAIN SELECT id FROM runs WHERE due_at <= {now}")
    text = "\n".join(str(row) for row in plan)
    assert "Index Cond: (due_at <= leasehold_now())" in text
