"""The first page: what is under way, waits and went wrong; and what tells of changes."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from leasehold.api.door import Anybody, TheDoor
from leasehold.api.gate import PAGES
from leasehold.api.pages.page import look, page
from leasehold.api.streams import Stream
from leasehold.api.wants import FAR, ChangeWant
from leasehold.domain import restricting
from leasehold.domain.lifecycle import RUN_ENDS
from leasehold.domain.roles import Role
from leasehold.errors import BadInputError
from leasehold.store import fleet, overview, restored, views, watching
from leasehold.store.database import Tx

router = APIRouter()
MINUTES: Final = 60
_DAY_US: Final = 24 * overview.HOUR_US
_SECOND_US: Final = 1_000_000


@router.get("")
def index(request: Request, caller: Anybody, door: TheDoor) -> Response:
    """Show what a tenant has under way; who has no tenant sees the hosts."""
    if caller.role is Role.ROOT:
        return RedirectResponse(f"{PAGES}/hosts", status_code=303)

    def work(tx: Tx) -> dict[str, Any]:
        place = watching.newest_event(tx)
        tenant = caller.tenant_id
        waiting = overview.waiting(tx, tenant_id=tenant)
        now = waiting["now_us"]
        ends = overview.ends_by_minute(tx, tenant_id=tenant, since=now - overview.HOUR_US)
        failures = overview.failures(tx, tenant_id=tenant, since=now - _DAY_US)
        leases = overview.leases(tx, tenant_id=tenant)
        oldest = waiting["oldest_at"]
        return {
            "place": place,
            "alarm": restored.alarm(tx),
            "waiting": waiting,
            "oldest_s": (now - oldest) / _SECOND_US if oldest is not None else None,
            "steps": overview.steps(tx, tenant_id=tenant),
            "ends": _series(ends, now=now),
            "failures": [
                {**row, "first_at": views.iso(row["first_at"]),
                 "last_at": views.iso(row["last_at"])}
                for row in failures
            ],
            "leases": {row["status"]: row["leases"] for row in leases},
            "cleanup_failing": sum(row["failing"] for row in leases),
            "most": overview.MOST,
            "hosts": [restricting.host(shape, caller.role) for shape in fleet.hosts(tx)],
            "workers": fleet.workers(tx),
        }  # fmt: skip

    return page(request, "overview.html", title="Overview", **look(request, caller, door, work))


def _series(rows: list[dict[str, Any]], *, now: int) -> dict[str, Any]:
    """Return how many runs ended in each of the last minutes, the oldest first, and in all."""
    last = now // overview.MINUTE_US
    good, bad = [0] * MINUTES, [0] * MINUTES
    totals = dict.fromkeys(sorted(RUN_ENDS), 0)
    for row in rows:
        totals[row["status"]] += row["runs"]
        index = MINUTES - 1 - (last - row["minute"])
        if 0 <= index < MINUTES:
            (good if row["status"] == "succeeded" else bad)[index] += row["runs"]
    peak = max([1, *(sum(pair) for pair in zip(good, bad, strict=True))])
    return {"good": good, "bad": bad, "peak": peak, "totals": totals}


@router.get("/live")
async def live(
    request: Request,
    caller: Anybody,
    door: TheDoor,
    place: Annotated[int, Query(ge=0, lt=2**62)] = 0,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Tell of each change of what the caller's pages show."""
    text = last_event_id or str(place)
    if not text.isdecimal() or int(text) >> 62:
        raise BadInputError("Last-Event-ID: is none of ours", field="Last-Event-ID")
    newest = await run_in_threadpool(door.read, watching.newest_event)
    want = ChangeWant(caller.tenant_id, min(newest, max(int(text), newest - FAR)))
    return Stream(request.app.state.watch, want, key_id=caller.key_id)
