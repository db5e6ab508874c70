"""
Token buckets: how often somebody may do something; pure but for what it remembers.

A bucket holds `burst` tokens and is filled again with `per_s` a second. Whoever finds it empty
is told when the next token is there. Buckets that were not used for longest are forgotten
first, which is the same as full.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

MOST: Final = 10_000


@dataclass(slots=True)
class Buckets:
    """A bucket for each name; for one thread."""

    per_s: float
    """0: no limit."""

    burst: float
    most: int = MOST
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    """By name: tokens, and when they were counted."""

    def take(self, name: str, *, now: float) -> float:
        """Take a token and return 0, or the seconds until there is one."""
        if not self.per_s:
            return 0.0
        left, since = self._left.get(name, (self.burst, now))
        left = min(self.burst, left + max(0.0, now - since) * self.per_s)
        wait = max(0.0, (1 - left) / self.per_s)
        self._put(name, left if wait else left - 1, now)
        return wait

    def give_back(self, name: str) -> None:
        """Put a token back that was taken for what is not counted after all."""
        if name in self._left:
            left, since = self._left[name]
            self._left[name] = (min(self.burst, left + 1), since)

    def _put(self, name: str, left: float, now: float) -> None:
        self._left[name] = (left, now)
        self._left.move_to_end(name)
        while len(self._left) > self.most:
            self._left.popitem(last=False)
