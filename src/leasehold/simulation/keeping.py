"""
Retention in a hurry: what is over goes at once, or as soon as nobody can come late.

Output goes as soon as its run is over, rows when every call that a stopped process may still
make has come: in real life that is what the hour is for that they are kept at least. All that
is asked at rest must hold of what is left.
"""

from typing import Final

from leasehold.domain.retention import Retention
from leasehold.errors import LeaseholdError
from leasehold.maintenance import pruner
from leasehold.simulation.fleet import SimApp
from leasehold.simulation.scheduler import Host
from leasehold.store import retention

ROWS_S: Final = 100.0
LIMITS: Final = pruner.Limits(
    # A child of a session that is over may be stopped before it has said that it is there.
    key_kept_s=ROWS_S,
    fleet_kept_s=1.5 * ROWS_S,
    blob_grace_s=0,
    spared=1,
)
_EVERY_S: Final = 7.0


class Keeper:
    """Somebody who deletes what is over, again and again."""

    def __init__(self, app: SimApp) -> None:
        self._app = app

    def begin(self) -> None:
        """Start, and start again should it die."""
        scheduler = self._app.world.scheduler
        process = scheduler.process("keeper", Host("keeper", up_s=500.0))
        process.on_death.append(lambda: scheduler.call(1.0, self.begin))
        scheduler.spawn(process, "prune", self._main)

    def _main(self) -> None:
        scheduler = self._app.world.scheduler
        context = self._app.context(publish=self._app.world.broker.publish)
        kept = Retention.model_construct(runs_s=ROWS_S, output_s=0)
        while True:
            scheduler.sleep(_EVERY_S)
            try:
                with self._app.database.write("desk.retention") as tx:
                    retention.put(tx, "default", kept)
                if pruner.may(context):
                    pruner.run_once(context, limits=LIMITS)
            except LeaseholdError as error:
                scheduler.trace(f"prune: {error}")
