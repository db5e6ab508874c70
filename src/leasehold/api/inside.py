"""
``/run``: what a command in a sandbox reports of its own run, with the token that it was given.

The token says which run it is; no path and no body names one. `hello` proves to a sandbox which
of the addresses that it knows is ours, before it is given anything; `helper.sh` is a program
for shells that reports. These two need no token, and say the same to everybody.
"""

import tempfile
from importlib.resources import files
from typing import Annotated, Any, BinaryIO, Final, TypeVar, cast

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from leasehold.api.answers import Answer
from leasehold.api.asking import Decent
from leasehold.api.door import Inside, TheDoor
from leasehold.api.spooling import FILE, spooled
from leasehold.domain import run_tokens
from leasehold.errors import BadInputError, TooLargeError
from leasehold.orchestrator import reporting
from leasehold.orchestrator.reporting import EventSpec, ProgressSpec, Speaker
from leasehold.store.database import Row, Tx

T = TypeVar("T")
router = APIRouter(prefix="/run", tags=["run"])
_HELPER: Final = (files("leasehold.api") / "helper.sh").read_text()


@router.get("/hello", response_class=Response)
def hello(nonce: Annotated[str, Query(pattern="^[0-9a-f]{32}$")], door: TheDoor) -> Response:
    """Answer what only this deployment answers to this nonce."""
    said = run_tokens.greeting(door.context.run_token_key, nonce)
    return Response(said + "\n", media_type="text/plain")


@router.get("/helper.sh", response_class=Response)
def helper() -> Response:
    """Return the program for shells: `sh helper.sh progress 40 "half of it"`."""
    return Response(_HELPER, media_type="text/x-shellscript")


@router.get("")
def look(caller: Inside, door: TheDoor) -> Answer:
    """Return what a command may know of its run: its id, and whether it is asked to end."""
    return Answer(door.read(lambda tx: reporting.look(tx, caller)))


@router.post("/heartbeat")
def heartbeat(caller: Inside, door: TheDoor) -> Answer:
    """Say that the command lives."""
    return Answer(door.write("run.heartbeat", lambda tx: reporting.beat(tx, caller)))


@router.post("/progress")
def progress(body: Annotated[ProgressSpec, Decent], caller: Inside, door: TheDoor) -> Answer:
    """Say how far the command is; the latest is kept."""
    hider = reporting.hider_of(door.context, caller)

    def work(tx: Tx) -> Row:
        return reporting.progress(tx, caller, body, hider)

    return Answer(door.write("run.progress", work))


@router.put("/result")
@router.post("/result")
def result(body: Annotated[Any, Decent, Body()], caller: Inside, door: TheDoor) -> Answer:
    """Say what the run came to, any JSON; the latest is kept, beyond the end of the run."""
    hider = reporting.hider_of(door.context, caller)
    return Answer(
        door.write("run.result", lambda tx: reporting.result(tx, caller, body, hider))
    )


@router.post("/events", status_code=201)
def event(body: Annotated[EventSpec, Decent], caller: Inside, door: TheDoor) -> Answer:
    """Write a line into the run's history, under `user.` and its name."""
    hider = reporting.hider_of(door.context, caller)
    shown = door.write("run.event", lambda tx: reporting.event(tx, caller, body, hider))
    return Answer(shown, status_code=201)


@router.put("/artifacts/{path:path}", status_code=201, openapi_extra=FILE)
async def artifact(
    path: Annotated[str, Path(min_length=1, max_length=reporting.PATH_CHARS)],
    request: Request,
    caller: Inside,
    door: TheDoor,
    sha256: Annotated[
        str | None, Header(alias="Leasehold-SHA256", pattern="^[0-9a-fA-F]{64}$")
    ] = None,
) -> Answer:
    """Keep a file of the run under a name, over what was sent under it before."""
    await run_in_threadpool(_check, door, caller, path, request)
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        found, size = await spooled(request, spool)
        if sha256 is not None and sha256.lower() != found:
            raise BadInputError(
                f"Leasehold-SHA256: what came is {found}", field="Leasehold-SHA256"
            )
        kept = await run_in_threadpool(
            reporting.artifact, door.context, caller, path, spool, digest=found, size=size
        )
    return Answer(kept, status_code=201)


def _check(door: TheDoor, caller: Speaker, path: str, request: Request) -> None:
    reporting.check_path(path, reporting.hider_of(door.context, caller))
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 18:  # noqa: PLR2004  beyond any limit
        raise TooLargeError("the body is too large")
    size = int(length)
    door.read(lambda tx: reporting.check_room(tx, door.context, caller, path, size=size))
