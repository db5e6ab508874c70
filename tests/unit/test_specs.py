"""What people ask for: read as they meant it, or refused with the field and what is allowed."""

from datetime import timedelta
from typing import Any

import pytest

from leasehold.domain import specs
from leasehold.domain.durations import parse_duration
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.errors import BadInputError

COMMAND = {"argv": ["true"]}


def run(**changes: Any) -> dict[str, Any]:
    return {"commands": [COMMAND], **changes}


def refusal(kind: type[specs.Spec], value: Any) -> tuple[str | None, str]:
    with pytest.raises(BadInputError) as caught:
        parse(kind, value)
    return caught.value.field, str(caught.value)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("250ms", 0.25),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("7d", 604_800),
        ("1d2h3m4s", 93_784),
        (" 10M ", 600),
        (timedelta(minutes=2), 120),
    ],
)
def test_a_duration_is_seconds_or_text(said: Any, seconds: float) -> None:
    assert parse_duration(said) == pytest.approx(seconds)
    assert parse(RunSpec, run(timeout_s=said)).timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    "said", ["", "ten", "10 m", "m", "10x", "1h 30m", "1h30", "--1s", "-5m"]
)
def test_what_is_no_duration_is_refused_with_examples(said: str) -> None:
    field, message = refusal(RunSpec, run(timeout_s=said))
    assert field == "timeout_s"
    assert message == (
        'timeout_s: must be seconds or a duration such as "90s", "10m", "1h30m", "7d" (got str)'
    )


@pytest.mark.parametrize(
    "field", ["timeout_s", "queue_timeout_s", "start_timeout_s", "deadline_s"]
)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "Input should be greater than 0 (got int)"),
        (-1.5, "Input should be greater than 0 (got float)"),
        ("-3", "Input should be greater than 0 (got str)"),
        ("367d", "Input should be less than or equal to 31622400 (got str)"),
        ("inf", "Input should be less than or equal to 31622400 (got str)"),
        (float("nan"), "Input should be greater than 0 (got float)"),
        ([], "Input should be a valid number (got list)"),
    ],
)
def test_a_duration_out_of_range_is_refused(field: str, value: Any, message: str) -> None:
    assert refusal(RunSpec, run(**{field: value})) == (field, f"{field}: {message}")


