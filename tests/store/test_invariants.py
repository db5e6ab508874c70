"""Each invariant is silent about good rows and speaks about the one bad row it is for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from leasehold.domain.lifecycle import LEASE_MOVES, RUN_MOVES
from leasehold.ids import new_id
from leasehold.store import invariants, moves
from leasehold.store.database import Database, Tx
from store.rows import (
    HOUR_US,
    insert_execution,
    insert_held,
    insert_lease,
    insert_predecessor,
    insert_run,
    insert_worker,
)

Breaker = Callable[[Tx], None]
BREAKERS: dict[str, Breaker] = {}


def breaks(name: str) -> Callable[[Breaker], Breaker]:
    def keep(breaker: Breaker) -> Breaker:
        BREAKERS[name] = breaker
        return breaker

    return keep


class UndoError(Exception):
    """Ends a transaction that is not to be kept."""


@contextmanager
def undone(database: Database) -> Iterator[Tx]:
    with pytest.raises(UndoError), database.write("test") as tx:
        yield tx
        raise UndoError


def without_check(tx: Tx, table: str, name: str) -> None:
    """Take a CHECK away, as a careless restore might."""
    if tx.dialect == "sqlite":
        tx.run("PRAGMA ignore_check_constraints = ON")
    else:
        tx.run(f"ALTER TABLE {table} DROP CONSTRAINT {name}")


def without_index(tx: Tx, name: str) -> None:
    tx.run(f"DROP INDEX {name}")


@breaks("a running run is claimed or due")
def forgotten_run(tx: Tx) -> None:
    without_check(tx, "runs", "run_never_forgotten")
    insert_run(tx, due_at=None)


@breaks("a live run has a timer, at its deadline or before")
def run_without_timer(tx: Tx) -> None:
    insert_run(tx, timer_at=tx.now() + 2 * HOUR_US)


@breaks("only a running run is claimed or due")
def claimed_in_the_queue(tx: Tx) -> None:
    insert_worker(tx)
    insert_run(tx, status="queued", claimed_by="worker-1")


@breaks("a run waits for those that it starts after, and no other does")
def run_that_waits_for_nothing(tx: Tx) -> None:
    insert_run(tx, status="queued", waits=1)


@breaks("what is waited for is looked at, or tells of its end")
def predecessor_that_tells_nobody(tx: Tx) -> None:
    of, after = insert_run(tx, status="queued", waits=1), insert_run(tx, awaited=True)
    insert_predecessor(tx, of=of, after=after, due=False)
    assert not invariants.check(tx)
    tx.run("UPDATE runs SET awaited = {false}")


@breaks("a run that was started had the ends before it that it needs")
def run_that_started_too_early(tx: Tx) -> None:
    of, after = insert_run(tx, admitted_at=1), insert_run(tx, status="succeeded")
    settled = {"due": False, "settled_at": 1}
    insert_predecessor(tx, of=of, after=after, ended="succeeded", **settled)
    assert not invariants.check(tx)
    tx.run("UPDATE predecessors SET outcome = 'failed'")


@breaks("the claimer of a run lives")
def run_of_a_dead_worker(tx: Tx) -> None:
    insert_worker(tx)
    insert_run(tx, due_at=None, claimed_by="worker-1")
    assert not invariants.check(tx)
    tx.run("UPDATE sessions SET status = 'expired', ended_at = beat_at")


@breaks("the claimer of a lease lives")
def lease_of_a_dead_worker(tx: Tx) -> None:
    insert_worker(tx, status="gone", gone_at=tx.now())
    insert_lease(tx, status="releasing", due_at=None, claimed_by="worker-1")


@breaks("a run that rests until its beat can be found by the beat")
def beat_without_execution(tx: Tx) -> None:
    insert_held(tx, beat=True)


@breaks("a lease that is owed to the provider is claimed or due")
def forgotten_lease(tx: Tx) -> None:
    insert_lease(tx, status="acquiring", due_at=None)


@breaks("an idle or retained lease has an end")
def endless_lease(tx: Tx) -> None:
    without_check(tx, "leases", "lease_ends")
    insert_lease(tx, status="idle", timer_at=None)


@breaks("a run has at most one open execution")
def two_executions(tx: Tx) -> None:
    without_index(tx, "execution_one_open")
    run, lease = insert_held(tx)
    insert_execution(tx, run, lease_id=lease["id"])
    insert_execution(tx, run, lease_id=lease["id"], number=2)


@breaks("an execution's number was counted by its run")
def uncounted_start(tx: Tx) -> None:
    run, lease = insert_held(tx)
    insert_execution(tx, run, lease_id=lease["id"], number=2)
    tx.run("UPDATE runs SET starts = 1 WHERE id = :id", id=run["id"])


def _output(tx: Tx, stream: str) -> None:
    run, lease = insert_held(tx)
    execution = insert_execution(tx, run, lease_id=lease["id"])
    tx.run(f"UPDATE executions SET {stream}_offset = 6")
    for start in (0, 4):
        tx.run(
            "INSERT INTO output_chunks (execution_id, stream, start, data)"
            " VALUES (:id, :stream, :start, :data)",
            id=execution["id"],
            stream=stream,
            start=start,
            data=b"ab",
        )


@breaks("stdout is stored without a gap")
def gap_in_stdout(tx: Tx) -> None:
    _output(tx, "stdout")


@breaks("stderr is stored without a gap")
def gap_in_stderr(tx: Tx) -> None:
    _output(tx, "stderr")


@breaks("a lease that holds a sandbox has its handle")
def unreachable_sandbox(tx: Tx) -> None:
    insert_lease(tx, status="idle", handle=None)


@breaks("a finished lease was cleaned up")
def finished_and_not_destroyed(tx: Tx) -> None:
    insert_lease(tx, status="released", cleanup_status="pending")


@breaks("a finished lease rests")
def finished_and_due(tx: Tx) -> None:
    without_check(tx, "leases", "lease_over_rests")
    insert_lease(tx, status="failed", due_at=tx.now())


@breaks("a retained lease that a run looks into stays what it is, or is lost")
def retained_and_given_back(tx: Tx) -> None:
    run_id = new_id()
    lease = insert_lease(tx, run_id=run_id, retained_until=tx.now())
    insert_run(tx, id=run_id, lease=lease, step="execute")
    assert not invariants.check(tx), "a run may look into it"
    insert_lease(tx, status="releasing", mode="destroy", final="released", retained_until=1)


@breaks("a held lease belongs to a running run that names it")
def lease_of_an_ended_run(tx: Tx) -> None:
    run = insert_run(tx, status="succeeded")
    insert_lease(tx, run_id=run["id"])


@breaks("a running run holds the lease that it names")
def run_on_a_lost_lease(tx: Tx) -> None:
    insert_run(tx, lease=insert_lease(tx, status="releasing"))


@breaks("a lease has at most one running run")
def two_runs_on_a_lease(tx: Tx) -> None:
    without_index(tx, "run_lease")
    _, lease = insert_held(tx)
    insert_run(tx, lease=lease)


@breaks("a run holds at most one lease")
def two_leases_of_a_run(tx: Tx) -> None:
    without_index(tx, "lease_one_per_run")
    run, _ = insert_held(tx)
    insert_lease(tx, status="acquiring", run_id=run["id"])


@breaks("a sandbox has at most one live lease")
def two_leases_on_a_sandbox(tx: Tx) -> None:
    without_index(tx, "lease_one_per_sandbox")
    for _ in range(2):
        insert_lease(tx, status="idle", sandbox_id="the same")


@breaks("a run that is over runs nothing, or its sandbox is owed destruction")
def command_of_an_ended_run(tx: Tx) -> None:
    lease = insert_lease(tx, status="releasing")
    run = insert_run(tx, status="cancelled")
    insert_execution(tx, run, lease_id=lease["id"])
    assert not invariants.check(tx), "owed destruction is proof enough"
    tx.run("UPDATE leases SET mode = 'suspend', final = 'idle'")


@breaks("a live run's open execution is in the lease that the run holds")
def command_left_behind(tx: Tx) -> None:
    left = insert_lease(tx, status="idle")
    run, _ = insert_held(tx)
    insert_execution(tx, run, lease_id=left["id"])


@breaks("a parked run holds nothing")
def parked_with_a_lease(tx: Tx) -> None:
    run = insert_run(tx, status="parked")
    insert_lease(tx, run_id=run["id"])


@breaks("a run whose end is decided runs nothing any more")
def run_that_goes_on_after_its_end(tx: Tx) -> None:
    run, lease = insert_held(tx)
    tx.run("UPDATE runs SET ending = '{}', step = 'heartbeat' WHERE id = :id", id=run["id"])
    assert not invariants.check(tx)
    insert_execution(tx, run, lease_id=lease["id"])


@breaks("a workspace has at most one live run")
def two_runs_on_a_workspace(tx: Tx) -> None:
    without_index(tx, "run_workspace")
    insert_run(tx, workspace="/w")
    insert_run(tx, workspace="/w")


@breaks("a claimed row is not due")
def claimed_and_due(tx: Tx) -> None:
    insert_worker(tx)
    insert_lease(tx, status="releasing", claimed_by="worker-1")


@breaks("whoever holds something has a fence")
def held_without_a_fence(tx: Tx) -> None:
    insert_lease(tx, status="releasing", fence=0)


@breaks("nothing follows a run's end")
def run_that_came_back(tx: Tx) -> None:
    run = insert_run(tx, status="failed")
    names = ("run.running", "run.failed")
    moves.record(tx, *names, tenant_id="default", run_id=run["id"])


@breaks("nothing follows a lease's end")
def lease_that_came_back(tx: Tx) -> None:
    lease = insert_lease(tx, status="released")
    names = ("lease.idle", "lease.released")
    moves.record(tx, *names, tenant_id="default", lease_id=lease["id"])


@breaks("a run's status is that of its last event")
def run_without_history(tx: Tx) -> None:
    insert_run(tx)
    tx.run("DELETE FROM events")


@breaks("a lease's status is that of its last event")
def lease_that_moved_in_silence(tx: Tx) -> None:
    lease = insert_lease(tx, status="idle")
    moves.record(tx, "lease.retained", tenant_id="default", lease_id=lease["id"])


def test_every_invariant_has_a_row_that_breaks_it() -> None:
    assert set(BREAKERS) == {invariant.name for invariant in invariants.INVARIANTS}


def test_rows_in_every_status_break_nothing(database: Database) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        for run_status in RUN_MOVES:
            insert_run(tx, status=run_status)
        for lease_status in LEASE_MOVES:
            if lease_status != "active":
                insert_lease(tx, status=lease_status)
        insert_run(tx, due_at=None, claimed_by="worker-1")
        run, lease = insert_held(tx, beat=True)
        insert_execution(tx, run, lease_id=lease["id"])
        over = insert_run(tx, status="succeeded")
        for number, status in enumerate(("exited", "lost", "cancelled"), start=1):
            insert_execution(tx, over, lease_id="any", status=status, number=number)


def test_each_invariant_fires_for_its_row(database: Database) -> None:
    silent = []
    for name, breaker in BREAKERS.items():
        with undone(database) as tx:
            breaker(tx)
            fired = {violation.name for violation in invariants.check(tx)}
            if tx.dialect == "sqlite":
                tx.run("PRAGMA ignore_check_constraints = OFF")
        if name not in fired:
            silent.append((name, fired))
    assert not silent


@pytest.mark.breaks_invariants
def test_a_violation_names_its_promise_and_its_row(database: Database) -> None:
    with database.write("test") as tx:
        lease = insert_lease(tx, status="releasing", fence=0)
    with database.read() as tx:
        (violation,) = invariants.check(tx)
    assert violation.promise == "P5"
    assert violation.row["id"] == lease["id"]
    assert lease["id"] in str(violation)
