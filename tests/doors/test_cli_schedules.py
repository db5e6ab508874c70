"""Schedules, through the command line: made, shown, paused, resumed, deleted, refused."""

import pytest

from command_line import call, create_environment
from leasehold.store.database import Database

pytestmark = pytest.mark.usefixtures("deployment")
NIGHTLY = ("schedules", "create", "nightly", "--environment", "place", "--cron", "30 2 * * *")


@pytest.fixture(autouse=True)
def place(deployment: object) -> None:
    create_environment("place")


def test_a_schedule_is_made_shown_and_listed_with_its_next_times() -> None:
    said = call(*NIGHTLY, "--timezone", "Europe/Berlin", "-e", "A=secret", "--", "echo", "hi")
    assert said.code == 0, said.err
    assert "nightly is there; its first run is made at 2" in said.err
    shown = call("schedules", "show", "nightly", "--next", "3", "--json").json()
    assert (shown["cron"], shown["timezone"]) == ("30 2 * * *", "Europe/Berlin")
    assert len(shown["next_times"]) == 3
    assert shown["next_times"][0] == shown["next_at"]
    assert shown["run"]["commands"][0]["argv"] == ["echo", "hi"]
    assert shown["run"]["env_names"] == ["A"]
    assert "secret" not in call("schedules", "show", "nightly").out
    (line,) = call("schedules", "list", "--json").json()
    assert (line["name"], line["fired"], line["last_error"]) == ("nightly", 0, None)
    assert "30 2 * * *" in call("schedules", "list").out


def test_it_is_paused_resumed_and_deleted(database: Database) -> None:
    call(*NIGHTLY, "--", "true")
    assert call("schedules", "pause", "nightly", "--json").json()["next_at"] is None
    assert "goes on" in call("schedules", "resume", "nightly").err
    assert call("schedules", "delete", "nightly").code == 0
    assert call("schedules", "show", "nightly").code == 3
    with database.read() as tx:
        rows = tx.all("SELECT data FROM events WHERE name LIKE 'schedule.%'")
    assert len(rows) == 4
    assert all('"cli"' in str(row["data"]) for row in rows)


def test_it_is_updated_by_what_is_named() -> None:
    call(*NIGHTLY, "-e", "A=1", "--", "true")
    said = call("schedules", "update", "nightly", "--cron", "0 4 * * *", "--", "echo", "hi")
    assert said.code == 0, said.err
    assert "changed cron, run; its next run is made at 2" in said.err
    shown = call("schedules", "show", "nightly", "--json").json()
    assert shown["cron"] == "0 4 * * *"
    assert shown["run"]["commands"][0]["argv"] == ["echo", "hi"]
    assert shown["run"]["env_names"] == ["A"]
    said = call("schedules", "update", "nightly", "--paused", "--retries", "2", "--json")
    assert said.json()["changed"] == ["run", "status"]
    assert (said.json()["status"], said.json()["next_at"]) == ("paused", None)
    said = call("schedules", "update", "nightly", "--retries", "2")
    assert "is like that already" in said.err
    said = call("schedules", "update", "nightly", "--at", "2999-01-01T00:00", "--resumed")
    assert "changed cron, at, status; its next run is made at 2999" in said.err
    for options, words in (
        ((), "nothing is named"),
        (("--cwd", "/"), "--cwd: goes with a command"),
        (("--retries", "-1"), "--retries: "),
        (("--cron", "* *"), "--cron: must have five fields"),
    ):
        said = call("schedules", "update", "nightly", *options)
        assert said.code == 2
        assert words in said.err
    assert call("schedules", "update", "nothing", "--paused").code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--cron", "61 * * * *", "--", "true"), 2, "--cron: is no cron line: bad minute"),
        (("--cron", "* * * * *", "--timezone", "Mars", "--", "true"), 2, "--timezone: must be"),
        (("--at", "soon", "--", "true"), 2, "--at: must be a time"),
        (("--at", "2001-01-01T00:00", "--", "true"), 2, "--at: 2001-01-01T00:00:00 has passed"),
        (("--", "true"), 2, "give a cron line or one moment"),
        (("--cron", "* * * * *"), 2, "CMD"),
        (("--cron", "* * * * *", "--misfire", "x", "--", "true"), 2, "--misfire: "),
        (("--cron", "* * * * *", "--env", "nowhere", "--", "true"), 3, "no environment"),
    ],
)
def test_what_is_no_schedule_is_refused_by_its_option(
    arguments: tuple[str, ...], code: int, words: str
) -> None:
    said = call("schedules", "create", "n", "--environment", "place", *arguments)
    assert said.code == code, said.err
    assert words in said.err
    assert call("schedules", "list", "--json").json() == []
