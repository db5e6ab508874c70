"""What becomes of a run: every cause, with and without a request to end, with and without
retries, compared with the rules written down once more as a table."""

from itertools import product

import pytest

from leasehold.domain import fate as fates
from leasehold.domain.fate import End, NextCommand, Park, RetryCommand, RetryInfra
from leasehold.domain.lifecycle import RUN_ENDS, EndKind, RunStatus
from leasehold.domain.specs import CommandSpec, RunSpec
from leasehold.errors import RUN_CODES
from leasehold.provider.contract import ExitCause

CAUSES = [cause.value for cause in ExitCause]
REQUESTS: list[EndKind | None] = [None, *EndKind]
NEVER_RETRIED = {"not_found", "not_executable", "cwd"}
CODES = {
    "exited": "command_failed",
    "signalled": "command_killed",
    "oom": "command_oom",
    "not_found": "command_not_found",
    "not_executable": "command_not_executable",
    "cwd": "cwd_rejected",
    "expired": "execution_lost",
}
REQUESTED: dict[EndKind, tuple[RunStatus, str]] = {
    EndKind.CANCEL: (RunStatus.CANCELLED, "cancelled"),
    EndKind.TIMEOUT: (RunStatus.TIMED_OUT, "timeout"),
    EndKind.DEADLINE: (RunStatus.TIMED_OUT, "deadline"),
    EndKind.QUEUE_TIMEOUT: (RunStatus.TIMED_OUT, "queue_timeout"),
    EndKind.START_TIMEOUT: (RunStatus.TIMED_OUT, "start_timeout"),
}


def is_lost(fate: object) -> bool:
    return isinstance(fate, End) and (fate.status, fate.code) == (
        RunStatus.FAILED,
        "execution_lost",
    )


def spec(*, commands: int = 1, retries: int = 0, idempotent: bool = False) -> RunSpec:
    return RunSpec(
        commands=(CommandSpec(argv=("true",)),) * commands,
        retries=retries,
        idempotent=idempotent,
        max_infra_attempts=3,
    )


def is_end_of(fate: fates.Fate, kind: EndKind) -> bool:
    if kind is EndKind.PARK:
        return isinstance(fate, Park) and fate.code == "infra_exhausted"
    return isinstance(fate, End) and (fate.status, fate.code) == REQUESTED[kind]


def after_exit(
    cause: str,
    code: int | None,
    *,
    of: RunSpec,
    command_index: int = 0,
    attempt: int = 1,
    end_requested: EndKind | None = None,
) -> fates.Fate:
    return fates.after_exit(
        of,
        cause=cause,
        exit_code=code,
        signal=9 if cause == "signalled" else None,
        command_index=command_index,
        attempt=attempt,
        end_requested=end_requested,
    )


def test_every_cause_is_in_the_table() -> None:
    assert set(CAUSES) == {*CODES, "cancelled", "timeout"}


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_exit_code_zero_of_the_last_command_is_a_success_whatever_was_requested(
    request_: EndKind | None, attempt: int
) -> None:
    fate = after_exit("exited", 0, of=spec(retries=2), attempt=attempt, end_requested=request_)
    assert fate == End(RunStatus.SUCCEEDED, exit_code=0)


@pytest.mark.parametrize("request_", REQUESTS)
def test_after_a_success_the_next_command_comes_unless_the_run_is_to_end(
    request_: EndKind | None,
) -> None:
    two = spec(commands=2)
    first = after_exit("exited", 0, of=two, command_index=0, end_requested=request_)
    if request_ is None:
        assert first == NextCommand()
    else:
        assert is_end_of(first, request_)
    last = after_exit("exited", 0, of=two, command_index=1, end_requested=request_)
    assert last == End(RunStatus.SUCCEEDED, exit_code=0)


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize(("retries", "idempotent"), list(product([0, 5], [True, False])))
def test_what_we_cancelled_ends_as_it_was_asked_for(
    request_: EndKind | None, retries: int, idempotent: bool
) -> None:
    of = spec(retries=retries, idempotent=idempotent)
    fate = after_exit("cancelled", None, of=of, end_requested=request_)
    if request_ is EndKind.PARK and not idempotent:
        # It had been started; a person who resumes it would start it a second time.
        assert is_lost(fate)
    else:
        assert is_end_of(fate, request_ or EndKind.CANCEL)


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_supervisors_own_timeout_is_a_timeout(request_: EndKind | None) -> None:
    fate = after_exit("timeout", None, of=spec(retries=5), end_requested=request_)
    assert is_end_of(fate, EndKind.TIMEOUT)


