"""
Runs that start after others (`after`): who lets them go, and what if we die here.

A run with predecessors is `queued`, and `waits` counts those that are not settled. The database
refuses to start it above zero (`run_starts_after`), and admission does not see it. Each
predecessor is a row with one named condition:

- **due**: a clock is to look at it. It is born so, since the run that it names may end at the
  same moment, in a transaction that cannot see it yet. The look locks both runs; if the
  predecessor lives it is marked `awaited`, and the row rests.
- **at rest**: `awaited` stands in the predecessor's row, which whoever ends it has locked. So
  the transaction of the end makes the row due again and writes how it ended.
- **settled**: the outcome fits and the count is one less; or it can come no more, and the run
  that waits ends in the same transaction, as `cancelled` with `predecessor_outcome`. That is an
  end as any other, and goes on down the chain.

Killed before a commit: the row is due as before. After it: all of it is done. A nudge that is
lost costs a clock's sleep. A parked predecessor is not over, so it is waited for; the deadline
of the run that waits counts from its submit, its queue timeout from the moment when nothing
precedes it any more. Nothing that waits holds anything.

Locks: the runs first, skipping what others hold (that is due, and looked at soon again), then
the rows between them. Whoever ends a run has its lock before it wakes what waits for it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from leasehold.domain.after import After, Outcome, as_given
from leasehold.domain.lifecycle import RUN_ENDS, RunStatus
from leasehold.errors import NotFoundError
from leasehold.orchestrator import ending
from leasehold.orchestrator.jobs import SECOND_US, Context, us
from leasehold.store import moves, predecessors, runs
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

_SHOWN: Final = 5


def rows_of(tx: Tx, items: Sequence[After], *, tenant_id: str) -> list[Row]:
    """
    Return what a new run waits for, without its own id; nothing is written yet.

    Raises:
        NotFoundError: One of them is not there, or another tenant's; names the first few.
    """
    if not items:
        return []
    known = predecessors.statuses(tx, [item.run for item in items], tenant_id=tenant_id)
    missing = [item.run for item in items if item.run not in known]
    if missing:
        raise NotFoundError(f"after: there is no run {', '.join(missing[:_SHOWN])}")
    rows = []
    for item in items:
        status = known[item.run]
        ended = status if status in RUN_ENDS else None
        settled = ended is not None and item.outcome.fits(ended)
        rows.append(
            {
                "after_id": item.run,
                "tenant_id": tenant_id,
                "outcome": item.outcome.value,
                "ended": ended,
                "due": not settled,
                "settled_at": tx.stamp() if settled else None,
            }
        )
    return rows


def waits(rows: Sequence[Row]) -> int:
    """Return for how many of them a run has to wait."""
    return sum(row["settled_at"] is None for row in rows)


def said(items: Sequence[After]) -> Row:
    """Return what the first line of a run's history says of them."""
    return {"after": as_given(items)} if items else {}


def write(tx: Tx, context: Context, run: Row, rows: Sequence[Row]) -> None:
    """
    Write what a run waits for; its own row is written.

    What has ended otherwise than needed already ends the run here and now.
    """
    if not rows:
        return
    whole = [{"run_id": run["id"], **row} for row in rows]
    predecessors.insert(tx, whole)
    missed = [row for row in whole if row["due"] and row["ended"] is not None]
    if missed:
        row = runs.lock(tx, run["id"])
        assert row is not None, "it was written just now"
        _settle(tx, context, row, missed)


def look(tx: Tx, context: Context, *, limit: int) -> int:
    """Look at what is due; return how much of it has been seen to."""
    found = predecessors.due(tx, limit=limit)
    if not found:
        return 0
    living = {row["after_id"] for row in found if row["ended"] is None}
    waiting = {row["run_id"] for row in found}
    held = predecessors.lock_runs(tx, [*(living | waiting)])
    gone = (living | waiting) - held.keys()
    gone -= predecessors.there(tx, [*gone]) if gone else set()
    return _look(tx, context, held, gone, sorted(waiting & held.keys()))


def _look(
    tx: Tx, context: Context, held: dict[str, Row], gone: set[str], run_ids: list[str]
) -> int:
    resting: defaultdict[str, list[str]] = defaultdict(list)
    ended: defaultdict[str, list[Row]] = defaultdict(list)
    # Read again under the locks: another clock may have been here.
    for row in predecessors.due_of(tx, run_ids) if run_ids else ():
        after = held.get(row["after_id"])
        if row["ended"] is not None or held[row["run_id"]]["status"] in RUN_ENDS:
            ended[row["run_id"]].append(row)
        elif row["after_id"] in gone:
            # Retention keeps what is waited for; a person may have deleted it by hand.
            ended[row["run_id"]].append({**row, "ended": RunStatus.FAILED.value})
        elif after is not None and after["status"] in RUN_ENDS:
            ended[row["run_id"]].append({**row, "ended": after["status"]})
        elif after is not None:
            resting[row["after_id"]].append(row["run_id"])
    for after_id, waiting in resting.items():
        predecessors.rest(tx, after_id, waiting)
        held[after_id]["awaited"] = True  # it may end in this transaction
    for run_id, rows in ended.items():
        _settle(tx, context, held[run_id], rows)
    return sum(map(len, resting.values())) + sum(map(len, ended.values()))


def _settle(tx: Tx, context: Context, run: Row, rows: Sequence[Row]) -> None:
    """Count off what has ended, or end the run that waits for another outcome; it is locked."""
    predecessors.settle(tx, run["id"], {row["after_id"]: row["ended"] for row in rows})
    if run["status"] != RunStatus.QUEUED:
        return  # it was ended meanwhile, and waits for nothing
    for row in rows:
        if not Outcome(row["outcome"]).fits(row["ended"]):
            needs = "it to fail" if row["outcome"] == Outcome.FAILED else "its success"
            text = f"run {row['after_id']} ended as {row['ended']}; this one needs {needs}"
            ending.end_unstarted(tx, context, run, text)
            return
    left = run["waits"] - len(rows)
    if left:
        moves.move(tx, "runs", run["id"], None, held=run, waits=left)
        return
    asked = load(run["spec"]).get("queue_timeout_s")
    wait = us(context.timers.queue_timeout) if asked is None else int(asked * SECOND_US)
    queue_by = tx.stamp() + wait
    moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        waits=0,
        queue_deadline_at=queue_by,
        timer_at=min(queue_by, run["deadline_at"]),
    )
    moves.record(tx, "run.admissible", tenant_id=run["tenant_id"], run_id=run["id"])
