"""
Pages of runs: by status, environment and labels, the newest first.

What is asked for by environment or label starts from `run_lookups`, which has the order of the
page within each value, so a page costs as many rows as it shows, however many runs there are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from leasehold.domain.lifecycle import RUN_ENDS, RunStatus
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.lookup_tables import VALUE_MAX
from leasehold.store.runs import decoded

_SHOWN: Final = (
    "SELECT r.*, COALESCE(e.name, r.environment_id) AS environment, {now} AS now_us FROM"
)
_NAMED: Final = "LEFT JOIN environments e ON e.id = r.environment_id"


def run_rows(
    tx: Tx,
    *,
    tenant_id: str,
    statuses: Sequence[str] = (),
    environment: str | None = None,
    labels: Mapping[str, str] | None = None,
    limit: int = 100,
    after: tuple[int, str] | None = None,
) -> list[Row]:
    """
    List runs with their environments' names, the newest first.

    Args:
        environment: Its name, or its id.
        after: `created_at` and id of the last one that was seen; newer runs move no page.
    """
    found, at, params = _found(
        tx,
        tenant_id=tenant_id,
        statuses=statuses,
        environment=environment,
        labels=labels,
        after=after,
    )
    order = ", ".join(f"{column} DESC" for column in at.strip("()").split(", "))
    if _are_few(statuses) and not (environment or labels):
        order = "r.created_at + 0 DESC, r.id DESC"
    rows = tx.all(
        f"{_SHOWN} {found} ORDER BY {order} LIMIT :limit",
        limit=limit,
        **params,
    )
    return [decoded(row) for row in rows]


def _are_few(statuses: Sequence[str]) -> bool:
    """
    Say whether these runs are found by indexes of what is not over, and sorted then.

    The newest runs may all be over: those that run since yesterday stand behind a million of
    them in the order of the page. `+ 0` says so to the planner, which thinks of the next page.
    """
    return RunStatus.RUNNING in statuses and not RUN_ENDS.intersection(statuses)


def count(tx: Tx, *, most: int, **found_by: Any) -> int:
    """Count the runs that `run_rows` would list with the same filter, up to `most`."""
    found, _, params = _found(tx, **found_by)
    text = f"SELECT count(*) FROM (SELECT 1 AS one FROM {found} LIMIT :most) q"
    return int(tx.value(text, most=most, **params))


def _found(
    tx: Tx,
    *,
    tenant_id: str,
    statuses: Sequence[str],
    environment: str | None,
    labels: Mapping[str, str] | None,
    after: tuple[int, str] | None,
) -> tuple[str, str, dict[str, Any]]:
    """Return the tables with their conditions, what a page is ordered by, and the values."""
    params: dict[str, Any] = {"tenant": tenant_id}
    keys = [(f"label:{name}", value) for name, value in (labels or {}).items()]
    if environment is not None:
        keys.append(("environment", _id_of(tx, environment, tenant_id=tenant_id)))
    tables, where, at = _found_by(tx, keys, params)
    if after is not None:
        where.append(f"{at} < (:after_at, :after_id)")
        params |= {"after_at": after[0], "after_id": after[1]}
    if statuses:
        # As constants: only so an index of some statuses is known to have them all.
        wanted = frozenset(map(RunStatus, statuses))
        alone = " OR ".join(f"r.status = '{status}'" for status in sorted(wanted))
        where.append(f"({alone})" if _are_few(statuses) else f"r.status IN ({among(wanted)})")
    return f"{tables} {_NAMED} WHERE {' AND '.join(where)}", at, params


def _found_by(
    tx: Tx, keys: Sequence[tuple[str, str]], params: dict[str, Any]
) -> tuple[str, list[str], str]:
    """Return the tables to look into, the conditions, and what a page is ordered by."""
    if not keys:
        return "runs r", ["r.tenant_id = :tenant"], "(r.created_at, r.id)"
    tables, where = "run_lookups k0", []
    for number, (name, value) in enumerate(keys):
        k = f"k{number}"
        if number:
            tables += (
                f" JOIN run_lookups {k} ON {k}.created_at = k0.created_at"
                f" AND {k}.run_id = k0.run_id"
            )
        where.append(
            f"{k}.tenant_id = :tenant AND {k}.name = :name{number} AND {k}.value = :key{number}"
        )
        params |= {f"name{number}": name, f"key{number}": value[:VALUE_MAX]}
        if len(value) > VALUE_MAX:
            where.append(_whole_label(tx, number))
            params |= {f"label{number}": name.partition(":")[2], f"value{number}": value}
    return f"{tables} JOIN runs r ON r.id = k0.run_id", where, "(k0.created_at, k0.run_id)"


def _whole_label(tx: Tx, number: int) -> str:
    if tx.dialect == "sqlite":
        return f"json_extract(r.labels, '$.\"' || :label{number} || '\"') = :value{number}"
    return f"(r.labels ->> CAST(:label{number} AS text)) = :value{number}"


def _id_of(tx: Tx, environment: str, *, tenant_id: str) -> str:
    """Return the id of the environment of that name, or the word itself: it may be one."""
    found = tx.value(
        "SELECT id FROM environments WHERE tenant_id = :tenant AND name = :name",
        tenant=tenant_id,
        name=environment,
    )
    return str(found or environment)
