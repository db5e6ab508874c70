"""
To give a run more time: another deadline, or a longer timeout for its commands.

The **deadline** is kept by SQL and the clock alone, so it may be moved as long as the run is
live and nobody has asked it to end: whoever holds the row reads it with each of its
transactions (`FREE_OF_RUN`). The run's timer stays where it was: when it strikes, the clock
sees that it does not apply any more and sets the next one.

The **timeout** of a command is kept twice: by SQL, and by the supervisor in the sandbox, which
got it with the command, ends the command by itself when nothing of ours is alive, and is told
nothing more after that. So a timeout can be moved only while no command of the run has been
started or is being prepared by a worker: a queued or parked run, or one that waits for its
next try. Anything else is refused, rather than answered by half.
"""

from collections.abc import Mapping
from typing import Any

from leasehold.domain.lifecycle import RUN_ENDS
from leasehold.domain.specs import Seconds, Spec
from leasehold.errors import BadInputError, ConflictError
from leasehold.orchestrator import ending
from leasehold.orchestrator.jobs import SECOND_US
from leasehold.store import executions, moves, runs
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load


class ExtendSpec(Spec):
    """How much more time a run is to get."""

    deadline_s: Seconds | None = None
    """From now until the run is over, whatever happens."""

    timeout_s: Seconds | None = None
    """Of each command that starts from now on."""


def extend(tx: Tx, run_id: str, more: ExtendSpec, *, actor: str) -> Row:
    """
    Give a live run more time, and return its row.

    Raises:
        NotFoundError: There is no such run.
        BadInputError: Nothing is asked for.
        ConflictError: The run is over or to end; it would get less time, or has all of it; its
            command has its timeout already.
    """
    if more.deadline_s is None and more.timeout_s is None:
        raise BadInputError("give deadline_s, timeout_s or both", field="deadline_s")
    _, run = ending.locked(tx, run_id)
    _check_live(run)
    changes: dict[str, Any] = {}
    if more.deadline_s is not None:
        changes["deadline_at"] = _deadline(run, more.deadline_s)
    if more.timeout_s is not None:
        changes["spec"] = _spec(tx, run, more.timeout_s)
    row = moves.move(tx, "runs", run_id, None, **changes)
    assert row is not None
    fields = sorted(more.model_dump(exclude_none=True))
    about = ("run.extended", {"fields": fields, "actor": actor})
    moves.record(tx, about, tenant_id=run["tenant_id"], run_id=run_id)
    return runs.decoded(row)


def _check_live(run: Row) -> None:
    if run["status"] in RUN_ENDS:
        raise ConflictError(
            f"run {run['id']} is {run['status']}; only a live one gets more time"
        )
    if run["end_requested"] is not None:
        raise ConflictError(f"run {run['id']} is to end already ({run['end_requested']})")


def _deadline(run: Row, seconds: float) -> int:
    at = int(run["now_us"] + seconds * SECOND_US)
    if at < run["deadline_at"]:
        left_s = (run["deadline_at"] - run["now_us"]) // SECOND_US
        raise ConflictError(
            f"deadline_s: run {run['id']} has {left_s} s left until its deadline; a run gets"
            f" more time, never less (got {seconds:g} s from now)"
        )
    return at


def _spec(tx: Tx, run: Row, seconds: float) -> Mapping[str, Any]:
    spec: dict[str, Any] = load(run["spec"])
    now_s = spec.get("timeout_s")
    if now_s is None:
        raise ConflictError(f"timeout_s: the commands of run {run['id']} have no timeout")
    if seconds < now_s:
        raise ConflictError(
            f"timeout_s: the commands of run {run['id']} have {now_s:g} s; a run gets more"
            f" time, never less (got {seconds:g} s)"
        )
    # The lease and the run are locked: no claim comes between this look and the write.
    if executions.open_of(tx, run["id"]) is not None:
        raise ConflictError(
            f"timeout_s: a command of run {run['id']} runs with a timeout of {now_s:g} s, which"
            " its sandbox keeps by itself and nobody can move; deadline_s can still be given"
        )
    if run["claimed_by"] is not None:
        raise ConflictError(
            f"timeout_s: a worker prepares the next command of run {run['id']} just now, with a"
            f" timeout of {now_s:g} s; deadline_s can still be given"
        )
    return {**spec, "timeout_s": seconds}
