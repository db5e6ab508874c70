"""``/runs/bulk``: cancel or retry all runs that a filter finds, after a look at them."""

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import Decent, RunFilter, cursor, place
from leasehold.api.batches import problem
from leasehold.api.door import Caller, Door, Operator, TheDoor
from leasehold.domain.specs import Spec
from leasehold.errors import BadInputError, LeaseholdError
from leasehold.orchestrator import bulk
from leasehold.orchestrator.bulk import Action, Mark, Selection
from leasehold.store.views import Shape

router = APIRouter(prefix="/runs", tags=["runs"])
_MARK_CHARS: Final = 500


class BulkRequest(Spec):
    """Which runs, and what is to be done with them."""

    action: Action
    filter: RunFilter = RunFilter()
    """As `GET /runs`; statuses that the action is not for are left out."""

    dry_run: bool = False
    """Only count, and give the mark that doing it needs."""

    mark: str | None = Field(default=None, max_length=_MARK_CHARS)
    limit: int = Field(default=bulk.PAGE_MAX, ge=1, le=bulk.PAGE_MAX)
    """Runs of this request, at most."""

    def selection(self, caller: Caller) -> Selection:
        return Selection(
            action=self.action,
            tenant_id=caller.tenant_id,
            statuses=self.filter.status,
            environment=self.filter.environment,
            labels=self.filter.labels(),
        )


@router.post("/bulk")
def change_many(
    body: Annotated[BulkRequest, Decent], caller: Operator, door: TheDoor
) -> Answer:
    """Preview with `dry_run`; then do it with the preview's `mark`, until `mark` is null."""
    what = body.selection(caller)
    if body.dry_run:
        return Answer(_previewed(body, what, door))
    mark = _mark(body)
    ids, following = door.read(lambda tx: bulk.page(tx, what, mark, limit=body.limit))
    items = [_item(run_id, what, mark, caller, door) for run_id in ids]
    done = sum(item["outcome"] == "done" for item in items)
    counts = {"done": done, "refused": len(items) - done}
    return Answer({"items": items, **counts, "mark": _text(following)})


def _previewed(body: BulkRequest, what: Selection, door: Door) -> Shape:
    if body.mark is not None:
        raise BadInputError("mark: a preview makes one; send it without dry_run", field="mark")
    seen = door.read(lambda tx: bulk.preview(tx, what))
    return {
        "count": seen.count,
        "more": seen.count >= bulk.COUNT_MAX,
        "ids": list(seen.ids),
        "mark": _text(seen.mark),
    }


def _item(run_id: str, what: Selection, mark: Mark, caller: Caller, door: Door) -> Shape:
    """Do it to one run, in a transaction of its own; what it refuses is its answer."""
    try:
        row = door.write(
            f"run.bulk.{what.action.value}",
            lambda tx: bulk.act(tx, door.context, what, mark, run_id, actor=caller.actor),
        )
    except LeaseholdError as error:
        if error.retryable:
            raise  # the database is away: the same mark does the same page again
        return {"id": run_id, "outcome": "refused", "error": problem(error)}
    return {"id": run_id, "outcome": "done", "run_id": row["id"], "status": row["status"]}


def _text(mark: Mark | None) -> str | None:
    return None if mark is None else cursor(mark.digest, mark.batch, mark.at, mark.run_id)


def _mark(body: BulkRequest) -> Mark:
    if body.mark is None:
        raise BadInputError(
            "mark: ask with dry_run first, and send the mark of that answer", field="mark"
        )
    try:
        found: tuple[Any, ...] | None = place(body.mark, str, str, int, str)
    except BadInputError:
        found = None
    if found is None:
        raise BadInputError("mark: take that of an answer, as it is", field="mark")
    return Mark(*found)
