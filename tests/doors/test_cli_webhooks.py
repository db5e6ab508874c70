"""Webhooks through the command line, and one that is told by a whole stack."""

import json
import time
from pathlib import Path

import pytest

from command_line import Live, call, until
from leasehold.store.database import Database
from leasehold.vault.keys import make_file
from store.rows import insert_delivery
from webhooks.receiver import HANG, receiving

URL = "https://ci.example.org/hooks/7f3"
CREATE = ("webhooks", "create", "ci", URL, "--status", "failed", "--label", "team=ci")


@pytest.fixture
def keys(deployment: None, tmp_path: Path) -> None:
    make_file(tmp_path / "home" / "secret-keys")


@pytest.mark.usefixtures("keys")
def test_a_webhook_is_made_shown_changed_and_deleted(database: Database) -> None:
    made = call(*CREATE)
    assert made.code == 0, made.err
    assert made.out.startswith("whsec_")
    assert "shown this once" in made.err
    shown = call("webhooks", "show", "ci", "--json").json()
    assert (shown["url"], shown["statuses"], shown["labels"]) == (
        URL,
        ["failed"],
        {"team": "ci"},
    )
    assert made.out.strip() not in call("webhooks", "show", "ci").out
    assert call(*CREATE).code == 4
    another = call("webhooks", "new-secret", "ci", "--json").json()
    assert (another["secret_version"], another["secret"] != made.out.strip()) == (2, True)
    changed = call(
        "webhooks", "update", "ci", "--all", "--status", "timed_out", "--json"
    ).json()
    assert (changed["statuses"], changed["labels"]) == (["timed_out"], None)
    assert "is disabled" in call("webhooks", "update", "ci", "--disable").err
    assert "ci.example.org" in call("webhooks", "list").out
    assert call("webhooks", "delete", "ci").code == 0
    assert call("webhooks", "list", "--json").json() == []
    with database.read() as tx:
        assert not tx.value("SELECT count(*) FROM webhook_deliveries")


@pytest.mark.usefixtures("keys")
def test_deliveries_are_listed_and_sent_again_by_the_run(database: Database) -> None:
    call(*CREATE)
    with database.write("test") as tx:
        hook = tx.one("SELECT * FROM webhooks")
        assert hook is not None
        over = {"status": "failed", "next_at": None, "finished_at": 1}
        row = insert_delivery(tx, hook, last_error="answered 500", last_status=500, **over)
    (line,) = call("webhooks", "deliveries", "ci", "--status", "failed", "--json").json()
    assert (line["id"], line["last_status"]) == (row["id"], 500)
    assert "answered 500" in call("webhooks", "deliveries", "ci").out
    assert call("webhooks", "deliveries", "ci", "--status", "late").code == 2
    assert "once more" in call("webhooks", "redeliver", "ci", "r").err
    assert call("webhooks", "redeliver", "ci", "r").code == 4
    assert call("webhooks", "redeliver", "ci", "another").code == 3


@pytest.mark.usefixtures("keys")
def test_what_is_no_webhook_is_refused_in_the_words_of_its_option() -> None:
    said = call("webhooks", "create", "ci", "https://me:word@example.org/")
    assert said.code == 2
    assert "URL: carries credentials" in said.err
    assert "word" not in said.err
    assert "--status: a run ends as one of" in call(*CREATE, "--status", "running").err


@pytest.mark.slow
def test_a_stack_tells_of_its_runs_and_a_receiver_that_hangs_delays_none(
    tmp_path: Path,
) -> None:
    settings = {"LEASEHOLD_WEBHOOK_NETWORKS": "127.0.0.0/8", "LEASEHOLD_WEBHOOK_TIMEOUT_S": "3"}
    live = Live(tmp_path / "home", **settings)
    with receiving(500, 200) as well, receiving(*[HANG] * 50) as slow, live:
        assert live.call("webhooks", "create", "well", well.url).code == 0
        assert live.call("webhooks", "create", "slow", slow.url).code == 0
        ids = []
        for _ in range(6):
            began = time.monotonic()
            said = live.call("run", "--json", "--", "true")
            assert said.code == 0, said.err
            ids.append(json.loads(said.out)["id"])
            assert time.monotonic() - began < 15, "a receiver delays no run"

        def told() -> bool:
            shown = live.call("webhooks", "deliveries", "well", "--json").json()
            return [row["status"] for row in shown] == ["delivered"] * 6

        until("all are told, the one that failed first as well", told)
        runs = [json.loads(got.body)["data"]["run"]["id"] for got in well.got]
        assert sorted(set(runs)) == sorted(ids)
        assert len(runs) == 7
        (hanging,) = [
            row
            for row in live.call("webhooks", "list", "--json").json()
            if row["name"] == "slow"
        ]
        assert hanging["waiting"] == 6
        slow.leave.set()
