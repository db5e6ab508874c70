"""Commands that need a database and no worker: what they show, change and refuse."""

import pytest

from command_line import call, create_environment, environment, submitted
from leasehold.store import runs
from leasehold.store.database import Database
from store.rows import insert_held, insert_lease, insert_run

pytestmark = pytest.mark.usefixtures("deployment")


def test_an_environment_is_created_shown_archived_and_deleted() -> None:
    said = create_environment(
        "place", "--set", "size=3", "--set", "image=deb", "-e", "A=1", "--json"
    )
    assert said.code == 0, said.err
    assert said.json()["config"] == {"size": 3, "image": "deb"}
    assert said.json()["env_names"] == ["A"]
    assert [row["name"] for row in call("env", "list", "--json").json()] == ["place"]
    assert "place" in call("env", "list").out
    shown = call("env", "show", "place", "--json").json()
    assert (shown["unfinished_runs"], shown["live_leases"]) == (0, 0)
    assert call("env", "archive", "place", "--json").json()["status"] == "archived"
    assert call("env", "list", "--json").json() == []
    assert len(call("env", "list", "--all", "--json").json()) == 1
    assert call("run", "--env", "place", "-d", "--", "true").code == 4
    assert call("env", "archive", "--undo", "place").code == 0
    assert call("env", "delete", "place", "--json").json()["deleted"]
    assert call("env", "show", "place").code == 3


def test_a_config_with_an_unknown_key_is_refused_by_its_name() -> None:
    said = create_environment("place", "--set", "imge=x")
    assert said.code == 2
    assert "config.imge: unknown key; did you mean 'image'?" in said.err
    assert said.out == ""


def test_an_unknown_provider_says_which_there_are() -> None:
    said = call("env", "create", "place", "--provider", "dockr")
    assert said.code == 2
    assert said.err == ("leasehold: provider: there is no provider 'dockr'; there are: fake\n")
    assert "there are: fake" in call("providers", "show", "dockr").err


def test_an_unknown_environment_says_which_there_are() -> None:
    create_environment("place")
    said = call("run", "--env", "plaice", "-d", "--", "true")
    assert said.code == 3
    assert "there is no environment 'plaice'; there are: place" in said.err


def test_an_environment_in_use_is_deleted_only_with_consent(database: Database) -> None:
    create_environment("place")
    run = submitted("--env", "place", "--", "true")
    said = call("env", "delete", "place")
    assert said.code == 4
    assert "1 unfinished runs" in said.err
    assert call("runs", "cancel", run["id"]).code == 0
    assert call("env", "delete", "place", "--yes").code == 0


def test_a_detached_run_says_its_id_and_nothing_else() -> None:
    create_environment("place")
    said = call("run", "--env", "place", "--detach", "--", "echo", "-n", "hi")
    run = said.out.strip()
    shown = call("runs", "show", run, "--json").json()
    assert shown["commands"] == [{"argv": ["echo", "-n", "hi"], "cwd": None}]
    assert {
        *("id", "environment", "provider", "status", "step", "code", "message", "exit_code"),
        *("attempt", "infra_attempts", "lease_id", "created_at", "started_at", "finished_at"),
        *("worker_id", "events"),
    } <= set(shown)
    assert shown["environment"] == "place"
    assert shown["created_at"].endswith("Z")
    names = [event["name"] for event in shown["events"]]
    assert names == ["run.queued", "run.running"]
    call("runs", "cancel", run)


def test_the_environment_of_a_provider_is_made_on_first_use() -> None:
    run = submitted("--provider", "fake", "--", "true")
    assert run["environment"] == "fake"
    assert submitted("--provider", "fake", "--", "true")["environment"] == "fake"
    assert len(call("env", "list", "--json").json()) == 1


