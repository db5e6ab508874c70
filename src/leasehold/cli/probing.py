"""
Ask for a sandbox and wait for it: what `leases create` and `env probe` do.

Neither reuses one nor is reused, so a probe proves that a *new* sandbox can be made.
"""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from leasehold.cli.ports import Port, Shape
from leasehold.domain.durations import parse_duration
from leasehold.domain.lifecycle import LeaseStatus
from leasehold.errors import BadInputError, LeaseholdError

if TYPE_CHECKING:
    from leasehold.orchestrator.probing import DraftSpec

_POLL_S: Final = 0.1


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
        shape = door.leases.show(lease_id)
        if shape["status"] != LeaseStatus.ACQUIRING or time.monotonic() >= until:
            return shape
        time.sleep(_POLL_S)


def probe(
    door: Port, saved: Shape | None, draft: "DraftSpec | None", *, wait_s: float
) -> dict[str, Any]:
    """
    Have a config checked by a worker, and a sandbox made of it and destroyed.

    Args:
        saved: The environment; None: the draft, of which nothing is saved.
    """
    if saved is not None:
        name, provider = saved["name"], saved["provider"]
    else:
        assert draft is not None
        name, provider = draft.name, draft.provider
    try:
        of = None if saved is None else name
        shape = door.environments.probe(of, draft, wait_s=wait_s)
    except LeaseholdError as error:
        return {
            "ok": False,
            "environment": name,
            "provider": provider,
            "summary": str(error),
            "details": {"code": error.code},
        }
    if shape["state"] == "making":
        shape["summary"] = f"no sandbox within {wait_s:g} s; its lease ends by itself"
    shape.pop("normalized_config", None)
    # Between true and false there is nothing for an exit code.
    return shape | {"ok": bool(shape["ok"])}
