"""
Changing a schedule: what is given is merged into what there is, and checked anew as a whole.

Merged as an environment's change is (`changing`): objects by their keys, null removes, all else
is replaced. A cron line takes the place of a moment and the other way round. A moment that was
given without an offset stays that moment, whatever the time zone is now.

The row is locked, so no clock fires it meanwhile. If the line, the moment or the zone changes,
what it waits for is the first time after now by the new ones: a time of the old ones that is
due and was not fired yet is let go. If they do not, what it waits for stays, due or not. Paused
it has no time; with a new one, a schedule that is done goes on.
"""

from typing import Any, Final

from leasehold.domain import schedules as times
from leasehold.domain.lifecycle import EnvironmentStatus, ScheduleStatus
from leasehold.domain.schedules import ScheduleChange, ScheduleSpec
from leasehold.domain.specs import parse
from leasehold.errors import BadInputError, ConflictError, NotFoundError
from leasehold.orchestrator import placing
from leasehold.orchestrator.changing import merged
from leasehold.store import environments, moves, runs, schedules
from leasehold.store.database import Row, Tx

S: Final = ScheduleStatus
_KINDS: Final = {"cron": "at", "at": "cron"}
_COLUMNS: Final = ("cron", "at", "timezone", "environment", "spec", "misfire", "overlap")
_TIMES: Final = ("cron", "at", "timezone")


def change(
    tx: Tx, name: str, wanted: ScheduleChange, *, tenant_id: str, actor: str
) -> tuple[Row, list[str]]:
    """
    Change a schedule; return its row and the names of the fields that are different.

    Raises:
        NotFoundError: The tenant has no such schedule, or there is no such environment.
        BadInputError: The whole, as it would be, is refused; names the field.
        ConflictError: The new environment is archived; a schedule that is done gets no time.
    """
    old = schedules.lock(tx, schedules.get(tx, name, tenant_id=tenant_id)["id"])
    if old is None:
        raise NotFoundError(f"there is no schedule {name!r}")
    given = wanted.model_dump(mode="json", exclude_unset=True)
    paused = given.pop("paused", old["status"] == S.PAUSED)
    spec = _whole(old, given)
    new: Row = {
        "cron": spec.cron,
        "at": old["at"] if given.get("at") is None and spec.at else spec.at_us(),
        "timezone": spec.timezone,
        "environment": spec.environment,
        "spec": spec.run.model_dump(mode="json"),
        "misfire": spec.misfire.value,
        "overlap": spec.overlap.value,
    }
    _check_place(tx, spec, old, tenant_id=tenant_id)
    different: Row = {column: new[column] for column in _COLUMNS if new[column] != old[column]}
    to, next_at = _coming(old, new, paused=paused)
    if not different and to is None:
        return old, []
    moved = moves.move(
        tx,
        "schedules",
        old["id"],
        to,
        raw=("updated_at = {now}",),
        next_at=next_at,
        **different,
    )
    if moved is None:
        raise ConflictError(f"schedule {old['name']} is {old['status']}")
    changed = ["run" if column == "spec" else column for column in different]
    changed += ["status"] if to is not None else []
    about = {"schedule": old["name"], "actor": actor}
    moves.record(
        tx,
        ("schedule.changed", {**about, "changed": changed}),
        *([(f"schedule.{to.value}", about)] if to is not None else []),
        tenant_id=tenant_id,
    )
    return {**old, **runs.decoded(moved)}, changed


def _whole(old: Row, given: dict[str, Any]) -> ScheduleSpec:
    """Return what the schedule would be, checked as a new one is."""
    for kind, other in _KINDS.items():
        if given.get(kind) is not None:
            given.setdefault(other, None)
    at = old["at"]
    before = {
        "name": old["name"],
        "cron": old["cron"],
        "at": None if at is None else times.moment_of(at, "UTC").isoformat(),
        "timezone": old["timezone"],
        "environment": old["environment"],
        "run": old["spec"],
        "misfire": old["misfire"],
        "overlap": old["overlap"],
    }
    return parse(ScheduleSpec, merged(before, given))


def _check_place(tx: Tx, spec: ScheduleSpec, old: Row, *, tenant_id: str) -> None:
    requires = old["spec"].get("requires") or {}
    if spec.environment == old["environment"] and spec.run.requires == requires:
        return
    environment = environments.get(tx, spec.environment, tenant_id=tenant_id)
    if environment["status"] != EnvironmentStatus.ACTIVE:
        raise ConflictError(f"environment {environment['name']} is archived")
    placing.check_run(tx, environment, spec.run.requires, names_lease=False)


def _coming(old: Row, new: Row, *, paused: bool) -> tuple[ScheduleStatus | None, int | None]:
    """Return the status that it gets, if another, and what it waits for next."""
    status, now = ScheduleStatus(old["status"]), old["now_us"]
    same = all(new[column] == old[column] for column in _TIMES)
    if paused:
        return (None if status is S.PAUSED else S.PAUSED), None
    if same and status is not S.PAUSED:
        return None, old["next_at"]
    if new["at"] is not None and new["at"] <= now:
        raise BadInputError("at: has passed", field="at")
    next_at = new["at"] or times.first_after(new["cron"], new["timezone"], after_us=now)
    if next_at is None:
        raise BadInputError("cron: is never due", field="cron")
    return (None if status is S.ACTIVE else S.ACTIVE), next_at
