"""
Whether the database's clock goes as boot time does, and by how much it has jumped.

Every time in SQL is the database's clock plus a stored offset. Who turns a clock of ours reads
both with one statement and knows, on its own CLOCK_BOOTTIME, when it asked and when it had the
answer. Between two such looks both clocks must have gone equally far. A difference of more
than `LIMIT_S` is a wall clock that was set: it is taken out of the offset, by compare-and-set
on the offset that was read, so that of many who see it one corrects it. A wall clock that is
slewed, or sets itself by less, is left alone.

If somebody else has changed the offset meanwhile while the raw clock went on evenly, that is
taken for right: two who disagree (one whose boot time stood still, say) do not fight.
"""

from dataclasses import dataclass
from typing import Final

LIMIT_S: Final = 5.0
SLOW_S: Final = 1.0
"""An answer that took longer says too little about when it was given."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    now_us: int
    offset_us: int


@dataclass(slots=True)
class Pace:
    """One process's memory of how the database's clock went."""

    _last: _Look | None = None
    _began: float | None = None

    @property
    def is_new(self) -> bool:
        """Nothing was looked at yet: a jump of before cannot be told."""
        return self._last is None

    def watched_us(self, *, at: float) -> int:
        """Return for how long this process has looked, at this boot time."""
        return 0 if self._began is None else int((at - self._began) * 1e6)

    def jump_us(self, *, now_us: int, offset_us: int, sent: float, received: float) -> int:
        """
        Return by how much the database's time has jumped since the last look; 0: it has not.

        Args:
            now_us: The database's time, the offset included.
            offset_us: The stored offset, read by the same statement.
            sent: Boot time before asking, in seconds.
            received: Boot time after the answer, in seconds.
        """
        if received - sent > SLOW_S:
            return 0
        look = _Look((sent + received) / 2, now_us, offset_us)
        jump = self._off_us(look.at, now_us)
        if self._last is not None and abs(jump) > _LIMIT_US:
            raw = jump - (offset_us - self._last.offset_us)
            if abs(raw) > _LIMIT_US:
                # The reference stays: who corrects it looks again.
                return jump
        if self._began is None:
            self._began = look.at
        self._last = look
        return 0

    def is_sane(self, now_us: int, *, at: float) -> bool:
        """Say whether a time of the database fits the last look, at this boot time."""
        return abs(self._off_us(at, now_us)) <= _LIMIT_US + int(SLOW_S * 1e6)

    def _off_us(self, at: float, now_us: int) -> int:
        if self._last is None:
            return 0
        return now_us - self._last.now_us - int((at - self._last.at) * 1e6)


_LIMIT_US: Final = int(LIMIT_S * 1e6)
