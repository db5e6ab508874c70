"""Statements and transactions of one run, counted in this process on a database of its own."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from leasehold import bootstrap
from leasehold import settings as knobs
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.orchestrator import chain, submit
from leasehold.orchestrator.jobs import Message
from leasehold.runtime.worker import WorkerRuntime
from leasehold.store import hosts, schema
from leasehold.store.database import Database, Tx


@dataclass
class Sample:
    """What one run sends to its database, from the submit to the end of its release."""

    runs: int
    statements: float = 0.0
    transactions: float = 0.0
    by_name: dict[str, float] = field(default_factory=dict)


def take(url: str, home: Path, spec: RunSpec, *, runs: int = 50) -> Sample:
    """Carry runs through all steps in this thread and count; a clock would add its own."""
    settings = knobs.load(database_url=url, home=home, allow_fake=True)
    database = Database(settings.database_address)
    schema.upgrade(database)
    try:
        runtime, messages = _runtime(settings, database)
        for _ in range(20):
            _one(runtime, messages, spec)
        sent: Counter[str] = Counter()
        with pytest.MonkeyPatch.context() as patch:
            _count(patch, sent)
            for _ in range(runs):
                _one(runtime, messages, spec)
        statements = sent.pop("statements")
        by_name = {name: round(times / runs, 2) for name, times in sorted(sent.items())}
        return Sample(runs, statements / runs, round(sum(sent.values()) / runs, 2), by_name)
    finally:
        database.close()


def _runtime(settings: Any, database: Database) -> tuple[WorkerRuntime, list[Message]]:
    app = bootstrap.build(settings, database=database)
    host, messages = bootstrap.host_id_of(settings.host_home), list[Message]()
    with database.write("sample.host") as tx:
        hosts.upsert_host(tx, host, name="sample", capacity=100)
        hosts.start_session(tx, "sample", host_id=host, pid=1)
        worker = {"id": "sample", "session_id": "sample", "host_id": host, "kind": "steps"}
        hosts.add_worker(tx, {**worker, "pid": 1, "version": "0", "queues": []})
    runtime = WorkerRuntime(
        app,
        kind="steps",
        worker_id="sample",
        host_id=host,
        session_id="sample",
        publish=messages.append,
        nudge=lambda: None,
        guard=None,
    )
    runtime.advertise()
    with database.write("sample.ready") as tx:
        hosts.worker_ready(tx, "sample", queues=runtime.queues)
        environment = parse(EnvironmentSpec, {"name": "sample", "provider": "fake"})
        submit.create_environment(tx, environment, tenant_id="default")
    return runtime, messages


def _one(runtime: WorkerRuntime, messages: list[Message], spec: RunSpec) -> None:
    request = submit.Request(spec=spec, environment="sample")
    with runtime.app.database.write("submit") as tx:
        submit.submit(tx, runtime.context, request)
    while messages:
        chain.run_message(runtime.context, messages.pop(0))


def _count(patch: pytest.MonkeyPatch, sent: Counter[str]) -> None:
    send, write, read = Tx.send, Database.write, Database.read

    def counted(self: Tx, *args: Any) -> Any:
        sent["statements"] += 1
        return send(self, *args)

    def writing(self: Database, name: str) -> AbstractContextManager[Tx]:
        sent[name] += 1
        return write(self, name)

    @contextmanager
    def reading(self: Database) -> Iterator[Tx]:
        sent["read"] += 1
        with read(self) as tx:
            yield tx

    patch.setattr(Tx, "send", counted)
    patch.setattr(Database, "write", writing)
    patch.setattr(Database, "read", reading)
