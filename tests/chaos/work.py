"""
What the hosts have to do during the chaos: real commands whose every start leaves a mark.

A command appends to a file outside of any sandbox and outside of the store: ``start <its
directory> <its pid>`` as its first act, ``end …`` as its last. What it prints is known
beforehand to the byte. `Feeder` lets so many runs a second arrive, from a thread of its own.
"""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

from leasehold import bootstrap
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.errors import LeaseholdError, StoreUnavailableError
from leasehold.orchestrator import submit
from leasehold.orchestrator.jobs import Context

_HEAD: Final = 'M="$MARKS/$NAME.{n}"; echo "start $PWD $$" >>"$M"; '
_TAIL: Final = '; echo "end $PWD $$" >>"$M"'
PAUSE_S: Final = 4
BATCH: Final = 25
INFRA: Final = 100
"""Attempts after faults that are nobody's: a run must not be parked by the monkey's luck."""


@dataclass(frozen=True)
class Piece:
    """One run: what it does, and what must come of it."""

    name: str
    kind: str
    argvs: tuple[tuple[str, ...], ...]
    outputs: tuple[bytes, ...]
    """What each command prints when it succeeds."""

    environment: str = "local"
    idempotent: bool = False
    retries: int = 0

    def spec(self, marks: Path) -> RunSpec:
        return parse(RunSpec, {
            "commands": [{"argv": argv} for argv in self.argvs],
            "env": {"MARKS": str(marks), "NAME": self.name},
            "idempotent": self.idempotent,
            "retries": self.retries,
            "max_infra_attempts": INFRA,
        })  # fmt: skip


