"""
The rows, as SQLModel tables: schema, CHECKs and partial unique indexes.

Times are BIGINT microseconds since the epoch, from `db_now()` (ADR 0003). Ids are text. A
table row is not validated when built: validate at the border (`domain.specs`), let the
CHECKs hold the floor.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain import lifecycle as life
from leasehold.store.columns import JSON_TYPE, among, json_field, known, micros, partial
from leasehold.store.contents import Artifact as Artifact  # noqa: PLC0414  a table of ours
from leasehold.store.contents import Event as Event  # noqa: PLC0414
from leasehold.store.contents import Execution as Execution  # noqa: PLC0414
from leasehold.store.contents import OutputChunk as OutputChunk  # noqa: PLC0414
from leasehold.store.key_tables import KEY_TABLES
from leasehold.store.lookup_tables import LOOKUP_TABLES
from leasehold.store.pass_tables import PASS_TABLES
from leasehold.store.place_tables import PLACE_TABLES
from leasehold.store.predecessor_tables import PREDECESSOR_TABLES
from leasehold.store.report_tables import REPORT_TABLES
from leasehold.store.schedule_tables import SCHEDULE_TABLES
from leasehold.store.secret_tables import SECRET_TABLES
from leasehold.store.tenant_tables import TENANT_TABLES
from leasehold.store.upkeep_tables import UPKEEP_TABLES
from leasehold.store.webhook_tables import WEBHOOK_TABLES

METADATA: Final = SQLModel.metadata
_OTHERS: Final = (
    *(SECRET_TABLES, KEY_TABLES, TENANT_TABLES),
    *(LOOKUP_TABLES, UPKEEP_TABLES, SCHEDULE_TABLES, PREDECESSOR_TABLES),
    *(WEBHOOK_TABLES, PLACE_TABLES, REPORT_TABLES, PASS_TABLES),
)
assert all(_OTHERS), "made with them"


class Fact(SQLModel, table=True):
    """
    One fact of the deployment.

    `deployment` (its id), `epoch` (the high bits of its fences), `clock_offset_us`,
    `run_token_key` (signs run tokens), and from time to time `bound_to`, `alarm`
    (`store.restored`) and `sweep_wanted` (`store.sweeps`).
    """

    __tablename__ = "facts"
    name: str = Field(primary_key=True, max_length=64)
    value: str


class Environment(SQLModel, table=True):
    """A named place where work may run."""

    __tablename__ = "environments"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "name", name="environment_name"),)
    id: str = Field(primary_key=True, max_length=64)
    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    name: str = Field(max_length=100)
    status: life.EnvironmentStatus = Field(sa_type=known(life.EnvironmentStatus))
    provider: str = Field(max_length=64)
    spec: dict[str, Any] = json_field(nullable=False)
    """An `EnvironmentSpec`: config, env, policy, limits."""

    max_concurrent: int | None = None
    created_at: int = micros(nullable=False)
    updated_at: int = micros(nullable=False)
    vetted: dict[str, Any] | None = json_field()
    """What a worker said of its config, or why none was asked; NULL: made on first use."""


class Host(SQLModel, table=True):
    """A machine with workers, by a random id kept beside its sandboxes."""

    __tablename__ = "hosts"
    id: str = Field(primary_key=True, max_length=64)
    name: str = Field(max_length=255)
    capacity: int
    draining: bool = False
    created_at: int = micros(nullable=False)
    alive_at: int = micros(nullable=False)
    """When a session of this host was last seen to live; written when one ends too."""

    labels: dict[str, str] = Field(
        default_factory=dict,
        sa_type=JSON_TYPE,
        nullable=False,
        sa_column_kwargs={"server_default": "{}"},
    )
    """What its agent said of it when it started; environments and runs may require them."""


class AgentSession(SQLModel, table=True):
    """A host agent's proof of life; the counter is all that observers read."""

    __tablename__ = "sessions"
    __table_args__ = (
        sa.CheckConstraint("(status = 'live') = (ended_at IS NULL)", name="session_end"),
        partial("session_live", "status", where="status = 'live'", unique=False),
        partial("session_over", "ended_at", where="ended_at IS NOT NULL", unique=False),
    )
    id: str = Field(primary_key=True, max_length=64)
    host_id: str = Field(foreign_key="hosts.id", max_length=64, index=True)
    pid: int
    identity: str | None = Field(default=None, max_length=128)
    """Boot, pid namespace and start time: whether a process of this host is still that one."""

    counter: int = micros(nullable=False, default=0)
    status: life.SessionStatus = Field(sa_type=known(life.SessionStatus))
    started_at: int = micros(nullable=False)
    beat_at: int = micros(nullable=False)
    ended_at: int | None = micros()


