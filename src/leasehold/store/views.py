"""
What people and programs are shown of the rows: read-only, with names and times made plain.

The shapes are a contract (``--json``): keys may be added, never renamed. Times are ISO 8601
in UTC. Values of environment variables are not shown, only their names.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.domain.specs import SETUP
from leasehold.errors import NotFoundError
from leasehold.store import executions as starts
from leasehold.store import leases, moves, predecessors, reports
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.runs import MANY, decoded
from leasehold.store.sql import load, numbered

Shape = dict[str, Any]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TABLES: Final = {"run": "runs", "lease": "leases", "worker": "workers", "host": "hosts"}
_SOME: Final = 4
_RUNS: Final = (
    "SELECT r.*, COALESCE(e.name, r.environment_id) AS environment,"
    " {now} AS now_us FROM runs r LEFT JOIN environments e ON e.id = r.environment_id"
)


def iso(micros: int | None) -> str | None:
    """Return a stored time as ISO 8601 in UTC."""
    if micros is None:
        return None
    moment = _EPOCH + timedelta(microseconds=micros)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def ids_like(tx: Tx, noun: str, text: str, *, tenant_id: str | None = None) -> list[str]:
    """
    Return a few ids of a noun that begin or end so; people type short ids.

    Args:
        tenant_id: Only of this tenant's; of nouns that are tenants'.
    """
    table = _TABLES[noun]
    own, params = ("", {}) if tenant_id is None else (" AND tenant_id = :t", {"t": tenant_id})
    if tx.value(f"SELECT 1 FROM {table} WHERE id = :id{own}", id=text, **params) is not None:
        return [text]
    plain = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = tx.all(
        f"SELECT id FROM {table} WHERE (id LIKE :a ESCAPE '\\' OR id LIKE :b ESCAPE '\\')"
        f"{own} ORDER BY id LIMIT :some",
        a=f"{plain}%",
        b=f"%{plain}",
        some=_SOME,
        **params,
    )
    return [row["id"] for row in rows] if plain else []


def run_row(tx: Tx, run_id: str) -> Row | None:
    """Return a run with its environment's name and the database's time."""
    row = tx.one(f"{_RUNS} WHERE r.id = :id", id=run_id)
    return decoded(row) if row else None


def run_rows(tx: Tx, run_ids: Sequence[str]) -> dict[str, Row]:
    """Return runs by their ids, each as `run_row` does."""
    found: dict[str, Row] = {}
    for first in range(0, len(run_ids), MANY):
        names, params = numbered("r", run_ids[first : first + MANY])
        rows = tx.all(f"{_RUNS} WHERE r.id IN ({names})", **params)
        found |= {row["id"]: decoded(row) for row in rows}
    return found


def run_view(
    row: Row,
    *,
    events: Sequence[Row] = (),
    executions: Sequence[Row] = (),
    after: Sequence[Row] = (),
    report: Row | None = None,
) -> Shape:
    """Return what is shown of one run; `report` is what its commands have said."""
    spec = load(row["spec"])
    chosen = {"environment_chosen_by": chosen_by(events)} if events else {}
    return {
        "id": row["id"],
        "environment": row["environment"],
        **chosen,
        "provider": row["provider"],
        "status": row["status"],
        "step": row["step"],
        "code": row["code"],
        "message": row["message"],
        "exit_code": row["exit_code"],
        "attempt": row["attempt"],
        "infra_attempts": row["infra_attempts"],
        "end_requested": row["end_requested"],
        "lease_id": row["lease_id"],
        "wanted_lease_id": row["wanted_lease_id"],
        "host_id": row["host_id"],
        "worker_id": row["worker_id"],
        "commands": [{"argv": c["argv"], "cwd": c.get("cwd")} for c in spec["commands"]],
        "command_index": row["command_index"],
        "env_names": sorted(spec.get("env") or {}),
        "labels": load(row["labels"]),
        "requires": spec.get("requires") or {},
        "priority": row["priority"],
        "workspace": spec.get("workspace"),
        "tree": load(row["tree"]) or spec.get("tree"),
        "artifacts_error": row["artifacts_error"],
        "output_pruned_at": iso(row["output_pruned_at"]),
        "key": row["idempotency_key"],
        "retry_of": row["retry_of"],
        "waits_for": row["waits"],
        "created_at": iso(row["created_at"]),
        "admitted_at": iso(row["admitted_at"]),
        "started_at": iso(row["started_at"]),
        "finished_at": iso(row["finished_at"]),
        "due_at": iso(row["due_at"]),
        "deadline_at": iso(row["deadline_at"]),
        "after": [predecessors.view(item) for item in after],
        "progress": None if report is None else _progress_view(report),
        "result": None if report is None or not report["result"] else report["result"]["value"],
        "executions": [execution_view(item) for item in executions],
        "events": [event_view(item) for item in events],
    }


def chosen_by(events: Sequence[Row]) -> str:
    """Say who has chosen a run's environment: the run, or whose default it was."""
    data = load(events[0]["data"])
    by = str(data.get("chosen_by", "run"))
    return f"{by} {data[by]}" if by in data else by


