"""
What goes wrong in one seed: which kinds of faults there are, how often, and how many it met.

Each seed has its own weather (*swarm testing*): about half of the kinds are off and the others
are rare or frequent, so that one loud fault does not drown the rest. When the storm is over
`calm` turns everything off and the deployment must find its way home alone.
"""

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Final

from leasehold.errors import BadInputError

CHANCES: Final[Mapping[str, float]] = {
    "broker.lost": 0.06,
    "broker.doubled": 0.06,
    "broker.delayed": 0.06,
    "commit.answer_lost": 0.015,
    "commit.cut": 0.015,
    "database.refused": 0.01,
    "database.slow": 0.01,
    "process.killed": 0.0015,
    "process.stopped": 0.0015,
    "thread.late": 0.015,
    "provider.refused": 0.04,
    "provider.answer_lost": 0.04,
    "provider.slow": 0.04,
    "provider.hung": 0.01,
    "provider.late": 0.01,
    "provider.full": 0.03,
    "provider.denied": 0.002,
    "listing.short": 0.1,
}
"""Kind → its chance at each opportunity, in the middle of its range."""

EVERY_S: Final[Mapping[str, float]] = {
    "broker.away": 40,
    "broker.flushed": 30,
    "database.away": 60,
    "host.cut": 60,
    "host.crashed": 80,
    "agent.killed": 60,
    "agent.drained": 80,
    "agent.stopped": 60,
    "sandbox.lost": 40,
    "clock.jumped": 60,
    "clock.unwatched": 90,
}
"""Kind → seconds between two of it, in the middle of its range."""


class Weather:
    """The faults of one seed."""

    def __init__(self, rng: Random, *, storm: bool = True) -> None:
        self._rng = rng
        self.met: Counter[str] = Counter()
        self.chances: dict[str, float] = {}
        self.every_s: dict[str, float] = {}
        for kind, chance in CHANCES.items():
            strength = 10 ** rng.uniform(-0.7, 0.6)
            if rng.random() < 0.5 and storm:  # noqa: PLR2004
                self.chances[kind] = min(0.5, chance * strength)
        for kind, seconds in EVERY_S.items():
            strength = 10 ** rng.uniform(-0.8, 0.4)
            if rng.random() < 0.4 and storm:  # noqa: PLR2004
                self.every_s[kind] = seconds * strength

    def force(self, kinds: Mapping[str, float]) -> None:
        """
        Set some kinds by hand: a chance at each opportunity, or seconds between two.

        Raises:
            BadInputError: There is no such kind.
        """
        for kind, value in kinds.items():
            if kind in CHANCES:
                self.chances[kind] = value
            elif kind in EVERY_S:
                self.every_s[kind] = value
            else:
                there = ", ".join(sorted({*CHANCES, *EVERY_S}))
                raise BadInputError(f"no fault {kind!r}; there are: {there}", field=kind)

    def calm(self) -> None:
        """From now on nothing goes wrong any more."""
        self.chances.clear()
        self.every_s.clear()

    @property
    def is_calm(self) -> bool:
        return not self.chances and not self.every_s

    def strikes(self, kind: str) -> bool:
        """Return whether this fault happens now; it is counted."""
        chance = self.chances.get(kind)
        if chance is None or self._rng.random() >= chance:
            return False
        self.met[kind] += 1
        return True

    def next_after(self, kind: str) -> float | None:
        """Return the seconds until the next fault of a timed kind, or None."""
        seconds = self.every_s.get(kind)
        return None if seconds is None else self._rng.expovariate(1 / seconds)

    def some(self, low: float, high: float) -> float:
        """Return a duration between the two; each order of magnitude is as likely."""
        return float(low * (high / low) ** self._rng.random())
