"""``/tenants``: what the platform's keys may do; nothing of what is in a tenant's rows."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path

from leasehold.api import keys as doors
from leasehold.api.answers import Answer
from leasehold.api.asking import ID, Decent
from leasehold.api.door import Door, Root, TheDoor
from leasehold.domain.specs import parse
from leasehold.orchestrator import tenants
from leasehold.orchestrator.keys import KeySpec
from leasehold.store import tenants as rows
from leasehold.store import views
from leasehold.store.database import Tx
from leasehold.store.views import Shape

router = APIRouter(prefix="/tenants", tags=["tenants"])
TenantName = Annotated[str, Path(pattern=ID)]


def _shape(tx: Tx, name: str) -> Shape:
    return views.tenant_view(rows.used(tx, name))


def _change(door: Door, name: str, work: Callable[[Tx], Any]) -> Shape:
    return door.write(name, lambda tx: _shape(tx, work(tx)["id"]))


@router.post("", status_code=201)
def create(body: Annotated[tenants.TenantSpec, Decent], caller: Root, door: TheDoor) -> Answer:
    """Make a tenant; it has no keys yet."""
    spec = parse(tenants.TenantSpec, body.model_dump(exclude_unset=True))
    shape = _change(
        door, "tenant.create", lambda tx: tenants.create(tx, spec, actor=caller.actor)
    )
    place = {"Location": f"/api/v1/tenants/{spec.name}"}
    return Answer(shape, status_code=201, headers=place)


@router.get("")
def list_(_caller: Root, door: TheDoor) -> Answer:
    """List all tenants, by name, with how much each has under way."""
    found = door.read(rows.page)
    return Answer({"items": [views.tenant_view(row) for row in found], "next": None})


@router.get("/{tenant}")
def get(tenant: TenantName, _caller: Root, door: TheDoor) -> Answer:
    """Return a tenant and how much it has under way."""
    return Answer(door.read(lambda tx: _shape(tx, rows.get(tx, tenant)["id"])))


@router.patch("/{tenant}")
def change(
    tenant: TenantName,
    body: Annotated[tenants.TenantChange, Decent],
    caller: Root,
    door: TheDoor,
) -> Answer:
    """Change its limits (null: by the settings again) or its description."""
    wanted = parse(tenants.TenantChange, body.model_dump(exclude_unset=True))
    shape = _change(
        door,
        "tenant.change",
        lambda tx: tenants.change(tx, tenant, wanted, actor=caller.actor),
    )
    return Answer(shape)


@router.post("/{tenant}/archive")
def archive(tenant: TenantName, caller: Root, door: TheDoor) -> Answer:
    """Take no new runs and leases of it; what lives goes on, its keys stay valid."""
    shape = _change(
        door, "tenant.archive", lambda tx: tenants.archive(tx, tenant, actor=caller.actor)
    )
    return Answer(shape)


@router.post("/{tenant}/unarchive")
def unarchive(tenant: TenantName, caller: Root, door: TheDoor) -> Answer:
    """Take runs of it again."""
    shape = _change(
        door, "tenant.unarchive", lambda tx: tenants.take_up(tx, tenant, actor=caller.actor)
    )
    return Answer(shape)


def _there(door: Door, tenant: str) -> str:
    return str(door.read(lambda tx: rows.get(tx, tenant))["id"])


@router.post("/{tenant}/keys", status_code=201)
def create_key(tenant: TenantName, body: KeySpec, caller: Root, door: TheDoor) -> Answer:
    """Make a key of a tenant; `key` is shown this once and stored nowhere."""
    return doors.create_in(_there(door, tenant), body, caller, door)


@router.get("/{tenant}/keys")
def list_keys(tenant: TenantName, _caller: Root, door: TheDoor) -> Answer:
    """List a tenant's keys, the newest first; never a key itself."""
    return doors.list_of(_there(door, tenant), door)


@router.delete("/{tenant}/keys/{key}")
def revoke_key(tenant: TenantName, key: doors.KeyName, caller: Root, door: TheDoor) -> Answer:
    """Take a key of a tenant its rights away, from its next request on."""
    return doors.revoke_in(_there(door, tenant), key, caller, door)
