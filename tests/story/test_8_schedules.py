"""Schedules: each time that is due makes one run, whoever's clock is first and whoever dies."""

import json
import threading
from typing import Any

import pytest

from leasehold.domain.schedules import FEW, ScheduleSpec
from leasehold.domain.specs import parse
from leasehold.errors import BadInputError, ConflictError, NotFoundError
from leasehold.maintenance import clock
from leasehold.maintenance import schedules as firing
from leasehold.orchestrator import archiving, scheduling
from leasehold.store import environments, schedules
from leasehold.store.database import Row

from .conftest import House

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
YEARLY = "0 0 1 1 *"
"""Due at no time while a test runs, unless it says so."""


def schedule(house: House, name: str = "nightly", *argv: str, **body: Any) -> Row:
    given = {"environment": "lab", "run": {"commands": [{"argv": argv or ("true",)}]}} | body
    if "at" not in given:
        given.setdefault("cron", YEARLY)
    with house.database.write("test") as tx:
        spec = parse(ScheduleSpec, given | {"name": name})
        return scheduling.create(tx, spec, tenant_id="default", actor="test")


def due_since(house: House, us: int, name: str = "nightly") -> int:
    """Let a schedule's next time be so long ago; return it."""
    with house.database.write("test") as tx:
        at = tx.now() - us
        # A whole minute, as cron has it.
        at -= at % MINUTE_US
        tx.run("UPDATE schedules SET next_at = :at WHERE name = :name", at=at, name=name)
    return at


def shown(house: House, name: str = "nightly") -> Row:
    with house.database.read() as tx:
        return schedules.get(tx, name, tenant_id="default")


def made(house: House) -> list[Row]:
    with house.database.read() as tx:
        return tx.all("SELECT * FROM runs ORDER BY created_at, id")


def turn(house: House) -> clock.Report:
    return clock.run_once(house.worker, batch=100)


def test_a_time_that_has_come_makes_one_run_and_the_next_one_is_awaited(house: House) -> None:
    house.environment()
    first = schedule(house, "nightly", "echo", "hi")
    assert turn(house).fired == 0
    at = due_since(house, 0)
    assert turn(house).fired == 1
    assert turn(house).fired == 0
    (run,) = made(house)
    after = shown(house)
    assert (after["last_at"], after["last_run_id"], after["fired"]) == (at, run["id"], 1)
    assert after["next_at"] == first["next_at"]
    assert after["last_error"] is None
    house.over(run["id"])
    house.quiet()
    assert house.output(run["id"]) == b"hi\n"
    with house.database.read() as tx:
        text = "SELECT data FROM events WHERE name = 'run.queued' AND run_id = :run"
        assert json.loads(tx.value(text, run=run["id"])) == {"actor": "schedule:nightly"}


def test_one_moment_is_done_after_its_run(house: House) -> None:
    house.environment()
    schedule(house, at="2999-12-24T18:00", timezone="Europe/Berlin")
    due_since(house, 0)
    assert turn(house).fired == 1
    after = shown(house)
    assert (after["status"], after["next_at"], after["fired"]) == ("done", None, 1)
    with house.database.write("test") as tx:
        for change in (scheduling.pause, scheduling.resume):
            with pytest.raises(ConflictError, match=r"done|passed"):
                change(tx, "nightly", tenant_id="default", actor="test")
    house.over(made(house)[0]["id"])
    house.quiet()


def test_many_clocks_make_one_run_of_one_time(house: House) -> None:
    house.environment()
    names = [f"s{number}" for number in range(5)]
    for name in names:
        schedule(house, name)
    clocks = [house.app.context(publish=house.publish) for _ in range(4)]
    for context in clocks:
        clock.run_once(context, batch=100)
    for name in names:
        due_since(house, 0, name)
    together = threading.Barrier(len(clocks))
    errors: list[BaseException] = []

    def tick(context: Any) -> None:
        try:
            together.wait()
            clock.run_once(context, batch=100)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=tick, args=(context,)) for context in clocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    turn(house)  # what one clock had locked when another one looked
    assert len(made(house)) == len(names)
    assert {shown(house, name)["fired"] for name in names} == {1}
    house.over(*(run["id"] for run in made(house)))
    house.quiet()


