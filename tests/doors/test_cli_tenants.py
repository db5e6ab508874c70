"""Tenants, through the command line: made, limited, put aside; nothing crosses them."""

import json

import pytest

from command_line import call, create_environment, submitted
from leasehold.store.database import Database

pytestmark = pytest.mark.usefixtures("deployment")


@pytest.fixture
def acme(deployment: None) -> None:
    said = call("tenants", "create", "acme", "--description", "rockets")
    assert said.code == 0, said.err
    assert create_environment("pad", "--tenant", "acme").code == 0


def test_a_tenant_is_made_limited_and_shown(database: Database) -> None:
    made = call("tenants", "create", "acme", "--max-queued", "7", "--json").json()
    assert made["limits"] == {"max_concurrent": None, "max_queued": 7}
    limited = ("tenants", "limits", "acme", "--max-concurrent", "2", "--max-queued", "none")
    assert call(*limited).code == 0
    assert call(*limited).code == 0
    shown = call("tenants", "show", "acme", "--json").json()
    assert shown["limits"] == {"max_concurrent": 2, "max_queued": None}
    assert [one["name"] for one in call("tenants", "list", "--json").json()] == [
        "acme",
        "default",
    ]
    with database.read() as tx:
        events = tx.all("SELECT name, data FROM events WHERE tenant_id = 'acme' ORDER BY id")
    # What changes nothing writes nothing; values are not written.
    assert [row["name"] for row in events] == ["tenant.active", "tenant.changed"]
    assert json.loads(events[1]["data"]) == {
        "tenant": "acme",
        "actor": "cli",
        "changed": ["max_concurrent", "max_queued"],
    }


@pytest.mark.usefixtures("acme")
def test_each_command_works_on_the_rows_of_its_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = submitted("--env", "pad", "--tenant", "acme", "--", "true")["id"]
    assert create_environment("pad").code == 0
    ours = submitted("--env", "pad", "--", "true")["id"]
    for listed in ("runs", "env"):
        one = call(listed, "list", "--json").json()
        other = call(listed, "list", "--json", "--tenant", "acme").json()
        assert len(one) == len(other) == 1
        assert one[0]["id"] != other[0]["id"]
    for words in (("runs", "show"), ("runs", "cancel"), ("explain",), ("runs", "logs")):
        said = call(*words, theirs)
        assert said.code == 3, (words, said.err)
        assert f"no {'run or lease' if words == ('explain',) else 'run'} {theirs}" in said.err
    assert call("runs", "show", ours, "--tenant", "acme").code == 3
    assert call("runs", "show", theirs, "--tenant", "acme").code == 0
    assert call("keys", "create", "k", "--tenant", "acme").code == 0
    assert call("keys", "list", "--json").json() == []
    monkeypatch.setenv("LEASEHOLD_TENANT", "acme")
    assert call("runs", "show", theirs).code == 0
    assert [one["name"] for one in call("keys", "list", "--json").json()] == ["k"]
    assert call("runs", "show", ours, "--tenant", "default").code == 0


@pytest.mark.parametrize(
    "command",
    [
        "runs list --tenant nobody",
        "runs show x --tenant nobody",
        "env list --tenant nobody",
        "leases list --tenant nobody",
        "keys list --tenant nobody",
        "retention show --tenant nobody",
        "secrets list --tenant nobody",
        "explain x --tenant nobody",
        "exec x --tenant nobody -- true",
        "cp x:y z --tenant nobody",
        "run --detach --tenant nobody -- true",
    ],
)
def test_an_unknown_tenant_is_refused_by_name(command: str) -> None:
    said = call(*command.split())
    assert said.code == 3, said.err
    assert "there is no tenant 'nobody'; there are: default" in said.err


def test_a_tenant_that_the_settings_name_concerns_commands_of_tenants_only() -> None:
    nobody = {"LEASEHOLD_TENANT": "nobody"}
    assert call("runs", "list", env=nobody).code == 3
    assert call("tenants", "list", env=nobody).code == 0
    assert call("hosts", "list", env=nobody).code == 0
    assert call("tenants", "create", "nobody", env=nobody).code == 0
    assert call("runs", "list", env=nobody).code == 0


@pytest.mark.usefixtures("acme")
def test_an_archived_tenant_takes_nothing_new_and_keeps_what_it_has() -> None:
    run = submitted("--env", "pad", "--tenant", "acme", "--key", "once", "--", "true")["id"]
    assert call("tenants", "archive", "acme").code == 0
    refused = call("run", "--detach", "--env", "pad", "--tenant", "acme", "--", "true")
    assert refused.code == 4
    assert "tenant acme is archived" in refused.err
    held = call("leases", "create", "--env", "pad", "--tenant", "acme")
    assert held.code == 4
    assert "tenant acme is archived" in held.err
    again = ("--env", "pad", "--tenant", "acme", "--key", "once", "--", "true")
    assert submitted(*again)["id"] == run
    assert call("runs", "cancel", run, "--tenant", "acme").code == 0
    assert call("keys", "create", "k", "--tenant", "acme").code == 0
    assert call("tenants", "archive", "acme", "--undo").code == 0
    submitted("--env", "pad", "--tenant", "acme", "--", "true")


@pytest.mark.usefixtures("acme")
def test_a_limit_of_a_tenant_counts_for_it_alone() -> None:
    create_environment("pad")
    limits = ("tenants", "limits", "acme", "--max-concurrent", "1", "--max-queued", "1")
    assert call(*limits).code == 0
    theirs = ("--env", "pad", "--tenant", "acme", "--", "true")
    assert submitted(*theirs)["status"] == "running"
    waiting = submitted(*theirs)
    assert waiting["status"] == "queued"
    why = call("explain", waiting["id"], "--tenant", "acme").out
    assert "the tenant's limit is reached: 1 of 1" in why
    full = call("run", "--detach", *theirs)
    assert full.code == 4
    assert "max_queued is 1" in full.err
    assert [submitted("--env", "pad", "--", "true")["status"] for _ in range(2)] == [
        "running",
        "running",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "Acme"), "NAME: "),
        (("create", "a_b"), "NAME: "),
        (("create", "default"), "there is a tenant default already"),
        (("create", "x", "--max-queued", "0"), "--max-queued: Input should be greater"),
        (("limits", "default"), "give --max-concurrent or --max-queued"),
        (("limits", "default", "--max-queued", "many"), "--max-queued: Input should be"),
        (("limits", "nobody", "--max-queued", "1"), "there is no tenant 'nobody'"),
        (("archive", "_platform"), "there is no tenant '_platform'"),
        (("show", "nobody"), "there is no tenant 'nobody'"),
    ],
)
def test_bad_input_names_the_option(arguments: tuple[str, ...], words: str) -> None:
    said = call("tenants", *arguments)
    assert said.code in {2, 3, 4}
    assert words in said.err


def test_keys_of_the_platform_are_no_tenants(database: Database) -> None:
    made = call("keys", "create", "ops", "--role", "root", "--json").json()
    assert made["role"] == "root"
    assert call("keys", "list", "--json").json() == []
    (listed,) = call("keys", "list", "--root", "--json").json()
    assert listed["name"] == "ops"
    assert call("keys", "revoke", "ops").code == 3
    both = call("keys", "create", "x", "--role", "root", "--tenant", "default")
    assert both.code == 2
    assert "--tenant: a root key is of the platform" in both.err
    assert call("keys", "revoke", "ops", "--root").code == 0
    with database.read() as tx:
        assert {row["tenant_id"] for row in tx.all("SELECT * FROM events")} == {"_platform"}
