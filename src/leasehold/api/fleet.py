"""``/providers``, ``/workers`` and ``/hosts``: who serves what, and where."""

from typing import Annotated

from fastapi import APIRouter, Query

from leasehold.api.answers import Answer
from leasehold.api.asking import Filters, ProviderKey
from leasehold.api.door import TheDoor, Viewer
from leasehold.domain import restricting
from leasehold.store import fleet

router = APIRouter(tags=["fleet"])


class WorkerFilters(Filters):
    gone: bool = False
    """Those that are gone as well."""


@router.get("/providers")
def providers(_caller: Viewer, door: TheDoor) -> Answer:
    """List the providers that workers have loaded."""
    return Answer({"items": door.read(fleet.providers), "next": None})


@router.get("/providers/{key}")
def provider(key: ProviderKey, _caller: Viewer, door: TheDoor) -> Answer:
    """Return a provider: capabilities, config schema, where it is served."""
    return Answer(door.read(lambda tx: fleet.provider(tx, key)))


@router.get("/workers")
def workers(asked: Annotated[WorkerFilters, Query()], _caller: Viewer, door: TheDoor) -> Answer:
    """List worker processes."""
    items = door.read(lambda tx: fleet.workers(tx, all_of_them=asked.gone))
    return Answer({"items": items, "next": None})


@router.get("/hosts")
def hosts(_caller: Viewer, door: TheDoor) -> Answer:
    """List hosts, alive or not."""
    items = [restricting.host(shape) for shape in door.read(fleet.hosts)]
    return Answer({"items": items, "next": None})
