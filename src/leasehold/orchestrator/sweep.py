"""
The sweep: what a provider has, compared with SQL, both ways.

Authority: SQL says which leases live; a sandbox's label says whose it is. Intent is written
before the effect, so every sandbox of ours has a lease's row, unless rows were lost. Destroyed
is only what carries our deployment's id and either has a terminal row or has none and a
number that SQL has given out; and only when it was seen so twice, a sweep apart, and is older
than the grace. Nothing is destroyed while SQL does not answer.

A sandbox without a row whose number is *above* SQL's highest proves a restored or foreign
database: the alarm is raised (`store.restored`), and while it stands nothing at all is
destroyed; so on an empty database, and on one that the deployment is not bound to. After a
person has said `leasehold db restored`, what the database had forgotten is taken in
(`restoring`).

The other way: an idle or retained lease that the provider does not list, twice, is lost; it
goes the way of all leases (`releasing`, whose destroy finds nothing). An active one that is
missing is only counted: its run's own beat finds out. Die here? Sightings are memory only, and
of sweeps that followed each other without a failure: to count anew only makes it slower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from leasehold.domain.lifecycle import LEASE_ENDS, LeaseStatus
from leasehold.domain.secrets import names_in
from leasehold.errors import LostClaimError, ProviderError, SecretUnavailableError
from leasehold.log import get_logger
from leasehold.orchestrator import leasing, restoring, revealing
from leasehold.orchestrator import listing as listings
from leasehold.orchestrator.jobs import EPOCH_SHIFT, Context, lease_ref
from leasehold.provider.budget import Budget
from leasehold.provider.contract import (
    Info,
    Json,
    LeaseRef,
    Owned,
    Provider,
    ReleaseMode,
    Target,
)
from leasehold.seams import effect
from leasehold.store import leases, restored, sweeps
from leasehold.store.database import Row
from leasehold.store.sql import load

log = get_logger(__name__)
T = TypeVar("T")
SIGHTINGS: Final = 2
_BUDGET_S: Final = 60.0
_KEPT: Final = frozenset({LeaseStatus.IDLE, LeaseStatus.RETAINED})


@dataclass(slots=True)
class Report:
    """
    What one sweep of one provider saw and did.

    ``listed == matched + owed + foreign + forgotten + strays``: each sandbox is in one.
    """

    listed: int = 0
    matched: int = 0
    """Of live leases."""

    owed: int = 0
    """Of leases that are being released."""

    foreign: int = 0
    """Without a row, above SQL's highest number: the database is not theirs."""

    forgotten: int = 0
    """Without a row, of an epoch before the restore: taken in as retained."""

    strays: int = 0
    """Without a live lease; destroyed when seen twice and older than the grace."""

    young: int = 0
    """Of the strays: within the grace."""

    destroyed: list[str] = field(default_factory=list)
    taken_in: list[str] = field(default_factory=list)
    absent: int = 0
    """Leases with a sandbox that was not listed."""

    missing: list[str] = field(default_factory=list)
    """Of the absent: seen so twice."""

    lost: list[str] = field(default_factory=list)
    """Of the missing: idle and retained ones, which are ended."""

    alarm: str | None = None

    @property
    def orphans(self) -> int:
        """Return how many sandboxes without a live lease are still there."""
        return self.strays - len(self.destroyed)


@dataclass(frozen=True, slots=True)
class _Sorted:
    foreign: list[Owned]
    forgotten: list[Owned]
    strays: list[Owned]


