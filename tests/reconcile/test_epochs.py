"""After a restore: what the alarm stops, what the epoch takes in, on both databases."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from leasehold.bootstrap import App
from leasehold.maintenance import clock, restored
from leasehold.orchestrator.jobs import EPOCH_SHIFT
from leasehold.orchestrator.sweep import Report, Sweep
from leasehold.provider import Budget, LeaseRef
from leasehold.runtime.guard import Beacon, BeaconGuard
from leasehold.runtime.keeper import Keeper
from leasehold.runtime.ledger import Ledger
from leasehold.store import environments, leases, sweeps
from leasehold.store import restored as alarms
from leasehold.store.database import Database, Row
from living import wait_for
from story.conftest import House


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    house = House(database, tmp_path / "fake")
    yield house


def sweep(house: House, memory: Sweep, *, dry_run: bool = False) -> Report:
    house.worker.timers = house.app.timers.__class__(sweep_grace=timedelta(microseconds=1))
    return memory.run_once(house.worker, house.registry.require("fake"), dry_run=dry_run)


def plant(house: House, lease_id: str, *, number: int, epoch: int = 0) -> None:
    house.registry.require("fake").acquire(
        LeaseRef(id=lease_id, number=number, deployment="story"),
        {},
        known=None,
        ttl=timedelta(minutes=5),
        fence=epoch << EPOCH_SHIFT | 7,
        budget=Budget(5.0),
    )


def say_restored(house: House) -> restored.Report:
    """Do what the command does, and what agents do that begin anew."""
    with house.database.write("test") as tx:
        report = restored.confirm(tx, house.worker)
    house.app = App(
        settings=house.app.settings,
        database=house.database,
        timers=house.app.timers,
        deployment="story",
        epoch=report.epoch,
    )
    house.worker = house.hire()
    return report


def lease(house: House, lease_id: str) -> Row:
    with house.database.read() as tx:
        return leases.get(tx, lease_id, tenant_id="default")


def alarm(database: Database) -> str | None:
    with database.read() as tx:
        return alarms.alarm(tx)


def test_a_number_above_the_highest_stops_everything_until_a_person_speaks(
    house: House,
) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    plant(house, "of-today", number=10**6)
    memory = Sweep("host-1")
    assert sweep(house, memory).alarm is not None
    said = alarm(house.database)
    assert said is not None
    assert "leasehold db restored" in said
    waiting = house.submit("true")
    house.messages.clear()
    assert clock.run_once(house.worker, batch=10).sent == 0, "nothing is sent"

    report = say_restored(house)
    assert (report.was, report.epoch) == (said, 1)
    assert alarm(house.database) is None
    assert sweep(house, memory).taken_in == ["of-today"]
    house.quiet()
    taken = lease(house, "of-today")
    assert (taken["status"], taken["number"]) == ("retained", 10**6)
    assert house.over(waiting)["status"] == "succeeded"
    assert house.run(waiting)["lease_id"] is not None
    highest = max(row["number"] for row in house.leases())
    assert highest > 10**6, "numbers go on above all that there are"
    for _ in range(3):
        assert sweep(house, memory).destroyed == []
    assert house.world.sandboxes() == ["of-today"]


def test_a_forgotten_sandbox_is_taken_in_whatever_number_it_has(house: House) -> None:
    house.environment()
    for _ in range(3):
        house.over(house.submit("true"))
    house.quiet()
    say_restored(house)
    # Its number was given out again since; and its host was away when the person spoke.
    plant(house, "late", number=2)
    plant(house, "stray-of-now", number=1, epoch=1)
    memory = Sweep("host-1")
    first = sweep(house, memory)
    assert (first.forgotten, first.strays, first.taken_in) == (1, 1, ["late"])
    second = sweep(house, memory)
    assert (second.taken_in, second.destroyed) == ([], ["stray-of-now"])
    house.quiet()
    assert lease(house, "late")["status"] == "retained"


def test_what_may_be_in_use_is_kept(house: House) -> None:
    house.environment("pool", policy="reuse_by_environment")
    used = house.over(house.submit("true", environment="pool"))["lease_id"]
    house.quiet()
    house.environment("long")
    running = house.submit("sleep", "60", environment="long")
    house.until(lambda: house.run(running)["step"] == "heartbeat")
    report = say_restored(house)
    assert set(report.kept) == {used, house.run(running)["lease_id"]}
    assert lease(house, used)["status"] == "retained"
    house.cancel(running)
    house.over(running)
    house.quiet()
    assert lease(house, house.run(running)["lease_id"])["status"] == "retained"


def test_a_sweeper_of_the_epoch_before_touches_nothing(house: House) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    old = house.worker
    plant(house, "stray", number=1)
    memory = Sweep("host-1")
    sweep(house, memory)
    say_restored(house)
    house.worker = old
    with pytest.raises(Exception, match="epoch 1 has come"):
        sweep(house, memory)
    assert house.world.sandboxes() == ["stray"]


def test_a_second_restore_from_one_backup_gets_an_epoch_above_both(house: House) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    plant(house, "of-epoch-3", number=10**6, epoch=3)
    assert sweep(house, Sweep("host-1")).alarm is not None
    assert say_restored(house).epoch == 4


def test_a_dry_run_changes_nothing(house: House) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    plant(house, "stray", number=1)
    memory = Sweep("host-1")
    reports = [sweep(house, memory, dry_run=True) for _ in range(3)]
    assert [(r.orphans, r.destroyed) for r in reports] == [(1, [])] * 3
    assert house.world.sandboxes() == ["stray"]


def test_requests_for_sweeps_are_numbered_and_the_last_one_says_whether_it_is_dry(
    database: Database,
) -> None:
    with database.write("test") as tx:
        assert sweeps.wanted(tx) == (0, False)
        assert [sweeps.ask(tx, dry_run=dry) for dry in (True, False, True)] == [1, 2, 3]
        assert sweeps.wanted(tx) == (3, True)


class Kept:
    """One session whose beats a test can wait for."""

    def __init__(self, database: Database, path: Path, *, epoch: int = 0) -> None:
        with database.read() as tx:
            deployment = environments.fact(tx, "deployment") or ""
        self.beacon = Beacon(path / "beacon")
        self.guard = BeaconGuard(path / "beacon", trust_s=60)
        self.ledger = Ledger(path / "ledger.json", deployment=deployment, epoch=epoch)
        self.keeper = Keeper(
            database,
            session_id="mine",
            beacon=self.beacon,
            beat_every_s=0.01,
            ledger=self.ledger,
        )

    def start(self) -> None:
        self.keeper.start(host_id="host", host_name="host", capacity=1, pid=1)


def test_a_counter_that_goes_back_proves_a_database_that_was_put_back(
    database: Database, tmp_path: Path
) -> None:
    kept = Kept(database, tmp_path)
    kept.start()
    wait_for("beats", lambda: kept.keeper._counter > 3)
    with database.write("test") as tx:
        tx.run("UPDATE sessions SET counter = 1")
    wait_for("the alarm", lambda: alarm(database) is not None)
    wait_for("no trust", lambda: kept.guard.lost() is not None)
    assert "went back" in (alarm(database) or "")
    kept.keeper.stop()


def test_a_host_that_knows_higher_numbers_raises_the_alarm_before_it_begins(
    database: Database, tmp_path: Path
) -> None:
    kept = Kept(database, tmp_path)
    kept.ledger.note(12)
    kept.start()
    assert "lease number 12" in (alarm(database) or "")
    assert kept.guard.lost() is not None
    kept.keeper.stop()


def test_the_memory_of_another_deployment_means_nothing(
    database: Database, tmp_path: Path
) -> None:
    Ledger(tmp_path / "ledger.json", deployment="another", epoch=7).note(12)
    kept = Kept(database, tmp_path)
    kept.start()
    assert alarm(database) is None
    kept.keeper.stop()


def test_a_ledger_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text("{")
    assert Ledger(path, deployment="d", epoch=0).read() is None


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_copy_of_a_database_is_not_the_deployments(
    database: Database, tmp_path: Path, house: House
) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    with database.write("test") as tx:
        environments.set_fact(tx, "bound_to", "another cluster/1")
    plant(house, "stray", number=1)
    memory = Sweep("host-1")
    assert [sweep(house, memory).destroyed for _ in range(3)] == [[], [], []]
    assert "bound to database another" in (alarm(database) or "")
    say_restored(house)
    kept = Kept(database, tmp_path, epoch=1)
    kept.start()
    assert alarm(database) is None, "it is bound to this one now"
    kept.keeper.stop()
