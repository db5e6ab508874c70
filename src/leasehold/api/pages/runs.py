"""All runs: filtered, page by page, its state in the address; and many of them at once."""

import json
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from leasehold.api import bulk
from leasehold.api.asking import Filters, RunFilter, cursor, place
from leasehold.api.door import Operator, TheDoor, Viewer
from leasehold.api.pages.page import Form, first, go_to, look, page
from leasehold.domain.lifecycle import RunStatus
from leasehold.domain.specs import Text, parse
from leasehold.errors import NotFoundError
from leasehold.orchestrator.bulk import Action
from leasehold.provider.budget import boot_time
from leasehold.store import environments, finding, runs, views, watching
from leasehold.store.database import Tx

router = APIRouter(prefix="/runs")
PAGE: Final = 50
_WITHIN_S: Final = 5.0
"""For how long one request goes on with many runs, before it asks whether to go on."""


class RunsAsked(Filters):
    """The address of the page, as its form makes it: what is empty is not asked for."""

    status: list[RunStatus] = Field(default_factory=list, max_length=len(RunStatus))
    environment: Text = Field(default="", max_length=100)
    label: Text = Field(default="", max_length=1000)
    id: Text = Field(default="", max_length=100)
    cursor: str | None = Field(default=None, max_length=500)
    said: str = ""

    def filter(self) -> RunFilter:
        labels = [item for item in self.label.split(" ") if item]
        return RunFilter(status=self.status, environment=self.environment or None, label=labels)

    def query(self) -> str:
        """Return the filter as an address has it."""
        pairs = [("status", status.value) for status in self.status]
        pairs += [("environment", self.environment)] * bool(self.environment)
        pairs += [("label", self.label)] * bool(self.label)
        return urlencode(pairs)


@router.get("")
def list_(
    request: Request, asked: Annotated[RunsAsked, Query()], caller: Viewer, door: TheDoor
) -> Response:
    """List runs, the newest first; runs that come meanwhile move no page."""
    if asked.id:
        door.read(lambda tx: runs.get(tx, asked.id.strip(), tenant_id=caller.tenant_id))
        return go_to(f"/runs/{asked.id.strip()}")
    wanted, after = asked.filter(), place(asked.cursor, int, str)

    def work(tx: Tx) -> dict[str, Any]:
        rows = finding.run_rows(
            tx,
            tenant_id=caller.tenant_id,
            statuses=[status.value for status in wanted.status],
            environment=wanted.environment,
            labels=wanted.labels(),
            limit=PAGE + 1,
            after=after,
        )
        shown = rows[:PAGE]
        more = len(rows) > PAGE
        names = [row["name"] for row in environments.page(tx, tenant_id=caller.tenant_id)]
        return {
            "place": watching.newest_event(tx),
            "runs": [views.run_line(row) for row in shown],
            "next": cursor(shown[-1]["created_at"], shown[-1]["id"]) if more else None,
            "environments": names,
            "now": views.iso(tx.now()),
        }

    return page(
        request,
        "runs.html",
        title="Runs",
        asked=asked,
        query=asked.query(),
        statuses=list(RunStatus),
        **look(request, caller, door, work),
    )


def _asked(form: Form) -> RunsAsked:
    raw = {name: first(form, name) for name in ("environment", "label")}
    return RunsAsked.model_validate(raw | {"status": form.get("status", [])})


def _action(form: Form) -> Action:
    found = [one for one in Action if one.value == first(form, "action")]
    if not found:
        raise NotFoundError("there is no such action")
    return found[0]


@router.post("/bulk")
def preview(request: Request, caller: Operator, door: TheDoor, form: Form) -> Response:
    """Show how many runs an action would be about; nothing happens yet."""
    asked, action = _asked(form), _action(form)
    body = parse(
        bulk.BulkRequest,
        {"action": action, "filter": asked.filter().model_dump(), "dry_run": True},
    )
    answer = json.loads(bytes(bulk.change_many(body, caller, door).body))
    return page(
        request,
        "bulk.html",
        title=f"{action.value} runs",
        action=action.value,
        asked=asked,
        query=asked.query(),
        preview=answer,
        done=None,
        refused=[],
        mark=answer["mark"],
    )


@router.post("/bulk/do")
def do(request: Request, caller: Operator, door: TheDoor, form: Form) -> Response:
    """Do it to the runs of a preview, the newest first, until they or the time are over."""
    asked, action = _asked(form), _action(form)
    mark: str | None = first(form, "mark")
    wanted = {"action": action, "filter": asked.filter().model_dump()}
    done, refused, until = 0, [], boot_time() + _WITHIN_S
    while mark is not None:
        body = parse(bulk.BulkRequest, {**wanted, "mark": mark})
        answer = json.loads(bytes(bulk.change_many(body, caller, door).body))
        done, mark = done + answer["done"], answer["mark"]
        refused += [item for item in answer["items"] if item["outcome"] == "refused"]
        if boot_time() > until:
            break
    return page(
        request,
        "bulk.html",
        title=f"{action.value} runs",
        action=action.value,
        asked=asked,
        query=asked.query(),
        preview=None,
        done=done,
        refused=refused[:PAGE],
        mark=mark,
    )
