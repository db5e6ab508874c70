"""``/schedules``: runs that a clock submits at their times."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import ID, Decent, Filters
from leasehold.api.door import Caller, Door, Operator, TheDoor, Viewer
from leasehold.domain.schedules import ScheduleChange, ScheduleSpec
from leasehold.domain.specs import parse
from leasehold.orchestrator import rescheduling, scheduling
from leasehold.store import schedules
from leasehold.store.database import Row
from leasehold.store.schedule_views import schedule_view

router = APIRouter(prefix="/schedules", tags=["schedules"])
ScheduleName = Annotated[str, Path(pattern=ID, description="Its name or its id.")]


class Times(Filters):
    times: int = Field(default=5, ge=1, le=100)
    """So many of its next times are in `next_times`."""


@router.post("", status_code=201)
def create(body: Annotated[ScheduleSpec, Decent], caller: Operator, door: TheDoor) -> Answer:
    """Make a run of `run` whenever `cron`, or once when `at`, is due."""
    spec = parse(ScheduleSpec, body.model_dump(mode="json", exclude_unset=True))
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "schedule.create",
        lambda tx: scheduling.create(tx, spec, tenant_id=tenant, actor=actor),
    )
    place = {"Location": f"/api/v1/schedules/{spec.name}"}
    return Answer(schedule_view(row), status_code=201, headers=place)


@router.get("")
def list_(caller: Viewer, door: TheDoor) -> Answer:
    """List all schedules, by name."""
    rows = door.read(lambda tx: schedules.page(tx, tenant_id=caller.tenant_id))
    return Answer({"items": [schedule_view(row) for row in rows], "next": None})


@router.get("/{schedule}")
def get(
    schedule: ScheduleName, asked: Annotated[Times, Query()], caller: Viewer, door: TheDoor
) -> Answer:
    """Return one schedule and its next times."""
    row = door.read(lambda tx: schedules.get(tx, schedule, tenant_id=caller.tenant_id))
    return Answer(schedule_view(row, times=asked.times))


@router.patch("/{schedule}")
def change(
    schedule: ScheduleName,
    body: Annotated[ScheduleChange, Decent],
    caller: Operator,
    door: TheDoor,
) -> Answer:
    """Merge what is given into it (null removes); its next time follows from the whole."""
    wanted = parse(ScheduleChange, body.model_dump(mode="json", exclude_unset=True))
    tenant, actor = caller.tenant_id, caller.actor
    row, changed = door.write(
        "schedule.change",
        lambda tx: rescheduling.change(tx, schedule, wanted, tenant_id=tenant, actor=actor),
    )
    return Answer(schedule_view(row, times=Times().times) | {"changed": changed})


@router.post("/{schedule}/pause")
def pause(schedule: ScheduleName, caller: Operator, door: TheDoor) -> Answer:
    """Make no runs until it is resumed."""
    return _changed(scheduling.pause, schedule, caller, door)


@router.post("/{schedule}/resume")
def resume(schedule: ScheduleName, caller: Operator, door: TheDoor) -> Answer:
    """Make runs again; what was due meanwhile is not made up for."""
    return _changed(scheduling.resume, schedule, caller, door)


@router.delete("/{schedule}")
def delete(schedule: ScheduleName, caller: Operator, door: TheDoor) -> Answer:
    """Delete it; the runs that it has made go on."""
    return _changed(scheduling.delete, schedule, caller, door)


def _changed(change: Callable[..., Row], name: str, caller: Caller, door: Door) -> Answer:
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        f"schedule.{change.__name__}",
        lambda tx: change(tx, name, tenant_id=tenant, actor=actor),
    )
    return Answer(schedule_view(row))
