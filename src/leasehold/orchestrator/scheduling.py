"""
Schedules: made and changed by people, fired by whichever clock is there first.

Authority is the row: `next_at` is when its next run is due. A clock locks the row, submits the
run and sets `next_at` on, in one transaction, guarded by the `next_at` that it has read. So of
many clocks one fires, killed before the commit nobody has, and after it nobody does again. The
run's idempotency key is made of schedule and time as well, so that even a row that was set back
by hand makes no second run of one time.

What cannot be submitted (its environment is archived or gone, the queue is full) is written to
the row as `last_error` and into history; its time has passed, the next one comes as ever.
"""

from dataclasses import dataclass
from typing import Any, Final

from leasehold.domain import schedules as times
from leasehold.domain.lifecycle import RUN_ENDS, ScheduleStatus, TenantStatus
from leasehold.domain.schedules import Misfire, Overlap, ScheduleSpec
from leasehold.domain.specs import RunSpec, parse
from leasehold.errors import BadInputError, ConflictError, LeaseholdError, StoreUnavailableError
from leasehold.ids import new_id
from leasehold.orchestrator import placing, selecting, submit
from leasehold.orchestrator.jobs import Context, us
from leasehold.orchestrator.tenants import archived
from leasehold.store import moves, runs, schedules, slots
from leasehold.store.database import Row, Tx

S: Final = ScheduleStatus


def create(tx: Tx, spec: ScheduleSpec, *, tenant_id: str, actor: str) -> Row:
    """
    Save a schedule; its first time is the first after now.

    Raises:
        ConflictError: The name is taken, or the environment or the tenant is archived.
        NotFoundError: There is no such environment; says which there are.
        BadInputError: Its one moment has passed, or no host could take its runs.
    """
    slots.lock(tx, wait=True)  # of two of the same name, one is refused in these words
    if schedules.find_by_name(tx, spec.name, tenant_id=tenant_id) is not None:
        raise ConflictError(f"schedule {spec.name} exists already")
    environment = selecting.choose(
        tx, spec.run, named=spec.environment, tenant_id=tenant_id, actor=actor
    ).environment
    if environment["tenant_status"] != TenantStatus.ACTIVE:
        raise archived(tenant_id)
    placing.check_run(tx, environment, spec.run.requires, names_lease=False)
    now, at = tx.now(), spec.at_us()
    if at is not None and at <= now:
        raise BadInputError(f"at: {spec.at} has passed", field="at")
    first = at or times.first_after(spec.cron, spec.timezone, after_us=now)
    if first is None:
        raise BadInputError("cron: is never due", field="cron")
    row = schedules.insert(
        tx,
        {
            "id": new_id(),
            "tenant_id": tenant_id,
            "name": spec.name,
            "status": S.ACTIVE.value,
            "cron": spec.cron,
            "at": at,
            "timezone": spec.timezone,
            "environment": spec.environment,
            "spec": spec.run.model_dump(mode="json"),
            "misfire": spec.misfire.value,
            "overlap": spec.overlap.value,
            "next_at": first,
        },
    )
    _record(tx, "schedule.active", row, actor=actor)
    return row | {"now_us": now}


def pause(tx: Tx, name: str, *, tenant_id: str, actor: str) -> Row:
    """
    Make no runs from now on; nothing happens if it is paused already.

    Raises:
        NotFoundError: The tenant has no such schedule.
        ConflictError: It is done, or a clock has it at this moment.
    """
    row = schedules.get(tx, name, tenant_id=tenant_id)
    if row["status"] == S.PAUSED:
        return row
    return _moved(tx, row, S.PAUSED, next_at=None, actor=actor)


def resume(tx: Tx, name: str, *, tenant_id: str, actor: str) -> Row:
    """
    Make runs again: from the first time after now on, of what was paused nothing is made up.

    Raises:
        NotFoundError: The tenant has no such schedule.
        ConflictError: It is done, or its one moment has passed.
    """
    row = schedules.get(tx, name, tenant_id=tenant_id)
    if row["status"] == S.ACTIVE:
        return row
    if row["status"] == S.DONE:
        raise ConflictError(f"schedule {row['name']} is done; give it a time to come")
    now = row["now_us"]
    next_at = row["at"] or times.first_after(row["cron"], row["timezone"], after_us=now)
    if next_at is None or next_at <= now:
        raise ConflictError(f"schedule {row['name']} has no time any more: it has passed")
    return _moved(tx, row, S.ACTIVE, next_at=next_at, actor=actor)


