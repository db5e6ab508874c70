"""
A request's way into the engine: who asks, and transactions for what they ask.

One `Door` serves a whole process; its database has a connection for every thread that handles
requests. A message that is not sent costs latency only, as everywhere.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Request

from leasehold import transport
from leasehold.bootstrap import App
from leasehold.domain import run_tokens
from leasehold.domain.roles import Role
from leasehold.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    RateLimitedError,
    StoreUnavailableError,
    UnauthenticatedError,
)
from leasehold.log import get_logger
from leasehold.orchestrator import keys, reporting, signing
from leasehold.orchestrator.reporting import Speaker
from leasehold.store import keys as key_rows
from leasehold.store import schema
from leasehold.store.database import Row, Tx
from leasehold.vault import keeping
from leasehold.vault.keys import SETTING, Keys, make_file

T = TypeVar("T")
log = get_logger(__name__)
_BEARER: Final = "bearer"
WAITING: Final = 16
"""Requests that wait for workers at once; each holds one of the threads that answer."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the holder of a key of a tenant, or of the platform (`ids.PLATFORM`)."""

    tenant_id: str
    role: Role
    key_id: str

    @property
    def actor(self) -> str:
        """Return what history calls them."""
        return f"key:{self.key_id}"


class Door:
    """What routes work with."""

    def __init__(self, app: App) -> None:
        self._database = app.database
        self._settings = app.settings
        self.context = app.context(publish=transport.Sender(app.settings))
        self._waiting = threading.BoundedSemaphore(WAITING)

    @property
    def max_workspace_bytes(self) -> int:
        """How big a workspace may be that is sent here, packed."""
        return self._settings.max_workspace_bytes

    def secret_keys(self) -> Keys:
        """
        Return the keys that encrypt secrets; an embedded stack makes its own.

        Raises:
            ConflictError: This process has none, or a file that is none.
        """
        path = self._settings.secret_keys_path
        if self._settings.database_url is None:
            make_file(path)
        try:
            return Keys.load(path)
        except BadInputError as error:
            # Where the file should be is no client's business.
            log.warning("secrets.no_keys", why=str(error))
            raise ConflictError(
                "this process of the API has no keys to encrypt secrets with; whoever runs it"
                f" has to set {SETTING}"
            ) from None

    def rotate_secrets(self, *, actor: str) -> tuple[str, int]:
        """
        Encrypt all values anew with the first key; return its name and how many.

        Raises:
            ConflictError: This process has no keys.
        """
        keys = self.secret_keys()
        return keys.first, keeping.rotate(self._database, keys, actor=actor)

    def read(self, work: Callable[[Tx], T]) -> T:
        """Do `work` in a transaction that only reads."""
        with self._database.read() as tx:
            return work(tx)

    def write(self, name: str, work: Callable[[Tx], T]) -> T:
        """Do `work` in a transaction that writes."""
        with self._database.write(f"api.{name}") as tx:
            return work(tx)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """
        Wait for others in this block: only so many requests may, or none else were answered.

        Raises:
            RateLimitedError: As many wait as may.
        """
        if not self._waiting.acquire(blocking=False):
            raise RateLimitedError(
                f"{WAITING} requests wait for workers already; try again in 1 s",
                retry_after_s=1.0,
            )
        try:
            yield
        finally:
            self._waiting.release()

    def check_ready(self) -> None:
        """
        Refuse to be sent requests without a database of our schema.

        Raises:
            StoreUnavailableError: It does not answer.
            SchemaError: It is older or newer than this program.
        """
        schema.check(self._database)

    def authenticate(self, authorization: str) -> Caller | Speaker:
        """
        Return who an `Authorization` header speaks for: a key's holder, or a run's command.

        Raises:
            UnauthenticatedError: It has no valid key or token.
        """
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != _BEARER or not key:
            raise UnauthenticatedError("send an API key: `Authorization: Bearer lh_…`")
        if key.startswith(run_tokens.PREFIX):
            start = reporting.execution_of(self.context, key)
            return self.read(lambda tx: reporting.authenticate(tx, start))
        keys.check_form(key)
        return self._caller(self.read(lambda tx: keys.authenticate(tx, key)))

    def caller_of_session(self, secret: str) -> tuple[Caller, str]:
        """
        Return who a browser's session speaks for, and the name of their key.

        Raises:
            UnauthenticatedError: It is over, or none of ours.
        """
        if not signing.is_secret(secret):
            raise UnauthenticatedError("sign in with an API key")
        row = self.read(lambda tx: signing.key_of(tx, secret))
        return self._caller(row), row["name"]

    def _caller(self, row: Row) -> Caller:
        if keys.is_to_be_touched(row):
            self._touch(row["id"])
        return Caller(row["tenant_id"], Role(row["role"]), row["id"])

    def _touch(self, key_id: str) -> None:
        try:
            self.write(
                "key.touch", lambda tx: key_rows.touch(tx, key_id, after_us=keys.TOUCH_US)
            )
        except StoreUnavailableError as error:
            # A database that takes no writes may still answer what is asked of it.
            log.warning("key.touch_failed", key=key_id, why=str(error))


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


class Needs:
    """The dependency of a route: its caller, who has one of these roles or one above."""

    def __init__(self, *roles: Role) -> None:
        self.roles = roles

    async def __call__(self, request: Request) -> Caller:
        caller: Caller | Speaker = request.state.caller
        if isinstance(caller, Speaker):
            raise ForbiddenError("a run's token opens /api/v1/run alone")
        if not any(caller.role.allows(role) for role in self.roles):
            raise ForbiddenError(_refusal(caller.role, self.roles[0]))
        return caller


def _refusal(has: Role, needs: Role) -> str:
    if has is Role.ROOT:
        return f"a key of the platform has no tenant; this needs a tenant's {needs.value}"
    if needs is Role.ROOT:
        return f"this key has the role {has.value}; this needs a key of the platform (root)"
    return f"this key has the role {has.value}; this needs at least {needs.value}"


async def _speaker(request: Request) -> Speaker:
    caller: Caller | Speaker = request.state.caller
    if not isinstance(caller, Speaker):
        raise ForbiddenError("this is for the commands of runs, with the token of their own")
    return caller


TheDoor = Annotated[Door, Depends(_door)]
Viewer = Annotated[Caller, Depends(Needs(Role.VIEWER))]
Operator = Annotated[Caller, Depends(Needs(Role.OPERATOR))]
Admin = Annotated[Caller, Depends(Needs(Role.ADMIN))]
Root = Annotated[Caller, Depends(Needs(Role.ROOT))]
Overseer = Annotated[Caller, Depends(Needs(Role.OPERATOR, Role.ROOT))]
Anybody = Annotated[Caller, Depends(Needs(Role.VIEWER, Role.ROOT))]
Inside = Annotated[Speaker, Depends(_speaker)]
"""A command that reports of its own run."""

KeyMaker = Annotated[Caller, Depends(Needs(Role.ADMIN, Role.ROOT))]
