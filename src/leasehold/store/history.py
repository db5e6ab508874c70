"""
Replay the events and compare: is every status what its history says (P9), move by move?

The events are the second book: each change of status wrote its line in the same transaction.
`verify` reads them again from the start. A run must begin with ``run.queued``, a lease with
``lease.acquiring``, an execution (its row is the intent, no event) as `starting`; each next
line must be an arrow of `domain.lifecycle`; and the last one must be the stored status. Rows
are read page by page, a few queries each, so that memory does not grow with history.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, TypeVar

from leasehold.domain import lifecycle as life
from leasehold.store import moves
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load, numbered

PAGE: Final = 500
S = TypeVar("S", bound=StrEnum)

_RUN_NAMES: Final = {f"run.{status}": status for status in life.RunStatus}
_LEASE_NAMES: Final = {f"lease.{status}": status for status in life.LeaseStatus}
_EXECUTION_NAMES: Final = {
    "execution.started": life.ExecutionStatus.RUNNING,
    "execution.adopted": life.ExecutionStatus.RUNNING,
    **{f"execution.{status}": status for status in life.EXECUTION_ENDS},
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A row whose status is not what its events say."""

    noun: str
    id: str
    stored: str
    replayed: str | None
    """The status after the last event; None if there was none."""

    problem: str

    def __str__(self) -> str:
        return f"{self.noun} {self.id} is {self.stored}: {self.problem}"


def hold_still(tx: Tx) -> None:
    """Let the rest of a transaction that only reads see one moment; its first statement."""
    if tx.dialect == "postgresql":
        tx.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def verify(tx: Tx) -> list[Difference]:
    """Return each run, lease and execution whose stored status its events do not lead to."""
    moves.flush(tx)
    differences: list[Difference] = []
    for rows in _pages(tx, "runs"):
        ids = [row["id"] for row in rows]
        events = _events(tx, "run_id", ids, [*_RUN_NAMES, *_EXECUTION_NAMES])
        for row in rows:
            names = [e["name"] for e in events[row["id"]] if e["name"] in _RUN_NAMES]
            lines = [_RUN_NAMES[name] for name in names]
            differences += _compare("run", row, lines, life.RUN_MOVES, life.RunStatus.QUEUED)
        differences += _executions(tx, ids, events)
    for rows in _pages(tx, "leases"):
        ids = [row["id"] for row in rows]
        events = _events(tx, "lease_id", ids, list(_LEASE_NAMES))
        for row in rows:
            steps = [_LEASE_NAMES[event["name"]] for event in events[row["id"]]]
            differences += _compare(
                "lease", row, steps, life.LEASE_MOVES, life.LeaseStatus.ACQUIRING
            )
    return differences


def _pages(tx: Tx, table: str) -> Iterator[list[Row]]:
    after = ""
    while rows := tx.all(
        f"SELECT id, status FROM {table} WHERE id > :after ORDER BY id LIMIT :page",
        after=after,
        page=PAGE,
    ):
        yield rows
        after = rows[-1]["id"]


def _events(
    tx: Tx, column: str, ids: Sequence[str], names: Sequence[str]
) -> Mapping[str, list[Row]]:
    """Return the events of these names in their order, by the id they are about."""
    places, params = numbered("i", list(ids))
    rows = tx.all(
        f"SELECT {column} AS subject, name, data FROM events WHERE {column} IN ({places})"
        f" AND name IN ({among(frozenset(names))}) ORDER BY id",
        **params,
    )
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["subject"]].append(row)
    return found


def _executions(
    tx: Tx, run_ids: Sequence[str], events: Mapping[str, list[Row]]
) -> Iterator[Difference]:
    places, params = numbered("r", list(run_ids))
    lines: defaultdict[Any, list[life.ExecutionStatus]] = defaultdict(list)
    for run_id in run_ids:
        for event in events[run_id]:
            if event["name"] in _EXECUTION_NAMES:
                key = load(event["data"]).get("execution")
                lines[key].append(_EXECUTION_NAMES[event["name"]])
    rows = tx.all(
        f"SELECT id, status FROM executions WHERE run_id IN ({places}) ORDER BY id", **params
    )
    first = life.ExecutionStatus.STARTING
    for row in rows:
        steps = [first]
        for status in lines.pop(row["id"], []):
            # Adopting what has been started is no move.
            if status is not life.ExecutionStatus.RUNNING or steps[-1] is not status:
                steps.append(status)
        yield from _compare("execution", row, steps, life.EXECUTION_MOVES, first)
    for key, steps in lines.items():
        problem = "its events name an execution that there is no row of"
        yield Difference("execution", str(key), "gone", steps[-1].value, problem)


def _compare(
    noun: str, row: Row, steps: Sequence[S], moves: Mapping[S, frozenset[S]], first: S
) -> Iterator[Difference]:
    stored: str = row["status"]
    if problem := _problem(stored, steps, moves, first):
        replayed = steps[-1].value if steps else None
        yield Difference(noun, row["id"], stored, replayed, problem)


def _problem(
    stored: str, steps: Sequence[S], moves: Mapping[S, frozenset[S]], first: S
) -> str | None:
    if not steps:
        return "no event says so"
    if steps[0] is not first:
        return f"its events begin with {steps[0]}, not with {first}"
    for before, after in pairwise(steps):
        if after not in moves[before]:
            return f"its events go from {before} to {after}, and there is no such arrow"
    if steps[-1] != stored:
        return f"its last event says {steps[-1]}"
    return None
