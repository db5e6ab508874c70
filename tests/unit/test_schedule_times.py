"""When a schedule is due, also in the nights in which clocks are changed."""

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.domain import schedules as times
from leasehold.domain.schedules import FEW, ScheduleSpec, micros_of
from leasehold.domain.specs import parse
from leasehold.errors import BadInputError

BERLIN = "Europe/Berlin"
SPRING, AUTUMN = "2026-03-28T23:45", "2026-10-24T22:45"
"""UTC, before the night in which clocks go forward, and back."""


def us(text: str) -> int:
    return micros_of(datetime.fromisoformat(text).replace(tzinfo=UTC))


def shown(micros: int, timezone: str = BERLIN) -> str:
    return times.moment_of(micros, timezone).strftime("%d %H:%M %Z")


def after(cron: str, start: str, count: int) -> list[str]:
    found = times.after(cron, BERLIN, after_us=us(start))
    return [shown(at) for at in islice(found, count)]


def test_a_fixed_time_that_does_not_exist_is_due_right_after_the_gap() -> None:
    assert after("30 2 * * *", SPRING, 2) == ["29 03:00 CEST", "30 02:30 CEST"]
    assert after("0,30 2 * * *", SPRING, 2) == ["29 03:00 CEST", "30 02:00 CEST"]


def test_a_fixed_time_that_is_there_twice_is_due_once() -> None:
    assert after("30 2 * * *", AUTUMN, 2) == ["25 02:30 CEST", "26 02:30 CET"]
    # Asked for in the hour that comes again, the first one is over.
    assert after("30 2 * * *", "2026-10-25T01:10", 1) == ["26 02:30 CET"]


def test_what_comes_each_hour_goes_by_the_time_that_passes() -> None:
    assert after("30 * * * *", SPRING, 3) == ["29 01:30 CET", "29 03:30 CEST", "29 04:30 CEST"]
    assert after("30 * * * *", AUTUMN, 4) == [
        "25 01:30 CEST",
        "25 02:30 CEST",
        "25 02:30 CET",
        "25 03:30 CET",
    ]


def test_what_is_due_is_what_would_have_come_the_oldest_first() -> None:
    cron = "*/30 * * * *"
    wanted = list(islice(times.after(cron, BERLIN, after_us=us(AUTUMN)), 9))
    found = times.due(cron, BERLIN, from_us=wanted[0], now_us=wanted[-1])
    assert found == wanted
    assert times.due(cron, BERLIN, from_us=wanted[0], now_us=wanted[-1] - 1) == wanted[:-1]
    assert times.due(cron, BERLIN, from_us=wanted[3], now_us=wanted[3]) == wanted[3:4]


def test_of_much_that_was_missed_the_newest_few_are_due() -> None:
    start, now = us("2026-01-01T00:00"), us("2026-01-02T00:00")
    found = times.due("* * * * *", "UTC", from_us=start, now_us=now)
    assert (len(found), found[-1]) == (FEW, now)


CRONS = ("*/5 * * * *", "30 2 * * *", "0 2,3 * * *", "15 */2 * * 0", "0 0 1 * *")


@given(
    st.sampled_from(CRONS),
    st.sampled_from((BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC")),
    st.integers(us("2025-01-01T00:00"), us("2028-01-01T00:00")),
)
def test_times_only_grow_and_none_is_due_twice(cron: str, timezone: str, start: int) -> None:
    found = list(islice(times.after(cron, timezone, after_us=start), 20))
    assert found[0] > start
    assert found == sorted(set(found))
    # Asked one after the other, as a clock does, they are the same.
    at, one_by_one = start, []
    for _ in found:
        following = times.first_after(cron, timezone, after_us=at)
        assert following is not None
        one_by_one.append(at := following)
    assert one_by_one == found


BODY = {"name": "n", "environment": "e", "run": {"commands": [{"argv": ["true"]}]}}


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"cron": "* * * *"}, "cron", "five fields"),
        ({"cron": "* * * * * *"}, "cron", "five fields"),
        ({"cron": "61 * * * *"}, "cron", "no cron line: bad minute"),
        ({"cron": "0 0 30 2 *"}, "cron", "no cron line"),
        ({"cron": "* * * * *", "timezone": "Europe/Atlantis"}, "timezone", "Europe/Berlin"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "timezone", "time zone"),
        ({"at": "tomorrow"}, "at", "2026-12-24T18:00"),
        ({"at": 5}, "at", "2026-12-24T18:00"),
        ({"at": "2026-03-29T02:30", "timezone": BERLIN}, "ScheduleSpec", "does not exist"),
        ({}, "ScheduleSpec", "give a cron line or one moment"),
        ({"cron": "* * * * *", "at": "2026-12-24T18:00"}, "ScheduleSpec", "give a cron line"),
        ({"cron": "* * * * *", "misfire": "maybe"}, "misfire", "'skip', 'once' or 'all'"),
        ({"cron": "* * * * *", "run": {"commands": []}}, "run.commands", "at least 1"),
    ],
)
def test_what_is_no_schedule_is_refused_by_its_field(
    given: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(BadInputError, match=words) as refused:
        parse(ScheduleSpec, BODY | given)
    assert refused.value.field == field


def test_one_moment_is_read_in_its_zone_and_the_first_of_two() -> None:
    def at(text: str) -> str:
        moment = parse(ScheduleSpec, BODY | {"at": text, "timezone": BERLIN}).at_us()
        assert moment is not None
        return times.moment_of(moment, "UTC").astimezone(ZoneInfo("UTC")).strftime("%d %H:%M")

    assert at("2026-10-25T02:30") == "25 00:30"
    assert at("2026-10-25T02:30+01:00") == "25 01:30"
    assert at("2026-12-24T18:00") == "24 17:00"
