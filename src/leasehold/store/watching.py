"""
SQL of those who watch runs: all of them are asked about in one statement, however many.

Lists of wants are filled up to a power of two with their last one, so that there are few
texts of each statement and drivers can keep them prepared.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from leasehold.store.database import Row, Tx
from leasehold.store.sql import load, numbered


@cache
def _wants(columns: tuple[str, ...], count: int) -> str:
    """Return a table of wants; what is text is told by the name of its column."""
    text = {"run", "execution", "stream"}
    rows = (
        ", ".join(f":{c}{n}" if c in text else f"CAST(:{c}{n} AS BIGINT)" for c in columns)
        for n in range(count)
    )
    return f"WITH w({', '.join(columns)}) AS (VALUES {', '.join(f'({row})' for row in rows)})"


def _wanted(wants: Sequence[Sequence[Any]], *columns: str) -> tuple[str, Row]:
    count = 1 << (len(wants) - 1).bit_length()
    filled = [*wants, *[wants[-1]] * (count - len(wants))]
    params = {f"{c}{n}": v for n, want in enumerate(filled) for c, v in zip(columns, want)}  # noqa: B905  one value for each
    return _wants(columns, count), params


def glimpses(tx: Tx, wants: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int, int], Row]:
    """
    Return of each wanted run how it is, and what there is from a place on.

    Args:
        wants: Run, event and start. `lines` counts the events after that one; columns with
            ``x_`` are of the first execution with that number or a higher one. -1: not asked.
    """
    if not wants:
        return {}
    table, params = _wanted(wants, "run", "event", "start")
    rows = tx.all(
        f"{table} SELECT w.run, w.event, w.start, r.status, r.code, r.message, r.exit_code,"
        " CASE WHEN w.event < 0 THEN 0 ELSE (SELECT count(*) FROM events e"
        " WHERE e.run_id = w.run AND e.id > w.event) END AS lines, x.id AS x_id,"
        " x.number AS x_number, x.command_index AS x_command, x.status AS x_status,"
        " x.exit_code AS x_exit_code, x.signal AS x_signal, x.stdout_offset AS x_stdout,"
        " x.stderr_offset AS x_stderr, x.stdout_dropped AS x_stdout_dropped,"
        " x.stderr_dropped AS x_stderr_dropped, {now} AS now_us"
        " FROM w JOIN runs r ON r.id = w.run LEFT JOIN executions x ON x.run_id = w.run"
        " AND x.number = (SELECT MIN(y.number) FROM executions y WHERE y.run_id = w.run"
        " AND y.number >= w.start AND w.start >= 0)",
        **params,
    )
    return {(row["run"], row["event"], row["start"]): row for row in rows}


def events(
    tx: Tx, wants: Sequence[tuple[str, int]], *, limit: int
) -> dict[tuple[str, int], list[Row]]:
    """Return of each wanted run the events after one, the oldest first, `limit` at most."""
    found: dict[tuple[str, int], list[Row]] = {want: [] for want in wants}
    if not wants:
        return found
    table, params = _wanted(wants, "run", "event")
    rows = tx.all(
        f"{table} SELECT * FROM (SELECT v.run, v.event, e.id, e.at, e.name, e.data,"
        " row_number() OVER (PARTITION BY v.run, v.event ORDER BY e.id) AS turn"
        " FROM (SELECT DISTINCT run, event FROM w) v"
        " JOIN events e ON e.run_id = v.run AND e.id > v.event) q"
        " WHERE turn <= :limit ORDER BY id",
        limit=limit,
        **params,
    )
    for row in rows:
        row["data"] = load(row["data"])
        found[row["run"], row["event"]].append(row)
    return found


def output(
    tx: Tx, wants: Sequence[tuple[str, str, int, int]]
) -> dict[tuple[str, str, int, int], bytes]:
    """
    Return stored output.

    Args:
        wants: Execution, stream, the offset of the first byte and the one behind the last.
    """
    found: dict[tuple[str, str, int, int], bytes] = {}
    if not wants:
        return found
    table, params = _wanted(wants, "execution", "stream", "first", "behind")
    rows = tx.all(
        f"{table} SELECT w.execution, w.stream, w.first, w.behind, c.start,"
        " substr(c.data, CAST(CASE WHEN w.first > c.start THEN w.first - c.start ELSE 0 END"
        " AS INTEGER) + 1, CAST(w.behind - w.first AS INTEGER)) AS data"
        " FROM (SELECT DISTINCT execution, stream, first, behind FROM w) w"
        " JOIN output_chunks c ON c.execution_id = w.execution AND c.stream = w.stream"
        " AND c.start < w.behind AND c.start >= COALESCE((SELECT MAX(d.start)"
        " FROM output_chunks d WHERE d.execution_id = w.execution AND d.stream = w.stream"
        " AND d.start <= w.first), 0) ORDER BY c.start",
        **params,
    )
    for row in rows:
        want = (row["execution"], row["stream"], row["first"], row["behind"])
        found[want] = (found.get(want, b"") + bytes(row["data"]))[: want[3] - want[2]]
    return found


def valid_keys(tx: Tx, key_ids: Sequence[str]) -> set[str]:
    """Return those of the API keys that are neither revoked nor expired."""
    names, params = numbered("k", _filled(key_ids))
    rows = tx.all(
        f"SELECT id FROM api_keys WHERE id IN ({names}) AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > {now})",
        **params,
    )
    return {row["id"] for row in rows}


def follow(tx: Tx, run_ids: Sequence[str], *, for_us: int) -> None:
    """
    Ask for quick beats of runs for a while, the first one at once (`operator.follow`).

    A run that somebody is writing to is left out, so that this never waits and never holds
    up the engine; whoever watches asks again.
    """
    names, params = numbered("r", _filled(run_ids))
    tx.run(
        "UPDATE runs SET due_at = CASE WHEN beat AND due_at > {now}"
        " AND COALESCE(follow_until, 0) < {now} THEN {now} ELSE due_at END,"
        " follow_until = {now} + :for_us WHERE id IN (SELECT id FROM runs"
        f" WHERE id IN ({names}) AND finished_at IS NULL ORDER BY id {{skip}})",
        for_us=for_us,
        **params,
    )


def _filled(ids: Sequence[str]) -> list[str]:
    count = 1 << (len(ids) - 1).bit_length()
    return [*ids, *[ids[-1]] * (count - len(ids))]


def newest_event(tx: Tx) -> int:
    """Return the id of the newest event of all."""
    return int(tx.value("SELECT COALESCE(MAX(id), 0) FROM events"))


def newest_events(tx: Tx, *, after: int) -> dict[str, int]:
    """Return the newest event of each tenant that has one after this one."""
    rows = tx.all(
        "SELECT tenant_id, MAX(id) AS id FROM events WHERE id > :after GROUP BY tenant_id",
        after=after,
    )
    return {row["tenant_id"]: row["id"] for row in rows}