@dataclass(slots=True)
class Sweep:
    """One sweeper's memory, by provider: how often something was seen where it must not be."""

    host_id: str
    _strays: dict[str, dict[str, int]] = field(default_factory=dict)
    _missing: dict[str, dict[str, int]] = field(default_factory=dict)

    def run_once(
        self, context: Context, provider: Provider, *, dry_run: bool = False
    ) -> Report:
        """
        Compare what this provider has on this host with SQL, once.

        Raises:
            LostClaimError: The epoch was raised; this process is of the one before.
        """
        info = provider.describe()
        # Until this one has come through, nothing was seen: sightings are of unbroken series.
        strays_seen = self._strays.pop(info.key, {})
        missing_seen = self._missing.pop(info.key, {})
        # A listing proves nothing of what came to be after it was asked for.
        with context.database.read() as tx:
            before = {
                row["id"] for row in sweeps.with_sandbox(tx, info.key, host_id=self.host_id)
            }
        listing = listings.take(context, provider, budget_s=_BUDGET_S)
        owned = listing.owned
        with context.database.read() as tx:
            epoch, alarm = restored.epoch(tx), restored.alarm(tx)
            foreign = restored.foreign(tx)
            rows = leases.by_ids(tx, [one.lease_id for one in owned])
            highest = leases.highest_number(tx)
            held = sweeps.with_sandbox(tx, info.key, host_id=self.host_id)
        if epoch != context.epoch:
            raise LostClaimError(f"epoch {epoch} has come, this process is of {context.epoch}")
        report = Report(listed=len(owned), alarm=alarm)
        found = self._sort(report, owned, rows, highest=highest, epoch=epoch)
        there = {one.lease_id for one in owned}
        absent = {
            row["id"]: row
            for row in held
            if row["id"] in before - there and not listing.is_silent(row)
        }
        report.absent = len(absent)
        missing = seen_twice(missing_seen, absent)
        report.missing = [row["id"] for row in missing]
        stray = {listings.name_of(one): one for one in found.strays}
        strays = seen_twice(strays_seen, stray)
        self._strays[info.key], self._missing[info.key] = strays_seen, missing_seen
        grace_s = context.timers.sweep_grace.total_seconds()
        report.young = sum(1 for one in found.strays if one.age_s < grace_s)
        if found.foreign:
            foreign = (
                f"{len(found.foreign)} sandboxes of {info.key} have numbers above {highest},"
                " the highest that SQL has given out: this database was restored or is not"
                " theirs"
            )
        if foreign and not alarm:
            seen = max((restoring.epoch_of(one) for one in found.foreign), default=0)
            report.alarm = self._alarm(context, foreign, seen=seen)
        if report.alarm or dry_run:
            return report
        for one in found.forgotten:
            self._take_in(context, info, one, listing.config_of(one), report)
        for one in strays:
            if one.age_s >= grace_s:
                row = rows.get(one.lease_id)
                facts = load(row["facts"]) if row else {"config": listing.config_of(one)}
                self._destroy(context, provider, one, row, facts, report)
        for row in missing:
            if row["status"] in _KEPT:
                self._lose(context, row, report)
        return report

    def _sort(
        self,
        report: Report,
        owned: list[Owned],
        rows: Mapping[str, Row],
        *,
        highest: int,
        epoch: int,
    ) -> _Sorted:
        found = _Sorted([], [], [])
        for one in owned:
            row = rows.get(one.lease_id)
            if row is None and restoring.is_forgotten(one, epoch=epoch):
                found.forgotten.append(one)
            elif row is None and one.lease_number > highest:
                found.foreign.append(one)
            elif row is None or row["status"] in LEASE_ENDS:
                found.strays.append(one)
            elif row["status"] == LeaseStatus.RELEASING:
                report.owed += 1
            else:
                report.matched += 1
        report.foreign, report.forgotten = len(found.foreign), len(found.forgotten)
        report.strays = len(found.strays)
        return found

    def _alarm(self, context: Context, why: str, *, seen: int) -> str:
        """Raise the alarm for the whole deployment; return its sentence."""
        with context.database.write("sweep.alarm") as tx:
            restored.raise_alarm(tx, why, epoch=context.epoch, seen=seen)
            said = restored.alarm(tx) or why
        log.error("sweep.stopped", why=said)
        return said

    def _take_in(
        self, context: Context, info: Info, one: Owned, config: Json, report: Report
    ) -> None:
        with context.database.write("sweep.take_in") as tx:
            taken = restoring.take_in(
                tx, context, info, one, config=config, host_id=self.host_id
            )
        if taken:
            report.taken_in.append(one.lease_id)
            log.warning("sweep.taken_in", lease=one.lease_id, sandbox=one.sandbox_id)

    def _destroy(
        self,
        context: Context,
        provider: Provider,
        one: Owned,
        row: Row | None,
        facts: Mapping[str, Any],
        report: Report,
    ) -> None:
        context.check_trust()
        fence = max(
            one.fence or 0, (context.epoch << EPOCH_SHIFT) | (row or {}).get("fence", 0)
        )
        ref = _ref(context, one, row)
        try:
            target = Target(
                lease=ref,
                handle=one.handle,
                config=revealing.config(context, ref.tenant_id, _pinned(facts)),
            )
            with effect("provider.sweep"):
                provider.release(
                    target,
                    fence=fence + 1,
                    mode=ReleaseMode.DESTROY,
                    budget=Budget(_BUDGET_S),
                )
        except (ProviderError, SecretUnavailableError) as error:
            log.warning("sweep.failed", lease=one.lease_id, why=str(error))
            return
        report.destroyed.append(one.lease_id)
        log.warning("sweep.destroyed", lease=one.lease_id, sandbox=one.sandbox_id)

    def _lose(self, context: Context, row: Row, report: Report) -> None:
        with context.database.write("sweep.lost") as tx:
            lease = leases.lock(tx, row["id"])
            if lease is None or lease["fence"] != row["fence"]:
                return
            what = leasing.Disposal(ReleaseMode.DESTROY, LeaseStatus.FAILED, "lost")
            leasing.owe(tx, context, lease, what, sticky=False)
        report.lost.append(row["id"])
        log.warning("sweep.lost", lease=row["id"])


def seen_twice(memory: dict[str, int], now: Mapping[str, T]) -> list[T]:
    """Count sightings; forget what is not there any more; return what was seen often enough."""
    for name in set(memory) - set(now):
        del memory[name]
    for name in now:
        memory[name] = memory.get(name, 0) + 1
    return [one for name, one in now.items() if memory[name] >= SIGHTINGS]


def _pinned(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return facts whose secrets are those of now if the lease that named others is over."""
    pins = dict.fromkeys(names_in(facts.get("config", {})), 0)
    return {**facts, "secrets": pins}


def _ref(context: Context, one: Owned, row: Row | None) -> LeaseRef:
    if row is not None:
        return lease_ref(row, deployment=context.deployment)
    return LeaseRef(id=one.lease_id, number=one.lease_number, deployment=context.deployment)
