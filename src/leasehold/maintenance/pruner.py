"""
Deletes what nobody needs any more: what is over for longer than its tenant keeps it.

Authority is SQL: `store.retention` says what is over and free, `store.blobs` which objects
nothing names. In this order, each in small transactions: a run's output and artifacts, then
the run with its history; leases that are proven gone; objects; workers and sessions; versions
of secrets. Any number of hosts may do it: on PostgreSQL a lock lets one at a time, on SQLite
the writer's. Killed anywhere, the next turn goes on: a transaction deletes a row with all that
belongs to it, and an object's row (`going`) stands until the object is gone.

Nothing is deleted by a time that may be wrong: a wall clock that was set forward would make
everything old. So a turn begins with a look at the clock, is skipped if that has jumped since
the look before, and each transaction looks once more (`domain.pace`); the first look of a
process only remembers. While the alarm stands (`store.restored`) nothing is deleted at all.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from leasehold.domain.retention import (
    BLOB_GRACE_S,
    CHECK_KEPT_S,
    DELIVERY_KEPT_S,
    FLEET_KEPT_S,
    KEY_KEPT_S,
    Retention,
)
from leasehold.errors import BlobsUnavailableError
from leasehold.log import get_logger
from leasehold.orchestrator.jobs import SECOND_US, Context
from leasehold.provider.budget import boot_time
from leasehold.store import (
    blobs,
    config_checks,
    environments,
    restored,
    retention,
    secrets,
    sweeps,
    webhooks,
)
from leasehold.store.database import Tx

log = get_logger(__name__)
BATCH: Final = 100
"""Rows with all that belongs to them that one transaction deletes."""

OUTPUTS: Final = 20
"""The same for runs with output, which may be big."""

Counts = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What stands beside the tenants' own settings."""

    key_kept_s: float = KEY_KEPT_S
    fleet_kept_s: float = FLEET_KEPT_S
    blob_grace_s: float = BLOB_GRACE_S
    delivery_kept_s: float = DELIVERY_KEPT_S
    spared: int = sweeps.RECENT
    """So many of the newest leases stay: the sweep asks for their configs."""


@dataclass(slots=True)
class Report:
    """What one turn removed."""

    output_of: int = 0
    """Runs that lost their output and artifacts."""

    runs: int = 0
    leases: int = 0
    events: int = 0
    """Lines about neither run nor lease."""

    deliveries: int = 0
    """To webhooks."""

    objects: int = 0
    object_bytes: int = 0
    workers: int = 0
    sessions: int = 0
    secret_versions: int = 0
    checks: int = 0
    """Questions to workers about configs."""

    @property
    def removed(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))


def may(context: Context) -> bool:
    """Look at the clock and the alarm: whether this process may prune now."""
    is_new = context.pace.is_new
    sent = boot_time()
    with context.database.read() as tx:
        now_us = tx.now()
        offset_us = int(environments.fact(tx, "clock_offset_us") or 0)
        halted = restored.alarm(tx) is not None or restored.foreign(tx) is not None
    received = boot_time()
    jump = context.pace.jump_us(
        now_us=now_us, offset_us=offset_us, sent=sent, received=received
    )
    if jump:
        log.warning("prune.put_off", why=f"the clock has jumped by {jump / SECOND_US:.0f} s")
    return not (is_new or halted or jump)


def run_once(
    context: Context,
    *,
    stopped: Callable[[], bool] = lambda: False,
    limits: Limits | None = None,
) -> Report:
    """Prune until nothing is left to do, or `stopped`."""
    turn = _Turn(context, stopped, limits or Limits(), Report())
    turn.all()
    if turn.report.removed:
        log.info("prune.done", **asdict(turn.report))
    return turn.report


