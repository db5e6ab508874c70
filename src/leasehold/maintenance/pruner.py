"""Removes what nobody needs any more: versions of secrets that no live lease names."""

from dataclasses import dataclass

from leasehold.orchestrator.jobs import Context
from leasehold.store import secrets


@dataclass(frozen=True, slots=True)
class Report:
    """What one turn removed."""

    secret_versions: int = 0


def run_once(context: Context) -> Report:
    """Prune once; killed anywhere, the next turn does it again."""
    with context.database.write("prune") as tx:
        return Report(secret_versions=secrets.prune(tx))
