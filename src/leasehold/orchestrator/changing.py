"""
Changing an environment: what is given is merged into what there is, and checked anew.

A patch is merged as RFC 7396 says: objects by their keys, null removes, everything else is
replaced; a reference to a secret counts as a value. The config of another provider means
nothing to the new one: it is replaced as a whole. What runs goes on as it began, idle
sandboxes match no more where the fingerprint changes.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from leasehold.domain.lifecycle import LeasePolicy
from leasehold.domain.secrets import is_ref
from leasehold.domain.specs import (
    EnvironmentLimits,
    EnvironmentSpec,
    EnvName,
    EnvValue,
    Name,
    Seconds,
    Spec,
    Text,
    parse,
)
from leasehold.errors import ConflictError
from leasehold.orchestrator import placing
from leasehold.store import environments, moves, radius, slots
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

_PARTS = ("config", "env", "limits", "requires")
"""Fields whose keys are named one by one in history."""

_PLACE = ("provider", "config", "requires")
"""What hosts have to say something about."""


class EnvironmentChange(Spec):
    """What of an environment is to be different; what is not given stays, null removes."""

    provider: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = ""
    description: Annotated[Text, Field(max_length=2000)] | None = None
    config: dict[str, Any] | None = None
    """Merged; with another provider it is the whole config."""

    env: dict[EnvName, EnvValue | None] | None = None
    policy: LeasePolicy | None = None
    limits: EnvironmentLimits | None = None
    requires: dict[Name, Annotated[Text, Field(max_length=255)] | None] | None = None
    idle_ttl_s: Seconds | None = None
    retained_ttl_s: Seconds | None = None


def change(
    tx: Tx, name: str, wanted: EnvironmentChange, *, tenant_id: str, actor: str
) -> tuple[Row, list[str]]:
    """
    Change an environment; return its row and the names of the fields that are different.

    Raises:
        NotFoundError: The tenant has no such environment.
        BadInputError: The whole, as it would be, is refused; names the field.
        ConflictError: Its provider is to change while runs are on their way to the old one.
    """
    slots.lock(tx, wait=True)  # nothing is admitted meanwhile, nor changed by another one
    row = environments.get(tx, name, tenant_id=tenant_id)
    old = EnvironmentSpec.model_validate(load(row["spec"])).model_dump(mode="json")
    given = wanted.model_dump(mode="json", exclude_unset=True)
    another = given.get("provider", old["provider"]) != old["provider"]
    whole = merged({**old, "config": {}} if another else old, given)
    spec = parse(EnvironmentSpec, whole)
    new = spec.model_dump(mode="json")
    changed = sorted(_different(old, new))
    if not changed:
        return row, []
    if any(old[field] != new[field] for field in _PLACE):
        placing.check_place(tx, spec)
    if another and (count := radius.on_their_way(tx, row["id"])):
        raise ConflictError(
            f"provider: {count} runs are on their way to {old['provider']};"
            " try again in a moment"
        )
    environments.change_spec(tx, row["id"], new)
    data = {"environment": row["name"], "changed": changed, "actor": actor}
    moves.record(tx, ("environment.changed", data), tenant_id=tenant_id)
    return environments.get(tx, row["id"], tenant_id=tenant_id), changed


def merged(old: Any, patch: Any) -> Any:
    """Return `old` with `patch` merged into it."""
    if not isinstance(patch, Mapping) or is_ref(patch):
        return patch
    whole = dict(old) if isinstance(old, Mapping) and not is_ref(old) else {}
    for name, value in patch.items():
        if value is None:
            whole.pop(name, None)
        else:
            whole[name] = merged(whole.get(name), value)
    return whole


def _different(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of fields that differ, never what is in them."""
    for field in sorted(set(old) | set(new)):
        before, after = old.get(field), new.get(field)
        if before == after:
            continue
        if field not in _PARTS:
            yield field
            continue
        for key in set(before or {}) | set(after or {}):
            if (before or {}).get(key) != (after or {}).get(key):
                yield f"{field}.{key}"