class Worker(SQLModel, table=True):
    """One worker process; belongs to a session."""

    __tablename__ = "workers"
    __table_args__ = (
        sa.CheckConstraint("(status = 'gone') = (gone_at IS NOT NULL)", name="worker_gone"),
        partial("worker_here", "host_id", where="status <> 'gone'", unique=False),
        partial("worker_over", "gone_at", where="gone_at IS NOT NULL", unique=False),
    )
    id: str = Field(primary_key=True, max_length=64)
    session_id: str = Field(foreign_key="sessions.id", max_length=64, index=True)
    host_id: str = Field(foreign_key="hosts.id", max_length=64)
    kind: str = Field(max_length=16)
    """`steps` or `beats`."""

    pid: int
    version: str = Field(max_length=64)
    status: life.WorkerStatus = Field(sa_type=known(life.WorkerStatus))
    queues: list[str] = json_field(nullable=False)
    started_at: int = micros(nullable=False)
    gone_at: int | None = micros()


class AdvertisedProvider(SQLModel, table=True):
    """What a host's workers loaded; the control plane never imports a plugin."""

    __tablename__ = "providers"
    host_id: str = Field(primary_key=True, foreign_key="hosts.id", max_length=64)
    key: str = Field(primary_key=True, max_length=64)
    version: str = Field(max_length=64)
    health: str = Field(max_length=16)
    summary: str = ""
    host_bound: bool = True
    capacity: int | None = None
    capabilities: dict[str, Any] = json_field(nullable=False)
    config_schema: dict[str, Any] = json_field(nullable=False)
    seen_at: int = micros(nullable=False)


_RUN_OVER = among(life.RUN_ENDS)
UNLUCKY: Final = "status IN ('failed', 'cancelled', 'timed_out', 'parked')"
_LEASE_OVER = among(life.LEASE_ENDS)
_WHOLE = "finished_at IS NOT NULL AND output_pruned_at IS NULL"
_PRUNED = "output_pruned_at IS NOT NULL"
_RETRIES = "retry_of IS NOT NULL AND finished_at IS NULL"
_WANTS = "wanted_lease_id IS NOT NULL AND finished_at IS NULL"
_OVER = "finished_at IS NOT NULL"
_KEYED = "idempotency_key IS NOT NULL"
ADMISSIBLE: Final = "status = 'queued' AND waits = 0"
STARTS_AFTER: Final = "waits = 0 OR (waits > 0 AND status = 'queued')"


