"""
The exit codes of the command line, and the one line that each error becomes.

`run` and `runs wait` exit as the command did; everything else exits as this table says. The
two can be told apart by stderr: our own words begin with ``leasehold:``.
"""

import os
import sys
import traceback
from typing import Final

from leasehold import errors

WRONG: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
UNAVAILABLE: Final = 5
SCHEMA: Final = 6
REFUSED: Final = 7
INTERNAL: Final = 70
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
GAVE_UP: Final = 124
NO_EXIT_CODE: Final = 255

TABLE: Final = {
    "0": "it worked; of `run` and `runs wait`: every command ended with 0",
    "1": "a check found something wrong (verify, reconcile, doctor, db check, env probe, …);"
    " of `cp`: not all was copied",
    "2": "bad input or wrong usage",
    "3": "there is no such run, lease, environment, worker, host or provider",
    "4": "conflict: wrong state, name or key taken, or a limit is reached",
    "5": "the database, the broker, the API, a provider or (reconcile) a host did not answer",
    "6": "the database's schema is older or newer than this program, or missing",
    "7": "the API refused its key, or the key's role may not do this (LEASEHOLD_API_TOKEN)",
    "70": "a fault of ours",
    "124": "`runs wait --timeout` gave up; the run goes on",
    "130": "interrupted; the run, if there is one, was left running",
    "128+n": "of `run` and `runs wait`: the command was ended by signal n",
    "255": "of `run` and `runs wait`: the run ended without an exit code (cancelled, timed out,"
    " lost, never started)",
}

EPILOG: Final = "Exits with the command's own exit code. " + " ".join(
    f"{code}: {meaning}." for code, meaning in TABLE.items() if code != "1"
)

_OF: Final[tuple[tuple[type[errors.LeaseholdError], int], ...]] = (
    (errors.BadInputError, USAGE),
    (errors.NotFoundError, NOT_FOUND),
    (errors.ConflictError, CONFLICT),
    (errors.TooLargeError, USAGE),
    (errors.RateLimitedError, CONFLICT),
    (errors.UnauthenticatedError, REFUSED),
    (errors.ForbiddenError, REFUSED),
    (errors.ApiUnavailableError, UNAVAILABLE),
    (errors.SlowRequestError, UNAVAILABLE),
    (errors.BlobsUnavailableError, UNAVAILABLE),
    (errors.StoreUnavailableError, UNAVAILABLE),
    (errors.BrokerUnavailableError, UNAVAILABLE),
    (errors.ProviderNotReadyError, UNAVAILABLE),
    (errors.CheckTimeoutError, UNAVAILABLE),
    (errors.SchemaError, SCHEMA),
)


def of(error: BaseException) -> int:
    """Return the exit code of an error."""
    for kind, code in _OF:
        if isinstance(error, kind):
            return code
    if type(error) is errors.LeaseholdError:
        return INTERNAL  # a fault of the API's
    return WRONG if isinstance(error, errors.LeaseholdError) else INTERNAL


def say(text: str) -> None:
    """Say one line of our own on stderr; stdout belongs to the command or to JSON."""
    try:
        sys.stderr.write(f"leasehold: {text}\n")
        sys.stderr.flush()
    except OSError:
        return  # nobody reads it any more


def report(error: Exception) -> int:
    """Say what went wrong in one line and return its exit code."""
    if os.environ.get("LEASEHOLD_LOG_LEVEL") == "DEBUG":
        traceback.print_exc()
    if isinstance(error, errors.LeaseholdError):
        request = f" (request {error.request_id})" if error.request_id else ""
        # A fault is found in the API's log by it; a refusal says all by itself.
        say(f"{error}{request}" if of(error) in {INTERNAL, UNAVAILABLE} else str(error))
    else:
        kind = type(error).__name__
        say(f"a fault of ours: {kind}: {error} (LEASEHOLD_LOG_LEVEL=DEBUG shows the trace)")
    return of(error)
