"""The small rules of the command line: exit codes, patience, what is shown and how."""

import json
from pathlib import Path
from typing import Any

import pytest

from leasehold import errors
from leasehold.cli import codes, output
from leasehold.cli.door import patiently
from leasehold.cli.environment_commands import config_of
from leasehold.cli.following import exit_code
from leasehold.errors import BadInputError, StoreUnavailableError


@pytest.mark.parametrize(
    ("run", "signal", "code"),
    [
        ({"status": "succeeded", "exit_code": 0}, None, 0),
        ({"status": "failed", "exit_code": 3, "code": "command_failed"}, None, 3),
        ({"status": "failed", "exit_code": 127, "code": "command_not_found"}, None, 127),
        ({"status": "failed", "exit_code": None, "code": "command_killed"}, 9, 137),
        ({"status": "failed", "exit_code": None, "code": "command_oom"}, 9, 137),
        ({"status": "failed", "exit_code": None, "code": "execution_lost"}, None, 255),
        ({"status": "cancelled", "exit_code": None, "code": "cancelled"}, 15, 255),
        ({"status": "timed_out", "exit_code": None, "code": "timeout"}, 9, 255),
        ({"status": "failed", "exit_code": 256, "code": "command_failed"}, None, 255),
    ],
)
def test_a_run_exits_as_its_command_did_or_with_255(
    run: dict[str, Any], signal: int | None, code: int
) -> None:
    assert exit_code(run, {"signal": signal}) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadInputError("x"), 2),
        (errors.NotFoundError("x"), 3),
        (errors.ConflictError("x"), 4),
        (errors.FullError("x", retry_after_s=1), 4),
        (errors.IdempotencyConflictError("x"), 4),
        (errors.StoreUnavailableError("x"), 5),
        (errors.BrokerUnavailableError("x"), 5),
        (errors.SchemaError("x"), 6),
        (errors.ProviderError("x"), 1),
        (ValueError("x"), 70),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert codes.of(error) == code


def test_every_exit_code_stands_in_the_reference() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = text[text.index("## Exit codes") : text.index("## Commands")]
    for code in codes.TABLE:
        shown = code.replace("+", " + ").replace("n", "*n*")
        assert f"| {shown} " in table, code


def test_an_error_is_one_line_and_shows_its_trace_only_when_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        config_of(["x"], None)
    except BadInputError as error:
        assert codes.report(error) == 2
        assert capsys.readouterr().err == "leasehold: --set: must be K=V, got 'x'\n"
        monkeypatch.setenv("LEASEHOLD_LOG_LEVEL", "DEBUG")
        codes.report(error)
    assert "Traceback" in capsys.readouterr().err


def test_a_database_that_comes_back_in_time_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers: list[Exception | str] = [*[StoreUnavailableError("away")] * 3, "here"]

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently("db://x", ask, patience_s=30) == "here"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "database db://x does not answer (away); trying for 30 s" in said


def test_what_cannot_be_repeated_is_asked_once() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise StoreUnavailableError("away")

    with pytest.raises(StoreUnavailableError, match="database db://x does not answer"):
        patiently("db://x", ask, patience_s=0)
    assert asked == [1]


def test_a_config_is_read_from_a_file_and_options_win(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"image": "a", "limits": {"cpu": 1, "mem": 2}}))
    found = config_of(["image=b", "limits.cpu=3", "flag=true", "text=1a"], file)
    assert found == {
        "image": "b",
        "limits": {"cpu": 3, "mem": 2},
        "flag": True,
        "text": "1a",
    }
    with pytest.raises(BadInputError, match="is not a mapping"):
        config_of(["image.tag=x"], file)
    file.write_text("[]")
    with pytest.raises(BadInputError, match="must hold a JSON object"):
        config_of(None, file)
    with pytest.raises(BadInputError, match="No such file"):
        config_of(None, tmp_path / "nowhere")


def test_what_is_shown_cannot_drive_a_terminal() -> None:
    assert "\x1b" not in output.clean("a\x1b[31mred\x07")
    assert output.clean(None) == "-"
    assert output.clean(["a", "b"]) == "a, b"
    assert output.clean(value=True) == "yes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (200_000, "2d")],
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text
    assert output.duration(-seconds) in {text, f"-{text}"}


def test_json_is_one_line_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": "é", "b": [1]})
    assert capsys.readouterr().out == '{"a": "é", "b": [1]}\n'
