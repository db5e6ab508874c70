"""
Fires the schedules that are due, each in a transaction of its own.

A clock calls it when its pulse says that one is due. One that cannot be fired does not stop the
others: `orchestrator.scheduling` writes why to its row, and so does this for a fault of ours.
"""

from collections.abc import Callable

from leasehold.errors import StoreUnavailableError
from leasehold.log import get_logger
from leasehold.orchestrator import scheduling
from leasehold.orchestrator.jobs import Context
from leasehold.provider.budget import boot_time
from leasehold.store import schedules
from leasehold.store.database import Row, Tx

log = get_logger(__name__)


def run_once(context: Context, *, batch: int) -> int:
    """Fire what is due; return how many runs there are of it."""
    with context.database.read() as tx:
        due = schedules.due(tx, limit=batch)
    return sum(_fire(context, schedule_id) for schedule_id in due)


def _fire(context: Context, schedule_id: str) -> bool:
    try:
        return _locked(context, schedule_id, lambda tx, row: scheduling.fire(tx, context, row))
    except StoreUnavailableError:
        raise
    except Exception as error:
        log.exception("schedule.fault", schedule=schedule_id)
        fault = error
    _locked(context, schedule_id, lambda tx, row: scheduling.give_up(tx, row, fault))
    return False


def _locked(context: Context, schedule_id: str, work: Callable[[Tx, Row], bool | None]) -> bool:
    with context.database.write("clock.schedule") as tx:
        row = schedules.lock_due(tx, schedule_id)
        # A clock that was set since this turn began must call nothing due.
        if row is None or not context.pace.is_sane(row["now_us"], at=boot_time()):
            return False
        return bool(work(tx, row))
