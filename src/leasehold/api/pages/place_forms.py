"""An environment as a form made from its provider's own schema: a new one, or changed."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from leasehold.api.asking import EnvironmentName
from leasehold.api.door import Admin, Caller, Door, TheDoor
from leasehold.api.pages.page import Form, first, go_to, page
from leasehold.domain.lifecycle import LeasePolicy
from leasehold.domain.specs import EnvironmentSpec, Text, parse
from leasehold.errors import (
    BadInputError,
    CheckTimeoutError,
    ConflictError,
    LeaseholdError,
    NotFoundError,
    NoWorkerError,
    ProviderNotReadyError,
)
from leasehold.orchestrator import changing, saving, vetting
from leasehold.orchestrator.vetting import Vetted
from leasehold.store import environments, fleet, secrets
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load
from leasehold.store.views import iso
from leasehold.web import inputs

router = APIRouter()
_NO_ANSWER = (NoWorkerError, ProviderNotReadyError, CheckTimeoutError)
"""Nobody said anything of the config: it may be saved without."""

_SHOWN_AGAIN = (BadInputError, ConflictError, *_NO_ANSWER)
_TIMES = ("idle_ttl_s", "retained_ttl_s")
Fields = dict[str, list[str]]


@router.get("/new-environment")
def ask(
    request: Request, caller: Admin, door: TheDoor, provider: Annotated[Text, Query()] = ""
) -> Response:
    """Ask for what a new environment is to be."""
    return _form(request, caller, door, provider=provider, values={})


@router.post("/new-environment")
def create(request: Request, caller: Admin, door: TheDoor, form: Form) -> Response:
    """Save a new environment, or show the form again with what is wrong in it."""
    key = first(form, "provider")
    tenant, actor = caller.tenant_id, caller.actor
    try:
        shape = door.read(lambda tx: fleet.provider(tx, key))
        config = inputs.config(shape["config_schema"], form)
        body = _body(form, {}) | {
            "name": first(form, "name").strip(),
            "provider": key,
            "config": config,
        }
        spec = parse(EnvironmentSpec, body)
        vetted = _vetted(
            door,
            caller,
            spec,
            form,
            before=lambda tx: saving.check_new(tx, spec.name, tenant_id=tenant),
        )
        door.write(
            "environment.create",
            lambda tx: saving.create(
                tx, spec, tenant_id=tenant, actor=actor, vetted=vetted.stored
            ),
        )
    except _SHOWN_AGAIN as problem:
        return _form(request, caller, door, provider=key, values=form, problem=problem)
    return go_to(f"/environments/{spec.name}", said="created")


@router.get("/environments/{name}/change")
def ask_to_change(
    name: EnvironmentName, request: Request, caller: Admin, door: TheDoor
) -> Response:
    """Show an environment as the form that would make it."""

    def work(tx: Tx) -> tuple[Row, dict[str, Any]]:
        row = environments.get(tx, name, tenant_id=caller.tenant_id)
        return row, _schema(tx, row["provider"])

    row, schema = door.read(work)
    return _form(
        request,
        caller,
        door,
        provider=row["provider"],
        values=_values(load(row["spec"]), schema) | {"seen": [iso(row["updated_at"]) or ""]},
        old=row,
    )


@router.post("/environments/{name}/change")
def change(
    name: EnvironmentName, request: Request, caller: Admin, door: TheDoor, form: Form
) -> Response:
    """Save what is different, or show the form again with what is wrong in it."""
    tenant, actor = caller.tenant_id, caller.actor

    def look(tx: Tx) -> tuple[Row, dict[str, Any]]:
        row = environments.get(tx, name, tenant_id=tenant)
        _check_seen(row, form)
        return row, _schema(tx, row["provider"])

    row = door.read(lambda tx: environments.get(tx, name, tenant_id=tenant))
    try:
        row, schema = door.read(look)
        old = load(row["spec"])
        body = _body(form, old)
        body["config"] = inputs.config_patch(schema, old.get("config") or {}, form)
        wanted = parse(changing.EnvironmentChange, body)
        spec = door.read(lambda tx: changing.to_vet(tx, row["id"], wanted, tenant_id=tenant))
        vetted = None if spec is None else _vetted(door, caller, spec, form)

        def save(tx: Tx) -> list[str]:
            _check_seen(environments.get(tx, row["id"], tenant_id=tenant), form)
            return changing.change(
                tx, row["id"], wanted, tenant_id=tenant, actor=actor, vetted=vetted
            )[1]

        changed = door.write("environment.change", save)
    except _SHOWN_AGAIN as problem:
        key = row["provider"]
        return _form(request, caller, door, provider=key, values=form, old=row, problem=problem)
    return go_to(f"/environments/{row['name']}", said="changed" if changed else "unchanged")


def _check_seen(row: Row, form: Fields) -> None:
    if first(form, "seen") != iso(row["updated_at"]):
        raise ConflictError(
            f"environment {row['name']} was changed meanwhile; load this page again to see it"
        )


def _schema(tx: Tx, provider: str) -> dict[str, Any]:
    """Return a provider's schema; of one that was never served, that of nothing."""
    try:
        schema: dict[str, Any] = fleet.provider(tx, provider)["config_schema"]
    except NotFoundError:
        return {}
    return schema


