"""``/leases``: the rights to use sandboxes."""

from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from leasehold.api.answers import Answer
from leasehold.api.asking import IdempotencyKey, LeaseFilters, LeaseId, cursor, place
from leasehold.api.door import Caller, Operator, TheDoor, Viewer
from leasehold.domain import restricting
from leasehold.domain.specs import Name, Seconds, Spec
from leasehold.orchestrator import holding
from leasehold.store import leases, views
from leasehold.store.database import Tx
from leasehold.store.views import Shape

router = APIRouter(prefix="/leases", tags=["leases"])


class LeaseRequest(Spec):
    """Which sandbox somebody wants to hold, and for how long."""

    environment: Name
    ttl_s: Seconds = 3600.0


AGAIN: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The lease that the same Idempotency-Key has made already."}
}


@router.post("", status_code=201, responses=AGAIN)
def create(
    body: LeaseRequest,
    caller: Operator,
    door: TheDoor,
    idempotency_key: IdempotencyKey = None,
) -> Answer:
    """Make a sandbox of one's own: `acquiring` now, `idle` once runs may name it."""
    request = holding.Request(
        environment=body.environment,
        hold_for=timedelta(seconds=body.ttl_s),
        tenant_id=caller.tenant_id,
        key=idempotency_key,
    )

    def work(tx: Tx) -> tuple[Shape, bool]:
        row, new = holding.ask(tx, door.context, request)
        return _whole(tx, row["id"], caller), new

    shape, new = door.write("lease.create", work)
    place = {"Location": f"/api/v1/leases/{shape['id']}"}
    return Answer(shape, status_code=201 if new else 200, headers=place)


@router.get("")
def list_(asked: Annotated[LeaseFilters, Query()], caller: Viewer, door: TheDoor) -> Answer:
    """List leases, the newest first; leases that come meanwhile move no page."""
    after = place(asked.cursor, int)
    rows = door.read(
        lambda tx: views.lease_rows(
            tx,
            tenant_id=caller.tenant_id,
            statuses=[status.value for status in asked.status],
            live=asked.live,
            limit=asked.limit,
            before=after[0] if after else None,
        )
    )
    following = cursor(rows[-1]["number"]) if len(rows) == asked.limit else None
    items = [restricting.lease(views.lease_view(row), caller.role) for row in rows]
    return Answer({"items": items, "next": following})


def _whole(tx: Tx, lease_id: str, caller: Caller) -> Shape:
    shape = views.whole_lease(tx, lease_id, tenant_id=caller.tenant_id)
    return restricting.lease(shape, caller.role)


@router.get("/{lease_id}")
def get(lease_id: LeaseId, caller: Viewer, door: TheDoor) -> Answer:
    """Return a lease with its history."""
    return Answer(door.read(lambda tx: _whole(tx, lease_id, caller)))


@router.post("/{lease_id}/release")
def release(lease_id: LeaseId, caller: Operator, door: TheDoor) -> Answer:
    """Give a lease back, a retained one too: its sandbox is destroyed."""

    def work(tx: Tx) -> Shape:
        leases.get(tx, lease_id, tenant_id=caller.tenant_id)
        holding.give_back(tx, door.context, lease_id, actor=caller.actor)
        return _whole(tx, lease_id, caller)

    return Answer(door.write("lease.release", work))


@router.post("/{lease_id}/retain")
def retain(lease_id: LeaseId, caller: Operator, door: TheDoor) -> Answer:
    """Keep a lease's sandbox: at once if it is idle, else when its run ends."""

    def work(tx: Tx) -> Shape:
        leases.get(tx, lease_id, tenant_id=caller.tenant_id)
        holding.retain(tx, door.context, lease_id, actor=caller.actor)
        return _whole(tx, lease_id, caller)

    return Answer(door.write("lease.retain", work))
