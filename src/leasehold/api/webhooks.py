"""``/webhooks``: who is told when runs end, and what they were sent."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from leasehold.api.answers import Answer
from leasehold.api.asking import ID, Decent, Page, cursor, place
from leasehold.api.door import Admin, Caller, Operator, TheDoor, Viewer
from leasehold.domain.lifecycle import DeliveryStatus
from leasehold.domain.roles import Role
from leasehold.domain.specs import parse
from leasehold.domain.webhooks import WebhookChange, WebhookSpec
from leasehold.orchestrator import hooking
from leasehold.store import webhooks
from leasehold.store.database import Row, Tx
from leasehold.store.views import Shape
from leasehold.store.webhook_views import delivery_view, webhook_view

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
WebhookName = Annotated[str, Path(pattern=ID, description="Its name or its id.")]
DeliveryId = Annotated[str, Path(pattern=ID)]


class DeliveryFilters(Page):
    status: list[DeliveryStatus] = Field(default_factory=list, max_length=len(DeliveryStatus))


def _shape(row: Row, caller: Caller, **more: Any) -> Shape:
    return webhook_view(row, whole=caller.role.allows(Role.ADMIN), **more)


@router.post("", status_code=201)
def create(body: Annotated[WebhookSpec, Decent], caller: Admin, door: TheDoor) -> Answer:
    """Tell this URL of the ends of runs; `secret`, which signs, is shown this once."""
    spec = parse(WebhookSpec, body.model_dump(mode="json", exclude_unset=True))
    keys, tenant, actor = door.secret_keys(), caller.tenant_id, caller.actor
    row, secret = door.write(
        "webhook.create",
        lambda tx: hooking.create(tx, keys, spec, tenant_id=tenant, actor=actor),
    )
    where = {"Location": f"/api/v1/webhooks/{spec.name}"}
    return Answer(_shape(row, caller) | {"secret": secret}, status_code=201, headers=where)


@router.get("")
def list_(caller: Viewer, door: TheDoor) -> Answer:
    """List all webhooks, by name; only an admin sees more of a URL than its origin."""

    def work(tx: Tx) -> list[Shape]:
        waiting = webhooks.waiting(tx, tenant_id=caller.tenant_id)
        rows = webhooks.page(tx, tenant_id=caller.tenant_id)
        return [_shape(row, caller, waiting=waiting.get(row["id"], 0)) for row in rows]

    return Answer({"items": door.read(work), "next": None})


@router.get("/{webhook}")
def get(webhook: WebhookName, caller: Viewer, door: TheDoor) -> Answer:
    """Return one webhook, how it does and how much it is owed."""

    def work(tx: Tx) -> Shape:
        row = webhooks.get(tx, webhook, tenant_id=caller.tenant_id)
        waiting = webhooks.waiting(tx, tenant_id=caller.tenant_id)
        return _shape(row, caller, waiting=waiting.get(row["id"], 0))

    return Answer(door.read(work))


@router.patch("/{webhook}")
def change(
    webhook: WebhookName,
    body: Annotated[WebhookChange, Decent],
    caller: Admin,
    door: TheDoor,
) -> Answer:
    """Change what is given; null means "all" again. Disabled, what waits is given up."""
    wanted = parse(WebhookChange, body.model_dump(mode="json", exclude_unset=True))
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "webhook.change",
        lambda tx: hooking.change(tx, webhook, wanted, tenant_id=tenant, actor=actor),
    )
    return Answer(_shape(row, caller))


@router.delete("/{webhook}")
def delete(webhook: WebhookName, caller: Admin, door: TheDoor) -> Answer:
    """Delete it and what it is owed."""
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "webhook.delete",
        lambda tx: hooking.delete(tx, webhook, tenant_id=tenant, actor=actor),
    )
    return Answer(_shape(row, caller))


@router.post("/{webhook}/secret")
def new_secret(webhook: WebhookName, caller: Admin, door: TheDoor) -> Answer:
    """Make another `secret`, shown this once; for a day the old one signs as well."""
    keys, tenant, actor = door.secret_keys(), caller.tenant_id, caller.actor
    row, secret = door.write(
        "webhook.secret",
        lambda tx: hooking.new_secret(tx, keys, webhook, tenant_id=tenant, actor=actor),
    )
    return Answer(_shape(row, caller) | {"secret": secret})


@router.get("/{webhook}/deliveries")
def deliveries(
    webhook: WebhookName,
    asked: Annotated[DeliveryFilters, Query()],
    caller: Viewer,
    door: TheDoor,
) -> Answer:
    """List what it is owed and was sent, the newest first, with the last answer."""
    after = place(asked.cursor, int, str)

    def work(tx: Tx) -> list[Row]:
        row = webhooks.get(tx, webhook, tenant_id=caller.tenant_id)
        statuses = [status.value for status in asked.status]
        return webhooks.deliveries(
            tx,
            row["id"],
            statuses=statuses,
            limit=asked.limit,
            after=(after[0], after[1]) if after else None,
        )

    rows = door.read(work)
    full = len(rows) == asked.limit
    following = cursor(rows[-1]["created_at"], rows[-1]["id"]) if full else None
    return Answer({"items": [delivery_view(row) for row in rows], "next": following})


@router.post("/{webhook}/deliveries/{delivery}/redeliver")
def redeliver(
    webhook: WebhookName, delivery: DeliveryId, caller: Operator, door: TheDoor
) -> Answer:
    """Send once more, under the same id, what was delivered or given up."""
    tenant, actor = caller.tenant_id, caller.actor
    row = door.write(
        "webhook.redeliver",
        lambda tx: hooking.redeliver(tx, webhook, delivery, tenant_id=tenant, actor=actor),
    )
    return Answer(delivery_view(row))
