"""What an ssh environment's config may say, and how its mistakes are named."""

from importlib.metadata import entry_points
from typing import Any

import asyncssh
import pytest

from leasehold.provider import SECRET_KEYWORD, HealthState, Validation
from leasehold_ssh import make
from leasehold_ssh.config import login_of
from supervised import budget


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    key = asyncssh.generate_private_key("ssh-ed25519")
    return {
        "open": key.export_private_key().decode(),
        "locked": key.export_private_key(passphrase="sesame").decode(),
        "public": key.export_public_key().decode(),
    }


@pytest.fixture
def good(keys: dict[str, str]) -> dict[str, Any]:
    return {
        "host": "build.example",
        "user": "runner",
        "path": "/srv/leases",
        "private_key": keys["open"],
        "known_hosts": f"build.example {keys['public']}",
    }


def check(config: dict[str, Any]) -> Validation:
    return make({}).validate(config, budget=budget())


def test_the_entry_point_makes_a_provider_that_needs_no_target_to_be_healthy() -> None:
    (entry,) = entry_points(group="leasehold.providers", name="ssh")
    provider = entry.load()({})
    assert provider.describe().key == "ssh"
    assert provider.probe({}, budget=budget()).state is HealthState.HEALTHY
    assert list(provider.list_owned("any", config={}, budget=budget())) == []


def test_its_secrets_are_declared_as_such() -> None:
    fields = make({}).describe().config_schema["properties"]
    assert {key for key, part in fields.items() if part.get(SECRET_KEYWORD)} == {
        "private_key",
        "passphrase",
    }


def test_a_config_is_filled_in_with_text_or_reference(good: dict[str, Any]) -> None:
    defaults = {"port": 22, "sessions": 8, "reuse_lease": True}
    assert check(good) == Validation(config={**good, **defaults})
    referred = {**good, "private_key": {"secret": "build-key"}}
    assert check(referred) == Validation(config={**referred, **defaults})


def test_a_path_is_normalized(good: dict[str, Any]) -> None:
    assert check({**good, "path": "//srv//leases/"}).config["path"] == "/srv/leases"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", "a host"),
        ("host", "-oProxyCommand=evil"),
        ("port", 0),
        ("port", "22"),
        ("user", "-l"),
        ("user", ""),
        ("path", "relative"),
        ("path", "/"),
        ("path", "/srv/../etc"),
        ("path", "/srv/new\nline"),
        ("private_key", "no key at all"),
        ("private_key", {"secret": "bad name!"}),
        ("private_key", 5),
        ("passphrase", []),
        ("known_hosts", ""),
        ("known_hosts", "one-word"),
        ("sessions", 0),
        ("reuse_lease", "yes"),
        ("color", "red"),
    ],
)
def test_a_mistake_is_named_and_its_value_is_not(
    good: dict[str, Any], key: str, value: object
) -> None:
    answer = check({**good, key: value})
    assert {problem.path for problem in answer.problems} == {key}
    assert not answer.config
    assert "no key at all" not in str(answer)


@pytest.mark.parametrize("key", ["host", "user", "path", "private_key", "known_hosts"])
def test_what_is_missing_is_named(good: dict[str, Any], key: str) -> None:
    del good[key]
    assert any(key in problem.message for problem in check(good).problems)


def test_a_locked_key_needs_its_own_passphrase(
    good: dict[str, Any], keys: dict[str, str]
) -> None:
    locked = {**good, "private_key": keys["locked"]}
    for wrong in ({}, {"passphrase": "open says me"}):
        (problem,) = check({**locked, **wrong}).problems
        assert problem.path == "passphrase"
    assert check({**locked, "passphrase": "sesame"}).ok
    assert check({**locked, "passphrase": {"secret": "sesame"}}).ok


def test_a_known_hosts_that_does_not_name_the_host_is_warned_of(good: dict[str, Any]) -> None:
    answer = check({**good, "host": "other.example"})
    assert answer.ok
    assert "other.example" in answer.warnings[0]
    assert check({**good, "port": 2222}).ok


def test_a_login_shows_no_secret_and_differs_by_each_of_its_parts(good: dict[str, Any]) -> None:
    login = login_of({**good, "passphrase": "sesame"})
    assert good["private_key"].splitlines()[1] not in repr(login)
    assert "sesame" not in repr(login)
    others = [
        login_of({**good, key: value})
        for key, value in (
            ("host", "x"),
            ("port", 23),
            ("user", "x"),
            ("known_hosts", "x"),
            ("private_key", "x"),
            ("passphrase", "x"),
        )
    ]
    assert len({one.mark for one in [login, *others]}) == 7
    assert login.name == "ssh://runner@build.example:22"
    assert login_of({**good, "host": "::1"}).name == "ssh://runner@[::1]:22"
