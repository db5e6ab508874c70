"""What people and programs are shown of webhooks; as in `store.views`."""

from leasehold.domain.webhooks import origin
from leasehold.store.database import Row
from leasehold.store.sql import load
from leasehold.store.views import Shape, iso


def webhook_view(row: Row, *, waiting: int = 0, whole: bool = True) -> Shape:
    """
    Return what is shown of one webhook; never its secret.

    Args:
        waiting: How many deliveries it is owed.
        whole: False: of its URL only the origin, since a path may be a secret.
    """
    return {
        "id": row["id"],
        "name": row["name"],
        "url": row["url"] if whole else origin(row["url"]),
        "enabled": bool(row["enabled"]),
        "statuses": load(row["statuses"]),
        "labels": load(row["labels"]),
        "environment": row["environment"],
        "secret_version": row["version"],
        "waiting": waiting,
        "failures": row["failures"],
        "rests_until": iso(row["rests_until"]),
        "last_at": iso(row["last_at"]),
        "last_status": row["last_status"],
        "last_error": row["last_error"],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def delivery_view(row: Row) -> Shape:
    """Return what is shown of one delivery."""
    return {
        "id": row["id"],
        "run_id": row["run_id"],
        "event": row["event"],
        "status": row["status"],
        "attempts": row["attempts"],
        "next_at": iso(row["next_at"]),
        "last_at": iso(row["last_at"]),
        "last_status": row["last_status"],
        "last_error": row["last_error"],
        "created_at": iso(row["created_at"]),
        "finished_at": iso(row["finished_at"]),
    }


def told(run: Row) -> Shape:
    """Return what a webhook is told of a run: nothing of what it does, reads or writes."""
    return {
        "id": run["id"],
        "environment": run["environment"],
        "provider": run["provider"],
        "status": run["status"],
        "code": run["code"],
        "exit_code": run["exit_code"],
        "attempt": run["attempt"],
        "infra_attempts": run["infra_attempts"],
        "labels": load(run["labels"]),
        "key": run["idempotency_key"],
        "retry_of": run["retry_of"],
        "created_at": iso(run["created_at"]),
        "started_at": iso(run["started_at"]),
        "finished_at": iso(run["finished_at"]),
    }
