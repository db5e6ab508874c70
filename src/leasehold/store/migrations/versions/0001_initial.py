"""The first schema, on both databases."""

# ruff: noqa: E501 - conditions are kept on one line, as the database shows them
from typing import Final
from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

JSON: Final = sa.JSON().with_variant(JSONB(), "postgresql")
SERIAL: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# STABLE: within one statement one value will do, and only so may `due_at <= leasehold_now()`
# use an index. PL/pgSQL keeps its plan for the session; a SQL function would plan each time.
NOW: Final = """
CREATE OR REPLACE FUNCTION leasehold_now() RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    + coalesce((SELECT value::bigint FROM facts WHERE name = 'clock_offset_us'), 0);
END $$
"""


def text(
    name: str, length: int | None = None, *, of: str | None = None, null: bool = False
) -> sa.Column[str]:
    keys = [] if of is None else [sa.ForeignKey(of)]
    return sa.Column(name, sa.String(length), *keys, nullable=null)


def known(name: str, check: str, values: str, *, null: bool = False) -> sa.Column[str]:
    kind = sa.Enum(
        *values.split(), name=check, native_enum=False, create_constraint=True, length=32
    )
    return sa.Column(name, kind, nullable=null)


def big(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=null, server_default=default)


def index(
    name: str, table: str, *columns: str, where: str | None = None, unique: bool = False
) -> None:
    only = None if where is None else sa.text(where)
    op.create_index(
        name, table, list(columns), unique=unique, postgresql_where=only, sqlite_where=only
    )


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", SERIAL, nullable=False),
        text("tenant_id", 64),
        text("run_id", 64, null=True),
        text("lease_id", 64, null=True),
        big("at"),
        text("name", 64),
        sa.Column("data", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    index("event_of_lease", "events", "lease_id", "id")
    index("event_of_run", "events", "run_id", "id")
    op.create_table("facts", text("name", 64), text("value"), sa.PrimaryKeyConstraint("name"))
    op.create_table(
        "hosts",
        text("id", 64),
        text("name", 255),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        big("created_at"),
        big("alive_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "output_chunks",
        text("execution_id", 128),
        text("stream", 8),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("execution_id", "stream", "start"),
    )
    op.create_table("tenants", text("id", 64), big("created_at"), sa.PrimaryKeyConstraint("id"))
    op.create_table(
        "environments",
        text("id", 64),
        text("tenant_id", 64, of="tenants.id"),
        text("name", 100),
        known("status", "environmentstatus_known", "active archived"),
        text("provider", 64),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("max_concurrent", sa.Integer(), nullable=True),
        big("created_at"),
        big("updated_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "name", name="environment_name"),
    )
    op.create_table(
        "leases",
        sa.Column("number", SERIAL, nullable=False),
        text("id", 64),
        text("tenant_id", 64, of="tenants.id"),
        text("environment_id", 64),
        text("environment_name", 100),
        text("provider", 64),
        text("host_id", 64, null=True),
        text("queue", 128),
        known(
            "status",
            "leasestatus_known",
            "acquiring active releasing idle retained released expired failed",
        ),
        text("run_id", 64, null=True),
        known(
            "policy",
            "leasepolicy_known",
            "ephemeral reuse_by_environment reuse_by_workspace retain_on_failure",
        ),
        text("scope", null=True),
        text("fingerprint", 64, null=True),
        big("fence", default="0"),
        text("claimed_by", 64, null=True),
        big("due_at", null=True),
        sa.Column("publishes", sa.Integer(), nullable=False, server_default="0"),
        big("timer_at", null=True),
        text("mode", 16, null=True),
        text("final", 32, null=True),
        text("reason", null=True),
        sa.Column("retain", sa.Boolean(), nullable=False, server_default=sa.false()),
        big("held_until", null=True),
        known("cleanup_status", "cleanupstatus_known", "pending failed success", null=True),
        sa.Column("cleanup_attempts", sa.Integer(), nullable=False, server_default="0"),
        text("last_error", null=True),
        text("sandbox_id", null=True),
        sa.Column("handle", JSON, nullable=True),
        text("remote_cwd", null=True),
        sa.Column("facts", JSON, nullable=False),
        big("renew_at", null=True),
        big("sandbox_expires_at", null=True),
        big("created_at"),
        big("active_at", null=True),
        big("finished_at", null=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('expired', 'failed', 'released'))",
            name="lease_finished",
        ),
        sa.CheckConstraint(
            "(status = 'releasing') = (mode IS NOT NULL AND final IS NOT NULL)",
            name="lease_mode",
        ),
        sa.CheckConstraint("status <> 'active' OR run_id IS NOT NULL", name="lease_held"),
        sa.CheckConstraint(
            "status <> 'releasing' OR claimed_by IS NOT NULL OR due_at IS NOT NULL",
            name="lease_never_forgotten",
        ),
        sa.CheckConstraint(
            "status NOT IN ('expired', 'failed', 'released') OR (claimed_by IS NULL AND due_at IS NULL)",
            name="lease_over_rests",
        ),
        sa.CheckConstraint(
            "status NOT IN ('idle', 'retained') OR timer_at IS NOT NULL", name="lease_ends"
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
    )
    index("ix_leases_run_id", "leases", "run_id")
    index("lease_claimed", "leases", "claimed_by", where="claimed_by IS NOT NULL")
    index("lease_due", "leases", "due_at", where="due_at IS NOT NULL")
    index("lease_idle", "leases", "scope", where="status = 'idle'")
    index(
        "lease_live",
        "leases",
        "environment_id",
        where="status NOT IN ('expired', 'failed', 'released')",
    )
    index(
        "lease_one_per_run",
        "leases",
        "run_id",
        where="status IN ('acquiring', 'active')",
        unique=True,
    )
    index(
        "lease_one_per_sandbox",
        "leases",
        "provider",
        "sandbox_id",
        where="sandbox_id IS NOT NULL AND status NOT IN ('expired', 'failed', 'released')",
        unique=True,
    )
    index("lease_timer", "leases", "timer_at", where="timer_at IS NOT NULL")
    op.create_table(
        "providers",
        text("host_id", 64, of="hosts.id"),
        text("key", 64),
        text("version", 64),
        text("health", 16),
        text("summary"),
        sa.Column("host_bound", sa.Boolean(), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=True),
        sa.Column("capabilities", JSON, nullable=False),
        sa.Column("config_schema", JSON, nullable=False),
        big("seen_at"),
        sa.PrimaryKeyConstraint("host_id", "key"),
    )
    op.create_table(
        "runs",
        text("id", 64),
        text("tenant_id", 64, of="tenants.id"),
        text("environment_id", 64),
        text("provider", 64),
        known(
            "status",
            "runstatus_known",
            "queued running parked succeeded failed cancelled timed_out",
        ),
        known("step", "step_known", "validate acquire execute heartbeat release", null=True),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        text("queue", 128, null=True),
        text("host_id", 64, null=True),
        text("wanted_lease_id", 64, null=True),
        text("lease_id", 64, null=True),
        big("fence", default="0"),
        text("claimed_by", 64, null=True),
        big("due_at", null=True),
        sa.Column("publishes", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("beat", sa.Boolean(), nullable=False, server_default=sa.false()),
        big("follow_until", null=True),
        big("timer_at", null=True),
        big("queue_deadline_at", null=True),
        big("start_deadline_at", null=True),
        big("timeout_at", null=True),
        big("deadline_at"),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("infra_attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("starts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("command_index", sa.Integer(), nullable=False, server_default="0"),
        known(
            "end_requested",
            "endkind_known",
            "cancel timeout deadline queue_timeout start_timeout park",
            null=True,
        ),
        big("end_requested_at", null=True),
        text("code", 64, null=True),
        text("message", null=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        text("worker_id", 64, null=True),
        text("retry_of", 64, null=True),
        text("idempotency_key", 255, null=True),
        text("body_hash", 64, null=True),
        big("created_at"),
        big("admitted_at", null=True),
        big("started_at", null=True),
        big("finished_at", null=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('cancelled', 'failed', 'succeeded', 'timed_out'))",
            name="run_finished",
        ),
        sa.CheckConstraint("(status = 'running') = (step IS NOT NULL)", name="run_step"),
        sa.CheckConstraint("status <> 'parked' OR lease_id IS NULL", name="run_parked_free"),
        sa.CheckConstraint(
            "status <> 'running' OR claimed_by IS NOT NULL OR due_at IS NOT NULL",
            name="run_never_forgotten",
        ),
        sa.CheckConstraint(
            "status NOT IN ('cancelled', 'failed', 'succeeded', 'timed_out') OR (claimed_by IS NULL AND due_at IS NULL)",
            name="run_over_rests",
        ),
        sa.CheckConstraint("claimed_by IS NULL OR due_at IS NULL", name="run_claim_or_due"),
        sa.PrimaryKeyConstraint("id"),
    )
    index("run_claimed", "runs", "claimed_by", where="claimed_by IS NOT NULL")
    index("run_due", "runs", "due_at", where="due_at IS NOT NULL")
    index(
        "run_key",
        "runs",
        "tenant_id",
        "idempotency_key",
        where="idempotency_key IS NOT NULL",
        unique=True,
    )
    index(
        "run_lease",
        "runs",
        "lease_id",
        where="lease_id IS NOT NULL AND status = 'running'",
        unique=True,
    )
    index("run_newest", "runs", "tenant_id", "created_at")
    index("run_queued", "runs", "priority", "id", where="status = 'queued'")
    index("run_running", "runs", "environment_id", where="status = 'running'")
    index("run_timer", "runs", "timer_at", where="timer_at IS NOT NULL")
    op.create_table(
        "sessions",
        text("id", 64),
        text("host_id", 64, of="hosts.id"),
        sa.Column("pid", sa.Integer(), nullable=False),
        text("identity", 128, null=True),
        big("counter", default="0"),
        known("status", "sessionstatus_known", "live ended expired"),
        big("started_at"),
        big("beat_at"),
        big("ended_at", null=True),
        sa.CheckConstraint("(status = 'live') = (ended_at IS NULL)", name="session_end"),
        sa.PrimaryKeyConstraint("id"),
    )
    index("ix_sessions_host_id", "sessions", "host_id")
    index("session_live", "sessions", "status", where="status = 'live'")
    op.create_table(
        "sweep_reports",
        text("host_id", 64, of="hosts.id"),
        text("provider", 64),
        big("request"),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        big("at"),
        sa.Column("report", JSON, nullable=False),
        sa.PrimaryKeyConstraint("host_id", "provider"),
    )
    op.create_table(
        "executions",
        text("id", 128),
        text("tenant_id", 64),
        text("run_id", 64, of="runs.id"),
        text("lease_id", 64),
        sa.Column("command_index", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        known("status", "executionstatus_known", "starting running exited lost cancelled"),
        sa.Column("handle", JSON, nullable=True),
        big("stdout_offset", default="0"),
        big("stderr_offset", default="0"),
        text("cause", 32, null=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        big("stdout_dropped", default="0"),
        big("stderr_dropped", default="0"),
        big("created_at"),
        big("started_at", null=True),
        big("ended_at", null=True),
        sa.CheckConstraint(
            "(ended_at IS NOT NULL) = (status IN ('cancelled', 'exited', 'lost'))",
            name="execution_ended",
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "number", name="execution_number"),
    )
    index(
        "execution_one_open",
        "executions",
        "run_id",
        where="status NOT IN ('cancelled', 'exited', 'lost')",
        unique=True,
    )
    index("ix_executions_lease_id", "executions", "lease_id")
    op.create_table(
        "workers",
        text("id", 64),
        text("session_id", 64, of="sessions.id"),
        text("host_id", 64, of="hosts.id"),
        text("kind", 16),
        sa.Column("pid", sa.Integer(), nullable=False),
        text("version", 64),
        known("status", "workerstatus_known", "starting ready draining gone"),
        sa.Column("queues", JSON, nullable=False),
        big("started_at"),
        big("gone_at", null=True),
        sa.CheckConstraint("(status = 'gone') = (gone_at IS NOT NULL)", name="worker_gone"),
        sa.PrimaryKeyConstraint("id"),
    )
    index("ix_workers_session_id", "workers", "session_id")
    index("worker_here", "workers", "host_id", where="status <> 'gone'")
    first_rows()


def first_rows() -> None:
    """Make the clock, the tenant that everybody starts with and the deployment's facts."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(NOW)
    op.execute("INSERT INTO tenants (id, created_at) VALUES ('default', leasehold_now())")
    facts = {"deployment": str(uuid4()), "epoch": "0", "clock_offset_us": "0"}
    table = sa.table("facts", sa.column("name"), sa.column("value"))
    op.bulk_insert(table, [{"name": name, "value": value} for name, value in facts.items()])
