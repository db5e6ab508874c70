"""Many seeds at once, on several processors, and what they met in all."""

import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from leasehold.simulation.seed import Report, simulate

CHUNK: Final = 25


@dataclass(slots=True)
class Survey:
    """The totals of many seeds."""

    seeds: int = 0
    broken: dict[int, list[str]] = field(default_factory=dict)
    """Seed → the promises that it broke; empty is the only good answer."""

    met: Counter[str] = field(default_factory=Counter)
    """Kind of fault → how often it struck."""

    runs: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, report: Report) -> None:
        self.seeds += 1
        if report.broken:
            self.broken[report.seed] = report.broken
        self.met += report.met
        self.runs += report.runs
        self.reached += report.reached
        self.starts += report.starts
        self.virtual_s += report.virtual_s
        self.cpu_s += report.cpu_s

    def as_json(self) -> dict[str, Any]:
        """Return the totals as plain data."""
        return {
            "ok": not self.broken,
            "seeds": self.seeds,
            "broken": {str(seed): lines for seed, lines in sorted(self.broken.items())},
            "faults": dict(sorted(self.met.items())),
            "runs": dict(sorted(self.runs.items())),
            "reached": dict(sorted(self.reached.items())),
            "starts": self.starts,
            "virtual_s": round(self.virtual_s, 1),
            "cpu_s": round(self.cpu_s, 2),
        }


def _some(first: int, count: int) -> list[Report]:
    return [simulate(seed) for seed in range(first, first + count)]


def survey(
    first: int, count: int, *, jobs: int = 1, told: Callable[[Survey], None] = lambda _: None
) -> Survey:
    """
    Run `count` seeds from `first` on, in `jobs` processes.

    Args:
        told: Called with the totals so far, after each chunk of seeds.
    """
    total = Survey()
    chunks = [
        (start, min(CHUNK, first + count - start))
        for start in range(first, first + count, CHUNK)
    ]
    if jobs <= 1 or len(chunks) == 1:
        for start, size in chunks:
            for report in _some(start, size):
                total.add(report)
            told(total)
        return total
    # Fresh interpreters: a fork would copy whatever the caller has open.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for reports in pool.map(_some, *zip(*chunks, strict=True)):
            for report in reports:
                total.add(report)
            told(total)
    return total
