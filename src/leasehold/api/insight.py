"""``/me``, ``/ids`` and ``/explain``: who asks, what is meant, and why something waits."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import ID, Filters
from leasehold.api.door import Anybody, TheDoor, Viewer
from leasehold.domain.specs import Text
from leasehold.ids import PLATFORM
from leasehold.orchestrator import explaining
from leasehold.store import views

router = APIRouter(tags=["insight"])
SomeId = Annotated[str, Path(pattern=ID, description="Of a run or a lease, or a part of it.")]


class Like(Filters):
    noun: Literal["run", "lease"] = "run"
    like: Annotated[Text, Field(max_length=100)] = ""
    """How the id begins or ends; nothing is like nothing."""


@router.get("/me")
def me(caller: Anybody) -> Answer:
    """Return whom this key speaks for: its tenant (null: the platform) and its role."""
    tenant = None if caller.tenant_id == PLATFORM else caller.tenant_id
    return Answer({"tenant": tenant, "role": caller.role.value, "key_id": caller.key_id})


@router.get("/ids")
def ids(asked: Annotated[Like, Query()], caller: Viewer, door: TheDoor) -> Answer:
    """Return a few ids of runs or leases that begin or end so: people type short ids."""
    found = door.read(
        lambda tx: views.ids_like(tx, asked.noun, asked.like, tenant_id=caller.tenant_id)
    )
    return Answer({"items": found, "next": None})


@router.get("/explain/{row_id}")
def explain(row_id: SomeId, caller: Viewer, door: TheDoor) -> Answer:
    """Say why a run or a lease waits: one reason, what would change it, and when."""
    tenant = caller.tenant_id
    found = door.read(
        lambda tx: explaining.anything(tx, door.context, row_id, tenant_id=tenant)
    )
    return Answer(asdict(found))
