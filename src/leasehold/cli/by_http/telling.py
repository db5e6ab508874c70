"""Who is told when runs end, and where runs go that name no environment, over HTTP."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leasehold.cli.ports import Shape

if TYPE_CHECKING:
    from leasehold.client import Client
    from leasehold.domain.webhooks import WebhookChange, WebhookSpec
    from leasehold.orchestrator.selecting import SelectionSpec


class HttpSelections:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def list(self) -> list[Shape]:
        return [dict(one.raw) for one in self._client.selections.list()]

    def select(self, wanted: "SelectionSpec") -> Shape:
        kind, name = wanted.kind.value, wanted.name
        return dict(self._client.selections.select(kind, name, wanted.environment).raw)


class HttpWebhooks:
    def __init__(self, client: "Client") -> None:
        self._client = client

    def create(self, spec: "WebhookSpec") -> Shape:
        body: dict[str, Any] = spec.model_dump(mode="json", exclude_unset=True)
        return dict(self._client.webhooks.save(body).raw)

    def list(self) -> list[Shape]:
        return [dict(one.raw) for one in self._client.webhooks.list()]

    def show(self, name: str) -> Shape:
        return dict(self._client.webhooks.get(name).raw)

    def change(self, name: str, wanted: "WebhookChange") -> Shape:
        body: dict[str, Any] = wanted.model_dump(mode="json", exclude_unset=True)
        return dict(self._client.webhooks.change(name, body).raw)

    def new_secret(self, name: str) -> Shape:
        return dict(self._client.webhooks.new_secret(name).raw)

    def delete(self, name: str) -> Shape:
        return dict(self._client.webhooks.delete(name).raw)

    def deliveries(self, name: str, *, statuses: Sequence[str], limit: int) -> Sequence[Shape]:
        found = self._client.webhooks.deliveries(name, status=statuses, limit=limit)
        return [dict(one.raw) for one in found]

    def redeliver(self, name: str, delivery: str) -> Shape:
        return dict(self._client.webhooks.redeliver(name, delivery).raw)
