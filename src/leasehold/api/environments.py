"""``/environments``: the named places where work may run."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import Decent, EnvironmentName, Filters
from leasehold.api.door import Admin, Caller, TheDoor, Viewer
from leasehold.domain import restricting
from leasehold.domain.lifecycle import EnvironmentStatus
from leasehold.domain.specs import EnvironmentSpec, Text, parse
from leasehold.orchestrator import archiving, changing, saving, vetting
from leasehold.orchestrator.vetting import WAIT, WAIT_MAX
from leasehold.store import environments, radius, views
from leasehold.store.database import Row, Tx
from leasehold.store.views import Shape

router = APIRouter(prefix="/environments", tags=["environments"])


class EnvironmentFilters(Filters):
    status: EnvironmentStatus | None = None
    provider: Text | None = None


class Consent(Filters):
    confirm: Text | None = None
    """Its name, as in the path: delete it although runs are not over or leases live in it."""


def _shape(row: Row, caller: Caller) -> Shape:
    return restricting.environment(views.environment_view(row), caller.role)


class Checking(Filters):
    unchecked: bool = False
    """Ask no worker what the provider says of the config; the environment shows it."""

    wait_s: float = Field(default=WAIT.total_seconds(), gt=0, le=WAIT_MAX.total_seconds())
    """For a worker that is ready, and its answer."""

    @property
    def wait(self) -> timedelta:
        return timedelta(seconds=self.wait_s)


@router.post("", status_code=201)
def create(
    body: Annotated[EnvironmentSpec, Decent],
    asked: Annotated[Checking, Query()],
    caller: Admin,
    door: TheDoor,
) -> Answer:
    """Save a new environment; its config is checked by schema, then by a worker's provider."""
    spec = parse(EnvironmentSpec, body.model_dump(exclude_unset=True))
    tenant, actor = caller.tenant_id, caller.actor
    with door.patiently():
        vetted = vetting.vet(
            door.context,
            spec,
            tenant_id=tenant,
            wait=asked.wait,
            unchecked=asked.unchecked,
            first=lambda tx: saving.check_new(tx, spec.name, tenant_id=tenant),
        )
    row = door.write(
        "environment.create",
        lambda tx: saving.create(tx, spec, tenant_id=tenant, actor=actor, vetted=vetted.stored),
    )
    place = {"Location": f"/api/v1/environments/{spec.name}"}
    return Answer(_shape(row, caller) | vetted.answer(), status_code=201, headers=place)


@router.get("")
def list_(
    asked: Annotated[EnvironmentFilters, Query()], caller: Viewer, door: TheDoor
) -> Answer:
    """List all environments, by name."""
    rows = door.read(lambda tx: environments.page(tx, tenant_id=caller.tenant_id))
    items = [
        _shape(row, caller)
        for row in rows
        if asked.status in {None, row["status"]} and asked.provider in {None, row["provider"]}
    ]
    return Answer({"items": items, "next": None})


@router.get("/{name}")
def get(name: EnvironmentName, caller: Viewer, door: TheDoor) -> Answer:
    """Return an environment and how much is under way in it."""

    def work(tx: Tx) -> Shape:
        row = environments.get(tx, name, tenant_id=caller.tenant_id)
        counts = radius.blast_radius(tx, row["id"])
        return _shape(row, caller) | {
            "unfinished_runs": counts["runs"],
            "live_leases": counts["leases"],
        }

    return Answer(door.read(work))


@router.patch("/{name}")
def change(
    name: EnvironmentName,
    body: Annotated[changing.EnvironmentChange, Decent],
    asked: Annotated[Checking, Query()],
    caller: Admin,
    door: TheDoor,
) -> Answer:
    """Merge what is given into it (null removes); another provider's config is a whole one."""
    wanted = parse(changing.EnvironmentChange, body.model_dump(exclude_unset=True))
    tenant, actor = caller.tenant_id, caller.actor
    spec = door.read(lambda tx: changing.to_vet(tx, name, wanted, tenant_id=tenant))
    vetted = None
    if spec is not None:
        with door.patiently():
            vetted = vetting.vet(
                door.context,
                spec,
                tenant_id=tenant,
                wait=asked.wait,
                unchecked=asked.unchecked,
            )
    row, changed = door.write(
        "environment.change",
        lambda tx: changing.change(
            tx, name, wanted, tenant_id=tenant, actor=actor, vetted=vetted
        ),
    )
    shape = _shape(row, caller) | {"changed": changed}
    return Answer(shape | (vetted.answer() if vetted is not None else {}))


@router.get("/{name}/blast-radius")
def blast_radius(name: EnvironmentName, caller: Viewer, door: TheDoor) -> Answer:
    """Return what a change or a deletion would touch: unfinished runs and live leases."""

    def work(tx: Tx) -> Shape:
        row = environments.get(tx, name, tenant_id=caller.tenant_id)
        return radius.in_detail(tx, row["id"])

    return Answer(door.read(work))


@router.post("/{name}/archive")
def archive(name: EnvironmentName, caller: Admin, door: TheDoor) -> Answer:
    """Take no new runs in it; what runs goes on, idle leases end."""
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "environment.archive",
        lambda tx: archiving.archive(tx, name, tenant_id=tenant, actor=actor),
    )
    return Answer(_shape(row, caller))


@router.post("/{name}/unarchive")
def unarchive(name: EnvironmentName, caller: Admin, door: TheDoor) -> Answer:
    """Take runs in it again."""
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "environment.unarchive",
        lambda tx: archiving.take_up(tx, name, tenant_id=tenant, actor=actor),
    )
    return Answer(_shape(row, caller))


@router.delete("/{name}")
def delete(
    name: EnvironmentName, asked: Annotated[Consent, Query()], caller: Admin, door: TheDoor
) -> Answer:
    """Delete it; with runs or leases in it only with consent, and 409 says how many."""
    tenant, actor = caller.tenant_id, caller.actor
    consent = None if asked.confirm == name else f"?confirm={name}"
    row = door.write(
        "environment.delete",
        lambda tx: archiving.delete(tx, name, tenant_id=tenant, actor=actor, consent=consent),
    )
    counts = {"unfinished_runs": row["runs"], "live_leases": row["leases"]}
    return Answer({"id": row["id"], "name": row["name"], "deleted": True, **counts})
