"""``/keys``: who may use the API as this tenant."""

from typing import Annotated

from fastapi import APIRouter, Path

from leasehold.api.answers import Answer
from leasehold.api.asking import ID
from leasehold.api.door import Admin, TheDoor
from leasehold.domain.specs import parse
from leasehold.orchestrator import keys
from leasehold.store import keys as rows
from leasehold.store import views

router = APIRouter(prefix="/keys", tags=["keys"])
KeyName = Annotated[str, Path(pattern=ID, description="Its name or its id.")]


@router.post("", status_code=201)
def create(body: keys.KeySpec, caller: Admin, door: TheDoor) -> Answer:
    """Make a key; `key` is shown this once and stored nowhere."""
    spec = parse(keys.KeySpec, body.model_dump(exclude_unset=True))
    tenant, actor = caller.tenant_id, caller.actor
    row, key = door.write(
        "key.create", lambda tx: keys.create(tx, spec, tenant_id=tenant, actor=actor)
    )
    return Answer(views.key_view(row) | {"key": key}, status_code=201)


@router.get("")
def list_(caller: Admin, door: TheDoor) -> Answer:
    """List all keys, the newest first; never a key itself."""
    found = door.read(lambda tx: rows.page(tx, tenant_id=caller.tenant_id))
    return Answer({"items": [views.key_view(row) for row in found], "next": None})


@router.delete("/{key}")
def revoke(key: KeyName, caller: Admin, door: TheDoor) -> Answer:
    """Take a key's rights away, from its next request on; also those of one's own."""
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "key.revoke", lambda tx: keys.revoke(tx, key, tenant_id=tenant, actor=actor)
    )
    return Answer(views.key_view(row))
