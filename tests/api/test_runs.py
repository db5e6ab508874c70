"""Runs over HTTP: created once, listed in stable pages, ended, tried again."""

from typing import Any, Final

import httpx
import pytest

from api.served import client_of, make_key
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store.database import Database
from store.rows import insert_lease, insert_run

RUNS = "/api/v1/runs"
BODY: dict[str, Any] = {"environment": "place", "commands": [{"argv": ["echo", "hi"]}]}


SQLITE = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
"""For what never comes to a database."""


def created(client: httpx.Client, **changes: Any) -> Any:
    answer = client.post(RUNS, json=BODY | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int, code: str) -> Any:
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert set(problem) == {"code", "message", "field", "request_id", "details"}
    assert problem["code"] == code
    return problem


def test_a_run_is_created_where_it_says_and_history_names_who_asked(
    client: httpx.Client,
) -> None:
    answer = client.post(RUNS, json=BODY | {"labels": {"team": "a"}, "timeout_s": "10m"})
    assert answer.status_code == 201
    made = answer.json()
    shown = client.get(answer.headers["Location"]).json()
    assert shown["id"] == made["id"]
    assert shown["environment"] == "place"
    assert shown["labels"] == {"team": "a"}
    assert shown["commands"] == [{"argv": ["echo", "hi"], "cwd": None}]
    assert shown["events"][0]["name"] == "run.queued"
    assert shown["events"][0]["data"]["actor"].startswith("key:")


def test_the_same_key_is_the_same_run_and_another_body_a_conflict(
    client: httpx.Client,
) -> None:
    headers = {"Idempotency-Key": "deploy-7"}
    first = client.post(RUNS, json=BODY, headers=headers)
    again = client.post(RUNS, json=BODY, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["Location"] == first.headers["Location"]
    other = client.post(RUNS, json=BODY | {"priority": 9}, headers=headers)
    refused(other, 409, "idempotency_conflict")
    assert len(client.get(RUNS).json()["items"]) == 1


NO_KEYS: Final = ["", "a b", "x" * 256, "\xe9"]


@SQLITE
def test_a_key_that_is_none_is_refused(client: httpx.Client) -> None:
    for key in NO_KEYS:
        headers = {b"Idempotency-Key": key.encode("latin-1")}
        answer = client.post(RUNS, json=BODY, headers=headers)
        assert refused(answer, 422, "bad_input")["field"] == "Idempotency-Key"


WRONG_FIELDS: Final[list[tuple[Any, str, str]]] = [
    ({"commands": []}, "commands", "at least 1 item"),
    ({"commands": [{"argv": []}]}, "commands.0.argv", "at least 1 item"),
    ({"commands": [{"argv": [""]}]}, "commands.0.argv.0", "name is empty"),
    ({"commands": [{"argv": ["a\0"]}]}, "commands.0.argv.0", "NUL"),
    (
        {"commands": [{"argv": ["a"], "shell": True}]},
        "commands.0.shell",
        "allowed here: argv",
    ),
    ({"comands": []}, "comands", "there is no such field; allowed here: artifacts"),
    ({"timeout_s": "soon"}, "timeout_s", "must be seconds or a duration"),
    ({"env": {"LD_PRELOAD": "x"}}, "env.LD_PRELOAD", ""),
    ({"priority": "high"}, "priority", "(got str)"),
    ({"environment": "a/b"}, "environment", ""),
    ({"environment": None, "lease_id": "l", "env": 3}, "env", "(got int)"),
    ({"lease_id": "l"}, "lease_id", "give it or an environment"),
    ({"tree": {"git": "https://u:p@h/r"}}, "tree.git", "put them into a secret"),
    ({"workspace": "https://token@h/r"}, "workspace", "put them into a secret"),
]


@SQLITE
def test_a_wrong_field_is_named_with_what_is_allowed(client: httpx.Client) -> None:
    for changes, field, words in WRONG_FIELDS:
        problem = refused(client.post(RUNS, json=BODY | changes), 422, "bad_input")
        assert problem["field"] == field
        assert words in problem["message"]


@SQLITE
def test_halves_of_characters_are_refused(client: httpx.Client) -> None:
    for body in (
        b'{"environment":"place","commands":[{"argv":["a\\ud800"]}]}',
        b'{"environment":"place","commands":[{"argv":["a"]}],"workspace":"\\ud800"}',
        b'{"environment":"place","commands":[{"argv":["a"]}],"labels":{"a":"\\ud800"}}',
    ):
        answer = client.post(RUNS, content=body, headers={"Content-Type": "application/json"})
        assert "half of one came" in refused(answer, 422, "bad_input")["message"]


def test_a_run_without_a_place_goes_where_the_default_is_or_says_what_is_missing(
    client: httpx.Client,
) -> None:
    body = {"commands": [{"argv": ["true"]}]}
    problem = refused(client.post(RUNS, json=body), 422, "bad_input")
    assert "there is no provider 'local'; there are: fake" in problem["message"]


def test_a_run_to_start_after_is_one_of_the_tenants(
    client: httpx.Client, service: Service, database: Database
) -> None:
    first = created(client)
    second = created(
        client,
        after=[
            {"run": first["id"]},
        ],
    )
    assert (second["status"], second["waits_for"]) == ("queued", 1)
    shown = client.get(f"{RUNS}/{second['id']}").json()
    assert shown["after"] == [{"run": first["id"], "outcome": "succeeded", "status": "running"}]
    (queued,) = (e for e in shown["events"] if e["name"] == "run.queued")
    assert queued["data"]["after"] == [{"run": first["id"], "outcome": "succeeded"}]
    with database.write("test") as tx:
        tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 1)")
        foreign = insert_run(tx, tenant_id="other")["id"]
    for run in (foreign, "nothing"):
        answer = client.post(RUNS, json=BODY | {"after": [{"run": run}]})
        assert run in refused(answer, 404, "not_found")["message"]
        batch = client.post(f"{RUNS}/batch", json={"runs": [BODY | {"after": [run]}, BODY]})
        one, other = batch.json()["items"]
        assert (one["error"]["code"], other["outcome"]) == ("not_found", "created")
    many = [{"run": f"r{n}"} for n in range(101)]
    problem = refused(client.post(RUNS, json=BODY | {"after": many}), 422, "bad_input")
    assert problem["field"] == "after"


