"""Runs that start after others: never before the end that they need, and never not at all."""

import threading
from typing import Any

import pytest

from leasehold.domain.after import After, parse_after
from leasehold.domain.lifecycle import EndKind
from leasehold.domain.retention import Retention
from leasehold.domain.specs import RunSpec, parse
from leasehold.errors import BadInputError, FullError, IdempotencyConflictError, NotFoundError
from leasehold.maintenance import clock, pruner
from leasehold.orchestrator import batching, ending, explaining, preceding, submit
from leasehold.store import invariants, predecessors, retention, views
from leasehold.store.database import Row

from .conftest import House

SOON = RunSpec.model_validate({"commands": [{"argv": ["true"]}]})


def start_after(
    house: House, *after: str, argv: tuple[str, ...] = ("true",), **more: Any
) -> str:
    options = {k: more.pop(k) for k in ("key", "tenant_id") if k in more}
    body = {"commands": [{"argv": argv}], **more}
    request = submit.Request(
        spec=parse(RunSpec, body), environment="lab", after=parse_after(after), **options
    )
    with house.database.write("test") as tx:
        return str(submit.submit(tx, house.worker, request)[0]["id"])


def links(house: House, run_id: str) -> list[Row]:
    with house.database.read() as tx:
        return predecessors.of_run(tx, run_id)


def no_broken_promise(house: House) -> None:
    with house.database.read() as tx:
        assert invariants.check(tx) == []


def test_a_run_starts_once_the_other_has_succeeded(house: House) -> None:
    house.environment()
    first = house.submit("sleep", "0.1")
    second = start_after(house, first, argv=("echo", "second"))
    assert house.run(second)["status"] == "queued"
    for _ in range(3):
        clock.run_once(house.worker, batch=100)
    assert (house.run(second)["status"], house.run(second)["waits"]) == ("queued", 1)
    no_broken_promise(house)
    house.over(first, second)
    assert house.output(second) == b"second\n"
    before, after = house.run(first), house.run(second)
    assert after["admitted_at"] >= before["finished_at"]
    assert house.events(second)[:3] == ["run.queued", "run.admissible", "run.running"]
    (link,) = links(house, second)
    assert (link["ended"], bool(link["due"]), link["settled_at"] is None) == (
        "succeeded",
        False,
        False,
    )
    no_broken_promise(house)


