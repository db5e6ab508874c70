"""`client.webhooks`: who is told when runs end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leasehold.client.paging import given, items, part
from leasehold.client.shapes import Delivery, NewWebhook, Webhook
from leasehold.client.wire import Wire


class Webhooks:
    """`client.webhooks`; each is named by its name or its id."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(
        self,
        name: str,
        url: str,
        *,
        statuses: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        environment: str | None = None,
        enabled: bool | None = None,
    ) -> NewWebhook:
        """Tell `url` of the ends of runs; what is not given means all of them."""
        asked = given(
            name=name,
            url=url,
            statuses=None if statuses is None else list(statuses),
            labels=labels,
            environment=environment,
            enabled=enabled,
        )
        return self.save(asked)

    def save(self, body: Mapping[str, Any]) -> NewWebhook:
        """Make a webhook from a body as the API takes it."""
        return NewWebhook.read(self._wire.post("webhooks", body))

    def get(self, name: str) -> Webhook:
        """Return one webhook, how it does and how much it is owed."""
        return Webhook.read(self._wire.get(f"webhooks/{part(name)}"))

    def list(self) -> Iterator[Webhook]:
        """Yield webhooks, by name."""
        return map(Webhook.read, items(self._wire, "webhooks", pages=False))

    def change(self, name: str, fields: Mapping[str, Any]) -> Webhook:
        """Change what is given; None means "all" again. Disabled, what waits is given up."""
        path = f"webhooks/{part(name)}"
        return Webhook.read(self._wire.ask("PATCH", path, body=dict(fields)))

    def new_secret(self, name: str) -> NewWebhook:
        """Make another secret; for a day the old one signs as well."""
        return NewWebhook.read(self._wire.post(f"webhooks/{part(name)}/secret"))

    def delete(self, name: str) -> Webhook:
        """Delete it and what it is owed."""
        return Webhook.read(self._wire.ask("DELETE", f"webhooks/{part(name)}"))

    def deliveries(
        self, name: str, *, status: Sequence[str] = (), limit: int | None = None
    ) -> Iterator[Delivery]:
        """Yield what it is owed and was sent, the newest first."""
        path, query = f"webhooks/{part(name)}/deliveries", {"status": list(status)}
        return map(Delivery.read, items(self._wire, path, query, limit=limit))

    def redeliver(self, name: str, delivery: str) -> Delivery:
        """Send once more, under the same id, what was delivered or given up."""
        path = f"webhooks/{part(name)}/deliveries/{part(delivery)}/redeliver"
        return Delivery.read(self._wire.post(path))
