"""
After the storm: what waits for a person is decided, what is kept is given back.

So that a deployment can come to rest at all. Nothing else is helped: what the engine owes, it
must pay alone.
"""

from leasehold.domain.lifecycle import LEASE_ENDS, EndKind, LeaseStatus, RunStatus
from leasehold.errors import LeaseholdError
from leasehold.orchestrator import ending, holding
from leasehold.simulation.checks import Checks
from leasehold.simulation.fleet import SimApp
from leasehold.simulation.scheduler import Process
from leasehold.store import leases
from leasehold.store.columns import among

_WAITING = (
    "SELECT count(*) FROM runs WHERE status IN ('queued', 'running', 'parked')",
    f"SELECT count(*) FROM leases WHERE status NOT IN ({among(LEASE_ENDS)})",  # noqa: S608  constants
)


class Tidier:
    """A person who looks after the deployment once the storm is over."""

    def __init__(self, app: SimApp, checks: Checks, desk: Process) -> None:
        self._app, self._checks, self._desk = app, checks, desk

    def is_quiet(self) -> bool:
        """Return whether nothing is owed any more; decide what waits for a person."""
        if any(self._checks.count(text) for text in _WAITING):
            self._app.world.scheduler.spawn(self._desk, "tidy", self._tidy)
            return False
        return not self._checks.orphans()

    def why(self) -> str:
        """Say what is still there."""
        runs, leases_ = (self._checks.count(text) for text in _WAITING)
        return f"{runs} runs, {leases_} leases, {len(self._checks.orphans())} orphans"

    def _tidy(self) -> None:
        context = self._app.context(publish=self._app.world.broker.publish)
        with self._app.database.read() as tx:
            parked = tx.all(
                "SELECT id FROM runs WHERE status = :parked ORDER BY id",
                parked=RunStatus.PARKED.value,
            )
            kept = leases.page(tx, tenant_id="default", live=True)
        for row in parked:
            with self._app.database.write("desk.end") as tx:
                ending.request_end(tx, context, row["id"], EndKind.CANCEL)
        for row in kept:
            if row["status"] not in {LeaseStatus.RETAINED, LeaseStatus.IDLE}:
                continue
            try:
                with self._app.database.write("desk.give_back") as tx:
                    holding.give_back(tx, context, row["id"], actor="desk")
            except LeaseholdError as error:
                self._app.world.scheduler.trace(f"give back: {error}")
