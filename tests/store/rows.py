"""
Rows for the tests of the store, with the history that they need to be in order.

Each function inserts one row whose status, claims and events agree with each other, so that
a test changes only what it is about.
"""

from typing import Any

from leasehold.domain.lifecycle import LEASE_ENDS, RUN_ENDS
from leasehold.ids import new_id
from leasehold.store import moves
from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row

HOUR_US = 3_600_000_000
_TO_RUN: dict[str, tuple[str, ...]] = {
    "queued": ("queued",),
    "running": ("queued", "running"),
    "parked": ("queued", "running", "parked"),
}
_TO_LEASE: dict[str, tuple[str, ...]] = {
    "acquiring": ("acquiring",),
    "active": ("acquiring", "active"),
    "releasing": ("acquiring", "active", "releasing"),
    "idle": ("acquiring", "active", "releasing", "idle"),
    "retained": ("acquiring", "active", "releasing", "retained"),
}


def insert_worker(tx: Tx, worker_id: str = "worker-1", **changes: Any) -> Row:
    """Insert a ready worker with a live session on a host of its own."""
    now = tx.now()
    host, session = f"host-of-{worker_id}", f"session-of-{worker_id}"
    insert_row(
        tx,
        "hosts",
        {
            "id": host,
            "name": "here",
            "capacity": 4,
            "draining": False,
            "created_at": now,
            "alive_at": now,
        },
    )
    insert_row(
        tx,
        "sessions",
        {
            "id": session,
            "host_id": host,
            "pid": 1,
            "counter": 0,
            "status": "live",
            "started_at": now,
            "beat_at": now,
        },
    )
    worker = {
        "id": worker_id,
        "session_id": session,
        "host_id": host,
        "kind": "steps",
        "pid": 2,
        "version": "1",
        "status": "ready",
        "queues": ["leasehold"],
        "started_at": now,
    }
    return insert_row(tx, "workers", worker | changes)


def insert_run(
    tx: Tx, *, status: str = "running", lease: Row | None = None, **changes: Any
) -> Row:
    """Insert a run; a running one is due now."""
    now = tx.now()
    running, over = status == "running", status in RUN_ENDS
    values = {
        "id": new_id(),
        "tenant_id": "default",
        "environment_id": "environment-1",
        "provider": "fake",
        "status": status,
        "step": "validate" if running else None,
        "spec": {"commands": [{"argv": ["true"]}]},
        "labels": {},
        "priority": 5,
        "queue": "leasehold",
        "lease_id": lease["id"] if lease else None,
        "fence": 1,
        "due_at": now if running else None,
        "timer_at": None if over else now + HOUR_US,
        "deadline_at": now + HOUR_US,
        "created_at": now,
        "finished_at": now if over else None,
    }
    row = insert_row(tx, "runs", values | changes)
    steps = _TO_RUN.get(status, ("queued", "running", status))
    names = [f"run.{step}" for step in steps]
    moves.record(tx, *names, tenant_id=row["tenant_id"], run_id=row["id"])
    moves.flush(tx)
    return row


def insert_lease(
    tx: Tx, *, status: str = "active", run_id: str | None = None, **changes: Any
) -> Row:
    """Insert a lease; a releasing one owes destruction and is due now."""
    now, lease_id = tx.now(), new_id()
    over, releasing = status in LEASE_ENDS, status == "releasing"
    values = {
        "id": lease_id,
        "tenant_id": "default",
        "environment_id": "environment-1",
        "environment_name": "local",
        "provider": "fake",
        "queue": "leasehold",
        "status": status,
        "run_id": run_id,
        "policy": "ephemeral",
        "fence": 1,
        "due_at": now if releasing or (status == "acquiring" and not run_id) else None,
        "mode": "destroy" if releasing else None,
        "final": "released" if releasing else None,
        "timer_at": now + HOUR_US if status in {"idle", "retained"} else None,
        "cleanup_status": "success" if over else None,
        "sandbox_id": None if status == "acquiring" else f"sandbox-of-{lease_id}",
        "handle": None if status == "acquiring" else {"v": 1},
        "facts": {"v": 1},
        "created_at": now,
        "finished_at": now if over else None,
    }
    row = insert_row(tx, "leases", values | changes)
    steps = _TO_LEASE.get(status, ("acquiring", "active", "releasing", status))
    names = [f"lease.{step}" for step in steps]
    moves.record(tx, *names, tenant_id=row["tenant_id"], lease_id=row["id"])
    moves.flush(tx)
    return row


