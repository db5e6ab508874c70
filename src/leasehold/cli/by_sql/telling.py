"""Who is told when runs end, and where runs go that name no environment, by SQL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leasehold.cli.by_sql.rights import keys_of
from leasehold.cli.door import Door
from leasehold.cli.ports import Shape
from leasehold.store import selections, views, webhooks
from leasehold.store.database import Row, Tx
from leasehold.store.webhook_views import delivery_view, webhook_view

if TYPE_CHECKING:
    from leasehold.domain.webhooks import WebhookChange, WebhookSpec
    from leasehold.orchestrator.selecting import SelectionSpec


class SqlSelections:
    def __init__(self, door: Door) -> None:
        self._door = door

    def list(self) -> list[Shape]:
        rows = self._door.read(lambda tx: selections.page(tx, tenant_id=self._door.tenant))
        return [views.selection_view(row) for row in rows]

    def select(self, wanted: "SelectionSpec") -> Shape:
        from leasehold.orchestrator import selecting

        tenant = self._door.tenant
        row = self._door.write(
            "selection", lambda tx: selecting.select(tx, wanted, tenant_id=tenant, actor="cli")
        )
        if row is not None:
            return views.selection_view(row)
        return {"kind": wanted.kind.value, "name": wanted.name, "environment": None}


class SqlWebhooks:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._mine: dict[str, Any] = {"tenant_id": door.tenant, "actor": "cli"}

    def create(self, spec: "WebhookSpec") -> Shape:
        from leasehold.orchestrator import hooking

        keys = keys_of(self._door, make=True)
        row, secret = self._door.write(
            "webhooks.create",
            lambda tx: hooking.create(tx, keys, spec, **self._mine),
            repeatable=False,
        )
        return webhook_view(row) | {"secret": secret}

    def list(self) -> list[Shape]:
        def work(tx: Tx) -> list[Shape]:
            waiting = webhooks.waiting(tx, tenant_id=self._door.tenant)
            rows = webhooks.page(tx, tenant_id=self._door.tenant)
            return [webhook_view(row, waiting=waiting.get(row["id"], 0)) for row in rows]

        return self._door.read(work)

    def show(self, name: str) -> Shape:
        def work(tx: Tx) -> Shape:
            row = webhooks.get(tx, name, tenant_id=self._door.tenant)
            waiting = webhooks.waiting(tx, tenant_id=self._door.tenant)
            return webhook_view(row, waiting=waiting.get(row["id"], 0))

        return self._door.read(work)

    def change(self, name: str, wanted: "WebhookChange") -> Shape:
        from leasehold.orchestrator import hooking

        row = self._door.write(
            "webhooks.update",
            lambda tx: hooking.change(tx, name, wanted, **self._mine),
            repeatable=False,
        )
        return webhook_view(row)

    def new_secret(self, name: str) -> Shape:
        from leasehold.orchestrator import hooking

        keys = keys_of(self._door, make=False)
        row, secret = self._door.write(
            "webhooks.secret",
            lambda tx: hooking.new_secret(tx, keys, name, **self._mine),
            repeatable=False,
        )
        return webhook_view(row) | {"secret": secret}

    def delete(self, name: str) -> Shape:
        from leasehold.orchestrator import hooking

        row = self._door.write(
            "webhooks.delete",
            lambda tx: hooking.delete(tx, name, **self._mine),
            repeatable=False,
        )
        return webhook_view(row)

    def deliveries(self, name: str, *, statuses: Sequence[str], limit: int) -> Sequence[Shape]:
        def work(tx: Tx) -> list[Row]:
            hook = webhooks.get(tx, name, tenant_id=self._door.tenant)
            return webhooks.deliveries(tx, hook["id"], statuses=statuses, limit=limit)

        return [delivery_view(row) for row in self._door.read(work)]

    def redeliver(self, name: str, delivery: str) -> Shape:
        from leasehold.orchestrator import hooking

        row = self._door.write(
            "webhooks.redeliver",
            lambda tx: hooking.redeliver(tx, name, delivery, **self._mine),
            repeatable=False,
        )
        return delivery_view(row)
