"""``/runs``: create, look, end, try again."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import (
    Decent,
    Filters,
    IdempotencyKey,
    RunFilters,
    RunId,
    cursor,
    place,
)
from leasehold.api.door import Caller, Operator, TheDoor, Viewer
from leasehold.domain.after import Afters
from leasehold.domain.lifecycle import EndKind
from leasehold.domain.specs import Name, RunSpec, parse
from leasehold.errors import BadInputError
from leasehold.orchestrator import ending, extending, submit
from leasehold.orchestrator.extending import ExtendSpec
from leasehold.store import artifacts, finding, moves, runs, views
from leasehold.store.database import Row, Tx
from leasehold.store.views import Shape

router = APIRouter(prefix="/runs", tags=["runs"])

AGAIN: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The run that the same Idempotency-Key has made already."}
}


class RunRequest(RunSpec):
    """What a run is to do, and where: in an environment or in a lease."""

    environment: Name | None = None
    """Its name; null and no lease: the default of its workspace, its label `project`, its
    tenant, or `local`."""

    lease_id: Name | None = None
    after: Afters = ()
    """The runs that have to end before it starts, and how: `{"run": ID, "outcome": …}`."""
    visit: bool = False
    """Only look into the lease, which may be a retained one: it stays what it is."""

    def spec(self) -> RunSpec:
        """
        Return what the run is to do.

        Raises:
            BadInputError: Two places are named, or a variable or a size is refused.
        """
        if self.environment is not None and self.lease_id is not None:
            raise BadInputError("lease_id: give it or an environment", field="lease_id")
        if self.visit and self.lease_id is None:
            raise BadInputError("visit: needs a lease_id", field="visit")
        where = set(type(self).model_fields) - set(RunSpec.model_fields)
        return parse(RunSpec, self.model_dump(exclude=where, exclude_unset=True))

    def request(self, caller: Caller, *, key: str | None) -> submit.Request:
        """
        Return what is asked for, and by whom.

        Raises:
            BadInputError: As `spec`.
        """
        return submit.Request(
            spec=self.spec(),
            environment=self.environment,
            lease_id=self.lease_id,
            after=self.after,
            visit=self.visit,
            key=key,
            tenant_id=caller.tenant_id,
            actor=caller.actor,
        )


class EventFilters(Filters):
    after: int = Field(default=0, ge=0, lt=2**62)
    """`id` of the last event that was seen."""

    limit: int = Field(default=100, ge=1, le=1000)


@router.post("", status_code=201, responses=AGAIN)
def create(
    body: Annotated[RunRequest, Decent],
    caller: Operator,
    door: TheDoor,
    idempotency_key: IdempotencyKey = None,
) -> Answer:
    """Accept a run: 201; the run that the same key has made already: 200."""
    request = body.request(caller, key=idempotency_key)

    def work(tx: Tx) -> tuple[Row, bool]:
        return submit.submit(tx, door.context, request)

    return _accepted(*door.write("run.create", lambda tx: _shown(tx, *work(tx))))


def _shown(tx: Tx, row: Row, new: bool) -> tuple[Shape, bool]:  # noqa: FBT001  as it came
    shown = views.run_row(tx, row["id"])
    assert shown is not None
    return views.run_line(shown), new


def _accepted(shape: Shape, new: bool) -> Answer:  # noqa: FBT001  as it came
    place = {"Location": f"/api/v1/runs/{shape['id']}"}
    return Answer(shape, status_code=201 if new else 200, headers=place)


@router.get("")
def list_(asked: Annotated[RunFilters, Query()], caller: Viewer, door: TheDoor) -> Answer:
    """List runs, the newest first; runs that come meanwhile move no page."""
    after = place(asked.cursor, int, str)
    filters: dict[str, Any] = {
        "statuses": [status.value for status in asked.status],
        "environment": asked.environment,
        "labels": asked.labels(),
        "limit": asked.limit,
        "after": after,
    }
    rows = door.read(lambda tx: finding.run_rows(tx, tenant_id=caller.tenant_id, **filters))
    full = len(rows) == asked.limit
    following = cursor(rows[-1]["created_at"], rows[-1]["id"]) if full else None
    return Answer({"items": [views.run_line(row) for row in rows], "next": following})


@router.get("/{run_id}")
def get(run_id: RunId, caller: Viewer, door: TheDoor) -> Answer:
    """Return a run with its executions and its history."""
    return Answer(door.read(lambda tx: views.whole_run(tx, run_id, tenant_id=caller.tenant_id)))


@router.get("/{run_id}/events")
def events(
    run_id: RunId, asked: Annotated[EventFilters, Query()], caller: Viewer, door: TheDoor
) -> Answer:
    """Return a run's history from an event on, the oldest first."""

    def work(tx: Tx) -> list[Row]:
        runs.get(tx, run_id, tenant_id=caller.tenant_id)
        return moves.events_of(tx, run_id=run_id, after=asked.after, limit=asked.limit)

    rows = door.read(work)
    items = [{"id": row["id"], **views.event_view(row)} for row in rows]
    return Answer({"items": items, "next": rows[-1]["id"] if rows else None})


