"""Schedules: those there are, one of them with its times and runs, and a new one."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from leasehold.api.door import Caller, Door, Operator, TheDoor, Viewer
from leasehold.api.pages.page import Form, go_to, look, page
from leasehold.api.schedules import ScheduleName
from leasehold.domain.schedules import ScheduleSpec
from leasehold.domain.specs import parse
from leasehold.errors import BadInputError, ConflictError, LeaseholdError, NotFoundError
from leasehold.orchestrator import scheduling
from leasehold.store import environments, schedules, secrets, views, watching
from leasehold.store.database import Row, Tx
from leasehold.store.schedule_views import schedule_view
from leasehold.web import asked as forms

router = APIRouter()
TIMES: Final = 5
RUNS: Final = 10
_TEXTS: Final = ("cron", "at", "timezone", "environment", "misfire", "overlap")


@router.get("/schedules")
def list_(request: Request, caller: Viewer, door: TheDoor) -> Response:
    """List schedules by name."""

    def work(tx: Tx) -> dict[str, Any]:
        rows = schedules.page(tx, tenant_id=caller.tenant_id)
        return {
            "place": watching.newest_event(tx),
            "schedules": [schedule_view(row) for row in rows],
        }

    found = look(request, caller, door, work)
    return page(request, "schedules.html", title="Schedules", **found)


@router.get("/schedules/{schedule}")
def show(schedule: ScheduleName, request: Request, caller: Viewer, door: TheDoor) -> Response:
    """Show a schedule, when it is due next, and the runs of its last times."""

    def work(tx: Tx) -> dict[str, Any]:
        row = schedules.get(tx, schedule, tenant_id=caller.tenant_id)
        ids = schedules.last_runs(tx, row, count=RUNS)
        rows = views.run_rows(tx, ids)
        return {
            "place": watching.newest_event(tx),
            "schedule": schedule_view(row, times=TIMES),
            "runs": [views.run_line(rows[one]) for one in ids if one in rows],
            "now": views.iso(row["now_us"]),
        }

    found = look(request, caller, door, work)
    return page(request, "schedule.html", title=f"Schedule {schedule}", **found)


@router.get("/new-schedule")
def ask(request: Request, caller: Operator, door: TheDoor) -> Response:
    """Ask for what is to run, and when."""
    return _form(request, caller, door, values={})


@router.post("/new-schedule")
def create(request: Request, caller: Operator, door: TheDoor, form: Form) -> Response:
    """Save a new schedule, or show the form again with what is wrong in it."""
    tenant, actor = caller.tenant_id, caller.actor
    try:
        body: dict[str, Any] = {
            name: text for name in _TEXTS if (text := forms.text_of(form, name))
        }
        body |= {"name": forms.text_of(form, "name"), "run": forms.body(form)}
        spec = parse(ScheduleSpec, body)
        door.write(
            "schedule.create",
            lambda tx: scheduling.create(tx, spec, tenant_id=tenant, actor=actor),
        )
    except (BadInputError, ConflictError, NotFoundError) as problem:
        return _form(request, caller, door, values=form, problem=problem)
    return go_to(f"/schedules/{spec.name}", said="scheduled")


def _form(
    request: Request,
    caller: Caller,
    door: Door,
    *,
    values: dict[str, list[str]],
    problem: LeaseholdError | None = None,
) -> Response:
    def work(tx: Tx) -> dict[str, Any]:
        tenant = caller.tenant_id
        return {
            "environments": environments.active_names(tx, tenant_id=tenant),
            "secrets": [row["name"] for row in secrets.page(tx, tenant_id=tenant)],
        }

    field = getattr(problem, "field", None) or ""
    wrong = forms.field_of(field.removeprefix("run."))
    answer = page(
        request,
        "schedule_new.html",
        title="New schedule",
        values=values,
        problem=str(problem) if problem else None,
        wrong=wrong,
        **door.read(work),
    )
    if problem is not None:
        answer.status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    return answer


@router.post("/schedules/{schedule}/pause")
def pause(schedule: ScheduleName, caller: Operator, door: TheDoor, _form: Form) -> Response:
    """Make no runs until it is resumed."""
    row = _changed(scheduling.pause, schedule, caller, door)
    return go_to(f"/schedules/{row['name']}", said="paused")


@router.post("/schedules/{schedule}/resume")
def resume(schedule: ScheduleName, caller: Operator, door: TheDoor, _form: Form) -> Response:
    """Make runs again; what was due meanwhile is not made up for."""
    row = _changed(scheduling.resume, schedule, caller, door)
    return go_to(f"/schedules/{row['name']}", said="scheduled")


@router.post("/schedules/{schedule}/delete")
def delete(schedule: ScheduleName, caller: Operator, door: TheDoor, _form: Form) -> Response:
    """Delete it; the runs that it has made go on."""
    _changed(scheduling.delete, schedule, caller, door)
    return go_to("/schedules", said="unscheduled")


def _changed(change: Callable[..., Row], name: str, caller: Caller, door: Door) -> Row:
    tenant, actor = caller.tenant_id, caller.actor
    return door.write(
        f"schedule.{change.__name__}",
        lambda tx: change(tx, name, tenant_id=tenant, actor=actor),
    )
