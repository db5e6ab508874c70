"""Who has changed what, the newest first."""

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from leasehold.api.asking import Filters, cursor, place
from leasehold.api.door import Overseer, TheDoor
from leasehold.api.pages.page import look, page
from leasehold.domain.specs import Text
from leasehold.store import activity, keys, watching
from leasehold.store.database import Tx

router = APIRouter(prefix="/activity")
PAGE: Final = 50


class ActivityAsked(Filters):
    """The address of the page, as its form makes it: what is empty is not asked for."""

    actor: Text = Field(default="", max_length=200)
    noun: str = Field(default="", pattern=r"^[a-z]{0,40}$")
    cursor: str | None = Field(default=None, max_length=500)

    def query(self) -> str:
        pairs = [("noun", self.noun)] * bool(self.noun)
        return urlencode([*pairs, *([("actor", self.actor)] * bool(self.actor))])


@router.get("")
def list_(
    request: Request, asked: Annotated[ActivityAsked, Query()], caller: Overseer, door: TheDoor
) -> Response:
    """List changes; of the platform: those of tenants and hosts."""
    after = place(asked.cursor, int)

    def work(tx: Tx) -> dict[str, Any]:
        rows = activity.page(
            tx,
            tenant_id=caller.tenant_id,
            actor=asked.actor.strip() or None,
            noun=asked.noun or None,
            before=after[0] if after else None,
            limit=PAGE + 1,
        )
        shown = rows[:PAGE]
        more = len(rows) > PAGE
        named = keys.page(tx, tenant_id=caller.tenant_id)
        return {
            "place": watching.newest_event(tx),
            "lines": [activity.activity_view(row) for row in shown],
            "next": cursor(shown[-1]["id"]) if more else None,
            "keys": {row["id"]: row["name"] for row in named},
        }

    return page(
        request,
        "activity.html",
        title="Activity",
        asked=asked,
        query=asked.query(),
        nouns=sorted(activity.NOUNS),
        **look(request, caller, door, work),
    )
