"""
Which thread of this process works on what.

A row's claim names a worker, not one of its threads. That is enough until an answer is lost
and the rows are asked "is this mine?": another thread of the same worker may have claimed the
row since, under the very fence that is looked for. So each thread says here what it holds, and
of two that take the same claim for theirs the first one keeps it. Nothing here outlives the
process, as no thread does.
"""

import threading
from typing import Any

from leasehold.store.database import Row


class Holds:
    """The claims that the threads of one process work on, by row and fence."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[str, int], object] = {}

    def take(self, job: Any, holder: object) -> bool:
        """Say that this holder works on a job; false if another one does."""
        with self._lock:
            return self._held.setdefault(_key(job), holder) is holder

    def is_anothers(self, job: Any, holder: object) -> bool:
        with self._lock:
            return self._held.get(_key(job), holder) is not holder

    def has(self, row_id: str, fence: int) -> bool:
        """Tell whether anybody here works on a row under this fence."""
        with self._lock:
            return (row_id, fence) in self._held

    def drop(self, holder: object) -> None:
        """Forget all that this holder has worked on."""
        with self._lock:
            for key in [key for key, other in self._held.items() if other is holder]:
                del self._held[key]


def _key(job: Any) -> tuple[str, int]:
    row: Row = job.lease or job.run
    return str(row["id"]), int(job.fence)