def test_the_same_key_is_the_same_run_and_another_body_a_conflict() -> None:
    create_environment("place")
    first = submitted("--env", "place", "--key", "k", "--", "true")
    assert submitted("--env", "place", "--key", "k", "--", "true")["id"] == first["id"]
    said = call("run", "--env", "place", "--key", "k", "-d", "--", "false")
    assert said.code == 4
    assert "another body" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--timeout", "-5", "--", "true"), "--timeout: Input should be greater than 0"),
        (("--timeout", "soon", "--", "true"), "--timeout: must be seconds or a duration"),
        (("--priority", "12", "--", "true"), "--priority: Input should be less than"),
        (("-e", "A", "--", "true"), "-e: must be K=V, got 'A'"),
        (("-e", "A-B=1", "--", "true"), "-e: "),
        (("--label", "a=1", "--label", "a=2", "--", "true"), "--label: a is given twice"),
        (("--env", "x", "--provider", "y", "--", "true"), "give one of them"),
        (("--", ""), "CMD: 0: the command's name is empty"),
    ],
)
def test_bad_input_is_one_line_that_names_the_option(
    arguments: tuple[str, ...], words: str
) -> None:
    said = call("run", "--detach", *arguments)
    assert said.code == 2
    assert said.err.startswith("leasehold: ")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_run_without_a_command_is_wrong_usage() -> None:
    said = call("run")
    assert said.code == 2
    assert "nothing to run; give one of them: a command after `--`" in said.err


def test_stdin_of_two_megabytes_is_taken_and_five_are_refused(database: Database) -> None:
    create_environment("place")
    arguments = ("run", "--env", "place", "-d", "--json", "--stdin", "--", "wc", "-c")
    said = call(*arguments, stdin=b"x" * 2_000_000)
    assert said.code == 0, said.err
    with database.read() as tx:
        row = runs.find(tx, said.json()["id"])
    assert row is not None
    assert len(row["spec"]["commands"][0]["stdin"]) > 2_000_000
    refused = call(*arguments, stdin=b"x" * 5_000_000)
    assert refused.code == 2
    assert "more than 4194304 bytes" in refused.err


def test_runs_are_listed_by_status_environment_and_label() -> None:
    create_environment("one")
    create_environment("two")
    first = submitted("--env", "one", "--label", "team.x=a", "--", "true")
    second = submitted("--env", "two", "--label", "team.x=b", "--", "true")
    assert [row["id"] for row in call("runs", "list", "--json").json()] == [
        second["id"],
        first["id"],
    ]
    for only in (("--env", "one"), ("--label", "team.x=a")):
        found = call("runs", "list", "--json", *only).json()
        assert [row["id"] for row in found] == [first["id"]]
    assert call("runs", "list", "--json", "--status", "failed").json() == []
    assert "no such runs" in call("runs", "list", "--status", "failed").err
    assert call("runs", "list", "--status", "broken").code == 2
    table = call("runs", "list").out
    assert first["id"].rsplit("-", 1)[-1] in table
    assert "\x1b" not in table


def test_a_broker_that_is_away_costs_a_line_and_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    create_environment("place")
    monkeypatch.setenv("LEASEHOLD_BROKER_URL", "redis://:secret@127.0.0.1:1/0")
    said = call("run", "--env", "place", "-d", "--json", "--", "true")
    assert said.code == 0
    assert said.json()["status"] == "running"
    assert "the broker does not answer" in said.err
    assert "secret" not in said.err


def test_ids_may_be_short_unless_they_are_ambiguous() -> None:
    create_environment("place")
    first = submitted("--env", "place", "--", "true")["id"]
    submitted("--env", "place", "--", "true")
    assert call("runs", "show", first[-9:], "--json").json()["id"] == first
    said = call("runs", "show", first[:4])
    assert said.code == 3
    assert "several ids begin or end so" in said.err
    for nobody in ("%", "_", "zzz"):
        assert call("runs", "show", nobody).code == 3


def test_a_queued_run_is_cancelled_at_once_and_retried_as_a_new_one() -> None:
    create_environment("place", "--max-concurrent", "1")
    submitted("--env", "place", "--", "true")
    second = submitted("--env", "place", "--", "true")
    assert second["status"] == "queued"
    cancelled = call("runs", "cancel", second["id"], "--json").json()
    assert (cancelled["status"], cancelled["code"]) == ("cancelled", "cancelled")
    waited = call("runs", "wait", second["id"])
    assert waited.code == 255
    assert "cancelled" in waited.err
    retried = call("runs", "retry", second["id"], "--json").json()
    assert retried["retry_of"] == second["id"]
    assert retried["id"] != second["id"]
    assert call("runs", "retry", retried["id"]).code == 4


