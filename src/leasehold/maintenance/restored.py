"""
`leasehold db restored`: a person says that this database, as it is, is the deployment's.

In one transaction: the epoch is raised, so that every fence from now on is above all that
sandboxes know from the days that were lost; the alarm is taken back; the live sessions end,
so that every agent begins anew under the new epoch, with fresh children; and whatever might
be in use although the database believes otherwise is kept: idle leases and owed suspends
become `retained`, what a run holds will be retained by its end. Then the hosts are asked to
sweep: they take in what was forgotten (`orchestrator.restoring`).

Killed before the commit nothing happened; after it, a second `db restored` only raises the
epoch once more.
"""

from dataclasses import dataclass, field

from leasehold.domain.lifecycle import CleanupStatus, LeaseStatus, SessionStatus
from leasehold.log import get_logger
from leasehold.maintenance import sessions
from leasehold.orchestrator.jobs import Context, us
from leasehold.store import moves, restored, sweeps
from leasehold.store.database import Row, Tx

log = get_logger(__name__)


@dataclass(slots=True)
class Report:
    """What the word of a person changed."""

    epoch: int = 0
    was: str | None = None
    """The alarm that stood."""

    kept: list[str] = field(default_factory=list)
    """Leases that are retained now, or will be when their runs end."""

    hosts: dict[str, str] = field(default_factory=dict)
    """Id and name of the hosts whose agents begin anew."""

    request: int = 0
    """The sweep that they were asked for."""


def confirm(tx: Tx, context: Context) -> Report:
    """Do it; see the module."""
    report = Report(was=restored.alarm(tx))
    for session in restored.live_sessions(tx):
        sessions.end(tx, session["id"], to=SessionStatus.EXPIRED)
        report.hosts[session["host_id"]] = session["host"]
    for lease in restored.not_over(tx):
        if _keep(tx, context, lease):
            report.kept.append(lease["id"])
    report.epoch = restored.confirm(tx)
    report.request = sweeps.ask(tx, dry_run=False)
    log.warning("database.confirmed", epoch=report.epoch, kept=len(report.kept))
    return report


def _keep(tx: Tx, context: Context, lease: Row) -> bool:
    match LeaseStatus(lease["status"]):
        case LeaseStatus.ACTIVE | LeaseStatus.ACQUIRING:
            if lease["retain"] or lease["held_until"]:
                return False
            moves.move(tx, "leases", lease["id"], None, retain=True)
            return True
        case LeaseStatus.IDLE:
            if lease["held_until"]:
                return False
        case LeaseStatus.RELEASING:
            if lease["mode"] != "suspend" or lease["handle"] is None:
                return False
        case _:
            return False
    row = moves.move(
        tx,
        "leases",
        lease["id"],
        LeaseStatus.RETAINED,
        raw=("fence = fence + 1",),
        claimed_by=None,
        due_at=None,
        mode=None,
        final=None,
        timer_at=lease["now_us"] + us(context.timers.retained_ttl),
        cleanup_status=CleanupStatus.SUCCESS.value,
        reason="the database was restored",
    )
    assert row is not None, f"lease {lease['id']} was not locked"
    event = ("lease.retained", {"reason": row["reason"]})
    moves.record(
        tx, event, tenant_id=row["tenant_id"], run_id=row["run_id"], lease_id=row["id"]
    )
    return True
