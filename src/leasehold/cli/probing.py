"""
Ask for a sandbox and wait for it: what `leases create` and `env probe` do.

Neither reuses one nor is reused, so a probe proves that a *new* sandbox can be made. A probe
needs nobody who waits: the worker that makes its sandbox has it destroyed.
"""

import time
from datetime import timedelta
from typing import Any, Final

from leasehold.cli.door import Door
from leasehold.domain.durations import parse_duration
from leasehold.domain.lifecycle import LeaseStatus
from leasehold.domain.specs import EnvironmentSpec
from leasehold.errors import BadInputError, LeaseholdError
from leasehold.orchestrator import probing as probes
from leasehold.orchestrator import vetting
from leasehold.store import environments, leases
from leasehold.store.database import Row, Tx

_POLL_S: Final = 0.05


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


def until_made(door: Door, lease_id: str, *, wait_s: float) -> Row:
    """Wait until a lease is usable, over, or the time is; return its row."""
    until = time.monotonic() + wait_s
    while True:
        row = door.read(lambda tx: leases.get(tx, lease_id, tenant_id=door.tenant))
        if row["status"] != LeaseStatus.ACQUIRING or time.monotonic() >= until:
            return row
        time.sleep(_POLL_S)


def probe(
    door: Door, spec: EnvironmentSpec, environment_id: str | None, *, wait_s: float
) -> dict[str, Any]:
    """
    Have a config checked by a worker, and a sandbox made of it and destroyed.

    Args:
        environment_id: Of the saved one; None: a draft, nothing of it is saved.
    """
    until = time.monotonic() + wait_s
    found: dict[str, Any] = {
        "ok": False,
        "environment": spec.name,
        "provider": spec.provider,
        "summary": "",
        "details": {},
    }

    def begin(tx: Tx) -> Row:
        if environment_id is None:
            place = probes.of_draft(tx, spec, tenant_id=door.tenant)
        else:
            place = environments.get(tx, environment_id, tenant_id=door.tenant)
        is_draft = environment_id is None
        return probes.begin(tx, door.context, place, actor="cli", is_draft=is_draft)

    try:
        wait = timedelta(seconds=wait_s)
        vetted = vetting.vet(door.context, spec, tenant_id=door.tenant, wait=wait)
        lease = door.write("probe", begin, repeatable=False)
    except LeaseholdError as error:
        return found | {"summary": str(error), "details": {"code": error.code}}
    shape = until_over(door, lease["id"], until=until)
    if shape["state"] == "making":
        shape["summary"] = f"no sandbox within {wait_s:g} s; its lease ends by itself"
    # Between true and false there is nothing for an exit code.
    return shape | {"ok": bool(shape["ok"]), "warnings": list(vetted.warnings)}


def until_over(door: Door, lease_id: str, *, until: float) -> dict[str, Any]:
    """Wait until a probe's sandbox is destroyed, or the time is over."""
    while True:
        shape = door.read(
            lambda tx: probes.view(tx, leases.get(tx, lease_id, tenant_id=door.tenant))
        )
        if probes.is_over(shape) or time.monotonic() >= until:
            return shape
        time.sleep(_POLL_S)
