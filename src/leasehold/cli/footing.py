"""
What a run stands on: a deployment, the running stack of its home, or one of its own.

A stack that somebody else holds may end while we follow our run (it may have been the own one
of another `run`). Then we take the home and bring one up, and the run goes on: its row is due.
"""

import os
import time
from contextlib import closing
from pathlib import Path
from typing import IO, Final, Self

from leasehold.cli.codes import say
from leasehold.embedded import stack as stacks
from leasehold.embedded.stack import Stack
from leasehold.errors import (
    BadInputError,
    BrokerUnavailableError,
    ConflictError,
    StoreUnavailableError,
)
from leasehold.settings import Settings
from leasehold.store import hosts, restored, schema
from leasehold.store.database import Database

_LOOK_S: Final = 0.5
_WAIT_S: Final = 0.05


def is_deployment(settings: Settings) -> bool:
    """Return whether the database is somebody else's to serve: then no stack is started."""
    return settings.database_url is not None


def is_served(settings: Settings) -> bool:
    """Return whether something that outlives this command takes runs."""
    return is_deployment(settings) or stacks.running(settings.home) is not None


def need_stack(settings: Settings, what: str) -> None:
    """
    Refuse what nobody would ever carry out.

    Raises:
        ConflictError: No stack runs in the home; names the command that starts one.
    """
    if not is_served(settings):
        home = settings.home.absolute()
        raise ConflictError(
            f"{what} needs a running stack, and none runs in {home};"
            " start `leasehold up` there, or set LEASEHOLD_DATABASE_URL"
        )


class Footing:
    """Keeps something there that carries runs, for as long as the block lasts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own: Stack | None = None
        self._log: IO[bytes] | None = None
        self._looked_at = 0.0

    @property
    def is_own(self) -> bool:
        return self._own is not None

    def __enter__(self) -> Self:
        if not is_deployment(self._settings):
            try:
                self._find()
                self._await_worker()
                self._check_trusted()
            except BaseException:
                self._leave()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def keep(self) -> None:
        """Look after it; call this often, from the thread that entered."""
        if is_deployment(self._settings) or time.monotonic() - self._looked_at < _LOOK_S:
            return
        self._looked_at = time.monotonic()
        if self._own is not None:
            self._own.look()
        elif stacks.running(self._settings.home) is None:
            self._find()

    def _find(self) -> None:
        while stacks.running(self._settings.home) is None:
            try:
                self._start()
            except ConflictError:
                time.sleep(_WAIT_S)  # another one took the home in between
                continue
            return

    def _start(self) -> None:
        home = self._settings.home.absolute()
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._log = _private(home / "agent.log")
        except OSError as error:
            raise BadInputError(
                f"LEASEHOLD_HOME: {home} cannot be written: {error.strerror}"
            ) from None
        stack = Stack(self._settings, agent_log=self._log)
        try:
            stack.start()
        except ConflictError:
            raise
        except BaseException:
            stack.stop()
            raise
        self._own = stack

    def _await_worker(self) -> None:
        """Wait until a worker of the home is ready; a stack may still be starting."""
        # What the submit will need is imported while the workers start.
        import leasehold.transport  # noqa: F401

        until = time.monotonic() + stacks.READY_S
        database: Database | None = None
        try:
            while time.monotonic() < until:
                database = database or _migrated(self._settings)
                if database is not None and _has_worker(database):
                    return
                self.keep()
                time.sleep(_WAIT_S)
        finally:
            if database is not None:
                database.close()
        raise BrokerUnavailableError(
            f"no worker was ready within {stacks.READY_S:g} s; "
            f"look into {self._settings.home.absolute() / 'agent.log'}"
        )

    def _check_trusted(self) -> None:
        """
        Refuse to wait for what nobody does while the alarm stands.

        Raises:
            ConflictError: Says what the alarm is about and which command takes it back.
        """
        address = self._settings.database_address
        with closing(Database(address)) as database, database.read() as tx:
            alarm = restored.alarm(tx)
        if alarm is not None:
            raise ConflictError(alarm)

    def _leave(self) -> None:
        if self._own is not None:
            self._own.stop()
            self._own = None
        if self._log is not None:
            self._log.close()
            self._log = None


def _private(path: Path) -> IO[bytes]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(handle, "ab")


def _migrated(settings: Settings) -> Database | None:
    database = Database(settings.database_address)
    try:
        if schema.state(database).ready:
            return database
    except StoreUnavailableError as error:
        say(str(error))
    database.close()
    return None


def _has_worker(database: Database) -> bool:
    try:
        with database.read() as tx:
            return any(row["kind"] == "steps" for row in hosts.ready_workers(tx))
    except StoreUnavailableError:
        return False