class Run(SQLModel, table=True):
    """One piece of work; its row is its own outbox (`due_at`)."""

    __tablename__ = "runs"
    __table_args__ = (
        sa.CheckConstraint(
            f"(finished_at IS NOT NULL) = (status IN ({_RUN_OVER}))", name="run_finished"
        ),
        sa.CheckConstraint(
            f"status NOT IN ({_RUN_OVER}) OR (claimed_by IS NULL AND due_at IS NULL)",
            name="run_over_rests",
        ),
        sa.CheckConstraint("claimed_by IS NULL OR due_at IS NULL", name="run_claim_or_due"),
        sa.CheckConstraint(
            "status <> 'running' OR claimed_by IS NOT NULL OR due_at IS NOT NULL",
            name="run_never_forgotten",
        ),
        sa.CheckConstraint("status <> 'parked' OR lease_id IS NULL", name="run_parked_free"),
        sa.CheckConstraint("(status = 'running') = (step IS NOT NULL)", name="run_step"),
        sa.CheckConstraint(STARTS_AFTER, name="run_starts_after"),
        partial("run_key", "tenant_id", "idempotency_key", where=_KEYED),
        partial("run_due", "due_at", where="due_at IS NOT NULL", unique=False),
        partial("run_claimed", "claimed_by", where="claimed_by IS NOT NULL", unique=False),
        # Each queued run is in one of these two; admission reads the first.
        partial("run_queued", "priority", "id", where=ADMISSIBLE, unique=False),
        partial("run_waits", "tenant_id", where="waits > 0", unique=False),
        partial("run_running", "environment_id", where="status = 'running'", unique=False),
        partial("run_timer", "timer_at", where="timer_at IS NOT NULL", unique=False),
        partial("run_lease", "lease_id", where="lease_id IS NOT NULL AND status = 'running'"),
        partial(
            "run_workspace",
            "tenant_id",
            "workspace",
            where="workspace IS NOT NULL AND status = 'running'",
        ),
        sa.Index("run_newest", "tenant_id", "created_at"),
        partial(
            "run_unlucky", "tenant_id", "status", "created_at", where=UNLUCKY, unique=False
        ),
        # Retention: each ended run is in one of these two.
        partial("run_whole", "tenant_id", "finished_at", where=_WHOLE, unique=False),
        partial("run_pruned", "tenant_id", "finished_at", where=_PRUNED, unique=False),
        partial("run_retry", "retry_of", where=_RETRIES, unique=False),
        partial("run_wants", "wanted_lease_id", where=_WANTS, unique=False),
        partial("run_blob", "tenant_id", "blob", where="blob IS NOT NULL", unique=False),
    )
    id: str = Field(primary_key=True, max_length=64)
    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    environment_id: str = Field(max_length=64)
    provider: str = Field(max_length=64)
    status: life.RunStatus = Field(sa_type=known(life.RunStatus))
    step: life.Step | None = Field(sa_type=known(life.Step), nullable=True)
    spec: dict[str, Any] = json_field(nullable=False)
    labels: dict[str, Any] = json_field(nullable=False)
    priority: int
    queue: str | None = Field(default=None, max_length=128)
    host_id: str | None = Field(default=None, max_length=64)
    wanted_lease_id: str | None = Field(default=None, max_length=64)
    lease_id: str | None = Field(default=None, max_length=64)
    fence: int = micros(nullable=False, default=0)
    claimed_by: str | None = Field(default=None, max_length=64)
    due_at: int | None = micros()
    publishes: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    beat: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    """True: the next look is a beat's; false: it takes a claim of its own."""

    follow_until: int | None = micros()
    timer_at: int | None = micros()
    """The earliest of the timers that apply now."""

    queue_deadline_at: int | None = micros()
    start_deadline_at: int | None = micros()
    timeout_at: int | None = micros()
    deadline_at: int = micros(nullable=False)
    attempt: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    infra_attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    starts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    command_index: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    end_requested: life.EndKind | None = Field(sa_type=known(life.EndKind), nullable=True)
    end_requested_at: int | None = micros()
    code: str | None = Field(default=None, max_length=64)
    message: str | None = None
    exit_code: int | None = None
    worker_id: str | None = Field(default=None, max_length=64)
    retry_of: str | None = Field(default=None, max_length=64)
    idempotency_key: str | None = Field(default=None, max_length=255)
    body_hash: str | None = Field(default=None, max_length=64)
    created_at: int = micros(nullable=False)
    admitted_at: int | None = micros()
    started_at: int | None = micros()
    finished_at: int | None = micros()
    requires: str | None = None
    """What of the spec's `requires` there is, as canonical JSON: runs that wait alike."""

    workspace: str | None = None
    """Its name; one live run at a time works on it."""

    tree: dict[str, Any] | None = json_field()
    """What a git URL came to: digest, bytes, files, commit. Chosen once, by `validate`."""

    ending: dict[str, Any] | None = json_field()
    """Its commands are over: the end that is written once its artifacts are collected."""

    artifacts_error: str | None = None
    """Why its artifacts are not, or not all, in the store."""

    blob: str | None = Field(default=None, max_length=64)
    """The digest of what it names in the store: its tree, or what `cp` brings."""

    output_pruned_at: int | None = micros()
    """When retention deleted its output and artifacts."""

    waits: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """So many `predecessors` have to end before it may start."""

    awaited: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    """Others start after it: whoever ends it tells them."""


