"""
A probe makes one new sandbox of a place, looks into it, and has it destroyed.

It is a lease of its own kind (`probe` among its facts), so that whoever dies, it goes the road
of every lease: the worker that made the sandbox owes its destruction in the transaction in
which it says that it was there. No asker has to come back for it. It matches no reuse, no run
may name it, and the tenant's limits and secrets are those of any lease.

A draft has no environment: its lease has all that is needed, under an id that no row has.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from leasehold.domain.lifecycle import LEASE_ENDS, EnvironmentStatus, LeaseStatus
from leasehold.domain.specs import EnvironmentSpec, Name
from leasehold.ids import new_id
from leasehold.orchestrator import holding
from leasehold.orchestrator.jobs import Context
from leasehold.store import moves, tenants
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

_TTL: Final = timedelta(minutes=5)
"""Of its sandbox, by itself, if everybody dies."""

_DRAFT: Final = "draft"


class DraftSpec(EnvironmentSpec):
    """An environment that is tried and not saved."""

    name: Name = _DRAFT


def begin(
    tx: Tx, context: Context, environment: Row, *, actor: str, is_draft: bool = False
) -> Row:
    """
    Ask for a sandbox that is destroyed as soon as it was there; return its lease.

    Raises:
        ConflictError: The environment or the tenant is archived, or no host can take it now.
    """
    probe = {"actor": actor, "draft": is_draft}
    return holding.hold(tx, context, environment, hold_for=_TTL, actor=actor, probe=probe)


def of_draft(tx: Tx, spec: EnvironmentSpec, *, tenant_id: str) -> Row:
    """Return what stands for the environment that there is not."""
    tenant = tenants.get(tx, tenant_id)
    return {
        "id": f"{_DRAFT}-{new_id()}",
        "tenant_id": tenant_id,
        "name": spec.name,
        "status": EnvironmentStatus.ACTIVE.value,
        "provider": spec.provider,
        "spec": spec.model_dump(mode="json"),
        "tenant_status": tenant["status"],
        "tenant_max_concurrent": tenant["max_concurrent"],
    }


def view(tx: Tx, lease: Row) -> dict[str, Any]:
    """Return what is shown of a probe: how far it is, and what was found."""
    facts = load(lease["facts"]) or {}
    names = {event["name"]: event for event in moves.events_of(tx, lease_id=lease["id"])}
    made, failed = names.get("lease.probed"), names.get("step.acquire.failed")
    over = lease["status"] in LEASE_ENDS
    state = "over" if over else "destroying" if made or failed else "making"
    if lease["status"] == LeaseStatus.RELEASING and not (made or failed):
        state = "destroying"
    details = {
        "lease_id": lease["id"],
        "sandbox_id": lease["sandbox_id"],
        "host_id": lease["host_id"],
        "provider_version": facts.get("provider_version"),
        "outcome": facts.get("acquired"),
        "took_s": _took_s(lease, made or failed),
        "code": failed["data"]["code"] if failed else None,
        "last_error": lease["last_error"],
    }
    return {
        "ok": True if made else False if failed or state != "making" else None,
        "state": state,
        "environment": lease["environment_name"],
        "draft": bool((facts.get("probe") or {}).get("draft")),
        "provider": lease["provider"],
        "summary": _summary(lease, made, failed, state),
        "details": {name: value for name, value in details.items() if value is not None},
    }


def _took_s(lease: Row, event: Row | None) -> float | None:
    return None if event is None else round((event["at"] - lease["created_at"]) / 1e6, 3)


def _summary(lease: Row, made: Row | None, failed: Row | None, state: str) -> str:
    if failed:
        return f"{failed['data']['code']}: {failed['data']['message']}"
    if made:
        gone = {"over": "is destroyed", "destroying": "is being destroyed"}
        return f"a sandbox was made, was ready, and {gone.get(state, state)}"
    if state == "making":
        return "its sandbox is being made"
    return lease["reason"] or "it could not be made"


def is_probe(lease: Mapping[str, Any]) -> bool:
    return bool((load(lease["facts"]) or {}).get("probe"))


def is_over(shape: Mapping[str, Any]) -> bool:
    return bool(shape["state"] == "over")
