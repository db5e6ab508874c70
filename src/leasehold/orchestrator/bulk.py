"""
To cancel or retry all runs that a filter finds: first seen, then done, page by page.

A preview counts them and gives a **mark**: where to begin, for which action and filter. Only a
mark lets anything happen, and each page of that gives the mark of the next. It begins at the
time of the preview and goes to older runs, so that what comes meanwhile is not touched (a
retry's new runs neither). Each run is a transaction of its own: one that cannot be moved is
its own answer, and no lock is held over another.

Killed in the middle, or its answer lost: the same mark does the same page again. A cancel
stands, and a retry has an idempotency key of mark and run, so nothing happens twice.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from leasehold.domain.fingerprint import canonical_json
from leasehold.domain.lifecycle import RUN_ENDS, EndKind, RunStatus
from leasehold.errors import ConflictError
from leasehold.ids import new_id
from leasehold.orchestrator import ending, submit
from leasehold.orchestrator.jobs import Context
from leasehold.store import finding, runs
from leasehold.store.database import Row, Tx

COUNT_MAX: Final = 100_000
"""More are not counted: an answer must come while somebody waits for it."""

SHOWN: Final = 50
PAGE_MAX: Final = 100


class Action(StrEnum):
    CANCEL = "cancel"
    RETRY = "retry"


POSSIBLE: Final[Mapping[Action, frozenset[RunStatus]]] = {
    Action.CANCEL: frozenset(RunStatus) - RUN_ENDS,
    Action.RETRY: RUN_ENDS,
}
_UNLUCKY: Final = RUN_ENDS - {RunStatus.SUCCEEDED}
"""What is retried unless statuses are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is to happen, and to which runs of a tenant."""

    action: Action
    tenant_id: str
    statuses: Sequence[RunStatus] = ()
    environment: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """Return what two marks of the same action and filter have in common."""
        named = [sorted(self.statuses), self.environment, dict(self.labels)]
        text = canonical_json([self.action.value, self.tenant_id, *named])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def found_by(self) -> dict[str, Any]:
        """Return the filter as the store takes it, without what the action cannot move."""
        possible = POSSIBLE[self.action]
        asked = frozenset(self.statuses)
        if not asked:
            asked = _UNLUCKY if self.action is Action.RETRY else possible
        return {
            "tenant_id": self.tenant_id,
            "statuses": sorted(asked & possible),
            "environment": self.environment,
            "labels": self.labels,
        }


@dataclass(frozen=True, slots=True)
class Mark:
    """Where to go on: after the run with this time and id."""

    digest: str
    batch: str
    """One for a preview and all pages that follow from it."""

    at: int
    run_id: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen."""

    count: int
    ids: Sequence[str]
    mark: Mark | None


def preview(tx: Tx, what: Selection) -> Preview:
    """Count the runs that an action would be about, up to `COUNT_MAX`; change nothing."""
    found_by = what.found_by()
    if not found_by["statuses"]:
        return Preview(0, (), None)
    now = tx.now()
    rows = finding.run_rows(tx, **found_by, limit=SHOWN, after=(now, ""))
    if not rows:
        return Preview(0, (), None)
    count = finding.count(tx, **found_by, most=COUNT_MAX, after=(now, ""))
    mark = Mark(what.digest(), new_id(), now, "")
    return Preview(count, [row["id"] for row in rows], mark)


def page(tx: Tx, what: Selection, mark: Mark, *, limit: int) -> tuple[list[str], Mark | None]:
    """
    Return the runs that come next, and the mark behind them if there may be more.

    Raises:
        ConflictError: The mark is of another action or filter.
    """
    if mark.digest != what.digest():
        raise ConflictError("mark: it is of another action or filter; ask with dry_run again")
    rows = finding.run_rows(tx, **what.found_by(), limit=limit, after=(mark.at, mark.run_id))
    ids = [row["id"] for row in rows]
    if len(rows) < limit:
        return ids, None
    last = rows[-1]
    return ids, Mark(mark.digest, mark.batch, last["created_at"], last["id"])


def act(
    tx: Tx, context: Context, what: Selection, mark: Mark, run_id: str, *, actor: str
) -> Row:
    """
    Do it to one run; return its row, or that of the new run.

    Raises:
        ConflictError: It has moved on meanwhile; a retry finds the queue full.
        NotFoundError: It, or what it needs, is gone.
    """
    run = runs.get(tx, run_id, tenant_id=what.tenant_id)
    if what.action is Action.RETRY:
        key = f"bulk-{mark.batch}-{run_id}"
        return submit.retry(tx, context, run, key=key, actor=actor)[0]
    if run["status"] in RUN_ENDS:
        raise ConflictError(f"run {run_id} is {run['status']} already")
    return ending.request_end(tx, context, run_id, EndKind.CANCEL, actor=actor)
