"""
``/runs/…/output``: what a command wrote, as pages by offset or as HTTP byte ranges.

The bytes are as stored: secrets are hidden before that. Output of a command that runs grows, so
a page says with `Leasehold-Next-Offset` where the next one begins, and with
`Leasehold-Complete` whether there will be more.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from leasehold.api.asking import Filters, RunId
from leasehold.api.door import TheDoor, Viewer
from leasehold.domain.lifecycle import EXECUTION_ENDS
from leasehold.errors import NotFoundError
from leasehold.store import executions, runs
from leasehold.store.database import Row, Tx
from leasehold.store.views import iso

router = APIRouter(prefix="/runs", tags=["runs"])
MAX_BYTES: Final = 4 * 1024 * 1024
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class OutputFilters(Filters):
    stream: Literal["stdout", "stderr"] = "stdout"
    start: int | None = Field(default=None, ge=1, lt=2**31)
    """`number` of the run's execution; absent: the last one."""

    offset: int = Field(default=0, ge=0, lt=2**62)
    limit: int = Field(default=1024 * 1024, ge=1, le=MAX_BYTES)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a stream and where they are in it."""

    execution: Row | None
    stream: str
    offset: int
    data: bytes

    @property
    def stored(self) -> int:
        return int(self.execution[f"{self.stream}_offset"]) if self.execution else 0

    @property
    def complete(self) -> bool:
        """Whether the command is over and nothing is behind these bytes."""
        over = self.execution is not None and self.execution["status"] in EXECUTION_ENDS
        return over and self.offset + len(self.data) >= self.stored

    def headers(self) -> dict[str, str]:
        row = self.execution
        return {
            "Accept-Ranges": "bytes",
            "Leasehold-Offset": str(self.offset),
            "Leasehold-Next-Offset": str(self.offset + len(self.data)),
            "Leasehold-Stored": str(self.stored),
            "Leasehold-Dropped": str(row[f"{self.stream}_dropped"] if row else 0),
            "Leasehold-Complete": "true" if self.complete else "false",
            **({"Leasehold-Start": str(row["number"])} if row else {}),
        }


@router.get(
    "/{run_id}/output",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        206: {"content": {"application/octet-stream": {}}},
    },
)
def output(
    run_id: RunId,
    asked: Annotated[OutputFilters, Query()],
    caller: Viewer,
    door: TheDoor,
    range_: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    """Return stored output: 200 from `offset` on, or 206 with what `Range` asks for."""
    ranged = _RANGE.fullmatch(range_ or "")

    def work(tx: Tx) -> Piece:
        run = runs.get(tx, run_id, tenant_id=caller.tenant_id)
        row = _execution(tx, run_id, asked.start)
        _check_kept(run)
        stored = int(row[f"{asked.stream}_offset"]) if row else 0
        first, count = _wanted(ranged, stored) if ranged else (asked.offset, asked.limit)
        return _piece(tx, row, asked.stream, offset=first, count=min(count, MAX_BYTES))

    return _answer(door.read(work), ranged=ranged is not None)


def _execution(tx: Tx, run_id: str, number: int | None) -> Row | None:
    """
    Return the execution that is meant: of this number, or the last one, if there is one yet.

    Raises:
        NotFoundError: The run has none of this number.
    """
    rows = executions.of_run(tx, run_id)
    if number is None:
        return rows[-1] if rows else None
    found = [row for row in rows if row["number"] == number]
    if not found:
        raise NotFoundError(f"run {run_id} has no start {number}; it has {len(rows)}")
    return found[0]


def _check_kept(run: Row) -> None:
    """
    Refuse what is not there any more: it is not the same as no output.

    Raises:
        NotFoundError: Retention deleted the run's output.
    """
    if run["output_pruned_at"] is not None:
        when = iso(run["output_pruned_at"])
        raise NotFoundError(f"retention deleted the output of run {run['id']} at {when}")


def _piece(tx: Tx, row: Row | None, stream: str, *, offset: int, count: int) -> Piece:
    count = min(count, int(row[f"{stream}_offset"]) - offset) if row else 0
    if row is None or count <= 0:
        return Piece(row, stream, offset, b"")
    data = executions.output(tx, row["id"], stream=stream, offset=offset, limit_bytes=count)
    return Piece(row, stream, offset, data[:count])


def _wanted(ranged: re.Match[str], stored: int) -> tuple[int, int]:
    """
    Return offset and length of an HTTP range: ``first-last``, ``first-`` or ``-length``.

    Raises:
        HTTPException: 416, nothing stored is in it.
    """
    first, last = ranged.groups()
    if first:
        offset = int(first)
        count = int(last) - offset + 1 if last else MAX_BYTES
    else:
        count = int(last or 0)
        offset = max(0, stored - count)
    if count <= 0 or offset >= stored:
        headers = {"Content-Range": f"bytes */{stored}"}
        raise HTTPException(416, f"{stored} bytes are stored", headers=headers)
    return offset, count


def _answer(piece: Piece, *, ranged: bool) -> Response:
    headers = piece.headers()
    if ranged:
        last = piece.offset + len(piece.data) - 1
        headers["Content-Range"] = f"bytes {piece.offset}-{last}/{piece.stored}"
    return Response(
        piece.data,
        status_code=206 if ranged else 200,
        headers=headers,
        media_type="application/octet-stream",
    )
