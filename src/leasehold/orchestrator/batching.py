"""
Many runs in one request: one transaction, one answer for each, in their order.

What is wrong with one of them is its own answer and does not spoil the others. What all of
them need is asked once: the keys that are known, the places, the queue's length, the lock. They
are written as queued runs, `runs.MANY` in a statement, and as many as may start at once are
admitted in the queue's own order, up to `ADMIT_NOW`; the clock admits the others.

Killed before the commit: there is none of them. Killed after it, before a publish: the rows
are due or queued, and the clock finds them. Items with keys may be asked for again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from leasehold.domain.fingerprint import canonical_json
from leasehold.errors import LeaseholdError
from leasehold.ids import new_id
from leasehold.orchestrator import admission, placing, preceding, submit
from leasehold.orchestrator.jobs import Context
from leasehold.orchestrator.submit import Request
from leasehold.store import environments, moves, runs, slots
from leasehold.store.database import Row, Tx

ADMIT_NOW: Final = 20
"""Each costs as much as in a request of its own."""


class Outcome(StrEnum):
    CREATED = "created"
    EXISTING = "existing"
    """Its key has made this run already."""

    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item: a run, or why there is none."""

    outcome: Outcome
    run_id: str | None = None
    error: LeaseholdError | None = None


def submit_batch(
    tx: Tx, context: Context, asked: Sequence[Request | LeaseholdError], *, tenant_id: str
) -> list[Answer]:
    """
    Accept runs; return what became of each, in order.

    Args:
        asked: An error in the place of a request that was none.
    """
    batch = _Batch(tx, context, asked, tenant_id=tenant_id)
    answers = [batch.answer(item) for item in asked]
    batch.write()
    return answers


class _Batch:
    """One batch under way; what its items share is asked when it is made."""

    def __init__(
        self,
        tx: Tx,
        context: Context,
        asked: Sequence[Request | LeaseholdError],
        *,
        tenant_id: str,
    ) -> None:
        requests = [item for item in asked if isinstance(item, Request)]
        keys = list(dict.fromkeys(one.key for one in requests if one.key is not None))
        names = list(dict.fromkeys(one.environment for one in requests if one.environment))
        if keys:
            slots.lock_keys(tx, keys, tenant_id=tenant_id)
            slots.lock(tx, wait=True)
        self._known = runs.find_by_keys(tx, keys, tenant_id=tenant_id)
        self._places = environments.find_many(tx, names, tenant_id=tenant_id)
        lacking = any(name not in self._places for name in names)
        self._there = environments.active_names(tx, tenant_id=tenant_id) if lacking else []
        self._tx, self._context = tx, context
        self._queue, self._tenant_id = (
            slots.count_queued_and_try(tx, tenant_id=tenant_id),
            tenant_id,
        )
        # Written in one moment: only their ids keep their order, in lists and in the queue.
        self._ids = iter(sorted(new_id() for _ in requests))
        self._fitting: set[tuple[str, str]] = set()
        self._rows: list[tuple[Row, Request]] = []
        self._before: dict[str, list[Row]] = {}
        """By run: what it starts after."""

    def answer(self, item: Request | LeaseholdError) -> Answer:
        if isinstance(item, LeaseholdError):
            return Answer(Outcome.REFUSED, error=item)
        try:
            return self._accept(item)
        except LeaseholdError as error:
            if error.retryable:
                raise  # the database is away: there is no batch
            return Answer(Outcome.REFUSED, error=error)

    def _accept(self, request: Request) -> Answer:
        if request.key is not None and (known := self._known.get(request.key)) is not None:
            submit.check_same(request, known)
            return Answer(Outcome.EXISTING, known["id"])
        environment, lease = self._place(request)
        self._check(request, environment, names_lease=lease is not None)
        submit.check_queue(self._context, self._queue, tenant_id=self._tenant_id)
        tenant_id = self._tenant_id
        before = preceding.rows_of(self._tx, request.after, tenant_id=tenant_id)
        waits = preceding.waits(before)
        row = submit.queued_row(
            self._tx, self._context, request, environment, lease, waits=waits
        )
        row["id"] = next(self._ids)
        self._before[row["id"]] = before
        self._queue = replace(self._queue, queued=self._queue.queued + 1)
        self._rows.append((row, request))
        if request.key is not None:
            self._known[request.key] = row
        return Answer(Outcome.CREATED, row["id"])

    def _place(self, request: Request) -> tuple[Row, Row | None]:
        if request.lease_id is not None:
            return submit.place_of(self._tx, request)
        assert request.environment is not None
        environment = self._places.get(request.environment)
        if environment is None:
            raise environments.missing(request.environment, self._there)
        submit.check_active(environment)
        return environment, None

    def _check(self, request: Request, environment: Row, *, names_lease: bool) -> None:
        """Check what a run requires of hosts; the same of the same place only once."""
        requires = request.spec.requires
        key = (environment["id"], canonical_json(requires))
        if names_lease or key not in self._fitting:
            placing.check_run(self._tx, environment, requires, names_lease=names_lease)
            self._fitting.add(key)

    def write(self) -> None:
        """Write what was accepted, and admit what may start at once."""
        tx, context = self._tx, self._context
        runs.insert_many(tx, "runs", [row for row, _ in self._rows])
        for number, (row, request) in enumerate(self._rows, 1):
            data = submit.by(request.actor) | preceding.said(request.after)
            event = ("run.queued", data)
            moves.record(tx, event, tenant_id=row["tenant_id"], run_id=row["id"])
            if number % runs.MANY == 0:
                moves.flush(tx)
        for row, _ in self._rows:
            preceding.write(tx, context, row, self._before[row["id"]])
        if not self._rows:
            return
        if self._queue.alone:
            admission.admit_batch(tx, context, limit=ADMIT_NOW)
        tx.after_commit.append(context.nudge)
