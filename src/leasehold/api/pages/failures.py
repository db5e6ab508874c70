"""Failures that are alike, as one: how many, since when, and which runs."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from leasehold.api.asking import Filters
from leasehold.api.door import TheDoor, Viewer
from leasehold.api.pages.page import look, page
from leasehold.errors import RUN_CODES, NotFoundError
from leasehold.store import environments, failures, views, watching
from leasehold.store.database import Tx

router = APIRouter(prefix="/failures")
SHOWN: Final = 100
_DAY_US: Final = 86_400_000_000
DAYS: Final = (1, 7, 30)


class FailuresAsked(Filters):
    """Of runs that were created so many days ago, at most."""

    days: Literal["1", "7", "30"] = "1"
    code: str = ""

    def since(self, now_us: int) -> int:
        return now_us - int(self.days) * _DAY_US


def _look(tx: Tx, asked: FailuresAsked, *, tenant_id: str) -> dict[str, Any]:
    found = failures.look(tx, tenant_id=tenant_id, since_us=asked.since(tx.now()))
    rows = environments.page(tx, tenant_id=tenant_id)
    names = {row["id"]: row["name"] for row in rows}
    groups = [failures.group_view(one, names) for one in found.groups]
    return {
        "place": watching.newest_event(tx),
        "groups": [one for one in groups if asked.code in ("", one["code"])],
        "seen": found.seen,
        "is_cut": found.is_cut,
    }


@router.get("")
def list_(
    request: Request, asked: Annotated[FailuresAsked, Query()], caller: Viewer, door: TheDoor
) -> Response:
    """List groups of failures, the most frequent first."""

    def work(tx: Tx) -> dict[str, Any]:
        found = _look(tx, asked, tenant_id=caller.tenant_id)
        return {**found, "groups": found["groups"][:SHOWN], "kinds": len(found["groups"])}

    found = look(request, caller, door, work)
    return page(
        request,
        "failures.html",
        title="Failures",
        asked=asked,
        days=DAYS,
        meanings=RUN_CODES,
        **found,
    )


@router.get("/{fingerprint}")
def show(
    fingerprint: Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")],
    request: Request,
    asked: Annotated[FailuresAsked, Query()],
    caller: Viewer,
    door: TheDoor,
) -> Response:
    """Show one group, with its newest runs."""

    def work(tx: Tx) -> dict[str, Any]:
        found = _look(tx, asked, tenant_id=caller.tenant_id)
        own = [one for one in found["groups"] if one["fingerprint"] == fingerprint]
        if not own:
            raise NotFoundError(
                f"no failure of the last {asked.days} days has this fingerprint;"
                " look further back"
            )
        rows = views.run_rows(tx, own[0]["run_ids"])
        lines = [views.run_line(rows[one]) for one in own[0]["run_ids"] if one in rows]
        return {"place": found["place"], "group": own[0], "runs": lines}

    found = look(request, caller, door, work)
    return page(
        request, "failure.html", title="Failure", asked=asked, meanings=RUN_CODES, **found
    )
