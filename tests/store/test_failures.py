"""Failures that are alike, as one; those of one tenant, as far back as asked."""

from typing import Any

import pytest

from leasehold.store import failures
from leasehold.store.database import Database
from store.rows import insert_run

OTHER = "other"


def failed(database: Database, *messages: str, **values: Any) -> list[str]:
    with database.write("test") as tx:
        rows = [
            insert_run(tx, status="failed", code="command_failed", message=one, **values)
            for one in messages
        ]
    return [row["id"] for row in rows]


def look(database: Database, *, since_us: int = 0) -> failures.Failures:
    with database.read() as tx:
        return failures.look(tx, tenant_id="default", since_us=since_us)


def test_failures_that_differ_in_numbers_are_one(database: Database) -> None:
    spec = {"commands": [{"argv": ["true"]}, {"argv": ["pytest", "-q"]}]}
    ids = failed(database, "3 failed", "4 failed", command_index=1, spec=spec, exit_code=1)
    failed(database, "cannot start")
    found = look(database)
    assert [(one.runs, one.program) for one in found.groups] == [(2, "pytest"), (1, "true")]
    first = found.groups[0]
    assert sorted(first.run_ids) == sorted(ids)
    assert 0 < first.first_us <= first.last_us
    assert first.environment_ids == {"environment-1": 2}
    assert (found.seen, found.is_cut) == (3, False)


def test_only_failures_of_the_tenant_since_then_count(database: Database) -> None:
    with database.write("test") as tx:
        tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 1)")
        insert_run(tx, status="succeeded")
        insert_run(tx, status="timed_out", code="timeout")
        insert_run(tx, status="failed", tenant_id=OTHER)
        now = tx.now()
    assert [one.code for one in look(database).groups] == ["timeout"]
    assert look(database, since_us=now + 1_000_000).groups == []


def test_a_set_up_that_failed_is_named_by_the_first_command(database: Database) -> None:
    failed(database, "set-up", command_index=-1)
    assert [one.program for one in look(database).groups] == ["true"]


def test_more_than_is_looked_at_is_said(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MOST", 2)
    failed(database, "a", "b", "c")
    found = look(database)
    assert (found.seen, found.is_cut) == (2, True)


def test_a_view_names_environments(database: Database) -> None:
    failed(database, "a")
    group = look(database).groups[0]
    shape = failures.group_view(group, {"environment-1": "ci"})
    assert shape["environments"] == {"ci": 1}
    assert shape["first_at"].endswith("Z")
