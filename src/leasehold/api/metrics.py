"""
``/metrics``: numbers of the whole deployment, as Prometheus reads them.

They are asked of SQL, so any process of the API tells the same and a restart loses nothing;
what ended is therefore counted over the last five minutes, not since a process began. Only how
many streams are open is of this process alone. docs/metrics.md says what each one means.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.responses import Response

from leasehold import __version__
from leasehold.api.door import Door, Root, TheDoor
from leasehold.domain.lifecycle import LEASE_ENDS, LeaseStatus, Step
from leasehold.provider.budget import boot_time
from leasehold.store import gauges
from leasehold.store.gauges import Gauges

router = APIRouter(tags=["health"])
_FOR_S: Final = 1.0
_QUANTILES: Final = (0.5, 0.95, 0.99)
_US: Final = 1_000_000


class Scrapes:
    """The latest look; who asks within a second of it is told the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = -_FOR_S
        self._found: Gauges | None = None

    def latest(self, door: Door) -> Gauges:
        with self._lock:
            if self._found is None or boot_time() - self._at >= _FOR_S:
                self._found = door.read(gauges.look)
                self._at = boot_time()
            return self._found


@router.get("/metrics", response_class=Response)
def metrics(request: Request, _caller: Root, door: TheDoor) -> Response:
    """Return what the deployment does now and has done lately; for a key of the platform."""
    found = request.app.state.scrapes.latest(door)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(found, viewers=len(request.app.state.watch)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Told(Collector):
    """One look, as families of gauges."""

    def __init__(self, found: Gauges, *, viewers: int) -> None:
        self._found, self._viewers = found, viewers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = self._found
        info = GaugeMetricFamily(
            "leasehold_build_info", "This process of the API.", labels=["version"]
        )
        info.add_metric([__version__], 1)
        yield info
        yield _one("alarm", "1: the database is not trusted (db restored).", found.alarm)
        yield _one("streams", "Streams that this process of the API serves.", self._viewers)
        yield from self._runs()
        yield from self._leases()
        yield from self._fleet()

    def _runs(self) -> Iterator[GaugeMetricFamily]:
        found = self._found
        live = {"queued": found.ready, "waiting": found.waiting, "parked": found.parked}
        live["running"] = sum(found.running.values())
        yield _by("runs", "Runs that are not over.", "status", live)
        steps = {step.value: found.running.get(step.value, 0) for step in Step}
        yield _by("runs_running", "Running runs by their step.", "step", steps)
        ended = GaugeMetricFamily(
            "leasehold_runs_ended_5m",
            "Runs that ended in the last five minutes.",
            labels=["status", "code"],
        )
        for (status, code), count in sorted(found.ended.items()):
            ended.add_metric([status, code], count)
        yield ended
        oldest = "How long the oldest run has been queued that only room is missing to."
        yield _one("queue_oldest_seconds", oldest, found.oldest_us / _US)
        late = "How late the row is that is due for longest; above some seconds no clock turns."
        yield _one("due_late_seconds", late, found.late_us / _US)
        unanswered = "Runs whose step was sent three times or more, and nobody has taken it."
        yield _one("runs_unanswered", unanswered, found.unanswered)
        waits: dict[tuple[str, ...], list[int]] = {(): found.waits_us}
        yield _spread("run_wait_seconds", "From created to started, last five minutes.", waits)
        took: dict[tuple[str, ...], list[int]] = {
            (step,): us for step, us in sorted(found.steps_us.items())
        }
        yield _spread("step_seconds", "How long a step took, last five minutes.", took, "step")

    def _leases(self) -> Iterator[GaugeMetricFamily]:
        found = self._found
        live = [status.value for status in LeaseStatus if status not in LEASE_ENDS]
        counts = {status: found.leases.get(status, 0) for status in live}
        yield _by("leases", "Leases that are not over.", "status", counts)
        failing = "Leases whose sandbox could not be removed so far; it is still tried."
        yield _one("leases_cleanup_failing", failing, found.cleanup_failing)

    def _fleet(self) -> Iterator[GaugeMetricFamily]:
        found = self._found
        yield _one("hosts_live", "Hosts whose agent lives.", found.live_hosts)
        ready = {kind: found.workers.get(kind, 0) for kind in ("steps", "beats")}
        yield _by("workers_ready", "Workers that take work.", "kind", ready)
        lost = "Sessions of host agents that were lost in the last hour."
        yield _one("sessions_lost_1h", lost, found.sessions_lost)
        yield _one("webhook_deliveries_owed", "What webhooks are owed.", found.deliveries)


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"leasehold_{name}", text, value=float(value))


def _by(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"leasehold_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _spread(
    name: str, text: str, of: Mapping[tuple[str, ...], list[int]], *labels: str
) -> GaugeMetricFamily:
    """Return quantiles; what has not happened lately has none."""
    family = GaugeMetricFamily(f"leasehold_{name}", text, labels=[*labels, "quantile"])
    for values, us in of.items():
        for quantile in _QUANTILES if us else ():
            family.add_metric([*values, str(quantile)], _quantile(us, quantile) / _US)
    return family


def _quantile(values: Sequence[int], quantile: float) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))]
