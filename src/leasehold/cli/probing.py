"""
Make a lease on its own and wait for it: what `leases create` and `env probe` share.

Such a lease matches no reuse and is never reused, so a probe proves that a *new* sandbox can
be made. A probe that dies here leaves a held lease whose time ends by itself.
"""

import time
from datetime import timedelta
from typing import Any, Final

from leasehold.cli.ports import Port, Shape
from leasehold.domain.durations import parse_duration
from leasehold.domain.lifecycle import LEASE_ENDS, LeaseStatus
from leasehold.errors import BadInputError, LeaseholdError

_POLL_S: Final = 0.1
_PROBE_TTL: Final = timedelta(minutes=5)


def seconds(text: str, *, option: str) -> float:
    """
    Return the seconds of a duration that was typed.

    Raises:
        BadInputError: It is no duration, or not above zero.
    """
    try:
        value = float(parse_duration(text))
    except ValueError as error:
        raise BadInputError(f"{option}: {error}", field=option) from None
    if not 0 < value < timedelta.max.total_seconds():
        raise BadInputError(f"{option}: must be above zero, got {text}", field=option)
    return value


def until_made(door: Port, lease_id: str, *, wait_s: float) -> Shape:
    """Wait until a lease is usable, over, or the time is; return it."""
    until = time.monotonic() + wait_s
    while True:
        row = door.leases.show(lease_id)
        if row["status"] != LeaseStatus.ACQUIRING or time.monotonic() >= until:
            return row
        time.sleep(_POLL_S)


def probe(door: Port, environment: Shape, *, wait_s: float) -> dict[str, Any]:
    """Check an environment's config, make a sandbox of it and have it removed."""
    from leasehold.orchestrator import submit

    found: dict[str, Any] = {
        "ok": False,
        "environment": environment["name"],
        "provider": environment["provider"],
        "summary": "",
        "details": {},
    }
    try:
        there = door.fleet.providers()
        schemas = [r["config_schema"] for r in there if r["key"] == environment["provider"]]
        if schemas:
            submit.check_config(schemas[0], environment["config"])
        row = door.leases.create(environment["name"], hold_for=_PROBE_TTL)
    except LeaseholdError as error:
        return found | {"summary": str(error), "details": {"code": error.code}}
    row = until_made(door, row["id"], wait_s=wait_s)
    details = {
        "lease_id": row["id"],
        "sandbox_id": row["sandbox_id"],
        "host_id": row["host_id"],
        "provider_version": row["metadata"].get("provider_version"),
        "outcome": row["metadata"].get("outcome"),
    }
    found["details"] = {name: value for name, value in details.items() if value}
    if row["status"] == LeaseStatus.IDLE:
        door.leases.give_back(row["id"])
        return found | {"ok": True, "summary": "a sandbox was made and is being removed"}
    if row["status"] in LEASE_ENDS | {LeaseStatus.RELEASING}:
        return found | {"summary": row["reason"] or "it could not be made"}
    return found | {"summary": f"no sandbox within {wait_s:g} s; its lease ends by itself"}
