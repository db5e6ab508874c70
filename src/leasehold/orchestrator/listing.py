"""
What a provider has of ours, for the sweep: one listing, whatever has to be asked.

Most providers find by themselves what they have. One that reaches other places (a machine
behind ssh) may need a config to know where to look and with which credentials: it is asked
once for each config in use, and once for none. A place that does not answer proves nothing:
its leases do not count as missing, the others are swept all the same.
"""

from dataclasses import dataclass, field
from typing import Any

from leasehold.domain.fingerprint import canonical_json
from leasehold.domain.secrets import filled, names_in
from leasehold.errors import LeaseholdError, StoreUnavailableError
from leasehold.log import get_logger
from leasehold.orchestrator import revealing
from leasehold.orchestrator.jobs import Context
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Json, Owned, Provider
from leasehold.store import sweeps
from leasehold.store.database import Row
from leasehold.store.sql import load

log = get_logger(__name__)


@dataclass(slots=True)
class Listing:
    """Every sandbox that was listed, and where."""

    owned: list[Owned] = field(default_factory=list)
    configs: dict[str, Json] = field(default_factory=dict)
    """Name of a sandbox → the config under which it was listed, as stored."""

    silent: set[str] = field(default_factory=set)
    """Configs that could not be asked, as canonical JSON."""

    def config_of(self, one: Owned) -> Json:
        return self.configs.get(name_of(one), {})

    def is_silent(self, row: Row) -> bool:
        """Return whether the place of this lease could not be asked."""
        if not self.silent:
            return False
        return canonical_json(load(row["facts"]).get("config", {})) in self.silent


def name_of(one: Owned) -> str:
    return f"{one.lease_id} {one.sandbox_id} {one.handle.get('incarnation')}"


def take(context: Context, provider: Provider, *, budget_s: float) -> Listing:
    """
    List what a provider has.

    Raises:
        ProviderError: Without a config it cannot be asked at all.
        StoreUnavailableError: The database did not answer.
    """
    info = provider.describe()
    listing = Listing()
    _ask(context, provider, listing, stored={}, config={}, budget_s=budget_s)
    if not info.capabilities.lists_by_config:
        return listing
    with context.database.read() as tx:
        rows = sweeps.configs(tx, info.key)
    seen: set[str] = {"{}"}
    for row in rows:
        stored: Any = load(row["config"]) or {}
        mark = canonical_json(stored)
        if mark in seen:
            continue
        seen.add(mark)
        try:
            pins = dict.fromkeys(names_in(stored), 0)
            values = revealing.values(context, row["tenant_id"], pins)
            config = filled(stored, values)
            _ask(context, provider, listing, stored=stored, config=config, budget_s=budget_s)
        except StoreUnavailableError:
            raise
        except LeaseholdError as error:
            log.warning("sweep.silent", provider=info.key, why=str(error))
            listing.silent.add(mark)
    return listing


def _ask(
    context: Context,
    provider: Provider,
    listing: Listing,
    *,
    stored: Json,
    config: Json,
    budget_s: float,
) -> None:
    for one in provider.list_owned(context.deployment, config=config, budget=Budget(budget_s)):
        name = name_of(one)
        if name not in listing.configs:
            listing.owned.append(one)
        listing.configs[name] = stored
