"""
Who could answer for a provider now, and the three ways in which nobody can.

They are told apart since a person does something else about each. *Missing*: no worker has
ever served it; a typing error, or a plugin that is installed nowhere. *Not ready*: live hosts
have it, and it is not well there, or their workers start; waiting may help. *No worker*: it
was served before, and whoever did is gone or takes nothing new; somebody has to start one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from leasehold.domain.lifecycle import WorkerStatus
from leasehold.errors import (
    LeaseholdError,
    NoWorkerError,
    ProviderMissingError,
    ProviderNotReadyError,
)
from leasehold.orchestrator import placing
from leasehold.store import hosts
from leasehold.store.database import Row, Tx

_START = "start `leasehold up` or `leasehold worker` on a host that has it"


@dataclass(frozen=True, slots=True)
class Unserved:
    """Nobody can answer now."""

    error: LeaseholdError
    may_come: bool
    """Waiting may help: something starts, or is not well just now."""


def queue_of(
    tx: Tx, provider: str, requires: Mapping[str, str], *, but: str | None = None
) -> str | Unserved:
    """
    Return the queue of workers that serve a provider.

    Args:
        requires: Labels of the hosts that are to be asked; others if none of those is there.
        but: A queue that was asked already: another one, if there is one.
    """
    serving = hosts.served(tx, provider)
    if not serving:
        return _unserved(tx, provider)
    if not serving[0]["host_bound"]:
        return f"leasehold.provider.{provider}"
    fitting = placing.fitting(tx, requires)
    best = min(
        serving,
        key=lambda row: (
            f"leasehold.host.{row['host_id']}" == but,
            fitting is not None and row["host_id"] not in fitting,
            row["host_id"],
        ),
    )
    return f"leasehold.host.{best['host_id']}"


def _unserved(tx: Tx, provider: str) -> Unserved:
    starting = any(
        row["status"] == WorkerStatus.STARTING and row["host_id"] not in hosts.away(tx)
        for row in hosts.workers(tx)
    )
    there = [row for row in hosts.providers(tx) if row["key"] == provider]
    if not there:
        known = ", ".join(hosts.known_keys(tx)) or "none: no worker has started yet"
        text = f"provider: there is no provider {provider!r}; there are: {known}"
        return Unserved(ProviderMissingError(text, field="provider"), starting)
    live = [row for row in there if row["live"]]
    if not live:
        names = ", ".join(sorted({row["host"] for row in there})[:3])
        text = f"no worker serves provider {provider} now (it was served on {names}); {_START}"
        return Unserved(NoWorkerError(text), starting)
    awake = [row for row in live if not row["draining"]]
    if not awake:
        text = f"no worker serves provider {provider} now: {live[0]['host']} takes nothing new"
        return Unserved(NoWorkerError(f"{text}; {_START}"), starting)
    return Unserved(ProviderNotReadyError(_not_ready(provider, awake)), may_come=True)


def _not_ready(provider: str, awake: list[Row]) -> str:
    ill = [row for row in awake if row["health"] != "healthy"]
    if len(ill) < len(awake):
        return f"provider {provider} is not ready: its workers are starting"
    why = ill[0]["summary"] or ill[0]["health"]
    return f"provider {provider} is not ready on {ill[0]['host']}: {why}"