def insert_held(tx: Tx, **changes: Any) -> tuple[Row, Row]:
    """Insert a running run that holds an active lease; `changes` are the run's."""
    run_id = new_id()
    lease = insert_lease(tx, run_id=run_id)
    return insert_run(tx, id=run_id, lease=lease, step="execute", **changes), lease


def insert_key(tx: Tx, **changes: Any) -> Row:
    """Insert an API key that nobody holds."""
    key_id = new_id()
    values = {
        "id": key_id,
        "tenant_id": "default",
        "name": f"key-{key_id}",
        "prefix": key_id[-16:],
        "hash": "0" * 64,
        "role": "viewer",
        "created_at": tx.now(),
    }
    return insert_row(tx, "api_keys", values | changes)


def insert_schedule(tx: Tx, **changes: Any) -> Row:
    """Insert a schedule that is due in an hour."""
    now = tx.now()
    values = {
        "id": new_id(),
        "tenant_id": "default",
        "name": "nightly",
        "status": "active",
        "cron": "0 0 1 1 *",
        "timezone": "UTC",
        "environment": "place",
        "spec": {"commands": [{"argv": ["true"]}]},
        "misfire": "once",
        "overlap": "allow",
        "next_at": now + HOUR_US,
        "fired": 0,
        "created_at": now,
        "updated_at": now,
    }
    return insert_row(tx, "schedules", values | changes)


def insert_webhook(tx: Tx, **changes: Any) -> Row:
    """Insert a webhook that wants every end; nothing can decrypt its secret."""
    now = tx.now()
    values = {
        "id": new_id(),
        "tenant_id": "default",
        "name": "hook",
        "url": "https://example.org/",
        "enabled": True,
        "key_id": "k",
        "ciphertext": "",
        "version": 1,
        "created_at": now,
        "updated_at": now,
    }
    return insert_row(tx, "webhooks", values | changes)


def insert_delivery(tx: Tx, webhook: Row | None = None, **changes: Any) -> Row:
    """Insert what a webhook is owed."""
    hook = webhook or insert_webhook(tx)
    now = tx.now()
    values = {
        "id": f"{hook['id']}.r",
        "tenant_id": hook["tenant_id"],
        "webhook_id": hook["id"],
        "run_id": "r",
        "event": "run.failed",
        "status": "pending",
        "next_at": now,
        "owed_at": now,
        "created_at": now,
    }
    return insert_row(tx, "webhook_deliveries", values | changes)


def insert_artifact(tx: Tx, run: Row, **changes: Any) -> Row:
    """Insert a line about a file that a run left."""
    values = {
        "run_id": run["id"],
        "tenant_id": run["tenant_id"],
        "kind": "artifact",
        "path": "report.xml",
        "mode": 0o644,
        "bytes": 3,
        "sha256": "0" * 64,
        "created_at": tx.now(),
    }
    return insert_row(tx, "artifacts", values | changes)


def insert_execution(
    tx: Tx, run: Row, *, lease_id: str, status: str = "running", number: int = 1, **changes: Any
) -> Row:
    """Insert an execution of a run and count it there."""
    now, over = tx.now(), status not in {"starting", "running"}
    values = {
        "id": f"{run['id']}.0.{number}",
        "tenant_id": run["tenant_id"],
        "run_id": run["id"],
        "lease_id": lease_id,
        "command_index": 0,
        "number": number,
        "attempt": 1,
        "status": status,
        "created_at": now,
        "ended_at": now if over else None,
    }
    row = insert_row(tx, "executions", values | changes)
    tx.run("UPDATE runs SET starts = :n WHERE id = :id", n=number, id=run["id"])
    names = {
        "starting": (),
        "running": ("started",),
        "cancelled": ("cancelled",),
    }.get(status, ("started", status))
    data = {"execution": row["id"]}
    moves.record(
        tx,
        *((f"execution.{name}", data) for name in names),
        tenant_id=row["tenant_id"],
        run_id=run["id"],
    )
    return row


def insert_predecessor(
    tx: Tx, *, of: Row | None = None, after: Row | None = None, **changes: Any
) -> Row:
    """Insert what a run waits for; by default neither run is there."""
    values = {
        "run_id": of["id"] if of else new_id(),
        "after_id": after["id"] if after else new_id(),
        "tenant_id": "default",
        "outcome": "succeeded",
        "due": True,
    }
    return insert_row(tx, "predecessors", values | changes)
