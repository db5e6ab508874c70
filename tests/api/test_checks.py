"""Configs over HTTP: what a worker's provider says of them, and the ways in which none can."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from answering import answering, pliant
from api.served import client_of, make_key, serving
from command_line import environment, serve
from leasehold import settings as knobs
from leasehold.store.database import Database
from store.rows import insert_worker

WHERE = "/api/v1/environments"
LOOSE = {"type": "object", "properties": {"image": {"type": "string"}}}
STRICT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "maxLength": 5, "default": "base"},
        "size": {"type": "integer", "maximum": 3},
    },
}
LAB = {"name": "lab", "provider": "fake"}


@pytest.fixture
def deployment(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[httpx.Client]:
    """A served deployment whose worker advertises a loose schema; nobody answers yet."""
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LEASEHOLD_DATABASE_URL", database_url)
    monkeypatch.setenv("LEASEHOLD_API_REQUESTS_PER_S", "0")
    with database.write("test") as tx:
        serve(tx, key="fake", host_id=insert_worker(tx)["host_id"], schema=LOOSE)
        environment(tx, "place")
    with serving(knobs.load()) as service, client_of(service, make_key(database)) as client:
        yield client


@pytest.fixture
def client(
    deployment: httpx.Client, database_url: str, tmp_path: Path
) -> Iterator[httpx.Client]:
    """The same, and its provider is stricter than the schema, and warns."""
    root = tmp_path / "answers"
    provider = pliant(root / "fake", STRICT, "image: base is old")
    with answering(database_url, root, providers={"fake": provider}):
        yield deployment


def test_the_provider_has_the_last_word_and_names_every_field(client: httpx.Client) -> None:
    config = {"image": "too-long", "size": 9}
    answer = client.post(WHERE, json=LAB | {"config": config})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert (problem["code"], problem["field"]) == ("config_refused", "config.image")
    fields = [one["field"] for one in problem["details"]["problems"]]
    assert fields == ["config.image", "config.size"]
    assert problem["details"]["warnings"] == ["image: base is old"]
    assert "too-long" not in answer.text
    assert client.get(f"{WHERE}/lab").status_code == 404


def test_what_is_taken_comes_back_as_the_provider_understands_it(client: httpx.Client) -> None:
    made = client.post(WHERE, json=LAB | {"config": {"size": 1}})
    assert made.status_code == 201, made.text
    assert made.json()["normalized_config"] == {"image": "base", "size": 1}
    assert made.json()["warnings"] == ["image: base is old"]
    shown = client.get(f"{WHERE}/lab").json()
    assert shown["config"] == {"size": 1}
    assert shown["checked"]["by"] == "worker-1"
    assert shown["checked"]["warnings"] == ["image: base is old"]


def test_a_change_is_checked_if_the_place_is_another_one(
    client: httpx.Client, database: Database
) -> None:
    assert client.post(WHERE, json=LAB).status_code == 201
    before = client.get(f"{WHERE}/lab").json()["checked"]
    answer = client.patch(f"{WHERE}/lab", json={"description": "quiet", "env": {"A": "1"}})
    assert answer.status_code == 200, answer.text
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM config_checks") == 1
    assert client.get(f"{WHERE}/lab").json()["checked"] == before
    refused = client.patch(f"{WHERE}/lab", json={"config": {"size": 9}})
    assert (refused.status_code, refused.json()["field"]) == (422, "config.size")
    changed = client.patch(f"{WHERE}/lab", json={"config": {"size": 2}})
    assert changed.json()["normalized_config"] == {"image": "base", "size": 2}
    assert changed.json()["checked"]["at"] > before["at"]


def test_a_name_that_is_taken_is_said_before_anybody_is_asked(
    client: httpx.Client, database: Database
) -> None:
    assert client.post(WHERE, json=LAB | {"name": "place"}).status_code == 409
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM config_checks") == 0


def quick(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post(WHERE, json=LAB | changes, params={"wait_s": 0.4})


def test_missing_not_ready_and_no_worker_are_three_answers(
    client: httpx.Client, database: Database
) -> None:
    missing = quick(client, provider="dockr")
    assert (missing.status_code, missing.json()["code"]) == (422, "provider_missing")
    assert "there are: fake" in missing.json()["message"]
    with database.write("test") as tx:
        tx.run("UPDATE providers SET health = 'unhealthy', summary = 'its engine is away'")
    ill = quick(client)
    assert (ill.status_code, ill.json()["code"]) == (503, "provider_not_ready")
    assert "its engine is away" in ill.json()["message"]
    assert int(ill.headers["Retry-After"]) > 0
    with database.write("test") as tx:
        tx.run("UPDATE providers SET health = 'healthy'")
        tx.run("UPDATE workers SET status = 'starting'")
    early = quick(client)
    assert (early.status_code, early.json()["code"]) == (503, "provider_not_ready")
    assert "workers are starting" in early.json()["message"]
    with database.write("test") as tx:
        tx.run("UPDATE workers SET status = 'gone', gone_at = started_at")
        tx.run("UPDATE sessions SET status = 'expired', ended_at = started_at")
    nobody = quick(client)
    assert (nobody.status_code, nobody.json()["code"]) == (409, "no_worker")
    assert "it was served on here" in nobody.json()["message"]


def test_who_waits_gets_the_answer_of_a_worker_that_becomes_ready(
    client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        tx.run("UPDATE providers SET health = 'unhealthy'")

    def mend() -> None:
        with database.write("test") as tx:
            tx.run("UPDATE providers SET health = 'healthy'")

    later = threading.Timer(0.5, mend)
    later.start()
    made = client.post(WHERE, json=LAB, params={"wait_s": 30})
    later.join()
    assert made.status_code == 201, made.text


def test_without_an_answer_in_time_it_is_said_whether_anybody_is_at_it(
    deployment: httpx.Client, database: Database
) -> None:
    late = quick(deployment)
    assert (late.status_code, late.json()["code"]) == (504, "check_timeout")
    assert "no worker has taken it" in late.json()["message"]
    assert deployment.get(f"{WHERE}/lab").status_code == 404


def test_unchecked_asks_nobody_and_says_so_for_good(
    deployment: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        tx.run("UPDATE workers SET status = 'gone', gone_at = started_at")
        tx.run("UPDATE sessions SET status = 'expired', ended_at = started_at")
    body = LAB | {"config": {"image": "anything"}}
    made = deployment.post(WHERE, json=body, params={"unchecked": "true"})
    assert made.status_code == 201, made.text
    assert made.json()["checked"]["by"] is None
    assert "no worker was asked" in made.json()["checked"]["why"]
    lines = deployment.get("/api/v1/activity", params={"noun": "environment"}).json()["items"]
    assert "no worker was asked" in lines[0]["data"]["unchecked"]
    # What stands in the schema holds all the same, and an unknown provider stays unknown.
    wrong = deployment.post(
        WHERE, json=LAB | {"config": {"image": 1}}, params={"unchecked": "true"}
    )
    assert wrong.status_code in {409, 422}
    unknown = LAB | {"name": "x", "provider": "dockr"}
    assert deployment.post(WHERE, json=unknown, params={"unchecked": "1"}).status_code == 422
