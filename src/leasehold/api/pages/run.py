"""One run: its line of time, its output while it comes, why it waits, and what may be done."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from leasehold.api import streams
from leasehold.api.asking import Filters, RunId
from leasehold.api.door import Door, Operator, TheDoor, Viewer
from leasehold.api.pages.page import Form, go_to, look, page
from leasehold.api.wants import OutputWant
from leasehold.domain.lifecycle import EXECUTION_ENDS, RUN_ENDS, EndKind, RunStatus
from leasehold.errors import NotFoundError
from leasehold.ids import new_id
from leasehold.orchestrator import ending, explaining, submit
from leasehold.store import executions, runs, views, watching
from leasehold.store.database import Row, Tx
from leasehold.web import timeline

router = APIRouter(prefix="/runs/{run_id}")
SHOWN_BYTES: Final = 64 * 1024
"""Of the end of each stream; all of it is in the download."""

STARTS: Final = 8
_CHUNK: Final = 1024 * 1024


class OutputAsked(Filters):
    """Which bytes are wanted as a file."""

    start: int = Field(ge=1, lt=2**31)
    stream: Literal["stdout", "stderr"] = "stdout"


@router.get("")
def show(run_id: RunId, request: Request, caller: Viewer, door: TheDoor) -> Response:
    """Show a run."""

    def work(tx: Tx) -> dict[str, Any]:
        place = watching.newest_event(tx)
        run = views.whole_run(tx, run_id, tenant_id=caller.tenant_id)
        over = run["status"] in RUN_ENDS
        starts = executions.of_run(tx, run_id)
        now = views.iso(tx.now())
        assert now is not None
        return {
            "place": place,
            "run": run,
            "over": over,
            "now": now,
            "bars": [asdict(bar) for bar in timeline.of(run, now=now)],
            "explained": asdict(explaining.run(tx, door.context, run_id)),
            "outputs": _outputs(tx, starts) if run["output_pruned_at"] is None else [],
            "left_out": max(0, len(starts) - STARTS),
            "from_": _place(starts),
            "parked": run["status"] == RunStatus.PARKED,
        }

    found = look(request, caller, door, work)
    once = new_id().replace("-", "")
    return page(request, "run.html", title=f"Run {run_id[-8:]}", once=once, **found)


def _outputs(tx: Tx, starts: list[Row]) -> list[dict[str, Any]]:
    """Return the ends of the streams of the last starts, as text."""
    found = []
    for row in starts[-STARTS:]:
        streams_ = []
        for name in ("stdout", "stderr"):
            stored = int(row[f"{name}_offset"])
            first = max(0, stored - SHOWN_BYTES)
            data = b"".join(_read(tx, row["id"], name, first, stored))
            text = data.decode(errors="replace")
            streams_.append({"name": name, "stored": stored, "first": first, "text": text,
                             "dropped": row[f"{name}_dropped"]})  # fmt: skip
        found.append({**views.execution_view(row), "streams": streams_})
    return found


def _read(tx: Tx, execution_id: str, stream: str, first: int, stored: int) -> Iterator[bytes]:
    """Return a stream from one offset up to another; one look may give less than is asked."""
    while first < stored:
        want = min(stored - first, _CHUNK)
        data = executions.output(
            tx, execution_id, stream=stream, offset=first, limit_bytes=want
        )[: stored - first]
        if not data:
            return
        first += len(data)
        yield data


def _place(starts: list[Row]) -> str:
    """Return the place in the stream of output behind what the page shows."""
    if not starts:
        return OutputWant("").place
    last = starts[-1]
    if last["status"] in EXECUTION_ENDS:
        return OutputWant("", start=last["number"] + 1).place
    return OutputWant(
        "", last["number"], int(last["stdout_offset"]), int(last["stderr_offset"])
    ).place


@router.get("/output/live")
async def follow(
    run_id: RunId,
    request: Request,
    caller: Viewer,
    door: TheDoor,
    from_: Annotated[str | None, Query(alias="from", max_length=100)] = None,
    last_event_id: streams.LastEventId = None,
) -> Response:
    """Stream what the run's commands write, from the place on that the page ends with."""
    place = last_event_id or from_
    return await streams.open_(OutputWant(run_id), request, caller, door, place=place)


@router.get("/output")
def download(
    run_id: RunId, asked: Annotated[OutputAsked, Query()], caller: Viewer, door: TheDoor
) -> Response:
    """Return all that is stored of one stream of one start, as a file."""

    def work(tx: Tx) -> Row:
        run = runs.get(tx, run_id, tenant_id=caller.tenant_id)
        found = [row for row in executions.of_run(tx, run_id) if row["number"] == asked.start]
        if not found or run["output_pruned_at"] is not None:
            raise NotFoundError("there is no such output, or retention has deleted it")
        return found[0]

    row = door.read(work)
    stored = int(row[f"{asked.stream}_offset"])
    name = f"{run_id}-{asked.start}-{asked.stream}.log"
    return StreamingResponse(
        _pieces(door, row["id"], asked.stream, stored),
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _pieces(door: Door, execution_id: str, stream: str, stored: int) -> Iterator[bytes]:
    offset = 0
    while offset < stored:
        # Each look in a transaction of its own: none is open while a client takes its time.
        data = door.read(partial(_next, execution_id, stream, offset, stored))
        if not data:
            return
        offset += len(data)
        yield data


def _next(execution_id: str, stream: str, first: int, stored: int, tx: Tx) -> bytes:
    return next(_read(tx, execution_id, stream, first, stored), b"")


@router.post("/cancel")
def cancel(run_id: RunId, caller: Operator, door: TheDoor, _form: Form) -> Response:
    """Ask the run to end."""

    def work(tx: Tx) -> None:
        runs.get(tx, run_id, tenant_id=caller.tenant_id)
        ending.request_end(tx, door.context, run_id, EndKind.CANCEL, actor=caller.actor)

    door.write("run.cancel", work)
    return go_to(f"/runs/{run_id}", said="cancel")


@router.post("/retry")
def retry(run_id: RunId, caller: Operator, door: TheDoor, form: Form) -> Response:
    """Submit the run anew; the same page sends it once, however often its button is pressed."""
    once = "".join(form.get("once", []))[:64]
    key = f"page-{once}-{run_id}" if once.isalnum() else None

    def work(tx: Tx) -> Row:
        old = runs.get(tx, run_id, tenant_id=caller.tenant_id)
        return submit.retry(tx, door.context, old, key=key, actor=caller.actor)[0]

    row = door.write("run.retry", work)
    return go_to(f"/runs/{row['id']}", said="retry")


@router.post("/resume")
def resume(run_id: RunId, caller: Operator, door: TheDoor, _form: Form) -> Response:
    """Send a parked run back to the queue."""

    def work(tx: Tx) -> None:
        runs.get(tx, run_id, tenant_id=caller.tenant_id)
        submit.resume(tx, door.context, run_id, actor=caller.actor)

    door.write("run.resume", work)
    return go_to(f"/runs/{run_id}", said="resume")
