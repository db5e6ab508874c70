"""The built-in providers' public calls, line by line."""

from typing import Any
from uuid import UUID

import pytest

from leasehold.errors import ConfigRejectedError, UnsupportedError
from leasehold.provider import builtin

FAKE = {"provider": "fake", "image": "ubuntu:24.04", "reuse_lease": True}
PLUGIN = {"provider": "fake-plugin", "image": "x", "reuse_lease": True}
REFUSED = 'Sandbox provider "fake-plugin" is not registered as a built-in provider.'


def test_fake_is_the_only_builtin() -> None:
    assert [provider.key for provider in builtin.list_providers()] == ["fake"]
    found = builtin.get_provider("fake")
    assert found is not None
    assert found.key == "fake"
    assert builtin.get_provider("fake-plugin") is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: builtin.require_provider("fake-plugin"),
        lambda: builtin.validate_config(PLUGIN),
        lambda: builtin.probe(PLUGIN),
        lambda: builtin.acquire_lease(config=PLUGIN, environment_id="e", run_id="r"),
        lambda: builtin.release_lease(config=PLUGIN, sandbox_id="s", status="released"),
        lambda: builtin.destroy_lease(config=PLUGIN, sandbox_id="s"),
    ],
)
def test_a_plugin_is_refused_with_the_exact_words(call: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        call()
    assert str(caught.value) == REFUSED


def test_a_provider_refuses_another_ones_config() -> None:
    with pytest.raises(ConfigRejectedError) as caught:
        builtin.check_owner("fake", {"provider": "x"})
    assert str(caught.value) == 'Sandbox provider "fake" received config for provider "x".'
    builtin.check_owner("fake", FAKE)
    builtin.check_owner("fake", {})


def test_a_valid_config_says_what_it_means() -> None:
    checked = builtin.validate_config(FAKE)
    assert checked.ok
    assert "ubuntu:24.04" in checked.summary
    assert checked.details == FAKE
    assert builtin.validate_config({"provider": "fake"}).details == FAKE


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({**FAKE, "image": 3}, "image"),
        ({**FAKE, "image": ""}, "image"),
        ({**FAKE, "reuse_lease": "yes"}, "reuse_lease"),
        ({**FAKE, "imgae": "x"}, "imgae"),
    ],
)
def test_a_wrong_config_is_an_answer_that_names_the_field(
    config: dict[str, Any], word: str
) -> None:
    for answer in (builtin.validate_config(config), builtin.probe(config)):
        assert not answer.ok
        assert word in answer.summary


def test_a_probe_says_that_the_fake_is_there() -> None:
    probe = builtin.probe(FAKE)
    assert probe.ok
    assert probe.details["provider"] == "fake"


def test_with_reuse_the_sandbox_belongs_to_the_environment() -> None:
    sandbox = builtin.acquire_lease(config=FAKE, environment_id="env", run_id="run")
    assert sandbox.sandbox_id == "sandbox://fake/env"
    assert sandbox.metadata == FAKE


def test_without_reuse_each_sandbox_is_the_runs_own() -> None:
    config = {**FAKE, "reuse_lease": False}
    ids = {
        builtin.acquire_lease(
            config=config, environment_id="env", run_id="run", issue_id="i"
        ).sandbox_id
        for _ in range(5)
    }
    assert len(ids) == 5
    for sandbox_id in ids:
        head, _, tail = sandbox_id.rpartition("/")
        assert head == "sandbox://fake/run"
        assert UUID(tail).version == 4


def test_a_resume_keeps_the_id_and_says_so() -> None:
    sandbox = builtin.acquire_lease(
        config=FAKE, environment_id="e", run_id="r", reusable_sandbox_id="sandbox://fake/old"
    )
    assert sandbox.sandbox_id == "sandbox://fake/old"
    assert sandbox.metadata == {**FAKE, "resumed_lease": True}


def test_without_reuse_nothing_is_resumed() -> None:
    sandbox = builtin.acquire_lease(
        config={**FAKE, "reuse_lease": False},
        environment_id="e",
        run_id="r",
        reusable_sandbox_id="sandbox://fake/old",
    )
    assert sandbox.sandbox_id != "sandbox://fake/old"
    assert "resumed_lease" not in sandbox.metadata


def lease(sandbox_id: str | None = "s", **metadata: Any) -> dict[str, Any]:
    return {"sandbox_id": sandbox_id, "metadata": {**FAKE, **metadata}}


def test_a_fake_lease_matches_by_image() -> None:
    found = builtin.find_reusable_sandbox_id(
        config=FAKE,
        leases=[
            lease(None),
            lease("other-image", image="debian:12"),
            lease("no-reuse", reuse_lease=False),
            lease("other-provider", provider="x"),
            {"sandbox_id": "bare", "metadata": None},
            lease("right", anything="else"),
            lease("later"),
        ],
    )
    assert found == "right"


def test_a_config_without_reuse_matches_nothing() -> None:
    config = {**FAKE, "reuse_lease": False}
    assert builtin.find_reusable_sandbox_id(config=config, leases=[lease()]) is None
    assert builtin.find_reusable_sandbox_id(config=FAKE, leases=[]) is None


def test_a_plugins_lease_matches_by_every_key_whatever_their_order() -> None:
    config = {"provider": "p", "reuse_lease": True, "size": {"cpu": 1, "mem": 2}}
    same = {"size": {"mem": 2, "cpu": 1}, "reuse_lease": True, "provider": "p", "more": 1}
    other = {**same, "size": {"mem": 3, "cpu": 1}}
    lacking = {"provider": "p", "reuse_lease": True}
    leases = [
        {"sandbox_id": str(n), "metadata": m} for n, m in enumerate((other, lacking, same))
    ]
    assert builtin.find_reusable_sandbox_id(config=config, leases=leases) == "2"


def test_strict_recovery_knows_only_builtins() -> None:
    metadata = {**FAKE, "resumed_lease": True}
    assert builtin.config_from_metadata(metadata) == FAKE
    assert builtin.config_from_metadata(PLUGIN) is None
    assert builtin.config_from_metadata({"provider": "fake"}) is None
    assert builtin.config_from_metadata({}) is None
    assert builtin.config_from_metadata(None) is None


def test_loose_recovery_keeps_every_key_of_any_provider() -> None:
    metadata = {"provider": "p", "size": 3, "reuse_lease": "yes"}
    assert builtin.config_from_metadata_loose(metadata) == {
        "provider": "p",
        "size": 3,
        "reuse_lease": False,
    }
    assert builtin.config_from_metadata_loose({**metadata, "reuse_lease": True}) == {
        "provider": "p",
        "size": 3,
        "reuse_lease": True,
    }
    assert builtin.config_from_metadata_loose({"size": 3}) is None
    assert builtin.config_from_metadata_loose(None) is None


def test_release_and_destroy_have_no_side_effect() -> None:
    builtin.release_lease(config=FAKE, sandbox_id="s", status="released")
    builtin.destroy_lease(config=FAKE, sandbox_id="s")
    again = builtin.acquire_lease(config=FAKE, environment_id="env", run_id="run")
    assert again.sandbox_id == "sandbox://fake/env"
