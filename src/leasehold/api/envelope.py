"""
What is around every request and every answer: an id, limits, headers, errors in one shape.

It is the outermost part, so that whatever is raised inside ends here: nobody sees a trace. The
id of a request is the client's, if it is a decent one, and is in each line of the log.
"""

import asyncio
import re
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from leasehold.api import answers
from leasehold.errors import SlowRequestError, TooLargeError
from leasehold.ids import new_id
from leasehold.log import get_logger
from leasehold.provider.budget import boot_time

log = get_logger(__name__)
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""More than a run's stdin (4 MiB) as base64, with its commands."""

MAX_HEADER_BYTES: Final = 16 * 1024
BODY_S: Final = 30.0
"""In which a body must be there as a whole."""

FILES: Final = ("/api/v1/run/artifacts/", "/api/v1/blobs/")
FILE_S: Final = 600.0
"""As `BODY_S`, of a file that is sent: it goes to disk as it comes."""

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Envelope:
    """ASGI middleware; see above."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_header_bytes: int = MAX_HEADER_BYTES,
        body_s: float = BODY_S,
        max_file_bytes: int = MAX_BODY_BYTES,
        shown: Callable[[Scope, Response], Response] = lambda _scope, answer: answer,
    ) -> None:
        self._app = app
        self._shown = shown
        self._max_body_bytes = max_body_bytes
        self._max_header_bytes = max_header_bytes
        self._body_s = body_s
        self._max_file_bytes = max_file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if _ID.fullmatch(asked) else new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        sender = _Sender(send, request_id)
        with bound_contextvars(request_id=request_id):
            try:
                is_file = scope["path"].startswith(FILES)
                limit = self._max_file_bytes if is_file else self._max_body_bytes
                self._check(scope, limit)
                within_s = FILE_S if is_file else self._body_s
                body = _Body(receive, limit=limit, within_s=within_s)
                await self._app(scope, body, sender)
            except Exception as error:
                if sender.started:
                    log.exception("answer.broken")
                    raise
                answer = self._shown(scope, answers.of(error, request_id=request_id))
                await answer(scope, receive, sender)

    def _check(self, scope: Scope, limit: int) -> None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size + len(scope["raw_path"]) + len(scope["query_string"]) > self._max_header_bytes:
            raise TooLargeError(
                f"the address and the headers have more than {self._max_header_bytes} bytes"
            )
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body has more than {limit} bytes")


class _Sender:
    """Sends an answer with what every answer has."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.started = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


class _Body:
    """Receives a body within its limits of size and time; then whatever the server says."""

    def __init__(self, receive: Receive, *, limit: int, within_s: float) -> None:
        self._receive = receive
        self._limit = limit
        self._until = boot_time() + within_s
        self._size = 0
        self._whole = False

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._until - boot_time())):
                message = await self._receive()
        except TimeoutError:
            raise SlowRequestError("the body did not come in time") from None
        if message["type"] != "http.request":
            return message
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise _too_large(self._limit)
        self._whole = not message.get("more_body", False)
        return message
