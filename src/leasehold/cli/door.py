"""
A command's way into the engine: settings, database, context, and patience.

A database that does not answer is asked again with growing pauses for as long as `--patience`
says, and the wait is said once. A write whose commit's answer was lost may have happened; it is
repeated only if it is one that may be (a submit with a key, a request to end).
"""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Final, Self, TypeVar

from leasehold import bootstrap, log
from leasehold import settings as knobs
from leasehold.bootstrap import App
from leasehold.cli import heeding, local_only, tenancy
from leasehold.cli.codes import say
from leasehold.cli.options import patience
from leasehold.errors import NotFoundError, StoreUnavailableError
from leasehold.ids import DEFAULT_TENANT
from leasehold.orchestrator.jobs import Context, Message
from leasehold.settings import Settings
from leasehold.store import schema, tenants, views
from leasehold.store.database import Database, Tx

T = TypeVar("T")
_PAUSE_S: Final = 0.2
_PAUSE_MAX_S: Final = 5.0


def settings() -> Settings:
    """
    Read the settings of this process and set up its log.

    Raises:
        BadInputError: REST is the door of this process, and what is asked for needs SQL.
    """
    local_only.refuse("this command", "it works on the database itself")
    return read_settings()


def read_settings() -> Settings:
    """Read the settings, whichever door is taken, and set up the log."""
    found = knobs.load()
    asked = "log_level" in found.model_fields_set
    # A person reads our words; the engine's own are for logs that were asked for.
    log.configure(level=found.log_level if asked else "ERROR", as_json=found.log_json)
    return found


def patiently(what: str, call: Callable[[], T], *, patience_s: float) -> T:
    """
    Repeat `call` while the database does not answer, within the patience.

    Raises:
        StoreUnavailableError: It did not answer in time; names it.
    """
    began = time.monotonic()
    pause, told = _PAUSE_S, False
    while True:
        try:
            with heeding.unbroken():
                return call()
        except StoreUnavailableError as error:
            left = patience_s - (time.monotonic() - began)
            if left <= 0:
                raise StoreUnavailableError(
                    f"database {what} does not answer: {error}"
                ) from error
            if not told:
                say(f"database {what} does not answer ({error}); trying for {left:.0f} s")
                told = True
            time.sleep(min(pause, left))
            pause = min(pause * 2, _PAUSE_MAX_S)


def await_database(found: Settings) -> None:
    """
    Wait with patience for a database that does not answer yet.

    Raises:
        SchemaError: Its schema is older or newer than this program.
    """
    database = Database(found.database_address)
    try:
        patiently(database.where(), lambda: schema.check(database), patience_s=patience.get())
    finally:
        database.close()


class Door:
    """
    What a command works with; made once it is known what is asked.

    Raises:
        NotFoundError: The command is a tenant's, and there is no such tenant.
    """

    def __init__(self, found: Settings) -> None:
        self.settings = found
        self.patience_s = patience.get()
        self._database = Database(found.database_address)
        self.tenant = tenancy.tenant_of(found)
        """Whose rows this command works on."""
        try:
            self.app: App = patiently(
                self._database.where(),
                lambda: bootstrap.build(found, database=self._database),
                patience_s=self.patience_s,
            )
            if self.tenant != DEFAULT_TENANT:  # that one there is always
                self.read(lambda tx: tenants.get(tx, self.tenant))
        except BaseException:
            self._database.close()
            raise

    @cached_property
    def context(self) -> Context:
        """The engine's parts; Celery is imported only if something is sent."""
        sender: list[Callable[[Message], bool | None]] = []

        def publish(message: Message) -> None:
            if not sender:
                from leasehold.transport import publisher

                sender.append(publisher(self.settings, on_failure=_say_unsent))
            sender[0](message)

        return self.app.context(publish=publish, worker_id="")

    def read(self, work: Callable[[Tx], T]) -> T:
        """Do `work` in a transaction that only reads."""

        def once() -> T:
            with self.app.database.read() as tx:
                return work(tx)

        return patiently(self._database.where(), once, patience_s=self.patience_s)

    def write(self, name: str, work: Callable[[Tx], T], *, repeatable: bool = True) -> T:
        """Do `work` in a transaction that writes."""

        def once() -> T:
            with self.app.database.write(f"cli.{name}") as tx:
                return work(tx)

        patience_s = self.patience_s if repeatable else 0.0
        return patiently(self._database.where(), once, patience_s=patience_s)

    def resolve(self, noun: str, text: str) -> str:
        """
        Return the whole id of the tenant's run or lease that `text` begins or ends.

        Raises:
            NotFoundError: There is none, or there are several; says so.
        """
        found = self.read(lambda tx: views.ids_like(tx, noun, text, tenant_id=self.tenant))
        if text in found:
            return text
        if not found:
            raise NotFoundError(f"there is no {noun} {text}")
        if len(found) > 1:
            some = ", ".join(found[:3])
            raise NotFoundError(f"{noun} {text}: several ids begin or end so: {some}, …")
        return found[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()


def _say_unsent(why: str) -> None:
    say(f"the broker does not answer ({why}); nothing is lost: a worker's clock sends it later")


def enter() -> Door:
    """Read the settings and open the door."""
    return Door(settings())