FAILURES = [(cause, 3 if cause == "exited" else None) for cause in CODES]


@pytest.mark.parametrize(
    ("failure", "request_", "retries", "attempt"),
    list(product(FAILURES, REQUESTS, [0, 1, 3], [1, 2, 3, 4])),
)
def test_a_failure_is_retried_while_retries_are_left_and_nobody_wants_an_end(
    failure: tuple[str, int | None], request_: EndKind | None, retries: int, attempt: int
) -> None:
    cause, code = failure
    fate = after_exit(
        cause, code, of=spec(retries=retries), attempt=attempt, end_requested=request_
    )
    may_retry = attempt <= retries and request_ is None and cause not in NEVER_RETRIED
    if may_retry:
        assert isinstance(fate, RetryCommand)
    else:
        assert isinstance(fate, End)
        assert (fate.status, fate.exit_code) == (RunStatus.FAILED, code)
    assert fate.code == CODES[cause]
    assert fate.message


@pytest.mark.parametrize(
    ("cause", "code", "words"),
    [
        ("exited", 3, "exit code 3"),
        ("signalled", None, "ended by signal 9"),
        ("oom", None, "killed: out of memory"),
        ("not_found", 127, "the command does not exist in the sandbox"),
        ("not_executable", 126, "the command cannot be executed"),
        ("cwd", None, "the working directory does not exist in the sandbox"),
        ("expired", None, "the sandbox's own time to live ended it"),
    ],
)
def test_a_failure_says_what_happened(cause: str, code: int | None, words: str) -> None:
    fate = after_exit(cause, code, of=spec())
    assert isinstance(fate, End)
    assert fate.message == words


@pytest.mark.parametrize(
    ("may_have_run", "idempotent", "attempts", "request_"),
    list(product([True, False], [True, False], [1, 2, 3, 4], REQUESTS)),
)
def test_a_loss_is_repeated_only_if_that_starts_nothing_twice(
    may_have_run: bool, idempotent: bool, attempts: int, request_: EndKind | None
) -> None:
    fate = fates.after_loss(
        spec(idempotent=idempotent, retries=100),
        may_have_run=may_have_run,
        infra_attempts=attempts,
        end_requested=request_,
    )
    if may_have_run and not idempotent and request_ in {None, EndKind.PARK}:
        assert is_lost(fate)
    elif request_ is not None:
        assert is_end_of(fate, request_)
    elif attempts >= 3:
        assert isinstance(fate, Park)
        assert fate.code == "infra_exhausted"
    else:
        assert isinstance(fate, RetryInfra)
        assert fate.code == "execution_lost"


@pytest.mark.parametrize(("attempts", "parked"), [(1, False), (2, False), (3, True), (9, True)])
def test_trouble_is_retried_until_it_is_too_much(attempts: int, parked: bool) -> None:
    fate = fates.after_trouble(
        spec(), infra_attempts=attempts, code="provider_unavailable", message="no route"
    )
    if parked:
        assert isinstance(fate, Park)
        assert fate.message == (
            f"{attempts} infrastructure failures, the last one: no route (provider_unavailable)"
        )
    else:
        assert fate == RetryInfra("provider_unavailable", "no route")


@pytest.mark.parametrize("kind", list(EndKind))
def test_every_request_has_its_end(kind: EndKind) -> None:
    fate = fates.ended_by(kind)
    assert is_end_of(fate, kind)
    if isinstance(fate, End):
        assert fate.status in RUN_ENDS
        assert fate.message


def test_every_code_is_one_that_people_can_look_up() -> None:
    known = {*CODES.values(), *(code for _, code in REQUESTED.values()), "infra_exhausted"}
    assert known <= set(RUN_CODES)