def whole_run(tx: Tx, run_id: str, *, tenant_id: str) -> Shape:
    """
    Return all that is shown of one run.

    Raises:
        NotFoundError: There is none, or it belongs to another tenant.
    """
    row = run_row(tx, run_id)
    if row is None or row["tenant_id"] != tenant_id:
        raise NotFoundError(f"there is no run {run_id}")
    events = moves.events_of(tx, run_id=run_id)
    return run_view(
        row,
        events=events,
        executions=starts.of_run(tx, run_id),
        after=predecessors.of_run(tx, run_id),
        report=reports.find(tx, run_id),
    )


def _progress_view(report: Row) -> Shape:
    return {
        "percent": report["percent"],
        "message": report["message"],
        "at": iso(report["progress_at"]),
        "heard_at": iso(report["heard_at"]),
        "execution": report["execution_id"],
    }


def run_line(row: Row) -> Shape:
    """Return what is shown of one run in a list: all but its history and its reports."""
    shape = run_view(row)
    for name in ("events", "executions", "after", "progress", "result"):
        del shape[name]
    return shape


def event_view(row: Row) -> Shape:
    return {"at": iso(row["at"]), "name": row["name"], "data": load(row["data"])}


def execution_view(row: Row) -> Shape:
    return {
        "id": row["id"],
        "command": row["command_index"],
        "setup": row["command_index"] == SETUP,
        "number": row["number"],
        "attempt": row["attempt"],
        "lease_id": row["lease_id"],
        "status": row["status"],
        "cause": row["cause"],
        "exit_code": row["exit_code"],
        "signal": row["signal"],
        "stdout_bytes": row["stdout_offset"],
        "stderr_bytes": row["stderr_offset"],
        "stdout_dropped": row["stdout_dropped"],
        "stderr_dropped": row["stderr_dropped"],
        "started_at": iso(row["started_at"]),
        "ended_at": iso(row["ended_at"]),
    }


def artifact_view(row: Row) -> Shape:
    return {
        "kind": row["kind"],
        "path": row["path"],
        "bytes": row["bytes"],
        "sha256": row["sha256"],
        "mode": f"{row['mode']:o}",
        "link": row["link"],
        "base": row["base"],
        "reason": row["reason"],
        "created_at": iso(row["created_at"]),
    }


def progress(tx: Tx, run_id: str) -> Row | None:
    """Return a run as a follower needs it: with its lease's status and what that owes."""
    return tx.one(
        "SELECT r.id, r.status, r.step, r.code, r.message, r.exit_code, r.attempt,"
        " r.infra_attempts, r.end_requested, r.lease_id, r.claimed_by, r.finished_at,"
        " r.follow_until, r.output_pruned_at, l.status AS lease_status,"
        " l.mode AS lease_mode, l.last_error, l.sandbox_id, {now} AS now_us"
        " FROM runs r LEFT JOIN leases l ON l.id = r.lease_id WHERE r.id = :id",
        id=run_id,
    )


def executions_from(tx: Tx, run_id: str, *, number: int) -> list[Row]:
    """Return a run's executions from a number on, in the order of their starts."""
    return tx.all(
        "SELECT id, number, command_index, attempt, status, cause, exit_code, signal,"
        " stdout_offset, stderr_offset, stdout_dropped, stderr_dropped FROM executions"
        " WHERE run_id = :run AND number >= :number ORDER BY number",
        run=run_id,
        number=number,
    )


def lease_rows(
    tx: Tx,
    *,
    tenant_id: str,
    statuses: Sequence[str] = (),
    live: bool = False,
    limit: int,
    before: int | None = None,
) -> list[Row]:
    """List leases, the newest first; `before` is the number of the last one that was seen."""
    where, params = ["tenant_id = :tenant"], {"tenant": tenant_id, "limit": limit}
    if before is not None:
        where.append("number < :before")
        params["before"] = before
    if statuses:
        names, more = numbered("s", list(statuses))
        where.append(f"status IN ({names})")
        params.update(more)
    few = live or (bool(statuses) and not LEASE_ENDS.intersection(statuses))
    if few:
        where.append(f"status NOT IN ({among(LEASE_ENDS)})")
    # Those that are not over may stand behind many newer ones that are: `+ 0` lets them be
    # found by their own index and sorted.
    order = "number + 0" if few else "number"
    rows = tx.all(
        f"SELECT * FROM leases WHERE {' AND '.join(where)} ORDER BY {order} DESC LIMIT :limit",
        **params,
    )
    return [decoded(row) for row in rows]


