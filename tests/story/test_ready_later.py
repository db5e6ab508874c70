"""A worker whose database takes nothing when it has started says later that it is ready."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy.exc import InternalError

from leasehold import seams
from leasehold.agent.child import say_ready
from leasehold.errors import StoreUnavailableError
from leasehold.store.database import Database
from story.conftest import House


@pytest.mark.parametrize(
    "fault",
    [
        StoreUnavailableError("the database is away"),
        InternalError("UPDATE", None, Exception("a read-only standby")),
    ],
    ids=["away", "read-only"],
)
def test_ready_is_said_again_until_the_database_takes_it(
    database: Database, tmp_path: Path, fault: Exception
) -> None:
    house = House(database, tmp_path / "fake")
    with database.write("test") as tx:
        tx.run(
            "INSERT INTO workers (id, session_id, host_id, kind, pid, version, queues, status,"
            " started_at) SELECT 'late', session_id, host_id, kind, pid, version, queues,"
            " 'starting', started_at FROM workers WHERE id = :id",
            id=house.worker.worker_id,
        )
    runtime = SimpleNamespace(
        app=house.app,
        worker_id="late",
        queues=["leasehold"],
        context=house.worker,
        prove=lambda: None,
    )
    met: list[str] = []

    def away(name: str) -> None:
        if name == "commit.worker.ready:before" and len(met) < 2:
            met.append(name)
            raise fault

    with seams.listening(away):
        say_ready(cast("Any", runtime))
    assert len(met) == 2
    with database.read() as tx:
        assert tx.value("SELECT status FROM workers WHERE id = 'late'") == "ready"
