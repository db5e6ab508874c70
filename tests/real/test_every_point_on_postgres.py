"""
The crash suite's stories on PostgreSQL: a worker is killed at points spread over each of them.

On SQLite every point is taken (`tests/crash/test_every_point.py`); here every `STRIDE`-th, with
an offset that differs between stories, so that all of them together meet most kinds of points.
What is different here is what SQLite cannot show: transactions of a killed worker that the
server still holds for a moment, READ COMMITTED, and row locks instead of one writer.
"""

import gc
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.acts import jumps
from crash.expected import Scenario
from crash.harness import Cell, Cells, furnish
from crash.scenarios import SCENARIOS
from crash.sweep import tell
from leasehold.store import schema
from leasehold.store.database import Database
from services import Postgres

STRIDE = 12
# The jumps of a story's clock are made in SQLite's own; `tests/time` has those of PostgreSQL.
STORIES = [story for story in SCENARIOS if story.watch is not jumps]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class PostgresCells(Cells):
    """Cells whose database is a clone on a PostgreSQL of ours."""

    def __init__(self, root: Path, postgres: Postgres) -> None:
        super().__init__(root)
        self._postgres = postgres

    def prepare(self) -> None:
        """Make the template: a database to be cloned, and a host's directory."""
        (self._template / "marks").mkdir(parents=True)
        (self._template / "database-url").write_text(self._postgres.create())
        cell = Cell(self._template)
        database = Database(cell.database_url)
        schema.upgrade(database)
        furnish(cell, database)
        database.close()

    def make(self) -> Cell:
        cell = super().make()
        template = Cell(self._template).database_url
        (cell.path / "database-url").write_text(self._postgres.create(template=template))
        return cell

    def drop(self, cell: Cell) -> None:
        """Remove a cell that ended well, and its database."""
        self._postgres.drop(cell.database_url)
        super().drop(cell)


@pytest.fixture(scope="module")
def cells(postgres: Postgres) -> Iterator[PostgresCells]:
    made = PostgresCells(Path(tempfile.mkdtemp(prefix="leasehold-crash-")), postgres)
    made.prepare()
    gc.collect()
    gc.freeze()
    yield made
    made.close()
    gc.unfreeze()


@pytest.mark.parametrize("scenario", STORIES, ids=[story.id for story in STORIES])
def test_a_worker_killed_on_the_way_changes_nothing(
    cells: PostgresCells, scenario: Scenario
) -> None:
    kills = tell(cells, scenario).kills(0, scenario)
    offset = zlib.crc32(scenario.id.encode()) % STRIDE
    for kill in kills[offset::STRIDE]:
        tell(cells, scenario, kill)