def test_a_place_of_another_tenant_is_not_there(
    client: httpx.Client, service: Service, database: Database
) -> None:
    key = make_key(database, tenant="other")
    with database.write("test") as tx:
        lease = insert_lease(tx, status="idle")
        place = tx.value("SELECT id FROM environments WHERE name = 'place'")
    with client_of(service, key) as other:
        for where in ({"environment": "place"}, {"environment": place}):
            refused(other.post(RUNS, json=BODY | where), 404, "not_found")
        body = {"commands": BODY["commands"], "lease_id": lease["id"]}
        refused(other.post(RUNS, json=body), 404, "not_found")
        # A key of idempotency is the tenant's own.
        headers = {"Idempotency-Key": "k"}
        assert client.post(RUNS, json=BODY, headers=headers).status_code == 201
        refused(other.post(RUNS, json=BODY, headers=headers), 404, "not_found")


def test_pages_are_stable_while_runs_come(client: httpx.Client) -> None:
    made = [created(client)["id"] for _ in range(5)]
    first = client.get(RUNS, params={"limit": 2}).json()
    newer = created(client)["id"]
    second = client.get(RUNS, params={"limit": 2, "cursor": first["next"]}).json()
    third = client.get(RUNS, params={"limit": 2, "cursor": second["next"]}).json()
    seen = [item["id"] for page in (first, second, third) for item in page["items"]]
    assert seen == made[::-1]
    assert third["next"] is None
    assert client.get(RUNS).json()["items"][0]["id"] == newer


