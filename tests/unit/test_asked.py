"""A run as fields of a form, both ways."""

from typing import Any

import pytest

from leasehold.domain.specs import RunSpec, parse
from leasehold.errors import BadInputError
from leasehold.web import asked


def form(**fields: str) -> dict[str, list[str]]:
    return {name: [text] for name, text in fields.items()}


def argvs(**fields: str) -> list[list[str]]:
    return [one["argv"] for one in asked.body(form(**fields))["commands"]]


def test_lines_are_commands_and_a_script_is_one() -> None:
    text = "make build\r\n\r\n  pytest -k 'a b' --color=no\r\n"
    assert argvs(command=text) == [["make", "build"], ["pytest", "-k", "a b", "--color=no"]]
    assert argvs(command="a && b\nc", kind="script") == [["sh", "-c", "a && b\nc"]]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "command"),
        ({"command": " \n "}, "command"),
        ({"command": "echo 'open"}, "command"),
        ({"command": "true", "labels": "no sign"}, "labels"),
        ({"command": "true", "env": "=x"}, "env"),
        ({"command": "true", "secrets": "TOKEN"}, "secrets"),
    ],
)
def test_what_is_no_value_is_refused_by_its_field(fields: dict[str, str], field: str) -> None:
    with pytest.raises(BadInputError) as caught:
        asked.body(form(**fields))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"timeout_s": "soon"}, "timeout_s"),
        ({"retries": "many"}, "retries"),
        ({"priority": "9" * 4000}, "priority"),
        ({"ref": "main"}, "git"),
        ({"git": "https://example.org/x.git", "ref": "-x"}, "ref"),
        ({"git": "https://example.org/x.git", "credential": "a b"}, "credential"),
        ({"secrets": "TOKEN=a b"}, "env"),
        ({"env": "LD_PRELOAD=x"}, "env"),
    ],
)
def test_what_the_spec_refuses_is_marked_in_the_form(
    fields: dict[str, str], field: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(RunSpec, asked.body(form(command="true", **fields)))
    assert asked.field_of(caught.value.field) == field


def test_a_form_made_of_a_run_makes_that_run() -> None:
    body: dict[str, Any] = {
        "commands": [{"argv": ["pytest", "-k", "a b"]}, {"argv": ["echo", "it's"]}],
        "env": {"TOKEN": {"secret": "token"}},
        "labels": {"team": "core", "x": "a=b"},
        "requires": {"gpu": "yes"},
        "timeout_s": 90.5,
        "retries": 2,
        "priority": 0,
        "idempotent": True,
        "workspace": "https://example.org/x.git",
        "tree": {"git": "https://example.org/x.git", "ref": "main"},
    }
    spec = parse(RunSpec, body)
    again = parse(RunSpec, asked.body(asked.fields(spec.model_dump(mode="json"))))
    assert again == spec


def test_a_script_stays_a_script_and_variables_are_not_shown() -> None:
    body = {"commands": [{"argv": ["sh", "-c", "a\nb"]}], "env": {"KEY": "hush"}}
    found = asked.fields(parse(RunSpec, body).model_dump(mode="json"))
    assert (found["kind"], found["command"]) == (["script"], ["a\nb"])
    assert "hush" not in str(found)
