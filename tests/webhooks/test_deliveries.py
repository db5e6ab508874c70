"""What webhooks are owed and how they get it: filters, retries, rests, claims, secrets."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest

from leasehold.domain import webhooks as hooks
from leasehold.errors import ConflictError, NotFoundError
from leasehold.maintenance import clock, deliveries
from leasehold.orchestrator import hooking
from leasehold.outbound.posting import Reply
from leasehold.store import webhooks
from leasehold.store.database import Row
from webhooks.conftest import Answers, Post
from webhooks.receiver import receiving

OK = Reply(200)
BAD = Reply(500, "answered 500")
HOUR_US = 3_600_000_000


def test_the_end_of_a_run_is_owed_once_to_each_webhook_that_wants_it(post: Post) -> None:
    lab = post.environment("lab")
    wants: dict[str, dict[str, Any]] = {
        "all": {},
        "failures": {"statuses": ["failed", "timed_out"]},
        "lab": {"environment": "lab"},
        "red": {"labels": {"team": "red"}},
        "both": {"labels": {"team": "red", "tier": "1"}, "statuses": ["failed"]},
        "off": {"enabled": False},
    }
    ids = {post.hook(name=name, **spec)[0]["id"]: name for name, spec in wants.items()}
    told: dict[str, set[str]] = {}
    cases = {
        "plain": post.end(),
        "failed": post.end("failed", labels={"team": "blue"}),
        "in lab": post.end(environment_id=lab),
        "red": post.end("failed", labels={"team": "red", "tier": "2"}),
        "both": post.end("failed", labels={"team": "red", "tier": "1", "more": "x"}),
    }
    for name, run in cases.items():
        told[name] = {
            ids[row["webhook_id"]] for row in post.owed() if row["run_id"] == run["id"]
        }
    assert told == {
        "plain": {"all"},
        "failed": {"all", "failures"},
        "in lab": {"all", "lab"},
        "red": {"all", "failures", "red"},
        "both": {"all", "failures", "red", "both"},
    }
    before = post.owed()
    with post.database.write("test") as tx:
        webhooks.owe(tx, cases["both"], status="failed")
    assert post.owed() == before, "written twice it is there once"


def test_nobody_is_told_of_another_tenants_runs(post: Post) -> None:
    with post.database.write("test") as tx:
        tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 1)")
    post.hook(tenant_id="other")
    post.end()
    assert post.owed() == []
    post.end(tenant_id="other")
    (row,) = post.owed()
    assert row["tenant_id"] == "other"


def test_a_message_says_how_a_run_ended_and_nothing_of_what_it_did(post: Post) -> None:
    _, secret = post.hook()
    spec = {
        "commands": [{"argv": ["tool", "--hidden-argument"], "env": {"A": "hidden-value"}}],
        "env": {"B": "hidden-too"},
    }
    run = post.end("failed", spec=spec, code="command_failed", exit_code=3, labels={"a": "b"})
    receiver = Answers(OK)
    assert post.turn(receiver) == 1
    ((_, headers, body),) = receiver.got
    message = json.loads(body)
    assert {key: message[key] for key in ("version", "type")} == {
        "version": 1,
        "type": "run.failed",
    }
    assert message["timestamp"] == message["data"]["run"]["finished_at"]
    shown = message["data"]["run"]
    assert (shown["id"], shown["code"], shown["exit_code"]) == (run["id"], "command_failed", 3)
    assert shown["labels"] == {"a": "b"}
    assert b"hidden" not in body
    made = hooks.headers(
        [secret],
        message_id=headers["webhook-id"],
        timestamp_s=int(headers["webhook-timestamp"]),
        body=body,
    )
    assert made.items() <= headers.items()


def test_a_receiver_that_comes_round_gets_one_id_with_one_body(post: Post) -> None:
    with receiving(500, 404, (302, {"location": "/"}), 200) as receiver:
        post.hook(receiver.url)
        post.end()
        assert [post.turn(), post.turn()] == [1, 0], "a failure waits for its backoff"
        (row,) = post.owed()
        assert (row["attempts"], row["last_status"], row["last_error"]) == (
            1,
            500,
            "answered 500",
        )
        for _ in range(3):
            post.hurry()
            assert post.turn() == 1
        post.hurry()
        assert post.turn() == 0
        assert len({(got.headers["webhook-id"], got.body) for got in receiver.got}) == 1
        assert len(receiver.got) == 4
    (row,) = post.owed()
    assert (row["status"], row["attempts"], row["last_status"]) == ("delivered", 4, 200)
    assert row["last_error"] is None
    hook = post.shown()
    assert (hook["failures"], hook["rests_until"], hook["last_status"]) == (0, None, 200)


def test_waits_grow_have_jitter_and_a_cap_and_a_receiver_may_ask_for_more(post: Post) -> None:
    post.hook()
    post.end()
    waits = []
    for _ in range(14):
        post.turn(Answers(BAD))
        (row,) = post.owed()
        waits.append((row["next_at"] - row["last_at"]) / 1e6)
        post.hurry()
    assert 2.4 < waits[0] < 5.5
    assert all(one < 3605 for one in waits)
    assert waits[-1] > 1700
    assert waits[3] > waits[0]
    post.turn(Answers(Reply(503, "answered 503", retry_after_s=9e9)))
    (row,) = post.owed()
    assert 3590 < (row["next_at"] - row["last_at"]) / 1e6 < 3605, "but no more than the cap"


def test_what_is_too_old_is_given_up_and_can_be_sent_again_by_hand(post: Post) -> None:
    hook, _ = post.hook()
    run = post.end()
    post.turn(Answers(BAD))
    post.hurry()
    with post.database.write("test") as tx:
        tx.run("UPDATE webhook_deliveries SET owed_at = owed_at - :us", us=25 * HOUR_US)
    receiver = Answers(OK)
    assert post.turn(receiver) == 0
    (row,) = post.owed()
    assert (row["status"], row["last_error"], row["next_at"]) == (
        "failed",
        "answered 500",
        None,
    )
    assert post.events() == ["webhook.created", "webhook.gave_up"]
    with post.database.write("test") as tx:
        hooking.redeliver(tx, "hook", row["id"], tenant_id="default", actor="test")
    with pytest.raises(ConflictError, match="not over"), post.database.write("test") as tx:
        hooking.redeliver(tx, "hook", row["id"], tenant_id="default", actor="test")
    assert post.turn(receiver) == 1
    assert receiver.got[0][1]["webhook-id"] == row["id"] == f"{hook['id']}.{run['id']}"
    with post.database.write("test") as tx, pytest.raises(NotFoundError):
        hooking.redeliver(tx, "hook", "another", tenant_id="default", actor="test")


def test_a_webhook_that_fails_rests_and_one_delivery_tries_whether_it_is_well(
    post: Post,
) -> None:
    post.hook()
    for _ in range(10):
        post.end()
    receiver = Answers(BAD)
    while post.shown()["failures"] < hooks.CIRCUIT_AFTER:
        assert post.turn(receiver, room=1) == 1
    assert post.shown()["rests_until"] is not None
    before = len(receiver.got)
    assert post.turn(receiver) == 0, "it rests, whatever is due"
    for failures in (6, 7):
        post.hurry()
        assert post.turn(receiver) == 1, "one tries"
        assert post.turn(receiver) == 0
        assert post.shown()["failures"] == failures
    assert len(receiver.got) == before + 2
    post.hurry()
    well = Answers(OK)
    assert post.turn(well) == 1
    while post.turn(well):
        post.hurry()
    assert all(row["status"] == "delivered" for row in post.owed())
    assert post.shown()["failures"] == 0


def test_only_one_of_many_couriers_tries_a_webhook_that_rested(post: Post) -> None:
    post.hook()
    for _ in range(4):
        post.end()
    with post.database.write("test") as tx:
        tx.run("UPDATE webhooks SET failures = 9")
    found: list[int] = []

    def claim() -> None:
        context = post.courier()
        letters = deliveries.claim(context, room=8, hold=timedelta(seconds=60), busy={})
        found.append(len(letters))

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 0, 0, 0, 0, 1]


def test_many_couriers_deliver_once(post: Post) -> None:
    with receiving() as receiver:
        post.hook(receiver.url)
        for _ in range(12):
            post.end()

        def work() -> None:
            context = post.courier()
            while deliveries.run_once(
                context,
                post=post.real,
                secrets=post.secrets,
                room=3,
                hold=timedelta(seconds=60),
            ):
                pass

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ids = [got.headers["webhook-id"] for got in receiver.got]
    assert sorted(ids) == sorted(row["id"] for row in post.owed())
    assert {row["status"] for row in post.owed()} == {"delivered"}


def test_a_courier_that_slept_past_its_claim_records_nothing(post: Post) -> None:
    post.hook()
    post.end()
    slow, quick = post.courier(), post.courier()
    (held,) = deliveries.claim(slow, room=1, hold=timedelta(0), busy={})
    (taken,) = deliveries.claim(quick, room=1, hold=timedelta(seconds=60), busy={})
    deliveries.deliver(slow, held, post=Answers(BAD), secrets=post.secrets)
    (row,) = post.owed()
    assert (row["last_error"], row["fence"]) == (None, taken.delivery["fence"])
    assert post.shown()["failures"] == 0
    deliveries.deliver(quick, taken, post=Answers(OK), secrets=post.secrets)
    deliveries.deliver(slow, held, post=Answers(BAD), secrets=post.secrets)
    (row,) = post.owed()
    assert (row["status"], row["attempts"]) == ("delivered", 2)


def test_a_dead_receiver_keeps_nobody_else_waiting(post: Post) -> None:
    post.hook(name="dead", statuses=["failed"])
    for _ in range(20):
        post.end("failed")
    post.hook(name="well", statuses=["succeeded"])
    post.end("succeeded")
    context = post.courier()
    letters = deliveries.claim(context, room=8, hold=timedelta(seconds=60), busy={})
    names = [letter.webhook["name"] for letter in letters]
    assert sorted(names) == ["dead", "dead", "well"]
    busy = {letters[0].webhook["id"]: deliveries.EACH}
    assert deliveries.claim(context, room=8, hold=timedelta(seconds=60), busy=busy) == []


def test_who_says_that_he_is_gone_is_told_no_more(post: Post) -> None:
    post.hook()
    post.end()
    post.turn(Answers(Reply(410, "answered 410")))
    assert not post.shown()["enabled"]
    (row,) = post.owed()
    assert row["status"] == "failed"
    post.end()
    assert len(post.owed()) == 1


def test_a_host_that_cannot_sign_puts_off_and_blames_nobody(post: Post) -> None:
    post.hook()
    post.end()

    def none(row: Row, now_us: int) -> list[str]:
        return hooking.secrets_of(None, row, now_us=now_us)

    (letter,) = deliveries.claim(post.context, room=1, hold=timedelta(seconds=60), busy={})
    receiver = Answers(OK)
    deliveries.deliver(post.context, letter, post=receiver, secrets=none)
    (row,) = post.owed()
    assert row["status"] == "pending"
    assert "has no keys" in row["last_error"]
    assert (post.shown()["failures"], receiver.got) == (0, [])


def test_while_the_alarm_stands_nothing_is_sent(post: Post) -> None:
    post.hook()
    post.end()
    with post.database.write("test") as tx:
        tx.run("INSERT INTO facts (name, value) VALUES ('alarm', 'x')")
    assert post.turn(Answers(OK)) == 0
    with post.database.write("test") as tx:
        tx.run("DELETE FROM facts WHERE name = 'alarm'")
    assert post.turn(Answers(OK)) == 1


def test_the_clock_says_that_something_is_owed_and_does_not_wait_for_it(post: Post) -> None:
    post.hook()
    assert not clock.run_once(post.context, batch=10).letters
    post.end()
    report = clock.run_once(post.context, batch=10)
    assert report.letters
    assert report.next_in_s > 0.1, "it is the courier's"
