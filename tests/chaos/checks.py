"""
What must hold after the chaos, each as a function from what was found to what is wrong.

The store is one witness; the others are the commands' own marks, what lies on the disks of
the hosts, and what still runs. Nothing here reads a database: `evidence` gathers, so that a
test can plant any fault.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.work import Piece

_SUCCEEDED: Final = "succeeded"
_LEASE: Final = re.compile(r"/lease-([^/]+)/")


@dataclass(frozen=True)
class Breach:
    """One promise that did not hold, and where."""

    promise: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


@dataclass(frozen=True)
class Execution:
    """One row of executions, and what is stored of its standard output."""

    command: int
    attempt: int
    lease_id: str
    status: str
    exit_code: int | None
    output: bytes
    dropped: int = 0
    on_quota: bool = False
    """Its host's disk was filled on purpose at some time."""


@dataclass(frozen=True)
class Facts:
    """All that is known of one run."""

    run_id: str
    piece: Piece
    status: str
    code: str | None
    message: str | None
    executions: tuple[Execution, ...]
    marks: tuple[tuple[str, ...], ...]
    """Per command the lines that it appended."""

    @property
    def name(self) -> str:
        return f"run {self.run_id} ({self.piece.name}, {self.piece.kind})"


def ended(facts: Iterable[Facts]) -> list[Breach]:
    """P1: each run is over; all of this work can succeed, so it must have."""
    return [
        Breach("P1 ended", f"{each.name} is {each.status} ({each.code}: {each.message})")
        for each in facts
        if each.status != _SUCCEEDED
    ]


def once(facts: Iterable[Facts]) -> list[Breach]:
    """P2: the command of an attempt was started at most once; idempotent ones may overlap."""
    found = []
    for each in facts:
        for command, lines in enumerate(each.marks):
            found += [
                Breach("P2 once", f"{each.name}, command {command}: {why}")
                for why in _starts(each, command, lines)
            ]
    return found


def _starts(each: Facts, command: int, lines: Sequence[str]) -> list[str]:
    mine = [x for x in each.executions if x.command == command]
    starts = [line for line in lines if not line.startswith("end ")]
    ends = [line for line in lines if line.startswith("end ")]
    wrong = []
    attempts = len({x.attempt for x in mine})
    allowed = len(mine) if each.piece.idempotent else attempts
    if len(starts) > allowed:
        wrong.append(f"{len(starts)} starts, allowed are {allowed}: {starts}")
    if each.status == _SUCCEEDED and not starts:
        wrong.append("it succeeded and was never started")
    if each.piece.environment == "local":
        wrong += _places(mine, starts)
        if each.status == _SUCCEEDED and not ends:
            wrong.append("it succeeded and never came to its end")
        if len(ends) > 1 and not each.piece.idempotent:
            wrong.append(f"it came to its end {len(ends)} times")
    return wrong


def _places(mine: Sequence[Execution], starts: Sequence[str]) -> list[str]:
    """Each start was in the sandbox of a lease that had an execution of this command."""
    allowed = Counter(x.lease_id for x in mine)
    wrong = []
    for lease_id, count in Counter(_lease_of(line) for line in starts).items():
        if count > allowed[lease_id]:
            wrong.append(f"{count} starts in {lease_id}, executions there: {allowed[lease_id]}")
    return wrong


def _lease_of(line: str) -> str:
    found = _LEASE.search(line)
    return found[1] if found else line


def whole(facts: Iterable[Facts]) -> list[Breach]:
    """P2: of a command that succeeded not a byte of output is missing, doubled or strange."""
    found = []
    for each in facts:
        if each.status != _SUCCEEDED:
            continue
        for command, wanted in enumerate(each.piece.outputs):
            good = [x for x in each.executions if x.command == command and x.exit_code == 0]
            if not good:
                found.append(Breach("P2 output", f"{each.name}: no execution that succeeded"))
            elif why := _output(good[-1], wanted):
                found.append(Breach("P2 output", f"{each.name}, command {command}: {why}"))
    return found


def _output(execution: Execution, wanted: bytes) -> str:
    stored = execution.output
    if stored == wanted:
        return ""
    # A full disk counts as the cap: what did not fit is counted, and what is there is true.
    if execution.on_quota and execution.dropped:
        if wanted.startswith(stored) and len(stored) + execution.dropped == len(wanted):
            return ""
        return f"{len(stored)} B + {execution.dropped} B dropped are not {len(wanted)} B"
    at = next((i for i, (a, b) in enumerate(zip(stored, wanted, strict=False)) if a != b), None)
    differs = f", the first difference at {at}" if at is not None else ""
    return f"{len(stored)} B of {len(wanted)} B{differs}, {execution.dropped} B dropped"


def cut_short(facts: Iterable[Facts]) -> int:
    """Count the executions whose output a full disk has cut, and which say so."""
    return sum(1 for each in facts for x in each.executions if x.dropped)


def no_orphan(sandboxes: Iterable[Path], *, live: Iterable[str]) -> list[Breach]:
    """P3: no sandbox lies on any disk beyond the leases that live."""
    kept = set(live)
    return [
        Breach("P3 no orphan", f"{path} belongs to no live lease")
        for path in sandboxes
        if path.name.removeprefix("lease-") not in kept
    ]


def no_debt(live: Iterable[str]) -> list[Breach]:
    """P3: at the end no lease is live any more."""
    return [Breach("P3 no orphan", f"lease {lease_id} is still live") for lease_id in live]


def nothing_runs(processes: Iterable[str]) -> list[Breach]:
    """P4: a run is over when nothing of it runs."""
    return [Breach("P4 ended", f"still running: {process}") for process in processes]


def rows(violations: Iterable[object], differences: Iterable[object]) -> list[Breach]:
    """P3, P4, P5, P8, P9 as the store's own books have them."""
    return [Breach("invariant", str(each)) for each in violations] + [
        Breach("P9 history", str(each)) for each in differences
    ]


def nothing_unknown(strangers: Iterable[str], lost: Iterable[str]) -> list[Breach]:
    """P1: what was accepted is there, and nothing else was ever started."""
    return [
        Breach("P2 once", f"a mark of a run that nobody submitted: {s}") for s in strangers
    ] + [Breach("P1 ended", f"an accepted run is not in the store: {name}") for name in lost]


def sandboxes_of(place: Path) -> list[Path]:
    """Return the sandboxes that lie below one host's directory, half-made ones too."""
    root = place / "sandboxes"
    found = [path for path in root.glob("local/*") if not path.name.startswith(".")]
    for half_made in ("local/.new/*", "fake/sb/*", "fake/new.*", "fake/old.*"):
        found += root.glob(half_made)
    return [path for path in found if path.is_dir()]
