"""A schedule that is changed: what it waits for follows from the whole, exactly once."""

from typing import Any

import pytest

from leasehold.domain import schedules as times
from leasehold.domain.schedules import ScheduleChange
from leasehold.domain.specs import parse
from leasehold.errors import BadInputError, ConflictError
from leasehold.maintenance import clock
from leasehold.orchestrator import archiving, rescheduling, scheduling
from leasehold.store import schedules
from leasehold.store.database import Row

from .conftest import House
from .test_8_schedules import HOUR_US, MINUTE_US, due_since, made, schedule, shown, turn


def change(house: House, **body: Any) -> tuple[Row, list[str]]:
    with house.database.write("test") as tx:
        wanted = parse(ScheduleChange, body)
        return rescheduling.change(tx, "nightly", wanted, tenant_id="default", actor="test")


def test_another_line_or_zone_waits_for_its_own_first_time_after_now(house: House) -> None:
    house.environment()
    schedule(house, cron="30 2 * * *")
    for given in ({"cron": "15 7 * * *"}, {"timezone": "Asia/Tokyo"}):
        row, _ = change(house, **given)
        first = times.first_after(row["cron"], row["timezone"], after_us=row["now_us"])
        assert shown(house)["next_at"] == first


def test_a_time_that_was_due_by_the_old_line_is_let_go(house: House) -> None:
    house.environment()
    schedule(house)
    due_since(house, HOUR_US)
    change(house, cron="0 0 2 1 *")
    assert turn(house).fired == 0
    assert made(house) == []


def test_what_is_due_stays_due_if_its_times_stay(house: House) -> None:
    house.environment()
    schedule(house, "nightly", "false")
    at = due_since(house, 0)
    row, changed = change(house, run={"commands": [{"argv": ["echo", "new"]}]}, overlap="skip")
    assert (row["next_at"], changed) == (at, ["run", "overlap"])
    assert turn(house).fired == 1
    (run,) = made(house)
    house.over(run["id"])
    assert house.output(run["id"]) == b"new\n"


def test_a_moment_takes_the_place_of_a_line_and_back(house: House) -> None:
    house.environment()
    schedule(house, cron="30 2 * * *")
    row, changed = change(house, at="2999-01-01T00:00", timezone="Europe/Berlin")
    assert changed == ["cron", "at", "timezone"]
    assert (row["cron"], row["next_at"]) == (None, row["at"])
    moved, changed = change(house, timezone="UTC")
    assert (moved["at"], changed) == (row["at"], ["timezone"])
    row, _ = change(house, cron="30 2 * * *")
    assert row["at"] is None
    with pytest.raises(BadInputError, match="at: has passed"):
        change(house, at="2001-01-01T00:00")


def test_a_done_schedule_goes_on_with_a_new_time_and_by_nothing_else(house: House) -> None:
    house.environment()
    schedule(house, at="2999-01-01T00:00")
    due_since(house, 0)
    assert turn(house).fired == 1
    assert shown(house)["status"] == "done"
    house.over(*(run["id"] for run in made(house)))
    row, changed = change(house, overlap="skip", paused=False)
    assert (row["status"], changed) == ("done", ["overlap"])
    with pytest.raises(ConflictError, match="is done"):
        change(house, paused=True)
    row, changed = change(house, at="2998-01-01T00:00")
    assert (row["status"], row["next_at"]) == ("active", row["at"])
    assert changed == ["at", "status"]
    due_since(house, 2 * MINUTE_US)
    assert turn(house).fired == 1
    assert len(made(house)) == 2
    house.over(*(run["id"] for run in made(house)))


def test_paused_it_has_no_time_whatever_else_changes(house: House) -> None:
    house.environment()
    schedule(house)
    change(house, paused=True)
    row, changed = change(house, cron="* * * * *")
    assert (row["status"], row["next_at"], changed) == ("paused", None, ["cron"])
    row, changed = change(house, paused=False)
    assert (row["status"], changed) == ("active", ["status"])
    assert row["next_at"] == times.first_after("* * * * *", "UTC", after_us=row["now_us"])
    with house.database.read() as tx:
        names = [
            event["name"]
            for event in tx.all(
                "SELECT name FROM events WHERE name LIKE 'schedule.%' ORDER BY id"
            )
        ]
    assert names == [
        "schedule.active",
        "schedule.changed",
        "schedule.paused",
        "schedule.changed",
        "schedule.changed",
        "schedule.active",
    ]


def test_an_environment_that_takes_no_runs_is_refused(house: House) -> None:
    house.environment()
    house.environment("old")
    schedule(house)
    with house.database.write("test") as tx:
        archiving.archive(tx, "old", tenant_id="default", actor="test")
    with pytest.raises(ConflictError, match="environment old is archived"):
        change(house, environment="old")


def test_a_clock_that_fires_at_this_moment_and_a_change_take_turns(house: House) -> None:
    if house.database.dialect == "sqlite":
        pytest.skip("one writer: there is no such moment")
    house.environment()
    schedule(house)
    due_since(house, 0)
    with house.database.write("test") as tx:
        wanted = parse(ScheduleChange, {"cron": "0 0 2 1 *"})
        rescheduling.change(tx, "nightly", wanted, tenant_id="default", actor="test")
        assert clock.run_once(house.worker, batch=100).fired == 0
    assert turn(house).fired == 0
    with house.database.write("test") as tx:
        row = schedules.get(tx, "nightly", tenant_id="default")
        assert scheduling.pause(tx, row["id"], tenant_id="default", actor="test")
