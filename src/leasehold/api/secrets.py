"""``/secrets``: values go in, and no request brings one out again."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import SecretStr

from leasehold.api.answers import Answer
from leasehold.api.asking import Decent
from leasehold.api.door import Admin, Root, TheDoor, Viewer
from leasehold.domain.secrets import NAME_PATTERN
from leasehold.domain.specs import Spec
from leasehold.store import secret_views
from leasehold.store.database import Tx
from leasehold.store.views import Shape
from leasehold.vault import keeping

router = APIRouter(prefix="/secrets", tags=["secrets"])
SecretName = Annotated[str, Path(pattern=NAME_PATTERN)]


class SecretValue(Spec):
    """What a name stands for from now on."""

    value: SecretStr
    """Text of at most 64 KiB."""


@router.put("/{name}")
def put(
    name: SecretName, body: Annotated[SecretValue, Decent], caller: Admin, door: TheDoor
) -> Answer:
    """Store a value under a name, as its next version; it can never be read again."""
    value, keys = body.value.get_secret_value(), door.secret_keys()
    tenant, actor = caller.tenant_id, caller.actor

    def work(tx: Tx) -> Shape:
        keeping.put(tx, keys, tenant_id=tenant, name=name, value=value, actor=actor)
        return secret_views.one(tx, name, tenant_id=tenant)

    return Answer(door.write("secret.put", work))


@router.get("")
def list_(caller: Viewer, door: TheDoor) -> Answer:
    """List names and versions, and how many live leases name each; never a value."""
    items = door.read(lambda tx: secret_views.listed(tx, tenant_id=caller.tenant_id))
    return Answer({"items": items, "next": None})


@router.get("/{name}")
def get(name: SecretName, caller: Viewer, door: TheDoor) -> Answer:
    """Return a name's version and where it is used; never its value."""
    return Answer(door.read(lambda tx: secret_views.one(tx, name, tenant_id=caller.tenant_id)))


@router.delete("/{name}")
def delete(name: SecretName, caller: Admin, door: TheDoor) -> Answer:
    """Take a name away; live leases keep what they name of it until they are over."""
    tenant, actor = caller.tenant_id, caller.actor
    shape = door.write(
        "secret.delete",
        lambda tx: keeping.delete(tx, tenant_id=tenant, name=name, actor=actor),
    )
    return Answer(shape | {"deleted": True})


@router.post("/rotate")
def rotate(caller: Root, door: TheDoor) -> Answer:
    """Encrypt the values of all tenants anew with the first key of the deployment's file."""
    key, count = door.rotate_secrets(actor=caller.actor)
    return Answer({"key": key, "encrypted_anew": count})