def _moved(tx: Tx, row: Row, to: ScheduleStatus, *, next_at: int | None, actor: str) -> Row:
    moved = schedules.move_on(tx, row, to, next_at=next_at)
    if moved is None:
        why = "is done" if row["status"] == S.DONE else "was changed meanwhile; look again"
        raise ConflictError(f"schedule {row['name']} {why}")
    _record(tx, f"schedule.{to.value}", row, actor=actor)
    return {**row, **runs.decoded(moved)}


def delete(tx: Tx, name: str, *, tenant_id: str, actor: str) -> Row:
    """
    Delete a schedule; the runs that it has made go on.

    Raises:
        NotFoundError: The tenant has no such schedule.
    """
    row = schedules.get(tx, name, tenant_id=tenant_id)
    schedules.delete(tx, row["id"])
    _record(tx, "schedule.deleted", row, actor=actor)
    return row


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one look at a due schedule comes to."""

    at: int | None
    """The time that a run is made for; None: for none."""

    next_at: int | None
    missed: int = 0


def fire(tx: Tx, context: Context, row: Row) -> bool:
    """Submit what is due of a locked schedule, or say why not; True if there is a run."""
    turn = _turn(row)
    problem, made = None, None
    if turn.missed:
        _record(tx, "schedule.missed", row, times=turn.missed, misfire=row["misfire"])
    if turn.at is None:
        problem = f"missed {turn.missed} times: no clock turned then"
    elif row["overlap"] == Overlap.SKIP and (busy := _busy(tx, row)):
        problem = f"run {busy} of the time before is not over"
        _record(tx, "schedule.skipped", row, at=turn.at, run=busy)
    else:
        try:
            made = _submit(tx, context, row, turn.at)
        except StoreUnavailableError:
            raise
        except LeaseholdError as error:
            problem = f"{error.code}: {error}"
            _record(tx, "schedule.failed", row, at=turn.at, code=error.code)
    _on(tx, row, turn, problem, made)
    return made is not None


def give_up(tx: Tx, row: Row, error: Exception) -> None:
    """Let a time pass that a fault of ours makes nothing of: others must not wait for it."""
    at = row["next_at"]
    next_at = times.first_after(row["cron"], row["timezone"], after_us=max(at, row["now_us"]))
    _record(tx, "schedule.failed", row, at=at, code="internal")
    _on(tx, row, _Turn(at, next_at), f"internal: {type(error).__name__}", None)


def _on(tx: Tx, row: Row, turn: _Turn, problem: str | None, made: str | None) -> None:
    values: dict[str, Any] = {"last_error": problem}
    if made is not None:
        values |= {"last_at": turn.at, "last_run_id": made, "fired": row["fired"] + 1}
    done = S.DONE.value if turn.next_at is None else None
    moved = schedules.move_on(tx, row, done, next_at=turn.next_at, **values)
    assert moved is not None, "it was locked"
    if done:
        _record(tx, "schedule.done", row)


def _turn(row: Row) -> _Turn:
    """Choose which time a run is made for now, and what is waited for next."""
    now, cron, timezone = row["now_us"], row["cron"], row["timezone"]
    due = times.due(cron, timezone, from_us=row["next_at"], now_us=now)
    misfire = Misfire(row["misfire"])
    if misfire is Misfire.ALL:
        # One at a time; what is older than the newest few is let go.
        lost = 1 if due[0] > row["next_at"] else 0
        rest = due[1] if len(due) > 1 else times.first_after(cron, timezone, after_us=due[0])
        return _Turn(due[0], rest, missed=lost)
    following = times.first_after(cron, timezone, after_us=max(now, due[-1]))
    late = now - due[-1] > us(times.LATE)
    if misfire is Misfire.SKIP and late:
        return _Turn(None, following, missed=len(due))
    return _Turn(due[-1], following, missed=len(due) - 1)


def _busy(tx: Tx, row: Row) -> str | None:
    last = runs.find(tx, row["last_run_id"]) if row["last_run_id"] else None
    return None if last is None or last["status"] in RUN_ENDS else str(last["id"])


def _submit(tx: Tx, context: Context, row: Row, at: int) -> str:
    request = submit.Request(
        spec=parse(RunSpec, row["spec"]),
        environment=row["environment"],
        key=f"schedule:{row['id']}:{at}",
        tenant_id=row["tenant_id"],
        actor=f"schedule:{row['name']}",
    )
    run, _ = submit.submit(tx, context, request)
    return str(run["id"])


def _record(tx: Tx, event: str, row: Row, **data: Any) -> None:
    data |= {"schedule": row["name"]}
    moves.record(tx, (event, data), tenant_id=row["tenant_id"])