def _vetted(
    door: Door,
    caller: Caller,
    spec: EnvironmentSpec,
    form: Fields,
    *,
    before: Callable[[Tx], object] = lambda _tx: None,
) -> Vetted:
    with door.patiently():
        return vetting.vet(
            door.context,
            spec,
            tenant_id=caller.tenant_id,
            unchecked=first(form, "unchecked") == "yes",
            first=before,
        )


def _lines(form: Fields, name: str, shape: str) -> dict[str, str]:
    try:
        return inputs.pairs(first(form, name).replace("\r\n", "\n"))
    except ValueError as error:
        raise BadInputError(
            f"{name}: must be lines of {shape}, got {str(error)[:80]!r}", field=name
        ) from None


def _body(form: Fields, old: dict[str, Any]) -> dict[str, Any]:
    """Return all but name, provider and config: as a change of `old`, if there is one."""
    env: dict[str, Any] = dict(_lines(form, "env", "NAME=VALUE"))
    for name, secret in _lines(form, "secrets", "NAME=SECRET").items():
        env[name] = {"secret": secret.strip()}
    before = (old.get("env") or {}).items()
    unsaid = [name for name, one in before if isinstance(one, dict)]
    dropped = {name: None for name in (*form.get("drop", []), *unsaid) if name not in env}
    most = first(form, "max_concurrent").strip()
    number: Any = int(most) if most.isdecimal() and len(most) < 9 else most or None  # noqa: PLR2004
    body: dict[str, Any] = {
        "description": first(form, "description"),
        "env": dropped | env,
        "policy": first(form, "policy") or LeasePolicy.EPHEMERAL.value,
        "requires": inputs.patch(old.get("requires") or {}, _lines(form, "requires", "K=V")),
        **{name: first(form, name).strip() or None for name in _TIMES},
    }
    if number is not None or old:
        body["limits"] = {"max_concurrent": number}
    return body


def _values(spec: dict[str, Any], schema: dict[str, Any]) -> Fields:
    """Return the form of an environment; of variables only the secrets' names are in it."""
    env = spec.get("env") or {}
    named = {name: one["secret"] for name, one in env.items() if isinstance(one, dict)}
    requires = spec.get("requires") or {}
    most = (spec.get("limits") or {}).get("max_concurrent")
    found = {
        "description": spec.get("description") or "",
        "policy": spec.get("policy") or "",
        "max_concurrent": str(most or ""),
        "secrets": "\n".join(f"{name}={secret}" for name, secret in named.items()),
        "requires": "\n".join(f"{name}={value}" for name, value in requires.items()),
        **{name: inputs.seconds(spec.get(name)) for name in _TIMES},
    }
    return {name: [text] for name, text in found.items()} | inputs.values(
        schema, spec.get("config") or {}
    )


def _form(
    request: Request,
    caller: Caller,
    door: Door,
    *,
    provider: str,
    values: Fields,
    old: Row | None = None,
    problem: LeaseholdError | None = None,
) -> Response:
    def work(tx: Tx) -> dict[str, Any]:
        providers = fleet.providers(tx)
        found = [shape for shape in providers if shape["key"] == provider]
        schema = found[0]["config_schema"] if found else {}
        return {
            "providers": providers,
            "provider": found[0] if found else None,
            "inputs": inputs.of(schema),
            "secrets": [row["name"] for row in secrets.page(tx, tenant_id=caller.tenant_id)],
        }

    spec = load(old["spec"]) if old else {}
    env = spec.get("env") or {}
    answer = page(
        request,
        "environment_form.html",
        title=f"Change {old['name']}" if old else "New environment",
        name=old["name"] if old else None,
        key=provider,
        plain=sorted(name for name, value in env.items() if isinstance(value, str)),
        policies=list(LeasePolicy),
        values=values,
        problem=str(problem) if problem else None,
        nobody=isinstance(problem, _NO_ANSWER),
        wrong=getattr(problem, "field", None),
        **door.read(work),
    )
    if problem is not None:
        answer.status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    return answer
