"""Environments: those there are, one of them, whether it works now, and how it goes."""

from typing import Any

from fastapi import APIRouter, Request, Response

from leasehold.api.asking import EnvironmentName, LeaseId
from leasehold.api.door import Admin, Operator, TheDoor, Viewer
from leasehold.api.pages.page import Form, first, go_to, look, page
from leasehold.domain import restricting
from leasehold.domain.lifecycle import EnvironmentStatus
from leasehold.errors import NotFoundError
from leasehold.orchestrator import archiving, probing, selecting
from leasehold.store import environments, fleet, leases, radius, views, watching
from leasehold.store.database import Row, Tx

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


@router.post("/environments/{name}/probe")
def probe(name: EnvironmentName, caller: Operator, door: TheDoor, _form: Form) -> Response:
    """Make one new sandbox of it, which is destroyed as soon as it was there."""

    def begin(tx: Tx) -> tuple[Row, Row]:
        row = environments.get(tx, name, tenant_id=caller.tenant_id)
        selecting.check_active(row)
        return row, probing.begin(tx, door.context, row, actor=caller.actor)

    row, lease = door.write("probe", begin)
    return go_to(f"/environments/{row['name']}/probes/{lease['id']}")


@router.get("/environments/{name}/probes/{lease_id}")
def probed(
    name: EnvironmentName, lease_id: LeaseId, request: Request, caller: Operator, door: TheDoor
) -> Response:
    """Show how far a probe is, and what it found."""

    def work(tx: Tx) -> dict[str, Any]:
        row = environments.get(tx, name, tenant_id=caller.tenant_id)
        lease = leases.get(tx, lease_id, tenant_id=caller.tenant_id)
        if lease["environment_id"] != row["id"] or not probing.is_probe(lease):
            raise NotFoundError(f"there is no probe {lease_id} of environment {row['name']}")
        shape = views.lease_view(lease)
        return {
            "place": watching.newest_event(tx),
            "probe": probing.view(tx, lease),
            "lease": shape,
            "now": views.iso(tx.now()),
        }

    found = look(request, caller, door, work)
    return page(request, "probe.html", title=f"Probe of {name}", name=name, **found)


@router.get("/environments/{name}/delete")
def ask_to_delete(
    name: EnvironmentName, request: Request, caller: Admin, door: TheDoor
) -> Response:
    """Show what a deletion would touch; nothing happens yet."""

    def work(tx: Tx) -> dict[str, Any]:
        row = environments.get(tx, name, tenant_id=caller.tenant_id)
        return {
            "environment": views.environment_view(row),
            "radius": radius.in_detail(tx, row["id"]),
        }

    return page(request, "environment_delete.html", title=f"Delete {name}", **door.read(work))


@router.post("/environments/{name}/delete")
def delete(name: EnvironmentName, caller: Admin, door: TheDoor, form: Form) -> Response:
    """Delete it; with runs or leases in it only with its name, typed."""

    def work(tx: Tx) -> None:
        tenant, actor = caller.tenant_id, caller.actor
        row = environments.get(tx, name, tenant_id=tenant)
        given = first(form, "confirm").strip() == row["name"]
        consent = None if given else f"its name, {row['name']}, typed into the field"
        archiving.delete(tx, name, tenant_id=tenant, actor=actor, consent=consent)

    door.write("environment.delete", work)
    return go_to("/environments", said="deleted")
