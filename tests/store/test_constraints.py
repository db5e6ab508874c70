"""What the database refuses by itself, whatever the code above it does."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from leasehold.store.database import Database, Tx
from leasehold.store.runs import insert_row
from leasehold.store.tables import METADATA
from store.rows import (
    insert_artifact,
    insert_delivery,
    insert_execution,
    insert_held,
    insert_key,
    insert_lease,
    insert_predecessor,
    insert_run,
    insert_schedule,
    insert_worker,
)


def insert_tenant(tx: Tx, **changes: object) -> None:
    insert_row(tx, "tenants", {"id": "t", "created_at": 1, **changes})


def insert_report(tx: Tx, **changes: object) -> None:
    run = insert_run(tx)
    values = {"run_id": run["id"], "tenant_id": "default", "execution_id": "x", "heard_at": 1}
    insert_row(tx, "run_reports", values | changes, back="run_id")


def insert_blob(tx: Tx, name: str) -> None:
    values = {"tenant_id": "default", "name": name, "digest": "d" * 64}
    insert_row(tx, "blobs", values, back="name")


def insert_selection(tx: Tx, **changes: object) -> None:
    values = {"tenant_id": "default", "kind": "tenant", "name": "", "environment": "place"}
    times = {"created_at": 1, "updated_at": 1}
    insert_row(tx, "selections", {**values, **times, **changes}, back="name")


def insert_check(tx: Tx, **changes: object) -> None:
    values = {"id": "c", "tenant_id": "default", "provider": "fake", "queue": "q"}
    rest = {"config": {}, "requires": {}, "asked_at": 1, "until_at": 1}
    insert_row(tx, "config_checks", {**values, **rest, **changes})


def insert_pass(tx: Tx, **changes: object) -> None:
    key = insert_key(tx)["id"]
    values = {"id": "p", "tenant_id": "default", "key_id": key, "created_at": 1}
    insert_row(tx, "passes", {**values, "kind": "link", "expires_at": 2, **changes})


CHECKS: dict[str, Callable[[Tx], object]] = {
    "runstatus_known": lambda tx: insert_run(tx, status="dreaming"),
    "step_known": lambda tx: insert_run(tx, step="dream"),
    "endkind_known": lambda tx: insert_run(tx, end_requested="boredom"),
    "run_finished": lambda tx: insert_run(tx, finished_at=1),
    "run_over_rests": lambda tx: insert_run(tx, status="failed", due_at=1),
    "run_claim_or_due": lambda tx: insert_run(tx, claimed_by="w", due_at=1),
    "run_never_forgotten": lambda tx: insert_run(tx, claimed_by=None, due_at=None),
    "run_parked_free": lambda tx: insert_run(tx, status="parked", lease_id="l"),
    "run_step": lambda tx: insert_run(tx, step=None),
    "leasestatus_known": lambda tx: insert_lease(tx, status="misplaced"),
    "leasepolicy_known": lambda tx: insert_lease(tx, status="idle", policy="hoard"),
    "cleanupstatus_known": lambda tx: insert_lease(tx, status="idle", cleanup_status="?"),
    "lease_finished": lambda tx: insert_lease(tx, status="idle", finished_at=1),
    "lease_over_rests": lambda tx: insert_lease(tx, status="expired", claimed_by="w"),
    "lease_mode": lambda tx: insert_lease(tx, status="releasing", mode=None),
    "lease_never_forgotten": lambda tx: insert_lease(tx, status="releasing", due_at=None),
    "lease_held": lambda tx: insert_lease(tx, status="active", run_id=None),
    "lease_ends": lambda tx: insert_lease(tx, status="retained", timer_at=None),
    "executionstatus_known": lambda tx: insert_execution(
        tx, insert_run(tx), lease_id="l", status="stuck", ended_at=None
    ),
    "execution_ended": lambda tx: insert_execution(
        tx, insert_run(tx), lease_id="l", ended_at=1
    ),
    "workerstatus_known": lambda tx: insert_worker(tx, status="asleep"),
    "worker_gone": lambda tx: insert_worker(tx, status="gone"),
    "sessionstatus_known": lambda tx: (
        insert_worker(tx),
        tx.run("UPDATE sessions SET status = 'tired', ended_at = 1"),
    ),
    "session_end": lambda tx: (
        insert_worker(tx),
        tx.run("UPDATE sessions SET status = 'expired'"),
    ),
    "report_percent": lambda tx: insert_report(tx, percent=101),
    "report_result": lambda tx: insert_report(tx, result_at=1),
    "artifact_kind": lambda tx: insert_artifact(tx, insert_run(tx), kind="rumour"),
    "schedulestatus_known": lambda tx: insert_schedule(tx, status="late", next_at=None),
    "misfire_known": lambda tx: insert_schedule(tx, misfire="shrug"),
    "overlap_known": lambda tx: insert_schedule(tx, overlap="maybe"),
    "schedule_kind": lambda tx: insert_schedule(tx, at=1),
    "schedule_never_forgotten": lambda tx: insert_schedule(tx, next_at=None),
    "run_starts_after": lambda tx: insert_run(tx, waits=1),
    "outcome_known": lambda tx: insert_predecessor(tx, outcome="perhaps"),
    "predecessor_settled": lambda tx: insert_predecessor(tx, settled_at=1),
    "predecessor_never_forgotten": lambda tx: insert_predecessor(tx, ended="failed", due=False),
    "deliverystatus_known": lambda tx: insert_delivery(
        tx, status="lost", next_at=None, finished_at=1
    ),
    "delivery_never_forgotten": lambda tx: insert_delivery(tx, next_at=None),
    "delivery_finished": lambda tx: insert_delivery(tx, finished_at=1),
    "selectionkind_known": lambda tx: insert_selection(tx, kind="star", name="x"),
    "selection_name": lambda tx: insert_selection(tx, name="of-a-tenant"),
    "config_check_answered": lambda tx: insert_check(tx, answered_at=1),
    "config_check_over_rests": lambda tx: insert_check(tx, answered_at=1, answer={}, due_at=1),
    "blob_name": lambda tx: insert_blob(tx, "another"),
    "artifact_content": lambda tx: insert_artifact(tx, insert_run(tx), sha256=None),
    "role_known": lambda tx: insert_key(tx, role="emperor"),
    "key_of_platform": lambda tx: insert_key(tx, role="root"),
    "passkind_known": lambda tx: insert_pass(tx, kind="season"),
    "tenantstatus_known": lambda tx: insert_tenant(tx, status="asleep"),
    "tenant_concurrent": lambda tx: insert_tenant(tx, max_concurrent=0),
    "tenant_queued": lambda tx: insert_tenant(tx, max_queued=-1),
    "environmentstatus_known": lambda tx: tx.run(
        "INSERT INTO environments (id, tenant_id, name, status, provider, spec, created_at,"
        " updated_at) VALUES ('e', 'default', 'e', 'lost', 'fake', '{}', 1, 1)"
    ),
}
"""One row for each CHECK, which nothing but that CHECK refuses."""


def test_every_check_has_a_row_that_it_refuses() -> None:
    there = {
        str(constraint.name)
        for table in METADATA.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }
    assert set(CHECKS) == there


def test_every_check_refuses_its_row(database: Database) -> None:
    for name, bad in CHECKS.items():
        with pytest.raises(IntegrityError, match=name), database.write("test") as tx:
            bad(tx)
            pytest.fail(f"accepted: {name}")


def test_a_row_of_an_unknown_tenant_is_refused(database: Database) -> None:
    for insert in (insert_run, insert_lease):
        with pytest.raises(IntegrityError), database.write("test") as tx:
            insert(tx, tenant_id="nobody", status="failed")
    with pytest.raises(IntegrityError), database.write("test") as tx:
        insert_key(tx, tenant_id="nobody")


def test_every_unique_index_holds(database: Database) -> None:
    def same_key(tx: Tx) -> None:
        insert_run(tx, status="failed", idempotency_key="k")
        insert_run(tx, idempotency_key="k")

    def two_runs_on_a_lease(tx: Tx) -> None:
        _, lease = insert_held(tx)
        insert_run(tx, lease=lease)

    def two_leases_on_a_sandbox(tx: Tx) -> None:
        insert_lease(tx, status="idle", sandbox_id="s")
        insert_lease(tx, status="releasing", sandbox_id="s")

    def two_leases_of_a_run(tx: Tx) -> None:
        insert_lease(tx, run_id="r")
        insert_lease(tx, status="acquiring", run_id="r")

    def two_live_runs_on_a_workspace(tx: Tx) -> None:
        insert_run(tx, workspace="/w")
        insert_run(tx, workspace="/w")

    def two_open_executions(tx: Tx) -> None:
        run = insert_run(tx)
        insert_execution(tx, run, lease_id="l")
        insert_execution(tx, run, lease_id="l", status="starting", number=2)

    def a_number_twice(tx: Tx) -> None:
        run = insert_run(tx)
        insert_execution(tx, run, lease_id="l", status="lost")
        insert_execution(tx, run, lease_id="l", id="other")

    def overlapping_output(tx: Tx) -> None:
        piece = (
            "INSERT INTO output_chunks (execution_id, stream, start, data)"
            " VALUES ('x', 'stdout', 0, :data)"
        )
        tx.run(piece, data=b"a")
        tx.run(piece, data=b"b")

    for bad in (
        same_key,
        two_runs_on_a_lease,
        two_leases_on_a_sandbox,
        two_leases_of_a_run,
        two_live_runs_on_a_workspace,
        two_open_executions,
        a_number_twice,
        overlapping_output,
    ):
        with pytest.raises(IntegrityError), database.write("test") as tx:
            bad(tx)
            pytest.fail(f"accepted: {bad.__name__}")


def test_two_valid_keys_have_neither_name_nor_prefix_in_common(database: Database) -> None:
    for same in ({"name": "k"}, {"prefix": "p"}):
        with pytest.raises(IntegrityError), database.write("test") as tx:
            insert_key(tx, **same)
            insert_key(tx, **same)


def test_what_partial_indexes_leave_out_may_repeat(database: Database) -> None:
    with database.write("test") as tx:
        for _ in range(2):
            insert_run(tx, idempotency_key=None)
            insert_key(tx, name="k", revoked_at=1)
            insert_run(tx, workspace="/w", status="queued")
            insert_lease(tx, status="released", sandbox_id="s")
        insert_lease(tx, status="idle", sandbox_id="s")
