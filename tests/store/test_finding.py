"""Pages of runs come from what they are found by, which is written and deleted with them."""

from collections.abc import Callable

import pytest

from leasehold.store import finding, schema
from leasehold.store.database import Database, Tx
from leasehold.store.runs import decoded
from store.rows import insert_run

LONG = "x" * 250


def lookups(tx: Tx) -> set[tuple[str, str, str]]:
    return {
        (row["run_id"], row["name"], row["value"])
        for row in tx.all("SELECT * FROM run_lookups")
    }


@pytest.fixture
def found(database: Database) -> Callable[..., list[str]]:
    def ids(**asked: object) -> list[str]:
        with database.read() as tx:
            rows = finding.run_rows(tx, tenant_id="default", **asked)  # type: ignore[arg-type]
        return [row["id"] for row in rows]

    return ids


def test_every_combination_of_what_is_asked(
    database: Database, found: Callable[..., list[str]]
) -> None:
    made = []
    with database.write("test") as tx:
        for number in range(24):
            row = insert_run(
                tx,
                status=("succeeded", "failed", "queued")[number % 3],
                environment_id=f"env-{number % 2}",
                labels={"team": f"t{number % 4}", "size": "big"} if number % 5 else {},
                created_at=1_000 + number // 3,
            )
            made.append(decoded(row))
    made.sort(key=lambda row: (row["created_at"], row["id"]), reverse=True)
    for statuses in ([], ["failed"], ["failed", "queued"], ["parked"]):
        for environment in (None, "env-1", "nowhere"):
            for labels in ({}, {"team": "t1"}, {"team": "t2", "size": "big"}, {"team": "no"}):
                asked = {"statuses": statuses, "environment": environment, "labels": labels}
                expected = [
                    row["id"]
                    for row in made
                    if (not statuses or row["status"] in statuses)
                    and environment in {None, row["environment_id"]}
                    and labels.items() <= row["labels"].items()
                ]
                assert found(**asked, limit=100) == expected, asked
                pages: list[str] = []
                after = None
                while page := found(**asked, limit=2, after=after):
                    pages += page
                    last = next(row for row in made if row["id"] == page[-1])
                    after = last["created_at"], last["id"]
                assert pages == expected, asked


def test_a_long_label_is_compared_to_its_end(
    database: Database, found: Callable[..., list[str]]
) -> None:
    with database.write("test") as tx:
        one = insert_run(tx, status="queued", labels={"note": LONG + "1"})["id"]
        insert_run(tx, status="queued", labels={"note": LONG + "2"})
    assert found(labels={"note": LONG + "1"}) == [one]
    assert found(labels={"note": LONG}) == []


def test_another_tenant_finds_nothing(database: Database) -> None:
    with database.write("test") as tx:
        insert_run(tx, status="queued", labels={"a": "b"})
        assert finding.run_rows(tx, tenant_id="other", labels={"a": "b"}) == []


def test_what_a_run_is_found_by_goes_with_it(database: Database) -> None:
    with database.write("test") as tx:
        kept, gone = (
            insert_run(tx, status="queued", environment_id="place", labels={"a": LONG, "b": ""})
            for _ in range(2)
        )
        tx.run("DELETE FROM events WHERE run_id = :id", id=gone["id"])
        tx.run("DELETE FROM runs WHERE id = :id", id=gone["id"])
        assert lookups(tx) == {
            (kept["id"], "environment", "place"),
            (kept["id"], "label:a", LONG[:200]),
            (kept["id"], "label:b", ""),
        }


def test_runs_of_before_are_found_too(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(empty_database_url)
    try:
        with monkeypatch.context() as old:
            old.setattr(schema, "REVISIONS", ("0005",))
            old.setattr(schema, "HEAD", "0005")
            schema.upgrade(database)
            with database.write("test") as tx:
                run = insert_run(tx, status="failed", labels={"team": "a"})
        schema.upgrade(database)
        with database.read() as tx:
            (row,) = finding.run_rows(
                tx, tenant_id="default", statuses=["failed"], labels={"team": "a"}
            )
        assert row["id"] == run["id"]
    finally:
        database.close()
