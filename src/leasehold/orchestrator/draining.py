"""What a host agent does with running commands when it stops: lets them go on, or ends them."""

from collections.abc import Sequence
from typing import Any

from leasehold.domain.lifecycle import EndKind
from leasehold.errors import LeaseholdError
from leasehold.log import get_logger
from leasehold.orchestrator import ending, heartbeat, revealing
from leasehold.orchestrator.jobs import EPOCH_SHIFT, SECOND_US, Context, lease_ref, us
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Target
from leasehold.seams import effect
from leasehold.store import executions, runs
from leasehold.store.sql import load

log = get_logger(__name__)
_BUDGET_S = 10.0


def leave_running(context: Context, *, host_id: str) -> list[dict[str, Any]]:
    """
    Push the sandboxes of this host's running commands on to `detached_ttl`.

    Returns what goes on: ``{"run": id, "for_s": seconds that its sandbox lives}``.
    """
    with context.database.read() as tx:
        rows = executions.beats(tx, runs.running_on(tx, host_id))
    left = []
    for row in rows:
        timeout_us = load(row["spec"]).get("timeout_s")
        ttl = heartbeat.time_to_live(context, row, least=context.timers.detached_ttl)
        fence = context.epoch << EPOCH_SHIFT | row["fence"]
        try:
            target = Target(
                lease=lease_ref({**row, "id": row["lease_id"]}, deployment=context.deployment),
                handle=load(row["lease_handle"]) or {},
                config=revealing.config(context, row["tenant_id"], load(row["facts"])),
            )
            with context.database.write("drain.renewing") as tx:
                if not heartbeat.renewing(tx, row, ttl_us=us(ttl)):
                    continue
            with effect("provider.renew"):
                context.provider(row["provider"]).renew(
                    target, fence=fence, ttl=ttl, budget=Budget(_BUDGET_S)
                )
            with context.database.write("drain.renewed") as tx:
                heartbeat.renewed(tx, row, ttl_us=us(ttl), fence=row["fence"])
        except LeaseholdError as error:
            log.warning("drain.renew_failed", run=row["run_id"], why=str(error))
            continue
        except Exception:  # a plugin's fault is its sandbox's alone
            log.exception("drain.fault", run=row["run_id"])
            continue
        left.append(
            {
                "run": row["run_id"],
                "for_s": min(timeout_us or us(ttl) / SECOND_US, us(ttl) / SECOND_US),
            }
        )
    return left


def cancel_all(context: Context, *, host_id: str) -> list[str]:
    """Ask every run on this host to end; return their ids."""
    with context.database.read() as tx:
        ids = runs.live_on(tx, host_id)
    for run_id in ids:
        with context.database.write("drain.cancel") as tx:
            ending.request_end(tx, context, run_id, EndKind.CANCEL, actor="agent")
    return ids


def still_live(context: Context, run_ids: Sequence[str]) -> list[str]:
    """Return those of the runs that are not over yet."""
    with context.database.read() as tx:
        return runs.not_over(tx, run_ids)
