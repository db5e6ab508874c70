"""``/webhooks`` over HTTP: who sees what of them, pages of deliveries, what is refused."""

from typing import Any

import httpx
import pytest

from api.served import client_of, make_key
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store.database import Database
from store.rows import insert_delivery

WHERE = "/api/v1/webhooks"
BODY = {"name": "ci", "url": "https://ci.example.org:8443/hooks/7f3", "statuses": ["failed"]}


def test_the_secret_is_told_once_and_the_path_to_admins_only(
    client: httpx.Client, service: Service, database: Database
) -> None:
    made = client.post(WHERE, json=BODY)
    assert made.status_code == 201, made.text
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    shown = client.get(made.headers["Location"])
    assert shown.json()["url"] == BODY["url"]
    assert secret not in shown.text
    assert client.post(WHERE, json=BODY).status_code == 409
    with client_of(service, make_key(database, Role.OPERATOR)) as operator:
        for answer in (operator.get(WHERE), operator.get(f"{WHERE}/ci")):
            assert "https://ci.example.org:8443" in answer.text
            assert "7f3" not in answer.text
    again = client.post(f"{WHERE}/ci/secret").json()
    assert again["secret"] != secret


def test_deliveries_come_in_pages_and_by_status(
    client: httpx.Client, database: Database
) -> None:
    client.post(WHERE, json=BODY)
    with database.write("test") as tx:
        hook = tx.one("SELECT * FROM webhooks")
        assert hook is not None
        for n in range(5):
            over = {"status": "failed", "next_at": None, "finished_at": 1} if n % 2 else {}
            insert_delivery(tx, hook, id=f"{hook['id']}.r{n}", run_id=f"r{n}", **over)
    found, cursor = [], None
    while True:
        asked = {"limit": 2, "cursor": cursor} if cursor else {"limit": 2}
        page = client.get(f"{WHERE}/ci/deliveries", params=asked).json()
        found += [row["run_id"] for row in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(found) == ["r0", "r1", "r2", "r3", "r4"]
    failed = client.get(f"{WHERE}/ci/deliveries", params={"status": "failed"}).json()["items"]
    assert {row["run_id"] for row in failed} == {"r1", "r3"}
    assert client.get(f"{WHERE}/ci").json()["waiting"] == 3
    where = f"{WHERE}/ci/deliveries/{failed[0]['id']}/redeliver"
    assert client.post(where).json()["status"] == "pending"
    assert client.post(where).status_code == 409


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": "ftp://example.org/"}, "url"),
        ({"url": "https://me:word@example.org/"}, "url"),
        ({"statuses": ["running"]}, "statuses"),
        ({"statuses": []}, "statuses"),
        ({"labels": {}}, "labels"),
        ({"secret": "mine"}, "secret"),
        ({"name": "no name"}, "name"),
    ],
)
def test_what_is_no_webhook_is_refused_by_its_field(
    client: httpx.Client, changes: dict[str, Any], field: str
) -> None:
    answer = client.post(WHERE, json=BODY | changes)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert "word" not in answer.text
    assert client.get(WHERE).json()["items"] == []
