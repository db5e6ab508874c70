"""
Nobody comes past here without a valid key, wherever they want to go, nor too often.

It stands before the routes, so that a new one cannot be open by mistake, a body of a stranger
is not even read, and what exists is not told by 404 and 405.

Requests are counted by key, failures by address, in the memory of this process: several
processes let as many times more through. An address that failed too often is refused before
anything is looked up, but for keys that were found valid here: one who guesses behind a proxy
does not lock out the others there. Those keys are looked up all the same.

Pages are asked for by browsers, which have a session in a cookie and send it with whatever any
site makes them send. So what changes something is refused unless a page of ours sent it, here;
and once more by its form's token (`pages.page`).
"""

import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from leasehold.api.door import Caller, Door
from leasehold.domain.buckets import MOST, Buckets
from leasehold.errors import ForbiddenError, RateLimitedError, UnauthenticatedError
from leasehold.orchestrator.reporting import OverError, Speaker
from leasehold.provider.budget import boot_time
from leasehold.settings import Settings

INSIDE: Final = "/api/v1/run"
"""Below it is what a run's token opens, and it opens nothing else."""

HELPER: Final = f"{INSIDE}/helper.sh"
HELLO: Final = f"{INSIDE}/hello"
OPEN: Final = frozenset({"/healthz", "/readyz", HELPER, HELLO})
"""What needs no key: it says whether we live, who we are, and how a command reports."""

_OF_A_RUN_S: Final = 20.0
_OF_A_RUN_BURST: Final = 100.0
"""Requests with one run token; an answer to more says when to come again."""

T = TypeVar("T")
PAGES: Final = "/monitor"
SIGN_IN: Final = f"{PAGES}/sign-in"
STATIC: Final = f"{PAGES}/static/"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OURS: Final = frozenset({"same-origin", "none"})
"""What `Sec-Fetch-Site` says of a page of ours, or of a person who typed the address."""

_MINUTE_S: Final = 60
_ONE_HOME: Final = 64
"""Bits of an IPv6 address that are given to a customer; the others are theirs to choose."""


class Gate:
    """ASGI middleware; leaves the caller in the request's state."""

    def __init__(self, app: ASGIApp, *, door: Door, settings: Settings) -> None:
        self._app = app
        self._door = door
        a_minute = settings.api_failures_per_minute
        self._requests = Buckets(settings.api_requests_per_s, settings.api_burst)
        self._reports = Buckets(_OF_A_RUN_S, _OF_A_RUN_BURST)
        self._failures = Buckets(a_minute / _MINUTE_S, max(1.0, a_minute))
        self._valid: OrderedDict[bytes, None] = OrderedDict()
        """Digests of what was valid lately; only the event loop's thread is here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            if is_page(scope["path"]):
                await self._enter_page(scope)
            else:
                header = Headers(scope=scope).get("authorization", "")
                authenticate = partial(self._door.authenticate, header)
                self._enter(scope, await self._known(header, address_of(scope), authenticate))
        await self._app(scope, receive, send)

    def _enter(self, scope: Scope, caller: Caller | Speaker) -> None:
        if isinstance(caller, Speaker):
            self._admit_run(caller, scope["path"])
        elif wait_s := self._requests.take(caller.key_id, now=boot_time()):
            raise RateLimitedError(
                "too many requests with this key", retry_after_s=round(wait_s, 3)
            )
        scope["state"]["caller"] = caller

    def _admit_run(self, caller: Speaker, path: str) -> None:
        if path != INSIDE and not path.startswith(f"{INSIDE}/"):
            raise ForbiddenError(f"a run's token opens {INSIDE} alone")
        if wait_s := self._reports.take(caller.execution_id, now=boot_time()):
            raise RateLimitedError(
                "too many reports of this run", retry_after_s=round(wait_s, 3)
            )

    async def _enter_page(self, scope: Scope) -> None:
        if scope["method"] not in _READS:
            check_origin(scope)
        if scope["path"].startswith(STATIC):
            return
        address = address_of(scope)
        if scope["path"] == SIGN_IN:
            if scope["method"] not in _READS or scope["query_string"].startswith(b"link="):
                # A guess, until it is known to be none: then it is given back.
                self._take_failure(address)
                scope["state"]["was_valid"] = partial(self._failures.give_back, address)
            return
        secret = session_of(scope)
        if not secret:
            raise UnauthenticatedError("sign in with an API key")
        authenticate = partial(self._door.caller_of_session, secret)
        caller, name = await self._known(secret, address, authenticate)
        self._enter(scope, caller)
        scope["state"] |= {"session": secret, "key_name": name}

    def _take_failure(self, address: str) -> None:
        if wait_s := self._failures.take(address, now=boot_time()):
            raise RateLimitedError(
                "too many requests without a valid API key", retry_after_s=round(wait_s, 3)
            )

    async def _known(self, proof: str, address: str, authenticate: Callable[[], T]) -> T:
        digest = hashlib.sha256(proof.encode(errors="surrogateescape")).digest()
        suspect = digest not in self._valid
        # Taken beforehand, so that a thousand guesses at once are a thousand.
        if suspect:
            self._take_failure(address)
        try:
            found = await run_in_threadpool(authenticate)
        except OverError:
            self._valid.pop(digest, None)
            self._spare(suspect, address)  # no guess: we have made it
            raise
        except UnauthenticatedError:
            self._valid.pop(digest, None)
            raise
        except BaseException:
            self._spare(suspect, address)  # nobody knows whether it is valid
            raise
        self._spare(suspect, address)
        self._valid[digest] = None
        self._valid.move_to_end(digest)
        if len(self._valid) > MOST:
            self._valid.popitem(last=False)
        return found

    def _spare(self, suspect: bool, address: str) -> None:  # noqa: FBT001  as it came
        if suspect:
            self._failures.give_back(address)


def is_page(path: str) -> bool:
    """Return whether a path is asked for by people's browsers."""
    return path == PAGES or path.startswith(f"{PAGES}/")


def cookie_name(scope: Scope) -> str:
    """Return the session's cookie; with TLS no other site below our domain can set it."""
    return "__Host-leasehold" if scope["scheme"] == "https" else "leasehold"


def session_of(scope: Scope) -> str:
    """Return the secret of a browser's session, or nothing."""
    cookies = cookie_parser(Headers(scope=scope).get("cookie", ""))
    return cookies.get(cookie_name(scope), "")


def check_origin(scope: Scope) -> None:
    """
    Refuse what a page of another site sends.

    Browsers say with `Sec-Fetch-Site` who sends it where they trust the connection, with
    `Origin` elsewhere; who says neither is no browser.

    Raises:
        ForbiddenError: Another site's page sent it.
    """
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        ours = site in _OURS
    else:
        ours = origin is None or urlsplit(origin).netloc == headers.get("host", "")
    if not ours:
        raise ForbiddenError("this was sent by a page of another site")


def address_of(scope: Scope) -> str:
    """Return by what a client's failures are counted: its address, or its IPv6 network."""
    client = scope.get("client")
    text = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _ONE_HOME), strict=False))
    return text