@pytest.mark.parametrize(
    ("argv", "outcome", "starts"),
    [
        ("true", "succeeded", True),
        ("true", "failed", False),
        ("true", "any", True),
        ("false", "succeeded", False),
        ("false", "failed", True),
        ("false", "any", True),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_the_needed_outcome_decides(
    house: House, argv: str, outcome: str, *, starts: bool, late: bool
) -> None:
    """Whether the other run is over already when it is named, or ends after that."""
    house.environment()
    first = house.submit(argv)
    if late:
        house.over(first)
    second = start_after(house, f"{first}:{outcome}")
    if late:
        assert house.run(second)["status"] == ("running" if starts else "cancelled")
    row = house.over(first, second)
    assert row["status"] == ("succeeded" if starts else "cancelled")
    assert row["code"] == (None if starts else "predecessor_outcome")
    if not starts:
        assert first in row["message"]
        assert house.executions(second) == []
    house.quiet()
    no_broken_promise(house)


def test_an_end_goes_down_the_whole_chain(house: House) -> None:
    house.environment()
    chain = [house.submit("false")]
    for _ in range(30):
        chain.append(start_after(house, chain[-1]))
    rescue = start_after(house, f"{chain[-1]}:failed")
    house.over(*chain, rescue)
    codes = [house.run(run_id)["code"] for run_id in chain]
    assert codes == ["command_failed"] + ["predecessor_outcome"] * 30
    assert house.run(rescue)["status"] == "succeeded"
    no_broken_promise(house)


def test_a_run_waits_for_all_of_many(house: House) -> None:
    house.environment()
    several = [house.submit("sleep", "0.05"), house.submit("false"), house.submit("true")]
    wants = [f"{several[0]}:succeeded", f"{several[1]}:failed", f"{several[2]}:any"]
    run_id = start_after(house, *wants)
    assert house.run(run_id)["waits"] == 3
    house.over(*several, run_id)
    ends = [house.run(one)["finished_at"] for one in several]
    assert house.run(run_id)["admitted_at"] >= max(ends)
    no_broken_promise(house)


def test_one_missed_outcome_ends_it_whatever_the_others_do(house: House) -> None:
    house.environment()
    slow, failing = house.submit("sleep", "0.3"), house.submit("false")
    run_id = start_after(house, slow, failing)
    house.over(failing, run_id)
    assert house.run(slow)["finished_at"] is None
    assert house.run(run_id)["code"] == "predecessor_outcome"
    no_broken_promise(house)
    house.over(slow)
    house.until(lambda: all(link["settled_at"] for link in links(house, run_id)))
    no_broken_promise(house)


@pytest.mark.parametrize("kind", [EndKind.CANCEL, EndKind.DEADLINE])
def test_any_way_to_end_is_told(house: House, kind: EndKind) -> None:
    house.environment()
    first = house.submit("sleep", "60")
    second, third = start_after(house, first), start_after(house, f"{first}:failed")
    house.turn()
    with house.database.write("test") as tx:
        ending.request_end(tx, house.worker, first, kind)
    house.over(first, second, third)
    assert house.run(second)["code"] == "predecessor_outcome"
    assert house.run(third)["status"] == "succeeded"
    house.quiet()


def test_a_waiting_run_is_cancelled_as_any_other_and_leaves_nothing(house: House) -> None:
    house.environment()
    first = house.submit("sleep", "0.2")
    second = start_after(house, first)
    third = start_after(house, f"{second}:any")
    house.turn()
    assert house.cancel(second)["status"] == "cancelled"
    house.over(third)
    assert house.run(second)["code"] == "cancelled"
    house.over(first)
    house.until(lambda: all(link["settled_at"] for link in links(house, second)))
    no_broken_promise(house)


def test_the_deadline_counts_from_submit_and_the_queue_timeout_from_the_last_end(
    house: House,
) -> None:
    house.environment()
    first = house.submit("sleep", "0.4")
    patient = start_after(house, first, queue_timeout_s=0.1)
    hasty = start_after(house, first, deadline_s=0.1)
    assert house.run(patient)["queue_deadline_at"] is None
    row = house.over(hasty)
    assert (row["status"], row["code"]) == ("timed_out", "deadline")
    assert house.run(first)["finished_at"] is None
    with house.database.write("test") as tx:
        tx.run("UPDATE providers SET health = 'away'")
    row = house.over(patient)
    assert (row["status"], row["code"]) == ("timed_out", "queue_timeout")
    late = row["finished_at"] - house.run(first)["finished_at"]
    assert late >= 100_000


def test_a_parked_run_is_not_over_and_its_retry_is_another_run(house: House) -> None:
    house.environment()
    house.world.script("acquire", fail="provider_unavailable", times=2)
    first = house.submit("true", max_infra_attempts=2)
    second = start_after(house, first)
    house.until(lambda: house.run(first)["status"] == "parked")
    house.turn()
    assert (house.run(second)["status"], house.run(second)["waits"]) == ("queued", 1)
    no_broken_promise(house)
    house.cancel(first)
    house.over(second)
    with house.database.write("test") as tx:
        again, _ = submit.retry(tx, house.worker, house.run(second))
    assert again["waits"] == 0
    assert house.over(again["id"])["status"] == "succeeded"
    assert house.run(second)["code"] == "predecessor_outcome"


def test_a_lost_nudge_and_lost_messages_cost_latency_only(house: House) -> None:
    house.environment()
    first = house.submit("true")
    house.lossy = True
    second = start_after(house, first)
    house.lossy = False
    house.over(first, second)
    assert house.run(second)["status"] == "succeeded"


def test_what_is_not_there_or_anothers_is_not_found_and_leaves_nothing(house: House) -> None:
    house.environment()
    mine = house.submit("sleep", "0.1")
    with house.database.write("test") as tx:
        tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 1)")
        tx.run("UPDATE runs SET tenant_id = 'other' WHERE id = :id", id=mine)
    for after in (mine, "nothing"):
        with pytest.raises(NotFoundError, match=f"after: there is no run {after}"):
            start_after(house, after)
    with house.database.write("test") as tx:
        assert tx.value("SELECT count(*) FROM runs") == 1
        assert tx.value("SELECT count(*) FROM predecessors") == 0
        tx.run("UPDATE runs SET tenant_id = 'default' WHERE id = :id", id=mine)
    house.over(mine)


@pytest.mark.parametrize(
    ("after", "field"),
    [
        (["a:perhaps"], "after.0.outcome"),
        (["a", "a:any"], "after"),
        ([{"run": "a", "if": "any"}], "after.0.if"),
        ([f"run-{n}" for n in range(101)], "after"),
        ([""], "after.0.run"),
    ],
)
def test_what_is_written_wrong_is_refused_by_its_name(after: list[Any], field: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_after(after)
    assert caught.value.field == field


def test_a_key_means_the_same_ends_too(house: House) -> None:
    house.environment()
    first = house.submit("true")
    second = start_after(house, first, key="k")
    assert start_after(house, f"{first}:succeeded", key="k") == second
    for other in ([], [f"{first}:any"]):
        with pytest.raises(IdempotencyConflictError):
            start_after(house, *other, key="k")
    house.over(first, second)


def test_runs_that_wait_hold_up_no_others_and_count_as_waiting(house: House) -> None:
    house.environment()
    first = house.submit("sleep", "0.2")
    waiting = [start_after(house, first) for _ in range(3)]
    at_once = house.submit("true")
    assert house.run(at_once)["status"] == "running", "it is admitted in its own submit"
    with house.database.write("test") as tx:
        tx.run("UPDATE tenants SET max_queued = 3 WHERE id = 'default'")
    with pytest.raises(FullError):
        house.submit("true")
    house.over(first, at_once, *waiting)


def test_a_batch_has_them_too(house: House) -> None:
    house.environment()
    good, bad = house.submit("true"), house.submit("false")
    house.over(good, bad)
    live = house.submit("sleep", "0.1")
    asked = [
        submit.Request(spec=SOON, environment="lab", after=parse_after(after))
        for after in ([good], [bad], [live, good], ["nothing"])
    ]
    with house.database.write("test") as tx:
        made = batching.submit_batch(tx, house.worker, asked, tenant_id="default")
    ids = [str(one.run_id) for one in made[:3]]
    assert isinstance(made[3].error, NotFoundError)
    assert [house.run(one)["status"] for one in ids] == ["running", "cancelled", "queued"]
    no_broken_promise(house)
    house.over(live, *ids)
    assert house.run(ids[2])["status"] == "succeeded"


def test_it_says_which_run_it_waits_for(house: House) -> None:
    house.environment()
    first, other = house.submit("sleep", "0.2"), house.submit("sleep", "0.2")
    second = start_after(house, first, f"{other}:any")
    house.turn()
    with house.database.read() as tx:
        said = explaining.run(tx, house.worker, second)
        shape = views.whole_run(tx, second, tenant_id="default")
    named = min(first, other)
    assert f"it starts after run {named}" in said.reason
    assert "and 1 more; that is running" in said.reason
    assert {one["run"] for one in said.details["after"]} == {first, other}
    assert said.when == views.iso(house.run(second)["deadline_at"])
    assert shape["waits_for"] == 2
    assert {"run": other, "outcome": "any", "status": "running"} in shape["after"]
    house.over(first, other, second)


def not_looked_at_yet(house: House, run_id: str) -> None:
    """Set a run back to where it was before any clock looked at what it starts after."""
    with house.database.write("test") as tx:
        tx.run(
            "UPDATE predecessors SET settled_at = NULL, due = {true}, ended = NULL"
            " WHERE run_id = :id",
            id=run_id,
        )
        tx.run(
            "UPDATE runs SET waits = 1, status = 'queued', step = NULL, due_at = NULL,"
            " admitted_at = NULL WHERE id = :id",
            id=run_id,
        )
        tx.run("DELETE FROM events WHERE run_id = :id AND name = 'run.running'", id=run_id)


def test_retention_spares_what_is_waited_for_and_no_longer(house: House) -> None:
    house.environment()
    first = house.submit("true")
    house.over(first)
    house.quiet()
    second = start_after(house, first)
    not_looked_at_yet(house, second)
    with house.database.write("test") as tx:
        retention.put(tx, "default", Retention.model_construct(runs_s=0, output_s=0))
    limits = pruner.Limits(key_kept_s=0, spared=0)
    pruner.may(house.worker)
    assert pruner.run_once(house.worker, limits=limits).runs == 0
    house.over(second)
    house.quiet()
    assert pruner.run_once(house.worker, limits=limits).runs == 2
    with house.database.read() as tx:
        assert tx.value("SELECT count(*) FROM predecessors") == 0


def test_many_clocks_let_each_go_once(house: House) -> None:
    house.environment()
    first = [house.submit("true") for _ in range(4)]
    waiting = [start_after(house, *first) for _ in range(10)]
    house.over(*first)

    def turn() -> None:
        for _ in range(5):
            clock.run_once(house.worker, batch=7)

    threads = [threading.Thread(target=turn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    house.over(*waiting)
    for run_id in waiting:
        assert house.events(run_id).count("run.admissible") == 1
        assert house.run(run_id)["status"] == "succeeded"
    no_broken_promise(house)


def test_an_end_under_way_while_the_wait_is_written_is_not_missed(house: House) -> None:
    """The moment for which a new wait is born due: neither transaction sees the other."""
    if house.database.dialect == "sqlite":
        pytest.skip("one writer: there is no such moment")
    house.environment()
    first = house.submit("sleep", "60")
    house.turn()
    request = submit.Request(spec=SOON, environment="lab", after=(After(run=first),))
    with house.database.write("test") as mine:
        second = submit.submit(mine, house.worker, request)[0]["id"]
        mine.settle()
        house.cancel(first)
        house.over(first)
    assert [bool(link["due"]) for link in links(house, second)] == [True]
    assert house.over(second)["code"] == "predecessor_outcome"
    no_broken_promise(house)


def test_what_somebody_holds_is_looked_at_again(house: House) -> None:
    if house.database.dialect == "sqlite":
        pytest.skip("one writer: nobody else holds anything")
    house.environment()
    first = house.submit("true")
    house.over(first)
    second = start_after(house, f"{first}:any")
    not_looked_at_yet(house, second)
    with house.database.write("held") as held:
        held.one("SELECT id FROM runs WHERE id = :id {lock}", id=first)
        report = clock.run_once(house.worker, batch=100)
        assert report.let_go == 0
        assert 0 < report.next_in_s <= clock.PRECEDING_AGAIN_S
        with house.database.write("test") as tx:
            assert preceding.look(tx, house.worker, limit=10) == 0
    assert clock.run_once(house.worker, batch=100).let_go == 1
    assert house.over(second)["status"] == "succeeded"
