"""
What the API shows, as frozen dataclasses.

A newer server may show more than is known here: that is left out, and is in `raw`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypeAlias

Shape: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Base of what is shown; times are `datetime`s in UTC."""

    raw: Shape = field(default_factory=dict, repr=False, compare=False)
    """Everything, as it came."""

    @classmethod
    def read(cls, shape: Shape, **more: Any) -> Self:
        """Build it from JSON; `more` are fields that are not in it."""
        known = {item.name for item in dataclasses.fields(cls) if item.init}
        values = {name: _value(name, shape[name]) for name in known & shape.keys()}
        return cls(**{**values, "raw": shape, **more})


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str) and (name == "at" or name.endswith(("_at", "_until"))):
        return datetime.fromisoformat(value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Shown):
    """A line of history."""

    id: int
    at: datetime
    name: str
    data: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(Shown):
    """One start of one command."""

    id: str
    number: int
    command: int
    """Its index in the run's commands; -1 is the set-up command."""

    attempt: int
    status: str
    exit_code: int | None
    signal: int | None
    stdout_bytes: int
    stderr_bytes: int
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Shown):
    """A named place where work may run."""

    id: str
    name: str
    status: str
    provider: str
    description: str
    config: Shape
    """For viewers: the names of its keys only."""

    policy: str
    limits: Shape
    requires: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    unfinished_runs: int | None = None
    """Shown by `get` only, as `live_leases`."""

    live_leases: int | None = None
