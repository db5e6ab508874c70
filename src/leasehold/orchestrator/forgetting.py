"""
Send nothing new to a host; forget one that will never come back.

Only a person can know that a machine is gone for good. Its word is the proof that P3 and P4
ask for: what was on the host is gone with it, so its leases end as `failed` without a call to
any provider. Its runs are not ended here: they are cancelled, or the clock moves them on.
"""

from leasehold.domain.lifecycle import CleanupStatus, LeaseStatus
from leasehold.errors import ConflictError
from leasehold.ids import PLATFORM
from leasehold.orchestrator import leasing
from leasehold.orchestrator.jobs import Context
from leasehold.provider.contract import ReleaseMode
from leasehold.store import fleet, moves, operator
from leasehold.store.database import Tx
from leasehold.store.views import Shape

_REASON = "its host was forgotten"


def drain(tx: Tx, host_id: str, *, actor: str) -> Shape:
    """
    Send nothing new to a host; its agent's next start takes that back.

    Raises:
        NotFoundError: There is no such host.
    """
    shape = fleet.host(tx, host_id)
    operator.drain_host(tx, host_id)
    _record(tx, "host.draining", shape, actor)
    return {**shape, "draining": True}


def forget(
    tx: Tx, context: Context, host_id: str, *, actor: str, consent: str | None
) -> tuple[Shape, int]:
    """
    End a host's leases and delete its row; return what it was and how many leases ended.

    Args:
        consent: How to say that its sandboxes are gone with it; None: that was said.

    Raises:
        NotFoundError: There is no such host.
        ConflictError: It has a live session, runs that are not over, or leases and nobody
            consented.
    """
    shape = fleet.host(tx, host_id)
    debts = operator.host_debts(tx, host_id)
    if debts["sessions"]:
        raise ConflictError(f"host {host_id} is alive; stop its workers first")
    if debts["runs"]:
        raise ConflictError(
            f"host {host_id} has {debts['runs']} runs that are not over; cancel them, or wait"
            " until the clock has moved them on"
        )
    if debts["leases"] and consent is not None:
        raise ConflictError(
            f"host {host_id} still has {debts['leases']} leases; if its sandboxes are"
            f" gone for good, say {consent}"
        )
    leases = operator.live_leases_on(tx, host_id)
    what = leasing.Disposal(ReleaseMode.DESTROY, LeaseStatus.FAILED, _REASON)
    for lease in leases:
        if lease["status"] != LeaseStatus.RELEASING:
            leasing.owe(tx, context, lease, what, sticky=False)
        row = moves.move(
            tx,
            "leases",
            lease["id"],
            LeaseStatus.FAILED,
            raw=("fence = fence + 1", "finished_at = {now}"),
            claimed_by=None,
            due_at=None,
            mode=None,
            final=None,
            reason=_REASON,
            cleanup_status=CleanupStatus.SUCCESS.value,
        )
        assert row is not None, f"lease {lease['id']} was not locked"
        event = ("lease.failed", {"reason": _REASON})
        moves.record(
            tx, event, tenant_id=row["tenant_id"], run_id=row["run_id"], lease_id=row["id"]
        )
    operator.forget_host(tx, host_id)
    _record(tx, "host.forgotten", shape, actor)
    return shape, len(leases)


def _record(tx: Tx, event: str, shape: Shape, actor: str) -> None:
    data = {"host": shape["id"], "name": shape["name"], "actor": actor}
    moves.record(tx, (event, data), tenant_id=PLATFORM)
