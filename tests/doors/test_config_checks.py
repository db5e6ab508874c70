"""Questions to workers: lost, taken and dropped, taken by two, too late, and pruned."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from answering import context_of, open_checks, pliant
from command_line import serve
from leasehold.domain.specs import EnvironmentSpec
from leasehold.errors import CheckTimeoutError, ConfigRefusedError
from leasehold.maintenance import pruner, sessions
from leasehold.orchestrator import vetting
from leasehold.orchestrator.jobs import Context, Message
from leasehold.provider.fake_world import World
from leasehold.store import config_checks
from leasehold.store.database import Database
from store.rows import insert_worker

SPEC = EnvironmentSpec(name="lab", provider="fake", config={"image": "one"})
LOOSE = {"type": "object"}
BLINK = timedelta(milliseconds=1)


class Fleet:
    """Two workers on two hosts, and a broker that is a list."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database, self.root = database, root
        self.sent: list[Message] = []
        with database.write("test") as tx:
            for name in ("worker-1", "worker-2"):
                serve(tx, key="fake", host_id=insert_worker(tx, name)["host_id"])

    def worker(self, name: str, schema: dict[str, Any] | None = None) -> Context:
        provider = pliant(self.root / name, schema or LOOSE)
        context = context_of(
            self.database, self.root, worker_id=name, providers={"fake": provider}
        )
        context.publish = self.sent.append
        return context

    def fault(self, name: str, **fault: Any) -> None:
        World(self.root / name).script("validate", **fault)

    def ask(self) -> str:
        """Ask, and go away at once; the question stays open for a while."""
        with pytest.raises(CheckTimeoutError):
            vetting.vet(self.worker("asker"), SPEC, tenant_id="default", wait=BLINK)
        with self.database.write("test") as tx:
            tx.run("UPDATE config_checks SET until_at = {now} + 60000000")
        (check_id,) = open_checks(self.database)
        return check_id

    def row(self, check_id: str) -> dict[str, Any]:
        with self.database.read() as tx:
            row = config_checks.find(tx, check_id)
        assert row is not None
        return row

    def make_due(self) -> None:
        with self.database.write("test") as tx:
            tx.run("UPDATE config_checks SET due_at = {now} WHERE due_at IS NOT NULL")


@pytest.fixture
def fleet(database: Database, tmp_path: Path) -> Iterator[Fleet]:
    yield Fleet(database, tmp_path)


def test_a_lost_message_is_sent_again_and_to_another_host(fleet: Fleet) -> None:
    check_id = fleet.ask()
    (first,) = fleet.sent
    fleet.make_due()
    assert vetting.send_due(fleet.worker("clock"), batch=10) == 1
    second = fleet.sent[-1]
    assert (second.kind, second.id) == ("check", check_id)
    assert second.queue != first.queue
    assert vetting.send_due(fleet.worker("clock"), batch=10) == 0
    assert vetting.answer(fleet.worker("worker-2"), check_id)
    assert fleet.row(check_id)["answer"]["worker"] == "worker-2"


def test_a_worker_that_dies_at_it_leaves_it_to_the_next_one(fleet: Fleet) -> None:
    check_id = fleet.ask()
    with fleet.database.write("test") as tx:
        assert config_checks.claim(tx, check_id, worker_id="worker-1", for_us=60_000_000)
    assert not vetting.answer(fleet.worker("worker-2"), check_id)
    with fleet.database.write("test") as tx:
        sessions.worker_gone(tx, "worker-1")
    assert vetting.send_due(fleet.worker("clock"), batch=10) == 1
    assert vetting.answer(fleet.worker("worker-2"), check_id)


def test_a_claim_that_nobody_gives_up_ends_by_its_time(fleet: Fleet) -> None:
    check_id = fleet.ask()
    with fleet.database.write("test") as tx:
        assert config_checks.claim(tx, check_id, worker_id="worker-1", for_us=0)
    assert vetting.answer(fleet.worker("worker-2"), check_id)
    # The first one wakes up: what is answered stays answered.
    with fleet.database.write("test") as tx:
        assert not config_checks.answer(tx, check_id, {"worker": "worker-1"})
    assert fleet.row(check_id)["answer"]["worker"] == "worker-2"


def test_a_failure_that_may_pass_is_somebody_elses_next_try(fleet: Fleet) -> None:
    check_id = fleet.ask()
    fleet.fault("worker-1", fail="provider_unavailable")
    assert not vetting.answer(fleet.worker("worker-1"), check_id)
    assert fleet.row(check_id)["claimed_by"] is None
    assert vetting.answer(fleet.worker("worker-2"), check_id)
    assert fleet.row(check_id)["tries"] == 2


def test_a_failure_that_stays_is_the_answer_after_some_tries(fleet: Fleet) -> None:
    check_id = fleet.ask()
    fleet.fault("worker-1", fail="provider_unavailable", times=vetting.TRIES)
    for _ in range(vetting.TRIES):
        fleet.make_due()
        vetting.answer(fleet.worker("worker-1"), check_id)
    (problem,) = fleet.row(check_id)["answer"]["problems"]
    assert problem["code"] == "provider_unavailable"


def test_a_plugin_that_breaks_says_nothing_of_what_is_in_the_config(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    check_id = fleet.ask()
    broken: dict[str, Any] = {"type": "object", "properties": {"image": {"pattern": "("}}}
    assert vetting.answer(fleet.worker("worker-1", broken), check_id)
    (problem,) = fleet.row(check_id)["answer"]["problems"]
    assert problem["code"] == "provider_error"
    assert "one" not in problem["message"].split()
    assert "image" not in caplog.text


def test_nobody_works_for_who_has_gone(fleet: Fleet) -> None:
    check_id = fleet.ask()
    with fleet.database.write("test") as tx:
        tx.run("UPDATE config_checks SET until_at = {now} - 1, due_at = {now} - 1")
    assert not vetting.answer(fleet.worker("worker-1"), check_id)
    fleet.sent.clear()
    assert vetting.send_due(fleet.worker("clock"), batch=10) == 0
    row = fleet.row(check_id)
    assert (row["due_at"], row["answered_at"]) == (None, None)


def test_questions_are_deleted_an_hour_after_their_time(fleet: Fleet) -> None:
    check_id = fleet.ask()
    context = fleet.worker("worker-1")
    assert not pruner.may(context)
    assert pruner.may(context)
    assert pruner.run_once(context).checks == 0
    with fleet.database.write("test") as tx:
        tx.run("UPDATE config_checks SET until_at = {now} - 3700000000")
    assert pruner.run_once(context).checks == 1
    with fleet.database.read() as tx:
        assert config_checks.find(tx, check_id) is None


def test_two_askers_have_two_questions_and_each_its_answer(fleet: Fleet) -> None:
    first = fleet.ask()
    strict = fleet.worker("worker-1", {"properties": {"image": {"maxLength": 2}}})
    assert vetting.answer(strict, first)
    row = fleet.row(first)
    with pytest.raises(ConfigRefusedError, match=r"config\.image"):
        vetting.judged(SPEC, row)
    second = fleet.ask()
    assert second != first
    assert vetting.answer(fleet.worker("worker-2"), second)
