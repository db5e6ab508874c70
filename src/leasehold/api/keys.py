"""``/keys``: who may use the API as this tenant; of a root key: as the platform."""

from typing import Annotated

from fastapi import APIRouter, Path

from leasehold.api.answers import Answer
from leasehold.api.asking import ID
from leasehold.api.door import Caller, Door, KeyMaker, TheDoor
from leasehold.domain.specs import parse
from leasehold.orchestrator import keys
from leasehold.store import keys as rows
from leasehold.store import views

router = APIRouter(prefix="/keys", tags=["keys"])
KeyName = Annotated[str, Path(pattern=ID, description="Its name or its id.")]


def create_in(tenant: str, body: keys.KeySpec, caller: Caller, door: Door) -> Answer:
    spec = parse(keys.KeySpec, body.model_dump(exclude_unset=True))
    row, key = door.write(
        "key.create", lambda tx: keys.create(tx, spec, tenant_id=tenant, actor=caller.actor)
    )
    return Answer(views.key_view(row) | {"key": key}, status_code=201)


def list_of(tenant: str, door: Door) -> Answer:
    found = door.read(lambda tx: rows.page(tx, tenant_id=tenant))
    return Answer({"items": [views.key_view(row) for row in found], "next": None})


def revoke_in(tenant: str, key: str, caller: Caller, door: Door) -> Answer:
    row = door.write(
        "key.revoke", lambda tx: keys.revoke(tx, key, tenant_id=tenant, actor=caller.actor)
    )
    return Answer(views.key_view(row))


@router.post("", status_code=201)
def create(body: keys.KeySpec, caller: KeyMaker, door: TheDoor) -> Answer:
    """Make a key; `key` is shown this once and stored nowhere."""
    return create_in(caller.tenant_id, body, caller, door)


@router.get("")
def list_(caller: KeyMaker, door: TheDoor) -> Answer:
    """List all keys, the newest first; never a key itself."""
    return list_of(caller.tenant_id, door)


@router.delete("/{key}")
def revoke(key: KeyName, caller: KeyMaker, door: TheDoor) -> Answer:
    """Take a key's rights away, from its next request on; also those of one's own."""
    return revoke_in(caller.tenant_id, key, caller, door)
