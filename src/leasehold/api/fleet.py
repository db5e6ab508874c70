"""``/providers``, ``/workers`` and ``/hosts``: who serves what, and where."""

from typing import Annotated

from fastapi import APIRouter, Query

from leasehold.api.answers import Answer
from leasehold.api.asking import Filters, HostId, ProviderKey
from leasehold.api.door import Anybody, Root, TheDoor
from leasehold.domain import restricting
from leasehold.domain.specs import Text
from leasehold.orchestrator import forgetting
from leasehold.store import fleet

router = APIRouter(tags=["fleet"])


class WorkerFilters(Filters):
    gone: bool = False
    """Those that are gone as well."""


class HostConsent(Filters):
    confirm: Text | None = None
    """The host's id: its sandboxes are gone with it for good."""


@router.get("/providers")
def providers(_caller: Anybody, door: TheDoor) -> Answer:
    """List the providers that workers have loaded."""
    return Answer({"items": door.read(fleet.providers), "next": None})


@router.get("/providers/{key}")
def provider(key: ProviderKey, _caller: Anybody, door: TheDoor) -> Answer:
    """Return a provider: capabilities, config schema, where it is served."""
    return Answer(door.read(lambda tx: fleet.provider(tx, key)))


@router.get("/workers")
def workers(
    asked: Annotated[WorkerFilters, Query()], _caller: Anybody, door: TheDoor
) -> Answer:
    """List worker processes."""
    items = door.read(lambda tx: fleet.workers(tx, all_of_them=asked.gone))
    return Answer({"items": items, "next": None})


@router.get("/hosts")
def hosts(caller: Anybody, door: TheDoor) -> Answer:
    """List hosts, alive or not."""
    items = [restricting.host(shape, caller.role) for shape in door.read(fleet.hosts)]
    return Answer({"items": items, "next": None})


@router.post("/hosts/{host_id}/drain")
def drain(host_id: HostId, caller: Root, door: TheDoor) -> Answer:
    """Send nothing new to a host; what runs there goes on, its agent's next start ends it."""
    shape = door.write(
        "host.drain", lambda tx: forgetting.drain(tx, host_id, actor=caller.actor)
    )
    return Answer(shape)


@router.delete("/hosts/{host_id}")
def forget(
    host_id: HostId, asked: Annotated[HostConsent, Query()], caller: Root, door: TheDoor
) -> Answer:
    """Forget a host that will never come back; with leases only with consent: they end."""
    actor = caller.actor
    consent = None if asked.confirm == host_id else f"?confirm={host_id}"
    shape, ended = door.write(
        "host.forget",
        lambda tx: forgetting.forget(tx, door.context, host_id, actor=actor, consent=consent),
    )
    return Answer(shape | {"forgotten": True, "leases_ended": ended})
