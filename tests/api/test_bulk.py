"""Many runs by a filter: seen first, then changed page by page, and none of them twice."""

from typing import Any, Final

import httpx
import pytest

from api.served import client_of, make_key
from api.test_runs import BODY, RUNS, created, refused
from leasehold.api.serving import Service
from leasehold.store.database import Database
from store.rows import insert_run

BULK: Final = f"{RUNS}/bulk"


def asked(client: httpx.Client, action: str, **body: Any) -> Any:
    answer = client.post(BULK, json={"action": action, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def statuses(client: httpx.Client) -> dict[str, str]:
    items = client.get(RUNS, params={"limit": 500}).json()["items"]
    return {item["id"]: item["status"] for item in items}


def failed(database: Database, count: int, **changes: Any) -> list[str]:
    with database.write("test") as tx:
        place = tx.value("SELECT id FROM environments WHERE name = 'place'")
        rows = [
            insert_run(tx, status="failed", environment_id=place, **changes)
            for _ in range(count)
        ]
    return [row["id"] for row in rows]


def test_a_preview_counts_and_changes_nothing(client: httpx.Client, database: Database) -> None:
    made = [created(client, labels={"team": "a"})["id"] for _ in range(3)]
    created(client, labels={"team": "b"})
    failed(database, 1, labels={"team": "a"})
    before = statuses(client)
    seen = asked(client, "cancel", filter={"label": ["team=a"]}, dry_run=True)
    assert (seen["count"], seen["more"], seen["ids"]) == (3, False, made[::-1])
    assert seen["mark"]
    nothing = {"count": 0, "more": False, "ids": [], "mark": None}
    # What is over cannot be cancelled, and what is live not retried.
    over = {"status": ["failed"], "label": ["team=a"]}
    assert asked(client, "cancel", filter=over, dry_run=True) == nothing
    live = {"status": ["queued", "running"]}
    assert asked(client, "retry", filter=live, dry_run=True) == nothing
    assert asked(client, "cancel", filter={"environment": "none"}, dry_run=True) == nothing
    assert statuses(client) == before


def test_it_goes_on_from_mark_to_mark_and_leaves_alone_what_came_later(
    client: httpx.Client,
) -> None:
    made = [created(client)["id"] for _ in range(7)]
    mark = asked(client, "cancel", dry_run=True)["mark"]
    later = created(client)["id"]
    done: list[str] = []
    requests = 0
    while mark is not None:
        answer = asked(client, "cancel", mark=mark, limit=3)
        assert answer["refused"] == 0
        done += [item["id"] for item in answer["items"]]
        mark, requests = answer["mark"], requests + 1
    assert (done, requests) == (made[::-1], 3)
    found = statuses(client)
    assert {found.pop(run) for run in made} == {"cancelled"}
    assert found[later] in {"queued", "running"}
    events = client.get(f"{RUNS}/{made[0]}/events").json()["items"]
    (line,) = [event for event in events if event["name"] == "run.end_requested"]
    assert line["data"]["actor"].startswith("key:")


def test_the_same_mark_again_retries_nothing_twice(
    client: httpx.Client, database: Database
) -> None:
    old = failed(database, 3)
    body = {"filter": {"environment": "place"}}
    mark = asked(client, "retry", **body, dry_run=True)["mark"]
    first, again = (asked(client, "retry", **body, mark=mark) for _ in range(2))
    assert first == again
    assert [item["id"] for item in first["items"]] == old[::-1]
    assert (first["done"], first["mark"]) == (3, None)
    assert len(statuses(client)) == 6
    for item in first["items"]:
        assert client.get(f"{RUNS}/{item['run_id']}").json()["retry_of"] == item["id"]
    # Another preview is another wish.
    anew = asked(client, "retry", **body, dry_run=True)
    assert anew["count"] == 3
    asked(client, "retry", **body, mark=anew["mark"])
    assert len(statuses(client)) == 9


def test_one_that_cannot_be_done_is_its_own_answer(
    client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        lost = insert_run(tx, status="failed", environment_id="gone")["id"]
    (fine,) = failed(database, 1)
    mark = asked(client, "retry", dry_run=True)["mark"]
    answer = asked(client, "retry", mark=mark)
    assert (answer["done"], answer["refused"]) == (1, 1)
    by_id = {item["id"]: item for item in answer["items"]}
    assert by_id[fine]["outcome"] == "done"
    assert by_id[lost]["error"]["code"] == "environment_missing"


def test_what_succeeded_is_retried_only_when_it_is_named(
    client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        insert_run(tx, status="succeeded")
    assert asked(client, "retry", dry_run=True)["count"] == 0
    named = asked(client, "retry", filter={"status": ["succeeded"]}, dry_run=True)
    assert named["count"] == 1


def test_a_mark_is_of_one_action_and_one_filter(
    client: httpx.Client, service: Service, database: Database
) -> None:
    created(client)
    mark = asked(client, "cancel", dry_run=True)["mark"]
    for body in (
        {"action": "retry", "mark": mark},
        {"action": "cancel", "mark": mark, "filter": {"label": ["team=a"]}},
    ):
        assert (
            "dry_run again" in refused(client.post(BULK, json=body), 409, "conflict")["message"]
        )
    with client_of(service, make_key(database, tenant="other")) as other:
        refused(other.post(BULK, json={"action": "cancel", "mark": mark}), 409, "conflict")
    assert set(statuses(client).values()) <= {"queued", "running"}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_nothing_happens_without_a_mark(client: httpx.Client) -> None:
    created(client, **BODY)
    mark = asked(client, "cancel", dry_run=True)["mark"]
    for body, field in (
        ({}, "mark"),
        ({"mark": "x"}, "mark"),
        ({"mark": "WzFd"}, "mark"),
        ({"mark": mark, "dry_run": True}, "mark"),
        ({"mark": mark, "limit": 101}, "limit"),
        ({"dry_run": True, "filter": {"label": ["team"]}}, "label"),
        ({"dry_run": True, "filter": {"limit": 3}}, "filter.limit"),
        ({"dry_run": True, "action": "delete"}, "action"),
    ):
        answer = client.post(BULK, json={"action": "cancel", **body})
        assert refused(answer, 422, "bad_input")["field"] == field
    assert set(statuses(client).values()) <= {"queued", "running"}
