"""
What all pages have: their frame, their headers, and forms that only a page of ours can send.

A page works without its script: links and forms. What is live in it is an element with an id,
which the script asks for again at the same address (`static/live.js`).
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.types import Scope

from leasehold.api.door import Caller, Door
from leasehold.api.gate import PAGES
from leasehold.api.pages.shared import Shared
from leasehold.domain.roles import Role
from leasehold.errors import BadInputError, ForbiddenError
from leasehold.orchestrator import signing
from leasehold.store.database import Tx
from leasehold.web.rendering import render

T = TypeVar("T")
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FIELDS_MAX: Final = 2000
_OF_TENANTS: Final = (
    ("Overview", ""),
    ("Runs", "/runs"),
    ("Failures", "/failures"),
    ("Trouble", "/trouble"),
    ("Leases", "/leases"),
    ("Environments", "/environments"),
)
_OF_ALL: Final = (("Hosts", "/hosts"), ("Providers", "/providers"))
SAID: Final = {
    "cancel": "It is asked to end; it is cancelled once nothing of it runs any more.",
    "started": "The run is submitted.",
    "retry": "This is the new run.",
    "resume": "It is back in the queue.",
    "release": "The lease is given back: its sandbox is being destroyed.",
    "retain": "The sandbox is kept: at once if it is idle, else when its run ends.",
    "drain": "Nothing new is sent to the host; what runs there goes on.",
    "created": "The environment is saved.",
    "archive": "The environment takes no new runs; what runs in it goes on.",
    "unarchive": "The environment takes runs again.",
}
"""What a page says after something was done: by name, since an address is anybody's text."""


def document(
    scope: Scope, template: str, *, status: int = HTTPStatus.OK, **what: Any
) -> HTMLResponse:
    """Return a page; who is signed in is known from the request."""
    state = scope.get("state", {})
    caller: Caller | None = state.get("caller")
    text = render(
        template,
        root=PAGES,
        here=scope["path"],
        caller=caller,
        may=_may(caller),
        key_name=state.get("key_name", ""),
        token=signing.token_of(state["session"]) if "session" in state else "",
        nav=_nav(caller),
        **what,
    )
    return HTMLResponse(text, status_code=status, headers={"Content-Security-Policy": POLICY})


def _may(caller: Caller | None) -> dict[str, bool]:
    """Return which roles' buttons are shown; the routes decide by themselves."""
    return {role.value: caller is not None and caller.role.allows(role) for role in Role}


def _nav(caller: Caller | None) -> list[tuple[str, str]]:
    if caller is None:
        return []
    parts = _OF_ALL if caller.role is Role.ROOT else (*_OF_TENANTS, *_OF_ALL)
    return [(name, PAGES + path) for name, path in parts]


def page(request: Request, template: str, *, title: str, **what: Any) -> HTMLResponse:
    """Return a page for who is signed in, with what was done before it, if anything was."""
    said = SAID.get(request.query_params.get("said", ""))
    return document(request.scope, template, title=title, said=said, **what)


def go_to(path: str, *, said: str | None = None) -> RedirectResponse:
    """Return the way to the page that shows what was done."""
    query = f"?said={said}" if said else ""
    return RedirectResponse(f"{PAGES}{path}{query}", status_code=303)


async def fields(request: Request) -> dict[str, list[str]]:
    """
    Return the fields of a form as they came.

    Raises:
        BadInputError: It is no form of ours.
    """
    body = await request.body()
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except (UnicodeError, ValueError):
        raise BadInputError("body: is not a form of a page", field="body") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


async def checked(request: Request) -> dict[str, list[str]]:
    """
    Return the fields of a form that a page of this session sent.

    Raises:
        ForbiddenError: Its token is not there, or of another session.
    """
    found = await fields(request)
    token = found.pop("token", [""])[0]
    if not signing.is_token(request.state.session, token):
        raise ForbiddenError("the form is not from a page of this session; load it again")
    return found


Form = Annotated[dict[str, list[str]], Depends(checked)]
"""What a route that changes anything takes: there is no other way to its fields."""


def first(form: dict[str, list[str]], name: str, default: str = "") -> str:
    return form.get(name, [default])[0]


def look(request: Request, caller: Caller, door: Door, work: Callable[[Tx], T]) -> T:
    """Return what `work` reads; pages that update themselves share it (`shared`)."""
    if "hx-request" not in request.headers:
        return door.read(work)
    shared: Shared = request.app.state.shared
    place = request.headers.get("leasehold-place", "")[:20]
    key = (caller.tenant_id, caller.role, request.url.path, request.url.query, place)
    return shared.get(key, lambda: door.read(work))