def _shell(number: int, body: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", _HEAD.format(n=number) + body + _TAIL)


def _talk(name: str, lines: int) -> tuple[str, bytes]:
    body = (
        f"i=0; while [ $i -lt {lines} ]; do echo {name} line $i; i=$((i+1));"
        f" sleep {PAUSE_S}; done"
    )
    return body, b"".join(f"{name} line {i}\n".encode() for i in range(lines))


def _quick(name: str, _rng: random.Random, _marks: Path) -> Piece:
    return Piece(name, "quick", (_shell(0, f"echo {name}"),), (f"{name}\n".encode(),))


def _lines(name: str, rng: random.Random, _marks: Path) -> Piece:
    body, text = _talk(name, rng.randint(2, 8))
    return Piece(name, "lines", (_shell(0, body),), (text,))


def _idempotent(name: str, rng: random.Random, _marks: Path) -> Piece:
    body, text = _talk(name, rng.randint(2, 8))
    return Piece(name, "idempotent", (_shell(0, body),), (text,), idempotent=True)


def _big(name: str, rng: random.Random, _marks: Path) -> Piece:
    size = rng.randint(20_000, 150_000)
    half = f"head -c {size} /dev/zero | tr '\\0' "
    body = f"{half}a; sleep {PAUSE_S}; {half}b"
    return Piece(name, "big", (_shell(0, body),), (b"a" * size + b"b" * size,))


def _retry(name: str, _rng: random.Random, _marks: Path) -> Piece:
    body = f'[ "$(grep -c ^start "$M")" -ge 2 ] || exit 9; sleep 1; echo {name}'
    return Piece(name, "retry", (_shell(0, body),), (f"{name}\n".encode(),), retries=3)


def _pair(name: str, rng: random.Random, _marks: Path) -> Piece:
    first, text = _talk(name, rng.randint(1, 3))
    second = f"sleep 1; echo {name} two"
    argvs = (_shell(0, first), _shell(1, second))
    return Piece(name, "pair", argvs, (text, f"{name} two\n".encode()))


def _remote(name: str, rng: random.Random, marks: Path) -> Piece:
    """Work in a world that every host reaches; its commands are stamps on the clock."""
    sleep = rng.choice(("0.2", "0.5", "3"))
    words = ["mark", str(marks / f"{name}.0"), "then", "print", name, "then", "sleep", sleep]
    words += ["then", "fill", "1000"]
    out = name.encode() + b"x" * 1000
    return Piece(name, "remote", (tuple(words),), (out,), environment="remote")


_KINDS: Final = (
    (_quick, 20), (_lines, 18), (_idempotent, 22), (_big, 8), (_retry, 8), (_pair, 6),
    (_remote, 18),
)  # fmt: skip


def piece(number: int, rng: random.Random, marks: Path) -> Piece:
    """Make the run of that number."""
    makers, weights = zip(*_KINDS, strict=True)
    make = rng.choices(makers, weights)[0]
    made: Piece = make(f"r{number:06d}", rng, marks)
    return made


ENVIRONMENTS: Final = (("local", "local"), ("remote", "fake"))


@dataclass
class Feeder:
    """
    Lets `rate` runs a second arrive until it is stopped; none while `limit` are on their way.

    What arrives does not wait for what ends, as people's work does not: how much ends in a
    minute then says whether the deployment keeps up, and not what it was filled with before.
    """

    app: bootstrap.App
    context: Context
    marks: Path
    rate: float
    limit: int
    rng: random.Random
    pieces: dict[str, Piece] = field(default_factory=dict)
    """By run id, as far as the answer came; `reconcile` finds the rest by their keys."""

    named: dict[str, Piece] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    """Names of runs whose submit was answered: these are accepted."""

    turned_away: int = 0
    """Arrivals that found the limit reached."""

    refused: list[str] = field(default_factory=list)
    """Faults of ours that are no outage."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="feeder", daemon=True)

    def furnish(self) -> None:
        """Make the environments."""
        with self.app.database.write("chaos.environments") as tx:
            for name, provider in ENVIRONMENTS:
                spec = parse(EnvironmentSpec, {"name": name, "provider": provider})
                submit.ensure_environment(tx, spec, tenant_id="default")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(60)

    def live(self) -> int:
        """Return how many runs are not over."""
        with self.app.database.read() as tx:
            return int(tx.value("SELECT count(*) FROM runs WHERE finished_at IS NULL"))

    def _loop(self) -> None:
        began = monotonic()
        while not self._stop.wait(0.1):
            try:
                owed = (
                    int((monotonic() - began) * self.rate) - len(self.named) - self.turned_away
                )
                if owed > 0 and self.live() + owed > self.limit:
                    self.turned_away += owed
                    continue
                for _ in range(min(BATCH, owed)):
                    self._one()
            except StoreUnavailableError:
                self._stop.wait(0.3)
            except LeaseholdError as error:
                self.refused.append(f"{type(error).__name__}: {error}")
                self._stop.wait(1.0)

    def _one(self) -> None:
        made = piece(len(self.named), self.rng, self.marks)
        self.named[made.name] = made
        request = submit.Request(
            spec=made.spec(self.marks), environment=made.environment, key=made.name
        )
        # The key makes a submit whose answer was lost the same submit when it is repeated.
        while True:
            try:
                with self.app.database.write("chaos.submit") as tx:
                    row, _ = submit.submit(tx, self.context, request)
            except StoreUnavailableError:
                if self._stop.wait(0.3):
                    raise
            else:
                self.pieces[str(row["id"])] = made
                self.answered.append(made.name)
                return

    def reconcile(self) -> None:
        """Find runs whose submit was never answered: they are accepted all the same."""
        with self.app.database.read() as tx:
            rows = tx.all("SELECT id, idempotency_key FROM runs")
        self.pieces = {row["id"]: self.named[row["idempotency_key"]] for row in rows}


def marks_of(directory: Path, name: str, commands: int) -> tuple[tuple[str, ...], ...]:
    """Return the lines that each command of a run has left."""
    return tuple(
        tuple(path.read_text().splitlines()) if path.exists() else ()
        for path in (directory / f"{name}.{number}" for number in range(commands))
    )


def submit_context(app: bootstrap.App, publish: Any) -> Context:
    """Return what a submit works with: admission at once, messages best effort."""
    return app.context(publish=publish)


def strangers(directory: Path, named: Sequence[str]) -> list[str]:
    """Return the mark files of runs that nobody has submitted."""
    known = set(named)
    return sorted(p.name for p in directory.iterdir() if p.stem not in known)
