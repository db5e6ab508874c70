"""SQL of hosts, sessions, workers and the providers that they advertise."""

from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.domain.lifecycle import SessionStatus, WorkerStatus
from leasehold.store import moves
from leasehold.store.database import Row, Tx
from leasehold.store.runs import decoded, insert_row
from leasehold.store.sql import dump, load, numbered, plain


def upsert_host(
    tx: Tx,
    host_id: str,
    *,
    name: str,
    capacity: int,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Say what a host is like; the newest word of its agents stands, labels included."""
    tx.run(
        "INSERT INTO hosts (id, name, capacity, draining, created_at, alive_at, labels)"
        " VALUES (:id, :name, :capacity, false, {now}, {now}, :labels) ON CONFLICT (id)"
        " DO UPDATE SET name = :name, capacity = :capacity, draining = false, alive_at = {now},"
        " labels = :labels",
        id=host_id,
        name=name,
        capacity=capacity,
        labels=dump(dict(labels or {})),
    )


def labels(tx: Tx) -> list[Row]:
    """Return id, name and labels of every host, by name."""
    rows = tx.all("SELECT id, name, labels FROM hosts ORDER BY name, id")
    return [row | {"labels": load(row["labels"])} for row in rows]


def is_bound(tx: Tx, key: str) -> bool:
    """Return whether every host that has advertised a provider is bound to its sandboxes."""
    rows = tx.all("SELECT host_bound FROM providers WHERE key = :key", key=key)
    return all(row["host_bound"] for row in rows)


def start_session(
    tx: Tx, session_id: str, *, host_id: str, pid: int, identity: str | None = None
) -> None:
    tx.run(
        "INSERT INTO sessions (id, host_id, pid, identity, counter, status, started_at,"
        " beat_at) VALUES (:id, :host, :pid, :identity, 0, 'live', {now}, {now})",
        id=session_id,
        host=host_id,
        pid=pid,
        identity=identity,
    )


def live_sessions_of(tx: Tx, host_id: str) -> list[Row]:
    return tx.all(
        "SELECT id, pid, identity, counter FROM sessions"
        " WHERE host_id = :host AND status = 'live'",
        host=host_id,
    )


_BEAT = (
    "UPDATE sessions SET counter = counter + 1, beat_at = {now}"
    " WHERE id = :id AND status = 'live' RETURNING counter,"
    " (SELECT value FROM facts WHERE name = 'alarm') AS alarm,"
    " (SELECT value FROM facts WHERE name = 'sweep_wanted') AS sweep_wanted,"
    " (SELECT MAX(number) FROM leases) AS highest"
)


def beat(tx: Tx, session_id: str) -> Row | None:
    """
    Count the session's beat on; None if somebody has expired it.

    Returns what an agent must know of its deployment, for the price of the same statement:
    `counter`, `alarm` (`store.restored`), `sweep_wanted` (`store.sweeps`), `highest` (number
    of a lease).
    """
    return tx.one(_BEAT, id=session_id)


def live_sessions(tx: Tx) -> list[Row]:
    return tx.all("SELECT id, host_id, counter FROM sessions WHERE status = 'live'")


def end_session(tx: Tx, session_id: str, *, to: SessionStatus, counter: int | None) -> bool:
    """End a session; an observer brings the counter that it saw standing still."""
    guard = "counter = :seen" if counter is not None else ""
    row = moves.move(
        tx,
        "sessions",
        session_id,
        to,
        guard=guard,
        guard_values={"seen": counter} if guard else {},
        raw=("ended_at = {now}",),
    )
    if row is None:
        return False
    tx.run("UPDATE hosts SET alive_at = {now} WHERE id = :id", id=row["host_id"])
    return True


def add_worker(tx: Tx, values: Mapping[str, Any]) -> None:
    now = tx.now()
    insert_row(tx, "workers", {**values, "status": WorkerStatus.STARTING, "started_at": now})


def move_worker(tx: Tx, worker_id: str, to: WorkerStatus) -> bool:
    raw = ("gone_at = {now}",) if to is WorkerStatus.GONE else ()
    return moves.move(tx, "workers", worker_id, to, raw=raw) is not None


def workers_of(tx: Tx, session_id: str) -> list[str]:
    rows = tx.all(
        "SELECT id FROM workers WHERE session_id = :id AND status <> 'gone'", id=session_id
    )
    return [row["id"] for row in rows]


def workers(tx: Tx, *, all_of_them: bool = False) -> list[Row]:
    """List workers with their host's name; those that are gone only if asked for."""
    only = "" if all_of_them else " WHERE w.status <> 'gone'"
    rows = tx.all(
        "SELECT w.*, h.name AS host, h.labels FROM workers w JOIN hosts h ON h.id = w.host_id"
        f"{only} ORDER BY w.started_at DESC LIMIT 500"
    )
    return [decoded(row) for row in rows]


def hosts(tx: Tx) -> list[Row]:
    """List hosts with the number of their live sessions and of the sandboxes they hold."""
    rows = tx.all(
        "SELECT h.*, (SELECT count(*) FROM sessions s WHERE s.host_id = h.id"
        " AND s.status = 'live') AS live_sessions, (SELECT count(*) FROM leases l"
        " WHERE l.host_id = h.id AND l.finished_at IS NULL) AS leases"
        " FROM hosts h ORDER BY h.created_at"
    )
    return [decoded(row) for row in rows]


def advertise(tx: Tx, host_id: str, values: Mapping[str, Any]) -> None:
    """Say what this host loaded; the newest word stands."""
    tx.run(
        "INSERT INTO providers (host_id, key, version, health, summary, host_bound, capacity,"
        " capabilities, config_schema, seen_at) VALUES (:host, :key, :version, :health,"
        " :summary, :host_bound, :capacity, :capabilities, :config_schema, {now})"
        " ON CONFLICT (host_id, key) DO UPDATE SET version = :version, health = :health,"
        " summary = :summary, host_bound = :host_bound, capacity = :capacity,"
        " capabilities = :capabilities, config_schema = :config_schema, seen_at = {now}",
        host=host_id,
        **{k: dump(v) if isinstance(v, dict | list) else v for k, v in values.items()}
        | {"summary": plain(values["summary"])},
    )


def versions(tx: Tx, host_id: str) -> dict[str, str]:
    """Return the version of each provider that this host has advertised as healthy."""
    rows = tx.all(
        "SELECT key, version FROM providers WHERE host_id = :h AND health = 'healthy'",
        h=host_id,
    )
    return {row["key"]: row["version"] for row in rows}


def withdraw(tx: Tx, host_id: str, *, keep: Sequence[str]) -> None:
    """Take back what this host does not load any more."""
    if keep:
        names, params = numbered("k", list(keep))
        tx.run(
            f"DELETE FROM providers WHERE host_id = :h AND key NOT IN ({names})",
            h=host_id,
            **params,
        )
    else:
        tx.run("DELETE FROM providers WHERE host_id = :h", h=host_id)


def providers(tx: Tx) -> list[Row]:
    """List what was advertised, with whether its host lives."""
    rows = tx.all(
        "SELECT p.*, h.name AS host, h.draining, h.alive_at, (EXISTS (SELECT 1 FROM sessions s"
        " WHERE s.host_id = p.host_id AND s.status = 'live')) AS live"
        " FROM providers p JOIN hosts h ON h.id = p.host_id ORDER BY p.key, h.name"
    )
    for row in rows:
        row["capabilities"] = load(row["capabilities"])
        row["config_schema"] = load(row["config_schema"])
        row["live"] = bool(row["live"])
    return rows


def served(tx: Tx, key: str) -> list[Row]:
    """Return the live, healthy, not draining hosts that serve a provider."""
    return tx.all(
        "SELECT p.host_id, p.host_bound, p.capacity AS provider_capacity, h.capacity,"
        " p.version FROM providers p JOIN hosts h ON h.id = p.host_id"
        " WHERE p.key = :key AND p.health = 'healthy' AND NOT h.draining AND EXISTS"
        " (SELECT 1 FROM workers w JOIN sessions s ON s.id = w.session_id"
        " WHERE w.host_id = p.host_id AND w.status = 'ready' AND w.kind = 'steps'"
        " AND s.status = 'live')",
        key=key,
    )


def known_keys(tx: Tx) -> list[str]:
    return [row["key"] for row in tx.all("SELECT DISTINCT key FROM providers ORDER BY key")]


def worker_ready(tx: Tx, worker_id: str, *, queues: Sequence[str]) -> bool:
    """Say that a worker consumes its queues."""
    row = moves.move(tx, "workers", worker_id, WorkerStatus.READY, queues=list(queues))
    return row is not None


def ready_workers(tx: Tx) -> list[Row]:
    """Return the workers that consume, of sessions that live."""
    return tx.all(
        "SELECT w.id, w.kind, w.pid, w.host_id FROM workers w JOIN sessions s"
        " ON s.id = w.session_id WHERE w.status = 'ready' AND s.status = 'live'"
    )


def away(tx: Tx) -> set[str]:
    """Return the hosts without a live session."""
    rows = tx.all(
        "SELECT id FROM hosts h WHERE NOT EXISTS (SELECT 1 FROM sessions s"
        " WHERE s.host_id = h.id AND s.status = 'live')"
    )
    return {row["id"] for row in rows}
