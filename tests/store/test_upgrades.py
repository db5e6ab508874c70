"""An upgrade keeps the rows that a database has, and gives its new columns their meaning."""

import pytest

from leasehold.domain.lifecycle import LeaseStatus, RunStatus
from leasehold.store import hosts, keys, leases, runs, schema, slots
from leasehold.store.database import Database
from store.rows import insert_lease, insert_run, insert_worker


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
