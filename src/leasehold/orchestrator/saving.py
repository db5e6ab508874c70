"""
Saving an environment: a place that runs may name from now on.

Its config is checked at two depths. Against the schema that workers have advertised, always
and here; by the provider itself, which only a worker has loaded, before this is called
(`vetting`). What came of that stands in the row, also that nobody was asked.
"""

import json
from typing import Any

from leasehold.domain.lifecycle import EnvironmentStatus
from leasehold.domain.secrets import plain_at
from leasehold.domain.specs import EnvironmentSpec
from leasehold.errors import BadInputError, ConflictError, ProviderMissingError
from leasehold.ids import new_id
from leasehold.orchestrator import placing
from leasehold.provider.secrets import SECRET_KEYWORD
from leasehold.store import environments, hosts, moves, slots
from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row


def ensure(tx: Tx, spec: EnvironmentSpec, *, tenant_id: str, actor: str | None = None) -> Row:
    """
    Return the environment of this name, made on first use.

    Raises:
        BadInputError: No host has ever served its provider; names those that there are.
    """
    row = environments.find_by_name(tx, spec.name, tenant_id=tenant_id)
    if row is None:
        slots.lock(tx, wait=True)  # of two that see none, one makes it
        row = environments.find_by_name(tx, spec.name, tenant_id=tenant_id)
    return row or create(tx, spec, tenant_id=tenant_id, actor=actor)


def create(
    tx: Tx,
    spec: EnvironmentSpec,
    *,
    tenant_id: str,
    actor: str | None = None,
    vetted: dict[str, Any] | None = None,
) -> Row:
    """
    Save a new environment, its config checked against the advertised schema.

    Args:
        vetted: What a worker said of its config, or why none was asked.

    Raises:
        ConflictError: The name is taken.
        BadInputError: The provider is unknown, or the config does not fit its schema.
    """
    slots.lock(tx, wait=True)  # of two of the same name, one is refused in these words
    check_new(tx, spec.name, tenant_id=tenant_id)
    check_place(tx, spec)
    now = tx.now()
    row = insert_row(
        tx,
        "environments",
        {
            "id": new_id(),
            "tenant_id": tenant_id,
            "name": spec.name,
            "status": EnvironmentStatus.ACTIVE.value,
            "provider": spec.provider,
            "spec": json.loads(spec.model_dump_json()),
            "max_concurrent": spec.limits.max_concurrent,
            "vetted": vetted,
            "created_at": now,
            "updated_at": now,
        },
    )
    data = {"environment": spec.name} | ({"actor": actor} if actor else {})
    if vetted is not None and vetted["by"] is None:
        data["unchecked"] = vetted["why"]
    moves.record(tx, ("environment.active", data), tenant_id=tenant_id)
    return environments.get(tx, row["id"], tenant_id=tenant_id)


def check_new(tx: Tx, name: str, *, tenant_id: str) -> None:
    """
    Refuse a name that is taken.

    Raises:
        ConflictError: It is.
    """
    if environments.find_by_name(tx, name, tenant_id=tenant_id) is not None:
        raise ConflictError(f"environment {name} exists already")


def check_place(tx: Tx, spec: EnvironmentSpec) -> None:
    """
    Check where an environment's sandboxes are to be made, as hosts have advertised it.

    Raises:
        BadInputError: The provider is unknown, or the config does not fit its schema.
    """
    there = [row for row in hosts.providers(tx) if row["key"] == spec.provider]
    if not there:
        known = ", ".join(hosts.known_keys(tx)) or "none: no worker has started yet"
        raise ProviderMissingError(
            f"provider: there is no provider {spec.provider!r}; there are: {known}",
            field="provider",
        )
    best = max(there, key=lambda row: (row["live"], row["health"] == "healthy", row["seen_at"]))
    check_config(best["config_schema"], spec.config)
    placing.check_provider(tx, spec.provider, spec.requires)


def check_config(schema: Any, config: Any) -> None:
    """
    Check a config against an advertised JSON schema.

    Raises:
        BadInputError: Names the field, what came and what is allowed.
    """
    from leasehold.provider.schema import check_schema

    for path in plain_at(schema, config, keyword=SECRET_KEYWORD):
        raise BadInputError(
            f"config.{path}: is a secret: store it with `leasehold secrets set NAME` and write"
            ' {"secret": "NAME"} here',
            field=f"config.{path}",
        )
    problems = check_schema(schema, config).problems
    if problems:
        first = problems[0]
        path = f"config.{first.path}" if first.path else "config"
        raise BadInputError(f"{path}: {first.message}", field=path)
