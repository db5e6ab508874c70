"""
What people and programs are shown of providers, workers and hosts: read-only, as `views`.
"""

from collections.abc import Sequence

from leasehold.errors import NotFoundError
from leasehold.store import hosts as rows
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load
from leasehold.store.views import Shape, iso


def providers(tx: Tx) -> list[Shape]:
    """Return what workers have loaded, by key."""
    advertised = rows.providers(tx)
    keys = sorted({row["key"] for row in advertised})
    return [provider_view([row for row in advertised if row["key"] == key]) for key in keys]


def provider(tx: Tx, key: str) -> Shape:
    """
    Return one provider.

    Raises:
        NotFoundError: Says which there are.
    """
    shapes = providers(tx)
    found = [shape for shape in shapes if shape["key"] == key]
    if not found:
        known = ", ".join(shape["key"] for shape in shapes) or "none: no worker has started yet"
        raise NotFoundError(f"there is no provider {key!r}; there are: {known}")
    return found[0]


def workers(tx: Tx, *, all_of_them: bool = False) -> list[Shape]:
    """Return workers with the providers that they serve; those that are gone only if asked."""
    advertised = rows.providers(tx)
    return [
        worker_view(
            row,
            [
                p["key"]
                for p in advertised
                if p["host_id"] == row["host_id"] and p["health"] == "healthy"
            ],
        )
        for row in rows.workers(tx, all_of_them=all_of_them)
    ]


def hosts(tx: Tx) -> list[Shape]:
    """Return hosts, alive or not."""
    return [host_view(row) for row in rows.hosts(tx)]


def host(tx: Tx, host_id: str) -> Shape:
    """
    Return one host.

    Raises:
        NotFoundError: There is none of this id.
    """
    found = [shape for shape in hosts(tx) if shape["id"] == host_id]
    if not found:
        raise NotFoundError(f"there is no host {host_id}")
    return found[0]


def worker_view(row: Row, providers: Sequence[str]) -> Shape:
    return {
        "id": row["id"],
        "host": row["host"],
        "host_id": row["host_id"],
        "pid": row["pid"],
        "kind": row["kind"],
        "status": row["status"],
        "providers": list(providers),
        "labels": load(row["labels"]),
        "queues": load(row["queues"]),
        "version": row["version"],
        "started_at": iso(row["started_at"]),
        "gone_at": iso(row["gone_at"]),
    }


def host_view(row: Row) -> Shape:
    return {
        "id": row["id"],
        "name": row["name"],
        "capacity": row["capacity"],
        "labels": load(row["labels"]),
        "draining": bool(row["draining"]),
        "live": row["live_sessions"] > 0,
        "leases": row["leases"],
        "created_at": iso(row["created_at"]),
        "alive_at": iso(row["alive_at"]),
    }


def provider_view(rows: Sequence[Row]) -> Shape:
    """Return what is shown of one provider, from the words of every host that has it."""
    best = max(rows, key=lambda row: (row["live"], row["health"] == "healthy", row["seen_at"]))
    return {
        "key": best["key"],
        "version": best["version"],
        "health": best["health"],
        "summary": best["summary"],
        "live": any(row["live"] for row in rows),
        "host_bound": bool(best["host_bound"]),
        "capacity": best["capacity"],
        "capabilities": best["capabilities"],
        "config_schema": best["config_schema"],
        "hosts": [
            {
                "id": row["host_id"],
                "name": row["host"],
                "live": row["live"],
                "version": row["version"],
                "health": row["health"],
                "summary": row["summary"],
                "seen_at": iso(row["seen_at"]),
            }
            for row in rows
        ],
    }
