"""
Every status in the system, and every arrow between them.

The tables below are the only place where an arrow is drawn. `store.moves` turns them into
``WHERE status IN (...)``; docs/states.md is drawn from them, and a test fails if it is stale.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

S = TypeVar("S", bound=StrEnum)


class RunStatus(StrEnum):
    """One piece of work: commands to execute in an environment."""

    QUEUED = "queued"
    """Accepted; holds nothing. The ends of the runs that it starts after let it go; then
    admission moves it on, or its queue timeout."""

    RUNNING = "running"
    """Admitted; `step` names the next job. A worker, a beat or the clock moves it on."""

    PARKED = "parked"
    """Too many infrastructure losses; holds no live lease. A person or the deadline."""

    SUCCEEDED = "succeeded"
    """Over: every command ended with exit code 0."""

    FAILED = "failed"
    """Over: a command, the environment or the infrastructure failed; `code` says which."""

    CANCELLED = "cancelled"
    """Over: somebody asked for it, and nothing of it runs any more; or a run that it starts
    after ended otherwise than it needs."""

    TIMED_OUT = "timed_out"
    """Over: one of its timers ended it; `code` says which."""


class Step(StrEnum):
    """One lifecycle job; the next one of a running run."""

    VALIDATE = "validate"
    ACQUIRE = "acquire"
    EXECUTE = "execute"
    HEARTBEAT = "heartbeat"
    RELEASE = "release"


class LeaseStatus(StrEnum):
    """The right to use one sandbox."""

    ACQUIRING = "acquiring"
    """The intent: a sandbox may exist, or is being resumed."""

    ACTIVE = "active"
    """Held by one run, whose end moves it on."""

    RELEASING = "releasing"
    """Owed to the provider; `mode` says what. Retried with backoff for ever."""

    IDLE = "idle"
    """Kept for reuse until its time ends."""

    RETAINED = "retained"
    """Kept for a person until its time ends; a run of theirs may look into it, and leaves it
    retained."""

    RELEASED = "released"
    """Over: its sandbox was destroyed since nobody needs it any more."""

    EXPIRED = "expired"
    """Over: its idle, retained or held time ended; its sandbox was destroyed."""

    FAILED = "failed"
    """Over: its sandbox was lost or not to be trusted; what was left of it was destroyed."""


class ExecutionStatus(StrEnum):
    """One start of one command in a leased sandbox."""

    STARTING = "starting"
    """The intent: the command may have been started."""

    RUNNING = "running"
    """Its start was acknowledged: the supervisor has it, beats look after it. Until the
    supervisor has won `go`, a take-over may still prove that it never starts."""

    EXITED = "exited"
    """Over: its exit and all output up to the cap are stored."""

    LOST = "lost"
    """It may have run, its record is gone, nothing of it runs any more."""

    CANCELLED = "cancelled"
    """Proven: never started and never will be."""


class TenantStatus(StrEnum):
    """The owner of environments, secrets, runs and keys."""

    ACTIVE = "active"
    """Takes runs. The platform archives it."""

    ARCHIVED = "archived"
    """Takes no new runs and leases; what it has lives on. The platform takes it up again."""


class EnvironmentStatus(StrEnum):
    """A named place where work may run."""

    ACTIVE = "active"
    """Takes runs. A person archives it."""

    ARCHIVED = "archived"
    """Takes no new runs; what runs goes on. A person takes it up again."""


class ScheduleStatus(StrEnum):
    """Runs that a clock submits at their times."""

    ACTIVE = "active"
    """Has a next time. A clock submits its run then; a person pauses it."""

    PAUSED = "paused"
    """Makes no runs until a person resumes it."""

    DONE = "done"
    """It has no next time any more, unless a person gives it a new one."""


class DeliveryStatus(StrEnum):
    """What a webhook is owed: the end of one run."""

    PENDING = "pending"
    """Is tried when its time has come, by whichever courier is there first."""

    DELIVERED = "delivered"
    """The receiver answered that it has it. A person may have it sent again."""

    FAILED = "failed"
    """Given up: too old, or there is nobody to tell. A person may have it sent again."""


class WorkerStatus(StrEnum):
    """One worker process of a host agent."""

    STARTING = "starting"
    """Its process is there and reads no queue yet; it moves itself on."""

    READY = "ready"
    """Takes work. A drain or its death moves it on."""

    DRAINING = "draining"
    """Finishes what it holds and takes nothing new; then its agent calls it gone."""

    GONE = "gone"
    """Its process is dead or its session over; what it had claimed was given up."""


class SessionStatus(StrEnum):
    """A host agent's proof of life."""

    LIVE = "live"
    """Its counter grows. The agent or an observer moves it on."""

    ENDED = "ended"
    """The agent said good-bye."""

    EXPIRED = "expired"
    """An observer saw no beat for a whole time to live."""


class CleanupStatus(StrEnum):
    PENDING = "pending"
    FAILED = "failed"
    SUCCESS = "success"


