"""How long a tenant keeps what is over: asked, and set by a person."""

from typing import Any

from leasehold.domain.retention import Retention
from leasehold.domain.specs import parse
from leasehold.errors import BadInputError
from leasehold.store import moves, retention
from leasehold.store.database import Tx


def change(tx: Tx, changes: dict[str, Any], *, tenant_id: str, actor: str) -> Retention:
    """
    Set what is named in `changes`, the rest stays; what is over longer goes soon after.

    Raises:
        BadInputError: Nothing is named, or a value is no duration that is allowed.
    """
    if not changes:
        names = " and ".join(Retention.model_fields)
        raise BadInputError(f"retention: give at least one of {names}", field="retention")
    before = retention.of(tx, tenant_id)
    after = parse(Retention, before.model_dump() | changes)
    changed = sorted(name for name in changes if getattr(after, name) != getattr(before, name))
    if changed:
        retention.put(tx, tenant_id, after)
        event = ("retention.changed", {"fields": changed, "actor": actor})
        moves.record(tx, event, tenant_id=tenant_id)
    return after


def view(kept: Retention) -> dict[str, Any]:
    """Return what is shown: seconds, None for ever."""
    return {"runs_s": kept.runs_s, "output_s": kept.output_s}
