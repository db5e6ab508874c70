"""Secrets over HTTP: values go in, and nothing that we answer, log or write has them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog

from api.served import client_of, make_key, serving
from leasehold import log
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.ids import PLATFORM
from leasehold.settings import Settings
from leasehold.store.database import Database
from leasehold.vault.keys import Keys, new_key
from store.rows import insert_lease

SECRETS = "/api/v1/secrets"
VALUE = "correct-horse-battery-staple"


def stored(database: Database) -> str:
    with database.read() as tx:
        tables = ("secrets", "secret_versions", "secret_uses", "events", "environments")
        return str([tx.all(f"SELECT * FROM {table}") for table in tables])


def test_a_value_goes_in_and_never_comes_out(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    first = client.put(f"{SECRETS}/token", json={"value": VALUE})
    assert (first.status_code, first.json()["version"]) == (200, 1)
    second = client.put(f"{SECRETS}/token", json={"value": VALUE + "2"})
    assert second.json()["version"] == 2
    place = {"name": "used", "provider": "fake", "env": {"T": {"secret": "token"}}}
    assert client.post("/api/v1/environments", json=place).status_code == 201
    listed, shown = client.get(SECRETS), client.get(f"{SECRETS}/token")
    assert [one["name"] for one in listed.json()["items"]] == ["token"]
    assert shown.json()["environments"] == ["used"]
    told = [first, second, listed, shown, client.get("/api/v1/environments/used")]
    assert not any(VALUE in answer.text for answer in told)
    assert VALUE not in stored(database)
    with database.read() as tx:
        sealed = tx.all("SELECT * FROM secret_versions")
        events = tx.all("SELECT * FROM events WHERE name = 'secret.set'")
    keys = Keys.load(settings.secret_keys_path)
    assert keys.open(sealed[0]["ciphertext"], tenant_id="default", name="token", version=2) == (
        f"{VALUE}2"
    )
    assert all('"actor"' in event["data"] for event in events)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"value": VALUE, "version": VALUE}, "version"),
        ({"value": [VALUE]}, "value"),
        ({"value": {"secret": VALUE}}, "value"),
        ({"value": VALUE + "\0"}, "value"),
        ({"value": VALUE * 4000}, "value"),
        ({"value": ""}, "value"),
        ({"value": None}, "value"),
        ({}, "value"),
        ([VALUE], "body"),
        (VALUE, "body"),
    ],
    ids=str,
)
def test_a_refusal_does_not_repeat_what_came(
    client: httpx.Client,
    database: Database,
    capfd: pytest.CaptureFixture[str],
    body: Any,
    field: str,
) -> None:
    refused = client.put(f"{SECRETS}/token", json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert "stdin" not in refused.text
    assert VALUE not in refused.text
    half = f'{{"value": "{VALUE}\\ud800"}}'.encode()
    broken = f'{{"value": "{VALUE}'.encode()
    for content in (half, broken):
        headers = {"Content-Type": "application/json"}
        refused = client.put(f"{SECRETS}/token", content=content, headers=headers)
        assert refused.status_code == 422
        assert VALUE not in refused.text
    assert client.get(SECRETS).json()["items"] == []
    said = capfd.readouterr()
    assert VALUE not in said.out + said.err + stored(database)


@pytest.fixture
def logged() -> Iterator[None]:
    """Log as a process of ours does; by default structlog shows the variables of each frame."""
    before = structlog.get_config()
    log.configure()
    structlog.configure(cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("logged")
def test_a_fault_of_ours_does_not_log_the_value(
    client: httpx.Client,
    database: Database,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with database.write("test") as tx:
        tx.run("DROP TABLE secret_uses")
    broken = client.put(f"{SECRETS}/token", json={"value": VALUE})
    assert broken.status_code >= 500
    said = capfd.readouterr()
    assert "request.failed" in said.out + said.err
    assert VALUE not in said.out + said.err + broken.text


def test_who_deletes_a_secret_is_told_who_still_names_it(
    client: httpx.Client, database: Database
) -> None:
    client.put(f"{SECRETS}/token", json={"value": VALUE})
    with database.write("test") as tx:
        lease = insert_lease(tx, status="idle")["id"]
        tx.run(
            "INSERT INTO secret_uses (lease_id, tenant_id, name, version)"
            " VALUES (:lease, 'default', 'token', 1)",
            lease=lease,
        )
    gone = client.delete(f"{SECRETS}/token").json()
    assert (gone["deleted"], gone["leases"], gone["lease_ids"]) == (True, 1, [lease])
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM secret_versions") == 1, "the lease needs it"
    again = client.delete(f"{SECRETS}/token")
    assert again.status_code == 404
    assert client.put(f"{SECRETS}/token", json={"value": VALUE}).json()["version"] == 2


def test_the_same_name_in_another_tenant_is_another_secret(
    client: httpx.Client, service: Service, database: Database
) -> None:
    client.put(f"{SECRETS}/token", json={"value": VALUE})
    with client_of(service, make_key(database, tenant="other")) as other:
        assert other.get(f"{SECRETS}/token").status_code == 404
        assert other.put(f"{SECRETS}/token", json={"value": "theirs"}).json()["version"] == 1
        assert other.delete(f"{SECRETS}/token").status_code == 200
    assert client.get(f"{SECRETS}/token").json()["version"] == 1


def test_root_encrypts_everything_anew_and_sees_nothing_of_it(
    service: Service, client: httpx.Client, database: Database, settings: Settings
) -> None:
    client.put(f"{SECRETS}/token", json={"value": VALUE})
    path = settings.secret_keys_path
    path.write_text(f"{new_key()}\n{path.read_text()}")
    with client_of(service, make_key(database, Role.ROOT, tenant=PLATFORM)) as root:
        turned = root.post(f"{SECRETS}/rotate").json()
        assert turned == {"key": Keys.load(path).first, "encrypted_anew": 1}
        assert root.post(f"{SECRETS}/rotate").json()["encrypted_anew"] == 0
    assert client.get(f"{SECRETS}/token").json()["key"] == turned["key"]
    assert client.get(f"{SECRETS}/token").json()["version"] == 1
    with database.read() as tx:
        (event,) = tx.all("SELECT * FROM events WHERE name = 'secrets.encrypted_anew'")
    assert event["tenant_id"] == PLATFORM
    assert '"actor"' in event["data"]


def test_without_keys_nothing_is_kept_and_no_path_is_told(
    settings: Settings, database: Database
) -> None:
    settings.secret_keys_path.unlink()
    with serving(settings) as service, client_of(service, make_key(database)) as client:
        refused = client.put(f"{SECRETS}/token", json={"value": VALUE})
        assert refused.status_code == 409
        assert "LEASEHOLD_SECRET_KEYS_FILE" in refused.json()["message"]
        assert str(settings.home) not in refused.text
        assert client.get(SECRETS).json()["items"] == []
