"""Admission of runs that a caller's own transaction has written: after its commit."""

from collections import Counter
from collections.abc import Sequence

from leasehold.orchestrator import admission
from leasehold.orchestrator.jobs import Context
from leasehold.store import runs, slots
from leasehold.store.database import Tx


def admit_written(tx: Tx, context: Context, run_ids: Sequence[str]) -> None:
    """
    Admit runs whose transaction did not, now that it is committed, as `submit` would have.

    What was rolled back is not there, and nothing happens for it. Killed before this: the
    clock admits them.
    """
    slots.lock(tx, wait=True)
    rows = runs.queued_of(tx, run_ids)
    mine = Counter(row["tenant_id"] for row in rows)
    for tenant_id, count in mine.items():
        waiting = slots.count_queued_and_try(tx, tenant_id=tenant_id, try_lock=False).queued
        if waiting > count:
            continue  # others came before, and the clock knows the order
        for row in rows:
            if row["tenant_id"] == tenant_id:
                admission.admit(tx, context, row)
    tx.after_commit.append(context.nudge)
