"""
Nobody comes past here without a valid key, wherever they want to go.

It stands before the routes, so that a new one cannot be open by mistake, a body of a stranger
is not even read, and what exists is not told by 404 and 405.
"""

from typing import Final

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from leasehold.api.door import Door

OPEN: Final = frozenset({"/healthz", "/readyz"})
"""What needs no key: it says nothing but whether we live."""


class Gate:
    """ASGI middleware; leaves the caller in the request's state."""

    def __init__(self, app: ASGIApp, *, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            header = Headers(scope=scope).get("authorization", "")
            caller = await run_in_threadpool(self._door.authenticate, header)
            scope["state"]["caller"] = caller
        await self._app(scope, receive, send)
