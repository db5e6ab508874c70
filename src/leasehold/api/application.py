"""Puts the routes and pages together; behind the gate, in the envelope."""

from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from leasehold import __version__
from leasehold.api import (
    activity,
    answers,
    batches,
    blobs,
    bulk,
    environments,
    files,
    fleet,
    health,
    inside,
    insight,
    keys,
    leases,
    metrics,
    output,
    probes,
    retention,
    runs,
    schedules,
    secrets,
    selections,
    streams,
    tenants,
    webhooks,
)
from leasehold.api.door import Door
from leasehold.api.envelope import Envelope
from leasehold.api.gate import PAGES, Gate
from leasehold.api.pages import PARTS, problems
from leasehold.api.pages.shared import Shared
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
            HTTPException: problems.of_http,
            RequestValidationError: problems.of_validation,
        },
    )
    app.state.door = door
    app.state.watch = Watch(door, pace or Pace())
    app.state.shared = Shared()
    app.state.scrapes = metrics.Scrapes()
    # For the OpenAPI document only: the gate stands before all routes.
    described = Depends(HTTPBearer(auto_error=False))
    api = APIRouter(prefix=PREFIX, responses=_PROBLEMS, dependencies=[described])
    for part in (
        batches,
        bulk,
        inside,
        runs,
        files,
        blobs,
        output,
        streams,
        probes,
        environments,
        selections,
        leases,
        schedules,
        webhooks,
        fleet,
        insight,
        secrets,
        keys,
        tenants,
        retention,
        activity,
        health,
    ):
        api.include_router(part.router)
    app.include_router(api)
    app.include_router(health.probes)
    app.include_router(metrics.router, responses=_PROBLEMS)
    for part in PARTS:
        app.include_router(part, prefix=PAGES, include_in_schema=False)
    app.add_middleware(Gate, door=door, settings=settings)
    largest = max(settings.max_artifact_bytes, settings.max_workspace_bytes)
    limits.setdefault("max_file_bytes", largest)
    app.add_middleware(Envelope, shown=problems.shown, **limits)
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
