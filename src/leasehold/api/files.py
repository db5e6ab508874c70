"""
``/runs/…/artifacts/…``: the bytes of a file that a run left.

What is in the store is proven by its digest, so it is read whole before a byte is sent: what
has rotted is an error and never half an answer. It waits in memory, or above a few MiB in a
file.
"""

import tempfile
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Final, Literal, cast
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from starlette.responses import StreamingResponse

from leasehold.api.asking import Filters, RunId
from leasehold.api.door import TheDoor, Viewer
from leasehold.errors import NotFoundError
from leasehold.store import artifacts, runs
from leasehold.store.database import Row, Tx

router = APIRouter(prefix="/runs", tags=["runs"])
_SPOOL_BYTES: Final = 4 * 1024 * 1024
_PART_BYTES: Final = 256 * 1024
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}}
}


class Which(Filters):
    kind: Literal["artifact", "changed"] = "artifact"
    """`artifact`, or `changed`: a file of the workspace as the run left it."""


@router.get(
    "/{run_id}/artifacts/{path:path}", response_class=StreamingResponse, responses=_ANSWERS
)
def fetch(
    run_id: RunId,
    path: Annotated[str, Path(max_length=4000, description="As the list has it.")],
    asked: Annotated[Which, Query()],
    caller: Viewer,
    door: TheDoor,
) -> StreamingResponse:
    """Return one file that a run left; its `ETag` is the SHA-256 of its bytes."""
    tenant = caller.tenant_id

    def work(tx: Tx) -> list[Row]:
        runs.get(tx, run_id, tenant_id=tenant)
        return artifacts.of_run(tx, run_id, kinds=(asked.kind,))

    kept = {row["path"]: row for row in door.read(work) if row["sha256"] is not None}
    if path not in kept:
        raise NotFoundError(f"run {run_id} left no {asked.kind} of this path")
    digest = kept[path]["sha256"]
    made = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115  closed by `_parts`
    spool = cast(BinaryIO, made)
    try:
        size = door.context.blobs.fetch(tenant, digest, spool)
    except BaseException:
        spool.close()
        raise
    name = quote(path.rpartition("/")[2], safe="")
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "ETag": f'"{digest}"',
    }
    return StreamingResponse(
        _parts(spool),
        media_type="application/octet-stream",
        headers=headers,
    )


def _parts(spool: BinaryIO) -> Iterator[bytes]:
    with spool:
        spool.seek(0)
        while part := spool.read(_PART_BYTES):
            yield part
