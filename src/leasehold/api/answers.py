"""
The one shape of every error, and the one table from errors to HTTP statuses.

What is said of a fault of ours, or of a database that is away, is fixed text: the cause may
name hosts and rows, and stands in the log under the request's id.
"""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from leasehold import errors
from leasehold.domain.specs import refusal
from leasehold.log import get_logger

log = get_logger(__name__)
STATUSES: Final[tuple[tuple[type[errors.LeaseholdError], int], ...]] = (
    (errors.BadInputError, 422),
    (errors.UnauthenticatedError, 401),
    (errors.ForbiddenError, 403),
    (errors.NotFoundError, 404),
    (errors.SlowRequestError, 408),
    (errors.FullError, 429),
    (errors.RateLimitedError, 429),
    (errors.ConflictError, 409),
    (errors.TooLargeError, 413),
    (errors.ProviderNotReadyError, 503),
    (errors.CheckTimeoutError, 504),
    (errors.StoreUnavailableError, 503),
    (errors.BrokerUnavailableError, 503),
    (errors.BlobsUnavailableError, 503),
    (errors.SchemaError, 503),
    (errors.LeaseholdError, 500),
)
"""The first that fits counts."""

_FIXED: Final = {
    500: "a fault of ours; the log has it under the request's id",
    503: "a part of the deployment does not answer; try again",
}
_AWAY: Final = 503
_RETRY_S: Final = 1.0
_CODES: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    416: "range_not_satisfiable",
}


class Problem(BaseModel):
    """What an error looks like."""

    code: str
    message: str
    field: str | None
    """Which field of the request is wrong."""

    request_id: str
    details: dict[str, Any]
    """`retry_after_s`, where trying again helps; `problems` and `warnings` of a config."""


class Answer(JSONResponse):
    """JSON; what is no text in UTF-8 is escaped, as on the command line."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


def status_of(error: errors.LeaseholdError) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def of(error: Exception, *, request_id: str) -> Answer:
    """Return the answer to a request that failed; what is our fault is logged."""
    if isinstance(error, RecursionError):
        error = errors.BadInputError("body: is nested too deeply", field="body")
    if not isinstance(error, errors.LeaseholdError):
        log.error("request.failed", exc_info=error)
        return _problem(500, "internal", _FIXED[500], request_id=request_id)
    status = status_of(error)
    fixed = None if isinstance(error, errors.ProviderNotReadyError) else _FIXED.get(status)
    if fixed:
        log.warning("request.failed", code=error.code, why=str(error))
    headers, details = _more(error, status)
    if isinstance(error, errors.ConfigRefusedError):
        details |= {"problems": error.problems, "warnings": error.warnings}
    return _problem(
        status,
        error.code,
        fixed or str(error),
        field=getattr(error, "field", None),
        request_id=request_id,
        headers=headers,
        details=details,
    )


def _more(error: errors.LeaseholdError, status: int) -> tuple[dict[str, str], dict[str, Any]]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}, {}
    if status in {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT}:
        # The rest of the body is not read: nothing after it on this connection would be.
        return {"Connection": "close"}, {}
    wait_s = getattr(error, "retry_after_s", _RETRY_S if status == _AWAY else None)
    if wait_s is None:
        return {}, {}
    return {"Retry-After": str(max(1, math.ceil(wait_s)))}, {"retry_after_s": wait_s}


def _problem(
    status: int,
    code: str,
    message: str,
    *,
    request_id: str,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
    details: dict[str, Any] | None = None,
) -> Answer:
    shape = {
        "code": code,
        "message": message,
        "field": field,
        "request_id": request_id,
        "details": details or {},
    }
    return Answer(shape, status_code=status, headers=dict(headers or {}))


async def of_http(request: Request, error: Exception) -> Answer:
    """Return the answer for what the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    request_id = request.state.request_id
    # The framework hides what went wrong while it read the body.
    if isinstance(error.__cause__, errors.LeaseholdError | RecursionError):
        return of(error.__cause__, request_id=request_id)
    code = _CODES.get(error.status_code, "refused")
    text = str(error.detail)
    message = "there is no such route" if text == HTTPStatus.NOT_FOUND.phrase else text
    return _problem(
        error.status_code, code, message, request_id=request_id, headers=error.headers
    )


async def of_validation(request: Request, error: Exception) -> Answer:
    """Return the answer for a request that is not as its route wants it."""
    assert isinstance(error, RequestValidationError)
    first, request_id = error.errors()[0], request.state.request_id
    if first["type"] == "json_invalid":
        return of(
            errors.BadInputError("body: is not JSON", field="body"), request_id=request_id
        )
    body = getattr(request.scope.get("route"), "body_field", None)
    kind = body.field_info.annotation if body is not None else None
    return of(refusal(kind, first, skip=1), request_id=request_id)
