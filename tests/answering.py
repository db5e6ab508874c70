"""A worker that only answers questions about configs, with the real `fake` or a test's own."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from leasehold import bootstrap
from leasehold.errors import StoreUnavailableError
from leasehold.orchestrator import vetting
from leasehold.orchestrator.jobs import Context
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Json, Provider, Validation
from leasehold.provider.fake import FakeProvider, make
from leasehold.provider.fake_world import World
from leasehold.provider.registry import Registry
from leasehold.provider.schema import check_schema
from leasehold.settings import Settings
from leasehold.store.database import Database

LOOK_S = 0.01


class Pliant(FakeProvider):
    """The fake with a schema of a test's own, and warnings."""

    schema: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def validate(self, config: Json, *, budget: Budget) -> Validation:
        with self._met("validate"):
            return replace(check_schema(self.schema, config), warnings=self.warnings)


def pliant(root: Path, schema: Mapping[str, Any], *warnings: str) -> Pliant:
    provider = Pliant(World(root))
    provider.schema, provider.warnings = schema, warnings
    return provider


def context_of(
    database: Database,
    root: Path,
    *,
    worker_id: str = "worker-1",
    providers: Mapping[str, Provider] | None = None,
) -> Context:
    """Return what such a worker works with; by default it has loaded `fake`."""
    app = bootstrap.build(Settings(home=root), database=database)
    fake = {"root": str(root / "sandboxes"), "deployment": app.deployment, "host_id": "h"}
    loaded = Registry(providers if providers is not None else {"fake": make(fake)})
    return app.context(publish=lambda _: None, worker_id=worker_id, providers=loaded)


def open_checks(database: Database) -> list[str]:
    with database.read() as tx:
        rows = tx.all(
            "SELECT id FROM config_checks WHERE answered_at IS NULL AND claimed_by IS NULL"
        )
    return [row["id"] for row in rows]


@contextmanager
def answering(
    url: str, root: Path, *, providers: Mapping[str, Provider] | None = None
) -> Iterator[None]:
    """Answer every question of a database while the block runs, as its worker-1 would."""
    database = Database(url)
    context = context_of(database, root, providers=providers)
    over = threading.Event()

    def work() -> None:
        while not over.wait(LOOK_S):
            try:
                for check_id in open_checks(database):
                    vetting.answer(context, check_id)
            except StoreUnavailableError:
                continue  # a test's trouble with its database

    thread = threading.Thread(target=work, name="answers")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        database.close()