def lease_view(row: Row, *, events: Sequence[Row] | None = None) -> Shape:
    """Return what is shown of one lease."""
    over = row["status"] in LEASE_ENDS
    expires_at = row["timer_at"] or (None if over else row["sandbox_expires_at"])
    shape = {
        "id": row["id"],
        "number": row["number"],
        "status": row["status"],
        "provider": row["provider"],
        "sandbox_id": row["sandbox_id"],
        "environment": row["environment_name"],
        "run_id": row["run_id"],
        "host_id": row["host_id"],
        "policy": row["policy"],
        "fence": row["fence"],
        "mode": row["mode"],
        "reason": row["reason"],
        "expires_at": iso(expires_at),
        "held_until": iso(row["held_until"]),
        "retained_until": iso(row["retained_until"]),
        "key": row["idempotency_key"],
        "sandbox_expires_at": iso(row["sandbox_expires_at"]),
        "cleanup_status": row["cleanup_status"],
        "cleanup_attempts": row["cleanup_attempts"],
        "last_error": row["last_error"],
        "due_at": iso(row["due_at"]),
        "created_at": iso(row["created_at"]),
        "active_at": iso(row["active_at"]),
        "finished_at": iso(row["finished_at"]),
        "metadata": _metadata(load(row["facts"]) or {}),
    }
    if events is not None:
        shape["events"] = [event_view(item) for item in events]
    return shape


def _metadata(facts: Row) -> Row:
    shown = {name: value for name, value in facts.items() if name != "environment_env"}
    if "environment_env" in facts:
        shown["environment_env_names"] = sorted(facts["environment_env"])
    return shown


def whole_lease(tx: Tx, lease_id: str, *, tenant_id: str) -> Shape:
    """
    Return all that is shown of one lease.

    Raises:
        NotFoundError: There is none, or it belongs to another tenant.
    """
    row = leases.get(tx, lease_id, tenant_id=tenant_id)
    return lease_view(row, events=moves.events_of(tx, lease_id=lease_id))


def environment_view(row: Row) -> Shape:
    spec = load(row["spec"])
    return {
        "id": row["id"],
        "name": row["name"],
        "status": row["status"],
        "provider": row["provider"],
        "description": spec.get("description", ""),
        "config": spec.get("config", {}),
        "env_names": sorted(spec.get("env") or {}),
        "policy": spec.get("policy"),
        "limits": spec.get("limits", {}),
        "requires": spec.get("requires") or {},
        "idle_ttl_s": spec.get("idle_ttl_s"),
        "retained_ttl_s": spec.get("retained_ttl_s"),
        "checked": checked_view(load(row["vetted"])),
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def checked_view(vetted: Row | None) -> Shape:
    """Return what is shown of how an environment's config was checked."""
    if vetted is None:
        return {"by": None, "why": "made on first use, or before workers were asked"}
    return {**vetted, "at": iso(vetted["at"])}


def selection_view(row: Row) -> Shape:
    """Return what is shown of where runs go that name no environment."""
    shape: Shape = {name: row[name] for name in ("kind", "name", "environment")}
    if "environment_status" in row:
        shape["environment_status"] = row["environment_status"] or "missing"
    return shape | {"created_at": iso(row["created_at"]), "updated_at": iso(row["updated_at"])}


def tenant_view(row: Row) -> Shape:
    """Return what is shown of a tenant: nothing that is in its rows, only how many."""
    shape = {
        "name": row["id"],
        "status": row["status"],
        "description": row["description"] or "",
        "limits": {name: row[name] for name in ("max_concurrent", "max_queued")},
        "created_at": iso(row["created_at"]),
    }
    counts = ("queued_runs", "running_runs", "live_leases")
    return shape | {name: row[name] for name in counts if name in row}


def key_view(row: Row) -> Shape:
    """Return what is shown of an API key; never its hash."""
    status = "revoked" if row["revoked_at"] is not None else "valid"
    if status == "valid" and row["expires_at"] is not None and "now_us" in row:
        status = "expired" if row["expires_at"] <= row["now_us"] else "valid"
    return {
        "id": row["id"],
        "name": row["name"],
        "role": row["role"],
        "prefix": row["prefix"],
        "status": status,
        "created_at": iso(row["created_at"]),
        "expires_at": iso(row["expires_at"]),
        "last_used_at": iso(row["last_used_at"]),
        "revoked_at": iso(row["revoked_at"]),
    }
