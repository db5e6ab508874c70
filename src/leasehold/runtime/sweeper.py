"""
A host's sweeper: a thread of the beat lane's worker, which also prunes.

It sweeps when it starts, from time to time, and when somebody asks (`leasehold reconcile`):
the agent reads the request with its beat and hands its number on by the beacon. Each sweep of
a provider leaves its report in SQL. Asked, it looks a second time after a moment if something
needs a second sighting, so that one request is one answer.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from leasehold import seams
from leasehold.errors import LeaseholdError
from leasehold.log import get_logger
from leasehold.maintenance import pruner
from leasehold.orchestrator.jobs import Context
from leasehold.orchestrator.sweep import Report, Sweep
from leasehold.provider.budget import Budget
from leasehold.provider.contract import HealthState
from leasehold.provider.registry import Registry
from leasehold.store import sweeps

log = get_logger(__name__)
LOOK_S: Final = 1.0
_PROBE_S: Final = 10.0
PRUNE_S: Final = 10.0
"""After the start: pruning needs two looks at the clock."""

SIGHTING_S: Final = 2.0
"""Between the two sightings of one request."""


class Sweeper:
    """Sweeps all providers of one host until `stop` is set."""

    def __init__(
        self,
        context: Context,
        registry: Registry,
        *,
        host_id: str,
        wanted: Callable[[], int],
        stop: seams.Flag,
    ) -> None:
        self._context, self._registry, self._host_id = context, registry, host_id
        self._wanted, self._stop = wanted, stop
        self._sweep = Sweep(host_id)
        self._answered = 0

    def loop(self) -> None:
        every_s = self._context.timers.sweep_every.total_seconds()
        next_at = prune_at = seams.boot_time()
        while not self._stop.is_set():
            if seams.boot_time() >= prune_at:
                first = self._context.pace.is_new
                self._guarded(self._prune)
                prune_at = seams.boot_time() + (PRUNE_S if first else every_s)
            if self._wanted() > self._answered or seams.boot_time() >= next_at:
                self._guarded(self.turn)
                next_at = seams.boot_time() + every_s
            if self._stop.wait(LOOK_S):
                return

    def turn(self) -> None:
        """Sweep every provider once, twice if asked, and write what was seen."""
        with self._context.database.read() as tx:
            request, dry_run = sweeps.wanted(tx)
        asked = request > self._answered
        dry_run = dry_run and asked
        reports = {key: self._one(key, dry_run=dry_run) for key in self._keys()}
        if asked and any(_unsure(report) for report in reports.values()):
            self._stop.wait(SIGHTING_S)
            for key, first in reports.items():
                reports[key] = _both(first, self._one(key, dry_run=dry_run))
        with self._context.database.write("sweep.answer") as tx:
            for key, report in reports.items():
                sweeps.answer(
                    tx,
                    host_id=self._host_id,
                    provider=key,
                    request=request,
                    dry_run=dry_run,
                    report=report,
                )
        self._answered = request

    def _keys(self) -> list[str]:
        """Return the providers that are here; an engine that is not has nothing to sweep."""
        return list(filter(self._is_here, self._registry.keys()))

    def _is_here(self, key: str) -> bool:
        try:
            health = self._registry.require(key).probe({}, budget=Budget(_PROBE_S))
        except Exception:  # noqa: BLE001  what is wrong with it the sweep itself will tell
            return True
        return health.state is not HealthState.UNDETECTED

    def _one(self, key: str, *, dry_run: bool) -> dict[str, Any]:
        try:
            provider = self._registry.require(key)
            report: Report = self._sweep.run_once(self._context, provider, dry_run=dry_run)
        except LeaseholdError as error:
            log.warning("sweep.put_off", provider=key, why=str(error))
            return {"error": f"{error.code}: {error}"}
        except Exception as error:
            log.exception("sweep.fault", provider=key)
            return {"error": f"{type(error).__name__}: {error}"}
        return asdict(report) | {"orphans": report.orphans}

    def _prune(self) -> None:
        if pruner.may(self._context):
            pruner.run_once(self._context, stopped=self._stop.is_set)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except LeaseholdError as error:
            log.warning("sweep.put_off", why=str(error))
        except Exception:
            log.exception("sweep.fault")


def _unsure(report: dict[str, Any]) -> bool:
    """Whether a second sighting may change what is said."""
    if "error" in report or report["alarm"]:
        return False
    seen = report["matched"] + report["owed"] + report["foreign"]
    return bool(report["listed"] > seen or report["absent"] > len(report["missing"]))


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the second look, with what the first one did already."""
    if "error" in first or "error" in second:
        return second
    done = {name: [*first[name], *second[name]] for name in ("destroyed", "taken_in", "lost")}
    return second | done
