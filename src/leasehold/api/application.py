"""Puts the routes together; behind the gate, in the envelope."""

from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from leasehold import __version__
from leasehold.api import (
    answers,
    batches,
    bulk,
    environments,
    fleet,
    health,
    insight,
    keys,
    leases,
    output,
    retention,
    runs,
    schedules,
    secrets,
    streams,
    tenants,
)
from leasehold.api.door import Door
from leasehold.api.envelope import Envelope
from leasehold.api.gate import Gate
from leasehold.api.watch import Pace, Watch
from leasehold.settings import Settings

PREFIX: Final = "/api/v1"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ASKED_WITH: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Range",
    "X-Request-ID",
)
_ANSWERED_WITH: Final = (
    "Content-Range",
    "Leasehold-Complete",
    "Leasehold-Dropped",
    "Leasehold-Next-Offset",
    "Leasehold-Offset",
    "Leasehold-Start",
    "Leasehold-Stored",
    "Location",
    "Retry-After",
    "X-Request-ID",
)
"""What pages of other origins may send and read, beside what all may."""

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": answers.Problem, "description": "Refused."},
    "5XX": {"model": answers.Problem, "description": "A fault of ours."},
    422: {"model": answers.Problem, "description": "A field is wrong."},
}


def make(door: Door, settings: Settings, *, pace: Pace | None = None, **limits: Any) -> FastAPI:
    """Return the application; `limits` are those of `Envelope`, `pace` is that of streams."""
    app = FastAPI(
        title="Leasehold",
        version=__version__,
        description="Durable runs of commands in leased sandboxes.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            HTTPException: answers.of_http,
            RequestValidationError: answers.of_validation,
        },
    )
    app.state.door = door
    app.state.watch = Watch(door, pace or Pace())
    # For the OpenAPI document only: the gate stands before all routes.
    described = Depends(HTTPBearer(auto_error=False))
    api = APIRouter(prefix=PREFIX, responses=_PROBLEMS, dependencies=[described])
    for part in (
        batches,
        bulk,
        runs,
        output,
        streams,
        environments,
        leases,
        schedules,
        fleet,
        insight,
        secrets,
        keys,
        tenants,
        retention,
        health,
    ):
        api.include_router(part.router)
    app.include_router(api)
    app.include_router(health.probes)
    app.add_middleware(Gate, door=door, settings=settings)
    app.add_middleware(Envelope, **limits)
    if settings.api_cors_origins:
        # Around all, so that pages may read errors too, and ask beforehand without a key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api_cors_origins.split(","),
            allow_methods=_METHODS,
            allow_headers=_ASKED_WITH,
            expose_headers=_ANSWERED_WITH,
        )
    return app
