"""
Everything this package raises on purpose, and the codes that rows, API and CLI show.

    LeaseholdError
    ├── BadInputError                a field is wrong; says which, what came, what is allowed
    ├── NotFoundError                no such row, or another tenant's row
    ├── ConflictError
    │   ├── IllegalMoveError         the status table has no such arrow
    │   ├── IdempotencyConflictError the key was used with another body
    │   └── FullError                a limit refuses; says when to try again
    ├── UnauthenticatedError         no key, or one that is not valid
    ├── ForbiddenError               the key is valid, its role may not do this
    ├── RateLimitedError             who asks asked too often; carries `retry_after_s`
    ├── TooLargeError                a request is bigger than what is taken
    ├── SlowRequestError             a request did not come in time
    ├── StoreUnavailableError        the database did not answer
    ├── BrokerUnavailableError       the broker did not answer
    ├── ApiUnavailableError          the REST API did not answer (raised by the client)
    ├── SchemaError                  the database is older or newer than the code
    ├── LostClaimError               our claim is gone: stop, write nothing
    ├── SecretUnavailableError       a secret cannot be had; says why
    └── ProviderError                raised by plugins, judged by the executor
        ├── ConfigRejectedError      this config can never work
        ├── UnsupportedError         a capability that the provider does not have
        ├── AuthFailedError          credentials refused
        ├── CapacityError            full; carries `retry_after_s`
        ├── UnavailableError         try again; the effect may have happened
        ├── SandboxGoneError         the sandbox is not there any more
        ├── ExecutionUnknownError    no such execution in this sandbox
        ├── StaleFenceError          a newer holder exists: stop at once
        ├── DeadlineExceededError    the budget ran out; the effect may have happened
        └── InterruptedCallError     the budget was cancelled: the run is to end
"""

from typing import ClassVar


class LeaseholdError(Exception):
    """Base of the tree; ``code`` is what API, CLI and events show."""

    code: ClassVar[str] = "internal"
    retryable: bool = False
    request_id: str | None = None
    """Of the request that the REST API refused, where the client raises it."""


class BadInputError(LeaseholdError):
    """
    One field of a request is wrong.

    The message names the field, the kind of value that came and what is allowed.
    """

    code = "bad_input"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class NotFoundError(LeaseholdError):
    """There is no such row, or it belongs to another tenant."""

    code = "not_found"


class ConflictError(LeaseholdError):
    """The row is not in the state the caller assumed."""

    code = "conflict"


class IllegalMoveError(ConflictError):
    """The status table has no arrow from here to there."""

    code = "illegal_move"


class IdempotencyConflictError(ConflictError):
    """The idempotency key was used before, with another body."""

    code = "idempotency_conflict"


class FullError(ConflictError):
    """A queue is full; try again after `retry_after_s` seconds."""

    code = "full"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnauthenticatedError(LeaseholdError):
    """Who asks has no valid key."""

    code = "unauthenticated"


class ForbiddenError(LeaseholdError):
    """Who asks is known, and their role may not do this."""

    code = "forbidden"


class RateLimitedError(LeaseholdError):
    """Who asks asked too often; try again after `retry_after_s` seconds."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooLargeError(LeaseholdError):
    """A request is bigger than what is taken; says what of it, and the limit."""

    code = "too_large"


class SlowRequestError(LeaseholdError):
    """A request did not come in time."""

    code = "slow_request"


class HostileTreeError(LeaseholdError):
    """A tree of files was refused: it would leave its directory, or is beyond a limit."""

    code = "workspace_rejected"


class BlobMissingError(LeaseholdError):
    """The store does not hold what a run names, or holds something else under its name."""

    code = "workspace_unavailable"


class BlobsUnavailableError(LeaseholdError):
    """The store of workspaces and artifacts did not answer."""

    code = "blobs_unavailable"
    retryable = True


class StoreUnavailableError(LeaseholdError):
    """The database did not answer; nothing is known of the last commit."""

    code = "database_unavailable"
    retryable = True


class BrokerUnavailableError(LeaseholdError):
    """The broker did not answer; the row stays due, so only latency is lost."""

    code = "broker_unavailable"
    retryable = True


class ApiUnavailableError(LeaseholdError):
    """The REST API did not answer; whether it did what was asked is unknown."""

    code = "api_unavailable"
    retryable = True


class SchemaError(LeaseholdError):
    """The database's schema is not the one that this code was written for."""

    code = "schema"


