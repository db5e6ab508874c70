"""
What SQLite, with its one writer, cannot show: two transactions at once on PostgreSQL.

Each race is told twice: with the engine as it is, which loses nothing, and with a deliberate
fault, which does. So the race is one that would be seen.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from leasehold.errors import LostClaimError
from leasehold.store import claims, leases, runs, slots
from leasehold.store.database import Database, Row, Tx
from story.conftest import House

WAITS: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'"
)


@pytest.fixture
def dialect() -> str:
    return "postgresql"


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    house = House(database, tmp_path / "fake")
    house.environment(limits={"max_concurrent": 1})
    yield house


def beside(
    house: House, first: Callable[[Tx], Any], second: Callable[[Tx], Any], *, waits: bool
) -> tuple[Any, Any]:
    """Begin `first`, do all of `second` beside it, then let `first` commit; return both."""
    found: list[Any] = []

    def other() -> None:
        try:
            with house.database.write("second") as tx:
                found.append(second(tx))
        except LostClaimError as error:
            found.append(error)

    thread = threading.Thread(target=other)
    with house.database.write("first") as tx:
        mine = first(tx)
        tx.settle()
        thread.start()
        if waits:
            _until_somebody_waits(house.database)
        else:
            thread.join(10)
    thread.join(10)
    assert found, "the second transaction came to no end"
    return mine, found[0]


def _until_somebody_waits(database: Database) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with database.read() as tx:
            if tx.value(WAITS):
                return
        time.sleep(0.005)
    pytest.fail("nobody waits for the lock")


def held(house: House) -> Row:
    """Return the lease of a run whose command runs, as its holder has it."""
    run_id = house.submit("sleep", "60")
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    with house.database.write("test") as tx:
        lease = leases.lock(tx, house.run(run_id)["lease_id"])
        assert lease is not None
        tx.run("UPDATE runs SET claimed_by = :w, due_at = NULL, beat = false", w=worker(house))
    return lease


def worker(house: House) -> str:
    return house.worker.worker_id


@pytest.mark.parametrize("faulty", [False, True], ids=["as it is", "hold takes no lock"])
def test_a_holder_beside_its_take_over(
    house: House, monkeypatch: pytest.MonkeyPatch, *, faulty: bool
) -> None:
    lease = held(house)
    if faulty:
        monkeypatch.setattr(leases, "_HOLD", leases._HOLD.replace("{lock}", ""))
    _, seen = beside(
        house,
        lambda tx: claims.give_up(tx, [worker(house)]),
        lambda tx: leases.hold(tx, lease, fence=lease["fence"]),
        waits=not faulty,
    )
    # With the fault the stale holder goes on to write, past the fence that was raised.
    assert isinstance(seen, LostClaimError) is not faulty


@pytest.mark.parametrize("faulty", [False, True], ids=["as it is", "no compare-and-set"])
def test_one_message_claimed_twice_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch, *, faulty: bool
) -> None:
    run_id = house.submit("true")
    fence = house.run(run_id)["fence"]
    if faulty:

        def blind(tx: Tx, run_id: str, *, fence: int, worker_id: str) -> Row | None:
            assert fence
            return tx.one(
                "UPDATE runs SET fence = fence + 1, claimed_by = :w, due_at = NULL"
                " WHERE id = :id RETURNING *, {now} AS now_us",
                id=run_id,
                w=worker_id,
            )

        monkeypatch.setattr(runs, "claim_first", blind)
    other = house.hire().worker_id
    mine, theirs = beside(
        house,
        lambda tx: runs.claim_first(tx, run_id, fence=fence, worker_id=worker(house)),
        lambda tx: runs.claim_first(tx, run_id, fence=fence, worker_id=other),
        waits=True,
    )
    assert mine is not None
    assert (theirs is not None) is faulty


@pytest.mark.parametrize("faulty", [False, True], ids=["as it is", "no lock"])
def test_two_runs_admitted_at_once_to_a_place_for_one(
    house: House, monkeypatch: pytest.MonkeyPatch, *, faulty: bool
) -> None:
    if faulty:
        real = slots.count_queued_and_try
        monkeypatch.setattr(
            slots, "count_queued_and_try", lambda tx, **kw: replace(real(tx, **kw), alone=True)
        )
    first, second = (submitted(house, key) for key in ("a", "b"))
    beside(house, first, second, waits=False)
    with house.database.read() as tx:
        running = tx.value("SELECT count(*) FROM runs WHERE status = 'running'")
    assert running == (2 if faulty else 1)


def submitted(house: House, label: str) -> Callable[[Tx], Any]:
    """Return the transaction of a submit."""
    from leasehold.domain.specs import RunSpec, parse
    from leasehold.orchestrator import submit

    body = {"commands": [{"argv": ["true"]}], "labels": {"name": label}}
    request = submit.Request(spec=parse(RunSpec, body), environment="lab")
    return lambda tx: submit.submit(tx, house.worker, request)
