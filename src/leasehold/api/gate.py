"""
Nobody comes past here without a valid key, wherever they want to go, nor too often.

It stands before the routes, so that a new one cannot be open by mistake, a body of a stranger
is not even read, and what exists is not told by 404 and 405.

Requests are counted by key, failures by address, in the memory of this process: several
processes let as many times more through. An address that failed too often is refused before
anything is looked up, but for keys that were found valid here: one who guesses behind a proxy
does not lock out the others there. Those keys are looked up all the same.
"""

import hashlib
import ipaddress
from collections import OrderedDict
from typing import Final

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
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
            header = Headers(scope=scope).get("authorization", "")
            caller = await self._known(header, address_of(scope))
            if isinstance(caller, Speaker):
                self._admit_run(caller, scope["path"])
            elif wait_s := self._requests.take(caller.key_id, now=boot_time()):
                raise RateLimitedError(
                    "too many requests with this key", retry_after_s=round(wait_s, 3)
                )
            scope["state"]["caller"] = caller
        await self._app(scope, receive, send)

    def _admit_run(self, caller: Speaker, path: str) -> None:
        if path != INSIDE and not path.startswith(f"{INSIDE}/"):
            raise ForbiddenError(f"a run's token opens {INSIDE} alone")
        if wait_s := self._reports.take(caller.execution_id, now=boot_time()):
            raise RateLimitedError(
                "too many reports of this run", retry_after_s=round(wait_s, 3)
            )

    async def _known(self, header: str, address: str) -> Caller | Speaker:
        digest = hashlib.sha256(header.encode(errors="surrogateescape")).digest()
        suspect = digest not in self._valid
        # Taken beforehand, so that a thousand guesses at once are a thousand.
        if suspect and (wait_s := self._failures.take(address, now=boot_time())):
            raise RateLimitedError(
                "too many requests without a valid API key", retry_after_s=round(wait_s, 3)
            )
        try:
            caller = await run_in_threadpool(self._door.authenticate, header)
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
        return caller

    def _spare(self, suspect: bool, address: str) -> None:  # noqa: FBT001  as it came
        if suspect:
            self._failures.give_back(address)


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
