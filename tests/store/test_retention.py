"""What is over goes after its time, with all that belongs to it; what is not, never does."""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from leasehold.blobs import Blobs
from leasehold.bootstrap import App
from leasehold.domain.retention import BLOB_GRACE_S, DEFAULT, KEY_KEPT_S, Retention
from leasehold.domain.timers import Timers
from leasehold.maintenance import pruner
from leasehold.orchestrator import storing
from leasehold.orchestrator.jobs import Context
from leasehold.settings import Settings
from leasehold.store import environments, leases, moves, restored, retention, runs
from leasehold.store.database import Database
from store.old import ago, ended, left, newest, there
from store.rows import (
    insert_artifact,
    insert_execution,
    insert_lease,
    insert_run,
    insert_worker,
)

DAY_US: Final = 86_400_000_000
LIMITS: Final = pruner.Limits(spared=1)


@pytest.fixture
def context(database: Database, tmp_path: Any) -> Iterator[Context]:
    app = App(settings=Settings(), database=database, timers=Timers(), deployment="d", epoch=0)
    context = app.context(publish=lambda _: None)
    context.blobs = Blobs(str(tmp_path / "store"))
    yield context


def test_a_run_goes_after_its_time_with_all_that_belongs_to_it(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        old, young = ended(tx, 91), ended(tx, 89)
        newest(tx)
    report = pruner.run_once(context, limits=LIMITS)
    assert (report.runs, report.leases, report.output_of) == (1, 1, 2)
    assert there(database) == {young["id"]}
    assert left(database, "executions", "leases", "artifacts", "output_chunks") == [1, 2, 0, 0]
    assert left(database, "run_reports") == [1]
    with database.read() as tx:
        assert moves.events_of(tx, run_id=old["id"]) == []
        assert moves.events_of(tx, run_id=young["id"])[0]["name"] == "run.queued"
    assert not pruner.run_once(context, limits=LIMITS).removed


def test_output_and_artifacts_may_go_before_their_run_and_the_run_says_so(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        old, young = ended(tx, 31), ended(tx, 29)
    assert pruner.run_once(context, limits=LIMITS).output_of == 1
    with database.read() as tx:
        before, after = runs.find(tx, old["id"]), runs.find(tx, young["id"])
    assert before is not None
    assert after is not None
    assert before["output_pruned_at"] is not None
    assert after["output_pruned_at"] is None
    assert left(database, "artifacts", "output_chunks", "executions") == [1, 1, 2]


@pytest.mark.parametrize("status", ["queued", "running", "parked"])
def test_a_run_that_is_not_over_stays_however_old(
    database: Database, context: Context, status: str
) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        run = insert_run(tx, status=status, created_at=ago(tx, 5000))
        lease = insert_lease(tx, status="released", finished_at=ago(tx, 5000))
        insert_execution(tx, run, lease_id=lease["id"], status="exited")
        newest(tx)
    assert not pruner.run_once(context, limits=LIMITS).removed


@pytest.mark.parametrize("status", ["idle", "releasing", "retained"])
def test_a_run_whose_lease_is_not_over_stays(
    database: Database, context: Context, status: str
) -> None:
    with database.write("test") as tx:
        run = insert_run(tx, status="failed", finished_at=ago(tx, 5000))
        insert_lease(tx, status=status, run_id=run["id"])
        newest(tx)
    assert not pruner.run_once(context, limits=LIMITS).removed


def test_a_run_that_a_live_run_retries_stays_until_that_is_over(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        first = insert_run(tx, status="failed", finished_at=ago(tx, 100))
        second = insert_run(tx, status="queued", retry_of=first["id"])
        newest(tx)
    assert pruner.run_once(context, limits=LIMITS).runs == 0
    with database.write("test") as tx:
        moves.move(tx, "runs", second["id"], "cancelled", finished_at=tx.now(), timer_at=None)
        moves.record(tx, "run.cancelled", tenant_id="default", run_id=second["id"])
    assert pruner.run_once(context, limits=LIMITS).runs == 1


def test_a_key_finds_its_run_for_a_day_whatever_is_set(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        retention.put(tx, "default", Retention(runs_s=3600, output_s=3600))
        almost, over = KEY_KEPT_S / 86_400 - 0.01, KEY_KEPT_S / 86_400 + 0.01
        kept = ended(tx, almost, idempotency_key="kept")
        ended(tx, over, idempotency_key="over")
        ended(tx, 0.1)
        newest(tx)
    assert pruner.run_once(context, limits=LIMITS).runs == 2
    assert there(database) == {kept["id"]}
    assert left(database, "output_chunks") == [0]


def test_the_lease_of_the_highest_number_and_those_of_the_sweep_stay(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        rows = [
            insert_lease(tx, status="released", finished_at=ago(tx, 1000)) for _ in range(5)
        ]
    limits = dataclasses.replace(LIMITS, spared=2)
    assert pruner.run_once(context, limits=limits).leases == 3
    assert there(database, "leases") == {row["id"] for row in rows[3:]}
    with database.read() as tx:
        assert leases.highest_number(tx) == rows[-1]["number"]


def test_a_lease_that_a_live_run_wants_or_has_used_stays(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        wanted = insert_lease(tx, status="released", finished_at=ago(tx, 1000))
        insert_run(tx, status="queued", wanted_lease_id=wanted["id"])
        used = insert_lease(tx, status="failed", finished_at=ago(tx, 1000))
        parked = insert_run(tx, status="parked")
        insert_execution(tx, parked, lease_id=used["id"], status="lost")
        newest(tx)
    assert pruner.run_once(context, limits=LIMITS).leases == 0


def test_a_line_of_both_stays_until_both_are_gone(database: Database, context: Context) -> None:
    with database.write("test") as tx:
        run = insert_run(tx, status="succeeded", finished_at=ago(tx, 100))
        lease = insert_lease(tx, status="released", finished_at=ago(tx, 1))
        tx.run("UPDATE events SET run_id = :r WHERE lease_id = :l", r=run["id"], l=lease["id"])
        newest(tx)
    assert pruner.run_once(context, limits=LIMITS).runs == 1
    with database.write("test") as tx:
        names = [e["name"] for e in moves.events_of(tx, lease_id=lease["id"])]
        assert names[-1] == "lease.released"
        tx.run(
            "UPDATE leases SET finished_at = :at WHERE id = :id",
            at=ago(tx, 100),
            id=lease["id"],
        )
    assert pruner.run_once(context, limits=LIMITS).leases == 1
    with database.read() as tx:
        assert moves.events_of(tx, run_id=run["id"]) == []


def test_for_ever_is_for_ever_and_each_tenant_has_its_own(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 0)")
        ended(tx, 3000)
        other = ended(tx, 3000, tenant_id="other")
        retention.put(tx, "other", Retention(runs_s=None, output_s=None))
        newest(tx)
    pruner.run_once(context, limits=LIMITS)
    assert there(database) == {other["id"]}
    assert left(database, "artifacts") == [1]


def test_more_than_a_batch_goes_in_one_turn_and_many_turns_do_no_harm(
    database: Database, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruner, "BATCH", 2)
    monkeypatch.setattr(pruner, "OUTPUTS", 2)
    with database.write("test") as tx:
        for _ in range(5):
            ended(tx, 100)
        newest(tx)
    forecast = pruner.totals(pruner.forecast(context, limits=LIMITS))
    report = pruner.run_once(context, limits=LIMITS)
    assert (report.runs, report.leases, report.output_of) == (5, 5, 5)
    wanted = {"runs": 5, "leases": 5, "output_of": 5, "output_bytes": 25, "artifacts": 5}
    assert {name: forecast[name] for name in wanted} == wanted


def test_stopped_it_leaves_the_rest_for_the_next_turn(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        ended(tx, 100)
    assert not pruner.run_once(context, limits=LIMITS, stopped=lambda: True).removed
    assert left(database, "runs") == [1]


def test_lines_of_neither_workers_and_sessions_go_and_those_that_claim_stay(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        for name in ("old", "young", "live"):
            insert_worker(tx, name)
        for name, days in (("old", 8), ("young", 6)):
            moves.move(tx, "workers", name, "gone", gone_at=ago(tx, days))
            session = f"session-of-{name}"
            moves.move(tx, "sessions", session, "ended", ended_at=ago(tx, days))
        moves.record(tx, "key.created", tenant_id="default")
        moves.flush(tx)
        tx.run("UPDATE events SET at = :at", at=ago(tx, 91))
        moves.record(tx, "key.created", tenant_id="default")
    report = pruner.run_once(context, limits=LIMITS)
    assert (report.workers, report.sessions, report.events) == (1, 1, 1)
    assert there(database, "workers") == {"young", "live"}
    assert left(database, "events") == [1]


@pytest.mark.parametrize("by_us", [200 * DAY_US, -200 * DAY_US])
def test_a_clock_that_was_set_deletes_nothing(
    database: Database, context: Context, by_us: int
) -> None:
    with database.write("test") as tx:
        ended(tx, 20)
    assert not pruner.may(context), "the first look only remembers"
    assert pruner.may(context)
    with database.write("test") as tx:
        environments.set_fact(tx, "clock_offset_us", str(by_us))
    # Between the look and the deed.
    assert not pruner.run_once(context, limits=LIMITS).removed
    with database.write("test") as tx:
        environments.set_fact(tx, "clock_offset_us", "0")


def test_while_the_alarm_stands_nothing_is_deleted(
    database: Database, context: Context
) -> None:
    assert not pruner.may(context)
    assert pruner.may(context)
    with database.write("test") as tx:
        restored.raise_alarm(tx, "it was restored", epoch=0)
    assert not pruner.may(context)


# Objects.


def put(context: Context, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    storing.keep(context, "default", io.BytesIO(data), digest=digest, size=len(data))
    return digest


def look_now(database: Database) -> None:
    with database.write("test") as tx:
        tx.run("UPDATE blobs SET look_at = {now} WHERE look_at IS NOT NULL")


def names(database: Database) -> list[str]:
    with database.read() as tx:
        return [row["name"] for row in tx.all("SELECT name FROM blobs ORDER BY name")]


def test_an_object_that_nothing_names_goes_after_the_grace(
    database: Database, context: Context
) -> None:
    digest = put(context, b"forgotten")
    assert pruner.run_once(context, limits=LIMITS).objects == 0
    look_now(database)
    assert pruner.totals(pruner.forecast(context))["object_bytes"] == 9
    report = pruner.run_once(context, limits=LIMITS)
    assert (report.objects, report.object_bytes) == (1, 9)
    assert context.blobs.size("default", digest) is None
    assert names(database) == []


@pytest.mark.parametrize("by", ["artifact", "run"])
def test_an_object_stays_while_a_row_names_it_and_a_grace_longer(
    database: Database, context: Context, by: str
) -> None:
    digest = put(context, b"named")
    with database.write("test") as tx:
        run = insert_run(
            tx, status="succeeded", finished_at=ago(tx, 1), blob=digest if by == "run" else None
        )
        if by == "artifact":
            insert_artifact(tx, run, sha256=digest)
    look_now(database)
    assert pruner.run_once(context, limits=LIMITS).objects == 0
    with database.write("test") as tx:
        assert tx.value("SELECT look_at FROM blobs") is None, "asked once, then left alone"
        tx.run("UPDATE runs SET finished_at = :at", at=ago(tx, 100))
    assert pruner.run_once(context, limits=LIMITS).objects == 0
    with database.read() as tx:
        wait_us = tx.value("SELECT look_at FROM blobs") - tx.now()
    assert wait_us > (BLOB_GRACE_S - 60) * 1_000_000
    look_now(database)
    assert pruner.run_once(context, limits=LIMITS).objects == 1


def test_the_bytes_of_another_tenant_are_its_own(database: Database, context: Context) -> None:
    digest = put(context, b"mine")
    with database.write("test") as tx:
        tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 0)")
        insert_run(tx, status="queued", tenant_id="other", blob=digest)
    look_now(database)
    assert pruner.run_once(context, limits=LIMITS).objects == 1


def test_what_is_put_while_the_same_is_going_is_another_object(
    database: Database, context: Context
) -> None:
    digest = put(context, b"again")
    look_now(database)
    removed: list[str] = []
    remove: Callable[[str, str], None] = context.blobs.remove

    def late(tenant_id: str, name: str) -> None:
        # Decided, and not deleted yet: somebody puts the same bytes and names them.
        assert put(context, b"again") == digest
        with database.write("test") as tx:
            insert_run(tx, status="queued", blob=digest)
        remove(tenant_id, name)
        removed.append(name)

    context.blobs.remove = late  # type: ignore[method-assign]  # a moment between two effects
    assert pruner.run_once(context, limits=LIMITS).objects == 1
    assert removed == [digest]
    (name,) = names(database)
    assert name.startswith(f"{digest}.")
    assert context.blobs.size("default", digest) == 5
    target = io.BytesIO()
    assert context.blobs.fetch("default", digest, target) == 5
    assert put(context, b"again") == digest
    assert names(database) == [name]


def test_a_store_that_is_away_is_asked_again(database: Database, context: Context) -> None:
    digest = put(context, b"kept for now")
    look_now(database)
    here = context.blobs
    context.blobs = Blobs(f"{here.address}\0")
    report = pruner.run_once(context, limits=LIMITS)
    assert report.objects == 0
    assert names(database) == [digest], "its row says that it is to go"
    context.blobs = here
    assert pruner.run_once(context, limits=LIMITS).objects == 1


def test_the_defaults_are_ninety_and_thirty_days(database: Database) -> None:
    with database.read() as tx:
        assert retention.of(tx, "default") == DEFAULT == Retention(runs_s="90d", output_s="30d")