@dataclass(frozen=True, slots=True)
class _Turn:
    context: Context
    stopped: Callable[[], bool]
    limits: Limits
    report: Report

    def all(self) -> None:
        with self.context.database.read() as tx:
            tenants = retention.of_all(tx)
        self.report.deliveries = self._repeat(
            lambda tx: webhooks.drop_orphans(tx, limit=BATCH), BATCH
        )
        for tenant_id, kept in tenants.items():
            self._of_tenant(tenant_id, kept)
        self._objects()
        fleet_s = self.limits.fleet_kept_s
        self.report.workers = self._repeat(
            lambda tx: retention.drop_workers(tx, kept_s=fleet_s, limit=BATCH), BATCH
        )
        self.report.sessions = self._repeat(
            lambda tx: retention.drop_sessions(tx, kept_s=fleet_s, limit=BATCH), BATCH
        )
        self.report.secret_versions = self._repeat(secrets.prune, None)
        self.report.checks = self._repeat(
            lambda tx: config_checks.drop(tx, kept_s=CHECK_KEPT_S, limit=BATCH), BATCH
        )

    def _of_tenant(self, tenant_id: str, kept: Retention) -> None:
        limits, report = self.limits, self.report
        runs_s, output_s = kept.runs_s, output_kept_s(kept)
        told_us = int(limits.delivery_kept_s * SECOND_US)
        report.deliveries += self._repeat(
            lambda tx: webhooks.drop_deliveries(tx, tenant_id, kept_us=told_us, limit=BATCH),
            BATCH,
        )
        # One look at all: most tenants have nothing to delete most of the time.
        with self.context.database.read() as tx:
            due = retention.due(
                tx,
                tenant_id,
                output_s=output_s,
                runs_s=runs_s,
                key_kept_s=limits.key_kept_s,
                spared=limits.spared,
            )
        if output_s is not None and "output" in due:
            report.output_of += self._repeat(
                lambda tx: len(
                    retention.drop_output(
                        tx,
                        tenant_id,
                        kept_s=output_s,
                        grace_s=limits.blob_grace_s,
                        limit=OUTPUTS,
                    )
                ),
                OUTPUTS,
            )
        if runs_s is None:
            return
        if due & {"output", "runs"}:  # a run goes in the turn in which its output does
            report.runs += self._repeat(
                lambda tx: len(
                    retention.drop_runs(
                        tx,
                        tenant_id,
                        kept_s=runs_s,
                        key_kept_s=limits.key_kept_s,
                        grace_s=limits.blob_grace_s,
                        limit=BATCH,
                    )
                ),
                BATCH,
            )
        if "leases" in due:
            report.leases += self._leases(tenant_id, runs_s)
        if "events" in due:
            report.events += self._repeat(
                lambda tx: retention.drop_events(tx, tenant_id, kept_s=runs_s, limit=BATCH),
                BATCH,
            )

    def _leases(self, tenant_id: str, runs_s: float) -> int:
        limits = self.limits
        return self._repeat(
            lambda tx: len(
                retention.drop_leases(
                    tx,
                    tenant_id,
                    kept_s=runs_s,
                    key_kept_s=limits.key_kept_s,
                    spared=limits.spared,
                    limit=BATCH,
                )
            ),
            BATCH,
        )

    def _repeat(self, work: Callable[[Tx], int], batch: int | None) -> int:
        """Do bounded work, one transaction each, until there is less than a batch."""
        done = 0
        while not self.stopped():
            with self.context.database.write("prune") as tx:
                if not self._may(tx):
                    return done
                count = work(tx)
            done += count
            if batch is None or count < batch:
                break
        return done

    def _may(self, tx: Tx) -> bool:
        """Whether nobody else prunes, and the time is still what it was."""
        sane = self.context.pace.is_sane(tx.now(), at=boot_time())
        return sane and retention.lock(tx)

    def _objects(self) -> None:
        """Delete the objects that nothing names: decided in one transaction, then done."""
        # Of each look some go and some stay; both were asked.
        self._repeat(lambda tx: sum(blobs.look(tx, limit=BATCH)), BATCH)
        while not self.stopped():
            with self.context.database.read() as tx:
                rows = blobs.going(tx, limit=BATCH)
            for row in rows:
                if self.stopped() or not self._remove(row["tenant_id"], row["name"]):
                    return
                self.report.objects += 1
                self.report.object_bytes += int(row["bytes"])
            if len(rows) < BATCH:
                break
        try:
            self.context.blobs.clear_aside(older_than_s=self.limits.blob_grace_s)
        except BlobsUnavailableError as error:
            log.warning("prune.store_away", why=str(error))

    def _remove(self, tenant_id: str, name: str) -> bool:
        try:
            self.context.blobs.remove(tenant_id, name)
        except BlobsUnavailableError as error:
            # Its row says that it is to go: the next turn tries again.
            log.warning("prune.store_away", why=str(error))
            return False
        with self.context.database.write("prune.object") as tx:
            blobs.gone(tx, tenant_id, name)
        return True


def output_kept_s(kept: Retention) -> float | None:
    """Return how long output is kept: it goes with its run at the latest."""
    there = [one for one in (kept.runs_s, kept.output_s) if one is not None]
    return min(there, default=None)


def forecast(context: Context, *, limits: Limits | None = None) -> dict[str, Counts]:
    """Count, by tenant, what the next turn would delete; ``""``: what is no tenant's."""
    given = limits or Limits()
    found: dict[str, Counts] = {}
    with context.database.read() as tx:
        for tenant_id, kept in retention.of_all(tx).items():
            found[tenant_id] = _of(tx, tenant_id, kept, given)
        found[""] = retention.forecast_fleet(tx, kept_s=given.fleet_kept_s)
        found[""] |= blobs.forecast(tx)
    return found


def _of(tx: Tx, tenant_id: str, kept: Retention, limits: Limits) -> Counts:
    counts = dict.fromkeys(
        ("runs", "leases", "events", "output_of", "output_bytes", "artifacts"), 0
    )
    counts["artifact_bytes"] = 0
    output_s = output_kept_s(kept)
    if output_s is not None:
        counts |= retention.forecast_output(tx, tenant_id, kept_s=output_s)
    if kept.runs_s is not None:
        counts |= retention.forecast_rows(
            tx,
            tenant_id,
            kept_s=kept.runs_s,
            key_kept_s=limits.key_kept_s,
            spared=limits.spared,
        )
    return counts


def totals(found: dict[str, Counts]) -> dict[str, Any]:
    """Return the sums over all tenants."""
    sums: dict[str, Any] = {}
    for counts in found.values():
        for name, count in counts.items():
            sums[name] = sums.get(name, 0) + count
    return sums
