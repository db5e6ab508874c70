"""Environments: those there are, one of them, and a new one by its provider's own form."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from leasehold.api.asking import EnvironmentName
from leasehold.api.door import Admin, Caller, Door, TheDoor, Viewer
from leasehold.api.pages.page import Form, first, go_to, look, page
from leasehold.domain import restricting
from leasehold.domain.lifecycle import EnvironmentStatus, LeasePolicy
from leasehold.domain.specs import EnvironmentSpec, Text, parse
from leasehold.errors import BadInputError, ConflictError
from leasehold.orchestrator import archiving, submit
from leasehold.store import environments, fleet, radius, secrets, views, watching
from leasehold.store.database import Tx
from leasehold.web import inputs

router = APIRouter()


@router.get("/environments")
def list_(request: Request, caller: Viewer, door: TheDoor) -> Response:
    """List environments by name."""

    def work(tx: Tx) -> dict[str, Any]:
        rows = environments.page(tx, tenant_id=caller.tenant_id)
        return {
            "place": watching.newest_event(tx),
            "environments": [views.environment_view(row) for row in rows],
            "providers": [shape["key"] for shape in fleet.providers(tx)],
        }

    found = look(request, caller, door, work)
    return page(request, "environments.html", title="Environments", **found)


@router.get("/new-environment")
def ask(
    request: Request, caller: Admin, door: TheDoor, provider: Annotated[Text, Query()] = ""
) -> Response:
    """Ask for what a new environment is to be."""
    return _form(request, caller, door, provider=provider, values={})


def _form(
    request: Request,
    caller: Caller,
    door: Door,
    *,
    provider: str,
    values: dict[str, list[str]],
    problem: Exception | None = None,
) -> Response:
    def work(tx: Tx) -> dict[str, Any]:
        providers = fleet.providers(tx)
        found = [shape for shape in providers if shape["key"] == provider]
        return {
            "providers": providers,
            "provider": found[0] if found else None,
            "inputs": inputs.of(found[0]["config_schema"]) if found else [],
            "secrets": [row["name"] for row in secrets.page(tx, tenant_id=caller.tenant_id)],
        }

    answer = page(
        request,
        "environment_new.html",
        title="New environment",
        policies=list(LeasePolicy),
        values=values,
        problem=str(problem) if problem else None,
        wrong=getattr(problem, "field", None),
        **door.read(work),
    )
    if problem is not None:
        answer.status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    return answer


@router.post("/new-environment")
def create(request: Request, caller: Admin, door: TheDoor, form: Form) -> Response:
    """Save a new environment, or show the form again with what is wrong in it."""
    key = first(form, "provider")
    try:
        shape = door.read(lambda tx: fleet.provider(tx, key))
        spec = parse(EnvironmentSpec, _body(form, key, shape["config_schema"]))
        door.write(
            "environment.create",
            lambda tx: submit.create_environment(
                tx, spec, tenant_id=caller.tenant_id, actor=caller.actor
            ),
        )
    except (BadInputError, ConflictError) as problem:
        return _form(request, caller, door, provider=key, values=form, problem=problem)
    return go_to(f"/environments/{spec.name}", said="created")


def _body(form: Form, provider: str, schema: dict[str, Any]) -> dict[str, Any]:
    try:
        env = inputs.pairs(first(form, "env").replace("\r\n", "\n"))
    except ValueError as error:
        raise BadInputError(
            f"env: must be lines of NAME=VALUE, got {error}", field="env"
        ) from None
    body: dict[str, Any] = {
        "name": first(form, "name").strip(),
        "provider": provider,
        "description": first(form, "description"),
        "config": inputs.config(schema, form),
        "env": env,
        "policy": first(form, "policy") or LeasePolicy.EPHEMERAL.value,
    }
    most = first(form, "max_concurrent").strip()
    if most:
        body["limits"] = {"max_concurrent": int(most) if most.isdecimal() else most}
    return body


@router.get("/environments/{name}")
def show(name: EnvironmentName, request: Request, caller: Viewer, door: TheDoor) -> Response:
    """Show an environment and how much is under way in it."""

    def work(tx: Tx) -> dict[str, Any]:
        row = environments.get(tx, name, tenant_id=caller.tenant_id)
        return {
            "place": watching.newest_event(tx),
            "environment": restricting.environment(views.environment_view(row), caller.role),
            "counts": radius.blast_radius(tx, row["id"]),
            "active": row["status"] == EnvironmentStatus.ACTIVE,
        }

    found = look(request, caller, door, work)
    return page(request, "environment.html", title=f"Environment {name}", **found)


@router.post("/environments/{name}/archive")
def archive(name: EnvironmentName, caller: Admin, door: TheDoor, _form: Form) -> Response:
    """Take no new runs in it."""
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "environment.archive",
        lambda tx: archiving.archive(tx, name, tenant_id=tenant, actor=actor),
    )
    return go_to(f"/environments/{row['name']}", said="archive")


@router.post("/environments/{name}/unarchive")
def unarchive(name: EnvironmentName, caller: Admin, door: TheDoor, _form: Form) -> Response:
    """Take runs in it again."""
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "environment.unarchive",
        lambda tx: archiving.take_up(tx, name, tenant_id=tenant, actor=actor),
    )
    return go_to(f"/environments/{row['name']}", said="unarchive")
