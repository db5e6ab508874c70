"""Hosts with their workers, and the providers that they serve."""

from typing import Any

from fastapi import APIRouter, Request, Response

from leasehold.api.asking import HostId, ProviderKey
from leasehold.api.door import Anybody, Root, TheDoor
from leasehold.api.pages.page import Form, go_to, look, page
from leasehold.domain import restricting
from leasehold.orchestrator import forgetting
from leasehold.store import fleet, views, watching
from leasehold.store.database import Tx

router = APIRouter()


@router.get("/hosts")
def hosts(request: Request, caller: Anybody, door: TheDoor) -> Response:
    """Show hosts, alive or not, and their workers."""

    def work(tx: Tx) -> dict[str, Any]:
        workers = fleet.workers(tx)
        return {
            "place": watching.newest_event(tx),
            "hosts": [
                {
                    **restricting.host(shape, caller.role),
                    "workers": [one for one in workers if one["host_id"] == shape["id"]],
                }
                for shape in fleet.hosts(tx)
            ],
            "now": views.iso(tx.now()),
        }

    return page(request, "hosts.html", title="Hosts", **look(request, caller, door, work))


@router.post("/hosts/{host_id}/drain")
def drain(host_id: HostId, caller: Root, door: TheDoor, _form: Form) -> Response:
    """Send nothing new to a host."""
    door.write("host.drain", lambda tx: forgetting.drain(tx, host_id, actor=caller.actor))
    return go_to("/hosts", said="drain")


@router.get("/providers")
def providers(request: Request, caller: Anybody, door: TheDoor) -> Response:
    """Show what workers have loaded."""

    def work(tx: Tx) -> dict[str, Any]:
        return {"place": watching.newest_event(tx), "providers": fleet.providers(tx)}

    found = look(request, caller, door, work)
    return page(request, "providers.html", title="Providers", **found)


@router.get("/providers/{key}")
def provider(key: ProviderKey, request: Request, caller: Anybody, door: TheDoor) -> Response:
    """Show one provider: what it can do, and where it is served."""

    def work(tx: Tx) -> dict[str, Any]:
        return {"place": watching.newest_event(tx), "provider": fleet.provider(tx, key)}

    found = look(request, caller, door, work)
    return page(request, "provider.html", title=f"Provider {key}", **found)
