"""
Builds the parts of a process from its settings; the only place that does.

The seams are here: time (`wall_us` of the database's clock), the broker (`publish`), randomness
(`rng`), and every effect, which is bracketed by `leasehold.seams` points wherever it happens
(``commit.*``, ``publish.*``, ``provider.*``, and the provider's own files).
"""

import os
import random
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import psutil
import sqlalchemy as sa

from leasehold import log, reaching
from leasehold import settings as knobs
from leasehold.blobs import Blobs
from leasehold.domain.timers import Timers
from leasehold.errors import BadInputError
from leasehold.ids import new_id
from leasehold.orchestrator.jobs import Context, FileLimits, Message
from leasehold.provider.registry import Registry
from leasehold.settings import Settings
from leasehold.store import environments, restored, schema
from leasehold.store.database import Database
from leasehold.trees.reading import Limits
from leasehold.vault import making
from leasehold.vault.vault import Vault

PER_GIB: Final = 64
"""Sandboxes that a GiB of a host's memory bears by default."""


def timers_of(settings: Settings) -> Timers:
    """
    Return the timers with their overrides.

    Raises:
        BadInputError: An unknown timer, a value that is no duration, or a broken inequality.
    """
    known = {field.name for field in fields(Timers)}
    changes: dict[str, Any] = {}
    for name, value in settings.timers.items():
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise BadInputError(f"LEASEHOLD_TIMERS: no timer {name!r}; there are: {allowed}")
        try:
            changes[name] = knobs.as_timedelta(value)
        except ValueError:
            kind = type(value).__name__
            raise BadInputError(
                f"LEASEHOLD_TIMERS: {name} must be seconds or ISO 8601, got {kind}"
            ) from None
    timers = replace(Timers(), **changes)
    timers.check()
    return timers


@dataclass(frozen=True, slots=True)
class App:
    """The parts that every door needs."""

    settings: Settings
    database: Database
    timers: Timers
    deployment: str
    epoch: int
    run_token_key: str = field(default="", repr=False)
    vault: Vault = field(default_factory=lambda: Vault({}))

    def context(
        self,
        *,
        publish: Callable[[Message], bool | None],
        worker_id: str = "",
        nudge: Callable[[], None] = lambda: None,
        **parts: Any,
    ) -> Context:
        """Return what the engine works with in this process."""
        return Context(
            database=self.database,
            timers=self.timers,
            deployment=self.deployment,
            epoch=self.epoch,
            worker_id=worker_id,
            publish=publish,
            nudge=nudge,
            blobs=Blobs(self.settings.store_address),
            limits=file_limits(self.settings),
            git_schemes=git_schemes(self.settings),
            git_ca_file=self.settings.git_ca_file,
            run_token_key=self.run_token_key,
            reach=reaching.of(self.settings),
            max_concurrent=self.settings.max_concurrent,
            max_per_tenant=self.settings.max_per_tenant,
            max_queued=self.settings.max_queued,
            rng=parts.pop("rng", None) or random.Random(),  # noqa: S311  jitter
            vault=self.vault,
            **parts,
        )

    def registry(self, host_id: str) -> Registry:
        """Load the plugins of this process; once, after any fork."""
        root = self.settings.host_home / "sandboxes"

        def settings_for(key: str) -> Mapping[str, Any]:
            return {
                "root": str(root / key),
                "deployment": self.deployment,
                "host_id": host_id,
            }

        return Registry.load(settings_for, allow_fake=self.settings.allow_fake)


def file_limits(settings: Settings) -> FileLimits:
    """Return how much may go into a sandbox and come out of it."""
    return FileLimits(
        workspace=Limits(
            files=settings.max_workspace_files, bytes=settings.max_workspace_bytes
        ),
        artifacts=Limits(files=settings.max_artifacts, bytes=settings.max_artifacts_bytes),
        artifact_bytes=settings.max_artifact_bytes,
    )


def git_schemes(settings: Settings) -> frozenset[str]:
    """Return what a git URL may begin with; an embedded home's disk is its user's own."""
    embedded = {"file"} if settings.database_url is None else set()
    return frozenset(settings.git_schemes.split(",")) | embedded


def build(
    settings: Settings,
    *,
    wall_us: Callable[[], int] | None = None,
    pool_size: int = 5,
    database: Database | None = None,
) -> App:
    """
    Build the parts of a process; its database must have this code's schema.

    Raises:
        SchemaError: The schema is older or newer; names the command that mends it.
        StoreUnavailableError: The database does not answer.
        BadInputError: A timer breaks a promise.
    """
    timers = timers_of(settings)
    if settings.store_url is not None:
        Blobs(settings.store_url).check()
    database = database or Database(
        settings.database_address, pool_size=pool_size, wall_us=wall_us
    )
    schema.check(database)
    with database.read() as tx:
        deployment = environments.fact(tx, "deployment") or ""
        epoch = restored.epoch(tx)
        run_token_key = environments.fact(tx, "run_token_key") or ""
    return App(
        settings=settings,
        database=database,
        timers=timers,
        deployment=deployment,
        epoch=epoch,
        run_token_key=run_token_key,
        vault=making.make(settings, database, deployment=deployment, told=log.hide),
    )


def visiting(
    settings: Settings, url: sa.URL, *, publish: Callable[[Message], bool | None]
) -> Context:
    """
    Return what submits and admits in a transaction of a program that is not ours.

    Its `database` is there for its address: nobody connects to it.

    Raises:
        BadInputError: A timer breaks a promise.
    """
    database = Database(url)
    app = App(settings, database, timers_of(settings), deployment="", epoch=0)
    return app.context(publish=publish)


def renewed(app: App) -> App:
    """
    Return the parts with the deployment's epoch as it is now (`leasehold db restored`).

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with app.database.read() as tx:
        return replace(app, epoch=restored.epoch(tx))


def host_id_of(home: Path) -> str:
    """Return this host's id: random, kept beside its sandboxes, made on first use."""
    path = home / "host-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"host-id.{os.getpid()}")
    fresh.write_text(new_id())
    try:
        # link refuses to replace: of two that start at once, one decides.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_text().strip()


def host_name() -> str:
    return socket.gethostname()


def host_capacity(settings: Settings) -> int:
    """Return how many sandboxes this host takes: the setting, or what its memory bears."""
    if settings.host_capacity is not None:
        return settings.host_capacity
    gib = psutil.virtual_memory().total / 1024**3
    return max(4, int(gib * PER_GIB))
