"""Leases: which sandboxes there are, until when, for whom, and what is owed."""

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from leasehold.api.asking import Filters, LeaseId, cursor, place
from leasehold.api.door import Operator, TheDoor, Viewer
from leasehold.api.pages.page import Form, go_to, look, page
from leasehold.domain import restricting
from leasehold.domain.lifecycle import LEASE_ENDS, LeaseStatus
from leasehold.orchestrator import explaining, holding
from leasehold.store import leases, views, watching
from leasehold.store.database import Tx
from leasehold.store.views import Shape
from leasehold.web.rendering import between

router = APIRouter(prefix="/leases")
PAGE: Final = 50
_GIVEN_BACK: Final = frozenset({LeaseStatus.IDLE, LeaseStatus.RETAINED})
_HELD: Final = frozenset({LeaseStatus.ACTIVE, LeaseStatus.ACQUIRING})
_RETAINED: Final = _HELD | {LeaseStatus.IDLE}


class LeasesAsked(Filters):
    """The address of the page: those that are not over, unless a status is named."""

    status: list[LeaseStatus] = Field(default_factory=list, max_length=len(LeaseStatus))
    over: bool = False
    cursor: str | None = Field(default=None, max_length=500)


@router.get("")
def list_(
    request: Request, asked: Annotated[LeasesAsked, Query()], caller: Viewer, door: TheDoor
) -> Response:
    """List leases, the newest first."""
    after = place(asked.cursor, int)

    def work(tx: Tx) -> dict[str, Any]:
        rows = views.lease_rows(
            tx,
            tenant_id=caller.tenant_id,
            statuses=[status.value for status in asked.status],
            live=not asked.over and not asked.status,
            limit=PAGE + 1,
            before=after[0] if after else None,
        )
        now = views.iso(tx.now())
        shown = [_line(views.lease_view(row), now) for row in rows[:PAGE]]
        return {
            "place": watching.newest_event(tx),
            "leases": shown,
            "next": cursor(rows[PAGE - 1]["number"]) if len(rows) > PAGE else None,
            "now": now,
        }

    found = look(request, caller, door, work)
    query = "&".join([f"status={one.value}" for one in asked.status] + ["over=1"] * asked.over)
    return page(
        request,
        "leases.html",
        title="Leases",
        asked=asked,
        query=query,
        statuses=list(LeaseStatus),
        **found,
    )


def _line(shape: Shape, now: str | None) -> Shape:
    """Add what a line shows: age, time to live as a share, and which buttons make sense."""
    left = between(now, shape["expires_at"])
    whole = between(shape["active_at"] or shape["created_at"], shape["expires_at"])
    share = None if left is None or not whole else max(0.0, min(1.0, left / whole))
    return {
        **shape,
        "age_s": between(shape["created_at"], shape["finished_at"] or now),
        "left_s": None if left is None else max(0.0, left),
        "share": share,
        "over": shape["status"] in LEASE_ENDS,
        "is_held": shape["status"] in _HELD,
        "can_release": shape["status"] in _GIVEN_BACK,
        "can_retain": shape["status"] in _RETAINED,
    }


@router.get("/{lease_id}")
def show(lease_id: LeaseId, request: Request, caller: Viewer, door: TheDoor) -> Response:
    """Show a lease with its history."""

    def work(tx: Tx) -> dict[str, Any]:
        tenant = caller.tenant_id
        shape = views.whole_lease(tx, lease_id, tenant_id=tenant)
        now = views.iso(tx.now())
        return {
            "place": watching.newest_event(tx),
            "lease": _line(restricting.lease(shape, caller.role), now),
            "explained": asdict(explaining.lease(tx, lease_id, tenant_id=tenant)),
            "now": now,
        }

    found = look(request, caller, door, work)
    return page(request, "lease.html", title=f"Lease {lease_id[-8:]}", **found)


@router.post("/{lease_id}/release")
def release(lease_id: LeaseId, caller: Operator, door: TheDoor, _form: Form) -> Response:
    """Give a lease back, a retained one too: its sandbox is destroyed."""

    def work(tx: Tx) -> None:
        leases.get(tx, lease_id, tenant_id=caller.tenant_id)
        holding.give_back(tx, door.context, lease_id, actor=caller.actor)

    door.write("lease.release", work)
    return go_to(f"/leases/{lease_id}", said="release")


@router.post("/{lease_id}/retain")
def retain(lease_id: LeaseId, caller: Operator, door: TheDoor, _form: Form) -> Response:
    """Keep a lease's sandbox."""

    def work(tx: Tx) -> None:
        leases.get(tx, lease_id, tenant_id=caller.tenant_id)
        holding.retain(tx, door.context, lease_id, actor=caller.actor)

    door.write("lease.retain", work)
    return go_to(f"/leases/{lease_id}", said="retain")
