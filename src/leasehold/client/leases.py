"""`client.leases`: the rights to use sandboxes."""

from collections.abc import Iterator, Sequence

from leasehold.client.handles import Lease
from leasehold.client.paging import items, part
from leasehold.client.wire import Wire
from leasehold.domain.fields import Duration, as_json


class Leases:
    """`client.leases`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(self, environment: str, *, ttl: Duration | None = None) -> Lease:
        """
        Make a sandbox of one's own; runs may name it at once, and wait until it is there.

        Not repeated when its answer is lost, since that could make two.
        """
        asked = {"environment": environment} | ({} if ttl is None else {"ttl_s": as_json(ttl)})
        return Lease.of(self._wire, self._wire.post("leases", asked))

    def get(self, lease_id: str) -> Lease:
        """Return a lease."""
        return Lease.of(self._wire, self._wire.get(f"leases/{part(lease_id)}"))

    def list(
        self, *, status: Sequence[str] = (), live: bool = False, limit: int | None = None
    ) -> Iterator[Lease]:
        """Yield leases, the newest first."""
        query = {"status": list(status), "live": live or None}
        found = items(self._wire, "leases", query, limit=limit)
        return (Lease.of(self._wire, shape) for shape in found)
