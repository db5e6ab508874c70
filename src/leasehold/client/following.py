"""
Output while it comes: what is new of each execution, in the order of their starts.

It comes as Server-Sent Events. Each message has its place, and whoever comes back with the
place of the last one misses nothing and gets nothing twice; so a connection that breaks, or a
server that stops, costs a pause. A connection that says nothing for longer than its server's
sign of life is given up. If all streams of the API are taken, pages are read instead, from the
same place on; they are by offset, so nothing is lost or shown twice there either.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from leasehold import errors, seams
from leasehold.client.messages import Message, messages
from leasehold.client.wire import Wire, pause_s

FIRST_S: Final = 0.1
LONGEST_S: Final = 1.0
"""How long is waited between two looks: after news, and when there was none for a while."""

PAGE_BYTES: Final = 4 * 1024 * 1024
_REST: Final = frozenset({"parked"})
"""Statuses in which nothing happens until somebody asks for it."""

_STREAMS: Final = 2
_CLOSED: Final[dict[str, type[errors.LeaseholdError]]] = {
    "not_found": errors.NotFoundError,
    "unauthenticated": errors.UnauthenticatedError,
}
"""What the API lets go for good; anything else may come back."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of output."""

    data: bytes
    stream: str
    """`stdout` or `stderr`."""

    start: int
    """The number of the execution that wrote them."""

    command: int = 0
    """Which of the run's commands it was; -1 is the set-up command."""

    offset: int = 0
    """Where in the stream of that execution they begin."""


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
    wire: Wire,
    run_id: str,
    *,
    stream: str,
    start: int | None,
    offset: int,
    limit: int | None = None,
) -> tuple[bytes, bool]:
    """Return the bytes that are stored from `offset` on, up to a page, and if that is all."""
    query = {"stream": stream, "start": start, "offset": offset, "limit": limit}
    response = wire.send("GET", f"runs/{run_id}/output", query=query, repeat=True)
    return response.content, response.headers.get("Leasehold-Complete") == "true"


class Following:
    """One run's output from its beginning on; knows how far it was yielded."""

    def __init__(
        self, wire: Wire, run_id: str, *, streams: Sequence[str], rests: bool = True
    ) -> None:
        """`rests`: also end when the run is parked, since nothing more comes by itself."""
        self._wire, self._run_id, self._streams = wire, run_id, streams
        self._rests = rests
        self._place: str | None = None
        self._offsets: dict[tuple[int, str], int] = {}

    def chunks(self) -> Iterator[Chunk]:
        """
        Yield what there is and what comes, until the run is over or at rest.

        Raises:
            NotFoundError: The run is not there, or not any more.
            ApiUnavailableError: The API did not come back.
        """
        failures = 0
        while True:
            place = self._place
            try:
                yield from self._streamed()
            except errors.FullError:
                yield from self._paged()
                return
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
            except _OverError:
                return
            else:
                why = "the stream was cut off"
            failures = 0 if self._place != place else failures + 1
            if failures >= self._wire.tries:
                raise errors.ApiUnavailableError(f"{self._wire.url} does not answer: {why}")
            seams.sleep(pause_s(failures, asked_s=None))

    def _streamed(self) -> Iterator[Chunk]:
        """Yield what one connection brings; returns when it ends before the run does."""
        one = None if len(self._streams) == _STREAMS else self._streams[0]
        path = f"runs/{self._run_id}/output/stream"
        with self._wire.open(path, {"stream": one}, last_event_id=self._place) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                raise _OverError
            for message in messages(response.iter_bytes()):
                yield from self._read(message)

    def _read(self, message: Message) -> Iterator[Chunk]:
        if message.data is None:
            if self._rests and is_over(self._wire.get(f"runs/{self._run_id}")):
                # No message says that it is parked, and all before that was sent.
                raise _OverError
            return
        shape = json.loads(message.data)
        if message.name == "closed":
            if kind := _CLOSED.get(shape["code"]):
                raise kind(shape["message"])
            return
        if message.name == "":
            data = base64.b64decode(shape["base64"]) if "base64" in shape else None
            chunk = Chunk(
                shape["text"].encode() if data is None else data,
                shape["stream"],
                shape["start"],
                shape["command"],
                shape["offset"],
            )
            yield chunk
            where = (chunk.start, chunk.stream)
            self._offsets[where] = chunk.offset + len(chunk.data)
        # After the yield: whoever was interrupted in it may go on with the same chunk.
        self._place = message.place or self._place
        if message.name == "end":
            raise _OverError

    def _paged(self) -> Iterator[Chunk]:
        complete: set[tuple[int, str]] = set()
        waits = pauses()
        while True:
            shape = self._wire.get(f"runs/{self._run_id}")
            news = False
            for item in sorted(shape["executions"], key=lambda one: one["number"]):
                for stream in self._streams:
                    for chunk in self._pages(item, stream, complete):
                        news = True
                        yield chunk
            if is_over(shape) and (self._rests or shape["finished_at"] is not None):
                # It was over before the last look, so there is nothing more to come.
                return
            if news:
                waits = pauses()
            seams.sleep(next(waits))

    def _pages(self, item: Any, stream: str, complete: set[tuple[int, str]]) -> Iterator[Chunk]:
        place = (item["number"], stream)
        while place not in complete:
            offset = self._offsets.get(place, 0)
            data, ended = page(
                self._wire, self._run_id, stream=stream, start=item["number"], offset=offset
            )
            if data:
                yield Chunk(data, stream, item["number"], item["command"], offset)
            self._offsets[place] = offset + len(data)
            if ended:
                complete.add(place)
            if not data:
                return


def follow(wire: Wire, run_id: str, *, streams: Sequence[str]) -> Iterator[Chunk]:
    """Yield a run's output until it is over; what is there already comes first."""
    return Following(wire, run_id, streams=streams).chunks()


class _OverError(Exception):
    """There is nothing more to come."""
