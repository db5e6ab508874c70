"""The guarded move: one winner, arrows only, its event with it or not at all."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from leasehold.domain import lifecycle as life
from leasehold.errors import LostClaimError
from leasehold.store import claims, executions, leases, moves, runs
from leasehold.store.database import Database, Row, Tx
from store.rows import (
    insert_execution,
    insert_held,
    insert_lease,
    insert_run,
    insert_worker,
)

POSTGRESQL = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
THREADS = 8


def race(work: Callable[[int], Any]) -> list[Any]:
    """Let threads do the same at the same time; return what each got."""
    together = threading.Barrier(THREADS)
    results: list[Any] = [None] * THREADS

    def one(index: int) -> None:
        together.wait()
        try:
            results[index] = work(index)
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return results


class Other:
    """A second connection whose statements are sent from a thread of its own."""

    def __init__(self, database: Database, work: Callable[[Tx], Any]) -> None:
        self.pid = 0
        self.result: Any = None
        self._ready = threading.Event()
        self._database = database
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()
        assert self._ready.wait(timeout=30)

    def _run(self, work: Callable[[Tx], Any]) -> None:
        try:
            with self._database.write("other") as tx:
                self.pid = tx.value("SELECT pg_backend_pid()")
                self._ready.set()
                self.result = work(tx)
        except Exception as error:
            self.result = error

    def wait_until_blocked(self) -> None:
        """Return once the other transaction waits for a lock."""
        watch = "SELECT count(*) FROM pg_locks WHERE pid = :pid AND NOT granted"
        for _ in range(10_000):
            with self._database.read() as tx:
                if tx.value(watch, pid=self.pid):
                    return
            if not self._thread.is_alive():
                break
        pytest.fail(f"it was not blocked: {self.result!r}")

    def join(self) -> Any:
        self._thread.join(timeout=30)
        return self.result


def keep(database: Database, make: Callable[[Tx], Row]) -> Row:
    with database.write("test") as tx:
        return make(tx)


def finish(tx: Tx, run_id: str, to: str) -> Row | None:
    row = moves.move(
        tx,
        "runs",
        run_id,
        to,
        raw=("finished_at = {now}",),
        step=None,
        due_at=None,
        claimed_by=None,
    )
    if row is not None:
        moves.record(tx, f"run.{to}", tenant_id="default", run_id=run_id)
    return row


# --- the move ------------------------------------------------------------------------------


def test_a_move_returns_the_new_row(database: Database) -> None:
    run = keep(database, insert_run)
    with database.write("test") as tx:
        row = finish(tx, run["id"], "failed")
    assert row is not None
    assert (row["status"], row["step"]) == ("failed", None)


def test_a_terminal_status_never_changes(database: Database) -> None:
    with database.write("test") as tx:
        for end in life.RUN_ENDS:
            run = insert_run(tx, status=end)
            for to in life.RunStatus:
                assert moves.move(tx, "runs", run["id"], to, priority=1) is None


def test_only_arrows_are_moves(database: Database) -> None:
    with database.write("test") as tx:
        for before in life.LeaseStatus:
            lease = insert_lease(tx, status=before, run_id="r" if before == "active" else None)
            for to in set(life.LeaseStatus) - life.LEASE_MOVES[before]:
                assert moves.move(tx, "leases", lease["id"], to) is None
            tx.run("DELETE FROM leases")
            tx.run("DELETE FROM events")


def test_a_guard_that_does_not_hold_stops_the_move(database: Database) -> None:
    run = keep(database, insert_run)
    with database.write("test") as tx:
        for seen, moved in ((7, False), (1, True)):
            row = moves.move(
                tx,
                "runs",
                run["id"],
                None,
                guard="fence = :seen",
                guard_values={"seen": seen},
                raw=("fence = fence + 1",),
            )
            assert (row is not None) is moved
    with database.read() as tx:
        assert tx.value("SELECT fence FROM runs") == 2


def test_json_values_come_back_as_they_went_in(database: Database) -> None:
    run = keep(database, insert_run)
    labels = {"who": "ü", "list": [1, None, {"a": 0.5}], "percent": "100 % :name {now}"}
    with database.write("test") as tx:
        moves.move(tx, "runs", run["id"], None, labels=labels)
    with database.read() as tx:
        row = runs.find(tx, run["id"])
    assert row is not None
    assert row["labels"] == labels


def test_a_move_and_its_event_are_kept_together_or_not_at_all(database: Database) -> None:
    run = keep(database, insert_run)
    with pytest.raises(ZeroDivisionError), database.write("test") as tx:
        assert finish(tx, run["id"], "failed")
        raise ZeroDivisionError
    with database.read() as tx:
        assert tx.value("SELECT status FROM runs") == "running"
        assert tx.value("SELECT count(*) FROM events WHERE name = 'run.failed'") == 0


def test_events_keep_the_order_in_which_they_were_given(database: Database) -> None:
    names = [f"step.{step}.started" for step in life.Step]
    with database.write("test") as tx:
        moves.record(tx, *names, ("x", {"why": "it's"}), tenant_id="default", run_id="r")
        moves.record(tx, tenant_id="default", run_id="r")
    with database.read() as tx:
        rows = tx.all("SELECT name, data, at FROM events ORDER BY id")
    assert [row["name"] for row in rows] == [*names, "x"]
    assert runs.decoded(rows[-1])["data"] == {"why": "it's"}
    assert all(row["at"] > 0 for row in rows)


def test_what_is_to_follow_a_commit_follows_only_a_commit(database: Database) -> None:
    done: list[str] = []
    with database.write("test") as tx:
        tx.after_commit.append(lambda: done.append("kept"))
        assert done == []
    with pytest.raises(ZeroDivisionError), database.write("test") as tx:
        tx.after_commit.append(lambda: done.append("undone"))
        raise ZeroDivisionError
    assert done == ["kept"]


# --- races ---------------------------------------------------------------------------------


def test_of_threads_that_end_a_run_exactly_one_wins(database: Database) -> None:
    run = keep(database, insert_run)
    ends = sorted(life.RUN_ENDS)

    def end(index: int) -> bool:
        with database.write("test") as tx:
            return finish(tx, run["id"], ends[index % len(ends)]) is not None

    assert sorted(race(end)) == [False] * (THREADS - 1) + [True]
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM events WHERE run_id = :id", id=run["id"]) == 3


def test_of_threads_that_claim_a_run_exactly_one_wins(database: Database) -> None:
    def make(tx: Tx) -> Row:
        for index in range(THREADS):
            insert_worker(tx, f"worker-{index}")
        return insert_run(tx)

    run = keep(database, make)

    def claim(index: int) -> bool:
        with database.write("test") as tx:
            claimed = runs.claim_first(
                tx, run["id"], fence=run["fence"], worker_id=f"worker-{index}"
            )
            return claimed is not None

    assert sorted(race(claim)) == [False] * (THREADS - 1) + [True]
    with database.read() as tx:
        assert tx.value("SELECT fence FROM runs") == run["fence"] + 1


def test_of_threads_that_append_the_same_output_exactly_one_stores_it(
    database: Database,
) -> None:
    with database.write("test") as tx:
        run, lease = insert_held(tx)
        execution = insert_execution(tx, run, lease_id=lease["id"])

    def append(_index: int) -> str:
        with database.write("test") as tx:
            executions.append(tx, execution["id"], stream="stdout", offset=0, data=b"once\n")
            return "stored"

    results = race(append)
    assert results.count("stored") == 1
    assert sum(isinstance(item, LostClaimError) for item in results) == THREADS - 1
    with database.read() as tx:
        assert executions.output(tx, execution["id"], stream="stdout", offset=0) == b"once\n"


def test_threads_take_different_beats(database: Database) -> None:
    count = 40

    with database.write("test") as tx:
        for index in range(THREADS):
            insert_worker(tx, f"worker-{index}")
        for _ in range(count):
            run, lease = insert_held(tx, beat=True)
            insert_execution(tx, run, lease_id=lease["id"])

    def take(index: int) -> list[str]:
        mine: list[str] = []
        while True:
            with database.write("test") as tx:
                found = runs.claim_beats(
                    tx, queue="leasehold", worker_id=f"worker-{index}", limit=3
                )
            if not found:
                return mine
            mine += found

    taken = [run_id for mine in race(take) for run_id in mine]
    assert len(taken) == len(set(taken)) == count


# --- interleavings -------------------------------------------------------------------------


@POSTGRESQL
def test_a_stale_holder_that_locked_late_finds_the_fence_raised(database: Database) -> None:
    with database.write("test") as tx:
        run, lease = insert_held(tx)

    def stale(tx: Tx) -> Row:
        return leases.hold(tx, lease, fence=1)

    with database.write("test") as tx:
        assert leases.raise_fence(tx, lease["id"], fence=1, run_id=run["id"])
        other = Other(database, stale)
        other.wait_until_blocked()
    assert isinstance(other.join(), LostClaimError)


@POSTGRESQL
def test_a_take_over_waits_for_the_holder_that_locked_first(database: Database) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        run, lease = insert_held(tx, claimed_by="worker-1", due_at=None)

    def take_over(tx: Tx) -> Any:
        return claims.give_up(tx, ["worker-1"])

    with database.write("test") as tx:
        leases.hold(tx, lease, fence=1)
        other = Other(database, take_over)
        other.wait_until_blocked()
        moves.move(tx, "runs", run["id"], None, step="heartbeat")
    assert other.join() == 1
    with database.read() as tx:
        row = tx.one("SELECT r.step, l.fence FROM runs r JOIN leases l ON l.id = r.lease_id")
    assert row == {"step": "heartbeat", "fence": 2}


@POSTGRESQL
def test_a_second_claim_of_the_same_message_changes_nothing(database: Database) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        run, lease = insert_held(tx)

    def again(tx: Tx) -> Row | None:
        return leases.raise_fence(tx, lease["id"], fence=1, run_id=run["id"])

    with database.write("test") as tx:
        assert leases.raise_fence(tx, lease["id"], fence=1, run_id=run["id"])
        assert runs.claim(tx, run["id"], lease_id=lease["id"], worker_id="worker-1")
        other = Other(database, again)
        other.wait_until_blocked()
    assert other.join() is None
    with database.read() as tx:
        assert tx.value("SELECT fence FROM leases") == 2


@POSTGRESQL
def test_of_two_ends_the_one_that_committed_first_stands(database: Database) -> None:
    run = keep(database, insert_run)
    with database.write("test") as tx:
        assert finish(tx, run["id"], "succeeded")
        other = Other(database, lambda late: finish(late, run["id"], "cancelled"))
        other.wait_until_blocked()
    assert other.join() is None
    with database.read() as tx:
        assert tx.value("SELECT status FROM runs") == "succeeded"


@POSTGRESQL
def test_an_end_that_was_rolled_back_lets_the_next_one_win(database: Database) -> None:
    run = keep(database, insert_run)
    with pytest.raises(ZeroDivisionError), database.write("test") as tx:
        assert finish(tx, run["id"], "succeeded")
        other = Other(database, lambda late: finish(late, run["id"], "cancelled"))
        other.wait_until_blocked()
        raise ZeroDivisionError
    assert other.join()["status"] == "cancelled"


@POSTGRESQL
def test_a_locked_idle_lease_is_passed_over(database: Database) -> None:
    where = {"scope": "here", "fingerprint": "same"}
    with database.write("test") as tx:
        older = insert_lease(tx, status="idle", **where)
        newer = insert_lease(tx, status="idle", **where)

    def find(tx: Tx) -> Row | None:
        return leases.find_idle(tx, queue="leasehold", **where)

    with database.write("test") as tx:
        mine = find(tx)
        theirs = Other(database, find).join()
    assert mine is not None
    assert (mine["id"], theirs["id"]) == (newer["id"], older["id"])
