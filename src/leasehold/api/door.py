"""
A request's way into the engine: who asks, and transactions for what they ask.

One `Door` serves a whole process; its database has a connection for every thread that handles
requests. A message that is not sent costs latency only, as everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Request

from leasehold import transport
from leasehold.bootstrap import App
from leasehold.domain.roles import Role
from leasehold.errors import (
    ForbiddenError,
    StoreUnavailableError,
    UnauthenticatedError,
)
from leasehold.log import get_logger
from leasehold.orchestrator import keys
from leasehold.store import keys as key_rows
from leasehold.store import schema
from leasehold.store.database import Tx

T = TypeVar("T")
log = get_logger(__name__)
_BEARER: Final = "bearer"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the holder of a key of a tenant."""

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
        self.context = app.context(publish=transport.Sender(app.settings))

    def read(self, work: Callable[[Tx], T]) -> T:
        """Do `work` in a transaction that only reads."""
        with self._database.read() as tx:
            return work(tx)

    def write(self, name: str, work: Callable[[Tx], T]) -> T:
        """Do `work` in a transaction that writes."""
        with self._database.write(f"api.{name}") as tx:
            return work(tx)

    def check_ready(self) -> None:
        """
        Refuse to be sent requests without a database of our schema.

        Raises:
            StoreUnavailableError: It does not answer.
            SchemaError: It is older or newer than this program.
        """
        schema.check(self._database)

    def authenticate(self, authorization: str) -> Caller:
        """
        Return who an `Authorization` header speaks for.

        Raises:
            UnauthenticatedError: It has no valid key.
        """
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != _BEARER or not key:
            raise UnauthenticatedError("send an API key: `Authorization: Bearer lh_…`")
        keys.check_form(key)
        row = self.read(lambda tx: keys.authenticate(tx, key))
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
    """The dependency of a route: its caller, whose role allows it."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Caller:
        caller: Caller = request.state.caller
        if not caller.role.allows(self.role):
            has, needs = caller.role.value, self.role.value
            raise ForbiddenError(f"this key has the role {has}; this needs at least {needs}")
        return caller


TheDoor = Annotated[Door, Depends(_door)]
Viewer = Annotated[Caller, Depends(Needs(Role.VIEWER))]
Operator = Annotated[Caller, Depends(Needs(Role.OPERATOR))]
Admin = Annotated[Caller, Depends(Needs(Role.ADMIN))]
