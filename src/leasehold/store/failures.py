"""
Failures that are alike, as one: how many, since when, which runs.

Looked at are the newest `MOST` failed runs of a time, found by the index of rare ends; a
deployment in which more fail in it is told so (`is_cut`).
"""

from dataclasses import dataclass, field
from typing import Any, Final

from leasehold.domain import likeness
from leasehold.store.database import Row, Tx
from leasehold.store.views import iso

MOST: Final = 5_000
RUNS: Final = 100
"""So many runs of a group are named, the newest."""

PLACES: Final = 5
_PROGRAM: Final = {
    "postgresql": (
        "r.spec #>> ARRAY['commands', CAST(GREATEST(r.command_index, 0) AS text), 'argv', '0']"
    ),
    "sqlite": ("json_extract(r.spec, '$.commands[' || MAX(r.command_index, 0) || '].argv[0]')"),
}
_FAILED: Final = (
    "SELECT r.id, r.code, r.exit_code, r.message, r.environment_id, r.finished_at,"
    " {program} AS program FROM runs r WHERE r.tenant_id = :tenant"
    " AND r.status IN ('failed', 'timed_out') AND r.created_at > :since"
    " ORDER BY r.created_at DESC LIMIT :most"
)


@dataclass(slots=True)
class Group:
    """Failures that are alike."""

    fingerprint: str
    code: str | None
    exit_code: int | None
    program: str | None
    message: str
    """Of the newest one, as it was."""

    runs: int = 0
    first_us: int = 0
    last_us: int = 0
    run_ids: list[str] = field(default_factory=list)
    """The newest first, `RUNS` at most."""

    environment_ids: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Failures:
    """One look."""

    groups: list[Group]
    """The most frequent first."""

    seen: int
    is_cut: bool
    """More have failed since then than were looked at."""


def look(tx: Tx, *, tenant_id: str, since_us: int) -> Failures:
    """Group the newest failures of runs that were created since then."""
    text = _FAILED.replace("{program}", _PROGRAM[tx.dialect])
    rows = tx.all(text, tenant=tenant_id, since=since_us, most=MOST + 1)
    groups: dict[str, Group] = {}
    for row in rows[:MOST]:
        _add(groups, row)
    ordered = sorted(groups.values(), key=lambda one: (-one.runs, -one.last_us))
    return Failures(ordered, min(len(rows), MOST), len(rows) > MOST)


def _add(groups: dict[str, Group], row: Row) -> None:
    code, exit_code, program = row["code"], row["exit_code"], row["program"]
    key = likeness.fingerprint(code, exit_code, program, row["message"])
    group = groups.get(key)
    if group is None:
        group = groups[key] = Group(key, code, exit_code, program, row["message"] or "")
    at, place = int(row["finished_at"]), row["environment_id"]
    group.runs += 1
    group.first_us = min(group.first_us or at, at)
    group.last_us = max(group.last_us, at)
    if len(group.run_ids) < RUNS:
        group.run_ids.append(row["id"])
    if place in group.environment_ids or len(group.environment_ids) < PLACES:
        group.environment_ids[place] = group.environment_ids.get(place, 0) + 1


def group_view(group: Group, names: dict[str, str]) -> dict[str, Any]:
    """Return what is shown of a group; `names` are those of environments by their ids."""
    return {
        "fingerprint": group.fingerprint,
        "code": group.code,
        "exit_code": group.exit_code,
        "program": group.program,
        "message": group.message,
        "runs": group.runs,
        "first_at": iso(group.first_us),
        "last_at": iso(group.last_us),
        "run_ids": group.run_ids,
        "environments": {names.get(key, key): n for key, n in group.environment_ids.items()},
    }