class Lease(SQLModel, table=True):
    """The right to use one sandbox; outlives the run when reused or retained."""

    __tablename__ = "leases"
    __table_args__ = (
        sa.CheckConstraint(
            f"(finished_at IS NOT NULL) = (status IN ({_LEASE_OVER}))", name="lease_finished"
        ),
        sa.CheckConstraint(
            f"status NOT IN ({_LEASE_OVER}) OR (claimed_by IS NULL AND due_at IS NULL)",
            name="lease_over_rests",
        ),
        sa.CheckConstraint(
            "(status = 'releasing') = (mode IS NOT NULL AND final IS NOT NULL)",
            name="lease_mode",
        ),
        sa.CheckConstraint(
            "status <> 'releasing' OR claimed_by IS NOT NULL OR due_at IS NOT NULL",
            name="lease_never_forgotten",
        ),
        sa.CheckConstraint("status <> 'active' OR run_id IS NOT NULL", name="lease_held"),
        sa.CheckConstraint(
            "status NOT IN ('idle', 'retained') OR timer_at IS NOT NULL", name="lease_ends"
        ),
        partial(
            "lease_one_per_sandbox",
            "provider",
            "sandbox_id",
            where=f"sandbox_id IS NOT NULL AND status NOT IN ({_LEASE_OVER})",
        ),
        partial("lease_one_per_run", "run_id", where="status IN ('acquiring', 'active')"),
        partial("lease_idle", "scope", where="status = 'idle'", unique=False),
        partial("lease_due", "due_at", where="due_at IS NOT NULL", unique=False),
        partial("lease_claimed", "claimed_by", where="claimed_by IS NOT NULL", unique=False),
        partial("lease_timer", "timer_at", where="timer_at IS NOT NULL", unique=False),
        partial("lease_over", "tenant_id", "finished_at", where=_OVER, unique=False),
        partial("lease_key", "tenant_id", "idempotency_key", where=_KEYED),
        partial(
            "lease_live",
            "environment_id",
            where=f"status NOT IN ({_LEASE_OVER})",
            unique=False,
        ),
    )
    number: int | None = Field(
        default=None,
        primary_key=True,
        sa_type=sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
    )
    """Grows with every lease; also in the sandbox's label, for the sweep."""

    id: str = Field(max_length=64, unique=True)
    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    environment_id: str = Field(max_length=64)
    environment_name: str = Field(max_length=100)
    provider: str = Field(max_length=64)
    host_id: str | None = Field(default=None, max_length=64)
    queue: str = Field(max_length=128)
    status: life.LeaseStatus = Field(sa_type=known(life.LeaseStatus))
    run_id: str | None = Field(default=None, max_length=64, index=True)
    policy: life.LeasePolicy = Field(sa_type=known(life.LeasePolicy))
    scope: str | None = None
    fingerprint: str | None = Field(default=None, max_length=64)
    fence: int = micros(nullable=False, default=0)
    claimed_by: str | None = Field(default=None, max_length=64)
    due_at: int | None = micros()
    publishes: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    timer_at: int | None = micros()
    """When an idle, retained or held lease ends."""

    mode: str | None = Field(default=None, max_length=16)
    """What is owed while releasing: suspend, keep or destroy."""

    final: life.LeaseStatus | None = Field(sa_type=sa.String(32), nullable=True)
    """The status that releasing leads to."""

    reason: str | None = None
    retain: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    """Asked for by a person while active: its run's end will keep it."""

    held_until: int | None = micros()
    cleanup_status: life.CleanupStatus | None = Field(
        sa_type=known(life.CleanupStatus),
        nullable=True,
    )
    cleanup_attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    last_error: str | None = None
    sandbox_id: str | None = None
    handle: dict[str, Any] | None = json_field()
    remote_cwd: str | None = None
    facts: dict[str, Any] = json_field(nullable=False)
    """The lease's metadata: all that a later worker needs with no other row at hand."""

    renew_at: int | None = micros()
    sandbox_expires_at: int | None = micros()
    created_at: int = micros(nullable=False)
    active_at: int | None = micros()
    finished_at: int | None = micros()
    retained_until: int | None = micros()
    """Only while a run looks into a retained lease: until when it is kept after that."""

    idempotency_key: str | None = Field(default=None, max_length=255)
    """With which somebody asked for a lease of their own."""

    body_hash: str | None = Field(default=None, max_length=64)
