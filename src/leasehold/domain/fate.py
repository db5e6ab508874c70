"""
What becomes of a run when one of its executions is over: the one place that decides.

Pure: takes the supervisor's record and what the run asked for, returns what to do. The
record decides; a cancel that came after the exit does not change it.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from leasehold.domain.lifecycle import EndKind, RunStatus
from leasehold.domain.specs import RunSpec


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    status: RunStatus
    code: str | None = None
    message: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class NextCommand:
    """This command succeeded and there is another one."""


@dataclass(frozen=True, slots=True)
class RetryCommand:
    """The command failed and the run asked for a retry."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class RetryInfra:
    """The infrastructure failed; the command is not to blame."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Park:
    """The infrastructure failed too often; wait for a person or the deadline."""

    code: str
    message: str


Fate: TypeAlias = End | NextCommand | RetryCommand | RetryInfra | Park

_CAUSES: Final = {
    "signalled": "command_killed",
    "oom": "command_oom",
    "not_found": "command_not_found",
    "not_executable": "command_not_executable",
    "cwd": "cwd_rejected",
    "expired": "execution_lost",
}
_NO_RETRY: Final = frozenset({"not_found", "not_executable", "cwd"})
_WORDS: Final = {
    EndKind.CANCEL: (RunStatus.CANCELLED, "cancelled", "cancelled on request"),
    EndKind.TIMEOUT: (RunStatus.TIMED_OUT, "timeout", "the command ran into its timeout"),
    EndKind.DEADLINE: (RunStatus.TIMED_OUT, "deadline", "not over by its deadline"),
    EndKind.QUEUE_TIMEOUT: (RunStatus.TIMED_OUT, "queue_timeout", "not admitted in time"),
    EndKind.START_TIMEOUT: (RunStatus.TIMED_OUT, "start_timeout", "no sandbox in time"),
}

_LOST: Final = End(
    RunStatus.FAILED,
    "execution_lost",
    "the command may have run and its fate is unknown; it is not started again, "
    "since the run does not say that it is idempotent",
)


def ended_by(kind: EndKind) -> End | Park:
    """Return the end that a request asks for, when nothing runs any more."""
    if kind is EndKind.PARK:
        return Park("infra_exhausted", "parked: the infrastructure failed too often")
    status, code, message = _WORDS[kind]
    return End(status, code, message)


def after_exit(
    spec: RunSpec,
    *,
    cause: str,
    exit_code: int | None,
    signal: int | None,
    command_index: int,
    attempt: int,
    end_requested: EndKind | None,
) -> Fate:
    """
    Decide after a recorded exit.

    Args:
        cause: A `provider.ExitCause` value.
        attempt: Counts from 1: which try of this command it was.
        end_requested: A request that was there before this record was read.
    """
    if cause == "cancelled":
        if end_requested is EndKind.PARK and not spec.idempotent:
            return _LOST  # resumed, it would run a second time
        return ended_by(end_requested or EndKind.CANCEL)
    if cause == "timeout":
        return End(RunStatus.TIMED_OUT, "timeout", "the command ran into its timeout", None)
    if cause == "exited" and exit_code == 0:
        if command_index + 1 < len(spec.commands):
            return ended_by(end_requested) if end_requested else NextCommand()
        return End(RunStatus.SUCCEEDED, exit_code=0)
    code = _CAUSES.get(cause, "command_failed")
    message = _message(cause, exit_code, signal)
    if attempt <= spec.retries and cause not in _NO_RETRY and end_requested is None:
        return RetryCommand(code, message)
    return End(RunStatus.FAILED, code, message, exit_code)


def after_setup(
    *, cause: str, exit_code: int | None, signal: int | None, end_requested: EndKind | None
) -> Fate:
    """Decide after the recorded exit of a set-up command: it is not retried."""
    timed_out = End(
        RunStatus.TIMED_OUT, "setup_timeout", "the set-up command ran into its timeout"
    )
    if cause == "timeout" or (cause == "cancelled" and end_requested is EndKind.TIMEOUT):
        return timed_out
    if cause == "cancelled":
        return ended_by(end_requested or EndKind.CANCEL)
    if cause == "exited" and exit_code == 0:
        return ended_by(end_requested) if end_requested else NextCommand()
    if cause == "expired":
        return _LOST
    message = f"the set-up command failed: {_message(cause, exit_code, signal)}"
    return End(RunStatus.FAILED, "setup_failed", message, exit_code)


def after_loss(
    spec: RunSpec, *, may_have_run: bool, infra_attempts: int, end_requested: EndKind | None
) -> Fate:
    """
    Decide after the sandbox or the execution was lost, nothing of it running any more.

    Args:
        may_have_run: False only with proof that the command was never started.
        infra_attempts: Losses so far, this one included.
    """
    never_again = may_have_run and not spec.idempotent
    if end_requested is not None and not (never_again and end_requested is EndKind.PARK):
        return ended_by(end_requested)
    if never_again:
        return _LOST
    return after_trouble(
        spec, infra_attempts=infra_attempts, code="execution_lost", message="sandbox lost"
    )


def after_trouble(spec: RunSpec, *, infra_attempts: int, code: str, message: str) -> Fate:
    """Decide after a failure of the infrastructure before any start may have happened."""
    if infra_attempts >= spec.max_infra_attempts:
        return Park(
            "infra_exhausted",
            f"{infra_attempts} infrastructure failures, the last one: {message} ({code})",
        )
    return RetryInfra(code, message)


def _message(cause: str, exit_code: int | None, signal: int | None) -> str:
    words = {
        "signalled": f"ended by signal {signal}",
        "oom": "killed: out of memory",
        "not_found": "the command does not exist in the sandbox",
        "not_executable": "the command cannot be executed",
        "cwd": "the working directory does not exist in the sandbox",
        "expired": "the sandbox's own time to live ended it",
    }
    return words.get(cause, f"exit code {exit_code}")
