"""A served deployment with one worker that offers `fake`, on both databases."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from answering import answering, pliant
from api.served import client_of, make_key, serving
from api.streaming import QUICK
from command_line import environment, serve
from leasehold import settings as knobs
from leasehold.api.serving import Service
from leasehold.api.watch import Pace
from leasehold.settings import Settings
from leasehold.store.database import Database
from leasehold.vault.keys import make_file
from store.rows import insert_held, insert_worker


@pytest.fixture
def settings(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Settings]:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LEASEHOLD_DATABASE_URL", database_url)
    # How fast a test asks is no matter of its own; tests/api/test_guards.py sets limits.
    monkeypatch.setenv("LEASEHOLD_API_REQUESTS_PER_S", "0")
    monkeypatch.setenv("LEASEHOLD_API_FAILURES_PER_MINUTE", "0")
    make_file(tmp_path / "home" / "secret-keys")
    with database.write("test") as tx:
        serve(tx, key="fake", host_id=insert_worker(tx)["host_id"])
        environment(tx, "place")
    root = tmp_path / "answers"
    # Whatever a test advertises: here the schema decides; tests/api/test_checks.py is stricter.
    loose = {key: pliant(root / key, {"type": "object"}) for key in ("fake", "cloud", "local")}
    with answering(database_url, root, providers=loose):
        yield knobs.load()


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    with serving(settings) as service:
        yield service


@pytest.fixture
def client(service: Service, database: Database) -> Iterator[httpx.Client]:
    """A client with an admin's key of the tenant `default`."""
    with client_of(service, make_key(database)) as client:
        yield client


@pytest.fixture
def run(database: Database) -> str:
    """A run that holds a sandbox."""
    with database.write("test") as tx:
        return str(insert_held(tx)[0]["id"])


@pytest.fixture
def quick(settings: Settings) -> Iterator[Service]:
    with serving(settings, pace=Pace(**QUICK)) as service:
        yield service
