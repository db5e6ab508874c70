"""What is to be played, and when its phases were."""

from dataclasses import dataclass
from typing import Final

WARM_S: Final = 34.0
"""As long as the longest command: then as much ends as arrives."""


@dataclass(frozen=True)
class Plan:
    """What is to be played."""

    seconds: float
    seed: int
    stack: str
    load: int
    """The most runs on their way at once."""

    rate: float
    """Runs that arrive in a second."""

    kill_every_s: float
    fault_every_s: float
    processes: int
    keep: bool = False

    @property
    def before_s(self) -> float:
        return max(20.0, min(60.0, self.seconds / 6))

    @property
    def after_s(self) -> float:
        return max(20.0, min(60.0, self.seconds / 3))

    @property
    def faults_s(self) -> float:
        return max(20.0, self.seconds - self.before_s - self.after_s - WARM_S)


@dataclass
class Times:
    """When the phases were, on the database's clock, in microseconds."""

    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