def test_a_row_that_was_set_back_makes_no_second_run_of_one_time(house: House) -> None:
    house.environment()
    schedule(house)
    at = due_since(house, 0)
    turn(house)
    with house.database.write("test") as tx:
        tx.run("UPDATE schedules SET next_at = :at", at=at)
    turn(house)
    assert len(made(house)) == 1
    house.over(made(house)[0]["id"])
    house.quiet()


@pytest.mark.parametrize(
    ("misfire", "runs", "missed"), [("skip", 0, 5), ("once", 1, 4), ("all", 5, 0)]
)
def test_what_was_missed_while_no_clock_turned_is_as_the_schedule_says(
    house: House, misfire: str, runs: int, missed: int
) -> None:
    house.environment()
    schedule(house, cron="*/10 * * * *", misfire=misfire)
    # Until the last of five that is over for longer than what counts as late.
    with house.database.write("test") as tx:
        now = tx.now()
        last = now - now % (10 * MINUTE_US)
        if now - last < 2 * MINUTE_US:
            environments.set_fact(tx, "clock_offset_us", str(2 * MINUTE_US))
        tx.run("UPDATE schedules SET next_at = :at", at=last - 40 * MINUTE_US)
    for _ in range(7):
        turn(house)
    assert len(made(house)) == runs
    after = shown(house)
    assert after["next_at"] == last + 10 * MINUTE_US
    assert (after["last_error"] is None) == (runs > 0)
    with house.database.read() as tx:
        told = [
            json.loads(r["data"])
            for r in tx.all("SELECT * FROM events")
            if r["name"] == "schedule.missed"
        ]
    assert sum(line["times"] for line in told) == missed
    for run in made(house):
        house.over(run["id"])
    house.quiet()


def test_all_that_was_missed_is_made_up_for_but_no_more_than_the_newest_few(
    house: House,
) -> None:
    house.environment()
    schedule(house, cron="* * * * *", misfire="all")
    due_since(house, 5 * FEW * MINUTE_US)
    assert turn(house).fired == 1
    with house.database.read() as tx:
        left_us = tx.now() - shown(house)["next_at"]
    assert (FEW - 3) * MINUTE_US < left_us < FEW * MINUTE_US
    with house.database.write("test") as tx:
        scheduling.pause(tx, "nightly", tenant_id="default", actor="test")
    house.over(made(house)[0]["id"])
    house.quiet()


def test_a_time_is_skipped_while_the_run_before_is_not_over(house: House) -> None:
    house.environment()
    schedule(house, "nightly", "sleep", "1000", overlap="skip")
    due_since(house, 0)
    assert turn(house).fired == 1
    (run,) = made(house)
    due_since(house, -MINUTE_US)
    with house.database.write("test") as tx:
        tx.run("UPDATE schedules SET next_at = {now}")
    assert turn(house).fired == 0
    assert shown(house)["last_error"] == f"run {run['id']} of the time before is not over"
    house.cancel(run["id"])
    house.over(run["id"])
    house.quiet()
    with house.database.write("test") as tx:
        tx.run("UPDATE schedules SET next_at = {now}")
    assert turn(house).fired == 1
    assert shown(house)["last_error"] is None
    house.cancel(made(house)[-1]["id"])
    house.over(made(house)[-1]["id"])
    house.quiet()


@pytest.mark.parametrize("deed", ["archive", "delete"])
def test_an_environment_that_is_away_is_said_and_the_others_go_on(
    house: House, deed: str
) -> None:
    house.environment()
    house.environment("other")
    schedule(house, "broken")
    schedule(house, "sound", environment="other")
    with house.database.write("test") as tx:
        if deed == "archive":
            archiving.archive(tx, "lab", tenant_id="default", actor="test")
        else:
            archiving.delete(tx, "lab", tenant_id="default", actor="test", consent=None)
    due_since(house, HOUR_US, "broken")
    due_since(house, 0, "sound")
    assert turn(house).fired == 1
    after = shown(house, "broken")
    assert "lab" in after["last_error"]
    assert after["status"] == "active", "it goes on when the environment is back"
    with house.database.read() as tx:
        assert after["next_at"] > tx.now()
    assert shown(house, "sound")["last_error"] is None
    house.over(made(house)[0]["id"])
    house.quiet()


