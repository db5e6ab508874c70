"""
How long it takes after a kill until what was claimed is claimed again.

At the moment of a kill the victim is stopped first, so what it holds is read exactly; then it
is killed and the clock starts. A thread looks at those rows every few milliseconds. *Given
up* is when the dead worker's claim is gone, *recovered* when somebody has claimed the row
anew, or it is over. A sample during which another fault was under way is kept apart: what
recovery costs while PostgreSQL is down says nothing about recovery.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from leasehold.errors import StoreUnavailableError
from leasehold.store.database import Database, Row, Tx

LOOK_S: Final = 0.005
_TAKE_OVER: Final = 2
"""Giving up raises a fence once, the next claim a second time."""

_STATE: Final = (
    "SELECT r.claimed_by, r.due_at, r.beat, r.finished_at, r.lease_id,"
    " COALESCE(l.fence, r.fence) AS fence FROM runs r"
    " LEFT JOIN leases l ON l.id = r.lease_id WHERE r.id = :id"
)
_LEASE_STATE: Final = (
    "SELECT claimed_by, due_at, false AS beat, finished_at, id AS lease_id, fence"
    " FROM leases WHERE id = :id"
)


@dataclass
class Held:
    """One row that a victim held at the moment of its death."""

    noun: str
    id: str
    queue: str
    before: Row


@dataclass
class Case:
    """One kill, and how its rows fare."""

    kind: str
    at: float
    pending: list[Held]
    victims: frozenset[str]
    alone: bool
    seconds: list[float] = field(default_factory=list)
    given_up: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    kind: str
    seconds: float
    alone: bool
    given_up_s: float | None
    """How much of it went by until the dead worker's claim was gone."""

    queue: str = ""
    """Where the row's next message went."""


def held_by(tx: Tx, worker_ids: Sequence[str]) -> list[Held]:
    """Return the rows that these workers claim."""
    found = []
    for worker_id in worker_ids:
        for row in tx.all("SELECT id, queue FROM runs WHERE claimed_by = :w", w=worker_id):
            before = tx.one(_STATE, id=row["id"])
            if before is not None and before["claimed_by"] == worker_id:
                found.append(Held("run", row["id"], row["queue"] or "", before))
        for row in tx.all("SELECT id, queue FROM leases WHERE claimed_by = :w", w=worker_id):
            before = tx.one(_LEASE_STATE, id=row["id"])
            if before is not None and before["claimed_by"] == worker_id:
                found.append(Held("lease", row["id"], row["queue"], before))
    return found


def is_recovered(before: Row, now: Row | None, *, victims: frozenset[str], now_us: int) -> bool:
    """Tell whether a row that a victim held has been claimed by somebody else since."""
    if now is None or now["finished_at"] is not None:
        return True
    if now["claimed_by"] is not None:
        return now["claimed_by"] not in victims
    if now["lease_id"] == before["lease_id"] and now["fence"] >= before["fence"] + _TAKE_OVER:
        return True
    if now["lease_id"] != before["lease_id"]:
        return True
    # A beat raises no fence: it has looked, and set the time of its next look.
    return bool(now["beat"]) and now["due_at"] is not None and now["due_at"] > now_us


class Watch:
    """Follows the rows of every kill from a thread of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.troubled: Callable[[Case], bool] = lambda _case: False
        """Whether another fault has stretched a case's recovery."""

        self._cases: list[Case] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="recovery", daemon=True)
        self.samples: list[Sample] = []
        self.never: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def follow(self, case: Case) -> None:
        if case.pending:
            with self._lock:
                self._cases.append(case)

    def stop(self) -> None:
        """Stop looking; what is still pending has not recovered."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)
        for case in self._cases:
            self.never += [f"{case.kind}: {held.noun} {held.id}" for held in case.pending]

    def _loop(self) -> None:
        while not self._stop.wait(LOOK_S if self._cases else 0.02):
            with self._lock:
                cases = list(self._cases)
            try:
                for case in cases:
                    self._look(case)
            except StoreUnavailableError:
                self._stop.wait(0.1)
            with self._lock:
                self._cases = [case for case in self._cases if case.pending]

    def _look(self, case: Case) -> None:
        with self._database.read() as tx:
            now_us = tx.now()
            states = [
                tx.one(_LEASE_STATE if held.noun == "lease" else _STATE, id=held.id)
                for held in case.pending
            ]
        took = monotonic() - case.at
        still = []
        for held, now in zip(case.pending, states, strict=True):
            if now is None or now["claimed_by"] not in case.victims:
                case.given_up.setdefault(held.id, took)
            if is_recovered(held.before, now, victims=case.victims, now_us=now_us):
                alone = case.alone and not self.troubled(case)
                self.samples.append(
                    Sample(case.kind, took, alone, case.given_up.get(held.id), held.queue)
                )
            else:
                still.append(held)
        case.pending = still


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share does not exceed; 0 for no values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


_EDGES: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 12, 15, 20, 30)


def histogram(values: Sequence[float]) -> list[tuple[str, int]]:
    """Return (up to how many seconds, how many), without the empty ends."""
    counts = [0] * (len(_EDGES) + 1)
    for value in values:
        counts[next((i for i, edge in enumerate(_EDGES) if value <= edge), len(_EDGES))] += 1
    names = [f"≤ {edge:g} s" for edge in _EDGES] + [f"> {_EDGES[-1]} s"]
    filled = [index for index, count in enumerate(counts) if count]
    if not filled:
        return []
    return list(zip(names, counts, strict=True))[filled[0] : filled[-1] + 1]


def summary(samples: Sequence[Sample], kind: str, *, alone: bool) -> dict[str, Any]:
    """Return count, median, p90, p99, largest and the histogram of one kind."""
    chosen = [s for s in samples if s.kind == kind and s.alone is alone]
    values = [s.seconds for s in chosen]
    waits = [s.given_up_s for s in chosen if s.given_up_s is not None]
    return {
        "samples": len(values),
        "p50_s": round(percentile(values, 0.5), 3),
        "p90_s": round(percentile(values, 0.9), 3),
        "p99_s": round(percentile(values, 0.99), 3),
        "max_s": round(max(values, default=0.0), 3),
        "given_up_p50_s": round(percentile(waits, 0.5), 3),
        "given_up_p99_s": round(percentile(waits, 0.99), 3),
        "histogram": histogram(values),
        "slowest": [
            [round(s.seconds, 3), round(s.given_up_s or 0, 3), s.queue]
            for s in sorted(chosen, key=lambda s: -s.seconds)[:5]
        ],
    }
