"""``/environments/…/probe``: does a place work now? One sandbox is made and destroyed."""

import time
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import Decent, EnvironmentName, Filters
from leasehold.api.door import Admin, Caller, Door, Operator, TheDoor
from leasehold.domain.specs import EnvironmentSpec, parse
from leasehold.orchestrator import probing, selecting, vetting
from leasehold.store import environments, leases
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load
from leasehold.store.views import Shape

router = APIRouter(prefix="/environments", tags=["environments"])
_POLL_S: Final = (0.02, 0.3)


class Patience(Filters):
    wait_s: float = Field(default=30.0, gt=0, le=vetting.WAIT_MAX.total_seconds())
    """For all of it; then 202, and its lease says what becomes of it."""


@router.post("/probe", responses={202: {"description": "Still under way: see its lease."}})
def probe_draft(
    body: Annotated[probing.DraftSpec, Decent],
    asked: Annotated[Patience, Query()],
    caller: Admin,
    door: TheDoor,
) -> Answer:
    """Try an environment that is not saved, with the caller's secrets and limits."""
    spec = parse(probing.DraftSpec, body.model_dump(exclude_unset=True))
    return _probe(door, caller, spec, None, wait_s=asked.wait_s)


@router.post(
    "/{name}/probe", responses={202: {"description": "Still under way: see its lease."}}
)
def probe(
    name: EnvironmentName,
    asked: Annotated[Patience, Query()],
    caller: Operator,
    door: TheDoor,
) -> Answer:
    """Make one new sandbox of an environment, look into it, destroy it, and say how."""
    row = door.read(lambda tx: environments.get(tx, name, tenant_id=caller.tenant_id))
    selecting.check_active(row)
    spec = EnvironmentSpec.model_validate(load(row["spec"]))
    return _probe(door, caller, spec, row["id"], wait_s=asked.wait_s)


def _probe(
    door: Door, caller: Caller, spec: EnvironmentSpec, saved: str | None, *, wait_s: float
) -> Answer:
    tenant, until = caller.tenant_id, time.monotonic() + wait_s

    def begin(tx: Tx) -> Row:
        if saved is None:
            place = probing.of_draft(tx, spec, tenant_id=tenant)
        else:
            place = environments.get(tx, saved, tenant_id=tenant)
        return probing.begin(
            tx, door.context, place, actor=caller.actor, is_draft=saved is None
        )

    with door.patiently():
        vetted = vetting.vet(
            door.context, spec, tenant_id=tenant, wait=timedelta(seconds=wait_s)
        )
        lease_id = door.write("probe", begin)["id"]
        shape = _until_over(door, lease_id, tenant_id=tenant, until=until)
    status = 200 if probing.is_over(shape) else 202
    place = {"Location": f"/api/v1/leases/{lease_id}"}
    return Answer(shape | vetted.answer(), status_code=status, headers=place)


def _until_over(door: Door, lease_id: str, *, tenant_id: str, until: float) -> Shape:
    pause = _POLL_S[0]
    while True:
        shape = door.read(
            lambda tx: probing.view(tx, leases.get(tx, lease_id, tenant_id=tenant_id))
        )
        left = until - time.monotonic()
        if probing.is_over(shape) or left <= 0:
            return shape
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _POLL_S[1])
