"""
Output while it comes: what is new of each execution, in the order of their starts.

The pages are read by offset, so that nothing is lost or shown twice, whatever breaks between
two of them. `follow` is the only place that knows how new output is noticed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from leasehold import seams
from leasehold.client.wire import Wire

FIRST_S: Final = 0.1
LONGEST_S: Final = 1.0
"""How long is waited between two looks: after news, and when there was none for a while."""

_REST: Final = frozenset({"parked"})
"""Statuses in which nothing happens until somebody asks for it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of output."""

    data: bytes
    stream: str
    """`stdout` or `stderr`."""

    start: int
    """The number of the execution that wrote them."""


def is_over(shape: Any) -> bool:
    """Say whether a run is over, or at rest until somebody resumes it."""
    return shape["finished_at"] is not None or shape["status"] in _REST


def pauses() -> Iterator[float]:
    """Yield how long to wait before each next look."""
    pause = FIRST_S
    while True:
        yield pause
        pause = min(pause * 1.5, LONGEST_S)


def page(
    wire: Wire, run_id: str, *, stream: str, start: int | None, offset: int
) -> tuple[bytes, bool]:
    """Return the bytes that are stored from `offset` on, up to a page, and if that is all."""
    query = {"stream": stream, "start": start, "offset": offset}
    response = wire.send("GET", f"runs/{run_id}/output", query=query, repeat=True)
    return response.content, response.headers.get("Leasehold-Complete") == "true"


def follow(wire: Wire, run_id: str, *, streams: Sequence[str]) -> Iterator[Chunk]:
    """Yield a run's output until it is over; what is there already comes first."""
    offsets: dict[tuple[int, str], int] = {}
    complete: set[tuple[int, str]] = set()
    waits = pauses()
    while True:
        shape = wire.get(f"runs/{run_id}")
        news = False
        for number in sorted(item["number"] for item in shape["executions"]):
            for stream in streams:
                place = (number, stream)
                while place not in complete:
                    offset = offsets.get(place, 0)
                    data, ended = page(wire, run_id, stream=stream, start=number, offset=offset)
                    offsets[place] = offset + len(data)
                    if ended:
                        complete.add(place)
                    if not data:
                        break
                    news = True
                    yield Chunk(data, stream, number)
        if is_over(shape):
            # It was over before the last look, so there is nothing more to come.
            return
        if news:
            waits = pauses()
        seams.sleep(next(waits))
