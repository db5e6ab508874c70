"""
Ask every live host to sweep, wait for their answers, and say whether the books are right.

The control plane loads no plugin: a request is a fact in SQL, agents read it with their beat,
their sweepers answer with a row for each provider. Who does not answer in time is named.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from leasehold.cli import output
from leasehold.cli.door import Door
from leasehold.store import restored, sweeps
from leasehold.store.database import Row, Tx

_POLL_S: Final = 0.2
COUNTS: Final = ("listed", "matched", "owed", "foreign", "forgotten", "orphans")
LISTS: Final = ("destroyed", "taken_in", "lost", "missing")


@dataclass(slots=True)
class Books:
    """What came of one request."""

    request: int
    dry_run: bool
    reports: list[dict[str, Any]] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    """``host/provider`` that did not answer in time."""

    away: list[str] = field(default_factory=list)
    """Hosts without a live session that leases still name: nobody could be asked there."""

    alarm: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every provider on every live host answered, and there was one to ask."""
        failed = any(report["error"] for report in self.reports)
        return bool(self.reports) and not self.silent and not failed

    @property
    def right(self) -> bool:
        """Whether what was answered agrees with SQL."""
        wrong = ("foreign", "orphans", "missing")
        return self.alarm is None and not any(
            report[name] for report in self.reports for name in wrong
        )

    def total(self, name: str) -> int:
        """Return the sum of a count, or of the lengths of a list."""
        values = (report[name] for report in self.reports)
        return sum(v if isinstance(v, int) else len(v) for v in values)

    def proof(self) -> str:
        """Return what was proven, or what stands against it, in one sentence."""
        if not self.reports and not self.silent:
            return "no worker of any host is alive, so nobody could be asked"
        if self.alarm:
            return self.alarm
        hosts = len({report["host_id"] for report in self.reports})
        if self.complete and self.right:
            return (
                f"zero orphans: {self.total('listed')} sandboxes listed on {hosts} hosts,"
                f" {self.total('matched')} of live leases, {self.total('owed')} being released"
                f"{self._taken_in()}"
            )
        parts = [f"{self.total(n)} {n}" for n in ("orphans", "foreign") if self.total(n)]
        if young := self.total("young"):
            parts.append(f"{young} of the orphans within their grace")
        if missing := self.total("missing"):
            parts.append(f"{missing} leases whose sandbox is missing")
        parts += [f"no answer from {name}" for name in self.silent]
        parts += [
            f"{report['host']}/{report['provider']} could not look: {report['error']}"
            for report in self.reports
            if report["error"]
        ]
        return f"not proven: {'; '.join(parts)}"

    def _taken_in(self) -> str:
        count = self.total("forgotten")
        return f", {count} forgotten by the database and taken in" if count else ""


def ask(door: Door, *, dry_run: bool) -> int:
    """Write the request; return its number."""
    return door.write("reconcile", lambda tx: sweeps.ask(tx, dry_run=dry_run))


def await_answers(
    door: Door, request: int, *, wait_s: float, dry_run: bool, hosts: Iterable[str] = ()
) -> Books:
    """
    Wait for the answer of every provider on every live host, and on `hosts` in any case.

    Args:
        hosts: Ids of hosts whose agents are just beginning anew.
    """
    line = output.ProgressLine()
    until = time.monotonic() + wait_s
    expected = set(hosts)
    while True:
        books = door.read(
            lambda tx: _look(tx, request, dry_run=dry_run, expected=frozenset(expected))
        )
        if not books.silent or time.monotonic() >= until:
            line.clear()
            return books
        answered = len(books.reports)
        line.show(f"{answered} answered; waiting for {', '.join(books.silent)}")
        time.sleep(_POLL_S)


def _look(tx: Tx, request: int, *, dry_run: bool, expected: frozenset[str]) -> Books:
    books = Books(request=request, dry_run=dry_run, alarm=restored.alarm(tx))
    answers = {(row["host_id"], row["provider"]): row for row in sweeps.answers(tx)}
    asked = sweeps.asked_of(tx)
    for row in asked:
        answer = answers.get((row["host_id"], row["provider"]))
        if answer is None or answer["request"] < request:
            books.silent.append(f"{row['host']}/{row['provider']}")
        else:
            books.reports.append(_shape(answer))
    here = {row["host_id"] for row in asked}
    books.silent += sorted(expected - here)
    books.away = [f"{row['name']} ({row['leases']} leases)" for row in sweeps.away(tx)]
    return books


def _shape(row: Row) -> dict[str, Any]:
    """Return one report with every field, also of a sweep that failed."""
    report = row["report"]
    return {
        "host_id": row["host_id"],
        "host": row["host"],
        "provider": row["provider"],
        "dry_run": row["dry_run"],
        **{name: report.get(name, 0) for name in (*COUNTS, "young")},
        **{name: report.get(name, []) for name in LISTS},
        "error": report.get("error"),
    }
