"""
A person looks into a sandbox: `leasehold exec`, a run that names a lease which is kept.

It is a run like any other, so that it is started once, fenced and watched. What differs is the
lease. A held one takes such a run as any of its runs. One that is idle for reuse becomes idle
again. A retained one goes `retained → active`, with `retained_until` as the mark of it, and
back by way of `releasing` (mode keep), since only a worker can push the sandbox's own time to
live on; it keeps the end that it had. Whatever becomes of the run (its command fails, it is
cancelled, times out, is parked, its worker dies), the disposal of a lease with that mark is to
keep it. Only where nobody can prove that nothing of the run is left in the sandbox (its host
is away) or where the sandbox is gone it ends as any other lease, since P4 stands above.

Killed between the two moves: the run is due, as always, and the mark is in the row.
"""

from leasehold.domain.lifecycle import LEASE_ENDS, LeaseStatus
from leasehold.errors import ConflictError
from leasehold.store import slots
from leasehold.store.database import Row, Tx


def check(tx: Tx, lease: Row) -> None:
    """
    Refuse to look into a sandbox that is gone, or that a run is at work in (P4: one at a time).

    Raises:
        ConflictError: Says which run it is, or what became of the lease.
    """
    status, name = LeaseStatus(lease["status"]), f"lease {lease['id']}"
    why = f" ({lease['reason']})" if lease["reason"] else ""
    if status in LEASE_ENDS:
        raise ConflictError(f"{name} is {status}{why}: its sandbox is gone")
    if status is LeaseStatus.RELEASING and lease["final"] in LEASE_ENDS:
        raise ConflictError(f"{name} is being released{why}: its sandbox is to be destroyed")
    user = lease["run_id"] if status in {LeaseStatus.ACTIVE, LeaseStatus.ACQUIRING} else None
    if user is None and (coming := slots.user_of(tx, lease["id"])) is not None:
        user = coming["id"]
    if user is not None:
        raise ConflictError(
            f"run {user} is at work in {name}, and a sandbox takes one run at a time: wait for"
            f" it (`leasehold runs wait {user}`) or cancel it"
        )
