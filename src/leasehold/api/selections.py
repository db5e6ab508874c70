"""``/selections``: where runs go that name no environment."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import Decent, Filters
from leasehold.api.door import Admin, TheDoor, Viewer
from leasehold.domain.lifecycle import SelectionKind
from leasehold.domain.specs import Text, parse
from leasehold.orchestrator import selecting
from leasehold.store import selections
from leasehold.store.views import selection_view

router = APIRouter(prefix="/selections", tags=["environments"])


class Which(Filters):
    kind: SelectionKind
    name: Annotated[Text, Field(max_length=1000)] = ""
    """Of the workspace or project; not of the tenant."""


@router.get("")
def list_(caller: Viewer, door: TheDoor) -> Answer:
    """List them in the order in which they are asked: workspaces, projects, the tenant."""
    rows = door.read(lambda tx: selections.page(tx, tenant_id=caller.tenant_id))
    return Answer({"items": [selection_view(row) for row in rows], "next": None})


@router.put("")
def put(
    body: Annotated[selecting.SelectionSpec, Decent], caller: Admin, door: TheDoor
) -> Answer:
    """Set the default of a workspace, a project or the tenant; null takes it away."""
    return _select(body, caller, door)


@router.delete("")
def delete(asked: Annotated[Which, Query()], caller: Admin, door: TheDoor) -> Answer:
    """Take a default away: the next one of the chain applies."""
    spec = parse(selecting.SelectionSpec, asked.model_dump(mode="json"))
    return _select(spec, caller, door)


def _select(wanted: selecting.SelectionSpec, caller: Admin, door: TheDoor) -> Answer:
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "selection",
        lambda tx: selecting.select(tx, wanted, tenant_id=tenant, actor=actor),
    )
    if row is not None:
        return Answer(selection_view(row))
    return Answer({"kind": wanted.kind.value, "name": wanted.name, "environment": None})
