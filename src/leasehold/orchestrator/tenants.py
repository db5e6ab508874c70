"""
Tenants: made, limited, put aside and taken up again; never deleted, since history names them.

Archiving one ends nothing: it takes no new runs and no new leases, and what it has goes on to
its end. Its keys stay valid, so that its people can look, cancel and release.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from leasehold.domain.lifecycle import TenantStatus
from leasehold.domain.specs import Spec, Text
from leasehold.errors import ConflictError
from leasehold.store import moves, slots, tenants
from leasehold.store.database import Row, Tx

NAME: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""As a label of a host name: it stands in paths and in names of variables."""

Limit = Annotated[int, Field(ge=1, le=1_000_000)]


class TenantLimits(Spec):
    """What a tenant may have at once; None: what the settings say."""

    max_concurrent: Limit | None = None
    """Sandboxes."""

    max_queued: Limit | None = None
    """Queued runs; one more is refused."""


class TenantSpec(Spec):
    """What a tenant is to be."""

    name: Annotated[str, Field(pattern=NAME)]
    description: Text = Field(default="", max_length=2000)
    limits: TenantLimits = TenantLimits()


class TenantChange(Spec):
    """What of a tenant is to be different; what is not given stays."""

    description: Text | None = Field(default=None, max_length=2000)
    limits: TenantLimits = TenantLimits()
    """Of each that is given: a number, or None to go by the settings again."""


def archived(tenant_id: str) -> ConflictError:
    """Return the refusal of something new in a tenant that is put aside."""
    return ConflictError(f"tenant {tenant_id} is archived: it takes no new runs and leases")


def create(tx: Tx, spec: TenantSpec, *, actor: str) -> Row:
    """
    Make a tenant; it has no keys yet.

    Raises:
        ConflictError: The name is taken.
    """
    slots.lock(tx, wait=True)  # of two of the same name, one is refused in these words
    if tenants.find(tx, spec.name) is not None:
        raise ConflictError(f"there is a tenant {spec.name} already")
    row = tenants.insert(
        tx,
        {
            "id": spec.name,
            "status": TenantStatus.ACTIVE.value,
            "description": spec.description,
            **spec.limits.model_dump(),
            "created_at": tx.now(),
        },
    )
    _record(tx, "tenant.active", row["id"], actor)
    return row


def change(tx: Tx, name: str, wanted: TenantChange, *, actor: str) -> Row:
    """
    Change a tenant's limits or description; what is admitted already stays.

    Raises:
        NotFoundError: There is no such tenant.
    """
    row = tenants.get(tx, name)
    given = wanted.limits.model_dump(exclude_unset=True)
    if wanted.description is not None:
        given["description"] = wanted.description
    different = {field: value for field, value in given.items() if row[field] != value}
    if not different:
        return row
    changed = moves.move(tx, "tenants", row["id"], None, **different)
    assert changed is not None
    _record(tx, "tenant.changed", row["id"], actor, changed=sorted(different))
    return changed


def archive(tx: Tx, name: str, *, actor: str) -> Row:
    """
    Let a tenant take no new runs and leases; nothing happens if that is so already.

    Raises:
        NotFoundError: There is no such tenant.
        ConflictError: It was changed meanwhile.
    """
    return _move(tx, name, TenantStatus.ARCHIVED, actor=actor)


def take_up(tx: Tx, name: str, *, actor: str) -> Row:
    """
    Let an archived tenant take runs again.

    Raises:
        NotFoundError: There is no such tenant.
        ConflictError: It was changed meanwhile.
    """
    return _move(tx, name, TenantStatus.ACTIVE, actor=actor)


def _move(tx: Tx, name: str, to: TenantStatus, *, actor: str) -> Row:
    row = tenants.get(tx, name)
    if row["status"] == to:
        return row
    moved = moves.move(tx, "tenants", row["id"], to)
    if moved is None:
        raise ConflictError(f"tenant {name} was changed meanwhile; look again")
    _record(tx, f"tenant.{to.value}", row["id"], actor)
    return moved


def _record(tx: Tx, event: str, tenant_id: str, actor: str, **more: Any) -> None:
    data: Mapping[str, Any] = {"tenant": tenant_id, "actor": actor, **more}
    moves.record(tx, (event, data), tenant_id=tenant_id)
