"""SQL of the sweeps: who asked for one, what each host answered, what it is compared with."""

from typing import Any, Final

from leasehold.store.database import Row, Tx
from leasehold.store.sql import dump, load

_WANTED: Final = "sweep_wanted"
RECENT: Final = 1000


def ask(tx: Tx, *, dry_run: bool) -> int:
    """
    Ask every live host for a sweep; return the request's number.

    The hosts' agents read it with their next beat. A later request takes the place of one
    that was not answered yet: an answer to it answers both.
    """
    text = tx.value(
        "INSERT INTO facts (name, value) VALUES (:name, :first) ON CONFLICT (name) DO UPDATE"
        " SET value = CAST(CAST(rtrim(facts.value, ' dry') AS BIGINT) + 1 AS TEXT) || :mark"
        " RETURNING value",
        name=_WANTED,
        first=f"1{_mark(dry_run)}",
        mark=_mark(dry_run),
    )
    return parse(text)[0]


def _mark(dry_run: bool) -> str:  # noqa: FBT001  the only argument
    return " dry" if dry_run else ""


def parse(text: str | None) -> tuple[int, bool]:
    """Return a request's number and whether nothing may be changed; ``(0, False)``: none."""
    number, _, mark = (text or "0").partition(" ")
    return int(number), mark == "dry"


def wanted(tx: Tx) -> tuple[int, bool]:
    """Return the newest request."""
    return parse(tx.value("SELECT value FROM facts WHERE name = :name", name=_WANTED))


def answer(
    tx: Tx, *, host_id: str, provider: str, request: int, dry_run: bool, report: dict[str, Any]
) -> None:
    """Write what a host's sweep of one provider saw and did."""
    tx.run(
        "INSERT INTO sweep_reports (host_id, provider, request, dry_run, at, report)"
        " VALUES (:host, :provider, :request, :dry, {now}, :report)"
        " ON CONFLICT (host_id, provider) DO UPDATE SET request = :request, dry_run = :dry,"
        " at = {now}, report = :report",
        host=host_id,
        provider=provider,
        request=request,
        dry=dry_run,
        report=dump(report),
    )


def answers(tx: Tx) -> list[Row]:
    """Return the last report of every host and provider, with the host's name."""
    rows = tx.all(
        "SELECT s.*, h.name AS host FROM sweep_reports s JOIN hosts h ON h.id = s.host_id"
        " ORDER BY h.name, s.provider"
    )
    for row in rows:
        row["report"], row["dry_run"] = load(row["report"]), bool(row["dry_run"])
    return rows


def asked_of(tx: Tx) -> list[Row]:
    """Return the hosts that live and the providers that they have loaded."""
    return tx.all(
        "SELECT p.host_id, p.key AS provider, h.name AS host FROM providers p"
        " JOIN hosts h ON h.id = p.host_id WHERE p.health <> 'undetected' AND EXISTS"
        " (SELECT 1 FROM workers w JOIN sessions s ON s.id = w.session_id"
        " WHERE w.host_id = p.host_id AND w.status <> 'gone' AND s.status = 'live')"
        " ORDER BY h.name, p.key"
    )


def away(tx: Tx) -> list[Row]:
    """Return the hosts without a live session that leases still name."""
    return tx.all(
        "SELECT h.id, h.name, count(*) AS leases FROM hosts h JOIN leases l"
        " ON l.host_id = h.id AND l.finished_at IS NULL WHERE NOT EXISTS"
        " (SELECT 1 FROM sessions s WHERE s.host_id = h.id AND s.status = 'live')"
        " GROUP BY h.id, h.name ORDER BY h.name"
    )


def configs(tx: Tx, provider: str) -> list[Row]:
    """
    Return the configs with which sandboxes of a provider may have been made, with tenants.

    Those of its environments, of its live leases, and of the `RECENT` newest leases: what
    was left behind by one that is over and whose environment is gone is still found.
    """
    return tx.all(
        "SELECT tenant_id, {spec_config} AS config FROM environments WHERE provider = :provider"
        " UNION SELECT tenant_id, {facts_config} AS config FROM leases"
        " WHERE provider = :provider AND (status IN ('acquiring', 'active', 'idle',"
        " 'retained', 'releasing') OR number > (SELECT COALESCE(MAX(number), 0) FROM leases)"
        " - :recent)",
        provider=provider,
        recent=RECENT,
    )


def with_sandbox(tx: Tx, provider: str, *, host_id: str) -> list[Row]:
    """Return the leases that have a sandbox which this host must be able to list."""
    return tx.all(
        "SELECT id, status, fence, sandbox_id, facts FROM leases WHERE provider = :provider"
        " AND status IN ('active', 'idle', 'retained')"
        " AND (host_id IS NULL OR host_id = :host) ORDER BY id",
        provider=provider,
        host=host_id,
    )
