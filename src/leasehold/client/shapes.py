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


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact(Shown):
    """What a run left: a file that it kept, or what it changed in its workspace."""

    kind: str
    path: str
    bytes: int | None
    sha256: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Radius(Shown):
    """What a change or a deletion of an environment would touch."""

    unfinished_runs: int
    live_leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Shown):
    """Why a run or a lease is where it is."""

    id: str
    noun: str
    status: str
    reason: str
    changes: str
    """What would change it."""

    when: str | None
    details: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Who(Shown):
    """Whom a key speaks for."""

    tenant: str | None
    """None: the platform."""

    role: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(Shown):
    """What makes sandboxes."""

    key: str
    version: str
    health: str
    summary: str
    live: bool
    host_bound: bool
    capabilities: Shape
    config_schema: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker(Shown):
    """A worker process."""

    id: str
    host: str
    host_id: str
    pid: int
    kind: str
    status: str
    labels: Mapping[str, str]
    started_at: datetime
    gone_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host(Shown):
    """A machine with workers."""

    id: str
    name: str
    live: bool
    draining: bool
    capacity: int | None
    labels: Mapping[str, str]
    alive_at: datetime | None
    leases: int | None = None
    """Shown to keys of the platform only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret(Shown):
    """A name and its version; never a value."""

    name: str
    version: int
    leases: int
    """Live leases that name it."""

    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Shown):
    """Runs that a clock makes."""

    id: str
    name: str
    status: str
    cron: str | None
    timezone: str
    environment: str
    next_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Shown):
    """Who may use the API; never the key itself."""

    id: str
    name: str
    role: str
    prefix: str
    status: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey(Key):
    """A key that was just made: shown this once."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant(Shown):
    """Who owns environments, secrets, runs and keys."""

    name: str
    status: str
    description: str
    limits: Shape
    created_at: datetime
    queued_runs: int | None = None
    running_runs: int | None = None
    live_leases: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention(Shown):
    """For how many seconds after their end things are kept; None: for ever."""

    runs_s: float | None
    output_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Shown):
    """What came of one sandbox that was made of a config and destroyed."""

    ok: bool | None
    """None: it is still being made."""

    state: str
    """`making`, `destroying` or `over`."""

    environment: str
    provider: str
    summary: str
    details: Shape
    warnings: tuple[str, ...] = ()
    """What the provider has said of the config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(Shown):
    """Where runs go that name no environment."""

    kind: str
    """`workspace`, `project` or `tenant`."""

    name: str
    environment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook(Shown):
    """Who is told when runs end."""

    id: str
    name: str
    url: str
    """For viewers: its origin only."""

    enabled: bool
    statuses: tuple[str, ...] | None
    labels: Mapping[str, str] | None
    environment: str | None
    waiting: int
    """How many deliveries it is owed."""

    failures: int
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook(Webhook):
    """A webhook with the secret that signs, shown this once."""

    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Shown):
    """What a webhook is owed, or was sent."""

    id: str
    run_id: str
    event: str
    status: str
    attempts: int
    last_status: int | None
    last_error: str | None
    next_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed(Shown):
    """Who has changed what; names of fields, never what is in them."""

    id: int
    at: datetime
    actor: str
    noun: str
    name: str
    run_id: str | None
    lease_id: str | None
    data: Shape
