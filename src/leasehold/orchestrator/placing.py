"""
What a run requires of the host that it goes to, checked at the border and kept by admission.

Only a provider that is bound to hosts has a place to choose: what its sandbox is made of is
there. One that is not (an API in a cloud) is served by any host that has it; a requirement
would bind the queue, but not the sandbox, and a host's death would strand what lives on
elsewhere. So it is refused for those, at the door and, if the plugin has changed meanwhile, in
admission.
"""

from typing import Any

from leasehold.domain import placement
from leasehold.domain.placement import Labels
from leasehold.domain.secrets import plain_at
from leasehold.domain.specs import EnvironmentSpec
from leasehold.errors import BadInputError
from leasehold.provider.secrets import SECRET_KEYWORD
from leasehold.store import hosts
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load


class Nowhere(str):
    """A reason to wait that only another host, or another label, changes."""

    __slots__ = ()


def check_provider(tx: Tx, provider: str, requires: Labels) -> None:
    """
    Refuse to require something of hosts where the provider is not bound to them.

    Raises:
        BadInputError: Says which provider, and what was required.
    """
    if requires and not hosts.is_bound(tx, provider):
        raise BadInputError(f"requires: {unbound(provider, requires)}", field="requires")


def check_run(tx: Tx, environment: Row, requires: Labels, *, names_lease: bool) -> None:
    """
    Check what a run requires against its environment.

    Raises:
        BadInputError: It names a lease, which stays where it is; or its environment requires
            another value of the same label; or the provider is not bound to hosts.
    """
    if not requires:
        return
    if names_lease:
        raise BadInputError(
            "requires: a run that names a lease goes where its sandbox is; give one of them",
            field="requires",
        )
    of_place = _of(environment)
    for name in placement.conflicts(of_place, requires):
        raise BadInputError(
            f"requires.{name}: the run requires {name}={requires[name]},"
            f" environment {environment['name']} requires {name}={of_place[name]}",
            field=f"requires.{name}",
        )
    check_provider(tx, environment["provider"], requires)


def _of(environment: Row) -> Labels:
    found: Labels = load(environment["spec"]).get("requires") or {}
    return found


def both(environment_requires: Labels, run: Row) -> dict[str, str] | Nowhere:
    """Return what must hold for a run, or why it never can: its environment has changed."""
    own: Labels = load(run["requires"]) or {}
    if clash := placement.conflicts(environment_requires, own):
        first = clash[0]
        return Nowhere(
            f"the run requires {first}={own[first]}, its environment requires"
            f" {first}={environment_requires[first]}"
        )
    return {**environment_requires, **own}


def fitting(tx: Tx, requires: Labels) -> list[str] | None:
    """Return the hosts that will do, alive or not; None: nothing is required of them."""
    if not requires:
        return None
    rows = hosts.labels(tx)
    return [row["id"] for row in rows if placement.fits(row["labels"], requires)]


def unbound(provider: str, requires: Labels) -> str:
    """Say that this provider has no place that could be chosen."""
    return (
        f"provider {provider} is not bound to hosts, so a host with"
        f" {placement.words(requires)} cannot be chosen for it"
    )


def nowhere(tx: Tx, provider: str, requires: Labels, serving: list[Row]) -> Nowhere:
    """Say which labels are missing, and what the hosts that serve the provider have."""
    there = {row["host_id"] for row in serving}
    have = [(row["name"], row["labels"]) for row in hosts.labels(tx) if row["id"] in there]
    return Nowhere(placement.nowhere(provider, requires, have))


def key_of(run: Row) -> str:
    """Return what stands in a run's way together with others: `slots.queue_head` knows it."""
    return str(run["wanted_lease_id"] or run["environment_id"] + (run["requires"] or ""))


__all__ = [
    "Nowhere",
    "both",
    "check_provider",
    "check_run",
    "fitting",
    "key_of",
    "nowhere",
    "unbound",
]


def check_place(tx: Tx, spec: EnvironmentSpec) -> None:
    """
    Check where an environment's sandboxes are to be made, as hosts have advertised it.

    Raises:
        BadInputError: The provider is unknown, or the config does not fit its schema.
    """
    there = [row for row in hosts.providers(tx) if row["key"] == spec.provider]
    if not there:
        known = ", ".join(hosts.known_keys(tx)) or "none: no worker has started yet"
        raise BadInputError(
            f"provider: there is no provider {spec.provider!r}; there are: {known}",
            field="provider",
        )
    check_config(there[0]["config_schema"], spec.config)
    check_provider(tx, spec.provider, spec.requires)


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
