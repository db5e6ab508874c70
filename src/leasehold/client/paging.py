"""Lists of the API, page after page."""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from leasehold.client.shapes import Shape
from leasehold.client.wire import Wire

_PAGE: Final = 200


def items(
    wire: Wire,
    path: str,
    query: Mapping[str, Any] | None = None,
    *,
    pages: bool = True,
    limit: int | None = None,
) -> Iterator[Shape]:
    """Yield the items of a list, up to a limit; pages are fetched as they are needed."""
    more: dict[str, Any] = {}
    left = limit
    while left is None or left > 0:
        if pages:
            more["limit"] = _PAGE if left is None else min(_PAGE, left)
        page = wire.get(path, **(query or {}), **more)
        yield from page["items"]
        left = None if left is None else left - len(page["items"])
        if page["next"] is None:
            return
        more["cursor"] = page["next"]


def part(name: str) -> str:
    """Return a name as one part of a path, whatever it holds."""
    return quote(name, safe="")


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}
