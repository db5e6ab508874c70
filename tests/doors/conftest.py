"""What the tests of doors share: a deployment for commands that need no worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from answering import answering, pliant
from callers import ORDERS, engine_of
from command_line import environment, serve
from leasehold import enqueuing
from leasehold.store.database import Database
from store.rows import insert_worker

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"image": {"type": "string"}, "size": {"type": "integer"}},
}


@pytest.fixture
def deployment(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """Settings of a deployment with this database, in which one worker serves `fake`."""
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LEASEHOLD_DATABASE_URL", database_url)
    with database.write("test") as tx:
        worker = insert_worker(tx)
        serve(tx, key="fake", host_id=worker["host_id"], schema=SCHEMA)
    provider = pliant(tmp_path / "answers" / "fake", SCHEMA)
    with answering(database_url, tmp_path / "answers", providers={"fake": provider}):
        yield


@pytest.fixture
def engine(
    database: Database,
    database_url: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[sa.Engine]:
    """An engine of the caller's, in whose database a table of his stands beside ours."""
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LEASEHOLD_BROKER_URL", redis_url)
    monkeypatch.setattr(enqueuing, "_processes", [])
    with database.write("test") as tx:
        serve(tx, key="fake", host_id=insert_worker(tx)["host_id"])
        environment(tx, "place")
    engine = engine_of(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text(ORDERS))
    yield engine
    engine.dispose()
