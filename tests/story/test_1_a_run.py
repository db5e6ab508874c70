"""A run: what happens between asking for a command and reading its output."""

from collections.abc import Callable
from typing import Any

import pytest

from leasehold.errors import BadInputError, ConflictError, NotFoundError

from .conftest import House


def test_a_run_goes_through_five_steps_and_leaves_nothing(house: House) -> None:
    house.environment()
    run_id = house.submit("echo", "hello")
    run = house.over(run_id)
    house.quiet()
    assert (run["status"], run["exit_code"]) == ("succeeded", 0)
    assert house.output(run_id) == b"hello\n"
    assert house.events(run_id) == [
        "run.queued",
        "run.running",
        "step.validate.started",
        "step.validate.finished",
        "step.acquire.started",
        "lease.acquiring",
        "step.acquire.finished",
        "lease.active",
        "step.execute.started",
        "execution.started",
        "step.execute.finished",
        "step.heartbeat.started",
        "execution.exited",
        "step.heartbeat.finished",
        "run.succeeded",
        "lease.releasing",
        "step.release.started",
        "step.release.finished",
        "lease.released",
    ]
    assert house.world.sandboxes() == []


def test_a_failing_command_fails_its_run_with_its_exit_code(house: House) -> None:
    house.environment()
    run = house.over(house.submit("exit", "3"))
    assert (run["status"], run["code"], run["exit_code"]) == ("failed", "command_failed", 3)


def test_a_missing_command_has_a_code_of_its_own(house: House) -> None:
    house.environment()
    run = house.over(house.submit("no-such-command"))
    assert (run["code"], run["exit_code"]) == ("command_not_found", 127)


def test_a_retry_starts_the_command_again_in_a_fresh_sandbox(house: House) -> None:
    house.environment()
    run_id = house.submit("exit", "1", retries=2)
    run = house.over(run_id)
    assert (run["status"], run["attempt"], run["infra_attempts"]) == ("failed", 3, 0)
    starts = house.executions(run_id)
    assert [row["number"] for row in starts] == [1, 2, 3]
    assert len({row["lease_id"] for row in starts}) == 3
    assert all(house.world.starts(row["id"]) <= 1 for row in starts)


def test_several_commands_run_in_order_in_one_sandbox(house: House) -> None:
    house.environment()
    commands = [{"argv": ["echo", "one"]}, {"argv": ["sleep", "0.05", "then", "echo", "two"]}]
    run_id = house.submit("ignored", commands=commands)
    assert house.over(run_id)["status"] == "succeeded"
    assert house.output(run_id) == b"one\ntwo\n"
    assert len({row["lease_id"] for row in house.executions(run_id)}) == 1


def test_a_cancel_ends_the_command_and_says_so(house: House) -> None:
    house.environment()
    run_id = house.submit("sleep", "600")
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    house.cancel(run_id)
    run = house.over(run_id)
    assert (run["status"], run["code"]) == ("cancelled", "cancelled")
    house.quiet()
    assert house.world.sandboxes() == []


def test_a_cancel_after_the_exit_does_not_change_it(house: House) -> None:
    house.environment()
    run_id = house.submit("echo", "done")
    assert house.over(run_id)["status"] == "succeeded"
    assert house.cancel(run_id)["status"] == "succeeded"


def test_a_cancelled_queued_run_ends_at_once(house: House) -> None:
    house.environment(limits={"max_concurrent": 1})
    first = house.submit("sleep", "600")
    second = house.submit("true")
    assert house.run(second)["status"] == "queued"
    assert house.cancel(second)["status"] == "cancelled"
    house.cancel(first)
    house.over(first)


@pytest.mark.parametrize(
    ("spec", "status", "code"),
    [
        ({"timeout_s": 0.05}, "timed_out", "timeout"),
        ({"deadline_s": 0.1}, "timed_out", "deadline"),
    ],
)
def test_a_timer_ends_what_takes_too_long(
    house: House, spec: dict[str, Any], status: str, code: str
) -> None:
    house.environment()
    run = house.over(house.submit("sleep", "600", **spec))
    assert (run["status"], run["code"]) == (status, code)


def test_a_run_that_is_never_admitted_ends_by_its_queue_timeout(house: House) -> None:
    house.environment(limits={"max_concurrent": 1})
    first = house.submit("sleep", "600")
    second = house.submit("true", queue_timeout_s=0.05)
    run = house.over(second)
    assert (run["status"], run["code"]) == ("timed_out", "queue_timeout")
    house.cancel(first)
    house.over(first)


def test_a_sandbox_that_is_never_ready_ends_the_run_by_its_start_timeout(house: House) -> None:
    house.environment()
    house.world.script("acquire", fail="provider_unavailable", times=1000)
    run = house.over(house.submit("true", start_timeout_s=0.2, max_infra_attempts=100))
    assert (run["status"], run["code"]) == ("timed_out", "start_timeout")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda house: house.submit("true", environment="nowhere"), NotFoundError, "lab"),
        (lambda house: house.submit("a\0b"), BadInputError, "NUL"),
        (lambda house: house.submit("true", timeout_s=-1), BadInputError, "timeout_s"),
        (lambda house: house.environment("lab"), ConflictError, "exists"),
        (
            lambda house: house.environment("x", provider="nope"),
            BadInputError,
            "there are: fake",
        ),
        (
            lambda house: house.environment("x", config={"imgae": "y"}),
            BadInputError,
            "did you mean 'image'",
        ),
    ],
)
def test_bad_input_is_refused_in_words_that_help(
    house: House, call: Callable[[House], object], error: type[Exception], words: str
) -> None:
    house.environment("lab")
    with pytest.raises(error, match=words):
        call(house)
