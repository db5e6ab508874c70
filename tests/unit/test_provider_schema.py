"""A config is checked against a schema; what is wrong is said so that a person can mend it."""

from typing import Any

import pytest

from leasehold.provider import Problem, check_schema

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "minLength": 1},
        "network": {"enum": ["none", "full"], "default": "none"},
        "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        "limits": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "memory_mb": {"type": "integer", "minimum": 1},
                "pids": {"type": "integer", "default": 100},
            },
        },
    },
}


def only(config: dict[str, Any]) -> Problem:
    problems = check_schema(SCHEMA, config).problems
    assert len(problems) == 1, problems
    return problems[0]


def test_defaults_are_filled_in_also_within() -> None:
    found = check_schema(SCHEMA, {"image": "x", "limits": {"memory_mb": 5}})
    assert found.ok
    assert found.config == {
        "image": "x",
        "network": "none",
        "tags": [],
        "limits": {"memory_mb": 5, "pids": 100},
    }


def test_a_default_is_nobodys_to_change() -> None:
    first: Any = check_schema(SCHEMA, {"image": "x"}).config
    first["tags"].append("mine")
    assert check_schema(SCHEMA, {"image": "x"}).config["tags"] == []


def test_an_unknown_key_is_answered_with_what_was_meant_and_what_is_allowed() -> None:
    problem = only({"image": "x", "netwrok": "full"})
    assert (problem.path, problem.code) == ("netwrok", "unknown_key")
    assert "did you mean 'network'?" in problem.message
    assert "allowed: image, limits, network, tags" in problem.message


def test_a_place_within_is_told_with_dots() -> None:
    assert only({"image": "x", "limits": {"memory_mb": "5"}}).path == "limits.memory_mb"
    assert only({"image": "x", "limits": {"memory_mb": 0}}).path == "limits.memory_mb"
    assert only({"image": "x", "limits": {"pid": 5}}).path == "limits.pid"
    assert only({"image": "x", "tags": ["a", 5]}).path == "tags.1"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "missing: image"),
        ({"image": 5}, "must be of type string, got int"),
        ({"image": "x", "network": "some"}, "must be one of 'none', 'full'"),
        ({"image": ""}, "minLength 1"),
    ],
)
def test_a_problem_says_what_came_and_what_is_allowed(
    config: dict[str, Any], words: str
) -> None:
    assert words in only(config).message


def test_a_value_is_never_shown() -> None:
    problems = check_schema(SCHEMA, {"image": ["s3cret"], "network": "s3cret"}).problems
    assert len(problems) == 2
    assert "s3cret" not in repr(problems)
    assert "True" not in only({"image": True}).message


def test_all_problems_are_told_at_once() -> None:
    wrong = {"network": 1, "limits": {"x": 1}, "y": 2}
    paths = {problem.path for problem in check_schema(SCHEMA, wrong).problems}
    assert paths == {"", "network", "limits.x", "y"}
