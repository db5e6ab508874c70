"""`client.providers`, `client.workers` and `client.hosts`: who serves what, and where."""

from collections.abc import Iterator, Mapping
from typing import Any

from leasehold.client.paging import items, part
from leasehold.client.shapes import Host, Provider, Worker
from leasehold.client.wire import Wire


class Providers:
    """`client.providers`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self) -> Iterator[Provider]:
        """Yield what workers have loaded, by key."""
        return map(Provider.read, items(self._wire, "providers", pages=False))

    def get(self, key: str) -> Provider:
        """Return a provider: capabilities, config schema, where it is served."""
        return Provider.read(self._wire.get(f"providers/{part(key)}"))


class Workers:
    """`client.workers`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self, *, gone: bool = False) -> Iterator[Worker]:
        """Yield worker processes; those that are gone only if asked."""
        query = {"gone": gone or None}
        return map(Worker.read, items(self._wire, "workers", query, pages=False))


class Hosts:
    """`client.hosts`; to drain or forget one needs a key of the platform."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self) -> Iterator[Host]:
        """Yield hosts, alive or not."""
        return map(Host.read, items(self._wire, "hosts", pages=False))

    def drain(self, host_id: str) -> Host:
        """Send nothing new to a host; what runs there goes on."""
        return Host.read(self._wire.post(f"hosts/{part(host_id)}/drain", repeat=True))

    def forget(self, host_id: str, *, force: bool = False) -> Mapping[str, Any]:
        """
        Forget a host that will never come back; return it with how many leases ended.

        Raises:
            ConflictError: It is alive; or leases are on it, and `force` is not given.
        """
        consent = {"confirm": host_id if force else None}
        found: Mapping[str, Any] = self._wire.ask(
            "DELETE", f"hosts/{part(host_id)}", query=consent
        )
        return found
