"""Secrets: given to commands and providers, seen nowhere else (P7)."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leasehold.errors import AuthFailedError, LostClaimError, SecretUnavailableError
from leasehold.maintenance import pruner
from leasehold.orchestrator.jobs import Context
from leasehold.provider import Info, Owned, Sandbox, secret_field
from leasehold.provider import contract as c
from leasehold.provider.fake import SCHEMA, FakeProvider
from leasehold.store import leases, secrets
from leasehold.store.database import Database
from leasehold.store.tables import METADATA
from leasehold.vault import Keys, Vault, keeping, keys
from leasehold.vault.sources import DatabaseSource, EnvironmentSource, FilesSource

from .conftest import House

VALUE = "hunter2/correct horse+battery"


class Keyed(FakeProvider):
    """A provider that needs a token, and says it whenever it can."""

    seen: list[tuple[str, Any]]
    refuses = False

    def describe(self) -> Info:
        properties = {**SCHEMA["properties"], "token": secret_field("Of its account.")}
        info = super().describe()
        return replace(
            info,
            capabilities=replace(info.capabilities, lists_by_config=True),
            config_schema={**SCHEMA, "properties": properties},
        )

    def validate(self, config: c.Json, **more: Any) -> c.Validation:
        rest = {name: value for name, value in config.items() if name != "token"}
        answer = super().validate(rest, **more)
        return replace(answer, config={**answer.config, "token": config["token"]})

    def acquire(self, lease: c.LeaseRef, config: c.Json, **more: Any) -> Sandbox:
        self.seen.append(("acquire", config["token"]))
        if self.refuses:
            raise AuthFailedError(f"the token {config['token']} is refused")
        sandbox = super().acquire(lease, config, **more)
        said = {"url": f"https://api?token={config['token']}"}
        return replace(sandbox, metadata={**sandbox.metadata, **said})

    def poll(self, items: Any, **more: Any) -> Any:
        self.seen += [("poll", item.target.config["token"]) for item in items]
        return super().poll(items, **more)

    def release(self, target: c.Target, **more: Any) -> None:
        self.seen.append(("release", target.config["token"]))
        super().release(target, **more)

    def list_owned(self, deployment: str, *, config: c.Json, **more: Any) -> Iterator[Owned]:
        self.seen.append(("list", config.get("token")))
        return super().list_owned(deployment, config=config, **more)


@pytest.fixture
def keyring(tmp_path: Path) -> Keys:
    keys.make_file(tmp_path / "keys")
    return Keys.load(tmp_path / "keys")


def vault_of(database: Database, keyring: Keys | None) -> Vault:
    return Vault({"database": DatabaseSource(database, lambda: keyring)})


def put(house: House, keyring: Keys, name: str, value: str) -> int:
    with house.database.write("test") as tx:
        return keeping.put(tx, keyring, tenant_id="default", name=name, value=value)


def versions(house: House) -> list[tuple[str, int]]:
    with house.database.read() as tx:
        rows = tx.all("SELECT name, version FROM secret_versions ORDER BY name, version")
    return [(row["name"], row["version"]) for row in rows]


def everything(house: House) -> str:
    """Return every row of every table, as text."""
    said = []
    with house.database.read() as tx:
        for table in METADATA.tables:
            for row in tx.all(f"SELECT * FROM {table}"):
                said += [
                    bytes(v).decode(errors="replace")
                    if isinstance(v, bytes | memoryview)
                    else str(v)
                    for v in row.values()
                ]
    return "\n".join(said)


@pytest.fixture
def keyed(house: House, keyring: Keys) -> Keyed:
    """The house with a vault, and a provider that wants a token."""
    provider = Keyed(house.world)
    provider.seen = []
    house.registry._providers["fake"] = provider
    house.worker = replace_vault(house.hire(), vault_of(house.database, keyring))
    return provider


def replace_vault(worker: Context, vault: Vault) -> Context:
    worker.vault = vault
    return worker


@pytest.fixture(autouse=True)
def nothing_is_written(house: House) -> Iterator[None]:
    yield
    said = everything(house)
    for form in (VALUE, VALUE.split(maxsplit=1)[0], base64.b64encode(VALUE.encode()).decode()):
        assert form not in said


@pytest.mark.usefixtures("keyed")
def test_a_command_gets_the_value_and_its_output_does_not_show_it(
    house: House, keyring: Keys
) -> None:
    put(house, keyring, "token", "of the account")
    put(house, keyring, "password", VALUE)
    house.environment(config={"token": {"secret": "token"}})
    run = house.over(
        house.submit("env", env={"PASSWORD": {"secret": "password"}, "PLAIN": "1"})
    )
    assert run["status"] == "succeeded"
    hidden = "*" * len(VALUE)
    said = house.output(run["id"]).decode().splitlines()
    assert f"PASSWORD={hidden}" in said
    assert "PLAIN=1" in said


@pytest.mark.usefixtures("keyed")
def test_a_value_that_drips_out_is_hidden_whoever_looks(house: House, keyring: Keys) -> None:
    put(house, keyring, "token", "of the account")
    put(house, keyring, "password", VALUE)
    house.environment(
        config={"token": {"secret": "token"}}, env={"PASSWORD": {"secret": "password"}}
    )
    words = ["print", "before "]
    for letter in VALUE.replace(" ", "\t"):
        words += ["then", "sleep", "0.01", "then", "print", letter.replace("\t", " ")]
    run_id = house.submit(*words, "then", "print", " after", "then", "sleep", "0.3")
    stored = 0
    while not house.run(run_id)["finished_at"]:
        # Each look is another worker's, which knows only the rows.
        house.worker = replace_vault(house.hire(), vault_of(house.database, keyring))
        house.turn()
        now = len(house.output(run_id))
        assert now >= stored
        stored = now
    assert house.output(run_id).decode() == f"before {'*' * len(VALUE)} after"


def test_the_provider_gets_the_value_and_its_words_do_not_show_it(
    house: House, keyring: Keys, keyed: Keyed
) -> None:
    put(house, keyring, "token", VALUE)
    house.environment(config={"token": {"secret": "token"}})
    house.over(house.submit("sleep", "0.1"))
    house.quiet()
    assert {what for what, _ in keyed.seen} >= {"acquire", "poll", "release"}
    assert {token for _, token in keyed.seen} == {VALUE}
    (lease,) = house.leases()
    assert lease["facts"]["sandbox"]["url"] == "https://api?token=***"
    assert lease["facts"]["config"]["token"] == {"secret": "token"}

    keyed.refuses = True
    run = house.over(house.submit("true"))
    assert (run["status"], run["code"]) == ("failed", "auth_failed")
    assert run["message"] == "the token *** is refused"


def test_a_secret_that_is_missing_ends_the_run_before_there_is_a_sandbox(
    house: House, keyring: Keys, keyed: Keyed
) -> None:
    put(house, keyring, "token", VALUE)
    house.environment(config={"token": {"secret": "token"}})
    run = house.over(house.submit("true", env={"A": {"secret": "nobody"}}))
    assert (run["status"], run["code"]) == ("failed", "secret_unavailable")
    assert "'nobody'" in run["message"]
    assert house.leases() == []
    assert keyed.seen == []


def test_a_new_value_ends_reuse_and_live_leases_keep_theirs(
    house: House, keyring: Keys, keyed: Keyed
) -> None:
    put(house, keyring, "token", "the first value")
    house.environment(config={"token": {"secret": "token"}}, policy="reuse_by_environment")
    first = house.over(house.submit("true"))
    house.quiet()
    put(house, keyring, "token", VALUE)
    assert versions(house) == [("token", 1), ("token", 2)], "an idle lease names the first"
    keyed.seen.clear()
    second = house.over(house.submit("true"))
    house.quiet()
    assert first["lease_id"] != second["lease_id"]
    assert ("release", "the first value") in keyed.seen, "it is released with its own"
    assert ("acquire", VALUE) in keyed.seen
    pruner.run_once(house.worker)
    assert versions(house) == [("token", 2)]


def test_a_deleted_secret_serves_its_live_leases_and_nobody_else(
    house: House, keyring: Keys, keyed: Keyed
) -> None:
    put(house, keyring, "token", VALUE)
    house.environment(config={"token": {"secret": "token"}}, policy="reuse_by_environment")
    house.over(house.submit("true"))
    house.quiet()
    with house.database.write("test") as tx:
        keeping.delete(tx, tenant_id="default", name="token")
    assert house.over(house.submit("true"))["code"] == "secret_unavailable"
    keyed.seen.clear()
    with house.database.write("test") as tx:
        for row in leases.page(tx, tenant_id="default"):
            leases.expire_now(tx, row["id"])
    house.until(lambda: house.world.sandboxes() == [])
    assert ("release", VALUE) in keyed.seen
    house.quiet()
    assert pruner.run_once(house.worker).secret_versions == 1
    assert versions(house) == []
    assert put(house, keyring, "token", "again") == 2, "no number is used twice"


def test_a_version_that_is_named_at_this_moment_is_not_pruned(
    house: House, keyring: Keys
) -> None:
    put(house, keyring, "token", "one")
    put(house, keyring, "token", "two")
    with house.database.write("test") as tx, pytest.raises(LostClaimError, match="is gone"):
        secrets.name_in_lease(tx, "lease", tenant_id="default", pins={"token": 1})
    with house.database.write("test") as tx:
        secrets.name_in_lease(tx, "lease", tenant_id="default", pins={"token": 2})
        tx.run("DELETE FROM secret_uses")


@pytest.mark.usefixtures("keyed")
def test_a_host_without_the_key_tries_again_and_stores_nothing_unhidden(
    house: House, keyring: Keys
) -> None:
    put(house, keyring, "token", "of the account")
    put(house, keyring, "password", VALUE)
    house.environment(config={"token": {"secret": "token"}})
    run_id = house.submit(
        "env", "then", "sleep", "0.2", env={"PASSWORD": {"secret": "password"}}
    )
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    good, house.worker = (
        house.worker,
        replace_vault(house.hire(), vault_of(house.database, None)),
    )
    stored = house.output(run_id)
    house.until(lambda: house.run(run_id)["publishes"] > 1)
    assert house.output(run_id) == stored
    house.worker = good
    assert house.over(run_id)["status"] == "succeeded"
    assert f"PASSWORD={'*' * len(VALUE)}".encode() in house.output(run_id)


def test_a_row_that_was_copied_over_another_does_not_pass_for_it(
    house: House, keyring: Keys
) -> None:
    put(house, keyring, "mine", "a value")
    put(house, keyring, "yours", "another")
    with house.database.write("test") as tx:
        tx.run(
            "UPDATE secret_versions SET ciphertext = (SELECT v.ciphertext"
            " FROM secret_versions v WHERE v.name = 'yours') WHERE name = 'mine'"
        )
    with pytest.raises(SecretUnavailableError, match="another one's value"):
        vault_of(house.database, keyring).look_up("default", "mine")


def test_a_new_first_key_encrypts_and_the_old_one_decrypts_until_all_is_rotated(
    house: House, keyring: Keys, tmp_path: Path
) -> None:
    put(house, keyring, "a", "value of a")
    put(house, keyring, "b", "value of b")
    file = tmp_path / "keys"
    file.write_text(f"# the new one\n{keys.new_key()}\n{file.read_text()}")
    both = Keys.load(file)
    put(house, both, "c", "value of c")
    vault = vault_of(house.database, both)
    assert [vault.look_up("default", name).value for name in "abc"] == [
        f"value of {name}" for name in "abc"
    ]
    assert keeping.rotate(house.database, both) == 2
    assert keeping.rotate(house.database, both) == 0
    file.write_text("\n".join(file.read_text().splitlines()[:2]))
    alone = Keys.load(file)
    assert vault_of(house.database, alone).look_up("default", "a").value == "value of a"
    with pytest.raises(SecretUnavailableError, match="no key in"):
        vault_of(house.database, keyring).look_up("default", "a")


@pytest.mark.usefixtures("keyed")
def test_a_held_lease_and_a_sweep_use_the_value_too(
    house: House, keyring: Keys, keyed: Keyed
) -> None:
    from leasehold.orchestrator import holding
    from leasehold.orchestrator.sweep import Sweep
    from leasehold.store import environments

    put(house, keyring, "token", VALUE)
    house.environment(config={"token": {"secret": "token"}})
    with house.database.write("test") as tx:
        row = environments.get(tx, "lab", tenant_id="default")
        lease = holding.create(
            tx, house.worker, row, hold_for=timedelta(minutes=5), version="1", key="k"
        )
    house.until(lambda: house.leases()[0]["status"] == "idle")
    assert keyed.seen == [("acquire", VALUE)]
    report = Sweep("host-1").run_once(house.worker, keyed)
    assert (report.listed, report.matched) == (1, 1)
    assert [token for what, token in keyed.seen if what == "list"] == [None, VALUE]
    with house.database.write("test") as tx:
        holding.give_back(tx, house.worker, lease["id"], actor="me")
    house.quiet()
    assert keyed.seen[-1] == ("release", VALUE)


def test_a_place_that_does_not_answer_proves_nothing(
    house: House, keyring: Keys, keyed: Keyed
) -> None:
    from leasehold.orchestrator.sweep import Sweep

    put(house, keyring, "token", VALUE)
    house.environment(config={"token": {"secret": "token"}}, policy="reuse_by_environment")
    run = house.over(house.submit("true"))
    house.quiet()
    house.world.lose(run["lease_id"])
    blind = replace_vault(house.hire(), vault_of(house.database, None))
    sweep = Sweep("host-1")
    assert [sweep.run_once(blind, keyed).absent for _ in range(3)] == [0, 0, 0]
    assert sweep.run_once(house.worker, keyed).absent == 1
    assert sweep.run_once(house.worker, keyed).lost == [run["lease_id"]]
    house.quiet()


def test_other_sources_are_asked_in_their_order(house: House, tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "file-one").write_text("from a file\n")
    variables = {"S_one": "from here", "S_acme__one": "of another tenant", "OTHER": "no secret"}
    vault = Vault(
        {
            "environment": EnvironmentSource("S_", salt="x", variables=variables),
            "files": FilesSource(tmp_path, salt="x"),
        }
    )
    first = vault.look_up("default", "one")
    assert first.value == "from here"
    assert vault.look_up("acme", "one").value == "of another tenant"
    assert vault.look_up("default", "file-one").value == "from a file"
    variables["S_one"] = "changed"
    assert vault.look_up("default", "one").version != first.version
    for missing in ("acme__one", "two", "OTHER"):
        with pytest.raises(SecretUnavailableError, match="looked in: environment, files"):
            vault.look_up("default", missing)