class LostClaimError(LeaseholdError):
    """Someone else holds the row now; stop, write nothing."""

    code = "lost_claim"


class SecretUnavailableError(LeaseholdError):
    """A secret's value cannot be had here and now, or at all; names it, never its value."""

    code = "secret_unavailable"
    retryable = True

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ProviderError(LeaseholdError):
    """A plugin could not do what it was asked; `retryable` decides, not the class."""

    code = "provider_error"

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


class ConfigRejectedError(ProviderError):
    """The config can never work as written."""

    code = "config_rejected"


class UnsupportedError(ProviderError):
    """The request needs a capability that this provider does not declare."""

    code = "unsupported"


class AuthFailedError(ProviderError):
    """The provider's credentials were refused."""

    code = "auth_failed"


class CapacityError(ProviderError):
    """The provider is full for now."""

    code = "provider_full"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(ProviderError):
    """The provider's service did not answer; the effect may have happened."""

    code = "provider_unavailable"
    retryable = True


class SandboxGoneError(ProviderError):
    """The sandbox is not there any more; destroying it again is a success."""

    code = "sandbox_lost"


class ExecutionUnknownError(ProviderError):
    """No execution with this id was ever claimed in this sandbox."""

    code = "execution_unknown"


class StaleFenceError(ProviderError):
    """A newer holder has installed its fence; stop at once, write nothing."""

    code = "stale_fence"


class DeadlineExceededError(ProviderError):
    """The call's budget ran out; the effect may have happened."""

    code = "provider_timeout"
    retryable = True


class InterruptedCallError(ProviderError):
    """The budget was cancelled: the run is to end, or the session is lost."""

    code = "interrupted"
    retryable = True


RUN_CODES: dict[str, str] = {
    "command_failed": "the command ended with a non-zero exit code",
    "command_killed": "the command was ended by a signal that nobody here sent",
    "command_not_found": "the command does not exist in the sandbox (127)",
    "command_not_executable": "the command exists and cannot be executed (126)",
    "command_oom": "the command was killed for lack of memory",
    "cancelled": "somebody cancelled the run",
    "timeout": "a command ran longer than its timeout",
    "deadline": "the run was not over by its deadline",
    "queue_timeout": "the run was not admitted in time",
    "predecessor_outcome": "a run that it starts after ended otherwise than it needs",
    "start_timeout": "no sandbox was ready in time",
    "config_rejected": "the provider refused the environment's config",
    "environment_unavailable": "the environment is archived or gone",
    "unsupported": "the run needs a capability that the provider does not declare",
    "auth_failed": "the provider refused our credentials",
    "secret_unavailable": "a secret that the run or its environment names cannot be had",
    "cwd_rejected": "the working directory is outside of the sandbox or missing",
    "lease_unavailable": "the lease that the run names has ended",
    "execution_lost": "the command may have run and its fate is unknown; it is not repeated",
    "workspace_unavailable": "the workspace's files are not to be had",
    "workspace_rejected": "the workspace's files were refused: hostile, or beyond a limit",
    "path_missing": "what is to be copied into is not in the sandbox",
    "path_refused": "a directory is in the way of a file that is copied, or the reverse",
    "setup_failed": "the workspace's set-up command failed",
    "setup_timeout": "the workspace's set-up command ran longer than its timeout",
    "infra_exhausted": "the infrastructure failed too often; the run is parked",
    "provider_error": "the provider failed for good",
    "internal": "a fault of ours; the log has the trace under the run's id",
}
"""Every code that a run can end or park with, and what it tells a person."""
