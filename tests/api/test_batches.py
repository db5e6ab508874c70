"""Many runs in one request: one answer for each, in order, for the price of a few."""

from typing import Any, Final

import httpx
import pytest

from api.test_runs import BODY, refused
from leasehold import bootstrap
from leasehold.api.envelope import MAX_BODY_BYTES
from leasehold.domain.specs import RunSpec
from leasehold.maintenance import clock
from leasehold.orchestrator import batching, submit
from leasehold.orchestrator.jobs import Message
from leasehold.settings import Settings
from leasehold.store.database import Database

BATCH: Final = "/api/v1/runs/batch"
SPEC: Final = RunSpec.model_validate({"commands": [{"argv": ["true"]}]})


def asked(client: httpx.Client, *items: Any) -> Any:
    answer = client.post(BATCH, json={"runs": items})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_each_item_has_its_answer_and_none_spoils_the_others(client: httpx.Client) -> None:
    first = client.post("/api/v1/runs", json=BODY, headers={"Idempotency-Key": "old"}).json()
    answer = asked(
        client,
        BODY | {"labels": {"n": "0"}},
        BODY | {"key": "old"},
        BODY | {"key": "new"},
        BODY | {"key": "new"},
        BODY | {"key": "new", "priority": 9},
        BODY | {"environment": "nowhere"},
        BODY | {"timeout_s": "soon"},
        BODY | {"lease_id": "none", "environment": None},
        BODY | {"lease_id": "none"},
        {"commands": BODY["commands"]},
        "no run",
        BODY | {"key": "a b"},
    )
    items = answer["items"]
    outcomes = [item["outcome"] for item in items]
    assert outcomes[:4] == ["created", "existing", "created", "existing"]
    assert set(outcomes[4:]) == {"refused"}
    assert (answer["created"], answer["existing"], answer["refused"]) == (2, 2, 8)
    assert items[0]["run"]["labels"] == {"n": "0"}
    assert items[1]["run"]["id"] == first["id"]
    assert items[3]["run"]["id"] == items[2]["run"]["id"]
    assert items[2]["run"]["key"] == "new"
    problems = [(item["error"]["code"], item["error"]["field"]) for item in items[4:]]
    assert problems == [
        ("idempotency_conflict", None),
        ("environment_missing", None),
        ("bad_input", "timeout_s"),
        ("not_found", None),
        ("bad_input", "lease_id"),
        ("provider_missing", "provider"),
        ("bad_input", None),
        ("bad_input", "key"),
    ]
    assert "there are: place" in items[5]["error"]["message"]
    assert len(client.get("/api/v1/runs").json()["items"]) == 3


def test_the_same_batch_again_makes_nothing_new_and_keeps_the_order(
    client: httpx.Client,
) -> None:
    items = [BODY | {"key": f"k{n}", "labels": {"n": str(n)}} for n in range(250)]
    first, again = asked(client, *items), asked(client, *items)
    assert (first["created"], again["existing"]) == (250, 250)
    ids = [item["run"]["id"] for item in first["items"]]
    assert [item["run"]["id"] for item in again["items"]] == ids
    assert [item["run"]["labels"]["n"] for item in first["items"]] == list(map(str, range(250)))
    shown = client.get("/api/v1/runs", params={"limit": 500}).json()["items"]
    assert [item["id"] for item in shown] == ids[::-1]
    history = client.get(f"/api/v1/runs/{ids[-1]}/events").json()["items"]
    assert history[0]["name"] == "run.queued"
    assert history[0]["data"]["actor"].startswith("key:")


def test_a_full_queue_refuses_the_items_that_it_has_no_room_for(
    settings: Settings, database: Database
) -> None:
    app = bootstrap.build(settings.model_copy(update={"max_queued": 3}))
    with app.database.write("test") as tx:
        made = submit_many(tx, app, [request() for _ in range(5)])
    app.database.close()
    assert [one.outcome.value for one in made] == ["created"] * 3 + ["refused"] * 2
    assert made[-1].error is not None
    assert "3 runs wait already" in str(made[-1].error)


def request(**changes: Any) -> submit.Request:
    return submit.Request(spec=SPEC, environment="place", **changes)


def submit_many(
    tx: Any,
    app: bootstrap.App,
    requests: list[submit.Request],
    sent: list[Message] | None = None,
) -> list[batching.Answer]:
    def publish(message: Message) -> bool:
        if sent is not None:
            sent.append(message)
        return False

    context = app.context(publish=publish)
    return batching.submit_batch(tx, context, requests, tenant_id="default")


def test_a_hundred_more_runs_cost_three_statements_more(
    settings: Settings, database: Database
) -> None:
    app = bootstrap.build(settings, database=database)
    counts = []
    for number in (10, 200, 1000):
        requests = [request(key=f"{number}-{n}") for n in range(number)]
        with database.write("test") as tx:
            submit_many(tx, app, requests)
        counts.append(tx.statements)
    # The first batch is admitted as far as there is room; the others all wait behind it.
    few, many = counts[1:]
    # Of a hundred: their keys are looked for, they and their history are written.
    assert many - few == (1000 - 200) // 100 * 3
    assert few <= 2 * 3 + 12


def test_what_may_start_is_sent_after_the_commit_and_the_clock_finds_the_rest(
    settings: Settings, database: Database
) -> None:
    app = bootstrap.build(settings, database=database)
    sent: list[Message] = []
    with database.write("test") as tx:
        made = submit_many(tx, app, [request() for _ in range(30)], sent)
        assert not sent
    # The worker of these tests has room for four; their messages are lost.
    assert [message.id for message in sent] == [one.run_id for one in made[:4]]
    with database.write("test") as tx:
        tx.run("UPDATE runs SET due_at = {now} WHERE due_at IS NOT NULL")
    found: list[Message] = []
    clock.run_once(app.context(publish=found.append), batch=100)
    assert {message.id for message in found} == {message.id for message in sent}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_batch_is_bounded(client: httpx.Client) -> None:
    assert asked(client, *[BODY] * 1000)["created"] == 1000
    for items in ([], [BODY] * 1001):
        answer = client.post(BATCH, json={"runs": items})
        assert refused(answer, 422, "bad_input")["field"] == "runs"
    assert len(client.get("/api/v1/runs", params={"limit": 500}).json()["items"]) == 500
    big = {"runs": [{"commands": [{"argv": ["x" * MAX_BODY_BYTES]}]}]}
    refused(client.post(BATCH, json=big), 413, "too_large")
