"""The place of a dead child is filled in the very turn that sees its death."""

import os
import signal
from pathlib import Path

import pytest

from leasehold.agent.child import Orders
from leasehold.agent.children import Child, Children
from leasehold.store.database import Database
from living import wait_for


def test_the_first_successor_comes_at_once_and_not_a_turn_later(
    sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path))
    monkeypatch.setenv("LEASEHOLD_BROKER_URL", "redis://127.0.0.1:1/0")
    database = Database(f"sqlite:///{sqlite_template}")

    def orders(slot: Child) -> Orders:
        return Orders(
            kind=slot.kind,
            worker_id=slot.worker_id,
            session_id="none",
            host_id="none",
            beacon=str(tmp_path / "beacon"),
            parent=os.getpid(),
            threads=1,
        )

    children = Children(database, orders=orders, nudge=lambda: None, silent_s=60)
    children.add("steps", threads=1)
    try:
        children.turn(0)
        [first] = children.pids()
        os.kill(first, signal.SIGKILL)
        wait_for("its death", lambda: os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT))
        children.turn(0)
        [second] = children.pids()
        assert second != first
    finally:
        children.kill()
        database.close()
