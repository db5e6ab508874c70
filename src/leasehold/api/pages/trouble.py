"""What is stuck or orphaned, why, and what happens to it next; why runs wait."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from leasehold.api.door import TheDoor, Viewer
from leasehold.api.pages.page import look, page
from leasehold.orchestrator import troubles
from leasehold.store import sweeps, views, watching
from leasehold.store.database import Row, Tx

router = APIRouter(prefix="/trouble")


@router.get("")
def show(request: Request, caller: Viewer, door: TheDoor) -> Response:
    """Show a tenant what of its own does not simply go on."""

    def work(tx: Tx) -> dict[str, Any]:
        place = watching.newest_event(tx)
        found = troubles.look(tx, door.context, tenant_id=caller.tenant_id)
        for name in ("orphaned_runs", "stuck", "leases", "waiting"):
            found[name] = [asdict(one) for one in found[name]]
        return {**found, "place": place, "sweeps": [_sweep(row) for row in sweeps.answers(tx)]}

    found = look(request, caller, door, work)
    return page(request, "trouble.html", title="Trouble", **found)


def _sweep(row: Row) -> dict[str, Any]:
    """Return what everybody may see of a sweep: how many, never which."""
    report = row["report"]
    return {
        "host": row["host"],
        "provider": row["provider"],
        "at": views.iso(row["at"]),
        "listed": report.get("listed", 0),
        "strays": report.get("strays", 0) - len(report.get("destroyed") or ()),
        "destroyed": len(report.get("destroyed") or ()),
        "missing": len(report.get("missing") or ()),
        "alarm": report.get("alarm"),
    }
