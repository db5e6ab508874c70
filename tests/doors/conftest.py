"""What the tests of doors share: a deployment for commands that need no worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import serve
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
    yield