class EndKind(StrEnum):
    """Why a run is to end before its command does; the first request stands."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    QUEUE_TIMEOUT = "queue_timeout"
    START_TIMEOUT = "start_timeout"
    PARK = "park"


class LeasePolicy(StrEnum):
    EPHEMERAL = "ephemeral"
    REUSE_BY_ENVIRONMENT = "reuse_by_environment"
    REUSE_BY_WORKSPACE = "reuse_by_workspace"
    RETAIN_ON_FAILURE = "retain_on_failure"


_R, _L, _X = RunStatus, LeaseStatus, ExecutionStatus
_RUN_ENDS: Final = frozenset({_R.SUCCEEDED, _R.FAILED, _R.CANCELLED, _R.TIMED_OUT})
_LEASE_ENDS: Final = frozenset({_L.RELEASED, _L.EXPIRED, _L.FAILED})
_EXECUTION_ENDS: Final = frozenset({_X.EXITED, _X.LOST, _X.CANCELLED})

RUN_MOVES: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    _R.QUEUED: frozenset({_R.RUNNING, _R.FAILED, _R.CANCELLED, _R.TIMED_OUT}),
    _R.RUNNING: frozenset({_R.QUEUED, _R.PARKED, *_RUN_ENDS}),
    _R.PARKED: frozenset({_R.QUEUED, _R.FAILED, _R.CANCELLED, _R.TIMED_OUT}),
    **{end: frozenset() for end in _RUN_ENDS},
}

LEASE_MOVES: Final[Mapping[LeaseStatus, frozenset[LeaseStatus]]] = {
    _L.ACQUIRING: frozenset({_L.ACTIVE, _L.IDLE, _L.RELEASING}),
    _L.ACTIVE: frozenset({_L.RELEASING, _L.IDLE}),
    _L.RELEASING: frozenset({_L.IDLE, _L.RETAINED, *_LEASE_ENDS}),
    _L.IDLE: frozenset({_L.ACQUIRING, _L.ACTIVE, _L.RELEASING, _L.RETAINED}),
    _L.RETAINED: frozenset({_L.ACTIVE, _L.RELEASING}),
    **{end: frozenset() for end in _LEASE_ENDS},
}

EXECUTION_MOVES: Final[Mapping[ExecutionStatus, frozenset[ExecutionStatus]]] = {
    _X.STARTING: frozenset({_X.RUNNING, *_EXECUTION_ENDS}),
    _X.RUNNING: _EXECUTION_ENDS,
    **{end: frozenset() for end in _EXECUTION_ENDS},
}

TENANT_MOVES: Final[Mapping[TenantStatus, frozenset[TenantStatus]]] = {
    TenantStatus.ACTIVE: frozenset({TenantStatus.ARCHIVED}),
    TenantStatus.ARCHIVED: frozenset({TenantStatus.ACTIVE}),
}

ENVIRONMENT_MOVES: Final[Mapping[EnvironmentStatus, frozenset[EnvironmentStatus]]] = {
    EnvironmentStatus.ACTIVE: frozenset({EnvironmentStatus.ARCHIVED}),
    EnvironmentStatus.ARCHIVED: frozenset({EnvironmentStatus.ACTIVE}),
}

SCHEDULE_MOVES: Final[Mapping[ScheduleStatus, frozenset[ScheduleStatus]]] = {
    ScheduleStatus.ACTIVE: frozenset({ScheduleStatus.PAUSED, ScheduleStatus.DONE}),
    ScheduleStatus.PAUSED: frozenset({ScheduleStatus.ACTIVE, ScheduleStatus.DONE}),
    ScheduleStatus.DONE: frozenset({ScheduleStatus.ACTIVE}),
}

DELIVERY_MOVES: Final[Mapping[DeliveryStatus, frozenset[DeliveryStatus]]] = {
    DeliveryStatus.PENDING: frozenset({DeliveryStatus.DELIVERED, DeliveryStatus.FAILED}),
    DeliveryStatus.DELIVERED: frozenset({DeliveryStatus.PENDING}),
    DeliveryStatus.FAILED: frozenset({DeliveryStatus.PENDING}),
}

WORKER_MOVES: Final[Mapping[WorkerStatus, frozenset[WorkerStatus]]] = {
    WorkerStatus.STARTING: frozenset(
        {WorkerStatus.READY, WorkerStatus.DRAINING, WorkerStatus.GONE}
    ),
    WorkerStatus.READY: frozenset({WorkerStatus.DRAINING, WorkerStatus.GONE}),
    WorkerStatus.DRAINING: frozenset({WorkerStatus.GONE}),
    WorkerStatus.GONE: frozenset(),
}

SESSION_MOVES: Final[Mapping[SessionStatus, frozenset[SessionStatus]]] = {
    SessionStatus.LIVE: frozenset({SessionStatus.ENDED, SessionStatus.EXPIRED}),
    SessionStatus.ENDED: frozenset(),
    SessionStatus.EXPIRED: frozenset(),
}


def sources(moves: Mapping[S, frozenset[S]], to: S) -> frozenset[S]:
    """Return the statuses from which `to` may be reached in one move."""
    return frozenset(status for status, targets in moves.items() if to in targets)


def terminal(moves: Mapping[S, frozenset[S]]) -> frozenset[S]:
    """Return the statuses that nothing leaves."""
    return frozenset(status for status, targets in moves.items() if not targets)


RUN_ENDS: Final = terminal(RUN_MOVES)
LEASE_ENDS: Final = terminal(LEASE_MOVES)
EXECUTION_ENDS: Final = terminal(EXECUTION_MOVES)
LEASE_HOLDS_SLOT: Final = frozenset({_L.ACQUIRING, _L.ACTIVE, _L.RELEASING})
"""Counted against limits; `releasing` counts until it is proven done."""
