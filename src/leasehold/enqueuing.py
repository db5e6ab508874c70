"""
A run in the caller's own transaction: committed together with their rows, or not at all.

The caller's connection carries it (`store.borrowed`), and the same function makes it that the
command line and the API call. Who is authoritative is the row:

- **Rolled back**, as a whole or to a savepoint: no row, so no run, and no message.
- **Committed**: a queued run, which any clock admits. So it is no matter if we die here.
- **After the commit** of a session's outermost transaction the run is admitted and its
  message sent, in a short transaction of our own on the same connection. It finds what is
  there, so it need not know which savepoints were rolled back.

Admission is not in the caller's transaction, since its lock is the whole deployment's: a
program that stands still between two statements would hold up everybody's runs.

What goes wrong after the commit is logged (a broker that is away, a database that went): the
caller's work is done, and the run is the clock's.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Unpack

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from leasehold import bootstrap, log, seams, transport
from leasehold import settings as knobs
from leasehold.domain.after import parse_after
from leasehold.domain.fields import RunFields, body
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.errors import BadInputError
from leasehold.orchestrator import late_admission, submit
from leasehold.orchestrator.jobs import Context
from leasehold.store import borrowed, environments
from leasehold.store.database import Tx, host_us
from leasehold.store.sqlite import NowFunction

_log = log.get_logger(__name__)
_LOCAL: Final = EnvironmentSpec(name="local", provider="local")
"""Where a run goes that names no place; made on first use, as by the other doors."""

_PENDING: Final = "leasehold_pending"
"""In the `info` of a session."""

_AT_ONCE: Final = 100
"""Runs of one transaction that are admitted after its commit; the clock does the rest."""

_LIMIT_S: Final = 8.0
"""As of each connection of ours: how long the server waits for us in a transaction."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A run that is there once the caller has committed."""

    id: str
    new: bool
    """False: the same key has made it before."""

    environment: str | None
    key: str | None = None
    _send: Any = field(default=None, repr=False, compare=False)

    def send(self) -> None:
        """
        Admit the run and send its message now; after the commit.

        A session's commit does it by itself. A commit on a plain `Connection` cannot be seen;
        without this the clock does it, within seconds. Never raises what goes wrong; it is
        logged.
        """
        self._send()


def enqueue(
    session: "Session | scoped_session[Any] | sa.Connection",
    command: Sequence[str] | None = None,
    *,
    environment: str | None = None,
    lease_id: str | None = None,
    key: str | None = None,
    tenant: str = "default",
    actor: str = "enqueue",
    **fields: Unpack[RunFields],
) -> Enqueued:
    """
    Enqueue a run in the transaction that `session` is in: with its commit there is a run.

    The tables of Leasehold must be in the database of the session, in its default schema.
    PostgreSQL by psycopg 3 in READ COMMITTED, or SQLite, where this begins to write: call it
    before you read what others write, or begin with BEGIN IMMEDIATE.

    Args:
        session: Of SQLAlchemy or SQLModel, not asyncio's; or a `Connection` in a transaction,
            then call `send()` of what is returned after the commit.
        command: The words of one command; several are given as `commands`.
        environment: Its name; without it and without `lease_id` it is `local`.
        key: An idempotency key: the same key and body are the same run, however often this
            is asked. A transaction that uses a key waits for another one that does.
        actor: Who asks, for the history.

    Raises:
        BadInputError: A field is wrong, or the session's transaction cannot carry a run.
        NotFoundError: There is no such environment, lease, tenant or run to start after.
        ConflictError: The environment is archived; the lease has ended; the key was used
            with another body; too many runs wait (`FullError`).
        SchemaError: The database has no schema of Leasehold, or another version's.
    """
    here = session() if isinstance(session, scoped_session) else session
    connection = _connection(here)
    if environment is not None and lease_id is not None:
        raise BadInputError("lease_id: give it or an environment", field="lease_id")
    place = environment or (None if lease_id else _LOCAL.name)
    asked = body(command, fields)
    after = parse_after(asked.pop("after", ()))
    request = submit.Request(
        spec=parse(RunSpec, asked),
        after=after,
        environment=place,
        lease_id=lease_id,
        key=_checked(key),
        tenant_id=tenant,
        actor=actor,
        admits=False,
    )
    process = _process()
    tx = borrowed.lend(connection, process.now)
    if place == _LOCAL.name and environment is None:
        # The first run of a deployment takes the admission lock along; no other does.
        environments.check_tenant(tx, tenant)
        submit.ensure_environment(tx, _LOCAL, tenant_id=tenant, actor=actor)
    row, new = submit.submit(tx, process.context(connection), request)
    borrowed.finish(tx)
    if isinstance(here, Session) and new:
        _pending(here).add(connection, row["id"])

    def send() -> None:
        _after_commit(process, connection, [row["id"]])

    return Enqueued(id=row["id"], new=new, environment=place, key=key, _send=send)


