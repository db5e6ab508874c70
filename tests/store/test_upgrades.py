"""An upgrade keeps the rows that a database has, and gives its new columns their meaning."""

import pytest

from leasehold.domain.lifecycle import LeaseStatus, RunStatus
from leasehold.store import activity, hosts, keys, leases, runs, schema, slots
from leasehold.store.database import Database
from store.rows import insert_artifact, insert_lease, insert_run, insert_worker


def test_what_rows_of_before_retention_name_in_the_store_is_known(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(empty_database_url)
    kept, tree, cloned = ("a" * 64), ("b" * 64), ("c" * 64)
    with monkeypatch.context() as old:
        old.setattr(schema, "REVISIONS", ("0001", "0002", "0003", "0004", "0005", "0006"))
        old.setattr(schema, "HEAD", "0006")
        schema.upgrade(database)
        with database.write("test") as tx:
            run = insert_run(
                tx,
                status=RunStatus.SUCCEEDED,
                spec={"commands": [{"argv": ["true"]}], "tree": {"digest": tree}},
            )
            insert_artifact(tx, run, sha256=kept)
            insert_artifact(tx, run, path="again", sha256=kept)
            insert_run(tx, status=RunStatus.FAILED, tree={"digest": cloned})
            insert_run(tx, status=RunStatus.FAILED)
    schema.upgrade(database)
    with database.read() as tx:
        rows = tx.all("SELECT name, digest, look_at FROM blobs ORDER BY name")
        named = tx.all("SELECT blob FROM runs WHERE blob IS NOT NULL ORDER BY blob")
    assert [(row["name"], row["look_at"]) for row in rows] == [
        (kept, None),
        (tree, None),
        (cloned, None),
    ]
    assert [row["blob"] for row in named] == [tree, cloned]
    database.close()


def test_rows_of_before_labels_have_none_and_require_nothing(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(empty_database_url)
    with monkeypatch.context() as old:
        old.setattr(schema, "REVISIONS", ("0001",))
        old.setattr(schema, "HEAD", "0001")
        schema.upgrade(database)
        with database.write("test") as tx:
            insert_worker(tx)
            run = insert_run(tx, status=RunStatus.QUEUED)
            lease = insert_lease(tx, status=LeaseStatus.RETAINED)
    schema.upgrade(database)
    assert schema.state(database).ready
    with database.read() as tx:
        assert [row["labels"] for row in hosts.labels(tx)] == [{}]
        assert keys.page(tx, tenant_id="default") == []
        found = runs.find(tx, run["id"])
        assert found is not None
        assert found["requires"] is None
        assert leases.get(tx, lease["id"], tenant_id="default")["retained_until"] is None
        (waiting,) = slots.queue_head(tx, {"elsewhere"}, busy=set(), ageing_us=1, limit=10)
        assert waiting["id"] == run["id"]
        assert (
            slots.queue_head(tx, {run["environment_id"]}, busy=set(), ageing_us=1, limit=10)
            == []
        )
    database.close()


def test_history_of_before_activity_says_who_it_was(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(empty_database_url)
    with monkeypatch.context() as old:
        old.setattr(schema, "REVISIONS", ("0001", "0002", "0003", "0004", "0005"))
        old.setattr(schema, "HEAD", "0005")
        schema.upgrade(database)
        with database.write("test") as tx:
            for data in ('{"environment":"e","actor":"cli"}', '{"environment":"f"}'):
                tx.run(
                    "INSERT INTO events (tenant_id, at, name, data)"
                    " VALUES ('default', 1, 'environment.active', :data)",
                    data=data,
                )
    schema.upgrade(database)
    with database.read() as tx:
        lines = activity.page(tx, tenant_id="default", limit=10)
    assert [(line["actor"], line["name"]) for line in lines] == [("cli", "environment.active")]
    database.close()