REFUSED: list[tuple[type[specs.Spec], Any, str, str]] = [
    (RunSpec, {}, "commands", "commands: Field required (got nothing)"),
    (
        RunSpec,
        {"commands": []},
        "commands",
        "commands: Tuple should have at least 1 item after validation, not 0 (got list)",
    ),
    (
        RunSpec,
        {"commands": [COMMAND] * 101},
        "commands",
        "commands: Tuple should have at most 100 items after validation, not 101 (got list)",
    ),
    (
        RunSpec,
        {"commands": [{"argv": []}]},
        "commands.0.argv",
        "commands.0.argv: Tuple should have at least 1 item after validation, not 0 (got list)",
    ),
    (
        RunSpec,
        {"commands": [{"argv": [""]}]},
        "commands.0.argv.0",
        "commands.0.argv.0: the command's name is empty",
    ),
    (
        RunSpec,
        {"commands": [COMMAND, {"argv": ["a", "b\0c"]}]},
        "commands.1.argv.1",
        "commands.1.argv.1: must not contain a NUL character (got str)",
    ),
    (
        RunSpec,
        {"commands": [{"argv": ["a", 1]}]},
        "commands.0.argv.1",
        "commands.0.argv.1: Input should be a valid string (got int)",
    ),
    (
        RunSpec,
        {"commands": [{"argv": ["x" * specs.MAX_ARGV_BYTES]}]},
        "commands.0.argv",
        "commands.0.argv: 1048577 bytes in all; at most 1048576",
    ),
    (
        RunSpec,
        run(commands=[{**COMMAND, "cwd": "a\0b"}]),
        "commands.0.cwd",
        "commands.0.cwd: must not contain a NUL character (got str)",
    ),
    (
        RunSpec,
        run(commands=[{**COMMAND, "shell": True}]),
        "commands.0.shell",
        "commands.0.shell: there is no such field; allowed here: argv, cwd, env, stdin",
    ),
    (
        RunSpec,
        run(comands=[]),
        "comands",
        "comands: there is no such field; allowed here: "
        + ", ".join(sorted(RunSpec.model_fields)),
    ),
    (
        RunSpec,
        run(env={"A": "b\0"}),
        "env.A",
        "env.A: must not contain a NUL character (got str)",
    ),
    (
        RunSpec,
        run(retries=-1),
        "retries",
        "retries: Input should be greater than or equal to 0 (got int)",
    ),
    (
        RunSpec,
        run(max_infra_attempts=0),
        "max_infra_attempts",
        "max_infra_attempts: Input should be greater than or equal to 1 (got int)",
    ),
    (
        RunSpec,
        run(priority=10),
        "priority",
        "priority: Input should be less than or equal to 9 (got int)",
    ),
    (
        RunSpec,
        run(grace_s=-1),
        "grace_s",
        "grace_s: Input should be greater than or equal to 0 (got int)",
    ),
    (
        RunSpec,
        run(output_cap_bytes=2 * 1024**3),
        "output_cap_bytes",
        "output_cap_bytes: Input should be less than or equal to 1073741824 (got int)",
    ),
    (
        RunSpec,
        run(workspace=""),
        "workspace",
        "workspace: Value should have at least 1 item after validation, not 0 (got str)",
    ),
    (
        RunSpec,
        run(idempotent="perhaps"),
        "idempotent",
        "idempotent: Input should be a valid boolean, unable to interpret input (got str)",
    ),
    (
        EnvironmentSpec,
        {"name": "a", "provider": "Docker"},
        "provider",
        "provider: String should match pattern '^[a-z][a-z0-9_-]{0,62}$' (got str)",
    ),
    (
        EnvironmentSpec,
        {"name": "-a", "provider": "local"},
        "name",
        "name: String should match pattern '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$' (got str)",
    ),
    (
        EnvironmentSpec,
        {"name": "a", "provider": "local", "policy": "hoard"},
        "policy",
        (
            "policy: Input should be 'ephemeral', 'reuse_by_environment',"
            " 'reuse_by_workspace' or 'retain_on_failure' (got str)"
        ),
    ),
    (
        EnvironmentSpec,
        {"name": "a", "provider": "local", "limits": {"max_concurrent": 0}},
        "limits.max_concurrent",
        "limits.max_concurrent: Input should be greater than or equal to 1 (got int)",
    ),
    (
        EnvironmentSpec,
        {"name": "a", "provider": "local", "limits": {"max": 1}},
        "limits.max",
        "limits.max: there is no such field; allowed here: max_concurrent",
    ),
]


@pytest.mark.parametrize(("kind", "value", "field", "message"), REFUSED)
def test_a_refusal_names_the_field_and_what_is_allowed(
    kind: type[specs.Spec], value: Any, field: str, message: str
) -> None:
    assert refusal(kind, value) == (field, message)


def test_what_is_no_object_at_all_is_refused() -> None:
    field, message = refusal(RunSpec, [1])
    assert field == "RunSpec"
    assert message.startswith("RunSpec: Input should be a valid dictionary")


def test_a_value_is_never_repeated_in_a_refusal() -> None:
    _, message = refusal(RunSpec, run(env={"TOKEN": "s3cret\0"}))
    assert "s3cret" not in message


def test_the_largest_argv_and_stdin_fit() -> None:
    argv = ["x" * (specs.MAX_ARGV_BYTES - 1)]
    stdin = "A" * (specs.MAX_STDIN_BYTES * 4 // 3)
    assert parse(RunSpec, {"commands": [{"argv": argv, "stdin": stdin}]})


def test_more_stdin_than_allowed_is_refused() -> None:
    too_much = "A" * (specs.MAX_STDIN_BYTES * 4 // 3 + 8)
    field, message = refusal(RunSpec, run(commands=[{**COMMAND, "stdin": too_much}]))
    assert field == "commands.0.stdin"
    assert "at most" in message
    assert len(message) < 200


def test_bytes_of_argv_that_are_no_text_are_kept() -> None:
    odd = b"a\xff".decode(errors="surrogateescape")
    assert parse(RunSpec, {"commands": [{"argv": [odd]}]}).commands[0].argv == (odd,)


def test_a_spec_comes_back_from_json_as_it_was() -> None:
    spec = parse(RunSpec, run(timeout_s="10m", labels={"team": "ü"}, env={"A": "1"}))
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert RunSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_spec_does_not_change() -> None:
    spec = parse(RunSpec, run())
    with pytest.raises(ValueError, match="frozen"):
        spec.retries = 3  # type: ignore[misc]  # refused at run time as well