def _connection(session: object) -> sa.Connection:
    if isinstance(session, sa.Connection):
        return session
    if isinstance(session, Session):
        return session.connection()
    kind = type(session).__name__
    hint = "; of an AsyncSession, neither works" if kind == "AsyncSession" else ""
    raise BadInputError(
        f"session: must be a Session or a Connection of SQLAlchemy (got {kind}){hint}",
        field="session",
    )


def _checked(key: str | None) -> str | None:
    if key is not None and not (0 < len(key) <= _KEY_CHARS and key.isprintable()):
        raise BadInputError(f"key: must be 1 to {_KEY_CHARS} printable characters", field="key")
    return key


_KEY_CHARS: Final = 255


class _Pending:
    """The runs of a session's transaction; one listener each, however often it is used."""

    def __init__(self, session: Session) -> None:
        self._runs: dict[str, sa.Connection] = {}
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, connection: sa.Connection, run_id: str) -> None:
        self._runs[run_id] = connection

    def _committed(self, session: Session) -> None:
        if session.in_nested_transaction():
            return  # a savepoint; what is in it is decided with the rest
        runs, self._runs = self._runs, {}
        for connection in set(runs.values()):
            mine = [run_id for run_id, other in runs.items() if other is connection]
            _after_commit(_process(), connection, mine)

    def _ended(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self._runs.clear()


def _pending(session: Session) -> _Pending:
    found = session.info.get(_PENDING)
    if found is None:
        found = session.info[_PENDING] = _Pending(session)
    assert isinstance(found, _Pending)
    return found


def _after_commit(process: "_Process", connection: sa.Connection, run_ids: list[str]) -> None:
    """Admit and send; whatever goes wrong, the caller has committed, and the clock does it."""
    try:
        if not connection.closed and connection.in_transaction():
            # The caller's session is part of a bigger transaction of theirs.
            _log.debug("enqueue.left_to_the_clock", runs=len(run_ids))
            return
        if connection.closed:
            with connection.engine.connect() as another:
                _admit(process, another, run_ids)
        else:
            _admit(process, connection, run_ids)
    except Exception as error:  # noqa: BLE001  of any kind: none of it is the caller's
        _log.warning("enqueue.left_to_the_clock", runs=len(run_ids), why=str(error)[:200])


def _admit(process: "_Process", connection: sa.Connection, run_ids: list[str]) -> None:
    with connection.begin() as transaction:
        tx: Tx = borrowed.lend(connection, process.now)
        borrowed.limit(tx, seconds=_LIMIT_S)
        late_admission.admit_written(tx, process.context(connection), run_ids[:_AT_ONCE])
        borrowed.finish(tx)
        with seams.effect("commit.enqueue.admit"):
            transaction.commit()
    for call in tx.after_commit:
        call()


class _Process:
    """What this process works with: its settings, its way to the broker, its clock."""

    def __init__(self) -> None:
        log.join()
        self.pid = os.getpid()
        self._settings = knobs.load()
        self._sender = transport.Sender(self._settings)
        self._contexts: dict[sa.URL, Context] = {}
        self.now = NowFunction(host_us)

    def context(self, connection: sa.Connection) -> Context:
        url = connection.engine.url
        if url not in self._contexts:
            context = bootstrap.visiting(self._settings, url, publish=self._sender)
            self._contexts[url] = context
        return self._contexts[url]


_processes: list[_Process] = []
_lock = threading.Lock()


def _process() -> _Process:
    """
    Return this process's part, made at first use; a fork makes its own.

    Raises:
        BadInputError: A setting is wrong; names it.
    """
    with _lock:
        if _processes and _processes[0].pid != os.getpid():
            _processes.clear()
            transport.after_fork()
        if not _processes:
            _processes.append(_Process())
        return _processes[0]
