"""
``/blobs``: bytes on their way into runs: a packed workspace, a file that is copied in.

A blob is named by the SHA-256 of what is in it, so to send it twice is to send it once. What no
run names within a day is removed again.
"""

import tempfile
from typing import Annotated, BinaryIO, Final, cast

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool

from leasehold.api.answers import Answer
from leasehold.api.door import Operator, TheDoor
from leasehold.api.spooling import FILE, spooled
from leasehold.errors import BadInputError, TooLargeError
from leasehold.orchestrator import storing

router = APIRouter(prefix="/blobs", tags=["runs"])
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Of the bytes, in hex.")]
_DIGITS: Final = 18


@router.put("/{sha256}", status_code=201, openapi_extra=FILE)
async def put(sha256: Sha256, request: Request, caller: Operator, door: TheDoor) -> Answer:
    """Keep bytes for a run that is created next, as `tree` or `copy_in` name them."""
    most = door.max_workspace_bytes
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > _DIGITS or int(length) > most:
        raise TooLargeError(f"a workspace has at most {most} bytes")
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        found, size = await spooled(request, spool)
        if size > most:
            raise TooLargeError(f"a workspace has at most {most} bytes")
        if found != sha256:
            raise BadInputError(f"sha256: what came is {found}", field="sha256")
        await run_in_threadpool(
            storing.keep, door.context, caller.tenant_id, spool, digest=found, size=size
        )
    return Answer({"sha256": found, "bytes": size}, status_code=201)
