"""``/runs/batch``: many runs in one request, one answer for each."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import KEY, Decent
from leasehold.api.door import Caller, Operator, TheDoor
from leasehold.api.runs import RunRequest
from leasehold.domain.specs import Spec, parse
from leasehold.errors import BadInputError, LeaseholdError
from leasehold.orchestrator import batching, submit
from leasehold.orchestrator.batching import Outcome
from leasehold.store import views
from leasehold.store.database import Row, Tx
from leasehold.store.views import Shape

router = APIRouter(prefix="/runs", tags=["runs"])
MAX_ITEMS: Final = 1000


class BatchItem(RunRequest):
    """One run of a batch."""

    key: Annotated[str, Field(pattern=KEY)] | None = None
    """Its own Idempotency-Key."""


class BatchRequest(Spec):
    runs: list[Any] = Field(min_length=1, max_length=MAX_ITEMS)
    """Each as the body of `POST /runs`, with its own idempotency `key` if it has one."""


@router.post("/batch")
def create_batch(
    body: Annotated[BatchRequest, Decent], caller: Operator, door: TheDoor
) -> Answer:
    """Accept up to 1,000 runs in one transaction; what is wrong with one is its answer only."""
    asked = [_asked(item) for item in body.runs]

    requests = [_request(item, caller) for item in asked]

    def work(tx: Tx) -> list[Shape]:
        made = batching.submit_batch(tx, door.context, requests, tenant_id=caller.tenant_id)
        shown = views.run_rows(tx, [one.run_id for one in made if one.run_id is not None])
        return [_item(one, shown) for one in made]

    items = door.write("run.batch", work)
    counts = Counter(item["outcome"] for item in items)
    return Answer({"items": items, **{kind.value: counts[kind.value] for kind in Outcome}})


def _asked(item: Any) -> BatchItem | LeaseholdError:
    if not isinstance(item, dict):
        return BadInputError(
            f"must be an object, as in `POST /runs` (got {type(item).__name__})"
        )
    try:
        return parse(BatchItem, item)
    except BadInputError as error:
        return error


def _request(
    item: BatchItem | LeaseholdError, caller: Caller
) -> submit.Request | LeaseholdError:
    if isinstance(item, LeaseholdError):
        return item
    try:
        return item.request(caller, key=item.key)
    except BadInputError as error:
        return error


def _item(answer: batching.Answer, shown: Mapping[str, Row]) -> Shape:
    if answer.run_id is not None:
        return {"outcome": answer.outcome.value, "run": views.run_line(shown[answer.run_id])}
    error = answer.error
    assert error is not None
    return {"outcome": answer.outcome.value, "error": problem(error)}


def problem(error: LeaseholdError) -> Shape:
    """Return what is shown of an error of one item among others."""
    field = getattr(error, "field", None)
    return {"code": error.code, "message": str(error), "field": field}