def test_runs_of_one_moment_are_on_one_page_each(
    client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        rows = {insert_run(tx, status="failed", created_at=7)["id"] for _ in range(5)}
    seen: list[str] = []
    page = client.get(RUNS, params={"limit": 2}).json()
    while True:
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        page = client.get(RUNS, params={"limit": 2, "cursor": page["next"]}).json()
    assert len(seen) == 5
    assert set(seen) == rows


def test_runs_are_found_by_status_environment_and_labels(client: httpx.Client) -> None:
    first = created(client, labels={"team": "a", "x.y": "1=2"})["id"]
    second = created(client, labels={"team": "b"})["id"]
    client.post(f"{RUNS}/{second}/cancel")

    def found(**params: Any) -> list[str]:
        return [item["id"] for item in client.get(RUNS, params=params).json()["items"]]

    assert found(label="team=a") == [first]
    assert found(label=["team=a", "x.y=1=2"]) == [first]
    assert found(label=["team=a", "x.y=1"]) == []
    assert found(environment="place") == [second, first]
    assert found(environment="elsewhere") == []
    assert second not in found(status=["queued", "running"])


WRONG_FILTERS: Final[list[tuple[Any, str]]] = [
    ({"limit": 0}, "limit"),
    ({"limit": 501}, "limit"),
    ({"colour": "red"}, "colour"),
    ({"status": "broken"}, "status.0"),
    ({"label": "team"}, "label"),
    ({"label": "a\0=b"}, "label.0"),
    ({"environment": "\0"}, "environment"),
    ({"cursor": "nonsense"}, "cursor"),
    ({"cursor": "W10"}, "cursor"),
    ({"cursor": "WzEsMl0"}, "cursor"),
    ({"cursor": "\xe9"}, "cursor"),
]


@SQLITE
def test_a_wrong_filter_is_named(client: httpx.Client) -> None:
    for params, field in WRONG_FILTERS:
        assert refused(client.get(RUNS, params=params), 422, "bad_input")["field"] == field


NO_IDS: Final = ["%00", "a%20b", "a%ff", "-", "x" * 101]


@SQLITE
def test_an_id_that_can_be_none_is_refused(client: httpx.Client) -> None:
    for name in NO_IDS:
        assert refused(client.get(f"{RUNS}/{name}"), 422, "bad_input")["field"] == "run_id"


def test_events_come_in_order_and_go_on_where_one_stopped(client: httpx.Client) -> None:
    run = created(client)["id"]
    client.post(f"{RUNS}/{run}/cancel")
    every = client.get(f"{RUNS}/{run}/events").json()
    names = [event["name"] for event in every["items"]]
    assert names[0] == "run.queued"
    assert "run.end_requested" in names
    first = client.get(f"{RUNS}/{run}/events", params={"limit": 1}).json()
    rest = client.get(f"{RUNS}/{run}/events", params={"after": first["next"]}).json()
    assert first["items"] + rest["items"] == every["items"]
    done = client.get(f"{RUNS}/{run}/events", params={"after": every["next"]}).json()
    assert done == {"items": [], "next": None}


def test_a_cancelled_run_says_who_wanted_it_and_cancelling_it_again_changes_nothing(
    client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        run = insert_run(tx, status="queued")["id"]
    ended = client.post(f"{RUNS}/{run}/cancel").json()
    assert ended["status"] == "cancelled"
    assert client.post(f"{RUNS}/{run}/cancel").json() == ended
    asked = [e for e in ended["events"] if e["name"] == "run.end_requested"]
    assert asked[0]["data"]["actor"].startswith("key:")


def test_an_ended_run_is_tried_again_as_a_new_one(client: httpx.Client) -> None:
    run = created(client)["id"]
    refused(client.post(f"{RUNS}/{run}/retry"), 409, "conflict")
    refused(client.post(f"{RUNS}/{run}/resume"), 409, "conflict")
    client.post(f"{RUNS}/{run}/cancel")
    headers = {"Idempotency-Key": "again"}
    new = client.post(f"{RUNS}/{run}/retry", headers=headers)
    assert new.status_code == 201
    assert new.json()["retry_of"] == run
    same = client.post(f"{RUNS}/{run}/retry", headers=headers)
    assert (same.status_code, same.json()["id"]) == (200, new.json()["id"])


@SQLITE
def test_a_full_queue_says_when_to_come_again(
    service: Service, database: Database, client: httpx.Client
) -> None:
    service.application.state.door.context.max_queued = 0
    answer = client.post(RUNS, json=BODY)
    assert refused(answer, 429, "full")["details"] == {"retry_after_s": 5.0}
    assert answer.headers["Retry-After"] == "5"


@SQLITE
def test_a_viewer_is_told_which_role_is_needed(service: Service, database: Database) -> None:
    with client_of(service, make_key(database, Role.VIEWER)) as viewer:
        problem = refused(viewer.post(RUNS, json=BODY), 403, "forbidden")
    assert problem["message"] == "this key has the role viewer; this needs at least operator"
