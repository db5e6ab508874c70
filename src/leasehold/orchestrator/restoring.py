"""
After a restore: sandboxes that the database has forgotten become leases again.

`leasehold db restored` raises the epoch. From then on a sandbox that has no lease's row and
whose fence is of an older epoch is not a stray: the row was lost with the backup's age. The
sweep takes it in. It gets a row under its own lease id and goes the way of every kept lease
(`releasing`, mode keep → `retained`), so a worker renews it and installs the new epoch's
fence, is repeated until it has, and a person decides what becomes of it. Nothing that runs in
it is touched.
"""

from typing import Any, Final

from leasehold.domain.lifecycle import LeasePolicy, LeaseStatus
from leasehold.domain.secrets import names_in
from leasehold.orchestrator import leasing
from leasehold.orchestrator.jobs import EPOCH_SHIFT, Context
from leasehold.provider.contract import Info, Json, Owned, ReleaseMode
from leasehold.store import leases, moves, restored, secrets
from leasehold.store.database import Tx
from leasehold.store.runs import insert_row

TENANT: Final = "default"
"""A sandbox's label names its tenant, the listing does not: the operator decides."""

PLACE: Final = "(restored)"
KEPT_S: Final = 7 * 24 * 3600
"""How long a person has to decide."""


def epoch_of(one: Owned) -> int:
    """Return the epoch of a sandbox's fence; 0 if it is not known."""
    return (one.fence or 0) >> EPOCH_SHIFT


def is_forgotten(one: Owned, *, epoch: int) -> bool:
    """Whether a sandbox without a row was made before the restore that raised the epoch."""
    return epoch_of(one) < epoch


def take_in(
    tx: Tx, context: Context, info: Info, one: Owned, *, config: Json, host_id: str
) -> bool:
    """Make a lease for a forgotten sandbox and owe it `keep`; False if it has one by now."""
    if leases.find(tx, one.lease_id) is not None:
        return False
    bound = info.capabilities.host_bound
    queue = f"leasehold.host.{host_id}" if bound else f"leasehold.provider.{info.key}"
    facts: dict[str, Any] = {
        "v": 1,
        "provider": info.key,
        "provider_version": info.version,
        "config": dict(config),
        "environment": PLACE,
        "scope": None,
        "retained_ttl_s": KEPT_S,
        "taken_in": {"number": one.lease_number, "fence": one.fence, "age_s": one.age_s},
    }
    values: dict[str, Any] = {
        "id": one.lease_id,
        "tenant_id": TENANT,
        "environment_id": PLACE,
        "environment_name": PLACE,
        "provider": info.key,
        "host_id": host_id if bound else None,
        "queue": queue,
        "status": LeaseStatus.ACQUIRING.value,
        "policy": LeasePolicy.EPHEMERAL.value,
        "fence": 1 + ((one.fence or 0) & ((1 << EPOCH_SHIFT) - 1)),
        "publishes": 0,
        "retain": True,
        "cleanup_attempts": 0,
        "sandbox_id": one.sandbox_id or one.lease_id,
        "handle": dict(one.handle),
        "facts": facts,
        "created_at": tx.now(),
        "due_at": tx.now(),
    }
    if (number := restored.free_number(tx, one.lease_number)) is not None:
        values["number"] = number
    pins = secrets.current(tx, tenant_id=TENANT, names=sorted(set(names_in(config))))
    if pins:
        values["facts"] = {**facts, "secrets": pins}
    row = insert_row(tx, "leases", values)
    secrets.name_in_lease(tx, row["id"], tenant_id=TENANT, pins=pins)
    restored.past_numbers(tx)
    moves.record(tx, "lease.acquiring", tenant_id=TENANT, lease_id=one.lease_id)
    what = leasing.Disposal(
        ReleaseMode.KEEP, LeaseStatus.RETAINED, "unknown to the restored database"
    )
    locked = leases.lock(tx, row["id"])
    assert locked is not None
    leasing.owe(tx, context, locked, what, sticky=False)
    return True
