"""
Errors of the API as the project's exceptions: by their code, with the request's id.
"""

from typing import Any, Final

import httpx

from leasehold import errors
from leasehold.errors import LeaseholdError

_KINDS: Final[dict[int, type[LeaseholdError]]] = {
    401: errors.UnauthenticatedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    413: errors.TooLargeError,
    422: errors.BadInputError,
    429: errors.FullError,
    502: errors.ApiUnavailableError,
    503: errors.ApiUnavailableError,
    504: errors.ApiUnavailableError,
}
"""For what has no code of ours: an answer of a proxy, or of a newer server."""

_TEXT_MAX: Final = 200


def error_of(response: httpx.Response) -> LeaseholdError:
    """Return the exception for an answer that is an error."""
    problem = _problem(response)
    code = problem.get("code", "")
    kind = _by_code().get(code) or _KINDS.get(response.status_code, LeaseholdError)
    message = problem.get("message") or _text(response)
    error = _make(kind, message, problem, wait_s=retry_after_s(response) or 1.0)
    request_id = problem.get("request_id") or response.headers.get("X-Request-ID")
    error.request_id = request_id
    if request_id:
        error.add_note(f"request id: {request_id}")
    return error


def error_in(problem: dict[str, Any]) -> LeaseholdError:
    """Return the exception for one item of an answer, among others that went well."""
    kind = _by_code().get(problem["code"], LeaseholdError)
    return _make(kind, problem["message"], problem, wait_s=1.0)


def retry_after_s(response: httpx.Response) -> float | None:
    """Return how long the answer says to wait, in seconds."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("code"), str) else {}


def _text(response: httpx.Response) -> str:
    first = " ".join(response.text.split())[:_TEXT_MAX]
    return f"the API answered {response.status_code}" + (f": {first}" if first else "")


def _make(
    kind: type[LeaseholdError], message: str, problem: dict[str, Any], *, wait_s: float
) -> LeaseholdError:
    if issubclass(kind, errors.BadInputError):
        return kind(message, field=problem.get("field"))
    if issubclass(kind, errors.FullError | errors.RateLimitedError):
        return kind(message, retry_after_s=wait_s)
    return kind(message)


def _by_code() -> dict[str, type[LeaseholdError]]:
    found: dict[str, type[LeaseholdError]] = {}
    waiting = [LeaseholdError]
    while waiting:
        kind = waiting.pop()
        found.setdefault(kind.code, kind)
        waiting += kind.__subclasses__()
    return found
