"""``/retention``: how long this tenant keeps what is over."""

from fastapi import APIRouter
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import Filters
from leasehold.api.door import Admin, TheDoor, Viewer
from leasehold.domain.retention import Kept
from leasehold.orchestrator import retaining
from leasehold.store import retention

router = APIRouter(prefix="/retention", tags=["retention"])


class Changes(Filters):
    """What is to be kept how long; what is left out stays as it is."""

    runs_s: Kept = Field(default=None, description="Runs, leases, history: seconds, or never.")
    output_s: Kept = Field(default=None, description="Output and artifacts, likewise.")


@router.get("")
def get(caller: Viewer, door: TheDoor) -> Answer:
    """Return how many seconds after their end things are kept; null: for ever."""
    return Answer(retaining.view(door.read(lambda tx: retention.of(tx, caller.tenant_id))))


@router.put("")
def put(body: Changes, caller: Admin, door: TheDoor) -> Answer:
    """Say how long; durations such as `"90d"` or seconds, `"never"` or null: for ever."""
    changes = body.model_dump(exclude_unset=True)
    tenant, actor = caller.tenant_id, caller.actor
    kept = door.write(
        "retention.set",
        lambda tx: retaining.change(tx, changes, tenant_id=tenant, actor=actor),
    )
    return Answer(retaining.view(kept))
