"""The judge is judged: each fault that is planted is seen, and nothing else is."""

from dataclasses import replace
from pathlib import Path

import pytest

from chaos import checks
from chaos.checks import Execution, Facts
from chaos.recovery import histogram, is_recovered, percentile
from chaos.work import Piece, strangers

ARGV = (("sh", "-c", "true"),)
PIECE = Piece("r000001", "lines", ARGV, (b"one\ntwo\n",))
DONE = Execution(0, 1, "a", "exited", 0, b"one\ntwo\n")
START, END = "start /h/sandboxes/local/lease-a/work 7", "end /h/sandboxes/local/lease-a/work 7"


def run(**changes: object) -> Facts:
    good = Facts("id", PIECE, "succeeded", None, None, (DONE,), ((START, END),))
    return replace(good, **changes)  # type: ignore[arg-type]  # any field


def breaches(facts: Facts) -> list[str]:
    return [
        str(b) for check in (checks.ended, checks.once, checks.whole) for b in check([facts])
    ]


def test_a_run_as_it_should_be_is_not_complained_about() -> None:
    assert breaches(run()) == []


@pytest.mark.parametrize("status", ["failed", "parked", "running", "queued", "cancelled"])
def test_a_run_that_did_not_succeed_is_seen(status: str) -> None:
    assert "P1 ended" in breaches(run(status=status))[0]


def test_a_doubled_mark_is_seen() -> None:
    found = breaches(run(marks=((START, START, END),)))
    assert any("2 starts, allowed are 1" in text for text in found)


def test_a_second_start_in_another_sandbox_is_seen() -> None:
    other = replace(DONE, lease_id="b", attempt=1)
    marks = ((START, START.replace("lease-a", "lease-b"), END),)
    found = breaches(run(executions=(DONE, other), marks=marks))
    assert any("2 starts, allowed are 1" in text for text in found)


def test_an_idempotent_command_may_overlap_but_not_within_one_execution() -> None:
    piece = replace(PIECE, idempotent=True)
    other = replace(DONE, lease_id="b")
    marks = ((START, START.replace("lease-a", "lease-b"), END),)
    assert breaches(run(piece=piece, executions=(DONE, other), marks=marks)) == []
    doubled = ((START, START, END),)
    found = breaches(run(piece=piece, executions=(DONE, other), marks=doubled))
    assert any("2 starts in a, executions there: 1" in text for text in found)


def test_an_attempt_after_a_failure_may_start_once_more() -> None:
    second = replace(DONE, attempt=2, lease_id="b")
    marks = ((START, START.replace("lease-a", "lease-b"), END),)
    first = replace(DONE, exit_code=9, output=b"")
    assert breaches(run(executions=(first, second), marks=marks)) == []


def test_a_command_that_never_started_or_never_came_to_its_end_is_seen() -> None:
    assert any("never started" in text for text in breaches(run(marks=((),))))
    assert any("never came to its end" in text for text in breaches(run(marks=((START,),))))


def test_an_end_that_came_twice_is_seen() -> None:
    assert any("its end 2 times" in text for text in breaches(run(marks=((START, END, END),))))


@pytest.mark.parametrize("output", [b"one\ntw", b"one\ntwo\ntwo\n", b"one\nTWO\n", b""])
def test_a_byte_too_few_too_many_or_wrong_is_seen(output: bytes) -> None:
    found = breaches(run(executions=(replace(DONE, output=output),)))
    assert [text for text in found if text.startswith("P2 output")]


def test_only_a_full_disk_may_cut_an_output_and_it_must_say_so() -> None:
    cut = replace(DONE, output=b"one\n", dropped=4, on_quota=True)
    assert breaches(run(executions=(cut,))) == []
    assert checks.cut_short([run(executions=(cut,))]) == 1
    assert breaches(run(executions=(replace(cut, dropped=3),)))
    assert breaches(run(executions=(replace(cut, on_quota=False),)))


def test_a_sandbox_that_is_left_is_seen(tmp_path: Path) -> None:
    rooms = ("local/lease-a", "local/.new/1.2.3", "fake/sb/b", "fake/old.c.1", "fake/new.d.1")
    for room in rooms:
        (tmp_path / "sandboxes" / room).mkdir(parents=True)
    found = checks.sandboxes_of(tmp_path)
    assert len(found) == len(rooms)
    assert len(checks.no_orphan(found, live=[])) == len(rooms)
    assert len(checks.no_orphan(found, live=["a", "b"])) == len(rooms) - 2


def test_a_live_lease_a_process_and_a_stranger_are_seen(tmp_path: Path) -> None:
    assert checks.no_debt(["a"])
    assert checks.nothing_runs(["17 sleep 2"])
    for name in ("r000001.0", "r000009.0"):
        (tmp_path / name).touch()
    assert strangers(tmp_path, ["r000001"]) == ["r000009.0"]
    assert len(checks.nothing_unknown(["r000009.0"], ["r000004"])) == 2


def test_broken_rows_are_breaches() -> None:
    assert len(checks.rows(["a violation"], ["a difference", "another"])) == 3


BEFORE = {"claimed_by": "w", "due_at": None, "beat": False, "finished_at": None,
          "lease_id": "l", "fence": 4}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "recovered"),
    [
        ({}, False),
        ({"claimed_by": None, "due_at": 5, "fence": 5}, False),
        ({"claimed_by": "other", "fence": 6}, True),
        ({"claimed_by": None, "due_at": 90, "fence": 6}, True),
        ({"claimed_by": None, "due_at": 90, "fence": 5}, False),
        ({"claimed_by": None, "due_at": 90, "fence": 5, "beat": True}, True),
        ({"claimed_by": None, "due_at": 5, "fence": 5, "beat": True}, False),
        ({"finished_at": 7, "claimed_by": None}, True),
    ],
)
def test_recovered_is_what_somebody_else_has_claimed(
    now: dict[str, object], recovered: bool
) -> None:
    state = {**BEFORE, **now}
    assert is_recovered(BEFORE, state, victims=frozenset("w"), now_us=10) is recovered


def test_percentiles_and_the_histogram_count_every_value() -> None:
    values = [0.04, 0.3, 0.9, 40.0]
    assert percentile(values, 0.5) == 0.9
    assert percentile(values, 0.99) == 40.0
    assert percentile([], 0.99) == 0.0
    bars = histogram(values)
    assert sum(number for _, number in bars) == len(values)
    assert (bars[0], bars[-1]) == (("≤ 0.05 s", 1), ("> 30 s", 1))
