"""What the command line says when something is missing, wrong or away; no worker runs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import call


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it."""
    path = tmp_path / "home"
    monkeypatch.setenv("LEASEHOLD_HOME", str(path))
    monkeypatch.delenv("LEASEHOLD_DATABASE_URL", raising=False)
    return path


def test_help_answers_at_once_and_loads_no_engine() -> None:
    code = (
        "import sys, leasehold.cli.main\n"
        "heavy = {'sqlalchemy', 'celery', 'pydantic', 'redis', 'psycopg', 'rich', 'alembic'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("runs",), ("leases",), ("env",), ("providers",), ("workers",), ("hosts",), ("db",)],
)
def test_each_group_has_help(arguments: tuple[str, ...]) -> None:
    said = call(*arguments, "--help")
    assert said.code == 0
    assert "Usage:" in said.out


def test_the_exit_codes_stand_in_the_help_of_run() -> None:
    said = call("run", "--help")
    for word in ("128+n", "255", "130"):
        assert word in said.out


def test_reading_a_home_without_a_database_creates_nothing(home: Path) -> None:
    said = call("runs", "list")
    assert said.code == 6
    assert "leasehold db upgrade" in said.err
    assert call("db", "check").code == 6
    assert not home.exists()


def test_detaching_without_a_stack_is_refused_and_names_up(home: Path) -> None:
    said = call("run", "--detach", "--", "true")
    assert said.code == 4
    assert "`leasehold up`" in said.err
    assert not home.exists()


def test_what_needs_a_worker_names_up_when_no_stack_runs() -> None:
    assert call("db", "upgrade").code == 0
    assert call("runs", "list", "--json").out == "[]\n"
    said = call("leases", "create", "--env", "local")
    assert said.code == 3  # there is no environment yet
    assert call("providers", "list", "--json").out == "[]\n"
    assert "no worker has started yet" in call("env", "create", "x", "--provider", "fake").err


def test_a_home_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "file" / "home"))
    for arguments in (("run", "--", "true"), ("up",), ("db", "upgrade")):
        said = call(*arguments)
        assert said.code == 2, arguments
        assert "LEASEHOLD_HOME" in said.err
        assert "cannot be written" in said.err
    assert call("doctor").code == 1


def test_an_unreachable_database_is_named_and_tried_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEASEHOLD_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/x")
    began = time.monotonic()
    said = call("--patience", "0.5s", "runs", "list")
    assert time.monotonic() - began >= 0.5
    assert said.code == 5
    first, last = said.err.splitlines()
    assert "postgresql://me:***@127.0.0.1:1/x does not answer" in first
    assert "trying for" in first
    assert "does not answer" in last
    assert "secret" not in said.err


def test_an_unknown_setting_is_refused_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEASEHOLD_DATABSE_URL", "x")
    said = call("runs", "list")
    assert said.code == 2
    assert "LEASEHOLD_DATABSE_URL: no such setting" in said.err


def test_an_impatient_value_is_refused() -> None:
    for value in ("-1s", "soon"):
        said = call("--patience", value, "runs", "list")
        assert said.code == 2
        assert "--patience" in said.err


def test_the_doctor_of_a_fresh_home_finds_nothing_wrong() -> None:
    said = call("doctor", "--json")
    assert said.code == 0
    checks = {check["name"]: check for check in said.json()["checks"]}
    assert {"platform", "python", "home", "stack", "database", "broker"} <= set(checks)
    assert "leasehold up" in checks["stack"]["mend"]


def test_the_doctor_names_a_database_and_a_broker_that_are_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEASEHOLD_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/x")
    monkeypatch.setenv("LEASEHOLD_BROKER_URL", "redis://:secret@127.0.0.1:1/0")
    said = call("doctor")
    assert said.code == 1
    wrong = [line for line in said.out.splitlines() if line.startswith("wrong")]
    assert [line.split()[1] for line in wrong] == ["database", "broker"]
    assert "->" in said.out
    assert "secret" not in said.out


def test_the_doctor_finds_an_older_schema_and_missing_workers(
    sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "leasehold.db"
    path.write_bytes(sqlite_template.read_bytes())
    monkeypatch.setenv("LEASEHOLD_DATABASE_URL", f"sqlite:///{path}")
    checks = {check["name"]: check for check in call("doctor", "--json").json()["checks"]}
    assert checks["database"]["state"] == "ok"
    assert checks["workers"]["state"] == "wrong"
    assert "leasehold worker" in checks["workers"]["mend"]
    assert checks["broker"]["state"] == "wrong"


def test_a_worker_without_a_broker_says_how_to_get_one() -> None:
    assert call("db", "upgrade").code == 0
    for command in ("worker", "clock"):
        said = call(command)
        assert said.code == 5
        assert "LEASEHOLD_BROKER_URL" in said.err


def test_a_plugin_is_checked_without_any_server() -> None:
    said = call("providers", "check", "fake", "--area", "contract", "--json")
    assert said.code == 0, said.out
    report = said.json()
    assert report["ok"] is True
    assert report["passed"] > 0
    assert {check["area"] for check in report["checks"]} == {"contract"}
    assert "passed" in call("providers", "check", "fake", "--area", "fences").out


def test_a_check_of_what_is_not_there_says_what_is() -> None:
    said = call("providers", "check", "nope")
    assert said.code == 3
    assert "there are: bubblewrap, docker, fake, fake_plugin, local, ssh" in said.err
    said = call("providers", "check", "fake", "--area", "nowhere")
    assert said.code == 2
    assert "there are: contract" in said.err
    said = call("providers", "check", "fake", "--set", "x=1")
    assert said.code == 2
    assert "config.x: unknown key" in said.err
