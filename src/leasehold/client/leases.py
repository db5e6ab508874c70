"""`client.leases`: the rights to use sandboxes."""

from collections.abc import Iterator, Sequence

from leasehold.client.handles import Lease
from leasehold.client.paging import items, part
from leasehold.client.wire import Wire
from leasehold.domain.fields import Duration, as_json
from leasehold.ids import new_id


class Leases:
    """`client.leases`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def create(
        self, environment: str, *, ttl: Duration | None = None, key: str | None = None
    ) -> Lease:
        """
        Make a sandbox of one's own; runs may name it at once, and wait until it is there.

        Args:
            environment: Its name.
            ttl: How long it is held.
            key: An idempotency key; by default one that is made here, for our own repeats.

        Raises:
            NotFoundError: There is no such environment.
            ConflictError: It is archived, or no host can take it now; the key was used with
                another body.
        """
        asked = {"environment": environment} | ({} if ttl is None else {"ttl_s": as_json(ttl)})
        return Lease.of(self._wire, self._wire.post("leases", asked, key=key or new_id()))

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