@router.get("/{run_id}/artifacts")
def left(run_id: RunId, caller: Viewer, door: TheDoor) -> Answer:
    """List what a run left: its artifacts, and what it changed in its workspace."""

    def work(tx: Tx) -> list[Row]:
        runs.get(tx, run_id, tenant_id=caller.tenant_id)
        return artifacts.of_run(tx, run_id)

    items = [views.artifact_view(row) for row in door.read(work)]
    return Answer({"items": items, "next": None})


@router.post("/{run_id}/cancel")
def cancel(run_id: RunId, caller: Operator, door: TheDoor) -> Answer:
    """Ask a run to end; it is cancelled once nothing of it runs any more."""

    def work(tx: Tx) -> Shape:
        runs.get(tx, run_id, tenant_id=caller.tenant_id)
        ending.request_end(tx, door.context, run_id, EndKind.CANCEL, actor=caller.actor)
        return views.whole_run(tx, run_id, tenant_id=caller.tenant_id)

    return Answer(door.write("run.cancel", work))


@router.post("/{run_id}/retry", status_code=201, responses=AGAIN)
def retry(
    run_id: RunId, caller: Operator, door: TheDoor, idempotency_key: IdempotencyKey = None
) -> Answer:
    """Submit an ended run anew, as a new run that names the old one."""

    def work(tx: Tx) -> tuple[Shape, bool]:
        old = runs.get(tx, run_id, tenant_id=caller.tenant_id)
        key, actor = idempotency_key, caller.actor
        return _shown(tx, *submit.retry(tx, door.context, old, key=key, actor=actor))

    return _accepted(*door.write("run.retry", work))


@router.post("/{run_id}/resume")
def resume(run_id: RunId, caller: Operator, door: TheDoor) -> Answer:
    """Send a parked run back to the queue, its infrastructure failures forgiven."""

    def work(tx: Tx) -> Shape:
        runs.get(tx, run_id, tenant_id=caller.tenant_id)
        submit.resume(tx, door.context, run_id, actor=caller.actor)
        return views.whole_run(tx, run_id, tenant_id=caller.tenant_id)

    return Answer(door.write("run.resume", work))


@router.post("/{run_id}/extend")
def extend(
    run_id: RunId, body: Annotated[ExtendSpec, Decent], caller: Operator, door: TheDoor
) -> Answer:
    """Give a live run a later deadline, or commands that are not started a longer timeout."""

    def work(tx: Tx) -> Shape:
        runs.get(tx, run_id, tenant_id=caller.tenant_id)
        extending.extend(tx, run_id, body, actor=caller.actor)
        return views.whole_run(tx, run_id, tenant_id=caller.tenant_id)

    return Answer(door.write("run.extend", work))
