"""Signing in and out, and the files that every page needs."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, RedirectResponse

from leasehold.api.door import Anybody, TheDoor
from leasehold.api.gate import PAGES, SIGN_IN, cookie_name, session_of
from leasehold.api.pages.page import Form, document, fields, first
from leasehold.domain.passes import LASTS_US, SECOND_US, PassKind
from leasehold.errors import LeaseholdError, NotFoundError, UnauthenticatedError
from leasehold.orchestrator import signing
from leasehold.store.database import Tx
from leasehold.web.rendering import STATIC

router = APIRouter()
_TYPES: Final = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
_FILES: Final = {
    path.name: _TYPES[path.suffix] for path in STATIC.iterdir() if path.suffix in _TYPES
}
"""Nothing else is served, whatever a path says."""

_LASTS_S: Final = LASTS_US[PassKind.SESSION] // SECOND_US


@router.get("/static/{name}")
def static(name: Annotated[str, Path()]) -> Response:
    """Return a file that pages load; asked for again only if it changed."""
    if name not in _FILES:
        raise NotFoundError("there is no such file")
    headers = {"Cache-Control": "no-cache"}
    return FileResponse(STATIC / name, media_type=_FILES[name], headers=headers)


@router.get("/sign-in")
async def ask(request: Request, door: TheDoor, link: str = "", next: str = "") -> Response:  # noqa: A002  its name
    """Ask for an API key; sign in at once with a printed link."""
    if not link:
        return _form(request, wanted=next)
    try:
        secret = await run_in_threadpool(
            door.write, "session.link", lambda tx: signing.use_link(tx, link)
        )
    except UnauthenticatedError as error:
        return _form(request, wanted="", problem=error)
    return _signed_in(request, secret, wanted="")


@router.post("/sign-in")
async def sign_in(request: Request, door: TheDoor) -> Response:
    """Sign in with an API key."""
    form = await fields(request)
    key, wanted = first(form, "key").strip(), first(form, "next")

    def work(tx: Tx) -> str:
        return signing.sign_in(tx, key)

    try:
        secret = await run_in_threadpool(door.write, "session.open", work)
    except UnauthenticatedError as error:
        return _form(request, wanted=wanted, problem=error)
    return _signed_in(request, secret, wanted=wanted)


def _form(request: Request, *, wanted: str, problem: LeaseholdError | None = None) -> Response:
    return document(
        request.scope,
        "sign_in.html",
        status=HTTPStatus.OK if problem is None else HTTPStatus.UNAUTHORIZED,
        title="Sign in",
        wanted=_within(wanted),
        problem=str(problem) if problem else None,
    )


def _within(wanted: str) -> str:
    """Return a path of ours: nobody is sent elsewhere by an address that they were given."""
    ours = wanted == PAGES or wanted.startswith(f"{PAGES}/")
    plain = wanted.isascii() and wanted.isprintable() and "\\" not in wanted
    return wanted if ours and plain and not wanted.startswith(SIGN_IN) else PAGES


def _signed_in(request: Request, secret: str, *, wanted: str) -> Response:
    request.state.was_valid()
    answer = RedirectResponse(_within(wanted), status_code=303)
    answer.set_cookie(
        cookie_name(request.scope),
        secret,
        max_age=_LASTS_S,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, _caller: Anybody, door: TheDoor, _form: Form) -> Response:
    """End the session, in the database too."""
    secret = session_of(request.scope)

    def work(tx: Tx) -> None:
        signing.sign_out(tx, secret, key=signing.key_of(tx, secret))

    await run_in_threadpool(door.write, "session.close", work)
    answer = RedirectResponse(SIGN_IN, status_code=303)
    answer.delete_cookie(
        cookie_name(request.scope),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return answer
