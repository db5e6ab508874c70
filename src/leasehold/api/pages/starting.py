"""A new run from a page: where, which command, with what; or one like another."""

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from leasehold.api.asking import Filters
from leasehold.api.door import Caller, Door, Operator, TheDoor
from leasehold.api.pages.page import Form, first, go_to, page
from leasehold.domain.specs import RunSpec, Text, parse
from leasehold.errors import BadInputError, ConflictError, NotFoundError
from leasehold.ids import new_id
from leasehold.orchestrator import submit
from leasehold.store import environments, runs, secrets
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load
from leasehold.web import asked as forms

router = APIRouter(prefix="/new-run")


class StartAsked(Filters):
    like: Text = Field(default="", max_length=100)
    """A run: the form is filled with what it does."""

    environment: Text = Field(default="", max_length=100)


@router.get("")
def ask(
    request: Request, asked: Annotated[StartAsked, Query()], caller: Operator, door: TheDoor
) -> Response:
    """Ask for what is to run."""
    values, note = {"environment": [asked.environment]}, None
    if asked.like:
        values, note = door.read(lambda tx: _like(tx, asked.like, caller))
    return _form(request, caller, door, values=values, note=note)


def _like(tx: Tx, run_id: str, caller: Caller) -> tuple[dict[str, list[str]], str | None]:
    row = runs.get(tx, run_id, tenant_id=caller.tenant_id)
    spec = load(row["spec"])
    place = environments.find(tx, row["environment_id"])
    left = []
    if any(isinstance(value, str) for value in (spec.get("env") or {}).values()):
        left.append("its variables (nobody is shown their values)")
    if (spec.get("tree") or {}).get("digest"):
        left.append("the files that it was started with")
    if spec.get("artifacts") or spec.get("setup") or spec.get("copy_in"):
        left.append("its set-up, artifacts and copies")
    note = f"Not in this form: {', '.join(left)}." if left else None
    values = forms.fields(spec) | {"environment": [place["name"] if place else ""]}
    return values, note


def _form(
    request: Request,
    caller: Caller,
    door: Door,
    *,
    values: dict[str, list[str]],
    note: str | None = None,
    problem: Exception | None = None,
) -> Response:
    def work(tx: Tx) -> dict[str, Any]:
        tenant = caller.tenant_id
        return {
            "environments": environments.active_names(tx, tenant_id=tenant),
            "secrets": [row["name"] for row in secrets.page(tx, tenant_id=tenant)],
        }

    answer = page(
        request,
        "run_new.html",
        title="New run",
        values=values,
        note=note,
        once=values.get("once", [new_id().replace("-", "")])[0][:64],
        problem=str(problem) if problem else None,
        wrong=forms.field_of(getattr(problem, "field", None)),
        **door.read(work),
    )
    if problem is not None:
        answer.status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    return answer


@router.post("")
def start(request: Request, caller: Operator, door: TheDoor, form: Form) -> Response:
    """Submit it; the same page sends the same run once, however often its button is pressed."""
    try:
        row = door.write("run.create", lambda tx: _submit(tx, caller, door, form))
    except (BadInputError, ConflictError, NotFoundError) as problem:
        return _form(request, caller, door, values=form, problem=problem)
    return go_to(f"/runs/{row['id']}", said="started")


def _submit(tx: Tx, caller: Caller, door: Door, form: dict[str, list[str]]) -> Row:
    spec = parse(RunSpec, forms.body(form))
    request = submit.Request(
        spec=spec,
        environment=first(form, "environment").strip() or None,
        tenant_id=caller.tenant_id,
        actor=caller.actor,
    )
    once = first(form, "once")[:64]
    key = f"page-{once}-{request.body_hash()[:16]}" if once.isalnum() else None
    return submit.submit(tx, door.context, replace(request, key=key))[0]
