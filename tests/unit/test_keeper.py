"""A session's holder: who is proven dead, and whose word counts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leasehold.provider import boot_time
from leasehold.runtime.guard import Beacon, BeaconGuard
from leasehold.runtime.keeper import Keeper, bury_predecessors, identity_of
from leasehold.store import hosts
from leasehold.store.database import Database


def begin(database: Database, session: str, *, pid: int, identity: str | None) -> None:
    with database.write("test") as tx:
        hosts.upsert_host(tx, "host", name="host", capacity=1)
        hosts.start_session(tx, session, host_id="host", pid=pid, identity=identity)


def live(database: Database) -> set[str]:
    with database.read() as tx:
        return {row["id"] for row in hosts.live_sessions(tx)}


def ended_process() -> tuple[int, str]:
    """Return a pid and the identity that it had while it lived."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        identity = identity_of(child.pid)
        assert identity is not None
        child.kill()
    return child.pid, identity


def test_a_dead_predecessor_is_buried_at_once(database: Database) -> None:
    pid, identity = ended_process()
    begin(database, "dead", pid=pid, identity=identity)
    begin(database, "living", pid=os.getpid(), identity=identity_of(os.getpid()))
    with database.write("test") as tx:
        bury_predecessors(tx, "host")
    assert live(database) == {"living"}


@pytest.mark.parametrize("change", ["boot", "space", "none"])
def test_what_another_boot_or_container_holds_is_left_to_the_observers(
    database: Database, change: str
) -> None:
    pid, identity = ended_process()
    boot, space, start = identity.split(" ")
    other = {
        "boot": f"another {space} {start}",
        "space": f"{boot} pid:[1] {start}",
        "none": None,
    }[change]
    begin(database, "unknown", pid=pid, identity=other)
    with database.write("test") as tx:
        bury_predecessors(tx, "host")
    assert live(database) == {"unknown"}


def test_a_pid_that_was_given_to_another_process_proves_death(database: Database) -> None:
    identity = identity_of(os.getpid())
    assert identity is not None
    boot, space, start = identity.split(" ")
    begin(database, "gone", pid=os.getpid(), identity=f"{boot} {space} {int(start) - 1}")
    with database.write("test") as tx:
        bury_predecessors(tx, "host")
    assert live(database) == set()


def test_a_holder_trusts_a_beat_for_a_bounded_time_from_its_sending(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    guard = BeaconGuard(tmp_path / "beacon", trust_s=5.0)
    assert guard.lost() is not None, "nothing was confirmed yet"
    beacon.confirm(boot_time())
    assert guard.lost() is None
    beacon.confirm(boot_time() - 5.1)
    assert guard.lost() is not None
    beacon.confirm(boot_time())
    beacon.lose()
    assert guard.lost() is not None


def test_an_expired_session_is_noticed_by_its_keeper(
    database: Database, tmp_path: Path
) -> None:
    beacon = Beacon(tmp_path / "beacon")
    keeper = Keeper(database, session_id="mine", beacon=beacon, beat_every_s=0.01)
    keeper.start(host_id="host", host_name="host", capacity=1, pid=os.getpid())
    guard = BeaconGuard(tmp_path / "beacon", trust_s=5.0)
    assert guard.lost() is None
    with database.write("test") as tx:
        tx.run("UPDATE sessions SET status = 'expired', ended_at = {now} WHERE id = 'mine'")
    assert keeper.lost.wait(5.0)
    assert guard.lost() is not None
    keeper.stop()
