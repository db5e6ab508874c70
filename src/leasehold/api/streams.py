"""
``/runs/…/stream``: a run's history and output while they come, as Server-Sent Events.

A message's `id` is the place behind it. A client that comes back with `Last-Event-ID` misses
nothing and gets nothing twice. The last message is an `end`; who comes back after it gets 204,
which tells a browser not to come again.
"""

import asyncio
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from leasehold.api import wants
from leasehold.api.asking import Filters, RunId
from leasehold.api.door import Caller, Door, TheDoor, Viewer
from leasehold.api.wants import EventsWant, OutputWant, RunWant, Want
from leasehold.api.watch import Viewer as Watching
from leasehold.api.watch import Watch
from leasehold.log import get_logger
from leasehold.store import runs

router = APIRouter(prefix="/runs", tags=["runs"])
log = get_logger(__name__)
_HELLO: Final = b"retry: 1000\n\n"
"""How long a browser waits before it comes back, in milliseconds."""

_ALIVE: Final = b": alive\n\n"
_STREAM: Final = "text/event-stream"
_MESSAGE: Final = {
    "type": "object",
    "properties": {
        "event": {"enum": ["message", "exit", "end", "closed"]},
        "id": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["data"],
}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {_STREAM: {"schema": _MESSAGE}}},
    204: {"description": "The stream had come to its end already."},
}
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=2000,
        description="`id` of the last message that was seen; browsers send it by themselves.",
    ),
]


class OutputFilters(Filters):
    stream: Literal["stdout", "stderr"] | None = None
    """Absent: both."""


class Stream(Response):
    """An answer that goes on until its run is over, its client goes or may not stay."""

    media_type = _STREAM

    def __init__(self, watch: Watch, want: Want, *, key_id: str) -> None:
        super().__init__()
        self._watch, self._want, self._key_id = watch, want, key_id
        # No proxy may keep back what is meant for now.
        self.headers["X-Accel-Buffering"] = "no"
        del self.headers["content-length"]

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        with self._watch.viewing(self._want, key_id=self._key_id) as viewer:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            leaving = asyncio.create_task(_left(receive, viewer))
            try:
                await self._serve(viewer, send)
            except TimeoutError:
                log.info("stream.stuck", want=repr(self._want))
            finally:
                leaving.cancel()

    async def _serve(self, viewer: Watching, send: Send) -> None:
        pace = self._watch.pace

        async def put(data: bytes, *, more: bool = True) -> None:
            async with asyncio.timeout(pace.stuck_s):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        await put(_HELLO)
        while viewer.want is not None and viewer.closed is None:
            piece = await viewer.take(within_s=pace.keep_alive_s)
            if piece is None:
                await put(_ALIVE)
                continue
            self._watch.nudge()
            await put(piece.data)
        await put(_closing(viewer), more=False)


def _closing(viewer: Watching) -> bytes:
    """Return the last words to who was let go before the end."""
    if viewer.closed is None or viewer.want is None:
        return b""
    code, text = viewer.closed
    return wants.message({"code": code, "message": text}, name="closed")


async def _left(receive: Receive, viewer: Watching) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        continue
    viewer.close(("gone", "the client has gone"))


async def open_(
    want: RunWant, request: Request, caller: Caller, door: Door, *, place: str | None
) -> Response:
    """Return the stream of a run of the caller's, from a place on."""
    over = (place or "").endswith(wants.OVER)
    if place:
        want = wants.from_place(want, place.removesuffix(wants.OVER))
    run_id, tenant_id = want.run_id, caller.tenant_id
    await run_in_threadpool(door.read, lambda tx: runs.get(tx, run_id, tenant_id=tenant_id))
    if over:
        return Response(status_code=204)
    return Stream(request.app.state.watch, want, key_id=caller.key_id)


@router.get("/{run_id}/events/stream", response_class=Response, responses=_ANSWERS)
async def events(
    run_id: RunId,
    request: Request,
    caller: Viewer,
    door: TheDoor,
    last_event_id: LastEventId = None,
) -> Response:
    """Stream a run's history, from its beginning or from an event on, until it is over."""
    return await open_(EventsWant(run_id), request, caller, door, place=last_event_id)


@router.get("/{run_id}/output/stream", response_class=Response, responses=_ANSWERS)
async def output(
    run_id: RunId,
    asked: Annotated[OutputFilters, Query()],
    request: Request,
    caller: Viewer,
    door: TheDoor,
    last_event_id: LastEventId = None,
) -> Response:
    """Stream what a run's commands write, start by start, until it is over."""
    want: RunWant = OutputWant(run_id)
    if asked.stream is not None:
        want = OutputWant(run_id, streams=(asked.stream,))
    return await open_(want, request, caller, door, place=last_event_id)
