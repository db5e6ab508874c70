"""What a story of the crash suite is, and how its runs must end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from crash.harness import Cell, Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How a run must end."""

    status: str = "succeeded"
    code: str | None = None
    starts: tuple[int, int] = (1, 1)
    """How often its commands were started: at least, at most."""

    or_else: frozenset[tuple[str, str | None]] = frozenset()
    """Other statuses and codes that will do, where a race decides."""

    stdout: tuple[bytes, ...] | None = (b"one two\n",)
    """Of each command that ran, in order; None: not looked at."""

    stderr: tuple[bytes, ...] | None = (b"three\n",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One story."""

    name: str
    provider: str
    act: Callable[[Engine], bool]
    expect: Mapping[str, Expected]
    leases: frozenset[str] = frozenset({"released"})
    """Statuses in which its leases may end."""

    prepare: Callable[[Cell], None] = lambda _cell: None
    watch: Callable[[Engine, str, int], None] | None = None
    """Told each point that is passed; makes the world misbehave."""

    since: str = ""
    """The first point that no other story has before it; earlier ones are killed there."""

    only: Callable[[str], bool] = lambda _point: True
    """Which points of it are worth killing at."""

    tune: Callable[[Engine], None] = lambda _engine: None
    """Gives each worker another broker."""

    boots: bool = False
    """Points of the worker's own boot count as well."""

    proof: bool = False
    """Killed in `make proof`; `make test` tells it once, undisturbed."""

    @property
    def history(self) -> int:
        """Return how many points before one make it another situation (see `sweep`)."""
        return int(self.provider == "fake" and self.name in _BOTH_WAYS)

    @property
    def id(self) -> str:
        return f"{self.provider}-{self.name}"


_BOTH_WAYS: Final = {"success", "reuse", "cancel", "visit", "copy"}
ONE: Final = {"run": Expected()}
NOTHING: Final = Expected(
    status="cancelled", code="cancelled", starts=(0, 0), stdout=(), stderr=()
)
THRICE: Final = Expected(starts=(3, 3), stdout=(b"one two\n",) * 3, stderr=(b"three\n",) * 3)
OFTEN: Final = Expected(starts=(3, 9), stdout=None, stderr=None)
"""A supervisor that is slow is proven never to start; then the set-up comes once more."""

TWICE: Final = Expected(starts=(2, 2), stdout=(b"one two\n",) * 2, stderr=(b"three\n",) * 2)
BIG: Final = 2_500_000
