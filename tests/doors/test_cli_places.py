"""Labels, requirements, several commands and visits: what the doors take, show and refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from command_line import call, create_environment, submitted
from leasehold.cli import command_lines
from leasehold.errors import BadInputError
from leasehold.store.database import Database
from store.rows import insert_held, insert_lease


@pytest.fixture
def labelled(deployment: None, database: Database) -> None:
    """The deployment's one host says of itself that it has a GPU."""
    with database.write("test") as tx:
        tx.run("UPDATE hosts SET labels = :labels", labels='{"gpu": "1", "zone": "a"}')


@pytest.mark.usefixtures("labelled")
def test_labels_are_shown_of_hosts_and_workers() -> None:
    labels = {"gpu": "1", "zone": "a"}
    assert [row["labels"] for row in call("hosts", "list", "--json").json()] == [labels]
    assert [row["labels"] for row in call("workers", "list", "--json").json()] == [labels]
    assert "gpu=1 zone=a" in call("hosts", "list").out
    assert "gpu=1 zone=a" in call("workers", "list").out


@pytest.mark.usefixtures("labelled")
def test_requirements_are_kept_by_environment_and_run_and_shown() -> None:
    assert create_environment("place", "--require", "gpu=1").code == 0
    shown = call("env", "show", "place", "--json").json()
    assert shown["requires"] == {"gpu": "1"}
    run = submitted("--env", "place", "--require", "zone=a", "--", "true")
    assert run["requires"] == {"zone": "a"}
    assert run["status"] == "running"
    assert run["host_id"] == call("hosts", "list", "--json").json()[0]["id"]
    call("runs", "cancel", run["id"])


@pytest.mark.usefixtures("labelled")
def test_a_run_that_fits_nowhere_is_explained() -> None:
    create_environment("place", "--require", "gpu=1")
    run = submitted("--env", "place", "--require", "zone=b", "--", "true")
    assert run["status"] == "queued"
    said = call("explain", run["id"], "--json").json()
    assert said["reason"] == (
        "no live host that serves fake has gpu=1 zone=b; hosts have: here: gpu=1 zone=a"
    )
    assert "`leasehold worker --label K=V`" in said["changes"]
    call("runs", "cancel", run["id"])


@pytest.mark.usefixtures("labelled")
def test_requirements_that_contradict_are_refused_with_both_values() -> None:
    create_environment("place", "--require", "gpu=1")
    said = call("run", "--env", "place", "--require", "gpu=2", "-d", "--", "true")
    assert said.code == 2
    assert "the run requires gpu=2, environment place requires gpu=1" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("worker", "--label", "gpu"), "--label: must be K=V, got 'gpu'"),
        (("worker", "--label", "a b=1"), "--label: 'a b': a label's name is of letters"),
        (("up", "--label", "gpu=" + "x" * 256), "--label: 'gpu': "),
        (("run", "--require", "a b=1", "--", "true"), "--require: "),
        (("env", "create", "x", "--provider", "fake", "--require", "=1"), "--require: "),
    ],
)
def test_what_is_no_label_is_refused_by_the_name_of_its_option(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    said = call(*arguments)
    assert (said.code, said.out) == (2, "")
    assert words in said.err


def test_a_setting_that_holds_no_labels_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOST_LABELS", '{"a b": "1"}')
    said = call("runs", "list")
    assert said.code == 2
    assert "LEASEHOLD_HOST_LABELS: Value error, 'a b': a label's name" in said.err


@pytest.mark.usefixtures("deployment")
def test_several_commands_are_submitted_and_shown_in_order(tmp_path: Path) -> None:
    create_environment("place")
    run = submitted("--env", "place", "--cwd", "src", "--cmd", "echo 'a b' c", "--cmd", "true")
    assert run["commands"] == [
        {"argv": ["echo", "a b", "c"], "cwd": "src"},
        {"argv": ["true"], "cwd": "src"},
    ]
    assert "echo a b c (+1)" in call("runs", "list").out
    file = tmp_path / "commands.json"
    file.write_text(json.dumps(["make build", ["echo", ""], {"argv": ["ls"], "cwd": "out"}]))
    other = submitted("--env", "place", "--commands", str(file))
    assert other["commands"] == [
        {"argv": ["make", "build"], "cwd": None},
        {"argv": ["echo", ""], "cwd": None},
        {"argv": ["ls"], "cwd": "out"},
    ]
    piped = call(
        *("run", "--env", "place", "-d", "--json", "--commands", "-"), stdin=file.read_bytes()
    )
    assert piped.json()["commands"] == other["commands"]
    refused = call("runs", "logs", "--command", "2", run["id"])
    assert refused.code == 2
    assert "has 2, numbered from 0; got 2" in refused.err
    call("runs", "cancel", run["id"], other["id"], piped.json()["id"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to run; give one of them"),
        (("--cmd", "a", "--", "b"), "give one of them"),
        (("--cmd", "a", "--commands", "x"), "give one of them"),
        (("--cmd", "echo 'a"), """--cmd: "echo 'a": No closing quotation"""),
        (("--cmd", " "), "--cmd: the command is empty"),
        (("--cmd", "a", "-i"), "--stdin: goes with one command after `--`"),
        (("--commands", "nowhere.json"), "--commands: nowhere.json: No such file"),
    ],
)
def test_commands_that_cannot_be_read_are_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    said = call("run", *arguments)
    assert said.code == 2
    assert words in said.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "is not JSON"),
        ("{}", "must hold a JSON array (got dict)"),
        ('["ok", 7]', "--commands: 1: must be a line, an array of words"),
    ],
)
def test_a_file_that_holds_no_commands_says_what_is_wrong(
    content: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "commands.json"
    file.write_text(content)
    with pytest.raises(BadInputError) as caught:
        command_lines.given(None, None, str(file))
    assert words in str(caught.value)


def test_a_field_of_a_command_in_a_file_is_named_when_it_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    for item, words in (
        ({"argv": ["ls"], "dir": "x"}, "--commands: 1.dir: there is no such field"),
        ({"argv": []}, "--commands: 1.argv: "),
        ({}, "--commands: 1.argv: Field required"),
    ):
        file = tmp_path / "commands.json"
        file.write_text(json.dumps(["true", item]))
        said = call("run", "--commands", str(file))
        assert said.code == 2
        assert words in said.err


def test_what_a_command_is_given_is_never_taken_for_our_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    taken = call("exec", "01-lease", "--timeout", "1s", "--", "ls", "--timeout", "never")
    assert taken.code == 4, taken.err
    assert "needs a running stack" in taken.err
    assert call("exec", "01-lease", "--timeout", "never", "--", "ls").code == 2


def test_looking_into_a_sandbox_without_a_stack_is_refused_and_names_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    said = call("exec", "01-lease", "--", "ls")
    assert said.code == 4
    assert "exec needs a running stack" in said.err
    assert "`leasehold up`" in said.err


@pytest.mark.usefixtures("deployment")
def test_what_cannot_be_looked_into_is_refused_with_its_reason(database: Database) -> None:
    with database.write("test") as tx:
        run, active = insert_held(tx)
        over = insert_lease(tx, status="released", reason="run succeeded")
    words: list[tuple[Any, int, str]] = [
        (active["id"], 4, f"run {run['id']} is at work in lease {active['id']}"),
        (over["id"], 4, "is released (run succeeded): its sandbox is gone"),
        ("nowhere", 3, "there is no lease"),
    ]
    for lease_id, code, text in words:
        said = call("exec", lease_id, "--", "ls")
        assert (said.code, said.out) == (code, "")
        assert text in said.err
