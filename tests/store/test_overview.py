"""The numbers of the first page: of one tenant, and no more of them than asked for."""

from leasehold.store import overview, watching
from leasehold.store.database import Database, Tx
from store.rows import insert_lease, insert_run

OTHER = "other"


def fill(tx: Tx) -> None:
    tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 1)")
    for tenant in ("default", OTHER):
        for status in ("queued", "queued", "running", "parked", "succeeded", "failed"):
            code = "command_failed" if status == "failed" else None
            insert_run(tx, status=status, tenant_id=tenant, code=code)
        insert_lease(tx, status="idle", tenant_id=tenant)
        insert_lease(tx, status="released", tenant_id=tenant)
        insert_lease(tx, status="releasing", tenant_id=tenant, last_error="away")


def test_what_is_under_way_is_counted_for_one_tenant(database: Database) -> None:
    with database.write("test") as tx:
        fill(tx)
    with database.read() as tx:
        waiting = overview.waiting(tx, tenant_id="default")
        assert (waiting["queued"], waiting["parked"]) == (2, 1)
        assert 0 < waiting["oldest_at"] <= waiting["now_us"]
        assert overview.steps(tx, tenant_id="default") == {"validate": 1}
        found = overview.leases(tx, tenant_id="default")
        assert {row["status"]: (row["leases"], row["failing"]) for row in found} == {
            "idle": (1, 0),
            "releasing": (1, 1),
        }


def test_ends_and_failures_are_those_since_a_time(database: Database) -> None:
    with database.write("test") as tx:
        fill(tx)
        # One whose output retention has deleted is an end like any other.
        tx.run(
            "UPDATE runs SET output_pruned_at = finished_at WHERE status = 'failed'"
            " AND tenant_id = 'default'"
        )
    with database.read() as tx:
        now = tx.now()
        since = now - overview.HOUR_US
        ends = overview.ends_by_minute(tx, tenant_id="default", since=since)
        assert {row["status"]: row["runs"] for row in ends} == {"succeeded": 1, "failed": 1}
        assert all(abs(row["minute"] - now // overview.MINUTE_US) <= 1 for row in ends)
        failed = overview.failures(tx, tenant_id="default", since=since)
        assert [(row["code"], row["runs"]) for row in failed] == [("command_failed", 1)]
        later = now + overview.HOUR_US
        assert overview.ends_by_minute(tx, tenant_id="default", since=later) == []
        assert overview.failures(tx, tenant_id="default", since=later) == []


def test_an_empty_tenant_has_zeros(database: Database) -> None:
    with database.read() as tx:
        waiting = overview.waiting(tx, tenant_id="default")
        assert (waiting["queued"], waiting["oldest_at"], waiting["parked"]) == (0, None, 0)
        assert overview.steps(tx, tenant_id="default") == {}
        assert overview.leases(tx, tenant_id="default") == []


def test_the_newest_event_of_each_tenant_is_found_after_a_place(database: Database) -> None:
    with database.read() as tx:
        assert watching.newest_event(tx) == 0
    with database.write("test") as tx:
        fill(tx)
    with database.read() as tx:
        newest = watching.newest_event(tx)
        found = watching.newest_events(tx, after=0)
        assert set(found) == {"default", OTHER}
        assert found[OTHER] == newest > found["default"]
        assert set(watching.newest_events(tx, after=found["default"])) == {OTHER}
