"""Changing an environment, and looking at what its deletion would touch, through commands."""

import pytest

from command_line import call, create_environment, submitted

pytestmark = pytest.mark.usefixtures("deployment")


def update(*arguments: str) -> list[str]:
    said = call("env", "update", "place", "--json", *arguments)
    assert said.code == 0, said.err
    changed: list[str] = said.json()["changed"]
    return changed


def test_what_is_named_changes_and_the_rest_stays() -> None:
    create_environment("place", "--set", "image=one", "--set", "size=1", "-e", "A=1")
    assert update("--set", "image=two", "-e", "B=2", "--policy", "retain_on_failure") == [
        "config.image",
        "env.B",
        "policy",
    ]
    assert update("--unset", "config.size", "--unset", "env.A", "--idle-ttl", "5m") == [
        "config.size",
        "env.A",
        "idle_ttl_s",
    ]
    assert update("--max-concurrent", "2") == ["limits.max_concurrent"]
    assert update("--unset", "limits.max_concurrent", "--unset", "idle_ttl_s") == [
        "idle_ttl_s",
        "limits.max_concurrent",
    ]
    assert update("--secret", "B=token") == ["env.B"]
    shown = call("env", "show", "place", "--json").json()
    assert shown["config"] == {"image": "two"}
    assert shown["env_names"] == ["B"]
    assert (shown["policy"], shown["idle_ttl_s"]) == ("retain_on_failure", None)
    assert update("--set", "image=two") == []
    assert "changed config.image" in call("env", "update", "place", "--set", "image=3x").err
    assert "like that already" in call("env", "update", "place", "--set", "image=3x").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing is named"),
        (("--unset", "name"), "--unset: there is no 'name'; allowed: config.K, "),
        (("--unset", "config"), "--unset: there is no 'config'"),
        (("--unset", "env.A", "-e", "A=2"), "--unset: env.A is set at the same time"),
        (("--set", "size=big"), "config.size: "),
        (("--provider", "nowhere"), "--provider: there is no provider 'nowhere'"),
        (("--max-concurrent", "0"), "--max-concurrent: Input should be greater"),
        (("--idle-ttl", "soon"), "--idle-ttl: must be seconds"),
        (("-e", "LD_PRELOAD=x"), "LD_PRELOAD: "),
    ],
)
def test_bad_input_names_the_option_and_changes_nothing(
    arguments: tuple[str, ...], words: str
) -> None:
    create_environment("place", "--set", "image=one")
    before = call("env", "show", "place", "--json").out
    said = call("env", "update", "place", *arguments)
    assert said.code == 2, said.err
    assert words in said.err
    assert call("env", "show", "place", "--json").out == before


def test_a_dry_deletion_says_what_it_would_touch_and_deletes_nothing() -> None:
    create_environment("place")
    submitted("--env", "place", "--", "true")
    dry = call("env", "delete", "place", "--dry-run", "--json").json()
    assert (dry["deleted"], dry["runs"]) == (False, {"running": 1})
    assert "unfinished_runs" in call("env", "delete", "place", "--dry-run").out
    assert call("env", "show", "place").code == 0
