"""``/activity``: who has changed what; names of fields, never what is in them."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from leasehold.api.answers import Answer
from leasehold.api.asking import Page, cursor, place
from leasehold.api.door import Overseer, TheDoor
from leasehold.domain.specs import Text
from leasehold.store import activity

router = APIRouter(prefix="/activity", tags=["activity"])


class ActivityFilters(Page):
    actor: Annotated[Text, Field(max_length=200)] | None = None
    """As a line shows it: `key:ID`, `cli`, `schedule:NAME`."""

    noun: Annotated[str, Field(pattern=r"^[a-z]{1,40}$")] | None = None
    """`environment`, `key`, `lease`, `secret`, `selection`, …"""

    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    """ISO 8601 with its offset; `since` is included, `until` is not."""


@router.get("")
def list_(
    asked: Annotated[ActivityFilters, Query()], caller: Overseer, door: TheDoor
) -> Answer:
    """List changes, the newest first; of the platform: those of tenants and hosts."""
    after = place(asked.cursor, int)
    rows = door.read(
        lambda tx: activity.page(
            tx,
            tenant_id=caller.tenant_id,
            actor=asked.actor,
            noun=asked.noun,
            since_us=_us(asked.since),
            until_us=_us(asked.until),
            before=after[0] if after else None,
            limit=asked.limit,
        )
    )
    following = cursor(rows[-1]["id"]) if len(rows) == asked.limit else None
    return Answer({"items": [activity.activity_view(row) for row in rows], "next": following})


def _us(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1_000_000)
