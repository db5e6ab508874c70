"""What waits: to be admitted, by environment; for a worker, by queue; and how fast it goes."""

from typing import Any

from fastapi import APIRouter, Request, Response

from leasehold.api.door import TheDoor, Viewer
from leasehold.api.pages.page import look, page
from leasehold.store import environments, hosts, queues, watching
from leasehold.store.database import Row, Tx

router = APIRouter(prefix="/queues")


@router.get("")
def show(request: Request, caller: Viewer, door: TheDoor) -> Response:
    """Show a tenant its queues."""

    def work(tx: Tx) -> dict[str, Any]:
        place = watching.newest_event(tx)
        found = queues.look(tx, tenant_id=caller.tenant_id)
        rows = environments.page(tx, tenant_id=caller.tenant_id)
        names = {row["id"]: row["name"] for row in rows}
        live = {row["id"] for row in hosts.ready_workers(tx)}
        workers = [row for row in hosts.workers(tx) if row["id"] in live]
        return {
            "place": place,
            "queues": [queues.queue_view(one, names) for one in found.queues],
            "lanes": [_lane(row, workers, found.now_us) for row in found.lanes],
            "depth": sum(one.depth for one in found.queues),
            "preceded": found.preceded,
            "is_cut": found.is_cut,
            "most": queues.MOST,
        }

    found = look(request, caller, door, work)
    return page(request, "queues.html", title="Queues", **found)


def _lane(row: Row, workers: list[Row], now_us: int) -> dict[str, Any]:
    oldest = row["oldest_at"]
    return {
        **row,
        "oldest_s": None if oldest is None else max(0, now_us - oldest) / 1e6,
        "workers": sum(row["queue"] in one["queues"] for one in workers),
    }
