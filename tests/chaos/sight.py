"""What the monkey sees of a host, in SQL and on the machine."""

from dataclasses import dataclass

from chaos.hosts import Host
from chaos.recovery import Held, held_by
from leasehold.errors import StoreUnavailableError
from leasehold.store.database import Database


@dataclass(frozen=True)
class Sight:
    """Looks through a database that may be away: then it sees nothing."""

    database: Database

    def workers(self, host: Host) -> dict[int, str]:
        """Return pid → worker id of a host's workers."""
        try:
            with self.database.read() as tx:
                rows = tx.all(
                    "SELECT pid, id FROM workers WHERE host_id = :h AND status <> 'gone'",
                    h=host.id,
                )
        except StoreUnavailableError:
            return {}
        return {row["pid"]: row["id"] for row in rows}

    def is_whole(self, host: Host) -> bool:
        """Tell whether all workers of a host consume, and a warm one waits beside them."""
        pids = set(host.children())
        if len(pids) != host.slots + 1:
            return False
        try:
            with self.database.read() as tx:
                rows = tx.all(
                    "SELECT pid FROM workers WHERE host_id = :h AND status = 'ready'", h=host.id
                )
        except StoreUnavailableError:
            return False
        ready = {row["pid"] for row in rows} & pids
        return len(ready) == host.slots and pids - ready <= host.warm()

    def busy(self, worker_ids: list[str]) -> list[str]:
        """Return those of these workers that claim a row."""
        try:
            with self.database.read() as tx:
                return [worker_id for worker_id in worker_ids if held_by(tx, [worker_id])]
        except StoreUnavailableError:
            return []

    def held(self, worker_ids: list[str]) -> list[Held]:
        """Return the rows that these workers claim."""
        try:
            with self.database.read() as tx:
                return held_by(tx, worker_ids)
        except StoreUnavailableError:
            return []
