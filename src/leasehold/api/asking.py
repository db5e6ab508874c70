"""What routes are asked with: ids, pages, filters; all checked at the border."""

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Annotated, Any, Final

from fastapi import Header, Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from leasehold.domain.lifecycle import LeaseStatus, RunStatus
from leasehold.domain.specs import Text
from leasehold.errors import BadInputError

MAX_PAGE: Final = 500
MAX_DEPTH: Final = 64
KEY: Final = r"^[\x21-\x7e]{1,255}$"
ID: Final = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$"

RunId = Annotated[str, Path(pattern=ID)]
LeaseId = Annotated[str, Path(pattern=ID)]
EnvironmentName = Annotated[str, Path(pattern=ID, description="Its name or its id.")]
HostId = Annotated[str, Path(pattern=ID)]
ProviderKey = Annotated[str, Path(pattern=ID)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=KEY,
        description="The same key with the same body is the same run, or lease, however often"
        " it comes.",
    ),
]


class Filters(BaseModel):
    """Base of what a list is asked with: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Filters):
    limit: int = Field(default=50, ge=1, le=MAX_PAGE)
    cursor: str | None = Field(default=None, max_length=500)
    """`next` of the page before; absent: from the newest on."""


class RunFilter(Filters):
    """Which runs."""

    status: list[RunStatus] = Field(default_factory=list, max_length=len(RunStatus))
    environment: Text | None = None
    """Its name or its id."""

    label: list[Text] = Field(default_factory=list, max_length=8)
    """`K=V`; all of them must be there."""

    def labels(self) -> dict[str, str]:
        """
        Return the labels that are asked for.

        Raises:
            BadInputError: One is not `K=V`.
        """
        found: dict[str, str] = {}
        for item in self.label:
            name, separator, value = item.partition("=")
            if not separator or not name:
                raise BadInputError(f"label: must be K=V, got {item!r}", field="label")
            found[name] = value
        return found


class RunFilters(Page, RunFilter):
    """Which runs, as pages."""


class LeaseFilters(Page):
    status: list[LeaseStatus] = Field(default_factory=list, max_length=len(LeaseStatus))
    live: bool = False
    """Only those that are not over."""


def decent(value: Any) -> Any:
    """
    Refuse what JSON can say and nothing behind us takes.

    That is halves of characters (``"\\ud800"``), NaN, and nesting in which recursion ends.
    """
    if isinstance(value, bytes):
        return value  # no JSON came; the field says so
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
    if level:
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("must be text of whole characters; half of one came") from None
    except ValueError:
        raise ValueError("must be JSON: NaN and Infinity are no numbers in it") from None
    return value


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


Decent: Final = BeforeValidator(decent)


def cursor(*place: Any) -> str:
    """Return a place in a list as text that means nothing to a client."""
    text = json.dumps(place, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place(text: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """
    Return the place that a cursor names, or None without one.

    Raises:
        BadInputError: It is none of ours.
    """
    if text is None:
        return None
    try:
        padded = text.encode() + b"=" * (-len(text) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        fits = [type(value) for value in found] == list(kinds)
    except (ValueError, TypeError, binascii.Error):
        fits, found = False, None
    if not fits or any(isinstance(value, int) and abs(value) >> 62 for value in found):
        raise BadInputError("cursor: take `next` of the page before, as it is", field="cursor")
    return tuple(found)
