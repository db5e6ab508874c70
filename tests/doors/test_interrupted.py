"""Ctrl-C while a run is being submitted is about that run, and not about nothing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import environment, serve
from leasehold.cli import heeding, interrupting
from leasehold.cli.by_sql.port import SqlPort, SqlWay
from leasehold.cli.codes import INTERRUPTED
from leasehold.cli.interrupting import OnInterrupt
from leasehold.cli.output import ProgressLine
from leasehold.cli.ports import Follower
from leasehold.cli.submitting import Place, parsed
from leasehold.store import schema
from leasehold.store.database import Database
from store.rows import insert_worker


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlWay]:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path))
    database = Database(f"sqlite:///{tmp_path / 'leasehold.db'}")
    schema.upgrade(database)
    with database.write("test") as tx:
        serve(tx, key="fake", host_id=insert_worker(tx)["host_id"])
        environment(tx)
    database.close()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield SqlWay()
    signal.signal(signal.SIGINT, before)


def begin(port: SqlPort, *, signals: int) -> Follower:
    """Submit a run that nobody takes; signals come when it is there and not known yet."""
    place = Place(env="place", provider=None, lease=None)
    spec = parsed({"commands": [{"argv": ["true"]}]})
    run = port.runs.submit(place.request(port, spec, "key"))
    for _ in range(signals):
        os.kill(os.getpid(), signal.SIGINT)
    return port.runs.follower(run["id"], sink=None)


@pytest.mark.parametrize(
    ("how", "code", "status"),
    [("cancel", None, "cancelled"), ("detach", INTERRUPTED, "running")],
)
def test_ctrl_c_waits_until_it_is_known_which_run_it_is_about(
    way: SqlWay, how: OnInterrupt, code: int | None, status: str
) -> None:
    with way.open() as port, heeding.ctrl_c():
        follower, left = interrupting.follow(
            port,
            lambda: begin(port, signals=1),
            how,
            tick=lambda: None,
            progress=ProgressLine(),
        )
        assert left == code
        assert port.runs.show(follower.run_id)["status"] == status


def test_who_has_no_patience_sends_two(way: SqlWay) -> None:
    with way.open() as port, heeding.ctrl_c(), pytest.raises(KeyboardInterrupt):
        interrupting.follow(
            port,
            lambda: begin(port, signals=2),
            "cancel",
            tick=lambda: None,
            progress=ProgressLine(),
        )
