"""Errors as people see them: the answers of `api.answers`, as pages for who asked for one."""

import json
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import Scope

from leasehold.api import answers
from leasehold.api.gate import PAGES, SIGN_IN, is_page
from leasehold.api.pages.page import document

_KEPT: Final = ("retry-after", "connection", "allow")


def shown(scope: Scope, answer: Response) -> Response:
    """Return an error in the form that its reader can read."""
    headers = Headers(scope=scope)
    if scope["path"] == "/" and "text/html" in headers.get("accept", ""):
        return RedirectResponse(PAGES, status_code=303)  # a person typed the address
    if not is_page(scope["path"]):
        return answer
    if answer.status_code == HTTPStatus.UNAUTHORIZED and scope["path"] != SIGN_IN:
        return _to_sign_in(scope, headers)
    problem = json.loads(bytes(answer.body))
    kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
    page = document(
        scope, "problem.html", status=answer.status_code, problem=problem, title="Not done"
    )
    page.headers.update(kept)
    return page


def _to_sign_in(scope: Scope, headers: Headers) -> Response:
    wanted = scope["path"]
    if scope["query_string"]:
        wanted += "?" + scope["query_string"].decode("latin-1")
    if headers.get("accept", "").startswith("text/event-stream"):
        return Response(status_code=401)
    if "hx-request" in headers:
        return Response(status_code=401, headers={"HX-Redirect": SIGN_IN})
    back = f"?next={quote(wanted, safe='')}" if scope["method"] == "GET" else ""
    return RedirectResponse(f"{SIGN_IN}{back}", status_code=303)


async def of_http(request: Request, error: Exception) -> Response:
    """Return the answer for what the framework refuses by itself."""
    return shown(request.scope, await answers.of_http(request, error))


async def of_validation(request: Request, error: Exception) -> Response:
    """Return the answer for a request that is not as its route wants it."""
    return shown(request.scope, await answers.of_validation(request, error))