def test_an_archived_tenant_makes_no_runs_and_no_schedules(house: House) -> None:
    house.environment()
    schedule(house)
    due_since(house, 0)
    with house.database.write("test") as tx:
        tx.run("UPDATE tenants SET status = 'archived' WHERE id = 'default'")
    assert turn(house).fired == 0
    assert shown(house)["last_error"].startswith("conflict: tenant default is archived")
    with pytest.raises(ConflictError, match="tenant default is archived"):
        schedule(house, "other")


def test_a_fault_of_ours_stops_no_other_schedule(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.environment()
    schedule(house, "broken")
    schedule(house, "sound")
    due_since(house, HOUR_US, "broken")
    due_since(house, 0, "sound")
    fire = scheduling.fire

    def breaks(tx: Any, context: Any, row: Row) -> bool:
        if row["name"] == "broken":
            raise ZeroDivisionError
        return fire(tx, context, row)

    monkeypatch.setattr(scheduling, "fire", breaks)
    assert turn(house).fired == 1
    assert shown(house, "broken")["last_error"] == "internal: ZeroDivisionError"
    house.over(made(house)[0]["id"])
    house.quiet()


def test_paused_it_makes_nothing_and_nothing_is_made_up_for(house: House) -> None:
    house.environment()
    first = schedule(house)
    with house.database.write("test") as tx:
        paused = scheduling.pause(tx, "nightly", tenant_id="default", actor="test")
        again = scheduling.pause(tx, "nightly", tenant_id="default", actor="test")
    assert (paused["status"], paused["next_at"], again["status"]) == ("paused", None, "paused")
    with house.database.write("test") as tx:
        resumed = scheduling.resume(tx, "nightly", tenant_id="default", actor="test")
    assert (resumed["status"], resumed["next_at"]) == ("active", first["next_at"])
    with house.database.write("test") as tx:
        scheduling.delete(tx, "nightly", tenant_id="default", actor="test")
        with pytest.raises(NotFoundError, match="no schedule 'nightly'"):
            schedules.get(tx, "nightly", tenant_id="default")
        text = "SELECT name FROM events WHERE name LIKE 'schedule.%' ORDER BY id"
    with house.database.read() as tx:
        names = [row["name"].removeprefix("schedule.") for row in tx.all(text)]
    assert names == ["active", "paused", "active", "deleted"]


def test_what_cannot_be_scheduled_is_refused(house: House) -> None:
    house.environment()
    schedule(house)
    with pytest.raises(ConflictError, match="exists already"):
        schedule(house)
    with pytest.raises(NotFoundError, match="no environment 'nowhere'"):
        schedule(house, "other", environment="nowhere")
    with pytest.raises(BadInputError, match="has passed"):
        schedule(house, "other", at="2001-01-01T00:00")


@pytest.mark.parametrize("hours", [3, -3, 24 * 8])
def test_a_clock_that_was_set_makes_nothing_due_and_nothing_twice(
    house: House, hours: int
) -> None:
    """The jump is taken out of the stored offset before anything is fired."""
    house.environment()
    schedule(house, cron="0 * * * *")
    with house.database.write("test") as tx:
        soon = tx.now() + HOUR_US
        tx.run("UPDATE schedules SET next_at = :at", at=soon)
    turn(house)
    with house.database.write("test") as tx:
        held = environments.fact(tx, "clock_offset_us")
        # As if the raw clock had been set: the offset that was read before is not the cause.
        environments.set_fact(tx, "clock_offset_us", str(hours * HOUR_US))
    assert firing.run_once(house.worker, batch=10) == 0
    assert made(house) == []
    with house.database.write("test") as tx:
        environments.set_fact(tx, "clock_offset_us", held or "0")
    assert turn(house).fired == 0
    assert shown(house)["next_at"] == soon


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_what_is_due_is_found_by_its_index(house: House) -> None:
    with house.database.write("test") as tx:
        tx.run("SET LOCAL enable_seqscan = off")
        plan = tx.all(
            "EXPLAIN SELECT id FROM schedules WHERE next_at <= {now} ORDER BY next_at"
        )
    assert "schedule_next" in "\n".join(str(row) for row in plan)