def test_a_run_starts_after_another_and_says_which() -> None:
    create_environment("place")
    first = submitted("--env", "place", "--", "true")
    short = first["id"][-8:]
    second = submitted("--env", "place", "--after", f"{short}:any", "--", "true")
    assert (second["status"], second["waits_for"]) == ("queued", 1)
    shown = call("runs", "show", second["id"])
    assert f"{first['id']} any (is running)" in shown.out
    why = call("explain", second["id"], "--json").json()
    assert why["reason"] == f"it starts after run {first['id']} ends; that is running"
    third = submitted("--env", "place", "--after", short, "--", "true")
    why = call("explain", third["id"]).out
    assert f"it starts after run {first['id']} succeeds" in why
    for typed, code, words in (
        (f"{short}:soon", 2, "--after: 0.outcome: Input should be"),
        ("nothing-like-it", 3, "no run"),
    ):
        said = call("run", "--env", "place", "-d", "--after", typed, "--", "true")
        assert said.code == code, said.err
        assert words in said.err


def test_a_parked_run_is_resumed_and_no_other(database: Database) -> None:
    with database.write("test") as tx:
        place = environment(tx)
        parked = insert_run(tx, status="parked", environment_id=place["id"])
    assert "parked" in call("explain", parked["id"]).out
    assert call("runs", "resume", parked["id"], "--json").json()["status"] in {
        "queued",
        "running",
    }
    assert call("runs", "resume", parked["id"]).code == 4


def test_a_run_gets_more_time_and_never_less() -> None:
    create_environment("place")
    run = submitted("--env", "place", "--timeout", "1m", "--", "true")
    longer = call("runs", "extend", run["id"], "--deadline", "30d", "--timeout", "2h", "--json")
    assert longer.code == 0, longer.err
    assert longer.json()["deadline_at"] > run["deadline_at"]
    last = longer.json()["events"][-1]
    assert (last["name"], last["data"]) == (
        "run.extended",
        {"actor": "cli", "fields": ["deadline_s", "timeout_s"]},
    )
    less = call("runs", "extend", run["id"], "--deadline", "1d")
    assert less.code == 4
    assert "a run gets more time, never less" in less.err
    assert call("runs", "extend", run["id"]).code == 2
    soon = call("runs", "extend", run["id"], "--deadline", "soon")
    assert (soon.code, "deadline_s: must be seconds" in soon.err) == (2, True)
    assert call("runs", "cancel", run["id"]).code == 0
    assert call("runs", "extend", run["id"], "--deadline", "60d").code == 4


def test_waiting_gives_up_when_told_to() -> None:
    create_environment("place")
    run = submitted("--env", "place", "--", "true")
    said = call("runs", "wait", run["id"], "--timeout", "0.2s")
    assert said.code == 124
    assert "still running after 0.2s" in said.err


def test_explain_says_which_limit_holds_a_queued_run() -> None:
    create_environment("place", "--max-concurrent", "1")
    submitted("--env", "place", "--", "true")
    run = submitted("--env", "place", "--", "true")
    found = call("explain", run["id"], "--json").json()
    assert found["noun"] == "run"
    assert found["reason"] == "environment place is full: 1 of 1"
    assert found["changes"] == "a slot becomes free"
    assert found["when"] is not None
    assert "environment place is full" in call("explain", run["id"]).out


def test_explain_says_what_running_runs_and_leases_wait_for(database: Database) -> None:
    with database.write("test") as tx:
        held, lease = insert_held(tx, code="provider_full", message="no room")
        owed = insert_lease(
            tx, status="releasing", cleanup_attempts=3, last_error="down", queue="elsewhere"
        )
        due = insert_lease(tx, status="releasing", cleanup_attempts=3, last_error="down")
        over = insert_run(tx, status="failed", code="timeout", message="too long")
    said = call("explain", held["id"], "--json").json()
    assert said["details"]["last_trouble"] == "provider_full: no room"
    assert f"held by run {held['id']}" in call("explain", lease["id"]).out
    assert "no live worker reads the queue elsewhere" in call("explain", owed["id"]).out
    assert "3 attempts failed, the last one: down" in call("explain", due["id"]).out
    assert "failed: too long" in call("explain", over["id"]).out
    assert call("explain", "nothing").code == 3
