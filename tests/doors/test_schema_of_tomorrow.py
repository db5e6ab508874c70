"""The present program as an old one: a schema and messages with more in them than it knows."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from leasehold import transport
from leasehold.store import schema
from living import Home
from services import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]
TOMORROW = (
    "ALTER TABLE runs ADD COLUMN mood TEXT",
    "ALTER TABLE leases ADD COLUMN shade TEXT DEFAULT 'blue'",
    "ALTER TABLE executions ADD COLUMN weight BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE events ADD COLUMN colour TEXT",
    "ALTER TABLE workers ADD COLUMN hat TEXT",
    "ALTER TABLE hosts ADD COLUMN street TEXT",
    "ALTER TABLE sessions ADD COLUMN tune TEXT",
    "CREATE TABLE letters_of_tomorrow (id TEXT PRIMARY KEY, run_id TEXT)",
    "CREATE INDEX run_mood ON runs (mood)",
    f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'",
    f"UPDATE facts SET value = '{schema.HEAD}' WHERE name = '{schema.SERVES_FACT}'",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Home]:
    if request.param == "sqlite":
        with Home(tmp_path / "home", broker_url=redis_url) as home:
            yield home
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with (
        postgres.database() as url,
        Home(tmp_path / "home", broker_url=redis_url, database_url=url) as home,
    ):
        yield home


def strange_messages(home: Home, queue: str) -> None:
    """Send what only a later version would understand."""
    celery = transport.make(home.settings)
    for task, arguments in (
        ("leasehold.execute", ["letter", "an-id", 0]),
        ("leasehold.execute", ["run", "an-id", 0, {"version": 2}]),
        ("leasehold.heartbeat", ["beat", "a-lane-of-tomorrow", 0]),
        ("leasehold.release", [{"version": 2, "kind": "run", "id": "an-id"}]),
        ("leasehold.reconsider", ["run", "an-id", 0]),
    ):
        celery.send_task(task, args=arguments, queue=queue, ignore_result=True, retry=False)


def test_a_running_host_goes_on_through_a_later_upgrade(home: Home, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    agent = home.agent()
    before = home.ready()
    script = 'until test -e "$GATE"; do sleep 0.05; done; echo through'
    ids = [home.submit(script, env={"GATE": str(gate)}) for _ in range(3)]
    home.running(ids)
    with home.app.database.write("test") as tx:
        for text in TOMORROW:
            tx.run(text)
        queue = tx.value("SELECT queue FROM runs WHERE id = :id", id=ids[0])
    # Each of its children is started anew, and looks at the schema: the spare as well.
    gone = list(before.values())
    for _ in range(2):
        for pid in home.workers().values():
            os.kill(pid, signal.SIGKILL)
            gone.append(pid)
        home.ready(besides=gone)
    strange_messages(home, str(queue))
    ids += [home.submit("echo through") for _ in range(3)]
    gate.touch()
    for run_id in ids:
        row = home.finished(run_id)
        assert (row["status"], row["infra_attempts"]) == ("succeeded", 0), row
        assert home.output(run_id) == b"through\n"
    assert home.starts() == [1] * len(ids)
    home.settled()
    agent.send(signal.SIGTERM)
    assert agent.ended() == 0
    assert not agent.said("session.lost")
