"""
Databases for tests: a fresh, migrated one per test, on both kinds, for the price of a copy.

SQLite: a template file, made once per session, copied per test. PostgreSQL: a template
database, cloned per test. After each test the invariants must hold; a test that breaks them
on purpose says so with `@pytest.mark.breaks_invariants`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from leasehold.store import history, invariants, schema
from leasehold.store.database import Database

if TYPE_CHECKING:
    # Only for its name: pytest itself must be the first to import it.
    from services import Postgres

pytest_plugins = ("services",)


# The same examples in every run, and no verdict that hangs on how busy the machine is.
hypothesis.settings.register_profile(
    "leasehold", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("leasehold")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "breaks_invariants: leaves rows behind that no promise allows, on purpose"
    )


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, closed, to be copied."""
    path = tmp_path_factory.mktemp("template") / "leasehold.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: "Postgres") -> Iterator[str]:
    """URL of a migrated PostgreSQL database that nobody is connected to, to be cloned."""
    with postgres.database() as url:
        database = Database(url)
        schema.upgrade(database)
        database.close()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """The kind of database under test; choose one with ``-k sqlite``."""
    return str(request.param)


@pytest.fixture
def empty_database_url(
    request: pytest.FixtureRequest, dialect: str, tmp_path: Path
) -> Iterator[str]:
    """URL of a database with nothing in it."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database() as url:
        yield url


@pytest.fixture
def database_url(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> Iterator[str]:
    """URL of a fresh, migrated database."""
    if dialect == "sqlite":
        path = tmp_path / "leasehold.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database(template=request.getfixturevalue("postgres_template")) as url:
        yield url


@pytest.fixture
def database(request: pytest.FixtureRequest, database_url: str) -> Iterator[Database]:
    """A fresh, migrated database; when the test is over, the invariants must hold."""
    database = Database(database_url)
    yield database
    if request.node.get_closest_marker("breaks_invariants") is None:
        with database.read() as tx:
            violations = invariants.check(tx)
            differences = history.verify(tx)
        assert not violations, "\n".join(map(str, violations))
        assert not differences, "\n".join(map(str, differences))
    database.close()
